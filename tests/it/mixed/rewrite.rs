//! The tool *rewrite*: references of bodies and fields, on their way to the client.

use std::io::Write as _;

use super::{Bed, PAGE, html};
use crate::harness::{BLOG, Browser, Client, Reply, eventually};

const REWRITE: &str = "mode = \"rewrite\"\nhosts = [\"cdn.example.com\"]\n";
const REWRITTEN: &str = "<!doctype html><title>http://blog.example.com/</title><img src=\"https://blog.example.com/a.png\">\
    <a href='https://blog.example.com/b'>b</a><img src=https://cdn.example.com/c.png><img src=http://evil.example/d.png>";

/// Pages, by path.
fn answer(path: &str) -> Reply {
    let page = |fields: &str| Reply::new("200 OK", &format!("Content-Type: text/html\r\n{fields}"), PAGE);
    match path {
        "/tag" => page("ETag: \"a\"\r\nAccept-Ranges: bytes\r\n"),
        "/no-transform" => page("Cache-Control: no-transform\r\n"),
        "/digest" => page("Repr-Digest: sha-256=:x:\r\n"),
        "/attachment" => page("Content-Disposition: attachment\r\n"),
        "/utf16" => Reply::new("200 OK", "Content-Type: text/html; charset=utf-16\r\n", PAGE),
        "/text" => Reply::new("200 OK", "Content-Type: text/plain\r\n", PAGE),
        "/script.js" => Reply::new("200 OK", "Content-Type: text/javascript\r\n", "\"http:\\/\\/blog.example.com\""),
        "/part" => Reply::new("206 Partial Content", "Content-Type: text/html\r\nContent-Range: bytes 0-1/9\r\n", PAGE),
        "/hashes" => Reply::new(
            "200 OK",
            "Content-Type: text/html\r\nContent-Security-Policy: style-src 'sha256-x'\r\n",
            "<style>a{b:url(http://blog.example.com/)}</style><img src=http://blog.example.com/>",
        ),
        "/style.css" => Reply::new("200 OK", "Content-Type: text/css\r\n", "a{b:url(http://blog.example.com/x)}"),
        "/feed/" => Reply::new(
            "200 OK",
            "Content-Type: application/rss+xml\r\n",
            "<rss><link>http://blog.example.com/</link><guid>http://blog.example.com/?p=1</guid></rss>",
        ),
        "/fields" => Reply::new(
            "200 OK",
            "Content-Type: text/plain\r\nLink: <http://blog.example.com/wp-json/>; rel=x, <http://evil.example/>\r\n\
             X-Pingback: http://127.0.0.1/xmlrpc.php\r\nAccess-Control-Allow-Origin: http://blog.example.com\r\n",
            "",
        ),
        "/hints" => Reply::Bytes(
            b"HTTP/1.1 103 Early Hints\r\nLink: <http://blog.example.com/a.css>; rel=preload\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                .to_vec(),
        ),
        "/redirect" => Reply::new("302 Found", "Location: http://cdn.example.com/x\r\n", ""),
        _ => html(PAGE),
    }
}

fn bed() -> Bed {
    Bed::new(REWRITE, |asked| answer(asked.path()))
}

#[test]
fn references_to_own_hosts() {
    let bed = bed();
    for version in ["--http1.1", "--http2"] {
        let got = bed.get("/", &[version]);
        assert_eq!(got.text(), REWRITTEN);
        assert!(got.whole && got.all("content-length").is_empty(), "{got:?}");
        assert_eq!(bed.get("/style.css", &[version]).text(), "a{b:url(https://blog.example.com/x)}");
        assert_eq!(
            bed.get("/feed/", &[version]).text(),
            "<rss><link>https://blog.example.com/</link><guid>http://blog.example.com/?p=1</guid></rss>"
        );
    }
    eventually("the records", || {
        let records = bed.pintle.access();
        let rewritten = |path: &str| {
            records.iter().find(|r| r["target"] == path).map(|r| r["rewritten"].as_u64().unwrap_or_default())
        };
        (rewritten("/") == Some(3) && rewritten("/feed/") == Some(1)).then_some(())
    });
    assert!(bed.metrics().contains("pintle_references_rewritten_total 10"), "{}", bed.metrics());
}

#[test]
fn bodies_that_stay() {
    let bed = bed();
    for path in ["/no-transform", "/digest", "/attachment", "/utf16", "/text", "/part"] {
        let got = bed.get(path, &[]);
        assert_eq!(got.text(), PAGE, "{path}");
        assert_eq!(got.all("content-length"), [PAGE.len().to_string()], "{path}");
    }
    assert_eq!(bed.get("/script.js", &[]).text(), "\"http:\\/\\/blog.example.com\"");
    // Inline styles have a hash; other references have none.
    assert_eq!(
        bed.get("/hashes", &[]).text(),
        "<style>a{b:url(http://blog.example.com/)}</style><img src=https://blog.example.com/>"
    );
    // Without the tool, nothing changes.
    let bed = Bed::new("mode = \"upgrade\"", |asked| answer(asked.path()));
    assert_eq!(bed.get("/", &[]).text(), PAGE);
    let bed = Bed::new("mode = \"rewrite\"\ntypes = [\"feeds\"]", |asked| answer(asked.path()));
    assert_eq!(bed.get("/", &[]).text(), PAGE);
    assert_eq!(bed.get("/style.css", &[]).text(), "a{b:url(http://blog.example.com/x)}");
}

#[test]
fn fields() {
    let bed = bed();
    let got = bed.get("/fields", &[]);
    assert_eq!(got.all("link"), ["<https://blog.example.com/wp-json/>; rel=x, <http://evil.example/>"]);
    assert_eq!(got.all("x-pingback"), ["https://blog.example.com/xmlrpc.php"]);
    assert_eq!(got.all("access-control-allow-origin"), ["https://blog.example.com"]);
    let origin = bed.get("/fields", &["-H", "Origin: http://blog.example.com"]);
    assert_eq!(origin.all("access-control-allow-origin"), ["http://blog.example.com"], "as the client says it");
    assert_eq!(bed.get("/redirect", &[]).all("location"), ["https://cdn.example.com/x"]);
    // Hints lead where the page leads.
    let mut connection = Client::new(&bed.authority).connect(bed.pintle.https(), BLOG);
    connection.send(format!("GET /hints HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let hints = connection.response("GET");
    assert_eq!((hints.status, hints.one("link")), (103, "<https://blog.example.com/a.css>; rel=preload"));
}

#[test]
fn heads_ranges_and_validators() {
    let bed = bed();
    let got = bed.get("/tag", &[]);
    assert_eq!((got.all("etag"), got.all("accept-ranges").len()), (vec!["W/\"a\""], 0), "{got:?}");
    let head = bed.get("/tag", &["--head"]);
    assert_eq!((head.all("etag"), head.all("content-length").len()), (vec!["W/\"a\""], 0), "{head:?}");
    // The upstream is asked for the whole.
    let ranged = bed.get("/tag?range", &["-H", "Range: bytes=0-1", "-H", "If-None-Match: W/\"a\""]);
    assert_eq!((ranged.status(), &*ranged.text()), ("200", REWRITTEN));
    let asked = bed.origin.request("/tag?range");
    // It gets its own tag, which pintle has made weak.
    assert_eq!((asked.field("range"), asked.field("if-none-match")), (None, Some("\"a\"")));
    bed.get("/tag?put", &["-X", "PUT", "--data", "x", "-H", "If-Match: W/\"a\""]);
    assert_eq!(bed.origin.request("/tag?put").field("if-match"), Some("\"a\""));
    // A copy from before the rewriting has a strong tag.
    bed.get("/tag?old", &["-H", "If-None-Match: \"a\"", "-H", "If-Modified-Since: Thu, 26 Nov 2026 10:00:00 GMT"]);
    let asked = bed.origin.request("/tag?old");
    assert_eq!((asked.field("if-none-match"), asked.field("if-modified-since")), (None, None));
    // Films keep their ranges.
    bed.get("/film.mp4", &["-H", "Range: bytes=0-1", "-H", "If-None-Match: \"a\""]);
    let asked = bed.origin.request("/film.mp4");
    assert_eq!((asked.field("range"), asked.field("if-none-match")), (Some("bytes=0-1"), Some("\"a\"")));
}

/// What is complete leaves while the upstream pauses, and a body that breaks off breaks off.
#[test]
fn streams_that_pause_and_break_off() {
    let bed = Bed::new(REWRITE, |asked| match asked.path() {
        "/cut" => Reply::Close(
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000\r\n\r\n{PAGE}").into_bytes(),
        ),
        _ => Reply::Custom(Box::new(|socket| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
            write!(socket, "{head}2b\r\n<head><link href=http://blog.example.com/a>\r\n")?;
            // Goes on when the client has seen the beginning, and sent another request.
            let mut more = [0; 1];
            let _ = std::io::Read::read(socket, &mut more);
            Ok(())
        })),
    });
    for version in ["--http1.1", "--http2"] {
        let cut = bed.get("/cut", &[version]);
        assert!(!cut.whole, "{cut:?}");
        assert!(REWRITTEN.starts_with(&cut.text()), "{cut:?}");
        let slow = bed.get("/slow", &[version, "--max-time", "2"]);
        assert_eq!(slow.text(), "<head><link href=https://blog.example.com/a>");
    }
}

#[test]
fn stored_pages_are_rewritten_ones() {
    let bed = Bed::with(REWRITE, "[site.cache]\ndefault_ttl = \"1h\"\n", |asked| answer(asked.path()));
    for _ in 0..2 {
        assert_eq!(bed.get("/tag", &[]).text(), REWRITTEN);
    }
    let hit = bed.get("/tag", &["-H", "If-None-Match: W/\"a\""]);
    assert_eq!(hit.status(), "304");
    assert_eq!(bed.get("/tag", &["-H", "Range: bytes=0-8"]).text(), REWRITTEN[..9]);
    assert_eq!(bed.origin.received().len(), 1);
    // Other rules, other pages.
    bed.pintle.rewrite(|text| text.replace("hosts = [\"cdn.example.com\"]", ""));
    bed.pintle.reload();
    let stays = REWRITTEN.replace("https://cdn.", "http://cdn.");
    eventually("the page by the new rules", || (bed.get("/tag", &[]).text() == stays).then_some(()));
}

/// Chromium loads everything of a page by https, and complains about nothing.
#[test]
fn a_browser_finds_no_mixed_content() {
    const OWN: &str = "<!doctype html><link rel=stylesheet href=http://blog.example.com/a.css><img id=i src=http://blog.example.com/a.svg \
        srcset='http://blog.example.com/a.svg 1x'><script src=http://blog.example.com/a.js></script>";
    const PICTURE: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='7' height='7'/>";
    let bed = Bed::new("mode = [\"report\", \"rewrite\"]", |asked| match asked.path() {
        "/a.css" => Reply::new(
            "200 OK",
            "Content-Type: text/css\r\n",
            "body { background: url(http://blog.example.com/b.svg) }",
        ),
        "/a.js" => Reply::new("200 OK", "Content-Type: text/javascript\r\n", "document.title = 'ran'"),
        path if path.ends_with(".svg") => Reply::new("200 OK", "Content-Type: image/svg+xml\r\n", PICTURE),
        _ => html(OWN),
    });
    let browser = Browser::start(&bed.authority, bed.pintle.https(), bed.pintle.http());
    browser.go(&format!("https://{BLOG}/"));
    assert_eq!(browser.title(), "ran");
    assert_eq!(browser.evaluate("document.getElementById('i').naturalWidth"), 7);
    let requests = browser.requests();
    let by_http: Vec<_> = requests.iter().filter(|url| url.starts_with("http://")).collect();
    assert!(by_http.is_empty() && requests.len() >= 4, "{requests:?}");
    let complaints: Vec<_> = browser.complaints().into_iter().filter(|c| c.contains("Mixed Content")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    assert_eq!(bed.pintle.status()["sites"][0]["mixed_content"]["reports"], 0);
}

/// The upstream's own address is a name of it, with its port.
#[test]
fn names_with_ports() {
    let own = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let served = own.clone();
    let bed = Bed::new("mode = \"rewrite\"", move |_| html(&served.lock().unwrap()));
    let port = bed.origin.url().rsplit(':').next().unwrap().to_owned();
    *own.lock().unwrap() = format!("<img src=http://127.0.0.1:{port}/a><img src=http://127.0.0.1:1/>");
    assert_eq!(bed.get("/", &[]).text(), "<img src=https://blog.example.com/a><img src=http://127.0.0.1:1/>");
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn coded(coding: &str, body: &[u8]) -> Reply {
    let (kind, length) = ("Content-Type: text/html\r\nVary: Accept-Encoding", body.len());
    let head = format!("HTTP/1.1 200 OK\r\n{kind}\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n");
    Reply::Bytes([head.as_bytes(), body].concat())
}

/// The upstream is asked for gzip if the client takes it. Bodies are decoded, and encoded again where the site does so.
#[test]
fn bodies_that_the_upstream_compresses() {
    let answer = |path: &str, accepted: Option<&str>| match path {
        "/deflate" => coded("deflate", b"\x78\x9c damaged, for all that pintle knows"),
        "/cut" => coded("gzip", &gzip(PAGE)[..40]),
        "/long" => coded("gzip", &gzip(&PAGE.repeat(2000))),
        _ if accepted == Some("gzip") => coded("gzip", &gzip(PAGE)),
        _ => html(PAGE),
    };
    let bed = Bed::new(REWRITE, move |asked| answer(asked.path(), asked.field("accept-encoding")));
    for version in ["--http1.1", "--http2"] {
        let got = bed.get("/", &[version, "-H", "Accept-Encoding: br, gzip;q=0.9"]);
        assert_eq!((&*got.text(), got.all("content-encoding").len()), (REWRITTEN, 0), "{got:?}");
        assert_eq!(bed.get("/?none", &[version]).text(), REWRITTEN);
        assert_eq!(bed.origin.request("/?none").field("accept-encoding"), Some("identity"));
        let long = bed.get("/long", &[version, "-H", "Accept-Encoding: gzip"]);
        assert!(long.whole && long.text() == REWRITTEN.repeat(2000));
        let cut = bed.get("/cut", &[version, "-H", "Accept-Encoding: gzip"]);
        assert!(!cut.whole, "{cut:?}");
        let stays = bed.get("/deflate", &[version, "-H", "Accept-Encoding: deflate"]);
        assert_eq!(
            (&*stays.text(), stays.all("content-encoding")),
            ("x\u{fffd} damaged, for all that pintle knows", vec!["deflate"])
        );
    }
    bed.pintle.logs("references stay: the content coding is unknown");
    let bed = Bed::with(REWRITE, "[site.compression]\nmin_size = \"1KiB\"\n", move |asked| {
        answer(asked.path(), asked.field("accept-encoding"))
    });
    let got = bed.get("/long", &["--compressed"]);
    assert_eq!(got.all("content-encoding").len(), 1, "{}", got.head);
    assert!(got.text() == REWRITTEN.repeat(2000));
}

#[test]
fn explained() {
    let bed = bed();
    let explain = |more: &[&str]| {
        let out = bed.pintle.command("explain").arg(format!("https://{BLOG}/")).args(more).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let text = explain(&["--response-header", "Content-Type: text/html", "--response-header", "ETag: \"a\""]);
    assert!(text.contains("references") && text.contains("rewritten") && text.contains("HTML"), "{text}");
    let text = explain(&["-H", "If-None-Match: \"a\"", "-H", "Range: bytes=0-1"]);
    for line in ["- If-None-Match: \"a\"; a tool of the site", "- Range: bytes=0-1; a tool of the site"] {
        assert!(text.contains(line), "{text}");
    }
}
