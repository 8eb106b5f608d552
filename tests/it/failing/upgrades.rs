//! Upstreams that fail where the connection is to change: at WebSockets, and at `Expect: 100-continue`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use tokio_tungstenite::tungstenite;

use super::faults::{Seen, pattern};
use super::http2_faults::{Fault, Http2Upstream, body};
use super::{assert_no_leaks, open_at_first, state};
use crate::harness::{Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, Reply, blog, blog_at, eventually};
use crate::websocket::extended_connect;

/// The key and the answer to it (RFC 6455 section 1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const LIMITS: &str = "[limits]\nlinger = \"1s\"\nwebsocket_idle = \"2s\"\nupstream_idle = \"1s\"\n";

fn switching(more: &str) -> Vec<u8> {
    format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\r\n").into_bytes()
}

fn accepted() -> Vec<u8> {
    switching(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n"))
}

fn reset(socket: &TcpStream) -> std::io::Result<()> {
    thread::sleep(Duration::from_millis(2));
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
    socket.shutdown(Shutdown::Read)
}

/// The upstream's reaction to a WebSocket, by the path.
fn act(path: &str, socket: &mut TcpStream) -> std::io::Result<()> {
    match path {
        "/garbage" => {
            socket.write_all(&accepted())?;
            socket.write_all(&pattern(9, 5000))?;
            socket.shutdown(Shutdown::Both)
        }
        "/cut" | "/cut-reset" => {
            // A frame that says 100, and brings 10.
            socket.write_all(&[&accepted()[..], &[0x82, 100], &[7; 10]].concat())?;
            if path == "/cut-reset" { reset(socket) } else { socket.shutdown(Shutdown::Both) }
        }
        "/interim" => {
            socket.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            socket.write_all(&[&accepted()[..], b"\x81\x02hi"].concat())?;
            socket.shutdown(Shutdown::Both)
        }
        "/bytes" => {
            for byte in [&accepted()[..], b"\x81\x02hi"].concat() {
                socket.write_all(&[byte])?;
            }
            socket.shutdown(Shutdown::Both)
        }
        "/length" => {
            let head = switching(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\nContent-Length: 5\r\n"));
            socket.write_all(&[&head[..], b"\x81\x02hi"].concat())?;
            socket.shutdown(Shutdown::Both)
        }
        "/no-accept" => {
            socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")?;
            socket.read(&mut [0; 1]).map(drop)
        }
        "/wrong-accept" => {
            socket.write_all(&switching("Sec-WebSocket-Accept: AAAA\r\n"))?;
            socket.read(&mut [0; 1]).map(drop)
        }
        "/half-a-head" => {
            socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Up")?;
            socket.shutdown(Shutdown::Both)
        }
        "/head-reset" => {
            socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n")?;
            reset(socket)
        }
        "/hangs" => socket.read(&mut [0; 1]).map(drop),
        "/silent" => {
            socket.write_all(&accepted())?;
            socket.read(&mut [0; 1]).map(drop)
        }
        "/unread" => {
            socket.write_all(&accepted())?;
            thread::sleep(Duration::from_secs(4));
            Ok(())
        }
        "/http" => {
            socket.write_all(&accepted())?;
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
            socket.shutdown(Shutdown::Both)
        }
        _ => unreachable!("{path}"),
    }
}

fn start(authority: &Authority) -> (Origin, Pintle) {
    let origin = Origin::start(|request| match request.path() {
        "/200" => Reply::ok("no WebSocket here"),
        "/426" => Reply::new("426 Upgrade Required", "", "13"),
        "/plain" => Reply::ok("plain"),
        path => {
            let path = path.to_owned();
            Reply::Custom(Box::new(move |socket| act(&path, socket)))
        }
    });
    let config = LIMITS.to_owned()
        + &state(authority)
        + &blog(authority, &origin)
        + "[site.upstream_options]\nresponse_timeout = \"2s\"\n[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(authority, &config);
    (origin, pintle)
}

fn ask(connection: &mut Connection, path: &str) -> crate::harness::Response {
    connection.send(format!(
        "GET {path} HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ));
    loop {
        let response = connection.response("GET");
        if response.status == 101 || response.status >= 200 {
            return response;
        }
    }
}

#[test]
fn websockets_by_http_1() {
    let authority = Authority::new();
    let (_origin, pintle) = start(&authority);
    let before = open_at_first(&pintle);
    let client = Client::new(&authority);
    let open = || client.connect(pintle.https(), BLOG);
    // What comes behind a 101 passes as it is, to the end.
    for (path, want) in [
        ("/garbage", pattern(9, 5000)),
        ("/cut", [&[0x82, 100][..], &[7; 10]].concat()),
        ("/interim", b"\x81\x02hi".to_vec()),
        ("/bytes", b"\x81\x02hi".to_vec()),
        ("/length", b"\x81\x02hi".to_vec()),
        ("/http", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("/silent", Vec::new()),
    ] {
        let mut connection = open();
        assert_eq!(ask(&mut connection, path).status, 101, "{path}");
        // It ends: with the upstream, or after the silence.
        let (got, _) = connection.read_to_end();
        assert!(got == want, "{path}: {got:?}");
    }
    {
        let mut connection = open();
        let response = ask(&mut connection, "/cut-reset");
        assert!(matches!(response.status, 101 | 502), "{response:?}");
        // An answer leaves the connection open, and there is nothing to wait for.
        let got = if response.status == 101 { connection.read_to_end().0 } else { Vec::new() };
        assert!([&[0x82, 100][..], &[7; 10]].concat().starts_with(&got));
    }
    // A client of the field sees that the answer is none to its key.
    for path in ["/no-accept", "/wrong-accept"] {
        let refused = tungstenite::client(format!("wss://{BLOG}{path}"), open().stream);
        assert!(matches!(refused, Err(tungstenite::HandshakeError::Failure(_))), "{path}");
    }
    // Answers that are none, and refusals: the connection goes on.
    let mut connection = open();
    for (path, status) in
        [("/half-a-head", 502), ("/head-reset", 502), ("/hangs", 504), ("/200", 200), ("/426", 426), ("/200", 200)]
    {
        let response = ask(&mut connection, path);
        assert_eq!((response.status, response.field("connection")), (status, None), "{path}");
        let next = connection.get(BLOG, "/plain");
        assert_eq!((next.status, next.text()), (200, "plain".to_owned()), "behind {path}");
    }
    drop(connection);
    // An upstream that does not read: what waits is bounded, and ends.
    let mut connection = open();
    assert_eq!(ask(&mut connection, "/unread").status, 101);
    let memory = pintle.memory();
    connection.stream.socket().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while connection.stream.write(&[0x55; 65_536]).is_ok() {}
    assert!(pintle.memory().saturating_sub(memory) < 8 << 20);
    drop((connection, client));
    assert_no_leaks(&pintle, &before);
}

#[test]
fn websockets_by_http_2() {
    let authority = Authority::new();
    let (_origin, pintle) = start(&authority);
    let before = open_at_first(&pintle);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let sender = crate::http2::connect(&authority, &pintle).await;
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        // The upstream answers to a key that it knows, and ours is another.
        for (path, want) in [
            ("/garbage", 502),
            ("/cut", 502),
            ("/no-accept", 502),
            ("/wrong-accept", 502),
            ("/half-a-head", 502),
            ("/head-reset", 502),
            ("/hangs", 504),
            ("/426", 426),
        ] {
            let ask = async {
                let mut sender = sender.clone().ready().await.unwrap();
                let (response, _send) = sender.send_request(extended_connect(path), false).unwrap();
                assert_eq!(response.await.unwrap().status().as_u16(), want, "{path}");
                let next = http::Request::builder().uri(format!("https://{BLOG}/plain")).body(()).unwrap();
                let (response, _) = sender.ready().await.unwrap().send_request(next, true).unwrap();
                let mut body = response.await.unwrap().into_body();
                assert_eq!(body.data().await.unwrap().unwrap(), "plain", "behind {path}");
            };
            tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("{path}: hangs"));
        }
    });
    drop(runtime);
    assert_no_leaks(&pintle, &before);
}

/// The upstream's reaction to an expectation, by the path: it has the head, and not the body.
fn expected(path: &str, socket: &mut TcpStream) -> std::io::Result<()> {
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let read_body = |socket: &mut TcpStream| {
        let mut body = [0; 5];
        socket.read_exact(&mut body).map(|()| body)
    };
    let answer = |body: &[u8]| [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", body].concat();
    match &path["/early-".len()..] {
        // Later than pintle waits for it.
        "late" => {
            thread::sleep(Duration::from_millis(1500));
            socket.write_all(go_on)?;
        }
        "never" => {}
        "twice" => socket.write_all(&go_on.repeat(2))?,
        "many" => socket.write_all(&go_on.repeat(30))?,
        "endless" => {
            while socket.write_all(&go_on.repeat(100)).is_ok() {}
            return Ok(());
        }
        // The answer is there before the body, which it reads all the same.
        "final" => {
            socket.write_all(&answer(b"final"))?;
            let _ = read_body(socket);
            return Ok(());
        }
        "final-unread" => return socket.write_all(&answer(b"final")),
        "continue-and-final" => {
            socket.write_all(go_on)?;
            socket.write_all(&answer(b"final"))?;
            let _ = read_body(socket);
            return Ok(());
        }
        "refused" => {
            return socket
                .write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        }
        // It will read the next request where the body would be.
        "refused-kept" => {
            socket.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")?;
            return socket.read(&mut [0; 1]).map(drop);
        }
        "cut" => {
            socket.write_all(go_on)?;
            return socket.shutdown(Shutdown::Both);
        }
        "hangs" => {
            socket.write_all(go_on)?;
            read_body(socket)?;
            return socket.read(&mut [0; 1]).map(drop);
        }
        _ => unreachable!("{path}"),
    }
    let body = read_body(socket)?;
    socket.write_all(&answer(&body))
}

#[test]
fn expectations() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/plain" => Reply::ok("plain"),
        path => {
            let path = path.to_owned();
            Reply::Custom(Box::new(move |socket| {
                let done = expected(&path, socket);
                // The harness has another handle of the socket.
                let _ = socket.shutdown(Shutdown::Both);
                done
            }))
        }
    });
    let config = LIMITS.to_owned()
        + &state(&authority)
        + &blog(&authority, &origin)
        + "[site.upstream_options]\nresponse_timeout = \"3s\"\n[site.circuit_breaker]\nfailures = 0\n";
    let pintle = Pintle::start(&authority, &config);
    let before = open_at_first(&pintle);
    let client = Client::new(&authority);
    // How the client takes it: with the body at 100 or at an answer, as RFC 9110 section 10.1.1 has it; or at once.
    for waits in [true, false] {
        for (path, status, text) in [
            ("late", 200, "hello"),
            ("never", 200, "hello"),
            ("twice", 200, "hello"),
            ("many", 200, "hello"),
            ("endless", 502, ""),
            ("final", 200, "final"),
            ("final-unread", 200, "final"),
            ("continue-and-final", 200, "final"),
            ("refused", 417, "no"),
            ("refused-kept", 417, "no"),
            ("cut", 502, ""),
            ("hangs", 504, ""),
        ] {
            let what = format!("{path}, the client waits: {waits}");
            let mut connection = client.connect(pintle.https(), BLOG);
            let head = format!(
                "POST /early-{path} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            );
            connection.send(head + if waits { "" } else { "hello" });
            let (mut sent, mut interims) = (!waits, 0);
            let response = loop {
                let response = connection.response("POST");
                if response.status != 100 {
                    break response;
                }
                interims += 1;
                if !std::mem::replace(&mut sent, true) {
                    connection.send("hello");
                }
            };
            assert!(interims <= 1, "{what}: 100 came {interims} times");
            assert_eq!(response.status, status, "{what}: {response:?}");
            assert!(text.is_empty() || response.text() == text, "{what}: {response:?}");
            // What is read as the next request is one.
            if response.field("connection").is_none() {
                if !sent {
                    connection.send("hello");
                }
                let next = connection.get(BLOG, "/plain");
                assert_eq!((next.status, next.text()), (200, "plain".to_owned()), "behind {what}");
            }
        }
    }
    drop(client);
    assert_no_leaks(&pintle, &before);
}

/// The same to an upstream that speaks HTTP/2.
#[test]
fn expectations_by_http_2() {
    let authority = Authority::new();
    let upstream = Http2Upstream::start(&authority.leaf("upstream", &["up.example.net"]));
    let config = LIMITS.to_owned()
        + &state(&authority)
        + &blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{}\"\nca = {:?}\n", upstream.address, authority.ca_path());
    let pintle = Pintle::start(&authority, &config);
    let before = open_at_first(&pintle);
    let client = Client::new(&authority);
    for times in [0, 1, 2, 30, 100] {
        upstream.fail(Fault::Continue(times), 1);
        let mut connection = client.connect(pintle.https(), BLOG);
        let body = body();
        connection.send(format!(
            "POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        ));
        let mut interims = 0;
        let response = loop {
            let response = connection.response("POST");
            if response.status != 100 {
                break response;
            }
            interims += 1;
            if interims == 1 {
                connection.send(&body);
            }
        };
        assert!(interims <= 1, "100 came {interims} times");
        let seen = Seen::Whole(response.status, response.body.clone());
        assert!(
            if times > 32 { response.status == 502 } else { response.status == 200 && response.body == body },
            "{times}: {seen:.0?}"
        );
        upstream.fail(Fault::None, 0);
        if response.field("connection").is_none() {
            assert_eq!(connection.get(BLOG, "/plain").body, body);
        }
    }
    assert_eq!(upstream.wrong(), 0);
    drop(client);
    eventually("all connections to the upstream are closed", || {
        (upstream.open.load(std::sync::atomic::Ordering::SeqCst) == 0).then_some(())
    });
    assert_no_leaks(&pintle, &before);
}
