//! Sends an answer on an HTTP/1.1 connection: head, framing, body.

use std::cell::RefCell;
use std::io;
use std::task::{Context as TaskContext, Poll, ready};

use http::{Method, StatusCode};

use super::connection::ClientConnection;
use super::link::{Link, write_status_line};
use crate::clock::Alarm;
use crate::message::{FieldSink as _, RequestHead, Version};
use crate::server::record::Sent;
use crate::server::reply::Reply;
use crate::upstream::{ResponseBody, UpstreamError};
use crate::wire::body::Body as _;
use crate::wire::min_rate::RateTimer;
use crate::wire::write_buffer::WriteBuffer;

thread_local! {
    static HEADS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers of response heads that a thread keeps.
const SPARE_HEADS: usize = 64;

/// The framing of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyFraming {
    None,
    Plain,
    Chunked,
}

/// An answer on its way.
pub(super) struct Sending {
    out: WriteBuffer,
    framing: BodyFraming,
    keep_alive: bool,
    ended: bool,
    /// The end of the connection ends the body (HTTP/1.0). Until the body is complete, any close resets the connection:
    /// without TLS only that distinguishes a proper end, and with TLS many clients ignore a missing close_notify.
    ends_with_connection: bool,
    rate_timer: RateTimer,
    bytes: u64,
    /// Bytes that the connection has taken since the last poll, and `true` if the upstream has delivered any.
    written: usize,
    loaded: bool,
    /// Bytes that the connection has taken, and those that it had not sent before.
    taken: usize,
    unsent_before: usize,
    /// `true` while pintle waits for the client, `false` while it waits for the upstream.
    waits_for_client: bool,
    /// The error that cut the upstream's body short.
    broken: Option<UpstreamError>,
}

impl Sending {
    /// Prepares the head. Nothing is sent yet.
    pub(super) fn begin(
        connection: &ClientConnection,
        head: &RequestHead,
        reply: &mut Reply,
        keep_alive: bool,
    ) -> Self {
        let ClientConnection { link, context, alarm } = connection;
        let mut bytes = HEADS.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(1024));
        // Unwritten interim responses come first.
        link.borrow_mut().take_interim(&mut bytes);
        let (framing, keep_alive) = write_head(head, reply, keep_alive, &context.worker.clock.date(), &mut bytes);
        if framing == BodyFraming::None {
            reply.body = ResponseBody::Empty;
        }
        let ends_with_connection = framing == BodyFraming::Plain && reply.length().is_none();
        if ends_with_connection {
            link.borrow().reset_on_close(true);
        }
        let mut rate_timer = RateTimer::new(context.worker.view().shared.limits.min_rate());
        rate_timer.begin(alarm);
        Self {
            out: WriteBuffer::new(bytes),
            framing,
            keep_alive,
            ended: framing == BodyFraming::None,
            ends_with_connection,
            rate_timer,
            bytes: 0,
            written: 0,
            loaded: false,
            taken: 0,
            unsent_before: link.borrow().transport.unsent(),
            waits_for_client: false,
            broken: None,
        }
    }

    /// Sends. Ready once everything is sent, or sending has failed.
    pub(super) fn poll_sent(
        &mut self,
        reply: &mut Reply,
        connection: &ClientConnection,
        cx: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        let ClientConnection { link, alarm, .. } = connection;
        let unsent = link.borrow().transport.unsent();
        if let Poll::Ready(done) = self.poll(reply, link, cx) {
            return Poll::Ready(done);
        }
        let taken = std::mem::take(&mut self.written);
        let loaded = std::mem::take(&mut self.loaded);
        if self.waits_for_client {
            // Bytes that have reached the socket.
            let moved = (taken + unsent).saturating_sub(link.borrow().transport.unsent());
            self.rate_timer.wait_for_client(moved as u64, alarm);
        } else {
            self.rate_timer.wait_for_other(loaded || taken > 0, self.rate_timer.pause(), alarm);
        }
        alarm.poll_due(cx).map(|()| {
            self.time_is_up(&reply.body, alarm, link);
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    /// Adds the bytes that a tunnel sent to the client, and the error that ended it.
    pub(super) fn add_tunnelled(&mut self, bytes: u64, broken: Option<io::Error>) {
        self.bytes += bytes;
        self.broken = broken.map(|error| UpstreamError::Truncated(Some(error)));
    }

    /// Returns `true` if the connection may take another request behind this answer.
    pub(super) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Returns the result.
    pub(super) fn end(&mut self, result: io::Result<()>, link: &RefCell<Link>) -> Sent {
        if result.is_ok() {
            let out = std::mem::take(&mut self.out);
            HEADS.with_borrow_mut(|heads| {
                if heads.len() < SPARE_HEADS {
                    heads.push(out.into_buffer());
                }
            });
        }
        let unsent = result.is_err() && link.borrow().transport.unsent() >= self.taken + self.unsent_before;
        Sent { result, bytes: self.bytes, broken: self.broken.take(), unsent }
    }

    /// Decides whose fault it is that nothing moves: the upstream's, if everything received so far was sent.
    fn time_is_up(&mut self, body: &ResponseBody, alarm: &Alarm, link: &RefCell<Link>) {
        let link = link.borrow();
        if alarm.is_past_cap() {
            self.broken = Some(UpstreamError::TotalTimeout);
        } else if !self.ended && self.out.is_empty() && link.transport.is_flushed() {
            body.give_up();
            self.broken = Some(UpstreamError::BodyTimeout);
        }
    }

    fn poll(&mut self, reply: &mut Reply, link: &RefCell<Link>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.ended && self.out.is_loadable() {
                match reply.poll_frame(cx) {
                    Poll::Ready(frame) => {
                        let frame = match frame.transpose() {
                            Ok(frame) => frame,
                            // The client must see that the body is cut short: no last chunk, fewer bytes than stated, no
                            // close_notify; and a reset if the end of the connection would end the body.
                            Err(error) => {
                                self.broken = Some(error);
                                self.ended = true;
                                continue;
                            }
                        };
                        if let Some(crate::wire::body::Frame::Data(data)) = &frame {
                            self.bytes += data.len() as u64;
                        }
                        let chunked = self.framing == BodyFraming::Chunked;
                        self.ended = self.out.load(frame, chunked) || (!chunked && reply.is_end());
                        self.loaded = true;
                    }
                    // Sends what it has while the upstream is slow.
                    Poll::Pending if self.out.is_empty() => {
                        self.waits_for_client = true;
                        ready!(link.borrow_mut().transport.poll_flush(cx))?;
                        self.waits_for_client = false;
                        return Poll::Pending;
                    }
                    Poll::Pending => {}
                }
            }
            self.waits_for_client = true;
            let mut link = link.borrow_mut();
            if self.out.is_empty() && self.ended {
                ready!(link.transport.poll_flush(cx))?;
                let broken = self.broken.is_some();
                if self.ends_with_connection && !broken {
                    link.reset_on_close(false);
                }
                return Poll::Ready(if broken { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) });
            }
            let mut written = 0;
            let done = self.out.poll_write(&mut link.transport, cx, &mut |n| written += n);
            self.written += written;
            self.taken += written;
            ready!(done)?;
        }
    }
}

/// Writes the head. Returns the framing of the body, and `true` if the connection may take another request.
fn write_head(
    head: &RequestHead,
    reply: &Reply,
    mut keep_alive: bool,
    date: &str,
    out: &mut Vec<u8>,
) -> (BodyFraming, bool) {
    let status = reply.head.status;
    write_status_line(status, out);
    reply.write_fields(out, date);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        return (BodyFraming::None, false);
    }
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let framing = if head.method == Method::HEAD || bodiless {
        // The length of the body in the response to a GET, if the upstream states it.
        match (reply.stated_length(&head.method), reply.length()) {
            (Some(stated), _) => write_length(stated, out),
            (None, Some(length)) if !reply.forwarded && !bodiless => {
                write_length(length, out);
            }
            _ => {}
        }
        BodyFraming::None
    } else if let Some(length) = reply.length() {
        write_length(length, out);
        if length == 0 { BodyFraming::None } else { BodyFraming::Plain }
    } else if head.version == Version::Http11 {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        BodyFraming::Chunked
    } else {
        // HTTP/1.0 has no chunks: the end of the connection ends the body.
        keep_alive = false;
        BodyFraming::Plain
    };
    match (keep_alive, head.version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    (framing, keep_alive)
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
}
