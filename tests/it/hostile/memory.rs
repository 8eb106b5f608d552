//! `connection_memory`: what one connection can make pintle hold.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::{END_HEADERS, END_STREAM, HEADERS, Raw, WINDOW_UPDATE, bytes, fields, get};
use crate::fuzz::targets::http2::block;
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually, outcome, pintle};

const STREAMS: u32 = 128;
/// More than h2 gathers for one stream (400 KiB).
const BODY: usize = 600_000;
/// The default of `connection_memory`, and what the allocator and a debug build's state machines take besides.
const HELD_MAX: u64 = (8 << 20) + (6 << 20);

/// The body of a stream: no two look alike.
fn body(stream: u32) -> Vec<u8> {
    (0..BODY as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ stream as u8).collect()
}

/// An origin whose answers are [`body`] of the number that the path is; and what it has written.
fn origin() -> (Origin, Arc<AtomicU64>) {
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let origin = Origin::forgetful(move |request| {
        let (path, count) = (request.path().to_owned(), count.clone());
        Reply::Custom(Box::new(move |socket| {
            let Ok(stream) = path[1..].parse() else { return socket.write_all(b"HTTP/1.1 204 No\r\n\r\n") };
            socket.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").as_bytes())?;
            for piece in body(stream).chunks(8192) {
                socket.write_all(piece)?;
                count.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            Ok(())
        }))
    });
    (origin, written)
}

/// Waits until nothing more is read from the upstream.
fn settled(written: &AtomicU64) {
    let mut before = 0;
    eventually("the upstream is not read any more", || {
        thread::sleep(Duration::from_secs(1));
        let now = written.load(Ordering::SeqCst);
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
}

/// All windows are wide open, all streams ask for much, and nobody reads; and then somebody does.
#[test]
fn answers_that_are_not_read() {
    let authority = Authority::new();
    let (origin, written) = origin();
    // One worker: each has its own buffers for reading.
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = "[limits]\nbody_progress = \"10m\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start_with(&authority, listen, &config);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/warm").status, 204);
    let before = pintle.memory();
    // INITIAL_WINDOW_SIZE
    let mut raw = Raw::new(&authority, &pintle, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
    raw.bodies = Some(Default::default());
    let mut all = bytes(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    all.extend((0..STREAMS).flat_map(|n| get(2 * n + 1, &format!("/{}", 2 * n + 1))));
    raw.connection.send(all);
    settled(&written);
    let held = pintle.memory().saturating_sub(before);
    println!("held: {} KiB", held / 1024);
    assert!(held < HELD_MAX, "{} KiB", held / 1024);
    // Much of the rest is in the kernel's buffers; but not all has gone out.
    assert!(pintle.access().len() < STREAMS as usize / 2, "{}", pintle.access().len());
    // Others do not notice.
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/other").status, 204);
    raw.until("all bodies", |raw| {
        assert_eq!((raw.over, raw.resets.len()), (None, 0));
        let whole = raw.bodies.iter().flatten().filter(|(_, body)| body.len() == BODY).count();
        (whole == STREAMS as usize).then_some(())
    });
    for (stream, got) in raw.bodies.iter().flatten() {
        assert!(*got == body(*stream), "stream {stream}");
    }
}

/// Windows that are shut: each stream holds one piece, and those that are opened go on.
#[test]
fn streams_that_are_held_shut_hold_up_no_others() {
    let authority = Authority::new();
    let (origin, written) = origin();
    let config = "[limits]\nbody_progress = \"10m\"\n".to_owned() + &blog(&authority, &origin);
    let pintle = Pintle::start(&authority, &config);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/warm").status, 204);
    let before = pintle.memory();
    let mut raw = Raw::new(&authority, &pintle, &[0, 4, 0, 0, 0, 0]);
    raw.bodies = Some(Default::default());
    let mut all = bytes(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]);
    all.extend((0..STREAMS).flat_map(|n| get(2 * n + 1, &format!("/{}", 2 * n + 1))));
    raw.send(&all);
    settled(&written);
    let held = pintle.memory().saturating_sub(before);
    println!("held: {} KiB", held / 1024);
    assert!(held < HELD_MAX, "{} KiB", held / 1024);
    for stream in [1, 2 * STREAMS - 1] {
        raw.send(&bytes(WINDOW_UPDATE, 0, stream, &[0x7f, 0, 0, 0]));
        raw.until("the body of the stream that is read", |raw| {
            raw.bodies.iter().flatten().any(|(s, body)| *s == stream && body.len() == BODY).then_some(())
        });
        assert!(raw.bodies.iter().flatten().all(|(s, got)| *s != stream || *got == body(stream)));
    }
}

/// Requests with large heads, while the upstream says nothing: some are held, the others may be tried again.
#[test]
fn heads_that_take_up_room() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/wait" => Reply::Custom(Box::new(|socket| socket.read(&mut [0; 1]).map(drop))),
        _ => Reply::ok("fine"),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut raw = Raw::new(&authority, &pintle, &[]);
    let begin = format!(":method: GET\n:scheme: https\n:authority: {BLOG}\n:path: /wait\n");
    // Below 16 KiB, so that one frame holds it.
    let large = block((begin + &format!("x-large: {}\n", "x".repeat(15_000))).as_bytes());
    for n in 0..STREAMS - 1 {
        raw.send(&bytes(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &large));
    }
    raw.until("streams are refused", |raw| (raw.resets.len() > 60).then_some(()));
    assert!(raw.resets.iter().all(|(_, code)| *code == 7), "{:?}", raw.resets);
    // An ordinary request finds its place.
    let small = bytes(HEADERS, END_HEADERS | END_STREAM, 2 * STREAMS + 1, &fields("GET", "/small"));
    raw.send(&small);
    assert_eq!(pintle.access_line("/small")["status"], 200);
    let held = eventually("the others wait", || {
        let held = origin.received().iter().filter(|r| r.path() == "/wait").count();
        (held + raw.resets.len() == STREAMS as usize - 1).then_some(held)
    });
    assert!((20..60).contains(&held), "{held}");
}

#[test]
fn less_than_what_is_needed_is_refused() {
    let check = |limits: &str, want: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pintle.toml");
        std::fs::write(&path, format!("[limits]\n{limits}\n")).unwrap();
        let (_, out, err) = outcome(pintle().args(["check", "-c"]).arg(&path));
        let said = out + &err;
        assert_eq!(said.contains("connection_memory"), want.is_some(), "{said}");
        assert!(said.contains(want.unwrap_or_default()), "{said}");
    };
    check("connection_memory = \"4MiB\"", Some("must be at least 4,736 KiB"));
    check("connection_memory = \"4MiB\"\nhttp2_streams = 32", None);
    // What is not given follows.
    check("http2_streams = 10000", None);
}
