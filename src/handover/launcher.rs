//! The launcher: a process whose sole power is to start this program again, as it lies on disk then, with the arguments
//! that it was told at its own start.
//!
//! The process that serves may start nothing: what takes it over must not be able to run what it likes. So it asks. The
//! launcher ends when whoever started it does, and what it has started does not depend on it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VARIABLE;
use super::channel::{Channel, ChannelError};

/// How long it may take the launcher to answer: it has nothing else to do.
const ANSWER: Duration = Duration::from_secs(10);
/// How often it looks whether its child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it may take to end, once it is dismissed.
const DISMISS: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Start it; the file that comes along is its standard input.
    Start,
    /// Kill what was started, and tell how it ended.
    Kill,
}

#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Started { pid: u32 },
    Failed { why: String },
    Ended { how: String },
}

/// The launcher, as the process sees it that serves.
#[derive(Debug)]
pub struct Launcher {
    channel: Channel,
    process: Child,
}

impl Launcher {
    /// Starts a launcher that will start this program with these arguments.
    ///
    /// # Errors
    ///
    /// When this program's file cannot be found, or there can be no more processes.
    pub fn start(arguments: impl Iterator<Item = OsString>) -> io::Result<Self> {
        let (channel, theirs) = Channel::pair()?;
        let process = Command::new(std::env::current_exe()?)
            .arg("launcher")
            .arg(program()?)
            .args(arguments)
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self { channel, process })
    }

    /// Has the program started, with this as its standard input. Gives its process id.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn launch(&mut self, stdin: OwnedFd) -> Result<u32, String> {
        self.channel.send(&Request::Start, &[stdin.as_fd()], ANSWER).map_err(|e| gone(&e))?;
        match self.channel.receive(Some(ANSWER), None).map_err(|e| gone(&e))? {
            Report::Started { pid } => Ok(pid),
            Report::Failed { why } | Report::Ended { how: why } => Err(why),
        }
    }

    /// Has what was started killed, if it has not ended yet. Gives how it ended.
    ///
    /// # Errors
    ///
    /// When there is no launcher any more.
    pub fn kill(&mut self) -> Result<String, String> {
        self.channel.send(&Request::Kill, &[], ANSWER).map_err(|e| gone(&e))?;
        match self.channel.receive(Some(ANSWER), None).map_err(|e| gone(&e))? {
            Report::Ended { how } | Report::Failed { why: how } => Ok(how),
            Report::Started { pid } => Err(format!("process {pid} was started unasked")),
        }
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(ended) => ended.map(|status| status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Lets it end. What it has started is init's child from then on, or the service manager's, who can then be told of
    /// it as of one of its own.
    pub fn dismiss(self) {
        let Self { channel, mut process } = self;
        drop(channel);
        let end = tokio::time::Instant::now() + DISMISS;
        while matches!(process.try_wait(), Ok(None)) && tokio::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn gone(error: &ChannelError) -> String {
    format!("the launcher does not answer ({error}): this process cannot start another; restart it")
}

/// The path by which this program was found, so that a file that is put there, or a link that is changed, is what comes
/// next. Only if that leads elsewhere now, the path of the file itself.
fn program() -> io::Result<PathBuf> {
    let itself = std::env::current_exe()?;
    let named = std::env::args_os().next().unwrap_or_default();
    let found = if named.as_encoded_bytes().contains(&b'/') {
        Some(std::path::absolute(&named)?)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(&named)).find(|p| p.is_file())
    };
    let is_same = |path: &PathBuf| same_file(path, &itself);
    Ok(found.filter(is_same).unwrap_or(itself))
}

fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    matches!((id(one), id(other)), (Ok(one), Ok(other)) if one == other)
}

/// Is the launcher, until whoever has started it ends.
///
/// # Errors
///
/// When standard input is not what it should be.
pub fn run(program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let mut channel = Channel::of_stdin()?;
    let mut child: Option<Child> = None;
    loop {
        // A child that has ended is told of when somebody asks, but not left as a zombie until then.
        let wait = child.as_ref().map(|_| LOOK_EVERY);
        match channel.receive(wait, None) {
            Ok(Request::Start) => {
                let report = match channel.take_file() {
                    Some(stdin) => start(program, arguments, stdin, &mut child),
                    None => Report::Failed { why: "there is nothing to give the new process".into() },
                };
                if channel.send(&report, &[], ANSWER).is_err() {
                    return Ok(());
                }
            }
            Ok(Request::Kill) => {
                let how = match child.take() {
                    Some(mut child) => {
                        let _ = child.kill();
                        child.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
                    }
                    None => "there is no such process".to_owned(),
                };
                if channel.send(&Report::Ended { how }, &[], ANSWER).is_err() {
                    return Ok(());
                }
            }
            Err(ChannelError::Silent(_)) => {
                if let Some(child) = &mut child {
                    let _ = child.try_wait();
                }
            }
            // Whoever has started this has ended, or wants nothing more.
            Err(_) => return Ok(()),
        }
    }
}

fn start(program: &OsStr, arguments: &[OsString], stdin: OwnedFd, child: &mut Option<Child>) -> Report {
    if child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
        return Report::Failed { why: "another process was started, and is still there".into() };
    }
    let mut command = Command::new(program);
    command.args(arguments).env(VARIABLE, "1").stdin(Stdio::from(stdin));
    // These name the process that they were meant for.
    for own in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(own);
    }
    match command.spawn() {
        Ok(started) => {
            let pid = started.id();
            *child = Some(started);
            Report::Started { pid }
        }
        Err(error) => Report::Failed { why: format!("{} cannot be started: {error}", Path::new(program).display()) },
    }
}
