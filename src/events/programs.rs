//! The process that starts the operator's programs for events (`hook.command`), and nothing else.
//!
//! The serving process may start nothing. It asks this process, which starts before the sandbox with the programs of the
//! configuration of that start. An attacker in the serving process could start these programs with invented events, and
//! no others.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::{Event, EventKind};
use crate::handover::{Helper, helper};
use crate::os::program::{self, ProgramEnd, TimeLimit};

/// The hidden command that runs it.
pub const COMMAND: &str = "event-hook";
/// The longest event, in bytes; it fits into a pipe.
const BODY_MAX: usize = 20_000;

#[derive(Debug, Serialize, Deserialize)]
struct ProgramRequest {
    /// The program's place in the list of the start.
    program: usize,
    event: String,
    id: String,
    body: String,
}

impl ProgramRequest {
    /// Returns `true` for an event that pintle could have made.
    fn is_sound(&self) -> bool {
        let is_id = |id: &str| id.len() < 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        EventKind::named(&self.event).is_some() && is_id(&self.id) && self.body.len() <= BODY_MAX
    }
}

/// The process, as seen from the serving process.
struct Programs {
    programs: Vec<PathBuf>,
    helper: Helper,
}

static RUNNING: OnceLock<Programs> = OnceLock::new();

/// Starts the process. Must be called before the sandbox.
///
/// # Errors
///
/// If no more processes can be created.
pub fn begin(programs: Vec<PathBuf>, limit: Duration) -> io::Result<()> {
    let mut pintle = Command::new(std::env::current_exe()?);
    pintle.arg(COMMAND).arg(limit.as_secs().max(1).to_string()).args(&programs);
    let helper = Helper::start(pintle, limit)?;
    let _ = RUNNING.set(Programs { programs, helper });
    Ok(())
}

/// Returns `true` if this process started with a program.
#[must_use]
pub fn knows(program: &Path) -> bool {
    RUNNING.get().is_some_and(|running| running.programs.iter().any(|known| known == program))
}

/// Runs a program with an event, and logs what it says. Blocks for up to its time limit; one program runs at a time.
///
/// # Errors
///
/// If it fails or takes too long, or if this process did not start with it.
pub fn run(program: &Path, event: &Event) -> Result<(), String> {
    let unknown = || "pintle started without this program: `pintle upgrade`, or restart it".to_owned();
    let running = RUNNING.get().ok_or_else(unknown)?;
    let at = running.programs.iter().position(|known| known == program).ok_or_else(unknown)?;
    let request = ProgramRequest {
        program: at,
        event: event.kind.name().to_owned(),
        id: event.id.clone(),
        body: event.body.clone(),
    };
    let report = running.helper.run(&request);
    let report = report.map_err(|error| format!("the process for hooks does not answer ({error}): restart pintle"))?;
    let (event, program) = (event.kind.name(), program.display());
    for line in report.lines() {
        tracing::info!(%program, event, line, "hook says");
    }
    match &report.failure {
        None => Ok(()),
        Some(failure) => Err(format!("{failure}{}", report.last_line())),
    }
}

/// Runs the process until its parent ends.
///
/// # Errors
///
/// If standard input is not a channel.
pub fn serve(programs: &[OsString], time: Duration) -> io::Result<()> {
    helper::serve(|request: ProgramRequest| match programs.get(request.program).filter(|_| request.is_sound()) {
        Some(program) => {
            let mut command = Command::new(program);
            command.env("PINTLE_EVENT", &request.event).env("PINTLE_EVENT_ID", &request.id);
            program::run(command, request.body.as_bytes(), TimeLimit { time, key: "limits.hook_timeout" })
        }
        None => ProgramEnd::failed("no event of pintle"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_reach_a_program() {
        let check = |event: &str, id: &str, length: usize, want: bool| {
            let request = ProgramRequest { program: 0, event: event.into(), id: id.into(), body: "x".repeat(length) };
            assert_eq!(request.is_sound(), want, "{event} {id} {length}");
        };
        check("upstream.down", "evt_0a1b", 100, true);
        check("hook.test", "evt_0a1b", BODY_MAX, true);
        check("upstream.down", "evt_0a1b", BODY_MAX + 1, false);
        check("upstream.sideways", "evt_0a1b", 1, false);
        check("upstream.down", "a\nPATH=x", 1, false);
        check("upstream.down", &"a".repeat(64), 1, false);
    }
}
