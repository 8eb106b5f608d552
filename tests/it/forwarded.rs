//! Behind an offloader: whose word on scheme and client is believed, and how a loop ends.

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Response, blog, policies};

const TRUST: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

fn ask(pintle: &Pintle, fields: &str) -> Response {
    ask_for(pintle, "/page", fields)
}

fn ask_for(pintle: &Pintle, target: &str, fields: &str) -> Response {
    let mut connection = Connection::plain(pintle.http());
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
    connection.response("GET")
}

#[test]
fn a_trusted_offloader_says_https() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let config = blog(&authority, &origin) + &policies(&authority);
    let pintle = Pintle::start_listening(&authority, TRUST, &config);
    let secure = |fields: &str| {
        let response = ask(&pintle, fields);
        assert_eq!((response.status, response.text().as_str()), (200, "hello from the origin"), "{fields}");
        response.one("strict-transport-security");
        response.one("public-key-pins");
    };
    let redirected = |fields: &str| {
        let response = ask(&pintle, fields);
        assert_eq!((response.status, response.one("location")), (301, &*format!("https://{BLOG}/page")), "{fields}");
        assert_eq!(response.field("strict-transport-security"), None);
        // The scheme came from a header: a cache in front must not mix the two up.
        assert_eq!((response.one("cache-control"), response.one("vary")), ("no-store", "X-Forwarded-Proto"));
    };
    secure("X-Forwarded-Proto: https\r\n");
    secure("x-forwarded-proto: HTTPS\r\n");
    secure("Forwarded: for=192.0.2.1;proto=https\r\n");
    secure("X-Forwarded-Proto: http, https\r\n");
    secure("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n");
    secure("X-Forwarded-For: 192.0.2.1, 127.0.0.2\r\nX-Forwarded-Proto: https, http\r\n");
    redirected("X-Forwarded-Proto: http\r\n");
    redirected("X-Forwarded-Proto: https, http\r\n");
    redirected("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n");
    redirected("Forwarded: proto=http\r\nX-Forwarded-Proto: https\r\n");
    let received = origin.request("/page");
    assert_eq!(received.fields("x-forwarded-proto"), ["https"]);
}

#[test]
fn strangers_are_not_believed() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let response = ask(&pintle, "X-Forwarded-Proto: https\r\nForwarded: proto=https\r\n");
    assert_eq!((response.status, response.field("vary")), (301, None));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!(
        "GET /spoof HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 1\r\nForwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n\
         X_Forwarded_Proto: http\r\n\r\n"
    ));
    assert_eq!(connection.response("GET").status, 200);
    let received = origin.request("/spoof");
    assert_eq!(received.fields("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.fields("x-forwarded-proto"), ["https"]);
    assert_eq!(received.fields("x-forwarded-host"), [BLOG]);
    assert_eq!(received.fields("forwarded"), [format!("for=127.0.0.1;host={BLOG};proto=https")]);
    for name in ["x-forwarded-port", "x-real-ip", "x_forwarded_proto"] {
        assert_eq!(received.field(name), None, "{name}");
    }
}

#[test]
fn the_chain_of_trusted_hops_is_passed_on() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, TRUST, &blog(&authority, &origin));
    ask_for(&pintle, "/chain", "X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n");
    let received = origin.request("/chain");
    assert_eq!(received.fields("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"]);
    assert_eq!(received.fields("forwarded"), [format!("for=192.0.2.1;host={BLOG};proto=https, for=127.0.0.1")]);
    assert_eq!(pintle.access_line("/chain")["client"], "192.0.2.1");
}

#[test]
fn an_offloader_that_never_says_https_is_told_once() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, TRUST, &blog(&authority, &origin));
    // On connections of their own, as they may land on different workers.
    for _ in 0..3 {
        assert_eq!(ask(&pintle, "User-Agent: a\r\n").status, 301);
        assert_eq!(ask(&pintle, "User-Agent: another\r\n").status, 301);
        let response = ask(&pintle, "User-Agent: a\r\n");
        assert_eq!((response.status, response.field("location")), (508, None));
        assert!(response.text().contains("X-Forwarded-Proto"), "{}", response.text());
        assert_eq!(response.one("proxy-status"), "pintle; error=proxy_loop_detected");
        assert_eq!(ask(&pintle, "User-Agent: another\r\n").status, 508);
    }
    pintle.logs("sends no X-Forwarded-Proto");
}

#[test]
fn a_proxy_that_says_https_at_times_makes_no_loop() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, TRUST, &blog(&authority, &origin));
    assert_eq!(ask(&pintle, "X-Forwarded-Proto: https\r\n").status, 200);
    for _ in 0..4 {
        assert_eq!(ask(&pintle, "").status, 301);
    }
}

#[test]
fn the_rule_holds_on_tls_listeners_too() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start_listening(&authority, TRUST, &(blog(&authority, &origin) + "[site.hsts]\n"));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut ask = |fields: &str| {
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n{fields}\r\n"));
        connection.response("GET")
    };
    assert_eq!(ask("").status, 200);
    // A proxy that speaks TLS to us, and plain HTTP to its clients.
    let response = ask("X-Forwarded-Proto: http\r\n");
    assert_eq!((response.status, response.field("strict-transport-security")), (301, None));
    assert_eq!(ask("X-Forwarded-Proto: https\r\n").status, 200);
}
