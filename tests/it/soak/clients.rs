//! The clients: what each does over and over, and what all of them have seen. Whatever comes is held against what was
//! asked for, byte for byte; what is broken off is broken off by them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::client::Resumption;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Reply, read_response};

/// The site whose upstream echoes WebSockets.
pub const SOCKETS: &str = "ws.example.com";
/// Bytes of an upload, and of a large download: more than all buffers on the way hold together.
pub const UPLOAD: usize = 1 << 20;
pub const LARGE: usize = 4 << 20;
/// Between two requests of a client: two cores have a proxy, an origin and all clients to do.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Bytes without a rhythm, so that nothing that is lost, doubled or mixed up looks right.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..LARGE / 4).flat_map(next).collect()
});

/// So many bytes, others for each number.
pub fn bytes(number: usize, size: usize) -> &'static [u8] {
    let from = number * 7919 % (BYTES.len() - LARGE);
    &BYTES[from..from + size]
}

/// The answer to a GET: some hundred bytes, some hundred kilobytes now and then, or a large one.
pub fn body_of(path: &str) -> &'static [u8] {
    let number: usize = path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    match path.starts_with("/large/") {
        true => bytes(number, LARGE),
        false if number.is_multiple_of(20) => bytes(number, 300_000),
        false => bytes(number, 100 + number % 1000),
    }
}

/// Answers a GET with its body, in chunks or with its length, and anything else with what it was sent.
pub fn origin() -> Origin {
    Origin::forgetful(|request| {
        let path = request.path();
        if !request.line().starts_with("GET ") {
            return Reply::Bytes(with_length(&request.body));
        }
        let body = body_of(path);
        if !body.len().is_multiple_of(3) {
            return Reply::Bytes(with_length(body));
        }
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in body.chunks(10_000) {
            bytes.extend(format!("{:x}\r\n", part.len()).into_bytes());
            bytes.extend(part);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        Reply::Bytes(bytes)
    })
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}

/// Counts of what was done completely and correctly.
#[derive(Default)]
pub struct Counts {
    pub http1: AtomicUsize,
    pub http2: AtomicUsize,
    pub echoes: AtomicUsize,
    pub uploads: AtomicUsize,
    pub slow: AtomicUsize,
    pub fresh: AtomicUsize,
    pub resumed: AtomicUsize,
    /// Handshakes of the client that could have resumed a session, and did not.
    pub unresumed: AtomicUsize,
    pub aborted: AtomicUsize,
    /// Connections of HTTP/2 whose end was not a proper one, with all of their answers complete.
    pub torn: AtomicUsize,
}

pub fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The values that all clients share.
pub struct Load<'a> {
    pub authority: &'a Authority,
    pub address: SocketAddr,
    pub counts: Counts,
    stop: AtomicBool,
    failures: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    pub fn new(authority: &'a Authority, address: SocketAddr) -> Self {
        Self { authority, address, counts: Counts::default(), stop: AtomicBool::new(false), failures: Mutex::default() }
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// One failure, and all is over: what the log says about it is still near its end.
    pub fn fails(&self, who: &str, what: impl std::fmt::Display) {
        self.failures.lock().unwrap().push(format!("{who}: {what}"));
        self.stop();
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }

    pub fn client(&self, resumption: Resumption) -> Client {
        let mut config = Client::config(self.authority);
        (config.alpn_protocols, config.resumption) = (vec![b"http/1.1".to_vec()], resumption);
        Client::with(config)
    }

    /// Calls it until it fails, or all is over.
    pub fn repeat(&self, who: &str, pause: Duration, mut once: impl FnMut(usize) -> Result<(), String>) {
        let mut number = 0;
        while self.goes_on() {
            number += 1;
            if let Err(error) = once(number) {
                return self.fails(who, format!("{number}: {error}"));
            }
            thread::sleep(pause);
        }
    }
}

/// Returns the fault of an answer, if it has one. Policies are on every answer: through reloads, renewals and
/// upgrades.
pub fn judge<'f>(status: u16, field: impl Fn(&str) -> Option<&'f str>, body: &[u8], due: &[u8]) -> Result<(), String> {
    if status != 200 {
        return Err(format!("status {status}: {}", String::from_utf8_lossy(&body[..body.len().min(300)])));
    }
    for name in ["strict-transport-security", "public-key-pins", "x-edge"] {
        field(name).ok_or_else(|| format!("an answer without {name}"))?;
    }
    if body != due {
        let same = body.iter().zip(due).take_while(|(a, b)| a == b).count();
        return Err(format!("{} bytes instead of {}, the same up to {same}", body.len(), due.len()));
    }
    Ok(())
}

/// One exchange over HTTP/1.1; tells whether the server keeps the connection, and the configuration that it answers by.
fn exchange(connection: &mut Connection, method: &str, path: &str, body: &[u8]) -> Result<(bool, u64), String> {
    let of_request = |error: io::Error| format!("{method} {path}: {error}");
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {BLOG}\r\n{length}\r\n");
    connection.stream.write_all(head.as_bytes()).map_err(of_request)?;
    connection.stream.write_all(body).map_err(of_request)?;
    let response = read_response(connection, method).map_err(of_request)?;
    let due = if method == "GET" { body_of(path) } else { body };
    judge(response.status, |name| response.field(name), &response.body, due)
        .map_err(|fault| format!("{method} {path}: {fault}"))?;
    let edge = response.field("x-edge").and_then(|edge| edge.parse().ok()).ok_or("x-edge is no number")?;
    Ok((response.field("connection") != Some("close"), edge))
}

/// A connection for as long as the server keeps it, then the next.
struct Lasting<'a> {
    load: &'a Load<'a>,
    client: Client,
    connection: Option<(Connection, u64)>,
}

impl<'a> Lasting<'a> {
    fn new(load: &'a Load<'a>) -> Self {
        Self { load, client: load.client(Resumption::disabled()), connection: None }
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(), String> {
        let (mut connection, before) = match self.connection.take() {
            Some(kept) => kept,
            None => {
                let fresh = self.client.try_connect(self.load.address, BLOG);
                (fresh.map_err(|error| format!("connect: {error}"))?, 0)
            }
        };
        let (kept, edge) = exchange(&mut connection, method, path, body)?;
        if edge < before {
            return Err(format!("{path}: configuration {edge} after {before}"));
        }
        self.connection = kept.then_some((connection, edge));
        Ok(())
    }
}

pub fn gets(load: &Load<'_>) {
    let mut lasting = Lasting::new(load);
    load.repeat("HTTP/1.1", PAUSE, |number| {
        lasting.exchange("GET", &format!("/{number}"), b"")?;
        count(&load.counts.http1);
        Ok(())
    });
}

pub fn uploads(load: &Load<'_>) {
    let mut lasting = Lasting::new(load);
    load.repeat("upload", 4 * PAUSE, |number| {
        lasting.exchange("POST", &format!("/echo/{number}"), bytes(number, UPLOAD))?;
        count(&load.counts.uploads);
        Ok(())
    });
}

/// A handshake for each request: with a session of before, or without.
pub fn handshakes(load: &Load<'_>, resumption: Resumption, resumes: bool) {
    let client = load.client(resumption);
    load.repeat(if resumes { "resumed handshake" } else { "new handshake" }, PAUSE, |number| {
        let mut connection = client.try_connect(load.address, BLOG).map_err(|error| format!("connect: {error}"))?;
        exchange(&mut connection, "GET", &format!("/{number}"), b"")?;
        let resumed = connection.stream.tls().unwrap().handshake_kind() == Some(HandshakeKind::Resumed);
        count(match (resumes, resumed) {
            (_, true) => &load.counts.resumed,
            (true, false) => &load.counts.unresumed,
            (false, false) => &load.counts.fresh,
        });
        Ok(())
    });
}

/// Breaks off in the middle of downloads and uploads, in turns, each time somewhere else: with bytes on the way, which
/// makes the system send RST, and without.
pub fn aborts(load: &Load<'_>) {
    let client = load.client(Resumption::disabled());
    load.repeat("abort", 4 * PAUSE, |number| {
        let mut connection = client.try_connect(load.address, BLOG).map_err(|error| format!("connect: {error}"))?;
        let part = 1 + number * 104_729 % (UPLOAD - 1);
        let done = if number.is_multiple_of(2) {
            let head = format!("GET /large/{number} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
            let read = |connection: &mut Connection| connection.stream.read_exact(&mut vec![0; part]);
            connection.stream.write_all(head.as_bytes()).and_then(|()| read(&mut connection))
        } else {
            let head = format!("POST /echo/{number} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {UPLOAD}\r\n\r\n");
            let body = &bytes(number, UPLOAD)[..part];
            connection.stream.write_all(head.as_bytes()).and_then(|()| connection.stream.write_all(body))
        };
        done.map_err(|error| format!("before it was broken off: {error}"))?;
        count(&load.counts.aborted);
        Ok(())
    });
}

/// Downloads that are read slowly: reloads and upgrades happen meanwhile.
pub fn slow(load: &Load<'_>) {
    let client = load.client(Resumption::disabled());
    load.repeat("slow download", PAUSE, |number| {
        let of_request = |error: io::Error| format!("after the head: {error}");
        let mut connection = client.try_connect(load.address, BLOG).map_err(|error| format!("connect: {error}"))?;
        let path = format!("/large/{number}");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
        connection.stream.write_all(head.as_bytes()).map_err(of_request)?;
        let mut piece = vec![0; 64 << 10];
        // At the end of all it takes the rest at once.
        while load.goes_on() && connection.received.len() < LARGE {
            let len = connection.stream.read(&mut piece).map_err(of_request)?;
            if len == 0 {
                return Err(format!("ended after {} bytes", connection.received.len()));
            }
            connection.received.extend_from_slice(&piece[..len]);
            thread::sleep(2 * PAUSE);
        }
        let response = read_response(&mut connection, "GET").map_err(of_request)?;
        judge(response.status, |name| response.field(name), &response.body, body_of(&path))?;
        count(&load.counts.slow);
        Ok(())
    });
}

/// WebSockets of so many messages each.
pub fn websockets(load: &Load<'_>, messages: usize) {
    let client = load.client(Resumption::disabled());
    load.repeat("WebSocket", PAUSE, |number| {
        let connection = client.try_connect(load.address, SOCKETS).map_err(|error| format!("connect: {error}"))?;
        let opened = tungstenite::client(format!("wss://{SOCKETS}/echo"), connection.stream);
        let (mut socket, _) = opened.map_err(|error| format!("not opened: {error}"))?;
        for message in (number..number + messages).take_while(|_| load.goes_on()) {
            let sent = Message::binary(bytes(message, message * 31 % 70_000));
            let echoed = socket.send(sent.clone()).and_then(|()| socket.read());
            if !matches!(&echoed, Ok(echoed) if *echoed == sent) {
                return Err(format!("message {message}: {:?}", echoed.map(|echoed| echoed.len())));
            }
            count(&load.counts.echoes);
            thread::sleep(2 * PAUSE);
        }
        let mut end = socket.close(None);
        while end.is_ok() {
            end = socket.read().map(drop);
        }
        match end {
            Err(tungstenite::Error::ConnectionClosed) => Ok(()),
            other => Err(format!("closed, but {other:?}")),
        }
    });
}
