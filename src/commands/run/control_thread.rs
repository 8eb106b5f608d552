//! The control thread of a process, from its start to the exit code.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::{fail, refuse};
use crate::control::{Control, ProcessEnd, StartError};
use crate::reason::Reason;
use crate::telemetry::LogThread;
use crate::tls::key_process;

/// Runs the control thread from start to end.
pub(super) fn block_on(log: LogThread, start: impl Future<Output = Result<Control, StartError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = match runtime.block_on(control(start)) {
        Ok(code) => code,
        Err(StartError(reason)) => {
            drop(log);
            if reason == Reason::default() { ExitCode::from(1) } else { refuse(&reason) }
        }
    };
    // After the drain's time limit, the rest ends with the process.
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
    let lost_keys = key_process::running().is_some_and(key_process::KeyProcess::is_gone);
    Ok(match ended {
        Ok(ProcessEnd::Drained) if lost_keys => ExitCode::from(1),
        Ok(ProcessEnd::Drained) => ExitCode::SUCCESS,
        Ok(ProcessEnd::Asked) => ExitCode::from(1),
        Err(error) => fail(&error),
    })
}

fn signals(kind: SignalKind) -> Result<Signal, StartError> {
    Ok(signal(kind)?)
}
