//! The arguments of `pintle demo`.

use std::path::PathBuf;

#[derive(clap::Args)]
pub(in crate::cli) struct DemoArgs {
    /// The folder of the demo's keys, certificates and configuration
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// The port for https
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub(in crate::cli) https_port: u16,
    /// The port for http
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub(in crate::cli) http_port: u16,
}
