//! The ledger's file deleted, damaged, cut, or replaced: what is promised is known all the same, or it is said that it may
//! be lost, and nothing is served in its place before somebody has accepted that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pintle::ledger::{self, Notice};
use serde_json::Value;

use crate::harness::{BLOG, Client, Pintle, eventually, outcome, output, pintle};
use crate::rotation::Bed;
use crate::upgrade::Line;

const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";

fn file(bed: &Bed) -> PathBuf {
    bed.state().join("ledger.jsonl")
}

/// A configuration beside the process, for commands when it is gone.
pub fn config(bed: &Bed, hpkp: &str) -> PathBuf {
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, format!("{LISTEN}{}", bed.config(hpkp, ""))).unwrap();
    path
}

pub fn command(words: &[&str], config: &Path) -> Command {
    let mut command = pintle();
    command.env("PINTLE_ALLOW_ROOT", "1").args(words).arg("-c").arg(config);
    command
}

/// Another set of pins is sent from now on.
fn promise_more(pintle: &Pintle) {
    pintle.rewrite(|text| text.replace("max_age = \"30d\"", "max_age = \"29d\""));
    pintle.reload();
}

/// The output of a start that must be refused.
#[track_caller]
pub fn start_fails(config: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_pintle");
    let mut command = Command::new("timeout");
    let (code, out, err) =
        outcome(command.env("PINTLE_ALLOW_ROOT", "1").args(["20", program, "run", "--strict", "-c"]).arg(config));
    assert_eq!(code, 1, "{out}{err}");
    err
}

/// A site whose record is larger than anybody thought: its promise is there after a restart and after an upgrade.
#[test]
fn a_site_with_thousands_of_hosts_keeps_its_promise() {
    let bed = Bed::new();
    let more: Vec<String> = (0..2_600).map(|at| format!("\"host-of-some-length-{at}.example.org\"")).collect();
    let with_hosts =
        |text: String| text.replace("\"www.example.com\"]", &format!("\"www.example.com\", {}]", more.join(", ")));
    let names = [BLOG, "www.example.com", "*.example.org"];
    for leaf in [&bed.live, &bed.stranger] {
        let name = leaf.chain.file_stem().unwrap().to_str().unwrap();
        bed.authority.renew(name, &leaf.key, &names, 90);
    }
    bed.put(&bed.live);
    let text = with_hosts(bed.config(&bed.pins("30d"), ""));
    let line = Line::start(&bed.authority, LISTEN, &text);
    assert!(bed.header(&line.pintle).is_some());
    let longest = fs::read_to_string(file(&bed)).unwrap().lines().map(str::len).max().unwrap();
    assert!(longest > 64 * 1024, "{longest}");
    line.upgrade();
    assert!(bed.header(&line.pintle).is_some());
    drop(line);
    assert_eq!(ledger::look(&bed.state()).unwrap().1, []);
    // No backup is promised to whoever knew the live key alone: a stranger is refused, at the start, too.
    bed.put(&bed.stranger);
    let config = bed.folder.path().join("big.toml");
    fs::write(&config, format!("{LISTEN}{text}")).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
}

/// Whatever becomes of the file while the process runs: it is there again after a few seconds.
#[test]
fn a_file_that_is_deleted_or_exchanged_is_written_anew() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let old = fs::read(file(&bed)).unwrap();
    promise_more(&pintle);
    let known = ledger::look(&bed.state()).unwrap().0;
    let disturb: [&dyn Fn(); 5] = [
        &|| fs::remove_file(file(&bed)).unwrap(),
        &|| fs::write(file(&bed), &old).unwrap(),
        &|| fs::write(file(&bed), "").unwrap(),
        &|| fs::remove_file(bed.state().join("ledger.head")).unwrap(),
        &|| {
            let mut damaged = fs::read(file(&bed)).unwrap();
            let at = damaged.len() - 20;
            damaged[at] ^= 1;
            fs::write(file(&bed), damaged).unwrap();
        },
    ];
    for (at, disturb) in disturb.iter().enumerate() {
        disturb();
        eventually("it is noticed", || {
            let message = "another program has deleted or changed the ledger's file: it is written again";
            (pintle.log_json(message).len() == at + 1).then_some(())
        });
        eventually("it is whole", || {
            let (book, notices) = ledger::look(&bed.state()).ok()?;
            (notices.is_empty() && book.news(&known).is_empty()).then_some(())
        });
    }
    assert_eq!(pintle.stop(), 0);
    drop(bed.start(&bed.pins("30d")));
}

/// The file is gone, and somebody acts before that was noticed: an upgrade, a stop, commands.
#[test]
fn a_deleted_file_is_no_empty_book() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    assert!(bed.header(&line.pintle).is_some());
    // Commands judge by what the process knows, and by nothing else.
    fs::remove_file(file(&bed)).unwrap();
    let mut install = pintle();
    install
        .args(["install", "--dry-run", "--site", BLOG, "-c"])
        .arg(line.pintle.config_path())
        .arg(&bed.stranger.chain);
    let (code, _, err) = outcome(&mut install);
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    fs::remove_file(file(&bed)).unwrap();
    output(&mut line.pintle.command("check"));
    // An upgrade with a stranger's pair on disk: the new process knows what was promised, and serves the pair of before.
    fs::remove_file(file(&bed)).unwrap();
    bed.put(&bed.stranger);
    line.upgrade();
    assert_eq!(bed.served(&line.pintle), bed.live.pin);
    bed.put(&bed.live);
    // One that is fit: the book is there, and on disk.
    fs::remove_file(file(&bed)).unwrap();
    line.upgrade();
    let (book, notices) = ledger::look(&bed.state()).unwrap();
    assert!(notices.is_empty() && !book.promises().is_empty(), "{notices:?}");
    // And the end.
    fs::remove_file(file(&bed)).unwrap();
    let before = line.pid();
    line.signal("TERM");
    assert_eq!(line.wait(before), Some(0));
    let (again, notices) = ledger::look(&bed.state()).unwrap();
    assert!(notices.is_empty() && again.news(&book).is_empty(), "{notices:?}");
}

/// Another folder is as empty as a deleted one.
#[test]
fn the_book_goes_along_to_another_folder() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let elsewhere = bed.folder.path().join("elsewhere");
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", bed.state().join("admin.sock").display());
    line.pintle.rewrite(|text| admin + &text.replace(&format!("{:?}", bed.state()), &format!("{elsewhere:?}")));
    line.upgrade();
    assert!(bed.header(&line.pintle).is_some());
    assert_eq!(ledger::look(&elsewhere).unwrap().0.promises().len(), 1);
    // The previous folder's file does not know what is promised from now on: nothing starts from it.
    let moved = bed.state().join("ledger.moved");
    eventually("it is set aside", || (moved.exists() && !file(&bed).exists()).then_some(()));
    drop(line);
    let previous = config(&bed, &bed.pins("30d"));
    let err = start_fails(&previous);
    assert!(err.contains("has moved the ledger to another state.directory"), "{err}");
    for name in ["ledger.jsonl", "ledger.head"] {
        fs::copy(elsewhere.join(name), bed.state().join(name)).unwrap();
    }
    drop(bed.start(&bed.pins("30d")));
}

/// An upgrade that stays in its folder, under whatever name, leaves the file there.
#[test]
fn the_same_folder_under_another_name_is_no_other_folder() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let link = bed.folder.path().join("link");
    std::os::unix::fs::symlink(bed.state(), &link).unwrap();
    line.pintle.rewrite(|text| text.replace(&format!("{:?}", bed.state()), &format!("{link:?}")));
    line.upgrade();
    assert!(file(&bed).exists() && !bed.state().join("ledger.moved").exists());
}

/// With another `state.directory`, a restart would begin an empty book: a reload refuses that, and check and start say it.
#[test]
fn another_folder_is_never_begun_in_silence() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    let elsewhere = bed.folder.path().join("else/where");
    let move_it = |text: String| text.replace(&format!("{:?}", bed.state()), &format!("{elsewhere:?}"));
    pintle.rewrite(|text| move_it(text.to_owned()));
    let refused = crate::admin::post(&bed.state().join("admin.sock"), "/reload");
    assert!(refused.contains("a reload cannot move the ledger") && refused.contains("cp -a"), "{refused}");
    let promised = bed.header(&pintle);
    assert!(promised.is_some(), "everything else goes on");
    drop(pintle);
    let config = bed.folder.path().join("moved.toml");
    fs::write(&config, move_it(format!("{LISTEN}{}", bed.config(&pins, "")))).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(
        code == 0
            && err.contains("has one with promises for these sites: they count, and the new ledger begins with them"),
        "{code} {err}"
    );
    let (_, out, _) = outcome(&mut command(&["check", "--json"], &config));
    assert!(out.contains("has no ledger"), "{out}");
    // The remedy works as pasted.
    let is_copy = |text: &&str| text.contains("mkdir -p ") && text.contains("cp -an");
    let remedy = err.split('`').find(is_copy).unwrap_or_else(|| panic!("{err}"));
    assert!(Command::new("sh").arg("-c").arg(remedy).status().unwrap().success(), "{remedy}");
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && !err.contains("has no ledger"), "{code} {err}");
    fs::remove_dir_all(elsewhere.join("last-good")).unwrap();
    bed.put(&bed.stranger);
    let err = start_fails(&config);
    assert!(err.contains("would lock readers out"), "{err}");
    // A first start says it in the log.
    bed.put(&bed.live);
    fs::remove_dir_all(&elsewhere).unwrap();
    let pintle = Pintle::start(&bed.authority, &move_it(bed.config(&pins, "")));
    pintle.logs("the ledger is new");
    drop(pintle);
    // All files deleted: the copies show that there was something.
    fs::remove_dir_all(bed.state()).unwrap();
    for name in ["ledger.jsonl", "ledger.head", "ledger.lock"] {
        fs::remove_file(elsewhere.join(name)).unwrap();
    }
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && err.contains("shows that pintle has served from it before"), "{code} {err}");
    // Nothing at all: a first start.
    fs::remove_dir_all(&elsewhere).unwrap();
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && err.is_empty() && out.contains("has no ledger") && out.contains("fine"), "{code} {out} {err}");
}

/// An unreadable ledger never counts as an empty one.
#[test]
fn damage_is_refused_until_it_is_accepted() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    drop(bed.start(&pins));
    let config = config(&bed, &pins);
    let whole = fs::read(file(&bed)).unwrap();
    let mut flipped = whole.clone();
    let last = whole.len() - 60;
    flipped[last] ^= 1;
    let cut = &whole[..whole.len() - 1];
    let none: &[u8] = b"";
    for damaged in [&flipped[..], cut, none, b"nonsense\n"] {
        fs::write(file(&bed), damaged).unwrap();
        let (code, out, err) = outcome(&mut command(&["check"], &config));
        assert_eq!(code, 1, "{out}{err}");
        assert_eq!(err.matches("ledger.jsonl: ").count(), 1, "printed once: {err}");
        assert!(err.contains("may be lost") && err.contains("pintle ledger repair"), "{err}");
        let (code, out, _) = outcome(command(&["check"], &config).arg("--json"));
        assert!(code == 1 && out.contains("may be lost") && out.contains("--accept-loss"), "{out}");
        let err = start_fails(&config);
        assert!(err.contains("may be lost") && err.contains("a copy is kept as ledger.damaged"), "{err}");
        assert_eq!(fs::read(file(&bed)).unwrap(), damaged, "it stays until somebody says so");
        for words in [vec!["ledger", "show"], vec!["key", "list"]] {
            let (_, _, err) = outcome(&mut command(&words, &config));
            assert_eq!(err.matches("ledger.jsonl: ").count(), 1, "{err}");
        }
    }
    assert_eq!(fs::read(bed.state().join("ledger.damaged")).unwrap(), flipped);
    // Where the folder cannot be written, the loss is no smaller.
    let (lock, aside) = (bed.state().join("ledger.lock"), bed.state().join("aside"));
    fs::rename(&lock, &aside).unwrap();
    fs::create_dir(&lock).unwrap();
    let err = start_fails(&config);
    assert!(err.contains("may be lost") && err.contains("make it writable first"), "{err}");
    fs::remove_dir(&lock).unwrap();
    fs::rename(&aside, &lock).unwrap();
    fs::remove_file(file(&bed)).unwrap();
    assert!(start_fails(&config).contains("the file is missing"));
    // The copy is put back: nothing was lost.
    fs::write(file(&bed), &whole).unwrap();
    assert!(output(&mut command(&["ledger", "repair"], &config)).contains("nothing to repair"));
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert_eq!(code, 0, "{err}");
    // It is not, and the remedy is what is said.
    fs::write(file(&bed), &flipped).unwrap();
    let err = start_fails(&config);
    let remedy = err.lines().find_map(|line| line.split_once("locked out: ")).unwrap().1.to_owned();
    assert!(remedy.starts_with("pintle ledger repair -c ") && remedy.contains("--accept-loss 20"), "{remedy}");
    let (code, out, err) = outcome(&mut command(&["ledger", "repair"], &config));
    assert!(code == 1 && out.contains("LOST ") && err.contains("nothing is changed"), "{out}{err}");
    for wrong in ["2001-01-01", "yes"] {
        let (code, _, err) = outcome(command(&["ledger", "repair"], &config).args(["--accept-loss", wrong]));
        assert!(code == 1 && err.contains("today"), "{err}");
    }
    assert_eq!(fs::read(file(&bed)).unwrap(), flipped);
    let words: Vec<&str> = remedy.split(' ').skip(1).collect();
    let out = output(pintle().args(words));
    assert!(out.contains("done"), "{out}");
    let (code, out, err) = outcome(&mut command(&["check"], &config));
    assert_eq!(code, 0, "{out}{err}");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    // And it is not forgotten.
    assert_eq!(pintle.status()["ledger"]["repairs"].as_array().unwrap().len(), 1);
    let shown = output(&mut pintle.command("ledger show"));
    assert!(shown.contains("REPAIRED") && shown.contains("is damaged"), "{shown}");
    assert!(crate::admin::get(&bed.state().join("admin.sock"), "/metrics").contains("pintle_ledger_repairs 1"));
    assert!(output(&mut pintle.command("status")).contains("REPAIRED"));
}

/// A damaged line is made out as a promise that the served key breaks. Nobody made that promise: the pair that was served
/// last starts again, and any other key is refused.
#[test]
fn a_promise_made_out_of_damage_refuses_no_served_pair() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    crate::last_good::copied(&bed, &bed.live);
    drop(pintle);
    let config = config(&bed, &pins);
    let text = fs::read_to_string(file(&bed)).unwrap();
    let other = if bed.live.pin.starts_with('A') { "B" } else { "A" };
    fs::write(file(&bed), text.replace(&bed.live.pin, &format!("{other}{}", &bed.live.pin[1..]))).unwrap();
    let err = start_fails(&config);
    let remedy = err.lines().find_map(|line| line.split_once("locked out: ")).unwrap().1.to_owned();
    output(crate::harness::pintle().args(remedy.split(' ').skip(1)));
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert!(bed.header(&pintle).is_some());
    assert!(output(&mut pintle.command("ledger show")).contains("LOCKOUT ACCEPTED"));
    crate::last_good::copied(&bed, &bed.live);
    drop(pintle);
    let pintle = bed.start(&pins);
    bed.put(&bed.stranger);
    pintle.logged("certificate refused; the old one keeps serving", 1);
}

/// Another node's promises are merged while pintle is stopped, and the pair that was served last breaks them.
#[test]
fn a_merge_while_it_is_stopped_refuses_no_served_pair() {
    let (bed, node) = (Bed::new(), Bed::new());
    drop(node.start(&node.pins("30d")));
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    crate::last_good::copied(&bed, &bed.live);
    drop(pintle);
    let config = config(&bed, &pins);
    let merged = node.state().join("ledger.jsonl");
    let (code, _, err) = outcome(command(&["ledger", "merge"], &config).arg(&merged));
    assert!(code == 0 && err.contains("are locked out by this node until"), "{err}");
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    bed.put(&bed.stranger);
    pintle.logged("certificate refused; the old one keeps serving", 1);
}

/// The same without the copy of the served pair, as after a full disk. The last set of pins that the site sent tells that the
/// pair on disk was served. If nothing tells, the merge is refused, and says how it succeeds.
#[test]
fn a_merge_while_it_is_stopped_without_a_copy() {
    let node = Bed::new();
    drop(node.start(&node.pins("30d")));
    let merged = node.state().join("ledger.jsonl");
    let merge = |bed: &Bed, pins: &str, more: &[&str]| {
        outcome(command(&["ledger", "merge"], &config(bed, pins)).args(more).arg(&merged))
    };
    for is_empty in [false, true] {
        let bed = Bed::new();
        let pins = bed.pins("30d");
        let pintle = bed.start(&pins);
        crate::last_good::copied(&bed, &bed.live);
        drop(pintle);
        for copy in crate::last_good::copies(&bed) {
            if is_empty { fs::write(copy, "").unwrap() } else { fs::remove_file(copy).unwrap() }
        }
        let (code, _, err) = merge(&bed, &pins, &[]);
        assert!(code == 0 && err.contains("are locked out by this node until"), "{err}");
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin, "{is_empty}");
    }
    // A site that has sent no pins, and a backup of the site: nobody knows if they were served.
    for has_pins in [false, true] {
        let bed = Bed::new();
        let pins = if has_pins { bed.pins("30d") } else { String::new() };
        let pintle = bed.start(&pins);
        crate::last_good::copied(&bed, &bed.live);
        drop(pintle);
        fs::remove_dir_all(bed.state().join("last-good")).unwrap();
        if has_pins {
            bed.put(&bed.next);
        }
        for more in [&["--dry-run"][..], &[]] {
            let (code, out, err) = merge(&bed, &pins, more);
            assert!(code == 1 && err.contains("nothing is merged") && err.contains("start pintle first"), "{out}{err}");
        }
        let pintle = bed.start(&pins);
        let leaf = if has_pins { &bed.next } else { &bed.live };
        assert_eq!(bed.served(&pintle), leaf.pin, "{has_pins}");
        output(pintle.command("ledger merge").arg(&merged));
        drop(pintle);
        let _ = fs::remove_dir_all(bed.state().join("last-good"));
        assert_eq!(bed.served(&bed.start(&pins)), leaf.pin, "{has_pins}");
    }
}

/// One merge after the other: the pair that was served last breaks promises of both.
#[test]
fn merges_one_by_one_refuse_no_served_pair() {
    let (bed, nodes) = (Bed::new(), [Bed::new(), Bed::new()]);
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    crate::last_good::copied(&bed, &bed.live);
    drop(pintle);
    let config = config(&bed, &pins);
    for node in &nodes {
        drop(node.start(&node.pins("30d")));
        let (code, _, err) = outcome(command(&["ledger", "merge"], &config).arg(node.state().join("ledger.jsonl")));
        assert!(code == 0 && err.contains("are locked out by this node until"), "{err}");
    }
    for _ in 0..2 {
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin);
    }
    bed.put(&bed.stranger);
    let pintle = bed.start(&pins);
    assert_eq!(bed.served(&pintle), bed.live.pin, "a key that was not served is refused");
}

/// Loss and dates are two things to accept: a start needs the first alone.
#[test]
fn a_loss_is_accepted_without_the_dates() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    drop(bed.start(&pins));
    let config = config(&bed, &pins);
    let (mut book, _) = ledger::look(&bed.state()).unwrap();
    let mut far = book.promises()[0].clone();
    (far.max_age, far.last_sent) = (far.max_age + 1, 4_000_000_000);
    book.apply(ledger::Record::Promise(far));
    let mut damaged = ledger::written(&book);
    damaged.push_str("nonsense\n");
    fs::write(file(&bed), damaged).unwrap();
    let repair = |more: &[&str]| outcome(command(&["ledger", "repair"], &config).args(more));
    let (code, out, err) = repair(&[]);
    assert!(code == 1 && out.contains("LOST ") && out.contains("DATE "), "{out}{err}");
    assert!(err.contains("to accept the loss only: pintle ledger repair -c "), "{err}");
    assert_eq!(repair(&["--yes"]).0, 1);
    let today = err.split("--accept-loss ").nth(1).unwrap()[..10].to_owned();
    let (code, out, err) = repair(&["--accept-loss", &today]);
    assert!(code == 0 && out.contains("done") && out.contains("the dates are unchanged"), "{out}{err}");
    let (book, notices) = ledger::look(&bed.state()).unwrap();
    assert_eq!(notices, []);
    assert!(book.promises().iter().any(|p| p.last_sent == 4_000_000_000));
    // It starts, and sends no pins yet.
    let pintle = bed.start(&pins);
    assert_eq!((bed.served(&pintle), bed.header(&pintle)), (bed.live.pin.clone(), None));
    drop(pintle);
    let (code, out, err) = repair(&["--yes"]);
    assert!(code == 0 && out.contains("done"), "{out}{err}");
    assert!(bed.header(&bed.start(&pins)).is_some());
}

/// An old copy that is put back while nobody serves has less than was promised.
#[test]
fn an_old_copy_is_refused() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    let old = fs::read(file(&bed)).unwrap();
    promise_more(&pintle);
    drop(pintle);
    let new = fs::read(file(&bed)).unwrap();
    assert_ne!(old, new);
    let config = config(&bed, &pins);
    fs::write(file(&bed), &old).unwrap();
    let err = start_fails(&config);
    assert!(err.contains("is an old copy"), "{err}");
    assert!(matches!(ledger::look(&bed.state()).unwrap().1[..], [Notice::Behind { .. }]));
    // A backup of the folder's file alone, in a new folder, is believed: nothing says that there was more.
    fs::remove_file(bed.state().join("ledger.head")).unwrap();
    assert!(start_fails(&config).contains("are old copies"));
    fs::remove_file(bed.state().join("ledger.lock")).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config));
    assert!(code == 0 && err.contains("ledger.head is missing"), "{code} {err}");
    let pintle = bed.start(&pins);
    pintle.logs("ledger.head is missing");
    let (_, _, err) = outcome(&mut pintle.command("check"));
    assert!(!err.contains("ledger.head"), "it is there again: {err}");
}

/// The operator's word is there after a restart, for whoever asks.
#[test]
fn an_accepted_lockout_stays_visible() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).is_some());
    let mut install = crate::harness::pintle();
    install.args(["install", "--dry-run", "--site", BLOG, "-c"]).arg(pintle.config_path()).arg(&bed.stranger.chain);
    let (_, _, err) = outcome(&mut install);
    let day = err.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
    let mut install = crate::harness::pintle();
    install.args(["install", "--accept-lockout-until", &day, "--site", BLOG, "-c"]).arg(pintle.config_path());
    output(install.args([&bed.stranger.chain, &bed.stranger.key]));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    let check = |pintle: &Pintle| {
        let status = pintle.status();
        for lockout in [&status["ledger"]["accepted_lockouts"][0], &status["sites"][0]["accepted_lockouts"][0]] {
            assert_eq!(
                (&lockout["site"], &lockout["until"]),
                (&Value::from(BLOG), &Value::from(day.clone())),
                "{status:#}"
            );
        }
        for command in ["ledger show", "status"] {
            let shown = output(&mut pintle.command(command));
            assert!(shown.contains("LOCKOUT ACCEPTED") && shown.contains(&bed.stranger.pin), "{shown}");
        }
        let metrics = crate::admin::get(&bed.state().join("admin.sock"), "/metrics");
        assert!(metrics.contains("pintle_lockouts_in_force 1"), "{metrics}");
    };
    check(&pintle);
    drop(pintle);
    check(&bed.start(&pins));
}

/// A record of another node about the far future is not merged.
#[test]
fn a_poisoned_record_is_not_merged() {
    let (bed, other) = (Bed::new(), Bed::new());
    drop(other.start(&other.pins("30d")));
    let (mut book, _) = ledger::look(&other.state()).unwrap();
    let mut far = book.promises()[0].clone();
    far.last_sent = 4_000_000_000;
    book.apply(ledger::Record::Promise(far));
    let theirs = bed.folder.path().join("theirs.jsonl");
    fs::write(&theirs, ledger::written(&book)).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    let (code, _, err) = outcome(pintle.command("ledger merge").arg(&theirs));
    assert!(code == 1 && err.contains("impossible date") && err.contains("pintle ledger repair"), "{err}");
    // By another client of the socket, too.
    let answer = output(
        Command::new("curl")
            .args(["-sS", "-X", "POST", "http://x/ledger", "--unix-socket"])
            .arg(bed.state().join("admin.sock"))
            .arg("--data-binary")
            .arg(format!("@{}", theirs.display())),
    );
    assert!(answer.contains("impossible date"), "{answer}");
    assert!(ledger::look(&bed.state()).unwrap().0.promises().iter().all(|p| p.last_sent < 4_000_000_000));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
}
