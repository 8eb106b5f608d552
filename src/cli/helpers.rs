//! The helpers that a running pintle starts.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::commands;

/// Starts the processes of upgrades.
pub(super) fn launcher(program: &OsString, arguments: &[OsString]) -> ExitCode {
    crate::os::signals::hold_off_in_helper();
    match crate::handover::launcher::run(program, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => commands::fail(&format!("launcher: {error}")),
    }
}

/// Runs `acme.dns_hook`.
pub(super) fn dns_hook(program: &OsString, limit: u64) -> ExitCode {
    crate::os::signals::hold_off_end_in_helper();
    match crate::acme::hook::run(program, Duration::from_secs(limit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => commands::fail(&format!("dns-hook: {error}")),
    }
}

/// Runs the programs of hooks.
pub(super) fn event_hook(programs: &[OsString], limit: u64) -> ExitCode {
    crate::os::signals::hold_off_end_in_helper();
    match crate::events::programs::serve(programs, Duration::from_secs(limit)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => commands::fail(&format!("event-hook: {error}")),
    }
}
