//! How many requests may be sent a second time. Retries help when few requests fail; when many do, they are what keeps
//! an upstream down.

use std::cell::Cell;

/// Retries are counted in fifths: each request earns one, so that one request in five may be repeated.
const COST: u32 = 5;
/// What may be saved up, in fifths: a burst of a hundred retries.
const SAVED_MAX: u32 = 100 * COST;
/// Retries in one tick (half a second) that need no savings: a quiet site has none.
const FREE_PER_TICK: u32 = 5;

/// How often one request is sent anew.
pub(in crate::upstream) const RETRIES_MAX: u32 = 2;

/// The retries of one worker to one upstream: a fifth of the requests, and a few more.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Budget {
    saved: Cell<u32>,
    tick: Cell<u32>,
    free_taken: Cell<u32>,
}

impl Budget {
    /// A request is sent for the first time.
    pub(in crate::upstream) fn earn(&self) {
        self.saved.set((self.saved.get() + 1).min(SAVED_MAX));
    }

    /// Whether a request may be sent once more, at this tick of the clock.
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
        let budget = Budget::default();
        let spend = |tick: u32, tries: u32| (0..tries).map(|_| u32::from(budget.spend(tick))).sum::<u32>();
        assert_eq!(spend(1, 100), FREE_PER_TICK);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spend(1, 100), 20);
        assert_eq!(spend(2, 100), FREE_PER_TICK);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!(spend(2, 1000), 100, "savings have an end");
    }

    proptest! {
        /// Whatever comes in which order: never more than a fifth of the requests, and the free ones of each tick.
        #[test]
        fn bounded(steps in prop::collection::vec((0u32..20, 0u32..30), 1..50)) {
            let budget = Budget::default();
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
