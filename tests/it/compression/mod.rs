//! Compression of responses, through the front door: an origin that answers as the test says, curl as a client with
//! decoders that are not pintle's, and one that looks at each byte.

mod cached;
mod streams;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::harness::{Authority, BLOG, Origin, Pintle, Received, Reply, blog, eventually, output};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];
const HTML: &str = "Content-Type: text/html\r\n";

/// A response, as curl prints it.
#[derive(Debug, Clone)]
struct Got {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    whole: bool,
}

impl Got {
    fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    fn coding(&self) -> &str {
        self.field("content-encoding").unwrap_or("identity")
    }

    /// `true` if Vary has Accept-Encoding, once.
    fn varies(&self) -> bool {
        let names: Vec<&str> = self.all("vary").into_iter().flat_map(|list| list.split(", ")).collect();
        let count = names.iter().filter(|name| name.eq_ignore_ascii_case("accept-encoding")).count();
        assert!(count < 2, "{names:?}");
        count == 1
    }
}

type Pages = Arc<Mutex<HashMap<String, (&'static str, String, String)>>>;

/// An origin with pages that the test sets, and a pintle with compression in front of it.
struct Bed {
    authority: Authority,
    origin: Origin,
    pages: Pages,
    pintle: Pintle,
}

impl Bed {
    /// A bed with these lines in `[site.compression]`, and more tables of the site behind it.
    fn new(compression: &str, more: &str) -> Self {
        Self::with("", compression, more)
    }

    fn with(globals: &str, compression: &str, more: &str) -> Self {
        let pages = Pages::default();
        let served = pages.clone();
        let origin = Origin::start(move |received| answer(&served, received));
        let authority = Authority::new();
        let site = blog(&authority, &origin);
        let state = authority.folder().join("state");
        let config =
            format!("[state]\ndirectory = {state:?}\n{globals}{site}[site.compression]\n{compression}\n{more}");
        let pintle = Pintle::start(&authority, &config);
        Self { authority, origin, pages, pintle }
    }

    fn page(&self, path: &str, status: &'static str, fields: &str, body: &str) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, fields.to_owned(), body.to_owned()));
    }

    #[track_caller]
    fn get(&self, version: &str, path: &str, more: &[&str]) -> Got {
        let mut curl = self.pintle.curl();
        curl.args([version, "--include"]).args(more).arg(format!("https://{BLOG}{path}"));
        read(&mut curl)
    }

    /// With a coding that the client accepts.
    #[track_caller]
    fn accepting(&self, version: &str, path: &str, coding: &str) -> Got {
        self.get(version, path, &["-H", &format!("Accept-Encoding: {coding}")])
    }

    #[track_caller]
    fn last(&self, path: &str) -> Received {
        self.origin.received().into_iter().rev().find(|received| received.path() == path).expect(path)
    }

    fn count(&self, path: &str) -> usize {
        self.origin.received().iter().filter(|received| received.path() == path).count()
    }
}

#[track_caller]
fn read(curl: &mut Command) -> Got {
    let out = curl.output().unwrap();
    // A reset stream may take its head along.
    let at = out.stdout.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(out.stdout.len());
    assert!(at < out.stdout.len() || !out.status.success(), "{out:?}");
    let head = String::from_utf8_lossy(&out.stdout[..at]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
    let fields = lines.filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    Got { status, fields, body: out.stdout.get(at + 4..).unwrap_or_default().to_vec(), whole: out.status.success() }
}

/// Answers with the page of the path; with 304 if the request names its ETag byte for byte.
fn answer(pages: &Pages, received: &Received) -> Reply {
    let Some((status, fields, body)) = pages.lock().unwrap().get(received.path()).cloned() else {
        return Reply::new("404 Not Found", HTML, "no such page");
    };
    let tag = fields.lines().find_map(|line| line.strip_prefix("ETag: ")).map(str::trim);
    if let Some(tag) = tag.filter(|tag| received.field("if-none-match") == Some(*tag)) {
        return Reply::new("304 Not Modified", &format!("ETag: {tag}\r\n"), "");
    }
    if status == "open" {
        // It never ends by itself.
        return Reply::Custom(Box::new(move |socket| {
            socket.write_all(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n").as_bytes())?;
            socket.write_all(format!("{:x}\r\n{body}\r\n", body.len()).as_bytes())?;
            socket.read(&mut [0]).map(drop)
        }));
    }
    if status == "chunked" {
        return chunked(&fields, body.as_bytes(), 700);
    }
    if received.line().starts_with("HEAD") {
        let length = body.len();
        return Reply::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}\r\n").into_bytes());
    }
    Reply::new(status, &fields, &body)
}

fn chunked(fields: &str, body: &[u8], size: usize) -> Reply {
    let mut all = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n").into_bytes();
    for chunk in body.chunks(size) {
        all.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b"0\r\n\r\n");
    Reply::Bytes(all)
}

/// A page of this many bytes.
fn text(length: usize) -> String {
    let mut text = String::new();
    let mut n = 0_u64;
    while text.len() < length {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("<p>line {} of the page</p>\n", n >> 44));
    }
    text.truncate(length);
    text
}

#[test]
fn each_coding_is_what_curl_decodes() {
    let bed = Bed::new("", "");
    let more = format!("{HTML}ETag: \"x\"\r\nAccept-Ranges: bytes\r\nVary: Cookie\r\n");
    let sizes = [1024, 5000, 40_000, 3_000_000];
    for size in sizes {
        bed.page(&format!("/{size}"), "200 OK", &more, &text(size));
        bed.page(&format!("/chunked/{size}"), "chunked", &more, &text(size));
    }
    for version in VERSIONS {
        for coding in CODINGS {
            for (path, size) in
                sizes.iter().flat_map(|size| [(format!("/{size}"), size), (format!("/chunked/{size}"), size)])
            {
                let got = bed.accepting(version, &path, coding);
                let fields = &got.fields;
                assert_eq!((got.status, got.coding(), got.whole), (200, coding, true), "{version} {path}: {fields:?}");
                assert!(got.varies() && got.body.len() < size / 2, "{version} {path}: {} {fields:?}", got.body.len());
                assert_eq!((got.field("etag"), got.field("accept-ranges")), (Some("W/\"x\""), None));
                if let Some(length) = got.field("content-length") {
                    assert_eq!(length.parse::<usize>().unwrap(), got.body.len());
                }
                let decoded = bed.get(version, &path, &["--compressed", "-H", &format!("Accept-Encoding: {coding}")]);
                assert!(decoded.whole && decoded.body == text(*size).as_bytes(), "{version} {coding} {path}");
            }
            let (get, head) = (bed.accepting(version, "/3000000", coding), {
                let accept = format!("Accept-Encoding: {coding}");
                bed.get(version, "/3000000", &["--head", "-H", &accept])
            });
            let but_date = |got: &Got| -> Vec<(String, String)> {
                let own = |name: &str| ["date", "transfer-encoding"].contains(&name.to_lowercase().as_str());
                got.fields.iter().filter(|(name, _)| !own(name)).cloned().collect()
            };
            assert_eq!(but_date(&get), but_date(&head), "{version} {coding}");
        }
        let plain = bed.get(version, "/5000", &[]);
        assert_eq!((plain.coding(), plain.varies(), plain.field("etag")), ("identity", true, Some("\"x\"")));
        assert_eq!(plain.field("content-length"), Some("5000"));
        assert_eq!(plain.body, text(5000).into_bytes());
        let best = bed.accepting(version, "/5000", "gzip;q=0.5, deflate, zstd;q=0, br");
        assert_eq!(best.coding(), "br");
    }
    let found = eventually("its record", || {
        let records = bed.pintle.access();
        records.into_iter().rev().find(|one| one["target"] == "/40000" && one["coding"] == "gzip")
    });
    assert_eq!(found["uncompressed_bytes"], 40_000);
    assert!(found["bytes"].as_u64().unwrap() < 20_000, "{found}");
}

#[test]
fn what_does_not_gain_or_must_not_change_passes() {
    let bed = Bed::new("", "");
    let long = text(5000);
    let cases: &[(&str, &'static str, &str, &str, bool)] = &[
        ("/png", "200 OK", "Content-Type: image/png\r\n", &long, false),
        ("/none", "200 OK", "", &long, false),
        ("/small", "200 OK", HTML, "small", false),
        ("/encoded", "200 OK", "Content-Type: text/html\r\nContent-Encoding: gzip\r\n", &long, false),
        ("/no-transform", "200 OK", "Content-Type: text/html\r\nCache-Control: no-transform\r\n", &long, false),
        ("/digest", "200 OK", "Content-Type: text/html\r\nRepr-Digest: sha-256=:x:\r\n", &long, false),
        ("/signature", "200 OK", "Content-Type: text/html\r\nSignature: a=:x:\r\n", &long, false),
        ("/part", "206 Partial Content", "Content-Type: text/html\r\nContent-Range: bytes 0-4999/9\r\n", &long, false),
        ("/events", "200 OK", "Content-Type: text/event-stream\r\n", &long, false),
        ("/unbuffered", "200 OK", "Content-Type: text/html\r\nX-Accel-Buffering: no\r\n", &long, false),
        ("/cookie", "200 OK", "Content-Type: text/html\r\nSet-Cookie: a=b\r\n", &long, false),
        ("/missing", "404 Not Found", HTML, &long, true),
        ("/error", "500 Internal Server Error", HTML, &long, true),
        ("/star", "200 OK", "Content-Type: text/html\r\nVary: *\r\n", &long, true),
    ];
    for (path, status, fields, body, _) in cases {
        bed.page(path, status, fields, body);
    }
    for version in VERSIONS {
        for (path, _, fields, body, compresses) in cases {
            let got = bed.accepting(version, path, "br");
            let coding = match *compresses {
                true => "br",
                false if *path == "/encoded" => "gzip",
                false => "identity",
            };
            assert_eq!(got.coding(), coding, "{version} {path}");
            // The whole of a part would be compressed.
            assert_eq!(got.varies(), *compresses && *path != "/star" || *path == "/part", "{version} {path}");
            if !compresses {
                assert_eq!(got.body, body.as_bytes(), "{version} {path} {fields}");
                assert_eq!(got.field("content-length"), Some(body.len().to_string().as_str()), "{version} {path}");
            }
        }
        let star = bed.accepting(version, "/star", "br");
        assert_eq!(star.all("vary"), ["*"]);
        // By the request.
        for request in [["-H", "Range: bytes=0-9"], ["-H", "Cache-Control: no-transform"], ["--request", "PUT"]] {
            let got = bed.get(version, "/missing", &[&["-H", "Accept-Encoding: br"][..], &request].concat());
            assert_eq!((got.coding(), got.varies()), ("identity", true), "{version} {request:?}");
        }
    }
}

/// A site's own lists, and the order of its codings.
#[test]
fn the_site_says_what_and_how() {
    let bed = Bed::new("encodings = [\"gzip\", \"br\"]\nmin_size = \"4KiB\"\ntypes = [\"image/*\"]", "");
    bed.page("/png", "200 OK", "Content-Type: image/png\r\n", &text(5000));
    bed.page("/small", "200 OK", "Content-Type: image/png\r\n", &text(4095));
    bed.page("/html", "200 OK", HTML, &text(5000));
    let all = "gzip, br, zstd";
    assert_eq!(bed.accepting("--http1.1", "/png", all).coding(), "gzip");
    assert_eq!(bed.accepting("--http1.1", "/png", "zstd").coding(), "identity");
    assert_eq!(bed.accepting("--http1.1", "/small", all).coding(), "identity");
    assert_eq!(bed.accepting("--http1.1", "/html", all).coding(), "identity");
}

/// BREACH.
#[test]
fn personal_pages_are_not_compressed() {
    let bed = Bed::new("", "");
    let open = Bed::new("personal = true", "");
    for bed in [&bed, &open] {
        bed.page("/", "200 OK", HTML, &text(5000));
        bed.page("/public", "200 OK", &format!("{HTML}Cache-Control: public, max-age=5\r\n"), &text(5000));
        bed.page("/new", "200 OK", &format!("{HTML}Set-Cookie: session=1\r\n"), &text(5000));
    }
    let accept = ["-H", "Accept-Encoding: br"];
    for version in VERSIONS {
        for (field, path, coding) in [
            ("X: y", "/", "br"),
            ("Cookie: session=1", "/", "identity"),
            ("Cookie: _ga=1; theme=dark", "/", "identity"),
            ("Authorization: Basic eDp5", "/", "identity"),
            ("Cookie: _ga=1; _pk_id=2", "/", "br"),
            ("Cookie: session=1", "/public", "br"),
            ("X: y", "/new", "identity"),
        ] {
            let more = [&accept[..], &["-H", field]].concat();
            let got = bed.get(version, path, &more);
            assert_eq!(got.coding(), coding, "{version} {field} {path}");
            assert_eq!(got.varies(), path != "/new", "{version} {field} {path}");
            assert_eq!(open.get(version, path, &more).coding(), "br", "{version} {field} {path}");
        }
    }
}

/// The origin compares tags byte for byte, as many programs do.
#[test]
fn tags_come_back_as_the_origin_sent_them() {
    let bed = Bed::new("", "");
    bed.page("/strong", "200 OK", &format!("{HTML}ETag: \"x\"\r\n"), &text(5000));
    for version in VERSIONS {
        for coding in ["identity", "zstd", "br", "gzip"] {
            let accept = format!("Accept-Encoding: {coding}");
            let first = bed.get(version, "/strong", &["-H", &accept]);
            let tag = first.field("etag").unwrap();
            assert_eq!(tag, if coding == "identity" { "\"x\"" } else { "W/\"x\"" });
            let condition = format!("If-None-Match: {tag}");
            let second = bed.get(version, "/strong", &["-H", &accept, "-H", &condition]);
            assert_eq!(bed.last("/strong").field("if-none-match"), Some("\"x\""));
            assert_eq!(
                (second.status, second.field("etag"), second.varies()),
                (304, Some(tag), true),
                "{version} {coding}"
            );
            let condition = format!("If-Match: {tag}");
            bed.get(version, "/strong", &["-H", &accept, "-H", &condition]);
            assert_eq!(bed.last("/strong").field("if-match"), Some("\"x\""));
            // A weak tag names no range: the origin sends the whole body, which pintle leaves alone.
            let condition = format!("If-Range: {tag}");
            let got = bed.get(version, "/strong", &["-H", &accept, "-H", &condition, "-H", "Range: bytes=0-9"]);
            assert_eq!((got.coding(), got.body.len()), ("identity", 5000));
            assert_eq!(bed.last("/strong").field("if-range"), Some(tag));
        }
    }
    // The origin's own weak tags stay.
    let bed = Bed::new("", "");
    bed.page("/weak", "200 OK", &format!("{HTML}ETag: W/\"x\"\r\n"), &text(5000));
    assert_eq!(bed.accepting("--http2", "/weak", "br").field("etag"), Some("W/\"x\""));
    let got = bed.get("--http2", "/weak", &["-H", "Accept-Encoding: br", "-H", "If-None-Match: W/\"x\""]);
    assert_eq!((got.status, got.field("etag")), (304, Some("W/\"x\"")));
    assert_eq!(bed.last("/weak").field("if-none-match"), Some("W/\"x\""));
}

#[test]
fn the_upstream_gets_the_clients_list_and_its_own_coding_passes() {
    let bed = Bed::new("", "");
    bed.page("/", "200 OK", HTML, &text(5000));
    bed.accepting("--http1.1", "/", "gzip, br;q=0.1");
    assert_eq!(bed.last("/").field("accept-encoding"), Some("gzip, br;q=0.1"));
    // A site without the table is left alone.
    let (authority, origin) = (Authority::new(), Origin::start(|_| Reply::new("200 OK", HTML, &text(5000))));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut curl = pintle.curl();
    curl.args(["--include", "-H", "Accept-Encoding: br", "-H", "If-None-Match: W/\"x\""])
        .arg(format!("https://{BLOG}/"));
    let got = read(&mut curl);
    assert_eq!((got.coding(), got.varies(), got.body.len()), ("identity", false, 5000));
    assert_eq!(origin.request("/").field("if-none-match"), Some("W/\"x\""));
}

#[test]
fn explain_names_the_decision_and_its_line() {
    let bed = Bed::new("min_size = \"2KiB\"", "");
    let explain = |more: &[&str]| {
        let mut explain = bed.pintle.command("explain");
        explain.arg(format!("https://{BLOG}/")).args(more);
        let text = output(&mut explain);
        let at = text.find("\ncompression ").unwrap_or_else(|| panic!("{text}"));
        let line: Vec<&str> = text[at..].trim_start().split('[').next().unwrap().split_whitespace().collect();
        line.join(" ")
    };
    let accept = ["-H", "Accept-Encoding: br, gzip", "--response-header", "Content-Type: text/html"];
    assert_eq!(explain(&accept), "compression br; by Accept-Encoding and the order of encodings");
    let more = |field| [&accept[..], &["-H", field]].concat();
    assert!(explain(&more("Cookie: session=1")).starts_with("compression none; it may hold a secret"));
    assert!(explain(&accept[2..]).ends_with("the client accepts none of the encodings"));
    let small = [&accept[..], &["--response-header", "Content-Length: 2047"]].concat();
    assert!(explain(&small).ends_with("the body is smaller than min_size"));
    assert!(explain(&["-H", "Accept-Encoding: br"]).ends_with("the type is not in types"));
}
