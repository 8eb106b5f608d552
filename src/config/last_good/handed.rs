//! Copies that a process hands over to the one that takes over from it, where no folder has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::contents::has_key;
use super::pair::Pair;
use crate::handover::HandedCopy;
use crate::tls::key_process;

/// Copies in memory, by their names. No debug output contains them.
#[derive(Clone, Default)]
pub struct HandedCopies(Arc<BTreeMap<String, Zeroizing<String>>>);

impl HandedCopies {
    /// The copies of an upgrade's first message.
    #[must_use]
    pub fn of(copies: Vec<HandedCopy>) -> Self {
        Self(Arc::new(copies.into_iter().map(|HandedCopy { name, contents }| (name, contents)).collect()))
    }

    /// `true` without any copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The contents of a copy.
    pub(super) fn get(&self, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        self.0.get(name).map(|contents| Zeroizing::new(contents.as_bytes().to_vec()))
    }
}

impl fmt::Debug for HandedCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Pair {
    /// Its copy, for the process that takes over.
    pub(in crate::config) fn to_hand_over(&self) -> Option<HandedCopy> {
        let contents = self.contents(None)?;
        // A copy in a folder may have the key.
        let lacks_key = self.key.is_some() && key_process::running().is_none() && !has_key(&contents);
        let contents = String::from_utf8(contents).ok().filter(|_| !lacks_key)?;
        Some(HandedCopy { name: self.served().name(), contents: Zeroizing::new(contents) })
    }
}
