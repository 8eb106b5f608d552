//! The arguments of `pintle explain`.

use std::net::IpAddr;

use super::ConfigArgs;
use super::values::{parse_field, parse_method, parse_url_text};

#[derive(clap::Args)]
pub(in crate::cli) struct ExplainArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// The URL that a client asks for
    #[arg(value_name = "URL", value_parser = parse_url_text, required_unless_present = "request")]
    pub(in crate::cli) url: Option<String>,
    /// Explain why the request or handshake with this id in the access log ended as it did; asks the running process
    #[arg(long, value_name = "ID", conflicts_with_all = [
        "url", "from", "fields", "http", "method", "proxy", "response_fields", "http2", "sni", "live",
    ])]
    pub(in crate::cli) request: Option<String>,
    /// The address that the connection comes from: a client's, or a balancer's [default: 203.0.113.1, an untrusted
    /// client]
    #[arg(long, value_name = "IP")]
    pub(in crate::cli) from: Option<IpAddr>,
    /// A field of the request, such as 'X-Forwarded-Proto: https'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = parse_field)]
    pub(in crate::cli) fields: Vec<(String, String)>,
    /// The request arrives on the plain listener, whatever the URL says, as from a TLS offloader
    #[arg(long)]
    pub(in crate::cli) http: bool,
    /// The method [default: GET]
    #[arg(long, value_name = "METHOD", value_parser = parse_method)]
    pub(in crate::cli) method: Option<String>,
    /// The request comes over HTTP/2; without it, over HTTP/1.1
    #[arg(long, conflicts_with = "http")]
    pub(in crate::cli) http2: bool,
    /// The name in SNI, if it differs from the URL's: the request then uses a connection that was opened for another
    /// name
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) sni: Option<String>,
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
