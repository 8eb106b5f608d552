//! Reads a ledger without opening it.

use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::book::Book;
use super::disk::{Disk, Folder};
use super::file::{self, FileContents, Head, NewestRecord, Position};
use super::left::LOCK_MAX;
use super::names::{FILE, HEAD, LOCK, MOVED, UNSERVED};
use super::notice::Notice;
use crate::os::plain_file;

/// A reader without the lock may catch the file during a rewrite: it tries this often, with a pause
/// between.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(25);

/// Reads a folder's ledger without locking it: for commands beside a running server.
///
/// # Errors
///
/// If there is a file, and it cannot be read.
pub fn look(folder: &Path) -> io::Result<(Book, Vec<Notice>)> {
    match look_in(folder) {
        // A path that is not a folder contains no ledger.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Default::default()),
        found => found,
    }
}

fn look_in(folder: &Path) -> io::Result<(Book, Vec<Notice>)> {
    let mut disk = Folder::look(folder);
    for _ in 1..LOOKS {
        let found = read_files(&mut disk)?.0;
        if !found.notices.iter().any(Notice::is_loss) {
            return Ok(looked_at(found));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Ok(looked_at(read_files(&mut disk)?.0))
}

/// Reads the ledger of a folder that may be anybody's: once, and no file of more than `most` bytes.
///
/// # Errors
///
/// If there is a file, and it cannot be read.
pub fn glance(folder: &Path, most: u64) -> io::Result<(Book, Vec<Notice>)> {
    read_files(&mut Folder::look_within(folder, most)).map(|(found, ..)| looked_at(found))
}

/// The same of the file that an upgrade has set aside there.
///
/// # Errors
///
/// If it cannot be read.
pub fn glance_aside(folder: &Path, most: u64) -> io::Result<(Book, Vec<Notice>)> {
    let contents = Folder::look_within(folder, most).read(MOVED)?.unwrap_or_default();
    Ok(looked_at(file::read(&contents, None)))
}

/// Returns `true` if the file that an upgrade has set aside ends with the newest record of the head: nobody has written in
/// this folder since.
#[must_use]
pub fn is_set_aside(folder: &Path) -> bool {
    let mut disk = Folder::look(folder);
    let (Ok(Some(aside)), Ok(Some(head))) = (disk.read(MOVED), disk.read(HEAD)) else { return false };
    file::read_head(&head).positions.last() == Some(&file::read(&aside, None).position)
}

/// Returns `true` if a process holds a folder's ledger.
#[must_use]
pub fn is_held(folder: &Path) -> bool {
    let lock = plain_file::open(&folder.join(LOCK));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Returns `true` if pintle has served from a folder, as the lock's file tells. That of an older version does not tell it
/// apart from a start that has failed, and counts.
#[must_use]
pub fn has_served(folder: &Path) -> bool {
    let lock = folder.join(LOCK);
    let text = || plain_file::read(&lock, LOCK_MAX);
    !is_missing(&lock) && !text().is_ok_and(|text| is_unserved(&text))
}

/// Returns the id of a folder's own ledger, as the lock's file has it; `None` before its first
/// record.
#[must_use]
pub fn own_id(folder: &Path) -> Option<String> {
    let text = plain_file::read(&folder.join(LOCK), LOCK_MAX).ok()?;
    NewestRecord::read(&text).map(|newest| newest.id)
}

/// Returns `true` if no ledger in a folder was in use there, as far as the lock's file tells: there is none, or only
/// commands, or a start that was ended before it served, have begun one. The same is true of files that somebody has
/// brought without the lock: nothing shows if they are the newest ones.
#[must_use]
pub fn is_unused(folder: &Path) -> bool {
    is_new(folder) || !has_served(folder)
}

/// Returns `true` if the text of the lock's file says that nobody has served.
fn is_unserved(text: &[u8]) -> bool {
    text.starts_with(UNSERVED.as_bytes()) || NewestRecord::read(text).is_some_and(|newest| !newest.is_served)
}

/// Returns `true` if the file is another ledger's, in the place of this folder's own one, and nothing else is wrong.
#[must_use]
pub fn is_replaced(folder: &Path) -> bool {
    look(folder).is_ok_and(|(_, notices)| {
        let mut losses = notices.iter().filter(|notice| notice.is_loss()).peekable();
        losses.peek().is_some() && losses.all(|loss| matches!(loss, Notice::OtherLedger { .. }))
    })
}

fn looked_at(found: FileContents) -> (Book, Vec<Notice>) {
    let mut found = found.with_doubtful();
    found.catch_up();
    (found.book, found.notices)
}

/// Returns the file of a folder's ledger that cannot be read, or else the one that cannot be written; the main one if it is
/// not a file that fails.
#[must_use]
pub fn unreadable(folder: &Path) -> PathBuf {
    let paths = [FILE, HEAD, LOCK].map(|name| folder.join(name));
    let fails =
        |path: &&PathBuf| plain_file::open(path).is_err_and(|error| !matches!(error.kind(), io::ErrorKind::NotFound));
    let is_forbidden = |path: &&PathBuf| access(path.as_path(), Access::WRITE_OK) == Err(Errno::ACCESS);
    let found = paths.iter().find(fails).or_else(|| paths.iter().find(is_forbidden));
    found.unwrap_or(&paths[0]).clone()
}

/// Returns `true` if a folder has no file of a ledger.
#[must_use]
pub fn is_new(folder: &Path) -> bool {
    [FILE, HEAD].iter().all(|name| is_missing(&folder.join(name)))
}

fn is_missing(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_err_and(|error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// Returns the promises of a folder's damaged lines: their records are readable, but their
/// checksums are wrong.
///
/// # Errors
///
/// If the file cannot be read.
pub fn salvaged(folder: &Path) -> io::Result<Book> {
    let found = read_files(&mut Folder::look(folder))?.0;
    Ok(FileContents { book: Book::default(), ..found }.with_doubtful().book)
}

/// Reads the contents of a ledger's file.
#[must_use]
pub fn read_book(contents: &[u8]) -> (Book, Vec<Notice>) {
    let found = file::read(contents, None).with_doubtful();
    (found.book, found.notices)
}

/// Reads both files of a disk, the note and the head first: the other one is never behind them.
pub(super) fn read_files(disk: &mut impl Disk) -> io::Result<(FileContents, Option<Vec<u8>>, Heads)> {
    let lock = disk.read(LOCK).ok().flatten();
    let note = lock.as_deref().and_then(NewestRecord::read);
    let head = disk.read(HEAD)?;
    // Nobody makes the head before the file has a record.
    let is_there = head.is_some();
    let head = head.unwrap_or_default();
    let Head { positions, is_clean, is_damaged } = file::read_head(&head);
    let contents = disk.read(FILE)?;
    let mut found = file::read(contents.as_deref().unwrap_or_default(), positions.last());
    if let (None, Some(last)) = (&contents, positions.last()) {
        found.notices = vec![Notice::Gone { head: last.seq }];
    }
    if !is_there && found.is_current && found.position.seq > 0 && !found.notices.iter().any(Notice::is_loss) {
        found.notices.push(Notice::NoHead);
    }
    let (ends, is_empty) = (found.position.seq, contents.as_ref().is_none_or(Vec::is_empty));
    let has_loss = found.notices.iter().any(Notice::is_loss);
    // Only a crash before the first note leaves half a line alone.
    let is_bare = found.id.is_none() && (found.lines == 0 || found.book.is_empty()) && !has_loss;
    if positions.is_empty() && (is_there && is_empty || note.is_some() && is_bare) {
        found.notices = vec![match &note {
            Some(note) if contents.is_none() && !is_there => Notice::Deleted { newest: note.seq },
            _ => Notice::Emptied,
        }];
    } else if is_damaged && !has_loss {
        found.notices.push(Notice::DamagedHead);
    } else if let Some(note) = note.as_ref().filter(|note| !has_loss && is_older(&found, note)) {
        found.notices.retain(|notice| *notice != Notice::NoHead);
        found.notices.push(Notice::OldPair { ends, newest: note.seq });
    } else if let Some(note) = note.as_ref().filter(|note| !has_loss && is_another(&found, note)) {
        match own_aside(disk, note) {
            // With them, the file is written anew.
            Some(own) => {
                own.records().for_each(|record| _ = found.book.apply(record));
                found.is_current = false;
            }
            None => {
                found.notices.retain(|notice| *notice != Notice::NoHead);
                found.notices.push(Notice::OtherLedger { newest: note.seq });
            }
        }
    }
    let is_served = lock.is_some_and(|text| !is_unserved(&text));
    Ok((found, contents, Heads { positions, is_clean, len: head.len() as u64, note, is_served }))
}

/// Returns `true` if a file ends before the newest record of its ledger.
fn is_older(found: &FileContents, note: &NewestRecord) -> bool {
    found.id.as_ref() == Some(&note.id) && found.position.seq < note.seq
}

/// Returns `true` if a file is not one of the folder's own ledger: each of its files has the ledger's id.
fn is_another(found: &FileContents, note: &NewestRecord) -> bool {
    found.lines > 0 && found.id.as_ref() != Some(&note.id)
}

/// Returns the folder's own ledger if an upgrade has set its file aside; `None` unless it is complete. The other ledger comes
/// from the folder that the upgrade has moved it to.
fn own_aside(disk: &mut impl Disk, note: &NewestRecord) -> Option<Book> {
    let own = file::read(&disk.read(MOVED).ok().flatten()?, None);
    let is_whole = own.position.seq >= note.seq && !own.notices.iter().any(Notice::is_loss);
    (is_whole && !is_another(&own, note)).then_some(own.book)
}

/// The contents of the head's file, and of the lock's.
pub(super) struct Heads {
    /// The newest at the end, and the previous one: a process may have been killed before the
    /// newest was durable.
    pub(super) positions: Vec<Position>,
    pub(super) is_clean: bool,
    pub(super) len: u64,
    pub(super) note: Option<NewestRecord>,
    /// pintle has served from the folder.
    pub(super) is_served: bool,
}
