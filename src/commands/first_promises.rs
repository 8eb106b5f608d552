//! The promises that a new ledger begins with: those of other folders' ledgers, or those that may be lost.

use super::lost_ledger::LostLedger;
use crate::config::Draft;
use crate::control::{FoundPromises, NearbyLedgers, begun_with};
use crate::ledger::{Book, Ledger, Record};
use crate::reason::Reason;

/// The promises that a new ledger begins with, and the errors about other folders' ledgers.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstPromises {
    /// The promises in other folders.
    pub(super) found: Option<FoundPromises>,
    /// The promises that may be lost.
    pub(super) lost: Option<LostLedger>,
    /// The errors about other folders' ledgers.
    pub(super) left_out: Vec<Reason>,
}

impl FirstPromises {
    /// Promises count as lost only if no other folder has a ledger about the sites.
    pub(super) fn of(draft: &Draft, nearby: &NearbyLedgers, book: &Book) -> Self {
        let found = FoundPromises::of(draft, nearby);
        let is_found = found.as_ref().is_some_and(FoundPromises::are_about_sites);
        let lost = if is_found { None } else { LostLedger::of(draft, book) };
        Self { found, lost, left_out: nearby.left_out().to_vec() }
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub(super) fn records(&self) -> Vec<Record> {
        let found = self.found.iter().flat_map(FoundPromises::records);
        found.chain(self.lost.iter().flat_map(LostLedger::records)).collect()
    }

    /// Returns the warnings about all of them.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let begins = self.found.iter().map(FoundPromises::reason).chain(self.lost.iter().map(LostLedger::reason));
        begins.chain(self.left_out.iter().cloned()).collect()
    }

    /// Begins a ledger with these promises.
    pub(super) fn begin(&self, draft: &Draft, ledger: Ledger) -> Ledger {
        let records = self.records();
        match draft.state() {
            Some(folder) if !records.is_empty() => begun_with(ledger, &folder, records),
            _ => ledger,
        }
    }
}
