//! What an HTTP/2 connection holds for its streams, and may hold: `connection_memory`.
//!
//! Bytes are charged when they are read from an upstream, and given back as h2 writes them or drops them. Who finds the
//! memory full does not read on; a stream that holds nothing may always read one small piece, so that none starves, and none
//! waits for another. Numbers in cells, and no lock or timer: all streams of a connection are polled by one task.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};

use crate::limits::{HTTP2_STREAM_LEAST, Limits};
use crate::wire::http2_send::{Account, Piece};

/// The smallest piece of an answer's body that is asked for, and which each stream may hold whatever the others do.
const PIECE_MIN: usize = 16 * 1024;
/// The first piece, and the largest.
const PIECE_FIRST: usize = 64 * 1024;
const PIECE_MAX: usize = 256 * 1024;
/// What h2 needs for a frame that waits, whatever is in it.
const FRAME: usize = 256;
/// Bytes of a request's head that the stream's own memory has space for.
const HEAD_FREE: usize = 1024;
/// How often a head is there: as h2 read it, as we did, as it is written to the upstream, and what the containers take.
const HEAD_COPIES: usize = 4;

const _: () = assert!(PIECE_MIN + HEAD_FREE * HEAD_COPIES < HTTP2_STREAM_LEAST);

/// The memory of one connection.
#[derive(Debug)]
pub(super) struct Memory {
    /// For bodies and heads of answers, beyond what each stream may always have; and what is held of it.
    bodies: usize,
    held: Cell<usize>,
    /// The same for the heads of requests, and for what is kept of their bodies.
    heads: usize,
    heads_held: Cell<usize>,
    /// Streams that wait for memory; and how often they were all woken, so that each is in there once.
    waiting: RefCell<Vec<Waker>>,
    round: Cell<u64>,
}

impl Memory {
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

    /// Memory for another stream whose request has a head of so many bytes; none if there is none.
    pub(super) fn admit(self: &Rc<Self>, head: usize) -> Option<Rc<Share>> {
        let request = head.saturating_sub(HEAD_FREE) * HEAD_COPIES;
        let held = self.heads_held.get() + request;
        (request == 0 || held <= self.heads).then(|| {
            self.heads_held.set(held);
            Rc::new(Share {
                memory: self.clone(),
                request,
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

/// What one stream has of it.
#[derive(Debug)]
pub(super) struct Share {
    memory: Rc<Memory>,
    /// Charged for the request's head.
    request: usize,
    /// Bytes that are kept of its body.
    kept: Cell<usize>,
    /// Bytes of the answer's head.
    head: Cell<usize>,
    /// Bytes of interim heads: h2 does not say when they have gone, so that they count until the stream ends.
    interim: Cell<usize>,
    /// Bytes of its body that were read and not written yet.
    out: Cell<usize>,
    /// What the next piece may be read into.
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

    /// The answer's head is there.
    pub(super) fn hold_head(&self, bytes: usize) {
        self.change(&self.head, bytes);
    }

    /// Charges what is kept of the request's body; zero gives it back. Half of the memory stays for heads: `false` where it
    /// would not.
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

    /// Memory for an interim head; says no if there is none.
    pub(super) fn hold_interim(&self, bytes: usize) -> bool {
        let more = bytes + FRAME;
        // What each stream may hold whatever the others do, and what they have together.
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
        // Not for each frame: there is to be something to read into.
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

    fn memory() -> Rc<Memory> {
        Memory::new(&Limits::default())
    }

    fn poll(share: &Rc<Share>) -> Option<usize> {
        match share.poll_capacity(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(most) => Some(most),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_holds_nothing_may_always_read() {
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
        // What is over is what each may have.
        assert!(memory.held.get() <= memory.bodies + PIECE_MAX + 128 * (PIECE_MIN + FRAME), "{}", memory.held.get());
        drop(held);
        assert_eq!((memory.held.get(), memory.heads_held.get()), (0, 0));
    }

    #[test]
    fn large_heads_find_no_room_and_small_ones_do() {
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
        fn what_is_held_is_given_back(steps in proptest::collection::vec((0usize..4, 0usize..3000), 0..200)) {
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
