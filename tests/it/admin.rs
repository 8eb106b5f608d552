//! The admin socket: who may open it, what it answers, and how commands do without it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Origin, PATIENCE, Pintle, blog, eventually, free_port, outcome, output, pintle};

/// The socket's answer to GET.
#[track_caller]
pub fn get(socket: &Path, path: &str) -> String {
    output(Command::new("curl").args(["-sS", "--unix-socket"]).arg(socket).arg(format!("http://localhost{path}")))
}

/// Its answer to POST.
#[track_caller]
pub fn post(socket: &Path, path: &str) -> String {
    let url = format!("http://localhost{path}");
    output(Command::new("curl").args(["-sS", "-X", "POST", "--unix-socket"]).arg(socket).arg(url))
}

/// One request, byte by byte; gives the whole answer.
fn say(stream: impl Read + Write, request: &str) -> String {
    let mut stream = stream;
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

pub struct Bed {
    pub authority: Authority,
    pub origin: Origin,
    pub folder: TempDir,
}

impl Bed {
    pub fn new() -> Self {
        Self { authority: Authority::new(), origin: Origin::hello(), folder: TempDir::new().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.state().join("admin.sock")
    }

    pub fn config(&self, more: &str) -> String {
        format!("[state]\ndirectory = {:?}\n{more}\n{}", self.state(), blog(&self.authority, &self.origin))
    }

    fn start(&self, more: &str) -> Pintle {
        Pintle::start(&self.authority, &self.config(more))
    }

    fn unix(&self, request: &str) -> String {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        say(stream, request)
    }
}

fn tcp(address: SocketAddr, request: &str) -> String {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    say(stream, request)
}

#[test]
fn the_socket_is_for_its_owner() {
    let bed = Bed::new();
    // Left behind by one that was killed.
    fs::create_dir(bed.state()).unwrap();
    drop(UnixListener::bind(bed.socket()).unwrap());
    let pintle = bed.start("");
    let file = fs::symlink_metadata(bed.socket()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(code(&bed.unix("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")), "200");
    // A second process on the same state does not start, and takes nothing away.
    let (status, _, err) = outcome(pintle.command("run").arg("-q"));
    assert!(status == 1 && err.contains("another process has the ledger"), "{err}");
    assert_eq!(pintle.status()["pid"], pintle.pid());
    // One with a state of its own, but the same socket, serves without.
    let other = Bed::new();
    let second = other.start(&format!("[admin]\nlisten = \"unix:{}\"", bed.socket().display()));
    second.logs("another pintle listens there");
    assert_eq!(pintle.status()["pid"], pintle.pid());
    // It comes in when the first one goes; and that one did not take the second one's away.
    assert_eq!(pintle.stop(), 0);
    eventually("the second one has it", || {
        let (code, out, _) = outcome(second.command("status").arg("--json"));
        (code == 0 && out.contains(&second.pid().to_string())).then_some(())
    });
    assert_eq!(second.stop(), 0);
    assert!(!bed.socket().exists());
}

#[test]
fn a_socket_that_was_swept_away_comes_back() {
    let bed = Bed::new();
    let pintle = bed.start("");
    fs::remove_file(bed.socket()).unwrap();
    eventually("it is there again", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
    assert_eq!(fs::symlink_metadata(bed.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    // What is no socket is somebody's.
    let precious = bed.folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    pintle.rewrite(|text| format!("[admin]\nlisten = \"unix:{}\"\n{text}", precious.display()));
    pintle.signal("HUP");
    eventually("it is logged", || pintle.log().contains("the path exists and is not a socket").then_some(()));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    fs::remove_file(&precious).unwrap();
    eventually("commands come in again", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
}

#[test]
fn what_it_answers() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let status: Value = serde_json::from_str(&get(&bed.socket(), "/status")).unwrap();
    assert_eq!((&status["pid"], &status["sites"][0]["site"]), (&pintle.pid().into(), &BLOG.into()));
    assert_eq!(get(&bed.socket(), "/ready"), "ready\n");
    let metrics = get(&bed.socket(), "/metrics");
    assert!(metrics.contains("# TYPE pintle_requests_total counter\npintle_requests_total 0\n"), "{metrics}");
    let text = bed.unix("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
    let cases = [
        ("GET /nothing", "404"),
        ("GET /", "200"),
        ("GET /v1/status", "200"),
        ("GET /v1/nothing", "404"),
        ("DELETE /v1/metrics", "405"),
        ("POST /v1/ledger", "200"),
        ("GET /status/", "404"),
        ("HEAD /ready", "200"),
        ("POST /status", "405"),
        ("DELETE /metrics", "405"),
        ("GET /reload", "405"),
        ("PUT /ledger", "405"),
        ("POST /certificates", "409"),
        ("POST /certificates?host=%%%", "409"),
        ("POST /reload", "200"),
        ("nonsense", "400"),
    ];
    for (line, want) in cases {
        let answer = bed.unix(&format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(code(&answer), want, "{line}: {answer}");
        assert_eq!(answer.contains("allow: "), want == "405", "{line}: {answer}");
    }
    assert_eq!(pintle.status()["reloads"], 1);
}

#[test]
fn bodies_are_bounded() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let long = bed.unix("POST /ledger HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(code(&long), "413", "{long}");
    // Bytes without end, that nobody has announced.
    let mut command = Command::new("sh");
    command.args(["-c", "head -c 80000000 /dev/zero | curl -sS --max-time 60 -o /dev/null -w '%{http_code}' -X POST -T - --unix-socket \"$0\" http://x/ledger"]);
    let (_, out, _) = outcome(command.arg(bed.socket()));
    // Or the connection was gone before the answer was read: after the 100 that curl had waited for, or without one.
    assert!(["413", "000", "100"].contains(&&*out), "{out}");
    let nonsense = bed.unix("POST /ledger HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhello\n");
    assert_eq!(code(&nonsense), "400", "{nonsense}");
    let half = bed.unix("POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhello\n");
    assert_eq!(code(&half), "200", "a body that nobody asked for: {half}");
    // Many that say nothing do not keep the others out for long.
    let silent: Vec<UnixStream> = (0..40).filter_map(|_| UnixStream::connect(bed.socket()).ok()).collect();
    eventually("others come in", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
    drop(silent);
}

#[test]
fn over_tcp() {
    let bed = Bed::new();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let pintle = bed.start(&format!("[admin]\nlisten = \"{address}\""));
    assert!(!bed.socket().exists());
    // Commands send the token by themselves.
    assert_eq!(pintle.status()["pid"], pintle.pid());
    assert!(pintle.reload().contains("reloaded"));
    let file = bed.state().join("admin.token");
    assert_eq!(fs::symlink_metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(token.len() >= 43, "{token}");
    let (host, key) = (format!("Host: {address}\r\n"), format!("Authorization: Bearer {token}\r\n"));
    let cases = [
        // A page can make a browser send these, though not read the answers.
        (format!("POST /reload HTTP/1.1\r\n{host}{key}Content-Length: 0\r\n\r\n"), "403"),
        (format!("POST /certificates?host={BLOG} HTTP/1.1\r\n{host}{key}Content-Length: 0\r\n\r\n"), "403"),
        (format!("POST /ledger HTTP/1.1\r\n{host}{key}Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n"), "403"),
        (format!("OPTIONS /reload HTTP/1.1\r\n{host}Access-Control-Request-Headers: pintle-admin\r\n\r\n"), "403"),
        // And if its name is made to lead here, these, too: but under that name.
        (format!("GET /status HTTP/1.1\r\nHost: evil.example\r\n{key}\r\n"), "403"),
        (format!("GET /status HTTP/1.1\r\nHost: evil.example:{}\r\n{key}\r\n", address.port()), "403"),
        (format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n{key}\r\n"), "403"),
        (format!("GET /metrics HTTP/1.1\r\nHost: 192.0.2.1\r\n{key}\r\n"), "403"),
        (
            format!("POST /reload HTTP/1.1\r\nHost: evil.example\r\n{key}Pintle-Admin: 1\r\nContent-Length: 0\r\n\r\n"),
            "403",
        ),
        (format!("GET /status HTTP/1.1\r\nHost:\r\n{key}\r\n"), "403"),
        (format!("GET /status HTTP/1.0\r\n{key}\r\n"), "403"),
        // Others on this host do not have the token.
        (format!("GET /status HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("GET /metrics HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("GET /ready HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("HEAD /ready HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("GET /promised?site={BLOG} HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("GET /nothing HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("POST /reload HTTP/1.1\r\n{host}Pintle-Admin: 1\r\nContent-Length: 0\r\n\r\n"), "401"),
        (format!("POST /upgrade HTTP/1.1\r\n{host}Pintle-Admin: 1\r\nContent-Length: 0\r\n\r\n"), "401"),
        (
            format!("POST /attempt?what=list&with=/ HTTP/1.1\r\n{host}Pintle-Admin: 1\r\nContent-Length: 0\r\n\r\n"),
            "401",
        ),
        (format!("GET /status HTTP/1.1\r\n{host}Authorization: Bearer x{token}\r\n\r\n"), "401"),
        (format!("GET /status HTTP/1.1\r\n{host}Authorization: Bearer {}\r\n\r\n", &token[1..]), "401"),
        (format!("GET /status HTTP/1.1\r\n{host}Authorization: {token}\r\n\r\n"), "401"),
        (format!("GET /status?token={token} HTTP/1.1\r\n{host}\r\n"), "401"),
        (format!("GET /status HTTP/1.1\r\n{host}{key}\r\n"), "200"),
        (format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{key}\r\n"), "200"),
        (format!("GET /ready HTTP/1.1\r\nHost: LOCALHOST:9180\r\n{key}\r\n"), "200"),
        (format!("GET /ready HTTP/1.1\r\nHost: [::1]\r\n{key}\r\n"), "200"),
        (format!("POST /reload HTTP/1.1\r\n{host}{key}Pintle-Admin: 1\r\nContent-Length: 0\r\n\r\n"), "200"),
    ];
    for (request, want) in cases {
        let answer = tcp(address, &request);
        assert_eq!(code(&answer), want, "{request}{answer}");
        assert_eq!(answer.contains("www-authenticate: Bearer"), want == "401", "{answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
        assert!(!answer.contains(&token), "{answer}");
    }
    assert_eq!(pintle.status()["reloads"], 2);
    // Without a place for the token, nobody could be kept out.
    let stateless = bed.folder.path().join("stateless.toml");
    let text = format!("[admin]\nlisten = \"{address}\"\n{}", blog(&bed.authority, &bed.origin));
    fs::write(&stateless, text).unwrap();
    let (status, _, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&stateless));
    assert!(status == 1 && err.contains("admin.listen: ") && err.contains("set directory in [state]"), "{err}");
    let config = bed.folder.path().join("wide.toml");
    for listen in ["0.0.0.0:9180", "[::]:9180", "192.0.2.1:9180", "9180", "unix:", "127.0.0.1:0", "localhost:9180"] {
        fs::write(&config, bed.config(&format!("[admin]\nlisten = \"{listen}\""))).unwrap();
        let (code, _, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&config));
        assert!(code == 1 && err.contains("admin.listen: "), "{listen}: {err}");
    }
}

#[test]
fn without_anybody_there() {
    let bed = Bed::new();
    let config = bed.folder.path().join("pintle.toml");
    fs::write(&config, bed.config("")).unwrap();
    let run = |command: &str, config: &Path| outcome(pintle().arg(command).arg("-c").arg(config));
    for command in ["status", "reload"] {
        let (code, out, err) = run(command, &config);
        assert!(code == 1 && out.is_empty() && err.contains("no pintle listens at unix:"), "{command}: {err}");
        assert!(err.contains("hint: `pintle run -c ") && err.contains("` starts it"), "{command}: {err}");
        let (code, out, err) = outcome(pintle().args([command, "--json", "-c"]).arg(&config));
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &answer["ok"], err.as_str()), (1, &false.into(), ""), "{out}");
        assert!(answer["error"].as_str().unwrap().contains("no pintle listens at unix:"), "{out}");
    }
    // A socket that nobody listens on is no more than that.
    fs::create_dir(bed.state()).unwrap();
    drop(UnixListener::bind(bed.socket()).unwrap());
    let (code, _, err) = run("status", &config);
    assert!(code == 1 && err.contains("no pintle listens at"), "{err}");
    // Without state and socket there is nobody to ask.
    fs::write(&config, blog(&bed.authority, &bed.origin)).unwrap();
    let (code, _, err) = run("status", &config);
    assert!(code == 1 && err.contains("no admin socket configured") && err.contains("hint: set admin.listen"), "{err}");
    // Nor can there be, in a file that says nothing.
    fs::write(&config, "[[[[").unwrap();
    let (code, _, err) = run("reload", &config);
    assert!(code == 1 && err.contains("pintle.toml:1:"), "{err}");
    let (code, _, err) = run("status", Path::new("/nowhere/pintle.toml"));
    assert!(code == 1 && err.contains("/nowhere/pintle.toml: "), "{err}");
    // Somebody who answers nonsense.
    fs::write(&config, bed.config("")).unwrap();
    fs::remove_file(bed.socket()).unwrap();
    let listener = UnixListener::bind(bed.socket()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let (code, _, err) = run("status", &config);
    assert!(code == 1 && err.contains("cannot be understood"), "{err}");
}

/// A token outlives restarts, so that Prometheus keeps its copy. If it is removed, pintle makes another one.
#[test]
fn the_token_is_kept_until_it_is_removed() {
    let bed = Bed::new();
    let listen = || format!("[admin]\nlisten = \"127.0.0.1:{}\"", free_port());
    let token = || fs::read_to_string(bed.state().join("admin.token")).ok().filter(|token| !token.is_empty());
    let pintle = bed.start(&listen());
    let first = token().unwrap();
    assert_eq!(pintle.stop(), 0);
    let pintle = bed.start(&listen());
    assert_eq!(token().unwrap(), first);
    fs::remove_file(bed.state().join("admin.token")).unwrap();
    let second = eventually("there is another token", token);
    assert_ne!(second, first);
    eventually("it is the one that counts", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
    // It is a secret of whoever may read it.
    if crate::harness::is_root("be somebody else") {
        let (code, _, err) = outcome(pintle.command("status").uid(1).gid(1));
        assert!(code == 1 && !err.contains(second.trim()), "{err}");
    }
}

/// A token that others could read, or that is none, counts no longer, and the log says so.
#[test]
fn a_token_that_is_none_any_more_is_replaced() {
    let bed = Bed::new();
    let pintle = bed.start(&format!("[admin]\nlisten = \"127.0.0.1:{}\"", free_port()));
    let file = bed.state().join("admin.token");
    let token = || fs::read_to_string(&file).ok().filter(|token| !token.is_empty());
    let works = || (outcome(&mut pintle.command("status")).0 == 0).then_some(());
    let chmod = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let mut before = token().unwrap();
    let elsewhere = bed.folder.path().join("elsewhere");
    for (number, spoil) in ["others read", "emptied", "link", "nonsense"].into_iter().enumerate() {
        match spoil {
            "others read" => chmod(0o644),
            "emptied" => fs::write(&file, "").unwrap(),
            "nonsense" => fs::write(&file, "nonsense\n").unwrap(),
            _ => {
                fs::rename(&file, &elsewhere).unwrap();
                std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
            }
        }
        let (code, _, err) = outcome(&mut pintle.command("status"));
        assert!(code == 0 || err.contains("another token within seconds"), "{spoil}: {err}");
        let is_another = || {
            let is_file =
                fs::symlink_metadata(&file).is_ok_and(|is| is.is_file() && is.permissions().mode() & 0o077 == 0);
            token().filter(|token| is_file && *token != before && token.len() >= 43)
        };
        before = eventually(spoil, is_another);
        eventually("it is the one that counts", works);
        let reported = pintle.logged("new token for commands over TCP", number + 1);
        assert_eq!(reported.len(), number + 1, "{spoil}: {reported:?}");
    }
    // For Prometheus, whose group may read it.
    chmod(0o640);
    assert!(pintle.reload().contains("reloaded"));
    assert_eq!(token().unwrap(), before);
    eventually("it still counts", works);
}

/// Permissions that somebody has widened let nobody in.
#[test]
fn the_socket_answers_to_its_owner_and_to_root() {
    if !crate::harness::is_root("be somebody else") {
        return;
    }
    let bed = Bed::new();
    let _pintle = bed.start("");
    for folder in [bed.folder.path(), &bed.state()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(bed.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let ask = |user: u32, arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-w", "%{http_code}", "--unix-socket"]).arg(bed.socket()).args(arguments);
        output(curl.uid(user).gid(user).current_dir("/"))
    };
    for request in
        [&["http://x/status"][..], &["http://x/metrics"], &["http://x/ready"], &["-XPOST", "http://x/reload"]]
    {
        let answer = ask(1, request);
        assert!(answer.ends_with("403") && answer.contains("or as root"), "{request:?}: {answer}");
        assert!(ask(0, request).ends_with("200"), "{request:?}");
    }
}
