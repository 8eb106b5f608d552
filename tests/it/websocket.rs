//! WebSocket: from HTTP/1.1, and from HTTP/2 by extended CONNECT, with a client library of the field.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog, blog_at};

/// A WebSocket server that echoes; its URL.
pub fn echo_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || {
                let Ok(mut socket) = tungstenite::accept(socket) else { return };
                while let Ok(message) = socket.read() {
                    if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

#[test]
fn from_http_1() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &(blog_at(&authority, &echo_server()) + "[site.hsts]\n"));
    let connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let (mut socket, response) = tungstenite::client(format!("wss://{BLOG}/echo"), connection.stream).unwrap();
    assert_eq!(response.status(), 101);
    for size in [0, 1, 125, 126, 70_000, 1_000_000] {
        let message = Message::binary(vec![7u8; size]);
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    let line = pintle.access_line("/echo");
    assert_eq!(line["status"], 101);
}

#[test]
fn an_upstream_that_declines_is_heard() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::new("403 Forbidden", "", "not you"));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let refused = tungstenite::client(format!("wss://{BLOG}/echo"), connection.stream);
    match refused {
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            assert_eq!(response.status(), 403)
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    // Upgrades to anything else are not asked for.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /h2c HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n"));
    assert_eq!(connection.response("GET").status, 403);
    let received = origin.request("/h2c");
    assert_eq!(
        (received.field("upgrade"), received.field("connection"), received.field("http2-settings")),
        (None, None, None)
    );
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Bytes(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec())
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 502);
}

/// A client sees a proper end only if the upstream has made one, with TLS and without; and first whatever came before it.
#[test]
fn a_tunnel_that_breaks_off_has_no_proper_end() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let path = request.path().to_owned();
        Reply::Custom(Box::new(move |socket| {
            socket.write_all(SWITCH)?;
            socket.read_exact(&mut [0; 1])?;
            socket.write_all(b"half")?;
            match path.as_str() {
                "/closed" => Ok(()),
                "/reset" => {
                    thread::sleep(Duration::from_millis(50));
                    socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))
                }
                _ => socket.read(&mut [0; 1]).map(drop),
            }
        }))
    });
    let leaf = authority.leaf("abrupt", &["up.example.net"]);
    let abrupt =
        crate::errors::abrupt_server(&leaf, b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhalf");
    let tls_upstream = blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{abrupt}\"\nca = {:?}\n", authority.ca_path());
    let limits = "[limits]\nwebsocket_idle = \"1s\"\n";
    for (site, paths) in
        [(blog(&authority, &origin), &["/closed", "/reset", "/silent"][..]), (tls_upstream, &["/abrupt"])]
    {
        let pintle =
            Pintle::start_listening(&authority, "trusted_proxies = [\"127.0.0.1\"]", &format!("{limits}{site}"));
        for path in paths {
            for tls in [true, false] {
                let mut connection = match tls {
                    true => Client::new(&authority).connect(pintle.https(), BLOG),
                    false => Connection::plain(pintle.http()),
                };
                connection.send(format!(
                    "GET {path} HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                ));
                assert_eq!(connection.response("GET").status, 101);
                // That one waits for nothing, and may be gone by now.
                if *path != "/abrupt" {
                    connection.send("x");
                }
                let mut got = std::mem::take(&mut connection.received);
                while !got.ends_with(b"half") {
                    let mut buffer = [0; 16];
                    let read = connection.stream.read(&mut buffer).unwrap_or_else(|e| panic!("{path} {tls}: {e}"));
                    assert!(read > 0, "{path} {tls}");
                    got.extend_from_slice(&buffer[..read]);
                }
                let (rest, end) = connection.read_to_end();
                let kind = end.err().map(|e| e.kind());
                let right = match (*path, tls) {
                    ("/closed", _) => kind.is_none(),
                    // A reset, if something of the client's was left unread.
                    (_, true) => matches!(kind, Some(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)),
                    (_, false) => kind == Some(ErrorKind::ConnectionReset),
                };
                assert!(right && rest.is_empty(), "{path} {tls}: {kind:?}, {rest:?}");
            }
        }
        let line = pintle.access_line(paths[paths.len() / 2]);
        assert!(line["error"].as_str().unwrap().contains("truncated response"), "{line}");
    }
}

/// A request for a WebSocket over HTTP/2 (RFC 8441, section 4).
pub fn extended_connect(path: &str) -> http::Request<()> {
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(format!("https://{BLOG}{path}"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

#[test]
fn from_http_2() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog_at(&authority, &echo_server()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sender = super::http2::connect(&authority, &pintle).await;
        sender = sender.ready().await.unwrap();
        // The server has said that it takes extended CONNECT once its settings are here.
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let (response, mut send) = sender.send_request(extended_connect("/echo"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut recv = response.into_body();
        // A masked text frame, by hand: "hello".
        let mask = [1u8, 2, 3, 4];
        let mut frame = vec![0x81, 0x85];
        frame.extend(mask);
        frame.extend(b"hello".iter().enumerate().map(|(n, b)| b ^ mask[n % 4]));
        send.send_data(frame.into(), false).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < 7 {
            let data = recv.data().await.unwrap().unwrap();
            recv.flow_control().release_capacity(data.len()).unwrap();
            echoed.extend_from_slice(&data);
        }
        assert_eq!(echoed, b"\x81\x05hello");
        send.send_data(bytes::Bytes::new(), true).unwrap();
    });
}
