//! The folder of the state: what happens when it cannot be written, and that it is nobody else's.

use std::fs;

use crate::harness::{BLOG, Client, Pintle, eventually, outcome, output};
use crate::rotation::Bed;

/// A file stands where the folder should be: the tests may be root, whom no permission stops.
#[test]
fn without_a_place_to_write_pins_are_withheld() {
    let bed = Bed::new();
    fs::write(bed.state(), "in the way").unwrap();
    let admin = bed.folder.path().join("admin.sock");
    let config = format!("[admin]\nlisten = \"unix:{}\"\n{}", admin.display(), bed.config(&bed.pins("30d"), ""));
    let pintle = Pintle::start(&bed.authority, &config);
    let answer = Client::new(&bed.authority).get(pintle.https(), BLOG, "/");
    assert_eq!((answer.status, answer.field("public-key-pins")), (200, None));
    let logged = eventually("it is logged", || {
        let message = "the ledger cannot be written: pins are withheld until it can be, everything else continues; check free \
                    space and permissions of state.directory";
        pintle.log_json(message).pop()
    });
    assert!(logged["level"] == "ERROR" && logged["error"].as_str().unwrap().contains("state"), "{logged}");
    let status = pintle.status();
    assert!(
        status["sites"][0]["hpkp"]["why_not"].as_str().unwrap().contains("the ledger cannot be written"),
        "{status:#}"
    );
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("NOT WRITABLE, pins are withheld") && human.contains("WITHHELD"), "{human}");
    assert!(crate::admin::get(&admin, "/metrics").contains("pintle_ledger_writable 0"));
    // Certificates go on being taken up.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91);
    bed.put(&renewed);
    eventually("the renewed certificate is announced", || pintle.log_json("certificate").into_iter().nth(1));
    assert_eq!(bed.header(&pintle), None);
    // And when there is a place, all is well, without anybody's doing.
    fs::remove_file(bed.state()).unwrap();
    eventually("pins are sent", || bed.header(&pintle));
    pintle.logs("the ledger is written again");
    assert!(fs::read_to_string(bed.state().join("ledger.jsonl")).unwrap().contains(&bed.live.pin));
    assert_eq!(pintle.status()["ledger"]["durable"], true);
    bed.put(&bed.stranger);
    eventually("and kept", || (!crate::rotation::refusal(&pintle).is_null()).then_some(()));
}

/// The socket lies in the same folder by default.
#[test]
fn commands_come_in_when_there_is_a_place() {
    let bed = Bed::new();
    fs::write(bed.state(), "in the way").unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    pintle.logs("admin socket unavailable");
    let (code, _, err) = outcome(&mut pintle.command("status"));
    assert_eq!(code, 1, "{err}");
    fs::remove_file(bed.state()).unwrap();
    eventually("commands come in", || (outcome(&mut pintle.command("status")).0 == 0).then_some(()));
    assert_eq!(pintle.log().matches("admin socket unavailable").count(), 1, "logged once");
}

/// A command has the ledger for a moment, as a merge by a timer at boot. The start waits for it.
#[test]
fn a_start_waits_for_a_command_that_has_the_ledger() {
    let bed = Bed::new();
    drop(bed.start(&bed.pins("30d")));
    let lock = fs::File::open(bed.state().join("ledger.lock")).unwrap();
    lock.lock().unwrap();
    let released = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        drop(lock);
    });
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    released.join().unwrap();
}

#[test]
fn one_process_alone_has_it() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let second = bed.folder.path().join("second.toml");
    fs::write(&second, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config("", ""))).unwrap();
    let (code, _, err) = outcome(crate::harness::pintle().args(["run", "-c"]).arg(&second));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("another process has the ledger\n  hint: stop that process"), "{err}");
    assert!(err.contains(bed.state().to_str().unwrap()), "{err}");
    // To look is free to all.
    for command in ["check", "ledger show", "key list"] {
        output(&mut pintle.command(command));
    }
    assert!(bed.header(&pintle).is_some());
    drop(pintle);
    drop(bed.start(&bed.pins("30d")));
}
