//! The mark in the lock's file of a folder that was left: another folder's ledger has its promises, and perhaps newer
//! ones. It lasts until pintle serves from here again. An older version does not know the mark, and then sees no newest
//! record in the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf, absolute};

use super::names::LOCK;
use crate::os::plain_file;

/// The place of the mark, behind the longest other text of the file.
const MARK_AT: usize = 64;
const LEFT: &[u8] = b"left ";
/// More than the text of a lock's file, in bytes.
pub(super) const LOCK_MAX: u64 = 8192;

/// The lock's file of a folder that is left, opened before the sandbox forbids it.
#[derive(Debug)]
pub struct LeftMark {
    file: File,
}

impl LeftMark {
    /// Opens the file, and changes nothing.
    ///
    /// # Errors
    ///
    /// If there is none, or if it cannot be written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(LOCK);
        // There is no mark without a lock's file, so it is not made here.
        plain_file::open(&path)?;
        let opened = plain_file::open_or_make(&path, OpenOptions::new().write(true), 0o600)?;
        Ok(Self { file: opened.file })
    }

    /// Notes the folder that has the promises now. If a process has the lock, nobody has left the folder: nothing
    /// is noted.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        match self.file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let written = self.put(to);
        let unlocked = self.file.unlock();
        written.and(unlocked)
    }

    fn put(&self, to: &Path) -> io::Result<()> {
        let to = absolute(to)?;
        let path = to.to_str().filter(|path| !path.contains('\n'));
        let path = path.ok_or_else(|| io::Error::other("its name is not plain text"))?;
        let len = usize::try_from(self.file.metadata()?.len()).unwrap_or(MARK_AT).min(MARK_AT);
        let mut text = vec![b'\n'; MARK_AT.saturating_sub(len)];
        text.extend([LEFT, path.as_bytes(), b"\n"].concat());
        self.file.write_all_at(&text, len as u64)?;
        self.file.set_len((len + text.len()) as u64)?;
        self.file.sync_all()
    }
}

/// Notes in the lock's file of a folder which one has its promises now.
///
/// # Errors
///
/// If the file cannot be written.
pub fn note_left(folder: &Path, to: &Path) -> io::Result<()> {
    LeftMark::open(folder)?.write(to)
}

/// Returns the folder that has the promises of this one, which was left and has not been served from since.
#[must_use]
pub fn left_for(folder: &Path) -> Option<PathBuf> {
    let text = plain_file::read(&folder.join(LOCK), LOCK_MAX).ok()?;
    let path = text.get(MARK_AT..)?.strip_prefix(LEFT)?.strip_suffix(b"\n")?;
    let path = Path::new(std::str::from_utf8(path).ok()?);
    path.is_absolute().then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::names::{SERVED, UNSERVED};
    use super::super::tests::sample;
    use super::super::{Ledger, has_served, look};
    use super::*;

    /// The mark changes nothing that the file says otherwise, and stays until pintle serves from there.
    #[test]
    fn a_mark_stays_until_pintle_serves_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let (at, to) = (folder.path(), Path::new("/elsewhere/st2"));
        let open = || Ledger::open(at, 0).unwrap().0;
        assert!(note_left(at, to).is_err() && !at.join(LOCK).exists());
        for text in [UNSERVED, SERVED] {
            std::fs::write(at.join(LOCK), text).unwrap();
            note_left(at, to).unwrap();
            assert_eq!((left_for(at).as_deref(), has_served(at)), (Some(to), text == SERVED));
        }
        let mut ledger = open();
        note_left(at, Path::new("/other")).unwrap();
        assert_eq!(left_for(at).as_deref(), Some(to), "a process has it");
        // A record of a start that dies.
        ledger.record(sample(1).0).unwrap();
        drop(ledger);
        assert!(has_served(at) && look(at).unwrap().1.is_empty());
        assert_eq!(left_for(at).as_deref(), Some(to));
        note_left(at, Path::new("/b")).unwrap();
        assert_eq!(left_for(at).as_deref(), Some(Path::new("/b")));
        open().note_served();
        assert_eq!((left_for(at), has_served(at)), (None, true));
        assert!(look(at).unwrap().1.is_empty());
    }
}
