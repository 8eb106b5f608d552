//! Every limit at the largest value that the configuration takes: nothing is cut, wrapped or added up to nonsense.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::{ServerConnection, StreamOwned};

use super::{CONTINUATION, END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, bytes};
use crate::fuzz::targets::http2::{PREFACE, block};
use crate::harness::{
    Authority, BLOG, Client, Connection, Origin, Pintle, Reply, blog, blog_at, output, server_config,
};

const LARGEST: &str = "[limits]\n\
    connections = 10_000_000\nconnections_per_client = 10_000_000\nhandshake = \"10y\"\nhandshakes = 1_000_000\n\
    request_header = \"10y\"\nidle = \"10y\"\nbody_progress = \"10y\"\nbody_rate = \"1GiB\"\nrequest_line = \"1MiB\"\n\
    header_size = \"1MiB\"\nheader_count = 128\nfield_size = \"1MiB\"\nrequest_body = \"1024TiB\"\n\
    requests_per_connection = 1_099_511_627_776\nhttp2_streams = 10_000\nhttp2_resets = 1_073_741_824\n\
    connection_memory = \"1GiB\"\nwebsocket_idle = \"10y\"\nlinger = \"10y\"\ndrain = \"10y\"\nupgrade = \"10y\"\n\
    upstream_connections = 1_000_000\nupstream_queue = 1_000_000\nupstream_queue_wait = \"10y\"\n\
    upstream_idle = \"10y\"\nresponse_header_size = \"1MiB\"\nreports_per_minute = 1_000_000\n";

/// Lengths that 16 bits would cut to nothing, or to little.
const WRAPPING: [usize; 3] = [65_536, 65_537, 131_072];

fn start(authority: &Authority, origin: &Origin) -> Pintle {
    Pintle::start(authority, &(LARGEST.to_owned() + &blog(authority, origin)))
}

/// A request over HTTP/2 with these fields, in as many frames as it takes.
fn request(fields: &str) -> Vec<u8> {
    let text = format!(":method: GET\n:scheme: https\n:authority: {BLOG}\n{fields}");
    let block = block(text.as_bytes());
    let mut parts = block.chunks(16 * 1024).peekable();
    let mut frames = bytes(HEADERS, END_STREAM, 1, parts.next().unwrap());
    while let Some(part) = parts.next() {
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        frames.extend(bytes(CONTINUATION, last, 1, part));
    }
    frames
}

/// Cut to 16 bits, the name would be that of the first letters.
#[test]
fn a_long_name_is_no_other_name() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let pintle = start(&authority, &origin);
    let client = Client::new(&authority);
    for (name, value) in [("Transfer-Encoding", "chunked"), ("Content-Length", "3"), ("X-Forwarded-Proto", "http")] {
        for more in WRAPPING {
            let name = name.to_owned() + &"x".repeat(more);
            let mut connection = client.connect(pintle.https(), BLOG);
            connection.send(format!("POST /h1 HTTP/1.1\r\nHost: {BLOG}\r\n{name}: {value}\r\n\r\n"));
            assert_eq!(connection.response("POST").status, 431);
            let mut raw = Raw::new(&authority, &pintle, &[]);
            raw.send(&request(&format!(":path: /h2\n{}: {value}\n", name.to_lowercase())));
            raw.until("it is refused", |raw| {
                (raw.over.is_some() || !raw.resets.is_empty() || !raw.answered.is_empty()).then_some(())
            });
        }
    }
    assert!(origin.received().is_empty(), "{:?}", origin.received());
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn a_long_name_from_an_upstream_is_no_other_name() {
    let authority = Authority::new();
    let origin = Origin::start(|request| {
        let (name, more) = request.path()[1..].split_once('/').unwrap();
        let field = format!("{name}{}: chunked\r\n", "x".repeat(more.parse().unwrap()));
        Reply::new("200 OK", &field, "whole")
    });
    let pintle = start(&authority, &origin);
    let client = Client::new(&authority);
    for name in ["Transfer-Encoding", "Content-Length", "Location"] {
        for more in WRAPPING {
            assert_eq!(client.get(pintle.https(), BLOG, &format!("/{name}/{more}")).status, 502);
        }
    }
}

#[test]
fn a_long_value_stays_whole() {
    let authority = Authority::new();
    let long = 900 * 1024;
    let origin = Origin::start(move |_| Reply::new("200 OK", &format!("X-Test: {}\r\n", "y".repeat(long)), "whole"));
    let pintle = start(&authority, &origin);
    let value = "v".repeat(long);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    connection.send(format!("GET /h1 HTTP/1.1\r\nHost: {BLOG}\r\nX-Long: {value}\r\n\r\n"));
    let response = connection.response("GET");
    assert_eq!((response.text().as_str(), response.one("x-test").len()), ("whole", long));
    let mut raw = Raw::new(&authority, &pintle, &[]);
    raw.send(&request(&format!(":path: /h2\nx-long: {value}\n")));
    for path in ["/h1", "/h2"] {
        assert_eq!(origin.request(path).field("x-long"), Some(&*value), "{path}");
    }
}

/// A deadline ten years ahead is one: requests, idle connections and the end of the process.
#[test]
fn the_longest_times_are_times() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let mut pintle = start(&authority, &origin);
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    assert_eq!(connection.get(BLOG, "/").status, 200);
    assert_eq!(Connection::plain(pintle.http()).get(BLOG, "/").status, 301);
    pintle.signal("TERM");
    drop(connection);
    assert!(pintle.wait().success());
}

/// More fields than a header map can hold, and not much more than bytes: within the limits of size, and yet a 502.
#[test]
fn fields_of_an_upstream_without_number() {
    let authority = Authority::new();
    let leaf = authority.leaf("upstream", &["up.example.net"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(&leaf, &[b"h2"]);
    let fields = Arc::new(AtomicUsize::new(0));
    let many = fields.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
            let many = many.clone();
            std::thread::spawn(move || answer_with_fields(tls, &many));
        }
    });
    let site = blog_at(&authority, "https://up.example.net");
    let options = format!("[site.upstream_options]\nconnect = \"{address}\"\nca = {:?}\n", authority.ca_path());
    let pintle = Pintle::start(&authority, &(LARGEST.to_owned() + &site + &options));
    for (http2, count, status) in
        [(false, 100, "200"), (true, 100, "200"), (false, 24_570, "502"), (true, 24_570, "502"), (true, 24_600, "502")]
    {
        fields.store(count, Ordering::SeqCst);
        let mut curl = pintle.curl();
        curl.args([
            if http2 { "--http2" } else { "--http1.1" },
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        assert_eq!(output(curl.arg(format!("https://{BLOG}/"))), status, "{count} fields, http2: {http2}");
    }
    assert!(!pintle.log().contains("panicked"));
}

/// Answers each request with as many fields as there shall be.
fn answer_with_fields(mut tls: StreamOwned<ServerConnection, TcpStream>, many: &AtomicUsize) -> io::Result<()> {
    tls.read_exact(&mut [0; PREFACE.len()])?;
    tls.write_all(&bytes(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut begin = [0; 9];
        tls.read_exact(&mut begin)?;
        let len = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]);
        let mut payload = vec![0; len as usize];
        tls.read_exact(&mut payload)?;
        if begin[3] != HEADERS {
            continue;
        }
        let stream = u32::from_be_bytes(begin[5..].try_into().unwrap());
        let block = block((":status: 200\n".to_owned() + &"a:\n".repeat(many.load(Ordering::SeqCst))).as_bytes());
        let mut parts = block.chunks(16 * 1024).peekable();
        let mut kind = (HEADERS, END_STREAM);
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            tls.write_all(&bytes(kind.0, kind.1 | last, stream, part))?;
            kind = (CONTINUATION, 0);
        }
        tls.flush()?;
    }
}
