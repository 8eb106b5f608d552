//! A blog from a data file, over TLS and without: it answers by scheme, Host, path, and `X-Forwarded-Proto`.
//!
//! A file has a head of `# key: value` lines, then sections. `=== SCHEME HOST PATH [declared]` selects requests; `*` is
//! any. HOST is `own` or `public`. The first section that fits answers, with its head and its body.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::harness::{Authority, read_head, server_config};

/// A data file.
#[derive(Debug, Clone, Default)]
pub struct Fixture {
    pub name: String,
    head: Vec<(String, String)>,
    sections: Vec<(Vec<String>, Vec<u8>)>,
}

impl Fixture {
    pub fn read(name: &str, text: &str) -> Self {
        let mut fixture = Self { name: name.to_owned(), ..Self::default() };
        let mut parts = text.split("\n=== ");
        for line in parts.next().unwrap().lines().filter_map(|line| line.strip_prefix("# ")) {
            let (key, value) = line.split_once(": ").unwrap_or((line, ""));
            fixture.head.push((key.to_owned(), value.to_owned()));
        }
        for part in parts {
            let (selector, rest) = part.split_once('\n').unwrap();
            let (head, body) = rest.split_once("\n\n").unwrap_or_else(|| (rest.trim_end(), ""));
            let length =
                if head.contains(" 204 ") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let response = format!("{}\r\n{length}Connection: close\r\n\r\n{body}", head.replace('\n', "\r\n"));
            fixture.sections.push((selector.split(' ').map(str::to_owned).collect(), response.into_bytes()));
        }
        assert!(!fixture.sections.is_empty(), "{name} has no section");
        fixture
    }

    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.head.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// The name in its URL.
    pub fn own(&self) -> &str {
        let rest = self.value("url").unwrap().split("://").nth(1).unwrap();
        rest.split('/').next().unwrap()
    }

    fn answer(&self, scheme: &str, request: &str) -> Vec<u8> {
        let field = |name: &str| {
            let mut lines = request.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let host = if field("host").as_deref() == Some(self.own()) { "own" } else { "public" };
        let path = request.split(' ').nth(1).unwrap();
        let is_declared = field("x-forwarded-proto").as_deref() == Some("https");
        let fits = |(selector, _): &&(Vec<String>, Vec<u8>)| {
            let of = |at: usize, value: &str| selector[at] == "*" || selector[at] == value;
            of(0, scheme) && of(1, host) && of(2, path) && (selector.len() < 4 || is_declared)
        };
        let nothing = || b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
        self.sections.iter().find(fits).map_or_else(nothing, |(_, response)| response.clone())
    }
}

/// The server's action on a connection, once it has read the request.
pub type Act = dyn Fn(&str, &str, &mut dyn Stream) -> io::Result<()> + Send + Sync;

pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A running blog. Its threads end with the test's process.
pub struct Blog {
    pub https: SocketAddr,
    pub http: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Blog {
    /// Serves a data file, with a certificate for its own name.
    pub fn serve(authority: &Authority, fixture: &Fixture) -> Self {
        let (own, fixture) = (fixture.own().split(':').next().unwrap().to_owned(), fixture.clone());
        Self::start(authority, &[&own], move |scheme, request, stream| {
            stream.write_all(&fixture.answer(scheme, request))
        })
    }

    /// Calls the function for each request.
    pub fn start(
        authority: &Authority,
        names: &[&str],
        act: impl Fn(&str, &str, &mut dyn Stream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let leaf = authority.leaf(&format!("blog-{}", names.join("-")), names);
        let config = server_config(&leaf, &[]);
        let (act, requests): (Arc<Act>, Arc<Mutex<Vec<String>>>) = (Arc::new(act), Arc::default());
        let listen = |is_secure: bool| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (act, requests, config) = (act.clone(), requests.clone(), config.clone());
            thread::spawn(move || {
                for socket in listener.incoming().flatten() {
                    let (act, requests, config) = (act.clone(), requests.clone(), config.clone());
                    thread::spawn(move || {
                        if is_secure {
                            let session = ServerConnection::new(config).map_err(io::Error::other)?;
                            let mut stream = StreamOwned::new(session, socket);
                            converse("https", &mut stream, &*act, &requests)?;
                            stream.conn.send_close_notify();
                            stream.flush()
                        } else {
                            let mut socket: TcpStream = socket;
                            converse("http", &mut socket, &*act, &requests)
                        }
                    });
                }
            });
            address
        };
        Self { https: listen(true), http: listen(false), requests }
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn converse(scheme: &str, stream: &mut dyn Stream, act: &Act, requests: &Mutex<Vec<String>>) -> io::Result<()> {
    let head = read_head(stream)?;
    requests.lock().unwrap().push(head.clone());
    act(scheme, &head, stream)
}
