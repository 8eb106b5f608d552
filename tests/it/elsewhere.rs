//! Records that come from elsewhere: old copies of the ledger that are put back, keys that another node has burnt. What is
//! served now can be started again, whatever they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pintle::host::HostPattern;
use pintle::ledger::{self, Book, Burnt, Record, time};
use pintle::policy::hpkp::Mode;
use pintle::policy::promise::{Promise, PromiseChannel};
use serde_json::Value;

use crate::harness::{Authority, BLOG, Leaf, Origin, Pintle, eventually, outcome, output, pintle};
use crate::last_good::{LISTEN, REFUSED, copied, copies};
use crate::loss::command;
use crate::rotation::Bed;
use crate::upgrade::Line;

const FILES: [&str; 2] = ["ledger.jsonl", "ledger.head"];
const DAY: i64 = 86400;

fn config(bed: &Bed, hpkp: &str) -> PathBuf {
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, format!("{LISTEN}{}", bed.config(hpkp, ""))).unwrap();
    path
}

fn ledger_files(bed: &Bed) -> [Vec<u8>; 2] {
    FILES.map(|name| fs::read(bed.state().join(name)).unwrap())
}

fn put_back(bed: &Bed, files: &[Vec<u8>; 2]) {
    for (name, contents) in FILES.iter().zip(files) {
        fs::write(bed.state().join(name), contents).unwrap();
    }
}

/// The loss of the ledger's file is accepted, as a message says.
fn accept_loss(config: &Path) -> String {
    let (code, _, err) = outcome(&mut command(&["check"], config));
    assert!(code == 1 && err.contains("may be lost") || err.contains("are lost"), "{err}");
    let remedy = err.lines().find_map(|line| line.split_once("locked out: ")).unwrap().1.to_owned();
    output(pintle().args(remedy.split(' ').skip(1)))
}

/// A node whose ledger was lost, and that serves a key which clients of before do not know; with the files of before.
fn after_a_loss() -> (Bed, [Vec<u8>; 2], String) {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    copied(&bed, &bed.live);
    drop(pintle);
    let before = ledger_files(&bed);
    fs::remove_file(bed.state().join(FILES[0])).unwrap();
    assert!(accept_loss(&config(&bed, &pins)).contains("done"));
    bed.put(&bed.stranger);
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.stranger);
    drop(pintle);
    (bed, before, pins)
}

/// A copy of before a loss is put back while pintle serves: its promises bind, but the key in use can be served on.
#[test]
fn an_old_copy_that_is_put_back_while_it_runs() {
    let (bed, before, pins) = after_a_loss();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&pins, ""));
    fs::write(bed.state().join(FILES[0]), &before[0]).unwrap();
    line.pintle.logs("the file had records that this process did not know");
    output(&mut line.pintle.command("reload"));
    line.upgrade();
    assert_eq!(bed.served(&line.pintle), bed.stranger.pin);
    assert!(bed.header(&line.pintle).is_some());
    // Again, and an upgrade before anybody has looked.
    fs::write(bed.state().join(FILES[0]), &before[0]).unwrap();
    line.upgrade();
    line.signal("KILL");
    line.wait(line.pid());
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    let promised = |leaf: &Leaf| {
        let (book, _) = ledger::look(&bed.state()).unwrap();
        book.promises().iter().any(|promise| promise.pins.iter().any(|pin| pin.to_string() == leaf.pin))
    };
    assert!(promised(&bed.live) && promised(&bed.stranger));
    // No key that breaks either promise comes into use.
    for leaf in [&bed.live, &bed.authority.leaf("other", &[BLOG, "www.example.com"])] {
        let refused = pintle.log_json(REFUSED).len();
        bed.put(leaf);
        eventually("it is refused", || pintle.log_json(REFUSED).into_iter().nth(refused));
    }
}

/// An older pair of both files is put back while pintle is stopped, from before the loss and from after it.
#[test]
fn an_old_pair_that_is_put_back_is_noticed() {
    let (bed, before, pins) = after_a_loss();
    let (after, config) = (ledger_files(&bed), config(&bed, &pins));
    drop(bed.start(&pins));
    for old in [before, after] {
        put_back(&bed, &old);
        let (code, _, err) = outcome(&mut command(&["check"], &config));
        assert!(code == 1 && err.contains("are old copies"), "{code} {err}");
        // A file without its head is no better.
        fs::remove_file(bed.state().join(FILES[1])).unwrap();
        let (code, _, err) = outcome(&mut command(&["run", "--strict"], &config));
        assert!(code == 1 && err.contains("are old copies"), "{code} {err}");
        let out = accept_loss(&config);
        assert!(out.contains("done"), "{out}");
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.stranger.pin);
        assert!(bed.header(&pintle).is_some());
    }
    // Another folder's pair, which somebody brings here, is no older one, but this folder's own promises are gone. Without
    // the copies of what was served, nobody knows them.
    let (own, other) = (bed.folder.path().join("own"), Bed::new());
    fs::create_dir(&own).unwrap();
    FILES.iter().for_each(|name| _ = fs::copy(bed.state().join(name), own.join(name)).unwrap());
    drop(other.start(&other.pins("30d")));
    put_back(&bed, &ledger_files(&other));
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("is another ledger's") && !err.contains("old cop"), "{code} {err}");
    let (code, _, err) = outcome(&mut command(&["run", "--strict"], &config));
    assert!(code == 1 && err.contains("is another ledger's"), "{code} {err}");
    // As the message says: the own files come back, and the other ones are merged.
    let hint = err.lines().find_map(|line| line.split_once("other ledger: ")).unwrap_or_else(|| panic!("{err}")).1;
    let (copy, merge) = hint.rsplit_once(" && pintle ").unwrap();
    output(Command::new("sh").arg("-c").arg(copy.replace("COPY", own.to_str().unwrap())));
    let out = output(pintle().args(merge.split(' ')));
    assert!(out.contains("new here"), "{out}");
    let (_, _, err) = outcome(&mut command(&["check"], &config));
    assert!(!err.contains("may be lost"), "{err}");
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
}

/// Another ledger's pair comes into a folder that was in use, as at a failover. The copies show what was promised here: both
/// count, and nothing has to be accepted.
#[test]
fn another_ledger_counts_beside_the_copies() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    drop(bed.start(&pins));
    let (theirs, away) = (ledger_files(&bed), tempfile::TempDir::new().unwrap());
    fs::rename(bed.state(), away.path().join("old")).unwrap();
    let pintle = bed.start(&pins.replace(&format!("{:?}, ", bed.next.key.with_extension("csr")), ""));
    assert!(bed.header(&pintle).is_some_and(|header| !header.contains(&bed.next.pin)));
    copied(&bed, &bed.live);
    drop(pintle);
    put_back(&bed, &theirs);
    bed.put(&bed.next);
    let (code, _, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
    assert!(code == 1 && err.contains("another ledger's file") && err.contains("would lock readers out"), "{err}");
    assert!(!err.contains("--accept-loss"), "{err}");
    for is_first in [true, false] {
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin, "{is_first}");
        match is_first {
            true => _ = pintle.logged("the ledger is lost: the previous keys are assumed to be promised", 1),
            false => assert!(!pintle.log().contains("the ledger is lost"), "{}", pintle.log()),
        }
    }
    bed.put(&bed.live);
    let (code, out, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
    assert_eq!(code, 0, "{out}{err}");
}

/// The ledger of another node comes into a folder, and that node has promised other keys for the same name: the pair that was
/// served last is served on, as after a merge.
#[test]
fn another_ledger_darkens_no_served_site() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    bed.put(&bed.stranger);
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    drop(pintle);
    let (theirs, away) = (ledger_files(&bed), tempfile::TempDir::new().unwrap());
    fs::rename(bed.state(), away.path().join("theirs")).unwrap();
    bed.put(&bed.live);
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    drop(pintle);
    put_back(&bed, &theirs);
    for _ in 0..2 {
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin);
    }
    // Another key than those in use is refused as ever.
    bed.put(&bed.stranger);
    assert_eq!(bed.served(&bed.start(&pins)), bed.live.pin);
}

/// Another machine's whole folder comes over one that was in use, without the lock: its copies show no promise of this one.
#[test]
fn copies_of_another_ledger_know_no_own_promise() {
    let (bed, other) = (Bed::new(), Bed::new());
    for bed in [&bed, &other] {
        drop(bed.start(&bed.pins("30d")));
        // The ledger has an id by now, and new copies name it.
        fs::remove_dir_all(bed.state().join("last-good")).unwrap();
        let _pintle = bed.start(&bed.pins("30d"));
        let text = |copy: &PathBuf| fs::read_to_string(copy).unwrap_or_default();
        let is_noted =
            || copies(bed).iter().any(|copy| text(copy).starts_with("Ledger: ") && text(copy).contains("KEY"));
        eventually("the copy names it", || is_noted().then_some(()));
    }
    put_back(&bed, &ledger_files(&other));
    let config = config(&bed, &bed.pins("30d"));
    let (_, _, err) = outcome(&mut command(&["check"], &config));
    assert!(!err.contains("--accept-loss"), "{err}");
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let mut copy = Command::new("cp");
    output(copy.arg("-a").arg(other.state().join("last-good")).arg(bed.state().join("last-good")));
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("is another ledger's") && err.contains("--accept-loss"), "{err}");
}

/// The ledger of another node, which has burnt these keys.
fn burnt_elsewhere(bed: &Bed, leaves: &[&Leaf]) -> PathBuf {
    let mut book = Book::default();
    for leaf in leaves {
        let burnt = Burnt { site: BLOG.into(), pin: leaf.pin.parse().unwrap(), at: time::wall() };
        book.apply(Record::Burnt(burnt));
    }
    let path = bed.folder.path().join("theirs.jsonl");
    fs::write(&path, ledger::written(&book)).unwrap();
    path
}

/// The key in use is burnt on another node: it serves until the operator changes over, and never again after that.
#[track_caller]
fn serves_until_it_is_replaced(bed: &Bed, pins: &str) {
    let pintle = bed.start(pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && err.contains("is burnt"), "{code} {err}");
    bed.put(&bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91));
    pintle.logged("certificate", 2);
    bed.put(&bed.next);
    eventually("another key serves", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    copied(bed, &bed.next);
    let refused = pintle.log_json(REFUSED).len();
    bed.put(&bed.live);
    let line = eventually("it is refused", || pintle.log_json(REFUSED).into_iter().nth(refused));
    // The pins of the other key refuse it, too.
    let why = if pins.is_empty() { "is burnt" } else { "would lock readers out" };
    assert!(line["reason"].as_str().unwrap().contains(why), "{line}");
    let config = config(bed, pins);
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let (code, _, err) = outcome(&mut command(&["run", "--strict"], &config));
    assert!(code == 1 && err.contains("is burnt"), "{code} {err}");
}

#[test]
fn a_burnt_key_that_comes_while_it_runs() {
    let bed = Bed::new();
    let theirs = burnt_elsewhere(&bed, &[&bed.live]);
    let pins = bed.pins("30d");
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&pins, ""));
    let (code, out, err) = outcome(line.pintle.command("ledger merge").args(["--json", "--dry-run"]).arg(&theirs));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["burnt"][0]["pin"]), (0, &Value::from(bed.live.pin.clone())), "{out}{err}");
    assert!(err.contains("it was compromised on another node") && err.contains("pintle key list --site"), "{err}");
    output(line.pintle.command("ledger merge").arg(&theirs));
    line.upgrade();
    assert_eq!(bed.served(&line.pintle), bed.live.pin);
    line.signal("KILL");
    line.wait(line.pid());
    // Its copy is lost, as on a full disk.
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    drop(line);
    serves_until_it_is_replaced(&bed, &pins);
}

#[test]
fn a_burnt_key_that_comes_while_it_is_stopped() {
    let bed = Bed::new();
    let theirs = burnt_elsewhere(&bed, &[&bed.live]);
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    copied(&bed, &bed.live);
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let (code, _, err) = outcome(command(&["ledger", "merge"], &config(&bed, &pins)).arg(&theirs));
    assert!(code == 0 && err.contains("it was compromised on another node"), "{code} {err}");
    serves_until_it_is_replaced(&bed, &pins);
}

/// Nothing tells whether the pair on disk was served: nothing is merged, and the hint works.
#[test]
fn a_burnt_key_of_which_nobody_knows_if_it_was_served() {
    let bed = Bed::new();
    let theirs = burnt_elsewhere(&bed, &[&bed.live]);
    let pintle = bed.start("");
    copied(&bed, &bed.live);
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let (code, _, err) = outcome(command(&["ledger", "merge"], &config(&bed, "")).arg(&theirs));
    assert!(
        code == 1 && err.contains("nothing is merged") && err.contains("is burnt by these records"),
        "{code} {err}"
    );
    let pintle = bed.start("");
    output(pintle.command("ledger merge").arg(&theirs));
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    serves_until_it_is_replaced(&bed, "");
}

/// A backup is burnt on another node: what is served goes on, and the pins are withheld from the next start on.
#[test]
fn a_burnt_backup_refuses_no_served_state() {
    let bed = Bed::new();
    let theirs = burnt_elsewhere(&bed, &[&bed.next]);
    let pins = bed.pins("30d");
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&pins, ""));
    assert!(bed.header(&line.pintle).is_some());
    output(line.pintle.command("ledger merge").arg(&theirs));
    output(&mut line.pintle.command("reload"));
    line.upgrade();
    assert_eq!(bed.served(&line.pintle), bed.live.pin);
    line.signal("KILL");
    line.wait(line.pid());
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(bed.header(&pintle), None, "a burnt key is promised to nobody");
    // A reload of nothing, and one of something else.
    output(&mut pintle.command("reload"));
    pintle.rewrite(|text| text.replace("workers = 2", "workers = 2\n[limits]\ndrain = \"9s\""));
    output(&mut pintle.command("reload"));
    // Another site above it in the file.
    let above = bed.authority.leaf("above", &["above.example.com"]);
    let table = format!(
        "[[site]]\nhosts = [\"above.example.com\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\n\
         chain = {:?}\nkey = {:?}\n[[site]]\n",
        above.chain, above.key
    );
    pintle.rewrite(|text| text.replacen("[[site]]\n", &table, 1));
    output(&mut pintle.command("reload"));
    assert_eq!(bed.header(&pintle), None);
}

/// A wildcard beside names that came one after the other: each made another set, with all the names in it. The ledger
/// keeps what they bind, and not each of them.
#[test]
fn sets_of_a_wildcard_do_not_pile_up() {
    const NAMES: usize = 3000;
    const CHANGES: usize = 40;
    let (authority, origin) = (Authority::new(), Origin::hello());
    let leaf = authority.leaf("wide", &[BLOG, "*.example.org"]);
    let folder = tempfile::TempDir::new().unwrap();
    let state = folder.path().join("state");
    let host = |name: &str| HostPattern::parse(name).unwrap();
    let name = |at: usize| host(&format!("a-name-that-is-rather-long-{at}.example.org"));
    let names: Vec<HostPattern> = (0..NAMES + CHANGES).map(name).collect();
    let begun = time::wall() - 3600;
    let mut book = Book::default();
    for (change, sent) in (0..CHANGES).zip(begun..) {
        book.apply(Record::Promise(Promise {
            site: BLOG.into(),
            hosts: vec![host(BLOG), host("*.example.org")],
            except: names[..NAMES + change].to_vec(),
            pins: vec![leaf.pin.parse().unwrap()],
            max_age: u64::try_from(29 * DAY).unwrap(),
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: begun,
            last_sent: sent,
        }));
    }
    fs::create_dir(&state).unwrap();
    fs::write(state.join("ledger.jsonl"), ledger::written(&book)).unwrap();
    let config = format!(
        "[state]\ndirectory = {state:?}\n[[site]]\nhosts = [{BLOG:?}, \"*.example.org\"]\nupstream = {:?}\n\
         [site.certificate]\nchain = {:?}\nkey = {:?}\n[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}]\n",
        origin.url(),
        leaf.chain,
        leaf.key,
        authority.public_key("backup")
    );
    let pintle = Pintle::start(&authority, &config);
    let length = || fs::metadata(state.join("ledger.jsonl")).unwrap().len();
    let of_set = ledger::written(&book).len() as u64 / CHANGES as u64;
    eventually("the ledger is short", || (length() < 3 * of_set).then_some(()));
    let held = |host: &HostPattern| {
        let (book, notices) = ledger::look(&state).unwrap();
        assert_eq!(notices, []);
        let bound = book.promises().iter().filter(|p| p.max_age == 29 * 86400 && p.binds(host, &[]));
        bound.map(Promise::honoured_until).max()
    };
    let check = || {
        assert_eq!(held(&names[0]), None, "no client noted anything for it");
        assert_eq!(held(&names[NAMES + 5]), Some(begun + 5 + 29 * DAY), "it became an exception in the next set");
        assert_eq!(held(&host("free.example.org")), Some(begun + CHANGES as i64 - 1 + 29 * DAY));
    };
    check();
    // After a restart, too.
    drop(pintle);
    drop(Pintle::start(&authority, &config));
    check();
}
