//! A body that passes through a filter on its way.

use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::error::UpstreamError;
use crate::filter::{BodyFilter, FilterFault, OUT_STEP, Step};
use crate::message::Fields;
use crate::wire::body::{Body, Frame};

/// Bytes that a filter gets at once.
const SLICE: usize = 16 * 1024;
/// Bytes of the output that leave as one piece.
const PIECE: usize = 16 * 1024;
/// Bytes that a filter may take and write before the worker turns to its other tasks: about a millisecond of work.
const TURN: usize = 128 * 1024;
/// The largest piece of the source to ask for.
const SOURCE_PIECE: usize = 64 * 1024;

/// Wakes the task once the worker has looked for input. A task that wakes itself is polled again before that, and the
/// others wait for many of its turns.
fn wake_later(cx: &mut Context<'_>) {
    let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FilterStage {
    /// The source may have more.
    Flowing,
    /// The source has ended; the filter has not.
    Ending,
    Ended,
    /// The source or the filter has failed. The body never ends properly.
    Broken,
}

/// A body and the filter that changes it.
pub struct FilteredBody<B> {
    source: B,
    filter: Box<dyn BodyFilter>,
    /// The part of the last piece that the filter has not taken.
    piece: Bytes,
    out: Vec<u8>,
    stage: FilterStage,
    trailers: Option<Fields>,
    /// The filter has more to write for what it has taken.
    owes: bool,
    /// The filter may hold back something of what it has taken.
    holds: bool,
    /// The source had nothing when it was asked last.
    paused: bool,
    /// The work of this turn, in bytes.
    worked: usize,
    /// The largest piece that the reader has room for.
    most: usize,
}

impl<B: Body<Error = UpstreamError>> FilteredBody<B> {
    pub(super) fn new(source: B, filter: Box<dyn BodyFilter>) -> Self {
        Self {
            source,
            filter,
            piece: Bytes::new(),
            out: Vec::new(),
            stage: FilterStage::Flowing,
            trailers: None,
            owes: false,
            holds: false,
            paused: false,
            worked: 0,
            most: PIECE,
        }
    }

    pub(super) fn source(&self) -> &B {
        &self.source
    }

    /// Lets the filter take a slice.
    fn push(&mut self) -> Result<(), FilterFault> {
        let (before, written) = (self.piece.len().min(SLICE), self.out.len());
        let mut slice = self.piece.slice(..before);
        let step = self.filter.push(&mut slice, &mut self.out)?;
        let taken = before - slice.len().min(before);
        self.piece.advance(taken);
        let written = self.out.len() - written;
        self.owes = step == Step::More;
        if taken == 0 && written == 0 && (before > 0 || step == Step::More) {
            return Err(FilterFault("a filter stands still"));
        }
        self.holds = true;
        self.worked += taken.max(written);
        Ok(())
    }

    /// The source has nothing now. Its pieces may come in quick succession, so the filter is flushed only if it has nothing
    /// in the next turn of the worker either.
    fn pause(&mut self, cx: &mut Context<'_>) -> Result<(), FilterFault> {
        self.worked = 0;
        if !self.holds {
            return Ok(());
        }
        if !std::mem::replace(&mut self.paused, true) {
            wake_later(cx);
            return Ok(());
        }
        while self.filter.flush(&mut self.out)? == Step::More {
            if self.out.len() > OUT_STEP {
                // The rest follows when this has been sent.
                wake_later(cx);
                return Ok(());
            }
        }
        self.holds = false;
        Ok(())
    }

    /// Takes a step. Returns the result of a poll, if there is one.
    fn step(&mut self, cx: &mut Context<'_>) -> Result<Option<Poll<Option<Frame>>>, UpstreamError> {
        let fault = |fault: FilterFault| UpstreamError::Malformed(fault.0);
        match self.stage {
            FilterStage::Broken => return Err(UpstreamError::Truncated(None)),
            FilterStage::Ended if self.out.is_empty() => {
                return Ok(Some(Poll::Ready(self.trailers.take().map(Frame::Trailers))));
            }
            FilterStage::Ended => return Ok(Some(self.frame())),
            _ if self.out.len() >= PIECE.min(self.most) => return Ok(Some(self.frame())),
            _ => {}
        }
        if self.worked >= TURN {
            if !self.out.is_empty() {
                return Ok(Some(self.frame()));
            }
            self.worked = 0;
            wake_later(cx);
            return Ok(Some(Poll::Pending));
        }
        if self.stage == FilterStage::Ending {
            let written = self.out.len();
            if self.filter.finish(&mut self.out).map_err(fault)? == Step::Done {
                self.stage = FilterStage::Ended;
            }
            self.worked += self.out.len() - written;
            return Ok(None);
        }
        if !self.piece.is_empty() || self.owes {
            self.push().map_err(fault)?;
            return Ok(None);
        }
        if self.source.is_end() {
            self.stage = FilterStage::Ending;
            return Ok(None);
        }
        match self.source.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.paused = false;
                match frame.transpose()? {
                    Some(Frame::Data(piece)) => self.piece = piece,
                    Some(Frame::Trailers(fields)) => {
                        self.trailers = Some(fields);
                        self.stage = FilterStage::Ending;
                    }
                    None => self.stage = FilterStage::Ending,
                }
                Ok(None)
            }
            Poll::Pending => {
                self.pause(cx).map_err(fault)?;
                Ok(Some(if self.out.is_empty() { Poll::Pending } else { self.frame() }))
            }
        }
    }

    /// The next piece of the output, which is not empty.
    fn frame(&mut self) -> Poll<Option<Frame>> {
        let rest = if self.out.len() > self.most { self.out.split_off(self.most) } else { Vec::new() };
        Poll::Ready(Some(Frame::Data(std::mem::replace(&mut self.out, rest).into())))
    }
}

impl<B: Body<Error = UpstreamError>> Body for FilteredBody<B> {
    type Error = UpstreamError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
        loop {
            match self.step(cx) {
                Ok(None) => {}
                Ok(Some(poll)) => return poll.map(|frame| frame.map(Ok)),
                Err(error) => {
                    self.stage = FilterStage::Broken;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end(&self) -> bool {
        self.stage == FilterStage::Ended && self.out.is_empty() && self.trailers.is_none()
    }

    fn read_at_most(&mut self, bytes: usize) {
        self.most = bytes.max(1);
        self.source.read_at_most(bytes.min(SOURCE_PIECE));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// The reaction of a source to a request.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Piece(usize),
        Pause,
        Fail,
        End,
    }

    struct ActingSource(VecDeque<Act>);

    impl Body for ActingSource {
        type Error = UpstreamError;

        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, UpstreamError>>> {
            match self.0.front().copied() {
                Some(Act::Piece(length)) => {
                    self.0.pop_front();
                    Poll::Ready(Some(Ok(Frame::Data(vec![b'a'; length].into()))))
                }
                // Two polls: a pause is one if it outlasts a turn.
                Some(Act::Pause) => {
                    self.0.pop_front();
                    Poll::Pending
                }
                Some(Act::Fail) => Poll::Ready(Some(Err(UpstreamError::Truncated(None)))),
                Some(Act::End) | None => Poll::Ready(None),
            }
        }

        fn is_end(&self) -> bool {
            false
        }
    }

    /// Holds everything back until a flush, and ends with a mark.
    #[derive(Default)]
    struct Holding(Vec<u8>);

    impl BodyFilter for Holding {
        fn push(&mut self, input: &mut Bytes, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
            self.0.extend(input.iter().map(u8::to_ascii_uppercase));
            input.clear();
            Ok(Step::Done)
        }

        fn flush(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
            out.append(&mut self.0);
            Ok(Step::Done)
        }

        fn finish(&mut self, out: &mut Vec<u8>) -> Result<Step, FilterFault> {
            out.append(&mut self.0);
            out.push(b'.');
            Ok(Step::Done)
        }
    }

    /// Polls to the end. Returns the pieces' lengths (0 for Pending), all bytes, and `true` for a proper end.
    fn run(acts: &[Act], filter: Box<dyn BodyFilter>, most: usize) -> (Vec<usize>, Vec<u8>, bool) {
        let mut body = FilteredBody::new(ActingSource(acts.iter().copied().collect()), filter);
        let (mut lengths, mut all) = (Vec::new(), Vec::new());
        for _ in 0..100_000 {
            body.read_at_most(most);
            match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => lengths.push(0),
                Poll::Ready(Some(Ok(Frame::Data(piece)))) => {
                    assert!(!piece.is_empty() && piece.len() <= most);
                    lengths.push(piece.len());
                    all.extend_from_slice(&piece);
                }
                Poll::Ready(Some(Ok(Frame::Trailers(_)))) => panic!("no trailers"),
                Poll::Ready(Some(Err(_))) => {
                    let again = body.poll_frame(&mut Context::from_waker(Waker::noop()));
                    assert!(matches!(again, Poll::Ready(Some(Err(_)))) && !body.is_end());
                    return (lengths, all, false);
                }
                Poll::Ready(None) => {
                    assert!(body.is_end());
                    return (lengths, all, true);
                }
            }
        }
        panic!("the body does not end");
    }

    fn held() -> Box<dyn BodyFilter> {
        Box::new(Holding::default())
    }

    #[test]
    fn a_body_that_comes_at_once_leaves_at_once() {
        let (lengths, all, whole) = run(&[Act::Piece(3), Act::Piece(4), Act::End], held(), usize::MAX);
        assert_eq!((lengths, all.as_slice(), whole), (vec![8], &b"AAAAAAA."[..], true));
    }

    #[test]
    fn what_is_held_back_leaves_in_a_pause() {
        let acts = [Act::Piece(3), Act::Pause, Act::Pause, Act::Pause, Act::Piece(2), Act::End];
        let (lengths, all, _) = run(&acts, held(), usize::MAX);
        // One turn later, and not again while there is nothing.
        assert_eq!((lengths, all.as_slice()), (vec![0, 3, 0, 3], &b"AAAAA."[..]));
        let (lengths, ..) = run(&[Act::Piece(3), Act::Pause, Act::Piece(2), Act::End], held(), usize::MAX);
        assert_eq!(lengths, [0, 6]);
    }

    #[test]
    fn a_failure_never_looks_like_an_end() {
        assert!(!run(&[Act::Piece(3), Act::Fail], held(), usize::MAX).2);
        struct Fails;
        impl BodyFilter for Fails {
            fn push(&mut self, _: &mut Bytes, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
                Err(FilterFault("no"))
            }
            fn finish(&mut self, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
                Ok(Step::Done)
            }
        }
        assert!(!run(&[Act::Piece(3), Act::End], Box::new(Fails), usize::MAX).2);
        struct Stands;
        impl BodyFilter for Stands {
            fn push(&mut self, _: &mut Bytes, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
                Ok(Step::Done)
            }
            fn finish(&mut self, _: &mut Vec<u8>) -> Result<Step, FilterFault> {
                Ok(Step::Done)
            }
        }
        assert!(!run(&[Act::Piece(3), Act::End], Box::new(Stands), usize::MAX).2);
    }

    #[test]
    fn a_large_body_gives_the_worker_back() {
        let (lengths, all, whole) = run(&[Act::Piece(1 << 20), Act::End], held(), 5000);
        assert!(whole && all.len() == (1 << 20) + 1);
        assert!(lengths.iter().filter(|length| **length == 0).count() >= (1 << 20) / TURN - 1);
    }

    /// A task that wakes itself would be polled for all of the body before anybody looks at the socket.
    #[test]
    fn others_are_heard_between_turns() {
        use std::cell::Cell;
        use std::future::poll_fn;
        use std::io::Write as _;
        use std::os::unix::net::UnixStream;
        use std::rc::Rc;

        use tokio::io::AsyncReadExt as _;
        use tokio::task::{LocalSet, spawn_local};

        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let turns = LocalSet::new().block_on(&runtime, async {
            let (mut other, socket) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut socket = tokio::net::UnixStream::from_std(socket).unwrap();
            let heard = Rc::new(Cell::new(false));
            let hears = heard.clone();
            let hearer = spawn_local(async move {
                socket.read_u8().await.unwrap();
                hears.set(true);
            });
            // It waits for input now.
            tokio::task::yield_now().await;
            let busy = spawn_local(async move {
                let source = ActingSource([Act::Piece(32 * TURN), Act::End].into());
                let mut body = FilteredBody::new(source, held());
                let mut turns = 0;
                other.write_all(b"x").unwrap();
                poll_fn(|cx| {
                    turns += 1;
                    match body.poll_frame(cx) {
                        Poll::Pending if !heard.get() => Poll::Pending,
                        _ => Poll::Ready(()),
                    }
                })
                .await;
                turns
            });
            let turns = busy.await.unwrap();
            hearer.await.unwrap();
            turns
        });
        assert!(turns < 8, "{turns}");
    }
}
