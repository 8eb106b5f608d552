//! The cache beside what else changes a response or the store: compression, rewriting, other configurations, other pages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use super::{Bed, Pages, VERSIONS};
use crate::harness::{BLOG, Origin, Reply, output};

const COMPRESSION: &str = "[site.compression]\n";
const REWRITING: &str = "[site.mixed_content]\nmode = \"rewrite\"\n";
const MODIFIED: &str = "Sun, 01 Nov 2026 10:00:00 GMT";

/// Reloads by clients, one after the other, reach the origin once a second at most, whether it confirms or sends anew.
#[test]
fn reloads_of_clients_are_few_at_the_origin() {
    for tag in ["ETag: \"a\"\r\n", ""] {
        let bed = Bed::new("");
        bed.page("/p", "200 OK", &format!("Cache-Control: max-age=600\r\n{tag}"), "page");
        bed.get("--http2", "/p", &[]);
        let begun = std::time::SystemTime::now();
        let urls = vec![format!("https://{BLOG}/p"); 60];
        let mut curl = bed.pintle.curl();
        output(curl.args(["--http2", "-H", "Cache-Control: no-cache"]).args(urls));
        let seconds = usize::try_from(begun.elapsed().unwrap().as_secs()).unwrap();
        let asked = bed.count("/p");
        assert!((2..=3 + seconds).contains(&asked), "{asked} requests in {seconds} s");
    }
}

/// A 304 without Date comes from an origin without a clock: the page is as new as the 304.
#[test]
fn a_304_without_date_makes_a_page_fresh() {
    let pages = Pages::default();
    let old = "HTTP/1.1 200 OK\r\nDate: Sun, 01 Nov 2026 10:00:00 GMT\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n\
               Content-Length: 4\r\n\r\npage";
    let origin = Origin::start(move |received| match received.field("if-none-match") {
        Some(_) => {
            Reply::Bytes(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n\r\n".to_vec())
        }
        None => Reply::Bytes(old.as_bytes().to_vec()),
    });
    let bed = Bed::before(origin, pages, "", "");
    bed.get("--http2", "/p", &[]);
    let validated = bed.get("--http2", "/p", &[]);
    assert!(validated.cache().contains("fwd=stale; fwd-status=304"), "{validated:?}");
    let age: u64 = validated.field("age").unwrap().parse().unwrap();
    assert!(age < 60 && validated.field("date").is_some(), "{validated:?}");
    assert!(bed.get("--http2", "/p", &[]).is_hit());
}

/// A 304 that forbids storing changes the answer to its own client; nobody else gets the page from the store.
#[test]
fn a_304_that_forbids_storing_reaches_its_client() {
    let pages = Pages::default();
    let origin = Origin::start(move |received| match received.field("if-none-match") {
        Some(_) => Reply::Bytes(
            b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nCache-Control: private\r\nSet-Cookie: s=3\r\n\r\n".to_vec(),
        ),
        None => Reply::new("200 OK", "ETag: \"a\"\r\nCache-Control: max-age=0\r\nX-Old: 1\r\n", "page"),
    });
    let bed = Bed::before(origin, pages, "", "");
    bed.get("--http2", "/p", &[]);
    let got = bed.get("--http2", "/p", &[]);
    assert_eq!((got.status, got.body.as_str()), (200, "page"));
    assert_eq!(
        (got.field("cache-control"), got.field("set-cookie")),
        (Some("private"), Some("s=3; Secure")),
        "{got:?}"
    );
    assert_eq!(bed.get("--http2", "/p", &["-H", "Cache-Control: only-if-cached"]).status, 504);
}

/// A part of a compressed body and a part of the uncompressed one do not belong together, though both have the same date.
#[test]
fn parts_by_a_date_are_not_mixed_with_compressed_ones() {
    let fields = format!("Cache-Control: max-age=600\r\nContent-Type: text/html\r\nLast-Modified: {MODIFIED}\r\n");
    let page = "<p>some text</p>".repeat(400);
    for version in VERSIONS {
        let bed = Bed::with("", COMPRESSION);
        bed.page("/p", "200 OK", &format!("{fields}ETag: \"a\"\r\n"), &page);
        bed.page("/p.mp4", "200 OK", &fields.replace("text/html", "video/mp4"), &page);
        let condition = format!("If-Range: {MODIFIED}");
        let coded = ["-H", "Accept-Encoding: br", "-H", "Range: bytes=10-19"];
        for path in ["/p", "/new"] {
            bed.page("/new", "200 OK", &fields, &page);
            let got = bed.get(version, path, &[&coded[..], &["-H", &condition]].concat());
            assert_eq!((got.status, got.field("content-encoding")), (200, Some("br")), "{version} {path}");
        }
        let got = bed.get(version, "/p", &["-H", "Range: bytes=10-19", "-H", &condition]);
        assert_eq!((got.status, got.body.len()), (206, 10), "{got:?}");
        let vary = got.all("vary").join(", ").to_ascii_lowercase();
        assert!(vary.contains("accept-encoding"), "{got:?}");
        bed.get(version, "/p.mp4", &[]);
        let got = bed.get(version, "/p.mp4", &[&coded[..], &["-H", &condition]].concat());
        assert_eq!(got.status, 206, "{got:?}");
        // The 304 has the tag that the 200 would have.
        let since = format!("If-Modified-Since: {MODIFIED}");
        let got = bed.get(version, "/p", &["-H", "Accept-Encoding: br", "-H", &since]);
        assert_eq!((got.status, got.field("etag")), (304, Some("W/\"a\"")), "{got:?}");
        let got = bed.get(version, "/p", &["-H", &since]);
        assert_eq!((got.status, got.field("etag")), (304, Some("\"a\"")), "{got:?}");
    }
}

/// A copy from before the rewriting has a strong tag: it is not confirmed, whether the page is stored or not.
#[test]
fn copies_from_before_the_rewriting_are_replaced() {
    let bed = Bed::with("", REWRITING);
    let page = format!("<img src=\"http://{BLOG}/a.png\">");
    bed.page("/p", "200 OK", "Cache-Control: max-age=600\r\nContent-Type: text/html\r\nETag: \"a\"\r\n", &page);
    for _ in 0..2 {
        let got = bed.get("--http2", "/p", &["-H", "If-None-Match: \"a\""]);
        assert_eq!(got.status, 200);
        assert!(got.body.contains("https://"), "{got:?}");
    }
    assert_eq!(bed.get("--http2", "/p", &["-H", "If-None-Match: W/\"a\""]).status, 304);
}

/// The origin gets its own tag with a validation, so that it can confirm the page. The client's is weak.
#[test]
fn rewritten_pages_are_validated_by_the_tag_of_the_origin() {
    for more in [REWRITING.to_owned(), format!("{REWRITING}{COMPRESSION}")] {
        let bed = Bed::with("", &more);
        let page = format!("<img src=\"http://{BLOG}/a.png\">");
        bed.page("/p", "200 OK", "Cache-Control: max-age=0\r\nContent-Type: text/html\r\nETag: \"a\"\r\n", &page);
        bed.get("--http2", "/p", &[]);
        let got = bed.get("--http2", "/p", &[]);
        assert!(got.cache().contains("fwd-status=304") && got.body.contains("https://"), "{got:?}");
        assert_eq!((got.field("etag"), bed.last("/p").field("if-none-match")), (Some("W/\"a\""), Some("\"a\"")));
        assert_eq!(bed.get("--http2", "/p", &["-H", "If-None-Match: W/\"a\""]).status, 304);
    }
}

/// A page that is never stored keeps its 304: once that is known, the origin gets the conditions of the client.
#[test]
fn pages_that_are_not_stored_are_confirmed_by_the_origin() {
    for more in ["", COMPRESSION] {
        let bed = Bed::with("", more);
        for version in VERSIONS {
            let path = format!("/{version}");
            let fields = "Cache-Control: private\r\nContent-Type: text/html\r\nETag: \"a\"\r\n";
            bed.page(&path, "200 OK", fields, &"private ".repeat(200));
            let got = bed.get(version, &path, &["-H", "Accept-Encoding: br"]);
            let condition = format!("If-None-Match: {}", got.field("etag").unwrap());
            let asked = ["-H", "Accept-Encoding: br", "-H", condition.as_str()];
            for _ in 0..2 {
                let got = bed.get(version, &path, &asked);
                assert_eq!((got.status, got.body.as_str()), (304, ""), "{got:?}");
                assert!(got.cache().contains("detail=private"), "{got:?}");
            }
            assert_eq!((bed.count(&path), bed.last(&path).field("if-none-match")), (3, Some("\"a\"")));
            // A new page is sent, and may be stored.
            bed.page(&path, "200 OK", "Cache-Control: max-age=600\r\nETag: \"b\"\r\n", "public");
            assert_eq!(bed.get(version, &path, &asked).body, "public");
            assert!(bed.get(version, &path, &[]).is_hit());
        }
    }
}

/// A response may vary by any field of the client. From the second request on, the origin is asked once, and stores hold.
#[test]
fn responses_vary_by_fields_that_usually_stay_here() {
    let pages = Pages::default();
    let origin = Origin::start(move |received| {
        let fields = "Cache-Control: max-age=600\r\nVary: X-Requested-With, Sec-Fetch-Dest, Host\r\n";
        Reply::new("200 OK", fields, received.field("x-requested-with").unwrap_or("none"))
    });
    let bed = Bed::before(origin, pages, "", "");
    let fields = |value: &str| {
        vec!["-H".to_owned(), format!("X-Requested-With: {value}"), "-H".into(), "Sec-Fetch-Dest: document".into()]
    };
    let get = |value: &str| {
        let fields = fields(value);
        bed.get("--http1.1", "/p", &fields.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let first = get("a");
    assert_eq!((first.body.as_str(), bed.count("/p")), ("a", 2));
    assert!(first.cache().contains("stored"), "{first:?}");
    assert!(get("a").is_hit());
    assert_eq!((get("b").body.as_str(), bed.count("/p")), ("b", 3));
    assert!(get("a").is_hit() && get("b").is_hit());
    let without = bed.get("--http1.1", "/p", &[]);
    assert_eq!((without.body.as_str(), bed.count("/p")), ("none", 4));
}

/// What no response names in Vary does not reach the origin: it would change the page of everybody.
#[test]
fn a_strange_accept_changes_nobodys_page() {
    let pages = Pages::default();
    let origin = Origin::start(move |received| match received.field("accept") {
        Some(kind) if kind.contains("json") => Reply::new("404 Not Found", "Cache-Control: max-age=600\r\n", "{}"),
        _ => Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "page"),
    });
    let bed = Bed::before(origin, pages, "", "");
    for path in ["/a", "/b"] {
        let got = bed.get("--http2", path, &["-H", "Accept: application/activity+json", "-H", "Sec-CH-UA-Mobile: ?1"]);
        assert_eq!((got.status, got.body.as_str()), (200, "page"), "{got:?}");
        assert!(bed.get("--http2", path, &[]).is_hit());
    }
}

/// A POST to one page does not keep another from being stored, while that is under way.
#[test]
fn a_change_of_one_page_keeps_no_other_from_being_stored() {
    let pages = Pages::default();
    let (arrived, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let is_first = Arc::new(AtomicBool::new(true));
    let (at_origin, continues) = (arrived.clone(), go_on.clone());
    let origin = Origin::start(move |received| {
        if received.path() == "/slow" && is_first.swap(false, Ordering::SeqCst) {
            at_origin.wait();
            continues.wait();
        }
        Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "page")
    });
    let bed = Bed::before(origin, pages, "", "");
    thread::scope(|scope| {
        let slow = scope.spawn(|| bed.get("--http2", "/slow", &[]));
        arrived.wait();
        assert_eq!(bed.get("--http2", "/other", &["--data", "x"]).status, 200);
        go_on.wait();
        assert!(slow.join().unwrap().cache().contains("stored"));
    });
    assert!(bed.get("--http2", "/slow", &[]).is_hit());
}

/// Several large ranges of one page would be copies that no limit counts: the whole body is sent, which is shared.
#[test]
fn many_large_ranges_get_the_whole_page() {
    let bed = Bed::new("");
    bed.page("/p", "200 OK", "Cache-Control: max-age=600\r\n", &"x".repeat(200_000));
    bed.get("--http2", "/p", &[]);
    let got = bed.get("--http2", "/p", &["-H", "Range: bytes=0-,0-"]);
    assert_eq!((got.status, got.body.len()), (200, 200_000));
    let got = bed.get("--http2", "/p", &["-H", "Range: bytes=0-9,20-29"]);
    let kind = got.field("content-type").unwrap().to_owned();
    assert!(got.status == 206 && kind.starts_with("multipart/byteranges; boundary=pintle-"), "{got:?}");
    let again = bed.get("--http2", "/p", &["-H", "Range: bytes=0-9,20-29"]);
    assert_ne!(again.field("content-type").unwrap(), kind);
}

/// Every form of a reference to a page of the same origin.
#[test]
fn an_answer_to_post_names_changed_pages_in_any_form() {
    let pages = Pages::default();
    let origin = Origin::start(move |received| match received.line().starts_with("POST") {
        true => {
            let location = received.field("x-location").unwrap().to_owned();
            Reply::new("201 Created", &format!("Location: {location}\r\n"), "")
        }
        false => Reply::new("200 OK", "Cache-Control: max-age=600\r\n", "page"),
    });
    let bed = Bed::before(origin, pages, "", "");
    for (form, is_changed) in [
        ("/d/p", true),
        ("p", true),
        ("../d/p", true),
        ("//blog.example.com/d/p", true),
        ("//other.example.com/d/p", false),
        ("https://other.example.com/d/p", false),
        ("pp", false),
    ] {
        bed.get("--http2", "/d/p", &[]);
        let location = format!("X-Location: {form}");
        // The port of the listener is not the public one: the host of the request has it.
        bed.get("--http2", "/d/form", &["-H", &location, "--data", "x"]);
        let got = bed.get("--http2", "/d/p", &[]);
        assert_eq!(got.is_hit(), !is_changed, "{form}: {got:?}");
    }
}
