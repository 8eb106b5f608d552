//! HTTP/2 upstreams that fail, by either version of HTTP to the client: each answer is exact or visibly broken, the next
//! one on the client's connection is right, and in the end nothing is left over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio_rustls::TlsConnector;

use super::faults::Seen;
use super::http2_faults::{Fault, Http2Upstream, body, garbage};
use super::{assert_no_leaks, open_at_first, seen, state};
use crate::fuzz::targets::http2::block;
use crate::harness::http2_frame::{DATA, HEADERS, PING, SETTINGS, bytes};
use crate::harness::{Authority, BLOG, Client, Connection, PATIENCE, Pintle, blog_at, eventually};

/// The required outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// Sent once more where need be, and whole.
    Whole,
    /// 502 to 504, or broken off.
    Failed,
    /// Either.
    Honest,
}
use Want::{Failed, Honest, Whole};

struct Setting {
    authority: Authority,
    upstream: Http2Upstream,
    pintle: Pintle,
    runtime: tokio::runtime::Runtime,
}

impl Setting {
    fn new() -> Self {
        let authority = Authority::new();
        let upstream = Http2Upstream::start(&authority.leaf("upstream", &["up.example.net"]));
        let config = "[limits]\nbody_progress = \"2s\"\nupstream_idle = \"2s\"\n".to_owned()
            + &state(&authority)
            + &blog_at(&authority, "https://up.example.net")
            + &format!(
                "[site.upstream_options]\nconnect = \"{}\"\nca = {:?}\nresponse_timeout = \"3s\"\nconnect_timeout = \"3s\"\n",
                upstream.address,
                authority.ca_path()
            )
            + "[site.circuit_breaker]\nfailures = 0\n";
        // One worker: all clients share its connections.
        let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
        let pintle = Pintle::start_with(&authority, listen, &config);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { authority, upstream, pintle, runtime }
    }

    /// Each fault, for a GET and a POST, by HTTP/1.1 and HTTP/2, with a good request behind it on the same connection.
    fn check(&self, faults: impl IntoIterator<Item = (String, Fault, usize, Want)>) {
        let before = open_at_first(&self.pintle);
        let client = Client::new(&self.authority);
        let mut http1 = None;
        let sender = self.runtime.block_on(connect(&self.authority, &self.pintle));
        for (what, fault, times, want) in faults {
            for upload in [false, true] {
                // Each request that came brought its body.
                let whole = |(requests, right): (usize, usize)| {
                    let (all, all_right) = (self.upstream.requests(), self.upstream.right());
                    let lost = (all - requests) - (all_right - right);
                    assert!(lost == 0 || !upload || want != Whole, "{what}: {lost} requests that have lost their body");
                };
                let before = (self.upstream.requests(), self.upstream.right());
                self.upstream.fail(fault.clone(), times);
                let mut open = http1.take().unwrap_or_else(|| client.connect(self.pintle.https(), BLOG));
                let (seen, goes_on) = ask(&mut open, upload, &what);
                judge(&format!("{what}, HTTP/1.1, upload {upload}"), &seen, want);
                whole(before);
                self.upstream.fail(Fault::None, 0);
                if goes_on {
                    judge(&format!("after {what}, HTTP/1.1"), &ask(&mut open, false, &what).0, Whole);
                    http1 = Some(open);
                }
                let before = (self.upstream.requests(), self.upstream.right());
                self.upstream.fail(fault.clone(), times);
                let seen = self.ask_http2(&sender, upload, &what);
                judge(&format!("{what}, HTTP/2, upload {upload}"), &seen, want);
                whole(before);
                self.upstream.fail(Fault::None, 0);
                let next = self.ask_http2(&sender, false, &what);
                judge(&format!("after {what}, HTTP/2"), &next, Whole);
            }
        }
        drop((http1, client, sender));
        assert_eq!(self.upstream.wrong(), 0, "uploads that have changed on their way");
        eventually("all connections to the upstream are closed", || {
            (self.upstream.open.load(Ordering::SeqCst) == 0).then_some(())
        });
        assert_no_leaks(&self.pintle, &before);
    }

    fn ask_http2(&self, sender: &SendRequest<Bytes>, upload: bool, what: &str) -> Seen {
        self.runtime.block_on(async {
            let asked = tokio::time::timeout(PATIENCE * 3, stream(sender.clone(), upload));
            asked.await.unwrap_or_else(|_| panic!("{what}: hangs"))
        })
    }
}

#[track_caller]
fn judge(what: &str, seen: &Seen, want: Want) {
    let body = body();
    let whole = match seen {
        Seen::Whole(200, got) => {
            assert!(*got == body, "{what}: {} bytes instead of {}", got.len(), body.len());
            true
        }
        Seen::Whole(502..=504, _) => false,
        Seen::Whole(status, _) => panic!("{what}: status {status}"),
        Seen::Broken(got) => {
            assert!(body.starts_with(got) || got.starts_with(b"flood"), "{what}: wrong bytes before the break");
            false
        }
    };
    assert!(want == Honest || whole == (want == Whole), "{what}: {seen:.0?}");
}

/// By HTTP/1.1; gives what came, and whether the connection may be used further.
fn ask(connection: &mut Connection, upload: bool, what: &str) -> (Seen, bool) {
    let body = if upload { body() } else { Vec::new() };
    let (method, length) =
        if upload { ("POST", format!("Content-Length: {}\r\n", body.len())) } else { ("GET", String::new()) };
    let head = format!("{method} / HTTP/1.1\r\nHost: {BLOG}\r\n{length}\r\n");
    let _ = connection.stream.write_all(&[head.as_bytes(), &body].concat());
    seen(connection, method, &what)
}

/// A client of large windows: h2 has more patience with small frames then, and some of these answers have them.
async fn connect(authority: &Authority, pintle: &Pintle) -> SendRequest<Bytes> {
    let mut config = Client::config(authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = tokio::net::TcpStream::connect(pintle.https()).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(BLOG.try_into().unwrap(), socket).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(tls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

async fn stream(sender: SendRequest<Bytes>, upload: bool) -> Seen {
    let mut sender = sender.ready().await.expect("one stream's fault leaves the connection as it is");
    let method = if upload { "POST" } else { "GET" };
    let request = http::Request::builder().method(method).uri(format!("https://{BLOG}/")).body(()).unwrap();
    let (response, mut send) = sender.send_request(request, !upload).expect("the connection is open");
    if upload {
        // It fits into the window.
        let _ = send.send_data(body().into(), true);
    }
    let Ok(response) = response.await else { return Seen::Broken(Vec::new()) };
    let status = response.status().as_u16();
    let mut recv = response.into_body();
    let mut got = Vec::new();
    while let Some(data) = recv.data().await {
        let Ok(data) = data else { return Seen::Broken(got) };
        let _ = recv.flow_control().release_capacity(data.len());
        got.extend_from_slice(&data);
    }
    match recv.trailers().await {
        Ok(_) => Seen::Whole(status, got),
        Err(_) => Seen::Broken(got),
    }
}

#[test]
fn streams_and_connections_that_end() {
    let setting = Setting::new();
    let mut faults = vec![
        ("nothing".to_owned(), Fault::None, 0, Whole),
        // What was not processed is sent once more, with its body.
        ("refused once".to_owned(), Fault::Reset(7, None), 1, Whole),
        ("refused again and again".to_owned(), Fault::Reset(7, None), 9, Whole),
        ("refused for ever".to_owned(), Fault::Reset(7, None), usize::MAX, Failed),
        ("gone away, unprocessed, once".to_owned(), Fault::GoAwayUnprocessed, 1, Whole),
        ("gone away, unprocessed, again and again".to_owned(), Fault::GoAwayUnprocessed, 9, Whole),
        ("gone away for an error, unprocessed, once".to_owned(), Fault::GoAwayUnprocessedFor(2), 1, Whole),
        ("gone away, unprocessed, for ever".to_owned(), Fault::GoAwayUnprocessed, usize::MAX, Failed),
        // An upstream that has begun to answer has processed it, whatever it says.
        ("refused behind a head".to_owned(), Fault::Reset(7, Some(0)), 1, Failed),
        ("refused behind a hint".to_owned(), Fault::HintThenReset(7), 1, Failed),
        ("goes away behind this one".to_owned(), Fault::GoAwayThenWhole, 1, Whole),
        ("goes away with an error".to_owned(), Fault::GoAwayInBody, 99, Failed),
        ("goes away and is silent".to_owned(), Fault::GoAwayThenSilent, 99, Failed),
        ("a short body".to_owned(), Fault::Short, 99, Failed),
        ("silence".to_owned(), Fault::Silent, 99, Failed),
        ("a halt".to_owned(), Fault::Stall, 99, Failed),
        ("a head that is not finished".to_owned(), Fault::UnfinishedHead, 99, Failed),
    ];
    for code in [0, 1, 2, 8, 11, 13, 99] {
        faults.push((format!("reset {code} instead of a head"), Fault::Reset(code, None), 99, Failed));
        faults.push((format!("reset {code} in the body"), Fault::Reset(code, Some(7000)), 99, Failed));
    }
    // A reset of the connection may come behind all of it.
    for at in [0, 1, 8, 9, 10, 22, 23, 30, 5000, 16_402, 16_403, 20_000] {
        faults.push((format!("cut at {at}"), Fault::Cut(at, false), 99, Failed));
        faults.push((format!("cut at {at} by a reset"), Fault::Cut(at, true), 99, Failed));
    }
    setting.check(faults);
}

#[test]
fn responses_that_are_none() {
    let setting = Setting::new();
    let mut faults: Vec<(String, Fault, usize, Want)> = Vec::new();
    for (what, bytes) in garbage() {
        faults.push((what.to_owned(), Fault::Bytes(bytes), 99, Failed));
    }
    for length in ["19999", "20001", "1", "0x4e20", "-1", "20000, 20001", "", "99999999999999999999"] {
        faults.push((format!("content-length: {length}"), Fault::Length(length), 99, Failed));
    }
    for lines in [
        "",
        "x-test: 1\n",
        ":status: 99\n",
        ":status: 1000\n",
        ":status: abc\n",
        ":status: 101\n",
        ":status: 200\n:status: 200\n",
        "x-test: 1\n:status: 200\n",
        ":status: 200\nX-Test: 1\n",
        ":status: 200\nconnection: close\n",
        ":status: 200\ntransfer-encoding: chunked\n",
        ":status: 200\nx-test: a\rb\n",
    ] {
        faults.push((format!("the head {lines:?}"), Fault::Head(lines.to_owned()), 99, Failed));
    }
    faults.extend([
        ("a large head".to_owned(), Fault::LargeHead(200_000), 99, Failed),
        ("a huge head".to_owned(), Fault::LargeHead(2_000_000), 99, Failed),
        ("a head that grows when it is unpacked".to_owned(), Fault::Bomb(3000), 99, Failed),
        ("trailers that do not end".to_owned(), Fault::TrailersGoOn, 99, Failed),
        // What is strange, and right all the same.
        ("trailers".to_owned(), Fault::Trailers, 99, Whole),
        ("padded pieces".to_owned(), Fault::Pieces(300, true), 99, Whole),
        ("small pieces".to_owned(), Fault::Pieces(300, false), 99, Whole),
        ("pieces of one byte".to_owned(), Fault::Pieces(1, false), 99, Honest),
        ("more behind the end".to_owned(), Fault::Extra, 99, Whole),
        ("an early answer".to_owned(), Fault::Early, 99, Honest),
        ("no window for bodies".to_owned(), Fault::NoWindow, 99, Honest),
    ]);
    setting.check(faults);
}

#[test]
fn floods() {
    let setting = Setting::new();
    let hints = block(b":status: 103\nlink: </a.css>\n");
    let floods = [
        ("settings", bytes(SETTINGS, 0, 0, &[]), false),
        ("settings that change", bytes(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]), false),
        ("pings", bytes(PING, 0, 0, &[0; 8]), false),
        ("frames of no known kind", bytes(0x42, 0, 0, &[0; 20]), false),
        ("interim responses", bytes(HEADERS, 4, 1, &hints), false),
        ("continuation", [bytes(HEADERS, 0, 1, &[0x88]), bytes(9, 0, 1, &[]).repeat(5000)].concat(), false),
        ("empty data", bytes(DATA, 0, 1, &[]), true),
        ("pings in a body", bytes(PING, 0, 0, &[0; 8]), true),
    ];
    let before = setting.pintle.peak_memory();
    setting.check(floods.map(|(what, frames, in_body)| {
        let fault = if in_body { Fault::FloodInBody(frames) } else { Fault::Flood(frames) };
        (what.to_owned(), fault, 99, Failed)
    }));
    let grown = setting.pintle.peak_memory() - before;
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < 48 << 20, "{} MiB", grown >> 20);
}

/// A client that does not read delays no other, though all share one connection to the upstream.
#[test]
fn one_client_that_does_not_read() {
    const STREAMS: usize = 60;
    let setting = Setting::new();
    setting.upstream.fail(Fault::Ahead, STREAMS);
    let stubborn = async {
        let mut sender = crate::http2::connect(&setting.authority, &setting.pintle).await;
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            sender = sender.ready().await.unwrap();
            let request = http::Request::builder().uri(format!("https://{BLOG}/")).body(()).unwrap();
            open.push(sender.send_request(request, true).unwrap());
        }
        (sender, open)
    };
    let open = setting.runtime.block_on(stubborn);
    eventually("all have been asked", || (setting.upstream.requests() == STREAMS).then_some(()));
    let mut other = Client::new(&setting.authority).connect(setting.pintle.https(), BLOG);
    judge("beside it", &ask(&mut other, false, "beside it").0, Whole);
    // There is room for an answer of any size, and not only for what has trickled through.
    assert!(setting.upstream.room() >= 1, "no room");
    assert_eq!(setting.upstream.open.load(Ordering::SeqCst), 1, "connections to the upstream");
    drop(open);
}
