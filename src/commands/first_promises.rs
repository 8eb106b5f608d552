//! The promises that a new ledger begins with: those of other folders' ledgers, or those that may be lost.

use std::path::PathBuf;

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
    /// Folders of root beside the state into which this user cannot look.
    pub(super) unseen: Vec<PathBuf>,
    /// Promises in other folders that are over, by a clock that may be ahead.
    over: Vec<Record>,
}

impl FirstPromises {
    /// Promises may be lost although another folder has a ledger about the sites: it may be an old copy of the lost one.
    pub(super) fn of(draft: &Draft, nearby: &NearbyLedgers, book: &Book) -> Self {
        let found = FoundPromises::of(draft, nearby);
        let lost = LostLedger::of(draft, book);
        let unseen = nearby.unseen().to_vec();
        Self { found, lost, left_out: nearby.left_out().to_vec(), unseen, over: nearby.over().to_vec() }
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub(super) fn records(&self) -> Vec<Record> {
        let found = self.found.iter().flat_map(FoundPromises::records);
        let lost = self.lost.iter().flat_map(LostLedger::records);
        found.chain(lost).chain(self.over.iter().cloned()).collect()
    }

    /// Returns the warnings about all of them.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let begins = self.found_reason().into_iter().chain(self.lost.iter().map(LostLedger::reason));
        begins.chain(self.left_out.iter().cloned()).collect()
    }

    /// The warning about promises in other folders. If promises are lost, its remedies do not apply: the other folder's ledger,
    /// or an empty one, would hide the loss.
    pub(super) fn found_reason(&self) -> Option<Reason> {
        let reason = self.found.as_ref()?.reason();
        Some(if self.lost.is_some() { Reason { hints: Vec::new(), commands: Vec::new(), ..reason } } else { reason })
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
