//! Changes of stored pages for the next process: after an upgrade, this one still answers its last
//! requests, and the next one has stored the same pages.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::handover::HandedChange;

/// The largest number of pending changes, and of the bytes of their keys. Beyond that, one change of
/// all pages replaces them.
const WAITING_MAX: usize = 1024;
const BYTES_MAX: usize = 256 << 10;

/// The pending changes. Nothing is noted until [`Self::begin`].
#[derive(Debug, Default)]
pub struct HandedChanges {
    waiting: Mutex<Option<Vec<HandedChange>>>,
}

impl HandedChanges {
    fn waiting(&self) -> MutexGuard<'_, Option<Vec<HandedChange>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to note changes: another process is about to store pages.
    pub fn begin(&self) {
        *self.waiting() = Some(Vec::new());
    }

    /// Notes no more: that process has failed.
    pub fn end(&self) {
        *self.waiting() = None;
    }

    /// Notes a change.
    pub(super) fn note(&self, change: impl FnOnce() -> HandedChange) {
        let mut waiting = self.waiting();
        let Some(waiting) = &mut *waiting else { return };
        let change = change();
        if waiting.contains(&change) || waiting.first() == Some(&HandedChange::All) {
            return;
        }
        let bytes = waiting.iter().map(HandedChange::size).sum::<usize>() + change.size();
        if change == HandedChange::All || waiting.len() >= WAITING_MAX || bytes > BYTES_MAX {
            *waiting = vec![HandedChange::All];
        } else {
            waiting.push(change);
        }
    }

    /// Takes the changes since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<HandedChange> {
        self.waiting().as_mut().map(mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(key: &str) -> HandedChange {
        HandedChange::Page(key.as_bytes().to_vec())
    }

    #[test]
    fn changes_wait_until_they_are_taken() {
        let changes = HandedChanges::default();
        changes.note(|| page("early"));
        assert!(changes.take().is_empty(), "nobody listens");
        changes.begin();
        for key in ["a", "b", "a"] {
            changes.note(|| page(key));
        }
        assert_eq!((changes.take(), changes.take()), (vec![page("a"), page("b")], vec![]));
        // Too many, in number or in bytes, and everything.
        (0..=WAITING_MAX).for_each(|n| changes.note(|| page(&n.to_string())));
        changes.note(|| page("more"));
        assert_eq!(changes.take(), [HandedChange::All]);
        (0..3).for_each(|n| changes.note(|| page(&n.to_string().repeat(BYTES_MAX / 2))));
        assert_eq!(changes.take(), [HandedChange::All]);
        changes.note(|| page("a"));
        changes.note(|| HandedChange::All);
        assert_eq!(changes.take(), [HandedChange::All]);
        changes.end();
        changes.note(|| page("late"));
        assert!(changes.take().is_empty());
    }
}
