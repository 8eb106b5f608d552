//! How requests and handshakes end, as their records say: who left, which limit was reached, which alert went out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::admin::Bed;
use crate::harness::{Authority, BLOG, Client, Origin, PATIENCE, Pintle, Reply, blog, blog_at, eventually};

/// A client in plain HTTP, behind a proxy that states https.
fn plain(pintle: &Pintle, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(pintle.http()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    socket
}

/// Resets the connection.
fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

const PROXY: &str = "trusted_proxies = [\"127.0.0.1\"]";

fn handshake(pintle: &Pintle, address: SocketAddr, arguments: &[&str]) -> Value {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", BLOG]).args(arguments);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    eventually("a record of a handshake", || pintle.access().into_iter().find(|r| r["kind"] == "handshake"))
}

#[test]
fn a_client_that_resets_its_websocket() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let authority = Authority::new();
    let origin = Origin::start(|asked| {
        let ends = asked.path() == "/ended";
        Reply::Custom(Box::new(move |socket| {
            socket.write_all(SWITCH)?;
            socket.read_exact(&mut [0; 1])?;
            socket.write_all(b"half")?;
            // Until pintle ends it, or at once.
            if ends { Ok(()) } else { socket.read(&mut [0; 1]).map(drop) }
        }))
    });
    let pintle = Pintle::start_listening(&authority, PROXY, &blog(&authority, &origin));
    for (path, ended, errno) in [("/left", "client", "ECONNRESET"), ("/ended", "complete", "")] {
        let mut socket = plain(
            &pintle,
            &format!(
                "GET {path} HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nx"
            ),
        );
        let (mut got, mut buffer) = (Vec::new(), [0; 512]);
        while !got.ends_with(b"half") {
            let read = socket.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&buffer[..read]);
        }
        if path == "/ended" {
            // Once the upstream has ended it, the client ends as it likes.
            assert_eq!(socket.read(&mut buffer).unwrap(), 0);
        }
        reset(socket);
        let record = pintle.access_line(path);
        assert_eq!((&record["status"], &record["ended"]), (&101.into(), &ended.into()), "{record}");
        assert_eq!(record["errno"].as_str().unwrap_or_default(), errno, "{record}");
    }
}

#[test]
fn a_client_that_leaves_before_its_answer_has_none() {
    let authority = Authority::new();
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = blog_at(&authority, &format!("http://{}", upstream.local_addr().unwrap()));
    let pintle = Pintle::start_listening(&authority, PROXY, &site);
    // In the middle of its body.
    let socket = plain(
        &pintle,
        &format!("POST /upload HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\nContent-Length: 9\r\n\r\nhalf"),
    );
    let (mut taken, _) = upstream.accept().unwrap();
    let (mut got, mut buffer) = (Vec::new(), [0; 2048]);
    while !got.ends_with(b"half") {
        let read = taken.read(&mut buffer).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
    reset(socket);
    let record = pintle.access_line("/upload");
    assert_eq!((&record["status"], &record["ended"]), (&499.into(), &"client".into()), "{record}");
    assert_eq!((&record["bytes"], record.get("first_byte_ms")), (&0.into(), None), "{record}");
    // In the middle of its head, without an end of TLS.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send("GET /head HTTP/1.1\r\nHo");
    drop(connection);
    let record = eventually("a record of half a head", || pintle.access().into_iter().find(|r| r["method"] == "-"));
    assert!(record["status"] == 400 || record["status"] == 499, "{record}");
}

/// A response whose head exceeds a limit: its record, the log and the metrics name the limit.
#[test]
fn heads_of_responses_name_their_limit() {
    let bed = Bed::new();
    let origin = Origin::start(|asked| {
        let fields = match asked.path() {
            "/large" => (0..90).map(|n| format!("X-{n}: {}\r\n", "v".repeat(1000))).collect(),
            "/many" => (0..1200).map(|n| format!("X-{n}: v\r\n")).collect(),
            _ => format!("X-Field: {}\r\n", "v".repeat(20_000)),
        };
        Reply::Close(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes())
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nerror_details = \"everybody\"\nworkers = 1\n";
    let state =
        format!("[state]\ndirectory = {:?}\n[limits]\nfield_size = \"16KiB\"\n", bed.folder.path().join("state"));
    let pintle = Pintle::start_with(&bed.authority, listen, &(state + &blog(&bed.authority, &origin)));
    for (path, limit, status) in [
        ("/large", "response_header_size", "http_response_header_section_size"),
        ("/many", "response_header_count", "http_response_header_section_size"),
        ("/field", "field_size", "http_response_header_size"),
    ] {
        let response = Client::new(&bed.authority).get(pintle.https(), BLOG, path);
        assert_eq!(
            (response.status, response.one("proxy-status")),
            (502, &*format!("pintle; error={status}")),
            "{path}"
        );
        let record = pintle.access_line(path);
        assert_eq!((&record["ended"], &record["limit"]), (&"upstream".into(), &limit.into()), "{record}");
        assert_eq!(record["cause"], "malformed response", "{record}");
        let series = format!("pintle_limits_reached_total{{limit=\"{limit}\"}}");
        assert_eq!(bed.value(&series), Some(1.0), "{series}");
    }
    let warned = pintle.logged("upstream failed", 1);
    assert!(warned[0]["hint"].as_str().unwrap().contains("limits.response_header_size"), "{warned:?}");
}

/// TLS 1.3 encrypts the alert; it has its name all the same.
#[test]
fn a_client_without_a_protocol_in_common() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let record = handshake(&pintle, pintle.https(), &["-alpn", "spdy/3"]);
    assert_eq!(
        (&record["ended"], &record["alert_sent"]),
        (&"pintle".into(), &"no_application_protocol".into()),
        "{record}"
    );
    assert_eq!(record["error"], "no application protocol in common", "{record}");
    let series = "pintle_handshake_results_total{result=\"failed\",reason=\"protocol\"}";
    assert_eq!(bed.value(series), Some(1.0), "{}", crate::admin::get(&bed.socket(), "/metrics"));
}

#[test]
fn plain_http_on_the_port_of_tls_in_plain_words() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut socket = TcpStream::connect(pintle.https()).unwrap();
    socket.write_all(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n").as_bytes()).unwrap();
    let record = eventually("its record", || pintle.access().into_iter().find(|r| r["kind"] == "handshake"));
    assert!(record["error"].as_str().unwrap().starts_with("the client does not speak TLS"), "{record}");
}

/// The sums of failed handshakes are records, too.
#[test]
fn a_site_without_a_log_has_no_record_of_its_handshakes() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let log = authority.folder().join("access.log");
    let site = blog(&authority, &origin).replace("[[site]]\n", "[[site]]\nlog = false\n");
    let config = format!("[log]\naccess = {log:?}\n{site}");
    let pintle = Pintle::start_with(&authority, listen, &config);
    for _ in 0..5 {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &pintle.https().to_string(), "-servername", BLOG, "-alpn", "spdy/3"]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    }
    // The sums are written at the end.
    assert_eq!(pintle.stop(), 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
}
