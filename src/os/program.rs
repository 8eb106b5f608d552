//! A run of an operator's program: with bounds on its time and its output.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::words::words;

/// The most of the program's standard error that is kept, in bytes.
const OUTPUT_MAX: usize = 8 * 1024;
/// The interval between checks whether the program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The time that the program's output may stay open after its end.
const OUTPUT: Duration = Duration::from_secs(1);
/// Variables of pintle's own, which the program does not get.
const OWN: [&str; 8] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "PINTLE_HANDOVER",
    "PINTLE_ALLOW_ROOT",
];

/// The limit on a program's time.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    /// The time.
    pub time: Duration,
    /// Its key in the configuration.
    pub key: &'static str,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramEnd {
    /// `None` for exit code 0.
    pub failure: Option<String>,
    /// The program's standard error, cut to 8 KiB, without control characters except line ends.
    pub output: String,
}

impl ProgramEnd {
    /// Returns a run that did not begin.
    #[must_use]
    pub fn failed(why: impl Into<String>) -> Self {
        Self { failure: Some(why.into()), output: String::new() }
    }

    /// Returns the lines that the program wrote, without empty ones.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.output.lines().filter(|line| !line.trim().is_empty())
    }

    /// Returns the last line that the program wrote, behind a colon.
    #[must_use]
    pub fn last_line(&self) -> String {
        self.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default()
    }
}

/// Runs a program to its end, or kills it and its children. `input` becomes its standard input; it must fit into a pipe
/// (64 KiB), so that a program that does not read it delays nothing.
#[must_use]
pub fn run(mut command: Command, input: &[u8], limit: TimeLimit) -> ProgramEnd {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    for own in OWN {
        command.env_remove(own);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return ProgramEnd::failed(format!("cannot be started: {}", words(&error))),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A program may end without reading.
        let _ = stdin.write_all(input);
    }
    let output: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (done, reader) = channel::<()>();
    if let Some(mut stderr) = child.stderr.take() {
        let output = output.clone();
        thread::spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = stderr.read(&mut piece) {
                let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                let room = OUTPUT_MAX.saturating_sub(output.len());
                output.extend(piece.iter().take(read.min(room)));
            }
            drop(done);
        });
    }
    let ended = wait(&mut child, limit.time);
    if ended.is_none() {
        kill(&child);
        let _ = child.wait();
    }
    // A child of the program that keeps the pipe is not waited for.
    let _: Result<(), RecvTimeoutError> = reader.recv_timeout(OUTPUT);
    let failure = match ended {
        None => Some(format!("killed after {} s ({})", limit.time.as_secs(), limit.key)),
        Some(status) if status.success() => None,
        Some(status) => Some(status.to_string()),
    };
    let output = output.lock().unwrap_or_else(PoisonError::into_inner);
    let output = String::from_utf8_lossy(&output);
    let output = output.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
    ProgramEnd { failure, output }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => thread::sleep(LOOK_EVERY),
            _ => return None,
        }
    }
}

/// Kills the program with its children.
fn kill(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}
