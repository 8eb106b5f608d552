//! A helper process: runs the operator's programs for the serving process, which may start nothing.
//!
//! It starts before the sandbox. Each request has a number, and its report has the same one: a report that comes too late
//! is not taken for the next one.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::channel::{Channel, ChannelError};
use crate::os::program::ProgramEnd;

/// The time for messages.
const SEND: Duration = Duration::from_secs(10);
/// The time that the process has beyond the program's own limit.
const GRACE: Duration = Duration::from_secs(15);

/// A helper process, as seen from the serving process.
#[derive(Debug)]
pub struct Helper {
    limit: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    channel: Channel,
    process: Child,
    /// The number of the last request.
    number: u64,
}

/// A request, or the report on it.
#[derive(Debug, Serialize, Deserialize)]
struct Numbered<T> {
    #[serde(default)]
    number: u64,
    #[serde(flatten)]
    message: T,
}

impl Helper {
    /// Starts the process with a command, whose standard input becomes the channel. A program may run for `limit`.
    ///
    /// # Errors
    ///
    /// If no more processes can be created.
    pub fn start(mut command: Command, limit: Duration) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let process = command.stdin(Stdio::from(theirs)).spawn()?;
        Ok(Self { limit, inner: Mutex::new(Inner { channel, process, number: 0 }) })
    }

    /// Returns the time limit of one run.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Has a program run, and returns the report. Blocks for up to the time limit; one program runs at a time.
    ///
    /// # Errors
    ///
    /// If the process does not answer.
    pub fn run(&self, request: &impl Serialize) -> Result<ProgramEnd, ChannelError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.number += 1;
        let number = inner.number;
        inner.channel.send(&Numbered { number, message: request }, &[], SEND)?;
        let end = Instant::now() + self.limit + GRACE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let report: Numbered<ProgramEnd> = inner.channel.receive(Some(left), None)?;
            if report.number == number {
                return Ok(report.message);
            }
        }
    }
}

impl Drop for Helper {
    /// Closes the channel, which ends the process.
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = inner.process.try_wait();
    }
}

/// Answers requests until the serving process ends.
///
/// # Errors
///
/// If standard input is not a channel.
pub fn serve<T: DeserializeOwned>(mut run: impl FnMut(T) -> ProgramEnd) -> io::Result<()> {
    let mut channel = Channel::of_stdin()?;
    // The end of the serving process closes the channel.
    while let Ok(Numbered { number, message }) = channel.receive::<Numbered<T>>(None, None) {
        if channel.send(&Numbered { number, message: run(message) }, &[], SEND).is_err() {
            break;
        }
    }
    Ok(())
}
