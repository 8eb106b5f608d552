//! The ledger of a start: opened, and begun with promises that are in other folders, or that may be lost.

use std::process::ExitCode;

use super::first_ledger::FirstLedger;
use super::lost_ledger::LostLedger;
use super::{KnownPromises, LoadedConfig, warn};
use crate::config::Draft;
use crate::control::{FoundPromises, NearbyLedgers, begun_with, dates_ahead, open_ledger};
use crate::ledger::{Book, Ledger, Notice};
use crate::reason::Reason;

/// The ledger of a start.
pub(super) struct OpenedLedger {
    ledger: Ledger,
    notices: Vec<Notice>,
    /// The promises in other folders that it begins with.
    found: Option<FoundPromises>,
    /// The promises that may be lost, and that it begins with.
    lost: Option<LostLedger>,
    /// The errors about other folders' ledgers.
    left_out: Vec<Reason>,
}

/// Remarks on the ledger.
pub(super) struct LedgerRemarks {
    pub(super) notices: Vec<Notice>,
    pub(super) ahead: Option<Reason>,
    pub(super) first: Option<FirstLedger>,
    /// The errors about other folders' ledgers.
    pub(super) left_out: Vec<Reason>,
}

/// Opens the ledger into `opened`, and returns its book. A new one begins with the promises in other folders, or with those
/// that may be lost; that of a demo does not.
pub(super) fn open_book(
    draft: &Draft,
    troubles: &[Reason],
    nearby: &NearbyLedgers,
    opened: &mut Option<OpenedLedger>,
    is_demo: bool,
) -> Result<KnownPromises, Reason> {
    if !troubles.is_empty() {
        // pintle does not start: the troubles name everything that the user cannot read, the ledger included.
        return Ok(KnownPromises::of_book(Book::default()));
    }
    let (ledger, notices) = open_ledger(draft)?;
    let found = FoundPromises::of(draft, nearby);
    let is_alone = !is_demo && !found.as_ref().is_some_and(FoundPromises::are_about_sites);
    let lost = if is_alone { LostLedger::of(draft, ledger.book()) } else { None };
    let ledger = with_promises(draft, ledger, found.as_ref(), lost.as_ref());
    let known = KnownPromises::of_book(ledger.book().clone());
    *opened = Some(OpenedLedger { ledger, notices, found, lost, left_out: nearby.left_out().to_vec() });
    Ok(known)
}

/// A ledger that begins with promises which were found, or which may be lost.
pub(super) fn with_promises(
    draft: &Draft,
    ledger: Ledger,
    found: Option<&FoundPromises>,
    lost: Option<&LostLedger>,
) -> Ledger {
    let found = found.into_iter().flat_map(FoundPromises::records);
    let records: Vec<_> = found.chain(lost.into_iter().flat_map(LostLedger::records)).collect();
    match draft.state() {
        Some(folder) if !records.is_empty() => begun_with(ledger, &folder, records),
        _ => ledger,
    }
}

/// Returns a configuration that was judged by the ledger, with the ledger and the remarks on it. The first ledger of a demo
/// is no news.
pub(super) fn begun(
    loaded: Result<LoadedConfig, ExitCode>,
    opened: Option<OpenedLedger>,
    is_demo: bool,
) -> Result<(LoadedConfig, Ledger, LedgerRemarks), ExitCode> {
    let none = || OpenedLedger {
        ledger: Ledger::in_memory(),
        notices: Vec::new(),
        found: None,
        lost: None,
        left_out: Vec::new(),
    };
    let OpenedLedger { ledger, notices, found, lost, left_out } = opened.unwrap_or_else(none);
    let loaded = loaded.inspect_err(|_| {
        // A chain may break them.
        found.iter().for_each(|found| warn(&found.reason()));
        lost.iter().for_each(|lost| warn(&lost.reason()));
        left_out.iter().for_each(warn);
    })?;
    let first = if is_demo { None } else { FirstLedger::of(&loaded.config, found, lost, ledger.book()) };
    let ahead = dates_ahead(loaded.draft.path(), ledger.book());
    Ok((loaded, ledger, LedgerRemarks { notices, ahead, first, left_out }))
}
