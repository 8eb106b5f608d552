//! Interim responses, and what must not come with them: no policy, no cookie, no other protocol.

use http::StatusCode;

use crate::harness::{Authority, BLOG, Client, Http2Origin, Origin, Pintle, Reply, blog, policies};

/// The fields that a site sets, and those that belong to the final response.
const OTHERS: [(&str, &str); 9] = [
    ("strict-transport-security", "max-age=1; includeSubDomains"),
    ("public-key-pins", "pin-sha256=\"x\"; max-age=1"),
    ("public-key-pins-report-only", "pin-sha256=\"x\""),
    ("set-cookie", "a=b"),
    ("server", "origin"),
    ("content-length", "5"),
    ("location", "http://elsewhere.example/"),
    ("alt-svc", "h3=\":443\""),
    ("x-test", "y"),
];
const LINK: &str = "</a.css>; rel=preload";
/// Those before the final response, which is 200 with a body of two bytes.
const BEFORE: [u16; 4] = [102, 103, 104, 103];

fn http1_origin() -> Origin {
    let mut bytes = String::new();
    for status in BEFORE {
        bytes += &format!("HTTP/1.1 {status} X\r\nlink: {LINK}\r\n");
        bytes.extend(OTHERS.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        bytes += "\r\n";
    }
    bytes += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    Origin::start(move |_| Reply::Bytes(bytes.clone().into_bytes()))
}

fn http2_origin(authority: &Authority) -> Http2Origin {
    Http2Origin::start(&authority.leaf("up", &["up.example.net"]), |_, respond| {
        for status in BEFORE {
            let mut response = http::Response::builder().status(status).header("link", LINK);
            for (name, value) in OTHERS {
                response = response.header(name, value);
            }
            respond.send_informational(response.body(()).unwrap()).unwrap();
        }
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data("ok".into(), true).unwrap();
    })
}

/// Hints have links alone, and the rest no field at all, by HTTP/1.1 and HTTP/2 on either side.
#[test]
fn links_alone_pass() {
    let authority = Authority::new();
    let (by_http1, by_http2) = (http1_origin(), http2_origin(&authority));
    for site in [blog(&authority, &by_http1), by_http2.site(&authority)] {
        let pintle = Pintle::start(&authority, &(site + &policies(&authority)));
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        // The second time by a connection to the upstream that is there.
        for _ in 0..2 {
            connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            for status in BEFORE {
                let interim = connection.response("GET");
                let fields = if status == 103 { vec![("link".to_owned(), LINK.to_owned())] } else { Vec::new() };
                assert_eq!((interim.status, interim.fields), (status, fields));
            }
            let last = connection.response("GET");
            assert_eq!((last.status, last.text().as_str()), (200, "ok"));
            last.one("strict-transport-security");
            last.one("public-key-pins");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut sender = super::http2::connect(&authority, &pintle).await.ready().await.unwrap();
            let request = http::Request::builder().uri(format!("https://{BLOG}/")).body(()).unwrap();
            let (mut response, _) = sender.send_request(request, true).unwrap();
            for status in BEFORE {
                let interim = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
                let mut fields = http::HeaderMap::new();
                if status == 103 {
                    fields.insert("link", LINK.parse().unwrap());
                }
                assert_eq!((interim.status().as_u16(), interim.headers()), (status, &fields));
            }
            assert_eq!(response.await.unwrap().status(), 200);
        });
    }
}

/// The site's rules hold for hints, too.
#[test]
fn a_rule_that_removes_links_removes_hints() {
    let authority = Authority::new();
    let site = blog(&authority, &http1_origin()) + "[site.response_headers]\nremove = [\"Link\"]\n";
    let pintle = Pintle::start(&authority, &site);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let statuses: Vec<u16> = (0..3).map(|_| connection.response("GET").status).collect();
    assert_eq!(statuses, [102, 104, 200]);
}

/// A 101 that answers no request for a WebSocket, or switches to something else, is a fault of the upstream.
#[test]
fn protocols_that_nobody_asked_for() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let to = request.path().trim_start_matches('/').replace('-', ", ");
        Reply::Bytes(format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\n{to}\r\n\r\n").into_bytes())
    });
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    for (asks, answer, status) in [
        ("", "Upgrade:websocket", 502),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "Upgrade:h2c", 502),
        (websocket, "Upgrade:h2c", 502),
        (websocket, "X:y", 502),
        (websocket, "Upgrade:websocket", 101),
    ] {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET /{answer} HTTP/1.1\r\nHost: {BLOG}\r\n{asks}\r\n"));
        assert_eq!(connection.response("GET").status, status, "{asks:?} {answer:?}");
    }

    let origin = Http2Origin::start(&authority.leaf("up", &["up.example.net"]), |_, respond| {
        let switch = http::Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("upgrade-insecure", "1");
        respond.send_informational(switch.body(()).unwrap()).unwrap();
        let _ = respond.send_response(http::Response::new(()), true);
    });
    let pintle = Pintle::start(&authority, &origin.site(&authority));
    for _ in 0..2 {
        assert_eq!(client.get(pintle.https(), BLOG, "/").status, 502);
    }
    let head = crate::harness::output(pintle.curl().args(["--http2", "--head"]).arg(format!("https://{BLOG}/")));
    assert!(head.starts_with("HTTP/2 502"), "{head}");
}

/// Policies of the upstream pass with no trailer and no 101.
#[test]
fn policies_in_trailers_and_behind_101() {
    let authority = Authority::new();
    let policies_of_upstream = "Strict-Transport-Security: max-age=1\r\nPublic-Key-Pins: pin-sha256=\"x\"\r\n";
    let origin = Origin::start(move |request| {
        Reply::Bytes(match request.path() {
            "/ws" => format!(
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{policies_of_upstream}\r\n"
            ),
            "/grpc" => format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\nTrailer: Public-Key-Pins, Strict-Transport-Security, X-Named, Grpc-Status\r\n\r\n2\r\nok\r\n0\r\n{policies_of_upstream}X-Named: y\r\ngrpc-status: 0\r\n\r\n"
            ),
            _ => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Test\r\n\r\n2\r\nok\r\n0\r\n{policies_of_upstream}\r\n"
            ),
        }
        .into_bytes())
    });
    // A site without policies of its own lets the upstream's HSTS pass with a response and a 101; pins by no road.
    for (own, hsts) in [(policies(&authority), "max-age=31536000"), (String::new(), "max-age=1")] {
        let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + &own));
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        let response = connection.get(BLOG, "/");
        assert_eq!((response.text().as_str(), response.trailers.len()), ("ok", 0));
        // gRPC has the trailers that its head announces, but for those.
        connection.send(format!(
            "GET /grpc HTTP/1.1\r\nHost: {BLOG}\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\r\n"
        ));
        let names: Vec<_> =
            connection.response("GET").trailers.into_iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        assert_eq!(names, ["x-named", "grpc-status"]);
        connection
            .send(format!("GET /ws HTTP/1.1\r\nHost: {BLOG}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"));
        let switched = connection.response("GET");
        assert_eq!((switched.status, switched.one("strict-transport-security")), (101, hsts));
        match own.is_empty() {
            true => assert_eq!(switched.field("public-key-pins"), None),
            false => assert!(switched.one("public-key-pins").contains("max-age=2592000")),
        }
    }
}

/// Hints for clients that do not read take no more than there is room for.
#[test]
fn hints_that_nobody_reads() {
    use std::io::Write as _;
    const STREAMS: u32 = 100;
    let authority = Authority::new();
    let hint = format!("HTTP/1.1 103 X\r\nLink: <{}>\r\n\r\n", "x".repeat(60_000));
    let origin = Origin::start(move |_| {
        let hint = hint.clone();
        Reply::Custom(Box::new(move |socket| {
            for _ in 0..30 {
                socket.write_all(hint.as_bytes())?;
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        }))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut raw = super::hostile::Raw::new(&authority, &pintle, &[]);
    let before = pintle.memory();
    let all: Vec<u8> = (0..STREAMS).flat_map(|n| super::hostile::get(2 * n + 1, "/hints")).collect();
    raw.connection.send(all);
    crate::harness::eventually("all are asked", || (origin.received().len() >= STREAMS as usize).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let held = pintle.peak_memory().saturating_sub(before);
    // 180 MB of hints.
    assert!(held < 40 << 20, "{} MiB", held >> 20);
    // Whoever reads gets them, and the answer.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let mut hints = 0;
    loop {
        match connection.response("GET").status {
            103 => hints += 1,
            status => break assert_eq!(status, 200),
        }
    }
    assert!((1..=30).contains(&hints), "{hints}");
}
