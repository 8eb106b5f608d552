//! A ledger's file that somebody else deletes, changes or replaces while it is open.

use std::io;

use super::book::Book;
use super::disk::Disk;
use super::file;
use super::record::Record;
use super::repair::{bounded, is_beyond};
use super::{FILE, HEAD, Ledger};
use crate::policy::promise::{Promise, Seconds};

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

    /// Returns the records of a file that somebody has put there instead of ours, as far as the book
    /// lacks them: an old copy, or another node's file. They get into the book and the file with the
    /// next record. Those with impossible dates, of a clock that was wrong, count as sent until
    /// `now`: a promise may stand behind each. `None` for a doubted clock, which corrects no date.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn foreign(&mut self, now: Option<Seconds>) -> io::Result<Vec<Record>> {
        self.now = now;
        self.detect_changes()?;
        Ok(self.foreign.clone())
    }

    /// The same for a ledger that could not be opened, of what its file has now: the caller may read it
    /// all the same.
    pub fn hear(&mut self, found: &Book, now: Option<Seconds>) -> Vec<Record> {
        self.now = now;
        let news = self.unknown_of(found);
        self.note_foreign(news);
        std::mem::take(&mut self.foreign)
    }

    /// Returns the foreign records with impossible dates, unchanged, until the file is written anew.
    #[must_use]
    pub fn beyond(&self) -> &[Record] {
        &self.beyond
    }

    /// Detects changes by others. Lines appended to a deleted file are lost with the process, so a
    /// deleted file is rewritten from memory. A replaced file is read first: it may contain a
    /// promise, too. Lockouts that were accepted elsewhere are not accepted here.
    pub(super) fn detect_changes(&mut self) -> io::Result<()> {
        let Some(disk) = &mut self.disk else { return Ok(()) };
        if self.suspect {
            // A write has failed, and the next one replaces the file, whatever it is by then. If a disk cannot even read
            // it, a new file is still better than none.
            if let Ok(Some(contents)) = disk.read(FILE) {
                let news = self.unknown_in(&contents);
                // The history may have been shortened since the file was written.
                let is_over = |promise: &Promise| self.now.is_some_and(|now| !promise.is_alive(now));
                let binds = |record: &Record| !matches!(record, Record::Promise(p) if is_over(p));
                let news: Vec<Record> = news.into_iter().filter(binds).collect();
                self.disturbed |= !news.is_empty();
                self.note_foreign(news);
            }
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
        let news = self.unknown_in(&contents);
        self.note_foreign(news);
        Ok(())
    }

    /// Returns the records of a file that the book lacks, and that this process has not tried to write. The book takes the
    /// tried ones: the next start would know them, too.
    fn unknown_in(&mut self, contents: &[u8]) -> Vec<Record> {
        // Doubtful records are ignored: everything that was written here is in memory.
        self.unknown_of(&file::read(contents, None).book)
    }

    /// The same of a book.
    fn unknown_of(&mut self, found: &Book) -> Vec<Record> {
        let mut theirs = Book::default();
        found.records().filter(Record::travels).for_each(|record| _ = theirs.apply(record));
        let mut tried = self.tried.clone();
        let is_foreign = |record: &Record| tried.apply(record.clone());
        let (foreign, own): (Vec<Record>, Vec<Record>) = self.book.news(&theirs).into_iter().partition(is_foreign);
        self.believe(own);
        foreign
    }

    /// Notes foreign records. Of impossible ones, the book takes what counts at once: while the disk refuses a new file, they
    /// are still in the old one, and no news any more. The clock alone shows no date to be impossible: it may be behind.
    fn note_foreign(&mut self, news: Vec<Record>) {
        let latest = self.now.zip(self.book.newest()).map(|(now, newest)| now.max(newest));
        let is_wrong = |record: &Record| latest.is_some_and(|latest| is_beyond(record, latest));
        let (mut beyond, mut foreign): (Vec<Record>, Vec<Record>) = news.into_iter().partition(is_wrong);
        beyond.retain(|record| !self.beyond.contains(record));
        let counted: Vec<Record> =
            beyond.iter().filter_map(|record| latest.map(|latest| bounded(record.clone(), latest))).collect();
        self.believe(counted.clone());
        foreign.extend(counted);
        self.beyond.extend(beyond);
        self.foreign = foreign;
    }

    /// Notes records whose writing has failed: they are no foreign ones if the file has them nevertheless.
    pub(super) fn note_tried(&mut self, records: Vec<Record>) {
        records.into_iter().for_each(|record| _ = self.tried.apply(record));
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake_disk::{FakeDisk, FakeFile};
    use super::super::{look, written};
    use super::*;
    use crate::host::HostPattern;
    use crate::keys::pin::Pin;
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::PromiseChannel;

    const NOW: Seconds = 1_800_000_000;

    fn promise(key: u8, last_sent: Seconds) -> Record {
        Record::Promise(Promise {
            site: "a.example".into(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            except: Vec::new(),
            pins: vec![Pin::of_spki(&[key])],
            max_age: 1000,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: NOW,
            last_sent,
        })
    }

    fn text(records: &[Record]) -> String {
        let mut book = Book::default();
        records.iter().for_each(|record| _ = book.apply(record.clone()));
        written(&book)
    }

    /// Another node's clock was years ahead: its promise counts as sent until today, and does not poison the book.
    #[test]
    fn a_date_of_the_far_future_counts_as_today() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), NOW).unwrap();
        ledger.record(vec![promise(1, NOW)]).unwrap();
        let far = promise(2, NOW + 5 * 365 * 86400);
        std::fs::write(folder.path().join(FILE), text(&[far.clone(), promise(3, NOW)])).unwrap();
        let foreign = ledger.foreign(Some(NOW)).unwrap();
        assert_eq!((foreign.len(), ledger.beyond()), (2, std::slice::from_ref(&far)));
        assert!(!foreign.iter().any(|record| is_beyond(record, NOW)), "{foreign:?}");
        // The disk refuses the new file for a while.
        assert!(
            !ledger.foreign(Some(NOW + 5)).unwrap().iter().any(|record| *record == far || is_beyond(record, NOW + 5))
        );
        assert_eq!(ledger.foreign(Some(NOW + 5)).unwrap(), [promise(3, NOW)]);
        ledger.keep().unwrap();
        drop(ledger);
        let (book, notices) = look(folder.path()).unwrap();
        assert_eq!((notices, book.promises().len()), (vec![], 3));
        assert!(!book.records().any(|record| is_beyond(&record, NOW + 5)), "{:?}", book.promises());
        assert!(book.promises().iter().all(|promise| promise.is_alive(NOW)));
    }

    /// This machine's clock is behind, or doubted, or nothing here vouches for it: the dates are the file's.
    #[test]
    fn a_wrong_clock_shortens_no_promise() {
        const LATE: Seconds = NOW + 200 * 86400;
        let check = |own: Option<Record>, now: Option<Seconds>| {
            let folder = tempfile::tempdir().unwrap();
            let (mut ledger, _) = Ledger::open(folder.path(), NOW).unwrap();
            ledger.record(own.into_iter().collect()).unwrap();
            std::fs::write(folder.path().join(FILE), text(&[promise(2, LATE)])).unwrap();
            assert_eq!((ledger.foreign(now).unwrap(), ledger.beyond()), (vec![promise(2, LATE)], &[][..]));
        };
        check(Some(promise(1, LATE)), Some(NOW));
        check(Some(promise(1, NOW)), None);
        check(None, Some(NOW));
    }

    /// Returns a ledger whose last write has failed, and whose file then is this one.
    fn after_a_failure(contents: &[Record]) -> Ledger<FakeDisk> {
        let (mut ledger, _) = Ledger::on(FakeDisk::default(), NOW).unwrap();
        ledger.record(vec![promise(1, NOW)]).unwrap();
        let disk = ledger.disk.as_mut().unwrap();
        // Two looks at the files, the append, and its sync.
        disk.fail_at = Some(disk.operations + 4);
        assert!(ledger.record(vec![promise(1, NOW + 9)]).is_err() && ledger.suspect);
        let file = FakeFile { seen: text(contents).into_bytes(), ..FakeFile::default() };
        ledger.disk.as_mut().unwrap().files.insert(FILE.into(), file);
        ledger
    }

    #[test]
    fn a_file_that_comes_while_a_write_has_failed() {
        let mut ledger = after_a_failure(&[promise(2, NOW)]);
        assert_eq!(ledger.foreign(Some(NOW)).unwrap(), [promise(2, NOW)]);
        ledger.keep().unwrap();
        let (again, notices) = Ledger::on(ledger.disk.unwrap().reboot(), NOW).unwrap();
        assert_eq!((notices, again.book().promises().len()), (vec![], 2));
        // What this process tried to write is there after all.
        let mut ledger = after_a_failure(&[promise(1, NOW + 9)]);
        assert_eq!(ledger.foreign(Some(NOW)).unwrap(), []);
        assert_eq!(ledger.book().records().collect::<Vec<_>>(), [promise(1, NOW + 9)]);
        // What is over binds nobody.
        let mut ledger = after_a_failure(&[promise(2, NOW)]);
        assert_eq!(ledger.foreign(Some(NOW + 2000)).unwrap(), []);
    }
}
