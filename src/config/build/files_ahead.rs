//! The files of pairs and backups, read and parsed by other threads ahead of the builder, which goes through the sites
//! one by one. The signatures and keys of ten thousand chains take one core more than a second.

use std::collections::HashMap;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use zeroize::Zeroizing;

use super::pair_files::{BackupFile, ChainFile, KeyFile};
use crate::config::file::{CertificateTable, ConfigFile, SiteTable};
use crate::config::stamp::Stamp;
use crate::keys::key_file::FILE_MAX;
use crate::os::plain_file;
use crate::tls::key_process;

/// Sites from which on other threads help.
const SITES_MIN: usize = 32;
/// Threads that help, whatever the number of cores.
const HELPERS_MAX: usize = 7;
/// Files that are read ahead of the builder: their contents wait in memory.
const AHEAD_MAX: usize = 256;

/// Contents that replace those of files, by path.
type GivenFiles = HashMap<PathBuf, Zeroizing<Vec<u8>>>;
type ByPath = HashMap<PathBuf, usize, foldhash::fast::RandomState>;

/// Files to read ahead, in the order in which the builder asks for them.
#[derive(Default)]
pub(super) struct FilesAhead {
    wanted: Vec<(PathBuf, FileUse)>,
    /// By use: the places of the paths among the wanted ones.
    places: [ByPath; 3],
    board: Mutex<AheadBoard>,
    /// Notified when the board changes.
    changed: Condvar,
}

/// The use of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileUse {
    Chain,
    Key,
    Backup,
}

/// The progress.
#[derive(Default)]
struct AheadBoard {
    files: Vec<AheadState>,
    /// The next file for a helper.
    next: usize,
    /// The last file that the builder has asked for.
    asked: usize,
    /// Nobody asks for files any more.
    is_over: bool,
}

/// The state of a file, with the number of sites that will ask for it.
#[derive(Clone)]
enum AheadState {
    Waiting {
        asks: usize,
    },
    InWork,
    /// `None` if it cannot be read: the builder finds out why.
    Read {
        asks: usize,
        file: Option<ReadFile>,
    },
}

/// A file that was read, with its stamp from before.
#[derive(Clone)]
struct ReadFile(Stamp, ParsedFile);

#[derive(Clone)]
enum ParsedFile {
    Chain(Arc<ChainFile>),
    Key(Arc<KeyFile>),
    Backup(Arc<BackupFile>),
}

impl FilesAhead {
    /// The files of the sites of a configuration, except those whose contents are given instead. None for a few sites.
    ///
    /// With `chains_alone`, given chains are judged without their keys, which this process must not have.
    pub(super) fn of(folder: &Path, file: &ConfigFile, given: &GivenFiles, chains_alone: bool) -> Self {
        let mut ahead = Self::default();
        if file.sites.len() < SITES_MIN || helpers() == 0 {
            return ahead;
        }
        let is_given = |path: &str| given.contains_key(&folder.join(path));
        let is_alone =
            |pair: &CertificateTable| chains_alone && pair.chain.as_ref().is_some_and(|chain| is_given(&chain.value));
        let wanted = file.sites.iter().flat_map(|table| files_of(table, &is_alone));
        for (path, wanted) in wanted.filter(|(path, _)| !is_given(path)) {
            ahead.want(folder.join(path), wanted);
        }
        ahead
    }

    fn want(&mut self, path: PathBuf, wanted: FileUse) {
        let board = self.board.get_mut().unwrap_or_else(PoisonError::into_inner);
        let at = *self.places[wanted as usize].entry(path).or_insert_with_key(|path| {
            self.wanted.push((path.clone(), wanted));
            board.files.push(AheadState::Waiting { asks: 0 });
            self.wanted.len() - 1
        });
        if let Some(AheadState::Waiting { asks }) = board.files.get_mut(at) {
            *asks += 1;
        }
    }

    /// Does work that asks for the files, while other threads read them.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.wanted.is_empty() {
            return work();
        }
        thread::scope(|scope| {
            // Without a thread, the builder reads all files itself.
            let start = || thread::Builder::new().name("files-ahead".into()).spawn_scoped(scope, || self.help()).ok();
            let started: Vec<_> = (0..helpers()).filter_map(|_| start()).collect();
            let end = EndOfFiles(self);
            let done = work();
            drop(end);
            // The scope waits for their work only; the sandbox must find no other thread.
            started.into_iter().for_each(|thread| _ = thread.join());
            done
        })
    }

    /// A chain, and the stamp from before it was read; `None` if the caller has to read it.
    pub(super) fn chain(&self, path: &Path) -> Option<(Stamp, Arc<ChainFile>)> {
        match self.take(path, FileUse::Chain)? {
            ReadFile(stamp, ParsedFile::Chain(file)) => Some((stamp, file)),
            _ => None,
        }
    }

    /// A key, in the same way.
    pub(super) fn key(&self, path: &Path) -> Option<(Stamp, Arc<KeyFile>)> {
        match self.take(path, FileUse::Key)? {
            ReadFile(stamp, ParsedFile::Key(file)) => Some((stamp, file)),
            _ => None,
        }
    }

    /// A backup, in the same way.
    pub(super) fn backup(&self, path: &Path) -> Option<(Stamp, Arc<BackupFile>)> {
        match self.take(path, FileUse::Backup)? {
            ReadFile(stamp, ParsedFile::Backup(file)) => Some((stamp, file)),
            _ => None,
        }
    }

    /// Returns a file; reads it if no helper has begun to do so.
    fn take(&self, path: &Path, wanted: FileUse) -> Option<ReadFile> {
        let at = *self.places[wanted as usize].get(path)?;
        let mut board = self.board();
        board.asked = board.asked.max(at);
        self.changed.notify_all();
        loop {
            match board.files.get_mut(at)? {
                AheadState::Waiting { .. } => board = self.read(board, at),
                AheadState::InWork => {
                    board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
                }
                // The last site that asks takes it away.
                AheadState::Read { asks: ..=1, file } => return file.take(),
                AheadState::Read { asks, file } => {
                    *asks -= 1;
                    return file.clone();
                }
            }
        }
    }

    /// Reads files until there are no more, never far ahead of the builder.
    fn help(&self) {
        let mut board = self.board();
        while !board.is_over && board.next < self.wanted.len() {
            let at = board.next;
            if at > board.asked + AHEAD_MAX {
                board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            board.next += 1;
            board = self.read(board, at);
        }
    }

    /// Reads a file that nobody has begun to read.
    fn read<'b>(&'b self, mut board: MutexGuard<'b, AheadBoard>, at: usize) -> MutexGuard<'b, AheadBoard> {
        let (Some(state), Some((path, wanted))) = (board.files.get_mut(at), self.wanted.get(at)) else { return board };
        let AheadState::Waiting { asks } = *state else { return board };
        *state = AheadState::InWork;
        drop(board);
        // A file that is in work for ever would be waited for.
        let file = catch_unwind(AssertUnwindSafe(|| parsed(path, *wanted))).unwrap_or_default();
        let mut board = self.board();
        if let Some(state) = board.files.get_mut(at) {
            *state = AheadState::Read { asks, file };
        }
        self.changed.notify_all();
        board
    }

    fn board(&self) -> MutexGuard<'_, AheadBoard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the helpers, even if the work ends early.
struct EndOfFiles<'a>(&'a FilesAhead);

impl Drop for EndOfFiles<'_> {
    fn drop(&mut self) {
        self.0.board().is_over = true;
        self.0.changed.notify_all();
    }
}

/// The threads that help. The builder has a core of its own.
fn helpers() -> usize {
    thread::available_parallelism().map_or(0, |cores: NonZero<usize>| cores.get() - 1).min(HELPERS_MAX)
}

/// The files of a site, in the order in which the builder reads them.
fn files_of<'a>(
    table: &'a SiteTable,
    is_alone: &impl Fn(&CertificateTable) -> bool,
) -> impl Iterator<Item = (&'a String, FileUse)> {
    // The key process reads the keys of its own accord.
    let is_here = key_process::running().is_none();
    let pairs = table.certificates.iter().flat_map(move |pair| {
        let key = pair.key.as_ref().filter(|_| is_here && !is_alone(pair)).map(|key| (&key.value, FileUse::Key));
        key.into_iter().chain(pair.chain.as_ref().map(|chain| (&chain.value, FileUse::Chain)))
    });
    let backups = table.hpkp.iter().flat_map(|hpkp| hpkp.backups.iter().flatten());
    pairs.chain(backups.map(|backup| (&backup.value, FileUse::Backup)))
}

/// Reads and parses a file.
fn parsed(path: &Path, wanted: FileUse) -> Option<ReadFile> {
    // The stamp comes before the contents: a write in between then counts as a change.
    let stamp = Stamp::of(path);
    let contents = Zeroizing::new(plain_file::read_named(path, FILE_MAX).ok()?);
    let file = match wanted {
        FileUse::Chain => ParsedFile::Chain(Arc::new(ChainFile::of(contents))),
        FileUse::Key => ParsedFile::Key(Arc::new(KeyFile::of(contents))),
        FileUse::Backup => ParsedFile::Backup(Arc::new(BackupFile::of(&contents))),
    };
    Some(ReadFile(stamp, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Draft;

    fn ahead(folder: &Path, count: usize) -> FilesAhead {
        let mut ahead = FilesAhead::default();
        for number in 0..count {
            ahead.want(folder.join(format!("{number}.pub")), FileUse::Backup);
        }
        ahead
    }

    #[test]
    fn each_file_is_read_once_whoever_asks() {
        let folder = tempfile::tempdir().unwrap();
        let count = AHEAD_MAX * 3;
        let key = rcgen::KeyPair::generate().unwrap().public_key_pem();
        for number in 0..count {
            std::fs::write(folder.path().join(format!("{number}.pub")), &key).unwrap();
        }
        let mut files = ahead(folder.path(), count);
        // The first file is another site's, too, and the last one is missing.
        let (first, gone) = (folder.path().join("0.pub"), folder.path().join("gone.pub"));
        files.want(first.clone(), FileUse::Backup);
        files.want(gone.clone(), FileUse::Backup);
        files.during(|| {
            for number in 0..count {
                let path = folder.path().join(format!("{number}.pub"));
                let (stamp, file) = files.backup(&path).unwrap();
                assert_eq!(stamp, Stamp::of(&path));
                assert!(file.key.is_ok() && !file.is_private);
            }
            assert!(files.backup(&first).is_some() && files.backup(&first).is_none(), "its sites have asked");
            assert!(files.backup(&gone).is_none() && files.chain(&first).is_none());
        });
    }

    /// A process that must not have the keys of chains that it is given reads none of them.
    #[test]
    fn keys_of_chains_alone_stay_unread() {
        let site = |n| {
            format!("[[site]]\nhosts = [\"{n}.example\"]\n[site.certificate]\nchain = \"{n}.pem\"\nkey = \"{n}.key\"\n")
        };
        let text: String = (0..SITES_MIN).map(site).collect();
        let draft = Draft::of_text(Path::new("/etc/pintle/pintle.toml"), text);
        let given = |n: usize| (draft.folder.join(format!("{n}.pem")), Zeroizing::default());
        let wanted = |chains_alone: bool| {
            let instead = (0..SITES_MIN).map(given).collect();
            FilesAhead::of(&draft.folder, draft.file.as_ref().unwrap(), &instead, chains_alone).wanted.len()
        };
        // With one core, nobody helps.
        let all = if helpers() == 0 { 0 } else { SITES_MIN };
        assert_eq!((wanted(false), wanted(true)), (all, 0));
    }

    #[test]
    fn work_that_asks_for_nothing_ends() {
        let folder = tempfile::tempdir().unwrap();
        let files = ahead(folder.path(), AHEAD_MAX * 3);
        assert_eq!(files.during(|| 7), 7);
        let stopped = catch_unwind(AssertUnwindSafe(|| files.during(|| panic!("stopped"))));
        assert!(stopped.is_err(), "helpers do not keep it from ending");
    }
}
