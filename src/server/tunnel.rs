//! WebSocket tunnels: once both sides have agreed, bytes pass both ways until one side ends.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

use super::why::{self, Why};
use crate::clock::Alarm;
use crate::tls::Session;
use crate::wire::http2_send::Account;
use crate::wire::transport::Transport;

/// Bytes that may wait in one direction.
const BUFFER: usize = 16 * 1024;

/// Returns the Sec-WebSocket-Accept for a key (RFC 6455 section 4.2.2).
pub(super) fn accept_for(key: &str) -> String {
    let mut text = key.to_owned();
    text.push_str("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// One end of a tunnel.
pub(super) trait Duplex {
    /// Appends to `buf`. Returns the number of bytes, 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>;
    /// Writes from the front of `buf`. Ready once `buf` is empty and everything is flushed.
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>>;
    /// Ends the writing side.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<S: Session> Duplex for Transport<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.poll_read_lazily(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        while !buf.is_empty() {
            let len = ready!(self.poll_write_vectored(cx, &[io::IoSlice::new(buf)]))?;
            buf.advance(len);
        }
        self.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown(cx)
    }
}

/// The stream of an extended CONNECT (RFC 8441).
pub(super) struct Http2Duplex<A: Account> {
    pub(super) recv: RecvStream,
    pub(super) send: SendStream<A::Piece>,
    pub(super) account: A,
}

impl<A: Account> Duplex for Http2Duplex<A> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        match ready!(self.recv.poll_data(cx)) {
            Some(Ok(data)) => {
                let _ = self.recv.flow_control().release_capacity(data.len());
                buf.extend_from_slice(&data);
                // An empty frame is not the end.
                if data.is_empty() && !self.recv.is_end_stream() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(data.len()))
            }
            Some(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
            None => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        while !buf.is_empty() {
            ready!(self.account.poll_capacity(cx));
            self.send.reserve_capacity(buf.len());
            if self.send.capacity() == 0 {
                match ready!(self.send.poll_capacity(cx)) {
                    Some(granted) => granted.map_err(io::Error::other)?,
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                };
                continue;
            }
            let part = buf.split_to(self.send.capacity().min(buf.len())).freeze();
            self.send.send_data(self.account.charge(part), false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(self.account.charge(Bytes::new()), true).map_err(io::Error::other))
    }
}

impl<A: Account> Drop for Http2Duplex<A> {
    fn drop(&mut self) {
        // No effect after a proper end.
        self.send.send_reset(Reason::CANCEL);
    }
}

/// The side on which a direction failed.
enum BrokenSide {
    From(io::Error),
    To(io::Error),
}

/// The end of a tunnel.
#[derive(Default)]
pub(super) struct Tunnelled {
    /// Bytes that went to the client.
    pub(super) bytes: u64,
    /// Bytes that came from the client.
    pub(super) received: u64,
    /// `true` if neither side said anything for too long.
    pub(super) silent: bool,
    /// `true` if the upstream's end was passed on. If not, the client must not see an end that looks like it.
    pub(super) whole: bool,
    /// The error of an upstream that failed.
    pub(super) broken: Option<io::Error>,
    /// The error of a client that failed.
    pub(super) left: Option<io::Error>,
}

impl Tunnelled {
    /// Returns the end, unless both sides ended it or the upstream failed.
    pub(super) fn why(&self) -> Option<Why> {
        match &self.left {
            _ if self.silent => Some(why::silent()),
            Some(error) => Some(why::of_left(error)),
            None => None,
        }
    }
}

/// One direction of a tunnel.
struct Direction {
    waiting: BytesMut,
    ended: bool,
    closed: bool,
    passed: u64,
}

impl Direction {
    fn new(waiting: BytesMut) -> Self {
        Self { waiting, ended: false, closed: false, passed: 0 }
    }

    /// Moves bytes. Ready once the end has been passed on, or a side has failed.
    fn poll<A: Duplex, B: Duplex>(
        &mut self,
        from: &mut A,
        to: &mut B,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> Poll<Result<(), BrokenSide>> {
        while !self.closed {
            let before = self.waiting.len();
            let written = to.poll_write(cx, &mut self.waiting).map_err(BrokenSide::To)?;
            *moved |= self.waiting.len() < before;
            self.passed += (before - self.waiting.len()) as u64;
            if self.ended {
                ready!(written);
                ready!(to.poll_close(cx)).map_err(BrokenSide::To)?;
                self.closed = true;
            } else if self.waiting.len() < BUFFER {
                match ready!(from.poll_read(cx, &mut self.waiting)).map_err(BrokenSide::From)? {
                    0 => self.ended = true,
                    _ => *moved = true,
                }
            } else {
                ready!(written);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Joins two ends until both end, one fails, or nothing passes for `idle`. `from_client` and `from_upstream` were received
/// before. Once one side has ended, the other has `linger`: a WebSocket ends on both sides.
pub(super) async fn run<A: Duplex, B: Duplex>(
    client: &mut A,
    upstream: &mut B,
    from_client: BytesMut,
    from_upstream: BytesMut,
    alarm: &Alarm,
    idle: Duration,
    linger: Duration,
) -> Tunnelled {
    let (mut up, mut down) = (Direction::new(from_client), Direction::new(from_upstream));
    alarm.set(idle);
    let (mut ending, mut silent) = (false, false);
    let ended = poll_fn(|cx| {
        let mut moved = false;
        let a = up.poll(client, upstream, cx, &mut moved);
        let b = down.poll(upstream, client, cx, &mut moved);
        if (up.closed || down.closed) && !ending {
            ending = true;
            alarm.set(linger.min(idle));
        } else if moved && !ending {
            alarm.set(idle);
        }
        match (a, b) {
            (Poll::Ready(Err(BrokenSide::To(error))), _) | (_, Poll::Ready(Err(BrokenSide::From(error)))) => {
                Poll::Ready(Err(BrokenSide::From(error)))
            }
            (Poll::Ready(Err(BrokenSide::From(error))), _) | (_, Poll::Ready(Err(BrokenSide::To(error)))) => {
                Poll::Ready(Err(BrokenSide::To(error)))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => alarm.poll_due(cx).map(|()| {
                silent = !ending;
                Ok(())
            }),
        }
    })
    .await;
    // As seen from the upstream's side of the response: it comes from the upstream, and goes to the client.
    let (broken, left) = match ended {
        Err(BrokenSide::From(error)) => (Some(error), None),
        // Clients end as they like once they have the upstream's end.
        Err(BrokenSide::To(error)) => (None, Some(error).filter(|_| !down.closed)),
        Ok(()) => (None, None),
    };
    if broken.is_some() {
        // The client still gets the bytes from before the failure.
        alarm.set(linger);
        poll_fn(|cx| match client.poll_write(cx, &mut down.waiting) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => alarm.poll_due(cx),
        })
        .await;
    }
    Tunnelled { bytes: down.passed, received: up.passed, silent, whole: down.closed, broken, left }
}

#[cfg(test)]
mod tests {
    #[test]
    fn accept_of_the_rfc() {
        // RFC 6455 section 1.3
        assert_eq!(super::accept_for("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
