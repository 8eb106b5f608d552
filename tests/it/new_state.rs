//! A `state.directory` that the process in use does not have: by an upgrade, by a reload, and by a start that fails. Promises
//! are never in memory only, and never in a file that nobody reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pintle::ledger;
use serde_json::Value;

use crate::harness::{BLOG, Leaf, Pintle, eventually, outcome, output};
use crate::last_good::{LISTEN, copied};
use crate::loss::{command, config, start_fails};
use crate::refused_edits::{pin_at, site, state};
use crate::rotation::Bed;
use crate::upgrade::Line;

fn admin(bed: &Bed) -> String {
    format!("[admin]\nlisten = \"unix:{}\"\n", bed.folder.path().join("admin.sock").display())
}

/// A text with another folder.
fn moved(bed: &Bed, text: &str, folder: &Path) -> String {
    text.replace(&format!("{:?}", bed.state()), &format!("{folder:?}"))
}

/// A text with one of both backups.
fn with_one_backup(bed: &Bed, text: &str) -> String {
    text.replace(&format!("{:?}, ", bed.next.key.with_extension("csr")), "")
}

/// The command in a message that begins with these words.
#[track_caller]
fn hinted(message: &str, begins: &str) -> String {
    let found = message.split(['`', '\n']).find_map(|part| part.find(begins).map(|at| &part[at..]));
    found.unwrap_or_else(|| panic!("{message}")).to_owned()
}

#[track_caller]
fn shell(command: &str) {
    output(Command::new("sh").args(["-c", command]));
}

/// A process that sends its pins.
fn line(bed: &Bed) -> Line {
    let line = Line::start(&bed.authority, LISTEN, &(admin(bed) + &bed.config(&bed.pins("30d"), "")));
    assert!(bed.header(&line.pintle).is_some());
    copied(bed, &bed.live);
    line
}

/// The folder is not there yet. The promises are on disk before the previous process sets its file aside, and are found if
/// the new folder is lost.
#[test]
fn an_upgrade_makes_the_folder_that_it_moves_to() {
    let bed = Bed::new();
    let line = line(&bed);
    let new = bed.folder.path().join("new");
    line.pintle.rewrite(|text| moved(&bed, text, &new));
    line.upgrade();
    assert_eq!(line.pintle.status()["ledger"]["error"], Value::Null);
    let (book, notices) = ledger::look(&new).unwrap();
    assert!(notices.is_empty() && !book.promises().is_empty(), "{notices:?}");
    assert!(bed.header(&line.pintle).is_some() && bed.state().join("ledger.moved").exists());
    line.signal("KILL");
    line.wait(line.pid());
    // The volume is gone.
    fs::remove_dir_all(&new).unwrap();
    fs::create_dir(&new).unwrap();
    bed.put(&bed.stranger);
    let err = start_fails(&line.pintle.config_path());
    assert!(err.contains("would lock readers out") && err.contains("they count"), "{err}");
    shell(&hinted(&err, "mkdir -p "));
    let text = bed.config(&bed.pins("30d"), "");
    let pintle = Pintle::start(&bed.authority, &moved(&bed, &text, &new));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    // Back in the first folder: its file is out of date, and the hint puts it back.
    bed.put(&bed.live);
    fs::remove_dir_all(&new).unwrap();
    let err = start_fails(&config(&bed, &bed.pins("30d")));
    assert!(err.contains("an upgrade has moved the ledger"), "{err}");
    shell(&hinted(&err, "mv "));
    assert!(bed.header(&Pintle::start(&bed.authority, &text)).is_some());
}

/// A process that takes the previous folder back dies before it serves: the file there is whole, and out of date. A mark in
/// the folder says where the later promises are, however far away.
#[test]
fn a_folder_that_was_left_knows_where_its_promises_are() {
    let (bed, far) = (Bed::new(), tempfile::TempDir::new().unwrap());
    let line = line(&bed);
    let new = far.path().join("new");
    line.pintle.rewrite(|text| with_one_backup(&bed, &moved(&bed, text, &new)));
    line.upgrade();
    eventually("the new set is sent", || bed.header(&line.pintle).filter(|pins| !pins.contains(&bed.next.pin)));
    // The previous process looks at its folder for the last time.
    line.pintle.logged("stopped", 1);
    line.signal("KILL");
    line.wait(line.pid());
    fs::rename(bed.state().join("ledger.moved"), bed.state().join("ledger.jsonl")).unwrap();
    bed.put(&bed.next);
    let pins = bed.pins("30d");
    // The file breaks the set that only the other ledger has: the copy serves. Then, the own ledger has the set, too.
    for is_first in [true, false] {
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin, "{is_first}");
        match is_first {
            true => pintle.logs("they count"),
            false => assert!(!pintle.log().contains("they count"), "{}", pintle.log()),
        }
    }
}

#[track_caller]
fn upgrade_is_refused(bed: &Bed, line: &Line, why: &str) {
    let (code, out, err) = outcome(&mut line.pintle.command("upgrade"));
    assert!(code == 1 && (out.clone() + &err).contains(why), "{code} {out}{err}");
    assert!(bed.header(&line.pintle).is_some());
    assert!(bed.state().join("ledger.jsonl").exists() && !bed.state().join("ledger.moved").exists());
}

/// The promises would be on no disk: the process in use stays.
#[test]
fn an_upgrade_leaves_no_promise_in_memory_only() {
    let bed = Bed::new();
    let line = line(&bed);
    let text = fs::read_to_string(line.pintle.config_path()).unwrap();
    let taken = bed.folder.path().join("taken");
    fs::write(&taken, "").unwrap();
    line.pintle.rewrite(|text| moved(&bed, text, &taken));
    upgrade_is_refused(&bed, &line, "the new process cannot write its ledger there");
    fs::write(line.pintle.config_path(), text.replace(&state(&bed), "")).unwrap();
    upgrade_is_refused(&bed, &line, "state.directory is gone");
    fs::write(line.pintle.config_path(), text).unwrap();
    line.upgrade();
    assert!(bed.header(&line.pintle).is_some());
}

/// Another folder is named, and the start fails, or a command writes there: what the previous folder gets after that counts
/// as well.
#[test]
fn a_start_that_fails_leaves_no_snapshot() {
    for is_merged in [false, true] {
        let bed = Bed::new();
        let pintle = bed.start(&bed.pins("30d"));
        assert!(bed.header(&pintle).is_some());
        let (new, none) = (bed.folder.path().join("new"), bed.folder.path().join("none.jsonl"));
        let listen = format!("[listen]\nhttps = [\"{}\"]\nhttp = []\n", pintle.https());
        let text = moved(&bed, &(listen + &bed.config(&bed.pins("30d"), "")), &new);
        let path = bed.folder.path().join("new.toml");
        fs::write(&path, &text).unwrap();
        assert!(start_fails(&path).contains(&pintle.https().to_string()));
        assert!(!new.join("ledger.jsonl").exists());
        if is_merged {
            fs::write(&none, "").unwrap();
            output(command(&["ledger", "merge"], &path).arg(&none));
            assert!(new.join("ledger.jsonl").exists());
        }
        // The set without the next key.
        pintle.rewrite(|text| with_one_backup(&bed, text));
        pintle.reload();
        eventually("the new set is sent", || bed.header(&pintle).filter(|pins| !pins.contains(&bed.next.pin)));
        drop(pintle);
        bed.put(&bed.next);
        fs::write(&path, with_one_backup(&bed, &text)).unwrap();
        let err = start_fails(&path);
        assert!(err.contains("would lock readers out") && err.contains("they count"), "{is_merged} {err}");
        // Once it has served, nobody looks there again.
        bed.put(&bed.live);
        let mut text = fs::read_to_string(&path).unwrap();
        text = text.split_once("[state]").map(|(_, rest)| format!("[state]{rest}")).unwrap();
        let pintle = Pintle::start(&bed.authority, &text);
        pintle.logs("they count");
        assert!(bed.header(&pintle).is_some());
        drop(pintle);
        let pintle = Pintle::start(&bed.authority, &text);
        assert!(bed.header(&pintle).is_some() && !pintle.log().contains("they count"), "{}", pintle.log());
    }
}

/// The first folder comes by a reload, or by an upgrade: the ledger beside it counts, as at a start.
#[test]
fn a_first_folder_is_looked_beside() {
    let bed = Bed::new();
    drop(line(&bed));
    fs::rename(bed.state(), bed.folder.path().join("old")).unwrap();
    let other: Leaf = bed.authority.leaf("other", &["other.test"]);
    let text = admin(&bed) + &site(&bed, &["other.test"], &other, "");
    let line = Line::start(&bed.authority, LISTEN, &text);
    line.pintle.rewrite(|text| format!("{text}{}{}", state(&bed), site(&bed, &[BLOG], &bed.stranger, "")));
    let refused = line.pintle.reload_fails();
    assert!(refused.contains("a reload cannot open a first ledger") && refused.contains("they count"), "{refused}");
    let (code, out, err) = outcome(line.pintle.command("upgrade").arg("--json"));
    if code == 0 {
        let answer: Value = serde_json::from_str(&out).unwrap();
        line.is_now(answer["pid"].as_u64().unwrap() as u32);
    }
    assert_ne!(pin_at(&line.pintle, BLOG), bed.stranger.pin, "{out}{err}");
    assert_eq!(pin_at(&line.pintle, "other.test"), other.pin);
}

/// A start has made keys of pintle's own in the new folder. The hint brings those of the previous one back, and loses none.
#[test]
fn the_hint_brings_own_keys_back() {
    let bed = Bed::new();
    drop(line(&bed));
    let old = bed.folder.path().join("old");
    fs::rename(bed.state(), &old).unwrap();
    let key = |folder: &Path| -> PathBuf { folder.join("acme").join(BLOG).join("ecdsa-p256/key.pem") };
    for (folder, contents) in [(&old, "old"), (&bed.state(), "new")] {
        fs::create_dir_all(key(folder).parent().unwrap()).unwrap();
        fs::write(key(folder), contents).unwrap();
    }
    let (code, out, err) = outcome(&mut command(&["check"], &config(&bed, &bed.pins("30d"))));
    assert!(code == 0 && err.contains("to keep the keys, too"), "{out}{err}");
    shell(&hinted(&err, "mkdir -p "));
    assert_eq!(fs::read_to_string(key(&bed.state())).unwrap(), "old");
    assert_eq!(fs::read_to_string(key(&bed.state()).with_extension("pem.~1~")).unwrap(), "new");
    assert!(bed.header(&bed.start(&bed.pins("30d"))).is_some());
}
