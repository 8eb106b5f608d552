//! `pintle run`: load, write down, bind, serve, drain; or take over from a process that does.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Loaded, Output, fail, load, try_load};
use crate::config::{Draft, Severity};
use crate::control::{Beginning, Control, Ended, Newcomer, StartError, open_ledger};
use crate::handover::Launcher;
use crate::ledger::{Ledger, Notice};
use crate::policy::Scheme;
use crate::server::Lent;
use crate::systemd::{self, Notify, Passed};
use crate::telemetry::{LogThread, log};

/// Serves until SIGTERM, SIGINT or SIGQUIT, or until an upgrade; a second signal does not wait for what is under way.
pub fn run(path: &Path, output: &Output) -> ExitCode {
    // Sockets that come from elsewhere count, too.
    crate::open_files::raise();
    match Newcomer::of_process() {
        Ok(Some(newcomer)) => return take_over(path, newcomer, output),
        Ok(None) => {}
        Err(why) => return fail(&why),
    }
    let passed = match systemd::activation::passed() {
        Ok(passed) => passed,
        Err(why) => return fail(&why),
    };
    let lent = passed.into_iter().filter_map(lent).collect();
    serve(path, output, Beginning { lent, launcher: None, notify: Notify::default() }, true, |_| {})
}

/// A socket of the service manager, for what its name says, if it says that.
fn lent(passed: Passed) -> Option<Lent> {
    let scheme = match passed.name.as_str() {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        _ => None,
    };
    let address = passed.listener.local_addr().ok()?;
    Some(Lent { asked: None, address, scheme, listeners: vec![passed.listener] })
}

/// Loads and serves a configuration. `ready` is told the addresses once everything is up.
pub(super) fn serve(
    path: &Path,
    output: &Output,
    beginning: Beginning,
    may_launch: bool,
    ready: impl FnOnce(&[(SocketAddr, Scheme)]),
) -> ExitCode {
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
    let beginning = complete(beginning, may_launch);
    block_on(log, async {
        let control = Control::start(draft, config, ledger, beginning).await?;
        control.announce();
        ready(control.listening());
        Ok(control)
    })
}

/// Checks everything, and takes over from the process that has started this one.
fn take_over(path: &Path, newcomer: Newcomer, output: &Output) -> ExitCode {
    let log = match log::start(output.log_format, output.log_level, output.color) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    let Loaded { draft, config, problems } = match try_load(path, |draft| newcomer.book(draft)) {
        Ok(loaded) => loaded,
        Err(unfit) => {
            let problems = unfit.problems.as_ref();
            let errors = |p: &&crate::config::Problem| p.severity == Severity::Error;
            let told = problems.into_iter().flat_map(|all| {
                all.sorted().into_iter().filter(errors).map(|p| all.render(p, false)).collect::<Vec<_>>()
            });
            newcomer.fail(told.chain([unfit.error]).collect());
            return ExitCode::from(1);
        }
    };
    for problem in problems.sorted() {
        tracing::warn!(problem = problems.one_line(problem), hint = problem.hint, "in use, with a warning");
    }
    let beginning = complete(Beginning::default(), true);
    block_on(log, async {
        // Whoever serves says why this one does not.
        let control = Control::take_over(draft, config, newcomer, beginning)
            .await
            .map_err(|_| StartError::Other(String::new()))?;
        control.announce();
        Ok(control)
    })
}

/// What every process has at its start; made before anything that would be in its way.
fn complete(beginning: Beginning, may_launch: bool) -> Beginning {
    let launcher = may_launch.then(|| Launcher::start(std::env::args_os().skip(1)));
    let launcher = launcher.and_then(|started| {
        started.inspect_err(|error| tracing::warn!(%error, "there is no launcher: upgrades are not possible")).ok()
    });
    Beginning { launcher, notify: Notify::from_env(), ..beginning }
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
fn block_on(log: LogThread, start: impl Future<Output = Result<Control, StartError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = match runtime.block_on(control(start)) {
        Ok(code) => code,
        Err(StartError::Bind(errors)) => {
            drop(log);
            for error in errors {
                eprintln!("pintle: {error}");
                if let Some(hint) = error.hint() {
                    eprintln!("  hint: {hint}");
                }
            }
            ExitCode::from(1)
        }
        Err(StartError::Other(error)) => {
            drop(log);
            if error.is_empty() { ExitCode::from(1) } else { fail(&error) }
        }
    };
    // What is left of a drain that nobody wants to wait for ends with the process.
    runtime.shutdown_background();
    code
}

async fn control(start: impl Future<Output = Result<Control, StartError>>) -> Result<ExitCode, StartError> {
    let mut signals =
        [signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?, signals(SignalKind::quit())?];
    let mut asked = |cx: &mut std::task::Context<'_>| {
        let any = signals.iter_mut().any(|s| s.poll_recv(cx).is_ready());
        if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    };
    let control = start.await?;
    let ended = control.run(async || std::future::poll_fn(&mut asked).await).await;
    Ok(match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Asked) => ExitCode::from(1),
        Err(error) => fail(&error),
    })
}

fn signals(kind: SignalKind) -> Result<Signal, StartError> {
    Ok(signal(kind)?)
}
