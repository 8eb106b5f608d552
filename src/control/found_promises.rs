//! A folder without a ledger, while another folder has one with promises for the same sites: somebody has moved the folder,
//! or named another one. Clients hold these promises wherever the file is. So they count, and the new ledger begins with them.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use crate::config::Draft;
use crate::host::HostPattern;
use crate::ledger::repair::bounded;
use crate::ledger::time::wall;
use crate::ledger::{Book, FILE, HEAD, LOCK, Ledger, News, Record, is_new, look};
use crate::os::words::words;
use crate::policy::promise::{Promise, Seconds};
use crate::reason::{Reason, shell_word};

/// The folders that are looked at beside the configuration and the state.
const FOLDERS_MAX: usize = 200;
/// The folder that the packages use.
const USUAL: &str = "/var/lib/pintle";

/// Promises for a configuration's sites in the ledgers of other folders, while its own has none.
#[derive(Debug, Clone)]
pub struct FoundPromises {
    /// The folder without a ledger.
    folder: PathBuf,
    /// The folders with these promises.
    others: Vec<PathBuf>,
    book: Book,
}

impl FoundPromises {
    /// Looks for them. `None` if the configuration's own folder has a ledger, or if there are none.
    #[must_use]
    pub fn of(draft: &Draft) -> Option<Self> {
        let folder = draft.state().filter(|folder| is_new(folder))?;
        let (hosts, now) = (draft.hosts(), wall());
        let mut found = Self { others: Vec::new(), book: Book::default(), folder };
        for other in folders_nearby(draft.path(), &found.folder) {
            let Some(records) = about(&other, &hosts, now) else { continue };
            // The same folder may have two names.
            let taken = records.into_iter().filter(|record| found.book.apply(record.clone())).count();
            if taken > 0 {
                found.others.push(other);
            }
        }
        if found.others.is_empty() {
            return None;
        }
        // As after a merge: refusing a pair that was served last helps nobody.
        let news = News::of(&found.book.records().collect::<Vec<_>>());
        let excuses = draft.excuses(&news, |promise| !news.has(promise), &found.book, now);
        excuses.records.into_iter().for_each(|excuse| _ = found.book.apply(Record::Accepted(excuse)));
        Some(found)
    }

    /// Returns the promises, with accepted lockouts and burnt keys, as records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.book.records()
    }

    /// Begins the folder's ledger with the promises. If they cannot be written, the ledger knows them
    /// nevertheless, and writes them once it can.
    #[must_use]
    pub fn taken_into(&self, mut ledger: Ledger) -> Ledger {
        let is_broken = ledger.is_broken();
        let written = if is_broken { Ok(()) } else { ledger.record(self.records().collect()) };
        ledger.believe(self.records().collect());
        match written {
            Ok(()) => ledger,
            // It is opened again later, and all of its book written.
            Err(error) => {
                Ledger::broken(ledger.book().clone(), format!("{}: {}", self.folder.display(), words(&error)))
            }
        }
    }

    /// Returns the warning, with the ways to keep everything and to forget them.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let named: Vec<String> = self.others.iter().map(|other| other.display().to_string()).collect();
        let what = format!(
            "{} has no ledger, and {} has one with promises for these sites: they count, and the new ledger begins with \
             them",
            self.folder.display(),
            named.join(" and ")
        );
        let word = |path: &Path| shell_word(&path.display().to_string());
        let aside = self.others.iter().map(|other| {
            let aside = format!("{}.aside", other.display());
            format!("mkdir {} && mv {} {}/ && ", shell_word(&aside), word(other), shell_word(&aside))
        });
        let own: Vec<String> = [FILE, HEAD, LOCK].iter().map(|name| word(&self.folder.join(name))).collect();
        let to = word(&self.folder);
        // The start has written a new ledger: it stays.
        let copies = self.others.iter().map(|other| {
            let from = word(other);
            format!("to keep the keys, too: stop pintle, `mkdir -p {to} && cp -an {from}/. {to}/`, and start it")
        });
        Reason::new(what).hints(copies).hint(format!(
            "if no client holds them, begin without them: stop pintle, `{}rm -f {}`, and start it",
            aside.collect::<String>(),
            own.join(" ")
        ))
    }
}

/// The records of a folder's ledger that concern some hosts; `None` without a promise that clients of these may hold. Of a
/// clock that was wrong, a promise counts as sent until now.
fn about(folder: &Path, hosts: &[HostPattern], now: Seconds) -> Option<Vec<Record>> {
    if is_new(folder) {
        return None;
    }
    let (book, _) = look(folder).ok()?;
    let records: Vec<Record> = book.records().map(|record| bounded(record, now)).collect();
    let binds = |promise: &Promise| promise.is_alive(now) && hosts.iter().any(|host| promise.binds(host, &[]));
    let is_promise = |record: &Record| match record {
        Record::Promise(promise) => binds(promise),
        Record::Unknown(json) => Record::strictest(json).as_ref().is_some_and(binds),
        _ => false,
    };
    // A lockout that was accepted there stays accepted, as if the folder had been moved: the chain may be in use.
    let goes_along = |record: &Record| {
        matches!(record, Record::Accepted(_) | Record::Replaced(_) | Record::Burnt(_) | Record::Unknown(_))
    };
    if !records.iter().any(is_promise) {
        return None;
    }
    Some(records.into_iter().filter(|record| is_promise(record) || goes_along(record)).collect())
}

/// The folders beside the state and beside the configuration, and the usual one.
fn folders_nearby(file: &Path, folder: &Path) -> Vec<PathBuf> {
    let [file, folder] = [file, folder].map(|path| absolute(path).unwrap_or_else(|_| path.to_owned()));
    let mut found: Vec<PathBuf> = vec![USUAL.into()];
    for parent in [folder.parent(), file.parent()].into_iter().flatten() {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten().take(FOLDERS_MAX);
        found.extend(entries.map(|entry| entry.path()));
    }
    found.retain(|other| *other != folder);
    found
}
