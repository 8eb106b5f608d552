//! Permission to send a header for a while. The thread that writes the ledger grants it; workers
//! check it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The shortest and the longest lease, in seconds. Long leases save writes, short ones let a
/// promise end sooner.
const SHORTEST: u64 = 4;
const LONGEST: u64 = 3600;
/// A lease lasts this fraction of the max-age.
const PART: u64 = 10;
/// The shortest and the longest flight time, in seconds.
const FLIGHT_MIN: u64 = 5;
const FLIGHT_MAX: u64 = 90;

/// Returns the length of a lease for a set of pins with this max-age, in seconds.
#[must_use]
pub fn length(max_age: u64) -> u64 {
    if max_age == 0 { LONGEST } else { max_age / PART }.clamp(SHORTEST, LONGEST)
}

/// Returns the time between sending a header and its arrival at a slow client, in seconds: the
/// client counts from the arrival. It is a tenth of the max-age, within bounds. pintle closes a
/// connection whose client does not read after about the upper bound.
#[must_use]
pub fn flight(max_age: u64) -> u64 {
    (max_age / PART).clamp(FLIGHT_MIN, FLIGHT_MAX)
}

/// Returns how far a recorded date may lie ahead of the time of writing, in seconds: the lease, the
/// flight, and one second for the fraction that this time lacks.
#[must_use]
pub fn ahead(max_age: u64) -> i64 {
    i64::try_from(length(max_age) + flight(max_age)).unwrap_or(i64::MAX).saturating_add(1)
}

/// The time until which something may be sent. Checking it costs one load per request, and no lock.
#[derive(Debug, Default)]
pub struct Lease(AtomicU64);

impl Lease {
    /// Returns `true` if the lease holds at this uptime, in milliseconds
    /// ([`crate::clock::uptime`]).
    #[must_use]
    pub fn holds(&self, uptime: u64) -> bool {
        uptime < self.0.load(Ordering::Relaxed)
    }

    /// Sets the end of the lease, in milliseconds of uptime.
    pub fn grant(&self, until: u64) {
        self.0.store(until, Ordering::Relaxed);
    }

    /// Ends the lease.
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
