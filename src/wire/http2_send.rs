//! Sends a body on an HTTP/2 stream, as the peer's flow control permits. Used towards clients and
//! upstreams alike.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http::HeaderMap;

use crate::wire::body::{Body, Frame};

/// The reason why a body was not sent.
#[derive(Debug)]
pub enum SendError<E> {
    /// The source failed.
    Body(E),
    /// The stream failed.
    Stream(h2::Error),
}

/// A piece of a body that waits to be sent.
pub trait Piece: Buf {
    /// Splits off the first `at` bytes.
    #[must_use]
    fn split_to(&mut self, at: usize) -> Self;
}

/// An account of the bytes that wait to be sent.
pub trait Account {
    /// A piece that is on the account until its bytes are written or dropped.
    type Piece: Piece;
    /// Charges a piece to the account.
    fn charge(&self, data: Bytes) -> Self::Piece;
    /// Returns the number of bytes that may be read now. Pending while the account is full.
    fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<usize>;
}

impl Piece for Bytes {
    fn split_to(&mut self, at: usize) -> Self {
        self.split_to(at)
    }
}

/// No account: h2's buffer for each stream is the limit.
#[derive(Debug)]
pub struct Unaccounted;

impl Account for Unaccounted {
    type Piece = Bytes;

    fn charge(&self, data: Bytes) -> Bytes {
        data
    }

    fn poll_capacity(&self, _cx: &mut Context<'_>) -> Poll<usize> {
        Poll::Ready(usize::MAX)
    }
}

/// The sending side of a stream, with the piece that waits for the window.
pub struct Sender<A: Account> {
    stream: SendStream<A::Piece>,
    account: A,
    piece: A::Piece,
    /// The account has no room for another piece.
    account_full: bool,
    last: bool,
    done: bool,
    /// The last piece waits for [`Self::release`].
    holds_last: bool,
}

impl<A: Account> Sender<A> {
    /// Makes a sender for a stream whose head was sent.
    #[must_use]
    pub fn new(stream: SendStream<A::Piece>, account: A) -> Self {
        let piece = account.charge(Bytes::new());
        Self { stream, account, piece, account_full: false, last: false, done: false, holds_last: false }
    }

    /// Makes a sender that holds back the last piece, and with it the end of the stream, until
    /// [`Self::release`]. It is ready once all else was sent.
    #[must_use]
    pub fn holding_last(stream: SendStream<A::Piece>, account: A) -> Self {
        Self { holds_last: true, ..Self::new(stream, account) }
    }

    /// Releases the last piece.
    pub fn release(&mut self) {
        self.holds_last = false;
    }

    /// Sends more of the body; ready once h2 has all of it. `progress` gets the number of bytes of
    /// each step.
    pub fn poll<B: Body + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut B,
        progress: &mut impl FnMut(usize),
    ) -> Poll<Result<(), SendError<B::Error>>> {
        while !self.done {
            if let Poll::Ready(reason) = self.stream.poll_reset(cx).map_err(SendError::Stream)? {
                return Poll::Ready(Err(SendError::Stream(reason.into())));
            }
            if self.last && self.holds_last {
                return Poll::Ready(Ok(()));
            }
            if self.piece.has_remaining() {
                ready!(self.poll_piece(cx, progress)).map_err(SendError::Stream)?;
                continue;
            }
            self.account_full = true;
            let room = ready!(self.account.poll_capacity(cx));
            self.account_full = false;
            body.read_at_most(room);
            match ready!(body.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => {
                    self.last = body.is_end();
                    self.piece = self.account.charge(data);
                }
                Some(Ok(Frame::Trailers(fields))) => {
                    self.stream.send_trailers(HeaderMap::from(&fields)).map_err(SendError::Stream)?;
                    self.done = true;
                }
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(SendError::Body(error)));
                }
                None => {
                    self.stream.send_data(self.account.charge(Bytes::new()), true).map_err(SendError::Stream)?;
                    self.done = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as much of the piece as the window permits.
    fn poll_piece(&mut self, cx: &mut Context<'_>, progress: &mut impl FnMut(usize)) -> Poll<Result<(), h2::Error>> {
        self.stream.reserve_capacity(self.piece.remaining());
        let mut capacity = self.stream.capacity();
        while capacity == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(granted) => capacity = granted?,
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        let part = self.piece.split_to(capacity.min(self.piece.remaining()));
        let end = self.last && !self.piece.has_remaining();
        progress(part.remaining());
        self.stream.send_data(part, end)?;
        self.done = end;
        Poll::Ready(Ok(()))
    }

    /// Returns `true` if the sender waits for the source.
    #[must_use]
    pub fn waits_for_body(&self) -> bool {
        !self.piece.has_remaining() && !self.account_full
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
