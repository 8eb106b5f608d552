//! Leave to send a header for a while: given by the thread that writes the ledger, looked at by those that answer.

use std::sync::atomic::{AtomicU64, Ordering};

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
    fn holds_while_granted() {
        let lease = Lease::default();
        assert!(!lease.holds(0));
        lease.grant(100);
        assert!(lease.holds(99) && !lease.holds(100));
        lease.revoke();
        assert!(!lease.holds(0));
    }
}
