//! The retry budget. Retries help when few requests fail. When many fail, retries keep the upstream
//! down.

use std::cell::Cell;

/// The price of a retry in fifths. Each request earns one fifth, so that one request in five may be
/// retried.
const COST: u32 = 5;
/// The most that may be saved, in fifths: enough for a hundred retries.
const SAVED_MAX: u32 = 100 * COST;
/// Free retries in one tick (half a second), for sites with few requests and no savings.
const FREE_PER_TICK: u32 = 5;

/// The most retries of one request.
pub(in crate::upstream) const RETRIES_MAX: u32 = 2;

/// The retry budget of one worker for one upstream: a fifth of its requests, and a few free ones.
#[derive(Debug, Default)]
pub(in crate::upstream) struct RetryBudget {
    saved: Cell<u32>,
    tick: Cell<u32>,
    free_taken: Cell<u32>,
}

impl RetryBudget {
    /// Counts a request that is sent for the first time.
    pub(in crate::upstream) fn earn(&self) {
        self.saved.set((self.saved.get() + 1).min(SAVED_MAX));
    }

    /// Spends one retry at this tick. Returns `false` if the budget has none left.
    pub(super) fn spend(&self, tick: u32) -> bool {
        if self.tick.replace(tick) != tick {
            self.free_taken.set(0);
        }
        if self.free_taken.get() < FREE_PER_TICK {
            self.free_taken.set(self.free_taken.get() + 1);
            return true;
        }
        let left = self.saved.get().checked_sub(COST);
        self.saved.set(left.unwrap_or_else(|| self.saved.get()));
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fifth_and_a_few() {
        let budget = RetryBudget::default();
        let spend = |tick: u32, tries: u32| (0..tries).map(|_| u32::from(budget.spend(tick))).sum::<u32>();
        assert_eq!(spend(1, 100), FREE_PER_TICK);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spend(1, 100), 20);
        assert_eq!(spend(2, 100), FREE_PER_TICK);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!(spend(2, 1000), 100, "savings have a limit");
    }

    proptest! {
        /// In any order, retries stay within a fifth of the requests and the free ones of each
        /// tick.
        #[test]
        fn bounded(steps in prop::collection::vec((0u32..20, 0u32..30), 1..50)) {
            let budget = RetryBudget::default();
            let (mut requests, mut retries) = (0, 0);
            for (tick, (sent, tried)) in (1..).zip(&steps) {
                (0..*sent).for_each(|_| budget.earn());
                requests += sent;
                retries += (0..*tried).map(|_| u32::from(budget.spend(tick))).sum::<u32>();
                prop_assert!(retries <= requests / COST + FREE_PER_TICK * tick);
            }
        }
    }
}
