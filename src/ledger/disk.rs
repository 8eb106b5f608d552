//! The file operations that the ledger needs: few of them, so that a test can make each one fail.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::names::{SERVED, UNSERVED};
use crate::os::plain_file::{self, Opened};

/// Files of one folder. Contents are durable after `sync`, new names after `sync_folder`.
pub trait Disk {
    /// Returns the contents of a file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Appends to a file, and creates it if needed. A failed call may have written a part.
    ///
    /// # Errors
    ///
    /// If not everything was written.
    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()>;
    /// Truncates a file.
    ///
    /// # Errors
    ///
    /// If the file was not truncated.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's contents durable.
    ///
    /// # Errors
    ///
    /// If they may not be durable. The contents after a crash are unknown then.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Removes a file, if it exists.
    ///
    /// # Errors
    ///
    /// If the file still exists.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Renames a file, and replaces another of that name.
    ///
    /// # Errors
    ///
    /// If the names are unchanged.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the names in the folder durable.
    ///
    /// # Errors
    ///
    /// If they may not be durable.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Returns `true` if a file is unchanged since its last use: still there, the same one, of this
    /// length, and not written since. Creates the folder again if it is gone.
    ///
    /// # Errors
    ///
    /// If that cannot be determined, or if the folder now belongs to another process.
    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool>;
    /// Writes a text of a fixed length into the file of the lock, instead of the last one. It is
    /// durable at some later time.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn note(&mut self, text: &str) -> io::Result<()>;
    /// The same, and removes what follows it in that file.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn note_alone(&mut self, text: &str) -> io::Result<()> {
        self.note(text)
    }
}

/// A real folder. Its files are for this user alone: they show who was promised what.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The name and file of the lock, held for the lifetime of this value.
    lock: Option<(String, File)>,
    open: BTreeMap<String, File>,
    /// The state of each file when it was last read or made durable.
    left: BTreeMap<String, FileStamp>,
    /// The lock's file has got a text.
    is_noted: bool,
    /// The largest file that is read, in bytes.
    most: u64,
}

/// Detects changes by others: device, inode and modification time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp(u64, u64, i64, i64);

impl FileStamp {
    fn of(file: &fs::Metadata) -> Self {
        Self(file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
    }
}

/// The reason why a folder cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// Another process holds it.
    Locked,
    /// The operating system reports an error.
    Io(io::Error),
}

impl Folder {
    /// Takes a folder for this process alone, and creates it if needed.
    ///
    /// # Errors
    ///
    /// [`FolderError`] if another process holds it, or if it cannot be created or written.
    pub fn take(path: &Path, lock: &str) -> Result<Self, FolderError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FolderError::Io)?;
        let opened = open(&path.join(lock), OpenOptions::new().write(true)).map_err(FolderError::Io)?;
        let Opened { file, is_new } = opened;
        match file.try_lock() {
            Ok(()) => {
                // Without this text, the folder counts as one that was served from.
                let _ = if is_new { file.write_all_at(UNSERVED.as_bytes(), 0) } else { Ok(()) };
                Ok(Self { lock: Some((lock.to_owned(), file)), ..Self::look(path) })
            }
            Err(TryLockError::WouldBlock) => Err(FolderError::Locked),
            Err(TryLockError::Error(error)) => Err(FolderError::Io(error)),
        }
    }

    /// Opens a folder for reading only, without the lock.
    #[must_use]
    pub fn look(path: &Path) -> Self {
        Self::look_within(path, u64::MAX)
    }

    /// The same. A file of more than `most` bytes cannot be read.
    #[must_use]
    pub fn look_within(path: &Path, most: u64) -> Self {
        let (open, left) = (BTreeMap::new(), BTreeMap::new());
        Self { path: path.to_owned(), lock: None, open, left, is_noted: false, most }
    }

    /// Takes the folder again if it was deleted: a lock on a deleted file does not keep other
    /// processes out.
    fn take_again(&mut self) -> io::Result<()> {
        let Some((name, file)) = &self.lock else { return Ok(()) };
        if is_at(file, &self.path.join(name))? {
            return Ok(());
        }
        let is_noted = self.is_noted;
        *self = Self::take(&self.path, name).map_err(|error| match error {
            FolderError::Locked => io::Error::other("another process has the folder"),
            FolderError::Io(error) => error,
        })?;
        if is_noted {
            let _ = self.note(SERVED);
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        match self.open.entry(name.to_owned()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(place) => {
                Ok(place.insert(open(&self.path.join(name), OpenOptions::new().append(true))?.file))
            }
        }
    }

    /// Remembers the state of a file.
    fn leave(&mut self, name: &str, file: io::Result<fs::Metadata>) {
        match file {
            Ok(metadata) => self.left.insert(name.to_owned(), FileStamp::of(&metadata)),
            Err(_) => self.left.remove(name),
        };
    }
}

impl Disk for Folder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let file = match plain_file::open(&path).and_then(|file| plain_file::believed(file, &path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut contents = Vec::new();
        // Taken before reading: a write in the meantime is somebody else's.
        let metadata = file.metadata();
        if metadata.as_ref().is_ok_and(|file| file.len() > self.most) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.take(self.most.saturating_add(1)).read_to_end(&mut contents)?;
        if contents.len() as u64 > self.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.leave(name, metadata);
        Ok(Some(contents))
    }

    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(contents)
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.file(name)?.set_len(len)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let file = self.file(name)?;
        file.sync_all()?;
        let metadata = file.metadata();
        self.leave(name, metadata);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        self.left.remove(name);
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.open.remove(to);
        self.left.remove(to);
        let (open, left) = (self.open.remove(from), self.left.remove(from));
        self.open.extend(open.map(|file| (to.to_owned(), file)));
        self.left.extend(left.map(|stamp| (to.to_owned(), stamp)));
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool> {
        self.take_again()?;
        let path = self.path.join(name);
        if let Some(file) = self.open.get(name)
            && !is_at(file, &path)?
        {
            self.open.remove(name);
            self.left.remove(name);
            return Ok(false);
        }
        let Some(metadata) = metadata(&path)? else { return Ok(false) };
        let is_ours = self.left.get(name).is_none_or(|left| *left == FileStamp::of(&metadata));
        Ok(is_ours && metadata.len() == len)
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.is_noted = true;
        self.lock.as_ref().map_or(Ok(()), |(_, file)| file.write_all_at(text.as_bytes(), 0))
    }

    fn note_alone(&mut self, text: &str) -> io::Result<()> {
        self.note(text)?;
        self.lock.as_ref().map_or(Ok(()), |(_, file)| file.set_len(text.len() as u64))
    }
}

/// Opens a file for writing, never through a symbolic link: a command run by root does so in a
/// folder of another user. A new file gets the owner of the folder, who is the serving user; an
/// existing file keeps its owner.
fn open(path: &Path, options: &OpenOptions) -> io::Result<Opened> {
    let Opened { file, is_new } = plain_file::open_or_make(path, options, 0o600)?;
    let folder = fs::metadata(plain_file::folder_of(path))?;
    if is_new && file.metadata()?.uid() != folder.uid() {
        // Only root can change the owner.
        let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
    }
    Ok(Opened { file, is_new })
}

/// Returns `true` if an open file is the one at this path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(metadata(path)?.is_some_and(|m| (m.dev(), m.ino()) == (open.dev(), open.ino())))
}

fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
