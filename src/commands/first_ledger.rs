//! A state directory without a ledger: the first start, or promises that are in another folder, or lost.

use std::path::{Path, PathBuf};

use super::first_promises::FirstPromises;
use crate::config::{Config, LAST_GOOD};
use crate::control::hint_to_move;
use crate::ledger::{Book, is_new};
use crate::reason::Reason;

/// A folder that gets its first ledger.
pub(super) struct FirstLedger {
    folder: PathBuf,
    /// The promises that its ledger begins with.
    first: FirstPromises,
    /// pintle has served from this folder before.
    has_copies: bool,
}

impl FirstLedger {
    /// `None` if the folder has a ledger, or if nothing is promised and the configuration sends no pins.
    pub(super) fn of(config: &Config, first: FirstPromises, book: &Book) -> Option<Self> {
        let folder = config.state.as_deref()?;
        let begins = || !config.pledges.is_empty() && book.is_empty() && is_new(folder);
        (first.found.is_some() || first.lost.is_some() || begins()).then(|| Self {
            has_copies: folder.join(LAST_GOOD).exists(),
            folder: folder.to_owned(),
            first,
        })
    }

    /// `true` if there was a ledger before.
    pub(super) fn is_suspicious(&self) -> bool {
        self.first.found.is_some() || self.has_copies
    }

    /// `true` if promises may be lost.
    pub(super) fn is_lost(&self) -> bool {
        self.first.lost.is_some()
    }

    pub(super) fn reason(&self) -> Reason {
        // Promises that may be lost come first: there are both if those that were found are for other sites.
        if let Some(lost) = &self.first.lost {
            return lost.reason();
        }
        if let Some(found) = &self.first.found {
            return found.reason();
        }
        let at = self.folder.display();
        let what = format!("{at} has no ledger: pintle starts with an empty one, and any key may be served");
        let reason = Reason::new(what);
        let served = || format!("its {LAST_GOOD} shows that pintle has served from it before");
        let reason = if self.has_copies { reason.note(served()) } else { reason };
        reason.hint(format!(
            "if pins were sent before, with another state.directory (OLD): {}",
            hint_to_move(Path::new("OLD"), &self.folder)
        ))
    }
}
