//! The bytes of an HTTP/1.1 connection, and the body of the request under way.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use http::StatusCode;

use crate::message::{
    BodyDecoder, Decoded, FieldSink as _, Framing, HeadFault, HeadLimits, ParseProgress, RequestHead, ResponseHead,
    Version, parse_request,
};
use crate::server::asked::Turn;
use crate::server::context::ClientTransport;
use crate::server::interim::{InterimFilter, PassedPart};
use crate::server::snapshot::SiteOfView;
use crate::server::trailers;
use crate::server::tunnel::Duplex;
use crate::upstream::Interim;
use crate::wire::body::{Body, Frame, RequestBodyError};
use crate::wire::write_buffer::WriteBuffer;

/// Bytes of a request's body to read at once.
const BODY_READ: usize = 64 * 1024;
/// Bytes that a client may send ahead while its request is being answered.
const AHEAD_MAX: usize = 16 * 1024;

/// The connection's bytes, shared between the task that answers and the body that the upstream reads.
pub(super) struct Link {
    pub(super) transport: ClientTransport,
    /// Unused bytes: heads, bodies, and requests that a client sends ahead.
    pub(super) received: BytesMut,
    /// The incomplete head, as far as it was searched.
    progress: ParseProgress,
    decoder: BodyDecoder,
    body_left: u64,
    /// Bytes of the body that were read.
    body_read: u64,
    /// Unwritten interim responses, which are rare.
    interim: Option<Box<WriteBuffer>>,
    /// The client has ended its side, or reset the connection.
    gone: bool,
}

impl Link {
    pub(super) fn new(transport: ClientTransport, received: Vec<u8>) -> Self {
        Self {
            transport,
            received: BytesMut::from(&received[..]),
            progress: ParseProgress::default(),
            decoder: BodyDecoder::request(Framing::None),
            body_left: 0,
            body_read: 0,
            interim: None,
            gone: false,
        }
    }

    /// Takes a request's head from the received bytes. Returns `false` if it is incomplete.
    pub(super) fn take_head(&mut self, limits: &HeadLimits, head: &mut RequestHead) -> Result<bool, HeadFault> {
        if self.received.is_empty() || !self.progress.is_worth_it(&self.received, &[limits.request_line, limits.head]) {
            return Ok(false);
        }
        let Some(len) = parse_request(&self.received, limits, head)? else { return Ok(false) };
        self.progress = ParseProgress::default();
        self.received.advance(len);
        Ok(true)
    }

    /// Prepares for the body of a request, of at most `max` bytes.
    pub(super) fn begin_body(&mut self, framing: Framing, max: u64) {
        self.decoder = BodyDecoder::request(framing);
        self.body_left = max;
        self.body_read = 0;
    }

    /// Returns `true` if the request's body has been read to its end.
    pub(super) fn is_body_read(&self) -> bool {
        self.decoder.is_end()
    }

    /// Returns the bytes of the request's body that were read.
    pub(super) fn body_read(&self) -> u64 {
        self.body_read
    }

    /// Appends to `received`. Returns the number of bytes, 0 at the end.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.transport.poll_read_lazily(cx, &mut self.received)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        loop {
            match self.decoder.decode(&mut self.received) {
                Err(fault) => return Poll::Ready(Some(Err(RequestBodyError::Malformed(fault)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::Trailers(fields)) => return Poll::Ready(Some(Ok(Frame::Trailers(fields)))),
                Ok(Decoded::Data(data)) => {
                    return Poll::Ready(Some(match self.body_left.checked_sub(data.len() as u64) {
                        Some(left) => {
                            self.body_left = left;
                            self.body_read += data.len() as u64;
                            Ok(Frame::Data(data))
                        }
                        None => Err(RequestBodyError::TooLarge),
                    }));
                }
                Ok(Decoded::More) => {}
            }
            if self.received.capacity() - self.received.len() < BODY_READ / 2 {
                self.received.reserve(BODY_READ);
            }
            let room = self.received.capacity() - self.received.len();
            match ready!(self.transport.poll_read(cx, &mut (&mut self.received).limit(room))) {
                Ok(0) | Err(_) => {
                    self.gone = true;
                    return Poll::Ready(Some(Err(RequestBodyError::Gone)));
                }
                Ok(_) => {}
            }
        }
    }

    /// Writes interim responses, and watches for the client's end. Ready once the client has left.
    pub(super) fn poll_while_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.interim.is_some() || !self.transport.is_flushed() {
            let written = match &mut self.interim {
                Some(interim) => interim.poll_write(&mut self.transport, cx, &mut |_| {}),
                None => Poll::Ready(Ok(())),
            };
            let flushed = match written {
                Poll::Ready(Ok(())) => {
                    self.interim = None;
                    self.transport.poll_flush(cx)
                }
                other => other,
            };
            if matches!(flushed, Poll::Ready(Err(_))) {
                self.gone = true;
            }
        }
        // Until then, the reader of the body sees the end.
        while !self.gone && self.decoder.is_end() && self.received.len() < AHEAD_MAX {
            match self.poll_receive(cx) {
                Poll::Ready(Ok(0) | Err(_)) => self.gone = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if self.gone { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Moves unwritten interim responses to the end of `out`.
    pub(super) fn take_interim(&mut self, out: &mut Vec<u8>) {
        if let Some(interim) = self.interim.take() {
            out.extend_from_slice(interim.unsent_head());
        }
    }

    /// Sets if closing resets the connection, whether pintle closes it or the kernel at the end of the process.
    pub(super) fn reset_on_close(&self, resets: bool) {
        let _ = socket2::SockRef::from(self.transport.socket()).set_linger(resets.then_some(Duration::ZERO));
    }

    /// Discards the rest of the request's body.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RequestBodyError>> {
        while let Some(frame) = ready!(self.poll_body(cx)) {
            frame?;
        }
        Poll::Ready(Ok(()))
    }
}

/// After an upgrade, the connection is one end of a tunnel.
impl Duplex for Rc<RefCell<Link>> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.borrow_mut().transport.poll_read_lazily(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        Duplex::poll_write(&mut self.borrow_mut().transport, cx, buf)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.borrow_mut().transport.poll_shutdown(cx)
    }
}

/// The body of the request under way, for the upstream to read.
pub(super) struct LinkBody {
    pub(super) link: Rc<RefCell<Link>>,
    /// The site whose rules decide which trailers pass.
    pub(super) site: Option<SiteOfView>,
}

impl Body for LinkBody {
    type Error = RequestBodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        let frame = ready!(self.link.borrow_mut().poll_body(cx));
        Poll::Ready(trailers::of_request(frame, self.site.as_ref()))
    }

    fn is_end(&self) -> bool {
        self.link.borrow().is_body_read()
    }
}

/// Passes interim responses to the client.
pub(super) struct LinkInterim<'a> {
    link: &'a RefCell<Link>,
    version: Version,
    filter: InterimFilter<'a>,
    /// The limit for unwritten hints, in bytes.
    most: usize,
}

impl<'a> LinkInterim<'a> {
    /// Returns the receiver of interim responses to a request.
    pub(super) fn new(link: &'a RefCell<Link>, turn: &Turn<'a>) -> Self {
        let most = turn.asked.view.shared.limits.response_header_size;
        Self { link, version: turn.head.version, filter: InterimFilter::of(turn), most }
    }
}

impl Interim for LinkInterim<'_> {
    fn interim(&mut self, head: &ResponseHead) {
        // HTTP/1.0 has no interim responses (RFC 9110 section 15.2).
        if self.version == Version::Http10 {
            return;
        }
        let Some(passed) = self.filter.pass(head) else { return };
        let mut bytes = Vec::with_capacity(64);
        write_status_line(head.status, &mut bytes);
        let mut link = self.link.borrow_mut();
        let waiting = link.interim.get_or_insert_default();
        if let PassedPart::Hints = passed {
            for (name, value) in self.filter.hints(head) {
                bytes.field(name, &value);
            }
            // A client that does not read gets no more hints.
            if waiting.unsent_head().len() + bytes.len() > self.most {
                return;
            }
        }
        bytes.extend_from_slice(b"\r\n");
        waiting.append(&bytes);
    }
}

/// `HTTP/1.1 200 OK`
pub(super) fn write_status_line(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}
