//! The generic cell rate algorithm (ITU-T I.371): a burst, then one request in each interval. It needs one number for each
//! client: the time at which its burst is whole again.

use std::time::Duration;

/// The longest time until a burst is whole again, in nanoseconds: a year.
const TOLERANCE_MOST: u64 = 365 * 86_400 * NANOSECONDS;
const NANOSECONDS: u64 = 1_000_000_000;

/// A rate of requests, with a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestRate {
    /// Nanoseconds for one request.
    interval: u64,
    /// Requests at once.
    burst: u64,
}

/// The state of a client's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaState {
    /// Requests that are left at once.
    pub left: u64,
    /// Seconds until one more is left, rounded up; 0 if the burst is whole.
    pub next: u64,
}

impl RequestRate {
    /// Returns the rate of `count` requests in each `period`. Returns `None` unless all numbers are positive and the burst is
    /// whole again within a year.
    #[must_use]
    pub fn new(count: u64, period: Duration, burst: u64) -> Option<Self> {
        let period = u64::try_from(period.as_nanos()).ok().filter(|period| *period > 0)?;
        let interval = (count > 0).then(|| period.div_ceil(count))?;
        let whole = interval.checked_mul(burst)?;
        (burst > 0 && whole <= TOLERANCE_MOST).then_some(Self { interval, burst })
    }

    /// Nanoseconds until a spent burst is whole again.
    #[must_use]
    pub fn tolerance(self) -> u64 {
        self.interval * self.burst
    }

    /// Requests at once.
    #[must_use]
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// Seconds until a spent burst is whole again, rounded up: a client that sends `burst` requests in each such window is
    /// never refused.
    #[must_use]
    pub fn window(self) -> u64 {
        self.tolerance().div_ceil(NANOSECONDS)
    }

    /// Admits a request at `now`, for a client whose burst is whole again at `due`. Returns the new `due`.
    ///
    /// # Errors
    ///
    /// If the burst is spent: the nanoseconds until the request would be admitted.
    pub fn admit(self, due: u64, now: u64) -> Result<u64, u64> {
        let next = due.max(now).saturating_add(self.interval);
        match next.saturating_sub(now).checked_sub(self.tolerance()) {
            Some(early) if early > 0 => Err(early),
            _ => Ok(next),
        }
    }

    /// Takes back a request that was admitted, and returns the previous `due` or an equal one.
    #[must_use]
    pub fn undo(self, due: u64) -> u64 {
        due.saturating_sub(self.interval)
    }

    /// Returns the state of a client whose burst is whole again at `due`.
    #[must_use]
    pub fn state(self, due: u64, now: u64) -> QuotaState {
        let debt = due.saturating_sub(now);
        let left = self.tolerance().saturating_sub(debt) / self.interval;
        let free = left.saturating_add(1).saturating_mul(self.interval);
        let wait = debt.saturating_add(free).saturating_sub(self.tolerance());
        QuotaState { left, next: if debt == 0 { 0 } else { wait.div_ceil(NANOSECONDS) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = NANOSECONDS;

    fn rate(count: u64, burst: u64) -> RequestRate {
        RequestRate::new(count, Duration::from_secs(1), burst).unwrap()
    }

    #[test]
    fn a_burst_then_one_in_each_interval() {
        let rate = rate(10, 3);
        let mut due = 0;
        // Milliseconds, admitted, left, seconds until the next.
        let table = [
            (1000, true, 2, 1),
            (1000, true, 1, 1),
            (1000, true, 0, 1),
            (1000, false, 0, 1),
            (1099, false, 0, 1),
            (1100, true, 0, 1),
            (1150, false, 0, 1),
            (1350, true, 1, 1),
            (9000, true, 2, 1),
        ];
        for (at, admitted, left, next) in table {
            let now = at * SECOND / 1000;
            let answer = rate.admit(due, now);
            assert_eq!(answer.is_ok(), admitted, "{at}");
            due = answer.unwrap_or(due);
            assert_eq!(rate.state(due, now), QuotaState { left, next }, "{at}");
        }
        assert_eq!(rate.state(0, SECOND), QuotaState { left: 3, next: 0 });
        assert_eq!(rate.window(), 1);
    }

    #[test]
    fn a_refusal_names_the_wait() {
        let slow = RequestRate::new(5, Duration::from_secs(60), 1).unwrap();
        let due = slow.admit(0, SECOND).unwrap();
        assert_eq!(slow.admit(due, 2 * SECOND), Err(11 * SECOND));
        assert!(slow.admit(due, 13 * SECOND).is_ok());
        assert_eq!(slow.undo(due), SECOND);
        assert_eq!((slow.window(), slow.burst()), (12, 1));
    }

    #[test]
    fn rates_that_cannot_be() {
        let second = Duration::from_secs(1);
        for (count, period, burst) in
            [(0, second, 1), (1, Duration::ZERO, 1), (1, second, 0), (1, second, u64::MAX), (1, Duration::MAX, 1)]
        {
            assert_eq!(RequestRate::new(count, period, burst), None, "{count} {period:?} {burst}");
        }
        assert!(RequestRate::new(u64::MAX, second, 1).is_some());
    }

    proptest! {
        /// Over no window are more than the burst and the rate's share admitted, and a client that waits as asked is
        /// admitted.
        #[test]
        fn no_window_has_more_and_nobody_starves(
            count in 1u64..200,
            burst in 1u64..20,
            pauses in prop::collection::vec(0u64..SECOND / 4, 1..120),
        ) {
            let rate = rate(count, burst);
            let (mut due, mut now, mut admitted) = (0, SECOND, Vec::new());
            for pause in pauses {
                now += pause;
                match rate.admit(due, now) {
                    Ok(next) => {
                        due = next;
                        admitted.push(now);
                    }
                    Err(wait) => {
                        prop_assert!(wait <= rate.interval);
                        prop_assert!(rate.admit(due, now + wait).is_ok() && rate.admit(due, now + wait - 1).is_err());
                    }
                }
            }
            for (from, begin) in admitted.iter().enumerate() {
                for (n, end) in admitted[from..].iter().enumerate() {
                    let more = (end - begin) * count / SECOND;
                    prop_assert!((n as u64) < burst + more);
                }
            }
        }

        #[test]
        fn a_state_says_what_would_be_admitted(count in 1u64..50, burst in 1u64..10, due in 0..20 * SECOND, now in 0..20 * SECOND) {
            let rate = rate(count, burst);
            let QuotaState { left, next } = rate.state(due, now);
            let (mut after, mut n) = (due, 0);
            while let Ok(next) = rate.admit(after, now) {
                after = next;
                n += 1;
            }
            prop_assert_eq!(n, left);
            if next > 0 && due.saturating_sub(now) <= rate.tolerance() {
                prop_assert!(rate.state(due, now + next * SECOND).left > left);
            }
        }
    }
}
