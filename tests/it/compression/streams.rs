//! Bodies that come bit by bit, break off, or are not read to their end; and too many at once.

use std::io::{Read, Write as _};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;

use super::{Bed, HTML, VERSIONS, chunked, read, text};
use crate::harness::{Authority, BLOG, Client, Origin, Pintle, Reply, blog, eventually};

/// An origin that sends a chunk whenever the test says so.
fn dripping(fields: &'static str) -> (Origin, Sender<Option<String>>) {
    let (say, heard) = channel::<Option<String>>();
    let heard: Arc<Mutex<Receiver<Option<String>>>> = Arc::new(Mutex::new(heard));
    let origin = Origin::start(move |_| {
        let heard = heard.clone();
        Reply::Custom(Box::new(move |socket| {
            socket.write_all(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n").as_bytes())?;
            while let Ok(Some(piece)) = heard.lock().unwrap().recv() {
                socket.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
            }
            socket.write_all(b"0\r\n\r\n")
        }))
    });
    (origin, say)
}

/// The chunks of a body, one after another.
struct Chunks<R>(R, usize);

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.1 == 0 {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") || line == b"\r\n" {
                if line == b"\r\n" {
                    line.clear();
                }
                let mut byte = [0];
                self.0.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            self.1 = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            if self.1 == 0 {
                return Ok(0);
            }
        }
        let most = into.len().min(self.1);
        let read = self.0.read(&mut into[..most])?;
        self.1 -= read;
        Ok(read)
    }
}

/// The client decodes each piece before the next one is sent: none waits for another.
#[test]
fn each_piece_can_be_read_when_it_was_sent() {
    let (origin, say) = dripping(HTML);
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.compression]\n"));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"));
    let pieces: Vec<String> = (0..20).map(|n| format!("<p>piece {n}</p>")).collect();
    say.send(Some(pieces[0].clone())).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(String::from_utf8(head).unwrap().contains("Content-Encoding: gzip\r\n"));
    let mut body = GzDecoder::new(Chunks(connection.stream, 0));
    for (n, piece) in pieces.iter().enumerate() {
        let mut got = vec![0; piece.len()];
        body.read_exact(&mut got).unwrap();
        assert_eq!(got, piece.as_bytes());
        say.send(pieces.get(n + 1).cloned()).unwrap();
    }
    assert_eq!(body.read(&mut [0; 10]).unwrap(), 0);
}

/// A body that breaks off never looks whole, whatever its coding.
#[test]
fn a_body_that_breaks_off_is_seen() {
    let origin = Origin::start(|received| {
        let Reply::Bytes(mut whole) = chunked(HTML, text(200_000).as_bytes(), 1000) else { unreachable!() };
        match received.path() {
            "/whole" => return Reply::Close(whole),
            "/length" => {
                let mut all = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n{HTML}\r\n").into_bytes();
                all.extend_from_slice(&text(200_000).as_bytes()[..150_000]);
                return Reply::Close(all);
            }
            "/early" => whole.truncate(300),
            _ => whole.truncate(150_000),
        }
        Reply::Close(whole)
    });
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &(blog(&authority, &origin) + "[site.compression]\n"));
    for version in VERSIONS.into_iter().chain(["--http1.0"]) {
        for coding in super::CODINGS {
            for (path, whole) in [("/whole", true), ("/length", false), ("/early", false), ("/middle", false)] {
                let mut curl = pintle.curl();
                curl.args([version, "--no-alpn", "--include", "-H", &format!("Accept-Encoding: {coding}")]);
                if version == "--http2" {
                    curl.arg("--alpn");
                }
                let got = read(curl.arg(format!("https://{BLOG}{path}")));
                assert_eq!(got.whole, whole, "{version} {coding} {path}");
                assert!(got.status == 0 || got.coding() == coding, "{version} {coding} {path}");
            }
        }
    }
}

/// Compressors are released with their clients, and while none is free, bodies pass as they are.
#[test]
fn load() {
    let bed = Bed::with("[limits]\ncompressors = 1\n", "", "");
    bed.page("/open", "open", HTML, &text(5000));
    bed.page("/", "200 OK", HTML, &text(100_000));
    assert_eq!(bed.accepting("--http1.1", "/", "gzip").coding(), "gzip");
    // A body that does not end holds the compressor of its worker; there may be several workers.
    let client = Client::new(&bed.authority);
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut connection = client.connect(bed.pintle.https(), BLOG);
        connection.send(format!("GET /open HTTP/1.1\r\nHost: {BLOG}\r\nAccept-Encoding: gzip;q=0.5\r\n\r\n"));
        let mut head = [0; 512];
        connection.stream.read_exact(&mut head).unwrap();
        let is_plain = !String::from_utf8_lossy(&head).contains("Content-Encoding");
        held.push(connection);
        if is_plain && (0..8).all(|_| bed.accepting("--http1.1", "/", "gzip").coding() == "identity") {
            break;
        }
    }
    let got = bed.accepting("--http1.1", "/", "gzip");
    assert_eq!((got.coding(), got.varies(), got.body.len()), ("identity", true, 100_000));
    let status = bed.pintle.status();
    assert!(status["limits_reached"].to_string().contains("compressors"), "{status}");
    drop(held);
    eventually("a free compressor", || (bed.accepting("--http1.1", "/", "gzip").coding() == "gzip").then_some(()));
}

#[test]
fn none_compresses() {
    let bed = Bed::with("[limits]\ncompressors = 0\n", "", "");
    bed.page("/", "200 OK", HTML, &text(100_000));
    let got = bed.accepting("--http2", "/", "br");
    assert_eq!((got.coding(), got.varies(), got.body.len()), ("identity", true, 100_000));
}
