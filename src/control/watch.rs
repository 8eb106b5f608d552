//! Watches the files that sites are made from: by the kernel's word at once, and by their contents now and then, for
//! file systems that give no word.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::key_file::FILE_MAX;

/// How often contents are looked at, at least.
const POLL: Duration = Duration::from_secs(5);
/// The share of its time that the thread spends looking: one part in so many.
const POLL_SHARE: u32 = 20;
/// Symbolic links on the way to one file.
const LINKS_MAX: usize = 40;

/// Watches files until it is dropped. All that takes its time, following links and reading, happens on a thread of its
/// own: there may be twenty thousand files.
pub(super) struct Watch {
    changed: Arc<Notify>,
    files: Sender<Vec<PathBuf>>,
}

/// What the thread has.
struct Looker {
    changed: Arc<Notify>,
    files: Vec<PathBuf>,
    /// What their contents were.
    known: HashMap<PathBuf, Option<[u8; 32]>>,
    /// The names that matter: the files', and those of links on the way to them.
    entries: Arc<Mutex<BTreeSet<PathBuf>>>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn start() -> Self {
        let changed = Arc::new(Notify::new());
        let (files, lists) = channel();
        let looker = Looker::new(changed.clone());
        if let Err(error) = std::thread::Builder::new().name("files".into()).spawn(move || looker.run(&lists)) {
            tracing::error!(%error, "files cannot be watched: `pintle reload` takes up what has changed");
        }
        Self { changed, files }
    }

    /// Watches these files, and no others.
    pub(super) fn files(&mut self, files: Vec<PathBuf>) {
        // Without the thread there is nobody to watch them, which has been told.
        let _ = self.files.send(files);
    }

    /// Done when something has changed since the last time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Looker {
    fn new(changed: Arc<Notify>) -> Self {
        let entries = Arc::<Mutex<BTreeSet<PathBuf>>>::default();
        let (word, wanted) = (changed.clone(), entries.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            // That files were read is no news, nor is what happens to others in the same folder: a log, for one.
            let concerns = event.need_rescan() || event.paths.iter().any(|path| lock(&wanted).contains(path));
            if concerns && !event.kind.is_access() {
                word.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::warn!(%error, "files cannot be watched; their contents are looked at every few seconds");
        });
        let (files, known, folders) = (Vec::new(), HashMap::new(), BTreeSet::new());
        Self { changed, files, known, entries, watcher: watcher.ok(), folders }
    }

    fn run(mut self, lists: &Receiver<Vec<PathBuf>>) {
        let mut pause = POLL;
        loop {
            match lists.recv_timeout(pause) {
                Ok(mut files) => {
                    // Only the newest counts.
                    while let Ok(newer) = lists.try_recv() {
                        files = newer;
                    }
                    self.files = files;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let begin = Instant::now();
            // Before the contents are looked at: what happens from then on is seen by one or the other.
            self.follow();
            if look(&self.files, &mut self.known) {
                self.changed.notify_one();
            }
            pause = POLL.max(begin.elapsed() * POLL_SHARE);
        }
    }

    /// Watches the folders that lead to the files, as they do now.
    fn follow(&mut self) {
        let mut ways = Ways::default();
        let entries: BTreeSet<PathBuf> = self.files.iter().flat_map(|file| ways.entries(file)).collect();
        let folders: BTreeSet<PathBuf> = entries.iter().filter_map(|e| e.parent().map(Path::to_owned)).collect();
        *lock(&self.entries) = entries;
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                let _ = watcher.unwatch(gone);
            }
            // A folder that was removed and made again is another one, under the same name: watch all anew.
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

/// Whether the contents of any file are others than the last time, or are looked at for the first time.
fn look(files: &[PathBuf], known: &mut HashMap<PathBuf, Option<[u8; 32]>>) -> bool {
    let mut changed = false;
    for file in files {
        // Without files to be had, nothing is known about this one, and nothing has changed.
        let Ok(now) = hash(file) else { continue };
        // One that is new here has had all the time since it was read to change.
        changed |= known.insert(file.clone(), now) != Some(now);
    }
    if known.len() > files.len() {
        let files: BTreeSet<&PathBuf> = files.iter().collect();
        known.retain(|file, _| files.contains(file));
    }
    changed
}

/// The contents' hash; none if they cannot be read.
///
/// # Errors
///
/// When that is for want of a file descriptor.
fn hash(path: &Path) -> Result<Option<[u8; 32]>, Errno> {
    let mut contents = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_end(&mut contents));
    match read.as_ref().map_err(Errno::from_io_error) {
        Ok(_) => Ok(Some(Sha256::digest(&contents).into())),
        Err(Some(full @ (Errno::MFILE | Errno::NFILE))) => Err(full),
        Err(_) => Ok(None),
    }
}

/// The ways to many files: what leads to a folder is looked at once, and not for each file in it.
#[derive(Default)]
pub(super) struct Ways {
    /// By the folder's name, the names that lead to it; the last is where it is.
    folders: HashMap<PathBuf, Vec<PathBuf>>,
}

impl Ways {
    /// As [`entries`] has them.
    pub(super) fn entries(&mut self, file: &Path) -> Vec<PathBuf> {
        let Ok(path) = std::path::absolute(file) else { return Vec::new() };
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return entries(file) };
        if !self.folders.contains_key(folder) {
            self.folders.insert(folder.to_owned(), entries(folder));
        }
        let Some((real, links)) = self.folders.get(folder).and_then(|way| way.split_last()) else {
            return entries(file);
        };
        let mut all = links.to_vec();
        let path = real.join(name);
        let target = fs::read_link(&path);
        all.push(path);
        if let Ok(target) = target {
            all.extend(entries(&real.join(target)));
        }
        all
    }

    /// The folders that lead to files.
    pub(super) fn folders<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
        let mut all = BTreeSet::new();
        for file in files {
            for entry in self.entries(file) {
                if let Some(folder) = entry.parent().filter(|folder| !all.contains(*folder)) {
                    all.insert(folder.to_owned());
                }
            }
        }
        all
    }
}

/// The names that lead to a file: its own, and that of every symbolic link on the way, as certbot's live/ and Kubernetes'
/// ..data have them.
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

/// The first symbolic link on a path, and the path with that link followed; or the path without detours, if there is
/// none.
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
            assert_eq!(ways.entries(&root.join("link/./tls.crt")), want);
        }
        assert_eq!(ways.entries(&root.join("mount/../a")), [root.join("a")]);
        assert_eq!(ways.entries(Path::new("/")), entries(Path::new("/")));
        let files = [root.join("link/tls.crt"), root.join("link/other")];
        let folders = ways.folders(files.iter().map(PathBuf::as_path));
        assert_eq!(folders, ["", "mount", "mount/..one"].map(|f| root.join(f)).into());
        symlink("loop", root.join("loop")).unwrap();
        assert!(entries(&root.join("loop/x")).len() <= LINKS_MAX);
    }

    #[test]
    fn contents_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        let (files, mut known) = (vec![file.clone()], HashMap::new());
        assert!(look(&files, &mut known) && !look(&files, &mut known));
        fs::write(&file, "x").unwrap();
        assert!(look(&files, &mut known) && !look(&files, &mut known));
        fs::write(&file, "y").unwrap();
        assert!(look(&files, &mut known));
    }
}
