//! The main job: a page through TLS, and what both ends see of it.

use crate::harness::{Authority, Client, Origin, Pintle, Reply, output};

fn site(authority: &Authority, origin: &Origin) -> String {
    let leaf = authority.leaf("blog", &["blog.example.com", "www.example.com"]);
    format!(
        "[[site]]\nhosts = [\"blog.example.com\", \"www.example.com\"]\nupstream = \"{}\"\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hsts]\nmax_age = \"1y\"\n",
        origin.url(),
        leaf.chain,
        leaf.key
    )
}

#[test]
fn a_page_by_every_protocol() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &site(&authority, &origin));
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in ["1.2", "1.3"] {
            let format = "%{http_version} %{http_code} %{stderr}%{ssl_verify_result}";
            let options = [option, "--tlsv1.2", "--tls-max", tls, "--write-out", format];
            let page = output(pintle.curl().args(options).arg(format!("https://blog.example.com/{version}-{tls}")));
            assert_eq!(page, format!("hello from the origin{version} 200 "));
        }
    }
    let line = pintle.access_line("/2-1.3");
    assert_eq!(
        (&line["version"], &line["status"], &line["host"]),
        (&"2".into(), &200.into(), &"blog.example.com".into())
    );
    assert_eq!(pintle.stop(), 0);
}

#[test]
fn what_the_origin_is_told() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &site(&authority, &origin));
    let agent = ["--http1.1", "--user-agent", "test", "--header", "Accept:"];
    output(pintle.curl().args(agent).arg("https://blog.example.com/path?query=%20x"));
    let received = origin.request("/path?query=%20x");
    // The upstream is given by its address, so that the client's Host is passed on.
    let want = "GET /path?query=%20x HTTP/1.1\r\nHost: blog.example.com\r\nUser-Agent: test\r\n\
                X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: blog.example.com\r\n\
                Forwarded: for=127.0.0.1;host=blog.example.com;proto=https\r\nVia: 1.1 pintle\r\n";
    assert_eq!(received.head, want);
    output(
        pintle
            .curl()
            .args(["--http2", "--user-agent", "test", "--header", "Accept:"])
            .arg("https://www.example.com/h2"),
    );
    let head = origin.request("/h2").head;
    assert!(head.contains("Host: www.example.com\r\n") && head.contains("Via: 2 pintle\r\n"), "{head}");
}

#[test]
fn connections_to_the_origin_are_reused() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = Pintle::start(&authority, &site(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), "blog.example.com");
    for n in 0..20 {
        assert_eq!(connection.get("blog.example.com", &format!("/{n}")).text(), "hello from the origin");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn upstream_names_in_answers_become_the_sites() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let host = request.field("host").unwrap_or_default().to_owned();
        let fields = format!(
            "Location: http://{host}/next\r\nContent-Location: http://{host}/here\r\nRefresh: 1; url=http://{host}/later\r\n\
             Set-Cookie: a=1; Domain={}; Path=/\r\nSet-Cookie: b=2; Secure\r\n",
            host.split(':').next().unwrap_or_default()
        );
        Reply::new("302 Found", &fields, "")
    });
    let config = site(&authority, &origin) + "[site.upstream_options]\nhost_header = \"upstream\"\n";
    let pintle = Pintle::start(&authority, &config);
    let response = Client::new(&authority).get(pintle.https(), "blog.example.com", "/");
    assert_eq!(response.one("location"), "https://blog.example.com/next");
    assert_eq!(response.one("content-location"), "https://blog.example.com/here");
    assert_eq!(response.one("refresh"), "1; url=https://blog.example.com/later");
    assert_eq!(response.all("set-cookie"), ["a=1; Domain=blog.example.com; Path=/; Secure", "b=2; Secure"]);
}

#[test]
fn header_rules_apply_in_both_directions() {
    let authority = Authority::new();
    let origin = Origin::start(|_| {
        Reply::new("200 OK", "Server: origin\r\nX-Powered-By: magic\r\nX-Test: a\r\nX-Test: b\r\n", "ok")
    });
    let config = site(&authority, &origin)
        + "[site.request_headers]\nset = { \"X-Edge\" = \"pintle\" }\nremove = [\"x-debug\"]\n\
           [site.response_headers]\nset = { \"X-Test\" = \"c\", \"X-Content-Type-Options\" = \"nosniff\" }\n\
           add = { \"Vary\" = \"Accept\" }\nremove = [\"server\", \"X-Powered-By\"]\n";
    let pintle = Pintle::start(&authority, &config);
    output(
        pintle
            .curl()
            .args(["--header", "X-Debug: 1", "--header", "X-Edge: mine"])
            .arg("https://blog.example.com/rules"),
    );
    let received = origin.request("/rules");
    assert_eq!(received.fields("x-edge"), ["pintle"]);
    assert_eq!(received.field("x-debug"), None);
    let response = Client::new(&authority).get(pintle.https(), "blog.example.com", "/");
    assert_eq!(response.all("x-test"), ["c"]);
    assert_eq!(response.one("vary"), "Accept");
    assert_eq!((response.field("server"), response.field("x-powered-by")), (None, None));
}
