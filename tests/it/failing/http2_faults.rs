//! An upstream that speaks hand-written HTTP/2 over TLS, with the fault that a test chooses.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::faults::{pattern, serve_each};
use crate::fuzz::targets::http2::{PREFACE, block};
use crate::harness::http2_frame::*;
use crate::harness::{Leaf, server_config};

/// The most bytes of a flood. Beyond it, pintle has failed to end the connection.
const FLOOD_MAX: usize = 48 << 20;

/// The fault of a response.
#[derive(Debug, Clone)]
pub enum Fault {
    None,
    /// RST_STREAM with this code, after so many bytes of the body; none: instead of a head.
    Reset(u32, Option<usize>),
    /// GOAWAY that names no stream, and the end.
    GoAwayUnprocessed,
    /// The same with an error's code.
    GoAwayUnprocessedFor(u32),
    /// 103, and RST_STREAM with this code.
    HintThenReset(u32),
    /// GOAWAY in the body, which goes on to its end.
    GoAwayThenWhole,
    /// GOAWAY with an error in the body, and the end.
    GoAwayInBody,
    /// GOAWAY instead of an answer; and the connection stays.
    GoAwayThenSilent,
    /// The end of the connection after so many bytes of the response, frames' heads included; by a reset or not.
    Cut(usize, bool),
    /// This content-length, and the body.
    Length(&'static str),
    /// Half of the body, and END_STREAM.
    Short,
    /// These lines as the head, and the body.
    Head(String),
    /// These bytes instead of an answer.
    Bytes(Vec<u8>),
    /// This, without end.
    Flood(Vec<u8>),
    /// A head, and then this, without end.
    FloodInBody(Vec<u8>),
    /// A head of so many bytes, in CONTINUATION frames.
    LargeHead(usize),
    /// One large field in the table, named so many times.
    Bomb(usize),
    /// A head without END_HEADERS, and nothing more.
    UnfinishedHead,
    Silent,
    /// Half of the body.
    Stall,
    /// As much as the windows let, of a body that is larger.
    Ahead,
    /// The body in frames of so many bytes, each padded or not.
    Pieces(usize, bool),
    /// More behind the end.
    Extra,
    Trailers,
    /// These lines as trailers.
    TrailersOf(&'static str),
    /// Trailers that do not end the stream.
    TrailersGoOn,
    /// An answer before the request's body is read, and the rest refused with NO_ERROR.
    Early,
    /// 100 so many times, late, and the answer.
    Continue(usize),
    /// No room for a body; the answer comes if it comes all the same.
    NoWindow,
}

/// The body of every answer.
pub fn body() -> Vec<u8> {
    pattern(77, 20_000)
}

#[derive(Clone)]
struct Shared {
    fault: Arc<Mutex<(Fault, usize)>>,
    requests: Arc<AtomicUsize>,
    wrong: Arc<AtomicUsize>,
    right: Arc<AtomicUsize>,
    room: Arc<AtomicUsize>,
}

/// A running upstream. Its threads end with the test's process.
pub struct Http2Upstream {
    pub address: SocketAddr,
    /// Connections that are open now.
    pub open: Arc<AtomicUsize>,
    shared: Shared,
}

impl Http2Upstream {
    pub fn start(leaf: &Leaf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = server_config(leaf, &[b"h2"]);
        let fault = Arc::new(Mutex::new((Fault::None, 0)));
        let shared = Shared {
            fault,
            requests: Arc::default(),
            wrong: Arc::default(),
            right: Arc::default(),
            room: Arc::default(),
        };
        let state = shared.clone();
        let open = serve_each(listener, move |socket| {
            let control = socket.try_clone()?;
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
            let state = state.clone();
            Wire { tls, control, state, uploads: Vec::new(), stream_window: 65_535, window: 65_535 }.serve()
        });
        Self { address, open, shared }
    }

    /// The next so many requests go wrong like this.
    pub fn fail(&self, fault: Fault, times: usize) {
        *self.shared.fault.lock().unwrap() = (fault, times);
    }

    /// Requests that have come.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The number of whole stream windows that the connection's window had room for when the last request came.
    pub fn room(&self) -> usize {
        self.shared.room.load(Ordering::SeqCst)
    }

    /// Uploads that were what the client had sent.
    pub fn right(&self) -> usize {
        self.shared.right.load(Ordering::SeqCst)
    }

    /// Uploads that were not what the client had sent.
    pub fn wrong(&self) -> usize {
        self.shared.wrong.load(Ordering::SeqCst)
    }
}

fn head(stream: u32, lines: &str) -> Vec<u8> {
    bytes(HEADERS, END_HEADERS, stream, &block(lines.as_bytes()))
}

/// DATA frames of at most this size; with END_STREAM or not.
fn data(stream: u32, body: &[u8], size: usize, end: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pieces = body.chunks(size).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if end && pieces.peek().is_none() { END_STREAM } else { 0 };
        out.extend(bytes(DATA, flags, stream, piece));
    }
    out
}

fn number(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// The fate of the connection.
enum Then {
    GoOn,
    End,
    Reset,
    /// It stays open, and says nothing more.
    Hang,
}

struct Wire {
    tls: StreamOwned<ServerConnection, TcpStream>,
    control: TcpStream,
    state: Shared,
    /// Bodies of requests under way.
    uploads: Vec<(u32, Vec<u8>)>,
    /// The window of a new stream, and that of the connection.
    stream_window: usize,
    window: usize,
}

impl Wire {
    fn serve(mut self) -> io::Result<()> {
        let mut preface = [0; 24];
        self.tls.read_exact(&mut preface)?;
        assert_eq!(preface, PREFACE);
        self.send(&bytes(SETTINGS, 0, 0, &[]))?;
        loop {
            let mut begin = [0; 9];
            self.tls.read_exact(&mut begin)?;
            let len = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]) as usize;
            let (kind, flags) = (begin[3], begin[4]);
            let stream = u32::from_be_bytes([begin[5], begin[6], begin[7], begin[8]]);
            let mut payload = vec![0; len];
            self.tls.read_exact(&mut payload)?;
            let ended = flags & END_STREAM != 0;
            if kind == WINDOW_UPDATE && stream == 0 {
                self.window += u32::from_be_bytes(payload[..4].try_into().unwrap()) as usize;
            }
            if kind == SETTINGS {
                for setting in payload.chunks(6).filter(|s| s[..2] == [0, 4]) {
                    self.stream_window = u32::from_be_bytes(setting[2..].try_into().unwrap()) as usize;
                }
            }
            let then = match kind {
                SETTINGS if flags & ACK == 0 => self.send(&bytes(SETTINGS, ACK, 0, &[])).map(|()| Then::GoOn)?,
                PING if flags & ACK == 0 => self.send(&bytes(PING, ACK, 0, &payload)).map(|()| Then::GoOn)?,
                HEADERS => {
                    let early = matches!(self.state.fault.lock().unwrap().0, Fault::Early | Fault::NoWindow);
                    let late = matches!(self.state.fault.lock().unwrap().0, Fault::Continue(_));
                    if !ended && late {
                        self.interim(stream)?;
                    }
                    if !ended {
                        self.uploads.push((stream, Vec::new()));
                    }
                    if ended || early { self.answer(stream)? } else { Then::GoOn }
                }
                DATA => {
                    if len > 0 {
                        self.send(&bytes(WINDOW_UPDATE, 0, 0, &number(len as u32)))?;
                        if !ended {
                            self.send(&bytes(WINDOW_UPDATE, 0, stream, &number(len as u32)))?;
                        }
                    }
                    if let Some((_, upload)) = self.uploads.iter_mut().find(|(s, _)| *s == stream) {
                        upload.extend(&payload);
                    }
                    if ended && self.uploads.iter().any(|(s, _)| *s == stream) {
                        self.answer(stream)?
                    } else {
                        Then::GoOn
                    }
                }
                _ => Then::GoOn,
            };
            match then {
                Then::GoOn => {}
                Then::End => {
                    self.tls.conn.send_close_notify();
                    self.tls.flush()?;
                    self.control.shutdown(Shutdown::Write)?;
                    return io::copy(&mut self.tls, &mut io::sink()).map(drop);
                }
                Then::Reset => {
                    thread::sleep(Duration::from_millis(2));
                    return socket2::SockRef::from(&self.control).set_linger(Some(Duration::ZERO));
                }
                Then::Hang => return io::copy(&mut self.tls, &mut io::sink()).map(drop),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    fn flood(&mut self, bytes: &[u8]) -> io::Result<Then> {
        let batch = bytes.repeat(1 + 32_000 / bytes.len());
        let mut sent = 0;
        while sent < FLOOD_MAX {
            self.send(&batch)?;
            sent += batch.len();
        }
        Ok(Then::Hang)
    }

    /// 100 before the body, as many times as there shall be.
    fn interim(&mut self, stream: u32) -> io::Result<()> {
        let Fault::Continue(times) = self.state.fault.lock().unwrap().0 else { return Ok(()) };
        thread::sleep(Duration::from_millis(50));
        for _ in 0..times {
            self.send(&head(stream, ":status: 100\n"))?;
        }
        Ok(())
    }

    fn answer(&mut self, stream: u32) -> io::Result<Then> {
        self.state.room.store(self.window / self.stream_window.max(1), Ordering::SeqCst);
        self.state.requests.fetch_add(1, Ordering::SeqCst);
        let fault = {
            let mut shared = self.state.fault.lock().unwrap();
            match shared.1 {
                0 => Fault::None,
                _ => {
                    shared.1 -= 1;
                    shared.0.clone()
                }
            }
        };
        if let Some(at) = self.uploads.iter().position(|(s, _)| *s == stream) {
            let early = matches!(fault, Fault::Early | Fault::NoWindow);
            let (_, upload) = self.uploads.remove(at);
            if !early {
                let count = if upload == body() { &self.state.right } else { &self.state.wrong };
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
        let body = body();
        let (half, len) = (body.len() / 2, body.len());
        let good = head(stream, &format!(":status: 200\ncontent-length: {len}\n"));
        let open = head(stream, ":status: 200\n");
        let all = [good.clone(), data(stream, &body, 16_384, true)].concat();
        if !matches!(fault, Fault::Ahead) {
            // Where there is no room it waits, for as long as it takes.
            let Some(left) = self.window.checked_sub(len) else { return Ok(Then::GoOn) };
            self.window = left;
        }
        let first = [good.clone(), data(stream, &body[..half], 16_384, false)].concat();
        match fault {
            Fault::Ahead => {
                let ahead = self.stream_window.min(self.window);
                self.window -= ahead;
                self.send(&[open, data(stream, &vec![b'x'; ahead], 16_384, false)].concat())?;
            }
            Fault::None | Fault::Continue(_) => self.send(&all)?,
            Fault::Reset(code, after) => {
                if let Some(after) = after {
                    self.send(&[open, data(stream, &body[..after], 16_384, false)].concat())?;
                }
                self.send(&bytes(RST_STREAM, 0, stream, &number(code)))?;
            }
            Fault::GoAwayUnprocessed => {
                self.send(&bytes(GOAWAY, 0, 0, &[0; 8]))?;
                return Ok(Then::End);
            }
            Fault::GoAwayUnprocessedFor(code) => {
                self.send(&bytes(GOAWAY, 0, 0, &[number(0), number(code)].concat()))?;
                return Ok(Then::End);
            }
            Fault::HintThenReset(code) => {
                let hint = head(stream, ":status: 103\nlink: </a.css>\n");
                self.send(&[hint, bytes(RST_STREAM, 0, stream, &number(code))].concat())?;
            }
            Fault::GoAwayThenWhole => {
                let away = bytes(GOAWAY, 0, 0, &[number(stream), number(0)].concat());
                self.send(&[first, away, data(stream, &body[half..], 16_384, true)].concat())?;
                return Ok(Then::End);
            }
            Fault::GoAwayInBody => {
                self.send(&[open, data(stream, &body[..half], 16_384, false)].concat())?;
                self.send(&bytes(GOAWAY, 0, 0, &[number(stream), number(1)].concat()))?;
                return Ok(Then::End);
            }
            Fault::GoAwayThenSilent => {
                self.send(&bytes(GOAWAY, 0, 0, &[number(stream), number(0)].concat()))?;
                return Ok(Then::Hang);
            }
            Fault::Cut(at, reset) => {
                let all = [open, data(stream, &body, 16_384, true)].concat();
                self.send(&all[..at.min(all.len())])?;
                return Ok(if reset { Then::Reset } else { Then::End });
            }
            Fault::Length(length) => {
                let head = head(stream, &format!(":status: 200\ncontent-length: {length}\n"));
                self.send(&[head, data(stream, &body, 16_384, true)].concat())?;
            }
            Fault::Short => self.send(&[good, data(stream, &body[..half], 16_384, true)].concat())?,
            Fault::Head(lines) => self.send(&[head(stream, &lines), data(stream, &body, 16_384, true)].concat())?,
            Fault::Bytes(bytes) => self.send(&bytes)?,
            Fault::Flood(bytes) => return self.flood(&for_stream(bytes, stream)),
            Fault::FloodInBody(bytes) => {
                self.send(&open)?;
                return self.flood(&for_stream(bytes, stream));
            }
            Fault::LargeHead(size) => {
                let large = block(format!(":status: 200\n{}", "x-test: 0123456789\n".repeat(size / 18)).as_bytes());
                let mut pieces = large.chunks(16_000);
                self.send(&bytes(HEADERS, 0, stream, pieces.next().unwrap()))?;
                for piece in pieces {
                    self.send(&bytes(CONTINUATION, 0, stream, piece))?;
                }
                self.send(&bytes(CONTINUATION, END_HEADERS, stream, &[]))?;
                self.send(&data(stream, &body, 16_384, true))?;
            }
            Fault::Bomb(times) => {
                // Literal with indexing (0x40): a name of one byte, a value of 4000; and then index 62, over and over.
                let mut bomb = vec![0x88, 0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
                bomb.extend([b'y'; 4000]);
                bomb.extend(vec![0xbe; times]);
                self.send(&bytes(HEADERS, END_HEADERS, stream, &bomb))?;
                self.send(&data(stream, &body, 16_384, true))?;
            }
            Fault::UnfinishedHead => {
                self.send(&bytes(HEADERS, 0, stream, &block(b":status: 200\n")))?;
                return Ok(Then::Hang);
            }
            Fault::Silent => {}
            Fault::Stall => self.send(&first)?,
            Fault::Pieces(size, padded) => {
                self.send(&good)?;
                for (n, piece) in body.chunks(size).enumerate() {
                    let end = if (n + 1) * size >= len { END_STREAM } else { 0 };
                    if padded {
                        let pad = (n * 37 % 256) as u8;
                        let payload = [&[pad][..], piece, &vec![0; usize::from(pad)]].concat();
                        self.tls.write_all(&bytes(DATA, PADDED | end, stream, &payload))?;
                    } else {
                        self.tls.write_all(&bytes(DATA, end, stream, piece))?;
                    }
                }
                self.tls.flush()?;
            }
            Fault::Extra => self.send(&[all, bytes(DATA, END_STREAM, stream, b"poison")].concat())?,
            Fault::Trailers => {
                let trailers = bytes(HEADERS, END_HEADERS | END_STREAM, stream, &block(b"x-test: 1\n"));
                self.send(&[open, data(stream, &body, 16_384, false), trailers].concat())?;
            }
            Fault::TrailersOf(lines) => {
                let trailers = bytes(HEADERS, END_HEADERS | END_STREAM, stream, &block(lines.as_bytes()));
                self.send(&[open, data(stream, &body, 16_384, false), trailers].concat())?;
            }
            Fault::TrailersGoOn => {
                let trailers = head(stream, "x-test: 1\n");
                let rest = data(stream, &body[half..], 16_384, true);
                self.send(&[open, data(stream, &body[..half], 16_384, false), trailers, rest].concat())?;
            }
            Fault::Early => {
                self.send(&[all, bytes(RST_STREAM, 0, stream, &number(0))].concat())?;
            }
            Fault::NoWindow => {
                self.send(&bytes(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]))?;
                self.send(&all)?;
            }
        }
        Ok(Then::GoOn)
    }
}

/// Frames of a flood are written for stream 1; those of the connection stay what they are.
fn for_stream(mut frames: Vec<u8>, stream: u32) -> Vec<u8> {
    let mut at = 0;
    while let Some(begin) = frames.get(at..at + 9) {
        let len = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]) as usize;
        if begin[8] == 1 {
            frames[at + 5..at + 9].copy_from_slice(&number(stream));
        }
        at += 9 + len;
    }
    frames
}

/// Frames that HTTP/2 has no place for, and none at all.
pub fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let promise = [&number(2)[..], &block(b":method: GET\n:scheme: https\n:authority: a\n:path: /\n")].concat();
    vec![
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("noise", pattern(5, 4000)),
        ("a frame that is too large", bytes(DATA, 0, 1, &vec![0; 17_000])),
        ("data on stream 0", bytes(DATA, 0, 0, b"x")),
        ("data on a stream that is not open", bytes(DATA, 0, 99_999, b"x")),
        ("a head on stream 0", head(0, ":status: 200\n")),
        ("a head on a stream of the other side", head(2, ":status: 200\n")),
        ("a promise", bytes(PUSH_PROMISE, END_HEADERS, 1, &promise)),
        ("a window of nothing", bytes(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("windows beyond all bounds", bytes(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
        ("settings of half a setting", bytes(SETTINGS, 0, 0, &[0, 1, 2])),
        ("settings that cannot be", bytes(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("continuation of nothing", bytes(CONTINUATION, END_HEADERS, 1, &[0x88])),
        ("a reset of nothing", bytes(RST_STREAM, 0, 99_999, &[0; 4])),
        ("fields that are none", bytes(HEADERS, END_HEADERS, 1, &[0xff; 20])),
    ]
}
