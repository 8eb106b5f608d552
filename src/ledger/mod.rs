//! The ledger: every set of pins that clients may hold, on disk before clients receive it.
//!
//! It is a file with one record per line, to which lines are only appended (`file.rs`); its
//! contents are a [`Book`]. A crash leaves at most half a line at its end, of a record that nobody
//! has acted on yet. Any other damage may be a lost promise: pintle does not open such a file until
//! the operator accepts the loss.

pub mod book;
pub mod boot;
pub mod disk;
mod disturbed;
mod file;
mod fold;
mod json;
pub mod leases;
mod left;
pub mod line;
mod lock;
mod look;
mod names;
mod news;
mod notice;
pub mod record;
pub mod repair;
pub mod time;

use std::io;
use std::path::Path;

pub use book::Book;
pub use left::{LeftMark, left_for, note_left};
pub use line::set_id;
pub use look::{
    glance, glance_aside, has_served, is_held, is_new, is_replaced, is_set_aside, is_unused, look, own_id, read_book,
    salvaged, unreadable,
};
pub use names::{DAMAGED, FILE, HEAD, LOCK, MOVED};
pub use news::News;
pub use notice::{Notice, OpenError};
pub use record::{Accepted, Burnt, ClockNote, Declined, Ramp, Ramped, Record, Repair};

use crate::policy::promise::{Promise, Seconds};
use disk::{Disk, Folder, FolderError};
use file::{NewLines, Position};
use look::read_files;
use names::{HEAD_NEW, NEW};

/// Copies of damaged files that are kept at most.
const DAMAGED_MAX: usize = 10;
/// The file is rewritten if it has more than this many times the needed lines, and this slack.
const COMPACT_FACTOR: usize = 2;
const COMPACT_SLACK: usize = 1000;
/// Also if it has grown to twice its length after the last time, and by this many bytes: a record
/// may have thousands of names.
const COMPACT_BYTES: u64 = 4 << 20;

/// The ledger of a running process. It accepts records.
#[derive(Debug)]
pub struct Ledger<D = Folder> {
    disk: Option<D>,
    book: Book,
    /// The length of the file, as far as it is known to be good.
    len: u64,
    lines: usize,
    /// The length of the file after it was last compacted; 0 if this process has not done so.
    compacted: u64,
    /// The position of its last line.
    position: Position,
    /// The possible contents of the head's file: one position, unless a write has failed.
    heads: Vec<Position>,
    /// The length of the head's file.
    head_len: u64,
    /// The ledger's id; `None` before its first file.
    id: Option<String>,
    /// pintle serves from the folder, or has served.
    is_served: bool,
    /// `true` if the contents of the file are unknown: it must be rewritten before anything is
    /// appended.
    suspect: bool,
    /// `true` if somebody else deleted or changed the file, and this is not reported yet.
    disturbed: bool,
    /// Records of somebody else's file that are in neither the book nor this ledger's file.
    foreign: Vec<Record>,
    /// Foreign records whose dates cannot be right, as they were in that file.
    beyond: Vec<Record>,
    /// Records whose writing has failed. They may be in the file nevertheless.
    tried: Book,
    /// The last time that the caller has told; `None` while the clock is doubted.
    now: Option<Seconds>,
    /// The reason why nothing can be written at all.
    broken: Option<String>,
}

impl Ledger {
    /// Opens the ledger of a folder, for this process alone.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if another process holds it, if it is damaged, or if it cannot be read.
    pub fn open(folder: &Path, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        let folder = Folder::take(folder, LOCK).map_err(|error| match error {
            FolderError::Locked => OpenError::Locked,
            FolderError::Io(error) => OpenError::Io(error),
        })?;
        Self::on(folder, now)
    }

    /// Opens a folder's ledger despite any damage, as the caller knows its contents. Repairs the
    /// file, and keeps a copy of the damaged one.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if another process holds it, or if it cannot be read.
    pub fn mend(folder: &Path, known: Book, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        let folder = Folder::take(folder, LOCK).map_err(|error| match error {
            FolderError::Locked => OpenError::Locked,
            FolderError::Io(error) => OpenError::Io(error),
        })?;
        Self::with(folder, now, Some(known))
    }

    /// Returns a ledger that lasts as long as the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            disk: None,
            book: Book::default(),
            len: 0,
            lines: 0,
            compacted: 0,
            position: Position::default(),
            heads: Vec::new(),
            head_len: 0,
            id: None,
            is_served: false,
            suspect: false,
            disturbed: false,
            foreign: Vec::new(),
            beyond: Vec::new(),
            tried: Book::default(),
            now: None,
            broken: None,
        }
    }

    /// Returns a stand-in for a ledger that could not be opened: readable, and every write fails
    /// with this error.
    #[must_use]
    pub fn broken(book: Book, why: String) -> Self {
        Self { book, broken: Some(why), ..Self::in_memory() }
    }
}

/// Returns the text of a new file with this book.
#[must_use]
pub fn written(book: &Book) -> String {
    let mut lines = NewLines::new_file(&[], 0, "");
    book.records().for_each(|record| lines.add(&record));
    lines.text
}

impl<D: Disk> Ledger<D> {
    /// Opens the ledger of a disk, and repairs the traces of a crash.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if the file cannot be read, or if records may be lost. A file that can be read
    /// but not written is opened nevertheless.
    pub fn on(disk: D, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        Self::with(disk, now, None)
    }

    /// Opens the ledger of a disk. With a book of its expected contents, damage is not an error.
    ///
    /// # Errors
    ///
    /// [`OpenError`]
    pub fn with(mut disk: D, now: Seconds, known: Option<Book>) -> Result<(Self, Vec<Notice>), OpenError> {
        let (found, contents, head) = read_files(&mut disk).map_err(OpenError::Io)?;
        let is_lossy = found.notices.iter().any(Notice::is_loss);
        if is_lossy {
            // The file stays unchanged until it is repaired. Without free space for a copy, opening
            // continues.
            let _ = contents.as_ref().map(|contents| keep_copy(&mut disk, contents));
            if known.is_none() {
                return Err(OpenError::Damaged(found.notices));
            }
        }
        let contents = contents.unwrap_or_default();
        let mut found = found.with_doubtful();
        let is_late = found.catch_up();
        // New lines must not follow a torn line or another format, and there must be a head.
        let is_whole = found.good == contents.len() && head.is_clean;
        let is_usual = contents.is_empty() || found.is_current && found.id.is_some() && !head.positions.is_empty();
        // An accepted loss continues from the lost records: what is put back later is an old copy, too.
        let noted = head.note.filter(|note| is_lossy && found.id.as_ref().is_none_or(|id| *id == note.id));
        found.position.seq = noted.as_ref().map_or(0, |note| note.seq).max(found.position.seq);
        let mut ledger = Self {
            disk: Some(disk),
            book: found.book,
            len: found.good as u64,
            lines: found.lines,
            compacted: 0,
            position: found.position,
            heads: head.positions,
            head_len: head.len,
            id: found.id.or_else(|| noted.map(|note| note.id)),
            is_served: head.is_served,
            suspect: is_lossy || is_late || !is_whole || !is_usual,
            disturbed: false,
            foreign: Vec::new(),
            beyond: Vec::new(),
            tried: Book::default(),
            now: Some(now),
            broken: None,
        };
        if let Some(known) = known {
            for record in ledger.book.news(&known) {
                ledger.book.apply(record);
                ledger.suspect = true;
            }
        }
        // A clock that is years ahead must not remove binding promises.
        if repair::clock_jumped(&ledger.book, now).is_none() {
            ledger.book.forget_history(now);
        }
        if ledger.suspect {
            let _ = ledger.rewrite();
        }
        Ok((ledger, found.notices))
    }

    /// Returns the contents.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Returns `true` if records outlive the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.disk.is_some()
    }

    /// Returns `true` if the ledger could not be opened.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Writes records. After it returns, they are durable and in the book.
    ///
    /// # Errors
    ///
    /// If they may not be durable: nobody must act on them.
    pub fn record(&mut self, records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(why) = &self.broken {
            return Err(io::Error::other(why.clone()));
        }
        if self.disk.is_some() {
            self.detect_changes()?;
            if self.suspect {
                return self.rewrite_with(records);
            }
            if let Err(error) = self.append(&records) {
                self.note_tried(records);
                return Err(error);
            }
        }
        self.believe(records);
        Ok(())
    }

    /// Rewrites a file that must be rewritten anyway, with more records: all of them, or none.
    fn rewrite_with(&mut self, records: Vec<Record>) -> io::Result<()> {
        let foreign = std::mem::take(&mut self.foreign);
        self.believe(foreign);
        let before = self.book.clone();
        self.believe(records.clone());
        let written = self.rewrite();
        if written.is_err() {
            self.book = before;
            self.note_tried(records);
        }
        written
    }

    /// Adds records to the book without writing them. That makes the guard stricter, never laxer.
    pub fn believe(&mut self, promises: Vec<Record>) {
        for record in promises {
            self.book.apply(record);
        }
    }

    /// Returns `true` if most of the file may be outdated.
    #[must_use]
    pub fn is_long(&self) -> bool {
        let lines = (self.book.len() + 1) * COMPACT_FACTOR + COMPACT_SLACK;
        let bytes = self.compacted.saturating_mul(2).saturating_add(COMPACT_BYTES);
        self.disk.is_some() && (self.lines > lines || self.len > bytes)
    }

    /// Rewrites the file without what is outdated, if it is long; returns `true` if it did. A
    /// failure is harmless. Sets that `stays` names keep their ids.
    ///
    /// # Errors
    ///
    /// If the file could not be rewritten; the old one is still there.
    pub fn compact(&mut self, now: Seconds, stays: impl Fn(&Promise) -> bool) -> io::Result<bool> {
        if !self.is_long() {
            return Ok(false);
        }
        self.book.forget_history(now);
        self.book.fold(now, stays);
        self.rewrite()?;
        self.compacted = self.len;
        Ok(true)
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let is_first = self.len == 0;
        let mut lines = match is_first {
            true => {
                let id = self.id.get_or_insert_with(file::new_id);
                NewLines::new_file(&self.heads, self.position.seq, id)
            }
            false => NewLines::after(&self.position),
        };
        records.iter().for_each(|record| lines.add(record));
        let mut written = disk.append(FILE, lines.text.as_bytes());
        if written.is_err() {
            // A full disk may have taken a part. A record appended to half a line would be lost.
            self.suspect = cut(disk, FILE, self.len).is_err();
            return written;
        }
        written = disk.sync(FILE);
        if is_first && written.is_ok() {
            written = disk.sync_folder();
        }
        if written.is_err() {
            // After a failed fsync the contents on disk are unknown, and a second fsync would
            // report success. Remove the unacknowledged lines if possible: the next start should
            // not find them.
            self.suspect = true;
            let _ = cut(disk, FILE, self.len);
            return written;
        }
        let head = lines.position.head_line();
        let is_first = self.head_len == 0;
        written = disk.append(HEAD, head.as_bytes()).and_then(|()| disk.sync(HEAD));
        if is_first && written.is_ok() {
            written = disk.sync_folder();
        }
        if written.is_err() {
            self.suspect = true;
            // The head may be durable nevertheless. A file that ends before its head looks damaged,
            // and the next start would refuse it needlessly. So remove the record only after the
            // head that names it is certainly gone.
            let gone = match cut(disk, HEAD, self.head_len) {
                Ok(()) if is_first => disk.sync_folder(),
                Ok(()) => disk.sync(HEAD),
                failed => failed,
            };
            let _ = gone.and_then(|()| cut(disk, FILE, self.len));
            self.heads.push(lines.position);
            return written;
        }
        self.len += lines.text.len() as u64;
        self.head_len += head.len() as u64;
        self.lines += lines.count;
        self.heads = vec![lines.position.clone()];
        self.position = lines.position;
        self.note();
        Ok(())
    }

    /// Writes a new file beside the old one, then renames it: at any moment, one of them is there
    /// and complete.
    fn rewrite(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let id = self.id.get_or_insert_with(file::new_id);
        let mut lines = NewLines::new_file(&self.heads, self.position.seq, id);
        self.book.records().for_each(|record| lines.add(&record));
        disk.remove(NEW)?;
        disk.append(NEW, lines.text.as_bytes())?;
        disk.sync(NEW)?;
        disk.rename(NEW, FILE)?;
        // From here until the folder is synced, a crash may leave either file.
        self.suspect = true;
        disk.sync_folder()?;
        let head = lines.position.head_line();
        disk.remove(HEAD_NEW)?;
        disk.append(HEAD_NEW, head.as_bytes())?;
        disk.sync(HEAD_NEW)?;
        self.heads.push(lines.position.clone());
        disk.rename(HEAD_NEW, HEAD)?;
        disk.sync_folder()?;
        self.suspect = false;
        (self.tried, self.beyond) = (Book::default(), Vec::new());
        self.len = lines.text.len() as u64;
        self.head_len = head.len() as u64;
        self.lines = lines.count;
        self.heads = vec![lines.position.clone()];
        self.position = lines.position;
        self.note();
        Ok(())
    }

    /// Replaces the book: with the one that the operator has accepted.
    ///
    /// # Errors
    ///
    /// If the file could not be written; the old one is still there.
    pub fn replace(&mut self, book: Book) -> io::Result<()> {
        let before = std::mem::replace(&mut self.book, book);
        let written = self.rewrite();
        if written.is_err() {
            self.book = before;
        }
        written
    }
}

/// Takes back an append. An empty file would look like one whose records are lost, so it goes.
fn cut(disk: &mut impl Disk, name: &str, len: u64) -> io::Result<()> {
    if len == 0 { disk.remove(name) } else { disk.truncate(name, len) }
}

/// Keeps one copy of a damaged file.
fn keep_copy(disk: &mut impl Disk, contents: &[u8]) -> io::Result<()> {
    for number in 0..DAMAGED_MAX {
        let name = if number == 0 { DAMAGED.to_owned() } else { format!("{DAMAGED}.{number}") };
        match disk.read(&name)? {
            Some(known) if known == contents => return Ok(()),
            Some(_) => {}
            None => return disk.append(&name, contents).and_then(|()| disk.sync(&name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod emptied;
#[cfg(test)]
mod fake_disk;
#[cfg(test)]
mod tests;
