//! Requests that try to change what others get.

use super::{Bed, VERSIONS};
use crate::harness::{BLOG, Client, Origin, Reply, eventually};

/// Fields that origins may believe. None reaches the upstream with a request whose response is stored.
const UNKEYED: [&str; 18] = [
    "X-Forwarded-Host",
    "X-Forwarded-Server",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Scheme",
    "X-Forwarded-SSL",
    "X-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "Forwarded",
    "True-Client-IP",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Wap-Profile",
    "X-Anything",
    "Referer",
];

/// An origin that repeats everything that it gets.
fn echo() -> Bed {
    let origin = Origin::start(|received| {
        let body = format!("{}{}", received.head, String::from_utf8_lossy(&received.body));
        Reply::new("200 OK", "Cache-Control: max-age=600\r\n", &body)
    });
    Bed::before(origin, super::Pages::default(), "", "")
}

#[test]
fn fields_of_one_client_do_not_reach_another() {
    let bed = echo();
    for (n, name) in UNKEYED.into_iter().enumerate() {
        let path = format!("/u{n}");
        for version in VERSIONS {
            let got = bed.get(version, &path, &["-H", &format!("{name}: evil-marker.example")]);
            assert!(!got.body.contains("evil-marker"), "{name}: {}", got.body);
        }
        let clean = bed.get("--http2", &path, &[]);
        assert!(clean.is_hit() && !clean.body.contains("evil-marker"), "{name}");
        assert_eq!(bed.count(&path), 1);
    }
}

#[test]
fn cookies_bodies_and_credentials() {
    let bed = echo();
    for version in VERSIONS {
        let path = format!("/{version}");
        for (more, detail) in [
            (&["-H", "Cookie: theme=evil-marker"][..], "cookie"),
            (&["-X", "GET", "--data", "page=evil-marker"][..], "body"),
        ] {
            let got = bed.get(version, &path, more);
            assert!(got.cache().contains("fwd=bypass") && got.cache().contains(detail), "{got:?}");
            assert!(got.body.contains("evil-marker"), "the origin gets it: {got:?}");
        }
        let clean = bed.get(version, &path, &[]);
        assert!(!clean.body.contains("evil-marker") && !clean.is_hit(), "{clean:?}");
        let own = bed.get(version, &path, &["-H", "Cookie: theme=evil-marker"]);
        assert!(!own.is_hit() && own.body.contains("evil-marker"), "{own:?}");
        // Cookies of scripts change nothing, and are not sent on.
        let got = bed.get(version, &path, &["-H", "Cookie: _ga=evil-marker"]);
        assert!(got.is_hit() && !got.body.contains("evil-marker"));
    }
}

#[test]
fn answers_to_credentials_are_for_their_owner() {
    let bed = Bed::new("");
    let secret = ["-H", "Authorization: Basic eDp5"];
    bed.fresh("/private", "max-age=60", "private");
    bed.fresh("/shared", "s-maxage=60", "shared");
    for path in ["/private", "/shared"] {
        bed.get("--http2", path, &secret);
        assert_eq!(bed.last(path).field("authorization"), Some("Basic eDp5"));
    }
    assert!(!bed.get("--http2", "/private", &[]).is_hit() && bed.get("--http2", "/shared", &[]).is_hit());
    // Not even from the store: the origin may have another page for its owner.
    assert!(!bed.get("--http2", "/private", &secret).is_hit() && bed.get("--http2", "/shared", &secret).is_hit());
    assert_eq!((bed.count("/private"), bed.count("/shared")), (3, 1));
}

#[test]
fn purges_of_strangers_are_refused() {
    let bed = echo();
    bed.get("--http2", "/p", &[]);
    for method in ["PURGE", "BAN"] {
        for version in VERSIONS {
            assert_eq!(bed.get(version, "/p", &["-X", method]).status, 405);
        }
    }
    assert!(bed.get("--http2", "/p", &[]).is_hit());
    assert_eq!(bed.origin.received().len(), 1);
}

#[test]
fn editors_and_their_pages_have_nothing_to_do_with_the_store() {
    let bed = Bed::new("profile = \"wordpress\"");
    let paths = [
        "/wp-admin/x.css",
        "/wp-admin%2fx.css",
        "/wp-login.php",
        "//wp-admin/",
        "/static/..%2fwp-admin/",
        "/%77p-admin/",
        "/?preview=true",
        "/wp-admin;x.css",
        "/blog/wp-login.php",
        "/blog/wp-admin/",
    ];
    for path in paths {
        bed.fresh(path, "max-age=600", "secret");
        for _ in 0..2 {
            let got = bed.get("--http2", path, &[]);
            assert!(got.cache().contains("detail=path"), "{path} {got:?}");
        }
        assert_eq!(bed.count(path), 2, "{path}");
    }
    // WordPress itself says nothing about pages of guests: the profile does.
    bed.page("/", "200 OK", "", "front page");
    bed.get("--http2", "/", &[]);
    let got = bed.get("--http1.1", "/", &["-H", "Cookie: wordpress_test_cookie=x"]);
    assert!(got.is_hit() && got.field("cache-control").is_none(), "{got:?}");
    for cookie in ["wordpress_logged_in_x=1", "comment_author_x=1", "wp-postpass_x=1", "unknown=1"] {
        assert!(!bed.get("--http2", "/", &["-H", &format!("Cookie: {cookie}")]).is_hit(), "{cookie}");
    }
}

/// A change by somebody whom WordPress knows: all pages are validated before their next use. A stranger's cookie with the
/// right name changes nothing, and many changes are few purges.
#[test]
fn changes_by_editors_and_by_strangers() {
    let known = format!("Cookie: wordpress_logged_in_x={}", "known|".repeat(12));
    let (login, change) = (known.replacen("Cookie: ", "Set-Cookie: ", 1), ["--data", "x", "-H"]);
    let api = "/wp-json/wp/v2/posts/1";
    let bed = Bed::new("profile = \"wordpress\"");
    bed.page("/wp-admin/admin-ajax.php", "200 OK", "", "0");
    bed.page("/wp-login.php", "302 Found", &format!("Location: /wp-admin/\r\n{login}; path=/\r\n"), "");
    bed.page("/blog/wp-admin/post.php", "200 OK", "", "saved");
    bed.page("/blog/wp-admin/post.php?refused", "302 Found", "Location: /blog/wp-login.php\r\n", "");
    bed.page(api, "200 OK", "", "{}");
    let put = |body: &str| bed.page("/", "200 OK", "", body);
    let sees = |body: &str| assert_eq!(bed.get("--http2", "/", &[]).body, body);
    put("first");
    sees("first");
    put("second");
    for stranger in ["Cookie: wordpress_logged_in_x=fake", "Authorization: Bearer fake", known.as_str()] {
        for path in ["/wp-admin/admin-ajax.php", api, "/blog/wp-admin/post.php?refused"] {
            bed.get("--http2", path, &[&change[..], &[stranger]].concat());
            sees("first");
        }
    }
    // Somebody logs in, and saves.
    bed.get("--http2", "/wp-login.php", &["--data", "log=x"]);
    bed.get("--http2", api, &[&change[..], &[known.as_str()]].concat());
    sees("second");
    // What is saved right afterwards waits for a moment. That the editor sees the dashboard is proof enough, too.
    let other = "Cookie: wordpress_logged_in_x=1";
    bed.get("--http2", "/blog/wp-admin/post.php", &["-H", other]);
    put("third");
    let begun = std::time::SystemTime::now();
    for _ in 0..10 {
        bed.get("--http2", "/blog/wp-admin/post.php", &[&change[..], &[other]].concat());
        bed.get("--http2", "/", &[]);
    }
    eventually("the last change", || (bed.get("--http2", "/", &[]).body == "third").then_some(()));
    let seconds = usize::try_from(begun.elapsed().unwrap().as_secs()).unwrap();
    let asked = bed.count("/");
    assert!((3..=4 + seconds / 2).contains(&asked), "{asked} requests in {seconds} s");
}

/// A body that is cut short never becomes a stored page.
#[test]
fn bodies_that_break_off_are_not_stored() {
    let whole = "0123456789".repeat(1000);
    let cuts = [0, 1, whole.len() / 2, whole.len() - 1];
    let body = whole.clone();
    let origin = Origin::start(move |received| {
        let path = received.path();
        let (kind, cut) = path[1..].split_once('-').unwrap_or((path, ""));
        let cut: usize = cut.parse().unwrap_or(body.len());
        let part = &body[..cut.min(body.len())];
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n";
        match kind {
            "length" => Reply::Close(format!("{head}Content-Length: {}\r\n\r\n{part}", body.len()).into_bytes()),
            "chunks" => {
                let chunk = if part.is_empty() { String::new() } else { format!("{:x}\r\n{part}\r\n", part.len()) };
                Reply::Close(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}").into_bytes())
            }
            _ => Reply::Close(format!("{head}\r\n{part}").into_bytes()),
        }
    });
    let bed = Bed::before(origin, super::Pages::default(), "", "");
    for kind in ["length", "chunks"] {
        for cut in cuts {
            let path = format!("/{kind}-{cut}");
            for (n, version) in VERSIONS.into_iter().enumerate() {
                let mut curl = bed.curl(version, &path, &[]);
                let out = curl.output().unwrap();
                let is_error = !out.status.success() || !String::from_utf8_lossy(&out.stdout).contains(" 200");
                assert!(is_error, "{path}: {out:?}");
                assert!(bed.count(&path) > n, "{path}");
            }
            let client = Client::new(&bed.authority);
            let mut connection = client.connect(bed.pintle.https(), BLOG);
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: {BLOG}\r\nCache-Control: only-if-cached\r\n\r\n"));
            let mut answer = [0; 12];
            std::io::Read::read_exact(&mut *connection.stream, &mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 504", "{path}");
        }
    }
    // The end of the connection is no proof of a whole body.
    for n in 1..3 {
        assert_eq!(bed.get("--http2", "/close", &[]).body, whole);
        assert_eq!(bed.count("/close"), n);
    }
}
