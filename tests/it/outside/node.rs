//! The program as a process: started, told, killed; and whoever has taken over from it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use http::Method;
use pintle::config::AdminAddress;
use pintle::control::client::ask;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, prlimit, waitpid};
use serde_json::Value;

use crate::harness::pintle;

/// A folder with a configuration, keys, the state and the clock.
pub struct Node {
    pub folder: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// The process that serves.
    pid: Pid,
    https: SocketAddr,
}

/// The output of a command.
#[derive(Debug)]
pub struct Said {
    pub ok: bool,
    pub text: String,
}

impl Node {
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self { folder: folder.to_owned(), running: None }
    }

    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("pintle.toml")
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn https(&self) -> SocketAddr {
        self.running.as_ref().unwrap().https
    }

    /// The machine's clock, by how much it is ahead, and the boot that it is in.
    pub fn set_clock(&self, seconds: i64, boot: u64) {
        let new = self.folder.join("clock.new");
        fs::write(&new, format!("{seconds} boot-{boot}")).unwrap();
        fs::rename(new, self.folder.join("clock")).unwrap();
    }

    fn program(&self) -> Command {
        self.with_clock(pintle())
    }

    fn with_clock(&self, mut command: Command) -> Command {
        command.env("PINTLE_TEST_CLOCK", self.folder.join("clock"));
        command
    }

    /// Starts it; if it does not serve, gives what it said. Strictly: a start that would leave a site without a certificate is
    /// refused, so that a way back to what was served is needed.
    pub fn start(&mut self) -> Result<(), String> {
        assert!(self.running.is_none());
        // A file that would grow beyond its limit is an error, and not the end.
        let mut command = self.with_clock(Command::new("sh"));
        command.env("PINTLE_ALLOW_ROOT", "1").args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
        command
            .arg(pintle().get_program())
            .args(["run", "--strict", "-v", "--log-format", "json", "-c"])
            .arg(self.config());
        let stdout = File::create(self.folder.join("access")).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut https) = (String::new(), None);
        loop {
            let from = said.len();
            if log.read_line(&mut said).unwrap_or(0) == 0 {
                child.wait().unwrap();
                return Err(said);
            }
            let line: Value = serde_json::from_str(&said[from..]).unwrap_or_default();
            match line["message"].as_str() {
                Some("listening") => https = line["address"].as_str().and_then(|a| a.parse().ok()),
                Some("serving") => break,
                _ => {}
            }
        }
        // What it says from now on is kept for those who look for a fault.
        let mut kept = File::create(self.folder.join("log")).unwrap();
        thread::spawn(move || std::io::copy(&mut log, &mut kept));
        let pid = Pid::from_child(&child);
        self.running = Some(Running { child, pid, https: https.unwrap() });
        Ok(())
    }

    /// The disk is full for the running process, as far as files grow; or has room again.
    pub fn fill_disk(&self, is_full: bool) -> bool {
        let limit = Rlimit { current: is_full.then_some(0), maximum: None };
        self.running.as_ref().is_some_and(|running| prlimit(Some(running.pid), Resource::Fsize, limit).is_ok())
    }

    /// Ends it: at once, or by SIGTERM.
    pub fn stop(&mut self, at_once: bool) {
        let Some(mut running) = self.running.take() else { return };
        let _ = kill_process(running.pid, if at_once { Signal::KILL } else { Signal::TERM });
        if running.pid != Pid::from_child(&running.child) {
            // Whoever has lost its parent is ours; until then, it is its launcher's.
            while let Err(_) | Ok(None) = waitpid(Some(running.pid), WaitOptions::NOHANG) {
                if !Path::new(&format!("/proc/{}", running.pid.as_raw_nonzero())).exists() {
                    break;
                }
                thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        let _ = running.child.wait();
    }

    fn admin(&self, method: Method, path: &str) -> Said {
        let address = AdminAddress::Unix(self.state().join("admin.sock"));
        match ask(&address, method, path, String::new()) {
            Ok((status, text)) => Said { ok: status.is_success(), text },
            Err(error) => Said { ok: false, text: error.to_string() },
        }
    }

    pub fn reload(&self) -> Said {
        self.admin(Method::POST, "/reload")
    }

    /// Has it look at the files of a site now, instead of waiting until it does of its own accord.
    pub fn look(&self, host: &str) -> Said {
        self.admin(Method::POST, &format!("/certificates?host={host}"))
    }

    /// The pins of the leaves that it serves, as it says.
    pub fn leaves(&self) -> Vec<String> {
        let served: Value = serde_json::from_str(&self.admin(Method::GET, "/served").text).unwrap_or_default();
        let chains = served.as_array().into_iter().flatten().flat_map(|site| site["chains"].as_array()).flatten();
        chains.filter_map(|chain| chain["pins"][0].as_str().map(str::to_owned)).collect()
    }

    pub fn upgrade(&mut self) -> Said {
        let said = self.admin(Method::POST, "/upgrade");
        let answer: Value = serde_json::from_str(&said.text).unwrap_or_default();
        if let (true, Some(pid)) = (said.ok, answer["pid"].as_i64()) {
            self.running.as_mut().unwrap().pid = Pid::from_raw(pid as i32).unwrap();
        }
        said
    }

    /// A command of the operator's.
    pub fn command(&self, words: &[&str]) -> Said {
        let mut command = self.program();
        let done = command.args(words).arg("-c").arg(self.config()).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        Said { ok: done.status.success(), text }
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let mut text = String::new();
        let _ = File::open(self.folder.join("log")).and_then(|mut file| file.read_to_string(&mut text));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop(true);
    }
}
