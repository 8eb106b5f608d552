//! `pintle run`: load, bind, serve, drain.

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use jiff::tz::TimeZone;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_local;

use super::{Output, fail, load};
use crate::config::{AccessTarget, Config, report};
use crate::policy::Scheme;
use crate::server::{Bound, Server, bind};
use crate::telemetry::{LogThread, log};
use crate::upstream::resolve::{Resolver, follow};

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one does not wait for what is under way.
pub fn run(path: &Path, output: &Output) -> ExitCode {
    let config = match load(path, output) {
        Ok((config, _)) => config,
        Err(code) => return code,
    };
    serve(config, output, |_| {})
}

/// Binds and serves a configuration. `ready` is told the addresses once everything is up.
pub(super) fn serve(
    config: Config,
    output: &Output,
    ready: impl FnOnce(&[(std::net::SocketAddr, Scheme)]),
) -> ExitCode {
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    crate::open_files::raise();
    let bound = match bind(&config.https, &config.http, config.workers) {
        Ok(bound) => bound,
        Err(errors) => {
            drop(log);
            for error in errors {
                eprintln!("pintle: {error}");
                if let Some(hint) = error.hint() {
                    eprintln!("  hint: {hint}");
                }
            }
            return ExitCode::from(1);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(control(config, bound, ready));
    // What is left of a drain that nobody wants to wait for ends with the process.
    runtime.shutdown_background();
    code
}

/// The control thread: names, signals, and the end.
async fn control(config: Config, bound: Bound, ready: impl FnOnce(&[(std::net::SocketAddr, Scheme)])) -> ExitCode {
    let (mut terminate, mut interrupt, mut quit) = match signals() {
        Ok(signals) => signals,
        Err(error) => return fail(&error),
    };
    let resolver = Rc::new(Resolver::new(config.name_servers));
    for name in config.names {
        spawn_local(follow(name, resolver.clone()));
    }
    let access_log = match access_log(&config.access) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    let access = access_log.as_ref().and_then(LogThread::sink).map(|sink| (sink, config.access_format));
    let addresses = bound.addresses();
    let drain_limit = config.snapshot.limits.drain;
    let workers = config.workers;
    let server = match Server::start(bound, config.snapshot, access) {
        Ok(server) => server,
        Err(error) => return fail(&error),
    };
    announce(&addresses, workers, &config.sites);
    ready(&addresses);
    let mut asked = |cx: &mut std::task::Context<'_>| {
        let any = [&mut terminate, &mut interrupt, &mut quit].into_iter().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    };
    std::future::poll_fn(&mut asked).await;
    tracing::info!(limit = ?drain_limit, "draining: no new connections, requests under way may finish");
    let draining = tokio::task::spawn_blocking(move || {
        let counters = server.counters();
        server.drain().map(|()| counters)
    });
    tokio::select! {
        drained = draining => match drained {
            Ok(Ok(counters)) => {
                tracing::info!(requests = counters.requests.get(), "stopped");
                ExitCode::SUCCESS
            }
            Ok(Err(error)) => fail(&error),
            Err(error) => fail(&error),
        },
        () = std::future::poll_fn(&mut asked) => {
            tracing::warn!("asked again: stopping without waiting");
            ExitCode::from(1)
        }
    }
}

fn signals() -> std::io::Result<(Signal, Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::quit())?))
}

fn access_log(target: &AccessTarget) -> Result<Option<LogThread>, String> {
    match target {
        AccessTarget::Off => Ok(None),
        AccessTarget::Stdout => LogThread::stdout().map(Some).map_err(|e| e.to_string()),
        AccessTarget::File(path) => {
            LogThread::file(path).map(Some).map_err(|e| format!("log.access: {}: {e}", path.display()))
        }
    }
}

/// What is live now.
fn announce(addresses: &[(std::net::SocketAddr, Scheme)], workers: usize, sites: &[report::Site]) {
    for (address, scheme) in addresses {
        tracing::info!(%address, scheme = scheme.as_str(), "listening");
    }
    for site in sites {
        let name = site.hosts.first().map(String::as_str).unwrap_or_default();
        let upstream = site.upstream.as_ref().map(|u| u.url.as_str()).unwrap_or_default();
        tracing::info!(site = name, hosts = site.hosts.join(" "), upstream, "site");
        for certificate in &site.certificates {
            tracing::info!(
                site = name,
                serial = certificate.serial,
                pin = %certificate.pin,
                algorithm = %certificate.algorithm,
                not_after = %certificate.not_after.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d"),
                issuer = certificate.issuer,
                "certificate"
            );
        }
        for (file, key) in &site.backups {
            tracing::info!(site = name, pin = %key.pin, file, "backup pin");
        }
    }
    tracing::info!(workers, sites = sites.len(), "serving");
}
