//! The ledger that a start begins, and records that come while pintle runs: what is known elsewhere counts, what may be lost
//! is said, and nobody's clock poisons the book.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pintle::ledger::{self, Record};
use pintle::policy::promise::Promise;

use crate::harness::{BLOG, Pintle, eventually, outcome, output, pintle};
use crate::last_good::copied;
use crate::loss::{command, config, start_fails};
use crate::rotation::Bed;

const FILES: [&str; 3] = ["ledger.jsonl", "ledger.head", "ledger.lock"];
const FAR: i64 = 4_000_000_000;

/// A node that has sent its pins, and is stopped.
fn after_promises() -> (Bed, String) {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    drop(pintle);
    (bed, pins)
}

fn delete(bed: &Bed, names: &[&str]) {
    names.iter().for_each(|name| fs::remove_file(bed.state().join(name)).unwrap());
}

/// The first command in a text that begins with these words.
#[track_caller]
fn pasted(text: &str, begins: &str) -> String {
    let command = text.split(['`', '\n']).filter_map(|part| part.find(begins).map(|at| &part[at..])).next();
    command.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[track_caller]
fn paste(command: &str) {
    assert!(Command::new("sh").arg("-c").arg(command).status().unwrap().success(), "{command}");
}

/// Both files are deleted while pintle is stopped. The file of the lock has the number of the last record: nothing starts, and
/// nothing is installed, before somebody accepts the loss.
#[test]
fn both_files_deleted_are_a_loss() {
    let (bed, pins) = after_promises();
    delete(&bed, &FILES[..2]);
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("are missing, and ledger.lock names"), "{out}{err}");
    let (code, _, err) = outcome(command(&["install", "--site", BLOG], &config).args([&bed.next.chain, &bed.next.key]));
    assert!(code == 1 && err.contains("promises in them are lost"), "{err}");
    for _ in 0..2 {
        let err = start_fails(&config);
        assert!(err.contains("promises in them are lost") && !err.contains("a copy is kept"), "{err}");
    }
    let (code, out, err) = outcome(&mut command(&["ledger", "repair"], &config));
    assert!(code == 1 && out.contains("LOST "), "{out}{err}");
    let (_, _, err) = outcome(&mut command(&["check"], &config));
    let remedy = err.lines().find_map(|line| line.split_once("locked out: ")).unwrap().1.to_owned();
    assert!(output(pintle().args(remedy.split(' ').skip(1))).contains("done"));
    assert_eq!(bed.served(&bed.start(&pins)), bed.stranger.pin);
    // A file of the lock without a number is one of a start that has promised nothing.
    let fresh = Bed::new();
    fs::create_dir(fresh.state()).unwrap();
    fs::write(fresh.state().join(FILES[2]), "").unwrap();
    assert!(fresh.header(&fresh.start(&fresh.pins("30d"))).is_some());
}

/// Every file of the ledger is gone, and only the copies show what was served: that may be served on, and nothing else.
#[test]
fn only_the_copies_are_left() {
    let (bed, pins) = after_promises();
    delete(&bed, &FILES);
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    for _ in 0..2 {
        let err = start_fails(&config);
        assert!(err.contains("was served with another key") && !err.contains("the ledger is new"), "{err}");
    }
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("was served with another key"), "{out}{err}");
    bed.put(&bed.live);
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    drop(pintle);
    // The remedy works as pasted.
    delete(&bed, &FILES);
    bed.put(&bed.stranger);
    paste(&pasted(&start_fails(&config), "mv -T "));
    assert_eq!(bed.served(&bed.start(&pins)), bed.stranger.pin);
}

/// The folder of the state was moved, and pintle knows where: what it reads there counts.
#[test]
fn promises_in_another_folder_count() {
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    let pintle = bed.start(&pins);
    let remark = pintle.logged("the ledger is new", 1).remove(0);
    assert!(remark["problem"].as_str().unwrap().contains("they count"), "{remark}");
    assert!(bed.header(&pintle).is_some());
    drop(pintle);
    // The new ledger has them, whatever becomes of the folder.
    fs::remove_dir_all(&old).unwrap();
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    bed.put(&bed.stranger);
    assert!(start_fails(&config(&bed, &pins)).contains("would lock readers out"));
}

/// A chain breaks them: the usual refusal, which says where they are from, and how to begin without them.
#[test]
fn promises_in_another_folder_refuse_a_chain() {
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("would lock readers out") && err.contains("they count"), "{err}");
    let (code, out, _) = outcome(command(&["check"], &config).arg("--json"));
    assert!(code == 1 && out.contains("they count"), "{out}");
    let refused = start_fails(&config);
    assert!(refused.contains("would lock readers out") && refused.contains("they count"), "{refused}");
    // With its copies the previous key serves on.
    let keep = pasted(&refused, "mkdir -p ");
    paste(&keep);
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    // Nobody holds them, says the operator.
    paste(&pasted(&refused, &format!("mkdir {}.aside && ", old.display())));
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(bed.served(&bed.start(&pins)), bed.stranger.pin);
}

/// A lockout that was accepted there is accepted here: the chain in use starts again.
#[test]
fn an_accepted_lockout_in_another_folder_counts() {
    let (bed, pins) = after_promises();
    let config = config(&bed, &pins);
    let (_, _, err) = outcome(command(&["install", "--dry-run", "--site", BLOG], &config).arg(&bed.stranger.chain));
    let day = err.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
    let mut install = command(&["install", "--accept-lockout-until", &day, "--site", BLOG], &config);
    output(install.args([&bed.stranger.chain, &bed.stranger.key]));
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    drop(pintle);
    fs::rename(bed.state(), bed.folder.path().join("old")).unwrap();
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    assert!(output(&mut pintle.command("ledger show")).contains("LOCKOUT ACCEPTED"));
}

/// A pair that this folder has served is served on, as after a merge.
#[test]
fn a_pair_that_was_served_stays_although_promises_are_found() {
    let (bed, pins) = after_promises();
    let away = tempfile::TempDir::new().unwrap();
    fs::rename(bed.state(), away.path().join("old")).unwrap();
    bed.put(&bed.stranger);
    // Without pins there is no ledger.
    let pintle = bed.start("");
    copied(&bed, &bed.stranger);
    drop(pintle);
    fs::rename(away.path().join("old"), bed.folder.path().join("old")).unwrap();
    let pintle = bed.start("");
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    pintle.logs("the ledger is new");
    // Another key that breaks them is refused.
    bed.put(&bed.authority.leaf("other", &[BLOG, "www.example.com"]));
    pintle.logged("certificate refused; the old one keeps serving", 1);
    drop(pintle);
    bed.put(&bed.stranger);
    assert!(bed.header(&bed.start(&pins)).is_some());
}

/// A file of this node's promises and another one.
fn with_another(bed: &Bed, change: impl FnOnce(&mut Promise)) -> String {
    let (mut book, _) = ledger::look(&bed.state()).unwrap();
    let mut other = book.promises()[0].clone();
    change(&mut other);
    book.apply(Record::Promise(other));
    ledger::written(&book)
}

fn file(bed: &Bed) -> PathBuf {
    bed.state().join(FILES[0])
}

/// The clock of the node whose file is put in place was years ahead: its promise counts as sent until today.
#[test]
fn a_file_with_impossible_dates_does_not_poison_the_book() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    let far = with_another(&bed, |far| (far.max_age, far.last_sent) = (far.max_age + 1, FAR));
    fs::write(file(&bed), far).unwrap();
    let named = pintle.logged("impossible date in the ledger's file: it counts as sent until today", 1).remove(0);
    assert!(named["record"].as_str().unwrap().contains("2096-"), "{named}");
    eventually("it is written", || {
        let (book, notices) = ledger::look(&bed.state()).ok()?;
        (notices.is_empty() && book.promises().len() == 2).then_some(())
    });
    let (book, _) = ledger::look(&bed.state()).unwrap();
    let tomorrow = ledger::time::wall() + 86400;
    assert!(book.promises().iter().all(|promise| promise.last_sent < tomorrow && promise.is_alive(tomorrow)));
    drop(pintle);
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some(), "{}", pintle.log());
}

/// A file with other promises is put in place, and a key that breaks them comes at once, before anybody has looked.
#[test]
fn a_file_that_has_just_come_counts() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let other = with_another(&bed, |other| {
        other.pins = vec![bed.live.pin.parse().unwrap(), bed.stranger.pin.parse().unwrap()];
        other.pins.sort_unstable();
    });
    fs::write(file(&bed), other).unwrap();
    bed.put(&bed.next);
    let answer = crate::admin::post(&bed.state().join("admin.sock"), &format!("/certificates?host={BLOG}"));
    assert!(answer.contains("would lock readers out"), "{answer}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// A doubtful clock withholds the pins. The file is written anew all the same.
#[test]
fn a_file_that_is_deleted_while_the_clock_is_doubted() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    drop(bed.start(&pins));
    let far = with_another(&bed, |far| (far.max_age, far.last_sent) = (far.max_age + 1, FAR));
    delete(&bed, &FILES);
    fs::write(file(&bed), far).unwrap();
    let pintle = bed.start(&pins);
    pintle.logs("the clock cannot be right: pins are withheld");
    delete(&bed, &FILES[..1]);
    eventually("it is written", || {
        let (book, notices) = ledger::look(&bed.state()).ok()?;
        (notices.is_empty() && book.promises().len() == 2).then_some(())
    });
    assert_eq!(bed.header(&pintle), None);
}

fn ledger_error(pintle: &Pintle) -> String {
    pintle.status()["ledger"]["error"].as_str().unwrap_or_default().to_owned()
}

/// A folder that could not be written can be again, and the ledger in it is damaged meanwhile: that is what is said, and the
/// remedy works while pintle serves.
#[test]
fn damage_that_shows_once_the_folder_can_be_written() {
    let (bed, pins) = after_promises();
    let (lock, aside) = (bed.state().join(FILES[2]), bed.state().join("aside"));
    fs::rename(&lock, &aside).unwrap();
    fs::create_dir(&lock).unwrap();
    let pintle = bed.start(&pins);
    pintle.logs("the ledger cannot be written: pins are withheld");
    let mut damaged = fs::read(file(&bed)).unwrap();
    let at = damaged.len() - 60;
    damaged[at] ^= 1;
    fs::write(file(&bed), damaged).unwrap();
    fs::remove_dir(&lock).unwrap();
    fs::rename(&aside, &lock).unwrap();
    let error = eventually("the damage is named", || Some(ledger_error(&pintle)).filter(|e| e.contains("is damaged")));
    assert!(error.contains("`pintle ledger repair"), "{error}");
    pintle.logs("the ledger is damaged: pins are withheld until it is repaired");
    let (_, _, err) = outcome(&mut pintle.command("ledger repair"));
    let remedy = pasted(&err, "pintle ledger repair ");
    output(crate::harness::pintle().args(remedy.split(' ').skip(1)));
    eventually("the pins are back", || bed.header(&pintle));
    assert_eq!(ledger_error(&pintle), "");
}

/// The file is a link to the whole ledger: nothing is lost, and the hint loses nothing.
#[test]
fn a_link_to_the_ledger() {
    let (bed, pins) = after_promises();
    let kept = bed.folder.path().join("kept.jsonl");
    fs::rename(file(&bed), &kept).unwrap();
    std::os::unix::fs::symlink(&kept, file(&bed)).unwrap();
    let config = config(&bed, &pins);
    paste(&pasted(&start_fails(&config), "cp -p "));
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    bed.put(&bed.stranger);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    assert!(start_fails(&config).contains("would lock readers out"));
}
