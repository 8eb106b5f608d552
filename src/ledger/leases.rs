//! Leases: permissions to send a set of pins, recorded ahead of time.
//!
//! The disk says "may be sent until two o'clock"; until shortly before, workers send the pins
//! without asking. So the disk is never behind the clients, even after a crash, and no request
//! waits for a disk. This module does no I/O and reads no clock: it returns the records to write,
//! and is called again when they are durable.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use super::book::Book;
use super::record::Record;
use super::time::Behind;
use crate::lease::{self, Lease};
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};

/// Workers stop this many milliseconds before the recorded end. The ledger's clock may lag by half a
/// second unnoticed, and a response takes time to reach the client.
const MARGIN_MIN: u64 = 1000;
const MARGIN_MAX: u64 = 60_000;

/// A set of pins to be sent, and the permission for it.
#[derive(Debug, Clone)]
pub struct Pledge {
    /// The set; its times are filled in when it is recorded.
    pub promise: Promise,
    /// Granted once the set is recorded.
    pub lease: Arc<Lease>,
}

/// All sets that may be sent now.
#[derive(Debug, Default)]
pub struct Leases {
    held: Vec<HeldLease>,
    /// Leases that are no longer held: a request from before may still send their pins.
    past: Vec<Weak<Lease>>,
    /// Corrections of records that were dated too early, still to be written.
    mended: Vec<Record>,
    /// The number of times that all leases were revoked.
    revoked: u64,
}

#[derive(Debug)]
struct HeldLease {
    pledge: Pledge,
    /// The uptime at which to renew it ([`crate::clock::uptime`]); 0 if it was never granted.
    renew_at: u64,
}

/// A renewal that is being written.
#[derive(Debug)]
pub struct LeaseRenewal {
    /// The records to write.
    pub records: Vec<Record>,
    granted: Vec<(Arc<Lease>, Granted)>,
    /// The number of corrections among the records.
    mended: usize,
    /// [`Leases::revoked`] when it began.
    revoked: u64,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    until: u64,
    renew_at: u64,
}

impl LeaseRenewal {
    /// Returns `true` if it has leases to grant.
    #[must_use]
    pub fn has_leases(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Parts the leases that may be granted at once from the others. The records stay where they
    /// are.
    pub fn part(&mut self, at_once: impl Fn(&Arc<Lease>) -> bool) -> Self {
        let (now, later) = std::mem::take(&mut self.granted).into_iter().partition(|(lease, _)| at_once(lease));
        self.granted = later;
        Self { records: Vec::new(), granted: now, mended: std::mem::take(&mut self.mended), revoked: self.revoked }
    }
}

impl Leases {
    /// Replaces the held pledges; those that stay keep their leases.
    pub fn hold(&mut self, pledges: &[Pledge]) {
        let before = std::mem::take(&mut self.held);
        let known: HashMap<*const Lease, u64> =
            before.iter().map(|h| (Arc::as_ptr(&h.pledge.lease), h.renew_at)).collect();
        let renew_at = |pledge: &Pledge| known.get(&Arc::as_ptr(&pledge.lease)).copied().unwrap_or_default();
        self.held = pledges.iter().map(|p| HeldLease { pledge: p.clone(), renew_at: renew_at(p) }).collect();
        let held: HashSet<*const Lease> = pledges.iter().map(|p| Arc::as_ptr(&p.lease)).collect();
        let dropped = before.iter().map(|h| &h.pledge.lease).filter(|lease| !held.contains(&Arc::as_ptr(lease)));
        self.past.extend(dropped.map(Arc::downgrade));
        drop(before);
        self.past.retain(|lease| lease.strong_count() > 0);
    }

    /// Handles a clock that was behind: clients hold their pins for longer than the book says.
    /// Returns the corrected records, which the book takes at once. No pins are sent until they are
    /// durable.
    #[must_use]
    pub fn was_behind(&mut self, behind: Behind, book: &Book, now: Seconds) -> Vec<Record> {
        self.revoke();
        let mended = redated(book, behind, now);
        self.mended.extend(mended.iter().cloned());
        mended
    }

    /// Returns the corrections that are still to be written.
    #[must_use]
    pub fn mended(&self) -> Vec<Record> {
        self.mended.clone()
    }

    /// Withholds all pins until they are recorded again.
    pub fn revoke(&mut self) {
        self.revoked += 1;
        for held in &mut self.held {
            held.pledge.lease.revoke();
            held.renew_at = 0;
        }
        for lease in self.past.drain(..).filter_map(|lease| lease.upgrade()) {
            lease.revoke();
        }
    }

    /// Returns the records to write now; `None` if nothing is due.
    #[must_use]
    pub fn due(&self, now: Seconds, uptime: u64) -> Option<LeaseRenewal> {
        let (mended, revoked) = (self.mended.len(), self.revoked);
        let mut renewal = LeaseRenewal { records: self.mended.clone(), granted: Vec::new(), mended, revoked };
        for held in self.held.iter().filter(|h| h.renew_at <= uptime) {
            let (record, granted) = lease(&held.pledge.promise, now, uptime);
            renewal.records.push(record);
            renewal.granted.push((held.pledge.lease.clone(), granted));
        }
        (!renewal.records.is_empty()).then_some(renewal)
    }

    /// Returns `true` if there is nothing to renew or to correct.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.mended.is_empty()
    }

    /// Grants the leases of a renewal that is durable. If the clock was set while it was written, the
    /// previous clock has dated it: it grants nothing, and later corrections stay to be written.
    pub fn granted(&mut self, renewal: &LeaseRenewal) {
        self.mended.drain(..renewal.mended.min(self.mended.len()));
        if renewal.revoked != self.revoked {
            return;
        }
        let granted: HashMap<*const Lease, Granted> =
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

/// Returns the record for a set, and until when workers may then send it.
fn lease(promise: &Promise, now: Seconds, uptime: u64) -> (Record, Granted) {
    let length = lease::length(promise.max_age) * 1000;
    let margin = (length / 4).clamp(MARGIN_MIN, MARGIN_MAX);
    let last_sent = now.saturating_add(lease::ahead(promise.max_age));
    let record = Record::Promise(Promise { first_sent: now, last_sent, ..promise.clone() });
    (record, Granted { until: uptime + length - margin, renew_at: uptime + length / 2 })
}

/// Returns the promises that a clock dated while it was behind, with corrected dates, which are at
/// most now. An export ends on its written date, whatever the clock was.
pub(super) fn redated(book: &Book, behind: Behind, now: Seconds) -> Vec<Record> {
    let late = |promise: &Promise| {
        let dated = matches!(promise.channel, PromiseChannel::Header(Mode::Enforce) | PromiseChannel::Assumed);
        let concerns = dated && promise.last_sent > behind.since;
        let last_sent = promise.last_sent.saturating_add(behind.seconds).min(now.saturating_add(1));
        (concerns && last_sent > promise.last_sent).then(|| Record::Promise(Promise { last_sent, ..promise.clone() }))
    };
    book.promises().iter().filter_map(late).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::keys::pin::Pin;

    fn pledge(key: u8, max_age: u64) -> Pledge {
        let promise = Promise {
            site: "a.example".into(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            except: Vec::new(),
            pins: vec![Pin::of_spki(&[key])],
            max_age,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: 0,
            last_sent: 0,
        };
        Pledge { promise, lease: Arc::default() }
    }

    #[test]
    fn workers_stop_before_the_end_of_what_is_written_down() {
        for max_age in [10, 100, 36_000, 86400 * 365, 0] {
            let (record, granted) = lease(&pledge(1, max_age).promise, 1000, 50_000);
            let Record::Promise(promise) = record else { panic!("{record:?}") };
            assert_eq!((promise.first_sent, promise.last_sent), (1000, 1000 + lease::ahead(max_age)), "{max_age}");
            let end = 50_000 + 1000 * lease::length(max_age);
            assert!(granted.until <= end - MARGIN_MIN && granted.renew_at < granted.until, "{max_age}");
        }
    }

    #[test]
    fn leases_of_before_are_revoked_as_well() {
        let (old, new) = (pledge(1, 1000), pledge(2, 1000));
        let mut leases = Leases::default();
        leases.hold(std::slice::from_ref(&old));
        let renewal = leases.due(5000, 0).unwrap();
        leases.granted(&renewal);
        leases.hold(std::slice::from_ref(&new));
        assert!(old.lease.holds(1000), "a request from before may still use it");
        leases.revoke();
        assert!(!old.lease.holds(1000));
        // One that is held again, after all, is granted as usual.
        leases.hold(std::slice::from_ref(&old));
        let renewal = leases.due(5001, 1000).unwrap();
        leases.granted(&renewal);
        leases.hold(std::slice::from_ref(&old));
        assert!(old.lease.holds(2000));
    }

    #[test]
    fn only_what_is_due_is_renewed() {
        let (one, two) = (pledge(1, 1000), pledge(2, 1000));
        let mut leases = Leases::default();
        leases.hold(std::slice::from_ref(&one));
        let renewal = leases.due(1000, 7).unwrap();
        assert!(!one.lease.holds(7));
        leases.granted(&renewal);
        assert!(one.lease.holds(7));
        assert!(leases.due(1000, 8).is_none());
        leases.hold(&[one, two]);
        assert_eq!(leases.due(1000, 8).unwrap().records.len(), 1);
        assert_eq!(leases.due(1000, 50_007).unwrap().records.len(), 2);
    }

    /// The clock is set while a renewal is written: the renewal grants nothing, and the correction stays.
    #[test]
    fn a_clock_that_is_set_during_a_write() {
        let one = pledge(1, 1000);
        let (mut leases, mut book) = (Leases::default(), Book::default());
        leases.hold(std::slice::from_ref(&one));
        let renewal = leases.due(5000, 0).unwrap();
        renewal.records.iter().for_each(|record| _ = book.apply(record.clone()));
        let mended = leases.was_behind(Behind { seconds: 300, since: 4990 }, &book, 5300);
        leases.granted(&renewal);
        assert!(!one.lease.holds(1000), "the previous clock has dated it");
        assert!(mended.len() == 1 && leases.mended() == mended && !leases.is_idle());
        let mut renewal = leases.due(5300, 1000).unwrap();
        assert_eq!(renewal.records.len(), 2);
        let at_once = renewal.part(|_| false);
        leases.granted(&at_once);
        assert!(leases.mended().is_empty() && !one.lease.holds(1000));
        leases.granted(&renewal);
        assert!(one.lease.holds(1000));
    }

    /// Clients hold pins that were sent before the clock was set forward for longer than recorded,
    /// including those of a replaced set. A failing disk does not lose the correction.
    #[test]
    fn a_clock_that_was_behind() {
        let (old, new) = (pledge(1, 1000), pledge(2, 1000));
        let mut book = Book::default();
        let mut leases = Leases::default();
        for (pledge, now) in [(&old, 5000), (&new, 5200)] {
            leases.hold(std::slice::from_ref(pledge));
            let renewal = leases.due(now, 0).unwrap();
            for record in renewal.records.clone() {
                book.apply(record);
            }
            leases.granted(&renewal);
        }
        assert!(leases.due(5201, 1000).is_none() && new.lease.holds(1000));
        // In two steps, with a failing disk: neither is lost.
        for (seconds, now) in [(300, 5501), (100, 5601)] {
            for record in leases.was_behind(Behind { seconds, since: 4990 }, &book, now) {
                book.apply(record);
            }
            assert!(!new.lease.holds(1000));
        }
        assert_eq!(book.find(&old.promise).unwrap().last_sent, 5191 + 400);
        // A machine that slept has sent nothing since it woke up, nor during its sleep.
        let slept = Leases::default().was_behind(Behind { seconds: 90_200, since: 4990 }, &book, 95_601);
        assert!(slept.iter().all(|r| matches!(r, Record::Promise(p) if p.last_sent == 95_602)) && slept.len() == 2);
        let renewal = leases.due(5601, 1500).unwrap();
        let last_sent = |of: &Pledge| {
            let of_set = |r: &&Record| matches!(r, Record::Promise(p) if p.pins == of.promise.pins);
            let times = renewal.records.iter().filter(of_set);
            times.filter_map(|r| if let Record::Promise(p) = r { Some(p.last_sent) } else { None }).max()
        };
        assert_eq!((last_sent(&old), last_sent(&new)), (Some(5191 + 400), Some(5601 + 191)));
        leases.granted(&renewal);
        assert!(leases.due(5602, 2000).is_none() && new.lease.holds(2000));
    }
}
