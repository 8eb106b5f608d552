//! The pace of soft purges of a whole site, which changes of pages cause: an editor makes many requests, and after each
//! purge, pintle asks the origin for every page again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The shortest time from one purge to the next, in milliseconds.
pub const SITE_PURGE_PAUSE: u64 = 2000;

/// The time of a purge that a change asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgeTurn {
    /// At once.
    Now,
    /// After this time. The caller calls [`PurgePace::begin`] then, and purges.
    Later(Duration),
    /// Somebody else does it soon.
    Waits,
}

/// The pace of a store.
#[derive(Debug, Default)]
pub struct PurgePace(Mutex<PurgeTimes>);

#[derive(Debug, Default)]
struct PurgeTimes {
    /// The uptime from which the next one may be.
    next: u64,
    /// Somebody waits to purge.
    is_due: bool,
}

impl PurgePace {
    fn times(&self) -> MutexGuard<'_, PurgeTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a purge.
    #[must_use]
    pub fn ask(&self, uptime: u64) -> PurgeTurn {
        let mut times = self.times();
        if times.is_due {
            return PurgeTurn::Waits;
        }
        if uptime >= times.next {
            times.next = uptime + SITE_PURGE_PAUSE;
            return PurgeTurn::Now;
        }
        times.is_due = true;
        PurgeTurn::Later(Duration::from_millis(times.next - uptime))
    }

    /// Begins a purge that had to wait. A change from here on asks for another one.
    pub fn begin(&self, uptime: u64) {
        *self.times() = PurgeTimes { next: uptime + SITE_PURGE_PAUSE, is_due: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_lost() {
        let pace = PurgePace::default();
        assert_eq!(pace.ask(100), PurgeTurn::Now);
        assert_eq!(pace.ask(600), PurgeTurn::Later(Duration::from_millis(SITE_PURGE_PAUSE - 500)));
        assert_eq!((pace.ask(700), pace.ask(9000)), (PurgeTurn::Waits, PurgeTurn::Waits));
        pace.begin(9000);
        assert_eq!(pace.ask(9000), PurgeTurn::Later(Duration::from_millis(SITE_PURGE_PAUSE)));
        pace.begin(11_000);
        assert_eq!(pace.ask(11_000 + SITE_PURGE_PAUSE), PurgeTurn::Now);
    }
}
