//! Copies that are written together, with one wait for the disk for all of them: each of ten thousand would wait for
//! itself.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use rustix::fs::{OFlags, syncfs};
use zeroize::Zeroizing;

use super::name::{NEW_SUFFIX, SUFFIX, ServedPair};
use super::{COPY_MAX, LastGood, read};
use crate::os::plain_file;

/// Copies from which on the whole file system is synced instead of each file.
const TOGETHER: usize = 16;

/// Copies on their way to the disk. Each is written beside the one that it replaces. Once all are durable, each gets its
/// name; then the names are made durable. A process that is killed in between leaves whole copies, old and new ones.
pub(super) struct CopyBatch<'c> {
    copies: &'c LastGood,
    /// Another batch would write the same new files.
    _alone: MutexGuard<'c, ()>,
    /// The stems of the written files.
    written: Vec<String>,
    /// The times that this thread has waited for the disk.
    waits: usize,
    failed: Option<io::Error>,
}

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiesWritten {
    /// Copies that are new, or have new contents.
    pub new: usize,
    /// Waits for the disk.
    pub waits: usize,
}

impl LastGood {
    /// Begins to keep copies. Waits for whoever does so already.
    pub(super) fn begin(&self) -> CopyBatch<'_> {
        let alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        CopyBatch { copies: self, _alone: alone, written: Vec::new(), waits: 0, failed: None }
    }

    /// Keeps one pair. Returns `false` if the copy was the same already, or if the pair is no longer served.
    #[cfg(test)]
    pub(super) fn keep(&self, pair: ServedPair<'_>, contents: &[u8]) -> io::Result<bool> {
        let mut batch = self.begin();
        batch.add(pair, contents);
        batch.finish().map(|written| written.new > 0)
    }
}

impl CopyBatch<'_> {
    /// Adds the copy of a pair, unless it is there already, or the pair is no longer served.
    pub(super) fn add(&mut self, pair: ServedPair<'_>, contents: &[u8]) {
        let name = pair.name();
        if self.copies.is_unwanted(&name) {
            return;
        }
        let path = self.copies.folder.join(&name);
        let Some(stem) = name.strip_suffix(SUFFIX) else { return };
        if read(&path).is_ok_and(|known| Zeroizing::new(known).as_slice() == contents) {
            // A process that was killed may have left another one on its way.
            let _ = fs::remove_file(self.new_path(stem));
            return;
        }
        if u64::try_from(contents.len()).map_or(true, |size| size > COPY_MAX) {
            let why = format!("{}: larger than {COPY_MAX} bytes", path.display());
            return self.fail(io::Error::other(why));
        }
        match self.write(stem, contents) {
            Ok(()) => self.written.push(stem.to_owned()),
            Err(error) => self.drop_file(stem, error),
        }
    }

    fn write(&self, stem: &str, contents: &[u8]) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.copies.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let new = self.new_path(stem);
        let _ = fs::remove_file(&new);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(no_follow());
        options.open(&new)?.write_all(contents)
    }

    /// Returns once all copies are on the disk.
    ///
    /// # Errors
    ///
    /// The first failure. All other pairs are copied all the same.
    pub(super) fn finish(mut self) -> io::Result<CopiesWritten> {
        self.sync();
        let named = self.give_names();
        if named > 0 {
            self.waits += 1;
            let synced = File::open(&self.copies.folder).and_then(|folder| folder.sync_all());
            synced.unwrap_or_else(|error| self.fail(error));
        }
        self.failed.map_or(Ok(CopiesWritten { new: named, waits: self.waits }), Err)
    }

    /// Makes the contents of the new files durable.
    pub(super) fn sync(&mut self) {
        if self.written.len() >= TOGETHER {
            // The kernel writes all files at once, in the order that suits the disk, and waits once. A failure may be that
            // of another program's file: then each file says for itself.
            self.waits += 1;
            if File::open(&self.copies.folder).is_ok_and(|folder| syncfs(folder).is_ok()) {
                return;
            }
        }
        for stem in std::mem::take(&mut self.written) {
            match plain_file::open(&self.new_path(&stem)).and_then(|file| file.sync_all()) {
                Ok(()) => {
                    self.waits += 1;
                    self.written.push(stem);
                }
                // Whoever stops serving a pair removes this file, too.
                Err(_) if self.copies.is_unwanted(&format!("{stem}{SUFFIX}")) => {}
                Err(error) => self.drop_file(&stem, error),
            }
        }
    }

    /// Gives the durable files their names, except those of pairs that are no longer served. Returns the number of names.
    pub(super) fn give_names(&mut self) -> usize {
        // Whoever stops serving a pair removes its copy, and none may come after that.
        let copies = self.copies;
        let wanted = copies.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = 0;
        for stem in std::mem::take(&mut self.written) {
            let (new, name) = (self.new_path(&stem), format!("{stem}{SUFFIX}"));
            if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&name)) {
                let _ = fs::remove_file(new);
                continue;
            }
            match fs::rename(new, copies.folder.join(name)) {
                Ok(()) => named += 1,
                Err(error) => self.drop_file(&stem, error),
            }
        }
        named
    }

    fn new_path(&self, stem: &str) -> PathBuf {
        self.copies.folder.join(format!("{stem}{NEW_SUFFIX}"))
    }

    /// Removes a file that cannot become a copy.
    fn drop_file(&mut self, stem: &str, error: io::Error) {
        let _ = fs::remove_file(self.new_path(stem));
        self.fail(error);
    }

    fn fail(&mut self, error: io::Error) {
        self.failed.get_or_insert(error);
    }
}

fn no_follow() -> i32 {
    i32::from_ne_bytes(OFlags::NOFOLLOW.bits().to_ne_bytes())
}
