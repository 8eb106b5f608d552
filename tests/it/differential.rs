//! Requests to the upstream, read by other parsers: llhttp (Node.js) and h11 (Python) must see the requests that
//! pintle has understood, however strange their bytes were. Two parsers that read differently make smuggling
//! possible.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::{Bytes, BytesMut};
use http::Method;
use pintle::message::{BodyDecoder, Decoded, Fields, Framing, HeadLimits, RequestHead, parse_request};
use pintle::policy::Scheme;
use pintle::policy::forwarded::{Peer, Trust, origin};
use pintle::site::Site;
use pintle::upstream::{Client as ClientOf, UpstreamRequest};
use pintle::wire::body::Frame;
use pintle::wire::write_buffer::WriteBuffer;
use serde_json::Value;

use crate::fuzz::Random;
use crate::fuzz::targets::http2;
use crate::fuzz::targets::messages::{LIMITS, largest, upstream};
use crate::harness::{Authority, BLOG, Client, Pintle, blog_at};

/// Mutated requests that are passed on, half of them HTTP/1.1 and half HTTP/2; and in how many rounds.
const REQUESTS: usize = 100_000;
const ROUNDS: usize = 10;
/// The same with something very long in them.
const LONG: usize = 1000;
/// Requests on one connection to a parser: where one ends is where the next begins.
const PIPELINED: usize = 20;
/// Mutated requests that go through the front door.
const THROUGH: usize = 300;

const OVER_HTTP1: &[&[u8]] = &[
    b"GET /a/b?c=d&e HTTP/1.1\r\nHost: blog.example.com\r\nUser-Agent: x/1 (y; z)\r\nAccept: */*\r\nCookie: a=b; c=\"d\"\r\n\r\n",
    b"POST /form HTTP/1.1\r\nHost: blog.example.com\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world",
    b"PUT /up HTTP/1.1\r\nHost: blog.example.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n6 ; c=\"d\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: blog.example.com\r\nTransfer-Encoding: chunked\r\n\r\n21\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n0\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: blog.example.com\r\nContent-Length: 37\r\nConnection: keep-alive, X-Gone\r\nX-Gone: 1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.b\r\n\r\n",
    b"GET http://blog.example.com/absolute HTTP/1.1\r\nHost: blog.example.com\r\nX-Empty:\r\nX-Tab:\ta\t\r\nX-Obs: \xe4\xf6\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: blog.example.com\r\nMax-Forwards: 5\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: blog.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"DELETE /d HTTP/1.1\r\nHost: blog.example.com:8443\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nTE: trailers\r\nVia: 1.0 x\r\n\r\n",
    b"PATCH /p HTTP/1.0\r\nHost: blog.example.com\r\nContent-Length: 2\r\nContent_Length: 3\r\nTransfer_Encoding: chunked\r\n\r\nhi",
    b"POST /c HTTP/1.1\r\nHost: blog.example.com\r\nExpect: 100-continue\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nA: b\r\nContent-Length: 3\r\n\r\n",
    b"\r\nGET /e HTTP/1.1\r\nhost: BLOG.example.com\r\nRange: bytes=0-1\r\nIf-None-Match: \"x\", W/\"y\"\r\n\r\n",
];

const OVER_HTTP2: &[&[u8]] = &[
    b":method: GET\n:scheme: https\n:authority: blog.example.com\n:path: /a?b\ncookie: a=1\ncookie: b=2\nte: trailers\n",
    b":method: POST\n:scheme: https\n:authority: blog.example.com\n:path: /form\ncontent-length: 5\n\nhello",
    b":method: PUT\n:scheme: https\n:authority: blog.example.com\n:path: /\nx-a: b\n\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
    b":method: DELETE\n:scheme: https\n:path: /d\nhost: blog.example.com\nx_a: 1\nforwarded: for=1.2.3.4\n",
    b":method: CONNECT\n:protocol: websocket\n:scheme: https\n:authority: blog.example.com\n:path: /ws\nsec-websocket-version: 13\n\n",
    b":method: OPTIONS\n:scheme: https\n:authority: blog.example.com\n:path: *\nmax-forwards: 3\nx-obs: \xe4\n",
    b":method: PATCH\n:scheme: https\n:authority: blog.example.com:8443\n:path: /p HTTP/1.1\nx: a\rb\ntransfer-encoding: chunked\n\nx",
];

/// A request as pintle has understood it, and what it writes for it.
struct Forwarded {
    from: Vec<u8>,
    expected: Value,
    bytes: Vec<u8>,
}

/// Writes a request for the upstream, as an exchange does it; none if there is nothing to write.
fn forward(from: &[u8], head: &RequestHead, frames: Vec<Frame>) -> Option<Forwarded> {
    // llhttp knows no others; and those two do not pass.
    const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"];
    let is_tunnel = head.method == Method::CONNECT && !head.websocket;
    if head.host().is_empty() || is_tunnel || !METHODS.contains(&head.method.as_str()) {
        return None;
    }
    let peer = Peer::new(Ipv4Addr::LOCALHOST.into(), Scheme::Https, &Trust::default());
    let origin = origin(&peer, &head.fields, &Trust::default());
    let key = (head.method == Method::CONNECT).then_some("dGhlIHNhbXBsZSBub25jZQ==");
    let (site, client) = (Site::default(), ClientOf::new(peer));
    let facts = std::cell::RefCell::default();
    let upstream_request = UpstreamRequest {
        head,
        site: &site,
        origin: &origin,
        client: &client,
        websocket_key: key,
        facts: &facts,
        trace: None,
    };
    let mut written = Vec::new();
    upstream_request.write_http1(&upstream(), &mut written);
    // Which fields those are is for other tests to say; here they must only be read by all in the same way.
    let mut received = RequestHead::default();
    let wide = HeadLimits { request_line: usize::MAX, head: usize::MAX, field: usize::MAX, fields: 128 };
    parse_request(&written, &wide, &mut received).ok()??;

    let (mut out, chunked) = (WriteBuffer::new(written), head.framing == Framing::Chunked);
    let (mut bytes, mut body, mut trailers, mut ended) = (Vec::new(), Vec::new(), Vec::new(), false);
    for frame in frames {
        match &frame {
            Frame::Data(data) => body.extend_from_slice(data),
            Frame::Trailers(fields) if chunked => trailers = list(fields),
            Frame::Trailers(_) => {}
        }
        ended = out.load(Some(frame), chunked);
        bytes.extend(out.waiting().concat());
        out = WriteBuffer::default();
    }
    if !ended && head.framing != Framing::None {
        out.load(None, chunked);
    }
    bytes.extend(out.waiting().concat());
    let method = if key.is_some() { "GET" } else { head.method.as_str() };
    let expected = serde_json::json!([method, head.target(), list(&received.fields), hex(&body), trailers]);
    Some(Forwarded { from: from.to_vec(), expected, bytes })
}

fn list(fields: &Fields) -> Vec<Value> {
    let pair = |name: &[u8], value| serde_json::json!([String::from_utf8_lossy(name).to_lowercase(), hex(value)]);
    fields.iter().map(|(_, name, value)| pair(name, value)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn over_http1(bytes: &[u8], limits: &HeadLimits) -> Option<Forwarded> {
    let mut head = RequestHead::default();
    let len = parse_request(bytes, limits, &mut head).ok()??;
    let mut rest = BytesMut::from(&bytes[len..]);
    let mut decoder = BodyDecoder::request(head.framing);
    let mut frames = Vec::new();
    while !decoder.is_end() {
        match decoder.decode(&mut rest).ok()? {
            Decoded::Data(data) => frames.push(Frame::Data(data)),
            Decoded::Trailers(fields) => frames.push(Frame::Trailers(fields)),
            Decoded::End => break,
            // Its rest is missing: it would wait for it.
            Decoded::More => return None,
        }
    }
    forward(bytes, &head, frames)
}

fn over_http2(text: &[u8], limits: &HeadLimits) -> Option<Forwarded> {
    let (head, body) = http2::serve(http2::request(text), limits).pop()?;
    let body = body?;
    let frames = if body.is_empty() { Vec::new() } else { vec![Frame::Data(Bytes::from(body))] };
    if head.websocket { forward(text, &head, Vec::new()) } else { forward(text, &head, frames) }
}

/// Mutated requests, the same in every run, of which pintle passes on so many.
struct Mutated {
    seeds: Vec<Vec<u8>>,
    random: Random,
    tried: usize,
    pass: fn(&[u8], &HeadLimits) -> Option<Forwarded>,
    /// Every limit is at its largest, and every request has something very long in it.
    long: bool,
}

impl Mutated {
    fn new(seeds: &[&[u8]], pass: fn(&[u8], &HeadLimits) -> Option<Forwarded>) -> Self {
        let seeds = seeds.iter().map(|seed| seed.to_vec()).collect();
        Self { seeds, random: Random(0x9e37_79b9_7f4a_7c15), tried: 0, pass, long: false }
    }
}

impl Iterator for Mutated {
    type Item = Forwarded;

    fn next(&mut self) -> Option<Forwarded> {
        loop {
            let seed = &self.seeds[self.tried % self.seeds.len()];
            self.tried += 1;
            let limits = if self.long { largest() } else { LIMITS };
            let seed = if self.long { self.random.stretch(seed) } else { seed.clone() };
            if let Some(forwarded) = (self.pass)(&self.random.mutate(&seed, &self.seeds), &limits) {
                return Some(forwarded);
            }
        }
    }
}

/// Starts a parser on connections of some requests each.
fn parser(program: &str, script: &str, connections: &Path) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parsers").join(script);
    let mut command = Command::new(program);
    command.arg(script).arg(connections).stdout(Stdio::piped());
    command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; tests/run installs it"))
}

/// The requests that each of the two parsers reads from each connection.
fn read(connections: &[Vec<u8>]) -> [Vec<Vec<Value>>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("connections");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    for connection in connections {
        file.write_all(&u32::try_from(connection.len()).unwrap().to_be_bytes()).unwrap();
        file.write_all(connection).unwrap();
    }
    file.into_inner().unwrap();
    let node = parser("node", "llhttp.js", &path);
    // Debian's own, which has Debian's modules.
    let python = parser("/usr/bin/python3", "h11_reader.py", &path);
    [python, node].map(|child| {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "a parser has failed: {}", done.status);
        done.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    })
}

#[test]
fn other_parsers_read_what_pintle_has_understood() {
    let mut by_http1 = Mutated::new(OVER_HTTP1, over_http1);
    let mut by_http2 = Mutated::new(OVER_HTTP2, over_http2);
    for _ in 0..ROUNDS {
        let mut all: Vec<Forwarded> = by_http1.by_ref().take(REQUESTS / ROUNDS / 2).collect();
        all.extend(by_http2.by_ref().take(REQUESTS / ROUNDS / 2));
        compare(&all);
    }
    println!("of {} mutated requests by HTTP/1.1, and {} by HTTP/2", by_http1.tried, by_http2.tried);
}

/// The same with every limit at its largest, and requests that make use of it.
#[test]
fn other_parsers_read_the_longest_requests_likewise() {
    let long = |seeds, pass| Mutated { long: true, ..Mutated::new(seeds, pass) };
    let mut all: Vec<Forwarded> = long(OVER_HTTP1, over_http1).take(LONG / 2).collect();
    all.extend(long(OVER_HTTP2, over_http2).take(LONG / 2));
    assert!(all.iter().filter(|forwarded| forwarded.bytes.len() > 1 << 16).count() > LONG / 8);
    compare(&all);
}

/// Fails where a parser reads something else than was understood.
fn compare(all: &[Forwarded]) {
    let groups: Vec<&[Forwarded]> = all.chunks(PIPELINED).collect();
    let connections: Vec<Vec<u8>> =
        groups.iter().map(|group| group.iter().flat_map(|f| f.bytes.clone()).collect()).collect();
    for (parser, read) in ["h11", "llhttp"].into_iter().zip(read(&connections)) {
        assert_eq!(read.len(), groups.len(), "{parser}");
        for (group, read) in groups.iter().zip(read) {
            for (n, forwarded) in group.iter().enumerate() {
                if read.get(n) != Some(&forwarded.expected) {
                    let (from, bytes) = (forwarded.from.escape_ascii(), forwarded.bytes.escape_ascii());
                    panic!("{parser}: {from}\nbecame {bytes}\nread {:?}\nnot  {}", read.get(n), forwarded.expected);
                }
            }
            assert_eq!(read.len(), group.len(), "{parser} reads more requests than there are");
        }
    }
}

/// The comparison works: each parser notices a request that hides another one, or is one byte off.
#[test]
fn the_comparison_sees_a_request_that_hides_another() {
    let honest = over_http1(OVER_HTTP1[3], &LIMITS).unwrap();
    let at = honest.bytes.windows(4).position(|w| w == b"21\r\n").unwrap();
    let mut off = honest.bytes.clone();
    off[at + 1] = b'0';
    let mut two = honest.bytes.clone();
    two.splice(at..at, *b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    let expected = [honest.expected];
    for read in read(&[honest.bytes, off, two]) {
        assert_eq!(read[0], expected);
        assert_ne!(read[1], expected);
        assert_ne!(read[2], expected);
    }
}

/// The same through the program: sockets, TLS, and llhttp at the other end.
#[test]
fn through_the_front_door() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parsers/llhttp.js");
    let node = Command::new("node").arg(script).stdout(Stdio::piped()).spawn().expect("tests/run installs it");
    let mut node = Parser(node);
    let mut port = String::new();
    BufReader::new(node.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let authority = Authority::new();
    let pintle = Pintle::start(&authority, &blog_at(&authority, &format!("http://127.0.0.1:{}", port.trim())));
    let client = Client::new(&authority);
    let mut compared = 0;
    for forwarded in Mutated::new(OVER_HTTP1, over_http1).take(THROUGH) {
        let head = String::from_utf8_lossy(&forwarded.bytes).into_owned();
        let is_ours = head.lines().any(|l| l.eq_ignore_ascii_case(&format!("Host: {BLOG}")));
        // Those have answers without a body, or none from the origin.
        if !is_ours || head.starts_with("HEAD") || head.contains("Upgrade: websocket") || head.starts_with("OPTIONS") {
            continue;
        }
        let mut connection = client.connect(pintle.https(), BLOG);
        connection.send(&forwarded.from);
        let mut response = connection.response("GET");
        while response.status < 200 {
            response = connection.response("GET");
        }
        // What the operator has not asked for (an expectation, a loop) is refused by rules of their own.
        if response.status == 200 {
            let expected: Value = serde_json::from_slice(&response.body).unwrap();
            let mut passed = forwarded.expected;
            // Trailers, which pass only if a rule of the site names them.
            *passed.as_array_mut().and_then(|expected| expected.last_mut()).unwrap() = Value::Array(Vec::new());
            assert_eq!(expected, passed, "{}", forwarded.from.escape_ascii());
            compared += 1;
        }
    }
    println!("{compared} compared");
    assert!(compared > THROUGH / 4, "{compared}");
}

/// A parser of its own process, which ends with the test.
struct Parser(Child);

impl Drop for Parser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
