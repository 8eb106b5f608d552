//! `listen.health_path`: trusted peers learn how the process is, whatever they know of its sites.

use std::io::Write;
use std::net::TcpStream;

use crate::harness::{
    Authority, BLOG, Client, Connection, Origin, PATIENCE, Pintle, Reply, Response, blog, eventually, outcome, output,
    policies,
};

const LISTEN: &str = "trusted_proxies = [\"127.0.0.1\"]\nhealth_path = \"/healthz\"";

fn ask(connection: &mut Connection, request: &str) -> Response {
    connection.send(request);
    connection.response(request.split(' ').next().unwrap())
}

fn is_healthy(response: &Response) -> bool {
    (response.status, response.one("cache-control")) == (200, "no-store")
        && ["strict-transport-security", "public-key-pins", "vary"].iter().all(|name| response.field(name).is_none())
}

#[test]
fn probes_are_answered_whatever_their_host_and_version() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin) + &policies(&authority);
    let pintle = Pintle::start_listening(&authority, LISTEN, &site);
    let requests = [
        "GET /healthz HTTP/1.1\r\nHost: 10.0.0.5:8080\r\n\r\n",
        "GET /healthz?full HTTP/1.1\r\nHost: nobody.example\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: blog.example.com\r\nX-Forwarded-Proto: http\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /healthz HTTP/1.0\r\n\r\n",
        "OPTIONS /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.0\r\nHost: blog.example.com\r\n\r\n",
    ];
    for request in requests {
        let response = ask(&mut Connection::plain(pintle.http()), request);
        assert!(is_healthy(&response), "{request}: {response:?}");
        let response = ask(&mut Client::new(&authority).connect(pintle.https(), BLOG), request);
        assert!(is_healthy(&response), "TLS, {request}: {response:?}");
    }
    // A probe of an address has no name to ask for; curl sends none for an address.
    for version in ["--http1.1", "--http2"] {
        for url in [format!("https://{}/healthz", pintle.https()), format!("https://{BLOG}/healthz")] {
            let status = output(pintle.curl().args([version, "-k", "-w", "%{http_code}"]).arg(&url));
            assert_eq!(status, "ok\n200", "{version} {url}");
        }
    }
    assert!(origin.received().is_empty(), "the upstream is not asked");
    // What is no request that pintle understands is refused before anybody looks at its path.
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
    ] {
        assert_eq!(ask(&mut Connection::plain(pintle.http()), request).status, status, "{request}");
    }
    // Nothing else is theirs without a name.
    let other = output(
        pintle.curl().args(["-k", "-o", "/dev/null", "-w", "%{http_code}"]).arg(format!("https://{}/", pintle.https())),
    );
    assert_eq!(other, "421");
    for (target, status) in [("/healthz/", 301), ("/", 301), ("/healthz%20", 301)] {
        let response = Connection::plain(pintle.http()).get(BLOG, target);
        assert_eq!(response.status, status, "{target}");
    }
    let posted = ask(
        &mut Connection::plain(pintle.http()),
        &format!("POST /healthz HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 0\r\n\r\n"),
    );
    assert_eq!(posted.status, 301);
}

#[test]
fn strangers_are_not_answered() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin);
    let strangers = |listen: &str, greeting: &str, fields: &str| {
        let pintle = Pintle::start_listening(&authority, listen, &site);
        let socket = || {
            let mut socket = TcpStream::connect(pintle.http()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(greeting.as_bytes()).unwrap();
            Connection { stream: Box::new(socket), received: Vec::new() }
        };
        for (host, status) in [(BLOG, 301), ("nobody.example", 421)] {
            let response = ask(&mut socket(), &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
            assert_eq!(response.status, status, "{listen} {greeting} {fields}");
        }
    };
    let trusted = "trusted_proxies = [\"127.0.0.1\"]";
    // Without the key, nobody is.
    strangers(trusted, "", "");
    strangers("health_path = \"/healthz\"", "", "");
    strangers("trusted_proxies = [\"192.0.2.1\"]\nhealth_path = \"/healthz\"", "", "");
    // Nor is a stranger whose request a trusted proxy passes on.
    strangers(LISTEN, "", "X-Forwarded-For: 192.0.2.7\r\n");
    let proxy = format!("{LISTEN}\nproxy_protocol = true\ntrust = \"proxy\"");
    strangers(&proxy, "PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n", "X-Forwarded-For: 127.0.0.1\r\n");
    // The balancer itself is.
    let pintle = Pintle::start_listening(&authority, &proxy, &site);
    for greeting in ["PROXY UNKNOWN\r\n", "\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", "PROXY TCP4 127.0.0.1 127.0.0.1 1 80\r\n"]
    {
        let mut socket = TcpStream::connect(pintle.http()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(greeting.as_bytes()).unwrap();
        let mut connection = Connection { stream: Box::new(socket), received: Vec::new() };
        assert!(is_healthy(&ask(&mut connection, "GET /healthz HTTP/1.0\r\n\r\n")), "{greeting:?}");
    }
    // Strangers without a name get no certificate for the sake of a probe.
    let pintle =
        Pintle::start_listening(&authority, "trusted_proxies = [\"192.0.2.1\"]\nhealth_path = \"/healthz\"", &site);
    let (code, ..) = outcome(pintle.curl().arg("-k").arg(format!("https://{}/healthz", pintle.https())));
    assert_eq!(code, 35);
}

/// A balancer takes out what says 503.
#[test]
fn a_process_that_is_going_away_says_so() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/slow" => Reply::Custom(Box::new(|socket| {
            use std::io::Read;
            let _ = socket.read(&mut [0; 1]);
            Ok(())
        })),
        _ => Reply::ok("ok"),
    });
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start_listening(&authority, LISTEN, &(state + &blog(&authority, &origin)));
    let mut waiting = Connection::plain(pintle.http());
    waiting.send(format!("GET /slow HTTP/1.1\r\nHost: {BLOG}\r\nX-Forwarded-Proto: https\r\n\r\n"));
    eventually("it is at the origin", || (origin.received().len() == 1).then_some(()));
    let mut probe = Connection::plain(pintle.http());
    // Accepted, and not asked for anything yet, for longer than a process that goes away waits for a first request.
    eventually("it is counted", || (pintle.status()["connections"].as_u64()? >= 2).then_some(()));
    std::thread::sleep(std::time::Duration::from_secs(7));
    pintle.signal("TERM");
    pintle.logs("draining");
    let response = ask(&mut probe, "GET /healthz HTTP/1.1\r\nHost: 10.0.0.5\r\n\r\n");
    assert_eq!(
        (response.status, response.one("cache-control"), response.text().as_str()),
        (503, "no-store", "draining\n")
    );
}
