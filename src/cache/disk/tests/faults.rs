//! Damaged files, and a disk that refuses.

use super::super::file::STATE_AT;
use super::super::folder::OpenedPage;
use super::*;

#[test]
fn damaged_files_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    let targets: Vec<String> = (0..40).map(|n| format!("/{n}")).collect();
    for target in &targets {
        first.put(target, "", &target.as_bytes().repeat(100));
    }
    first.end();
    let files = pages_in(dir.path());
    assert_eq!(files.len(), 40);
    for (n, file) in files.iter().enumerate().skip(8) {
        let whole = fs::read(file).unwrap();
        let damaged = match n % 8 {
            0 => Vec::new(),
            1 => whole[..50].to_vec(),
            2 => whole[..whole.len() - 1].to_vec(),
            3 => [&whole[..], b"x"].concat(),
            4 => [b"pintleC0", &whole[8..]].concat(),
            5 => whole.iter().enumerate().map(|(at, b)| if at == whole.len() - 3 { b ^ 1 } else { *b }).collect(),
            6 => whole.iter().enumerate().map(|(at, b)| if at == 120 { b ^ 1 } else { *b }).collect(),
            // The whole file of another page.
            _ => fs::read(&files[0]).unwrap(),
        };
        fs::write(file, damaged).unwrap();
    }
    fs::write(files[0].with_extension("new"), "half").unwrap();
    fs::write(format!("{}.new", files[1].display()), "half").unwrap();
    let second = Process::start(dir.path());
    let found = targets.iter().filter(|target| match second.get(target) {
        Some((body, _)) => {
            assert_eq!(body, target.as_bytes().repeat(100), "{target}");
            true
        }
        None => false,
    });
    assert_eq!(found.count(), 8);
    second.settled().unwrap();
    assert_eq!((second.files(), pages_in(dir.path()).len()), (8, 8));
    assert!(second.disk.counts.damaged.load(Ordering::Relaxed) >= 32);
    assert!(all_files(dir.path()).iter().all(|path| !path.to_str().unwrap().ends_with(".new")));
    second.kill();
}

/// A file with any byte changed, cut anywhere, or with something behind it, counts as missing. Only the mark of a soft purge
/// may change.
#[test]
fn any_damage_to_a_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    first.put("/a", "ETag: \"a\"\r\nVary: Accept-Language\r\nCache-Tag: x\r\n", b"the body");
    first.end();
    let path = pages_in(dir.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() < 1000, "{}", whole.len());
    let is_whole = |file: &[u8]| {
        fs::write(&path, file).unwrap();
        let opened = OpenedPage::open(&path).unwrap();
        opened.is_some_and(|mut opened| opened.body().unwrap().is_some())
    };
    assert!(is_whole(&whole));
    for at in 0..whole.len() {
        let changed: Vec<u8> = whole.iter().enumerate().map(|(n, b)| if n == at { b ^ 0x11 } else { *b }).collect();
        assert_eq!(is_whole(&changed), at == usize::try_from(STATE_AT).unwrap(), "byte {at}");
        assert!(!is_whole(&whole[..at]), "cut at {at}");
    }
    assert!(!is_whole(&[&whole[..], b"x"].concat()));
}

/// A disk that refuses everything: memory serves, and a purge says what it could not do.
#[test]
fn a_disk_that_refuses_hurts_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("cache");
    fs::write(&root, "not a folder").unwrap();
    let first = Process::start(&root);
    for n in 0..10 {
        first.put(&format!("/{n}"), "", b"x");
    }
    assert!(first.service.settle(std::time::Duration::from_secs(60)));
    assert_eq!((first.files(), first.get("/3")), (0, Some((b"x".to_vec(), false))));
    assert!(first.service.is_failing());
    assert_eq!(first.disk.counts.dropped.load(Ordering::Relaxed), 10);
    first.kill();
}

/// A file that cannot be removed: a purge says so, each time, and it is removed once that can be.
#[test]
fn a_purge_that_the_disk_refuses_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    first.put("/a", "", b"x");
    first.settled().unwrap();
    let file = all_files(dir.path()).pop().unwrap();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let page = key_of("/a");
    let url = PurgeScope::page(&page);
    for _ in 0..3 {
        first.store.purge(&url, false);
        assert!(first.settled().is_err());
    }
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "as it was").unwrap();
    first.settled().unwrap();
    assert!(!file.exists());
    first.kill();
}
