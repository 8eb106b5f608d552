//! Errors: the pages that visitors get, and the lines that the operator reads.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::{
    Authority, BLOG, Client, Connection, Http2Origin, Leaf, Origin, PATIENCE, Pintle, Reply, blog, blog_at, free_port,
    output, server_config,
};

#[test]
fn upstream_failures_have_their_code_and_their_cause() {
    let authority = Authority::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin::start(|request| match request.path() {
        "/close" => Reply::Close(Vec::new()),
        "/garbage" => Reply::Close(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        "/framing" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_vec()),
        "/huge" => Reply::Close(format!("HTTP/1.1 200 OK\r\nX-Test: {}\r\n\r\n", "x".repeat(100_000)).into_bytes()),
        _ => Reply::ok("ok"),
    });
    let check = |upstream: &str, options: &str, path: &str, status: u16, error: &str, cause: &str| {
        let config = blog_at(&authority, upstream) + &format!("[site.upstream_options]\n{options}\n");
        let pintle = Pintle::start_listening(&authority, "error_details = \"everybody\"", &config);
        let response = Client::new(&authority).get(pintle.https(), BLOG, path);
        assert_eq!(
            (response.status, response.one("proxy-status")),
            (status, &*format!("pintle; error={error}")),
            "{path}"
        );
        assert_eq!(response.one("content-type"), "text/plain; charset=utf-8");
        assert_eq!(response.one("cache-control"), "no-store");
        let text = response.text();
        assert!(text.starts_with(&format!("{status} ")), "{text}");
        // Nothing from inside: no address, no port, no name, no cause.
        for inside in ["127.0.0.1", "invalid", cause, &origin.address.port().to_string()] {
            assert!(!text.contains(inside), "{inside} in {text}");
        }
        let line = pintle.access_line(path);
        assert_eq!(line["status"], status);
        let said = line["error"].as_str().unwrap();
        assert!(said.contains(cause), "{said}");
        let warned = pintle.logged("upstream failed", 1);
        assert!(warned.len() == 1 && warned[0]["error"].as_str().unwrap().contains(cause), "{warned:?}");
    };
    check("http://127.0.0.1:1", "", "/", 502, "connection_refused", "connection refused");
    check("http://no-such-name.invalid", "", "/", 502, "dns_error", "dns");
    check(&origin.url(), "", "/close", 502, "connection_terminated", "closed before response");
    check(&origin.url(), "", "/garbage", 502, "http_protocol_error", "malformed response");
    check(&origin.url(), "", "/framing", 502, "http_protocol_error", "malformed response");
    check(&origin.url(), "", "/huge", 502, "http_response_header_section_size", "malformed response");
    let silent = format!("http://{}", silent.local_addr().unwrap());
    check(&silent, "response_timeout = \"1s\"", "/slow", 504, "http_response_timeout", "response timed out");
    // TEST-NET-1 is routed nowhere, or refused at once, depending on the host.
    let tls = format!("https://{}", origin.address);
    check(&tls, "", "/tls", 502, "tls_protocol_error", "tls failed");
}

#[test]
fn browsers_get_a_page() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog_at(&authority, "http://127.0.0.1:1"));
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for version in ["--http1.1", "--http2"] {
        let accept = format!("Accept: {browser}");
        let page =
            output(pintle.curl().args([version, "--include", "--header", &accept]).arg(format!("https://{BLOG}/")));
        assert!(page.to_ascii_lowercase().contains("content-type: text/html; charset=utf-8\r\n"), "{page}");
        assert!(page.contains("<h1>The site cannot be reached</h1>") && page.contains("Error 502"), "{page}");
    }
    let head = output(pintle.curl().args(["--http1.1", "--head"]).arg(format!("https://{BLOG}/")));
    assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
}

#[test]
fn a_truncated_body_is_never_passed_off_as_whole() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/length" => Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
        "/chunks" => Reply::Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec()),
        _ => Reply::Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n".to_vec()),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for path in ["/length", "/chunks", "/bad-chunks"] {
        for (version, codes) in [("--http1.1", &[18, 56][..]), ("--http2", &[92, 56, 18])] {
            let done = pintle.curl().arg(version).arg(format!("https://{BLOG}{path}")).output().unwrap();
            assert!(codes.contains(&done.status.code().unwrap()), "{path} {version}: {done:?}");
            // A reset stream takes with it what was not read yet.
            assert!(done.stdout == b"half" || version == "--http2", "{path} {version}: {done:?}");
        }
        // HTTP/1.0 knows no chunks: without a proper end it must see a broken connection.
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("GET {path} HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
        let (all, end) = connection.read_to_end();
        // Many clients take an end without close_notify for a proper one, but none a reset.
        let kind = if path == "/length" { ErrorKind::UnexpectedEof } else { ErrorKind::ConnectionReset };
        assert_eq!(end.map_err(|e| e.kind()), Err(kind), "{path}");
        assert!(all.ends_with(b"half"), "{path}: {all:?}");
    }
    let line = pintle.access_line("/length");
    assert!(line["error"].as_str().unwrap().contains("truncated response"), "{line}");
}

/// A server with TLS that says this to every request, and ends the connection without close_notify.
pub fn abrupt_server(leaf: &Leaf, answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(leaf, &[]);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), socket);
            let _ = tls.read(&mut [0; 4096]).and_then(|_| tls.write_all(answer)).and_then(|()| tls.flush());
        }
    });
    address
}

/// An answer whose end is the end of the connection (HTTP/1.0 knows no other where the length is not stated) is cut short
/// in every way there is, with TLS and without; and once it is whole, the end is a proper one.
#[test]
fn every_early_end_is_seen_by_http_1_0() {
    let authority = Authority::new();
    let half = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let origin = Origin::start(move |request| match request.path() {
        "/whole" => Reply::Bytes([&half[..], b"0\r\n\r\n"].concat()),
        "/closed" => Reply::Close(half.to_vec()),
        "/reset" => Reply::Custom(Box::new(move |socket| {
            socket.write_all(&half[..])?;
            thread::sleep(Duration::from_millis(50));
            socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))
        })),
        "/until-close-reset" => Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")?;
            thread::sleep(Duration::from_millis(50));
            socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))
        })),
        // And nothing more comes.
        _ => Reply::Custom(Box::new(move |socket| {
            socket.write_all(&half[..])?;
            socket.read(&mut [0; 1]).map(drop)
        })),
    });
    let http2 = Http2Origin::start(&authority.leaf("up", &["up.example.net"]), |_, respond| {
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data("half".into(), false).unwrap();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        });
    });
    // A server that ends without close_notify, and one that does as it should.
    let leaf = authority.leaf("abrupt", &["up.example.net"]);
    let abrupt = abrupt_server(&leaf, b"HTTP/1.1 200 OK\r\n\r\nhalf");
    let limits = "[limits]\nbody_progress = \"1s\"\ndrain = \"1s\"\n";
    let tls_upstream = blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{abrupt}\"\nca = {:?}\n", authority.ca_path());
    let offloader = "trusted_proxies = [\"127.0.0.1\"]";
    for (site, paths) in [
        (
            blog(&authority, &origin),
            &["/closed", "/reset", "/until-close-reset", "/stalled", "/drained", "/killed"][..],
        ),
        (http2.site(&authority), &["/http2"]),
        (tls_upstream, &["/abrupt"]),
    ] {
        for path in paths {
            for tls in [true, false] {
                let pintle = Pintle::start_listening(&authority, offloader, &format!("{limits}{site}"));
                let mut connection = match tls {
                    true => Client::new(&authority).connect(pintle.https(), BLOG),
                    false => Connection::plain(pintle.http()),
                };
                connection.send(format!("GET {path} HTTP/1.0\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\n\r\n"));
                let mut all = Vec::new();
                while !all.ends_with(b"half") {
                    let mut buffer = [0; 1024];
                    let read = connection.stream.read(&mut buffer).unwrap_or_else(|e| panic!("{path} {tls}: {e}"));
                    assert!(read > 0, "{path} {tls}");
                    all.extend_from_slice(&buffer[..read]);
                }
                match *path {
                    "/drained" => pintle.signal("TERM"),
                    "/killed" => pintle.signal("KILL"),
                    _ => {}
                }
                let (rest, end) = connection.read_to_end();
                assert_eq!(
                    (rest.len(), end.map_err(|e| e.kind())),
                    (0, Err(ErrorKind::ConnectionReset)),
                    "{path} {tls}"
                );
            }
        }
    }
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for _ in 0..3 {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("GET /whole HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
        let (all, end) = connection.read_to_end();
        assert!(end.is_ok() && all.ends_with(b"half"), "{end:?}");
    }
}

#[test]
fn sizes_have_limits_and_codes() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let limits =
        "[limits]\nrequest_line = \"1KiB\"\nheader_size = \"4KiB\"\nheader_count = 20\nrequest_body = \"10KiB\"\n";
    let pintle = Pintle::start(&authority, &(limits.to_owned() + &blog(&authority, &origin) + "[site.hsts]\n"));
    let client = Client::new(&authority);
    let ask = |request: &str| {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(request);
        let response = connection.response("GET");
        // Where the head is not read to its end, it is not known for whom the request is.
        let policies = response.all("strict-transport-security").len();
        assert_eq!(policies, usize::from(!matches!(response.status, 414 | 431)), "{response:?}");
        response.status
    };
    let host = format!("Host: {BLOG}\r\n");
    assert_eq!(ask(&format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(900))), 200);
    assert_eq!(ask(&format!("GET /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(1100))), 414);
    assert_eq!(ask(&format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(5000))), 431);
    assert_eq!(ask(&format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(30))), 431);
    assert_eq!(ask(&format!("POST / HTTP/1.1\r\n{host}Content-Length: 20000\r\n\r\n")), 413);
    assert_eq!(
        ask(&format!(
            "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5000\r\n{}\r\n0\r\n\r\n",
            "x".repeat(0x5000)
        )),
        413
    );
    assert_eq!(ask(&format!("PUT / HTTP/1.1\r\n{host}Content-Length: 10240\r\n\r\n{}", "x".repeat(10240))), 200);
    // The same over HTTP/2.
    let curl = |arguments: &[&str], path: &str| {
        let mut curl = pintle.curl();
        curl.args(["--http2", "--output", "/dev/null", "--write-out", "%{http_code}"]).args(arguments);
        output(curl.arg(format!("https://{BLOG}{path}")))
    };
    assert_eq!(curl(&[], &format!("/{}", "x".repeat(1100))), "414");
    assert_eq!(curl(&["--header", &format!("X: {}", "x".repeat(5000))], "/"), "431");
    assert_eq!(curl(&["--data", &"x".repeat(20000)], "/"), "413");
    assert_eq!(curl(&["--data", &"x".repeat(10000)], "/"), "200");
}

#[test]
fn requests_that_cannot_be_served() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.hsts]\n"));
    let client = Client::new(&authority);
    let check = |request: &str, status: u16| {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(request);
        let response = connection.response("GET");
        assert_eq!(response.status, status, "{request:?}");
        let policies = response.all("strict-transport-security").len();
        assert_eq!(policies, usize::from(!matches!(status, 400 | 505)), "{request:?}");
    };
    check(&format!("TRACE / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"), 405);
    check(&format!("CONNECT {BLOG}:443 HTTP/1.1\r\nHost: {BLOG}:443\r\n\r\n"), 405);
    check(&format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nExpect: the-unexpected\r\n\r\n"), 417);
    check(&format!("GET / HTTP/3.0\r\nHost: {BLOG}\r\n\r\n"), 505);
    check(&format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"), 501);
    check("GET / HTTP/1.1\r\n\r\n", 400);
    check(&format!("OPTIONS * HTTP/1.1\r\nHost: {BLOG}\r\nMax-Forwards: 0\r\n\r\n"), 204);
    assert!(origin.received().is_empty());
}

#[test]
fn time_limits() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let limits = "[limits]\nrequest_header = \"1s\"\nidle = \"2s\"\nbody_progress = \"1s\"\nhandshake = \"1s\"\n";
    let pintle = Pintle::start(&authority, &(limits.to_owned() + &blog(&authority, &origin) + "[site.hsts]\n"));
    let client = Client::new(&authority);
    // A head that does not end, one byte at a time or not at all.
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send("GET / HTTP/1.1\r\nHost:");
    let response = connection.response("GET");
    assert_eq!((response.status, response.field("strict-transport-security")), (408, None));
    connection.assert_closed();
    // A body that does not come.
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 10\r\n\r\nhalf"));
    assert_eq!(connection.response("POST").status, 408);
    connection.assert_closed();
    // Idle: closed without a word.
    let mut connection = client.connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    connection.assert_closed();
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.assert_closed();
    // A handshake that does not come, or stops.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut connection = Connection::plain(pintle.https());
        connection.send(bytes);
        connection.assert_closed();
    }
}

#[test]
fn connections_are_limited_in_all_and_by_client() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Custom(Box::new(|socket| {
            use std::io::Read;
            let _ = socket.read(&mut [0; 1]);
            Ok(())
        }))
    });
    let config = blog(&authority, &origin);
    let client = Client::new(&authority);
    // Each has a request under way: those at rest would give way.
    let open = |pintle: &Pintle| {
        let busy = (0..6).filter_map(|_| {
            let before = origin.received().len();
            let mut connection = client.try_connect(pintle.https(), BLOG).ok()?;
            connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            crate::harness::eventually("it is at the origin", || (origin.received().len() > before).then_some(()));
            Some(connection)
        });
        busy.collect::<Vec<_>>()
    };
    let pintle = Pintle::start(&authority, &format!("[limits]\nconnections = 32\n{config}"));
    // The default for one client is an eighth of it.
    assert_eq!(open(&pintle).len(), 4);
    let pintle = Pintle::start(&authority, &format!("[limits]\nconnections = 4\nconnections_per_client = 4\n{config}"));
    let held = open(&pintle);
    assert_eq!(held.len(), 4);
    drop(held);
    crate::harness::eventually("places are free again", || client.try_connect(pintle.https(), BLOG).ok());
    let pintle = Pintle::start_listening(
        &authority,
        "trusted_proxies = [\"127.0.0.1\"]",
        &format!("[limits]\nconnections_per_client = 2\n{config}"),
    );
    assert_eq!(open(&pintle).len(), 6);
}

#[test]
fn a_busy_upstream_is_503() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/hold" => Reply::Custom(Box::new(|socket| {
            use std::io::Read;
            let _ = socket.read(&mut [0; 1]);
            Ok(())
        })),
        _ => Reply::ok("ok"),
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = "[limits]\nupstream_connections = 2\nupstream_queue = 0\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start_with(&authority, listen, &config);
    let client = Client::new(&authority);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET /hold HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        held.push(connection);
    }
    crate::harness::eventually("both are at the origin", || (origin.received().len() == 2).then_some(()));
    let response = client.get(pintle.https(), BLOG, "/");
    assert_eq!((response.status, response.one("retry-after")), (503, "1"));
    drop(held);
    crate::harness::eventually("there is room again", || {
        (client.get(pintle.https(), BLOG, "/").status == 200).then_some(())
    });
}

#[test]
fn a_proxy_that_is_its_own_upstream_ends_in_508() {
    let authority = Authority::new();
    let port = free_port();
    let listen = format!("[listen]\nhttps = [\"127.0.0.1:{port}\"]\nhttp = []\n");
    let ca = authority.ca_path();
    let config = blog_at(&authority, &format!("https://{BLOG}:{port}"))
        + &format!("[site.upstream_options]\nconnect = \"127.0.0.1:{port}\"\nca = {ca:?}\nhost_header = \"{BLOG}\"\n");
    let pintle = Pintle::start_with(&authority, &listen, &config);
    let response = Client::new(&authority).get(pintle.https(), BLOG, "/round");
    assert_eq!(response.status, 508);
    let rounds = crate::harness::eventually("the rounds are logged", || {
        let rounds = pintle.access().iter().filter(|l| l["target"] == "/round").count();
        (rounds > 4).then_some(rounds)
    });
    assert!(rounds <= 6, "{rounds}");
}

#[test]
fn an_upstream_that_redirects_to_http_for_ever_is_told_so() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let fields = format!("Location: http://{BLOG}{}\r\n", request.path());
        match request.path() {
            "/cookie" => Reply::new("302 Found", &(fields + "Set-Cookie: seen=1\r\n"), ""),
            "/elsewhere" => Reply::new("302 Found", &format!("Location: http://{BLOG}/\r\n"), ""),
            _ => Reply::new("301 Moved Permanently", &fields, ""),
        }
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let response = client.get(pintle.https(), BLOG, "/page");
    assert_eq!((response.status, response.field("location")), (508, None));
    assert!(response.text().contains("X-Forwarded-Proto"));
    // With a cookie, the second visit may go another way.
    assert_eq!(client.get(pintle.https(), BLOG, "/cookie").one("location"), format!("https://{BLOG}/cookie"));
    assert_eq!(client.get(pintle.https(), BLOG, "/elsewhere").one("location"), format!("https://{BLOG}/"));
}

/// The kind of an error says more about the inside than its status: that is for the operator, and for trusted peers.
#[test]
fn strangers_are_told_no_more_than_the_status() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Close(Vec::new()));
    let config = blog(&authority, &origin);
    let broken = "pintle; error=connection_terminated";
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    let proxy = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\ntrust = \"proxy\"";
    for (listen, greeting, fields, want) in [
        ("", "", "", "pintle"),
        ("error_details = \"trusted\"", "", "", "pintle"),
        ("error_details = \"everybody\"", "", "", broken),
        ("trusted_proxies = [\"192.0.2.1\"]", "", "", "pintle"),
        (trusted, "", "", broken),
        // What a trusted proxy passes on for a stranger goes to the stranger.
        (trusted, "", "X-Forwarded-For: 192.0.2.7\r\n", "pintle"),
        (trusted, "", "X-Forwarded-For: 127.0.0.1\r\n", broken),
        (proxy, "PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n", "", "pintle"),
        (proxy, "PROXY TCP4 127.0.0.1 10.0.0.1 5000 443\r\n", "", broken),
    ] {
        let pintle = Pintle::start_listening(&authority, listen, &config);
        let mut socket = TcpStream::connect(pintle.https()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(greeting.as_bytes()).unwrap();
        let mut connection = Client::new(&authority).handshake(socket, BLOG).unwrap();
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        let response = connection.response("GET");
        assert_eq!((response.status, response.one("proxy-status")), (502, want), "{listen} {greeting} {fields}");
    }
    // Nor is anybody whose request could not even be read.
    let pintle = Pintle::start(&authority, &config);
    let mut connection = Connection::plain(pintle.http());
    connection.send("GET / HTTP/1.1\r\n\r\n");
    let response = connection.response("GET");
    assert_eq!((response.status, response.one("proxy-status")), (400, "pintle"));
}
