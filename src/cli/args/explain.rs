//! The arguments of `pintle explain`.

use std::net::IpAddr;

use super::ConfigArgs;
use super::values::{parse_field, parse_url_text};

#[derive(clap::Args)]
pub(in crate::cli) struct ExplainArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// The URL that a client asks for
    #[arg(value_name = "URL", value_parser = parse_url_text)]
    pub(in crate::cli) url: String,
    /// The address that the connection comes from: a client's, or a balancer's [default: 203.0.113.1, a stranger]
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) from: Option<IpAddr>,
    /// A field of the request, such as 'X-Forwarded-Proto: https'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_field)]
    pub(in crate::cli) fields: Vec<(String, String)>,
    /// The request comes by the plain listener, whatever the URL says, as from a TLS offloader
    #[arg(long)]
    pub(in crate::cli) http: bool,
    /// The method
    #[arg(long, value_name = "METHOD")]
    pub(in crate::cli) method: Option<String>,
    /// The PROXY header before the request, if listen.proxy_protocol is set: a line of version 1, or hex: and version 2
    #[arg(long, value_name = "HEADER")]
    pub(in crate::cli) proxy: Option<String>,
    /// A field of the upstream's response; may be repeated
    #[arg(long = "response-header", value_name = "FIELD", value_parser = parse_field)]
    pub(in crate::cli) response_fields: Vec<(String, String)>,
    /// Ask the running process, which knows its ledger, its leases and the health of its upstreams
    #[arg(long)]
    pub(in crate::cli) live: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
