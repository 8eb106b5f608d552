//! Requests that somebody else could read as something else.

use super::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, bytes, get};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog};

/// A request that two parsers could read differently gets an error and the end of the connection. Bytes behind it are
/// no request.
#[test]
fn what_could_be_read_in_two_ways() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
    let chunked =
        |chunks: &str| format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let with = |field: &str| format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\n{field}\r\n\r\n");
    let endless = "x".repeat(70_000);
    let cases: Vec<(String, u16)> = vec![
        // Length.
        (with("Content-Length: 5, 5"), 400),
        (with("Content-Length: 5\r\ncontent-length: 5"), 400),
        (with("Content-Length: 0x5"), 400),
        (with("Content-Length: -1"), 400),
        (with("Content-Length: 99999999999999999999"), 400),
        (with("Content-Length:"), 400),
        (with("Content-Length: 5 5"), 400),
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
        // Coding.
        (with("Transfer-Encoding: chunked, chunked"), 400),
        (with("Transfer-Encoding: chunked, identity"), 400),
        (with("Transfer-Encoding: identity"), 400),
        (with("Transfer-Encoding: gzip, chunked"), 501),
        (with("Transfer-Encoding: \"chunked\""), 400),
        (with("Transfer-Encoding: chunked;q=1"), 400),
        (format!("POST / HTTP/1.0\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        // Lines.
        (format!("GET / HTTP/1.1\nHost: {BLOG}\n\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\nX: y\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nX: a\rb\r\n\r\n"), 400),
        (with("X: a\r\n b"), 400),
        (with(" X: a"), 400),
        (with("X : a"), 400),
        (with("X"), 400),
        (with(": a"), 400),
        (with("X: a\0b"), 400),
        (with("X\u{7f}: a"), 400),
        (format!("GET  / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1 \r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET /\t HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET /a#b HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET / HTTP/2.0\r\nHost: {BLOG}\r\n\r\n"), 505),
        (format!("GET / HTTP/1.2\r\nHost: {BLOG}\r\n\r\n"), 505),
        // Whom it is for.
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}, a.example\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x@{BLOG}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}:x\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: {BLOG}/\r\n\r\n"), 400),
        (format!("GET https://other.example/ HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET https://{BLOG}:1/ HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET ftp://{BLOG}/ HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        (format!("GET x HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 400),
        // Chunks.
        (chunked("x\r\n"), 400),
        (chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("-5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked(" 5\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\nhello\r\n0\r\n\r\n"), 400),
        (chunked("5\r\nhello\n0\r\n\r\n"), 400),
        (chunked("5\r\nhelloo\r\n0\r\n\r\n"), 400),
        (chunked("10000000000000000\r\nhello"), 400),
        (chunked("5;a\rb\r\nhello\r\n0\r\n\r\n"), 400),
        (chunked(&format!("5;{endless}\r\nhello\r\n0\r\n\r\n")), 400),
        (chunked("0\r\nX : a\r\n\r\n"), 400),
        (chunked("0\r\nX: a\r\n b\r\n\r\n"), 400),
        (chunked(&format!("0\r\nX: {endless}\r\n\r\n")), 400),
    ];
    for (request, status) in cases {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("{request}{smuggled}"));
        let shown: String = request.escape_debug().take(200).collect();
        let response = connection.response("POST");
        assert_eq!(response.status, status, "{shown}");
        assert_eq!(response.one("connection"), "close", "{shown}");
        connection.assert_closed();
    }
    assert!(origin.received().iter().all(|r| r.path() != "/smuggled"));
}

/// A request that HTTP/2 can express, and HTTP/1.1 only ambiguously or not at all, does not reach the upstream.
#[test]
fn what_http2_could_smuggle() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let request = |more: &str| {
        block(format!(":method: POST\n:scheme: https\n:authority: {BLOG}\n:path: /smuggled\n{more}").as_bytes())
    };
    let replaced = |from: &str, to: &str| {
        let text = format!(":method: POST\n:scheme: https\n:authority: {BLOG}\n:path: /smuggled\n");
        block(text.replace(from, to).as_bytes())
    };
    let cases = [
        ("transfer-encoding", request("transfer-encoding: chunked\n")),
        ("connection", request("connection: close\n")),
        ("keep-alive", request("keep-alive: 5\n")),
        ("proxy-connection", request("proxy-connection: close\n")),
        ("upgrade", request("upgrade: websocket\n")),
        ("te", request("te: gzip\n")),
        ("a quotation mark in a name", request("x\"y: b\n")),
        ("upper case", request("X-A: b\n")),
        ("white space in a name", request("x a: b\n")),
        ("CR in a value", request("x: a\rb\n")),
        ("NUL in a value", request("x: a\0b\n")),
        ("white space around a value", request("x:  a\n")),
        ("two lengths", request("content-length: 3\ncontent-length: 4\n")),
        ("a length that is none", request("content-length: +3\n")),
        ("a length that is too long", request("content-length: 4\n")),
        ("a length that is too short", request("content-length: 2\n")),
        ("several hosts", request(&format!("host: {BLOG}\nhost: {BLOG}\n"))),
        ("another host", request("host: other.example\n")),
        ("a pseudo-field behind fields", request("x: a\n:path: /smuggled\n")),
        ("a pseudo-field twice", request(":path: /smuggled\n")),
        ("an unknown pseudo-field", replaced(":scheme", ":x: y\n:scheme")),
        ("a pseudo-field of responses", replaced(":scheme", ":status: 200\n:scheme")),
        ("no method", replaced(":method: POST\n", "")),
        ("no scheme", replaced(":scheme: https\n", "")),
        ("no path", replaced(":path: /smuggled\n", "")),
        ("an empty path", replaced(": /smuggled", ":")),
        ("a space in the path", replaced("/smuggled", "/smuggled HTTP/1.1")),
        ("a path that is none", replaced("/smuggled", "smuggled")),
        ("CR in the path", replaced("/smuggled", "/smuggled\r")),
        ("a method that is none", replaced("POST", "PO ST")),
        ("userinfo", replaced(":authority: ", ":authority: x@")),
        ("no authority", replaced(&format!(":authority: {BLOG}\n"), "")),
    ];
    for (what, block) in cases {
        let mut raw = Raw::new(&authority, &pintle, &[]);
        raw.send(&bytes(HEADERS, END_HEADERS, 1, &block));
        raw.send(&bytes(DATA, END_STREAM, 1, b"abc"));
        let answered = || pintle.access().iter().filter(|line| line["target"] == "/after").count();
        let before = answered();
        raw.send(&get(3, "/after"));
        raw.until(what, |raw| (raw.over.is_some() || answered() > before).then_some(()));
        // A body that turns out wrong may have begun to pass, and is cut short visibly.
        let is_whole = |length: &str| length.parse::<usize>().map(|length| length..);
        for request in origin.received().iter().filter(|r| r.path().contains("smuggled")) {
            let length = request.field("content-length").unwrap_or_else(|| panic!("{what}: {request:?}"));
            assert!(!is_whole(length).unwrap().contains(&request.body.len()), "{what}: {request:?}");
        }
    }
}
