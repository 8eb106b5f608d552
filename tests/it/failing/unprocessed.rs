//! HTTP/2 upstreams that take few streams at a time, go away early, and refuse what they have been sent whole: what they
//! have not processed is sent again, with its body, and nothing is sent twice that may have been processed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::faults::{pattern, serve_each};
use super::state;
use crate::fuzz::targets::http2::{PREFACE, block, frame};
use crate::harness::http2_frame::*;
use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog_at, eventually, whole};

const REFUSED_STREAM: u32 = 7;

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its body comes back.
    Echo,
    /// It is refused once it is all there.
    Refused,
    /// It is refused once so many bytes of its body are there.
    RefusedAt(usize),
    /// GOAWAY with this code, which leaves it out, once it is all there.
    LeftOut(u32),
    /// The connection ends.
    Cut,
}

/// The behaviour of an upstream.
#[derive(Debug, Clone, Default)]
struct Plan {
    /// SETTINGS_MAX_CONCURRENT_STREAMS, of each connection, and what it becomes after a while.
    allowed: Option<u32>,
    later: Option<(Duration, u32)>,
    /// GOAWAY after so many requests of a connection.
    requests: Option<usize>,
    /// The duration of a request.
    takes: Duration,
}

#[derive(Default)]
struct Seen {
    fates: Mutex<VecDeque<Fate>>,
    /// Requests that were answered, and their bodies.
    echoed: Mutex<Vec<Vec<u8>>>,
    /// Requests that were refused, left out, or cut off.
    refused: AtomicUsize,
    /// Streams that were open although there were as many as may be.
    beyond: AtomicUsize,
    connections: AtomicUsize,
    requests: AtomicUsize,
    sick: AtomicBool,
}

/// A running upstream, without TLS. Its threads end with the test's process.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Upstream {
    fn start(plan: Plan) -> Self {
        Self::start_at("127.0.0.1:0", "", plan)
    }

    /// One that says its name behind each body.
    fn start_at(address: &str, name: &'static str, plan: Plan) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Seen> = Arc::default();
        let shared = seen.clone();
        serve_each(listener, move |socket| {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            Wire::new(socket, name, plan.clone(), shared.clone()).serve()
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    /// The fate of the next requests; those behind them are answered.
    fn fates(&self, fates: impl IntoIterator<Item = Fate>) {
        *self.seen.fates.lock().unwrap() = fates.into_iter().collect();
    }

    /// The bodies that were taken since the last call, and how many requests were refused.
    fn taken(&self) -> (Vec<Vec<u8>>, usize) {
        (std::mem::take(&mut *self.seen.echoed.lock().unwrap()), self.seen.refused.swap(0, Ordering::SeqCst))
    }
}

struct Request {
    stream: u32,
    body: Vec<u8>,
    trailers: bool,
    fate: Fate,
    /// The time at which it was complete.
    whole: Option<Instant>,
}

struct Wire {
    socket: TcpStream,
    name: &'static str,
    plan: Plan,
    seen: Arc<Seen>,
    received: Vec<u8>,
    out: Vec<u8>,
    open: Vec<Request>,
    allowed: usize,
    streams: usize,
    /// No stream above this one is looked at.
    last: Option<u32>,
    begin: Instant,
}

impl Wire {
    fn new(socket: TcpStream, name: &'static str, plan: Plan, seen: Arc<Seen>) -> Self {
        let allowed = plan.allowed.map_or(usize::MAX, |n| n as usize);
        Self {
            socket,
            name,
            plan,
            seen,
            received: Vec::new(),
            out: Vec::new(),
            open: Vec::new(),
            allowed,
            streams: 0,
            last: None,
            begin: Instant::now(),
        }
    }

    fn settings(&mut self, allowed: u32) {
        self.allowed = allowed as usize;
        let mut setting = vec![0, 3];
        setting.extend(allowed.to_be_bytes());
        frame(SETTINGS, 0, 0, &setting, &mut self.out);
    }

    fn serve(mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        match self.plan.allowed {
            Some(allowed) => self.settings(allowed),
            None => frame(SETTINGS, 0, 0, &[], &mut self.out),
        }
        let mut preface = PREFACE.len();
        loop {
            let mut buffer = [0; 65_536];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => self.received.extend(&buffer[..len]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            let skip = preface.min(self.received.len());
            self.received.drain(..skip);
            preface -= skip;
            while preface == 0 && self.take_frame() {}
            if let Some((after, allowed)) = self.plan.later
                && self.begin.elapsed() >= after
            {
                self.plan.later = None;
                self.settings(allowed);
            }
            let goes_on = self.answer();
            self.socket.write_all(&std::mem::take(&mut self.out))?;
            if !goes_on || (self.last.is_some() && self.open.is_empty()) {
                return Ok(());
            }
        }
    }

    fn take_frame(&mut self) -> bool {
        let Some(begin) = self.received.get(..9) else { return false };
        let len = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]) as usize;
        let (kind, flags) = (begin[3], begin[4]);
        let stream = u32::from_be_bytes([begin[5], begin[6], begin[7], begin[8]]);
        if self.received.len() < 9 + len {
            return false;
        }
        let payload: Vec<u8> = self.received.drain(..9 + len).skip(9).collect();
        let looked_at = self.last.is_none_or(|last| stream <= last);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut self.out),
            PING if flags & ACK == 0 => frame(PING, ACK, 0, &payload, &mut self.out),
            HEADERS if looked_at => self.head(stream),
            RST_STREAM => self.open.retain(|request| request.stream != stream),
            DATA if len > 0 => {
                for stream in [0, stream] {
                    frame(WINDOW_UPDATE, 0, stream, &(len as u32).to_be_bytes(), &mut self.out);
                }
            }
            _ => {}
        }
        let request = self.open.iter_mut().find(|request| request.stream == stream);
        if let (DATA | HEADERS, Some(request)) = (kind, request) {
            if kind == DATA {
                request.body.extend(&payload);
            }
            if flags & END_STREAM != 0 {
                request.whole = Some(Instant::now());
            }
        }
        true
    }

    fn head(&mut self, stream: u32) {
        if let Some(request) = self.open.iter_mut().find(|request| request.stream == stream) {
            request.trailers = true;
            return;
        }
        if self.open.len() >= self.allowed {
            self.seen.beyond.fetch_add(1, Ordering::SeqCst);
        }
        self.streams += 1;
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        let fate = self.seen.fates.lock().unwrap().pop_front().unwrap_or(Fate::Echo);
        self.open.push(Request { stream, body: Vec::new(), trailers: false, fate, whole: None });
        if self.plan.requests == Some(self.streams) {
            self.away(stream, 0);
        }
    }

    fn away(&mut self, last: u32, code: u32) {
        self.last = Some(last);
        frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat(), &mut self.out);
    }

    /// Answers what is due; says no when the connection is to end.
    fn answer(&mut self) -> bool {
        for mut request in std::mem::take(&mut self.open) {
            let enough = matches!(request.fate, Fate::RefusedAt(bytes) if request.body.len() >= bytes);
            let due = request.whole.is_some_and(|whole| whole.elapsed() >= self.plan.takes);
            if !due && !enough {
                self.open.push(request);
                continue;
            }
            if request.fate != Fate::Echo {
                self.seen.refused.fetch_add(1, Ordering::SeqCst);
            }
            match request.fate {
                Fate::Echo => {
                    let status =
                        if self.seen.sick.load(Ordering::SeqCst) { ":status: 503\n" } else { ":status: 200\n" };
                    frame(HEADERS, END_HEADERS, request.stream, &block(status.as_bytes()), &mut self.out);
                    self.seen.echoed.lock().unwrap().push(request.body.clone());
                    request.body.extend(self.name.as_bytes());
                    for piece in request.body.chunks(16_384) {
                        frame(DATA, 0, request.stream, piece, &mut self.out);
                    }
                    if request.trailers {
                        let trailers = block(b"grpc-status: 0\n");
                        frame(HEADERS, END_HEADERS | END_STREAM, request.stream, &trailers, &mut self.out);
                    } else {
                        frame(DATA, END_STREAM, request.stream, &[], &mut self.out);
                    }
                }
                Fate::Refused | Fate::RefusedAt(_) => {
                    frame(RST_STREAM, 0, request.stream, &REFUSED_STREAM.to_be_bytes(), &mut self.out);
                }
                Fate::LeftOut(code) => self.away(request.stream.saturating_sub(2), code),
                Fate::Cut => return false,
            }
        }
        true
    }
}

/// pintle with one worker, whose requests share connections.
fn pintle(authority: &Authority, limits: &str, url: &str, more: &str) -> Pintle {
    let config = format!("[limits]\n{limits}\n{}{}{more}", state(authority), blog_at(authority, url));
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    Pintle::start_with(authority, listen, &config)
}

/// POSTs a body by HTTP/1.1, with its length or in chunks; gives the status and what came back.
fn post(connection: &mut Connection, body: &[u8], chunked: bool) -> (u16, Vec<u8>) {
    let mut bytes = format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\n").into_bytes();
    if chunked {
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for piece in body.chunks(1 + body.len() / 3) {
            bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
            bytes.extend(piece);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
    }
    connection.send(bytes);
    let response = connection.response("POST");
    (response.status, response.body)
}

/// Runs so many clients at the same time, each with a connection of its own.
fn each_client<T: Send>(
    pintle: &Pintle,
    authority: &Authority,
    count: usize,
    run: impl Fn(Connection) -> T + Sync,
) -> Vec<T> {
    let (client, run) = (Client::new(authority), &run);
    thread::scope(|scope| {
        let connect = |_| client.connect(pintle.https(), BLOG);
        let running: Vec<_> = (0..count).map(connect).map(|c| scope.spawn(move || run(c))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn bodies_of_refused_requests_are_sent_again_whole_or_not_at_all() {
    const KEPT: usize = 20_000;
    let authority = Authority::new();
    let upstream = Upstream::start(Plan::default());
    let pintle = pintle(&authority, &format!("retry_body = {KEPT}"), &upstream.url(), "");
    let client = Client::new(&authority);
    let large = pattern(5, 300_000);
    for fate in [Fate::Refused, Fate::LeftOut(0), Fate::LeftOut(2), Fate::RefusedAt(1)] {
        for (size, chunked) in [1, 1000, KEPT, KEPT + 1, 60_000].into_iter().flat_map(|n| [(n, false), (n, true)]) {
            let what = format!("{size} bytes, chunked: {chunked}, {fate:?}");
            let mut connection = client.connect(pintle.https(), BLOG);
            let body = &large[..size];
            upstream.fates([fate, fate]);
            let (status, echoed) = post(&mut connection, body, chunked);
            let (taken, refused) = upstream.taken();
            let early = matches!(fate, Fate::RefusedAt(_));
            match status {
                200 => {
                    assert!(echoed == body && taken == [body], "{what}: another body");
                    assert_eq!(refused, 2, "{what}");
                    assert!(size <= KEPT || early, "{what}: more was kept than may be");
                }
                502 => {
                    assert!(size > KEPT && taken.is_empty() && refused == 1, "{what}: {refused} refused");
                }
                other => panic!("{what}: {other}"),
            }
        }
    }
}

#[test]
fn trailers_are_sent_again_with_their_body() {
    let authority = Authority::new();
    let upstream = Upstream::start(Plan::default());
    let pintle = pintle(&authority, "", &upstream.url(), "[site.request_headers]\ntrailers = [\"X-Sum\"]\n");
    let mut sender = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sender = Some(crate::http2::connect(&authority, &pintle).await);
        upstream.fates([Fate::Refused, Fate::LeftOut(0)]);
        let sender = sender.take().unwrap().ready().await;
        let request = http::Request::post(format!("https://{BLOG}/")).header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let (response, mut send) = sender.unwrap().send_request(request, false).unwrap();
        send.send_data(Bytes::from_static(b"a message"), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        send.send_trailers(trailers).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut recv = response.into_body();
        assert_eq!(whole(&mut recv).await.unwrap(), b"a message");
        assert_eq!(recv.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
    assert_eq!(upstream.taken(), (vec![b"a message".to_vec()], 2));
}

/// A body that the upstream has asked for is not asked for again; one that it has not asked for is not read.
#[test]
fn refused_before_the_body_was_asked_for() {
    let authority = Authority::new();
    let upstream = Upstream::start(Plan::default());
    let pintle = pintle(&authority, "", &upstream.url(), "");
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    upstream.fates([Fate::RefusedAt(0), Fate::Refused]);
    connection.send(format!("POST / HTTP/1.1\r\nHost: {BLOG}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(connection.response("POST").status, 100);
    connection.send("hello");
    let response = connection.response("POST");
    assert_eq!((response.status, response.text()), (200, "hello".to_owned()));
    assert_eq!(upstream.taken(), (vec![b"hello".to_vec()], 2));
}

/// A request without any answer may have been processed.
#[test]
fn cut_connections_promise_nothing() {
    let authority = Authority::new();
    let upstream = Upstream::start(Plan::default());
    let pintle = pintle(&authority, "", &upstream.url(), "");
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    upstream.fates([Fate::Cut]);
    assert_eq!(post(&mut connection, b"once", false).0, 502);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    upstream.fates([Fate::Cut]);
    assert_eq!(connection.get(BLOG, "/").status, 200, "GET may be sent twice");
    let (taken, cut) = upstream.taken();
    assert_eq!((taken, cut), (vec![Vec::<u8>::new(); 3], 2));
}

#[test]
fn an_upstream_that_always_refuses_is_given_up_in_time() {
    let authority = Authority::new();
    let upstream = Upstream::start(Plan::default());
    let more = "[site.upstream_options]\nresponse_timeout = \"20s\"\ntotal_timeout = \"2s\"\n";
    let pintle = pintle(&authority, "", &upstream.url(), more);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    upstream.fates([Fate::Refused; 1000]);
    let begin = Instant::now();
    assert_eq!(connection.get(BLOG, "/").status, 504);
    assert!(begin.elapsed() < Duration::from_secs(10));
    let refused = upstream.taken().1;
    assert!((5..60).contains(&refused), "{refused} times");
    // A client that goes away takes its request with it.
    upstream.fates([Fate::Refused; 1000]);
    connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
    eventually("it is refused", || (upstream.taken().1 > 3).then_some(()));
    drop(connection);
    eventually("it is not sent any more", || {
        upstream.taken();
        thread::sleep(Duration::from_millis(500));
        (upstream.taken().1 == 0).then_some(())
    });
}

/// 3,000 GETs against an upstream that takes four streams at a time, and goes away after twenty requests.
#[test]
fn few_streams_and_early_ends() {
    let authority = Authority::new();
    let takes = Duration::from_millis(1);
    let upstream = Upstream::start(Plan { allowed: Some(4), requests: Some(20), takes, ..Plan::default() });
    let pintle = pintle(&authority, "", &upstream.url(), "");
    let statuses = each_client(&pintle, &authority, 30, |mut connection| {
        (0..100).map(|_| connection.get(BLOG, "/").status).collect::<Vec<_>>()
    });
    let failed = statuses.iter().flatten().filter(|status| **status != 200).count();
    assert_eq!((failed, statuses.concat().len()), (0, 3000));
    assert_eq!(upstream.taken().0.len(), 3000, "each was processed once");
    assert_eq!(upstream.seen.beyond.load(Ordering::SeqCst), 0, "streams beyond what may be open");
}

/// One stream at a time, on one connection: all others wait for their turn.
#[test]
fn one_stream_for_many_requests() {
    let authority = Authority::new();
    let takes = Duration::from_millis(2);
    let upstream = Upstream::start(Plan { allowed: Some(1), takes, ..Plan::default() });
    let pintle = pintle(&authority, "upstream_connections = 1", &upstream.url(), "");
    let statuses = each_client(&pintle, &authority, 40, |mut connection| {
        (0..5).map(|_| post(&mut connection, b"hello", false)).collect::<Vec<_>>()
    });
    assert!(statuses.concat().iter().all(|seen| *seen == (200, b"hello".to_vec())), "{statuses:?}");
    let seen = &upstream.seen;
    let counts = [&seen.beyond, &seen.connections, &seen.requests].map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [0, 1, 200]);
}

/// An upstream that takes no streams for a while is waited for, and not met with more connections; if it takes none for
/// longer, requests are told so.
#[test]
fn no_streams_for_a_while() {
    let authority = Authority::new();
    let later = Some((Duration::from_millis(700), 20));
    let upstream = Upstream::start(Plan { allowed: Some(0), later, ..Plan::default() });
    let config = pintle(&authority, "upstream_queue_wait = \"20s\"", &upstream.url(), "");
    let statuses = each_client(&config, &authority, 20, |mut connection| connection.get(BLOG, "/").status);
    assert_eq!(statuses, [200; 20]);
    let seen = &upstream.seen;
    assert_eq!([&seen.beyond, &seen.connections].map(|count| count.load(Ordering::SeqCst)), [0, 1]);
    let authority = Authority::new();
    let shut = Upstream::start(Plan { allowed: Some(0), ..Plan::default() });
    let config = pintle(&authority, "upstream_queue_wait = \"1s\"", &shut.url(), "");
    let statuses = each_client(&config, &authority, 5, |mut connection| connection.get(BLOG, "/").status);
    assert_eq!(statuses, [503; 5]);
    assert_eq!(shut.seen.requests.load(Ordering::SeqCst), 0);
}

/// Connections that there are lead to an address whose health check fails as little as new ones do.
#[test]
fn a_failing_health_check_takes_kept_connections_along() {
    let sick = Arc::new(AtomicBool::new(false));
    let says = sick.clone();
    let http1 = Origin::start_at("127.0.0.2:0", move |_| {
        let status = if says.load(Ordering::SeqCst) { "503 Service Unavailable" } else { "200 OK" };
        Reply::new(status, "", "first")
    });
    let other = Origin::start_at(&format!("127.0.0.3:{}", http1.address.port()), |_| Reply::ok("second"));
    kept_connections("http", http1.address.port(), &|ill| sick.store(ill, Ordering::SeqCst));
    assert!(other.connections() > 0);
    let http2 = Upstream::start_at("127.0.0.2:0", "first", Plan::default());
    let port = http2.address.port();
    let _other = Upstream::start_at(&format!("127.0.0.3:{port}"), "second", Plan::default());
    kept_connections("h2c", port, &|ill| http2.seen.sick.store(ill, Ordering::SeqCst));
}

fn kept_connections(scheme: &str, port: u16, sick: &dyn Fn(bool)) {
    let authority = Authority::new();
    let resolver = format!("[resolver]\nname_servers = [\"{}\"]\n", super::names::name_server(&super::names::TWO));
    let check = "[site.health_check]\npath = \"/\"\ninterval = \"500ms\"\nunhealthy = 1\nhealthy = 1\n";
    let url = format!("{scheme}://origin.example.net:{port}");
    let pintle = pintle(&authority, "", &url, &(check.to_owned() + &resolver));
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut get = || connection.get(BLOG, "/").text();
    assert_eq!(get(), "first");
    sick(true);
    pintle.logs("health check fails");
    assert_eq!((0..20).map(|_| get()).collect::<Vec<_>>(), ["second"; 20], "{scheme}");
    // When both are sick, either is better than none; and a healthy one has all of it again.
    sick(false);
    pintle.logs("health check succeeds again");
    assert!(["first", "second"].contains(&&*get()));
}
