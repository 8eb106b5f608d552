//! A response under way, that several requests read: one asks the origin, and the others wait for the same answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};

use super::page::StoredResponse;
use super::stored_head::StoredHead;

/// The most requests that wait for one answer.
pub const FOLLOWERS_MAX: usize = 1000;
/// The bytes of a body that is too large to be stored, between its origin and its slowest reader.
const WINDOW: u64 = 128 << 10;

/// The memory for the bodies under way of a store: what is held for slow readers, and until it is stored.
#[derive(Debug)]
pub struct FillingBudget {
    most: u64,
    used: AtomicU64,
}

impl FillingBudget {
    /// Makes room for so many bytes.
    #[must_use]
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicU64::default() })
    }

    /// Takes room, whether or not there is some. Returns `false` if there was none.
    fn take(&self, bytes: u64) -> bool {
        self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The end of the wait for a head.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The answer is for its own client only: each asks for itself.
    Released,
    /// The request that led has ended before an answer: another one may lead.
    Abandoned,
    /// The origin has not answered. Another request may lead: not all at once.
    Failed,
    /// The whole response. The word tells why it is stale, if it is.
    Whole(Arc<StoredResponse>, Option<&'static str>),
    /// The head has come. The number is the body's length in bytes, if it is known.
    Streams(Arc<StoredHead>, Option<u64>),
}

/// A response under way.
#[derive(Debug)]
pub struct Filling {
    /// The bytes above which the body is not kept.
    most: u64,
    room: Arc<FillingBudget>,
    state: Mutex<FillState>,
}

#[derive(Debug, Default)]
struct FillState {
    outcome: Option<Outcome>,
    followers: usize,
    /// Pieces of the body. The first `dropped` pieces are gone.
    pieces: VecDeque<Bytes>,
    dropped: usize,
    /// Bytes in `pieces`, and of the whole body so far.
    held: u64,
    length: u64,
    /// There was no room to keep the body.
    is_crowded_out: bool,
    /// `Some(true)` once the body is whole, `Some(false)` if it broke off.
    end: Option<bool>,
    /// The next piece of each reader.
    readers: Vec<Option<usize>>,
    wakers: Vec<Waker>,
}

impl FillState {
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }

    fn wake(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    fn is_kept(&self, most: u64) -> bool {
        self.length <= most && !self.is_crowded_out
    }

    /// Drops the pieces that every reader has, if the body is too large to be kept.
    fn forget_read(&mut self, most: u64, room: &FillingBudget) {
        if self.is_kept(most) {
            return;
        }
        let next = self.readers.iter().flatten().min().copied().unwrap_or(usize::MAX);
        while self.dropped < next
            && let Some(piece) = self.pieces.pop_front()
        {
            self.dropped += 1;
            self.held -= piece.len() as u64;
            room.give_back(piece.len() as u64);
        }
    }
}

fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl Filling {
    /// Begins to fill. `most` is the largest body in bytes that is kept, if `room` has room for it.
    #[must_use]
    pub fn new(most: u64, room: &Arc<FillingBudget>) -> Arc<Self> {
        Arc::new(Self { most, room: room.clone(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, FillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request that waits; `None` if too many do.
    #[must_use]
    pub fn follow(self: &Arc<Self>) -> Option<FillingFollower> {
        let mut state = self.state();
        if state.followers >= FOLLOWERS_MAX || state.is_crowded_out {
            return None;
        }
        state.followers += 1;
        Some(FillingFollower(self.clone()))
    }

    /// `true` if a request waits for it.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.state().followers > 0
    }

    /// `true` if the body is not kept because there was no room.
    #[must_use]
    pub fn is_crowded_out(&self) -> bool {
        self.state().is_crowded_out
    }

    /// Ends the wait for the head. Only the first outcome counts.
    pub fn resolve(&self, outcome: Outcome) {
        let mut state = self.state();
        state.outcome.get_or_insert(outcome);
        let wakers = state.wake();
        drop(state);
        wake(wakers);
    }

    /// Waits for the head.
    pub fn poll_outcome(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut state = self.state();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Ready once there is room for another piece of the body; `false` if nobody reads it and it is not kept.
    pub fn poll_budget(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.state();
        if state.is_kept(self.most) {
            return Poll::Ready(true);
        }
        state.forget_read(self.most, &self.room);
        if state.readers.iter().flatten().next().is_none() {
            return Poll::Ready(false);
        }
        if state.held < WINDOW {
            return Poll::Ready(true);
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Adds a piece of the body.
    pub fn push(&self, piece: Bytes) {
        let mut state = self.state();
        state.length += piece.len() as u64;
        state.held += piece.len() as u64;
        let has_room = self.room.take(piece.len() as u64);
        state.is_crowded_out |= !has_room && state.is_kept(self.most);
        state.pieces.push_back(piece);
        let wakers = state.wake();
        drop(state);
        wake(wakers);
    }

    /// Ends the body.
    pub fn finish(&self, is_whole: bool) {
        let mut state = self.state();
        state.end.get_or_insert(is_whole);
        let wakers = state.wake();
        drop(state);
        wake(wakers);
    }

    /// Returns the body so far in one piece; `None` if it is too large to be kept.
    #[must_use]
    pub fn body(&self) -> Option<Bytes> {
        let state = self.state();
        if !state.is_kept(self.most) {
            return None;
        }
        if state.pieces.len() == 1 {
            // A piece may be a small part of a large buffer: a copy has its own size.
            return state.pieces.front().map(|piece| Bytes::copy_from_slice(piece));
        }
        let mut body = BytesMut::with_capacity(usize::try_from(state.length).unwrap_or_default());
        state.pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        Some(body.freeze())
    }

    /// Waits until the body is whole; `false` if it is too large to be kept, or has broken off.
    pub fn poll_whole(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.state();
        match state.end {
            _ if !state.is_kept(self.most) => Poll::Ready(false),
            Some(is_whole) => Poll::Ready(is_whole),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Waits until the body has ended, or is longer than `bytes`. `Some(false)` if it broke off.
    pub fn poll_beginning(&self, bytes: u64, cx: &Context<'_>) -> Poll<Option<bool>> {
        let mut state = self.state();
        if state.end.is_some() || state.length > bytes {
            return Poll::Ready(state.end);
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Reads the body from its beginning; `None` if that is gone.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> Option<FillingReader> {
        let mut state = self.state();
        if state.dropped > 0 {
            return None;
        }
        let free = state.readers.iter().position(Option::is_none);
        let at = free.unwrap_or(state.readers.len());
        match state.readers.get_mut(at) {
            Some(place) => *place = Some(0),
            None => state.readers.push(Some(0)),
        }
        drop(state);
        Some(FillingReader { filling: self.clone(), at })
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.room.give_back(state.held);
    }
}

/// A request's place among those that wait for a response under way.
#[derive(Debug)]
pub struct FillingFollower(Arc<Filling>);

impl FillingFollower {
    /// The response.
    #[must_use]
    pub fn filling(&self) -> &Arc<Filling> {
        &self.0
    }
}

impl Drop for FillingFollower {
    fn drop(&mut self) {
        self.0.state().followers -= 1;
    }
}

/// One reader of a body under way.
#[derive(Debug)]
pub struct FillingReader {
    filling: Arc<Filling>,
    at: usize,
}

impl FillingReader {
    /// Returns the next piece; `None` at the end, an error if the body broke off.
    pub fn poll_piece(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let mut state = self.filling.state();
        let next = state.readers.get(self.at).copied().flatten().unwrap_or_default();
        let piece = next.checked_sub(state.dropped).and_then(|at| state.pieces.get(at)).cloned();
        if let Some(piece) = piece {
            if let Some(place) = state.readers.get_mut(self.at) {
                *place = Some(next + 1);
            }
            let is_kept = state.is_kept(self.filling.most);
            let wakers = if is_kept { Vec::new() } else { state.wake() };
            drop(state);
            wake(wakers);
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.end {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(()))),
            None => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// `true` if the body has ended and this reader has all of it.
    #[must_use]
    pub fn is_end(&self) -> bool {
        let state = self.filling.state();
        let next = state.readers.get(self.at).copied().flatten().unwrap_or_default();
        state.end == Some(true) && next == state.dropped + state.pieces.len()
    }
}

impl Drop for FillingReader {
    fn drop(&mut self) {
        let mut state = self.filling.state();
        if let Some(place) = state.readers.get_mut(self.at) {
            *place = None;
        }
        let wakers = state.wake();
        drop(state);
        wake(wakers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &mut FillingReader) -> Poll<Option<Result<Bytes, ()>>> {
        reader.poll_piece(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn readers_share_a_body() {
        let filling = Filling::new(100, &FillingBudget::new(1 << 20));
        let mut first = filling.reader().unwrap();
        assert!(read(&mut first).is_pending());
        filling.push(Bytes::from_static(b"ab"));
        let mut second = filling.reader().unwrap();
        filling.push(Bytes::from_static(b"c"));
        for reader in [&mut first, &mut second] {
            assert_eq!(read(reader), Poll::Ready(Some(Ok(Bytes::from_static(b"ab")))));
            assert_eq!(read(reader), Poll::Ready(Some(Ok(Bytes::from_static(b"c")))));
            assert!(read(reader).is_pending() && !reader.is_end());
        }
        assert_eq!(filling.body().as_deref(), Some(&b"abc"[..]));
        filling.finish(true);
        assert_eq!((read(&mut first), first.is_end()), (Poll::Ready(None), true));
        filling.finish(false);
        assert_eq!(read(&mut second), Poll::Ready(None));
    }

    #[test]
    fn bodies_that_are_too_large() {
        let cx = Context::from_waker(Waker::noop());
        let filling = Filling::new(3, &FillingBudget::new(1 << 20));
        let mut reader = filling.reader().unwrap();
        for _ in 0..2 {
            assert_eq!(filling.poll_budget(&cx), Poll::Ready(true));
            filling.push(Bytes::from(vec![0; 64 << 10]));
        }
        assert!(filling.body().is_none() && filling.poll_budget(&cx).is_pending());
        assert!(read(&mut reader).is_ready());
        assert_eq!(filling.poll_budget(&cx), Poll::Ready(true));
        assert!(filling.reader().is_none(), "the beginning is gone");
        drop(reader);
        assert_eq!(filling.poll_budget(&cx), Poll::Ready(false));
        filling.finish(false);
        let cut = Filling::new(3, &FillingBudget::new(1 << 20));
        let mut reader = cut.reader().unwrap();
        cut.finish(false);
        assert_eq!(read(&mut reader), Poll::Ready(Some(Err(()))));
    }

    #[test]
    fn bodies_without_room_are_not_kept() {
        let cx = Context::from_waker(Waker::noop());
        let room = FillingBudget::new(300 << 10);
        let piece = || Bytes::from(vec![0; 100 << 10]);
        let first = Filling::new(1 << 20, &room);
        let mut reader = first.reader().unwrap();
        first.push(piece());
        first.push(piece());
        let second = Filling::new(1 << 20, &room);
        let own = second.reader();
        second.push(piece());
        assert!(!second.is_crowded_out());
        second.push(piece());
        assert!(second.is_crowded_out() && second.follow().is_none() && second.body().is_none());
        // It waits for its reader.
        assert!(second.poll_budget(&cx).is_pending());
        drop((own, second));
        // The other one has its body, and the room is free again.
        assert!(!first.is_crowded_out() && first.body().is_some() && read(&mut reader).is_ready());
        assert_eq!(room.used.load(Ordering::Relaxed), 200 << 10);
        drop((reader, first));
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_first_outcome_counts() {
        let cx = Context::from_waker(Waker::noop());
        let filling = Filling::new(3, &FillingBudget::new(1 << 20));
        assert!(filling.poll_outcome(&cx).is_pending());
        filling.resolve(Outcome::Released);
        filling.resolve(Outcome::Abandoned);
        assert!(matches!(filling.poll_outcome(&cx), Poll::Ready(Outcome::Released)));
        assert!(!filling.is_followed());
        let mut followers: Vec<FillingFollower> = (0..FOLLOWERS_MAX).map(|_| filling.follow().unwrap()).collect();
        assert!(filling.is_followed() && filling.follow().is_none());
        followers.pop();
        assert!(filling.follow().is_some());
        followers.clear();
        assert!(!filling.is_followed());
    }
}
