//! The ledger on a disk that loses what was not made durable, and fails at any operation.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::record::tests::any_record;
use super::*;
use crate::policy::guard::Promise;

/// A file as programs see it, and what of it a crash would leave for sure.
#[derive(Debug, Clone, Default)]
struct FakeFile {
    seen: Vec<u8>,
    durable: Vec<u8>,
}

/// A disk with a volatile cache. After `crash_at` operations it is dead; at `fail_at`, one operation fails.
#[derive(Debug, Clone, Default)]
struct FakeDisk {
    files: BTreeMap<String, FakeFile>,
    /// Names as they are after a crash.
    durable_names: BTreeMap<String, Vec<u8>>,
    operations: usize,
    crash_at: Option<usize>,
    fail_at: Option<usize>,
    /// Bytes that still fit.
    room: Option<usize>,
    /// Decides what an unfinished operation leaves.
    luck: u64,
}

impl FakeDisk {
    fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.crash_at.is_some_and(|at| self.operations > at) {
            return Err(io::Error::other("the machine is off"));
        }
        if self.fail_at == Some(self.operations) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn random(&mut self, below: usize) -> usize {
        self.luck = self.luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.luck >> 33) as usize) % below.max(1)
    }

    fn is_off(&self) -> bool {
        self.crash_at.is_some_and(|at| self.operations > at)
    }

    /// What the next boot finds: all that is durable, and any part of what is not.
    fn reboot(mut self) -> Self {
        // A rename that was not made durable may have happened or not.
        let names: Vec<String> = self.files.keys().chain(self.durable_names.keys()).cloned().collect();
        let newer = self.random(2) == 0;
        let mut files = BTreeMap::new();
        for name in names {
            let kept = if newer { self.files.get(&name).cloned() } else { None };
            let contents = match (kept, self.durable_names.get(&name)) {
                (Some(file), _) => self.torn(&file),
                (None, Some(durable)) if !newer => durable.clone(),
                (None, _) => continue,
            };
            files.insert(name, FakeFile { seen: contents.clone(), durable: contents });
        }
        if !newer {
            // The old names, with what was appended to them since.
            let now = self.files.clone();
            for (name, file) in &mut files {
                if let Some(current) = now.get(name).filter(|c| c.seen.starts_with(&file.durable)) {
                    let torn = self.torn(current);
                    if torn.starts_with(&file.durable) {
                        *file = FakeFile { seen: torn.clone(), durable: torn };
                    }
                }
            }
        }
        let durable_names = files.iter().map(|(n, f)| (n.clone(), f.durable.clone())).collect();
        Self { files, durable_names, luck: self.luck, ..Self::default() }
    }

    /// Durable octets, then some of the rest, the last ones perhaps as zeros.
    fn torn(&mut self, file: &FakeFile) -> Vec<u8> {
        if !file.seen.starts_with(&file.durable) {
            return if self.random(2) == 0 { file.seen.clone() } else { file.durable.clone() };
        }
        let extra = file.seen.len() - file.durable.len();
        let len = file.durable.len() + self.random(extra + 1);
        let mut contents = file.seen[..len].to_vec();
        if self.random(3) == 0 {
            let zeros = self.random(20);
            contents.extend(std::iter::repeat_n(0, zeros.min(file.seen.len() - len)));
        }
        contents
    }
}

impl Disk for FakeDisk {
    fn read(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.step()?;
        Ok(self.files.get(name).map(|f| f.seen.clone()))
    }

    fn append(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let step = self.step();
        let fits = self.room.unwrap_or(usize::MAX).min(contents.len());
        let len = match (&step, self.is_off() || self.fail_at == Some(self.operations)) {
            (Err(_), true) => self.random(contents.len() + 1).min(fits),
            _ => fits,
        };
        if let Some(room) = &mut self.room {
            *room -= len;
        }
        self.files.entry(name.to_owned()).or_default().seen.extend_from_slice(&contents[..len]);
        step?;
        if len < contents.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.step()?;
        let file = self.files.entry(name.to_owned()).or_default();
        if let Some(room) = &mut self.room {
            *room += file.seen.len().saturating_sub(len as usize);
        }
        file.seen.truncate(len as usize);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        if let Some(file) = self.files.get_mut(name) {
            file.durable = file.seen.clone();
            if let Some(durable) = self.durable_names.get_mut(name) {
                *durable = file.durable.clone();
            }
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.step()?;
        if let (Some(file), Some(room)) = (self.files.remove(name), &mut self.room) {
            *room += file.seen.len();
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.step()?;
        let file = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.step()?;
        self.durable_names = self.files.iter().map(|(n, f)| (n.clone(), f.durable.clone())).collect();
        Ok(())
    }

    fn is_as_left(&mut self, name: &str, len: u64) -> io::Result<bool> {
        self.step()?;
        Ok(self.files.get(name).is_some_and(|file| file.seen.len() as u64 == len))
    }
}

/// All that was acknowledged is there.
fn holds_all(book: &Book, acknowledged: &[Promise]) -> bool {
    acknowledged
        .iter()
        .all(|p| book.find(p).is_some_and(|found| found.last_sent >= p.last_sent && found.first_sent <= p.first_sent))
}

/// Records in batches; compaction now and then. Returns what was acknowledged.
fn drive(ledger: &mut Ledger<FakeDisk>, batches: &[Vec<Record>], compact: bool) -> Vec<Promise> {
    let mut acknowledged = Vec::new();
    for batch in batches {
        if ledger.record(batch.clone()).is_ok() {
            acknowledged.extend(batch.iter().filter_map(|r| match r {
                Record::Promise(p) => Some(p.clone()),
                _ => None,
            }));
        }
        if compact {
            let _ = ledger.write_anew();
        }
    }
    acknowledged
}

fn batches() -> impl Strategy<Value = Vec<Vec<Record>>> {
    prop::collection::vec(prop::collection::vec(any_record(), 1..4), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A crash at any operation loses nothing that was acknowledged, and the next start takes the file as it is.
    #[test]
    fn a_crash_at_any_moment(batches in batches(), crash in 0usize..60, luck in any::<u64>(), compact in any::<bool>()) {
        let disk = FakeDisk { crash_at: Some(crash), luck, ..FakeDisk::default() };
        let (disk, acknowledged) = match Ledger::on(disk.clone(), 0) {
            Err(_) => (disk, Vec::new()),
            Ok((mut ledger, _)) => {
                let acknowledged = drive(&mut ledger, &batches, compact);
                (ledger.disk.unwrap(), acknowledged)
            }
        };
        let (mut ledger, notices) = Ledger::on(disk.reboot(), 0).unwrap();
        prop_assert!(holds_all(&ledger.book, &acknowledged), "{notices:?}");
        prop_assert!(!notices.iter().any(|n| matches!(n, Notice::Damaged { believed: true, .. })), "{notices:?}");
        // And it can be gone on with.
        let more = drive(&mut ledger, &batches, false);
        let (again, notices) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        prop_assert_eq!(notices, vec![]);
        prop_assert!(holds_all(&again.book, &acknowledged) && holds_all(&again.book, &more));
    }

    /// One operation that fails: what was acknowledged before and after is there, after a crash, too.
    #[test]
    fn a_failure_at_any_moment(batches in batches(), fail in 2usize..60, luck in any::<u64>(), compact in any::<bool>()) {
        let disk = FakeDisk { fail_at: Some(fail), luck, ..FakeDisk::default() };
        let (mut ledger, _) = Ledger::on(disk, 0).unwrap();
        let acknowledged = drive(&mut ledger, &batches, compact);
        prop_assert!(holds_all(&ledger.book, &acknowledged));
        let (again, _) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        prop_assert!(holds_all(&again.book, &acknowledged));
    }

    /// A disk that fills up, and has room again.
    #[test]
    fn a_full_disk(batches in batches(), room in 0usize..4000, luck in any::<u64>()) {
        let disk = FakeDisk { room: Some(room), luck, ..FakeDisk::default() };
        let (mut ledger, _) = Ledger::on(disk, 0).unwrap();
        let mut acknowledged = drive(&mut ledger, &batches, false);
        prop_assert!(holds_all(&ledger.book, &acknowledged));
        ledger.disk.as_mut().unwrap().room = None;
        let more = drive(&mut ledger, &batches, false);
        prop_assert_eq!(more.len(), batches.iter().flatten().filter(|r| matches!(r, Record::Promise(_))).count());
        acknowledged.extend(more);
        let (again, notices) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        prop_assert_eq!(notices, vec![]);
        prop_assert!(holds_all(&again.book, &acknowledged));
    }

    /// Whatever is in the file, it is read.
    #[test]
    fn any_contents(contents in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&contents);
    }
}

fn sample(count: usize) -> (Vec<Record>, String) {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut records = Vec::new();
    while records.len() < count {
        match any_record().new_tree(&mut runner).unwrap().current() {
            Record::Promise(p) if !records.contains(&Record::Promise(p.clone())) => records.push(Record::Promise(p)),
            _ => {}
        }
    }
    let text = records.iter().map(Record::line).collect();
    (records, text)
}

#[test]
fn a_torn_end_is_reported_and_cut_off() {
    let (records, text) = sample(3);
    let cut = &text.as_bytes()[..text.len() - 9];
    let found = read(cut);
    assert_eq!(found.book.promises().len(), 2);
    let torn = cut.len() - records[..2].iter().map(|r| r.line().len()).sum::<usize>();
    assert_eq!(found.notices, [Notice::Torn { octets: torn }]);
}

#[test]
fn a_damaged_line_is_believed_if_it_can_be_made_out() {
    let (_, text) = sample(3);
    let mut lines: Vec<String> = text.lines().map(|l| format!("{l}\n")).collect();
    lines[1] = lines[1].replace("\"sum\":\"", "\"sum\":\"x");
    let found = read(lines.concat().as_bytes());
    assert_eq!(found.notices, [Notice::Damaged { line: 2, believed: true }]);
    assert_eq!(found.book.promises().len(), 3);
    lines[1] = "rubbish\n".into();
    let found = read(lines.concat().as_bytes());
    assert_eq!(found.notices, [Notice::Damaged { line: 2, believed: false }]);
    assert_eq!(found.book.promises().len(), 2);
}

#[test]
fn one_process_at_a_time_and_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, notices) = Ledger::open(folder.path(), 0).unwrap();
    assert_eq!(notices, []);
    assert!(matches!(Ledger::open(folder.path(), 0), Err(OpenError::Locked)));
    let (records, _) = sample(5);
    for _ in 0..400 {
        ledger.record(records.clone()).unwrap();
        ledger.compact(0).unwrap();
    }
    let lines = std::fs::read_to_string(folder.path().join(FILE)).unwrap().lines().count();
    assert!((6..1100).contains(&lines), "{lines}");
    drop(ledger);
    let (book, notices) = look(folder.path()).unwrap();
    assert_eq!(notices, []);
    assert_eq!(book.promises().len(), 5);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(folder.path().join(FILE)).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

/// A file or a folder that somebody deletes, empties, or puts another in place of while the ledger is open.
#[test]
fn what_is_deleted_is_written_anew() {
    let folder = tempfile::TempDir::new().unwrap();
    let state = folder.path().join("state");
    let file = state.join(FILE);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut any = || any_record().new_tree(&mut runner).unwrap().current();
    let (mut ledger, _) = Ledger::open(&state, 0).unwrap();
    ledger.record(vec![any()]).unwrap();
    let (mut elsewhere, _) = Ledger::open(&folder.path().join("other"), 0).unwrap();
    elsewhere.record(vec![any(), any()]).unwrap();
    let other = folder.path().join("other").join(FILE);
    let disturb: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(&file).unwrap(),
        &|| std::fs::remove_dir_all(&state).unwrap(),
        &|| std::fs::write(&file, "").unwrap(),
        &|| std::fs::rename(&other, &file).unwrap(),
    ];
    assert!(!ledger.was_disturbed());
    for disturb in disturb {
        disturb();
        ledger.record(vec![any()]).unwrap();
        assert!(ledger.was_disturbed() && !ledger.was_disturbed());
        ledger.record(vec![any()]).unwrap();
        assert!(!ledger.was_disturbed());
        let (found, notices) = look(&state).unwrap();
        assert!(notices.is_empty() && found.news(ledger.book()).is_empty(), "{notices:?}");
        assert!(matches!(Ledger::open(&state, 0), Err(OpenError::Locked)));
    }
    assert!(ledger.book().news(elsewhere.book()).is_empty());
    // Whoever finds a new folder first has it.
    std::fs::remove_dir_all(&state).unwrap();
    let _second = Ledger::open(&state, 0).unwrap();
    let error = ledger.record(vec![any()]).unwrap_err();
    assert!(error.to_string().contains("another process has the folder"), "{error}");
}
