//! Ledgers in folders beside the state and the configuration: another folder may have been in use last. A folder counts if
//! it is that of a user whom this pintle trusts anyway: anybody else could have made its promises up. If the state has no
//! ledger that was in use, all of its promises are taken along: those for sites that are not configured bind nobody until
//! they are. A folder that was in use looks nowhere, unless a mark in it says which folder has its promises since then: that
//! one counts if it has promises for the configured sites that the state's ledger lacks.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf, absolute};

use super::open_ledger::hints_to_read;
use crate::config::Draft;
use crate::host::HostPattern;
use crate::ledger::repair::{bounded, is_beyond};
use crate::ledger::time::judged_now;
use crate::ledger::{
    Book, FILE, HEAD, LeftMark, MOVED, Notice, OpenError, Record, glance, glance_aside, is_held, is_unused, left_for,
    look, set_id, unreadable,
};
use crate::os::privileges::{USER, UserAccount, is_root, user_name};
use crate::os::words::words;
use crate::policy::promise::{Promise, Seconds};
use crate::reason::pasted::option_for;
use crate::reason::{Reason, shell_word};

/// The ledgers that are read beside the configuration and the state.
const LEDGERS_MAX: usize = 200;
/// The marks that are followed from one folder to the next.
const MARKS_MAX: usize = 8;
/// The largest file of another folder's ledger that is read, in bytes.
const FILE_MAX: u64 = 256 << 20;
/// The folder that the packages use.
const USUAL: &str = "/var/lib/pintle";
/// Write permission for everybody.
const WRITABLE_BY_ALL: u32 = 0o002;

/// The ledgers of other folders. Root looks before it becomes another user, who may see less.
#[derive(Debug, Clone, Default)]
pub struct NearbyLedgers {
    pub(super) counting: Vec<NearbyLedger>,
    /// Root has looked.
    pub(super) by_root: bool,
    left_out: Vec<Reason>,
    /// The promises of folders in which all are over, by a clock that may be ahead.
    over: Vec<Record>,
    /// Folders of root beside the state into which this user cannot look.
    unseen: Vec<PathBuf>,
}

/// A ledger that counts.
#[derive(Debug, Clone)]
pub(super) struct NearbyLedger {
    pub(super) folder: PathBuf,
    /// The user who owns the folder.
    pub(super) owner: u32,
    /// Another pintle uses it now.
    pub(super) is_held: bool,
    /// An upgrade has moved its ledger elsewhere: it has the promises until then.
    pub(super) is_moved: bool,
    /// One of its promises binds a configured site.
    pub(super) is_about_sites: bool,
    /// Clients may hold one of its promises.
    is_alive: bool,
    pub(super) records: Vec<Record>,
}

/// The users whose files and processes count: root, the one that serves, this one, and the owner of the state.
#[must_use]
pub fn trusted_users(draft: &Draft) -> BTreeSet<u32> {
    let of_state = draft.state().and_then(|folder| fs::metadata(folder).ok()).map(|folder| folder.uid());
    [0, this_user()].into_iter().chain(serving_user(draft)).chain(of_state).collect()
}

/// The user that the configuration names, or that root's process becomes without a name.
fn serving_user(draft: &Draft) -> Option<u32> {
    let process = draft.process();
    let name = process.user.as_ref().map(|user| user.value.as_str()).or_else(|| is_root().then_some(USER))?;
    UserAccount::find(name, None).ok().map(|account| account.id())
}

fn this_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl NearbyLedgers {
    /// Looks for them.
    #[must_use]
    pub fn look(draft: &Draft) -> Self {
        let Some(folder) = draft.state() else { return Self::default() };
        let mut found = Self { by_root: is_root(), ..Self::default() };
        let rules = NearbyRules::of(draft, &folder);
        let mut all = if rules.is_used { BTreeSet::new() } else { folders_nearby(draft.path(), &folder) };
        all.extend(promises_taken_to(&folder));
        let beside = fs::canonicalize(folder.parent().unwrap_or(&folder)).ok();
        let is_beside = |other: &&PathBuf| other.parent() == beside.as_deref();
        found.unseen = all.iter().filter(is_beside).filter(|other| is_closed_roots(other)).cloned().collect();
        let mut ledgers = all.iter().filter_map(|other| rules.sight(other));
        for sight in ledgers.by_ref().take(LEDGERS_MAX) {
            match sight {
                NearbySight::Closed(other, error) => found.left_out.push(unread(&other.join(FILE), &error)),
                NearbySight::There(other, is, name) => {
                    let (counts, left_out) = rules.judge(other, &is, name);
                    found.left_out.extend(left_out);
                    match counts {
                        Some(other) if other.is_alive => found.counting.push(other),
                        other => found.over.extend(other.into_iter().flat_map(|other| other.records)),
                    }
                }
            }
        }
        if let (false, more @ 1..) = (rules.is_used, ledgers.count()) {
            let what = format!(
                "{} has no ledger, and beside it or the configuration are more than {LEDGERS_MAX} folders with one: {more} \
                 of them are not read",
                folder.display()
            );
            let hint = "if clients hold promises of one of them: pintle ledger merge";
            found.left_out.push(Reason::new(what).hint(format!("{hint}{} OTHER/{FILE}", option_for(draft.path()))));
        }
        found
    }

    /// Opens the marks of folders with promises for these sites: once the own ledger has them, it may get newer ones. A
    /// folder without a lock's file, or that cannot be written, gets no mark.
    #[must_use]
    pub fn left_behind(&self) -> Vec<LeftMark> {
        let left = self.counting.iter().filter(|other| other.is_about_sites && !other.is_held);
        left.filter_map(|other| LeftMark::open(&other.folder).ok()).collect()
    }

    /// The errors about ledgers that do not count, or that cannot be read.
    #[must_use]
    pub fn left_out(&self) -> &[Reason] {
        &self.left_out
    }

    /// The promises of folders in which all are over, by a clock that may be ahead.
    #[must_use]
    pub fn over(&self) -> &[Record] {
        &self.over
    }

    /// The folders of root beside the state into which this user cannot look: they may have a ledger.
    #[must_use]
    pub fn unseen(&self) -> &[PathBuf] {
        &self.unseen
    }
}

/// A folder that has a ledger, or may have one.
enum NearbySight {
    /// It is a trusted user's, and closed for this one.
    Closed(PathBuf, io::Error),
    /// With the name of the ledger's file.
    There(PathBuf, Metadata, &'static str),
}

/// The rules by which folders are judged.
struct NearbyRules<'d> {
    draft: &'d Draft,
    hosts: Vec<HostPattern>,
    trusted: BTreeSet<u32>,
    /// The user who owns the state, or who will.
    user: u32,
    folder: &'d Path,
    /// The state's own ledger was in use.
    is_used: bool,
    /// Its contents, which somebody may have begun otherwise. They are read once another ledger is found.
    own: OnceCell<Book>,
}

impl<'d> NearbyRules<'d> {
    fn of(draft: &'d Draft, folder: &'d Path) -> Self {
        let of_state = fs::metadata(folder).ok().map(|folder| folder.uid());
        let user = of_state.or_else(|| serving_user(draft)).unwrap_or_else(this_user);
        let (hosts, trusted) = (draft.hosts(), trusted_users(draft));
        Self { draft, hosts, trusted, user, folder, is_used: !is_unused(folder), own: OnceCell::new() }
    }

    fn own(&self) -> &Book {
        // Whoever opens it reports that it cannot be read.
        self.own.get_or_init(|| look(self.folder).map(|(book, _)| book).unwrap_or_default())
    }

    /// A closed folder of root or of another service is none of pintle's.
    fn sight(&self, other: &Path) -> Option<NearbySight> {
        let is = fs::symlink_metadata(other).ok().filter(Metadata::is_dir)?;
        let looks = [FILE, HEAD].map(|name| other.join(name).symlink_metadata());
        if looks.iter().any(Result::is_ok) {
            let is_moved = looks.first().is_some_and(Result::is_err) && other.join(MOVED).symlink_metadata().is_ok();
            return Some(NearbySight::There(other.to_owned(), is, if is_moved { MOVED } else { FILE }));
        }
        let is_ours = is.uid() != 0 && self.trusted.contains(&is.uid());
        let errors = looks.into_iter().filter_map(Result::err);
        let closed = errors.filter(|_| is_ours).find(|error| error.kind() == io::ErrorKind::PermissionDenied);
        closed.map(|error| NearbySight::Closed(other.to_owned(), error))
    }

    /// The ledger of a folder, if it counts, and the error, if there is one.
    fn judge(&self, folder: PathBuf, is: &Metadata, name: &str) -> (Option<NearbyLedger>, Option<Reason>) {
        let distrust = self.distrust(&folder, is, name);
        let (file, is_moved) = (folder.join(name), name == MOVED);
        let looked = if is_moved { glance_aside(&folder, FILE_MAX) } else { glance(&folder, FILE_MAX) };
        let (book, notices) = match looked {
            Ok(found) => found,
            // Anybody can make a file that nobody can read.
            Err(_) if distrust.is_some() => return (None, None),
            Err(error) if is_moved => return (None, Some(unread(&file, &error))),
            Err(error) => return (None, Some(unread(&unreadable(&folder), &error))),
        };
        let (now, _) = judged_now(book.newest());
        let is_held = is_held(&folder);
        let book = self.counted(&book, is_held);
        let is_about_sites = is_about(&book, &self.hosts, now);
        if self.is_used && !is_about_sites {
            return (None, None);
        }
        let merge = |at: &Path| {
            format!("pintle ledger merge{} {}", option_for(self.draft.path()), shell_word(&at.display().to_string()))
        };
        if let Some(why) = distrust {
            let reason = is_about_sites.then(|| {
                let what = format!("{} has promises for these sites, and {why}: they do not count", file.display());
                Reason::new(what).hint(format!("if clients hold them: {}", merge(&file)))
            });
            return (None, reason);
        }
        let damage = (!is_held && notices.iter().any(Notice::is_loss)).then(|| {
            let what = format!("{}: {}", file.display(), OpenError::Damaged(notices));
            let reason = Reason::new(what).note("the rest of it counts");
            reason.hint(format!("if you have a newer copy of the file: {}", merge(Path::new("COPY"))))
        });
        let is_own = is.uid() == 0 || is.uid() == self.user;
        // A running pintle's folder was never that of this configuration, or it is another node's, which has its own ledger.
        if is_held && (self.is_used || !is_about_sites) {
            return (None, damage);
        }
        let is_alive = book.records().any(|record| is_promise(&record, |promise| promise.is_alive(now)));
        let records = taken(&book, is_own && is_alive);
        let owner = is.uid();
        (Some(NearbyLedger { folder, owner, is_held, is_moved, is_about_sites, is_alive, records }), damage)
    }

    /// The part of another ledger that the state's own one lacks, without promises that the operator has declined.
    fn counted(&self, theirs: &Book, is_held: bool) -> Book {
        let own = self.own();
        let (now, _) = judged_now(own.newest());
        let has_set = |promise: &Promise| own.promises().iter().any(|known| set_id(known) == set_id(promise));
        // In a ledger that is in use, a date that cannot be right would make this machine's clock look wrong. If it has the
        // set, the own date is the better one: a repair may have corrected it.
        let dated = |record: Record| match self.is_used && is_beyond(&record, now) {
            true if is_promise(&record, has_set) => None,
            true => Some(bounded(record, now)),
            false => Some(record),
        };
        let is_declined = |record: &Record| is_promise(record, |promise| own.declines(promise, is_held));
        let news = own.news(theirs).into_iter().filter_map(dated).filter(|record| !is_declined(record));
        let mut counted = Book::default();
        news.for_each(|record| _ = counted.apply(record));
        counted
    }

    /// The reason why a folder's ledger does not count.
    fn distrust(&self, folder: &Path, is: &Metadata, name: &str) -> Option<String> {
        let files = [name, HEAD].map(|name| folder.join(name));
        let files = files.iter().filter_map(|file| Some((file.as_path(), fs::symlink_metadata(file).ok()?)));
        let mut all = vec![(folder, is.clone())];
        all.extend(files);
        all.into_iter().find_map(|(path, is)| {
            let path = path.display();
            if !self.trusted.contains(&is.uid()) {
                return Some(format!("{path} belongs to the user {}", user_name(is.uid())));
            }
            // The mode of a link says nothing, and nobody reads through it.
            let is_open = !is.is_symlink() && is.mode() & WRITABLE_BY_ALL != 0;
            is_open.then(|| format!("everybody can change {path}"))
        })
    }
}

/// Returns `true` for a folder of root, if this user cannot look into it.
fn is_closed_roots(other: &Path) -> bool {
    let is_roots = fs::symlink_metadata(other).is_ok_and(|is| is.is_dir() && is.uid() == 0);
    let look = || other.join(FILE).symlink_metadata();
    is_roots && look().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The error for a file that cannot be read.
fn unread(file: &Path, error: &io::Error) -> Reason {
    let what = format!("{}: cannot read the promises: {}", file.display(), words(error));
    Reason::new(what).note("if they are for these sites, they do not count").hints(hints_to_read(file, error))
}

/// `true` if clients of some hosts may hold a promise of a ledger.
pub(super) fn is_about(book: &Book, hosts: &[HostPattern], now: Seconds) -> bool {
    let binds = |promise: &Promise| promise.is_alive(now) && hosts.iter().any(|host| promise.binds(host, &[]));
    book.records().any(|record| is_promise(&record, binds))
}

/// The records of a ledger that are taken along: all promises, as the clock that shows one to be over may be wrong. The dates
/// are those of its clock, as at a start in its folder. With `is_own`, the user's decisions go along, too: the folder may have
/// been moved.
fn taken(book: &Book, is_own: bool) -> Vec<Record> {
    // A lockout that was accepted there stays accepted: the chain may be in use.
    let goes_along = |record: &Record| {
        let is_decision = matches!(record, Record::Accepted(_) | Record::Replaced(_) | Record::Declined(_));
        is_decision || matches!(record, Record::Burnt(_) | Record::Unknown(_))
    };
    let taken = |record: Record| match record {
        Record::Unknown(json) if !is_own => Record::strictest(&json).map(Record::Promise),
        record => (is_promise(&record, |_| true) || is_own && goes_along(&record)).then_some(record),
    };
    book.records().filter_map(taken).collect()
}

/// `true` if a record is a promise, perhaps a newer version's, that is meant.
pub(super) fn is_promise(record: &Record, is_meant: impl Fn(&Promise) -> bool) -> bool {
    match record {
        Record::Promise(promise) => is_meant(promise),
        Record::Unknown(json) => Record::strictest(json).as_ref().is_some_and(is_meant),
        _ => false,
    }
}

/// The folders beside the state and beside the configuration, and the usual one, each once and under its real name.
fn folders_nearby(file: &Path, folder: &Path) -> BTreeSet<PathBuf> {
    let own = fs::canonicalize(folder).ok();
    let mut found = vec![PathBuf::from(USUAL)];
    for path in [folder, file].map(|path| absolute(path).unwrap_or_else(|_| path.to_owned())) {
        found.extend(entries(path.parent()));
        found.extend(beside_targets(&path));
    }
    let real = found.into_iter().filter_map(|other| fs::canonicalize(other).ok());
    real.filter(|other| Some(other) != own.as_ref()).collect()
}

/// The same path in the folders beside the targets of its links: somebody may have pointed one of them elsewhere.
fn beside_targets(path: &Path) -> Vec<PathBuf> {
    let links = path.ancestors().filter(|part| part.is_symlink());
    let targets = links.filter_map(|link| Some((fs::canonicalize(link).ok()?, path.strip_prefix(link).ok()?)));
    let beside = targets.flat_map(|(target, rest)| entries(target.parent()).into_iter().map(move |at| at.join(rest)));
    beside.collect()
}

/// The folders that a folder's promises were taken along to, one after the other, as the marks say. A folder that is gone
/// has no mark.
fn promises_taken_to(folder: &Path) -> Vec<PathBuf> {
    let own = fs::canonicalize(folder).ok();
    let is_other = |to: &PathBuf| Some(to) != own.as_ref();
    let marked = |at: &Path| left_for(at).and_then(|to| fs::canonicalize(to).ok()).filter(is_other);
    let (mut found, mut next) = (Vec::new(), marked(folder));
    while let Some(at) = next.take().filter(|at| found.len() < MARKS_MAX && !found.contains(at)) {
        next = marked(&at);
        found.push(at);
    }
    found
}

fn entries(folder: Option<&Path>) -> Vec<PathBuf> {
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::pin::Pin;
    use crate::ledger::time::wall;
    use crate::ledger::{Burnt, Declined};
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::PromiseChannel;

    /// Of another user's folder, promises go along, and nothing else.
    #[test]
    fn only_promises_of_another_user_go_along() {
        let hosts = [HostPattern::parse("a.example").unwrap()];
        let promise = Record::Promise(Promise {
            site: "a.example".into(),
            hosts: hosts.to_vec(),
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"")],
            max_age: 1000,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: wall(),
            last_sent: wall(),
        });
        let burnt = Record::Burnt(Burnt { site: "a.example".into(), pin: Pin::of_spki(b"x"), at: wall() });
        let mut book = Book::default();
        [&burnt, &promise].into_iter().for_each(|record| _ = book.apply(record.clone()));
        let now = wall();
        assert_eq!(taken(&book, false), std::slice::from_ref(&promise));
        assert_eq!(taken(&book, true), [promise.clone(), burnt]);
        let others = [HostPattern::parse("b.example").unwrap()];
        assert!(is_about(&book, &hosts, now) && !is_about(&book, &others, now));
        // What is declined counts once it is promised later.
        let Record::Promise(promise) = promise else { panic!() };
        let mut own = Book::default();
        own.apply(Record::Declined(Declined { set: set_id(&promise), at: now }));
        assert!(own.declines(&promise, false) && own.records().count() == 1);
        let (renewed, later) = (
            Promise { last_sent: now + 900_000, ..promise.clone() },
            Promise { first_sent: now + 9, last_sent: now + 9, ..promise },
        );
        assert!(!own.declines(&later, false) && !own.declines(&later, true));
        // A running neighbour renews its leases.
        assert!(!own.declines(&renewed, false) && own.declines(&renewed, true));
    }
}
