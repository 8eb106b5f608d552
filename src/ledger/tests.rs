//! The ledger on a disk that loses what was not made durable, and fails at any operation.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::fake_disk::FakeDisk;
use super::record::tests::any_record;
use super::*;
use crate::policy::guard::Promise;

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
