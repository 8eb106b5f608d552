//! The lock's file of a folder from which pintle serves.

use super::disk::Disk;
use super::file::NewestRecord;
use super::names::SERVED;
use super::{Ledger, Record};

impl<D: Disk> Ledger<D> {
    /// Adds the records that a new ledger begins with. They are written with the next ones, or by [`Self::keep`].
    pub fn begin_with(&mut self, records: Vec<Record>) {
        self.suspect |= self.is_durable() && !records.is_empty();
        self.believe(records);
    }

    /// Returns the error of a ledger that could not be opened.
    #[must_use]
    pub fn why_broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Notes the newest record beside the files. A note that is behind is as good as an older one.
    pub(super) fn note(&mut self) {
        let (seq, is_served) = (self.position.seq, self.is_served);
        if let (Some(disk), Some(id)) = (&mut self.disk, self.id.clone()) {
            let _ = disk.note(&NewestRecord { id, seq, is_served }.text());
        }
    }

    /// Notes in the lock's file that pintle serves from this folder. Until then, a start leaves nothing there that shows
    /// use: the next one must not take a failed one for proof that nothing was lost. If the folder was left, it is in use
    /// again, and the file has what the other one had.
    pub fn note_served(&mut self) {
        self.is_served = true;
        let text = match self.id.clone() {
            // The number of the newest record says more.
            Some(id) if self.position.seq > 0 => NewestRecord { id, seq: self.position.seq, is_served: true }.text(),
            _ => SERVED.to_owned(),
        };
        let has_all = !self.suspect;
        if let Some(disk) = &mut self.disk {
            let _ = if has_all { disk.note_alone(&text) } else { disk.note(&text) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::UNSERVED;
    use super::super::tests::sample;
    use super::super::{LOCK, has_served, is_unused, look};
    use super::*;

    /// Only a start that has served, or a record, leaves the proof.
    #[test]
    fn a_start_that_fails_leaves_no_proof_of_use() {
        assert_eq!(UNSERVED.len(), SERVED.len());
        let folder = tempfile::tempdir().unwrap();
        let open = || Ledger::open(folder.path(), 0).unwrap().0;
        for _ in 0..2 {
            drop(open());
            assert!(folder.path().join(LOCK).exists() && !has_served(folder.path()));
        }
        open().note_served();
        assert!(has_served(folder.path()));
        drop(open());
        assert!(has_served(folder.path()) && look(folder.path()).unwrap().1.is_empty());
        // A command has begun the ledger.
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), 0).unwrap();
        ledger.record(sample(1).0).unwrap();
        drop(ledger);
        let open = || Ledger::open(folder.path(), 0).unwrap().0;
        let known = open().book().len();
        assert!(known > 0 && !has_served(folder.path()) && is_unused(folder.path()));
        // It was ended before its note, or somebody has brought the files alone.
        std::fs::write(folder.path().join(LOCK), UNSERVED).unwrap();
        assert!(!has_served(folder.path()) && is_unused(folder.path()));
        std::fs::remove_file(folder.path().join(LOCK)).unwrap();
        assert!(!has_served(folder.path()) && is_unused(folder.path()));
        drop(open());
        assert!(!has_served(folder.path()) && is_unused(folder.path()));
        let mut ledger = open();
        ledger.note_served();
        assert!(has_served(folder.path()) && !is_unused(folder.path()));
        ledger.record(sample(2).0).unwrap();
        drop(ledger);
        assert!(has_served(folder.path()) && look(folder.path()).unwrap().1.is_empty());
        // The lock of an older version.
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_served(folder.path()));
        std::fs::write(folder.path().join(LOCK), "").unwrap();
        assert!(has_served(folder.path()));
        // The folder is deleted while pintle serves.
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("state");
        let (mut ledger, _) = Ledger::open(&at, 0).unwrap();
        ledger.note_served();
        std::fs::remove_dir_all(&at).unwrap();
        ledger.record(sample(1).0).unwrap();
        assert!(has_served(&at));
    }
}
