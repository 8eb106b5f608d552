//! The arguments of each command.

mod config;
mod demo;
mod explain;
mod cache;
mod hook;
mod page;
mod install;
mod key;
mod renew;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};

use crate::commands::{doctor, init, pin};
use crate::export::ExportForm;
use crate::host::HostPattern;
use crate::verify::target::{ConnectTo, Url};
pub(super) use cache::{CacheArgs, PurgeArgs};
pub(super) use config::{ChangeArgs, ConfigCommand};
pub(super) use demo::DemoArgs;
pub(super) use explain::ExplainArgs;
pub(super) use hook::{HookCommand, HookTestArgs};
pub(super) use install::InstallArgs;
pub(super) use key::{CompromisedRole, KeyCommand, NewKeyArgs, RevokeArgs};
pub(super) use page::{AdminSubcommand, PageArgs};
pub(super) use renew::RenewArgs;
use values::{parse_duration, parse_https_url, parse_pause, parse_url};

#[derive(clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file [default: config/pintle.toml, then /etc/pintle/pintle.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Refuse to start if a site has no certificate that can be served; without it, pintle serves the other sites
    #[arg(long)]
    pub(super) strict: bool,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

#[derive(clap::Args)]
pub(super) struct CheckAllArgs {
    #[command(flatten)]
    pub(super) check: CheckArgs,
    /// Also connect to each upstream, and check its name, port, certificate and answer; and ask each CA of
    /// `[acme]` whether it wants another setting
    #[arg(long)]
    pub(super) connect: bool,
    #[command(flatten)]
    pub(super) root: RootArgs,
}

#[derive(clap::Args)]
pub(super) struct RootArgs {
    /// Permit root to serve if no other user is set, like process.allow_root = true
    #[arg(long = "allow-root", env = "PINTLE_ALLOW_ROOT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(super) allow: bool,
}

#[derive(clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) check: CheckArgs,
    /// Exit with code 1 if something needs attention
    #[arg(long)]
    pub(super) exit_code: bool,
    /// Repeat the state, with rates, until you stop it; with --json, one line per round
    #[arg(
        long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = parse_pause,
        conflicts_with = "exit_code"
    )]
    pub(super) watch: Option<Duration>,
    /// Stop --watch after this many rounds
    #[arg(long, value_name = "NUMBER", requires = "watch")]
    pub(super) rounds: Option<u64>,
}

#[derive(clap::Args)]
pub(super) struct PinArgs {
    /// Files with certificates or keys; - reads standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The format [default: one line per file]
    #[arg(long = "as", value_enum, value_name = "FORM", conflicts_with = "json")]
    pub(super) form: Option<PinForm>,
    /// With --as header: the time for which clients hold the pins
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    pub(super) max_age: Duration,
    /// With --as header: bind the names below the host, too
    #[arg(long)]
    pub(super) include_subdomains: bool,
    /// With --as header: the URI for reports of violations
    #[arg(long, value_name = "URI")]
    pub(super) report_uri: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct VerifyArgs {
    /// The page to visit, such as `https://blog.example.com/`
    #[arg(value_name = "URL", value_parser = parse_https_url)]
    pub(super) url: Url,
    /// Connect to this HOST:PORT or IP address instead of DNS; SNI and Host stay those of the URL
    #[arg(long, value_name = "ADDR")]
    pub(super) connect: Option<ConnectTo>,
    /// The address of plain HTTP [default: port 80 of the TLS server]
    #[arg(long, value_name = "ADDR")]
    pub(super) connect_http: Option<ConnectTo>,
    /// Trust the certificates in this PEM file instead of Mozilla's roots
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Require one of these pins in the served chain: output of `pintle pin`, or --json of an earlier visit
    #[arg(long, value_name = "FILE")]
    pub(super) pins: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Run this check only; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = doctor::check_names())]
    pub(super) only: Vec<String>,
    /// Repeat the checks at this interval until you stop it; also detects changing neighbours and counters
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5s", value_parser = parse_duration)]
    pub(super) watch: Option<Duration>,
    /// Stop --watch after this many rounds
    #[arg(long, value_name = "NUMBER", requires = "watch")]
    pub(super) rounds: Option<u64>,
    /// Read the files below this folder; network, clock and firewall stay those of this host
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub(super) root: PathBuf,
    /// Also write the results into this file, as metrics for node_exporter's textfile collector (NAME.prom)
    #[arg(long, value_name = "FILE")]
    pub(super) metrics: Option<PathBuf>,
    /// Print JSON; with --watch, one line per round
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum PinForm {
    /// The Public-Key-Pins header
    Header,
    /// For curl --pinnedpubkey
    Curl,
    /// Hexadecimal, one per line
    Hex,
}

#[derive(clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(super) site: String,
    /// The format
    #[arg(long = "as", value_enum, value_name = "FORM", required_unless_present = "json", conflicts_with = "json")]
    pub(super) form: Option<ExportForm>,
    /// Print JSON, like --as json
    #[arg(long)]
    pub(super) json: bool,
    /// The time for which clients enforce the pins; pintle records it as a promise [default: max_age of [site.hpkp], or
    /// 90d]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) life: Option<Duration>,
    /// Another backup besides those of [site.hpkp]: a certificate, CSR, public or private key
    #[arg(long = "backup", value_name = "FILE")]
    pub(super) backups: Vec<PathBuf>,
    /// Export the live keys alone; the next change of the key will lock clients out
    #[arg(long)]
    pub(super) without_backup: bool,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum AcmeSubcommand {
    /// Show the plan of each certificate: the next order, its key and reason, the last result and the next attempt
    ///
    /// The exit code is 1 if a certificate is missing, overdue or expired, or needs your action.
    Plan(ListKeysArgs),
    /// Order a certificate for a site now; also after a failure that pintle does not retry by itself
    Renew(RenewArgs),
    /// Show the account at each CA; CAA records name its URL as accounturi
    Account(CheckArgs),
}

/// One site.
#[derive(clap::Args)]
pub(super) struct SiteArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(super) site: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct ListKeysArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Show this host's site only
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(super) site: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct InitArgs {
    /// The blog as it is now, such as `https://example.wordpress.com`
    #[arg(value_name = "URL", value_parser = parse_url)]
    pub(super) url: Url,
    /// A name under which visitors will see the blog; the first one is the canonical name
    #[arg(long = "host", value_name = "NAME", value_parser = HostPattern::of_site)]
    pub(super) hosts: Vec<HostPattern>,
    /// Get certificates from Let's Encrypt, with this address for its messages
    #[arg(long, value_name = "ADDRESS", value_parser = init::email)]
    pub(super) email: Option<String>,
    /// Agree to the terms of Let's Encrypt
    #[arg(long, requires = "email")]
    pub(super) accept_terms: bool,
    /// Send key pins, which bind apps and curl to your keys; needs --email and --accept-terms
    #[arg(long, requires = "email")]
    pub(super) pins: bool,
    /// Print the file, write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// The file to write [default: /etc/pintle/pintle.toml as root, else pintle.toml]
    #[arg(short, long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of Mozilla's roots, now and in the configuration
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Connect to this HOST:PORT or IP address instead of DNS, now and in the configuration
    #[arg(long, value_name = "ADDR")]
    pub(super) connect: Option<ConnectTo>,
    /// The address of plain HTTP [default: port 80 of the same address]
    #[arg(long, value_name = "ADDR")]
    pub(super) connect_http: Option<ConnectTo>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(clap::Args)]
pub(super) struct ManArgs {
    /// The page: a command, or pintle.toml
    #[arg(default_value = "pintle")]
    pub(super) page: String,
    /// Write all pages into man5 and man8 below this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "page")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum LedgerCommand {
    /// Show the damage of the ledger and its repair; repair it if confirmed
    Repair {
        #[command(flatten)]
        config: ConfigArgs,
        /// Continue with the readable part of a damaged ledger, although promises may be lost; DATE is today's date
        #[arg(long, value_name = "DATE")]
        accept_loss: Option<String>,
        /// Correct impossible dates as shown, and confirm that this machine's clock is right
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all promises, as a table and a timeline
    Show(CheckArgs),
    /// Add the promises of other nodes, from copies of their ledger.jsonl
    Merge {
        #[command(flatten)]
        config: ConfigArgs,
        /// The ledgers of the other nodes
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print the effects, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Do not count the promises of other folders' ledgers, as no client holds them
    Decline {
        #[command(flatten)]
        config: ConfigArgs,
        /// The ledgers of the other folders
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

impl PinArgs {
    /// Returns the format of the output.
    pub(super) fn form(&self) -> pin::PinFormat {
        match self.form {
            _ if self.json => pin::PinFormat::Json,
            None => pin::PinFormat::Lines,
            Some(PinForm::Curl) => pin::PinFormat::Curl,
            Some(PinForm::Hex) => pin::PinFormat::Hex,
            Some(PinForm::Header) => pin::PinFormat::Header {
                max_age: self.max_age.as_secs(),
                include_subdomains: self.include_subdomains,
                report_uri: self.report_uri.clone(),
            },
        }
    }
}
