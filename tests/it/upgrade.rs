//! Upgrades: another process takes over, and nobody notices; or it does not, and nobody notices either.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use rustls::HandshakeKind;
use rustls::client::Resumption;
use serde_json::Value;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{
    Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually, outcome, read_response, send_signal, whole,
};
use crate::rotation::Bed;

/// A pintle that is found by a link, as an operator may have it, and whoever has taken over from it.
pub struct Line {
    pub pintle: Pintle,
    folder: TempDir,
    newest: Cell<u32>,
}

impl Line {
    #[track_caller]
    pub fn start(authority: &Authority, listen: &str, config: &str) -> Self {
        Self::start_with(authority, listen, config, |_| {})
    }

    #[track_caller]
    pub fn start_with(authority: &Authority, listen: &str, config: &str, adapt: impl FnOnce(&mut Command)) -> Self {
        // Whoever has lost its parent is ours then: so it can be waited for.
        set_child_subreaper(Some(getpid())).unwrap();
        let folder = TempDir::new().unwrap();
        let link = folder.path().join("pintle");
        symlink(env!("CARGO_BIN_EXE_pintle"), &link).unwrap();
        let state = format!("[state]\ndirectory = {:?}\n", folder.path().join("state"));
        let config =
            if config.contains("[state]") || config.contains("[admin]") { config.to_owned() } else { state + config };
        let pintle = Pintle::start_program(Command::new(link), authority, listen, &config, adapt);
        Self { newest: Cell::new(pintle.pid()), pintle, folder }
    }

    /// Replaces this program by another one.
    fn replace(&self, with: &Path) {
        let new = self.folder.path().join("new");
        symlink(with, &new).unwrap();
        fs::rename(new, self.folder.path().join("pintle")).unwrap();
    }

    /// A script instead of the program.
    fn replace_by(&self, script: &str) {
        let path = self.folder.path().join(format!("script-{}", script.len()));
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.replace(&path);
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.newest.get()
    }

    /// `pintle upgrade`, which must succeed.
    #[track_caller]
    pub fn upgrade(&self) -> Value {
        let (code, out, err) = outcome(self.pintle.command("upgrade").arg("--json"));
        assert_eq!(code, 0, "{out}{err}");
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        self.is_now(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
        answer
    }

    /// Notes the process that has taken over.
    #[track_caller]
    pub fn is_now(&self, pid: u32) {
        assert_ne!(pid, self.pid());
        self.newest.set(pid);
        assert_eq!(self.pintle.status()["pid"], pid);
    }

    /// The same, which must fail; gives what it says.
    #[track_caller]
    fn upgrade_fails(&self) -> String {
        let (code, out, err) = outcome(self.pintle.command("upgrade").arg("--json"));
        assert_eq!(code, 1, "{out}{err}");
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        assert_eq!((&answer["ok"], &answer["pid"]), (&Value::Bool(false), &Value::Null), "{answer}");
        let status = self.pintle.status();
        assert_eq!((&status["pid"], &status["draining"]), (&Value::from(self.pid()), &Value::Bool(false)));
        self.pintle.logs("upgrade failed; the old process keeps serving");
        let problems: Vec<_> = answer["problems"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        problems.join("\n")
    }

    /// The number of files that the serving process has open. Only root can see it: the process is not dumpable.
    pub fn files(&self) -> Option<usize> {
        let may_look = crate::harness::is_root("see which files another process has open");
        may_look.then(|| fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count())
    }

    pub fn signal(&self, name: &str) {
        assert!(send_signal(name, self.pid()), "{name}");
    }

    /// Waits for the end of a process that has taken over; gives its exit code.
    #[track_caller]
    pub fn wait(&self, pid: u32) -> Option<i32> {
        if pid == self.newest.get() {
            self.newest.set(self.pintle.pid());
        }
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let status = eventually("the process ends", || match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(ended) => ended.map(|(_, status)| status),
            // It is not ours yet: its launcher is about to end.
            Err(_) => None,
        });
        status.exit_status()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.newest.get() != self.pintle.pid() {
            send_signal("KILL", self.newest.get());
        }
    }
}

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";

/// Limits for a slow machine.
const PATIENT: &str = "[limits]\nupgrade = \"2m\"\ndrain = \"1m\"\nupstream_idle = \"1s\"\n";

/// The answers to all clients.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    requests: AtomicUsize,
    resumed: AtomicUsize,
    full: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Seen {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn fails(&self, who: &str, what: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{who}: {what}"));
    }

    fn answered(&self, who: &str, path: &str, status: u16, body: &[u8]) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if status != 200 || body != body_of(path) {
            self.fails(who, format!("{path}: status {status}, {} bytes", body.len()));
        }
    }
}

/// The origin's answer: its own for each path, and sometimes some hundred kilobytes.
fn body_of(path: &str) -> Vec<u8> {
    let number: usize = path.trim_start_matches('/').parse().unwrap_or_default();
    let size = if number.is_multiple_of(20) { 300_000 } else { 100 + number % 1000 };
    (0..size).map(|at| (at * 7 + number) as u8).collect()
}

const LONG: usize = 4 << 20;

fn origin(stop: &Arc<AtomicBool>) -> Origin {
    let stop = stop.clone();
    Origin::start(move |request| {
        let path = request.path().to_owned();
        if path != "/long" {
            let body = body_of(&path);
            let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            bytes.extend(body);
            return Reply::Bytes(bytes);
        }
        let stop = stop.clone();
        Reply::Custom(Box::new(move |socket| {
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n")?;
            let body: Vec<u8> = (0..LONG).map(|at| at as u8).collect();
            for part in body.chunks(4096) {
                socket.write_all(part)?;
                // Until all upgrades are over, it is slow.
                if !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        }))
    })
}

fn client(authority: &Authority, resumption: Resumption) -> Client {
    let mut config = Client::config(authority);
    (config.alpn_protocols, config.resumption) = (vec![b"http/1.1".to_vec()], resumption);
    Client::with(config)
}

/// Requests on one connection after the other, each for as long as the server keeps it.
fn keep_alive(authority: &Authority, address: SocketAddr, seen: &Seen) {
    let client = client(authority, Resumption::disabled());
    let mut number = 0;
    while seen.goes_on() {
        let mut connection = match client.try_connect(address, BLOG) {
            Ok(connection) => connection,
            Err(error) => return seen.fails("keep-alive", format!("connect: {error}")),
        };
        while seen.goes_on() {
            number += 1;
            let path = format!("/{number}");
            let request = format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
            let sent = connection.stream.write_all(request.as_bytes());
            match sent.and_then(|()| read_response(&mut connection, "GET")) {
                Ok(response) => {
                    seen.answered("keep-alive", &path, response.status, &response.body);
                    if response.field("connection") == Some("close") {
                        break;
                    }
                }
                Err(error) => return seen.fails("keep-alive", format!("{path}: {error}")),
            }
            thread::sleep(Duration::from_millis(3));
        }
    }
}

/// A handshake for each request.
fn handshakes(who: &str, client: &Client, address: SocketAddr, seen: &Seen) {
    let mut number = 0;
    while seen.goes_on() {
        number += 1;
        let path = format!("/{number}");
        let exchange = client.try_connect(address, BLOG).and_then(|mut connection| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n");
            connection.stream.write_all(request.as_bytes())?;
            let response = read_response(&mut connection, "GET")?;
            Ok((connection, response))
        });
        match exchange {
            Ok((connection, response)) => {
                seen.answered(who, &path, response.status, &response.body);
                let resumed = connection.stream.tls().unwrap().handshake_kind() == Some(HandshakeKind::Resumed);
                if who == "resuming" {
                    if resumed { &seen.resumed } else { &seen.full }.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => seen.fails(who, format!("{path}: {error}")),
        }
        thread::sleep(Duration::from_millis(3));
    }
}

/// HTTP/2: several streams at a time; a new connection when GOAWAY says so, and not before.
fn http2(authority: &Authority, address: SocketAddr, seen: &Seen) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut number = 0;
        while seen.goes_on() {
            let mut config = Client::config(authority);
            config.alpn_protocols = vec![b"h2".to_vec()];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let connected = async {
                let socket = tokio::net::TcpStream::connect(address).await?;
                let tls = connector.connect(BLOG.try_into().unwrap(), socket).await?;
                h2::client::handshake(tls).await.map_err(std::io::Error::other)
            };
            let (sender, connection) = match connected.await {
                Ok(connected) => connected,
                Err(error) => return seen.fails("HTTP/2", format!("connect: {error}")),
            };
            tokio::spawn(connection);
            loop {
                let requests = (0..4).map(|n| {
                    let path = format!("/{}", number + n);
                    let sender = sender.clone();
                    async move {
                        // What cannot even be sent any more is for the next connection: nobody has seen it.
                        let Ok(mut sender) = sender.ready().await else { return false };
                        let request = http::Request::get(format!("https://{BLOG}{path}")).body(()).unwrap();
                        let Ok((response, _)) = sender.send_request(request, true) else { return false };
                        let answer = async {
                            let (parts, mut body) = response.await?.into_parts();
                            Ok::<_, h2::Error>((parts.status.as_u16(), whole(&mut body).await?))
                        };
                        match answer.await {
                            Ok((status, body)) => seen.answered("HTTP/2", &path, status, &body),
                            // Told before it was looked at, as RFC 9113 section 6.8 has it: safe to send again.
                            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => {
                                return false;
                            }
                            Err(error) => seen.fails("HTTP/2", format!("{path}: {error}")),
                        }
                        true
                    }
                });
                let all = futures_util::future::join_all(requests).await;
                number += 4;
                if !seen.goes_on() || all.contains(&false) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
}

/// A download that takes as long as all upgrades together.
fn download(authority: &Authority, address: SocketAddr, seen: &Seen) {
    let client = client(authority, Resumption::disabled());
    let mut connection = client.connect(address, BLOG);
    connection.send(format!("GET /long HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    match read_response(&mut connection, "GET") {
        Ok(response) => {
            let right = response.body.iter().enumerate().all(|(at, byte)| *byte == at as u8);
            if response.body.len() != LONG || !right {
                seen.fails("download", format!("{} bytes, right: {right}", response.body.len()));
            }
        }
        Err(error) => seen.fails("download", error),
    }
}

/// A WebSocket for as long as all upgrades together.
fn websocket(authority: &Authority, address: SocketAddr, seen: &Seen) {
    let connection = client(authority, Resumption::disabled()).connect(address, "ws.example.com");
    let (mut socket, _) = tungstenite::client("wss://ws.example.com/echo", connection.stream).unwrap();
    let mut number = 0u64;
    while seen.goes_on() {
        number += 1;
        let message = Message::binary(number.to_be_bytes().to_vec());
        let echoed = socket.send(message.clone()).and_then(|()| socket.read());
        if !matches!(&echoed, Ok(echoed) if *echoed == message) {
            return seen.fails("WebSocket", format!("message {number}: {echoed:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = socket.close(None);
}

#[test]
fn nobody_notices() {
    let authority = Authority::new();
    let seen = Seen::default();
    let over = Arc::new(AtomicBool::new(false));
    let origin = origin(&over);
    let leaf = authority.leaf("ws", &["ws.example.com"]);
    let echo = super::websocket::echo_server();
    let config = format!(
        "{PATIENT}[log]\naccess = \"off\"\n{}[[site]]\nhosts = [\"ws.example.com\"]\nupstream = \"{echo}\"\n[site.certificate]\n\
         chain = {:?}\nkey = {:?}\n",
        blog(&authority, &origin),
        leaf.chain,
        leaf.key
    );
    let line = Line::start(&authority, LISTEN, &config);
    let address = line.pintle.https();
    let files = line.files();
    let mut pids = vec![line.pid()];
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| keep_alive(&authority, address, &seen));
        }
        for _ in 0..2 {
            scope.spawn(|| http2(&authority, address, &seen));
        }
        for _ in 0..2 {
            let fresh = client(&authority, Resumption::disabled());
            scope.spawn(|| {
                let fresh = fresh;
                handshakes("fresh", &fresh, address, &seen);
            });
        }
        let resuming = client(&authority, Resumption::in_memory_sessions(8));
        scope.spawn(|| {
            let resuming = resuming;
            handshakes("resuming", &resuming, address, &seen);
        });
        scope.spawn(|| download(&authority, address, &seen));
        scope.spawn(|| websocket(&authority, address, &seen));
        let upgrades = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for workers in [2, 3, 1, 2] {
                let known = seen.requests.load(Ordering::Relaxed);
                eventually("requests", || (seen.requests.load(Ordering::Relaxed) > known + 200).then_some(()));
                let text = fs::read_to_string(line.pintle.config_path()).unwrap();
                let now = text.lines().map(|l| match l.starts_with("workers = ") {
                    true => format!("workers = {workers}\n"),
                    false => format!("{l}\n"),
                });
                fs::write(line.pintle.config_path(), now.collect::<String>()).unwrap();
                line.upgrade();
                pids.push(line.pid());
            }
            let known = seen.requests.load(Ordering::Relaxed);
            eventually("requests", || (seen.requests.load(Ordering::Relaxed) > known + 200).then_some(()));
        }));
        seen.stop.store(true, Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        upgrades.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let failures = seen.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} failures, such as {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    // One handshake begins the sessions; all others are resumed, whoever answers.
    let (full, resumed) = (seen.full.into_inner(), seen.resumed.into_inner());
    assert!(full == 1 && resumed > 10, "{full} full handshakes, {resumed} resumed");
    eprintln!("{} requests, {resumed} resumed handshakes", seen.requests.into_inner());
    // Those of before are gone when nobody needs them any more, and the last one holds no more than the first.
    let mut pintle = line;
    assert_eq!(pintle.pintle.wait().code(), Some(0));
    for pid in &pids[1..pids.len() - 1] {
        assert_eq!(pintle.wait(*pid), Some(0), "process {pid}");
    }
    if let Some(files) = files {
        eventually("as many files as the first process had", || (pintle.files()? <= files).then_some(()));
    }
    assert_eq!(pintle.pintle.status()["counters"]["panics"], 0);
    pintle.signal("TERM");
    let last = pintle.pid();
    assert_eq!(pintle.wait(last), Some(0));
}

/// TLS 1.2 and 1.3, and the promises, too.
#[test]
fn sessions_and_pins_go_on() {
    let bed = Bed::new();
    let config = format!("{PATIENT}{}", bed.config(&bed.pins("30d"), ""));
    let line = Line::start(&bed.authority, LISTEN, &config);
    let clients: Vec<Client> = [&rustls::version::TLS12, &rustls::version::TLS13]
        .into_iter()
        .map(|version| {
            let mut roots = rustls::RootCertStore::empty();
            use rustls::pki_types::pem::PemObject;
            let ca = rustls::pki_types::CertificateDer::from_pem_slice(bed.authority.ca_pem().as_bytes()).unwrap();
            roots.add(ca).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
            Client::with(config.unwrap().with_root_certificates(roots).with_no_client_auth())
        })
        .collect();
    let visit = |client: &Client| {
        let mut connection = client.connect(line.pintle.https(), BLOG);
        let response = connection.get(BLOG, "/");
        let kind = connection.stream.tls().unwrap().handshake_kind().unwrap();
        (kind, response.field("public-key-pins").map(str::to_owned))
    };
    let before: Vec<_> = clients.iter().map(visit).collect();
    assert!(before.iter().all(|(kind, pins)| *kind != HandshakeKind::Resumed && pins.is_some()));
    for _ in 0..2 {
        line.upgrade();
        for (client, (_, pins)) in clients.iter().zip(&before) {
            assert_eq!(visit(client), (HandshakeKind::Resumed, pins.clone()));
        }
    }
    let status = line.pintle.status();
    assert_eq!((&status["ledger"]["durable"], &status["ledger"]["error"]), (&Value::Bool(true), &Value::Null));
    // The next process serves the next key: earlier sessions end, as their clients may have noted its pins since.
    line.pintle.rewrite(|text| {
        let (live, next) = (format!("{:?}", bed.chain()), format!("{:?}", bed.next.chain));
        let (live_key, next_key) = (format!("{:?}", bed.key()), format!("{:?}", bed.next.key));
        text.replace(&live, &next).replace(&live_key, &next_key)
    });
    line.upgrade();
    let has_next = |pins: &String| pins.contains(&bed.next.pin);
    eventually("its pins are sent", || bed.header(&line.pintle).filter(has_next));
    for client in &clients {
        let (kind, pins) = visit(client);
        assert!(kind != HandshakeKind::Resumed && pins.is_some_and(|pins| pins.contains(&bed.next.pin)));
        assert_eq!(visit(client).0, HandshakeKind::Resumed);
    }
    let fresh = bed.header(&line.pintle).unwrap();
    assert!(fresh.contains(&bed.next.pin) && !fresh.contains(&bed.live.pin), "{fresh}");
    // Keys of tickets are nowhere on disk: there is the ledger with its lock, the pairs in use, and the admin socket.
    let mut state: Vec<_> = fs::read_dir(bed.state()).unwrap().map(|e| e.unwrap().file_name()).collect();
    state.sort();
    assert_eq!(state, ["admin.sock", "config.git", "last-good", "ledger.head", "ledger.jsonl", "ledger.lock"]);
}

/// A browser has opened connections ahead, and the next process serves the next key. The previous one must not serve its
/// chain any more: the client may have noted the new pins. With the same keys, those connections are served.
#[test]
fn a_connection_opened_before_an_upgrade_gets_no_old_chain() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &format!("{PATIENT}{}", bed.config(&bed.pins("30d"), "")));
    assert!(bed.header(&line.pintle).is_some());
    let early = || {
        let sockets: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(line.pintle.https()).unwrap()).collect();
        eventually("they are accepted", || (line.pintle.status()["connections"].as_u64() >= Some(4)).then_some(()));
        sockets
    };
    let client = || Client::new(&bed.authority);
    let sockets = early();
    line.upgrade();
    for socket in sockets {
        assert_eq!(client().handshake(socket, BLOG).unwrap().get(BLOG, "/").status, 200);
    }
    let sockets = early();
    line.pintle.rewrite(|text| {
        let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.next.chain));
        text.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.next.key))
    });
    line.upgrade();
    eventually("the new pins are sent", || bed.header(&line.pintle).filter(|pins| pins.contains(&bed.next.pin)));
    for socket in sockets {
        assert!(client().handshake(socket, BLOG).is_err(), "the old chain is over");
    }
    assert_eq!(bed.served(&line.pintle), bed.next.pin);
}

/// A client stops in the middle of its handshake, while an upgrade or a reload brings the next key. When the new pins are
/// sent, that handshake is over: its chain is one that they break.
#[test]
fn a_handshake_under_way_at_a_rotation_is_over_before_new_pins_are_sent() {
    use std::io::{Read as _, Write as _};
    for how in ["upgrade", "reload", "a file"] {
        let bed = Bed::new();
        let line = Line::start(&bed.authority, LISTEN, &format!("{PATIENT}{}", bed.config(&bed.pins("30d"), "")));
        assert!(bed.header(&line.pintle).is_some());
        let mut socket = TcpStream::connect(line.pintle.https()).unwrap();
        let config = Arc::new(Client::config(&bed.authority));
        let mut session = rustls::ClientConnection::new(config, BLOG.try_into().unwrap()).unwrap();
        session.write_tls(&mut socket).unwrap();
        // The previous chain is on its way to the client.
        eventually("the server has answered", || socket.peek(&mut [0; 1]).ok().filter(|len| *len > 0));
        if how == "a file" {
            bed.put(&bed.next);
        } else {
            line.pintle.rewrite(|text| {
                let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.next.chain));
                text.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.next.key))
            });
        }
        match how {
            "upgrade" => _ = line.upgrade(),
            "reload" => _ = line.pintle.reload(),
            _ => {}
        }
        eventually("the new pins are sent", || bed.header(&line.pintle).filter(|pins| !pins.contains(&bed.live.pin)));
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        let asked = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n").as_bytes());
        let mut answer = Vec::new();
        let read = asked.and_then(|()| stream.read_to_end(&mut answer));
        assert!(answer.is_empty(), "{how}: {read:?} {}", String::from_utf8_lossy(&answer));
        assert!(read.is_err(), "{how}: it was closed in the middle");
        assert_eq!(bed.served(&line.pintle), bed.next.pin, "{how}");
    }
}

/// An upgrade keeps promises that were made without a ledger on disk.
#[test]
fn promises_in_memory_are_handed_over() {
    let bed = Bed::new();
    let config = bed.config(&bed.pins("30d"), "").replace(&format!("[state]\ndirectory = {:?}\n", bed.state()), "");
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", bed.folder.path().join("admin.sock").display());
    let line = Line::start(&bed.authority, LISTEN, &format!("{PATIENT}{admin}{config}"));
    assert!(bed.header(&line.pintle).is_some());
    line.upgrade();
    assert_eq!(line.pintle.status()["ledger"]["promises"], 1);
    line.pintle.rewrite(|text| {
        let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.stranger.chain));
        text.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.stranger.key))
    });
    assert!(line.upgrade_fails().contains("would lock readers out"));
}

#[test]
fn other_listeners() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let line = Line::start(&authority, LISTEN, &format!("{PATIENT}{}", blog(&authority, &origin)));
    let client = Client::new(&authority);
    let (https, http) = (line.pintle.https(), line.pintle.http());
    let new = SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port()));
    line.pintle.rewrite(|text| {
        let text = text.replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"127.0.0.1:0\", \"{new}\"]"));
        text.replace("http = [\"127.0.0.1:0\"]", "http = []")
    });
    let answer = line.upgrade();
    let notes = answer["notes"].to_string();
    assert!(notes.contains(&format!("listening on {new} (https)")), "{notes}");
    assert!(notes.contains(&format!("not listening on {http} any more")), "{notes}");
    assert_eq!(line.pintle.listening("https"), [https, new]);
    for address in [https, new] {
        assert_eq!(client.get(address, BLOG, "/").status, 200, "{address}");
    }
    eventually("nobody listens on what was left out", || TcpStream::connect(http).is_err().then_some(()));
}

#[test]
fn by_signal() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let mut line = Line::start(&authority, LISTEN, &format!("{PATIENT}{}", blog(&authority, &origin)));
    line.signal("USR2");
    let logged = eventually("the new process serves", || {
        line.pintle.log_json("upgrade: the new process serves").into_iter().next()
    });
    line.newest.set(u32::try_from(logged["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(line.pintle.wait().code(), Some(0));
    assert_eq!(Client::new(&authority).get(line.pintle.https(), BLOG, "/").status, 200);
    // By a port, the door changes hands, too.
    let port = crate::harness::free_port();
    line.pintle.rewrite(|text| format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n{text}"));
    line.signal("HUP");
    eventually("it listens on a port", || (outcome(&mut line.pintle.command("status")).0 == 0).then_some(()));
    let before = line.pid();
    let (code, out, err) = outcome(line.pintle.command("upgrade").arg("--json"));
    assert_eq!(code, 0, "{out}{err}");
    line.newest.set(serde_json::from_str::<Value>(&out).unwrap()["pid"].as_u64().unwrap() as u32);
    assert_eq!(line.wait(before), Some(0));
    eventually("the new one answers", || {
        let (code, out, _) = outcome(line.pintle.command("status").arg("--json"));
        (code == 0 && serde_json::from_str::<Value>(&out).unwrap()["pid"] == line.pid()).then_some(())
    });
}

#[test]
fn a_new_program_that_is_no_good() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let line = Line::start(&authority, LISTEN, &format!("{PATIENT}{}", blog(&authority, &origin)));
    let client = Client::new(&authority);
    let address = line.pintle.https();
    let mut open = client.connect(address, BLOG);
    assert_eq!(open.get(BLOG, "/").status, 200);
    for (script, expected) in [
        ("#!/bin/sh\nexit 7\n", "exit status: 7"),
        ("#!/bin/sh\nkill -9 $$\n", "signal: 9"),
        ("#!/bin/sh\necho 'GET / HTTP/1.1' >&0\nexec sleep 1000\n", "unknown message"),
        ("#!/no/such/interpreter\n", "cannot be started"),
        ("no program at all", "cannot be started"),
    ] {
        line.replace_by(script);
        let problems = line.upgrade_fails();
        assert!(problems.contains(expected), "{script}: {problems}");
        // On the old connection, and on a new one.
        assert_eq!(open.get(BLOG, "/").status, 200, "{script}");
        assert_eq!(client.get(address, BLOG, "/").status, 200, "{script}");
    }
    fs::remove_file(line.folder.path().join("pintle")).unwrap();
    assert!(line.upgrade_fails().contains("no such file"));
    // And then it is right again.
    line.replace(Path::new(env!("CARGO_BIN_EXE_pintle")));
    line.upgrade();
    assert_eq!(client.get(address, BLOG, "/").status, 200);
}

#[test]
fn a_new_program_that_hangs() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let config = format!("[limits]\nupgrade = \"2s\"\n{}", blog(&authority, &origin));
    let line = Line::start(&authority, LISTEN, &config);
    line.replace_by("#!/bin/sh\necho $$ > \"$0.pid\"\nexec sleep 1000\n");
    let problems = line.upgrade_fails();
    assert!(problems.contains("not ready within 2s (limits.upgrade)"), "{problems}");
    let pid = fs::read_to_string(line.folder.path().join("pintle.pid")).unwrap();
    eventually("it was killed", || (!Path::new(&format!("/proc/{}", pid.trim())).exists()).then_some(()));
    assert_eq!(Client::new(&authority).get(line.pintle.https(), BLOG, "/").status, 200);
    // A second one at the same time is refused.
    let mut first = line.pintle.command("upgrade");
    let first = thread::spawn(move || outcome(&mut first));
    eventually("the first is under way", || (line.pintle.status()["upgrading"] == true).then_some(()));
    let (code, _, err) = outcome(&mut line.pintle.command("upgrade"));
    assert!(code == 1 && err.contains("under way already"), "{err}");
    // The new process has read the file, so that a reload of this one would be undone.
    let err = line.pintle.reload_fails();
    assert!(err.contains("an upgrade is under way") && err.contains("hint: once it serves"), "{err}");
    assert_eq!(first.join().unwrap().0, 1);
}

/// Whatever the new process does after the command to serve, the old one gets its ledger back and continues.
#[test]
fn a_new_process_that_dies_when_it_takes_over() {
    let bed = Bed::new();
    let config = format!("{PATIENT}{}", bed.config(&bed.pins("30d"), ""));
    let line = Line::start(&bed.authority, LISTEN, &config);
    let speaks = |then: &str| {
        format!(
            "#!/usr/bin/env python3\nimport os, socket, fcntl\ns = socket.socket(fileno=0)\nf = s.makefile('rw')\n\
             while f.readline() == '\\n': pass\n\
             f.write('{{\"Ready\":{{\"version\":\"0\",\"kept\":[],\"notes\":[]}}}}\\n'); f.flush()\n\
             assert f.readline().startswith('{{\"tickets\"')\n{then}\n"
        )
    };
    let lock = bed.state().join("ledger.lock");
    // It has the ledger when it dies: the old one had let go of it.
    let takes = format!("l = open({lock:?}, 'w')\nfcntl.flock(l, fcntl.LOCK_EX | fcntl.LOCK_NB)\n");
    for (then, expected) in [
        (takes.clone() + "os.kill(os.getpid(), 9)", "ended while taking over"),
        (takes.clone() + "f.write('{\"Failed\":{\"reasons\":[\"no luck\"]}}\\n'); f.flush()", "no luck"),
        (takes + "f.write('nonsense\\n'); f.flush()\nimport time\ntime.sleep(1000)", "unknown message"),
    ] {
        line.replace_by(&speaks(&then));
        let problems = line.upgrade_fails();
        assert!(problems.contains(expected), "{then}: {problems}");
        assert!(bed.header(&line.pintle).is_some());
        // The ledger can be written: something else is promised.
        let lines = || fs::read_to_string(bed.state().join("ledger.jsonl")).unwrap().lines().count();
        let before = lines();
        line.pintle.rewrite(|text| match text.contains("max_age = \"30d\"") {
            true => text.replace("max_age = \"30d\"", "max_age = \"31d\""),
            false => text.replace("max_age = \"31d\"", "max_age = \"30d\""),
        });
        line.pintle.reload();
        assert!(lines() > before);
        assert_eq!(line.pintle.status()["ledger"]["durable"], true);
    }
    line.replace(Path::new(env!("CARGO_BIN_EXE_pintle")));
    line.upgrade();
    assert!(bed.header(&line.pintle).is_some());
}

#[test]
fn what_is_wrong_on_disk_is_told_and_changes_nothing() {
    let bed = Bed::new();
    let config = format!("{PATIENT}{}", bed.config(&bed.pins("30d"), ""));
    let line = Line::start(&bed.authority, LISTEN, &config);
    let whole = fs::read_to_string(line.pintle.config_path()).unwrap();
    line.pintle.rewrite(|text| text.replace("workers = 2", "wrokers = 2"));
    let problems = line.upgrade_fails();
    assert!(problems.contains("pintle.toml:") && problems.contains("listen.wrokers: unknown key"), "{problems}");
    // A key that nobody was promised.
    fs::write(line.pintle.config_path(), &whole).unwrap();
    line.pintle.rewrite(|text| {
        let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.stranger.chain));
        text.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.stranger.key))
    });
    let problems = line.upgrade_fails();
    assert!(problems.contains("would lock readers out"), "{problems}");
    // An address that somebody else has.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let more = whole.replace("https = [\"127.0.0.1:0\"]", &format!("https = [\"127.0.0.1:0\", \"{address}\"]"));
    fs::write(line.pintle.config_path(), more).unwrap();
    let problems = line.upgrade_fails();
    assert!(problems.contains(&format!("cannot listen on {address}")), "{problems}");
    fs::write(line.pintle.config_path(), whole).unwrap();
    assert!(bed.header(&line.pintle).is_some());
    line.upgrade();
}

/// With `process.prove_upstream`, the upstream must have answered through the new process, with any status.
#[test]
fn the_upstream_may_have_to_answer() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::new("502 Bad Gateway", "", ""));
    // By its name, which is to be looked up before that.
    let url = format!("http://localhost:{}", origin.address.port());
    let site = crate::harness::blog_at(&authority, &url);
    let line = Line::start(&authority, LISTEN, &format!("{PATIENT}[process]\nprove_upstream = true\n{site}"));
    let is_proof = |request: &&crate::harness::Received| request.field("user-agent") == Some("pintle-upgrade");
    line.upgrade();
    let proofs: Vec<String> = origin.received().iter().filter(is_proof).map(|r| r.line().to_owned()).collect();
    assert_eq!(proofs, ["HEAD / HTTP/1.1"]);
    let nobody = format!("http://127.0.0.1:{}", crate::harness::free_port());
    line.pintle.rewrite(|text| text.replace(&url, &nobody));
    let problems = line.upgrade_fails();
    for expected in [
        "site blog.example.com: the new process gets no answer from its upstream: status 502",
        "hint: repair the upstream",
    ] {
        assert!(problems.contains(expected), "{expected}: {problems}");
    }
    // The old one has never stopped to ask where somebody answers.
    let before = origin.received().len();
    assert_eq!(Client::new(&authority).get(line.pintle.https(), BLOG, "/").status, 502);
    assert_eq!(origin.received().len(), before + 1);
    line.pintle.rewrite(|text| text.replace("prove_upstream = true", "prove_upstream = false"));
    line.upgrade();
}

/// A process that begins as an upgrade trusts only the process that started it.
#[test]
fn an_upgrade_that_is_none() {
    let authority = Authority::new();
    let config = authority.write("pintle.toml", LISTEN.to_owned() + &blog(&authority, &Origin::hello()));
    let (code, _, err) = outcome(
        crate::harness::pintle()
            .args(["run", "-c"])
            .arg(config)
            .env("PINTLE_HANDOVER", "1")
            .stdin(std::process::Stdio::null()),
    );
    assert!(code == 1 && err.contains("this is not an upgrade"), "{err}");
}

/// The launcher ends with whoever has started it, even if that was killed.
#[test]
fn nothing_is_left_of_a_process_that_was_killed() {
    let authority = Authority::new();
    let line = Line::start(&authority, LISTEN, &blog(&authority, &Origin::hello()));
    let children = format!("/proc/{0}/task/{0}/children", line.pid());
    let children = fs::read_to_string(children).unwrap();
    let launcher = children.trim().to_owned();
    let command = fs::read(format!("/proc/{launcher}/cmdline")).unwrap();
    assert!(command.split(|b| *b == 0).any(|a| a == b"launcher"), "{:?}", String::from_utf8_lossy(&command));
    line.signal("KILL");
    let ended = || {
        let mut state = String::new();
        let stat = fs::File::open(format!("/proc/{launcher}/stat")).and_then(|mut f| f.read_to_string(&mut state));
        stat.is_err() || state.contains(") Z ")
    };
    eventually("the launcher ends", || ended().then_some(()));
}
