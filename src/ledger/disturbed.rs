//! A ledger's file that somebody else deletes, changes or replaces while it is open.

use std::io;

use super::book::Book;
use super::disk::Disk;
use super::file;
use super::record::Record;
use super::{FILE, HEAD, Ledger};

impl<D: Disk> Ledger<D> {
    /// Returns `true` if the file had to be rewritten since the last call, because somebody else
    /// deleted or changed it.
    pub fn was_disturbed(&mut self) -> bool {
        std::mem::take(&mut self.disturbed)
    }

    /// Rewrites the file if somebody else deleted or changed it, or if its contents are unknown.
    ///
    /// # Errors
    ///
    /// If the file could not be written.
    pub fn keep(&mut self) -> io::Result<()> {
        self.detect_changes()?;
        if self.suspect && !self.is_unused() { self.rewrite_with(Vec::new()) } else { Ok(()) }
    }

    /// Returns `true` if nothing was ever recorded: then the file need not exist.
    fn is_unused(&self) -> bool {
        self.book.is_empty() && self.foreign.is_empty() && self.heads.is_empty() && self.len == 0
    }

    /// Returns the records of a file that somebody has put in place of ours, as far as the book
    /// lacks them: an old copy, or another node's file. They get into the book and the file with the next record.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn foreign(&mut self) -> io::Result<Vec<Record>> {
        self.detect_changes()?;
        Ok(self.foreign.clone())
    }

    /// Detects changes by others. Lines appended to a deleted file are lost with the process, so a
    /// deleted file is rewritten from memory. A replaced file is read first: it may contain a
    /// promise, too. Lockouts that were accepted elsewhere are not accepted here.
    pub(super) fn detect_changes(&mut self) -> io::Result<()> {
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
        let contents = disk.read(FILE)?.unwrap_or_default();
        self.disturbed = true;
        self.suspect = true;
        // Doubtful records are ignored: everything that was written here is in memory.
        let mut theirs = Book::default();
        let found = file::read(&contents, None).book;
        found.records().filter(Record::travels).for_each(|record| _ = theirs.apply(record));
        self.foreign = self.book.news(&theirs);
        Ok(())
    }
}
