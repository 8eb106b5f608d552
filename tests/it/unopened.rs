//! Promises that come while the process could not open its ledger, or while the file names another one: they bind it.

use std::fs;
use std::path::PathBuf;

use pintle::ledger::{self, Book, Record};

use crate::harness::{Pintle, output};
use crate::last_good::{LISTEN, REFUSED};
use crate::loss::command;
use crate::rotation::Bed;

/// Another node's ledger: this node's live key keeps its promise, and no backup of this node does.
fn ledger_of_another_node(bed: &Bed) -> PathBuf {
    let mut promise = ledger::look(&bed.state()).unwrap().0.promises()[0].clone();
    promise.pins = [&bed.live, &bed.stranger].map(|leaf| leaf.pin.parse().unwrap()).to_vec();
    promise.pins.sort_unstable();
    let mut book = Book::default();
    book.apply(Record::Promise(promise));
    bed.authority.write("theirs.jsonl", ledger::written(&book))
}

#[track_caller]
fn the_backup_is_refused(bed: &Bed, pintle: &Pintle) {
    bed.put(&bed.next);
    pintle.logged(REFUSED, 1);
    assert_eq!(bed.served(pintle), bed.live.pin);
}

/// As after a restore by root: root merges into the file, which the process can read, and not open.
#[test]
fn a_merge_into_a_ledger_that_the_process_could_not_open() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    let theirs = ledger_of_another_node(&bed);
    drop(pintle);
    let files = |folder: &str, names: &[&str]| {
        let folder = bed.folder.path().join(folder);
        names.iter().map(|name| folder.join(name)).collect::<Vec<_>>()
    };
    let other = bed.folder.path().join("merged");
    fs::create_dir(&other).unwrap();
    let names = ["ledger.jsonl", "ledger.head", "ledger.lock"];
    let [own, merged] = ["state", "merged"].map(|folder| files(folder, &names));
    own.iter().zip(&merged).for_each(|(own, merged)| _ = fs::copy(own, merged).unwrap());
    let text = bed.config(&pins, "").replace(&format!("{:?}", bed.state()), &format!("{other:?}"));
    let config = bed.authority.write("merge.toml", LISTEN.to_owned() + &text);
    output(command(&["ledger", "merge"], &config).arg(&theirs));
    fs::remove_file(&own[2]).unwrap();
    fs::create_dir(&own[2]).unwrap();
    let pintle = bed.start(&pins);
    assert_eq!((bed.served(&pintle), bed.header(&pintle)), (bed.live.pin.clone(), None));
    merged.iter().zip(&own).take(2).for_each(|(merged, own)| _ = fs::copy(merged, own).unwrap());
    the_backup_is_refused(&bed, &pintle);
}

/// The folder in the file is not in use yet. The process that answers hears of the promises, too.
#[test]
fn a_merge_while_the_file_names_another_folder() {
    let bed = Bed::new();
    let socket = bed.folder.path().join("admin.sock");
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", socket.display());
    let pintle = Pintle::start(&bed.authority, &(bed.config(&bed.pins("30d"), "") + &admin));
    assert!(bed.header(&pintle).is_some());
    let (theirs, other) = (ledger_of_another_node(&bed), bed.folder.path().join("other"));
    pintle.rewrite(|text| text.replace(&format!("{:?}", bed.state()), &format!("{other:?}")));
    output(pintle.command("ledger merge").arg(&theirs));
    assert_eq!(ledger::look(&bed.state()).unwrap().0.promises().len(), 2);
    the_backup_is_refused(&bed, &pintle);
}
