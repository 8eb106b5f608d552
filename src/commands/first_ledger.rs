//! A state directory without a ledger: the first start, or promises that are in another folder, or lost.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Config, Draft, LAST_GOOD, LastGood, report};
use crate::control::{FoundPromises, hint_to_move};
use crate::host::HostPattern;
use crate::ledger::{Book, LOCK, is_new};
use crate::reason::{Reason, shell_word};

/// A folder that gets its first ledger.
pub(super) struct FirstLedger {
    folder: PathBuf,
    /// Other folders, whose ledgers have promises for these sites.
    found: Option<FoundPromises>,
    /// pintle has served from this folder before.
    has_copies: bool,
    /// There was a file that each start makes.
    had_lock: bool,
}

/// `true` if the state has the file that each start makes.
pub(super) fn has_lock(draft: &Draft) -> bool {
    draft.state().is_some_and(|folder| folder.join(LOCK).symlink_metadata().is_ok())
}

impl FirstLedger {
    /// `None` if the folder has a ledger, or if nothing is promised and the configuration sends no pins.
    pub(super) fn of(config: &Config, found: Option<FoundPromises>, book: &Book, had_lock: bool) -> Option<Self> {
        let folder = config.state.as_deref()?;
        let begins = || !config.pledges.is_empty() && book.is_empty() && is_new(folder);
        (found.is_some() || begins()).then(|| Self {
            has_copies: folder.join(LAST_GOOD).exists(),
            folder: folder.to_owned(),
            found,
            had_lock,
        })
    }

    /// `true` if there was a ledger before.
    pub(super) fn is_suspicious(&self) -> bool {
        self.found.is_some() || self.has_copies
    }

    pub(super) fn reason(&self) -> Reason {
        if let Some(found) = &self.found {
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

    /// The reason against a start that serves another key than the last one, although promises may be lost: every file of
    /// the ledger is gone, even the one that each start makes, and copies show what was served.
    pub(super) fn lost(&self, config: &Config) -> Option<Reason> {
        if self.found.is_some() || !self.has_copies || self.had_lock {
            return None;
        }
        let copies = LastGood::of(&self.folder);
        let sites = config.sites().filter(|site| site.hpkp.is_some());
        let mut unknown = sites.flat_map(|site| unknown(site, &copies).into_iter().map(move |found| (site, found)));
        let (site, certificate) = unknown.next()?;
        let what = format!(
            "{} has no ledger, and its {LAST_GOOD} shows that {} was served with another key than that of {}: promises may \
             be lost, and this key may lock readers out",
            self.folder.display(),
            site.name(),
            certificate.file()
        );
        let at = shell_word(&self.folder.join(LAST_GOOD).display().to_string());
        let reason = Reason::new(what).hint("restore ledger.jsonl and ledger.head, if you have a copy of both");
        Some(reason.hint("or put the chain and the key back that were served last").hint(format!(
            "to continue, and accept that clients who hold a lost promise may be locked out: mv -T {at} {at}.aside"
        )))
    }

    /// Leaves the folder as it was, for the next start.
    pub(super) fn forget_lock(&self) {
        let _ = fs::remove_file(self.folder.join(LOCK));
    }
}

/// The certificates of a site that was served before, whose keys no copy has.
fn unknown<'s>(site: &'s report::SiteReport, copies: &LastGood) -> Vec<&'s report::CertificateReport> {
    let hosts: Vec<HostPattern> = site.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect();
    let was_served = copies.read_any(&hosts).map(Zeroizing::new).is_some();
    let is_known = |pin| copies.read_with(pin, &hosts).map(Zeroizing::new).is_some();
    let is_unknown =
        |certificate: &&report::CertificateReport| was_served && certificate.served && !is_known(certificate.pin);
    site.certificates.iter().filter(is_unknown).collect()
}
