//! Watches the files of the sites: through inotify, and by polling for file systems without it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::Stamp;

/// The shortest time between two polls.
const POLL: Duration = Duration::from_secs(5);
/// The thread spends at most one part in this many on polling.
const POLL_SHARE: u32 = 20;
/// Symbolic links on the way to one file.
const LINKS_MAX: usize = 40;

/// File names compared byte by byte: faster than as paths, and there are many.
type FileNames = HashSet<OsString, foldhash::fast::RandomState>;
type FileStamps = HashMap<OsString, Stamp, foldhash::fast::RandomState>;

/// Watches files until it is dropped. The slow work, following links and polling, is done by a
/// thread of its own: there may be twenty thousand files.
pub(super) struct FileWatch {
    changed: Arc<Notify>,
    files: Sender<Vec<(PathBuf, Stamp)>>,
}

/// The thread's state.
struct Looker {
    changed: Arc<Notify>,
    /// The files, as they were at the last look.
    files: FileStamps,
    /// The relevant names: the files', and those of links on the way to them.
    entries: Arc<Mutex<FileNames>>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl FileWatch {
    /// Starts the thread; it watches nothing yet.
    pub(super) fn start() -> Self {
        let changed = Arc::new(Notify::new());
        let (files, lists) = channel();
        let looker = Looker::new(changed.clone());
        if let Err(error) = std::thread::Builder::new().name("files".into()).spawn(move || looker.run(&lists)) {
            tracing::error!(%error, "cannot watch files: run `pintle reload` after each change");
        }
        Self { changed, files }
    }

    /// Replaces the watched files. For new ones, the stamps say what they were like when they were
    /// read.
    pub(super) fn files(&mut self, files: Vec<(PathBuf, Stamp)>) {
        // Fails without the thread, which has been logged.
        let _ = self.files.send(files);
    }

    /// Completes when a file has changed since the last call.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Looker {
    fn new(changed: Arc<Notify>) -> Self {
        let entries = Arc::<Mutex<FileNames>>::default();
        let (word, wanted) = (changed.clone(), entries.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            // Reads are irrelevant, and so are changes to other files of the folder, such as a log.
            let concerns =
                event.need_rescan() || event.paths.iter().any(|path| lock(&wanted).contains(path.as_os_str()));
            if concerns && !event.kind.is_access() {
                word.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "cannot watch files by inotify: they are polled every few seconds");
        });
        Self { changed, files: FileStamps::default(), entries, watcher: watcher.ok(), folders: BTreeSet::new() }
    }

    fn run(mut self, lists: &Receiver<Vec<(PathBuf, Stamp)>>) {
        let mut pause = POLL;
        loop {
            let list = lists.recv_timeout(pause);
            let begin = Instant::now();
            match list {
                Ok(mut files) => {
                    // Only the newest list counts.
                    while let Ok(newer) = lists.try_recv() {
                        files = newer;
                    }
                    self.files = watched(files, &self.files);
                    // Watch first, then look: each later change is seen by one or the other.
                    self.follow();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if look(&mut self.files) {
                // A replaced folder or link changes what is behind it.
                self.follow();
                self.changed.notify_one();
            }
            pause = POLL.max(begin.elapsed() * POLL_SHARE);
        }
    }

    /// Watches the folders that lead to the files now.
    fn follow(&mut self) {
        let mut ways = Ways::default();
        let (mut entries, mut folders) = (FileNames::default(), FileNames::default());
        for file in self.files.keys() {
            ways.follow(Path::new(file), |entry| {
                add_folder(&mut folders, &entry);
                entries.insert(entry.into_os_string());
            });
        }
        *lock(&self.entries) = entries;
        let folders = paths(folders);
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                let _ = watcher.unwatch(gone);
            }
            // A folder that was removed and created again is a new one under the same name, so
            // watch all of them again.
            for folder in &folders {
                let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
            }
        }
        self.folders = folders;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The watched files with their stamps: the stamp of the last look, or, for new files and for files
/// that are still as they were read, the stamp of the read. Such a change is in use already.
fn watched(files: Vec<(PathBuf, Stamp)>, before: &FileStamps) -> FileStamps {
    let mut all = FileStamps::with_capacity_and_hasher(files.len(), <_>::default());
    for (path, read) in files {
        let known = before.get(path.as_os_str()).filter(|known| **known != read && Stamp::of(&path) != read);
        let stamp = known.cloned().unwrap_or(read);
        // If two sites share a file, the first one has read it first.
        all.entry(path.into_os_string()).or_insert(stamp);
    }
    all
}

/// Returns `true` if a file has changed since the last look.
fn look(files: &mut FileStamps) -> bool {
    let mut changed = false;
    for (path, stamp) in files {
        let before = std::mem::replace(stamp, Stamp::of(Path::new(path)));
        changed |= before != *stamp;
    }
    changed
}

/// The ways to many files. The way to a folder is followed once, not for each file in it.
#[derive(Default)]
pub(super) struct Ways {
    /// By folder name, the names that lead to it; the last one is its real path.
    folders: HashMap<OsString, Vec<PathBuf>, foldhash::fast::RandomState>,
}

impl Ways {
    /// Calls `tell` with the same names as [`entries`].
    fn follow(&mut self, file: &Path, mut tell: impl FnMut(PathBuf)) {
        let Ok(path) = std::path::absolute(file) else { return };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return entries(file).into_iter().for_each(tell);
        };
        if !self.folders.contains_key(folder.as_os_str()) {
            self.folders.insert(folder.as_os_str().to_owned(), entries(folder));
        }
        let Some((real, links)) = self.folders.get(folder.as_os_str()).and_then(|way| way.split_last()) else {
            return entries(file).into_iter().for_each(tell);
        };
        links.iter().cloned().for_each(&mut tell);
        let path = real.join(name);
        let target = fs::read_link(&path);
        tell(path);
        if let Ok(target) = target {
            entries(&real.join(target)).into_iter().for_each(tell);
        }
    }

    /// The folders that lead to the files.
    pub(super) fn folders<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
        let mut all = FileNames::default();
        for file in files {
            self.follow(file, |entry| add_folder(&mut all, &entry));
        }
        paths(all)
    }
}

/// Adds the folder of an entry.
fn add_folder(all: &mut FileNames, entry: &Path) {
    if let Some(folder) = entry.parent().filter(|folder| !all.contains(folder.as_os_str())) {
        all.insert(folder.into());
    }
}

fn paths(names: FileNames) -> BTreeSet<PathBuf> {
    names.into_iter().map(PathBuf::from).collect()
}

/// The names that lead to a file: its own, and those of all symbolic links on the way, as in
/// certbot's live/ and Kubernetes' ..data.
pub(super) fn entries(file: &Path) -> Vec<PathBuf> {
    let mut entries = Vec::new();
    let Ok(mut path) = std::path::absolute(file) else { return entries };
    for _ in 0..LINKS_MAX {
        match first_link(&path) {
            Ok((link, next)) => {
                entries.push(link);
                path = next;
            }
            Err(plain) => {
                entries.push(plain);
                break;
            }
        }
    }
    entries
}

/// The first symbolic link on a path, and the path with that link followed. Without a link, the
/// path without `.` and `..`.
fn first_link(path: &Path) -> Result<(PathBuf, PathBuf), PathBuf> {
    let mut walked = PathBuf::new();
    let mut components = path.components();
    while let Some(component) = components.next() {
        match component {
            Component::ParentDir => {
                walked.pop();
            }
            Component::CurDir => {}
            other => walked.push(other),
        }
        if let (Ok(target), Some(parent)) = (fs::read_link(&walked), walked.parent()) {
            let next = parent.join(target).join(components.as_path());
            return Ok((walked, next));
        }
    }
    Err(walked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn followed(ways: &mut Ways, file: &Path) -> Vec<PathBuf> {
        let mut all = Vec::new();
        ways.follow(file, |entry| all.push(entry));
        all
    }

    #[test]
    fn names_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("mount/..one")).unwrap();
        fs::write(root.join("mount/..one/tls.crt"), "x").unwrap();
        symlink("..one", root.join("mount/..data")).unwrap();
        symlink("..data/tls.crt", root.join("mount/tls.crt")).unwrap();
        symlink("mount", root.join("link")).unwrap();
        let want = ["link", "mount/tls.crt", "mount/..data", "mount/..one/tls.crt"].map(|e| root.join(e));
        assert_eq!(entries(&root.join("link/./tls.crt")), want);
        let mut ways = Ways::default();
        for _ in 0..2 {
            assert_eq!(followed(&mut ways, &root.join("link/./tls.crt")), want);
        }
        assert_eq!(followed(&mut ways, &root.join("mount/../a")), [root.join("a")]);
        assert_eq!(followed(&mut ways, Path::new("/")), entries(Path::new("/")));
        let files = [root.join("link/tls.crt"), root.join("link/other")];
        let folders = ways.folders(files.iter().map(PathBuf::as_path));
        assert_eq!(folders, ["", "mount", "mount/..one"].map(|f| root.join(f)).into());
        symlink("loop", root.join("loop")).unwrap();
        assert!(entries(&root.join("loop/x")).len() <= LINKS_MAX);
    }

    #[test]
    fn changes_are_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let read = |stamp: Stamp| vec![(file.clone(), stamp)];
        let mut files = watched(read(Stamp::Absent), &FileStamps::default());
        assert!(!look(&mut files));
        fs::write(&file, "x").unwrap();
        assert!(look(&mut files) && !look(&mut files));
        fs::write(&file, "longer").unwrap();
        assert!(look(&mut files) && !look(&mut files));
        // The contents in use were read before this change, and the change has been reported.
        files = watched(read(Stamp::Absent), &files);
        assert!(!look(&mut files));
        // The contents in use are the present ones.
        fs::write(&file, "longer still").unwrap();
        files = watched(read(Stamp::of(&file)), &files);
        assert!(!look(&mut files));
        // Read, then changed before it was watched.
        let mut files = watched(read(Stamp::Absent), &FileStamps::default());
        assert!(look(&mut files) && !look(&mut files));
    }

    #[test]
    fn of_two_that_have_read_a_file_the_first_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "x").unwrap();
        let twice = vec![(file.clone(), Stamp::Absent), (file.clone(), Stamp::of(&file))];
        assert!(look(&mut watched(twice, &FileStamps::default())));
    }
}
