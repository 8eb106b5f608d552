//! Leases: leave to send a set of pins, written down ahead of time.
//!
//! What is on disk says "may be sent until two o'clock"; until a little before that, workers may send it without asking.
//! So after a crash the disk is never behind the wire, and no request waits for a disk.

use std::sync::Arc;

use crate::clock::uptime;
use crate::config::Pledge;
use crate::lease::Lease;
use crate::ledger::Record;
use crate::policy::guard::{Promise, Seconds};

/// The shortest and the longest lease, in seconds. Long ones save writing, short ones let a promise end sooner.
const LEASE_MIN: u64 = 4;
const LEASE_MAX: u64 = 3600;
/// A lease is this part of the max-age.
const LEASE_PART: u64 = 10;
/// Workers stop this long before the end of what is written down, in milliseconds: their clock ticks twice a second, and
/// an answer takes its time to the wire.
const MARGIN_MIN: u64 = 1500;
const MARGIN_MAX: u64 = 60_000;

/// All sets that may be sent now.
#[derive(Default)]
pub(super) struct Leases {
    held: Vec<Held>,
}

struct Held {
    pledge: Pledge,
    /// When it is to be renewed, by [`uptime`]; now, if it was never granted.
    renew_at: u64,
}

/// A renewal on its way to the disk.
pub(super) struct Renewal {
    pub(super) records: Vec<Record>,
    granted: Vec<(Arc<Lease>, Granted)>,
}

#[derive(Clone, Copy)]
struct Granted {
    until: u64,
    renew_at: u64,
}

impl Leases {
    /// Holds these, and no others; those that go on keep what they have.
    pub(super) fn hold(&mut self, pledges: &[Pledge]) {
        let before = std::mem::take(&mut self.held);
        let known: std::collections::HashMap<*const Lease, u64> =
            before.iter().map(|h| (Arc::as_ptr(&h.pledge.lease), h.renew_at)).collect();
        let renew_at = |pledge: &Pledge| known.get(&Arc::as_ptr(&pledge.lease)).copied().unwrap_or_default();
        self.held = pledges.iter().map(|p| Held { pledge: p.clone(), renew_at: renew_at(p) }).collect();
    }

    /// What is to be written down now, if anything. With `all`, every one is.
    pub(super) fn due(&self, now: Seconds, all: bool) -> Option<Renewal> {
        let uptime = uptime();
        let mut renewal = Renewal { records: Vec::new(), granted: Vec::new() };
        for held in self.held.iter().filter(|h| all || h.renew_at <= uptime) {
            let (record, granted) = lease(&held.pledge.promise, now, uptime);
            renewal.records.push(record);
            renewal.granted.push((held.pledge.lease.clone(), granted));
        }
        (!renewal.records.is_empty()).then_some(renewal)
    }

    /// After it was written down: lets the workers send it.
    pub(super) fn granted(&mut self, renewal: &Renewal) {
        let granted: std::collections::HashMap<*const Lease, Granted> =
            renewal.granted.iter().map(|(lease, granted)| (Arc::as_ptr(lease), *granted)).collect();
        for (lease, granted) in &renewal.granted {
            lease.grant(granted.until);
        }
        for held in &mut self.held {
            if let Some(granted) = granted.get(&Arc::as_ptr(&held.pledge.lease)) {
                held.renew_at = granted.renew_at;
            }
        }
    }
}

/// What to write down for a set, and until when workers may then send it.
fn lease(promise: &Promise, now: Seconds, uptime: u64) -> (Record, Granted) {
    let seconds =
        if promise.max_age == 0 { LEASE_MAX } else { promise.max_age / LEASE_PART }.clamp(LEASE_MIN, LEASE_MAX);
    let length = seconds * 1000;
    let margin = (length / 4).clamp(MARGIN_MIN, MARGIN_MAX);
    let last_sent = now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
    let record = Record::Promise(Promise { first_sent: now, last_sent, ..promise.clone() });
    (record, Granted { until: uptime + length - margin, renew_at: uptime + length / 2 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::pin::Pin;
    use crate::policy::guard::Channel;
    use crate::policy::hpkp::Mode;

    fn pledge(max_age: u64) -> Pledge {
        let promise = Promise {
            site: "a.example".into(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            pins: vec![Pin::of_spki(b"")],
            max_age,
            include_subdomains: false,
            channel: Channel::Header(Mode::Enforce),
            first_sent: 0,
            last_sent: 0,
        };
        Pledge { promise, lease: Arc::default() }
    }

    #[test]
    fn workers_stop_before_the_end_of_what_is_written_down() {
        for (max_age, seconds) in [(10, 4), (100, 10), (36_000, 3600), (86400 * 365, 3600), (0, 3600)] {
            let (record, granted) = lease(&pledge(max_age).promise, 1000, 50_000);
            let Record::Promise(promise) = record else { panic!("{record:?}") };
            assert_eq!((promise.first_sent, promise.last_sent), (1000, 1000 + seconds), "{max_age}");
            let end = 50_000 + 1000 * seconds as u64;
            assert!(granted.until <= end - MARGIN_MIN && granted.renew_at < granted.until, "{max_age}");
        }
    }

    #[test]
    fn only_what_is_due_is_renewed() {
        let (one, two) = (pledge(1000), pledge(1000));
        let mut leases = Leases::default();
        leases.hold(&[one.clone()]);
        let renewal = leases.due(1000, false).unwrap();
        assert!(!one.lease.holds(uptime()));
        leases.granted(&renewal);
        assert!(one.lease.holds(uptime()));
        assert!(leases.due(1000, false).is_none());
        leases.hold(&[one.clone(), two]);
        assert_eq!(leases.due(1000, false).unwrap().records.len(), 1);
        assert_eq!(leases.due(1000, true).unwrap().records.len(), 2);
    }
}
