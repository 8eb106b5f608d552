//! An origin that records what it receives, and answers as the test says: byte by byte, if need be.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

/// A request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Head and body as they came, chunks and all.
    pub head: String,
    pub body: Vec<u8>,
    /// Trailers behind a chunked body.
    pub trailers: String,
}

impl Received {
    /// `GET /path HTTP/1.1`
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).first().copied()
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        let pairs = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).collect()
    }
}

/// The reaction of the origin to a request.
pub enum Reply {
    /// Sends these bytes, and keeps the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes, and closes.
    Close(Vec<u8>),
    /// Does as the function says.
    Custom(Custom),
}

type Custom = Box<dyn FnOnce(&mut TcpStream) -> io::Result<()> + Send>;

impl Reply {
    /// A response with these fields (lines, each with its CRLF) and this body.
    pub fn new(status: &str, fields: &str, body: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes())
    }

    pub fn ok(body: &str) -> Self {
        Self::new("200 OK", "Content-Type: text/plain\r\n", body)
    }
}

type Handler = dyn Fn(&Received) -> Reply + Send + Sync;

/// A running origin. Its threads end with the test's process.
pub struct Origin {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    pub fn start(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", handler)
    }

    pub fn start_at(address: &str, handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as(address, true, handler)
    }

    /// An origin that records nothing: it can answer for hours.
    pub fn forgetful(handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as("127.0.0.1:0", false, handler)
    }

    fn start_as(address: &str, records: bool, handler: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (list, count, handler) = (received.clone(), connections.clone(), Arc::new(handler));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let (list, handler) = (list.clone(), handler.clone());
                thread::spawn(move || {
                    let _ = serve(socket, records.then_some(&*list), &*handler);
                });
            }
        });
        Self { address, received, connections }
    }

    /// An origin that answers everything with its own name.
    pub fn hello() -> Self {
        Self::start(|_| Reply::ok("hello from the origin"))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The request for this path, when it has come.
    #[track_caller]
    pub fn request(&self, path: &str) -> Received {
        eventually(&format!("a request for {path} at the origin"), || {
            self.received().into_iter().rev().find(|r| r.path() == path)
        })
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(socket: TcpStream, list: Option<&Mutex<Vec<Received>>>, handler: &Handler) -> io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut writer = socket;
    loop {
        let head = read_head(&mut reader)?;
        if head.is_empty() {
            return Ok(());
        }
        let mut received = Received { head, body: Vec::new(), trailers: String::new() };
        // Paths that begin with /early are answered before their body is read.
        let early = received.path().starts_with("/early");
        if !early {
            read_body(&mut reader, &mut received, &mut writer)?;
        }
        if let Some(list) = list {
            list.lock().unwrap().push(received.clone());
        }
        match handler(&received) {
            Reply::Bytes(bytes) => writer.write_all(&bytes)?,
            Reply::Close(bytes) => return writer.write_all(&bytes),
            Reply::Custom(act) => return act(&mut writer),
        }
        if early {
            read_body(&mut reader, &mut received, &mut writer)?;
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(String::new());
        }
        if line == "\r\n" {
            return Ok(head);
        }
        head.push_str(&line);
    }
}

fn read_body(reader: &mut impl BufRead, received: &mut Received, writer: &mut TcpStream) -> io::Result<()> {
    if received.field("expect").is_some() && !received.path().starts_with("/silent") {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Some(length) = received.field("content-length").and_then(|l| l.parse::<u64>().ok()) {
        // Large bodies are counted, not kept.
        let mut body = reader.take(length);
        if length > 1 << 24 {
            let read = io::copy(&mut body, &mut io::sink())?;
            received.body = read.to_string().into_bytes();
        } else {
            body.read_to_end(&mut received.body)?;
        }
    } else if received.field("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if size == 0 {
                received.trailers = read_head(reader)?;
                return Ok(());
            }
            reader.take(size).read_to_end(&mut received.body)?;
            let mut end = [0; 2];
            reader.read_exact(&mut end)?;
            assert_eq!(&end, b"\r\n");
        }
    }
    Ok(())
}
