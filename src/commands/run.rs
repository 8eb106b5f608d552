//! `pintle run`: load, write down, bind, serve, drain.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Loaded, Output, fail, load};
use crate::config::{Config, Draft};
use crate::control::{Control, StartError, open_ledger};
use crate::ledger::{Ledger, Notice};
use crate::policy::Scheme;
use crate::telemetry::log;

/// Serves until SIGTERM, SIGINT or SIGQUIT; a second one does not wait for what is under way.
pub fn run(path: &Path, output: &Output) -> ExitCode {
    serve(path, output, |_| {})
}

/// Loads and serves a configuration. `ready` is told the addresses once everything is up.
pub(super) fn serve(path: &Path, output: &Output, ready: impl FnOnce(&[(SocketAddr, Scheme)])) -> ExitCode {
    let mut opened = None;
    let book = |draft: &Draft| {
        let (ledger, notices) = open_ledger(draft)?;
        let book = ledger.book().clone();
        opened = Some((ledger, notices));
        Ok(book)
    };
    let Loaded { draft, config, .. } = match load(path, book, output) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let (ledger, notices) = opened.unwrap_or_else(|| (Ledger::in_memory(), Vec::new()));
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    tell(&notices);
    crate::open_files::raise();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = match runtime.block_on(control(draft, config, ledger, ready)) {
        Ok(code) => code,
        Err(StartError::Bind(errors)) => {
            drop(log);
            for error in errors {
                eprintln!("pintle: {error}");
                if let Some(hint) = error.hint() {
                    eprintln!("  hint: {hint}");
                }
            }
            return ExitCode::from(1);
        }
        Err(StartError::Other(error)) => {
            drop(log);
            return fail(&error);
        }
    };
    // What is left of a drain that nobody wants to wait for ends with the process.
    runtime.shutdown_background();
    code
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
    ready: impl FnOnce(&[(SocketAddr, Scheme)]),
) -> Result<ExitCode, StartError> {
    let mut signals =
        [signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::quit())?];
    let mut asked = |cx: &mut std::task::Context<'_>| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    };
    let drain_limit = config.snapshot.limits.drain;
    let control = Control::start(draft, config, ledger).await?;
    control.announce();
    ready(control.listening());
    let (server, _access_log) = control.run(async || std::future::poll_fn(&mut asked).await).await;
    tracing::info!(limit = ?drain_limit, "draining: no new connections, requests under way may finish");
    let draining = tokio::task::spawn_blocking(move || {
        let counters = server.counters();
        server.drain().map(|()| counters)
    });
    Ok(tokio::select! {
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
    })
}

fn signals(kind: SignalKind) -> Result<Signal, StartError> {
    Ok(signal(kind)?)
}
