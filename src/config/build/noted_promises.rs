//! The promises that the copies of pairs note: if the ledger is lost, nothing else shows which pins clients may hold.

use super::entry::SiteEntry;
use super::loaded::LoadedCertificate;
use crate::config::last_good::{Breaches, Pinned};
use crate::ledger::Book;
use crate::ledger::leases::Pledge;
use crate::policy::promise::{Promise, Promises, Seconds, SiteNames};

/// The promises of the ledger, and those that are about to be made.
pub(super) struct NotedPromises<'a> {
    known: Promises<'a>,
    pledged: Promises<'a>,
    /// The pledges of the previous configuration, which existing copies note.
    before: Promises<'a>,
}

impl<'a> NotedPromises<'a> {
    /// The promises of a book, those of a configuration, and those of the previous one.
    pub(super) fn of(book: &'a Book, now: Seconds, pledges: &'a [Pledge], before: &'a [Pledge]) -> Self {
        let pledged = |pledges: &'a [Pledge]| Promises::alive(pledges.iter().map(|p| &p.promise), Seconds::MIN);
        Self { known: Promises::alive(book.promises(), now), pledged: pledged(pledges), before: pledged(before) }
    }

    /// Returns the promises of the ledger.
    pub(super) fn known(&self) -> &Promises<'a> {
        &self.known
    }

    /// The text for the copy of an entry's pair that breaks some promises.
    pub(super) fn text(&self, entry: &SiteEntry, breaks: Vec<&Promise>) -> Breaches {
        Breaches::of(entry.served_names(), breaks).bound_by(&self.binding(entry.served_names()))
    }

    /// `true` if existing copies for these names are at least as strict as new ones: they have no further pins, and bind names
    /// below if necessary.
    pub(super) fn are_noted(&self, names: SiteNames<'_>) -> bool {
        let before = Pinned::of(&self.before.binding(names.hosts, names.except));
        match (before, Pinned::of(&self.binding(names))) {
            (_, Pinned::No) => true,
            (Pinned::Yes { pins: noted, below: is_noted }, Pinned::Yes { pins, below }) => {
                (is_noted || !below) && noted.iter().all(|pin| pins.contains(pin))
            }
            _ => false,
        }
    }

    /// The promises that bind names.
    pub(super) fn binding(&self, names: SiteNames<'_>) -> Vec<&'a Promise> {
        let mut binding = self.known.binding(names.hosts, names.except);
        binding.extend(self.pledged.binding(names.hosts, names.except));
        binding
    }

    /// The promises of the ledger that an entry's pair breaks.
    pub(super) fn broken_by(&self, entry: &SiteEntry, pair: &LoadedCertificate) -> Vec<&'a Promise> {
        entry.breaks(pair, &self.known)
    }
}
