//! An upstream that fails in every way it can, each by the number in the path: whoever knows the number knows what is
//! to come, on both sides.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use crate::harness::{Leaf, read_head, server_config};
use crate::model::random::Random;

/// The fault of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It stops after so many thousandths of its bytes, and the connection ends.
    Cut(u64),
    /// The same with a reset.
    Reset(u64),
    /// It comes in pieces, with pauses.
    Slow,
    /// Nothing comes.
    Silent,
    /// It stops half way, and the connection stays.
    Stall,
    /// No HTTP, or none that can be read one way only.
    Garbage(usize),
    /// A chunk's size is none.
    BadChunk,
    /// A head that is too large.
    LargeHead,
    /// A head without end.
    EndlessHead,
    /// More bytes behind the end, which look like another response.
    Extra,
    /// Interim responses first, more or less of them.
    Interim(usize),
    /// 101 although nobody asked for it.
    Upgrade,
    /// The answer comes before the request's body is read, and then the connection ends.
    Early,
    /// A body without end.
    Endless,
}

/// The framing of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    Close,
}

const GARBAGE: [&[u8]; 9] = [
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Test: a\0b\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\n folded: x\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/3.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
];

/// The outcome of one request.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub fault: Fault,
    pub framing: Framing,
    pub body: Vec<u8>,
    /// The body that the client sends; none for a GET.
    pub upload: Option<Vec<u8>>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let fault = match random.below(100) {
            ..35 => Fault::None,
            35..47 => Fault::Cut(random.next() % 1001),
            47..59 => Fault::Reset(random.next() % 1001),
            59..66 => Fault::Slow,
            66..67 => Fault::Silent,
            67..68 => Fault::Stall,
            68..77 => Fault::Garbage(random.index(GARBAGE.len())),
            77..80 => Fault::BadChunk,
            80..82 => Fault::LargeHead,
            82..83 => Fault::EndlessHead,
            83..88 => Fault::Extra,
            88..93 => Fault::Interim([1, 3, 30, 40][random.index(4)]),
            93..94 => Fault::Upgrade,
            94..99 => Fault::Early,
            _ => Fault::Endless,
        };
        let mut framing = [Framing::Length, Framing::Chunked, Framing::Length, Framing::Close][random.index(4)];
        if matches!(fault, Fault::BadChunk | Fault::Endless) {
            framing = Framing::Chunked;
        }
        // What ends with its connection has no end that could be missed, nor anything behind it.
        if matches!(fault, Fault::Cut(_) | Fault::Extra) && framing == Framing::Close {
            framing = Framing::Length;
        }
        let size = match random.below(10) {
            0 => 0,
            // What lies behind the end is to come in the same segment.
            _ if fault == Fault::Extra => 1 + random.index(600),
            1..7 => 1 + random.index(3000),
            7..9 => 10_000 + random.index(100_000),
            _ => 200_000 + random.index(600_000),
        };
        let uploads = fault == Fault::Early || random.once_in(4);
        let upload = uploads.then(|| 1 + random.index(if fault == Fault::Early { 300_000 } else { 40_000 }));
        let upload = upload.map(|len| pattern(!seed, len));
        Self { seed, fault, framing, body: pattern(seed, size), upload }
    }

    pub fn method(&self) -> &'static str {
        if self.upload.is_some() { "POST" } else { "GET" }
    }

    pub fn path(&self) -> String {
        format!("/fault/{}", self.seed)
    }

    /// The response as it should be.
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"HTTP/1.1 200 OK\r\nX-Test: yes\r\n".to_vec();
        match self.framing {
            Framing::Length => out.extend(format!("Content-Length: {}\r\n\r\n", self.body.len()).bytes()),
            Framing::Close => out.extend(b"\r\n"),
            Framing::Chunked => {
                out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in self.body.chunks(7000) {
                    out.extend(format!("{:x}\r\n", piece.len()).bytes());
                    out.extend(piece);
                    out.extend(b"\r\n");
                }
                out.extend(b"0\r\n\r\n");
                return out;
            }
        }
        out.extend(&self.body);
        out
    }

    /// Fails unless this is an honest outcome: what came is exact, or the reader can see that it is not.
    #[track_caller]
    pub fn judge(&self, seen: &Seen) {
        let whole = match seen {
            Seen::Whole(200, body) => {
                assert!(*body == self.body, "{self:.0?}: {} bytes instead of {}", body.len(), self.body.len());
                true
            }
            Seen::Whole(502..=504, _) => false,
            // On a slow machine, a client may be late with its upload.
            Seen::Whole(408, _) if self.upload.is_some() => false,
            Seen::Whole(status, _) => panic!("{self:.0?}: status {status}"),
            Seen::Broken(got) => {
                assert!(got.len() <= self.body.len().max(1) || self.fault == Fault::Endless, "{self:.0?}");
                let limit = got.len().min(self.body.len());
                assert!(got[..limit] == self.body[..limit], "{self:.0?}: wrong bytes before the break");
                false
            }
        };
        // A connection that ends while a POST is under way cannot be told from one that took it.
        let may_fail = self.upload.is_some();
        let honest = match self.fault {
            Fault::None | Fault::Slow | Fault::Extra | Fault::Interim(..=30) => whole || may_fail,
            // The end may be all that is missing; or the reset came behind it.
            Fault::Cut(_) | Fault::Reset(_) | Fault::Early => true,
            _ => !whole,
        };
        assert!(honest, "{self:.0?}: {seen:.0?}");
        if let (Fault::Cut(thousandths), true) = (self.fault, whole) {
            assert!(self.cut(thousandths) == self.bytes().len(), "{self:.0?}: passed off as whole");
        }
    }

    fn cut(&self, thousandths: u64) -> usize {
        self.bytes().len() * thousandths as usize / 1000
    }
}

/// The response that a reader has seen.
#[derive(Debug)]
pub enum Seen {
    /// A response to its end.
    Whole(u16, Vec<u8>),
    /// A response that broke off visibly; and its body so far.
    Broken(Vec<u8>),
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend(random.next().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A running upstream. Its threads end with the test's process.
pub struct Faulty {
    pub address: SocketAddr,
    /// Connections that are open now.
    pub open: Arc<AtomicUsize>,
    /// Uploads that were not what the client had sent.
    pub wrong: Arc<Mutex<Vec<String>>>,
}

impl Faulty {
    /// Over TLS, if there is a certificate.
    pub fn start(leaf: Option<&Leaf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start_on(listener, leaf)
    }

    pub fn start_on(listener: TcpListener, leaf: Option<&Leaf>) -> Self {
        let tls = leaf.map(|leaf| server_config(leaf, &[]));
        let address = listener.local_addr().unwrap();
        let wrong = Arc::<Mutex<Vec<String>>>::default();
        let list = wrong.clone();
        let open = serve_each(listener, move |socket| {
            let control = socket.try_clone()?;
            match tls.clone() {
                None => serve(socket, &control, &list),
                Some(tls) => {
                    let session = ServerConnection::new(tls).unwrap();
                    serve(StreamOwned::new(session, socket), &control, &list)
                }
            }
        });
        Self { address, open, wrong }
    }
}

/// Serves each connection on a thread of its own; gives how many are open now.
pub fn serve_each(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let open = Arc::new(AtomicUsize::new(0));
    let (count, serve) = (open.clone(), Arc::new(serve));
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (count, serve) = (count.clone(), serve.clone());
            count.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                let _ = socket.set_nodelay(true);
                let _ = serve(socket);
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    open
}

/// A connection, plain or under TLS.
trait Wire: Read + Write {
    /// Ends it properly: under TLS, with close_notify.
    fn finish(&mut self) -> io::Result<()>;
}

impl Wire for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Wire for StreamOwned<ServerConnection, TcpStream> {
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(Shutdown::Write)
    }
}

/// Answers until a fault, or the other side, ends the connection.
fn serve(mut stream: impl Wire, control: &TcpStream, wrong: &Mutex<Vec<String>>) -> io::Result<()> {
    loop {
        let head = read_head(&mut stream)?;
        let seed = head.split(' ').nth(1).and_then(|path| path.strip_prefix("/fault/")?.parse().ok());
        let plan = Plan::of(seed.ok_or(io::ErrorKind::InvalidData)?);
        let bytes = plan.bytes();
        if plan.fault != Fault::Early
            && let Some(want) = &plan.upload
            && read_upload(&mut stream, &head)? != *want
        {
            wrong.lock().unwrap().push(format!("{}: {head}", plan.seed));
        }
        match plan.fault {
            Fault::None => stream.write_all(&bytes)?,
            Fault::Cut(at) | Fault::Reset(at) => {
                stream.write_all(&bytes[..plan.cut(at)])?;
                stream.flush()?;
                if matches!(plan.fault, Fault::Reset(_)) {
                    // What was sent gets there first, now and then.
                    if plan.seed.is_multiple_of(2) {
                        thread::sleep(Duration::from_millis(2));
                    }
                    socket2::SockRef::from(control).set_linger(Some(Duration::ZERO))?;
                }
                return Ok(());
            }
            Fault::Slow => {
                let mut random = Random::new(plan.seed);
                let mut rest = &bytes[..];
                for _ in 0..8 {
                    let (now, later) = rest.split_at(random.index(rest.len().min(200)));
                    stream.write_all(now)?;
                    stream.flush()?;
                    thread::sleep(Duration::from_millis(random.next() % 8));
                    rest = later;
                }
                stream.write_all(rest)?;
            }
            Fault::Silent => return wait_for_end(&mut stream),
            Fault::Stall => {
                stream.write_all(&bytes[..bytes.len() / 2])?;
                stream.flush()?;
                return wait_for_end(&mut stream);
            }
            Fault::Garbage(which) => return stream.write_all(GARBAGE[which]).and_then(|()| stream.flush()),
            Fault::BadChunk => {
                let at = bytes.len() - b"0\r\n\r\n".len();
                stream.write_all(&bytes[..at])?;
                stream.write_all(b"zz\r\nhello\r\n0\r\n\r\n")?;
                return stream.flush();
            }
            Fault::LargeHead => {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nX-Test: {}\r\n\r\n", "x".repeat(70_000));
                return stream.flush();
            }
            Fault::EndlessHead => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
                loop {
                    stream.write_all(&b"X-Test: more\r\n".repeat(100))?;
                }
            }
            Fault::Extra => {
                let extra = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
                stream.write_all(&[&bytes[..], extra].concat())?;
            }
            Fault::Interim(count) => {
                for n in 0..count {
                    stream.write_all(
                        [&b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"[..], b"HTTP/1.1 100 Continue\r\n\r\n"]
                            [n % 2],
                    )?;
                }
                stream.write_all(&bytes)?;
            }
            Fault::Upgrade => {
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
                return stream.flush();
            }
            Fault::Early => {
                stream.write_all(&bytes)?;
                stream.flush()?;
                if plan.seed.is_multiple_of(3) {
                    read_upload(&mut stream, &head)?;
                } else {
                    return Ok(());
                }
            }
            Fault::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    stream.write_all(b"1000\r\n")?;
                    stream.write_all(&[b'x'; 0x1000])?;
                    stream.write_all(b"\r\n")?;
                }
            }
        }
        stream.flush()?;
        if plan.framing == Framing::Close {
            stream.finish()?;
            return wait_for_end(&mut stream);
        }
    }
}

fn wait_for_end(stream: &mut impl Read) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

fn read_upload(stream: &mut impl Read, head: &str) -> io::Result<Vec<u8>> {
    let field =
        |name: &str| head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
    let mut body = Vec::new();
    if let Some((_, length)) = field("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        stream.take(length).read_to_end(&mut body)?;
        return Ok(body);
    }
    let mut reader = BufReader::with_capacity(1, stream);
    loop {
        let mut line = String::new();
        io::BufRead::read_line(&mut reader, &mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        (&mut reader).take(size).read_to_end(&mut body)?;
        io::BufRead::read_line(&mut reader, &mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}
