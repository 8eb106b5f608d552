//! The command line: what users type, and which command it comes to.

mod output;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::commands::{self, check, demo, export, install, key, keys, ledger, pin, remote, repair, run, verify};
use crate::config::DEFAULT_PATHS;
use crate::export::{Form, Role};
use crate::policy::Scheme;
use crate::verify::target::{Place, Url};

use crate::reason::Reason;
use output::OutputArgs;

/// An HTTPS edge proxy that keeps its pin promises.
#[derive(Parser)]
#[command(name = "pintle", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand)]
enum Command {
    /// A blog, a test CA, keys and the proxy, on loopback, in one command
    Demo(DemoArgs),
    /// Serve
    Run(RunArgs),
    /// Load all that `run` would load, and tell every problem; exit code 0 or 1
    Check(CheckAllArgs),
    /// The pin of a certificate, chain, CSR, private or public key, PEM or DER; offline
    Pin(PinArgs),
    /// Print the pins of a site for clients that enforce them: apps, curl, DANE, Envoy, monitors, other servers
    Export(ExportArgs),
    /// Make a key with its CSR, or list the keys of each site
    #[command(subcommand)]
    Key(KeyCommand),
    /// Judge a renewed certificate, put it in place, and have it served
    Install(InstallArgs),
    /// What was promised to clients, and until when they hold it
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Have the running process read its configuration again; a bad one changes nothing
    Reload(CheckArgs),
    /// Have the running process start the program anew, as it lies on disk now, and hand over to it
    ///
    /// The new process reads the configuration, checks everything, and proves each site by a handshake and by requests of
    /// its own. Only then does it take over, with the listening sockets, so that no connection is refused; the old one
    /// finishes what is under way, for as long as limits.drain says. If the new one is not ready within
    /// limits.upgrade, it is killed, the old one goes on, and the exit code is 1. SIGUSR2 does the same, and says what
    /// came of it in the log.
    Upgrade(CheckArgs),
    /// What the running process serves, has promised, and waits for
    Status(CheckArgs),
    /// Visit a site as a client that goes by RFC 6797 and RFC 7469, note what it says, and visit it again
    ///
    /// Versions of TLS, chain, redirect from http, the grammar of Strict-Transport-Security and Public-Key-Pins, pins,
    /// preload list, mixed content. The site may be anybody's. Exit code 1 if there is a fault.
    Verify(VerifyArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the man page
    #[command(hide = true)]
    Man,
    /// Starts this program again when the process that serves asks for it by standard input; `run` starts it
    #[command(hide = true)]
    Launcher {
        /// What to start
        program: OsString,
        /// With which arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Have the private keys; started by `pintle run`
    #[command(hide = true)]
    Keys,
}

#[derive(clap::Args)]
struct ConfigArgs {
    /// The configuration file; by default config/pintle.toml, then /etc/pintle/pintle.toml
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    root: RootArgs,
}

#[derive(clap::Args)]
struct CheckAllArgs {
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    root: RootArgs,
}

#[derive(clap::Args)]
struct RootArgs {
    /// Serve as root where no other user is named, as process.allow_root = true does
    #[arg(long = "allow-root", env = "PINTLE_ALLOW_ROOT", value_parser = clap::builder::FalseyValueParser::new())]
    allow: bool,
}

#[derive(clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct PinArgs {
    /// Files with keys; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Another form than one line per file
    #[arg(long = "as", value_enum, value_name = "FORM", conflicts_with = "json")]
    form: Option<PinForm>,
    /// With --as header: how long clients hold the pins
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    max_age: std::time::Duration,
    /// With --as header: the pins bind the names below the host, too
    #[arg(long)]
    include_subdomains: bool,
    /// With --as header: where clients report violations to
    #[arg(long, value_name = "URI")]
    report_uri: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct VerifyArgs {
    /// What to visit: https://, a host, and a port and a path where they are wanted
    #[arg(value_name = "URL", value_parser = parse_https_url)]
    url: Url,
    /// Connect to this HOST:PORT or address in place of what DNS says; SNI and Host stay those of the URL
    #[arg(long, value_name = "ADDR")]
    connect: Option<Place>,
    /// Where plain HTTP is; by default port 80 of where TLS is
    #[arg(long, value_name = "ADDR")]
    connect_http: Option<Place>,
    /// Trust the certificates in this file (PEM) in place of Mozilla's roots
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Pins of which the served chain must have one: as `pintle pin` prints them, or the --json of an earlier visit
    #[arg(long, value_name = "FILE")]
    pins: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PinForm {
    /// The whole Public-Key-Pins header
    Header,
    /// For curl --pinnedpubkey
    Curl,
    /// Hexadecimal, one per line
    Hex,
}

#[derive(clap::Args)]
struct ExportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    site: String,
    /// For whom
    #[arg(long = "as", value_enum, value_name = "FORM", required_unless_present = "json", conflicts_with = "json")]
    form: Option<Form>,
    /// The same as --as json
    #[arg(long)]
    json: bool,
    /// For how long it is meant to be enforced; recorded as a promise. By default the max_age of [site.hpkp], or 90d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    life: Option<std::time::Duration>,
    /// One more backup, beside those of [site.hpkp]: a certificate, CSR, public or private key
    #[arg(long = "backup", value_name = "FILE")]
    backups: Vec<PathBuf>,
    /// Export the live keys alone, though the next change of the key will lock the clients out
    #[arg(long)]
    without_backup: bool,
    /// Write to a file in place of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a private key that only you can read, and a CSR with the site's names
    New(NewKeyArgs),
    /// The keys of each site: role, pin, algorithm, file, since when promised, until when certified
    List(ListKeysArgs),
}

#[derive(clap::Args)]
struct NewKeyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What the key is for
    #[arg(long, value_enum)]
    role: Role,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    site: String,
    /// The kind of key
    #[arg(long, value_enum, default_value_t = key::Algorithm::EcdsaP256)]
    algorithm: key::Algorithm,
    /// Where the files go; by default, where the site's certificate is
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ListKeysArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The keys of this host's site only
    #[arg(long, alias = "host", value_name = "HOST")]
    site: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct DemoArgs {
    /// The folder of the demo's keys, certificates and configuration
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The port for https
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// The port for http
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
}

#[derive(clap::Args)]
struct InstallArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    site: String,
    /// The chain, leaf first
    chain: PathBuf,
    /// Its key; by default the one in use, or another nearby that fits
    key: Option<PathBuf>,
    /// Print the verdict only
    #[arg(long)]
    dry_run: bool,
    /// Lock out those who hold older pins: the day that the refusal names
    #[arg(long, alias = "accept_lockout_until", value_name = "DATE", value_parser = parse_date)]
    accept_lockout_until: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Show what is wrong with the ledger, and what would become of it; mend it where that is confirmed
    Repair {
        #[command(flatten)]
        config: ConfigArgs,
        /// Go on with what is left of a damaged ledger, and accept that promises may be lost; the date of today
        #[arg(long, value_name = "DATE")]
        accept_loss: Option<String>,
        /// Change dates that cannot be right as shown, and confirm that this machine's clock is right
        #[arg(long)]
        yes: bool,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// All promises, as a table and a timeline
    Show(CheckArgs),
    /// Add what other nodes have promised, from copies of their ledger.jsonl
    Merge {
        #[command(flatten)]
        config: ConfigArgs,
        /// The other nodes' ledgers
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only say what it would mean
        #[arg(long)]
        dry_run: bool,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    crate::config::value::duration(text).ok_or_else(|| format!("not {}", crate::config::value::DURATION_FORM))
}

fn parse_https_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse()?;
    if url.scheme == Scheme::Https { Ok(url) } else { Err("name the https URL; plain HTTP is looked at, too".into()) }
}

fn parse_date(text: &str) -> Result<String, String> {
    let date = text.parse::<jiff::civil::Date>().ok().map(|date| date.to_string());
    date.filter(|date| date == text).ok_or_else(|| "not a day like 2027-01-31".to_owned())
}

/// Runs the program.
///
/// Exit codes: 0 fine, 1 a problem was found, 2 wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.output.output();
    match cli.command {
        Command::Run(args) => {
            crate::os::signals::hold_off();
            with_config(args.config, |path| run::run(path, args.root.allow, &output))
        }
        Command::Check(CheckAllArgs { check, root }) => {
            with_config(check.config, |path| check::check(path, root.allow, check.json, &output))
        }
        Command::Pin(args) => pin::pin(&args.files, &pin_form(&args)),
        Command::Export(args) => {
            let ExportArgs { config, site, form, json: _, life, backups, without_backup, out } = args;
            let form = form.unwrap_or(Form::Json);
            let request = export::Request { host: site, form, life, backups, without_backup, out };
            with_config(config, |path| export::export(path, &request, &output))
        }
        Command::Key(KeyCommand::New(args)) => {
            let NewKeyArgs { config, role, site, algorithm, out, json } = args;
            let request = key::Request { host: site, role, algorithm, folder: out, as_json: json };
            with_config(config, |path| key::new(path, &request, &output))
        }
        Command::Key(KeyCommand::List(args)) => {
            with_config(args.config, |path| key::list(path, args.site.as_deref(), args.json, &output))
        }
        Command::Install(args) => {
            let InstallArgs { config, site, chain, key, dry_run, accept_lockout_until, json } = args;
            let request =
                install::Request { host: site, chain, key, dry_run, accept: accept_lockout_until, as_json: json };
            with_config(config, |path| install::install(path, &request, &output))
        }
        Command::Ledger(LedgerCommand::Show(args)) => with_config(args.config, |path| ledger::show(path, args.json)),
        Command::Ledger(LedgerCommand::Repair { config, accept_loss, yes, json }) => {
            with_config(config, |path| repair::repair(path, accept_loss.as_deref(), yes, json))
        }
        Command::Ledger(LedgerCommand::Merge { config, files, dry_run, json }) => {
            let request = ledger::Merge { files, dry_run, as_json: json };
            with_config(config, |path| ledger::merge(path, &request, &output))
        }
        Command::Upgrade(args) => with_config(args.config, |path| remote::upgrade(path, args.json, &output)),
        Command::Launcher { program, arguments } => {
            crate::os::signals::hold_off_in_helper();
            match crate::handover::launcher::run(&program, &arguments) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => commands::fail(&format!("launcher: {error}")),
            }
        }
        Command::Reload(args) => with_config(args.config, |path| remote::reload(path, args.json, &output)),
        Command::Status(args) => with_config(args.config, |path| remote::status(path, args.json, &output)),
        Command::Verify(args) => {
            let wanted = verify::Wanted {
                url: args.url,
                connect: args.connect,
                connect_http: args.connect_http,
                ca: args.ca,
                pins: args.pins,
            };
            verify::verify(wanted, args.json, &output)
        }
        Command::Demo(args) => {
            let loopback =
                |port| [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))];
            demo::demo(args.dir, &loopback(args.https_port), &loopback(args.http_port), &output)
        }
        Command::Keys => keys::keys(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pintle", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man => match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => commands::fail(&error),
        },
    }
}

fn pin_form(args: &PinArgs) -> pin::Form {
    match args.form {
        _ if args.json => pin::Form::Json,
        None => pin::Form::Lines,
        Some(PinForm::Curl) => pin::Form::Curl,
        Some(PinForm::Hex) => pin::Form::Hex,
        Some(PinForm::Header) => pin::Form::Header {
            max_age: args.max_age.as_secs(),
            include_subdomains: args.include_subdomains,
            report_uri: args.report_uri.clone(),
        },
    }
}

/// The file that was named, or the first default that there is.
fn with_config(args: ConfigArgs, act: impl FnOnce(&std::path::Path) -> ExitCode) -> ExitCode {
    let path = args.config.or_else(|| DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists()));
    match path {
        Some(path) => act(&path),
        None => {
            let reason = Reason::new(format!("no configuration file: neither {}", DEFAULT_PATHS.join(" nor ")));
            commands::refuse(&reason.hint("name one: -c FILE").hint("`pintle demo` needs none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
