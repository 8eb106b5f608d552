//! pintle as process 1 of a container, or below a small one: signals, orphans, upgrades, health checks.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually, is_root, outcome, send_signal};

/// A process namespace with this as its process 1, and pintle in it.
struct Container {
    pintle: Pintle,
    /// Process 1, as the host sees it.
    first: u32,
    _folder: TempDir,
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The state of a process, such as `S` or `Z`, as in proc(5).
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

impl Container {
    fn start(authority: &Authority, entrypoint: &[&str], more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let state = format!("[state]\ndirectory = {:?}\n", folder.path().join("state"));
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).args(entrypoint);
        command.arg(env!("CARGO_BIN_EXE_pintle")).env_remove("NOTIFY_SOCKET");
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";
        let pintle = Pintle::start_program(command, authority, listen, &format!("{state}{more}"), |_| {});
        let first = eventually("process 1", || children(pintle.pid()).first().copied());
        Self { pintle, first, _folder: folder }
    }

    /// Runs a program in the namespace.
    fn enter(&self, program: &[&str]) -> (i32, String, String) {
        let target = self.first.to_string();
        outcome(Command::new("nsenter").args(["--target", &target, "--pid", "--mount", "--"]).args(program))
    }

    /// Sends a signal to process 1, as `docker stop` and `docker kill` do.
    fn signal(&self, name: &str) {
        assert!(send_signal(name, self.first), "{name}");
    }
}

fn serves(address: SocketAddr, authority: &Authority) {
    assert_eq!(Client::new(authority).get(address, BLOG, "/").status, 200);
}

/// The answer of `pintle upgrade --json`, which fails and changes nothing.
fn refused_upgrade(container: &Container, because: &str) {
    let before = container.pintle.status()["pid"].clone();
    let (code, out, err) = outcome(container.pintle.command("upgrade").arg("--json"));
    let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((code, &answer["ok"]), (1, &Value::Bool(false)), "{answer}");
    assert!(answer["problems"][0].as_str().unwrap().contains(because), "{answer}");
    let (code, out, err) = outcome(&mut container.pintle.command("upgrade"));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains(because) && err.contains("restart the container"), "{err}");
    assert_eq!(container.pintle.status()["pid"], before);
    let (code, out, _) = outcome(&mut container.pintle.command("status"));
    assert!(code == 0 && out.contains("upgrades       none: ") && out.contains(because), "{out}");
}

#[test]
fn process_1_serves_and_refuses_upgrades() {
    if !is_root("make a process namespace") {
        return;
    }
    let (authority, origin) = (Authority::new(), Origin::hello());
    let mut container = Container::start(&authority, &[], &blog(&authority, &origin));
    assert_eq!(container.pintle.status()["pid"], 1);
    let address = container.pintle.https();
    serves(address, &authority);
    refused_upgrade(&container, "pintle is its process 1");
    // By signal, too, and nothing was started for it.
    container.signal("USR2");
    eventually("the log says it", || {
        container.pintle.log_json("upgrade failed; the old process keeps serving").get(2).cloned()
    });
    assert_eq!(children(container.first), Vec::<u32>::new());
    serves(address, &authority);
    container.signal("HUP");
    eventually("it reloads", || (container.pintle.status()["reloads"] == 1).then_some(()));
    let (code, out, err) = outcome(&mut container.pintle.command("health"));
    assert_eq!((code, out.as_str()), (0, "healthy\n"), "{err}");
    container.signal("TERM");
    assert_eq!(container.pintle.wait().code(), Some(0));
    let (code, out, err) = outcome(&mut container.pintle.command("health"));
    assert!(code == 1 && out.is_empty() && err.contains("no pintle listens"), "{out}{err}");
}

/// A shell as the entrypoint, or tini.
#[test]
fn a_child_of_process_1_refuses_upgrades() {
    if !is_root("make a process namespace") {
        return;
    }
    let (authority, origin) = (Authority::new(), Origin::hello());
    let entrypoint = ["sh", "-c", "\"$0\" \"$@\"; exit $?"];
    let container = Container::start(&authority, &entrypoint, &blog(&authority, &origin));
    assert_ne!(container.pintle.status()["pid"], 1);
    refused_upgrade(&container, "its process 1 started pintle");
    serves(container.pintle.https(), &authority);
}

/// Processes that a program in the container leaves behind become children of process 1.
#[test]
fn process_1_reaps_orphans() {
    if !is_root("make a process namespace") {
        return;
    }
    let (authority, origin) = (Authority::new(), Origin::hello());
    for more in ["", "[tls]\nkey_process = true\n"] {
        let config = format!("{more}{}", blog(&authority, &origin));
        let mut container = Container::start(&authority, &[], &config);
        let own = children(container.first);
        let marker = Path::new(&container.pintle.config_path()).with_file_name("gone");
        let script = format!("(for i in 1 2 3; do (sleep 0.3; exit $i) & done); (sleep 0.6; : > {marker:?}) & exit 0");
        let (code, _, err) = container.enter(&["sh", "-c", &script]);
        assert_eq!(code, 0, "{err}");
        eventually("the last one has ended", || marker.exists().then_some(()));
        eventually("nothing is left", || (children(container.first) == own).then_some(()));
        assert!(own.iter().all(|pid| state(*pid) != Some('Z')), "{own:?}");
        serves(container.pintle.https(), &authority);
        container.signal("INT");
        assert_eq!(container.pintle.wait().code(), Some(0), "{more}");
    }
}

#[test]
fn health_of_a_process_that_drains() {
    let (authority, origin, folder) = (Authority::new(), Origin::hello(), TempDir::new().unwrap());
    let state = format!("[state]\ndirectory = {:?}\n[limits]\ndrain = \"30s\"\n", folder.path().join("state"));
    let mut pintle = Pintle::start(&authority, &format!("{state}{}", blog(&authority, &origin)));
    let health = |pintle: &Pintle| {
        let (code, out, err) = outcome(pintle.command("health").arg("--json"));
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!(answer["ok"], code == 0, "{answer}");
        (code, answer["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(health(&pintle), (0, String::new()));
    // It cannot end before this connection's handshake has had its time.
    let held = std::net::TcpStream::connect(pintle.https()).unwrap();
    let mut open = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(open.get(BLOG, "/").status, 200);
    pintle.signal("TERM");
    let (code, error) = eventually("it drains", || Some(health(&pintle)).filter(|(code, _)| *code == 1));
    assert!(error.contains("drains") || error.contains("no pintle listens"), "{code} {error}");
    drop((held, open));
    pintle.signal("TERM");
    let _ = pintle.wait();
}
