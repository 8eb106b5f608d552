//! The changes of the pages of a store: a response that was asked for before a change of its page is not stored.

use std::collections::HashMap;
use std::hash::RandomState;

use super::key::under_every_name;

/// The most keys whose last change is remembered.
pub(super) const CHANGES_MAX: usize = 1024;

/// The generations of the latest changes: one for changes of many pages and forgotten ones, and one for each other key.
#[derive(Debug, Default)]
pub(super) struct PageChanges {
    of_many: u64,
    by_key: HashMap<Box<[u8]>, u64, RandomState>,
}

impl PageChanges {
    /// Notes a change of a page. With `has_names`, it has changed under all names of its site.
    pub(super) fn note(&mut self, key: &[u8], has_names: bool, generation: u64) {
        if self.by_key.len() >= CHANGES_MAX {
            // Every response that is under way counts as asked for before a change.
            self.by_key.clear();
            self.of_many = generation;
        }
        let key: Box<[u8]> = if has_names { under_every_name(key).into() } else { key.into() };
        self.by_key.insert(key, generation);
    }

    pub(super) fn note_many(&mut self, generation: u64) {
        self.by_key.clear();
        self.of_many = generation;
    }

    /// `true` if this key was changed after `generation`.
    pub(super) fn is_changed(&self, key: &[u8], generation: u64) -> bool {
        if self.by_key.is_empty() {
            return self.of_many > generation;
        }
        let is_later = |key: &[u8]| self.by_key.get(key).is_some_and(|changed| *changed > generation);
        self.of_many > generation || is_later(key) || is_later(&under_every_name(key))
    }
}
