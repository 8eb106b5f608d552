//! How fast a client must be with a body: it is not enough that something moves now and then, or one byte every half a
//! minute would hold a connection for ever.
//!
//! Only time that is spent waiting for the client counts. The account is kept where a deadline is pushed on anyway: it is
//! pushed on once enough bytes have moved, in place of at each one.

use std::time::Duration;

use crate::clock::Alarm;

/// What is asked of a client: so many bytes in each `pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// How long it may take for them.
    pub pause: Duration,
    /// Bytes; at least one.
    pub bytes: u64,
}

/// Holds a client to its min_rate.
#[derive(Debug)]
pub struct RateTimer {
    min_rate: MinRate,
    /// Bytes since the deadline was pushed on.
    moved: u64,
    clients_turn: bool,
}

impl RateTimer {
    /// At the beginning of a body.
    #[must_use]
    pub fn new(min_rate: MinRate) -> Self {
        Self { min_rate, moved: 0, clients_turn: false }
    }

    /// The client is waited for, and so many bytes have moved since the last call.
    pub fn wait_for_client(&mut self, moved: u64, alarm: &Alarm) {
        let turned = !std::mem::replace(&mut self.clients_turn, true);
        self.moved = self.moved.saturating_add(moved);
        if turned || self.moved >= self.min_rate.bytes.max(1) {
            self.moved = 0;
            alarm.set(self.min_rate.pause);
        }
    }

    /// The other side is waited for: whenever anything has moved, it has that long for the next.
    pub fn wait_for_other(&mut self, moved: bool, pause: Duration, alarm: &Alarm) {
        if std::mem::replace(&mut self.clients_turn, false) || moved {
            self.moved = 0;
            alarm.set(pause);
        }
    }

    /// Nothing has moved yet.
    pub fn begin(&mut self, alarm: &Alarm) {
        self.wait_for_other(true, self.min_rate.pause, alarm);
    }

    /// Nobody is waited for.
    pub fn rest(&mut self) {
        self.clients_turn = false;
    }

    /// As long as a client would have.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.min_rate.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, TICK};
    use std::rc::Rc;

    #[test]
    fn a_trickle_runs_out_of_time_and_a_stream_does_not() {
        // Bytes at each tick, ten ticks to bring a hundred; and after how many ticks that is over.
        let check = |bytes: u64, want: Option<u32>| {
            let clock = Rc::new(Clock::default());
            let alarm = clock.alarm();
            let mut rate_timer = RateTimer::new(MinRate { pause: TICK * 10, bytes: 100 });
            rate_timer.wait_for_client(0, &alarm);
            let over = (1..1000).find(|_| {
                clock.tick();
                rate_timer.wait_for_client(bytes, &alarm);
                alarm.is_due()
            });
            assert_eq!(over, want, "{bytes} bytes a tick");
        };
        check(0, Some(11));
        check(1, Some(11));
        check(9, Some(11));
        check(10, None);
        check(1000, None);
    }

    #[test]
    fn time_with_the_other_side_does_not_count() {
        let clock = Rc::new(Clock::default());
        let alarm = clock.alarm();
        let mut rate_timer = RateTimer::new(MinRate { pause: TICK * 10, bytes: 100 });
        for _ in 0..100 {
            rate_timer.wait_for_client(1, &alarm);
            clock.tick();
            rate_timer.wait_for_other(false, TICK * 20, &alarm);
            (0..15).for_each(|_| clock.tick());
            assert!(!alarm.is_due());
        }
        (0..6).for_each(|_| clock.tick());
        assert!(alarm.is_due());
    }
}
