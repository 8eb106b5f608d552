//! A request's body that can be sent a second time, from its first byte: as much of it is kept as was sent, up to a
//! bound. An HTTP/2 upstream may refuse a stream that has its whole request already, and promises then that it has
//! processed nothing of it (RFC 9113 section 8.7).

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::message::Fields;
use crate::wire::body::{Body, Frame, RequestBody, RequestBodyError};

/// A request's body between two attempts to send it.
pub(super) enum Unsent {
    /// Nothing was read of it.
    New(RequestBody),
    /// It is read from its beginning again.
    Kept(Box<Replay>),
}

impl Unsent {
    /// The body for an attempt that may be refused; at most `max` bytes of it are kept.
    pub(super) fn into_replay(self, max: usize) -> Box<Replay> {
        match self {
            Self::New(body) => Box::new(Replay::new(body, max)),
            Self::Kept(replay) => replay,
        }
    }

    /// The body for an attempt that has no second one, unless it fails before anything is read.
    pub(super) fn into_body(self) -> RequestBody {
        match self {
            Self::New(body) => body,
            Self::Kept(replay) => replay,
        }
    }
}

/// A body that keeps what was read of it.
pub(super) struct Replay {
    source: RequestBody,
    kept: BytesMut,
    /// How much of `kept` was read since the beginning.
    at: usize,
    trailers: Option<Fields>,
    trailers_read: bool,
    /// The source has come to its end.
    ended: bool,
    /// Bytes that are charged for: those that are kept, trailers included.
    charged: usize,
    max: usize,
    /// Somebody has asked for it, however little has come.
    asked_for: bool,
    /// More was read than may be kept, or nobody wants it again.
    lost: bool,
    /// What somebody else keeps of this.
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

    /// Begins again; `false` if not all of what was read is there.
    pub(super) fn rewind(&mut self) -> bool {
        self.at = 0;
        self.trailers_read = false;
        !self.lost
    }

    /// Whether it was ever asked for.
    pub(super) fn is_asked_for(&self) -> bool {
        self.asked_for
    }

    /// Whether nothing was read of it since it began.
    pub(super) fn is_untouched(&self) -> bool {
        self.at == 0 && !self.lost && !self.trailers_read
    }

    /// It is not needed a second time: gives back what is kept, once that is read.
    pub(super) fn settle(&mut self) {
        self.lost = true;
        if self.at == self.kept.len() {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.lost = true;
        self.kept = BytesMut::new();
        self.at = 0;
        self.charge(0);
    }

    fn charge(&mut self, bytes: usize) -> bool {
        let may = self.source.keep(bytes + self.kept_by_others);
        if may {
            self.charged = bytes;
        }
        may
    }

    /// Whether so much more may be kept; else nothing is any longer.
    fn has_room_for(&mut self, more: usize) -> bool {
        let bytes = self.charged.saturating_add(more);
        if !self.lost && (bytes > self.max || !self.charge(bytes)) {
            self.forget();
        }
        !self.lost
    }

    /// The next piece that was read before.
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

    /// A body in pieces, and the connection that pays for what is kept.
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

    /// Reads so many frames, or all; gives the bytes, and whether trailers came.
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
    fn large_ones_are_not() {
        for (max, room) in [(5, ALL), (ALL, 5)] {
            let (source, charged) = body(&[b"one", b"two", b"three"], false, room);
            let mut replay = Unsent::New(source).into_replay(max);
            assert_eq!(read(&mut *replay, 1), (b"one".to_vec(), false));
            // What was read so far can be read again, whatever is to come.
            assert!(replay.rewind());
            assert_eq!(read(&mut *replay, ALL), (b"onetwothree".to_vec(), false));
            assert_eq!(charged.get(), 0);
            assert!(replay.is_end() && !replay.rewind());
        }
    }

    #[test]
    fn empty_ones_are() {
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
        // There is no room for twelve.
        assert_eq!(read(&mut *outer, ALL), (b"two".to_vec(), false));
        assert!(charged.get() <= 10);
    }

    proptest! {
        /// However often it is begun again: as long as that is possible, it is the same body.
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
