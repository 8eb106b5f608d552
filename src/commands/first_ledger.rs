//! A state directory without a ledger: the first start. Or promises that are in another folder, or lost.

use std::path::{Path, PathBuf};

use super::first_promises::{FirstKind, FirstPromises};
use crate::config::{Config, LAST_GOOD};
use crate::control::hint_to_move;
use crate::ledger::is_new;
use crate::reason::Reason;

/// The number of folders in one note.
const UNSEEN_SHOWN: usize = 3;

/// A folder that gets its first ledger, or promises that its ledger lacks.
pub(super) struct FirstLedger {
    folder: PathBuf,
    /// The promises that its ledger begins with.
    first: FirstPromises,
    /// pintle has served from this folder before.
    has_copies: bool,
}

impl FirstLedger {
    /// `None` if the folder has a ledger, or if nothing is promised and the configuration sends no pins.
    pub(super) fn of(config: &Config, first: FirstPromises) -> Option<Self> {
        let folder = config.state.as_deref()?;
        let begins = || !config.pledges.is_empty() && is_new(folder);
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

    pub(super) fn kind(&self) -> FirstKind {
        self.first.kind()
    }

    /// The reason before pintle serves.
    pub(super) fn reason(&self) -> Reason {
        self.reason_with(self.first.found_before())
    }

    /// The reason once pintle serves.
    pub(super) fn logged(&self) -> Reason {
        self.reason_with(self.first.found_reason())
    }

    fn reason_with(&self, found: Option<Reason>) -> Reason {
        // Promises that may be lost come first.
        match (&self.first.lost, found) {
            (Some(lost), found) => {
                return found.into_iter().fold(lost.reason(), |reason, found| reason.note(found.what));
            }
            (None, Some(found)) => return found,
            (None, None) => {}
        }
        let at = self.folder.display();
        let what = format!("{at} has no ledger: pintle starts with an empty one, and any key may be served");
        let reason = Reason::new(what);
        let served = || format!("its {LAST_GOOD} shows that pintle has served from it before");
        let reason = if self.has_copies { reason.note(served()) } else { reason };
        let reason = self.unseen().into_iter().fold(reason, Reason::note);
        reason.hint(format!(
            "if pins were sent before, with another state.directory (OLD): {}",
            hint_to_move(Path::new("OLD"), &self.folder)
        ))
    }

    /// The folders of root beside it into which this user cannot look, as root can.
    fn unseen(&self) -> Option<String> {
        let all = &self.first.unseen;
        let named: Vec<String> = all.iter().take(UNSEEN_SHOWN).map(|folder| folder.display().to_string()).collect();
        let more = match all.len().saturating_sub(named.len()) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = format!("{}{more}", named.join(", "));
        (!all.is_empty()).then(|| {
            format!("this user cannot look into root's folders beside it ({named}): `pintle check` can, as root")
        })
    }
}
