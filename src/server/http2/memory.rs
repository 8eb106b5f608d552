//! The memory that an HTTP/2 connection holds for its streams, bounded by `connection_memory`.
//!
//! Bytes are charged when they are read from an upstream, and released when h2 writes or drops them. A stream that finds the
//! budget spent stops reading. A stream that holds nothing may always read one small piece, so that none starves or waits for
//! another. One task polls all streams of a connection, so that cells suffice, without a lock or timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::limits::{HTTP2_STREAM_LEAST, Limits};
use crate::wire::http2_send::{Account, Piece};

/// The smallest piece of an answer's body to read. Each stream may hold one, whatever the others do.
const PIECE_MIN: usize = 16 * 1024;
/// The first piece, and the largest.
const PIECE_FIRST: usize = 64 * 1024;
const PIECE_MAX: usize = 256 * 1024;
/// Bytes that h2 needs for a waiting frame, besides its payload.
const FRAME: usize = 256;
/// Bytes of a request's head that are not charged.
const HEAD_FREE: usize = 1024;
/// Copies of a head: h2's, pintle's, the one written to the upstream, and the overhead of containers.
const HEAD_COPIES: usize = 4;

const _: () = assert!(PIECE_MIN + HEAD_FREE * HEAD_COPIES < HTTP2_STREAM_LEAST);

/// The memory of one connection.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    /// The budget for bodies and heads of answers, beyond what each stream may always hold; and how much of it is held.
    bodies: usize,
    held: Cell<usize>,
    /// The same for heads of requests, and for the kept parts of their bodies.
    heads: usize,
    heads_held: Cell<usize>,
    /// Streams that wait for memory. The round rises when all are woken, so that each is listed once.
    waiting: RefCell<Vec<Waker>>,
    round: Cell<u64>,
}

impl ConnectionMemory {
    pub(super) fn new(limits: &Limits) -> Rc<Self> {
        let memory = limits.connection_memory();
        Rc::new(Self {
            bodies: memory / 2,
            held: Cell::default(),
            heads: memory / 2,
            heads_held: Cell::default(),
            waiting: RefCell::default(),
            round: Cell::new(1),
        })
    }

    /// Reserves memory for a stream whose request has a head of `head` bytes. Returns `None` if it does not fit.
    pub(super) fn admit(self: &Rc<Self>, head: usize) -> Option<Rc<Share>> {
        let request = head.saturating_sub(HEAD_FREE) * HEAD_COPIES;
        let held = self.heads_held.get() + request;
        (request == 0 || held <= self.heads).then(|| {
            self.heads_held.set(held);
            Rc::new(Share {
                memory: self.clone(),
                request,
                received: Cell::default(),
                sent: Cell::default(),
                kept: Cell::default(),
                head: Cell::default(),
                interim: Cell::default(),
                out: Cell::default(),
                buffer: Cell::default(),
                last: Cell::default(),
                waits: Cell::default(),
                waker: RefCell::default(),
            })
        })
    }

    fn wake_all(&self) {
        self.round.set(self.round.get() + 1);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// One stream's share of the memory.
#[derive(Debug)]
pub(super) struct Share {
    memory: Rc<ConnectionMemory>,
    /// Charged for the request's head.
    request: usize,
    /// Bytes of the request's body that were received.
    pub(super) received: Cell<u64>,
    /// Bytes of the answer's body that were sent.
    pub(super) sent: Cell<u64>,
    /// Bytes of its body that are kept.
    kept: Cell<usize>,
    /// Bytes of the answer's head.
    head: Cell<usize>,
    /// Bytes of interim heads. h2 does not report when they are sent, so they count until the stream ends.
    interim: Cell<usize>,
    /// Bytes of its body that were read and are not written yet.
    out: Cell<usize>,
    /// The reserved buffer for the next piece.
    buffer: Cell<usize>,
    /// The last piece's size.
    last: Cell<usize>,
    /// The round in which it waits for memory.
    waits: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Share {
    fn cost(&self) -> usize {
        (self.head.get() + self.interim.get() + self.out.get() + self.buffer.get()).saturating_sub(PIECE_MIN)
    }

    fn change<T>(&self, what: &Cell<T>, value: T) {
        let before = self.cost();
        what.set(value);
        self.memory.held.set(self.memory.held.get() + self.cost() - before);
    }

    /// Charges the answer's head.
    pub(super) fn hold_head(&self, bytes: usize) {
        self.change(&self.head, bytes);
    }

    /// Charges the kept part of the request's body; zero releases it. Returns `false` if less than half of the memory would be
    /// left for heads.
    pub(super) fn keep(&self, bytes: usize) -> bool {
        let memory = &self.memory;
        let held = memory.heads_held.get() - self.kept.get() + bytes;
        let may = bytes <= self.kept.get() || held <= memory.heads / 2;
        if may {
            self.kept.set(bytes);
            memory.heads_held.set(held);
        }
        may
    }

    /// Charges an interim head. Returns `false` if it does not fit.
    pub(super) fn hold_interim(&self, bytes: usize) -> bool {
        let more = bytes + FRAME;
        // The stream's own allowance, or the common budget.
        let own = self.head.get() + self.interim.get() + self.out.get() + self.buffer.get() + more;
        let fits = own <= PIECE_MIN || self.memory.held.get() + more <= self.memory.bodies;
        if fits {
            self.change(&self.interim, self.interim.get() + more);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.change(&self.out, self.out.get() - bytes);
        let memory = &self.memory;
        // Only with enough free memory, not for each frame.
        if memory.held.get() <= memory.bodies / 4 * 3 && !memory.waiting.borrow().is_empty() {
            memory.wake_all();
        }
        if self.out.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let memory = &self.memory;
        memory.held.set(memory.held.get() - self.cost());
        memory.heads_held.set(memory.heads_held.get() - self.request - self.kept.get());
        memory.wake_all();
    }
}

impl Account for Rc<Share> {
    type Piece = ChargedBytes;

    fn charge(&self, data: Bytes) -> ChargedBytes {
        let charged = if data.is_empty() { 0 } else { data.len() + FRAME };
        self.last.set(data.len());
        self.change(&self.out, self.out.get() + charged);
        ChargedBytes { data, charged, share: self.clone() }
    }

    fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let memory = &self.memory;
        if memory.held.get() >= memory.bodies && self.out.get() > 0 {
            if self.waits.replace(memory.round.get()) != memory.round.get() {
                memory.waiting.borrow_mut().push(cx.waker().clone());
            }
            self.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let left = memory.bodies.saturating_sub(memory.held.get() - self.cost());
        let most = (left / 4).clamp(PIECE_MIN, PIECE_MAX).min((2 * self.last.get()).max(PIECE_FIRST));
        self.change(&self.buffer, most);
        Poll::Ready(most)
    }
}

/// A piece of a body on its way to the client.
#[derive(Debug)]
pub(super) struct ChargedBytes {
    data: Bytes,
    charged: usize,
    share: Rc<Share>,
}

impl Piece for ChargedBytes {
    fn split_to(&mut self, at: usize) -> Self {
        if at == self.data.len() {
            let rest = Self { data: Bytes::new(), charged: 0, share: self.share.clone() };
            return std::mem::replace(self, rest);
        }
        self.charged -= at;
        self.share.change(&self.share.out, self.share.out.get() + FRAME);
        Self { data: self.data.split_to(at), charged: at + FRAME, share: self.share.clone() }
    }
}

impl Buf for ChargedBytes {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, bytes: usize) {
        self.data.advance(bytes);
        self.charged -= bytes;
        self.share.release(bytes);
    }
}

impl Drop for ChargedBytes {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.share.release(self.charged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn memory() -> Rc<ConnectionMemory> {
        ConnectionMemory::new(&Limits::default())
    }

    fn poll(share: &Rc<Share>) -> Option<usize> {
        match share.poll_capacity(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(most) => Some(most),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_stream_that_holds_nothing_may_always_read() {
        let memory = memory();
        let mut held = Vec::new();
        for _ in 0..128 {
            let share = memory.admit(500).unwrap();
            while let Some(most) = poll(&share)
                && held.len() < 10_000
            {
                held.push(share.charge(Bytes::from(vec![0; most])));
            }
            assert!(share.out.get() >= PIECE_MIN);
        }
        assert!(held.len() < 10_000);
        // Only the allowance of each stream is above the budget.
        assert!(memory.held.get() <= memory.bodies + PIECE_MAX + 128 * (PIECE_MIN + FRAME), "{}", memory.held.get());
        drop(held);
        assert_eq!((memory.held.get(), memory.heads_held.get()), (0, 0));
    }

    #[test]
    fn large_heads_do_not_fit_and_small_ones_do() {
        let memory = memory();
        let large: Vec<_> = (0..128).map_while(|_| memory.admit(32 * 1024)).collect();
        assert!((5..64).contains(&large.len()), "{}", large.len());
        assert!(memory.admit(HEAD_FREE).is_some());
        drop(large);
        assert_eq!(memory.heads_held.get(), 0);
        assert!((0..128).all(|_| { memory.admit(4 * 1024).map(std::mem::forget).is_some() }));
    }

    #[test]
    fn kept_bodies_leave_room_for_heads() {
        let memory = memory();
        let shares: Vec<_> = (0..128).map(|_| memory.admit(500).unwrap()).collect();
        let keeping = shares.iter().filter(|share| share.keep(64 * 1024)).count();
        assert!((10..64).contains(&keeping), "{keeping}");
        assert!(memory.heads_held.get() <= memory.heads / 2 && memory.admit(16 * 1024).is_some());
        assert!(!shares[127].keep(1 << 20), "there is no memory");
        assert!(shares[0].keep(1000) && shares[0].keep(0), "less is always possible");
        drop(shares);
        assert_eq!(memory.heads_held.get(), 0);
    }

    proptest! {
        /// However pieces are split, written and dropped, nothing is left of them.
        #[test]
        fn held_bytes_are_released(steps in proptest::collection::vec((0usize..4, 0usize..3000), 0..200)) {
            let memory = memory();
            let share = memory.admit(2000).unwrap();
            let mut held: Vec<ChargedBytes> = Vec::new();
            for (what, number) in steps {
                match (what, held.pop()) {
                    (0, piece) => {
                        held.extend(piece);
                        held.push(share.charge(Bytes::from(vec![0; number])));
                    }
                    (1, Some(mut piece)) => {
                        let part = piece.split_to(number.min(piece.remaining()));
                        held.extend([piece, part]);
                    }
                    (2, Some(mut piece)) => {
                        piece.advance(number.min(piece.remaining()));
                        held.push(piece);
                    }
                    _ => {}
                }
                prop_assert_eq!(share.out.get(), held.iter().map(|p| p.charged).sum::<usize>());
            }
            drop(held);
            prop_assert_eq!(share.out.get(), 0);
            drop(share);
            prop_assert_eq!((memory.held.get(), memory.heads_held.get()), (0, 0));
        }
    }
}
