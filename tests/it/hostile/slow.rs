//! Clients that hold something up: bodies, answers, handshakes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::{DATA, END_HEADERS, HEADERS, Raw, WINDOW_UPDATE, bytes, fields, get};
use crate::harness::{Authority, BLOG, Client, Origin, PATIENCE, Pintle, Reply, blog, eventually, output};

const INITIAL_WINDOW_SIZE: u8 = 4;

/// Windows that open by one byte now and then: something moves, but it is not enough.
#[test]
fn windows_that_open_byte_by_byte() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::ok(&"x".repeat(100_000)));
    let config = "[limits]\nbody_progress = \"2s\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut raw = Raw::new(&authority, &pintle, &[0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0]);
    raw.send(&get(1, "/large"));
    let end = Instant::now() + PATIENCE;
    while raw.resets.is_empty() {
        assert!(raw.over.is_none() && Instant::now() < end, "{:?}", raw.over);
        raw.send(&bytes(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(raw.resets, [(1, 8)], "CANCEL");
    assert_eq!(pintle.access_line("/large")["error"], "the client takes too long");
}

/// All answers are handed over, the windows are wide, and nobody reads.
#[test]
fn answers_that_nobody_reads() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::ok(&"x".repeat(300_000)));
    let config = "[limits]\nbody_progress = \"2s\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut raw = Raw::new(&authority, &pintle, &[0, INITIAL_WINDOW_SIZE, 0x7f, 0xff, 0xff, 0xff]);
    raw.send(&bytes(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]));
    let all: Vec<u8> = (0..100).flat_map(|n| get(2 * n + 1, "/unread")).collect();
    raw.connection.send(all);
    pintle.logs("HTTP/2 client reads nothing");
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

/// A body that comes byte by byte, by HTTP/1.1 and HTTP/2; and one that comes slowly, but comes.
#[test]
fn bodies_that_trickle_in() {
    let authority = Authority::new();
    let origin = Origin::start(|request| Reply::ok(&request.body.len().to_string()));
    let config = "[limits]\nbody_progress = \"3s\"\nbody_rate = 100\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let trickle = |head: &str, piece: &[u8]| {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("POST /slow HTTP/1.1\r\nHost: {BLOG}\r\n{head}\r\n\r\n"));
        connection.stream.socket().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let end = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            assert!(Instant::now() < end, "it goes on for ever");
            connection.send(piece);
            match connection.stream.read(&mut buffer) {
                Ok(len) => break String::from_utf8_lossy(&buffer[..len]).into_owned(),
                Err(e) => assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{e}"),
            }
        }
    };
    let length = trickle("Content-Length: 100000", b"x");
    assert!(length.starts_with("HTTP/1.1 408 "), "{length}");
    let chunked = trickle("Transfer-Encoding: chunked", b"1\r\nx\r\n");
    assert!(chunked.starts_with("HTTP/1.1 408 "), "{chunked}");

    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&bytes(HEADERS, END_HEADERS, 1, &fields("POST", "/slow-http2")));
    let end = Instant::now() + PATIENCE;
    while !pintle.access().iter().any(|line| line["target"] == "/slow-http2") {
        assert!(Instant::now() < end, "it goes on for ever");
        raw.send(&bytes(DATA, 0, 1, b"x"));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pintle.access_line("/slow-http2")["status"], 408);

    // Three times as long as any pause may be, and four times as fast as it must be.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("POST /fair HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 4000\r\n\r\n"));
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(450));
        connection.send([b'x'; 200]);
    }
    assert_eq!(connection.response("POST").text(), "4000");
    let slow = pintle.access().iter().filter(|line| line["status"] == 408).count();
    assert_eq!(slow, 3);
}

/// An upstream that takes its time costs the client nothing: the events of a page may be few and small.
#[test]
fn an_upstream_may_trickle() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for _ in 0..6 {
                thread::sleep(Duration::from_millis(700));
                socket.write_all(b"1\r\n.\r\n")?;
            }
            socket.write_all(b"0\r\n\r\n")
        }))
    });
    let config = "[limits]\nbody_progress = \"2s\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    for version in ["--http1.1", "--http2"] {
        let events = output(pintle.curl().arg(version).arg(format!("https://{BLOG}/events")));
        assert_eq!(events, "......", "{version}");
    }
}

/// A client that opens its TCP window no further.
#[test]
fn an_answer_that_is_taken_byte_by_byte() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::ok(&"x".repeat(32 << 20)));
    let config = "[limits]\nbody_progress = \"2s\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /large HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let end = Instant::now() + PATIENCE;
    while !pintle.access().iter().any(|line| line["target"] == "/large") {
        assert!(Instant::now() < end, "it goes on for ever");
        let _ = connection.stream.socket().peek(&mut [0; 1]);
        let _ = Read::read(&mut connection.stream.socket(), &mut [0; 1]);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(pintle.access_line("/large")["error"], "the client takes too long");
}

/// Hundreds of handshakes that never end: what is beyond the limit is turned away before any cryptography, those who are
/// connected do not notice, and a new client gets its turn.
#[test]
fn handshakes_that_never_end() {
    const HALF_OPEN: usize = 400;
    let authority = Authority::new();
    let origin = Origin::hello();
    let config = "[limits]\nhandshakes = 16\nhandshake = \"60s\"\n".to_owned() + &blog(&authority, &origin);
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = Pintle::start_with(&authority, listen, &config);
    let mut established = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut open: Vec<TcpStream> = Vec::new();
    let hello = super::tls::records(0x0303, &super::tls::client_hello(0x0303, &[super::tls::NULL]), 1000);
    for n in 0..HALF_OPEN {
        let mut socket = TcpStream::connect(pintle.https()).unwrap();
        // Nothing comes after it.
        let _ = socket.write_all(&hello);
        open.push(socket);
        if n % 20 == 0 {
            let begin = Instant::now();
            assert_eq!(established.get(BLOG, "/").status, 200);
            assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        }
    }
    // Those that were turned away know it.
    let is_closed = |socket: &TcpStream| {
        socket.set_nonblocking(true).unwrap();
        !matches!(socket.peek(&mut [0; 1]), Err(e) if e.kind() == ErrorKind::WouldBlock)
    };
    eventually("most are closed", || {
        (open.iter().filter(|socket| is_closed(socket)).count() >= HALF_OPEN - 16).then_some(())
    });
    // Whoever has had a second makes room.
    eventually("a new client gets in", || Client::new(&authority).try_connect(pintle.https(), BLOG).ok());
    assert_eq!(established.get(BLOG, "/").status, 200);
}

/// A handshake in segments of one byte, and records of one byte; and what is no TLS.
#[test]
fn tls_in_pieces() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog(&authority, &Origin::hello()));
    let mut config = Client::config(&authority);
    config.max_fragment_size = Some(32);
    let name = rustls::pki_types::ServerName::try_from(BLOG).unwrap();
    let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(pintle.https()).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asked = false;
    let mut answer = Vec::new();
    while !answer.windows(15).any(|w| w == b"HTTP/1.1 200 OK") {
        if !tls.is_handshaking() && !std::mem::replace(&mut asked, true) {
            tls.writer().write_all(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n").as_bytes()).unwrap();
        }
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out).unwrap();
        }
        for byte in out {
            socket.write_all(&[byte]).unwrap();
        }
        if tls.wants_read() {
            assert!(tls.read_tls(&mut socket).unwrap() > 0, "ended");
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut answer);
        }
    }
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xff, 0xff, 1], &[0xff; 70_000]] {
        let mut socket = TcpStream::connect(pintle.https()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(garbage);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.len() < 100, "{}", answer.escape_ascii());
    }
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}
