//! The lowest rate at which a client may send or read a body. Without one, a byte every half a
//! minute would hold a connection forever.
//!
//! Only the time counts in which pintle waits for the client. The deadline moves on only once
//! enough bytes have moved, not with each byte.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::body::{Frame, RequestBody, RequestBodyError};
use crate::clock::Alarm;

/// The lowest rate of a client: `bytes` in each `pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// The time.
    pub pause: Duration,
    /// The number of bytes; at least one.
    pub bytes: u64,
}

/// Holds a client to a [`MinRate`].
#[derive(Debug)]
pub struct RateTimer {
    min_rate: MinRate,
    /// The bytes since the deadline last moved.
    moved: u64,
    clients_turn: bool,
}

impl RateTimer {
    /// Makes a timer for the beginning of a body.
    #[must_use]
    pub fn new(min_rate: MinRate) -> Self {
        Self { min_rate, moved: 0, clients_turn: false }
    }

    /// Notes that pintle waits for the client, and that `moved` bytes have moved since the last
    /// call.
    pub fn wait_for_client(&mut self, moved: u64, alarm: &Alarm) {
        let turned = !std::mem::replace(&mut self.clients_turn, true);
        self.moved = self.moved.saturating_add(moved);
        if turned || self.moved >= self.min_rate.bytes.max(1) {
            self.moved = 0;
            alarm.set(self.min_rate.pause);
        }
    }

    /// Notes that pintle waits for the other side. If anything has moved, its deadline moves on by
    /// `pause`.
    pub fn wait_for_other(&mut self, moved: bool, pause: Duration, alarm: &Alarm) {
        if std::mem::replace(&mut self.clients_turn, false) || moved {
            self.moved = 0;
            alarm.set(pause);
        }
    }

    /// Sets the first deadline.
    pub fn begin(&mut self, alarm: &Alarm) {
        self.wait_for_other(true, self.min_rate.pause, alarm);
    }

    /// Notes that pintle waits for nobody.
    pub fn rest(&mut self) {
        self.clients_turn = false;
    }

    /// Returns the rate to which it holds the client.
    #[must_use]
    pub fn min_rate(&self) -> MinRate {
        self.min_rate
    }

    /// Returns the time that a client has for its bytes.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.min_rate.pause
    }
}

/// Returns the next piece of a request's body, or [`RequestBodyError::TooSlow`] once the alarm rings.
pub async fn next_frame(body: &mut RequestBody, alarm: &Alarm) -> Option<Result<Frame, RequestBodyError>> {
    poll_fn(|cx| match body.poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame),
        Poll::Pending => alarm.poll_due(cx).map(|()| Some(Err(RequestBodyError::TooSlow))),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, TICK};
    use std::rc::Rc;

    #[test]
    fn a_trickle_runs_out_of_time_and_a_stream_does_not() {
        // `bytes` at each tick, with ten ticks for a hundred bytes. Returns the ticks until the
        // alarm rings.
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
