//! The ledger: every set of pins that clients may hold, on disk before it is on the wire.
//!
//! A file of one record per line, to which only lines are added (`file.rs`); what it says is in [`Book`]. A crash at any
//! moment leaves at worst half a line at its end, of a record that nobody has acted upon yet. Whatever else is wrong with
//! the file may be a lost promise: then it is not opened before the operator has accepted that.

pub mod book;
pub mod disk;
mod file;
pub mod leases;
mod notice;
pub mod record;
pub mod repair;
mod text;
pub mod time;

use std::io;
use std::path::Path;
use std::time::Duration;

pub use book::Book;
pub use notice::{Notice, OpenError};
pub use record::{Accepted, Ramp, Ramped, Record, Repair};

use crate::policy::promise::Seconds;
use disk::{Disk, Folder, FolderError};
use file::{Found, Lines, Link};

/// The ledger's file in the folder of the state.
pub const FILE: &str = "ledger.jsonl";
/// What a second process finds locked.
pub const LOCK: &str = "ledger.lock";
/// The newest line's number and hash: what the file must reach.
pub const HEAD: &str = "ledger.head";
const NEW: &str = "ledger.new";
const HEAD_NEW: &str = "ledger.head.new";
/// A copy of a file that was found damaged; of further ones, `ledger.damaged.1` and so on.
pub const DAMAGED: &str = "ledger.damaged";
const DAMAGED_MAX: usize = 10;
/// A file is written anew when it has this many times the lines that are needed, and a good deal more.
const COMPACT_FACTOR: usize = 2;
const COMPACT_SLACK: usize = 1000;
/// Who only looks may come just as a file is written anew: he looks so many times, with a pause between.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(25);

/// A ledger that may be written.
#[derive(Debug)]
pub struct Ledger<D = Folder> {
    disk: Option<D>,
    book: Book,
    /// The file's length, as far as it is known to be good.
    len: u64,
    lines: usize,
    /// Where its last line stands.
    link: Link,
    /// What the head's file may say: one thing, unless a write has failed.
    heads: Vec<Link>,
    /// The length of the head's file.
    head_len: u64,
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
        Self::on(folder, now)
    }

    /// Opens a folder's ledger whatever is wrong with the file, as somebody knows what it should say; damage is mended, and
    /// a copy kept.
    ///
    /// # Errors
    ///
    /// [`OpenError`], when another process has it, or it cannot be read.
    pub fn mend(folder: &Path, known: Book, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        let folder = Folder::take(folder, LOCK).map_err(|error| match error {
            FolderError::Locked => OpenError::Locked,
            FolderError::Io(error) => OpenError::Io(error),
        })?;
        Self::with(folder, now, Some(known))
    }

    /// A ledger that is forgotten with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            disk: None,
            book: Book::default(),
            len: 0,
            lines: 0,
            link: Link::default(),
            heads: Vec::new(),
            head_len: 0,
            suspect: false,
            disturbed: false,
            broken: None,
        }
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
    let mut disk = Folder::look(folder);
    for _ in 1..LOOKS {
        let found = read_files(&mut disk)?.0;
        if !found.notices.iter().any(Notice::is_loss) {
            let found = found.believe_all();
            return Ok((found.book, found.notices));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    let found = read_files(&mut disk)?.0.believe_all();
    Ok((found.book, found.notices))
}

/// The promises that a folder's damaged lines may have been: their records can be made out, though their checksums do
/// not fit.
///
/// # Errors
///
/// If the file cannot be read.
pub fn made_out(folder: &Path) -> io::Result<Book> {
    let found = read_files(&mut Folder::look(folder))?.0;
    Ok(Found { book: Book::default(), ..found }.believe_all().book)
}

/// What a file says, wherever it lies.
#[must_use]
pub fn read_book(contents: &[u8]) -> (Book, Vec<Notice>) {
    let found = file::read(contents, None).believe_all();
    (found.book, found.notices)
}

/// A book as a new file has it.
#[must_use]
pub fn written(book: &Book) -> String {
    let mut lines = Lines::anew(&[], 0);
    book.records().for_each(|record| lines.add(&record));
    lines.text
}

/// Both files of a disk. The head first: the other one is never behind it.
fn read_files(disk: &mut impl Disk) -> io::Result<(Found, Option<Vec<u8>>, Heads)> {
    let head = disk.read(HEAD)?.unwrap_or_default();
    let (links, is_clean) = file::read_head(&head);
    let contents = disk.read(FILE)?;
    let mut found = file::read(contents.as_deref().unwrap_or_default(), links.last());
    if let (None, Some(link)) = (&contents, links.last()) {
        found.notices = vec![Notice::Gone { head: link.seq }];
    }
    Ok((found, contents, Heads { links, is_clean, len: head.len() as u64 }))
}

/// What the head's file says.
struct Heads {
    /// The newest at the end; and the one before, as a process may have been killed before the newest was durable.
    links: Vec<Link>,
    is_clean: bool,
    len: u64,
}

impl<D: Disk> Ledger<D> {
    /// Reads the ledger of a disk, and mends what a crash has left.
    ///
    /// # Errors
    ///
    /// [`OpenError`], when the file cannot be read, or something may be lost of it. One that can only not be written is
    /// opened all the same.
    pub fn on(disk: D, now: Seconds) -> Result<(Self, Vec<Notice>), OpenError> {
        Self::with(disk, now, None)
    }

    /// The same; with a book of all that it should say, nothing can be lost.
    ///
    /// # Errors
    ///
    /// [`OpenError`]
    pub fn with(mut disk: D, now: Seconds, known: Option<Book>) -> Result<(Self, Vec<Notice>), OpenError> {
        let (found, contents, head) = read_files(&mut disk).map_err(OpenError::Io)?;
        let is_lossy = found.notices.iter().any(Notice::is_loss);
        let contents = contents.unwrap_or_default();
        if is_lossy {
            // The file itself stays as it is until it is mended: without room for a copy, the rest goes on.
            let _ = keep_aside(&mut disk, &contents);
            if known.is_none() {
                return Err(OpenError::Damaged(found.notices));
            }
        }
        let found = found.believe_all();
        // What is written later must not come behind an end that is torn, or in another format; and there must be a head.
        let is_whole = found.good == contents.len() && head.is_clean;
        let is_usual = contents.is_empty() || found.is_current && !head.links.is_empty();
        let mut ledger = Self {
            disk: Some(disk),
            book: found.book,
            len: found.good as u64,
            lines: found.lines,
            link: found.link,
            heads: head.links,
            head_len: head.len,
            suspect: is_lossy || !is_whole || !is_usual,
            disturbed: false,
            broken: None,
        };
        if let Some(known) = known {
            for record in ledger.book.news(&known) {
                ledger.book.apply(record);
                ledger.suspect = true;
            }
        }
        // A clock that is years ahead must not make it forget what binds.
        if repair::clock_jumped(&ledger.book, now).is_none() {
            ledger.book.forget_history(now);
        }
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
        let is_first = self.len == 0;
        let mut lines = if is_first { Lines::anew(&self.heads, self.link.seq) } else { Lines::behind(&self.link) };
        records.iter().for_each(|record| lines.add(record));
        let mut written = disk.append(FILE, lines.text.as_bytes());
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
            // After a failed fsync nobody knows what the disk has, and a second one would say that all is well. What was
            // not acknowledged is taken away, as far as that goes: the next start should not find it.
            self.suspect = true;
            let _ = disk.truncate(FILE, self.len);
            return written;
        }
        let head = lines.link.head_line();
        let is_first = self.head_len == 0;
        written = disk.append(HEAD, head.as_bytes()).and_then(|()| disk.sync(HEAD));
        if is_first && written.is_ok() {
            written = disk.sync_folder();
        }
        if written.is_err() {
            self.suspect = true;
            // The head may be durable all the same. A file that ends before its head looks damaged, and the next start
            // would be refused for nothing: the record goes only once it is sure that the head does not speak of it.
            let gone = disk.truncate(HEAD, self.head_len).and_then(|()| disk.sync(HEAD));
            let _ = gone.and_then(|()| disk.truncate(FILE, self.len));
            self.heads.push(lines.link);
            return written;
        }
        self.len += lines.text.len() as u64;
        self.head_len += head.len() as u64;
        self.lines += lines.count;
        self.heads = vec![lines.link.clone()];
        self.link = lines.link;
        Ok(())
    }

    /// Sees to it that the file is there and says what it should: one that was deleted or changed by somebody else is
    /// written anew.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    pub fn keep(&mut self) -> io::Result<()> {
        self.look_after()?;
        if self.suspect && !self.is_empty_by_right() { self.write_anew() } else { Ok(()) }
    }

    /// Nothing was ever written down: there need not be a file.
    fn is_empty_by_right(&self) -> bool {
        self.book.is_empty() && self.heads.is_empty() && self.len == 0
    }

    /// What is added to a file that has no name any more is lost with the process. So one that was deleted is written
    /// anew from memory, and one that somebody else put there is read first: what it has may be a promise, too.
    fn look_after(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if self.suspect {
            return Ok(());
        }
        let mut is_as_left = |name: &str, len: u64| {
            Ok::<_, io::Error>(disk.is_as_left(name, len)? || len == 0 && disk.read(name)?.is_none())
        };
        if is_as_left(FILE, self.len)? && is_as_left(HEAD, self.head_len)? {
            return Ok(());
        }
        self.disturbed = true;
        self.suspect = true;
        // What can only be made out is not believed: all that was ever written here is in memory.
        for record in file::read(&disk.read(FILE)?.unwrap_or_default(), None).book.records() {
            self.book.apply(record);
        }
        Ok(())
    }

    /// A new file beside the old one, then in its place: at any moment, one of them is there and whole.
    fn write_anew(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        let mut lines = Lines::anew(&self.heads, self.link.seq);
        self.book.records().for_each(|record| lines.add(&record));
        disk.remove(NEW)?;
        disk.append(NEW, lines.text.as_bytes())?;
        disk.sync(NEW)?;
        disk.rename(NEW, FILE)?;
        // From here on, which of the two files a crash would leave is open until the folder is synced.
        self.suspect = true;
        disk.sync_folder()?;
        let head = lines.link.head_line();
        disk.remove(HEAD_NEW)?;
        disk.append(HEAD_NEW, head.as_bytes())?;
        disk.sync(HEAD_NEW)?;
        self.heads.push(lines.link.clone());
        disk.rename(HEAD_NEW, HEAD)?;
        disk.sync_folder()?;
        self.suspect = false;
        self.len = lines.text.len() as u64;
        self.head_len = head.len() as u64;
        self.lines = lines.count;
        self.heads = vec![lines.link.clone()];
        self.link = lines.link;
        Ok(())
    }

    /// Puts another book in place of this one: what the operator has accepted.
    ///
    /// # Errors
    ///
    /// When the file could not be written; the old one is still there.
    pub fn replace(&mut self, book: Book) -> io::Result<()> {
        let before = std::mem::replace(&mut self.book, book);
        let written = self.write_anew();
        if written.is_err() {
            self.book = before;
        }
        written
    }
}

/// Keeps a copy of a damaged file, once.
fn keep_aside(disk: &mut impl Disk, contents: &[u8]) -> io::Result<()> {
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
mod fake_disk;
#[cfg(test)]
mod tests;
