//! The parts of a cache in answers, and how often it had each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The places of the counts: workers beyond share them.
const COUNTERS: usize = 32;

/// The ways in which a cache takes part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePart {
    /// The stored response was sent.
    Hit,
    /// A stale stored response was sent.
    Stale,
    /// The origin confirmed the stored response.
    Validated,
    /// The response that another request had asked for was sent.
    Collapsed,
    /// The origin's response was sent.
    Miss,
    /// The request or its answer had nothing to do with the store.
    Bypass,
}

impl CachePart {
    /// All, in the order of the counts.
    pub const ALL: [Self; 6] = [Self::Hit, Self::Stale, Self::Validated, Self::Collapsed, Self::Miss, Self::Bypass];

    /// Its name in records, metrics and `pintle cache`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Validated => "validated",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

/// Counts of one worker, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfWorker([AtomicU64; CachePart::ALL.len()]);

/// The counts of all workers.
#[derive(Debug, Default)]
pub struct PartCounts([OfWorker; COUNTERS]);

impl PartCounts {
    /// Counts an answer of a worker.
    pub fn count(&self, worker: usize, part: CachePart) {
        let at = CachePart::ALL.iter().position(|one| *one == part).unwrap_or_default();
        if let Some(count) = self.0.get(worker % COUNTERS).and_then(|counts| counts.0.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts of all workers, in the order of [`CachePart::ALL`].
    #[must_use]
    pub fn sums(&self) -> [u64; CachePart::ALL.len()] {
        let mut sums = [0; CachePart::ALL.len()];
        for counts in &self.0 {
            for (sum, count) in sums.iter_mut().zip(&counts.0) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sums
    }
}

/// The reasons for answers that were not from the store, and how often each was one. The words are few.
#[derive(Debug, Default)]
pub struct ReasonCounts(Mutex<BTreeMap<&'static str, u64>>);

impl ReasonCounts {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a reason.
    pub fn count(&self, reason: &'static str) {
        *self.counts().entry(reason).or_default() += 1;
    }

    /// All reasons, with their counts.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        self.counts().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason() {
        let counts = ReasonCounts::default();
        ["cookie", "private", "cookie"].into_iter().for_each(|reason| counts.count(reason));
        assert_eq!(counts.all(), BTreeMap::from([("cookie", 2), ("private", 1)]));
    }

    #[test]
    fn counts_by_part() {
        let counts = PartCounts::default();
        for worker in [0, 1, COUNTERS] {
            counts.count(worker, CachePart::Hit);
        }
        counts.count(0, CachePart::Bypass);
        assert_eq!(counts.sums(), [3, 0, 0, 0, 0, 1]);
    }
}
