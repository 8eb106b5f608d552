//! `pintle run`: step down, load, write down, bind, enter the sandbox, serve, drain.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::step_down::{refuse, step_down};
use super::{Loaded, Output, fail, fail_with_hint, keys, load};
use crate::config::{Config, Draft};
use crate::control::{Control, StartError, confinement, open_ledger};
use crate::ledger::{Ledger, Notice};
use crate::policy::Scheme;
use crate::privileges;
use crate::sandbox;
use crate::server::{BindError, Bound, bind};
use crate::telemetry::log;
use crate::tls::keeper;

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one does not wait for what is under way.
pub fn run(path: &Path, allow_root: bool, output: &Output) -> ExitCode {
    serve(path, allow_root, output, |_| {})
}

/// Loads and serves a configuration. `ready` is told the addresses once everything is up.
pub(super) fn serve(
    path: &Path,
    allow_root: bool,
    output: &Output,
    ready: impl FnOnce(&[(SocketAddr, Scheme)]),
) -> ExitCode {
    // While this is who started it: the keys may be for nobody else to read.
    if let Ok(draft) = crate::config::read(path)
        && let Err(code) = keys::start(&draft)
    {
        return code;
    }
    // From here on, everything is done as the user that serves: what it cannot do is found out now, and not by a reload.
    let troubles = match step_down(path, allow_root, output) {
        Ok(troubles) => troubles,
        Err(code) => return code,
    };
    let mut opened = None;
    let book = |draft: &Draft| {
        let (ledger, notices) = open_ledger(draft)?;
        let book = ledger.book().clone();
        opened = Some((ledger, notices));
        Ok(book)
    };
    let loaded = load(path, book, output);
    if !troubles.is_empty() {
        return refuse(&troubles);
    }
    let Loaded { draft, config, .. } = match loaded {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let (ledger, notices) = opened.unwrap_or_else(|| (Ledger::in_memory(), Vec::new()));
    let bound = match bind(&config.https, &config.http, config.workers) {
        Ok(bound) => bound,
        Err(errors) => return cannot_bind(&errors),
    };
    crate::open_files::raise();
    if let Err(error) = privileges::settle(config.process.bind_low_ports) {
        return fail(&format!("capabilities cannot be given up: {error}"));
    }
    // Before there are threads, and with all that needs no leave later: see `sandbox`.
    let held = match sandbox::enter(&confinement::rules(&draft, &config), &config.sandbox) {
        Ok(held) => held,
        Err(error) => return fail_with_hint(&error, &error.hint()),
    };
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    tell(&notices);
    confinement::announce(held);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = match runtime.block_on(control(draft, config, ledger, bound, ready)) {
        Ok(code) => code,
        Err(StartError(error)) => {
            drop(log);
            return fail(&error);
        }
    };
    // What is left of a drain that nobody wants to wait for ends with the process.
    runtime.shutdown_background();
    code
}

fn cannot_bind(errors: &[BindError]) -> ExitCode {
    for error in errors {
        eprintln!("pintle: {error}");
        if let Some(hint) = error.hint() {
            eprintln!("  hint: {hint}");
        }
    }
    ExitCode::from(1)
}

fn tell(notices: &[Notice]) {
    for notice in notices {
        match notice {
            Notice::Torn { .. } | Notice::Newer { .. } => tracing::warn!(%notice, "ledger"),
            Notice::Damaged { .. } => tracing::error!(%notice, "ledger"),
        }
    }
}

/// The control thread, from start to end.
async fn control(
    draft: Draft,
    config: Config,
    ledger: Ledger,
    bound: Bound,
    ready: impl FnOnce(&[(SocketAddr, Scheme)]),
) -> Result<ExitCode, StartError> {
    let mut signals =
        [signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::quit())?];
    let mut asked = |cx: &mut std::task::Context<'_>| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    };
    let drain_limit = config.snapshot.limits.drain;
    let control = Control::start(draft, config, ledger, bound).await?;
    control.announce();
    ready(control.listening());
    let (server, _access_log) = control.run(async || std::future::poll_fn(&mut asked).await).await;
    let lost_keys = keeper::held().is_some_and(keeper::Keeper::is_gone);
    tracing::info!(limit = ?drain_limit, "draining: no new connections, requests under way may finish");
    let draining = tokio::task::spawn_blocking(move || {
        let counters = server.counters();
        server.drain().map(|()| counters)
    });
    Ok(tokio::select! {
        drained = draining => match drained {
            Ok(Ok(counters)) => {
                tracing::info!(requests = counters.requests.get(), "stopped");
                if lost_keys { ExitCode::from(1) } else { ExitCode::SUCCESS }
            }
            Ok(Err(error)) => fail(&error),
            Err(error) => fail(&error),
        },
        () = std::future::poll_fn(&mut asked) => {
            tracing::warn!("asked again: stopping without waiting");
            ExitCode::from(1)
        }
    })
}

fn signals(kind: SignalKind) -> Result<Signal, StartError> {
    Ok(signal(kind)?)
}
