//! Stores over one folder: what a process leaves is what the next one finds.

mod faults;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::samples::{sample_for, sample_with};
use super::site::DiskCounts;
use super::{DiskService, SiteDisk};
use crate::cache::page::{CachedPage, VARIANTS_MAX};
use crate::cache::page_key::PageKey;
use crate::cache::purge::PurgeScope;
use crate::cache::store::Store;
use crate::message::Fields;

const BUDGET: u64 = 1 << 20;

/// A process: its store, and the threads for its files.
struct Process {
    service: Arc<DiskService>,
    disk: Arc<SiteDisk>,
    store: Store,
}

impl Process {
    fn start(folder: &Path) -> Self {
        Self::with(folder, BUDGET)
    }

    fn with(folder: &Path, budget: u64) -> Self {
        let process = Self::closed(folder, budget);
        process.disk.open();
        process.service.keep(vec![process.disk.id().to_owned()]);
        process
    }

    /// Its disk is not in use yet.
    fn closed(folder: &Path, budget: u64) -> Self {
        let service = DiskService::new(folder.to_owned());
        let disk = SiteDisk::new(&service, "a site", budget);
        let store = Store::new(8 << 20, 1 << 20);
        store.attach(Some(disk.clone()));
        Self { service, disk, store }
    }

    fn put(&self, target: &str, more: &str, body: &[u8]) {
        assert!(self.store.put(&key_of(target), sample_with(more, body), self.store.generation()));
    }

    /// Waits until all is on disk.
    fn settled(&self) -> Result<(), String> {
        assert!(self.service.settle(std::time::Duration::from_secs(60)));
        self.disk.settled().blocking_recv().unwrap()
    }

    fn recall(&self, target: &str) -> Option<CachedPage> {
        let key = key_of(target);
        if !self.disk.may_have(&key, self.store.peek(&key).as_ref(), 0) {
            return self.store.peek(&key);
        }
        let recalled = self.disk.recall(&key, self.store.epoch()).unwrap().blocking_recv().unwrap();
        self.store.promote(&key, &self.disk, &recalled)
    }

    /// The body of a page, and whether it must be validated.
    fn get(&self, target: &str) -> Option<(Vec<u8>, bool)> {
        let stored = self.recall(target)?.find(&Fields::default()).cloned()?;
        Some((stored.body.to_vec(), stored.is_invalid(self.store.epoch())))
    }

    fn files(&self) -> usize {
        self.disk.size().0
    }

    fn end(self) {
        self.settled().unwrap();
        self.kill();
    }

    fn kill(self) {
        self.service.end();
    }
}

fn key_of(target: &str) -> PageKey {
    PageKey::of_page(b"a.example", None, None, target.as_bytes())
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(all_files(&path)) } else { all.push(path) }
    }
    all
}

fn pages_in(folder: &Path) -> Vec<PathBuf> {
    all_files(folder).into_iter().filter(|path| path.file_name().unwrap().len() == 49).collect()
}

#[test]
fn the_next_process_finds_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    let first = Process::start(&root);
    for n in 0..50 {
        first.put(&format!("/{n}"), "ETag: \"x\"\r\n", format!("body {n}").as_bytes());
    }
    first.put("/", "", b"");
    first.end();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for path in all_files(&root) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        assert_eq!(mode(path.parent().unwrap()), 0o700, "{}", path.display());
    }
    assert_eq!(mode(&root), 0o700);
    let second = Process::start(&root);
    // Before, while and after it looks through the folders.
    for n in 0..50 {
        assert_eq!(second.get(&format!("/{n}")), Some((format!("body {n}").into_bytes(), false)), "{n}");
    }
    assert_eq!((second.get("/"), second.get("/missing")), (Some((Vec::new(), false)), None));
    second.settled().unwrap();
    assert_eq!((second.files(), second.disk.size().2), (51, true));
    // What is in memory is not read again.
    let read = second.disk.counts.read.load(Ordering::Relaxed);
    assert_eq!((second.get("/1").is_some(), second.disk.counts.read.load(Ordering::Relaxed)), (true, read));
    // A newer response takes the place of the older one.
    second.put("/1", "ETag: \"y\"\r\n", b"new");
    second.end();
    let third = Process::start(&root);
    assert_eq!(third.get("/1"), Some((b"new".to_vec(), false)));
    third.kill();
}

#[test]
fn variants_are_found_each() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    for (language, body) in [("de", "hallo"), ("en", "hello")] {
        let mut sent = Fields::default();
        sent.push(b"Accept-Language", language.as_bytes());
        let stored = sample_for("Vary: Accept-Language\r\n", &sent, body.as_bytes());
        assert!(first.store.put(&key_of("/v"), stored, first.store.generation()));
    }
    first.end();
    let second = Process::start(dir.path());
    let page = second.recall("/v").unwrap();
    assert_eq!(page.variants().len(), 2);
    let mut asked = Fields::default();
    asked.push(b"Accept-Language", b"en");
    assert_eq!(&*page.find(&asked).unwrap().body, b"hello");
    // One variant is dropped; the other one stays.
    let dropped = page.find(&asked).unwrap().clone();
    second.store.remove(&key_of("/v"), &dropped);
    second.end();
    let third = Process::start(dir.path());
    let page = third.recall("/v").unwrap();
    assert_eq!((page.variants().len(), &*page.variants()[0].body), (1, &b"hallo"[..]));
    third.kill();
}

#[test]
fn purges_outlive_the_process() {
    let scope = |text: &str| match text.split_once(' ') {
        Some(("url", path)) => PurgeScope::Url(b"a.example".to_vec(), path.as_bytes().to_vec()),
        Some(("prefix", path)) => PurgeScope::Prefix(b"a.example".to_vec(), path.as_bytes().to_vec()),
        Some((_, tag)) => PurgeScope::Tag(tag.as_bytes().to_vec()),
        None => PurgeScope::Site,
    };
    let targets = [("/a", "x"), ("/a/b", "x, y"), ("/ab", "y"), ("/c?d", "z")];
    for (purge, count, left) in [
        ("url /a", 1, [false, true, true, true]),
        ("prefix /a", 2, [false, false, true, true]),
        ("tag y", 2, [true, false, false, true]),
        ("tag none", 0, [true; 4]),
        ("site", 4, [false; 4]),
    ] {
        for is_soft in [false, true] {
            // Before all files are known, and after.
            for knows in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let first = Process::start(dir.path());
                for (target, tags) in targets {
                    first.put(target, &format!("ETag: \"x\"\r\nCache-Tag: {tags}\r\n"), target.as_bytes());
                }
                first.end();
                let second = Process::closed(dir.path(), BUDGET);
                second.disk.open();
                if knows {
                    second.service.keep(vec![second.disk.id().to_owned()]);
                    second.settled().unwrap();
                }
                let purged = second.store.purge(&scope(purge), is_soft);
                assert!(!knows || purged == count, "{purge}: {purged}");
                second.service.keep(vec![second.disk.id().to_owned()]);
                let what = format!("{purge}, soft: {is_soft}, known: {knows}");
                let check = |process: &Process| {
                    for ((target, _), stays) in targets.iter().zip(left) {
                        let want = match (stays, is_soft) {
                            (true, _) => Some((target.as_bytes().to_vec(), false)),
                            (false, true) => Some((target.as_bytes().to_vec(), true)),
                            (false, false) => None,
                        };
                        assert_eq!(process.get(target), want, "{what}: {target}");
                    }
                };
                second.settled().unwrap();
                // As after a kill: nothing else is written.
                let third = Process::start(dir.path());
                third.settled().unwrap();
                check(&third);
                check(&second);
                assert_eq!(third.files(), if is_soft { 4 } else { 4 - count }, "{what}");
                second.kill();
                third.kill();
            }
        }
    }
}

/// A change by an unsafe method, and a purge of a response that waits to be written.
#[test]
fn changes_reach_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is written yet: the threads have not begun.
    let first = Process::closed(dir.path(), BUDGET);
    first.disk.open();
    for target in ["/kept", "/changed", "/purged", "/tagged"] {
        first.put(target, "ETag: \"x\"\r\nCache-Tag: t\r\n", b"x");
    }
    first.store.invalidate(&key_of("/changed"), &[]);
    first.store.purge(&PurgeScope::Url(b"a.example".to_vec(), b"/purged".to_vec()), false);
    first.service.keep(vec![first.disk.id().to_owned()]);
    first.settled().unwrap();
    first.store.invalidate(&key_of("/tagged"), &[]);
    first.end();
    let second = Process::start(dir.path());
    for (target, want) in [("/kept", Some(false)), ("/changed", Some(true)), ("/purged", None), ("/tagged", Some(true))]
    {
        assert_eq!(second.get(target).map(|(_, is_invalid)| is_invalid), want, "{target}");
    }
    // A new response ends the need for validation.
    second.put("/changed", "ETag: \"y\"\r\n", b"y");
    second.end();
    let third = Process::start(dir.path());
    assert_eq!(third.get("/changed"), Some((b"y".to_vec(), false)));
    third.kill();
}

#[test]
fn the_budget_holds() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    let sizes = |process: &Process| (process.disk.size().1, pages_in(dir.path()).len() as u64 * 8192);
    for n in 0..500 {
        first.put(&format!("/{n}"), "", &[0; 5000]);
        first.settled().unwrap();
    }
    let (known, real) = sizes(&first);
    assert!(known <= BUDGET && real == known && known > BUDGET * 9 / 10, "{known} {real}");
    let counted =
        |count: fn(&DiskCounts) -> &std::sync::atomic::AtomicU64| count(&first.disk.counts).load(Ordering::Relaxed);
    // A full disk is not flushed by what is asked for once.
    assert_eq!(counted(|counts| &counts.evicted), 0);
    assert!(first.get("/0").is_some() && !first.disk.may_have(&key_of("/499"), None, 0));
    // What is used again takes the place of another one.
    let used = first.store.peek(&key_of("/499")).unwrap().variants()[0].clone();
    assert!(used.is_note_due(0) && !used.is_note_due(1));
    first.store.used(&key_of("/499"), &used);
    first.settled().unwrap();
    assert!(first.disk.may_have(&key_of("/499"), None, 0) && counted(|counts| &counts.evicted) > 0);
    first.end();
    // A smaller budget of the next process.
    let second = Process::with(dir.path(), BUDGET / 4);
    second.settled().unwrap();
    let (known, real) = sizes(&second);
    assert!(known <= BUDGET / 4 && real == known, "{known} {real}");
    second.put("/large", "", &vec![0; usize::try_from(BUDGET / 8).unwrap()]);
    second.settled().unwrap();
    assert!(!second.disk.may_have(&key_of("/large"), None, 0), "larger than a quarter");
    second.kill();
}

/// The variants of a page on disk are as many as those in memory.
#[test]
fn variants_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    for n in 0..VARIANTS_MAX + 8 {
        let sent = Fields::of(&[("A", &n.to_string())]);
        assert!(first.store.put(&key_of("/"), sample_for("Vary: A\n", &sent, b"x"), first.store.generation()));
        first.settled().unwrap();
    }
    assert_eq!(first.disk.files(&PurgeScope::page(&key_of("/"))), VARIANTS_MAX);
    assert_eq!(all_files(dir.path()).len(), VARIANTS_MAX);
    assert!(!first.disk.may_have(&key_of("/"), first.store.peek(&key_of("/")).as_ref(), 0));
    first.kill();
}

/// A process that has left the folder does not look through it: its successor does.
#[test]
fn a_folder_that_was_left_is_not_looked_through() {
    let dir = tempfile::tempdir().unwrap();
    let left = Process::closed(dir.path(), BUDGET);
    left.disk.open();
    left.disk.close();
    let new = dir.path().join(left.disk.id()).join("00");
    fs::create_dir_all(&new).unwrap();
    let new = new.join("0.new");
    fs::write(&new, "a successor writes it").unwrap();
    left.service.keep(vec![left.disk.id().to_owned()]);
    assert!(left.service.settle(std::time::Duration::from_secs(60)));
    assert!(new.exists() && !left.disk.size().2);
    left.kill();
}

#[test]
fn too_many_that_wait_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::closed(dir.path(), 64 << 20);
    first.disk.open();
    for n in 0..400 {
        first.put(&format!("/{n}"), "", b"x");
    }
    assert_eq!(first.disk.counts.dropped.load(Ordering::Relaxed), 400 - 256);
    for n in 0..10 {
        // The same response again takes no further place.
        first.put("/1", "", format!("{n}").as_bytes());
    }
    assert_eq!(first.disk.counts.dropped.load(Ordering::Relaxed), 400 - 256);
    first.service.keep(vec![first.disk.id().to_owned()]);
    first.settled().unwrap();
    assert_eq!(first.files(), 256);
    // Once it is used again, a dropped one gets its place.
    let stored = first.store.peek(&key_of("/399")).unwrap().variants()[0].clone();
    first.store.used(&key_of("/399"), &stored);
    first.end();
    let second = Process::start(dir.path());
    assert_eq!((second.get("/1"), second.get("/399")), (Some((b"9".to_vec(), false)), Some((b"x".to_vec(), false))));
    second.kill();
}

/// An upgrade: one process leaves the folder, another begins to use it.
#[test]
fn two_processes_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let old = Process::start(dir.path());
    old.put("/old", "", b"old");
    old.settled().unwrap();
    let new = Process::closed(dir.path(), BUDGET);
    new.service.keep(vec![new.disk.id().to_owned()]);
    assert!(new.get("/old").is_none(), "it is not in use yet");
    old.put("/late", "", b"late");
    old.disk.close();
    assert!(old.service.settle(std::time::Duration::from_secs(60)));
    new.disk.open();
    old.put("/drained", "", b"drained");
    for (target, want) in [("/old", true), ("/late", true), ("/drained", false)] {
        assert_eq!(new.get(target).is_some(), want, "{target}");
    }
    // The new one did not begin to serve: the old one continues, with what the other has changed.
    new.store.purge(&PurgeScope::Url(b"a.example".to_vec(), b"/old".to_vec()), false);
    new.settled().unwrap();
    new.disk.close();
    old.disk.open();
    old.settled().unwrap();
    old.store.purge(&PurgeScope::Site, false);
    assert!(old.get("/old").is_none());
    old.end();
    assert!(pages_in(dir.path()).is_empty());
    new.kill();
}

/// A file that vanishes is a miss, and a restored response keeps its age.
#[test]
fn files_that_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    first.put("/a", "", b"a");
    first.settled().unwrap();
    let second = Process::start(dir.path());
    second.settled().unwrap();
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(second.get("/a").is_none() && second.files() == 0);
    // The folder is made again.
    second.put("/b", "", b"b");
    second.end();
    let third = Process::start(dir.path());
    assert_eq!(third.get("/b"), Some((b"b".to_vec(), false)));
    third.kill();
    first.kill();
}
