//! The counts of clients behind limits of requests: one table of fixed size for all workers, in parts with a lock each. A part
//! is locked for one look-up, and never while a task waits.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::policy::rate::RequestRate;

/// Parts with a lock of their own, at most.
const PARTS: usize = 256;
/// Clients that share a hash: a newcomer takes the place of one of them.
const WAYS: usize = 8;

/// A client under a rule, by its hash. Two clients share one by chance once in 2⁶⁴ pairs, and nobody can choose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientKey(u64);

/// The count of one client.
#[derive(Debug, Clone, Copy, Default)]
struct ClientCount {
    /// Zero if the place is free.
    key: u64,
    /// The time at which its burst is whole again, in nanoseconds.
    due: u64,
    /// The largest distance of `due`: that of a client that has spent its burst.
    tolerance: u64,
    running: u32,
    /// A request of it was refused since its burst was whole.
    refused: bool,
}

/// An admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdmittedRequest {
    /// The time at which the client's burst is whole again.
    pub(super) due: u64,
    /// `true` if the request counts as under way, and is to be released.
    pub(super) counted: bool,
    /// `true` if the table had no free place: another client's count is forgotten, or this client's is not kept.
    pub(super) was_full: bool,
}

/// The reason to refuse a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The burst is spent for so many nanoseconds.
    Requests(u64),
    /// As many requests are under way as may be.
    Concurrent,
}

type ClientSet = [ClientCount; WAYS];

/// The counts of all clients.
pub struct RateCounts {
    start: Instant,
    hasher: RandomState,
    /// The limit that it was made for.
    clients: usize,
    parts: Box<[Mutex<Box<[ClientSet]>>]>,
}

impl RateCounts {
    /// Returns a table for this number of clients, rounded up.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let sets = clients.div_ceil(WAYS).max(1).next_power_of_two();
        let parts = PARTS.min(sets);
        let part = || Mutex::new(vec![ClientSet::default(); sets / parts].into_boxed_slice());
        Self { start: Instant::now(), hasher: RandomState::new(), clients, parts: (0..parts).map(|_| part()).collect() }
    }

    /// Returns the number of clients that it was made for.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Returns the time of the table at an instant.
    pub(super) fn time(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the key of a client under the rule with this mark.
    pub(super) fn key(&self, mark: u64, client: impl Hash) -> ClientKey {
        ClientKey(self.hasher.hash_one((mark, client)).max(1))
    }

    /// Counts a request. `concurrent` is the number of requests that may be under way.
    pub(super) fn admit(
        &self,
        key: ClientKey,
        rate: Option<RequestRate>,
        concurrent: Option<u32>,
        now: u64,
    ) -> Result<AdmittedRequest, Exceeded> {
        let (mut part, at) = self.part(key);
        let set = &mut part[at];
        let (place, was_full) = match find(set, key) {
            Some(place) => (place, false),
            None => match victim(set, now) {
                Some((place, was_full)) => {
                    set[place] = ClientCount { key: key.0, ..ClientCount::default() };
                    (place, was_full)
                }
                // All have requests under way, whose counts are needed.
                None => return Ok(AdmittedRequest { due: now, counted: false, was_full: true }),
            },
        };
        let count = &mut set[place];
        if concurrent.is_some_and(|most| count.running >= most) {
            return Err(Exceeded::Concurrent);
        }
        if let Some(rate) = rate {
            count.refused &= count.due > now;
            match rate.admit(count.due, now) {
                Ok(due) => (count.due, count.tolerance) = (due, rate.tolerance()),
                Err(wait) => {
                    count.refused = true;
                    return Err(Exceeded::Requests(wait));
                }
            }
        }
        let counted = concurrent.is_some();
        count.running += u32::from(counted);
        Ok(AdmittedRequest { due: count.due, counted, was_full })
    }

    /// Takes back a request that another rule refuses.
    pub(super) fn take_back(&self, key: ClientKey, rate: Option<RequestRate>, counted: bool) {
        let (mut part, at) = self.part(key);
        if let Some(place) = find(&part[at], key) {
            let count = &mut part[at][place];
            count.due = rate.map_or(count.due, |rate| rate.undo(count.due));
            count.running = count.running.saturating_sub(counted.into());
        }
    }

    /// Notes that a counted request is over. Its client has a place: nobody takes that of one with requests under way.
    pub(super) fn release(&self, key: ClientKey) {
        self.take_back(key, None, true);
    }

    fn part(&self, key: ClientKey) -> (MutexGuard<'_, Box<[ClientSet]>>, usize) {
        let parts = self.parts.len() as u64;
        let part = usize::try_from(key.0 % parts).expect("a remainder of the number of parts is below it");
        let part = self.parts[part].lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(key.0 / parts % part.len() as u64).expect("a remainder of the length is below it");
        (part, at)
    }
}

fn find(set: &ClientSet, key: ClientKey) -> Option<usize> {
    set.iter().position(|count| count.key == key.0)
}

/// Returns the place for a newcomer, and `true` if a count is lost there. A client whose burst is whole loses nothing. Then
/// comes the one that has spent the smallest part of its burst, and only then one that is being refused. Returns `None` if
/// every client has requests under way.
fn victim(set: &ClientSet, now: u64) -> Option<(usize, bool)> {
    let spent =
        |count: &ClientCount| u128::from(count.due.saturating_sub(now)) * 1024 / u128::from(count.tolerance.max(1));
    let rank = |count: &ClientCount| (count.due > now, count.refused && count.due > now, spent(count), count.due);
    let idle = set.iter().enumerate().filter(|(_, count)| count.running == 0);
    let (place, count) = idle.min_by_key(|(_, count)| rank(count))?;
    Some((place, count.due > now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u64, burst: u64) -> RequestRate {
        RequestRate::new(count, Duration::from_secs(1), burst).unwrap()
    }

    #[test]
    fn each_client_of_each_rule_has_its_own_count() {
        let counts = RateCounts::new(64);
        let admit =
            |mark: u64, client: &str| counts.admit(counts.key(mark, client), Some(rate(1, 2)), None, SECOND).is_ok();
        assert_eq!([admit(1, "a"), admit(1, "a"), admit(1, "a")], [true, true, false]);
        assert!(admit(1, "b") && admit(2, "a"));
        counts.take_back(counts.key(1, "a"), Some(rate(1, 2)), false);
        assert!(admit(1, "a") && !admit(1, "a"));
    }

    #[test]
    fn requests_under_way() {
        let counts = RateCounts::new(1);
        let key = counts.key(1, "a");
        let admit = |key| counts.admit(key, None, Some(2), 0);
        assert!(admit(key).unwrap().counted && admit(key).unwrap().counted);
        assert_eq!(admit(key), Err(Exceeded::Concurrent));
        counts.release(key);
        assert!(admit(key).is_ok());
        // One set: the place of a client with requests under way is never taken.
        for n in 0..7 {
            assert!(admit(counts.key(2, n)).unwrap().counted, "{n}");
        }
        let last = admit(counts.key(2, 7)).unwrap();
        assert!(!last.counted && last.was_full);
        assert_eq!(admit(key), Err(Exceeded::Concurrent));
    }

    /// Whoever is refused stays refused while a million addresses pass; nothing grows; newcomers are served.
    #[test]
    fn a_scan_changes_nothing_for_those_that_are_limited() {
        let (counts, rate) = (RateCounts::new(1024), rate(10, 100));
        let heavy: Vec<_> = (0..32).map(|n| counts.key(1, ("heavy", n))).collect();
        for key in &heavy {
            (0..100).for_each(|_| assert!(counts.admit(*key, Some(rate), None, 0).is_ok()));
            assert!(counts.admit(*key, Some(rate), None, 0).is_err());
        }
        let (mut now, mut full) = (0, 0);
        for n in 0..1_000_000_u32 {
            now += SECOND / 1_000_000;
            full += u32::from(counts.admit(counts.key(1, ("scanner", n)), Some(rate), None, now).unwrap().was_full);
        }
        assert!(full > 0, "the scan fills the table");
        // A second has passed: ten requests, and no fresh burst.
        for key in &heavy {
            let admitted = (0..100).filter(|_| counts.admit(*key, Some(rate), None, now).is_ok()).count();
            assert_eq!(admitted, 10);
        }
    }

    #[test]
    fn whoever_loses_a_place_has_spent_the_smallest_part() {
        let count = |key: u64, due: u64, tolerance: u64, running: u32, refused: bool| ClientCount {
            key,
            due: due * SECOND,
            tolerance: tolerance * SECOND,
            running,
            refused,
        };
        let set_of = |others: [ClientCount; 3]| {
            let mut set = [count(9, 100, 10, 1, true); WAYS];
            set[..3].copy_from_slice(&others);
            set
        };
        let now = 10 * SECOND;
        // Whole again, half spent, refused.
        let set = set_of([count(1, 15, 10, 0, false), count(2, 10, 10, 0, true), count(3, 11, 10, 0, true)]);
        assert_eq!(victim(&set, now), Some((1, false)));
        let set = set_of([count(1, 19, 10, 0, false), count(2, 70, 60, 0, true), count(3, 11, 10, 0, true)]);
        assert_eq!(victim(&set, now), Some((0, true)));
        let set = set_of([count(1, 19, 10, 1, false), count(2, 70, 60, 0, true), count(3, 11, 10, 0, true)]);
        assert_eq!(victim(&set, now), Some((2, true)));
        assert_eq!(victim(&[count(9, 100, 10, 1, true); WAYS], now), None);
        assert_eq!(victim(&ClientSet::default(), now), Some((0, false)));
    }

    #[test]
    fn all_workers_share_the_counts() {
        let (counts, rate) = (RateCounts::new(64), rate(1, 50));
        let admitted =
            |_| (0..100).filter(|_| counts.admit(counts.key(1, "a"), Some(rate), Some(1000), 0).is_ok()).count();
        let sum: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || admitted(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 50);
    }
}
