//! The counts of clients behind limits of requests: one table of fixed size for all workers, in parts with a lock each. A part
//! is locked for one look-up, and never while a task waits.

use std::cmp::Reverse;
use std::hash::{BuildHasher as _, DefaultHasher, Hash, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::handover::{HandedCount, HandedCounts};
use crate::policy::rate::RequestRate;

/// Parts with a lock of their own, at most.
const PARTS: usize = 256;
/// Clients that share a hash: a newcomer takes the place of one of them.
const WAYS: usize = 8;
/// The most clients whose counts go to the next process.
const HANDED_MAX: usize = 16_384;

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
    /// The beginning of all that is hashed: nobody who does not know it can choose a hash. An upgrade hands it over.
    secret: [AtomicU64; 2],
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
        let secret = [1, 2].map(|n: u64| RandomState::new().hash_one(n).into());
        Self { start: Instant::now(), secret, clients, parts: (0..parts).map(|_| part()).collect() }
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
        let mut hasher = DefaultHasher::new();
        (self.secret(), mark, client).hash(&mut hasher);
        ClientKey(hasher.finish().max(1))
    }

    fn secret(&self) -> [u64; 2] {
        let [one, other] = &self.secret;
        [one.load(Ordering::Relaxed), other.load(Ordering::Relaxed)]
    }

    /// Returns the counts for the process that takes over: of the clients that have spent the largest part of their bursts.
    #[must_use]
    pub fn hand_over(&self) -> HandedCounts {
        let now = self.time(Instant::now());
        let mut indebted: Vec<ClientCount> = Vec::new();
        let cut = |indebted: &mut Vec<ClientCount>| {
            indebted.sort_unstable_by_key(|count| Reverse(rank(count, now)));
            indebted.truncate(HANDED_MAX);
        };
        for part in self.parts.iter() {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            indebted.extend(part.iter().flatten().filter(|count| count.due > now));
            drop(part);
            if indebted.len() > 2 * HANDED_MAX {
                cut(&mut indebted);
            }
        }
        cut(&mut indebted);
        let handed = |count: ClientCount| HandedCount {
            key: count.key,
            left: count.due - now,
            tolerance: count.tolerance,
            refused: count.refused,
        };
        HandedCounts { secret: self.secret(), clients: indebted.into_iter().map(handed).collect() }
    }

    /// Takes over the counts of the process before. No client has been counted yet.
    pub fn take_over(&self, handed: &HandedCounts) {
        let now = self.time(Instant::now());
        for (own, secret) in self.secret.iter().zip(handed.secret) {
            own.store(secret, Ordering::Relaxed);
        }
        for client in &handed.clients {
            let key = ClientKey(client.key.max(1));
            let (mut part, at) = self.part(key);
            let set = &mut part[at];
            let free = || victim(set, now).filter(|(_, is_lost)| !is_lost).map(|(place, _)| place);
            if let Some(place) = find(set, key).or_else(free) {
                let due = now.saturating_add(client.left.min(client.tolerance));
                let (tolerance, refused) = (client.tolerance, client.refused);
                let running = set[place].running;
                set[place] = ClientCount { key: key.0, due, tolerance, running, refused };
            }
        }
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
    let idle = set.iter().enumerate().filter(|(_, count)| count.running == 0);
    let (place, count) = idle.min_by_key(|(_, count)| rank(count, now))?;
    Some((place, count.due > now))
}

/// Returns the worth of a count: that of a client whose burst is whole is the least.
fn rank(count: &ClientCount, now: u64) -> (bool, bool, u128, u64) {
    let spent = u128::from(count.due.saturating_sub(now)) * 1024 / u128::from(count.tolerance.max(1));
    (count.due > now, count.refused && count.due > now, spent, count.due)
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

    #[tokio::test(start_paused = true)]
    async fn another_process_goes_on_with_the_counts() {
        let (counts, rate) = (RateCounts::new(64), rate(1, 10));
        let now = |counts: &RateCounts| counts.time(Instant::now());
        tokio::time::advance(Duration::from_secs(100)).await;
        let admit = |counts: &RateCounts, client: &str| {
            counts.admit(counts.key(1, client), Some(rate), None, now(counts)).is_ok()
        };
        assert_eq!((0..12).filter(|_| admit(&counts, "spent")).count(), 10);
        assert!((0..4).all(|_| admit(&counts, "some")) && admit(&counts, "whole"));
        tokio::time::advance(Duration::from_secs(1)).await;
        // As the message travels: in JSON.
        let handed = serde_json::to_string(&counts.hand_over()).unwrap();
        let handed: HandedCounts = serde_json::from_str(&handed).unwrap();
        assert_eq!((handed.clients.len(), handed.clients[0].refused), (2, true), "a whole burst is no news");
        // A table of another size, of another age.
        let next = RateCounts::new(1000);
        assert_ne!(next.key(1, "a"), counts.key(1, "a"));
        next.take_over(&handed);
        assert_eq!(next.key(1, "a"), counts.key(1, "a"));
        let admitted = ["spent", "some", "whole"].map(|client| (0..12).filter(|_| admit(&next, client)).count());
        assert_eq!(admitted, [1, 7, 10]);
    }

    /// The clients that have spent the most go over, and a small table takes what it has room for.
    #[test]
    fn only_so_many_counts_are_handed_over() {
        let hour = Duration::from_secs(3600);
        let (counts, rate) = (RateCounts::new(4 * HANDED_MAX), RequestRate::new(1, hour, 1000).unwrap());
        let now = counts.time(Instant::now());
        for n in 0..2 * HANDED_MAX {
            for _ in 0..1 + n % 2 {
                assert!(counts.admit(counts.key(1, n), Some(rate), None, now).is_ok());
            }
        }
        let handed = counts.hand_over();
        assert!(handed.clients.len() <= HANDED_MAX, "{}", handed.clients.len());
        let many = handed.clients.iter().filter(|client| client.left > 3600 * SECOND).count();
        assert!(many * 10 > handed.clients.len() * 9, "{many} of {}", handed.clients.len());
        let small = RateCounts::new(8);
        small.take_over(&handed);
        assert_eq!(small.hand_over().clients.len(), 8);
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
