//! The addresses of an upstream that are left out: those that failed several times in a row, and
//! those whose health check fails. All workers and the control thread write the table, without a
//! lock.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The failures in a row after which an address is left out.
const FAILURES: u32 = 3;
/// The time that an address is left out at first. It doubles each time the address comes back and
/// fails at once.
const OUT_FIRST: u64 = 5_000;
/// The longest time that an address is left out. Milliseconds, both.
const OUT_MAX: u64 = 120_000;
/// The number of addresses in the table: as many as one name may have.
const ADDRESSES: usize = 32;

/// The state of an upstream's addresses. Made when the first one fails.
#[derive(Debug, Default)]
pub(super) struct Table([EjectionEntry; ADDRESSES]);

#[derive(Debug, Default)]
struct EjectionEntry {
    /// The hash of the address; zero for a free entry.
    key: AtomicU64,
    failures: AtomicU32,
    /// The number of times in a row that it was left out.
    times: AtomicU32,
    /// The time until which it is left out, by [`crate::clock::uptime`].
    until: AtomicU64,
    /// The health check fails.
    unfit: AtomicBool,
}

impl Table {
    /// Counts a failure. Returns the time that the address is left out, if it is from now on.
    pub(super) fn failed(&self, address: SocketAddr, now: u64) -> Option<Duration> {
        let entry = self.claim(address);
        if entry.until.load(Ordering::Relaxed) > now || entry.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return None;
        }
        // After its return, one failure is enough.
        entry.failures.store(FAILURES - 1, Ordering::Relaxed);
        let times = entry.times.fetch_add(1, Ordering::Relaxed).min(16);
        let out = (OUT_FIRST << times).min(OUT_MAX);
        entry.until.store(now + out, Ordering::Relaxed);
        Some(Duration::from_millis(out))
    }

    /// Notes an answer. Returns `true` if the address had been left out.
    pub(super) fn answered(&self, address: SocketAddr, now: u64) -> bool {
        let Some(entry) = self.find(address) else { return false };
        // An old connection shows nothing about new ones.
        if entry.until.load(Ordering::Relaxed) > now {
            return false;
        }
        entry.failures.store(0, Ordering::Relaxed);
        entry.times.swap(0, Ordering::Relaxed) > 0
    }

    /// Notes the verdict of a health check. Returns `true` if it has changed.
    pub(super) fn checked(&self, address: SocketAddr, fit: bool) -> bool {
        if fit && self.find(address).is_none() {
            return false;
        }
        self.claim(address).unfit.swap(!fit, Ordering::Relaxed) == fit
    }

    /// Returns whether the health check fails, and the time left out. `(false, ZERO)` if the
    /// address may be used.
    pub(super) fn badness(&self, address: SocketAddr, now: u64) -> (bool, Duration) {
        let Some(entry) = self.find(address) else { return (false, Duration::ZERO) };
        let out = entry.until.load(Ordering::Relaxed).saturating_sub(now);
        (entry.unfit.load(Ordering::Relaxed), Duration::from_millis(out))
    }

    /// Removes the addresses that are left out. If all are, sorts them instead, the least bad
    /// first.
    pub(super) fn sort(&self, addresses: &mut Vec<SocketAddr>, now: u64) {
        let is_in = |address: &SocketAddr| self.badness(*address, now) == (false, Duration::ZERO);
        if addresses.iter().any(is_in) {
            addresses.retain(is_in);
        } else {
            addresses.sort_by_key(|address| self.badness(*address, now));
        }
    }

    fn find(&self, address: SocketAddr) -> Option<&EjectionEntry> {
        let key = key(address);
        self.from(key).find(|entry| entry.key.load(Ordering::Relaxed) == key)
    }

    /// Returns the entry of an address, or a free one. If there is none, takes the entry of another
    /// address.
    fn claim(&self, address: SocketAddr) -> &EjectionEntry {
        let key = key(address);
        let taken = |entry: &&EjectionEntry| {
            let was = entry.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            was.is_ok() || was == Err(key)
        };
        self.from(key).find(taken).unwrap_or_else(|| {
            let entry = &self.0[begin(key)];
            entry.key.store(key, Ordering::Relaxed);
            entry.failures.store(0, Ordering::Relaxed);
            entry.times.store(0, Ordering::Relaxed);
            entry.until.store(0, Ordering::Relaxed);
            entry.unfit.store(false, Ordering::Relaxed);
            entry
        })
    }

    fn from(&self, key: u64) -> impl Iterator<Item = &EjectionEntry> {
        let (before, after) = self.0.split_at(begin(key));
        after.iter().chain(before)
    }
}

/// Returns the index at which the search for a key begins.
fn begin(key: u64) -> usize {
    usize::try_from(key % ADDRESSES as u64).expect("a remainder of ADDRESSES is below it")
}

fn key(address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], n))
    }

    fn sorted(table: &Table, now: u64, list: &[u16]) -> Vec<u16> {
        let mut addresses: Vec<_> = list.iter().map(|n| address(*n)).collect();
        table.sort(&mut addresses, now);
        addresses.iter().map(SocketAddr::port).collect()
    }

    #[test]
    fn out_for_longer_each_time() {
        let table = Table::default();
        let fail = |now| table.failed(address(1), now).map(|out| out.as_secs());
        assert_eq!([fail(0), fail(0), fail(0), fail(100)], [None, None, Some(5), None]);
        assert_eq!(sorted(&table, 4999, &[1, 2]), [2]);
        assert_eq!(sorted(&table, 5000, &[1, 2]), [1, 2]);
        assert_eq!([fail(5000), fail(15_000), fail(40_000)], [Some(10), Some(20), Some(40)]);
        assert_eq!([fail(100_000), fail(300_000)], [Some(80), Some(120)]);
        // An answer while it is left out came over an old connection. A later one resets all
        // counts.
        assert!(!table.answered(address(1), 300_001));
        assert!(table.answered(address(1), 500_000) && !table.answered(address(1), 500_000));
        assert_eq!([fail(500_000), fail(500_000), fail(500_000)], [None, None, Some(5)]);
    }

    #[test]
    fn never_all() {
        let table = Table::default();
        for (n, now) in [(1, 0), (2, 1000), (3, 500)] {
            for _ in 0..3 {
                table.failed(address(n), now);
            }
        }
        assert_eq!(sorted(&table, 1000, &[1, 2, 3]), [1, 3, 2], "the address that returns first comes first");
        assert_eq!(sorted(&table, 1000, &[1, 2, 3, 4]), [4]);
        assert!(table.checked(address(4), false) && !table.checked(address(4), false));
        assert_eq!(sorted(&table, 1000, &[4, 2, 3]), [3, 2, 4]);
        assert!(table.checked(address(4), true));
        assert_eq!(sorted(&table, 1000, &[4, 2, 3]), [4]);
        assert!(!table.checked(address(9), true), "no failure was known, and the check is good");
    }

    #[test]
    fn more_addresses_than_room() {
        let table = Table::default();
        for n in 0..1000 {
            for _ in 0..3 {
                table.failed(address(n), 0);
            }
            assert_eq!(sorted(&table, 0, &[n, 2000]), [2000]);
        }
    }
}
