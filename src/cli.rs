//! The command line: arguments in, a command's exit code out.

mod args;
mod examples;
mod helpers;
mod man;
mod output;
mod version;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    self, Output, acme, check, decline, demo, doctor, explain, export, health, init, install, key, keys, ledger, pages,
    pin, remote, repair, revoke, run, status, verify, versions, watch,
};
use crate::config::{DEFAULT_PATHS, is_found};
use crate::export::ExportForm;

use crate::reason::Reason;
use crate::reason::pasted::set_config;

use args::{
    AcmeSubcommand, AdminSubcommand, CacheArgs, ChangeArgs, CheckAllArgs, CheckArgs, ConfigArgs, ConfigCommand,
    DemoArgs, DoctorArgs, ExplainArgs, ExportArgs, HookCommand, HookTestArgs, InitArgs, InstallArgs, KeyCommand,
    LedgerCommand, ManArgs, PageArgs, PinArgs, PurgeArgs, RunArgs, StatusArgs, VerifyArgs,
};
use helpers::{dns_hook, event_hook, launcher};
use output::OutputArgs;

/// An HTTPS edge proxy that keeps its pin promises.
#[derive(Parser)]
#[command(name = "pintle", version = version::SHORT, long_version = version::LONG, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a demo on loopback: a blog, a test CA, keys and the proxy
    Demo(DemoArgs),
    /// Look at a hosted blog, and write a first configuration for it
    ///
    /// Sends at most eight requests to the blog: over https and http, under its own name and under yours. Writes a
    /// commented file. Lines that the answers do not prove are commented out, all but `upstream`. It never overwrites a
    /// file. On a terminal, it asks for missing names.
    Init(InitArgs),
    /// Serve the sites of the configuration
    Run(RunArgs),
    /// Check everything that `run` would load, and report all problems
    Check(CheckAllArgs),
    /// Show and compare the versions of the configuration, change it, or bring a version back
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the pins of certificates, chains, CSRs, private or public keys, in PEM or DER; works offline
    Pin(PinArgs),
    /// Export the pins of a site for clients that enforce them: apps, curl, DANE, Envoy, monitors, servers
    Export(ExportArgs),
    /// Create a key with its CSR, list the keys of each site, change over to the next key, or replace and revoke a
    /// compromised key
    #[command(subcommand)]
    Key(KeyCommand),
    /// Show the plan of the certificates that pintle obtains by itself, renew one now, or show the accounts
    #[command(subcommand)]
    Acme(AcmeSubcommand),
    /// Check a renewed certificate, install it, and have it served
    Install(InstallArgs),
    /// Show or repair the ledger of pin promises, or merge other nodes' ledgers
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Have the running process reload its configuration; an invalid one changes nothing
    Reload(CheckArgs),
    /// Have the running process start the new version of the program and hand over to it
    ///
    /// The new process reads the configuration, checks everything, and proves each site with a handshake and requests
    /// of its own. Only then does it take over the listening sockets, so that no connection is refused. The old process
    /// finishes its requests within limits.drain. If the new process is not ready within limits.upgrade, pintle kills
    /// it, the old process continues, and the exit code is 1. SIGUSR2 does the same, and logs the result.
    Upgrade(CheckArgs),
    /// Purge stored responses from the caches of the running process
    ///
    /// Name URLs, a prefix, a tag or a site. The responses are gone when the command ends.
    Purge(PurgeArgs),
    /// Show the caches of the running process: their sizes and hit rates, or the stored responses of a URL
    Cache(CacheArgs),
    /// Send a test event to the hooks of the running process
    #[command(subcommand)]
    Hook(HookCommand),
    /// Show the sites, promises and pending work of the running process
    Status(StatusArgs),
    /// Open the pages of the running process in a browser, by a link that works once
    ///
    /// Prints the link, and opens it on a desktop. If the admin socket is a Unix socket, the command listens on a
    /// loopback port and passes the connections of your browser on until you press Ctrl-C. It closes connections of
    /// other users.
    Page(PageArgs),
    /// Make a password hash for the pages of the running process
    #[command(subcommand)]
    Admin(AdminSubcommand),
    /// Check that the running process accepts connections: exit code 0 if it does, 1 if not
    ///
    /// For health checks of containers and load balancers. The state of upstreams does not count: a restart of pintle
    /// would not fix them. pintle answers through the admin socket, within five seconds.
    Health(CheckArgs),
    /// Check a site as a client that follows RFC 6797 and RFC 7469 sees it
    ///
    /// Visits the site twice and checks TLS versions, chain, redirect from http, HSTS, Public-Key-Pins, the pins of
    /// --pins, preload list and mixed content. It may be any site. The exit code is 1 if a check failed.
    Verify(VerifyArgs),
    /// Explain what pintle does with a request: every decision in order, with the line of the configuration behind it
    ///
    /// It runs the same code that serves requests, and sends nothing. Without --live, it reads the configuration, and
    /// assumes a process that has just started and can write its ledger. With --request, the running process explains
    /// why a request of its access log ended as it did.
    Explain(ExplainArgs),
    /// Check this host for faults that break edge proxies: kernel settings, neighbours, drivers, limits, clock, upstreams
    ///
    /// Each finding has its evidence and a remedy: commands for a root shell. Works without a configuration, too: then
    /// it leaves out upstreams, listeners and keys. It sends two requests to each address of an upstream, and changes
    /// nothing. It needs no root; as root, it sees more. The exit code is 1 if it finds something.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a man page, or write all of them into a folder
    Man(ManArgs),
    /// Start this program again on request of the serving process; started by `pintle run`
    #[command(hide = true)]
    Launcher {
        /// The program
        program: OsString,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the program that sets DNS records; started by `pintle run`
    #[command(hide = true)]
    DnsHook {
        /// The program
        program: OsString,
        /// Its time limit, in seconds
        limit: u64,
    },
    /// Run the programs of hooks; started by `pintle run`
    #[command(hide = true)]
    EventHook {
        /// The time limit of each, in seconds
        limit: u64,
        /// The programs
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        programs: Vec<OsString>,
    },
    /// Hold the private keys; started by `pintle run`
    #[command(hide = true)]
    Keys,
}

/// Runs the program.
///
/// Exit codes: 0 success, 1 a problem was found, 2 wrong usage.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::from_arg_matches(&output::matches(command())).unwrap_or_else(|error| error.exit());
    let output = cli.output.output();
    commands::print::set_color(output.color);
    commands::print::set_format(output.log_format);
    commands::print::finish(match cli.command {
        Command::Demo(args) => {
            let loopback =
                |port| [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))];
            demo::demo(args.dir, &loopback(args.https_port), &loopback(args.http_port), &output)
        }
        Command::Init(args) => init(args, &output),
        Command::Run(args) => {
            crate::os::signals::hold_off();
            with_config(args.config, |path| run::run(path, args.root.allow, args.strict, &output))
        }
        Command::Check(CheckAllArgs { check, connect, root }) => {
            let options = check::Options { allow_root: root.allow, as_json: check.json, connect };
            with_config(check.config, |path| check::check(path, options))
        }
        Command::Config(command) => config(command, &output),
        Command::Pin(args) => pin::pin(&args.files, &args.form()),
        Command::Export(args) => export(args),
        Command::Key(command) => key(command, &output),
        Command::Acme(command) => acme(command, &output),
        Command::Install(args) => install(args),
        Command::Ledger(command) => ledger(command),
        Command::Reload(args) => with_config(args.config, |path| remote::reload(path, args.json, &output)),
        Command::Upgrade(args) => with_config(args.config, |path| remote::upgrade(path, args.json, &output)),
        Command::Status(args) => status(args, &output),
        Command::Page(args) => {
            let (role, port, no_open, as_json) = (args.role(), args.port, args.no_open, args.check.json);
            let options = commands::page::Options { role, port, no_open, as_json };
            with_config(args.check.config, |path| commands::page::page(path, &options, &output))
        }
        Command::Admin(AdminSubcommand::Password { json }) => commands::password::password(json),
        Command::Purge(args) => purge(args, &output),
        Command::Cache(args) => cache(args, &output),
        Command::Hook(HookCommand::Test(HookTestArgs { name, check })) => {
            with_config(check.config, |path| commands::hook::test(path, name.as_deref(), check.json, &output))
        }
        Command::Health(args) => with_config(args.config, |path| health::health(path, args.json, &output)),
        Command::Verify(args) => verify(args, &output),
        Command::Explain(args) => explain(args, &output),
        Command::Doctor(args) => {
            let DoctorArgs { config, only, watch, rounds, root, metrics, json } = args;
            doctor::doctor(
                config_path(config).as_deref(),
                &doctor::Options { only, watch, rounds, root, metrics, as_json: json },
                &output,
            )
        }
        Command::Completions { shell } => completions(shell),
        Command::Man(args) => man(&args),
        Command::Launcher { program, arguments } => launcher(&program, &arguments),
        Command::DnsHook { program, limit } => dns_hook(&program, limit),
        Command::EventHook { limit, programs } => event_hook(&programs, limit),
        Command::Keys => keys::keys(),
    })
}

fn config(command: ConfigCommand, output: &Output) -> ExitCode {
    let apply = |source: versions::Source, ChangeArgs { config, dry_run, upgrade, json }| {
        let how = versions::HowToApply { dry_run, upgrades: upgrade };
        with_config(config, |path| versions::apply(path, &source, how, json, output))
    };
    match command {
        ConfigCommand::History { check, limit, before } => {
            let listed = versions::Listed { before, limit: limit.into() };
            with_config(check.config, |path| versions::history(path, &listed, check.json, output))
        }
        ConfigCommand::Show { version, check } => {
            with_config(check.config, |path| versions::show(path, version.as_deref(), check.json, output))
        }
        ConfigCommand::Diff { from, to, check } => {
            with_config(check.config, |path| versions::diff(path, &from, &to, check.json, output))
        }
        ConfigCommand::Apply { file, change } => apply(versions::Source::File(file), change),
        ConfigCommand::Restore { version, change } => apply(versions::Source::Version(version), change),
    }
}

fn init(args: InitArgs, output: &Output) -> ExitCode {
    let InitArgs { url, hosts, email, accept_terms, pins, dry_run, out, ca, connect, connect_http, json } = args;
    let mut distinct = Vec::new();
    for host in hosts {
        if !distinct.contains(&host) {
            distinct.push(host);
        }
    }
    let options = init::Options {
        url,
        given: init::Given { hosts: distinct, email, terms: accept_terms },
        pins,
        dry_run,
        out,
        ca,
        connect,
        connect_http,
        as_json: json,
    };
    init::init(options, output)
}

fn export(args: ExportArgs) -> ExitCode {
    let ExportArgs { config, site, form, json: _, life, backups, without_backup, out } = args;
    let form = form.unwrap_or(ExportForm::Json);
    let options = export::Options { host: site, form, life, backups, without_backup, out };
    with_config(config, |path| export::export(path, &options))
}

fn status(args: StatusArgs, output: &Output) -> ExitCode {
    let StatusArgs { check, exit_code, watch, rounds } = args;
    let as_json = check.json;
    with_config(check.config, |path| match watch {
        Some(pause) => watch::watch(path, watch::Options { pause, rounds, as_json }, output),
        None => status::status(path, status::Options { as_json, exit_code }, output),
    })
}

fn explain(args: ExplainArgs, output: &Output) -> ExitCode {
    let ExplainArgs {
        config,
        url,
        request,
        from,
        fields,
        http,
        method,
        http2,
        sni,
        proxy,
        response_fields,
        live,
        json,
    } = args;
    if let Some(id) = request {
        return with_config(config, |path| explain::explain_record(path, &id, json, output));
    }
    let url = url.unwrap_or_default();
    let asked = explain::DescribedRequest { url, from, fields, http, method, proxy, response_fields, http2, sni };
    with_config(config, |path| explain::explain(path, &asked, explain::Options { live, as_json: json }, output))
}

fn key(command: KeyCommand, output: &Output) -> ExitCode {
    match command {
        KeyCommand::New(args) => {
            let args::NewKeyArgs { config, role, site, algorithm, out, json } = args;
            let options = key::Options { host: site, role, algorithm, folder: out, as_json: json };
            with_config(config, |path| key::new(path, &options, output))
        }
        KeyCommand::List(args) => {
            with_config(args.config, |path| key::list(path, args.site.as_deref(), args.json, output))
        }
        KeyCommand::Revoke(args) => {
            let args::RevokeArgs { config, site, algorithm, key, accept_lockout_until, dry_run, no_wait, json } = args;
            let options = revoke::Options {
                host: site,
                algorithm,
                is_next: key == args::CompromisedRole::Next,
                accept: accept_lockout_until,
                dry_run,
                waits: !no_wait,
                as_json: json,
            };
            with_config(config, |path| revoke::revoke(path, &options, output))
        }
        KeyCommand::Rotate(args) => with_config(args.config, |path| acme::rotate(path, &args.site, args.json, output)),
    }
}

fn acme(command: AcmeSubcommand, output: &Output) -> ExitCode {
    match command {
        AcmeSubcommand::Plan(args) => {
            with_config(args.config, |path| acme::plan(path, args.site.as_deref(), args.json, output))
        }
        AcmeSubcommand::Renew(args) => {
            let args::RenewArgs { of: args::SiteArgs { config, site, json }, despite_preflight } = args;
            with_config(config, |path| acme::renew(path, &site, despite_preflight, json, output))
        }
        AcmeSubcommand::Account(args) => with_config(args.config, |path| acme::account(path, args.json)),
    }
}

fn install(args: InstallArgs) -> ExitCode {
    let (config, options) = args.split();
    with_config(config, |path| install::install(path, &options))
}

fn ledger(command: LedgerCommand) -> ExitCode {
    match command {
        LedgerCommand::Show(args) => with_config(args.config, |path| ledger::show(path, args.json)),
        LedgerCommand::Repair { config, accept_loss, yes, json } => {
            with_config(config, |path| repair::repair(path, accept_loss.as_deref(), yes, json))
        }
        LedgerCommand::Merge { config, files, dry_run, json } => {
            let options = ledger::Merge { files, dry_run, as_json: json };
            with_config(config, |path| ledger::merge(path, &options))
        }
        LedgerCommand::Decline { config, files } => with_config(config, |path| decline::decline(path, &files)),
    }
}

fn verify(args: VerifyArgs, output: &Output) -> ExitCode {
    let VerifyArgs { url, connect, connect_http, ca, pins, json } = args;
    verify::verify(verify::Arguments { url, connect, connect_http, ca, pins }, json, output)
}

fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "pintle", &mut script);
    commands::print::to_stdout(format_args!("{}", String::from_utf8_lossy(&script)));
    ExitCode::SUCCESS
}

fn man(args: &ManArgs) -> ExitCode {
    let pages = match man::pages(command()) {
        Ok(pages) => pages,
        Err(error) => return commands::fail(&error),
    };
    if let Some(folder) = &args.dir {
        return pages::write(folder, pages.iter().map(|page| (page.section, page.name.as_str(), page.text.as_str())));
    }
    // `pintle man key` finds pintle-key.
    let is_asked = |page: &&man::ManPage| page.name == args.page || page.name == format!("pintle-{}", args.page);
    match pages.iter().find(is_asked) {
        Some(page) => {
            commands::print::to_stdout(format_args!("{}", page.text));
            ExitCode::SUCCESS
        }
        None => {
            let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
            let reason = Reason::new(format!("there is no man page {:?}", args.page));
            commands::refuse(&reason.hint(format!("the pages are: {}", names.join(", "))))
        }
    }
}

/// The command line, with its examples.
fn command() -> clap::Command {
    examples::add(Cli::command(), "")
}

fn purge(args: PurgeArgs, output: &Output) -> ExitCode {
    let PurgeArgs { urls, prefix, tag, site, soft, check } = args;
    let purge = commands::cache::PurgeOptions { urls, prefix, tag, site, is_soft: soft };
    with_config(check.config, |path| commands::cache::purge(path, &purge, check.json, output))
}

fn cache(CacheArgs { url, check }: CacheArgs, output: &Output) -> ExitCode {
    with_config(check.config, |path| commands::cache::cache(path, url.as_deref(), check.json, output))
}

/// Returns the path of the named configuration, or of the first default that exists.
fn config_path(args: ConfigArgs) -> Option<PathBuf> {
    args.config.or_else(|| DEFAULT_PATHS.iter().map(PathBuf::from).find(|p| p.exists()))
}

/// Runs a command with the configuration of `config_path`.
fn with_config(args: ConfigArgs, act: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    match config_path(args) {
        Some(path) => {
            if !is_found(&path) {
                set_config(&path);
            }
            act(&path)
        }
        None => {
            let reason = Reason::new(format!("no configuration file: neither {}", DEFAULT_PATHS.join(" nor ")));
            let reason = reason.hint("`pintle init URL` writes one for the blog at URL").hint("name one: -c FILE");
            commands::refuse(&reason.hint("`pintle demo` needs none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }
}
