//! What the process may still do once it serves: which files and ports, by Landlock; which system calls, by seccomp.
//!
//! It is entered once, before there are threads: Landlock binds a thread and those that it starts (landlock(7)), and a
//! thread left outside would be the way out for whoever took over one inside. Nothing in the process can loosen it.

#[cfg(debug_assertions)]
pub mod attempts;
mod calls;
mod files;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// How much it matters that a part of the sandbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strength {
    /// It is not wanted.
    Off,
    /// As far as the kernel has it.
    #[default]
    Auto,
    /// Without all of it, nothing is served.
    Require,
}

/// What the operator has to say about it: `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Files and ports.
    pub landlock: Strength,
    /// System calls.
    pub seccomp: Strength,
    /// Connections may go to any port.
    pub connect_anywhere: bool,
    /// Ports beside those of the upstreams and of DNS.
    pub connect_ports: Vec<u16>,
    /// Files and folders that may be read beside those that the configuration names.
    pub read: Vec<PathBuf>,
    /// The same, written.
    pub write: Vec<PathBuf>,
}

/// What is to be allowed. All that lies below a folder is allowed with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Files and folders to be read.
    pub read: BTreeSet<PathBuf>,
    /// Files and folders to be read and written.
    pub write: BTreeSet<PathBuf>,
    /// Folders in which logs are written and made: nothing in them is read or removed.
    pub logs: BTreeSet<PathBuf>,
    /// Folders in which sockets are made and removed: no file in them is written.
    pub sockets: BTreeSet<PathBuf>,
    /// Ports that TCP connections may go to; none if they may go to all.
    pub connect: Option<BTreeSet<u16>>,
    /// Whether sockets with abstract names may be reached that others have made.
    pub abstract_sockets: bool,
    /// Which list of system calls.
    pub calls: Calls,
}

/// Lists of system calls, by what a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calls {
    /// The proxy.
    #[default]
    Serving,
    /// Signing what it is asked to by sockets that it is given.
    Keys,
}

/// The sandbox that this process is in.
#[derive(Debug)]
pub struct Held {
    files: Option<files::Held>,
    /// How many system calls are allowed.
    calls: Option<usize>,
    /// What was wanted, and is not held.
    lacks: Vec<String>,
}

/// A part of the sandbox that was required, and cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    key: &'static str,
    why: String,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        format!("{} = \"auto\" holds what the kernel has, and tells what it lacks", self.key)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: is required, and cannot be held: {}", self.key, self.why)
    }
}

impl std::error::Error for Error {}

/// There is one for the process, and no way out of it: nobody needs to hand it around.
static HELD: OnceLock<Held> = OnceLock::new();

/// Enters the sandbox: this thread and all that it starts from now on; the system calls of all threads that there are.
///
/// # Errors
///
/// When a part that is required cannot be held.
pub fn enter(rules: &Rules, settings: &Settings) -> Result<&'static Held, Error> {
    let mut held = Held { files: None, calls: None, lacks: Vec::new() };
    // Neither a program with set-user-ID nor one with capabilities gives anything back (prctl(2), PR_SET_NO_NEW_PRIVS).
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        held.lacks.push(format!("no_new_privs: {error}"));
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

/// The sandbox that this process is in, if it is in one.
#[must_use]
pub fn held() -> Option<&'static Held> {
    HELD.get()
}

/// What to do about a file that may not be read, if it is the sandbox that forbids it.
#[must_use]
pub fn hint(path: &Path) -> Option<String> {
    let files = held()?.files.as_ref()?;
    (!files.covers(path, files::Use::Read)).then(|| {
        "the sandbox was made at the start without it: restart pintle, or name its folder in sandbox.read before the next \
         start"
            .to_owned()
    })
}

impl Held {
    /// Files and ports: the version of Landlock that holds them, if one does.
    #[must_use]
    pub fn landlock(&self) -> Option<u32> {
        self.files.as_ref().map(|files| files.abi)
    }

    /// How many system calls are allowed, if others are not.
    #[must_use]
    pub fn calls(&self) -> Option<usize> {
        self.calls
    }

    /// The ports that connections may go to, if there are others that they may not.
    #[must_use]
    pub fn ports(&self) -> Option<&BTreeSet<u16>> {
        self.files.as_ref()?.connect.as_ref()
    }

    /// Folders and files that may be read; and written.
    #[must_use]
    pub fn places(&self) -> (usize, usize) {
        self.files.as_ref().map_or((0, 0), files::Held::count)
    }

    /// What was wanted, and is not held.
    #[must_use]
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }

    /// What these rules want that is not allowed here, with a remedy for each.
    #[must_use]
    pub fn beyond(&self, rules: &Rules) -> Vec<(String, String)> {
        let Some(files) = &self.files else { return Vec::new() };
        let mut beyond = Vec::new();
        let mut path = |key: &str, what: &str, path: &Path| {
            let hint = format!("restart pintle; or name it in sandbox.{key} before the next start");
            beyond.push((
                format!("{}: the sandbox was made at the start without leave to {what} it", path.display()),
                hint,
            ));
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
            let hint = "restart pintle; or name the port in sandbox.connect_ports before the next start";
            beyond.extend(wanted.difference(allowed).map(|port| {
                let what = format!("port {port}: the sandbox was made at the start without leave to connect to it");
                (what, hint.to_owned())
            }));
        }
        beyond
    }
}

#[cfg(test)]
mod tests;
