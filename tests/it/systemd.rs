//! The protocol between systemd and a service, and the unit files.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually, outcome, pintle};
use crate::upgrade::Line;

/// The messages that a service manager receives, by process and line.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn on(socket: UnixDatagram) -> Self {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let list = heard.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]);
                list.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        });
        Self { heard }
    }

    /// The number of times that it has heard this.
    fn times(&self, line: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|l| l.starts_with(line)).count()
    }

    #[track_caller]
    fn hears(&self, line: &str, times: usize) {
        eventually(&format!("{line} {times} times"), || (self.times(line) >= times).then_some(()));
    }
}

/// The fields of one event, in the protocol of journald.
fn event(mut datagram: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(end) = datagram.iter().position(|b| *b == b'\n') {
        let line = String::from_utf8(datagram[..end].to_vec()).unwrap();
        datagram = &datagram[end + 1..];
        match line.split_once('=') {
            Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
            None => {
                let len = usize::try_from(u64::from_le_bytes(datagram[..8].try_into().unwrap())).unwrap();
                fields.push((line, String::from_utf8(datagram[8..8 + len].to_vec()).unwrap()));
                datagram = &datagram[8 + len + 1..];
            }
        }
    }
    fields
}

/// With standard error in the journal, events arrive there with typed fields; else as text. A full socket costs events only.
#[test]
fn events_in_the_journal() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let folder = TempDir::new().unwrap();
    let (path, config) = (folder.path().join("journal"), folder.path().join("pintle.toml"));
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let listen =
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n[sandbox]\nconnect = \"any\"\n[log]\naccess = \"off\"\n";
    let state = format!("[state]\ndirectory = {:?}\n", folder.path().join("state"));
    fs::write(&config, format!("{listen}{state}{}", blog(&authority, &origin))).unwrap();
    for fits in [true, false] {
        let (stderr, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = fs::File::from(OwnedFd::from(ours.try_clone().unwrap()));
        let meta = file.metadata().unwrap();
        let (device, inode) = (meta.dev(), meta.ino());
        let mut command = pintle();
        command.args(["run", "-c"]).arg(&config).env("PINTLE_JOURNAL_SOCKET", &path);
        command.env("JOURNAL_STREAM", format!("{device}:{}", if fits { inode } else { inode + 1 }));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(OwnedFd::from(ours))).spawn();
        let child = child.as_mut().unwrap();
        if fits {
            let mut buffer = vec![0; 1 << 17];
            let mut next = || {
                let len = journal.recv(&mut buffer).unwrap();
                event(&buffer[..len])
            };
            let serving = loop {
                let fields = next();
                let has = |name: &str, value: &str| fields.contains(&(name.to_owned(), value.to_owned()));
                assert!(has("SYSLOG_IDENTIFIER", "pintle"), "{fields:?}");
                if has("PINTLE_SITES", "1") && fields[0].1.starts_with("serving") {
                    break fields;
                }
            };
            let of = |name: &str| serving.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
            assert_eq!((of("PRIORITY"), of("MESSAGE_ID").map(str::len)), (Some("6"), Some(32)), "{serving:?}");
            // Nobody reads any more: pintle does not wait, and counts.
            let socket = folder.path().join("state/admin.sock");
            let lost = || {
                let _ = crate::admin::post(&socket, "/reload");
                let metrics = crate::admin::get(&socket, "/metrics");
                crate::metrics::value(&metrics, "pintle_log_lines_lost_total").filter(|lost| *lost > 0.0)
            };
            eventually("lost events are counted", lost);
        } else {
            stderr.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(&stderr));
            assert!(lines.any(|line| line.unwrap().contains("serving")), "text, as standard error is elsewhere");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The reasons of a refused start have their severity in the journal, and none in a pipe.
#[test]
fn the_severity_of_a_refused_start() {
    let folder = TempDir::new().unwrap();
    let config = folder.path().join("pintle.toml");
    fs::write(&config, "[listen]\nodd = 1\n").unwrap();
    for fits in [true, false] {
        let (mut stderr, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let meta = fs::File::from(OwnedFd::from(ours.try_clone().unwrap())).metadata().unwrap();
        let mut command = pintle();
        command.args(["run", "-c"]).arg(&config).stdin(Stdio::null()).stderr(Stdio::from(OwnedFd::from(ours)));
        command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino() + u64::from(!fits)));
        assert_eq!(command.status().unwrap().code(), Some(1));
        drop(command);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut text).unwrap();
        assert!(text.contains("unknown key"), "{text}");
        let with_severity = text.lines().filter(|line| line.starts_with("<3>")).count();
        assert_eq!(with_severity, if fits { text.lines().count() } else { 0 }, "{text}");
    }
}

/// Starts a journald in a mount namespace, and in it one pintle with `wrong.toml` and one with `pintle.toml`; prints the
/// event of the second that it serves, and the errors of the first.
const JOURNALD: &str = r#"set -eu
pintle=$0 folder=$1
mount -t tmpfs tmpfs /run
mkdir -p /run/log/journal /run/systemd/journal /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\n' >/run/systemd/journald.conf.d/test.conf
/lib/systemd/systemd-journald 2>/dev/null &
ours=$!
trap 'kill $ours' EXIT
soon() { n=0; until "$@"; do n=$((n + 1)); [ "$n" -lt 600 ] || exit 1; sleep 0.1; done; }
soon [ -S /run/systemd/journal/stdout ]
soon journalctl --sync
start='export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec "$0" run -c "$1"'
if systemd-cat sh -c "$start" "$pintle" "$folder/wrong.toml"; then exit 1; fi
(exec systemd-cat sh -c "$start" "$pintle" "$folder/pintle.toml") &
ours="$ours $!"
served() { journalctl --sync && journalctl -q -o json PINTLE_SITES=1 | grep .; }
soon served
journalctl -q -p err -o cat
"#;

/// A real journald takes events as fields, and the reasons of a refused start by their severity.
#[test]
fn a_real_journald() {
    let has_journald = Path::new("/lib/systemd/systemd-journald").exists();
    if !crate::harness::is_root("run a journald") || !has_journald || !Path::new("/etc/machine-id").exists() {
        eprintln!("stepping aside: this needs root, systemd-journald and /etc/machine-id");
        return;
    }
    let (authority, origin) = (Authority::new(), Origin::hello());
    let folder = TempDir::new().unwrap();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n[sandbox]\nconnect = \"any\"\n";
    let state = format!("[state]\ndirectory = {:?}\n", folder.path().join("state"));
    fs::write(folder.path().join("pintle.toml"), format!("{listen}{state}{}", blog(&authority, &origin))).unwrap();
    fs::write(folder.path().join("wrong.toml"), "[listen]\nodd = 1\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", JOURNALD]);
    command.arg(pintle().get_program()).arg(folder.path()).env("PINTLE_ALLOW_ROOT", "1");
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 0, "{out}{err}");
    let (serving, errors) = out.split_once('\n').unwrap();
    let serving: serde_json::Value = serde_json::from_str(serving).unwrap_or_else(|e| panic!("{e}: {out}"));
    for (field, value) in [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "pintle"), ("_TRANSPORT", "journal")] {
        assert_eq!(serving[field], value, "{serving:#}");
    }
    assert_eq!(serving["MESSAGE_ID"].as_str().map(str::len), Some(32), "{serving:#}");
    assert!(errors.contains("unknown key") && errors.contains("hint: "), "{out}");
}

#[test]
fn what_the_service_manager_hears() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let folder = TempDir::new().unwrap();
    let name = format!("pintle-test-{}", std::process::id());
    let path = folder.path().join("notify");
    let abstract_address = UnixAddress::from_abstract_name(&name).unwrap();
    for (socket, address) in [
        (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
        (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}")),
    ] {
        let manager = Manager::on(socket);
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 2\n";
        let config = format!("[limits]\nupgrade = \"2m\"\n{}", blog(&authority, &origin));
        let mut line = Line::start_with(&authority, listen, &config, |command| {
            command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "4000000").env_remove("WATCHDOG_PID");
        });
        manager.hears("READY=1", 1);
        manager.hears(concat!("STATUS=pintle ", env!("CARGO_PKG_VERSION"), " serves 1 site"), 1);
        manager.hears("WATCHDOG=1", 2);
        line.signal("HUP");
        manager.hears("RELOADING=1", 1);
        manager.hears("MONOTONIC_USEC=", 1);
        manager.hears("READY=1", 2);
        // The old one says who it is now, the new one that it is ready: in this order.
        line.upgrade();
        manager.hears("READY=1", 3);
        let order: Vec<String> = manager.heard.lock().unwrap().clone();
        let main = order.iter().position(|l| *l == format!("MAINPID={}", line.pid())).unwrap();
        assert!(order[main..].contains(&"READY=1".to_owned()), "{order:?}");
        assert_eq!(line.pintle.wait().code(), Some(0));
        assert_eq!(manager.times("STOPPING=1"), 0);
        let alive = manager.times("WATCHDOG=1");
        manager.hears("WATCHDOG=1", alive + 2);
        line.signal("TERM");
        manager.hears("STOPPING=1", 1);
        assert_eq!(line.wait(line.pid()), Some(0));
    }
}

/// Without a sign of life of every worker there is none of the process.
#[test]
fn a_watchdog_that_is_meant_for_another_is_not_fed() {
    let authority = Authority::new();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager::on(UnixDatagram::bind(&path).unwrap());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = Pintle::start_command(&authority, listen, &blog(&authority, &Origin::hello()), |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env("WATCHDOG_PID", "1");
    });
    manager.hears("READY=1", 1);
    // Long enough for some ticks.
    assert_eq!(pintle.stop(), 0);
    manager.hears("STOPPING=1", 1);
    assert_eq!(manager.times("WATCHDOG=1"), 0);
}

/// Starts this with a socket as its file 3, as systemd does.
fn with_socket(listener: &TcpListener, name: &str, pid: &str) -> Command {
    let script = format!(
        "exec 3<&0 0</dev/null; export LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES={name}; exec {} \"$@\"",
        env!("CARGO_BIN_EXE_pintle")
    );
    let mut command = Command::new("sh");
    command.env("PINTLE_ALLOW_ROOT", "1");
    command.args(["-c", &script, "sh"]);
    let _ = listener;
    command
}

fn socket() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn sockets_that_are_bound_already() {
    let authority = Authority::new();
    let origin = Origin::hello();
    for (name, workers) in [("https", 2), ("anything", 1)] {
        let (listener, address) = socket();
        let listen = format!("[listen]\nhttps = [\"{address}\"]\nhttp = []\nworkers = {workers}\n");
        let command = with_socket(&listener, name, "$$");
        let file = OwnedFd::from(listener.try_clone().unwrap());
        let pintle = Pintle::start_program(command, &authority, &listen, &blog(&authority, &origin), |command| {
            command.stdin(Stdio::from(file));
        });
        drop(listener);
        assert_eq!(pintle.https(), address);
        let client = Client::new(&authority);
        for _ in 0..10 {
            assert_eq!(client.get(address, BLOG, "/").status, 200, "{name}");
        }
        assert_eq!(pintle.stop(), 0);
    }
}

#[test]
fn sockets_that_nobody_wants_are_told_of() {
    let authority = Authority::new();
    let (listener, address) = socket();
    for (listen, name, message) in [
        (
            "https = [\"127.0.0.1:0\"]\nhttp = []".to_owned(),
            "anything",
            "which is in neither listen.https nor listen.http",
        ),
        (format!("https = []\nhttp = [\"{address}\"]"), "https", "as https, which is in neither"),
    ] {
        let config = format!("[listen]\n{listen}\n{}", blog(&authority, &Origin::hello()));
        let config = authority.write("pintle.toml", config);
        let mut command = with_socket(&listener, name, "$$");
        command.args(["run", "-c"]).arg(config).stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        let (code, _, err) = outcome(&mut command);
        assert!(code == 1 && (err.contains(message) || err.contains("another process listens there")), "{name}: {err}");
    }
    // Sockets for another process are none for this one: it binds by itself, and the address is taken.
    let config = format!("[listen]\nhttps = [\"{address}\"]\nhttp = []\n{}", blog(&authority, &Origin::hello()));
    let config = authority.write("pintle.toml", config);
    let mut command = with_socket(&listener, "https", "1");
    command.args(["run", "-c"]).arg(config).stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    let (code, _, err) = outcome(&mut command);
    assert!(code == 1 && err.contains(&format!("cannot listen on {address}")), "{err}");
}

/// The units, with the program where it is here.
fn units() -> TempDir {
    let folder = TempDir::new().unwrap();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd")).unwrap().flatten() {
        // Drop-ins are for other versions of systemd.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let text = text.replace("/usr/bin/pintle", env!("CARGO_BIN_EXE_pintle"));
        fs::write(folder.path().join(entry.file_name()), text).unwrap();
    }
    folder
}

#[test]
fn the_units_are_sound_and_confined() {
    let folder = units();
    let analyze = crate::harness::program("systemd-analyze");
    let units = ["pintle.service", "pintle-http.socket", "pintle-https.socket"].map(|unit| folder.path().join(unit));
    let (code, out, err) = outcome(Command::new(&analyze).args(["verify", "--man=no"]).args(&units));
    // Other packages have units with warnings of their own.
    let ours: Vec<_> = out.lines().chain(err.lines()).filter(|line| line.contains("pintle")).collect();
    assert!(code == 0 && ours.is_empty(), "{out}{err}");
    // An exposure of 2.0 at most.
    let mut security = Command::new(&analyze);
    security.args(["security", "--no-pager", "--offline=true", "--threshold=20"]).arg(&units[0]);
    let (code, out, err) = outcome(&mut security);
    assert_eq!(code, 0, "{out}{err}");
    let service = fs::read_to_string(&units[0]).unwrap();
    // Without it, capabilities cannot be given up: @privileged has it. (`tests/systemd` sees the rest.)
    let allowed = service.lines().rfind(|line| line.starts_with("SystemCallFilter=")).unwrap();
    assert!(allowed.split([' ', '=']).any(|call| call == "capset"), "{allowed}");
    // What the units call is what the program knows.
    for command in ["run", "reload"] {
        assert!(service.contains(&format!("{} {command} -c /etc/pintle/pintle.toml", env!("CARGO_BIN_EXE_pintle"))));
        assert_eq!(outcome(pintle().args([command, "--help"])).0, 0);
    }
}
