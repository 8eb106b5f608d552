//! A state directory without a ledger: the first start, or promises that are in another folder.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::{Config, LAST_GOOD};
use crate::control::hint_to_move;
use crate::host::HostPattern;
use crate::ledger::time::wall;
use crate::ledger::{Book, is_new, look};
use crate::reason::Reason;

/// The folders that are looked at beside the configuration and the state.
const FOLDERS_MAX: usize = 200;
/// The folder that the packages use.
const USUAL: &str = "/var/lib/pintle";

/// A folder that gets its first ledger.
pub(super) struct FirstLedger {
    folder: PathBuf,
    /// Another folder, whose ledger has promises for these sites.
    other: Option<PathBuf>,
    /// pintle has served from this folder before.
    has_copies: bool,
}

impl FirstLedger {
    /// `None` if the folder has a ledger, or if the configuration sends no pins.
    pub(super) fn of(file: &Path, config: &Config, book: &Book) -> Option<Self> {
        let folder = config.state.as_deref().filter(|_| !config.pledges.is_empty() && book.is_empty())?;
        if !is_new(folder) {
            return None;
        }
        let folder = folder.to_owned();
        let hosts: HashSet<&HostPattern> = config.pledges.iter().flat_map(|pledge| &pledge.promise.hosts).collect();
        let now = wall();
        let has_promises = |other: &PathBuf| {
            !is_new(other)
                && look(other).is_ok_and(|(book, _)| {
                    let mut alive = book.promises().iter().filter(|promise| promise.is_alive(now));
                    alive.any(|promise| promise.hosts.iter().any(|host| hosts.contains(host)))
                })
        };
        let other = folders_nearby(file, &folder).into_iter().find(has_promises);
        Some(Self { has_copies: folder.join(LAST_GOOD).exists(), folder, other })
    }

    /// `true` if there was a ledger before.
    pub(super) fn is_suspicious(&self) -> bool {
        self.other.is_some() || self.has_copies
    }

    pub(super) fn reason(&self) -> Reason {
        let at = self.folder.display();
        let begins = "pintle starts with an empty one, and any key may be served";
        let copy = |from: &Path| hint_to_move(from, &self.folder);
        match &self.other {
            Some(other) => {
                let from = other.display();
                let what = format!("{at} has no ledger, and {from} has one with promises for these sites: {begins}");
                Reason::new(what).hint(format!("to keep these promises: {}", copy(other)))
            }
            None => {
                let reason = Reason::new(format!("{at} has no ledger: {begins}"));
                let served = || format!("its {LAST_GOOD} shows that pintle has served from it before");
                let reason = if self.has_copies { reason.note(served()) } else { reason };
                reason.hint(format!(
                    "if pins were sent before, with another state.directory (OLD): {}",
                    copy(Path::new("OLD"))
                ))
            }
        }
    }
}

/// The folders beside the state and beside the configuration, and the usual one.
fn folders_nearby(file: &Path, folder: &Path) -> Vec<PathBuf> {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut found: Vec<PathBuf> = vec![USUAL.into()];
    for parent in [folder.parent(), file.parent()].into_iter().flatten() {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten().take(FOLDERS_MAX);
        found.extend(entries.map(|entry| entry.path()));
    }
    found.retain(|other| other != folder);
    found
}
