//! The files and folders themselves.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{OFlags, statvfs};

use super::file::{FIXED, INVALID, PartLengths, STATE_AT, SavedHead};
use super::name::{NEW, PageFileName, folder_name};
use crate::os::plain_file;

/// The permissions of folders and files: what is stored may not be for everybody on this host.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The free bytes that the cache leaves on the disk for the ledger: if the ledger cannot be written, pins are withheld. On
/// a small disk, it leaves the disk's bytes divided by the second number.
const RESERVE: u64 = 64 << 20;
const RESERVE_PART: u64 = 20;
/// The file with the number of soft purges of the site, and its longest text.
const EPOCH: &str = "epoch";
const EPOCH_MAX: u64 = 32;

/// A file that was opened and found whole as far as its head.
pub(super) struct OpenedPage {
    pub(super) saved: SavedHead,
    pub(super) bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub(super) written: i64,
    file: File,
    body: usize,
}

impl OpenedPage {
    /// Opens a file; `None` if it is damaged, or of another version.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = match plain_file::open(path) {
            // A link, or a folder: nobody of us has made that.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let mut fixed = [0; FIXED];
        match file.read_exact(&mut fixed) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let lengths = PartLengths::of(&fixed).filter(|lengths| lengths.whole() == metadata.len());
        let Some(lengths) = lengths else { return Ok(None) };
        let Ok(body) = usize::try_from(lengths.body) else { return Ok(None) };
        let mut head = vec![0; lengths.head];
        file.read_exact(&mut head)?;
        let written = metadata.mtime().saturating_mul(1000);
        let saved = SavedHead::read(&fixed, &head);
        Ok(saved.map(|saved| Self { saved, bytes: lengths.whole(), written, file, body }))
    }

    /// Reads the body; `None` if it is damaged.
    pub(super) fn body(&mut self) -> io::Result<Option<Bytes>> {
        let mut body = vec![0; self.body];
        self.file.read_exact(&mut body)?;
        Ok(self.saved.is_body(&body).then(|| body.into()))
    }
}

/// Writes a file whole or not at all. It is not synced: its checksums tell what a crash has left of it.
pub(super) fn write(site: &Path, name: PageFileName, head: &[u8], body: &[u8]) -> io::Result<()> {
    let folder = site.join(folder_name(name.folder()));
    let new = folder.join(format!("{}{NEW}", name.file()));
    let create = || OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new);
    let opened = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(&folder)?;
            create()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&new)?;
            create()
        }
        opened => opened,
    };
    let mut file = opened?;
    let written = file.write_all(head).and_then(|()| file.write_all(body));
    let written = written.and_then(|()| fs::rename(&new, folder.join(name.file())));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// `true` if the disk has no more free space than the cache leaves to others.
pub(super) fn is_scarce(site: &Path) -> bool {
    let Some(disk) = site.ancestors().find_map(|folder| statvfs(folder).ok()) else { return false };
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE.min(total / RESERVE_PART)
}

/// The path of a file, below the folder of its site.
pub(super) fn path_of(site: &Path, name: PageFileName) -> PathBuf {
    site.join(folder_name(name.folder())).join(name.file())
}

/// Removes a file. One that is missing is removed already.
pub(super) fn remove(site: &Path, name: PageFileName) -> io::Result<()> {
    absent(fs::remove_file(path_of(site, name)))
}

fn absent(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Notes in a file that its response must be validated.
pub(super) fn mark(site: &Path, name: PageFileName) -> io::Result<()> {
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let marked = OpenOptions::new().write(true).custom_flags(nofollow).open(path_of(site, name));
    absent(marked.and_then(|file| file.write_all_at(&[INVALID], STATE_AT)))
}

/// Makes changes of names in a folder last, also after a loss of power.
pub(super) fn sync(site: &Path, number: usize) -> io::Result<()> {
    absent(File::open(site.join(folder_name(number))).and_then(|folder| folder.sync_all()))
}

/// Reads the number of soft purges of the site; 0 if there is none.
pub(super) fn epoch(site: &Path) -> u64 {
    let text = plain_file::read(&site.join(EPOCH), EPOCH_MAX).unwrap_or_default();
    String::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// Writes that number.
pub(super) fn write_epoch(site: &Path, epoch: u64) -> io::Result<()> {
    make_folder(site)?;
    plain_file::replace(&site.join(EPOCH), format!("{epoch}\n").as_bytes(), FILE_MODE)
}
