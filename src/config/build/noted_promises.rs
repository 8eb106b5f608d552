//! The promises that the copies of pairs note: if the ledger is lost, nothing else shows which pins clients may hold.

use super::entry::SiteEntry;
use super::loaded::LoadedCertificate;
use crate::config::last_good::{BindingPromises, Breaches, Pinned};
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

    /// `true` if existing copies for these names note what new ones would, or have fewer pins: they bind names below if
    /// necessary. Nobody knows if they note promises that end.
    pub(super) fn are_noted(&self, names: SiteNames<'_>) -> bool {
        let sent = self.before.binding(names.hosts, names.except);
        let before = Pinned::of(&BindingPromises { sent, ..BindingPromises::default() });
        match (before, Pinned::of(&self.binding(names))) {
            (Pinned::No, Pinned::No) => true,
            (
                Pinned::Yes { pins: noted, below: is_noted, .. },
                Pinned::Yes { pins, below, sent: true, until: None, .. },
            ) => (is_noted || !below) && noted.iter().all(|pin| pins.contains(pin)),
            _ => false,
        }
    }

    /// The promises that bind names.
    pub(super) fn binding(&self, names: SiteNames<'_>) -> BindingPromises<'a> {
        let sent = self.pledged.binding(names.hosts, names.except);
        let mut ending = self.known.binding(names.hosts, names.except);
        // The ledger has the others up to now.
        ending.retain(|known| !sent.iter().any(|sent| sent.is_same_set(known)));
        BindingPromises { sent, ending }
    }

    /// The promises of the ledger that an entry's pair breaks.
    pub(super) fn broken_by(&self, entry: &SiteEntry, pair: &LoadedCertificate) -> Vec<&'a Promise> {
        entry.breaks(pair, &self.known)
    }
}
