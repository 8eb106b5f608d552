//! A request's body that can be sent a second time, from its first byte: pintle keeps what it has
//! sent, up to a limit.
//!
//! An HTTP/2 upstream may refuse a request that it has received whole, and promise that it has not
//! processed it (RFC 9113 section 8.7).

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::message::Fields;
use crate::wire::body::{Body, Frame, RequestBody, RequestBodyError};

/// A request's body between two attempts to send it.
pub(super) enum Unsent {
    /// Nothing of it was read.
    New(RequestBody),
    /// It is read again from its beginning.
    Kept(Box<Replay>),
}

impl Unsent {
    /// Returns the body for an attempt that may be refused. It keeps at most `max` bytes.
    pub(super) fn into_replay(self, max: usize) -> Box<Replay> {
        match self {
            Self::New(body) => Box::new(Replay::new(body, max)),
            Self::Kept(replay) => replay,
        }
    }

    /// Returns the body for an attempt that is not repeated once the body was read.
    pub(super) fn into_body(self) -> RequestBody {
        match self {
            Self::New(body) => body,
            Self::Kept(replay) => replay,
        }
    }
}

/// A body that keeps the bytes that were read.
pub(super) struct Replay {
    source: RequestBody,
    kept: BytesMut,
    /// The number of bytes of `kept` that were read since the last rewind.
    at: usize,
    trailers: Option<Fields>,
    trailers_read: bool,
    /// The source has ended.
    ended: bool,
    /// The bytes charged to the connection: those that are kept, including trailers.
    charged: usize,
    max: usize,
    /// A piece was asked for, whether or not one came.
    asked_for: bool,
    /// More was read than may be kept, or the body is not needed again.
    lost: bool,
    /// The bytes that a reader keeps.
    kept_by_others: usize,
}

impl Replay {
    fn new(source: RequestBody, max: usize) -> Self {
        Self {
            source,
            kept: BytesMut::new(),
            at: 0,
            trailers: None,
            trailers_read: false,
            ended: false,
            charged: 0,
            max,
            asked_for: false,
            lost: false,
            kept_by_others: 0,
        }
    }

    /// Returns to the first byte. `false` if not all bytes that were read are kept.
    pub(super) fn rewind(&mut self) -> bool {
        self.at = 0;
        self.trailers_read = false;
        !self.lost
    }

    /// Returns `true` if a piece was ever asked for.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    /// Returns `true` if nothing was read since the last rewind.
    pub(super) fn is_untouched(&self) -> bool {
        self.at == 0 && !self.lost && !self.trailers_read
    }

    /// Ends the keeping, since the body is not needed again. Frees the kept bytes once they are
    /// read.
    pub(super) fn settle(&mut self) {
        self.lost = true;
        if self.at == self.kept.len() {
            self.forget();
        }
    }

    /// Frees all kept bytes.
    fn forget(&mut self) {
        self.lost = true;
        self.kept = BytesMut::new();
        self.at = 0;
        self.charge(0);
    }

    /// Charges the kept bytes to the connection. `false` if it may not keep so many.
    fn charge(&mut self, bytes: usize) -> bool {
        let may = self.source.keep(bytes + self.kept_by_others);
        if may {
            self.charged = bytes;
        }
        may
    }

    /// Returns `true` if `more` bytes may be kept. Otherwise frees all.
    fn has_room_for(&mut self, more: usize) -> bool {
        let bytes = self.charged.saturating_add(more);
        if !self.lost && (bytes > self.max || !self.charge(bytes)) {
            self.forget();
        }
        !self.lost
    }

    /// Returns the next kept piece, if there is one.
    fn read_again(&mut self) -> Option<Bytes> {
        if self.at == self.kept.len() {
            return None;
        }
        if self.lost {
            let rest = self.kept.split_off(self.at).freeze();
            self.forget();
            return Some(rest);
        }
        let rest = Bytes::copy_from_slice(&self.kept[self.at..]);
        self.at = self.kept.len();
        Some(rest)
    }
}

impl Body for Replay {
    type Error = RequestBodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
        self.asked_for = true;
        if let Some(data) = self.read_again() {
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if let (Some(trailers), false) = (&self.trailers, self.trailers_read) {
            self.trailers_read = true;
            return Poll::Ready(Some(Ok(Frame::Trailers(trailers.clone()))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.source.poll_frame(cx));
        match &frame {
            Some(Ok(Frame::Data(data))) => {
                if self.has_room_for(data.len()) {
                    self.kept.extend_from_slice(data);
                    self.at = self.kept.len();
                }
            }
            Some(Ok(Frame::Trailers(fields))) => {
                self.ended = true;
                if self.has_room_for(fields.size()) {
                    self.trailers = Some(fields.clone());
                    self.trailers_read = true;
                }
            }
            Some(Err(_)) => self.forget(),
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end(&self) -> bool {
        let all_read = self.at == self.kept.len() && (self.trailers.is_none() || self.trailers_read);
        all_read && (self.ended || self.source.is_end())
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.source.read_at_most(bytes);
    }

    fn keep(&mut self, bytes: usize) -> bool {
        let may = self.source.keep(self.charged + bytes);
        if may {
            self.kept_by_others = bytes;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::rc::Rc;
    use std::task::Waker;

    /// A body in pieces, and the account of the connection.
    struct Pieces {
        left: VecDeque<Vec<u8>>,
        trailers: bool,
        charged: Rc<Cell<usize>>,
        room: usize,
    }

    impl Body for Pieces {
        type Error = RequestBodyError;

        fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, RequestBodyError>>> {
            Poll::Ready(match self.left.pop_front() {
                Some(piece) => Some(Ok(Frame::Data(piece.into()))),
                None if std::mem::take(&mut self.trailers) => {
                    let mut fields = Fields::default();
                    fields.push(b"X-Sum", b"1");
                    Some(Ok(Frame::Trailers(fields)))
                }
                None => None,
            })
        }

        fn is_end(&self) -> bool {
            self.left.is_empty() && !self.trailers
        }

        fn keep(&mut self, bytes: usize) -> bool {
            if bytes <= self.room {
                self.charged.set(bytes);
            }
            bytes <= self.room
        }
    }

    fn body(pieces: &[&[u8]], trailers: bool, room: usize) -> (RequestBody, Rc<Cell<usize>>) {
        let charged = Rc::new(Cell::new(0));
        let left = pieces.iter().map(|p| p.to_vec()).collect();
        (Box::new(Pieces { left, trailers, charged: charged.clone(), room }), charged)
    }

    /// Reads up to `frames` frames. Returns the bytes, and whether trailers came.
    fn read(body: &mut dyn Body<Error = RequestBodyError>, frames: usize) -> (Vec<u8>, bool) {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut bytes, mut trailers) = (Vec::new(), false);
        for _ in 0..frames {
            match body.poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(Frame::Data(data)))) => bytes.extend_from_slice(&data),
                Poll::Ready(Some(Ok(Frame::Trailers(_)))) => trailers = true,
                Poll::Ready(None) => break,
                other => panic!("{other:?}"),
            }
        }
        (bytes, trailers)
    }

    const ALL: usize = 1000;

    #[test]
    fn small_bodies_are_read_again_with_their_trailers() {
        let (source, charged) = body(&[b"one", b"two"], true, ALL);
        let mut replay = Unsent::New(source).into_replay(100);
        assert!(replay.is_untouched() && !replay.is_asked_for());
        assert_eq!(read(&mut *replay, 1), (b"one".to_vec(), false));
        assert!(!replay.is_untouched() && !replay.is_end());
        assert!(replay.rewind() && replay.is_untouched() && replay.is_asked_for());
        for _ in 0..3 {
            assert_eq!(read(&mut *replay, ALL), (b"onetwo".to_vec(), true));
            assert!(replay.is_end() && replay.rewind() && !replay.is_end());
        }
        assert!(charged.get() >= 6);
        replay.settle();
        assert_eq!(read(&mut *replay, ALL), (b"onetwo".to_vec(), true));
        assert_eq!(charged.get(), 0);
        assert!(!replay.rewind());
    }

    #[test]
    fn large_bodies_are_not_read_again() {
        for (max, room) in [(5, ALL), (ALL, 5)] {
            let (source, charged) = body(&[b"one", b"two", b"three"], false, room);
            let mut replay = Unsent::New(source).into_replay(max);
            assert_eq!(read(&mut *replay, 1), (b"one".to_vec(), false));
            // The bytes read so far can be read again.
            assert!(replay.rewind());
            assert_eq!(read(&mut *replay, ALL), (b"onetwothree".to_vec(), false));
            assert_eq!(charged.get(), 0);
            assert!(replay.is_end() && !replay.rewind());
        }
    }

    #[test]
    fn empty_bodies_are_read_again() {
        let (source, _) = body(&[], false, 0);
        let mut replay = Unsent::New(source).into_replay(0);
        for _ in 0..2 {
            assert_eq!(read(&mut *replay, ALL), (Vec::new(), false));
            assert!(replay.is_end() && replay.rewind());
        }
    }

    #[test]
    fn one_within_another_pays_for_both() {
        let (source, charged) = body(&[b"one", b"two"], false, 10);
        let mut inner = Unsent::New(source).into_replay(100);
        read(&mut *inner, 1);
        assert!(inner.rewind());
        let mut outer = Unsent::New(inner).into_replay(100);
        assert_eq!(read(&mut *outer, 1), (b"one".to_vec(), false));
        assert_eq!(charged.get(), 6);
        // The account has no room for twelve bytes.
        assert_eq!(read(&mut *outer, ALL), (b"two".to_vec(), false));
        assert!(charged.get() <= 10);
    }

    proptest! {
        /// As long as a rewind succeeds, the body is the same each time.
        #[test]
        fn the_same_each_time(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9), 0..9),
            reads in prop::collection::vec(0usize..9, 0..9),
            max in 0usize..60,
            trailers: bool,
        ) {
            let whole: Vec<u8> = pieces.concat();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let (source, charged) = body(&slices, trailers, ALL);
            let mut replay = Unsent::New(source).into_replay(max);
            for frames in reads {
                let (got, _) = read(&mut *replay, frames);
                prop_assert!(whole.starts_with(&got));
                prop_assert!(charged.get() <= max);
                if !replay.rewind() {
                    prop_assert!(whole.len() + 6 > max);
                    return Ok(());
                }
            }
            prop_assert_eq!(read(&mut *replay, ALL), (whole, trailers));
        }
    }
}
