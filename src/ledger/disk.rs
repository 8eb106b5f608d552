//! What the ledger asks of a folder: few operations, so that a test can make each of them fail.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use crate::os::plain_file::{self, Opened};

/// Files of one folder. Nothing is durable before `sync`, and no new name before `sync_folder`.
pub trait Disk {
    /// A file's contents; none if there is no such file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Writes at the end of a file, which is made if there is none. May write a part before it fails.
    ///
    /// # Errors
    ///
    /// When not all could be written.
    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    ///
    /// # Errors
    ///
    /// When it could not be cut.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Makes a file's contents durable.
    ///
    /// # Errors
    ///
    /// When they may not be durable; what the file holds after a crash is then unknown.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Removes a file, if there is one.
    ///
    /// # Errors
    ///
    /// When it is still there.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another's name, in place of that.
    ///
    /// # Errors
    ///
    /// When the names are as before.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Makes the folder's names durable.
    ///
    /// # Errors
    ///
    /// When they may not be durable.
    fn sync_folder(&mut self) -> io::Result<()>;
    /// Whether a file is still there, the same one, and as it was left: as long, and not written since. A folder that is gone is made again.
    ///
    /// # Errors
    ///
    /// When that cannot be said, or the folder is another process's now.
    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool>;
}

/// A real folder. Its files are for this user alone: they tell who was promised what.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held for as long as this is: its name, and the file.
    lock: Option<(String, File)>,
    open: BTreeMap<String, File>,
    /// What each file was like when it was last read or made durable.
    left: BTreeMap<String, Stamp>,
}

/// What tells whether somebody else has written a file: device, inode, and when it was modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self(file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
    }
}

/// Why a folder cannot be had.
#[derive(Debug)]
pub enum FolderError {
    /// Another process has it.
    Locked,
    /// The operating system says no.
    Io(io::Error),
}

impl Folder {
    /// Takes a folder for this process alone; it is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`FolderError`], when another process has it, or it cannot be made or written.
    pub fn take(path: &Path, lock: &str) -> Result<Self, FolderError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FolderError::Io)?;
        let file = open(&path.join(lock), OpenOptions::new().write(true)).map_err(FolderError::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { lock: Some((lock.to_owned(), file)), ..Self::look(path) }),
            Err(TryLockError::WouldBlock) => Err(FolderError::Locked),
            Err(TryLockError::Error(error)) => Err(FolderError::Io(error)),
        }
    }

    /// A folder that is only looked into.
    #[must_use]
    pub fn look(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None, open: BTreeMap::new(), left: BTreeMap::new() }
    }

    /// Takes the folder again if it was deleted: the lock on a file that has no name any more keeps nobody out.
    fn take_again(&mut self) -> io::Result<()> {
        let Some((name, file)) = &self.lock else { return Ok(()) };
        if is_at(file, &self.path.join(name))? {
            return Ok(());
        }
        *self = Self::take(&self.path, name).map_err(|error| match error {
            FolderError::Locked => io::Error::other("another process has the folder"),
            FolderError::Io(error) => error,
        })?;
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        match self.open.entry(name.to_owned()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(open(&self.path.join(name), OpenOptions::new().append(true))?)),
        }
    }

    /// Remembers what a file is like now.
    fn leave(&mut self, name: &str, file: io::Result<fs::Metadata>) {
        match file {
            Ok(metadata) => self.left.insert(name.to_owned(), Stamp::of(&metadata)),
            Err(_) => self.left.remove(name),
        };
    }
}

impl Disk for Folder {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let mut file = match plain_file::open(&path).and_then(|file| plain_file::believed(file, &path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut contents = Vec::new();
        // Before it is read: what is written meanwhile is somebody else's.
        let metadata = file.metadata();
        file.read_to_end(&mut contents)?;
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
        let is_ours = self.left.get(name).is_none_or(|left| *left == Stamp::of(&metadata));
        Ok(is_ours && metadata.len() == len)
    }
}

/// Opens a file to be written, never through a link: a command of root's does so in a folder that is somebody else's. What
/// it has made just now belongs to whoever serves, the owner of the folder; what was there keeps its owner.
fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let Opened { file, is_new } = plain_file::open_or_make(path, options, 0o600)?;
    let folder = fs::metadata(plain_file::folder_of(path))?;
    if is_new && file.metadata()?.uid() != folder.uid() {
        // Who is not root has nothing to give away.
        let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
    }
    Ok(file)
}

/// Whether an open file is the one that is found by a name.
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
