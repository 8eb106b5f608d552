//! Targets of requests: the same rule for path and query, host and scheme, in every version of HTTP on both sides.

use http::Version;

use super::hostile::{Raw, bytes};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Http2Origin, Origin, Pintle, Reply, blog, eventually, output};

/// Targets, what the upstream is to see of them, and the status.
const TARGETS: [(&str, &str, u16); 14] = [
    ("/plain?a=b&c[]=d'(!)*+,;:@$-._~%20%zz", "/plain?a=b&c[]=d'(!)*+,;:@$-._~%20%zz", 200),
    ("/<", "/%3C", 200),
    ("/>?x>", "/%3E?x%3E", 200),
    ("/\"a\"", "/%22a%22", 200),
    ("/\\..\\x", "/%5C..%5Cx", 200),
    ("/^?^", "/%5E?%5E", 200),
    ("/`", "/%60", 200),
    ("/{id}?q={\"a\":[1,2]}", "/%7Bid%7D?q=%7B%22a%22:[1,2]%7D", 200),
    ("/a|b?c|d", "/a%7Cb?c%7Cd", 200),
    ("/fragment#x", "", 400),
    ("/query?x#y", "", 400),
    ("/\u{fc}", "", 400),
    ("/\u{7f}", "", 400),
    ("/tab\tx", "", 400),
];

#[test]
fn bytes_that_have_no_place_in_a_target() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let http2 = Http2Origin::start(&authority.leaf("up", &["up.example.net"]), |_, respond| {
        respond.send_response(http::Response::new(()), true).unwrap();
    });
    for (by, site) in [(Version::HTTP_11, blog(&authority, &origin)), (Version::HTTP_2, http2.site(&authority))] {
        let pintle = Pintle::start(&authority, &site);
        let mut lines = 0;
        for (target, sent, status) in TARGETS {
            let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
            assert_eq!(connection.response("GET").status, status, "{target:?} to {by:?}");
            let mut raw = Raw::new(&authority, &pintle, &[]);
            let fields = format!(":method: GET\n:scheme: https\n:authority: {BLOG}\n:path: {target}\n");
            raw.send(&bytes(1, 5, 1, &block(fields.as_bytes())));
            lines += 2;
            let access = eventually("both access lines", || Some(pintle.access()).filter(|all| all.len() >= lines));
            for line in &access[lines - 2..] {
                assert_eq!(line["status"], status, "{target:?} to {by:?}: {line}");
                assert!(status != 200 || line["target"] == sent, "{line}");
            }
            if status == 200 {
                let came = || match by {
                    Version::HTTP_2 => {
                        http2.received().iter().filter(|r| r.uri.path_and_query().unwrap() == sent).count()
                    }
                    _ => origin.received().iter().filter(|r| r.path() == sent).count(),
                };
                eventually(&format!("{sent} by {by:?}, twice"), || (came() == 2).then_some(()));
            }
        }
        assert!(!pintle.log().contains("upstream failed"), "{}", pintle.log());
        // As a user would do it.
        for version in ["--http1.1", "--http2"] {
            let url = format!("https://{BLOG}/curl{{a|b}}?\"q\"=^");
            assert_eq!(
                output(
                    pintle
                        .curl()
                        .args([version, "--globoff", "--write-out", "%{http_code}", "-o", "/dev/null"])
                        .arg(url)
                ),
                "200"
            );
        }
    }
    // A redirect keeps to it.
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut plain = crate::harness::Connection::plain(pintle.http());
    let response = plain.get(BLOG, "/a|b?\"<script>");
    assert_eq!(response.one("location"), format!("https://{BLOG}/a%7Cb?%22%3Cscript%3E"));
}

/// A path that is no UTF-8 is refused like others, and leaves its connection as it is.
#[test]
fn a_path_that_is_no_text() {
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog(&authority, &Origin::hello()));
    let mut raw = Raw::new(&authority, &pintle, &[]);
    let mut fields = format!(":method: GET\n:scheme: https\n:authority: {BLOG}\n:path: /").into_bytes();
    fields.extend(b"\xff\xfe\n");
    raw.send(&bytes(1, 5, 1, &block(&fields)));
    raw.send(&super::hostile::get(3, "/after"));
    assert_eq!(pintle.access_line("/after")["status"], 200);
    assert_eq!(pintle.access()[0]["status"], 400);
    assert_eq!(raw.over, None);
}

/// An authority or a scheme that is none gets its answer and its line, too.
#[test]
fn authorities_and_schemes_that_are_none() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    for (n, (scheme, host)) in [
        ("https", "a<b"),
        ("https", "a b"),
        ("https", "\u{fc}"),
        ("https", ""),
        ("ht tp", BLOG),
        ("ftp", BLOG),
        ("", BLOG),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = Raw::new(&authority, &pintle, &[]);
        let fields = format!(":method: GET\n:scheme: {scheme}\n:authority: {host}\n:path: /{n}\n");
        raw.send(&bytes(1, 5, 1, &block(fields.as_bytes())));
        assert_eq!(pintle.access_line(&format!("/{n}"))["status"], 400, "{scheme} {host}");
    }
    assert!(origin.received().is_empty());
}

/// Targets that HTTP/2's libraries cannot hold are too long for any upstream, whatever the limit says.
#[test]
fn targets_beyond_all_bounds() {
    let authority = Authority::new();
    let http2 = Http2Origin::start(&authority.leaf("up", &["up.example.net"]), |_, respond| {
        respond.send_response(http::Response::new(()), true).unwrap();
    });
    let limits = "[limits]\nrequest_line = \"1MiB\"\nheader_size = \"1MiB\"\n";
    let pintle = Pintle::start(&authority, &(limits.to_owned() + &http2.site(&authority)));
    for (length, fill, status) in [(60_000, "x", 200), (66_000, "x", 414), (30_000, "{", 414), (20_000, "{", 200)] {
        let target = format!("/{}", fill.repeat(length - 1));
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, status, "{length} of {fill}");
    }
    assert!(!pintle.log().contains("upstream failed"), "{}", pintle.log());
}

/// The scheme's own port and a trailing dot change nothing about a host, wherever it stands.
#[test]
fn one_host_by_several_names() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/moved" => Reply::new("302 Found", "Location: http://blog.example.com:443/x\r\n", ""),
        _ => Reply::ok("hello"),
    });
    let site = blog(&authority, &origin) + "[site.hsts]\n";
    let pintle = Pintle::start(&authority, &site);
    let client = Client::new(&authority);
    let names =
        [BLOG.to_owned(), format!("{BLOG}:443"), format!("{BLOG}."), format!("{BLOG}.:443"), format!("{BLOG}:")];
    for (n, host) in names.iter().enumerate() {
        for target in std::iter::once(String::new()).chain(names.iter().map(|name| format!("https://{name}"))) {
            let path = format!("/{n}-{}", target.len());
            let mut connection = client.connect(pintle.https(), BLOG);
            connection.send(format!("GET {target}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let response = connection.response("GET");
            assert_eq!((response.status, response.all("strict-transport-security").len()), (200, 1), "{target} {host}");
            assert_eq!(origin.request(&path).field("host"), Some(BLOG), "{target} {host}");
        }
        for other in &names {
            let path = format!("/http2-{n}-{}", other.len());
            let mut raw = Raw::new(&authority, &pintle, &[]);
            let fields = format!(":method: GET\n:scheme: https\n:authority: {host}\n:path: {path}\nhost: {other}\n");
            raw.send(&bytes(1, 5, 1, &block(fields.as_bytes())));
            assert_eq!(pintle.access_line(&path)["status"], 200, "{host} {other}");
            assert_eq!(origin.request(&path).field("host"), Some(BLOG), "{host} {other}");
        }
    }
    for (target, host) in
        [("https://blog.example.com:80", BLOG), ("https://blog.example.com:8443", BLOG), ("", "blog.example.com..")]
    {
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(format!("GET {target}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 400, "{target} {host}");
    }
    // Any other port stays.
    let mut connection = client.connect(pintle.https(), BLOG);
    connection.get(&format!("{BLOG}:8443"), "/port");
    assert_eq!(origin.request("/port").field("host"), Some("blog.example.com:8443"));
}

/// A request for an http URI has no business under TLS (RFC 9110 section 7.4), unless a trusted gateway says so.
#[test]
fn http_uris_over_tls() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let trusting = Pintle::start_listening(&authority, "trusted_proxies = [\"127.0.0.1\"]", &blog(&authority, &origin));
    for (pintle, status) in [(&pintle, 421), (&trusting, 200)] {
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("GET HTTP://{BLOG}/ HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, status);
        connection.send(format!("GET https://{BLOG}/ HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        assert_eq!(connection.response("GET").status, 200);
        for (n, (authority_field, scheme)) in
            [(":authority", "http"), (":authority", "HTTP"), ("host", "http")].into_iter().enumerate()
        {
            let mut raw = Raw::new(&authority, pintle, &[]);
            let path = format!("/http2-{n}");
            let first = format!(":method: GET\n:scheme: {scheme}\n:path: {path}\n{authority_field}: {BLOG}\n");
            raw.send(&bytes(1, 5, 1, &block(first.as_bytes())));
            assert_eq!(pintle.access_line(&path)["status"], status, "{authority_field} {scheme}");
        }
    }
    assert!(origin.received().iter().filter(|r| r.path().starts_with("/http2")).count() <= 3);
    // Without TLS an http URI is what it should be.
    let mut plain = crate::harness::Connection::plain(pintle.http());
    plain.send(format!("GET http://{BLOG}/x HTTP/1.1\r\nHost: {BLOG}:80\r\n\r\n"));
    assert_eq!(plain.response("GET").one("location"), format!("https://{BLOG}/x"));
}
