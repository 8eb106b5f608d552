//! Requests that lead a cache to store what is not for everybody, or under a wrong key: first the attacker's, then a clean
//! one by another client.

use super::{Bed, VERSIONS};
use crate::harness::{BLOG, Client, Origin, Reply};

/// An origin with an account at each URL: who has a session gets a secret, whatever the path looks like.
fn accounts(cache: &str) -> Bed {
    let origin = Origin::start(|received| {
        let has_session = received.field("cookie").is_some_and(|cookies| cookies.contains("session="));
        let body = if has_session { "secret" } else { "log in first" };
        Reply::new("200 OK", "Cache-Control: max-age=600\r\nContent-Type: text/css\r\n", body)
    });
    Bed::before(origin, super::Pages::default(), cache, "")
}

/// A visitor is led to a URL that looks like a file. The attacker then asks for the same URL.
#[test]
fn paths_that_look_like_files() {
    for cache in ["", "profile = \"wordpress\"", "profile = \"ghost\""] {
        let bed = accounts(cache);
        for path in [
            "/account/x.css",
            "/account%2fx.css",
            "/account;x.css",
            "/account%3bx.css",
            "/account%00.css",
            "/account%0a.css",
            "/account%23x.css",
            "/account%3fx.css",
            "/static/..%2faccount",
            "/static/%2e%2e/account",
            "//account",
            "/account.",
            "/account%20",
            "/account?x.css",
        ] {
            for version in VERSIONS {
                let own = bed.get(version, path, &["-H", "Cookie: session=1"]);
                // pintle may refuse a path; what it forwards is for the visitor alone.
                assert!(own.status != 200 || own.body == "secret" && !own.is_hit(), "{path} {own:?}");
                for _ in 0..2 {
                    let clean = bed.get(version, path, &[]);
                    assert!(!clean.body.contains("secret"), "{cache} {version} {path} {clean:?}");
                }
                let again = bed.get(version, path, &["-H", "Cookie: session=1"]);
                assert!(again.status != 200 || again.body == "secret" && !again.is_hit(), "{path} {again:?}");
            }
        }
    }
}

/// An origin that repeats the target that it got.
fn echo_target(cache: &str) -> Bed {
    let origin = Origin::start(|received| Reply::new("200 OK", "Cache-Control: max-age=600\r\n", received.path()));
    Bed::before(origin, super::Pages::default(), cache, "")
}

/// What an origin may read as another parameter is in the key.
#[test]
fn parameters_within_parameters() {
    let bed = echo_target("query_drop = [\"utm_*\"]");
    for evil in [
        "/?utm_content=x;callback=evil",
        "/?utm_content=x?callback=evil",
        "/?utm_content[]=evil",
        "/?utm%5fcontent=evil",
        "/?a=1%26callback=evil",
        "/?a=1&a=evil",
    ] {
        for version in VERSIONS {
            let got = bed.get(version, evil, &[]);
            assert_eq!(got.body, evil);
            for clean in ["/", "/?a=1", "/?utm_content=x"] {
                let got = bed.get(version, clean, &[]);
                assert!(!got.body.contains("evil"), "{evil} {clean} {got:?}");
            }
        }
    }
}

/// The conditions of a client, and its wish for a part, do not become the page of all.
#[test]
fn conditions_and_ranges_of_a_client() {
    let origin = Origin::start(|received| {
        let fields = "Cache-Control: max-age=600\r\nETag: \"x\"\r\nLast-Modified: Mon, 02 Jan 2023 00:00:00 GMT\r\n";
        if received.field("if-modified-since").is_some() || received.field("if-none-match").is_some() {
            return Reply::new("304 Not Modified", fields, "");
        }
        match received.field("range") {
            Some("bytes=0-0") => {
                Reply::new("206 Partial Content", &format!("{fields}Content-Range: bytes 0-0/5\r\n"), "w")
            }
            Some(_) => Reply::new("400 Bad Request", fields, "bad range"),
            None => Reply::new("200 OK", fields, "whole"),
        }
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    let conditions: [(&[&str], u16); 6] = [
        (&["-H", "Range: bytes=0-0"], 206),
        (&["-H", "Range: bytes=x-y,,,"], 0),
        (&["-H", "If-Modified-Since: Mon, 02 Jan 2023 00:00:00 GMT"], 304),
        (&["-H", "If-None-Match: \"x\""], 304),
        (&["-H", "If-None-Match: \"y\""], 200),
        (&["-H", "If-Range: \"x\"", "-H", "Range: bytes=0-0"], 206),
    ];
    for version in VERSIONS {
        for (n, (condition, status)) in conditions.iter().enumerate() {
            let path = format!("/{version}/{n}");
            let got = bed.get(version, &path, condition);
            assert!(*status == 0 || got.status == *status, "{condition:?} {got:?}");
            let clean = bed.get(version, &path, &[]);
            assert_eq!((clean.status, clean.body.as_str()), (200, "whole"), "{condition:?}");
        }
    }
}

/// A field or a target that the origin refuses makes no stored error.
#[test]
fn errors_that_a_client_causes() {
    let origin = Origin::start(|received| {
        let fields = "Cache-Control: public, max-age=600\r\n";
        let status = match received.path().rsplit('/').next() {
            _ if received.field("user-agent").is_some_and(|agent| agent.len() < 100) => "200 OK",
            Some("400") => "400 Bad Request",
            Some("405") => "405 Method Not Allowed",
            Some("408") => "408 Request Timeout",
            Some("413") => "413 Content Too Large",
            Some("431") => "431 Request Header Fields Too Large",
            Some("501") => "501 Not Implemented",
            _ => "500 Oops",
        };
        Reply::new(status, fields, status)
    });
    let bed = Bed::before(origin, super::Pages::default(), "stale_if_error = \"1d\"", "");
    let large = format!("User-Agent: {}", "x".repeat(6 << 10));
    for status in ["400", "405", "408", "413", "431", "500", "501"] {
        for version in VERSIONS {
            let path = format!("/{version}/{status}");
            let got = bed.get(version, &path, &["-H", &large]);
            assert_eq!(got.status.to_string(), status, "{got:?}");
            let clean = bed.get(version, &path, &[]);
            assert_eq!((clean.status, clean.is_hit()), (200, false), "{clean:?}");
        }
    }
}

/// Each way to write a URL is one key, and no other host is in it.
#[test]
fn forms_of_one_url() {
    let bed = echo_target("");
    let client = Client::new(&bed.authority);
    let ask = |head: String| {
        let mut connection = client.connect(bed.pintle.https(), BLOG);
        connection.send(format!("{head}Connection: close\r\n\r\n"));
        String::from_utf8_lossy(&connection.read_to_end().0).to_lowercase()
    };
    assert!(!bed.get("--http2", "/form?a", &[]).is_hit());
    assert!(ask(format!("GET /form?a HTTP/1.1\r\nHost: {BLOG}\r\n")).contains("pintle; hit"));
    assert!(ask(format!("GET https://{BLOG}/form?a HTTP/1.1\r\nHost: {BLOG}\r\n")).contains("pintle; hit"));
    assert!(ask(format!("GET https://{BLOG}:443/form?a HTTP/1.1\r\nHost: {BLOG}:443\r\n")).contains("pintle; hit"));
    for head in [
        format!("GET https://{BLOG}/form?a HTTP/1.1\r\nHost: evil.example\r\n"),
        format!("GET https://evil.example/form?a HTTP/1.1\r\nHost: {BLOG}\r\n"),
        "GET /form?a HTTP/1.1\r\nHost: evil.example\r\n".to_owned(),
        format!("GET /form?a HTTP/1.1\r\nHost: {BLOG}\r\nHost: evil.example\r\n"),
    ] {
        let answer = ask(head.clone());
        assert!(answer.starts_with("http/1.1 4") || answer.contains("pintle; hit"), "{head}: {answer}");
        assert!(!bed.origin.received().iter().any(|received| received.head.contains("evil")), "{head}");
    }
    assert_eq!(bed.origin.received().len(), 1);
}

/// A second response on the connection answers no later request, and is not stored.
#[test]
fn responses_that_nobody_asked_for() {
    let origin = Origin::start(|received| {
        let one = |body: &str| {
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        match received.path() {
            "/first" => Reply::Bytes(format!("{}{}", one("first"), one("smuggled")).into_bytes()),
            path => Reply::Bytes(one(path).into_bytes()),
        }
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    for version in VERSIONS {
        bed.get(version, "/first", &[]);
        for path in ["/second", "/third", "/second"] {
            assert_eq!(bed.get(version, path, &[]).body, path);
        }
        assert_eq!(bed.get(version, "/first", &[]).body, "first");
    }
}

/// A body of a GET in each framing, and fields that change the meaning of a request.
#[test]
fn bodies_and_fields_that_change_a_request() {
    let origin = Origin::start(|received| {
        let seen = format!("{}{}", received.head, String::from_utf8_lossy(&received.body));
        Reply::new("200 OK", "Cache-Control: max-age=600\r\n", &seen)
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    for (n, more) in [
        &["-X", "GET", "--data", "evil"][..],
        &["-X", "GET", "--data", "evil", "-H", "Transfer-Encoding: chunked", "--http1.1"],
        &["-H", "X-HTTP-Method-Override: evil"],
        &["-H", "X-Original-URL: /evil"],
        &["-H", "Max-Forwards: 777evil"],
        &["-H", "Early-Data: evil"],
        &["-H", "Prefer: evil"],
        &["-H", "Via: 1.1 evil"],
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{n}?_method=DELETE");
        let got = bed.get("--http2", &path, more);
        assert_eq!(got.status, 200, "{more:?} {got:?}");
        let clean = bed.get("--http2", &path, &[]);
        let is_via = more.last().is_some_and(|field| field.starts_with("Via"));
        assert!(is_via || !clean.body.contains("evil"), "{more:?} {}", clean.body);
        assert!(clean.body.starts_with(&format!("GET {path} ")), "{}", clean.body);
    }
}
