//! The hook process: starts the program that sets DNS records (`acme.dns_hook`), and nothing else.
//!
//! The serving process may start nothing. It asks the hook process, which starts before the sandbox,
//! with the program from the configuration of that start. The hook process takes names and values of
//! dns-01 only, so an attacker in the serving process gains the right to set challenges, and no
//! other. It removes the records that are left when the serving process ends, however that ends.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::handover::{Helper, helper};
use crate::os::program::{self, ProgramEnd, TimeLimit};

/// The hidden command that runs it.
pub const COMMAND: &str = "dns-hook";
/// The most records that are remembered.
const RECORDS_MAX: usize = 1000;
/// The beginning of every name.
const PREFIX: &str = "_acme-challenge.";

/// The first argument of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Set a TXT record, beside those that are there.
    Present,
    /// Remove it again.
    Cleanup,
    /// Leave all records to another process: the program is not started.
    Forget,
}

impl Action {
    /// Returns the argument.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Cleanup => "cleanup",
            Self::Forget => "forget",
        }
    }
}

/// A TXT record of dns-01.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxtRecord {
    /// `_acme-challenge.example.com`
    pub name: String,
    /// The digest of the key authorization.
    pub value: String,
}

impl TxtRecord {
    /// Returns `true` for a name and value of dns-01. Neither can be an option or contain anything
    /// that a shell would read.
    fn is_sound(&self) -> bool {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        let name = self.name.strip_prefix(PREFIX);
        name.is_some_and(|rest| self.name.len() <= 253 && rest.split('.').all(label))
            && self.value.len() == 43
            && self.value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct HookRequest {
    action: Action,
    record: TxtRecord,
}

/// The hook process of this process.
static RUNNING: OnceLock<Arc<HookProcess>> = OnceLock::new();

/// Returns the hook process, if this process has one.
#[must_use]
pub fn running() -> Option<Arc<HookProcess>> {
    RUNNING.get().cloned()
}

/// Starts the hook process of this process. Must be called before the sandbox.
///
/// # Errors
///
/// If no more processes can be created.
pub fn begin(program: &Path, limit: Duration) -> io::Result<()> {
    let hook = Arc::new(HookProcess::start(program, limit)?);
    let _ = RUNNING.set(hook);
    Ok(())
}

/// The hook process, as seen from the serving process.
#[derive(Debug)]
pub struct HookProcess {
    program: PathBuf,
    /// Removes the records that are left when it ends.
    helper: Helper,
    /// `true` while another process has the records.
    hands_over: AtomicBool,
}

impl HookProcess {
    /// Starts a hook process for this program, which may run for `limit` each time.
    ///
    /// # Errors
    ///
    /// If no more processes can be created.
    pub fn start(program: &Path, limit: Duration) -> io::Result<Self> {
        Self::start_as(Command::new(std::env::current_exe()?), program, limit)
    }

    /// Does the same with a command that runs pintle.
    ///
    /// # Errors
    ///
    /// If no more processes can be created.
    pub fn start_as(mut pintle: Command, program: &Path, limit: Duration) -> io::Result<Self> {
        pintle.arg(COMMAND).arg(program).arg(limit.as_secs().max(1).to_string());
        let helper = Helper::start(pintle, limit)?;
        Ok(Self { program: program.to_owned(), helper, hands_over: AtomicBool::new(false) })
    }

    /// Returns the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Leaves the records to another process, which continues their orders: from now on, this one removes none.
    pub fn hand_over(&self) {
        self.hands_over.store(true, Ordering::Relaxed);
    }

    /// Takes the records back.
    pub fn take_back(&self) {
        self.hands_over.store(false, Ordering::Relaxed);
    }

    /// Lets the hook process forget its records, so that it removes none when this process ends. Blocks while the program
    /// runs.
    pub fn forget(&self) {
        let none = TxtRecord { name: String::new(), value: String::new() };
        if let Err(problem) = self.run(Action::Forget, &none) {
            tracing::warn!(problem, "the hook process may remove DNS records that another process needs");
        }
    }

    /// Returns the time limit of one run.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.helper.limit()
    }

    /// Runs the program, and logs what it says. Blocks for up to its time limit.
    ///
    /// # Errors
    ///
    /// If it fails or takes too long, or the hook process is gone.
    pub fn run(&self, action: Action, record: &TxtRecord) -> Result<(), String> {
        if action == Action::Cleanup && self.hands_over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let report = self.helper.run(&HookRequest { action, record: record.clone() });
        let report = report.map_err(|error| format!("the hook process does not answer ({error}): restart pintle"))?;
        let (name, program) = (&record.name, self.program.display());
        for line in report.lines() {
            tracing::info!(%program, action = action.word(), name, line, "dns hook says");
        }
        match &report.failure {
            None => Ok(()),
            Some(failure) => {
                let last = report.last_line();
                Err(format!("{program} {} {name}: {failure}{last}", action.word()))
            }
        }
    }
}

/// Runs the hook process until its parent ends.
///
/// # Errors
///
/// If standard input is not a channel.
pub fn run(program: &OsStr, limit: Duration) -> io::Result<()> {
    let mut left: Vec<TxtRecord> = Vec::new();
    helper::serve(|HookRequest { action, record }| {
        if action == Action::Forget {
            left.clear();
            return ProgramEnd { failure: None, output: String::new() };
        }
        if !record.is_sound() {
            return ProgramEnd::failed("no record of dns-01");
        }
        if action == Action::Present {
            if left.len() >= RECORDS_MAX {
                return ProgramEnd::failed("too many records");
            }
            // Before the start: a program that fails may have set it all the same.
            left.push(record.clone());
        }
        let report = start(program, action, &record, limit);
        if action == Action::Cleanup && report.failure.is_none() {
            left.retain(|known| *known != record);
        }
        report
    })?;
    for record in left {
        let _ = start(program, Action::Cleanup, &record, limit);
    }
    Ok(())
}

/// Runs the program to its end, or kills it and its children.
fn start(program: &OsStr, action: Action, record: &TxtRecord, time: Duration) -> ProgramEnd {
    let mut command = Command::new(program);
    command.arg(action.word()).args([&record.name, &record.value]);
    program::run(command, &[], TimeLimit { time, key: "limits.dns_hook" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_dns_01_reach_the_program() {
        let value = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";
        let check = |name: &str, value: &str, want: bool| {
            assert_eq!(TxtRecord { name: name.into(), value: value.into() }.is_sound(), want, "{name} {value}");
        };
        check("_acme-challenge.example.com", value, true);
        check("_acme-challenge.xn--bcher-kva.example", value, true);
        check("_acme-challenge._a.example", value, true);
        check("example.com", value, false);
        check("_acme-challenge.", value, false);
        check("_acme-challenge..com", value, false);
        check("_acme-challenge.a b", value, false);
        check("_acme-challenge.$(id)", value, false);
        check("_acme-challenge.a\n.example", value, false);
        check(&format!("_acme-challenge.{}", "a".repeat(64)), value, false);
        check(&format!("_acme-challenge.{}com", "a.".repeat(120)), value, false);
        check("_acme-challenge.example.com", "", false);
        check("_acme-challenge.example.com", &value[1..], false);
        check("_acme-challenge.example.com", &value.replace('9', "$"), false);
    }
}
