//! Servers that want to write into the file, to command the terminal, or to keep init busy.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::server::{Blog, Stream};
use super::{active, conclusions, init};
use crate::harness::{Authority, BLOG, outcome};

const OWN: &str = "own.example.net";

fn blog(authority: &Authority, act: impl Fn(&mut dyn Stream) -> io::Result<()> + Send + Sync + 'static) -> Blog {
    Blog::start(authority, &[OWN], move |_, _, stream| act(stream))
}

fn page(fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{fields}\r\n{body}").into_bytes()
}

/// Text of a server is in comments only, on one line, without control characters.
#[test]
fn text_of_a_server_stays_a_comment() {
    const EVIL: &str = "\n[admin]\nlisten = \"127.0.0.1:9\"\r[x]\u{2028}\u{85}\u{1b}[31m\u{202e}\"\"\"'''\\";
    let authority = Authority::new();
    let bodies = [
        format!("<meta name=generator content=\"WordPress 6{EVIL}\"><img src='/wp-content/themes/x{EVIL}'>"),
        format!("<html data-ghost='{EVIL}'><meta name=generator content='Ghost 5{EVIL}'>"),
        format!("<link rel=alternate type=application/rss+xml href='/feed'><generator>Ghost {EVIL}</generator>"),
        format!("<script src='http://x/{EVIL}'></script><img src='http://y/{EVIL}'><form action='http://z{EVIL}'>"),
        format!("<link rel=canonical href='https://own.example.net/{EVIL}'><a href='https://own.example.net/{EVIL}'>"),
    ];
    let fields = [
        "X-Tumblr-User: \" # [admin]\tlisten = 'x'\r\n",
        "X-Tumblr-User: \u{e9}\u{2028}\u{202e}\u{85}\r\n",
        "Set-Cookie: a[\"=1; Domain=x\"y]\u{85}z\r\nSet-Cookie: b=1; Domain=\r\nSet-Cookie: =; domain\r\n",
        "Strict-Transport-Security: max-age=99999999999999999999999; includeSubDomains\r\n",
        "Content-Security-Policy: upgrade-insecure-requests\u{85}\r\nLink: <https://wp.me/\"> \\ '''\r\n",
    ];
    for (field, body) in fields.iter().flat_map(|field| bodies.iter().map(move |body| (*field, body))) {
        let response = page(field, body);
        let server = blog(&authority, move |stream| stream.write_all(&response));
        let (report, text) = conclusions(&mut init(&authority, &server, &format!("https://{OWN}/")));
        let listed: Vec<&str> = active(&text).into_iter().filter(|line| line.starts_with('[')).collect();
        assert_eq!(listed, ["[state]", "[[site]]", "[site.upstream_options]", "[site.hsts]"], "{text}");
        for note in report["notes"].as_array().unwrap() {
            let text = note["text"].as_str().unwrap();
            assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
        }
    }
}

/// Redirects in every form, to hosts that are no hosts.
#[test]
fn locations_of_every_form() {
    let authority = Authority::new();
    for location in [
        "https://evil.example/\u{1b}]0;x\u{7}",
        "https://evil.example/\u{e9}\u{2028}",
        "https://user:password@evil.example/",
        "https://[::1/",
        "//",
        "http://",
        "https://own.example.net:99999/",
        "https://blog.example.com.evil.example/\"]\\",
        "data:text/html,x",
        "",
    ] {
        let response = format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n").into_bytes();
        let server = blog(&authority, move |stream| stream.write_all(&response));
        let mut command = init(&authority, &server, &format!("https://{OWN}/"));
        let (report, _) = conclusions(&mut command);
        assert_eq!(
            (&report["platform"], &report["hosts"]),
            (&"unknown".into(), &serde_json::json!([BLOG])),
            "{location}"
        );
        let (code, out, err) = outcome(init(&authority, &server, &format!("https://{OWN}/")).arg("--dry-run"));
        assert_eq!(code, 0, "{err}");
        for text in [out, err] {
            assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "{text:?}");
        }
    }
}

/// Answers that are none: the site is unknown, the file is valid, and init ends in time.
#[test]
fn answers_that_are_none() {
    type Act = Box<dyn Fn(&mut dyn Stream) -> io::Result<()> + Send + Sync>;
    let endless = |head: &'static [u8], part: &'static [u8]| -> Act {
        Box::new(move |stream| {
            stream.write_all(head)?;
            loop {
                stream.write_all(part)?;
            }
        })
    };
    let fixed = |bytes: &'static [u8]| -> Act { Box::new(move |stream| stream.write_all(bytes)) };
    let slow = |head: &'static [u8]| -> Act {
        Box::new(move |stream| {
            stream.write_all(head)?;
            for _ in 0..120 {
                thread::sleep(Duration::from_secs(1));
                stream.write_all(b" ")?;
                stream.flush()?;
            }
            Ok(())
        })
    };
    let cases: Vec<(&str, Act)> = vec![
        ("nothing", fixed(b"")),
        ("garbage", fixed(b"\x16\x03\x01\x00\xff garbage \r\n\r\n")),
        ("half a head", fixed(b"HTTP/1.1 200 OK\r\nServer: Net")),
        ("control characters", fixed(b"HTTP/1.1 200 OK\r\nServer: Netlify\x00\x1b[31m\r\nContent-Length: 0\r\n\r\n")),
        ("two lengths", fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
        ("a wrong status", fixed(b"HTTP/1.1 999999 OK\r\n\r\n")),
        ("a body that is cut", fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<p>")),
        ("broken chunks", fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
        ("an endless body", endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", &[b'<'; 4096])),
        ("an endless head", endless(b"HTTP/1.1 200 OK\r\n", b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")),
        ("an endless line", endless(b"HTTP/1.1 200 OK\r\nX-A: ", &[b'a'; 4096])),
        ("endless interim answers", endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")),
        ("a slow head", slow(b"HTTP/1.1 200 OK\r\nX-A:")),
        ("a slow body", slow(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")),
    ];
    thread::scope(|scope| {
        for (name, act) in cases {
            scope.spawn(move || {
                let authority = Authority::new();
                let server = blog(&authority, act);
                let begin = Instant::now();
                let (report, text) = conclusions(&mut init(&authority, &server, &format!("https://{OWN}/")));
                assert_eq!(report["platform"], "unknown", "{name}: {report:#}");
                assert!(active(&text).contains(&"upstream = \"https://own.example.net\""), "{name}: {text}");
                assert!(begin.elapsed() < Duration::from_secs(60), "{name}: {:?}", begin.elapsed());
            });
        }
    });
}

/// Only the first 256 KiB of a body are read.
#[test]
fn bodies_are_bounded() {
    let authority = Authority::new();
    let body = format!("{}<meta name=generator content='Ghost 5'><p data-ghost>", " ".repeat(256 * 1024));
    let response = page("", &body);
    let server = blog(&authority, move |stream| stream.write_all(&response));
    let (report, _) = conclusions(&mut init(&authority, &server, &format!("https://{OWN}/")));
    assert_eq!(report["platform"], "unknown", "{report:#}");
}
