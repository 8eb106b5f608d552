//! Files of the ledger that somebody has emptied or replaced by older ones, and heads that are damaged.

use super::fake_disk::FakeDisk;
use super::tests::{folder_with, losses, sample};
use super::*;

/// Nobody empties a file that has a record: a promise may be lost.
#[test]
fn emptied_files_and_damaged_heads_are_noticed() {
    let (records, _) = sample(3);
    let path = |folder: &tempfile::TempDir, name: &str| folder.path().join(name);
    let folder = folder_with(&records);
    std::fs::write(path(&folder, FILE), "").unwrap();
    assert!(matches!(losses(folder.path())[..], [Notice::Behind { .. }]));
    std::fs::write(path(&folder, HEAD), "").unwrap();
    assert_eq!(losses(folder.path()), [Notice::Emptied]);
    std::fs::remove_file(path(&folder, FILE)).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Emptied]);
    // Both are deleted: the lock's file has the number.
    std::fs::remove_file(path(&folder, HEAD)).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Deleted { newest: 4 }]);
    // Half a line alone is no more than nothing.
    std::fs::write(path(&folder, FILE), "{\"sum\":\"").unwrap();
    assert_eq!(losses(folder.path()), [Notice::Emptied]);
    std::fs::remove_file(path(&folder, FILE)).unwrap();
    drop(Ledger::mend(folder.path(), Book::default(), 0).unwrap());
    assert_eq!(losses(folder.path()), []);
    // Nothing was ever recorded.
    let folder = folder_with(&[]);
    assert!(path(&folder, LOCK).exists() && losses(folder.path()).is_empty());
    // Any changed byte in the newest line of the head, while the ledger is truncated.
    let whole = folder_with(&records);
    let [ledger, head] = [FILE, HEAD].map(|name| std::fs::read(path(&whole, name)).unwrap());
    let first = ledger.iter().position(|b| *b == b'\n').unwrap() + 1;
    let newest = head[..head.len() - 1].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    for at in newest..head.len() - 1 {
        let folder = folder_with(&[]);
        let mut changed = head.clone();
        changed[at] ^= 1;
        std::fs::write(path(&folder, HEAD), &changed).unwrap();
        for contents in [&ledger[..first], &ledger[..]] {
            std::fs::write(path(&folder, FILE), contents).unwrap();
            assert!(!losses(folder.path()).is_empty(), "byte {at}");
        }
    }
    // A head that a crash has torn names nothing that was sent.
    let folder = folder_with(&[]);
    std::fs::write(path(&folder, FILE), &ledger).unwrap();
    std::fs::write(path(&folder, HEAD), &head[..head.len() - 1]).unwrap();
    assert_eq!(losses(folder.path()), []);
}

/// A disk that is full before the first record leaves nothing that looks like a loss.
#[test]
fn a_first_record_that_does_not_fit_leaves_no_empty_file() {
    let (records, _) = sample(1);
    for room in (0..2000).step_by(7) {
        let disk = FakeDisk { room: Some(room), ..FakeDisk::default() };
        let (mut ledger, _) = Ledger::on(disk, 0).unwrap();
        let written = ledger.record(records.clone()).is_ok();
        let (again, notices) = Ledger::on(ledger.disk.unwrap().reboot(), 0).unwrap();
        assert!(!notices.iter().any(Notice::is_loss), "{room}: {notices:?}");
        assert!(!written || again.book().promises().len() == 1, "{room}");
    }
}

/// An older pair of both files is put back, from before and from after a loss that somebody has
/// accepted. Another ledger's pair is no older one, but the own records are gone.
#[test]
fn an_older_pair_is_noticed() {
    let records = sample(6).0;
    let folder = folder_with(&records[..3]);
    let path = |name: &str| folder.path().join(name);
    let read = |folder: &tempfile::TempDir| [FILE, HEAD].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let put = |files: &[Vec<u8>; 2]| {
        for (name, contents) in [FILE, HEAD].iter().zip(files) {
            std::fs::write(path(name), contents).unwrap();
        }
    };
    let old = read(&folder);
    Ledger::open(folder.path(), 0).unwrap().0.record(records[3..5].to_vec()).unwrap();
    let newest = read(&folder);
    put(&old);
    assert_eq!(losses(folder.path()), [Notice::OldPair { ends: 4, newest: 6 }]);
    put(&newest);
    assert_eq!(losses(folder.path()), []);
    put(&old);
    std::fs::remove_file(path(HEAD)).unwrap();
    assert_eq!(losses(folder.path()), [Notice::OldPair { ends: 4, newest: 6 }]);
    drop(Ledger::mend(folder.path(), Book::default(), 0).unwrap());
    assert_eq!(losses(folder.path()), []);
    let accepted = read(&folder);
    for (pair, ends) in [(&old, 4), (&newest, 6)] {
        put(pair);
        assert_eq!(losses(folder.path()), [Notice::OldPair { ends, newest: 10 }]);
    }
    put(&accepted);
    assert_eq!(losses(folder.path()), []);
    // Emptied, and without a head.
    std::fs::write(path(FILE), "").unwrap();
    std::fs::remove_file(path(HEAD)).unwrap();
    assert_eq!(losses(folder.path()), [Notice::Emptied]);
    let other = read(&folder_with(&records[..1]));
    put(&other);
    assert_eq!(losses(folder.path()), [Notice::OtherLedger { newest: 10 }]);
    std::fs::remove_file(path(HEAD)).unwrap();
    assert_eq!(losses(folder.path()), [Notice::OtherLedger { newest: 10 }]);
    // The own one is beside it, as after an upgrade to another folder: both count.
    put(&other);
    std::fs::write(path(MOVED), &accepted[0]).unwrap();
    assert_eq!(losses(folder.path()), []);
    let (ledger, notices) = Ledger::open(folder.path(), 0).unwrap();
    let known = |files: &[Vec<u8>; 2]| ledger.book().news(&read_book(&files[0]).0).is_empty();
    assert!(notices.is_empty() && known(&other) && known(&accepted), "{notices:?}");
    drop(ledger);
    std::fs::remove_file(path(MOVED)).unwrap();
    assert_eq!(losses(folder.path()), []);
    // Somebody accepts the loss.
    put(&accepted);
    assert!(matches!(losses(folder.path())[..], [Notice::OtherLedger { .. }]));
    drop(Ledger::mend(folder.path(), Book::default(), 0).unwrap());
    assert_eq!(losses(folder.path()), []);
}
