//! The launcher: a helper process that can only start pintle's program file again, with the
//! arguments of its own start.
//!
//! The serving process may start nothing, so that an attacker in it cannot run programs. It asks
//! the launcher instead. The launcher ends with the process that started it; the processes that it
//! has started continue.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VARIABLE;
use super::channel::{Channel, ChannelError};
use crate::os::words::words;

/// Time limit for an answer of the launcher, which has nothing else to do.
const ANSWER: Duration = Duration::from_secs(10);
/// The interval at which the launcher checks whether its child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time limit for the launcher's end after its dismissal.
const DISMISS: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
enum LauncherRequest {
    /// Start the program; the file sent along becomes its standard input.
    Start,
    /// Kill the started process, and report how it ended.
    Kill,
}

#[derive(Debug, Serialize, Deserialize)]
enum LauncherReport {
    Started { pid: u32 },
    Failed { why: String },
    Ended { how: String },
}

/// The launcher, as seen from the serving process.
#[derive(Debug)]
pub struct Launcher {
    channel: Channel,
    process: Child,
}

impl Launcher {
    /// Starts a launcher for this program with these arguments.
    ///
    /// # Errors
    ///
    /// If the program's file cannot be found, or no more processes can be created.
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

    /// Starts the program with this standard input. Returns its process id.
    ///
    /// # Errors
    ///
    /// If the program cannot be started.
    pub fn launch(&mut self, stdin: OwnedFd) -> Result<u32, String> {
        self.channel.send(&LauncherRequest::Start, &[stdin.as_fd()], ANSWER).map_err(|e| gone(&e))?;
        match self.channel.receive(Some(ANSWER), None).map_err(|e| gone(&e))? {
            LauncherReport::Started { pid } => Ok(pid),
            LauncherReport::Failed { why } | LauncherReport::Ended { how: why } => Err(why),
        }
    }

    /// Kills the started process, unless it has ended. Returns how it ended.
    ///
    /// # Errors
    ///
    /// If the launcher has ended.
    pub fn kill(&mut self) -> Result<String, String> {
        self.channel.send(&LauncherRequest::Kill, &[], ANSWER).map_err(|e| gone(&e))?;
        match self.channel.receive(Some(ANSWER), None).map_err(|e| gone(&e))? {
            LauncherReport::Ended { how } | LauncherReport::Failed { why: how } => Ok(how),
            LauncherReport::Started { pid } => Err(format!("process {pid} was started unasked")),
        }
    }

    /// Returns how the launcher has ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<String> {
        match self.process.try_wait() {
            Ok(ended) => ended.map(|status| status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Ends the launcher. Its child becomes a child of init or of the service manager, which
    /// accepts it as the main process then.
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
    format!("the launcher does not answer ({error}): this process cannot start another one; restart pintle")
}

/// The path that pintle was started by, so that an upgrade finds a new file or a changed link
/// there. If it leads elsewhere now, the path of the running file.
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

/// Runs the launcher until its parent ends.
///
/// # Errors
///
/// If standard input is not a channel.
pub fn run(program: &OsStr, arguments: &[OsString]) -> io::Result<()> {
    let mut channel = Channel::of_stdin()?;
    let mut child: Option<Child> = None;
    loop {
        // Without this poll, an ended child would stay a zombie until the next request.
        let wait = child.as_ref().map(|_| LOOK_EVERY);
        match channel.receive(wait, None) {
            Ok(LauncherRequest::Start) => {
                let report = match channel.take_file() {
                    Some(stdin) => start(program, arguments, stdin, &mut child),
                    None => LauncherReport::Failed { why: "no standard input for the new process".into() },
                };
                if channel.send(&report, &[], ANSWER).is_err() {
                    return Ok(());
                }
            }
            Ok(LauncherRequest::Kill) => {
                let how = match child.take() {
                    Some(mut child) => {
                        let _ = child.kill();
                        child.wait().map_or_else(|e| e.to_string(), |status| status.to_string())
                    }
                    None => "no such process".to_owned(),
                };
                if channel.send(&LauncherReport::Ended { how }, &[], ANSWER).is_err() {
                    return Ok(());
                }
            }
            Err(ChannelError::Silent(_)) => {
                if let Some(child) = &mut child {
                    let _ = child.try_wait();
                }
            }
            // The parent has ended, or has dismissed the launcher.
            Err(_) => return Ok(()),
        }
    }
}

fn start(program: &OsStr, arguments: &[OsString], stdin: OwnedFd, child: &mut Option<Child>) -> LauncherReport {
    if child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None))) {
        return LauncherReport::Failed { why: "another started process is still running".into() };
    }
    let mut command = Command::new(program);
    command.args(arguments).env(VARIABLE, "1").stdin(Stdio::from(stdin));
    // These variables name the process that they were set for.
    for own in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(own);
    }
    match command.spawn() {
        Ok(started) => {
            let pid = started.id();
            *child = Some(started);
            LauncherReport::Started { pid }
        }
        Err(error) => LauncherReport::Failed {
            why: format!("{} cannot be started: {}", Path::new(program).display(), words(&error)),
        },
    }
}
