//! A `state.directory` that the process in use does not have. The new process of an upgrade makes the folder, since its sandbox
//! forbids that later, and takes over only if the ledger there is written. If it is the first one, the ledgers there and beside
//! it count, as at a start.

use std::collections::HashSet;
use std::fs::{DirBuilder, read_dir};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

use super::Control;
use super::found_promises::FoundPromises;
use super::nearby_ledgers::{NearbyLedgers, is_about};
use super::open_ledger::state_is_gone;
use super::succession::are_one;
use super::takeover::NewProcess;
use crate::config::report::SiteReport;
use crate::config::{Config, Draft};
use crate::keys::pin::Pin;
use crate::ledger::time::judged_now;
use crate::ledger::{Book, FILE, Ledger, Record, is_new, look, note_left};
use crate::os::plain_file::folder_of;
use crate::os::privileges;
use crate::os::words::words;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_path};

impl NewProcess {
    /// Returns `true` if the old process may be without `state.directory`: the ledgers beside this one's count then, as at
    /// a start.
    #[must_use]
    pub fn may_be_first(&self) -> bool {
        self.state.as_ref().is_none_or(Vec::is_empty)
    }

    /// Adds promises that the ledger begins with.
    pub fn begin_with(&mut self, records: Vec<Record>) {
        self.first.extend(records);
    }

    /// Makes the folder of the state, as the user that serves, and outside the sandbox.
    ///
    /// # Errors
    ///
    /// If the promises of the old process would be in no folder any more.
    pub fn make_state(&self, draft: &Draft) -> Result<(), Reason> {
        let Some(folder) = draft.state() else {
            let (now, _) = judged_now(None);
            let is_alive = |record: &Record| matches!(record, Record::Promise(promise) if promise.is_alive(now));
            let has_promises = self.records.iter().any(is_alive);
            let old = self.state.iter().flatten().next().filter(|_| has_promises);
            return old.map_or(Ok(()), |old| Err(state_is_gone(old)));
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        match made.and_then(|()| access(&folder, needed).map_err(io::Error::from)) {
            Err(error) if self.moves_to(&folder) => {
                Err(unwritten(&folder, &format!("{}: {}", folder.display(), words(&error))))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error if the ledger is in another folder than the old process's, and not written there: that one sets its
    /// file aside.
    pub(super) fn must_hold(&self, draft: &Draft, ledger: &mut Ledger) -> Result<(), Reason> {
        let Some(folder) = draft.state().filter(|folder| self.moves_to(folder)) else { return Ok(()) };
        match ledger.why_broken() {
            Some(why) => Err(unwritten(&folder, why)),
            None => {
                ledger.keep().map_err(|error| unwritten(&folder, &format!("{}: {}", folder.display(), words(&error))))
            }
        }
    }

    /// Marks a folder that the ledger moves to: until this process serves, the old one's has all promises.
    pub(super) fn note_move(&self, draft: &Draft) {
        let folder = draft.state().filter(|folder| self.moves_to(folder));
        if let Some((folder, old)) = folder.zip(self.state.iter().flatten().next()) {
            // A new folder has no lock's file yet: its start looks beside it.
            let _ = note_left(&folder, old);
        }
    }

    fn moves_to(&self, folder: &Path) -> bool {
        self.state.as_ref().is_some_and(|theirs| !are_one(theirs, folder))
    }
}

/// The reason against a new process whose ledger would be in memory only.
fn unwritten(folder: &Path, why: &str) -> Reason {
    let what = format!("state.directory: the new process cannot write its ledger there: {why}");
    let (user, at) = (privileges::user(), shell_path(folder));
    Reason::new(what).hint(match folder.exists() {
        true => format!("let {user} write there, and to the files in it; or name another folder"),
        false => format!("install -d -o {user} -m 700 {at}"),
    })
}

impl Control {
    /// The reason against a first `state.directory`, if a ledger there, or beside it, has promises for these sites that this
    /// process does not know, or if its sandbox lets it look at none.
    pub(super) fn begins_ledger(&self, draft: &Draft, config: &Config) -> Option<Reason> {
        let folder = draft.state().filter(|_| self.fixed.state.is_none() && !self.serves_all_of(config))?;
        let whose = match ledger_of(draft, &folder) {
            Ok((theirs, whose)) => {
                let (now, _) = judged_now(theirs.newest());
                let mut unknown = Book::default();
                self.ledger().book().news(&theirs).into_iter().for_each(|record| _ = unknown.apply(record));
                is_about(&unknown, &draft.hosts(), now).then_some(whose)?
            }
            Err(error) => format!("this process cannot look for promises there: {}", words(&error)),
        };
        let upgrade = || match self.upgrades.launcher.is_some() {
            true => format!("`{}` once the file has it: all changes take effect", pintle("upgrade")),
            false => "restart pintle once the file has it".to_owned(),
        };
        let reason = Reason::new(format!("state.directory: a reload cannot open a first ledger: {whose}"));
        Some(reason.hint(self.upgrade_by_signal(config).unwrap_or_else(upgrade)))
    }

    /// `true` if a configuration serves no name with a key that does not serve it now: the next start looks at the ledger.
    fn serves_all_of(&self, config: &Config) -> bool {
        let pairs = |config: &Config| {
            let of_site = |site: &SiteReport| {
                let served = site.certificates.iter().filter(|certificate| certificate.served);
                let pins: Vec<Pin> = served.map(|certificate| certificate.pin).collect();
                site.hosts.iter().flat_map(|host| pins.iter().map(move |pin| (host.clone(), *pin))).collect::<Vec<_>>()
            };
            config.sites().flat_map(of_site).collect::<HashSet<(String, Pin)>>()
        };
        pairs(config).is_subset(&pairs(&self.config))
    }
}

/// The promises that a ledger in a folder has, or would get at a start, and where they are.
fn ledger_of(draft: &Draft, folder: &Path) -> io::Result<(Book, String)> {
    let own = format!("{} has promises for these sites", folder.join(FILE).display());
    let mut theirs = if is_new(folder) { Book::default() } else { look(folder)?.0 };
    let parent = folder_of(folder);
    if parent.exists() {
        read_dir(parent)?;
    }
    let nearby = NearbyLedgers::look(draft);
    let Some(found) = FoundPromises::of(draft, &nearby, &theirs) else { return Ok((theirs, own)) };
    found.records().for_each(|record| _ = theirs.apply(record));
    Ok((theirs, found.reason().what))
}
