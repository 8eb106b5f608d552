//! HTTP/2 messages that are not what they have to be, or never all there: heads without end, bodies of another length than
//! they say, trailers that are none.

use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, bytes, fields, get};
use crate::failing::http2_faults::{Fault, Http2Upstream, body};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Origin, PATIENCE, Pintle, Reply, blog, blog_at, eventually};

const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
const PROTOCOL_ERROR: u32 = 1;

/// A head has its own time, however it trickles in, and whatever else is under way on its connection.
#[test]
fn heads_without_end() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/silent" => Reply::Custom(Box::new(|socket| std::io::Read::read(socket, &mut [0; 1]).map(drop))),
        _ => Reply::ok("hello"),
    });
    let limits = "[limits]\nrequest_header = \"2s\"\nidle = \"10m\"\n";
    let pintle = Pintle::start(&authority, &(limits.to_owned() + &blog(&authority, &origin)));
    let head = fields("GET", "/head");
    let whole = bytes(HEADERS, END_HEADERS | END_STREAM, 3, &head);
    // What begins the head, and what comes then, over and over.
    let cases = [
        ("no END_HEADERS, and nothing", bytes(HEADERS, END_STREAM, 3, &head), Vec::new()),
        ("no END_HEADERS, and half a frame", bytes(HEADERS, END_STREAM, 3, &head[..10]), vec![0, 0, 200]),
        (
            "CONTINUATION that trickles",
            [bytes(HEADERS, END_STREAM, 3, &head), bytes(CONTINUATION, END_HEADERS, 3, &[0; 200])[..9].to_vec()]
                .concat(),
            vec![0],
        ),
        ("half a payload", whole[..20].to_vec(), Vec::new()),
        ("a frame's head alone", whole[..9].to_vec(), Vec::new()),
    ];
    for (what, begin, more) in cases {
        for before in [Vec::new(), get(1, "/"), get(1, "/silent")] {
            let refused = || pintle.access().iter().filter(|line| line["status"] == 408).count();
            let count = refused();
            let mut raw = Raw::new(&authority, &pintle, &[]);
            raw.send(&before);
            raw.send(&begin);
            let start = Instant::now();
            while raw.over.is_none() {
                assert!(start.elapsed() < PATIENCE, "{what}: it goes on for ever");
                thread::sleep(Duration::from_millis(100));
                raw.send(&more);
            }
            assert_eq!(raw.over, Some(Some(ENHANCE_YOUR_CALM)), "{what}");
            assert!(start.elapsed() > Duration::from_millis(1500), "{what}: {:?}", start.elapsed());
            eventually(what, || (refused() == count + 1).then_some(()));
        }
    }
    // Heads that take their time, but end, one after another for longer than one may take.
    let mut raw = Raw::new(&authority, &pintle, &[]);
    for n in 0..5 {
        let path = format!("/slow-{n}");
        let head = fields("GET", &path);
        raw.send(&bytes(HEADERS, END_STREAM, 2 * n + 1, &head[..10]));
        thread::sleep(Duration::from_millis(700));
        raw.send(&bytes(CONTINUATION, END_HEADERS, 2 * n + 1, &head[10..]));
        assert_eq!(pintle.access_line(&path)["status"], 200);
    }
    assert_eq!(raw.over, None);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
}

fn post(path: &str, more: &str) -> Vec<u8> {
    let text = format!(":method: POST\n:scheme: https\n:authority: {BLOG}\n:path: {path}\n{more}");
    bytes(HEADERS, END_HEADERS, 1, &block(text.as_bytes()))
}

/// A request whose body is known to be wrong is not passed on.
#[test]
fn bodies_of_another_length() {
    let authority = Authority::new();
    let origin = Origin::start(|request| Reply::ok(&request.body.len().to_string()));
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let data = |end: bool, body: &str| bytes(DATA, if end { END_STREAM } else { 0 }, 1, body.as_bytes());
    let trailers = |text: &str| bytes(HEADERS, END_HEADERS | END_STREAM, 1, &block(text.as_bytes()));
    let cases = [
        ("0-and-more", "content-length: 0\n", vec![data(true, "abc")]),
        ("0-and-more-in-pieces", "content-length: 0\n", vec![data(false, ""), data(false, "a"), data(true, "")]),
        ("too-much", "content-length: 2\n", vec![data(true, "abc")]),
        ("too-much-in-pieces", "content-length: 4\n", vec![data(false, "abc"), data(true, "de")]),
        ("too-little", "content-length: 4\n", vec![data(true, "abc")]),
        ("too-little-and-trailers", "content-length: 4\n", vec![data(false, "abc"), trailers("x-test: 1\n")]),
        ("a-path-in-trailers", "", vec![data(false, "abc"), trailers(":path: /x\n")]),
        (
            "a-status-in-trailers",
            "content-length: 3\n",
            vec![data(false, "abc"), trailers("x-test: 1\n:status: 200\n")],
        ),
    ];
    for (what, length, frames) in &cases {
        let path = format!("/{what}");
        let mut raw = Raw::new(&authority, &pintle, &[]);
        raw.send(&[post(&path, length), frames.concat()].concat());
        assert_eq!(pintle.access_line(&path)["status"], 400, "{what}");
        raw.until(what, |raw| (raw.resets == [(1, PROTOCOL_ERROR)]).then_some(()));
        // The connection goes on.
        raw.send(&get(3, &format!("{path}/after")));
        assert_eq!(pintle.access_line(&format!("{path}/after"))["status"], 200, "{what}");
    }
    // A body of no length is waited for, and is forwarded once it is certain that there is none.
    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&post("/late", "content-length: 0\n"));
    thread::sleep(Duration::from_millis(300));
    raw.send(&data(true, "abc"));
    assert_eq!(pintle.access_line("/late")["status"], 400);
    for (path, frames) in [("/none", vec![data(true, "")]), ("/none-twice", vec![data(false, ""), data(true, "")])] {
        let mut raw = Raw::new(&authority, &pintle, &[]);
        raw.send(&post(path, "content-length: 0\n"));
        thread::sleep(Duration::from_millis(100));
        raw.send(&frames.concat());
        assert_eq!(pintle.access_line(path)["status"], 200);
    }
    let wrong = |path: &str| path == "/late" || cases.iter().any(|(what, ..)| path == format!("/{what}"));
    assert!(origin.received().iter().all(|r| !wrong(r.path())), "{:?}", origin.received());
    assert!(origin.connections() <= 2, "nothing has begun and was broken off: there is one for each worker");
}

/// One that never ends is refused when its time is up, as any body that does not come.
#[test]
fn a_body_of_no_length_that_does_not_end() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle =
        Pintle::start(&authority, &("[limits]\nbody_progress = \"1s\"\n".to_owned() + &blog(&authority, &origin)));
    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&post("/endless", "content-length: 0\n"));
    assert_eq!(pintle.access_line("/endless")["status"], 408);
    assert!(origin.received().is_empty());
}

/// Pseudo-fields in an upstream's trailers are an error of that stream: the body does not look whole.
#[test]
fn trailers_of_upstreams() {
    let authority = Authority::new();
    let upstream = Http2Upstream::start(&authority.leaf("upstream", &["up.example.net"]));
    let site = blog_at(&authority, "https://up.example.net")
        + &format!("[site.upstream_options]\nconnect = \"{}\"\nca = {:?}\n", upstream.address, authority.ca_path());
    let pintle = Pintle::start(&authority, &site);
    for (what, lines, whole) in [
        ("fields", "x-test: 1\n", true),
        ("a status", ":status: 200\nx-test: 1\n", false),
        ("a path", ":path: /\n", false),
    ] {
        upstream.fail(Fault::TrailersOf(lines), 1);
        let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nConnection: close\r\n\r\n"));
        let response = crate::harness::read_response(&mut connection, "GET");
        assert_eq!(response.is_ok_and(|r| r.body == body()), whole, "{what}");
    }
}
