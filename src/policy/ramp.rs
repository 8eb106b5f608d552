//! A max-age that rises step by step while there is no fault, so that clients hold an early mistake
//! for minutes instead of a month.

use super::promise::Seconds;

/// The steps of a max-age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// The max-age of each step, in seconds, rising; the last one is the goal. Never empty.
    ages: Vec<u64>,
    /// The least duration of each step except the last one, in seconds.
    every: u64,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextRampStep {
    /// Its number, from 0.
    pub step: usize,
    /// Its max-age in seconds.
    pub max_age: u64,
    /// The time from which it may be taken.
    pub at: Seconds,
}

impl Steps {
    /// Creates steps to a goal. The goal is appended if it is not among them.
    #[must_use]
    pub fn new(mut ages: Vec<u64>, every: u64, goal: Option<u64>) -> Self {
        match (ages.last(), goal) {
            (Some(last), Some(goal)) if goal > *last => ages.push(goal),
            (None, goal) => ages.push(goal.unwrap_or_default()),
            _ => {}
        }
        Self { ages, every }
    }

    /// The number of steps.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ages.len()
    }

    /// The max-age of the last step.
    #[must_use]
    pub fn goal(&self) -> u64 {
        self.ages.last().copied().unwrap_or_default()
    }

    /// The max-age of a step; beyond the last step, the goal.
    #[must_use]
    pub fn max_age(&self, step: usize) -> u64 {
        self.ages.get(step).or_else(|| self.ages.last()).copied().unwrap_or_default()
    }

    /// The step after a step that has been free of faults since that time; `None` after the last
    /// one.
    #[must_use]
    pub fn next(&self, step: usize, since: Seconds) -> Option<NextRampStep> {
        let max_age = *self.ages.get(step.checked_add(1)?)?;
        let every = i64::try_from(self.every).unwrap_or(i64::MAX);
        Some(NextRampStep { step: step + 1, max_age, at: since.saturating_add(every) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_to_the_goal() {
        let steps = Steps::new(vec![300, 3600], 10, Some(86400));
        assert_eq!(steps.count(), 3);
        assert_eq!((steps.max_age(0), steps.max_age(2), steps.max_age(9)), (300, 86400, 86400));
        assert_eq!(steps.next(0, 100), Some(NextRampStep { step: 1, max_age: 3600, at: 110 }));
        assert_eq!(steps.next(1, 100), Some(NextRampStep { step: 2, max_age: 86400, at: 110 }));
        assert_eq!(steps.next(2, 100), None);
        assert_eq!(steps.next(usize::MAX, 100), None);
    }

    #[test]
    fn the_last_step_may_be_the_goal() {
        assert_eq!(Steps::new(vec![300, 3600], 10, Some(3600)).count(), 2);
        assert_eq!(Steps::new(vec![300, 3600], 10, None).count(), 2);
        assert_eq!(Steps::new(vec![], 10, Some(5)).max_age(0), 5);
    }
}
