//! The sandbox of the serving process: files and ports (Landlock), system calls (seccomp).
//!
//! The process enters it once, before it has other threads: Landlock binds a thread and its
//! children (landlock(7)), and a thread outside would be a way out for an attacker. Nothing in the
//! process can loosen it.

#[cfg(debug_assertions)]
pub mod attempts;
mod calls;
mod files;
mod rules;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use super::words::words;
use crate::reason::Reason;

pub use rules::{Calls, Rules, SandboxSettings, Strength};

/// The sandbox of this process.
#[derive(Debug)]
pub struct Sandbox {
    files: Option<files::RulesInForce>,
    /// The number of allowed system calls.
    calls: Option<usize>,
    /// The requested parts that are not enforced.
    lacks: Vec<String>,
}

/// A required part of the sandbox that cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    key: &'static str,
    why: String,
}

impl Error {
    /// The error with its remedy.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let hint = format!("{} = \"auto\" enforces the supported parts, and reports the missing ones", self.key);
        Reason::new(self.to_string()).hint(hint)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: required, but cannot be enforced: {}", self.key, self.why)
    }
}

impl std::error::Error for Error {}

/// A process has one sandbox and no way out of it, so it is a static instead of a parameter.
static HELD: OnceLock<Sandbox> = OnceLock::new();

/// Enters the sandbox: this thread and every thread that it starts; for system calls, all threads.
///
/// # Errors
///
/// If a required part cannot be enforced.
pub fn enter(rules: &Rules, settings: &SandboxSettings) -> Result<&'static Sandbox, Error> {
    let mut held = Sandbox { files: None, calls: None, lacks: Vec::new() };
    // Set-user-ID programs and programs with capabilities gain nothing (prctl(2),
    // PR_SET_NO_NEW_PRIVS).
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        held.lacks.push(format!("no_new_privs: {}", words(&error.into())));
    }
    match settings.landlock {
        Strength::Off => held.lacks.push("landlock is off".into()),
        strength => match files::restrict(rules) {
            Ok((files, lacks)) => {
                if let (Strength::Require, false) = (strength, lacks.is_empty()) {
                    return Err(Error { key: "sandbox.landlock", why: lacks.join("; ") });
                }
                held.lacks.extend(lacks);
                held.files = files;
            }
            Err(why) if strength == Strength::Require => return Err(Error { key: "sandbox.landlock", why }),
            Err(why) => held.lacks.push(format!("landlock: {why}")),
        },
    }
    match settings.seccomp {
        Strength::Off => held.lacks.push("seccomp is off".into()),
        strength => match calls::restrict(rules.calls) {
            Ok(calls) => held.calls = Some(calls),
            Err(why) if strength == Strength::Require => return Err(Error { key: "sandbox.seccomp", why }),
            Err(why) => held.lacks.push(format!("seccomp: {why}")),
        },
    }
    Ok(HELD.get_or_init(|| held))
}

/// The remedy for what the sandbox of this process does not allow: a new process has a sandbox of its own.
const UPGRADE: &str = "after you have changed the file, `pintle upgrade`: the new process sets up its own sandbox";
/// The same for a text that is not in the configuration file yet: whoever refuses it leaves the file as it is.
const APPLY: &str = "`pintle config apply FILE --upgrade` puts a text into the file, and does that";

/// The sandbox of this process; `None` outside one.
#[must_use]
pub fn held() -> Option<&'static Sandbox> {
    HELD.get()
}

/// The remedy for an unreadable file, if the sandbox forbids it.
#[must_use]
pub fn hint(path: &Path) -> Option<String> {
    let files = held()?.files.as_ref()?;
    (!files.covers(path, files::Use::Read)).then(|| {
        "the sandbox of this process does not allow it: `pintle upgrade` starts a process with a sandbox of its own; or name \
         its folder in sandbox.read before the next start"
            .to_owned()
    })
}

/// `true` if the sandbox forbids to make files in a folder.
#[must_use]
pub fn forbids_writing(folder: &Path) -> bool {
    held().and_then(|held| held.files.as_ref()).is_some_and(|files| !files.covers(folder, files::Use::Write))
}

impl Sandbox {
    /// The Landlock version that is enforced; `None` if files and ports are unrestricted.
    #[must_use]
    pub fn landlock(&self) -> Option<u32> {
        self.files.as_ref().map(|files| files.abi)
    }

    /// The number of allowed system calls; `None` without a filter.
    #[must_use]
    pub fn calls(&self) -> Option<usize> {
        self.calls
    }

    /// The ports that connections may go to; `None` if all are allowed.
    #[must_use]
    pub fn ports(&self) -> Option<&BTreeSet<u16>> {
        self.files.as_ref()?.connect.as_ref()
    }

    /// Readable places and writable places.
    #[must_use]
    pub fn places(&self) -> (usize, usize) {
        self.files.as_ref().map_or((0, 0), files::RulesInForce::count)
    }

    /// The requested parts that are not enforced.
    #[must_use]
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }

    /// The permissions in `rules` that this sandbox lacks, each with its remedy.
    #[must_use]
    pub fn beyond(&self, rules: &Rules) -> Vec<Reason> {
        let Some(files) = &self.files else { return Vec::new() };
        let mut beyond = Vec::new();
        let mut path = |key: &str, what: &str, path: &Path| {
            let hint = format!("name it in sandbox.{key} before the next start");
            let what =
                format!("{}: the sandbox was set up at the start without permission to {what} it", path.display());
            beyond.push(Reason::new(what).hint(UPGRADE).hint(APPLY).hint(hint));
        };
        for read in rules.read.iter().filter(|p| p.exists() && !files.covers(p, files::Use::Read)) {
            path("read", "read", read);
        }
        for (folders, wanted) in [(&rules.write, files::Use::Write), (&rules.sockets, files::Use::Sockets)] {
            for write in folders.iter().filter(|p| !files.covers(p, wanted)) {
                path("write", "write", write);
            }
        }
        if let (Some(allowed), Some(wanted)) = (&files.connect, &rules.connect) {
            let hint = "name the port in sandbox.connect_ports before the next start";
            beyond.extend(wanted.difference(allowed).map(|port| {
                let what =
                    format!("port {port}: the sandbox was set up at the start without permission to connect to it");
                Reason::new(what).hint(UPGRADE).hint(APPLY).hint(hint)
            }));
        }
        beyond
    }
}

#[cfg(test)]
mod tests;
