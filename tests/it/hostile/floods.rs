//! Frames of HTTP/2 by the million.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, bytes, fields, get,
};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually};

const PRIORITY: u8 = 2;
const CONTINUATION: u8 = 9;

/// More than a flood may bring before it is ended.
const FLOOD_MAX: usize = 64 << 20;
const MEMORY_MAX: u64 = 96 << 20;

/// A second client, whose requests are answered all the while.
struct Bystander<'a> {
    done: &'a AtomicBool,
}

impl Bystander<'_> {
    fn run(self, authority: &Authority, pintle: &Pintle) -> usize {
        let mut connection = Client::new(authority).connect(pintle.https(), BLOG);
        let mut answered = 0;
        while !self.done.load(Ordering::Relaxed) || answered < 3 {
            let begin = Instant::now();
            assert_eq!(connection.get(BLOG, "/bystander").status, 200);
            assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
            answered += 1;
            thread::sleep(Duration::from_millis(5));
        }
        answered
    }
}

/// Sends pieces until the connection is ended, beside a client that means well; gives how many bytes that took, and
/// the error code.
fn flood(
    authority: &Authority,
    pintle: &Pintle,
    begin: &[u8],
    mut piece: impl FnMut(u32) -> Vec<u8>,
) -> (usize, Option<u32>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let bystander = scope.spawn(|| Bystander { done: &done }.run(authority, pintle));
        let mut raw = Raw::new(authority, pintle, &[]);
        raw.send(begin);
        let (mut sent, mut n) = (0, 0);
        while raw.over.is_none() && sent < FLOOD_MAX {
            let mut batch = Vec::new();
            while batch.len() < 32 * 1024 {
                batch.extend(piece(n));
                n += 1;
            }
            raw.send(&batch);
            sent += batch.len();
        }
        done.store(true, Ordering::Relaxed);
        assert!(bystander.join().unwrap() >= 3);
        (sent, raw.over.flatten())
    })
}

#[test]
fn floods_of_frames_end_their_connection() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let pintle = Pintle::start(&authority, &(state + &blog(&authority, &origin)));
    let open = bytes(HEADERS, END_HEADERS, 1, &fields("POST", "/flood"));
    let unfinished = bytes(HEADERS, END_STREAM, 1, &fields("GET", "/flood"));
    type Piece = Box<dyn FnMut(u32) -> Vec<u8>>;
    let floods: Vec<(&str, Vec<u8>, Piece)> = vec![
        ("pings", vec![], Box::new(|_| bytes(PING, 0, 0, &[0; 8]))),
        ("settings", vec![], Box::new(|_| bytes(SETTINGS, 0, 0, &[]))),
        ("settings that change", vec![], Box::new(|n| bytes(SETTINGS, 0, 0, &[0, 4, 0, 0, n as u8, 0]))),
        ("priorities", vec![], Box::new(|n| bytes(PRIORITY, 0, 2 * (n % 1000) + 1, &[0, 0, 0, 0, 1]))),
        ("windows of one byte", vec![], Box::new(|_| bytes(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("frames of no known kind", vec![], Box::new(|_| bytes(0x42, 0, 0, &[0; 20]))),
        ("empty data", open.clone(), Box::new(|_| bytes(DATA, 0, 1, &[]))),
        ("data of one byte, and padding", open, Box::new(|_| bytes(DATA, 8, 1, &[&[254][..], &[0; 255]].concat()))),
        ("continuation", unfinished.clone(), Box::new(|_| bytes(CONTINUATION, 0, 1, &[]))),
        ("continuation with fields", unfinished, Box::new(|_| bytes(CONTINUATION, 0, 1, &block(b"x-a: b\n")))),
        (
            "streams that are reset at once",
            vec![],
            Box::new(|n| [get(2 * n + 1, "/reset"), bytes(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()),
        ),
        (
            "streams that are reset by windows of nothing",
            vec![],
            Box::new(|n| [get(2 * n + 1, "/reset"), bytes(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat()),
        ),
        (
            "requests that are none",
            vec![],
            Box::new(|n| bytes(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block(b":method: GET\nA: b\n"))),
        ),
    ];
    let counted = || pintle.status()["counters"]["http2_floods"].as_u64().unwrap();
    for (what, begin, piece) in floods {
        let floods_before = counted();
        let before = origin.received().iter().filter(|r| r.path() != "/bystander").count();
        let (sent, code) = flood(&authority, &pintle, &begin, piece);
        let passed = origin.received().iter().filter(|r| r.path() != "/bystander").count() - before;
        println!("{what}: ended after {} KiB ({code:?}), {passed} requests upstream", sent / 1024);
        assert!(sent < FLOOD_MAX, "{what}: never ended");
        assert!(passed <= 1500, "{what}: {passed} requests upstream");
        // ENHANCE_YOUR_CALM, whether pintle or h2 has noticed the flood.
        if code == Some(11) {
            eventually(&format!("{what}: counted"), || (counted() > floods_before).then_some(()));
        }
    }
    // Libraries log for their authors, and a client chooses how often.
    assert!(!pintle.log().contains("reached limit"), "{}", pintle.log());
    let peak = pintle.peak_memory();
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
}

/// Each stream is given up only when the upstream has heard of it.
#[test]
fn streams_that_are_given_up_one_after_another() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/wait" => Reply::Custom(Box::new(|socket| socket.read(&mut [0; 1]).map(drop))),
        _ => Reply::ok("fine"),
    });
    let config = "[limits]\nhttp2_resets = 30\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    let mut raw = Raw::new(&authority, &pintle, &[]);
    let mut streams = 0;
    while raw.over.is_none() && streams < 1000 {
        let stream = 2 * streams + 1;
        raw.send(&[get(stream, "/wait"), bytes(PING, 0, 0, &[0; 8])].concat());
        let wanted = streams as usize + 1;
        raw.until("an answer", |raw| (raw.acknowledged >= wanted || raw.over.is_some()).then_some(()));
        raw.send(&bytes(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        streams += 1;
    }
    let calm = raw.until("the end", |raw| raw.over);
    assert_eq!(calm, Some(11), "ENHANCE_YOUR_CALM");
    assert!((30..=40).contains(&streams), "{streams}");
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").text(), "fine");
}

/// A field of four kilobytes, named a thousand times with one byte each.
#[test]
fn fields_that_grow_when_they_are_unpacked() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let before = pintle.memory();
    let mut raw = Raw::new(&authority, &pintle, &[]);
    // RFC 7541 section 6.2.1: with incremental indexing; then section 6.1: the first of the dynamic table.
    let mut bomb = fields("GET", "/bomb");
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend([b'y'; 4000]);
    bomb.extend([0x80 | 62; 4000]);
    for n in 0..100 {
        raw.send(&bytes(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &bomb));
    }
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    assert!(origin.received().iter().all(|r| r.path() != "/bomb"));
    let grown = pintle.memory().saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB", grown >> 20);
}
