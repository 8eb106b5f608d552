//! Validation, stale responses, and an origin that is down.

use super::{Bed, VERSIONS};
use crate::harness::eventually;

#[test]
fn validation_updates_or_replaces() {
    let bed = Bed::new("");
    bed.page("/v", "200 OK", "Cache-Control: max-age=0\r\nETag: \"one\"\r\nX-Test: 1\r\n", "first");
    bed.get("--http1.1", "/v", &[]);
    for (n, version) in VERSIONS.into_iter().enumerate() {
        let test = format!("{}", n + 2);
        let fields = format!("Cache-Control: max-age=0\r\nETag: \"one\"\r\nX-Test: {test}\r\n");
        bed.page("/v", "200 OK", &fields, "not sent");
        let got = bed.get(version, "/v", &[]);
        assert_eq!((got.status, got.body.as_str()), (200, "first"), "{got:?}");
        assert_eq!(got.all("x-test"), [test.as_str()]);
        assert!(got.cache().contains("fwd=stale; fwd-status=304"), "{got:?}");
        assert_eq!(bed.last("/v").field("if-none-match"), Some("\"one\""));
        // A client's own condition is answered here, and does not reach the origin.
        let own = bed.get(version, "/v", &["-H", "If-None-Match: \"one\""]);
        assert_eq!((own.status, bed.last("/v").fields("if-none-match")), (304, vec!["\"one\""]));
    }
    bed.page("/v", "200 OK", "Cache-Control: max-age=60\r\nETag: \"two\"\r\n", "second");
    assert_eq!(bed.get("--http2", "/v", &[]).body, "second");
    assert!(bed.get("--http2", "/v", &[]).is_hit());
    bed.recorded("/v", "validated");
    bed.recorded("/v", "hit");
}

/// Every page that was seen is still sent while the origin is down.
#[test]
fn pages_are_sent_while_the_origin_fails() {
    let bed = Bed::new("stale_if_error = \"7d\"");
    let pages = ["/one", "/two", "/three"];
    for path in pages {
        bed.fresh(path, "max-age=0", path);
        bed.page(path, "200 OK", "Cache-Control: max-age=0\r\nETag: \"x\"\r\n", path);
        bed.get("--http1.1", path, &[]);
    }
    bed.page("/strict", "200 OK", "Cache-Control: max-age=0, must-revalidate\r\nETag: \"x\"\r\n", "strict");
    bed.get("--http1.1", "/strict", &[]);
    for failure in ["closed", "500 Oops", "502 Bad", "503 Busy", "504 Late"] {
        for path in pages.into_iter().chain(["/strict"]) {
            bed.page(path, failure, "Cache-Control: max-age=60\r\n", "an error");
        }
        for version in VERSIONS {
            for path in pages {
                let got = bed.get(version, path, &[]);
                assert_eq!((got.status, got.body.as_str()), (200, path), "{failure} {got:?}");
                assert!(got.cache().contains("detail=stale-if-error"), "{failure} {got:?}");
            }
            assert!(bed.get(version, "/strict", &[]).status >= 500, "{failure}");
        }
    }
    bed.pintle.logs("stale responses are sent");
    bed.recorded("/one", "stale");
    let counted = bed.count("/one");
    for _ in 0..20 {
        bed.get("--http2", "/one", &[]);
    }
    assert!(bed.count("/one") < counted + 20, "the pause after a failure");
}

/// Why a stale page is sent is for those who may see causes. An error of pintle's own has Proxy-Status, and no Cache-Status
/// (RFC 9211 section 2).
#[test]
fn the_cause_of_a_stale_page() {
    for (listen, of_status, of_error, of_own) in [
        ("", &[][..], &[][..], "pintle"),
        (
            "error_details = \"everybody\"",
            &["pintle; received-status=503"][..],
            &["pintle; error=connection_terminated"][..],
            "pintle; error=connection_terminated",
        ),
    ] {
        let bed = Bed::listening(listen, "stale_if_error = \"7d\"");
        for version in VERSIONS {
            let path = format!("/cause{version}");
            bed.page(&path, "200 OK", "Cache-Control: max-age=0\r\nETag: \"x\"\r\n", "page");
            assert!(bed.get(version, &path, &[]).all("proxy-status").is_empty());
            bed.page(&path, "503 Busy", "", "busy");
            let got = bed.get(version, &path, &[]);
            assert_eq!((got.status, got.body.as_str(), got.all("proxy-status")), (200, "page", of_status.to_vec()));
            assert!(got.cache().contains("fwd=stale; fwd-status=503"), "{got:?}");

            let path = format!("/gone{version}");
            bed.page(&path, "200 OK", "Cache-Control: max-age=0\r\nETag: \"x\"\r\n", "page");
            bed.get(version, &path, &[]);
            bed.page(&path, "closed", "", "");
            let got = bed.get(version, &path, &[]);
            assert_eq!((got.status, got.body.as_str(), got.all("proxy-status")), (200, "page", of_error.to_vec()));

            let path = format!("/never{version}");
            bed.page(&path, "closed", "", "");
            let got = bed.get(version, &path, &[]);
            assert_eq!((got.status, got.all("proxy-status")), (502, vec![of_own]));
            assert!(got.all("cache-status").is_empty(), "{got:?}");
        }
    }
}

/// What the origin takes away is gone at once, however long stale pages may be sent.
#[test]
fn pages_that_are_gone_are_not_kept() {
    let bed = Bed::new("stale_if_error = \"7d\"");
    for (path, status) in [("/a", "404 Not Found"), ("/b", "410 Gone")] {
        bed.page(path, "200 OK", "Cache-Control: max-age=0\r\nETag: \"x\"\r\n", "here");
        bed.get("--http1.1", path, &[]);
        bed.page(path, status, "", "gone");
        assert_eq!(bed.get("--http2", path, &[]).body, "gone");
        bed.page(path, "503 Busy", "", "busy");
        assert_eq!(bed.get("--http2", path, &[]).status, 503);
    }
}

#[test]
fn without_permission_nothing_stale_is_sent() {
    let bed = Bed::new("");
    bed.page("/a", "200 OK", "Cache-Control: max-age=0\r\nETag: \"x\"\r\n", "a");
    bed.page("/b", "200 OK", "Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"x\"\r\n", "b");
    for path in ["/a", "/b"] {
        bed.get("--http1.1", path, &[]);
        bed.page(path, "503 Busy", "", "busy");
    }
    assert_eq!(bed.get("--http2", "/a", &[]).status, 503);
    assert_eq!(bed.get("--http2", "/b", &[]).body, "b");
}

#[test]
fn stale_responses_are_validated_meanwhile() {
    let bed = Bed::new("");
    bed.fresh("/s", "max-age=0, stale-while-revalidate=600", "old");
    bed.get("--http1.1", "/s", &[]);
    bed.fresh("/s", "max-age=600, stale-while-revalidate=600", "new");
    let got = bed.get("--http2", "/s", &["-H", "Cookie: _ga=1"]);
    assert_eq!(got.body, "old", "{got:?}");
    assert!(
        got.cache().contains("hit; ttl=0; detail=stale-while-revalidate") || got.cache().contains("ttl=-"),
        "{got:?}"
    );
    eventually("the new page", || (bed.get("--http2", "/s", &[]).body == "new").then_some(()));
    assert_eq!(bed.count("/s"), 2);
    assert!(bed.last("/s").field("cookie").is_none());
    // A failure leaves the page as it is.
    bed.fresh("/f", "max-age=0, stale-while-revalidate=600", "old");
    bed.get("--http1.1", "/f", &[]);
    bed.page("/f", "500 Oops", "", "an error");
    for _ in 0..5 {
        assert_eq!(bed.get("--http2", "/f", &[]).body, "old");
    }
    eventually("the validation", || (bed.count("/f") >= 2).then_some(()));
    assert_eq!(bed.get("--http2", "/f", &[]).body, "old");
}

/// RFC 9111 section 4.4, and the URLs that the answer names.
#[test]
fn unsafe_methods_invalidate() {
    let bed = Bed::new("");
    let all = ["/post", "/list", "/other", "/far"];
    for path in all {
        bed.page(path, "200 OK", "Cache-Control: max-age=600\r\n", path);
        bed.get("--http1.1", path, &[]);
    }
    let is_hit = |path: &str| bed.get("--http2", path, &[]).is_hit();
    let post = |path: &str, status: &'static str, fields: &str| {
        bed.page(path, status, fields, "posted");
        let got = bed.get("--http2", path, &["--data", "x=1"]);
        assert!(got.cache().contains("fwd=method"), "{got:?}");
        bed.page(path, "200 OK", "Cache-Control: max-age=600\r\n", path);
    };
    post("/post", "500 Oops", "");
    assert!(is_hit("/post"), "an error changes nothing");
    post("/post", "200 OK", "");
    assert!(!is_hit("/post") && is_hit("/post") && is_hit("/list"));
    post("/other", "302 Found", "Location: /list#comment-7\r\nContent-Location: https://evil.example/far\r\n");
    assert!(!is_hit("/list") && is_hit("/list") && is_hit("/far"));
}

/// RFC 9875: an answer to an unsafe method names groups of pages that it has changed.
#[test]
fn groups_are_invalidated_by_unsafe_methods_alone() {
    let bed = Bed::new("");
    let groups = "Cache-Control: max-age=600\r\nCache-Groups: \"news\", \"all\"\r\n";
    bed.page("/one", "200 OK", groups, "one");
    bed.page("/two", "200 OK", "Cache-Control: max-age=600\r\nCache-Groups: \"all\"\r\n", "two");
    let is_hit = |path: &str| bed.get("--http2", path, &[]).is_hit();
    assert!(!is_hit("/one") && !is_hit("/two") && is_hit("/one") && is_hit("/two"));
    bed.page("/get", "200 OK", "Cache-Group-Invalidation: \"all\"\r\n", "get");
    bed.get("--http2", "/get", &[]);
    assert!(is_hit("/one") && is_hit("/two"));
    bed.page("/post", "200 OK", "Cache-Group-Invalidation: \"other\", \"news\"\r\n", "post");
    bed.get("--http2", "/post", &["--data", "x"]);
    assert!(!is_hit("/one") && is_hit("/two"));
}
