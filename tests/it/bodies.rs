//! Large bodies stream: nothing is buffered whole, and a slow end holds up only itself.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, output};

const GIB: u64 = 1 << 30;
const MEMORY_MAX: u64 = 64 << 20;

#[test]
fn a_gibibyte_each_way_in_little_memory() {
    let authority = Authority::new();
    let origin = Origin::start(|request| match request.path() {
        "/down" => Reply::Custom(Box::new(|socket| {
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")?;
            let piece = vec![b'x'; 1 << 20];
            (0..GIB >> 20).try_for_each(|_| socket.write_all(&piece))
        })),
        // The origin counts large bodies.
        _ => Reply::ok(&String::from_utf8(request.body.clone()).unwrap()),
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let large = authority.folder().join("large");
    File::create(&large).unwrap().set_len(GIB).unwrap();
    for version in ["--http1.1", "--http2"] {
        let mut down = pintle.curl();
        down.args([
            version,
            "--max-time",
            "120",
            "--output",
            "/dev/null",
            "--write-out",
            "%{size_download} %{http_code}",
        ]);
        assert_eq!(output(down.arg(format!("https://{BLOG}/down"))), format!("{GIB} 200"), "{version}");
        let mut up = pintle.curl();
        up.args([version, "--max-time", "120", "--upload-file"]).arg(&large);
        assert_eq!(output(up.arg(format!("https://{BLOG}/up"))), GIB.to_string(), "{version}");
    }
    let peak = pintle.peak_memory();
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
}

/// A client that does not read, and an origin that sends as fast as it can: memory stays where it is.
#[test]
fn back_pressure_reaches_the_origin() {
    let authority = Authority::new();
    let (sent, total) = std::sync::mpsc::channel();
    let sent = std::sync::Mutex::new(sent);
    let origin = Origin::start(move |_| {
        let sent = sent.lock().unwrap().clone();
        Reply::Custom(Box::new(move |socket| {
            write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {GIB}\r\n\r\n")?;
            socket.set_write_timeout(Some(Duration::from_secs(2)))?;
            let piece = vec![b'x'; 1 << 16];
            let mut count = 0;
            while let Ok(len) = socket.write(&piece) {
                count += len as u64;
            }
            let _ = sent.send(count);
            Ok(())
        }))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let count = total.recv_timeout(crate::harness::PATIENCE).unwrap();
    // What the sockets' buffers hold, and not much more.
    assert!(count < 64 << 20, "{} MiB", count >> 20);
    assert!(pintle.peak_memory() < MEMORY_MAX);
}

/// Answers that come piece by piece are passed on piece by piece.
#[test]
fn pieces_are_not_waited_for() {
    let authority = Authority::new();
    let (word, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let origin = Origin::start(move |_| {
        let wait = wait.lock().unwrap().take().unwrap();
        Reply::Custom(Box::new(move |socket| {
            socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
            let _ = wait.recv();
            socket.write_all(b"6\r\nsecond\r\n0\r\n\r\n")
        }))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    let mut seen = Vec::new();
    while !seen.windows(5).any(|w| w == b"first") {
        let mut buffer = [0; 1000];
        let len = connection.stream.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..len]);
    }
    word.send(()).unwrap();
    connection.received = seen;
    assert_eq!(connection.response("GET").text(), "firstsecond");
}

/// Sixteen uploads at once, whole and unmixed.
#[test]
fn many_uploads_at_once() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        Reply::ok(&format!(
            "{:016x}",
            request.body.iter().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)))
        ))
    });
    let pintle = Pintle::start(&authority, &blog(&authority, &origin));
    let threads: Vec<_> = (0..16u64)
        .map(|seed| {
            let body: Vec<u8> = (0..1_048_576u64).map(|n| (n.wrapping_mul(seed + 3) >> 7) as u8).collect();
            let want =
                format!("{:016x}", body.iter().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b))));
            let file = authority.write(&format!("upload-{seed}"), &body);
            let mut curl: Command = pintle.curl();
            curl.args([
                if seed % 2 == 0 { "--http1.1" } else { "--http2" },
                "--data-binary",
                &format!("@{}", file.display()),
            ]);
            curl.arg(format!("https://{BLOG}/{seed}"));
            thread::spawn(move || assert_eq!(output(&mut curl), want))
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}
