//! The ledger that a start begins, and records that come while pintle runs: what is known elsewhere counts, what may be lost
//! is said, and nobody's clock poisons the book.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use pintle::ledger::{self, Record};
use pintle::policy::promise::Promise;

use crate::harness::{BLOG, Pintle, eventually, is_root, outcome, output, pintle};
use crate::last_good::{LISTEN, copied, copies};
use crate::loss::{command, config, start_fails};
use crate::refused_edits::{hpkp, pin_at, pins_at, site, state};
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

/// Every file of the ledger is gone, and only the copies show what was served: that is served on, and nothing else.
#[test]
fn only_the_copies_are_left() {
    let (bed, pins) = after_promises();
    delete(&bed, &FILES);
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(
        code == 1 && err.contains("was served with another key") && err.contains("would lock readers out"),
        "{out}{err}"
    );
    let (code, out, _) = outcome(command(&["check"], &config).arg("--json"));
    assert!(code == 1 && out.contains("was served with another key"), "{out}");
    let pintle = bed.start(&pins);
    let lost = pintle.logged("the ledger is lost: the previous keys are assumed to be promised", 1).remove(0);
    assert!(lost["problem"].as_str().unwrap().contains("was served with another key"), "{lost}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    // The new ledger knows it.
    let pintle = bed.start(&pins);
    assert_eq!((bed.served(&pintle), pintle.log_json("the ledger is new").len()), (bed.live.pin.clone(), 0));
    // The usual way out.
    bed.put(&bed.live);
    let mut install = command(&["install", "--dry-run", "--site", BLOG], &pintle.config_path());
    let (_, _, err) = outcome(install.arg(&bed.stranger.chain));
    let day = err.split("--accept-lockout-until ").nth(1).unwrap_or_else(|| panic!("{err}"))[..10].to_owned();
    let mut install = command(&["install", "--accept-lockout-until", &day, "--site", BLOG], &pintle.config_path());
    output(install.args([&bed.stranger.chain, &bed.stranger.key]));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
}

/// A start that fails is no proof that the folder was in use without promises.
#[test]
fn a_start_that_fails_hides_no_loss() {
    let (bed, pins) = after_promises();
    delete(&bed, &FILES);
    let config = config(&bed, &pins);
    let text = fs::read_to_string(&config).unwrap();
    // It ends while it binds.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https = [\"{}\"]", taken.local_addr().unwrap());
    fs::write(&config, text.replace("https = [\"127.0.0.1:0\"]", &address)).unwrap();
    let err = start_fails(&config);
    assert!(err.contains(&taken.local_addr().unwrap().to_string()), "{err}");
    // The file is wrong.
    bed.put(&bed.stranger);
    fs::write(&config, text.replace("[[site]]", "[[site]]\nhots = []")).unwrap();
    assert!(start_fails(&config).contains("hots"));
    assert!(bed.state().join(FILES[2]).exists());
    let pintle = bed.start(&pins);
    pintle.logs("the ledger is lost: the previous keys are assumed to be promised");
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// A site without pins has no ledger, and a start that has served says so: another key may come, with pins.
#[test]
fn a_folder_without_promises_is_no_loss() {
    let bed = Bed::new();
    let pintle = bed.start("");
    copied(&bed, &bed.live);
    drop(pintle);
    bed.put(&bed.stranger);
    assert_eq!(bed.served(&bed.start(&bed.pins("30d"))), bed.stranger.pin);
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
    let decline = pasted(&refused, "pintle ledger decline ");
    paste(&pasted(&refused, "mkdir -p "));
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    // The ledger has them: they cannot be declined any more.
    let (code, _, err) = outcome(&mut pintle_of(&decline));
    assert!(code == 1 && err.contains("nothing is declined"), "{err}");
}

/// A pasted command of pintle.
fn pintle_of(command: &str) -> Command {
    let mut found = pintle();
    found.args(command.split(' ').skip(1));
    found
}

/// Nobody holds the promises in another folder, says the operator. It stays so, with pins or without.
#[test]
fn promises_in_another_folder_are_declined() {
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let refused = start_fails(&config);
    let out = output(&mut pintle_of(&pasted(&refused, "pintle ledger decline ")));
    assert!(out.contains("1 promise declined"), "{out}");
    assert!(old.join(FILES[0]).exists());
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert_eq!(code, 0, "{out}{err}");
    for pins in ["", "", pins.as_str(), ""] {
        assert_eq!(bed.served(&bed.start(pins)), bed.stranger.pin);
        let (_, _, err) = outcome(&mut command(&["check"], &config));
        assert!(!err.contains("begin without them"), "{err}");
    }
}

/// Another folder was named for a while, by restarts. What was promised from there counts once the first one is named again,
/// unless somebody knows better.
#[test]
fn a_folder_that_is_named_again() {
    for is_declined in [false, true] {
        let (bed, pins) = after_promises();
        let second = bed.folder.path().join("second");
        let one = pins.replace(&format!("{:?}, ", bed.next.key.with_extension("csr")), "");
        let text = bed.config(&one, "").replace(&format!("{:?}", bed.state()), &format!("{second:?}"));
        let pintle = Pintle::start(&bed.authority, &text);
        assert!(bed.header(&pintle).is_some_and(|header| !header.contains(&bed.next.pin)));
        drop(pintle);
        bed.put(&bed.next);
        let (code, out, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
        assert!(code == 1 && err.contains("lacks: they count") && err.contains("would lock readers out"), "{out}{err}");
        if is_declined {
            output(&mut pintle_of(&pasted(&err, "pintle ledger decline ")));
        }
        for is_first in [true, false] {
            let pintle = bed.start(&pins);
            let served = if is_declined { &bed.next } else { &bed.live };
            assert_eq!(bed.served(&pintle), served.pin, "{is_first}");
            if is_first && !is_declined {
                pintle.logs("the promises in another folder count");
            } else {
                assert!(!pintle.log().contains("they count"), "{}", pintle.log());
            }
        }
    }
}

/// Two pintles have folders side by side, and both were in use. A restart serves as before, whatever the other one promises.
#[test]
fn a_pintle_beside_another_one_starts_as_before() {
    let ((bed, pins), (other, theirs)) = (after_promises(), after_promises());
    let beside = bed.folder.path().join("staging");
    fs::rename(other.state(), &beside).unwrap();
    let text = other.config(&theirs.replace("30d", "29d"), "");
    let text = text.replace(&format!("{:?}", other.state()), &format!("{beside:?}"));
    let pintle = Pintle::start(&other.authority, &text);
    assert!(other.header(&pintle).is_some());
    drop(pintle);
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert!(!pintle.log().contains("they count"), "{}", pintle.log());
    drop(pintle);
    bed.put(&bed.next);
    let (code, out, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
    assert_eq!(code, 0, "{out}{err}");
}

/// A copy of the folder has accepted a lockout. That says nothing about the clients of this one.
#[test]
fn a_lockout_that_a_copy_accepts_is_its_own() {
    let (bed, pins) = after_promises();
    let beside = bed.folder.path().join("staging");
    paste(&format!("cp -a {} {}", bed.state().display(), beside.display()));
    let moved = |text: String| text.replace(&format!("{:?}", bed.state()), &format!("{beside:?}"));
    let theirs = bed.folder.path().join("staging.toml");
    fs::write(&theirs, moved(fs::read_to_string(config(&bed, &pins)).unwrap())).unwrap();
    let (_, _, err) = outcome(command(&["install", "--dry-run", "--site", BLOG], &theirs).arg(&bed.stranger.chain));
    let day = err.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
    let mut install = command(&["install", "--accept-lockout-until", &day, "--site", BLOG], &theirs);
    output(install.args([&bed.stranger.chain, &bed.stranger.key]));
    let pintle = Pintle::start(&bed.authority, &moved(bed.config(&pins, "")));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    drop(pintle);
    assert_eq!(bed.served(&bed.start(&pins)), bed.live.pin);
}

/// The lock alone is gone. A whole ledger is as good as before; of an older one, the copies show what it lacks.
#[test]
fn an_older_pair_without_the_lock() {
    let (bed, pins) = after_promises();
    let read = || [FILES[0], FILES[1]].map(|name| fs::read(bed.state().join(name)).unwrap());
    let (old, of_both) = (read(), fs::read(&copies(&bed)[0]).unwrap());
    let pintle = bed.start(&pins.replace(&format!("{:?}, ", bed.next.key.with_extension("csr")), ""));
    eventually("the copy says so", || (fs::read(copies(&bed).first()?).ok()? != of_both).then_some(()));
    drop(pintle);
    let (newest, config) = (read(), config(&bed, &pins));
    delete(&bed, &FILES[2..]);
    for (files, code_wanted) in [(newest, 0), (old, 1)] {
        for (name, contents) in FILES.iter().zip(files) {
            fs::write(bed.state().join(name), contents).unwrap();
        }
        let (code, out, err) = outcome(&mut command(&["check"], &config));
        assert_eq!((code, err.contains("may be lost")), (code_wanted, code_wanted == 1), "{out}{err}");
        bed.put(&bed.next);
    }
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// Beside the folder are many others, and a ledger that nobody can read: that one is named, and is not read to its end.
#[test]
fn one_folder_among_many_is_found() {
    let (bed, pins) = after_promises();
    fs::rename(bed.state(), bed.folder.path().join("old")).unwrap();
    (0..600).for_each(|at| fs::create_dir(bed.folder.path().join(format!("service-{at}"))).unwrap());
    let huge = bed.folder.path().join("service-7/ledger.jsonl");
    fs::File::create(&huge).unwrap().set_len(3 << 30).unwrap();
    bed.put(&bed.stranger);
    let (code, _, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
    assert!(code == 1 && err.contains("would lock readers out") && err.contains("they count"), "{err}");
    assert!(err.contains("service-7/ledger.jsonl: cannot read the promises"), "{err}");
}

/// The clock is behind: the promises that are found end when they end.
#[test]
fn a_clock_that_is_behind_shortens_no_found_promise() {
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    let [clock, none] = ["clock", "none.jsonl"].map(|name| bed.folder.path().join(name));
    fs::write(&clock, (-200 * 86400).to_string()).unwrap();
    fs::write(&none, "").unwrap();
    let config = config(&bed, &pins);
    let mut merge = command(&["ledger", "merge"], &config);
    let (code, out, err) = outcome(merge.arg(&none).env("PINTLE_TEST_CLOCK", &clock));
    assert!(code == 0 && err.contains("they count"), "{out}{err}");
    let [found, known] = [&bed.state(), &old].map(|folder| ledger::look(folder).unwrap().0);
    assert_eq!(found.promises(), known.promises());
    bed.put(&bed.stranger);
    assert!(start_fails(&config).contains("would lock readers out"));
}

fn give_away(folder: &Path) {
    let mut give = Command::new("chown");
    output(give.args(["-R", "nobody"]).arg(folder));
}

/// The state folder is missing, below one of the serving user: a command of root's makes it for that user, or not at all.
#[test]
fn a_command_makes_the_folder_of_the_serving_user() {
    if !is_root("become somebody else") {
        return;
    }
    let bed = Bed::new();
    let (path, parent) = (config(&bed, ""), bed.folder.path().join("lib"));
    let (at, other) = (parent.join("state"), bed.folder.path().join("other.jsonl"));
    fs::create_dir(&parent).unwrap();
    fs::set_permissions(bed.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&other, "").unwrap();
    let text = fs::read_to_string(&path).unwrap().replace(&format!("{:?}", bed.state()), &format!("{at:?}"));
    fs::write(&path, format!("[process]\nuser = \"nobody\"\n{text}")).unwrap();
    let merge = || {
        let mut merge = pintle();
        outcome(merge.args(["ledger", "merge", "-c"]).arg(&path).arg(&other).env_remove("PINTLE_ALLOW_ROOT"))
    };
    // Another user's place: the serving user cannot make it there.
    chown(&parent, Some(12345), None).unwrap();
    let (code, _, err) = merge();
    assert!(code == 1 && err.contains("the user nobody cannot make it") && !at.exists(), "{err}");
    give_away(&parent);
    let (code, out, err) = merge();
    assert_eq!(code, 0, "{out}{err}");
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    for entry in fs::read_dir(&at).unwrap().flatten() {
        assert_eq!(owner(&entry.path()), owner(&parent), "{entry:?}");
    }
    assert_eq!(owner(&at), owner(&parent));
}

/// Anybody can make a folder with a ledger: another user's does not count, and that is said.
#[test]
fn a_folder_of_another_user_does_not_count() {
    if !is_root("give a folder away") {
        return;
    }
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    give_away(&old);
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && err.contains("belongs to the user nobody: they do not count"), "{out}{err}");
    assert!(err.contains("pintle ledger merge") && !err.contains("cp -an"), "{err}");
    let pintle = bed.start(&pins);
    pintle.logs("promises in another folder may be missing");
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
}

/// Another pintle runs with the folder: nobody is told to move it, or to copy it.
#[test]
fn the_folder_of_a_running_pintle_stays() {
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    let lock = fs::File::open(old.join(FILES[2])).unwrap();
    lock.lock().unwrap();
    let (code, out, err) = outcome(&mut command(&["check"], &config(&bed, &pins)));
    assert!(code == 0 && err.contains("another pintle runs with"), "{out}{err}");
    assert!(!err.contains("cp -an") && !err.contains("mv ") && err.contains("pintle ledger decline "), "{err}");
}

/// The user has changed along with the folder: root looks before it becomes the user, and copies nothing as root.
#[test]
fn a_closed_folder_counts_for_another_user() {
    if !is_root("become somebody else") {
        return;
    }
    let (bed, pins) = after_promises();
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    bed.put(&bed.stranger);
    for folder in [bed.authority.folder(), bed.folder.path()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = nobody.lines().find(|line| line.starts_with("nobody:")).unwrap().split(':').nth(2).unwrap().to_owned();
    chown(bed.key(), Some(nobody.parse().unwrap()), None).unwrap();
    let config = config(&bed, &pins);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("[process]\nuser = \"nobody\"\n{text}")).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o700)).unwrap();
    let err = start_fails(&config);
    assert!(err.contains("would lock readers out") && err.contains("they count"), "{err}");
    assert!(!err.contains("cp -an"), "the folders are two users': {err}");
    // The folder is the user's own: it could lead root astray.
    fs::remove_dir_all(bed.state()).unwrap();
    give_away(&old);
    let err = start_fails(&config);
    assert!(err.contains("would lock readers out"), "{err}");
    paste(&pasted(&err, "runuser -u nobody -- cp -an "));
    assert!(bed.state().join("last-good").exists());
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

/// A promise is over while pintle serves: the copies do not name it any more, and the start after a loss assumes none of it.
#[test]
fn the_copies_forget_a_promise_that_is_over() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    let text = || fs::read_to_string(&copies(&bed)[0]).unwrap_or_default();
    let now = ledger::time::wall();
    let ending = with_another(&bed, |other| {
        other.pins = vec![bed.live.pin.parse().unwrap(), bed.stranger.pin.parse().unwrap()];
        other.pins.sort_unstable();
        (other.max_age, other.first_sent, other.last_sent) = (5, now, now);
    });
    let path = bed.folder.path().join("ending.jsonl");
    fs::write(&path, ending).unwrap();
    output(pintle.command("ledger merge").arg(&path));
    eventually("the copy notes it", || text().contains("until=").then_some(()));
    eventually("the note is as before", || {
        let text = text();
        (text.contains("Pinned: yes ") && !text.contains("until=")).then_some(())
    });
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
    symlink(&kept, file(&bed)).unwrap();
    let config = config(&bed, &pins);
    paste(&pasted(&start_fails(&config), "cp -p "));
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    bed.put(&bed.stranger);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    assert!(start_fails(&config).contains("would lock readers out"));
}

/// All promises of a found ledger are taken along, also those for sites that are not there yet: a reload that brings such a
/// site is judged by them.
#[test]
fn a_found_ledger_counts_for_sites_that_come_later() {
    let bed = Bed::new();
    let [a, c, strange] =
        [("a", "a.test"), ("c", "c.test"), ("strange", "a.test")].map(|(name, host)| bed.authority.leaf(name, &[host]));
    let pins = hpkp(&[bed.authority.public_key("backup")], "");
    let [of_a, of_c] = [("a.test", &a), ("c.test", &c)].map(|(name, leaf)| site(&bed, &[name], leaf, &pins));
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &of_a + &of_c));
    assert!(["a.test", "c.test"].iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    drop(pintle);
    fs::rename(bed.state(), bed.folder.path().join("old")).unwrap();
    let added = site(&bed, &["a.test"], &strange, "");
    let other = site(&bed, &[BLOG], &bed.live, "");
    for (first, says) in [(of_c, "for these sites: they count"), (other, "for other sites: the new ledger begins")] {
        let pintle = Pintle::start(&bed.authority, &(state(&bed) + &first));
        let remark = pintle.logged("the ledger is new", 1).remove(0);
        assert!(remark["problem"].as_str().unwrap().contains(says), "{remark}");
        pintle.rewrite(|text| format!("{text}\n{added}"));
        let refused = pintle.reload_fails();
        assert!(refused.contains("would lock readers out"), "{refused}");
        drop(pintle);
        fs::remove_dir_all(bed.state()).unwrap();
    }
}

/// Nothing but the copies is left, and they do not say if pins were sent: a name counts without pins of its own, too.
#[test]
fn the_copies_count_for_names_without_pins() {
    let bed = Bed::new();
    let leaves = [("a", "a.test"), ("b", "b.a.test"), ("c", "c.test"), ("x", "a.test"), ("y", "b.a.test")];
    let [a, b, c, x, y] = leaves.map(|(name, host)| bed.authority.leaf(name, &[host]));
    let both = bed.authority.issue("both", c.key.clone(), &["c.test", "a.test"], -1, 90);
    let pins = hpkp(&[bed.authority.csr(&b)], "include_subdomains = true\n");
    let itself = hpkp(&[bed.authority.csr(&x)], "");
    let (of_a, of_b, of_c) =
        (site(&bed, &["a.test"], &a, &pins), site(&bed, &["b.a.test"], &b, ""), site(&bed, &["c.test"], &c, ""));
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &of_a + &of_b + &of_c));
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    eventually("all pairs are copied", || (copies(&bed).len() == 3).then_some(()));
    drop(pintle);
    delete(&bed, &FILES);
    let kept = bed.folder.path().join("kept");
    fs::rename(bed.state().join("last-good"), &kept).unwrap();
    let below = site(&bed, &["b.a.test"], &y, "");
    for (text, served) in [
        // Without its table of pins, with a backup that is the key itself, and in another site.
        (site(&bed, &["a.test"], &x, ""), vec![("a.test", &a)]),
        (site(&bed, &["a.test"], &x, &itself), vec![("a.test", &a)]),
        (site(&bed, &["c.test", "a.test"], &both, ""), vec![("a.test", &a), ("c.test", &c)]),
        (of_a.clone() + &below, vec![("a.test", &a), ("b.a.test", &b)]),
    ] {
        fs::remove_dir_all(bed.state()).unwrap();
        fs::create_dir(bed.state()).unwrap();
        let mut copy = Command::new("cp");
        output(copy.arg("-a").arg(&kept).arg(bed.state().join("last-good")));
        let pintle = Pintle::start(&bed.authority, &(state(&bed) + &text));
        pintle.logs("the ledger is lost: the previous keys are assumed to be promised");
        for (name, leaf) in served {
            assert_eq!(pin_at(&pintle, name), leaf.pin, "{name} {text}");
        }
    }
}

/// Nothing but the copies is left, and no key differs: what clients may hold is known all the same, by the copies and not by
/// the backups of now. A folder beside it with an older ledger proves nothing.
#[test]
fn a_loss_counts_although_no_key_differs() {
    let bed = Bed::new();
    let backup = |name: &str| hpkp(&[bed.authority.folder().join(format!("{name}.csr"))], "");
    [&bed.next, &bed.spare, &bed.stranger].iter().for_each(|leaf| _ = bed.authority.csr(leaf));
    let pintle = bed.start(&backup("next"));
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    output(Command::new("cp").arg("-a").arg(bed.state()).arg(bed.folder.path().join("state.bak")));
    // From now on, clients know the spare key instead.
    let of_both = fs::read(&copies(&bed)[0]).unwrap();
    pintle.rewrite(|text| text.replace("next.csr", "spare.csr"));
    pintle.reload();
    eventually("the copy says so", || (fs::read(copies(&bed).first()?).ok()? != of_both).then_some(()));
    drop(pintle);
    delete(&bed, &FILES);
    // No backup of either set is in both.
    bed.put(&bed.next);
    let pintle = bed.start(&backup("stranger"));
    pintle.logs("the ledger is lost: the previous keys are assumed to be promised");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    fs::remove_dir_all(bed.folder.path().join("state.bak")).unwrap();
    // Once more, without any key that differs.
    delete(&bed, &FILES);
    bed.put(&bed.live);
    let pintle = bed.start("");
    let lost = pintle.logged("the ledger is lost: the previous keys are assumed to be promised", 1).remove(0);
    assert!(lost["problem"].as_str().unwrap().contains("shows that pintle has served from it before"), "{lost}");
    assert!(lost["hint"].as_str().unwrap().contains("pintle ledger merge"), "{lost}");
    let shown = output(&mut pintle.command("ledger show"));
    assert!(shown.contains("assumed"), "{shown}");
    bed.put(&bed.stranger);
    let refused = pintle.logged("certificate refused; the old one keeps serving", 1).remove(0);
    assert!(refused.to_string().contains("assumed (the ledger was lost)"), "{refused}");
}

/// A copy says that its names were promised nothing: the folder without its ledger and lock is no loss.
#[test]
fn a_site_that_never_had_pins_loses_none() {
    let bed = Bed::new();
    let pintle = bed.start("");
    copied(&bed, &bed.live);
    drop(pintle);
    fs::remove_file(bed.state().join(FILES[2])).unwrap();
    bed.put(&bed.stranger);
    let config = config(&bed, "");
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && !err.contains("may be lost"), "{out}{err}");
    assert_eq!(bed.served(&bed.start("")), bed.stranger.pin);
    // One of an older version does not say it.
    let bed = Bed::new();
    let pintle = bed.start("");
    copied(&bed, &bed.live);
    drop(pintle);
    let copy = copies(&bed).remove(0);
    let text = fs::read_to_string(&copy).unwrap();
    assert!(text.contains("Pinned: no\n"), "{text}");
    fs::write(&copy, text.replace("Pinned: no\n", "")).unwrap();
    fs::remove_file(bed.state().join(FILES[2])).unwrap();
    bed.put(&bed.stranger);
    assert_eq!(bed.served(&bed.start("")), bed.live.pin);
}

/// Nothing but the copies is left, and nobody can read them.
#[test]
fn copies_that_cannot_be_read_are_named() {
    let (bed, pins) = after_promises();
    delete(&bed, &FILES);
    let folder = bed.state().join("last-good");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("cannot read what it has served"), "{out}{err}");
    // Nobody knows which key readers were promised.
    let err = start_fails(&config);
    assert!(err.contains("cannot read what it has served"), "{err}");
    paste(&pasted(&err, "mv "));
    assert_eq!(bed.served(&bed.start(&pins)), bed.stranger.pin);
}

/// Nothing but a copy is left, and it is damaged: nobody knows which key readers were promised.
#[test]
fn a_damaged_copy_is_no_leave_to_serve_any_key() {
    for damage in ["", "garbage\n"] {
        let (bed, pins) = after_promises();
        copies(&bed).iter().for_each(|copy| fs::write(copy, damage).unwrap());
        let config = config(&bed, &pins);
        // With its ledger, the folder needs no copy.
        let (code, out, err) = outcome(&mut command(&["check"], &config));
        assert_eq!(code, 0, "{out}{err}");
        delete(&bed, &FILES);
        bed.put(&bed.stranger);
        let err = start_fails(&config);
        assert!(err.contains("cannot read what it has served") && err.contains("is damaged"), "{err}");
        paste(&pasted(&err, "mv "));
        assert_eq!(bed.served(&bed.start(&pins)), bed.stranger.pin);
    }
}

/// Starts with a stranger's key in place, so many days later, after the machine was off. `is_lost`: without a ledger.
fn later(bed: &Bed, config: &str, days: i64, is_lost: bool) -> String {
    if is_lost {
        FILES.iter().for_each(|name| _ = fs::remove_file(bed.state().join(name)));
    }
    bed.put(&bed.stranger);
    let clock = bed.folder.path().join("clock");
    fs::write(&clock, format!("{} boot-{days}", days * 86400)).unwrap();
    let adapt = |command: &mut Command| _ = command.env("PINTLE_TEST_CLOCK", &clock);
    bed.served(&Pintle::start_command(&bed.authority, LISTEN, config, adapt))
}

/// A site sends no pins any more. Its copy says until when clients hold them, as long as the process goes on without a change.
#[test]
fn pins_that_are_over_are_no_loss() {
    let (bed, pins) = after_promises();
    let pintle = bed.start(&pins);
    let (with, without) = (bed.config(&pins, ""), bed.config("", ""));
    pintle.rewrite(|text| text.replace(&with, &without));
    output(&mut pintle.command("reload"));
    let has_end = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|copy| copy.contains(" until="));
    eventually("the copy names the end", || copies(&bed).iter().any(has_end).then_some(()));
    drop(pintle);
    for (days, served) in [(20, &bed.live), (40, &bed.stranger)] {
        assert_eq!(later(&bed, &without, days, true), served.pin, "after {days} days");
    }
}

/// An export binds longer than what is assumed after a loss, and its command may come while nobody serves.
#[test]
fn an_export_is_assumed_until_its_end() {
    for is_running in [true, false] {
        let bed = Bed::new();
        let pintle = bed.start("");
        copied(&bed, &bed.live);
        let running = is_running.then_some(pintle);
        let text = bed.config("", "");
        let path = running.as_ref().map_or_else(|| config(&bed, ""), Pintle::config_path);
        let mut export = command(&["export", "--as", "android", "--life", "100d", "--site", BLOG], &path);
        output(export.arg("--backup").arg(bed.next.key.with_extension("csr")));
        let has_end = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|copy| copy.contains(" until="));
        eventually("the copy names the end", || copies(&bed).iter().any(has_end).then_some(()));
        drop(running);
        for (days, is_lost) in [(0, true), (80, false)] {
            assert_eq!(later(&bed, &text, days, is_lost), bed.live.pin, "{is_running}, after {days} days");
        }
    }
}

/// Nothing but the copies is left, and a name below a wildcard has a table of its own by now: the pair that served it counts.
#[test]
fn the_copy_of_a_wildcard_counts_for_names_below() {
    let bed = Bed::new();
    let [wide, strange] =
        [("wide", "*.w.test"), ("strange", "x.w.test")].map(|(name, host)| bed.authority.leaf(name, &[host]));
    let wildcard = site(&bed, &["*.w.test"], &wide, &hpkp(&[bed.authority.public_key("backup")], ""));
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &wildcard));
    assert!(pins_at(&bed, &pintle, "x.w.test").is_some());
    copied(&bed, &wide);
    drop(pintle);
    delete(&bed, &FILES);
    let text = state(&bed) + &wildcard + &site(&bed, &["x.w.test"], &strange, "");
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.logs("the ledger is lost: the previous keys are assumed to be promised");
    assert_eq!(pin_at(&pintle, "x.w.test"), wide.pin);
    drop(pintle);
    assert_eq!(pin_at(&Pintle::start(&bed.authority, &text), "x.w.test"), wide.pin);
}

/// A link on the way to the state was pointed elsewhere: the folder that it named lies beside the one that it names now.
#[test]
fn a_link_that_points_elsewhere() {
    let (bed, pins) = after_promises();
    let at = |path: &str| bed.folder.path().join("volumes").join(path);
    let now = at("2/state");
    fs::create_dir_all(&now).unwrap();
    fs::create_dir(at("1")).unwrap();
    fs::rename(bed.state(), at("1/state")).unwrap();
    bed.put(&bed.stranger);
    let config = config(&bed, &pins);
    // A link in the middle of the path.
    symlink(at("2"), bed.folder.path().join("current")).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let through = bed.folder.path().join("current/state");
    fs::write(&config, text.replace(&format!("{:?}", bed.state()), &format!("{through:?}"))).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("would lock readers out") && err.contains("they count"), "{err}");
    // The folder itself is a link.
    fs::write(&config, text).unwrap();
    fs::rename(at("1/state"), at("2/old")).unwrap();
    symlink(now, bed.state()).unwrap();
    let err = start_fails(&config);
    assert!(err.contains("would lock readers out") && err.contains("they count"), "{err}");
}
