//! HTTP/1.1 towards clients and upstreams: framing, interim responses, expectations, retries.

use std::io::{Read, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually};

#[test]
fn heads_without_bodies_keep_their_framing() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/head" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Test: head\r\n\r\n".to_vec()),
        "/list" => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 05\r\n\r\n".to_vec()),
        "/304-list" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5,5\r\n\r\n".to_vec()),
        "/204" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n".to_vec()),
        "/304" => Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"e\"\r\n\r\n".to_vec()),
        _ => Reply::ok("after"),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("1234")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("99")),
        // A list of equal numbers is one number.
        ("HEAD", "/list", 200, Some("5")),
        ("GET", "/304-list", 304, Some("5")),
    ] {
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        let response = connection.response(method);
        assert_eq!((response.status, response.field("content-length")), (status, length), "{path}");
        assert!(response.all("content-length").len() <= 1, "{path}");
        let mut curl = pintle.curl();
        curl.args(["--http2", "--dump-header", "-", "--output", "/dev/null"]);
        curl.args((method == "HEAD").then_some("--head"));
        let head = crate::harness::output(curl.arg(format!("https://{BLOG}{path}")));
        let lengths: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect();
        assert_eq!(lengths, length.into_iter().collect::<Vec<_>>(), "{path}: {head}");
        assert_eq!(response.field("transfer-encoding"), None);
        // The next answer is the next request's.
        assert_eq!(connection.get(BLOG, "/after").text(), "after");
    }
    // A 204 has no Content-Length: what else has its origin got wrong? Either of them ends its worker's connection.
    let connections = origin.connections();
    assert!(matches!(connections, 3 | 4), "{connections}");
}

/// A body behind a head that has none must not become the next answer.
#[test]
fn an_origin_that_says_too_much_is_not_listened_to() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/head" => Reply::Bytes(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
                .to_vec(),
        ),
        _ => Reply::ok("own"),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for _ in 0..3 {
        connection.send(format!("HEAD /head HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("HEAD").status, 200);
        assert_eq!(connection.get(BLOG, "/own").text(), "own");
    }
}

#[test]
fn bodies_of_every_framing_pass_both_ways() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        match request.path() {
            "/chunks" => Reply::Bytes(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Test\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Test: sum\r\n\r\n", body.len())
                    .into_bytes(),
            ),
            "/close" => Reply::Close(format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes()),
            _ => Reply::ok(&body),
        }
    });
    let pintle = Pintle::start(
        &authority,
        &(blog(&authority, &origin)
            + "[site.request_headers]\ntrailers = [\"X-Test\"]\n[site.response_headers]\ntrailers = [\"X-Test\"]\n"),
    );
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    for path in ["/length", "/chunks", "/close"] {
        connection.send(format!("POST {path} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\n\r\nhello"));
        assert_eq!(connection.response("POST").text(), "hello");
        let chunks = format!(
            "POST {path} HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Test\r\n\r\n\
             3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Test: trailer\r\nHost: evil\r\n\r\n"
        );
        connection.send(chunks);
        let response = connection.response("POST");
        assert_eq!(response.text(), "hello");
        if path == "/chunks" {
            assert_eq!(response.trailers, [("X-Test".to_owned(), "sum".to_owned())]);
        }
        let received = eventually("the chunks", || {
            origin.received().into_iter().rev().find(|r| r.path() == path && r.field("transfer-encoding").is_some())
        });
        assert_eq!((received.field("transfer-encoding"), received.field("content-length")), (Some("chunked"), None));
        assert_eq!(received.trailers, "X-Test: trailer\r\n");
    }
}

#[test]
fn http_1_0_clients_get_what_they_understand() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/chunks" => {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec())
        }
        "/early-hints" => Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        ),
        _ => Reply::ok("hello"),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.send(format!("GET /chunks HTTP/1.0\r\nHost: {BLOG}\r\nConnection: keep-alive\r\n\r\n"));
    let response = connection.response("GET");
    assert_eq!((response.text().as_str(), response.field("transfer-encoding")), ("hello", None));
    let mut connection = client.connect(pintle.https(), BLOG);
    for _ in 0..2 {
        connection.send(format!("GET / HTTP/1.0\r\nHost: {BLOG}\r\nConnection: keep-alive\r\n\r\n"));
        assert_eq!(connection.response("GET").one("connection"), "keep-alive");
    }
    connection.send(format!("GET /early-hints HTTP/1.0\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(connection.response("GET").status, 200);
    connection.assert_closed();
    assert!(origin.received().iter().all(|r| r.line().ends_with(" HTTP/1.1")));
}

#[test]
fn interim_responses_are_passed_on() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::Bytes(
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
              HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .to_vec(),
        )
    });
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.hsts]\n"));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    assert_eq!(connection.response("GET").status, 102);
    for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
        let hints = connection.response("GET");
        assert_eq!((hints.status, hints.one("link")), (103, link));
    }
    let response = connection.response("GET");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    // 100 is for those who wait for it.
    let origin = Origin::start(|_| {
        Reply::Bytes(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec())
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn expect_100_continue() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        // Answered before the body is read, and without reading it.
        "/early-no" => Reply::Close(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno".to_vec()),
        _ => Reply::ok(&String::from_utf8(request.body.clone()).unwrap()),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let expect = |path: &str| {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection
            .send(format!("POST {path} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
        let begin = Instant::now();
        (connection.response("POST"), connection, begin)
    };
    // The upstream's own word is passed on, and the body only then.
    let (interim, mut connection, _) = expect("/own");
    assert_eq!(interim.status, 100);
    assert_eq!(origin.received().len(), 0);
    connection.send("hello");
    assert_eq!(connection.response("POST").text(), "hello");
    assert_eq!(origin.request("/own").field("expect"), Some("100-continue"));
    // A refusal comes without the body having been asked for.
    let (refusal, mut connection, _) = expect("/early-no");
    assert_eq!((refusal.status, refusal.one("connection")), (401, "close"));
    connection.assert_closed();
    // An upstream that does not know the expectation is not waited for.
    let (interim, mut connection, begin) = expect("/silent");
    assert_eq!(interim.status, 100);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    connection.send("hello");
    assert_eq!(connection.response("POST").text(), "hello");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let authority = Authority::new();
    let origin =
        Origin::start(|request| Reply::ok(&format!("{}{}", request.path(), String::from_utf8_lossy(&request.body))));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut all = String::new();
    for n in 0..10 {
        all += &format!("POST /{n} HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 1\r\n\r\nx");
    }
    connection.send(&all);
    for n in 0..10 {
        assert_eq!(connection.response("POST").text(), format!("/{n}x"));
    }
}

/// The origin has closed the connection that pintle kept: what is safe is sent again, once; what is not, isn't.
#[test]
fn a_stale_connection_is_tried_again_when_that_is_safe() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        // The next request on this connection finds it closed, just when it has been sent.
        "/then-close" => Reply::Custom(Box::new(|socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            let _ = socket.read(&mut [0; 4096]);
            Ok(())
        })),
        _ => Reply::ok("fresh"),
    });
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let pintle = Pintle::start_with(&authority, listen, &blog(&authority, &origin));
    let client = Client::new(&authority);
    let mut connection = client.connect(pintle.https(), BLOG);
    let mut ask = |request: &str| {
        assert_eq!(connection.get(BLOG, "/then-close").text(), "ok");
        connection.send(request);
        connection.response("POST").status
    };
    assert_eq!(ask(&format!("GET /get HTTP/1.1\r\nHost: {BLOG}\r\n\r\n")), 200);
    assert_eq!(ask(&format!("DELETE /delete HTTP/1.1\r\nHost: {BLOG}\r\n\r\n")), 200);
    assert_eq!(ask(&format!("POST /post HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 0\r\n\r\n")), 502);
    assert_eq!(ask(&format!("PUT /put HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 2\r\n\r\nhi")), 502);
    assert!(origin.received().iter().all(|r| r.path() != "/post"));
}

#[test]
fn a_post_is_never_sent_twice() {
    let authority = Authority::new();
    let origin = Origin::start(|_| Reply::Close(Vec::new()));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for method in ["POST", "GET"] {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("{method} /{method} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response(method).status, 502);
        assert_eq!(origin.received().iter().filter(|r| r.path() == format!("/{method}")).count(), 1);
    }
}

/// The answer is there before the upload is: the client must get to read it.
#[test]
fn early_answers_to_uploads_are_readable() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/early-413" => Reply::Bytes(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 5\r\n\r\nlarge".to_vec()),
        _ => Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".to_vec()),
    });
    let config = "[limits]\nrequest_body = \"20MB\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let file = authority.write("upload", vec![b'x'; 10_000_000]);
    for (path, code) in [("/early-413", "413"), ("/early-200", "200")] {
        for version in ["--http1.1", "--http2"] {
            let mut curl = pintle.curl();
            curl.args([
                version,
                "--header",
                "Expect:",
                "--write-out",
                " %{http_code}",
                "--data-binary",
                &format!("@{}", file.display()),
            ]);
            let answer = crate::harness::output(curl.arg(format!("https://{BLOG}{path}")));
            assert!(answer.ends_with(code), "{path} {version}: {answer}");
        }
    }
    let large = authority.write("large", vec![b'x'; 30_000_000]);
    for version in ["--http1.1", "--http2"] {
        let mut curl = pintle.curl();
        curl.args([
            version,
            "--header",
            "Expect:",
            "--write-out",
            " %{http_code}",
            "--data-binary",
            &format!("@{}", large.display()),
        ]);
        let answer = crate::harness::output(curl.arg(format!("https://{BLOG}/too-large")));
        assert!(answer.ends_with("413"), "{version}: {answer}");
    }
}

#[test]
fn a_request_after_a_refused_one_is_not_read() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {BLOG}\r\n\r\n");
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: y\r\n z\r\n",
        "X\0: y\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
    ] {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\n{head}\r\n0\r\n\r\n{smuggled}"));
        assert_eq!(connection.response("POST").status, 400, "{head:?}");
        connection.assert_closed();
    }
    // A body that is wrong only further on.
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!(
        "POST /bad HTTP/1.1\r\nHost: {BLOG}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n{smuggled}"
    ));
    assert_eq!(connection.response("POST").status, 400);
    connection.assert_closed();
    assert!(origin.received().iter().all(|r| r.path() != "/smuggled"));
}

/// The client goes away while the upstream thinks: the upstream is let go, too.
#[test]
fn a_client_that_goes_away_frees_the_upstream() {
    let authority = Authority::new();
    let (gone, count_gone) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |_| {
        let gone = gone.lock().unwrap().clone();
        Reply::Custom(Box::new(move |socket| {
            let _ = gone.send(socket.read(&mut [0; 1])?);
            Ok(())
        }))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    origin.request("/wait");
    drop(connection);
    assert_eq!(count_gone.recv_timeout(crate::harness::PATIENCE), Ok(0));
    assert_eq!(pintle.access_line("/wait")["status"], 499);
}
