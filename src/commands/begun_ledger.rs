//! The ledger of a start: opened, and begun with promises that are in other folders, or that may be lost.

use std::process::ExitCode;

use super::first_ledger::FirstLedger;
use super::first_promises::FirstPromises;
use super::lost_ledger::{LostLedger, refusal};
use super::{KnownPromises, LoadedConfig, warn};
use crate::config::Draft;
use crate::control::{NearbyLedgers, dates_ahead, open_ledger, open_ledger_with};
use crate::ledger::{Ledger, Notice};
use crate::reason::Reason;

/// The ledger of a start.
pub(super) struct OpenedLedger {
    ledger: Ledger,
    notices: Vec<Notice>,
    /// The promises that it begins with.
    first: FirstPromises,
}

impl OpenedLedger {
    /// Opens the ledger. A new ledger begins with promises from other folders, or with promises that may be lost. A demo's
    /// ledger begins empty.
    pub(super) fn open(draft: &Draft, nearby: &NearbyLedgers, is_demo: bool) -> Result<Self, Reason> {
        let mut replaced = None;
        let (mut ledger, notices) = open_ledger(draft).or_else(|reason| {
            let Some(lost) = LostLedger::of_replaced(draft) else { return Err(reason) };
            // The file gets them now: after that, nothing shows any more that it is not the own one.
            open_ledger_with(draft, Some(replaced.insert(lost).book()))
        })?;
        let first = if is_demo { FirstPromises::default() } else { FirstPromises::of(draft, nearby, ledger.book()) };
        let first = first.instead_of(replaced);
        if let Some(reason) = refusal(first.lost.as_ref(), draft) {
            return Err(reason);
        }
        // In memory until pintle serves: a start that fails writes no copy of them, and the next one looks again.
        ledger.begin_with(first.records());
        Ok(Self { ledger, notices, first })
    }

    /// Returns its promises, by which the configuration is judged.
    pub(super) fn known(&self) -> KnownPromises {
        KnownPromises::of_book(self.ledger.book().clone())
    }
}

/// Remarks on the ledger.
pub(super) struct LedgerRemarks {
    pub(super) notices: Vec<Notice>,
    pub(super) ahead: Option<Reason>,
    pub(super) first: Option<FirstLedger>,
    /// The errors about other folders' ledgers.
    pub(super) left_out: Vec<Reason>,
}

/// Returns a configuration that was judged by the ledger, with the ledger and the remarks on it. A demo reports no first
/// ledger.
pub(super) fn begun(
    loaded: Result<LoadedConfig, ExitCode>,
    opened: OpenedLedger,
    is_demo: bool,
) -> Result<(LoadedConfig, Ledger, LedgerRemarks), ExitCode> {
    let OpenedLedger { ledger, notices, first } = opened;
    // A chain may break them.
    let loaded = loaded.inspect_err(|_| first.reasons().iter().for_each(warn))?;
    let left_out = first.left_out.clone();
    let first = if is_demo { None } else { FirstLedger::of(&loaded.config, first) };
    let ahead = dates_ahead(loaded.draft.path(), ledger.book());
    Ok((loaded, ledger, LedgerRemarks { notices, ahead, first, left_out }))
}
