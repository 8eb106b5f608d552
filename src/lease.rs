//! Leave to send a header for a while: given by the thread that writes the ledger, looked at by those that answer.

use std::sync::atomic::{AtomicU64, Ordering};

/// The shortest and the longest lease, in seconds. Long ones save writing, short ones let a promise end sooner.
const SHORTEST: u64 = 4;
const LONGEST: u64 = 3600;
/// A lease is this part of the max-age.
const PART: u64 = 10;
/// The shortest and the longest flight, in seconds.
const FLIGHT_MIN: u64 = 5;
const FLIGHT_MAX: u64 = 90;

/// How long a lease for a set of pins with this max-age is, in seconds.
#[must_use]
pub fn length(max_age: u64) -> u64 {
    if max_age == 0 { LONGEST } else { max_age / PART }.clamp(SHORTEST, LONGEST)
}

/// The time between the sending of a header and its arrival at a client that reads slowly, in seconds: that client
/// counts from the arrival. A tenth of the max-age, within bounds: a connection whose client does not read is closed in
/// about the longest of these times.
#[must_use]
pub fn flight(max_age: u64) -> u64 {
    (max_age / PART).clamp(FLIGHT_MIN, FLIGHT_MAX)
}

/// By how many seconds what is written down may be ahead of the time at which it is written: the lease, the flight, and
/// one more, as of that time the fraction of the second was left out.
#[must_use]
pub fn ahead(max_age: u64) -> i64 {
    i64::try_from(length(max_age) + flight(max_age)).unwrap_or(i64::MAX).saturating_add(1)
}

/// Until when something may be sent. One load per request, and no lock.
#[derive(Debug, Default)]
pub struct Lease(AtomicU64);

impl Lease {
    /// Whether it holds, at this number of milliseconds since the start ([`crate::clock::uptime`]).
    #[must_use]
    pub fn holds(&self, uptime: u64) -> bool {
        uptime < self.0.load(Ordering::Relaxed)
    }

    /// Lets it hold until then, and no longer.
    pub fn grant(&self, until: u64) {
        self.0.store(until, Ordering::Relaxed);
    }

    /// Ends it.
    pub fn revoke(&self) {
        self.grant(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (max_age, seconds) in [(10, 4), (100, 10), (36_000, 3600), (86400 * 365, 3600), (0, 3600)] {
            let flight = seconds.clamp(FLIGHT_MIN, FLIGHT_MAX).min((max_age / PART).max(FLIGHT_MIN));
            let ahead_of = i64::try_from(seconds + flight).unwrap() + 1;
            assert_eq!((length(max_age), ahead(max_age)), (seconds, ahead_of), "{max_age}");
        }
    }

    #[test]
    fn holds_while_granted() {
        let lease = Lease::default();
        assert!(!lease.holds(0));
        lease.grant(100);
        assert!(lease.holds(99) && !lease.holds(100));
        lease.revoke();
        assert!(!lease.holds(0));
    }
}
