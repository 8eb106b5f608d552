//! Clocks that are set: by a clock of the program's debug build, whose offset stands in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};

use pintle::ledger;
use pintle::policy::promise::Promise;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::harness::{
    Authority, BLOG, Client, KeyKind, Leaf, Origin, Pintle, Reply, eventually, outcome, output, send_signal,
};
use crate::loss::command;

const DAY: i64 = 86400;
const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\nworkers = 2\n";

/// A site whose certificates are valid by any of the clocks.
struct Bed {
    authority: Authority,
    origin: Origin,
    live: Leaf,
    stranger: Leaf,
    folder: tempfile::TempDir,
}

impl Bed {
    fn new(offset: i64) -> Self {
        let authority = Authority::new();
        let leaf = |name| authority.leaf_of(name, &[BLOG], KeyKind::Ecdsa, -1000, 9000);
        let (live, stranger) = (leaf("live"), leaf("stranger"));
        let bed =
            Self { origin: Origin::hello(), live, stranger, authority, folder: tempfile::TempDir::new().unwrap() };
        bed.set_clock(offset);
        bed
    }

    fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// By how many seconds it is ahead.
    fn set_clock(&self, offset: i64) {
        self.write_clock(&offset.to_string());
    }

    /// The machine was off meanwhile: its clock was not set.
    fn reboot(&self, offset: i64) {
        self.write_clock(&format!("{offset} boot-{offset}"));
    }

    fn write_clock(&self, text: &str) {
        fs::write(self.folder.path().join("new"), text).unwrap();
        fs::rename(self.folder.path().join("new"), self.clock()).unwrap();
    }

    /// A start that is refused; returns what it says.
    fn refused(&self, leaf: &Leaf) -> String {
        let path = self.folder.path().join("refused.toml");
        fs::write(&path, format!("{LISTEN}\n{}", self.config(leaf))).unwrap();
        let run = |name: &[&str]| {
            let (code, out, err) = outcome(command(name, &path).env("PINTLE_TEST_CLOCK", self.clock()));
            assert_ne!(code, 0, "{name:?}: {out}{err}");
            out + &err
        };
        let _ = fs::remove_dir_all(self.state().join("last-good"));
        let said = run(&["check"]);
        assert!(said.contains("would lock readers out"), "{said}");
        run(&["run", "--strict"])
    }

    fn config(&self, leaf: &Leaf) -> String {
        format!(
            "[state]\ndirectory = {:?}\n[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\n\
             chain = {:?}\nkey = {:?}\n[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}]\n",
            self.state(),
            self.origin.url(),
            leaf.chain,
            leaf.key,
            self.authority.public_key("backup"),
        )
    }

    fn start(&self, config: &str) -> Pintle {
        Pintle::start_command(&self.authority, LISTEN, config, |c| _ = c.env("PINTLE_TEST_CLOCK", self.clock()))
    }

    fn command(&self, pintle: &Pintle, name: &str) -> Command {
        let mut command = pintle.command(name);
        command.env("PINTLE_TEST_CLOCK", self.clock());
        command
    }

    fn header(&self, pintle: &Pintle) -> Option<String> {
        let response = Client::new(&self.authority).get(pintle.https(), BLOG, "/");
        response.field("public-key-pins").map(str::to_owned)
    }
}

fn serve_instead(pintle: &Pintle, before: &Leaf, after: &Leaf) {
    let path = |path: &Path| format!("{path:?}");
    pintle.rewrite(|text| {
        let text = text.replace(&path(&before.chain), &path(&after.chain));
        text.replace(&path(&before.key), &path(&after.key))
    });
}

/// `chronyc makestep && pintle reload`: the clock was 40 days behind, and the promises of all that time are held
/// for 30 days from now.
#[test]
fn a_clock_that_is_set_forward_before_a_judgement() {
    let bed = Bed::new(-40 * DAY);
    let config = bed.config(&bed.live);
    for what in ["reload", "upgrade", "check", "install"] {
        let _ = fs::remove_dir_all(bed.state());
        bed.set_clock(-40 * DAY);
        let pintle = bed.start(&config);
        assert!(bed.header(&pintle).is_some());
        serve_instead(&pintle, &bed.live, &bed.stranger);
        let mut command = bed.command(&pintle, if what == "install" { "install --dry-run" } else { what });
        if what == "install" {
            serve_instead(&pintle, &bed.stranger, &bed.live);
            command.args(["--site", BLOG]).args([&bed.stranger.chain, &bed.stranger.key]);
        }
        bed.set_clock(0);
        let (code, out, err) = outcome(&mut command);
        assert!(code == 1 && (out.clone() + &err).contains("would lock readers out"), "{what}: {out}{err}");
        assert_eq!(pintle.status()["sites"][0]["certificates"][0]["pin"], bed.live.pin.as_str());
        eventually("pins are sent again", || bed.header(&pintle));
        assert_eq!(pintle.stop(), 0);
        // What was redated is on disk.
        let (book, _) = ledger::look(&bed.state()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        assert!(book.promises().iter().any(|p| p.last_sent >= now - 60), "{:?}", book.promises());
    }
}

/// A clock that is years ahead dates nothing; once it is right again, all is as before.
#[test]
fn a_clock_that_cannot_be_right_poisons_nothing() {
    let bed = Bed::new(0);
    let pintle = bed.start(&bed.config(&bed.live));
    assert!(bed.header(&pintle).is_some());
    bed.set_clock(10 * 366 * DAY);
    eventually("pins are withheld", || bed.header(&pintle).is_none().then_some(()));
    let reported =
        pintle.logged("the clock cannot be right: pins are withheld, everything else continues", 1).remove(0);
    assert!(reported["error"].as_str().unwrap().contains("should be about"), "{reported}");
    let why = pintle.status()["sites"][0]["hpkp"]["why_not"].as_str().unwrap().to_owned();
    assert!(why.contains("the clock shows 20") && why.contains("pintle ledger repair"), "{why}");
    let attention = pintle.status()["attention"].to_string();
    assert!(attention.contains("the clock cannot be right") && attention.contains("timedatectl"), "{attention}");
    assert!(!attention.contains("the ledger is not writable"), "{attention}");
    let metrics = crate::admin::get(&bed.state().join("admin.sock"), "/metrics");
    for line in ["pintle_clock_doubted 1\n", "pintle_ledger_writable 1\n"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Nothing is judged by it.
    serve_instead(&pintle, &bed.live, &bed.stranger);
    assert!(pintle.reload_fails().contains("would lock readers out"));
    serve_instead(&pintle, &bed.stranger, &bed.live);
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    bed.set_clock(0);
    eventually("pins are sent again", || bed.header(&pintle));
    assert_eq!(pintle.stop(), 0);
    let (book, _) = ledger::look(&bed.state()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!(book.promises().iter().all(|p| p.last_sent < now + 2 * 3600), "{:?}", book.promises());
}

/// The clock was wrong at the first start, and nobody could know. What came of it is named, and there is a way out.
#[test]
fn a_poisoned_book_is_named_and_mended() {
    let bed = Bed::new(10 * 366 * DAY);
    let config = bed.config(&bed.live);
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    drop(pintle);
    bed.set_clock(0);
    let pintle = bed.start(&config);
    assert_eq!(bed.header(&pintle), None);
    pintle.logged("the clock cannot be right: pins are withheld, everything else continues", 1);
    // A process that has it is not mended behind its back.
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, fs::read_to_string(pintle.config_path()).unwrap()).unwrap();
    let (code, out, err) = outcome(bed.command(&pintle, "ledger repair").arg("--yes"));
    assert!(code == 1 && out.contains("DATE ") && err.contains("a process of pintle has the ledger"), "{out}{err}");
    assert_eq!(pintle.stop(), 0);
    let repair = |more: &[&str]| {
        let mut command = crate::harness::pintle();
        command.args(["ledger", "repair", "-c"]).arg(&path).args(more);
        outcome(&mut command)
    };
    let before = fs::read(bed.state().join("ledger.jsonl")).unwrap();
    let (code, out, err) = repair(&[]);
    assert!(code == 1 && out.contains("DATE ") && err.contains("--yes"), "{out}{err}");
    assert_eq!(fs::read(bed.state().join("ledger.jsonl")).unwrap(), before);
    let (code, out, _) = repair(&["--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["ok"]), (1, &Value::Bool(false)), "{out}");
    let (code, out, err) = repair(&["--yes"]);
    assert!(code == 0 && out.contains("done"), "{out}{err}");
    assert!(repair(&[]).1.contains("nothing to repair"));
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    assert!(output(&mut pintle.command("ledger show")).contains("impossible dates"));
    // It was sent, if not then: the chain is bound for 30 days, and not for ten years.
    let (book, _) = ledger::look(&bed.state()).unwrap();
    let end = book.promises().iter().map(Promise::honoured_until).max().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now + 30 * DAY..now + 31 * DAY).contains(&end), "{end}");
}

/// The last date is old, as the machine was away for years, or its first clock was wrong: the operator says that this one
/// is right.
#[test]
fn a_clock_that_went_on_is_confirmed() {
    let bed = Bed::new(-900 * DAY);
    let config = bed.config(&bed.live);
    drop(bed.start(&config));
    bed.set_clock(0);
    let pintle = bed.start(&config);
    assert_eq!(bed.header(&pintle), None);
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, fs::read_to_string(pintle.config_path()).unwrap()).unwrap();
    assert_eq!(pintle.stop(), 0);
    let (code, out, err) = outcome(crate::harness::pintle().args(["ledger", "repair", "--yes", "-c"]).arg(&path));
    assert!(code == 0 && out.contains("CLOCK ") && out.contains("done"), "{out}{err}");
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
}

/// Pins were removed long ago. While it serves, the ledger gets dates all the same: the clock of the next start is right.
#[test]
fn a_year_without_pins_is_no_wrong_clock() {
    let bed = Bed::new(-500 * DAY);
    drop(bed.start(&bed.config(&bed.live)));
    let config = bed.config(&bed.stranger);
    let without = config.split("[site.hpkp]").next().unwrap();
    bed.reboot(-400 * DAY);
    let pintle = bed.start(without);
    for day in [-250, -100, 0] {
        bed.reboot(day * DAY);
        let at = jiff::Timestamp::now().as_second() + (day - 1) * DAY;
        eventually("the ledger has this date", || {
            (ledger::look(&bed.state()).unwrap().0.newest().unwrap() > at).then_some(())
        });
    }
    assert_eq!(pintle.stop(), 0);
    let pintle = bed.start(without);
    assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").status, 200);
    let (code, _, err) = outcome(&mut bed.command(&pintle, "check"));
    assert!(code == 0 && !err.contains("the clock shows"), "{err}");
}

/// The clock was 26 days behind, and was set right while the disk was full, or a moment before the process was killed: the
/// correction was never written. Who noted the pins holds them for ten days all the same.
#[test]
fn a_correction_that_was_never_written() {
    for how in ["full disk", "killed at once", "two corrections", "an upgrade", "another start in between"] {
        let bed = Bed::new(-26 * DAY);
        let config = bed.config(&bed.live).replace("30d", "10d");
        let start = || bed.start(&config);
        let mut pintle = start();
        assert!(bed.header(&pintle).is_some());
        let fill = |pid: u32| output(Command::new("prlimit").args(["--fsize=0:", "--pid", &pid.to_string()]));
        let notices = |pintle: &Pintle, times: usize| {
            pintle.logged("the clock was set forward, or this machine slept: promises are written again", times);
        };
        match how {
            "two corrections" => {
                bed.set_clock(-20 * DAY);
                notices(&pintle, 1);
                eventually("the first one is written", || bed.header(&pintle));
                fill(pintle.pid());
                bed.set_clock(0);
                notices(&pintle, 2);
            }
            "full disk" => {
                fill(pintle.pid());
                bed.set_clock(0);
                notices(&pintle, 1);
            }
            "an upgrade" => {
                output(&mut bed.command(&pintle, "upgrade"));
                let pid = pintle.status()["pid"].as_u64().unwrap();
                fill(u32::try_from(pid).unwrap());
                bed.set_clock(0);
                eventually("the pins are withheld", || bed.header(&pintle).is_none().then_some(()));
                assert!(send_signal("KILL", pid));
            }
            "another start in between" => {
                drop(pintle);
                pintle = start();
                fill(pintle.pid());
                bed.set_clock(0);
                notices(&pintle, 1);
            }
            _ => bed.set_clock(0),
        }
        drop(pintle);
        let (_, notices) = ledger::look(&bed.state()).unwrap();
        assert!(matches!(notices[..], [ledger::Notice::DatedEarly { .. }]), "{how}: {notices:?}");
        let said = bed.refused(&bed.stranger);
        assert!(said.contains("would lock readers out"), "{how}: {said}");
        // With the key that they hold, all is well, and the next start has nothing to correct.
        let (book, notices) = ledger::look(&bed.state()).unwrap();
        let now = jiff::Timestamp::now().as_second();
        let held = |book: &ledger::Book| book.promises().iter().map(|p| p.honoured_until()).max().unwrap();
        assert!((now + 9 * DAY..now + 11 * DAY).contains(&held(&book)), "{how}: {notices:?} {:?}", book.promises());
        let pintle = start();
        assert!(bed.header(&pintle).is_some());
        assert!(!pintle.log().contains("s behind when promises"), "{how}: {}", pintle.log());
    }
}

/// The clock is set right a moment before pintle is stopped, or while it drains, and then the machine restarts: what was
/// promised by the wrong clock is on disk.
#[test]
fn a_stop_writes_the_correction_of_a_clock_that_was_just_set() {
    for is_draining in [false, true] {
        let mut bed = Bed::new(-26 * DAY);
        let (word, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        bed.origin = Origin::start(move |request| {
            if request.path() == "/wait" {
                let _ = wait.lock().unwrap().recv();
            }
            Reply::ok("done")
        });
        let mut pintle = bed.start(&bed.config(&bed.live).replace("30d", "10d"));
        assert!(bed.header(&pintle).is_some());
        let mut busy = Client::new(&bed.authority).connect(pintle.https(), BLOG);
        busy.send(format!("GET /wait HTTP/1.1\r\nHost: {BLOG}\r\n\r\n"));
        bed.origin.request("/wait");
        if is_draining {
            pintle.signal("TERM");
            pintle.logs("draining");
            bed.set_clock(0);
        } else {
            bed.set_clock(0);
            pintle.signal("TERM");
        }
        word.send(()).unwrap();
        assert_eq!(pintle.wait().code(), Some(0));
        bed.write_clock("0 boot-later");
        let said = bed.refused(&bed.stranger);
        assert!(said.contains("would lock readers out"), "{is_draining}: {said}");
    }
}

/// The ledger is lost, and the clock is behind at the start that finds that out. What is assumed then counts from the right
/// day on, though no pins are sent.
#[test]
fn a_lost_ledger_while_the_clock_is_behind() {
    let bed = Bed::new(0);
    let config = bed.config(&bed.live);
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    let has_copy = || fs::read_dir(bed.state().join("last-good")).is_ok_and(|mut copies| copies.next().is_some());
    eventually("the pair is copied", || has_copy().then_some(()));
    drop(pintle);
    for name in ["ledger.jsonl", "ledger.head", "ledger.lock"] {
        fs::remove_file(bed.state().join(name)).unwrap();
    }
    bed.write_clock(&format!("{} boot-2", -90 * DAY));
    let pintle = bed.start(config.split("[site.hpkp]").next().unwrap());
    pintle.logs("the ledger is lost: the previous keys are assumed to be promised");
    bed.write_clock("0 boot-2");
    eventually("the dates are right", || {
        let (book, _) = ledger::look(&bed.state()).ok()?;
        let is_right = |promise: &Promise| promise.last_sent > ledger::time::wall() - DAY;
        (!book.promises().is_empty() && book.promises().iter().all(is_right)).then_some(())
    });
    drop(pintle);
    let said = bed.refused(&bed.stranger);
    assert!(said.contains("would lock readers out"), "{said}");
}

/// The clock was ahead when promises were made, and was set right while the disk was full. Their dates are named at the
/// next start, and there is a way out.
#[test]
fn dates_ahead_that_a_full_disk_has_kept() {
    let bed = Bed::new(200 * DAY);
    let config = bed.config(&bed.live);
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    output(Command::new("prlimit").args(["--fsize=0:", "--pid", &pintle.pid().to_string()]));
    bed.set_clock(0);
    pintle.logs("the clock was set back; promises are not shortened");
    drop(pintle);
    let pintle = bed.start(&config);
    pintle.logs("the ledger has dates ahead of the clock");
    assert!(bed.header(&pintle).is_some());
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, fs::read_to_string(pintle.config_path()).unwrap()).unwrap();
    drop(pintle);
    output(crate::harness::pintle().args(["ledger", "repair", "--yes", "-c"]).arg(&path));
    let (book, _) = ledger::look(&bed.state()).unwrap();
    let now = jiff::Timestamp::now().as_second();
    let held = book.promises().iter().map(|p| p.honoured_until()).max().unwrap();
    assert!((now + 29 * DAY..now + 31 * DAY).contains(&held), "{held}");
    // The next start sends pins by these dates: it warns of none, and corrects none again.
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    let log = pintle.log();
    assert!(!log.contains("dates ahead of the clock") && !log.contains("s behind when promises"), "{log}");
}

/// A machine without a clock of its own: the first dates are those of its image, of years ago. Who confirms the right clock
/// confirms that pins of this boot were noted later than the ledger says.
#[test]
fn a_confirmed_clock_corrects_dates_of_this_boot() {
    let bed = Bed::new(-900 * DAY);
    let config = bed.config(&bed.live);
    let pintle = bed.start(&config);
    assert!(bed.header(&pintle).is_some());
    bed.set_clock(0);
    pintle.logs("the clock cannot be right: pins are withheld, everything else continues");
    drop(pintle);
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, format!("{LISTEN}\n{config}")).unwrap();
    let (code, out, err) = outcome(crate::harness::pintle().args(["ledger", "repair", "--yes", "-c"]).arg(&path));
    assert!(code == 0 && out.contains("CLOCK ") && out.contains("DATE ") && out.contains("done"), "{out}{err}");
    let said = bed.refused(&bed.stranger);
    assert!(said.contains("would lock readers out"), "{said}");
    assert!(bed.header(&bed.start(&config)).is_some());
}

/// A clock that was ahead by less than a year is not doubted, but its dates are named, with the way out.
#[test]
fn dates_ahead_of_the_clock_are_named() {
    let bed = Bed::new(200 * DAY);
    let config = bed.config(&bed.live);
    drop(bed.start(&config));
    bed.set_clock(0);
    let pintle = bed.start(&config);
    let reported = pintle.logged("the ledger has dates ahead of the clock", 1).remove(0);
    assert!(reported["hint"].as_str().unwrap().contains("pintle ledger repair -c "), "{reported}");
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, fs::read_to_string(pintle.config_path()).unwrap()).unwrap();
    let check = || outcome(crate::harness::pintle().env("PINTLE_ALLOW_ROOT", "1").args(["check", "-c"]).arg(&path));
    assert_eq!(pintle.stop(), 0);
    let (_, _, err) = check();
    let remedy = err.lines().find_map(|line| line.split_once("correct the dates: ")).expect(&err).1.to_owned();
    let words: Vec<&str> = remedy.split(' ').skip(1).chain(["--yes"]).collect();
    output(crate::harness::pintle().args(words));
    let (_, _, err) = check();
    assert!(!err.contains("dates up to"), "{err}");
}

/// Nothing was promised for more than a year, so that the clock is doubted: certificates of now are good all the same, at a
/// start and while it serves.
#[test]
fn certificates_of_now_are_good_after_a_year_without_a_promise() {
    let bed = Bed::new(0);
    let today = OffsetDateTime::now_utc();
    let issue = |name: &str, from: i64, to: i64| {
        bed.authority.issue_as(name, bed.live.key.clone(), &[BLOG], |params| {
            (params.not_before, params.not_after) = (today + Duration::days(from), today + Duration::days(to));
        })
    };
    let ends = |to: i64| Value::from((today + Duration::days(to)).date().to_string());
    let site = issue("site", -1, 90);
    let put = |leaf: &Leaf| _ = fs::copy(&leaf.chain, &site.chain).unwrap();
    drop(bed.start(&bed.config(&site)));
    bed.set_clock(400 * DAY);
    put(&issue("now", 390, 480));
    let config = bed.config(&site);
    let pintle = bed.start(config.split("[site.hpkp]").next().unwrap());
    let served = || pintle.log_json("certificate").iter().map(|line| line["not_after"].clone()).collect::<Vec<_>>();
    assert_eq!(served(), [ends(480)]);
    let (code, _, err) = outcome(bed.command(&pintle, "check").arg("-q"));
    assert_eq!(code, 0, "{err}");
    put(&issue("renewed", 395, 490));
    eventually("the renewal is taken up", || (served() == [ends(480), ends(490)]).then_some(()));
    // What is good at no time is not.
    put(&issue("never", 100, 200));
    eventually("it is refused", || pintle.log_json("certificate refused; the old one keeps serving").pop());
    assert_eq!(served().len(), 2);
}
