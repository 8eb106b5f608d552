//! The ledger on a disk that loses whatever is not durable, and fails at any operation.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::fake_disk::FakeDisk;
use super::file::FileContents;
use super::line::tests::any_record;
use super::*;
use crate::host::HostPattern;
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel};

/// Checks that a book has all acknowledged promises.
fn holds_all(book: &Book, acknowledged: &[Promise]) -> bool {
    acknowledged
        .iter()
        .all(|p| book.find(p).is_some_and(|found| found.last_sent >= p.last_sent && found.first_sent <= p.first_sent))
}

/// Records batches, with an optional rewrite after each. Returns the acknowledged promises.
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
            let _ = ledger.rewrite();
        }
    }
    acknowledged
}

fn batches() -> impl Strategy<Value = Vec<Vec<Record>>> {
    prop::collection::vec(prop::collection::vec(any_record(), 1..4), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A crash at any operation loses nothing that was acknowledged, and the next start accepts the
    /// file.
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
        prop_assert!(!notices.iter().any(Notice::is_loss), "{notices:?}");
        // The reopened ledger takes records again.
        let more = drive(&mut ledger, &batches, false);
        let (again, notices) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        prop_assert_eq!(notices, vec![]);
        prop_assert!(holds_all(&again.book, &acknowledged) && holds_all(&again.book, &more));
    }

    /// After one failed operation, everything acknowledged before and after survives, even a crash.
    #[test]
    fn a_failure_at_any_moment(batches in batches(), fail in 4usize..60, luck in any::<u64>(), compact in any::<bool>()) {
        let disk = FakeDisk { fail_at: Some(fail), luck, ..FakeDisk::default() };
        let (mut ledger, _) = Ledger::on(disk, 0).unwrap();
        let acknowledged = drive(&mut ledger, &batches, compact);
        prop_assert!(holds_all(&ledger.book, &acknowledged));
        let (again, _) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        prop_assert!(holds_all(&again.book, &acknowledged));
    }

    /// A disk that fills up, and has free space again.
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

    /// Any contents can be read.
    #[test]
    fn any_contents(contents in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&contents);
    }
}

pub(super) fn sample(count: usize) -> (Vec<Record>, String) {
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

fn read(contents: &[u8]) -> FileContents {
    file::read(contents, None).with_doubtful()
}

/// Returns a ledger's folder with these records, each written by itself.
pub(super) fn folder_with(records: &[Record]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (mut ledger, notices) = Ledger::open(folder.path(), 0).unwrap();
    assert_eq!(notices, []);
    for record in records {
        ledger.record(vec![record.clone()]).unwrap();
    }
    folder
}

/// Returns the losses that opening a folder reports.
pub(super) fn losses(folder: &Path) -> Vec<Notice> {
    let looked = look(folder).unwrap().1;
    match Ledger::open(folder, 0) {
        Ok((_, notices)) => {
            assert!(!looked.iter().any(Notice::is_loss), "{looked:?}");
            assert!(!notices.iter().any(Notice::is_loss), "{notices:?}");
            Vec::new()
        }
        Err(OpenError::Damaged(notices)) => {
            assert_eq!(looked, notices);
            notices
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_torn_end_is_reported_and_cut_off() {
    let (records, text) = sample(3);
    let cut = &text.as_bytes()[..text.len() - 9];
    let found = read(cut);
    assert_eq!(found.book.promises().len(), 2);
    let torn = cut.len() - records[..2].iter().map(|r| r.line().len()).sum::<usize>();
    assert_eq!(found.notices, [Notice::Torn { bytes: torn }]);
    // Truncated before the acknowledged end; any other end is accepted.
    let folder = folder_with(&records);
    let file = folder.path().join(FILE);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..], &whole[whole.len() - 99..whole.len() - 1]].concat()).unwrap();
    let (ledger, notices) = Ledger::open(folder.path(), 0).unwrap();
    assert_eq!((notices, ledger.book().promises().len()), (vec![Notice::Torn { bytes: 98 }], 3));
    drop(ledger);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(losses(folder.path())[..], [Notice::Behind { .. }]), "the end of a line that was sent is missing");
}

#[test]
fn a_damaged_line_counts_if_its_record_is_readable() {
    let (_, text) = sample(3);
    let mut lines: Vec<String> = text.lines().map(|l| format!("{l}\n")).collect();
    for (at, damage, believed) in [(1, "\"sum\":\"x", true), (2, "rubbish", false)] {
        let whole = lines[at].clone();
        lines[at] = lines[at].replace("\"sum\":\"", damage);
        let found = read(lines.concat().as_bytes());
        assert_eq!(found.notices, [Notice::Damaged { line: at + 1, believed }]);
        assert_eq!(found.book.promises().len(), 2 + usize::from(believed));
        lines[at] = whole;
    }
}

/// Damages one byte of each complete line, including the last. The file stays refused until
/// somebody accepts it.
#[test]
fn any_damaged_byte_is_noticed() {
    let folder = folder_with(&sample(3).0);
    let file = folder.path().join(FILE);
    let whole = std::fs::read(&file).unwrap();
    // A reader without the lock retries, which takes time: so only some of the first lines, and all
    // but one of the last.
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap();
    for at in (0..last).step_by(41).chain((last..whole.len()).step_by(7)).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 7);
        std::fs::write(&file, &damaged).unwrap();
        let found = losses(folder.path());
        assert!(!found.is_empty(), "byte {at} of {}", String::from_utf8_lossy(&whole));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3 + DAMAGED_MAX);
    assert_eq!(std::fs::read(&file).unwrap().len(), whole.len(), "the file itself stays");
    // A known book means that nothing is lost.
    std::fs::write(&file, &whole).unwrap();
    let known = look(folder.path()).unwrap().0;
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(losses(folder.path())[..], [Notice::Gone { .. }]));
    let (ledger, _) = Ledger::mend(folder.path(), known.clone(), 0).unwrap();
    assert!(ledger.book().news(&known).is_empty());
    drop(ledger);
    assert_eq!(losses(folder.path()), []);
    assert!(look(folder.path()).unwrap().0.news(&known).is_empty());
}

/// Missing lines at every place, and old copies.
#[test]
fn what_is_missing_is_noticed() {
    let records = sample(6).0;
    let folder = folder_with(&records[..5]);
    let file = folder.path().join(FILE);
    let old = std::fs::read(&file).unwrap();
    {
        let (mut ledger, _) = Ledger::open(folder.path(), 0).unwrap();
        ledger.record(vec![records[5].clone()]).unwrap();
    }
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 7);
    for missing in 0..7 {
        let left: String = lines.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, l)| *l).collect();
        std::fs::write(&file, left).unwrap();
        let found = losses(folder.path());
        let want = match missing {
            0 => Notice::Damaged { line: 1, believed: true },
            6 => Notice::Behind { ends: 6, head: 7 },
            _ => Notice::Missing { line: missing + 1, records: Some(1) },
        };
        assert!(found.len() == 1 && (found[0] == want || missing == 0), "{missing}: {found:?}");
    }
    std::fs::write(&file, &old).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Behind { ends: 6, head: 7 }]);
    std::fs::write(&file, "").unwrap();
    assert_eq!(losses(folder.path()), [Notice::Behind { ends: 0, head: 7 }]);
    std::fs::write(&file, &whole).unwrap();
    // A copy from before a rewrite is still an old copy.
    let (mut ledger, _) = Ledger::open(folder.path(), 0).unwrap();
    ledger.rewrite().unwrap();
    drop(ledger);
    assert_eq!(losses(folder.path()), []);
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(losses(folder.path()).len(), 1);
}

/// A file of a version without chain and head is accepted, and has both from then on.
#[test]
fn a_ledger_of_the_first_format() {
    let (records, text) = sample(4);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let first = format!("{}{text}", Record::Format(1).line());
    std::fs::write(&file, &first).unwrap();
    let (ledger, notices) = Ledger::open(folder.path(), 0).unwrap();
    assert_eq!((notices, ledger.book().promises().len()), (vec![], records.len()));
    drop(ledger);
    let (book, notices) = look(folder.path()).unwrap();
    assert_eq!((notices, book.promises().len()), (vec![], records.len()));
    assert!(std::fs::read_to_string(&file).unwrap().contains("\"seq\":5"));
    // An old copy is detected in any format.
    std::fs::write(&file, &first).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Behind { ends: 0, head: 5 }]);
    // One changed byte in its complete last line.
    std::fs::remove_file(folder.path().join(HEAD)).unwrap();
    std::fs::write(&file, format!("{}X\n", &first[..first.len() - 2])).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Damaged { line: 5, believed: false }]);
}

/// A newer version's records are kept unchanged, and bind as strictly as they may.
#[test]
fn values_of_a_newer_program() {
    let Record::Promise(promise) = &sample(1).0[0] else { unreachable!() };
    let promise = Promise { channel: PromiseChannel::Header(Mode::ReportOnly), max_age: 100, ..promise.clone() };
    let json = Record::Promise(promise.clone()).json();
    let newer = |from: &str, to: &str| {
        let json = json.replace(from, to);
        assert!(json.contains(to), "{json}");
        format!("{{\"sum\":\"{}\",\"record\":{json}}}\n", line::sum(&json))
    };
    let enforced = PromiseChannel::Header(Mode::Enforce);
    let pins: Vec<String> = promise.pins.iter().map(|pin| format!("\"{pin}\"")).collect();
    for (line, want) in [
        (newer("report-only", "enforce-gently"), Promise { channel: enforced, ..promise.clone() }),
        (newer("\"max_age\":100,", "\"max_age\":100,\"scope\":\"all\","), promise.clone()),
        (newer(&pins.join(","), "\"sha512/abc\""), Promise { pins: Vec::new(), ..promise.clone() }),
    ] {
        let (book, notices) = read_book(line.as_bytes());
        assert_eq!((notices, book.promises()), (vec![], &[want][..]), "{line}");
        // It is written unchanged, and reads back equal.
        let written: Vec<String> = book.records().map(|record| record.line()).collect();
        assert_eq!((written, book.len()), (vec![line.clone()], 1));
        let folder = folder_with(&book.records().collect::<Vec<_>>());
        assert_eq!(look(folder.path()).unwrap().0.promises(), book.promises());
    }
}

/// A site may have thousands of hosts, and a wildcard as many exceptions: records of any length can
/// be read.
#[test]
fn records_of_any_size() {
    let Record::Promise(promise) = &sample(1).0[0] else { unreachable!() };
    for hosts in [1, 100, 2_600, 40_000] {
        let named = |at: usize| HostPattern::parse(&format!("host-{at}.of.some.length.example.com")).unwrap();
        let names: Vec<HostPattern> = (0..hosts).map(named).collect();
        let records = vec![
            Record::Promise(Promise { hosts: names.clone(), ..promise.clone() }),
            Record::Promise(Promise { except: names, ..promise.clone() }),
        ];
        let folder = folder_with(&records);
        assert_eq!(losses(folder.path()), []);
        assert_eq!(look(folder.path()).unwrap().0.records().collect::<Vec<_>>(), records);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Everything that the ledger writes reads back equal, in any batches, before and after a
    /// rewrite.
    #[test]
    fn what_is_written_is_read_back(batches in batches(), sizes in prop::collection::vec(0usize..4000, 1..4)) {
        let large = sizes.iter().map(|size| {
            let Record::Promise(promise) = sample(1).0.remove(0) else { unreachable!() };
            let named = |at: usize| HostPattern::parse(&format!("h{at}.{size}.example")).unwrap();
            vec![Record::Promise(Promise { hosts: (0..=*size).map(named).collect(), ..promise })]
        });
        let folder = tempfile::tempdir().unwrap();
        let (mut ledger, _) = Ledger::open(folder.path(), 0).unwrap();
        for batch in batches.into_iter().chain(large) {
            ledger.record(batch).unwrap();
            let (book, notices) = look(folder.path()).unwrap();
            prop_assert_eq!(notices, vec![]);
            prop_assert_eq!(book.promises(), ledger.book().promises());
            prop_assert_eq!(book.len(), ledger.book().len());
        }
        ledger.rewrite().unwrap();
        let written: Vec<Record> = ledger.book().records().collect();
        drop(ledger);
        let (again, notices) = Ledger::open(folder.path(), 0).unwrap();
        prop_assert_eq!(notices, vec![]);
        prop_assert_eq!(again.book().records().collect::<Vec<_>>(), written);
    }
}

/// The clock of this node was wrong, or a record of another node is.
#[test]
fn dates_that_cannot_be_right() {
    const NOW: Seconds = 1_800_000_000;
    const FAR: Seconds = 4_000_000_000;
    let Record::Promise(promise) = &sample(1).0[0] else { unreachable!() };
    let channel = PromiseChannel::Header(Mode::Enforce);
    let promise = Promise { max_age: 1000, first_sent: NOW - 5000, channel, ..promise.clone() };
    let usual = Promise { last_sent: NOW + 101, ..promise.clone() };
    let poisoned = Promise { last_sent: FAR, max_age: 2000, ..promise.clone() };
    let all_wrong = Promise { first_sent: FAR, last_sent: FAR, max_age: u64::MAX, ..promise };
    let mut book = Book::default();
    for promise in [&usual, &poisoned, &all_wrong] {
        book.apply(Record::Promise(promise.clone()));
    }
    book.apply(Record::Ramp(Ramp { site: "a.example".into(), policy: Ramped::Hpkp, step: 2, since: FAR }));
    assert_eq!(repair::redated(&book, NOW).len(), 3);
    assert!(repair::fit_to_merge(&[Record::Promise(usual.clone())], NOW).is_ok());
    for record in [Record::Promise(poisoned), Record::Promise(all_wrong)] {
        assert!(repair::fit_to_merge(&[record], NOW).unwrap_err().hints[0].contains("pintle ledger repair"));
    }
    let mended = repair::carried_out(&book, NOW, Some(Repair { what: vec!["dates".into()], at: NOW }));
    assert_eq!((mended.len(), mended.find(&usual)), (5, Some(&usual)));
    assert!(mended.promises().iter().all(|p| p.first_sent <= NOW && p.last_sent <= NOW + 10_000), "{mended:?}");
    assert!(repair::redated(&mended, NOW).is_empty());
    assert!(mended.newest().unwrap() <= NOW + repair::SKEW);
    assert_eq!(repair::clock_jumped(&mended, FAR), mended.newest());
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
        ledger.compact(0, |_| false).unwrap();
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

/// Somebody deletes, empties or replaces a file or the folder while the ledger is open.
#[test]
fn what_is_deleted_is_written_anew() {
    let folder = tempfile::TempDir::new().unwrap();
    let state = folder.path().join("state");
    let file = state.join(FILE);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut any = || any_record().new_tree(&mut runner).unwrap().current();
    // Later than all dates: none of them is impossible.
    let now = 1 << 40;
    let (mut ledger, _) = Ledger::open(&state, now).unwrap();
    ledger.record(vec![any()]).unwrap();
    let (mut elsewhere, _) = Ledger::open(&folder.path().join("other"), now).unwrap();
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
    // The first process to find a new folder gets it.
    std::fs::remove_dir_all(&state).unwrap();
    let _second = Ledger::open(&state, 0).unwrap();
    let error = ledger.record(vec![any()]).unwrap_err();
    assert!(error.to_string().contains("another process has the folder"), "{error}");
}
