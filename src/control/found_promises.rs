//! A folder without a ledger, while another folder has one with promises for the same sites: somebody has moved the folder,
//! or named another one. Clients hold these promises wherever the file is. So they count, and the new ledger begins with them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::nearby_ledgers::{NearbyLedger, NearbyLedgers};
use crate::config::{Draft, acme};
use crate::ledger::time::judged_now;
use crate::ledger::{Book, FILE, HEAD, LOCK, Ledger, MOVED, News, Record, is_new, is_unused};
use crate::os::privileges::user_name;
use crate::os::words::words;
use crate::reason::{Reason, shell_path, shell_word};

/// Promises in the ledgers of other folders, while a configuration's own has none.
#[derive(Debug, Clone)]
pub struct FoundPromises {
    /// The folder without a ledger.
    folder: PathBuf,
    /// The user who owns it, or who will.
    user: u32,
    /// The hints are for root.
    by_root: bool,
    /// The folders with these promises.
    others: Vec<NearbyLedger>,
    book: Book,
}

impl FoundPromises {
    /// The promises that were found. `None` if the configuration's own ledger was in use, or if there are none.
    #[must_use]
    pub fn of(draft: &Draft, nearby: &NearbyLedgers) -> Option<Self> {
        let folder = draft.state().filter(|folder| is_unused(folder))?;
        let NearbyLedgers { counting, user, by_root, .. } = nearby;
        let (user, by_root) = (*user, *by_root);
        let mut found = Self { folder, user, by_root, others: Vec::new(), book: Book::default() };
        for other in counting {
            // A copy of a folder says nothing new.
            let taken = other.records.iter().filter(|record| found.book.apply((*record).clone())).count();
            if taken > 0 {
                found.others.push(other.clone());
            }
        }
        if found.others.is_empty() {
            return None;
        }
        // As after a merge: refusing a pair that was served last helps nobody.
        let news = News::of(&found.book.records().collect::<Vec<_>>());
        let (now, _) = judged_now(found.book.newest());
        let excuses = draft.excuses(&news, |promise| !news.has(promise), &found.book, now);
        excuses.records.into_iter().for_each(|excuse| _ = found.book.apply(Record::Accepted(excuse)));
        Some(found)
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.book.records()
    }

    /// Returns the warning, with the ways to keep everything and to forget them.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let named_if = |is_about| named(self.others.iter().filter(|other| other.is_about_sites == is_about));
        let (about_sites, others) = (named_if(true), named_if(false));
        let lacks = if is_new(&self.folder) { "has no ledger" } else { "has no ledger that was in use" };
        let folder = self.folder.display();
        let reason = match about_sites.is_empty() {
            true => Reason::new(format!(
                "{folder} {lacks}, and {others} has one with promises for other sites: the new ledger begins \
                 with them, and they count once such a site is here"
            )),
            false => Reason::new(format!(
                "{folder} {lacks}, and {about_sites} has one with promises for these sites: they count, and \
                 the new ledger begins with them"
            )),
        };
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
        let is_meant = |other: &&NearbyLedger| !other.is_held && (other.is_about_sites || about_sites.is_empty());
        let copies = self.others.iter().filter(is_meant).filter_map(|other| self.to_copy(other));
        let purpose = match about_sites.is_empty() {
            true => "if it was the state of this configuration, to keep its keys, too",
            false => "to keep the keys, too",
        };
        let copies = copies.map(|copy| format!("{purpose}: stop pintle, `{copy}`, and start it"));
        let anew = self.to_begin_anew();
        reason
            .hints(copies)
            .hint(format!("if no client holds them, begin without them: stop pintle, `{anew}`, and start it"))
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

    /// The command after which the folder has an empty ledger of its own.
    fn to_begin_anew(&self) -> String {
        let [file, head, lock] = [FILE, HEAD, LOCK].map(|name| shell_path(&self.folder.join(name)));
        let to = shell_path(&self.folder);
        let user = fs::metadata(&self.folder).map_or(self.user, |own| own.uid());
        let by = self.as_user(user, &to);
        let empty = format!("install -m 600 /dev/null {file}");
        match self.folder.exists() {
            // The start has written a new ledger.
            true => format!("{by}rm -f {head} {lock} && {by}{empty}"),
            false if self.is_for_root(user) => {
                format!("install -d -o {} -m 700 {to} && {by}{empty}", shell_word(&user_name(user)))
            }
            false => format!("mkdir -p -m 700 {to} && {empty}"),
        }
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
