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
    secure("X-Forwarded-Proto: http, https\r\n");
    secure("X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n");
    secure("X-Forwarded-For: 192.0.2.1, 127.0.0.2\r\nX-Forwarded-Proto: https, http\r\n");
    redirected("X-Forwarded-Proto: http\r\n");
    redirected("X-Forwarded-Proto: https, http\r\n");
    redirected("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n");
    // Nobody has said anything, but might have.
    redirected("Forwarded: for=192.0.2.1;proto=https\r\n");
    redirected("X-Forwarded-Proto: gopher\r\n");
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
        assert_eq!((response.one("cache-control"), response.one("vary")), ("no-store", "X-Forwarded-Proto"));
        assert_eq!(ask(&pintle, "User-Agent: another\r\n").status, 508);
    }
    pintle.logs("sends no X-Forwarded-Proto");
}

#[test]
fn the_loop_is_told_of_in_the_words_of_the_contract() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = format!("{TRUST}\ntrust = \"forwarded\"");
    let pintle = Pintle::start_listening(&authority, &listen, &blog(&authority, &origin));
    let statuses = [301, 508].map(|_| ask(&pintle, "X-Forwarded-Proto: https\r\n"));
    assert_eq!(statuses.each_ref().map(|r| r.status), [301, 508]);
    assert!(statuses[1].text().contains("Forwarded: proto=https"), "{}", statuses[1].text());
    assert!(!statuses[1].text().contains("X-Forwarded-Proto"), "{}", statuses[1].text());
    assert!(statuses.iter().all(|r| (r.one("cache-control"), r.one("vary")) == ("no-store", "Forwarded")));
    pintle.logs("sends no Forwarded");
}

/// Each peer is believed in the one field that it is known to speak; others are its clients' own.
#[test]
fn exactly_one_field_is_read() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin);
    let start = |trust: &str| Pintle::start_listening(&authority, &format!("{TRUST}\n{trust}"), &site);
    let x = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.1\r\n";
    let standard = "Forwarded: for=198.51.100.2;proto=https\r\n";
    for (trust, read, ignored, client, vary) in [
        ("", x, standard, "198.51.100.1", "X-Forwarded-Proto"),
        ("trust = \"x-forwarded\"", x, standard, "198.51.100.1", "X-Forwarded-Proto"),
        ("trust = \"forwarded\"", standard, x, "198.51.100.2", "Forwarded"),
    ] {
        let pintle = start(trust);
        let moved = ask_for(&pintle, "/ignored", ignored);
        assert_eq!((moved.status, moved.one("vary"), moved.one("cache-control")), (301, vary, "no-store"), "{trust}");
        assert_eq!(pintle.access_line("/ignored")["client"], "127.0.0.1", "{trust}");
        for (n, fields) in [read.to_owned(), format!("{ignored}{read}"), format!("{read}{ignored}")].iter().enumerate()
        {
            let target = format!("/read{n}");
            let page = ask_for(&pintle, &target, fields);
            let vary = if vary == "X-Forwarded-Proto" { UPSTREAM_VARY } else { vary };
            assert_eq!((page.status, page.one("vary")), (200, vary), "{trust} {fields}");
            assert_eq!(pintle.access_line(&target)["client"], client, "{trust} {fields}");
            // What goes on is our own word, in all of them.
            let received = origin.request(&target);
            assert_eq!(received.fields("x-forwarded-for"), [format!("{client}, 127.0.0.1")]);
            assert_eq!(received.fields("x-forwarded-proto"), ["https"]);
            let own = format!("for={client};host={BLOG};proto=https, for=127.0.0.1");
            assert_eq!(received.fields("forwarded"), [own]);
        }
    }
}

/// A client may write what it likes in front of what the balancer appends.
#[test]
fn a_syntax_error_says_nothing_and_swallows_nothing() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = format!("{TRUST}\ntrust = \"forwarded\"");
    let pintle = Pintle::start_listening(&authority, &listen, &blog(&authority, &origin));
    let mut number = 0;
    let mut check = |value: &str, status: u16, client: &str| {
        number += 1;
        let target = format!("/{number}");
        assert_eq!(ask_for(&pintle, &target, &format!("Forwarded: {value}\r\n")).status, status, "{value}");
        assert_eq!(pintle.access_line(&target)["client"], client, "{value}");
    };
    check("for=203.0.113.1;proto=https;x=\", for=198.51.100.1;proto=http", 301, "198.51.100.1");
    check("for=203.0.113.1;proto=https;x=\", for=\"198.51.100.1\";proto=http", 301, "198.51.100.1");
    check("for=203.0.113.1;proto=http;x=\", for=\"198.51.100.1\";proto=https", 200, "198.51.100.1");
    check("for=203.0.113.1;x=\"\\\", for=\"198.51.100.1\";proto=https", 200, "198.51.100.1");
    check("for=203.0.113.1;for=203.0.113.2;proto=http, for=198.51.100.1;proto=https", 200, "198.51.100.1");
    check("for=203.0.113.1;proto=https, for=127.0.0.2;proto=http;proto=http", 301, "127.0.0.1");
    check("proto=\"https", 301, "127.0.0.1");
    check("for=203.0.113.1;proto=https\r\nForwarded: for=\"127.0.0.2;proto=http", 301, "127.0.0.1");
    check("for=\"203.0.113.1\r\nForwarded: for=198.51.100.1;proto=https", 200, "198.51.100.1");
}

#[test]
fn hosts_and_what_else_proxies_state() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let site = blog(&authority, &origin).replace(&format!("[\"{BLOG}\"]"), &format!("[\"{BLOG}\", \"*.example.org\"]"));
    let leaf = authority.leaf("all", &[BLOG, "*.example.org"]);
    let site = site.split("[site.certificate]").next().unwrap().to_owned()
        + &format!("[site.certificate]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
    let pintle = Pintle::start_listening(&authority, TRUST, &site);
    for (n, (stated, want)) in [
        ("www.example.org", "www.example.org"),
        ("evil.example", BLOG),
        ("evil.example, www.example.org:8443", "www.example.org:8443"),
        ("a.b.example.org", BLOG),
        ("www.example.org@evil.example", BLOG),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/{n}");
        let fields = format!(
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: {stated}\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Port: 81\r\n\
             X-Forwarded-Server: evil\r\nX-Forwarded-Ssl: on\r\nX-Real-IP: 203.0.113.1\r\n"
        );
        let page = ask_for(&pintle, &target, &fields);
        // The same without the field, since the answer to another request may depend on it.
        assert_eq!((page.status, page.one("vary")), (200, "X-Forwarded-Proto, X-Forwarded-Host"), "{stated}");
        let received = origin.request(&target);
        assert_eq!(received.fields("x-forwarded-host"), [want], "{stated}");
        for name in ["x-forwarded-prefix", "x-forwarded-port", "x-forwarded-server", "x-forwarded-ssl", "x-real-ip"] {
            assert_eq!(received.field(name), None, "{name}");
        }
    }
}

/// The inputs of an upstream's answer, if it reads X-Forwarded-*.
const UPSTREAM_VARY: &str = "X-Forwarded-Proto, X-Forwarded-Host";

/// Any answer to a trusted proxy could have been another one, had it said something else.
#[test]
fn answers_say_what_they_depend_on() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("both", &[BLOG, "www.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"{BLOG}\", \"www.example.com\"]\nupstream = \"{}\"\ncanonical_redirect = true\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n",
        origin.url(),
        leaf.chain,
        leaf.key
    );
    let folder = authority.folder().join(".well-known/acme-challenge");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "token.thumbprint").unwrap();
    let acme = format!("[acme]\nwebroot = {:?}\n", authority.folder());
    let pintle = Pintle::start_listening(&authority, TRUST, &(acme + &site));
    let check = |host: &str, target: &str, fields: &str, status: u16, stored: Option<&str>| {
        let mut connection = Connection::plain(pintle.http());
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
        let response = connection.response("GET");
        let got = (response.status, response.one("vary"), response.field("cache-control"));
        let vary = if status == 200 && stored.is_none() { UPSTREAM_VARY } else { "X-Forwarded-Proto" };
        assert_eq!(got, (status, vary, stored), "{host} {target} {fields}");
    };
    let https = "X-Forwarded-Proto: https\r\n";
    check(BLOG, "/a", "", 301, Some("no-store"));
    check(BLOG, "/a", "X-Forwarded-Proto: http\r\n", 301, Some("no-store"));
    check("www.example.com", "/a", https, 301, Some("no-store"));
    check("other.example.com", "/a", https, 421, Some("no-store"));
    check(BLOG, "/.well-known/acme-challenge/token", "", 200, Some("no-store"));
    check(BLOG, "/.well-known/acme-challenge/none", "", 404, Some("no-store"));
    // What the upstream answers is kept for as long as it says.
    check(BLOG, "/a", https, 200, None);
    // On a TLS listener, it might have said http.
    let page = Client::new(&authority).get(pintle.https(), BLOG, "/a");
    assert_eq!((page.status, page.one("vary")), (200, UPSTREAM_VARY));
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

/// An offloader that nobody has named sees the redirect without end: the log says so, once for each peer.
#[test]
fn an_untrusted_offloader_is_reported_once() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(state + &blog(&authority, &origin)));
    let reported = || {
        let log = pintle.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let is_it = |line: &serde_json::Value| {
            line["message"].as_str().is_some_and(|m| m.contains("is not in trusted_proxies"))
        };
        lines.filter(is_it).collect::<Vec<_>>()
    };
    for fields in ["", "X-Forwarded-Proto: http\r\n", "X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=192.0.2.1\r\n"]
    {
        assert_eq!(ask(&pintle, fields).status, 301, "{fields}");
    }
    for _ in 0..3 {
        assert_eq!(ask(&pintle, "X-Forwarded-Proto: https\r\n").status, 301);
    }
    assert_eq!(ask(&pintle, "Forwarded: proto=https\r\n").status, 301);
    pintle.logs("127.0.0.1 sends X-Forwarded-Proto but is not in trusted_proxies");
    assert_eq!(reported().len(), 1, "{:?}", reported());
    assert!(reported()[0]["hint"].as_str().unwrap().contains("trusted_proxies = [\"127.0.0.1\"]"), "{:?}", reported());
    // With that line, it is served.
    let trust = "trusted_proxies = [\"127.0.0.1\"]";
    pintle.rewrite(|text| text.replace("workers = 2\n", &format!("workers = 2\n{trust}\n")));
    pintle.reload();
    assert_eq!(ask(&pintle, "X-Forwarded-Proto: https\r\n").status, 200);
}

/// So is one that speaks the other field; and the table of such peers is bounded.
#[test]
fn untrusted_peers_are_counted() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"0.0.0.0:0\"]\nworkers = 2\n";
    let pintle = Pintle::start_with(&authority, listen, &blog(&authority, &origin));
    let port = pintle.http().port();
    for host in 1..=80 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from = std::net::SocketAddr::from(([127, 0, 1, host], 0));
        socket.bind(&from.into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        let mut stream: std::net::TcpStream = socket.into();
        let request =
            format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nForwarded: for=_x;proto=https\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 301"), "{answer}");
    }
    pintle.logs("further peers like this are not reported");
    assert_eq!(pintle.log().matches("sends Forwarded but is not in trusted_proxies").count(), 64);
    pintle.logs("trust = \\\"forwarded\\\"");
}
