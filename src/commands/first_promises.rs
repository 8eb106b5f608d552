//! The promises that a ledger gets at a start: those of other folders' ledgers, or those that may be lost.

use std::path::PathBuf;

use super::lost_ledger::LostLedger;
use crate::config::Draft;
use crate::control::{FoundPromises, NearbyLedgers, begun_with};
use crate::ledger::{Book, Ledger, Record};
use crate::reason::Reason;

/// The occasion on which a ledger gets promises at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstKind {
    /// It is new.
    New,
    /// Promises may be lost.
    Lost,
    /// It was in use, and another folder's has more.
    Added,
}

/// The promises that a ledger gets at a start, and the errors about other folders' ledgers.
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
    /// Promises in other folders that are over, by a clock that may be ahead, and own ones with later dates.
    untold: Vec<Record>,
}

impl FirstPromises {
    /// Promises may be lost although another folder has a ledger about the sites: it may be an old copy of the lost one.
    pub(super) fn of(draft: &Draft, nearby: &NearbyLedgers, book: &Book) -> Self {
        let mut first = Self {
            found: FoundPromises::of(draft, nearby, book),
            lost: LostLedger::of(draft, book),
            left_out: nearby.left_out().to_vec(),
            unseen: nearby.unseen().to_vec(),
            untold: nearby.over().to_vec(),
        };
        if let Some(known) = first.lost.take_if(|lost| !lost.is_told()) {
            first.untold.extend(known.records());
        }
        first
    }

    /// The same for a ledger in the place of another one, which it has the promises of.
    pub(super) fn instead_of(self, replaced: Option<LostLedger>) -> Self {
        Self { lost: replaced.or(self.lost), ..self }
    }

    pub(super) fn kind(&self) -> FirstKind {
        match (&self.lost, &self.found) {
            (Some(_), _) => FirstKind::Lost,
            (None, Some(found)) if found.is_addition() => FirstKind::Added,
            (None, _) => FirstKind::New,
        }
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub(super) fn records(&self) -> Vec<Record> {
        let found = self.found.iter().flat_map(FoundPromises::records);
        let lost = self.lost.iter().flat_map(LostLedger::records);
        found.chain(lost).chain(self.untold.iter().cloned()).collect()
    }

    /// Returns the warnings about all of them, before pintle serves with them.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let begins = self.found_before().into_iter().chain(self.lost.iter().map(LostLedger::reason));
        begins.chain(self.left_out.iter().cloned()).collect()
    }

    /// The warning about promises in other folders. If promises are lost, its remedies do not apply: the other folder's
    /// ledger would hide the loss.
    pub(super) fn found_reason(&self) -> Option<Reason> {
        let reason = self.found.as_ref()?.reason();
        Some(if self.lost.is_some() { Reason { hints: Vec::new(), commands: Vec::new(), ..reason } } else { reason })
    }

    /// The same before pintle serves with them: they can still be declined.
    pub(super) fn found_before(&self) -> Option<Reason> {
        let found = self.found.as_ref().filter(|_| self.lost.is_none());
        let to_decline = found.map(FoundPromises::to_decline);
        self.found_reason().map(|reason| reason.hints(to_decline))
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
