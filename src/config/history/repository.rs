//! A bare git repository for one file: objects that are on disk before a reference names them.
//!
//! gix reads, hashes and moves references; objects are written here. gix would rename them from one folder into another,
//! which the sandbox of an older kernel forbids (Landlock before version 2), and would not sync them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::BString;
use gix::objs::tree::{Entry as TreeEntry, EntryKind};
use gix::objs::{Commit, Kind, Tree, WriteTo};
use gix::refs::transaction::{PreviousValue, RefEdit};
use rustix::fs::statvfs;

use super::fault::{Fault, RESERVE};
use crate::os::plain_file::folder_of;

/// The permissions of folders: a configuration names hosts, keys and people.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Objects never change.
const OBJECT_MODE: u32 = 0o400;
const HEAD: &str = "ref: refs/heads/main\n";
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";
const DESCRIPTION: &str = "Versions of the configuration that pintle has served\n";
/// The entries of a folder that its size counts.
const COUNTED_MAX: usize = 1_000_000;

/// An open repository.
pub(super) struct Repository {
    path: PathBuf,
    git: gix::Repository,
}

impl Repository {
    /// Opens a repository; `None` if there is none yet. Reads no configuration but the repository's own.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Fault> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::Io(path.to_owned(), error)),
            Ok(is) if !is.is_dir() => {
                return Err(Fault::Damaged(path.to_owned(), "the path is not a folder".to_owned()));
            }
            Ok(_) => {}
        }
        // Before gix, which takes an unreadable folder for no repository.
        fs::read_dir(path).map_err(|error| Fault::Io(path.to_owned(), error))?;
        let git = gix::open::Options::isolated().open_path_as_is(true).open(path);
        let git = git.map_err(|error| Fault::of(path, &error))?.to_thread_local();
        Ok(Some(Self { path: path.to_owned(), git }))
    }

    /// Opens a repository, and makes it if it is missing: whole or not at all.
    pub(super) fn open_or_make(path: &Path) -> Result<Self, Fault> {
        if let Some(known) = Self::open(path)? {
            return Ok(known);
        }
        leave_reserve(folder_of(path), 0)?;
        make(path).map_err(|error| Fault::Io(path.to_owned(), error))?;
        Self::open(path)?.ok_or_else(|| Fault::Damaged(path.to_owned(), "it has vanished".to_owned()))
    }

    /// The newest commit; `None` before the first.
    pub(super) fn head(&self) -> Result<Option<ObjectId>, Fault> {
        let mut head = self.git.head().map_err(|error| self.fault(&error))?;
        if head.is_unborn() {
            return Ok(None);
        }
        let id = head.try_peel_to_id().map_err(|error| self.fault(&error))?;
        Ok(id.map(gix::Id::detach))
    }

    /// A commit, decoded.
    pub(super) fn commit(&self, id: ObjectId) -> Result<Commit, Fault> {
        let object = self.object(id, Kind::Commit)?;
        let commit = gix::objs::CommitRef::from_bytes(&object, gix::hash::Kind::Sha1);
        commit.and_then(gix::objs::CommitRef::into_owned).map_err(|error| self.fault(&error))
    }

    /// A tree, decoded.
    pub(super) fn tree(&self, id: ObjectId) -> Result<Tree, Fault> {
        let object = self.object(id, Kind::Tree)?;
        let tree = gix::objs::TreeRef::from_bytes(&object, gix::hash::Kind::Sha1);
        tree.map(Into::into).map_err(|error| self.fault(&error))
    }

    /// The length of a blob.
    pub(super) fn length(&self, id: ObjectId) -> Result<u64, Fault> {
        Ok(self.git.find_header(id).map_err(|error| self.fault(&error))?.size())
    }

    /// An object's bytes.
    pub(super) fn object(&self, id: ObjectId, kind: Kind) -> Result<Vec<u8>, Fault> {
        let mut object = self.git.find_object(id).map_err(|error| self.fault(&error))?;
        if object.kind != kind {
            return Err(Fault::Damaged(self.path.clone(), format!("{id} is a {}, not a {kind}", object.kind)));
        }
        Ok(std::mem::take(&mut object.data))
    }

    /// Writes an object, synced to disk, unless it is there.
    pub(super) fn write(&self, kind: Kind, data: &[u8]) -> Result<ObjectId, Fault> {
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data).map_err(|error| self.fault(&error))?;
        if self.git.has_object(id) {
            return Ok(id);
        }
        let hex = id.to_string();
        let (folder, name) = hex.split_at(2);
        let folder = self.path.join("objects").join(folder);
        self.place(&folder, name, kind, data).map_err(|error| Fault::Io(folder.join(name), error))?;
        Ok(id)
    }

    fn place(&self, folder: &Path, name: &str, kind: Kind, data: &[u8]) -> io::Result<()> {
        match make_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) => sync(&self.path.join("objects"))?,
        }
        // `git gc` removes such a file if a crash leaves it.
        let new = folder.join(format!("tmp_obj_{name}"));
        let _ = fs::remove_file(&new);
        let written = (|| {
            let file = OpenOptions::new().write(true).create_new(true).mode(OBJECT_MODE).open(&new)?;
            let length = u64::try_from(data.len()).map_err(io::Error::other)?;
            let mut compressed = gix::zlib::stream::deflate::Write::new(file, gix::zlib::Compression::DEFAULT);
            compressed.write_all(&gix::objs::encode::loose_header(kind, length))?;
            compressed.write_all(data)?;
            compressed.flush()?;
            compressed.into_inner().sync_all()?;
            fs::rename(&new, folder.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.and_then(|()| sync(folder))
    }

    /// Writes a tree: the one before with another blob under a name.
    pub(super) fn write_tree(&self, before: Option<Tree>, name: &str, blob: ObjectId) -> Result<ObjectId, Fault> {
        let mut tree = before.unwrap_or_else(Tree::empty);
        tree.entries.retain(|entry| entry.filename != name);
        tree.entries.push(TreeEntry { mode: EntryKind::Blob.into(), filename: name.into(), oid: blob });
        tree.entries.sort();
        self.write_whole(&tree, Kind::Tree)
    }

    /// Writes a commit, and moves HEAD's branch to it, if that is still at the first parent.
    pub(super) fn write_commit(&self, commit: &Commit) -> Result<ObjectId, Fault> {
        let id = self.write_whole(commit, Kind::Commit)?;
        let expected = match commit.parents.first() {
            Some(parent) => PreviousValue::MustExistAndMatch(gix::refs::Target::Object(*parent)),
            None => PreviousValue::MustNotExist,
        };
        let name = match self.git.head_name().map_err(|error| self.fault(&error))? {
            Some(name) => name,
            None => gix::refs::FullName::try_from("HEAD")
                .map_err(|error| Fault::Damaged(self.path.clone(), error.to_string()))?,
        };
        let file = self.path.join(name.as_bstr().to_string());
        let edit = RefEdit::update(name, id, expected, BString::from("pintle: version adopted"));
        let mut time = gix::date::parse::TimeBuf::default();
        let committer = commit.committer.to_ref(&mut time);
        self.git.edit_references_as(Some(edit), Some(committer)).map_err(|error| self.fault(&error))?;
        // An empty reference after a crash would be a damaged history.
        let synced = File::open(&file).and_then(|file| file.sync_all());
        synced
            .and_then(|()| sync(file.parent().unwrap_or(&self.path)))
            .map_err(|error| Fault::Io(file.clone(), error))?;
        Ok(id)
    }

    fn write_whole(&self, object: &impl WriteTo, kind: Kind) -> Result<ObjectId, Fault> {
        let mut data = Vec::new();
        object.write_to(&mut data).map_err(|error| Fault::Io(self.path.clone(), error))?;
        self.write(kind, &data)
    }

    /// The sum of all its files, in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        let (mut folders, mut sum, mut counted) = (vec![self.path.clone()], 0_u64, 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let is = match entry.metadata() {
                    // `git gc` may run.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    is => is?,
                };
                sum = sum.saturating_add(is.len());
                counted += 1;
                if is.is_dir() && counted < COUNTED_MAX {
                    folders.push(entry.path());
                }
            }
        }
        Ok(sum)
    }

    fn fault(&self, error: &gix::Error) -> Fault {
        Fault::of(&self.path, error)
    }
}

/// Refuses to write bytes that would take the disk of a folder below [`RESERVE`].
pub(super) fn leave_reserve(folder: &Path, bytes: u64) -> Result<(), Fault> {
    // A file system that does not count its blocks has none, and one that cannot be asked may still take the bytes.
    let Some(disk) = statvfs(folder).ok().filter(|disk| disk.f_blocks > 0) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free.saturating_sub(bytes) < RESERVE { Err(Fault::Scarce(folder.to_owned())) } else { Ok(()) }
}

/// Makes an empty repository beside its place, and gives it its name once it is whole.
fn make(path: &Path) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let made = (|| {
        for folder in ["", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"] {
            make_folder(&new.join(folder))?;
        }
        for (name, contents) in [("HEAD", HEAD), ("config", CONFIG), ("description", DESCRIPTION)] {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(new.join(name))?;
            file.write_all(contents.as_bytes())?;
            file.sync_all()?;
        }
        sync(&new)?;
        fs::rename(&new, path)?;
        sync(path.parent().unwrap_or(path))
    })();
    if made.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    made
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(path)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
