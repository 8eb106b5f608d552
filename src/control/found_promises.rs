//! Promises in other folders' ledgers that a configuration's own lacks: somebody has moved the folder, or named another one,
//! perhaps for a while only. Clients hold these promises wherever the file is. So they count, and the own ledger has them from
//! then on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::nearby_ledgers::{NearbyLedger, NearbyLedgers, is_promise};
use crate::config::{Draft, acme};
use crate::ledger::time::judged_now;
use crate::ledger::{Book, FILE, Ledger, MOVED, News, Record, is_new, is_unused};
use crate::os::privileges::user_name;
use crate::os::words::words;
use crate::reason::pasted::option_for;
use crate::reason::{Reason, shell_path, shell_word};

/// Promises in the ledgers of other folders.
#[derive(Debug, Clone)]
pub struct FoundPromises {
    /// The configuration's own folder.
    folder: PathBuf,
    /// It has a ledger that was in use, and was left.
    is_used: bool,
    /// The option that names the configuration, for commands.
    option: String,
    /// The hints are for root.
    by_root: bool,
    /// The folders with these promises.
    others: Vec<NearbyLedger>,
    book: Book,
}

impl FoundPromises {
    /// The promises that were found, and that the own ledger lacks. `None` if there are none.
    #[must_use]
    pub fn of(draft: &Draft, nearby: &NearbyLedgers, own: &Book) -> Option<Self> {
        let folder = draft.state().filter(|_| !nearby.counting.is_empty())?;
        let (is_used, option) = (!is_unused(&folder), option_for(draft.path()));
        let by_root = nearby.by_root;
        let mut found = Self { folder, is_used, option, by_root, others: Vec::new(), book: Book::default() };
        let mut known = own.clone();
        // The folder may have been moved: what was declined there is declined here.
        let decisions = nearby.counting.iter().flat_map(|other| &other.records);
        decisions.filter(|r| matches!(r, Record::Declined(_))).for_each(|record| _ = known.apply(record.clone()));
        for other in &nearby.counting {
            let counts = |record: &&Record| !is_promise(record, |promise| known.declines(promise, other.is_held));
            // A copy of a folder says nothing new.
            let taken =
                other.records.iter().filter(counts).filter(|record| found.book.apply((*record).clone())).count();
            if taken > 0 {
                found.others.push(other.clone());
            }
        }
        if found.others.is_empty() {
            return None;
        }
        // Of a folder that was left, another pair may have been served since.
        if !is_used {
            found.excuse(draft, &known);
        }
        Some(found)
    }

    /// Notes the lockouts by pairs that were served last, as after a merge: refusing them helps nobody.
    fn excuse(&mut self, draft: &Draft, own: &Book) {
        let all: Vec<Record> = self.book.records().collect();
        let news = News::of(&all);
        let mut merged = own.clone();
        all.into_iter().for_each(|record| _ = merged.apply(record));
        let (now, _) = judged_now(merged.newest());
        // Nothing was ever sent from the own folder: what it has came by a merge.
        let excuses = draft.excuses(&news, |_| false, &merged, now);
        excuses.records.into_iter().for_each(|excuse| _ = self.book.apply(Record::Accepted(excuse)));
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.book.records()
    }

    /// `true` if the own ledger was in use, and lacks them since its folder was left.
    #[must_use]
    pub fn is_addition(&self) -> bool {
        self.is_used
    }

    /// Returns the warning, with the way to keep the keys, too.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let named_if = |is_about| named(self.others.iter().filter(|other| other.is_about_sites == is_about));
        let (about_sites, others) = (named_if(true), named_if(false));
        let reason = Reason::new(self.what(&about_sites, &others));
        let reason = match about_sites.is_empty() || others.is_empty() {
            true => reason,
            false => reason.note(format!("it also has those of {others} for other sites")),
        };
        let held = named(self.others.iter().filter(|other| other.is_held));
        let reason = match held.is_empty() {
            true => reason,
            false => reason.note(format!("another pintle runs with {held}")),
        };
        // The folder of a running process stays where it is, and nobody copies a file that is being written.
        let is_meant = |other: &&NearbyLedger| !self.is_used && !other.is_held && self.is_meant(other);
        let copies = self.others.iter().filter(is_meant).filter_map(|other| self.to_copy(other));
        let purpose = match about_sites.is_empty() {
            true => "if it was the state of this configuration, to keep its keys, too",
            false => "to keep the keys, too",
        };
        reason.hints(copies.map(|copy| format!("{purpose}: stop pintle, `{copy}`, and start it")))
    }

    fn what(&self, about_sites: &str, others: &str) -> String {
        let folder = self.folder.display();
        if self.is_used {
            return format!("{about_sites} has promises for these sites that the ledger in {folder} lacks: they count");
        }
        let lacks = if is_new(&self.folder) { "has no ledger" } else { "has no ledger that was in use" };
        match about_sites.is_empty() {
            true => format!(
                "{folder} {lacks}, and {others} has one with promises for other sites: the new ledger begins \
                 with them, and they count once such a site is here"
            ),
            false => format!(
                "{folder} {lacks}, and {about_sites} has one with promises for these sites: they count, and \
                 the new ledger begins with them"
            ),
        }
    }

    /// Returns the hint to begin without them. Once pintle serves, its ledger has them.
    #[must_use]
    pub fn to_decline(&self) -> String {
        let file = |other: &NearbyLedger| other.folder.join(if other.is_moved { MOVED } else { FILE });
        let files = self.others.iter().filter(|other| self.is_meant(other)).map(|other| shell_path(&file(other)));
        let files = files.collect::<Vec<_>>().join(" ");
        format!("if no client holds them, begin without them: `pintle ledger decline{} {files}`", self.option)
    }

    /// `true` if a folder has promises for the configured sites, or if none has.
    fn is_meant(&self, other: &NearbyLedger) -> bool {
        other.is_about_sites || !self.others.iter().any(|any| any.is_about_sites)
    }

    /// The command that copies a folder to this one; `None` if one of them is another user's: root would follow the links
    /// there.
    fn to_copy(&self, other: &NearbyLedger) -> Option<String> {
        let (from, to) = (shell_path(&other.folder), shell_path(&self.folder));
        let own = fs::symlink_metadata(&self.folder).ok();
        if own.as_ref().is_some_and(|own| !own.is_dir() || own.uid() != other.owner) {
            return None;
        }
        let by = self.as_user(other.owner, &from);
        let each = if self.is_for_root(other.owner) { by.as_str() } else { "" };
        let acme = other.folder.join(acme::FOLDER);
        // A start may have made other keys since: these stay beside the old ones.
        let keys = match acme.is_dir() {
            true => format!("cp -a --backup=numbered {} {to}/ && {each}", shell_path(&acme)),
            false => String::new(),
        };
        let [aside, file] = [MOVED, FILE].map(|name| shell_path(&self.folder.join(name)));
        let back = if other.is_moved { format!(" && {each}mv -n {aside} {file}") } else { String::new() };
        let copy = format!("{keys}cp -an {from}/. {to}/{back}");
        Some(match (self.is_for_root(other.owner), own) {
            (true, Some(_)) => format!("{by}{copy}"),
            (true, None) => {
                format!("install -d -o {} -m 700 {to} && {by}{copy}", shell_word(&user_name(other.owner)))
            }
            (false, _) => format!("{by}mkdir -p {to} && {copy}"),
        })
    }

    /// `true` if root carries a command out for another user.
    fn is_for_root(&self, user: u32) -> bool {
        self.by_root && user != 0
    }

    /// The beginning of a command that only the user may carry out who owns a folder.
    fn as_user(&self, user: u32, folder: &str) -> String {
        match self.is_for_root(user) {
            true => format!("runuser -u {} -- ", shell_word(&user_name(user))),
            false if user == 0 => String::new(),
            false => format!("test -O {folder} && "),
        }
    }
}

/// Begins a folder's ledger with promises that clients may hold already. If they cannot be written, the ledger knows them
/// nevertheless, and writes them once it can.
#[must_use]
pub fn begun_with(mut ledger: Ledger, folder: &Path, records: Vec<Record>) -> Ledger {
    let written = if ledger.is_broken() { Ok(()) } else { ledger.record(records.clone()) };
    ledger.believe(records);
    match written {
        Ok(()) => ledger,
        // It is opened again later, and all of its book written.
        Err(error) => Ledger::broken(ledger.book().clone(), format!("{}: {}", folder.display(), words(&error))),
    }
}

fn named<'o>(others: impl Iterator<Item = &'o NearbyLedger>) -> String {
    others.map(|other| other.folder.display().to_string()).collect::<Vec<_>>().join(" and ")
}
