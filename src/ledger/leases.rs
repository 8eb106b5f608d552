//! Leases: leave to send a set of pins, written down ahead of time.
//!
//! What is on disk says "may be sent until two o'clock"; until a little before that, workers may send it without asking.
//! So after a crash the disk is never behind the wire, and no request waits for a disk. No I/O here, and no clock: what
//! is to be written comes out, and that it is written goes in.

use std::collections::HashMap;
use std::sync::Arc;

use super::time::Behind;
use super::{Book, Record};
use crate::lease::{self, Lease};
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Channel, Promise, Seconds};

/// Workers stop this long before the end of what is written down, in milliseconds: their clock ticks twice a second, the
/// ledger's may be behind by as much before that is noticed, and an answer takes its time to the wire.
const MARGIN_MIN: u64 = 1500;
const MARGIN_MAX: u64 = 60_000;

/// A set of pins that is to be sent, and the leave to do so.
#[derive(Debug, Clone)]
pub struct Pledge {
    /// The set; its times are for whoever writes it down.
    pub promise: Promise,
    /// To be granted once it is written down.
    pub lease: Arc<Lease>,
}

/// All sets that may be sent now.
#[derive(Debug, Default)]
pub struct Leases {
    held: Vec<Held>,
    /// What was written down with dates that were too early, as it is to be written down now.
    mended: Vec<Record>,
}

#[derive(Debug)]
struct Held {
    pledge: Pledge,
    /// When it is to be renewed, by [`crate::clock::uptime`]; now, if it was never granted.
    renew_at: u64,
}

/// A renewal on its way to the disk.
#[derive(Debug)]
pub struct Renewal {
    /// What is to be written down.
    pub records: Vec<Record>,
    granted: Vec<(Arc<Lease>, Granted)>,
}

#[derive(Debug, Clone, Copy)]
struct Granted {
    until: u64,
    renew_at: u64,
}

impl Leases {
    /// Holds these, and no others; those that go on keep what they have.
    pub fn hold(&mut self, pledges: &[Pledge]) {
        let before = std::mem::take(&mut self.held);
        let known: HashMap<*const Lease, u64> =
            before.iter().map(|h| (Arc::as_ptr(&h.pledge.lease), h.renew_at)).collect();
        let renew_at = |pledge: &Pledge| known.get(&Arc::as_ptr(&pledge.lease)).copied().unwrap_or_default();
        self.held = pledges.iter().map(|p| Held { pledge: p.clone(), renew_at: renew_at(p) }).collect();
    }

    /// The clock was behind: clients hold what they were told for longer than the book says. Gives what it is to believe
    /// at once; until that is on disk, too, nothing may be sent.
    #[must_use]
    pub fn was_behind(&mut self, behind: Behind, book: &Book, now: Seconds) -> Vec<Record> {
        self.revoke();
        let mended: Vec<Record> = book.promises().iter().filter_map(|p| redated(p, behind, now)).collect();
        self.mended.extend(mended.iter().cloned());
        mended
    }

    /// Nothing may be sent until it is written down anew.
    pub fn revoke(&mut self) {
        for held in &mut self.held {
            held.pledge.lease.revoke();
            held.renew_at = 0;
        }
    }

    /// What is to be written down now, if anything.
    #[must_use]
    pub fn due(&self, now: Seconds, uptime: u64) -> Option<Renewal> {
        let mut renewal = Renewal { records: self.mended.clone(), granted: Vec::new() };
        for held in self.held.iter().filter(|h| h.renew_at <= uptime) {
            let (record, granted) = lease(&held.pledge.promise, now, uptime);
            renewal.records.push(record);
            renewal.granted.push((held.pledge.lease.clone(), granted));
        }
        (!renewal.records.is_empty()).then_some(renewal)
    }

    /// After it was written down: lets the workers send it.
    pub fn granted(&mut self, renewal: &Renewal) {
        self.mended.clear();
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

/// What to write down for a set, and until when workers may then send it.
fn lease(promise: &Promise, now: Seconds, uptime: u64) -> (Record, Granted) {
    let length = lease::length(promise.max_age) * 1000;
    let margin = (length / 4).clamp(MARGIN_MIN, MARGIN_MAX);
    let last_sent = now.saturating_add(lease::ahead(promise.max_age));
    let record = Record::Promise(Promise { first_sent: now, last_sent, ..promise.clone() });
    (record, Granted { until: uptime + length - margin, renew_at: uptime + length / 2 })
}

/// The same promise, dated by the time as it was; none if it was not dated by a clock that was behind. It was not sent
/// later than now. An export ends on the date that stands in it, whatever the time was.
fn redated(promise: &Promise, behind: Behind, now: Seconds) -> Option<Record> {
    let concerns = promise.channel == Channel::Header(Mode::Enforce) && promise.last_sent > behind.since;
    let last_sent = promise.last_sent.saturating_add(behind.seconds).min(now.saturating_add(1));
    (concerns && last_sent > promise.last_sent).then(|| Record::Promise(Promise { last_sent, ..promise.clone() }))
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
            channel: Channel::Header(Mode::Enforce),
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

    /// What was sent before the clock was set forward is held for longer than was written down, the set that is not
    /// sent any more, too. A disk that fails does not make that forgotten.
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
        // Little by little, and the disk fails: it was forgotten neither time.
        for (seconds, now) in [(300, 5501), (100, 5601)] {
            for record in leases.was_behind(Behind { seconds, since: 4990 }, &book, now) {
                book.apply(record);
            }
            assert!(!new.lease.holds(1000));
        }
        assert_eq!(book.find(&old.promise).unwrap().last_sent, 5191 + 400);
        // A machine that slept has sent nothing since it woke up, and nothing in its sleep that it does not know of.
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
