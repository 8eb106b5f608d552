//! What the client of an HTTP/2 connection brings, and what for: frames that ask for nothing cost work all the same.
//!
//! h2 bounds what it knows of by itself: CONTINUATION frames, streams that are reset before anybody has looked at them,
//! empty DATA, the size of fields. Pings, settings, priorities, windows that open byte by byte, and streams that are
//! given up as soon as the upstream has heard of them, are all proper HTTP/2.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::heads::HeadWatch;
use crate::clock::ticks_of;

/// Bytes that may come without explanation: a ping every ten seconds for a week.
const OVERHEAD_FREE: u64 = 1 << 20;
/// Bytes that may come for each byte of payload, either way. A body in pieces of one byte needs ten.
const OVERHEAD_FACTOR: u64 = 8;
/// Bytes that are read before the streams get their turn: what h2 has taken in and nobody has looked at stays small.
const BURST: usize = 256 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    received: Cell<u64>,
    payload: Cell<u64>,
    /// Bytes that came in the present turn.
    burst: Cell<usize>,
    /// Bytes for the client that were handed down since somebody asked.
    written: Cell<usize>,
    /// When the minute began, and how many streams were given up in it.
    minute: Cell<(u32, u32)>,
    heads: RefCell<HeadWatch>,
}

impl Meter {
    /// Frames, whatever they say.
    pub(super) fn receive(&self, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        self.burst.set(self.burst.get() + bytes.len());
        self.heads.borrow_mut().receive(bytes);
    }

    /// The number of the head that has begun and is not finished, if there is one.
    pub(super) fn unfinished_head(&self) -> Option<u64> {
        self.heads.borrow().unfinished()
    }

    /// The connection has its turn.
    pub(super) fn begin_turn(&self) {
        self.burst.set(0);
    }

    /// Whether enough has come for one turn.
    pub(super) fn is_sated(&self) -> bool {
        self.burst.get() >= BURST
    }

    /// Bytes for the client.
    pub(super) fn write(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes);
    }

    /// How many there were since the last call.
    pub(super) fn take_written(&self) -> usize {
        self.written.take()
    }

    /// Bytes that were worth it: requests, and bodies in both directions.
    pub(super) fn payload(&self, bytes: usize) {
        self.payload.set(self.payload.get() + bytes as u64);
    }

    /// Whether too little of what has come was worth it.
    pub(super) fn is_flood(&self) -> bool {
        self.received.get() > OVERHEAD_FREE + OVERHEAD_FACTOR * self.payload.get()
    }

    /// The client has given up a stream; says whether it does that too often.
    pub(super) fn give_up(&self, now: u32, most: u32) -> bool {
        let (begin, count) = self.minute.get();
        let (begin, count) = if now.saturating_sub(begin) < ticks_of(MINUTE) { (begin, count) } else { (now, 0) };
        self.minute.set((begin, count + 1));
        count >= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_flood() {
        let meter = Meter::default();
        meter.receive(&vec![0; 1 << 20]);
        assert!(!meter.is_flood());
        meter.receive(&[0]);
        assert!(meter.is_flood());
        // A download, whose windows are opened after every two kilobytes.
        for _ in 0..100_000 {
            meter.payload(2048);
            meter.receive(&[0; 26]);
            assert!(!meter.is_flood());
        }
    }

    #[test]
    fn streams_that_are_given_up() {
        let meter = Meter::default();
        assert!((0..10).all(|n| !meter.give_up(n, 10)));
        assert!(meter.give_up(119, 10));
        assert!(!meter.give_up(120, 10));
    }
}
