//! pintle as a process, on ports of the system's choice.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use super::{Authority, eventually, in_time, send_signal};

/// The program under test, or another build of it that `PINTLE_PROGRAM` names. The tests may run as root, in folders that
/// nobody else can look into: it stays what they are.
pub fn pintle() -> Command {
    let program = std::env::var_os("PINTLE_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pintle").into());
    let mut command = Command::new(program);
    command.env("PINTLE_ALLOW_ROOT", "1");
    command
}

/// A running pintle.
pub struct Pintle {
    child: Child,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    log: Lines,
    access: Lines,
    folder: TempDir,
    ca: PathBuf,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// Tests move upstreams to other ports, and everything to other folders; those of the sandbox have a table of their own.
fn lenient_sandbox() -> String {
    format!("[sandbox]\nconnect = \"any\"\nwrite = [{:?}]\n", std::env::temp_dir())
}

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";

impl Pintle {
    /// Starts pintle on loopback with this text behind a `[listen]` table.
    #[track_caller]
    pub fn start(authority: &Authority, config: &str) -> Self {
        Self::start_with(authority, LISTEN, config)
    }

    /// The same with more keys in `[listen]`.
    #[track_caller]
    pub fn start_listening(authority: &Authority, more: &str, config: &str) -> Self {
        Self::start_with(authority, &format!("{LISTEN}{more}\n"), config)
    }

    #[track_caller]
    pub fn start_with(authority: &Authority, listen: &str, config: &str) -> Self {
        Self::start_command(authority, listen, config, |_| {})
    }

    #[track_caller]
    pub fn start_command(authority: &Authority, listen: &str, config: &str, adapt: impl FnOnce(&mut Command)) -> Self {
        Self::start_program(pintle(), authority, listen, config, adapt)
    }

    /// The same, found by another path.
    #[track_caller]
    pub fn start_program(
        command: Command,
        authority: &Authority,
        listen: &str,
        config: &str,
        adapt: impl FnOnce(&mut Command),
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pintle.toml");
        Self::start_in(folder, &path, command, authority, listen, config, adapt)
    }

    /// The same in a folder that there is, with its configuration called by that path.
    #[track_caller]
    pub fn start_in(
        folder: TempDir,
        called: &Path,
        mut command: Command,
        authority: &Authority,
        listen: &str,
        config: &str,
        adapt: impl FnOnce(&mut Command),
    ) -> Self {
        let path = folder.path().join("pintle.toml");
        let sandbox = if config.contains("[sandbox]") { String::new() } else { lenient_sandbox() };
        fs::write(&path, format!("{sandbox}{listen}\n{config}")).unwrap();
        command.env("PINTLE_ALLOW_ROOT", "1");
        command.args(["run", "-v", "--log-format", "json", "-c"]).arg(called);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        adapt(&mut command);
        let mut child = command.spawn().unwrap();
        let access = gather(child.stdout.take().unwrap());
        let log = gather(child.stderr.take().unwrap());
        eventually("pintle serves", || {
            if let Some(status) = child.try_wait().unwrap() {
                thread::sleep(std::time::Duration::from_millis(50));
                panic!("pintle ended at once ({status}):\n{}", log.lock().unwrap().join("\n"));
            }
            log.lock().unwrap().iter().any(|l| l.contains("\"serving\"")).then_some(())
        });
        let ca = authority.ca_path();
        let mut started = Self { child, https: Vec::new(), http: Vec::new(), log, access, folder, ca };
        for line in started.log_json("listening") {
            let address = line["address"].as_str().unwrap().parse().unwrap();
            if line["scheme"] == "https" { started.https.push(address) } else { started.http.push(address) }
        }
        started
    }

    /// The address of its TLS listener.
    pub fn https(&self) -> SocketAddr {
        self.https[0]
    }

    /// The address of its plain listener.
    pub fn http(&self) -> SocketAddr {
        self.http[0]
    }

    /// curl, with the CA, and all names pointed here.
    pub fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(&self.ca);
        curl.arg("--connect-to").arg(format!(":443:{}:{}", self.https().ip(), self.https().port()));
        curl.arg("--connect-to").arg(format!(":80:{}:{}", self.http().ip(), self.http().port()));
        curl
    }

    /// The lines of the operator's log with this message.
    pub fn log_json(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lock().unwrap();
        let parsed = lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        parsed.filter(|v| v["message"] == message).collect()
    }

    /// The same, as soon as there are so many: they come by a pipe, a little later than answers do.
    #[track_caller]
    pub fn logged(&self, message: &str, lines: usize) -> Vec<Value> {
        eventually(&format!("{lines} log lines: {message}"), || {
            Some(self.log_json(message)).filter(|found| found.len() >= lines)
        })
    }

    /// The whole log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until the log has this: it comes by a pipe, a little later than answers do.
    #[track_caller]
    pub fn logs(&self, text: &str) {
        eventually(&format!("a log line with {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// The access lines so far.
    pub fn access(&self) -> Vec<Value> {
        self.access.lock().unwrap().iter().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    /// The access line of this target, when it is there.
    #[track_caller]
    pub fn access_line(&self, target: &str) -> Value {
        eventually(&format!("an access line for {target}"), || {
            self.access().into_iter().rev().find(|v| v["target"] == target)
        })
    }

    /// Its configuration.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("pintle.toml")
    }

    /// A command about this process: `reload`, `status`, ...
    pub fn command(&self, name: &str) -> Command {
        let mut command = pintle();
        command.args(name.split(' ')).arg("-c").arg(self.config_path());
        command
    }

    /// Writes its configuration anew; nobody tells it.
    #[track_caller]
    pub fn rewrite(&self, change: impl FnOnce(&str) -> String) {
        let before = fs::read_to_string(self.config_path()).unwrap();
        let after = change(&before);
        assert_ne!(before, after, "nothing has changed");
        fs::write(self.config_path(), after).unwrap();
    }

    /// The output of `pintle reload`, which must succeed.
    #[track_caller]
    pub fn reload(&self) -> String {
        super::output(&mut self.command("reload"))
    }

    /// The same; it must not.
    #[track_caller]
    pub fn reload_fails(&self) -> String {
        let (code, out, err) = super::outcome(&mut self.command("reload"));
        assert_eq!(code, 1, "{out}{err}");
        err
    }

    /// The addresses that it listens on now, from `status`.
    #[track_caller]
    pub fn listening(&self, scheme: &str) -> Vec<SocketAddr> {
        let status = self.status();
        let listening = status["listening"].as_array().unwrap().iter().filter(|l| l["scheme"] == scheme);
        listening.map(|l| l["address"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// The output of `pintle status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&super::output(self.command("status").arg("--json"))).unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes: its peak.
    pub fn peak_memory(&self) -> u64 {
        self.status_field("VmHWM:") * 1024
    }

    /// Resident memory, in bytes: now.
    pub fn memory(&self) -> u64 {
        self.status_field("VmRSS:") * 1024
    }

    fn status_field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        assert!(send_signal(name, self.pid()), "{name}");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("pintle ends", || self.child.try_wait().unwrap())
    }

    /// SIGTERM, and the exit code.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        let status = self.wait();
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
    }
}

impl Drop for Pintle {
    fn drop(&mut self) {
        // tests/coverage: only a process that ends by itself writes its profile.
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            send_signal("TERM", self.child.id());
            let _ = in_time(|| self.child.try_wait().ok().flatten());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            return EARLIER.with_borrow_mut(|logs| {
                logs.truncate(EARLIER_MAX - 1);
                logs.insert(0, self.log.lock().unwrap().clone());
            });
        }
        for (ago, log) in EARLIER.take().iter().enumerate().rev() {
            eprintln!("--- the log of the pintle that ended before ({})\n{}", ago + 1, log.join("\n"));
        }
        eprintln!("--- pintle's log\n{}", self.log());
        eprintln!("--- pintle's access log\n{}", self.access.lock().unwrap().join("\n"));
    }
}

/// The number of logs that a failed test shows besides the running one.
const EARLIER_MAX: usize = 3;

thread_local! {
    /// The logs of this test's ended processes, the latest first.
    static EARLIER: RefCell<Vec<Vec<String>>> = const { RefCell::new(Vec::new()) };
}

fn gather(input: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let gathered = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(input).lines().map_while(Result::ok) {
            gathered.lock().unwrap().push(line);
        }
    });
    lines
}
