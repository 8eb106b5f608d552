//! Limits that are numbers of things, and those of single waits.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use super::{END_HEADERS, END_STREAM, HEADERS, Raw, bytes, get};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Http2Origin, Origin, Pintle, Reply, blog, eventually, output};

fn start(limits: &str, authority: &Authority, origin: &Origin) -> Pintle {
    Pintle::start(authority, &format!("[limits]\n{limits}\n{}", blog(authority, origin)))
}

#[test]
fn streams_at_the_same_time() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Custom(Box::new(|socket| socket.read(&mut [0; 1]).map(drop))));
    let pintle = start("http2_streams = 2", &authority, &origin);
    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&[get(1, "/a"), get(3, "/b"), get(5, "/c")].concat());
    raw.until("a stream is refused", |raw| (!raw.resets.is_empty()).then_some(()));
    assert_eq!(raw.resets, [(5, 7)], "REFUSED_STREAM");
    eventually("two requests", || (origin.received().len() == 2).then_some(()));
}

#[test]
fn requests_on_one_connection() {
    let authority = Authority::new();
    let pintle = start("requests_per_connection = 2", &authority, &Origin::hello());
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").field("connection"), None);
    assert_eq!(connection.get(BLOG, "/").one("connection"), "close");
    connection.assert_closed();
    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&[get(1, "/1"), get(3, "/2")].concat());
    let end = raw.until("the end", |raw| raw.over);
    assert_eq!(end, None, "a proper one");
}

/// Crumbs of cookies count as the one field that they become, by number and by size.
#[test]
fn fields_of_http2() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = start("header_count = 10", &authority, &origin);
    let ask = |pintle: &Pintle, path: &str, crumb: &str, crumbs: usize, others: usize| {
        let begin = format!(":method: GET\n:scheme: https\n:authority: {BLOG}\n:path: {path}\n");
        let fields = begin + &format!("cookie: {crumb}\n").repeat(crumbs) + &"x-test: y\n".repeat(others);
        let mut raw = Raw::new(&authority, pintle, &[]);
        raw.send(&bytes(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields.as_bytes())));
        pintle.access_line(path)["status"].as_u64().unwrap()
    };
    for (path, crumbs, others, status) in [
        ("/ten", 0, 10, 200),
        ("/eleven", 0, 11, 431),
        ("/crumbs", 88, 9, 200),
        ("/crumbs-and-ten", 2, 10, 431),
        ("/one-crumb", 1, 9, 200),
        ("/one-crumb-and-ten", 1, 10, 431),
    ] {
        assert_eq!(ask(&pintle, path, "a=b", crumbs, others), status, "{path}");
    }
    assert_eq!(origin.request("/crumbs").field("cookie"), Some(&*["a=b"; 88].join("; ")));
    // 50 crumbs of 12 bytes: 698 bytes joined, and 1100 as fields of their own.
    let pintle = start("header_size = \"1KiB\"", &authority, &origin);
    assert_eq!(ask(&pintle, "/small", "a=0123456789", 50, 0), 200);
    assert_eq!(ask(&pintle, "/large", &format!("a={}", "x".repeat(400)), 3, 0), 431);
}

/// As many fields as the limit says, and no more: by HTTP/1.1 and HTTP/2 on either side.
#[test]
fn fields_of_responses() {
    let authority = Authority::new();
    let many = |request: &str| request.trim_start_matches('/').parse::<usize>().unwrap();
    let origin =
        Origin::start(move |request| Reply::new("200 OK", &"X-Test: y\r\n".repeat(many(request.path()) - 1), ""));
    let http2 = Http2Origin::start(&authority.leaf("up", &["up.example.net"]), move |request, respond| {
        let mut response = http::Response::new(());
        for _ in 0..many(request.uri.path()) {
            response.headers_mut().append("x-test", "y".parse().unwrap());
        }
        respond.send_response(response, true).unwrap();
    });
    for (what, config) in [("HTTP/1.1", blog(&authority, &origin)), ("HTTP/2", http2.site(&authority))] {
        for (limit, config) in
            [(1000, config.clone()), (150, format!("[limits]\nresponse_header_count = 150\n{config}"))]
        {
            let pintle = Pintle::start(&authority, &config);
            for (fields, status) in [(100, 200), (127, 200), (128, 200), (129, 200), (limit, 200), (limit + 1, 502)] {
                let client = Client::new(&authority);
                assert_eq!(client.get(pintle.https(), BLOG, &format!("/{fields}")).status, status, "{what}: {fields}");
                let mut curl = pintle.curl();
                curl.args(["--http2", "--output", "/dev/null", "--write-out", "%{http_code}"]);
                let got = output(curl.arg(format!("https://{BLOG}/{fields}")));
                assert_eq!(got, status.to_string(), "{what}: {fields} over HTTP/2");
            }
        }
    }
}

#[test]
fn a_websocket_that_is_silent() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            socket
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
            socket.read(&mut [0; 1]).map(drop)
        }))
    });
    let pintle = start("websocket_idle = \"1s\"", &authority, &origin);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /ws HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
    assert_eq!(connection.response("GET").status, 101);
    connection.assert_closed();
}

/// A client that goes on sending what was refused is not listened to for ever.
#[test]
fn a_refusal_that_is_not_heard() {
    let authority = Authority::new();
    let pintle = start("linger = \"1s\"\nrequest_body = 10", &authority, &Origin::hello());
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 100000\r\n\r\n"));
    assert_eq!(connection.response("POST").status, 413);
    eventually("nobody listens any more", || {
        std::thread::sleep(Duration::from_millis(50));
        (connection.stream.write_all(b"x").is_err() || connection.stream.flush().is_err()).then_some(())
    });
}

#[test]
fn the_head_of_a_response() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let size = if request.path() == "/large" { 2000 } else { 500 };
        Reply::new("200 OK", &format!("X-Test: {}\r\n", "x".repeat(size)), "")
    });
    let pintle = start("response_header_size = \"1KiB\"", &authority, &origin);
    let client = Client::new(&authority);
    assert_eq!(client.get(pintle.https(), BLOG, "/small").status, 200);
    assert_eq!(client.get(pintle.https(), BLOG, "/large").status, 502);
}

#[test]
fn one_field() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let size = if request.path() == "/large" { 2000 } else { 500 };
        Reply::new("200 OK", &format!("X-Test: {}\r\n", "x".repeat(size)), "")
    });
    let pintle = start("field_size = \"1KiB\"", &authority, &origin);
    let client = Client::new(&authority);
    for (size, path, status) in [(500, "/small", 200), (2000, "/small", 431), (500, "/large", 502)] {
        let mut connection = client.connect(pintle.https(), BLOG);
        let field = format!("X-Long: {}", "y".repeat(size));
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\n{field}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, status, "{size} {path}");
        let mut curl = pintle.curl();
        curl.args(["--http2", "--output", "/dev/null", "--write-out", "%{http_code}", "--header", &field]);
        assert_eq!(output(curl.arg(format!("https://{BLOG}{path}"))), status.to_string(), "{size} {path}");
    }
}
