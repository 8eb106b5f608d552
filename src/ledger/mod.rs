//! The ledger: every set of pins that clients may hold, on disk before it is on the wire.
//!
//! A file of one record per line, to which only lines are added; what it says is in [`Book`]. A crash at any moment
//! leaves at worst half a line at its end, of a record that nobody has acted upon yet.

pub mod book;
pub mod disk;
pub mod leases;
pub mod record;
pub mod time;

use std::fmt;
use std::io;
use std::path::Path;

pub use book::Book;
pub use record::{Accepted, Ramp, Ramped, Record};

use crate::policy::guard::Seconds;
use disk::{Disk, Folder, FolderError};
use record::Read;

/// The ledger's file in the folder of the state.
pub const FILE: &str = "ledger.jsonl";
/// What a second process finds locked.
pub const LOCK: &str = "ledger.lock";
const NEW: &str = "ledger.new";
/// A copy of a file that was found damaged, for whoever wants to know.
const DAMAGED: &str = "ledger.damaged";
/// A file is written anew when it has this many times the lines that are needed, and a good deal more.
const COMPACT_FACTOR: usize = 2;
const COMPACT_SLACK: usize = 1000;

/// Something about the file that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The last record was not finished; nobody has acted upon it.
    Torn {
        /// Octets that were ignored.
        octets: usize,
    },
    /// A line is damaged. What can be made out of it is believed, as that makes the guard stricter, never laxer.
    Damaged {
        /// Its number, from 1.
        line: usize,
        /// Whether its record could be made out.
        believed: bool,
    },
    /// A newer program wrote the file.
    Newer {
        /// The format's number.
        format: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Torn { octets } => {
                write!(f, "the last record is torn ({octets} octets): ignored, as nothing was sent under it")
            }
            Self::Damaged { line, believed: true } => {
                write!(
                    f,
                    "line {line} is damaged; its record can be made out and is believed; the file is kept as {DAMAGED}"
                )
            }
            Self::Damaged { line, believed: false } => {
                write!(f, "line {line} is damaged, and a promise may be lost with it; the file is kept as {DAMAGED}")
            }
            Self::Newer { format } => write!(f, "written by a newer pintle, as format {format}"),
        }
    }
}

/// Why a ledger cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has it.
    Locked,
    /// The folder or the file cannot be used.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => f.write_str("another process has the ledger"),
            Self::Io(error) => write!(f, "the ledger cannot be opened: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// A ledger that may be written.
#[derive(Debug)]
pub struct Ledger<D = Folder> {
    disk: Option<D>,
    book: Book,
    /// The file's length, as far as it is known to be good.
    len: u64,
    lines: usize,
    /// What the file holds is not known: it must be written anew before anything is added.
    suspect: bool,
    /// The file was deleted or changed by somebody else, and nobody was told yet.
    disturbed: bool,
    /// Why nothing can be written at all.
    broken: Option<String>,
}

impl Ledger {
    /// Opens the ledger of a folder, for this process alone.
    ///
    /// # Errors
    ///
    /// [`OpenError`], when another process has it, or it cannot be read.
    pub fn open(folder: &Path, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        let folder = Folder::take(folder, LOCK).map_err(|error| match error {
            FolderError::Locked => OpenError::Locked,
            FolderError::Io(error) => OpenError::Io(error),
        })?;
        Self::on(folder, now).map_err(OpenError::Io)
    }

    /// A ledger that is forgotten with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { disk: None, book: Book::default(), len: 0, lines: 0, suspect: false, disturbed: false, broken: None }
    }

    /// A ledger that could not be opened: what is known of it can be asked for, and nothing be written.
    #[must_use]
    pub fn broken(book: Book, why: String) -> Self {
        Self { book, broken: Some(why), ..Self::in_memory() }
    }
}

/// What a folder's ledger says, without taking it: for commands, beside a running server.
///
/// # Errors
///
/// When there is a file, and it cannot be read.
pub fn look(folder: &Path) -> io::Result<(Book, Vec<Notice>)> {
    let contents = Folder::look(folder).read(FILE)?.unwrap_or_default();
    let found = read(&contents);
    Ok((found.book, found.notices))
}

/// What a file says, wherever it lies.
#[must_use]
pub fn read_book(contents: &[u8]) -> (Book, Vec<Notice>) {
    let found = read(contents);
    (found.book, found.notices)
}

impl<D: Disk> Ledger<D> {
    /// Reads the ledger of a disk, and mends what a crash has left.
    ///
    /// # Errors
    ///
    /// When the file cannot be read. One that can only not be written is opened all the same.
    pub fn on(mut disk: D, now: Seconds) -> io::Result<(Self, Vec<Notice>)> {
        let contents = disk.read(FILE)?.unwrap_or_default();
        let found = read(&contents);
        let damaged = found.notices.iter().any(|n| matches!(n, Notice::Damaged { .. }));
        if damaged {
            // A copy only serves curiosity: without it, the rest goes on.
            let _ = disk.remove(DAMAGED).and_then(|()| disk.append(DAMAGED, &contents));
        }
        let torn = found.good < contents.len();
        let mut ledger = Self {
            disk: Some(disk),
            book: found.book,
            len: found.good as u64,
            lines: found.lines,
            // A torn end is cut off by writing anew; so is damage. What is written later must not come behind either.
            suspect: damaged || torn,
            disturbed: false,
            broken: None,
        };
        ledger.book.forget_history(now);
        if ledger.suspect {
            let _ = ledger.write_anew();
        }
        Ok((ledger, found.notices))
    }

    /// All that is known.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Whether records outlive the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether it could not even be opened.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Whether the file had to be written anew since this was last asked, as somebody else had deleted or changed it.
    pub fn was_disturbed(&mut self) -> bool {
        std::mem::take(&mut self.disturbed)
    }

    /// Writes records down. When this returns, they are durable, and in the book.
    ///
    /// # Errors
    ///
    /// When they may not be durable: nobody must act upon them.
    pub fn record(&mut self, records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if let Some(why) = &self.broken {
            return Err(io::Error::other(why.clone()));
        }
        if self.disk.is_some() {
            self.write(&records)?;
        }
        for record in records {
            self.book.apply(record);
        }
        Ok(())
    }

    /// Takes in what is known, whether it can be written down or not: that makes the guard stricter, never laxer.
    pub fn believe(&mut self, promises: Vec<Record>) {
        for record in promises {
            self.book.apply(record);
        }
    }

    /// Writes the file anew if most of it is out of date. That it fails is told, but hurts nobody.
    ///
    /// # Errors
    ///
    /// When the file could not be written; the old one is still there.
    pub fn compact(&mut self, now: Seconds) -> io::Result<bool> {
        let needed = self.book.len() + 1;
        if self.disk.is_none() || self.lines <= needed * COMPACT_FACTOR + COMPACT_SLACK {
            return Ok(false);
        }
        self.book.forget_history(now);
        self.write_anew().map(|()| true)
    }

    fn write(&mut self, records: &[Record]) -> io::Result<()> {
        self.look_after()?;
        if self.suspect {
            self.write_anew()?;
        }
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut text = String::new();
        let is_first = self.len == 0;
        if is_first {
            text.push_str(&Record::format().line());
        }
        for record in records {
            text.push_str(&record.line());
        }
        let mut written = disk.append(FILE, text.as_bytes());
        if written.is_err() {
            // A full disk may have taken a part; behind half a line, the next record would be lost.
            self.suspect = disk.truncate(FILE, self.len).is_err();
            return written;
        }
        written = disk.sync(FILE);
        if is_first && written.is_ok() {
            written = disk.sync_folder();
        }
        if written.is_err() {
            // After a failed fsync nobody knows what the disk has, and a second one would say that all is well.
            self.suspect = true;
            return written;
        }
        self.len += text.len() as u64;
        self.lines += records.len() + usize::from(is_first);
        Ok(())
    }

    /// What is added to a file that has no name any more is lost with the process. So one that was deleted is written
    /// anew from memory, and one that somebody else put there is read first: what it has may be a promise, too.
    fn look_after(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if self.suspect || disk.is_as_left(FILE, self.len)? || self.len == 0 && disk.read(FILE)?.is_none() {
            return Ok(());
        }
        self.disturbed = true;
        self.suspect = true;
        for record in read(&disk.read(FILE)?.unwrap_or_default()).book.records() {
            self.book.apply(record);
        }
        Ok(())
    }

    /// A new file beside the old one, then in its place: at any moment, one of them is there and whole.
    fn write_anew(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut text = Record::format().line();
        let mut lines = 1;
        for record in self.book.records() {
            text.push_str(&record.line());
            lines += 1;
        }
        disk.remove(NEW)?;
        disk.append(NEW, text.as_bytes())?;
        disk.sync(NEW)?;
        disk.rename(NEW, FILE)?;
        // From here on, which of the two files a crash would leave is open until the folder is synced.
        self.suspect = true;
        disk.sync_folder()?;
        self.suspect = false;
        self.len = text.len() as u64;
        self.lines = lines;
        Ok(())
    }
}

struct Found {
    book: Book,
    notices: Vec<Notice>,
    /// Octets up to the end of the last good line.
    good: usize,
    lines: usize,
}

fn read(contents: &[u8]) -> Found {
    let mut found = Found { book: Book::default(), notices: Vec::new(), good: 0, lines: 0 };
    // Lines that are no records, and those of the end may just not have been finished.
    let mut pending: Vec<Notice> = Vec::new();
    let mut end = 0;
    for (number, line) in contents.split_inclusive(|b| *b == b'\n').enumerate() {
        end += line.len();
        found.lines += 1;
        let whole = line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let line = number + 1;
        match Record::read(text) {
            // Without its end, a line that is otherwise whole has not been acted upon, but does no harm.
            Read::Good(record) => {
                found.notices.append(&mut pending);
                if let Record::Format(format) = record
                    && Record::Format(format) != Record::format()
                {
                    found.notices.push(Notice::Newer { format });
                }
                found.book.apply(record);
                if whole {
                    found.good = end;
                }
            }
            Read::Doubtful(record) => {
                found.book.apply(record);
                found.notices.append(&mut pending);
                found.notices.push(Notice::Damaged { line, believed: true });
                found.good = end;
            }
            Read::Bad if text.is_empty() => {}
            Read::Bad => pending.push(Notice::Damaged { line, believed: false }),
        }
    }
    if found.good < contents.len() {
        found.notices.push(Notice::Torn { octets: contents.len() - found.good });
    }
    found
}

#[cfg(test)]
mod fake_disk;
#[cfg(test)]
mod tests;
