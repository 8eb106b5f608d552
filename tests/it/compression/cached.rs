//! Compression of stored pages: one page for all clients, and each compressed form made once.

use super::{Bed, CODINGS, Got, HTML, VERSIONS, text};
use crate::harness::{BLOG, eventually, output};

const CACHE: &str = "[site.cache]\nmemory = \"16MiB\"\n";

fn is_hit(got: &Got) -> bool {
    got.all("cache-status").last().is_some_and(|status| status.split("; ").any(|part| part == "hit"))
}

#[test]
fn one_stored_page_serves_every_coding() {
    let bed = Bed::new("", CACHE);
    // Origins say that they vary, even if they do not compress.
    let fields = format!("{HTML}Cache-Control: max-age=60\r\nETag: \"x\"\r\nVary: Accept-Encoding\r\n");
    for (path, size) in [("/small", 5000), ("/large", 700_000)] {
        bed.page(path, "200 OK", &fields, &text(size));
        for (n, version) in VERSIONS.into_iter().cycle().take(6).enumerate() {
            for coding in ["identity"].into_iter().chain(CODINGS) {
                let accept = format!("Accept-Encoding: {coding}");
                let got = bed.get(version, path, &["-H", &accept]);
                assert_eq!(
                    (got.status, got.coding(), got.varies(), got.whole),
                    (200, coding, true, true),
                    "{:?}",
                    got.fields
                );
                let is_first = n == 0 && coding == "identity";
                assert_eq!(is_hit(&got), !is_first, "{version} {path} {coding} {:?}", got.fields);
                let tag = if coding == "identity" { "\"x\"" } else { "W/\"x\"" };
                assert_eq!(got.field("etag"), Some(tag));
                let decoded = bed.get(version, path, &["--compressed", "-H", &accept]);
                assert!(decoded.body == text(size).as_bytes(), "{version} {path} {coding}");
            }
        }
        // Once a form is kept, its length is known. A busy worker keeps none.
        for coding in CODINGS {
            eventually("a form that is kept", || {
                let got = bed.accepting("--http1.1", path, coding);
                (got.field("content-length")?.parse() == Ok(got.body.len())).then_some(())
            });
        }
        assert_eq!(bed.count(path), 1);
        assert_eq!(bed.last(path).field("accept-encoding"), Some("identity"));
    }
    // Conditions and ranges are about the stored page.
    for version in VERSIONS {
        let more = ["-H", "Accept-Encoding: br", "-H", "If-None-Match: W/\"x\""];
        let got = bed.get(version, "/small", &more);
        assert_eq!((got.status, got.field("etag"), got.varies()), (304, Some("W/\"x\""), true), "{version}");
        let got = bed.get(version, "/small", &["-H", "Accept-Encoding: br", "-H", "Range: bytes=10-19"]);
        assert_eq!((got.status, got.coding(), got.body.as_slice()), (206, "identity", &text(5000).as_bytes()[10..20]));
        let got = bed.get(version, "/small", &["--head", "-H", "Accept-Encoding: br"]);
        assert_eq!((got.coding(), got.field("content-length"), is_hit(&got)), ("br", None, true));
    }
}

/// A form belongs to one stored response: after a change, nobody gets the old one.
#[test]
fn a_changed_page_has_new_forms() {
    let bed = Bed::new("", CACHE);
    let fields = format!("{HTML}Cache-Control: max-age=60\r\n");
    for round in 0..3 {
        let body = format!("{round}{}", text(50_000 + round));
        bed.page("/", "200 OK", &fields, &body);
        for _ in 0..3 {
            for coding in CODINGS {
                let got = bed.get("--http2", "/", &["--compressed", "-H", &format!("Accept-Encoding: {coding}")]);
                assert!(got.body == body.as_bytes(), "{round} {coding}");
                assert_eq!(got.coding(), coding);
            }
        }
        assert_eq!(bed.count("/"), round + 1);
        output(bed.pintle.command("purge").arg(format!("https://{BLOG}/")));
    }
}

/// What an origin compresses although nobody asked for it passes as it is, to all.
#[test]
fn an_upstreams_own_coding_is_not_compressed_again() {
    let bed = Bed::new("", CACHE);
    let fields = format!("{HTML}Cache-Control: max-age=60\r\nContent-Encoding: gzip\r\n");
    bed.page("/", "200 OK", &fields, &text(5000));
    for coding in ["gzip", "br, gzip", "zstd, gzip"] {
        let got = bed.accepting("--http2", "/", coding);
        assert_eq!((got.coding(), got.body.len()), ("gzip", 5000), "{coding}");
    }
}

/// Requests that have nothing to do with the store are compressed, too, unless they are personal.
#[test]
fn bypassed_requests() {
    let bed = Bed::new("", "[site.cache]\nprofile = \"wordpress\"\n");
    bed.page("/", "200 OK", HTML, &text(5000));
    bed.page("/wp-login.php", "200 OK", HTML, &text(5000));
    assert_eq!(bed.accepting("--http2", "/wp-login.php", "br").coding(), "br");
    let cookie = |value: &str| {
        let cookie = format!("Cookie: {value}");
        bed.get("--http2", "/", &["-H", "Accept-Encoding: br", "-H", &cookie]).coding().to_owned()
    };
    assert_eq!(cookie("wordpress_logged_in_x=1"), "identity");
    assert_eq!(cookie("wordpress_test_cookie=1"), "br");
}
