//! The ledger of a start: opened, begun with promises that are in other folders, or refused.

use std::process::ExitCode;

use super::first_ledger::{FirstLedger, has_lock};
use super::{KnownPromises, LoadedConfig, refuse, warn};
use crate::config::Draft;
use crate::control::{FoundPromises, dates_ahead, open_ledger};
use crate::ledger::{Book, Ledger, Notice};
use crate::reason::Reason;

/// The ledger of a start.
pub(super) struct OpenedLedger {
    ledger: Ledger,
    notices: Vec<Notice>,
    /// The promises in other folders that it begins with.
    found: Option<FoundPromises>,
    /// There was a file that each start makes.
    had_lock: bool,
}

/// Remarks on the ledger.
pub(super) struct LedgerRemarks {
    pub(super) notices: Vec<Notice>,
    pub(super) ahead: Option<Reason>,
    pub(super) first: Option<FirstLedger>,
}

/// Opens the ledger into `opened`, and returns its book. A new one begins with the promises in other folders; that of a demo
/// does not.
pub(super) fn open_book(
    draft: &Draft,
    troubles: &[Reason],
    opened: &mut Option<OpenedLedger>,
    is_demo: bool,
) -> Result<KnownPromises, Reason> {
    if !troubles.is_empty() {
        // pintle does not start: the troubles name everything that the user cannot read, the ledger included.
        return Ok(KnownPromises::of_book(Book::default()));
    }
    let had_lock = has_lock(draft);
    let (ledger, notices) = open_ledger(draft)?;
    let found = if is_demo { None } else { FoundPromises::of(draft) };
    let ledger = match &found {
        Some(found) => found.taken_into(ledger),
        None => ledger,
    };
    let known = KnownPromises::of_book(ledger.book().clone());
    *opened = Some(OpenedLedger { ledger, notices, found, had_lock });
    Ok(known)
}

/// Returns a configuration that was judged by the ledger, with the ledger and the remarks on it. Refuses it if promises may
/// be lost, and another key is about to be served. The first ledger of a demo is no news.
pub(super) fn begun(
    loaded: Result<LoadedConfig, ExitCode>,
    opened: Option<OpenedLedger>,
    is_demo: bool,
) -> Result<(LoadedConfig, Ledger, LedgerRemarks), ExitCode> {
    let none = || OpenedLedger { ledger: Ledger::in_memory(), notices: Vec::new(), found: None, had_lock: true };
    let OpenedLedger { ledger, notices, found, had_lock } = opened.unwrap_or_else(none);
    let loaded = loaded.inspect_err(|_| {
        // A chain may break them.
        found.iter().for_each(|found| warn(&found.reason()));
    })?;
    let first = if is_demo { None } else { FirstLedger::of(&loaded.config, found, ledger.book(), had_lock) };
    if let Some((first, lost)) = first.as_ref().and_then(|first| Some((first, first.lost(&loaded.config)?))) {
        drop(ledger);
        first.forget_lock();
        return Err(refuse(&lost));
    }
    let ahead = dates_ahead(loaded.draft.path(), ledger.book());
    Ok((loaded, ledger, LedgerRemarks { notices, ahead, first }))
}
