//! WebSocket: from HTTP/1.1, and from HTTP/2 by extended CONNECT, with a client library of the field.

use std::net::TcpListener;
use std::thread;

use tokio_tungstenite::tungstenite::{self, Message};

use crate::harness::{Authority, BLOG, Client, Pintle, blog_at};

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
    let origin = crate::harness::Origin::start(|_| crate::harness::Reply::new("403 Forbidden", "", "not you"));
    let pintle = Pintle::start(&authority, &crate::harness::blog(&authority, &origin));
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
    let origin = crate::harness::Origin::start(|_| {
        crate::harness::Reply::Octets(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
        )
    });
    let pintle = Pintle::start(&authority, &crate::harness::blog(&authority, &origin));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 502);
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
