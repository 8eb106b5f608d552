//! Rules of the RFCs and of Ghost that show only in several requests: fields for one client, 304s of several variants,
//! Cache-Status, other origins, the admin API.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Bed, Pages, VERSIONS};
use crate::harness::{Origin, Reply};

/// RFC 9111 sections 5.2.2.4 and 5.2.2.7: named fields are for the first client alone.
#[test]
fn fields_for_one_client() {
    let bed = Bed::new("");
    let rest = "X-U: secret\r\nX-N: secret\r\nSet-Cookie: sid=secret\r\nX-Kept: 1\r\n";
    for version in VERSIONS {
        let path = format!("/{version}");
        let control = "Cache-Control: max-age=600, private=\"Set-Cookie, X-U\", no-cache=x-n\r\n";
        bed.page(&path, "200 OK", &format!("{control}{rest}"), "page");
        let [first, second] = [(); 2].map(|()| bed.get(version, &path, &[]));
        assert!(first.field("x-u").is_some() && first.field("set-cookie").is_some(), "{first:?}");
        assert!(second.is_hit() && second.field("x-kept") == Some("1"), "{second:?}");
        let has_secret = second.fields.iter().any(|(_, value)| value.contains("secret"));
        assert!(!has_secret, "{second:?}");
        // Neither has who validates it, or gets a part of it.
        for more in [["--range", "0-1"], ["-H", "Cache-Control: no-cache"]] {
            let got = bed.get(version, &path, &more);
            assert!(!got.is_hit() || got.field("x-u").is_none(), "{got:?}");
        }
        assert!(bed.get(version, &path, &[]).field("x-u").is_none());
    }
}

/// RFC 9111 section 4.3.4: a 304 is about the response that it names, and about no other one.
#[test]
fn a_304_changes_the_response_that_it_names() {
    let asked = AtomicUsize::new(0);
    let origin = Origin::start(move |received| {
        let language = received.field("accept-language").unwrap_or_default();
        let fields = "Cache-Control: max-age=0\r\nVary: Accept-Language\r\n";
        match (received.path(), received.field("if-none-match")) {
            // German pages have got another field; English ones have not.
            ("/v", Some(tag)) => {
                let new = if tag == "\"de\"" { "X-New: 1\r\n" } else { "" };
                Reply::new("304 Not Modified", &format!("{fields}ETag: {tag}\r\n{new}"), "")
            }
            ("/v", None) => Reply::new("200 OK", &format!("{fields}ETag: \"{language}\"\r\n"), language),
            // It confirms a page that nobody has asked about.
            ("/strange", Some(_)) => Reply::new("304 Not Modified", "ETag: \"strange\"\r\n", ""),
            ("/always", _) => Reply::new("304 Not Modified", "ETag: \"always\"\r\n", ""),
            ("/client", Some("\"own\"")) => Reply::new("304 Not Modified", "ETag: \"own\"\r\n", ""),
            ("/client", _) => Reply::new("200 OK", "Cache-Control: max-age=0\r\nETag: \"own\"\r\n", "whole"),
            _ => {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                Reply::new("200 OK", "Cache-Control: max-age=0\r\nETag: \"a\"\r\n", &format!("page {number}"))
            }
        }
    });
    let bed = Bed::before(origin, Pages::default(), "", "");
    let get = |language: &str| bed.get("--http2", "/v", &["-H", &format!("Accept-Language: {language}")]);
    for (language, new) in [("de", None), ("en", None), ("de", Some("1")), ("en", None), ("de", Some("1"))] {
        let got = get(language);
        assert_eq!((got.body.as_str(), got.field("x-new")), (language, new), "{got:?}");
    }
    // Asked once more, without a condition.
    for want in ["page 0", "page 1"] {
        assert_eq!(bed.get("--http2", "/strange", &[]).body, want);
    }
    assert_eq!(bed.count("/strange"), 3);
    assert!(bed.last("/strange").field("if-none-match").is_none());
    // No loop.
    assert_eq!((bed.get("--http2", "/always", &[]).status, bed.count("/always")), (502, 1));
    // The origin confirms what is stored, and the client has something else.
    for _ in 0..2 {
        let got = bed.get("--http1.1", "/client", &["-H", "If-None-Match: \"other\""]);
        assert_eq!((got.status, got.body.as_str()), (200, "whole"), "{got:?}");
    }
    assert_eq!(bed.get("--http1.1", "/client", &["-H", "If-None-Match: \"own\""]).status, 304);
}

/// RFC 9211: one member for each answer, behind those of others, and none for answers of pintle's own.
#[test]
fn the_members_of_cache_status() {
    let bed = Bed::new("honour_client = \"yes\"");
    bed.page("/a", "200 OK", "Cache-Control: max-age=600\r\nETag: \"a\"\r\nCache-Status: origin; hit\r\n", "a");
    bed.page("/v", "200 OK", "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n", "v");
    bed.page("/s", "200 OK", "Cache-Control: max-age=0\r\nETag: \"s\"\r\n", "s");
    bed.page("/p", "200 OK", "Cache-Control: private\r\n", "p");
    // Seconds pass.
    let shown = |status: &str| {
        let parts = status.split("; ").map(|part| if part.starts_with("ttl=") { "ttl" } else { part });
        parts.collect::<Vec<_>>().join("; ")
    };
    let only = ["-H", "Cache-Control: only-if-cached"];
    let cases: &[(&str, &[&str], Option<&str>)] = &[
        ("/a", &only, None),
        ("/a", &[], Some("pintle; fwd=uri-miss; ttl; stored")),
        ("/a", &[], Some("pintle; hit; ttl")),
        ("/a", &["--head"], Some("pintle; hit; ttl")),
        ("/a", &["-H", "If-None-Match: \"a\""], Some("pintle; hit; ttl")),
        ("/a", &["-H", "Cache-Control: no-cache"], Some("pintle; fwd=request; fwd-status=304; ttl; stored")),
        ("/a", &["-H", "Cookie: a=b"], Some("pintle; fwd=bypass; detail=cookie")),
        ("/a", &["--data", "x"], Some("pintle; fwd=method")),
        ("/a", &["-X", "PURGE"], None),
        ("/v", &[], Some("pintle; fwd=uri-miss; ttl; stored")),
        ("/v", &["-H", "Accept-Language: de"], Some("pintle; fwd=vary-miss; ttl; stored")),
        ("/s", &[], Some("pintle; fwd=uri-miss; ttl; stored")),
        ("/s", &[], Some("pintle; fwd=stale; fwd-status=304; ttl; stored")),
        ("/p", &[], Some("pintle; fwd=uri-miss; detail=private")),
    ];
    for &(path, more, want) in cases {
        let got = bed.get("--http2", path, more);
        let members: Vec<&str> =
            got.all("cache-status").into_iter().flat_map(|line| line.split(',')).map(str::trim).collect();
        let own: Vec<String> =
            members.iter().filter(|member| member.starts_with("pintle")).map(|own| shown(own)).collect();
        assert_eq!(own, want.into_iter().collect::<Vec<_>>(), "{path} {more:?}: {got:?}");
        assert!(members.last().is_none_or(|last| last.starts_with("pintle")), "{got:?}");
        if want == Some("pintle; fwd=uri-miss; ttl; stored") && path == "/a" {
            assert_eq!(members.first(), Some(&"origin; hit"), "{got:?}");
        }
    }
}

/// A response that only one other origin may read is nobody else's, unless it varies by Origin.
#[test]
fn responses_for_other_origins() {
    let bed = Bed::new("");
    let cors = |path: &str, more: &str| {
        bed.page(
            path,
            "200 OK",
            &format!("Cache-Control: max-age=600\r\nAccess-Control-Allow-Origin: {more}\r\n"),
            "x",
        );
    };
    cors("/one", "https://evil.example");
    cors("/all", "*");
    cors("/varies", "https://evil.example\r\nVary: Origin");
    let from = |path: &str, origin: &str| bed.get("--http2", path, &["-H", &format!("Origin: https://{origin}")]);
    for path in ["/one", "/all", "/varies"] {
        from(path, "evil.example");
    }
    assert!(
        !bed.get("--http2", "/one", &[]).is_hit() && from("/one", "evil.example").cache().contains("detail=origin")
    );
    assert!(bed.get("--http2", "/all", &[]).is_hit() && from("/all", "other.example").is_hit());
    assert!(!from("/varies", "other.example").is_hit() && !bed.get("--http2", "/varies", &[]).is_hit());
    assert!(from("/varies", "evil.example").is_hit());
}

/// Ghost says `max-age=0` about each page, and by its admin API which pages have changed.
#[test]
fn pages_of_ghost() {
    let bed = Bed::new("profile = \"ghost\"");
    let (api, put) = ("/ghost/api/admin/posts/1/", ["-X", "PUT", "--data", "x"]);
    let pages = ["/", "/a-post/", "/other/"];
    pages.iter().for_each(|path| bed.fresh(path, "public, max-age=0", path));
    let fill = || pages.iter().for_each(|path| _ = bed.get("--http2", path, &[]));
    let hits = || {
        let only = ["-H", "Cache-Control: only-if-cached"];
        pages.map(|path| bed.get("--http1.1", path, &only).status == 200)
    };
    let says = |path: &str, field: &str| bed.page(path, "200 OK", &format!("{field}\r\n"), "{}");
    fill();
    assert_eq!(hits(), [true; 3]);
    // Private answers, and those made in haste, stay what they are.
    bed.fresh("/account/", "no-cache, private, no-store, must-revalidate, max-age=0", "mine");
    bed.page("/hasty/", "200 OK", "Cache-Control: public, max-age=60\r\nX-Ghost-Degraded-Render: 1\r\n", "hasty");
    for path in ["/account/", "/hasty/"] {
        assert!((0..2).all(|_| !bed.get("--http2", path, &[]).is_hit()), "{path}");
    }
    // By a GET, and by an answer of another part of Ghost.
    says(api, "X-Cache-Invalidate: /*");
    says("/members/api/x", "X-Cache-Invalidate: /*");
    let shown = bed.get("--http2", api, &[]);
    assert!(shown.field("x-cache-invalidate").is_none(), "{shown:?}");
    bed.get("--http2", "/members/api/x", &put);
    assert_eq!(hits(), [true; 3]);
    says(api, "X-Cache-Invalidate: /, /a-post/");
    let shown = bed.get("--http2", api, &put);
    assert!(shown.status == 200 && shown.field("x-cache-invalidate").is_none(), "{shown:?}");
    assert_eq!(hits(), [false, false, true]);
    fill();
    assert_eq!(hits(), [true; 3]);
    says(api, "X-Cache-Invalidate: /*");
    bed.get("--http2", api, &put);
    assert_eq!(hits(), [false; 3]);
}
