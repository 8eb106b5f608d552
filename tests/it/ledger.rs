//! The ledger on real disks: what was sent is written down, whatever happens to the process or the disk.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use pintle::ledger;
use serde_json::Value;

use crate::harness::{Authority, BLOG, Client, Leaf, Pintle, eventually, outcome, output, pintle};
use crate::rotation::Bed;

/// For each max-age in the ledger: until when it may have been sent.
fn last_sent(state: &Path) -> BTreeMap<u64, i64> {
    let (book, _) = ledger::look(state).unwrap();
    book.promises().iter().map(|p| (p.max_age, p.last_sent)).collect()
}

fn max_age(header: &str) -> u64 {
    header.split("max-age=").nth(1).unwrap().parse().unwrap()
}

pub fn set_max_age(pintle: &Pintle, age: u64) {
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    let (before, after) = text.split_once("max_age = \"").unwrap();
    let rest = after.split_once('"').unwrap().1;
    fs::write(pintle.config_path(), format!("{before}max_age = \"{age}\"{rest}")).unwrap();
}

/// The promise changes all the time, and the process is killed at any moment; whatever a client has seen by then is on
/// the disk.
#[test]
fn killed_at_any_moment() {
    let bed = Bed::new();
    for round in 0..8u64 {
        let mut pintle = bed.start(&bed.pins("1000"));
        let (address, done) = (pintle.https(), AtomicBool::new(false));
        let mut seen: BTreeMap<u64, i64> = BTreeMap::new();
        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let client = Client::new(&bed.authority);
                let mut seen = BTreeMap::new();
                while !done.load(Ordering::Relaxed) {
                    let Ok(mut connection) = client.try_connect(address, BLOG) else { continue };
                    for _ in 0..20 {
                        connection.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
                        let Ok(response) = crate::harness::read_response(&mut connection, "GET") else { break };
                        if let Some(header) = response.field("public-key-pins") {
                            seen.insert(max_age(header), Timestamp::now().as_second());
                        }
                    }
                }
                seen
            });
            for change in 0..6 + round {
                set_max_age(&pintle, 1001 + round * 100 + change);
                pintle.signal("HUP");
                thread::sleep(Duration::from_millis(3 + 7 * (round * 31 + change * 17) % 29));
            }
            pintle.signal("KILL");
            pintle.wait();
            done.store(true, Ordering::Relaxed);
            seen = client.join().unwrap();
        });
        assert!(!seen.is_empty());
        let written = last_sent(&bed.state());
        for (age, at) in seen {
            let until = written.get(&age).copied().unwrap_or(0);
            assert!(until >= at, "max-age={age} was seen at {at}, and is written down until {until}: {written:?}");
        }
    }
}

#[test]
fn a_promise_is_written_down_ahead_of_time_and_renewed() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("10"));
    let first = last_sent(&bed.state())[&10];
    assert!(first >= Timestamp::now().as_second());
    assert!(bed.header(&pintle).is_some());
    // A lease of four seconds: it goes on, and the header with it.
    eventually("the lease is renewed", || (last_sent(&bed.state())[&10] > first).then_some(()));
    assert!(bed.header(&pintle).is_some());
    drop(pintle);
    let stopped = last_sent(&bed.state())[&10];
    // A lease of four seconds, five for what is on its way, and one for the fraction.
    assert!(stopped <= Timestamp::now().as_second() + 10);
}

/// A file system of a few pages.
pub struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    pub fn mount(path: &'a Path) -> Self {
        fs::create_dir_all(path).unwrap();
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs"]).arg(path));
        Self(path)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_withholds_the_pins_and_nothing_else() {
    if !crate::harness::is_root("mount a small disk") {
        return;
    }
    let bed = Bed::new();
    let state = bed.state();
    let _tmpfs = Tmpfs::mount(&state);
    let pintle = bed.start(&bed.pins("10"));
    assert!(bed.header(&pintle).is_some());
    // Full to the last byte; the file of the ledger may still grow within its page, and then not.
    let mut filler = OpenOptions::new().create(true).append(true).open(state.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    for age in 11..40 {
        set_max_age(&pintle, age);
        output(&mut pintle.command("reload"));
        if pintle.log().contains("the ledger cannot be written: pins are withheld") {
            break;
        }
    }
    // By all workers: their clocks do not tick together.
    eventually("the pins are withheld", || (0..20).all(|_| bed.header(&pintle).is_none()).then_some(()));
    let status = pintle.status();
    let error = status["ledger"]["error"].as_str().unwrap();
    assert!(error.contains("no space left"), "{error}");
    assert_eq!(status["sites"][0]["hpkp"]["sent"], false);
    pintle.logs("the ledger cannot be written: pins are withheld");
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    // A rotation goes on, but its pair cannot be copied yet.
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    pintle.logs("cannot copy the pairs in use to state.directory");
    // With room again, all is as before.
    filler.set_len(0).unwrap();
    eventually("the pins are back", || bed.header(&pintle));
    crate::last_good::copied(&bed, &bed.next);
    assert_eq!(pintle.status()["ledger"]["error"], Value::Null);
    let (book, notices) = ledger::look(&state).unwrap();
    assert!(notices.is_empty() && !book.promises().is_empty(), "{notices:?}");
}

#[test]
fn a_torn_record_is_ignored_and_reported() {
    let bed = Bed::new();
    drop(bed.start(&bed.pins("30d")));
    let file = bed.state().join("ledger.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let last = whole.lines().last().unwrap();
    fs::write(&file, format!("{whole}{}", &last[..last.len() / 2])).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    let reported = pintle.logged("ledger", 1).remove(0);
    assert!(reported["notice"].as_str().unwrap().contains("is incomplete"), "{reported}");
    assert!(bed.header(&pintle).is_some());
    let (_, notices) = ledger::look(&bed.state()).unwrap();
    assert_eq!(notices, []);
}

/// The process stands still beyond its lease, as a machine that sleeps, and the first requests are there before its clocks
/// tick. The disk is full, so no record covers what is sent now. Of many workers, some look at the requests first.
#[test]
fn a_process_that_stood_still_sends_no_pins_beyond_their_lease() {
    let bed = Bed::new();
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 8\n";
    // A lease lasts 4 seconds.
    let pintle = Pintle::start_with(&bed.authority, listen, &bed.config(&bed.pins("40s"), ""));
    let client = Client::new(&bed.authority);
    let connect = |_| {
        let mut waiting = client.connect(pintle.https(), BLOG);
        assert_eq!(waiting.get(BLOG, "/").status, 200);
        waiting
    };
    let mut waiting: Vec<_> = (0..24).map(connect).collect();
    eventually("pins are sent", || bed.header(&pintle));
    output(Command::new("prlimit").args(["--fsize=0:", "--pid", &pintle.pid().to_string()]));
    pintle.signal("STOP");
    // A thread may still answer until it has seen the signal.
    eventually("it stands still", || {
        let threads = fs::read_dir(format!("/proc/{}/task", pintle.pid())).ok()?;
        let stands = |at: std::path::PathBuf| fs::read_to_string(at).is_ok_and(|stat| stat.contains(") T "));
        threads.flatten().all(|thread| stands(thread.path().join("stat"))).then_some(())
    });
    waiting.iter_mut().for_each(|client| client.send(format!("GET / HTTP/1.1\r\nHost: {BLOG}\r\n\r\n")));
    thread::sleep(Duration::from_secs(5));
    pintle.signal("CONT");
    for client in &mut waiting {
        let late = client.response("GET");
        assert_eq!((late.status, late.field("public-key-pins")), (200, None));
    }
}

/// A wildcard with as many exceptions as another site has names: a start judges each name by its own promises, in time that
/// grows with their number and not with its third power.
#[test]
fn a_wildcard_with_thousands_of_exceptions_starts_again() {
    const NAMES: usize = 2600;
    let authority = Authority::new();
    let [wide, own] = ["wide", "own"].map(|name| authority.leaf(name, &["*.w.example.com"]));
    let state = tempfile::TempDir::new().unwrap();
    let site = |hosts: &[String], leaf: &Leaf| {
        format!(
            "[[site]]\nhosts = {hosts:?}\nupstream = \"http://127.0.0.1:9\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
             [site.hpkp]\nbackups = [{:?}]\n",
            leaf.chain,
            leaf.key,
            authority.public_key("backup")
        )
    };
    let names: Vec<String> = (0..NAMES).map(|n| format!("h{n}.w.example.com")).collect();
    let config = format!("[state]\ndirectory = {:?}\n", state.path().join("state"))
        + &site(&["*.w.example.com".to_owned()], &wide)
        + &site(&names, &own);
    for _ in 0..2 {
        let pintle = Pintle::start(&authority, &config);
        for (name, leaf) in [("x.w.example.com", &wide), ("h7.w.example.com", &own)] {
            let answer = Client::new(&authority).get(pintle.https(), name, "/");
            assert!(answer.one("public-key-pins").contains(&leaf.pin), "{name}: {answer:?}");
        }
        let (book, notices) = ledger::look(&state.path().join("state")).unwrap();
        assert_eq!((notices.len(), book.promises().iter().map(|p| p.except.len()).max()), (0, Some(NAMES)));
    }
}

#[test]
fn one_process_for_one_ledger() {
    let bed = Bed::new();
    let _pintle = bed.start(&bed.pins("30d"));
    let config = bed.folder.path().join("second.toml");
    fs::write(&config, format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(&bed.pins("30d"), "")))
        .unwrap();
    let (code, _, err) = outcome(pintle().args(["run", "-c"]).arg(&config));
    assert!(code == 1 && err.contains("another process has the ledger"), "{err}");
}

/// Two nodes of one site: what the other has promised binds this one, too.
#[test]
fn merged_with_another_nodes() {
    let (bed, other) = (Bed::new(), Bed::new());
    drop(other.start(&other.pins("30d")));
    let theirs = other.state().join("ledger.jsonl");
    // Beside a running process, through it.
    let pintle = bed.start(&bed.pins("30d"));
    // What it would mean is said before, by a dry run alone if that is wanted.
    let (code, out, err) = outcome(pintle.command("ledger merge").arg("--dry-run").arg(&theirs));
    assert_eq!((code, out.as_str()), (0, "1 records would be new here\n"), "{err}");
    let means = |err: &str| {
        let keys = [&other.live.pin, &other.next.pin, &other.spare.pin];
        err.contains(&format!("{BLOG}: the chain in use ({}) has no key of a set of pins", bed.live.pin))
            && err.contains("locked out by this node until 20")
            && err.contains(&format!("pintle install --site {BLOG} CHAIN KEY"))
            && keys.iter().all(|key| err.contains(key.as_str()))
    };
    assert!(means(&err), "{err}");
    let (code, out, err) = outcome(pintle.command("ledger merge").arg(&theirs));
    assert_eq!((code, out.as_str()), (0, "1 records are new here\n"), "{err}");
    assert!(means(&err), "{err}");
    let (code, out, err) = outcome(pintle.command("ledger merge").arg(&theirs));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "0 records are new here\n", ""));
    // The chain in use breaks it already, so that its renewal would make nothing worse; another key would.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91);
    bed.put(&renewed);
    eventually("the same key renewed is taken", || pintle.log_json("certificate").into_iter().nth(1));
    bed.put(&bed.next);
    let refused = eventually("another key breaks what the other node has promised", || {
        pintle.log_json("certificate refused; the old one keeps serving").pop()
    });
    let reported = refused.to_string();
    assert!(reported.contains(&other.next.pin) && reported.contains("would lock readers out"), "{refused}");
    // Table, timeline and JSON.
    let shown = output(&mut pintle.command("ledger show"));
    for pin in [&bed.live.pin, &bed.next.pin, &other.live.pin, &other.spare.pin] {
        assert!(shown.contains(pin.as_str()), "{shown}");
    }
    assert!(shown.contains("= sent"), "{shown}");
    let json: Value = serde_json::from_str(&output(pintle.command("ledger show").arg("--json"))).unwrap();
    let promises = json["promises"].as_array().unwrap();
    assert_eq!(promises.len(), 2);
    assert!(promises.iter().all(|p| p["alive"] == true && p["mode"] == "enforce" && p["max_age"] == 2_592_000));
    // Without a process, into the file; a file that is no ledger is refused.
    let config = pintle.config_path();
    let text = fs::read_to_string(&config).unwrap();
    drop(pintle);
    let config = bed.folder.path().join("later.toml");
    fs::write(&config, text).unwrap();
    assert_eq!(
        output(crate::harness::pintle().args(["ledger", "merge", "-c"]).arg(&config).arg(&theirs)),
        "0 records are new here\n"
    );
    assert_eq!(
        output(crate::harness::pintle().args(["ledger", "merge", "--json", "-c"]).arg(&config).arg(&theirs)),
        "{\"breaks\":[],\"burnt\":[],\"dry_run\":false,\"news\":0,\"ok\":true}\n"
    );
    let (code, _, err) =
        outcome(crate::harness::pintle().args(["ledger", "merge", "-c"]).arg(&config).arg(bed.chain()));
    assert!(code == 1 && err.contains("not a ledger"), "{err}");
}

/// An app that was given pins enforces them, header or not.
#[test]
fn an_export_with_a_life_is_a_promise() {
    let bed = Bed::new();
    let pintle = bed.start("");
    let backup = bed.next.key.with_extension("csr");
    let export = ["--site", BLOG, "--as", "okhttp", "--life", "30d", "--backup"];
    let text = output(pintle.command("export").args(export).arg(&backup));
    assert!(text.contains(&bed.live.pin) && text.contains(&bed.next.pin), "{text}");
    bed.put(&bed.stranger);
    let refused = eventually("the stranger is refused", || {
        pintle.log_json("certificate refused; the old one keeps serving").pop()
    });
    assert!(refused["reason"].as_str().unwrap().contains("for okhttp"), "{refused}");
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    let keys = output(&mut pintle.command("key list"));
    assert!(keys.contains(&Timestamp::now().strftime("%Y-%m-%d").to_string()), "{keys}");
}
