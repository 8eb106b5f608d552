//! The arguments of `pintle install`.

use std::path::PathBuf;

use super::ConfigArgs;
use super::values::parse_date;
use crate::commands::install::{InstallSource, Options};

#[derive(clap::Args)]
pub(in crate::cli) struct InstallArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(in crate::cli) site: String,
    /// The new certificate chain, leaf first
    #[arg(required_unless_present = "previous")]
    pub(in crate::cli) chain: Option<PathBuf>,
    /// Its key [default: the key in use, or a matching key beside it]
    pub(in crate::cli) key: Option<PathBuf>,
    /// Bring back the chain and key that the last installation replaced, if no promise forbids it
    #[arg(long, conflicts_with = "chain")]
    pub(in crate::cli) previous: bool,
    /// With --previous, for a site with several certificates: the kind of key
    #[arg(long, requires = "previous", value_name = "KIND", value_parser = ["rsa", "ecdsa"])]
    pub(in crate::cli) algorithm: Option<String>,
    /// Print the verdict, change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Lock out clients that hold older pins; DATE is the date that the refusal names
    #[arg(long, alias = "accept_lockout_until", value_name = "DATE", value_parser = parse_date)]
    pub(in crate::cli) accept_lockout_until: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl InstallArgs {
    /// Splits them into the configuration and the options of the command.
    pub(in crate::cli) fn split(self) -> (ConfigArgs, Options) {
        let source = match self.chain {
            Some(chain) => InstallSource::Files { chain, key: self.key },
            None => InstallSource::Previous { rsa: self.algorithm.map(|kind| kind == "rsa") },
        };
        let (host, accept) = (self.site, self.accept_lockout_until);
        (self.config, Options { host, source, dry_run: self.dry_run, accept, as_json: self.json })
    }
}
