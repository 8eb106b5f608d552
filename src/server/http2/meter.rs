//! Measures how much of a client's HTTP/2 traffic is useful: frames that request nothing also cost work.
//!
//! h2 itself bounds CONTINUATION frames, streams that are reset before they are accepted, empty DATA and the size of fields.
//! Pings, settings, priorities, windows that open byte by byte, and streams that are given up once they are with the upstream
//! are all valid HTTP/2.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::heads::HeadWatch;
use crate::clock::ticks_of;

/// Bytes that are free: a ping every ten seconds for a week.
const OVERHEAD_FREE: u64 = 1 << 20;
/// Bytes that may come for each byte of payload in either direction. A body in pieces of one byte needs ten.
const OVERHEAD_FACTOR: u64 = 8;
/// Bytes that are read before the streams are polled. Keeps the unprocessed input of h2 small.
const BURST: usize = 256 * 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// The account of one connection.
#[derive(Debug, Default)]
pub(super) struct Meter {
    received: Cell<u64>,
    payload: Cell<u64>,
    /// Bytes that came in the present turn.
    burst: Cell<usize>,
    /// Bytes for the client that were passed down since the last call of `take_written`.
    written: Cell<usize>,
    /// The tick at which the minute began, and the streams that were given up in it.
    minute: Cell<(u32, u32)>,
    heads: RefCell<HeadWatch>,
}

impl Meter {
    /// Counts received frames of any kind.
    pub(super) fn receive(&self, bytes: &[u8]) {
        self.received.set(self.received.get() + bytes.len() as u64);
        self.burst.set(self.burst.get() + bytes.len());
        self.heads.borrow_mut().receive(bytes);
    }

    /// Returns the number of the incomplete head, if there is one.
    pub(super) fn unfinished_head(&self) -> Option<u64> {
        self.heads.borrow().unfinished()
    }

    /// Begins a turn of the connection.
    pub(super) fn begin_turn(&self) {
        self.burst.set(0);
    }

    /// Returns `true` if enough was read for one turn.
    pub(super) fn is_sated(&self) -> bool {
        self.burst.get() >= BURST
    }

    /// Counts bytes for the client.
    pub(super) fn write(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes);
    }

    /// Returns the bytes for the client since the last call.
    pub(super) fn take_written(&self) -> usize {
        self.written.take()
    }

    /// Counts useful bytes: requests, and bodies in both directions.
    pub(super) fn payload(&self, bytes: usize) {
        self.payload.set(self.payload.get() + bytes as u64);
    }

    /// Returns `true` if too little of the received bytes was useful.
    pub(super) fn is_flood(&self) -> bool {
        self.received.get() > OVERHEAD_FREE + OVERHEAD_FACTOR * self.payload.get()
    }

    /// Counts a stream that the client has given up. Returns `true` if there are too many in this minute.
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
    fn floods() {
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
