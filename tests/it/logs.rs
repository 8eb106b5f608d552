//! The access log as logrotate treats it: moved away, reopened, and what is said when that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Connection, Origin, Pintle, blog, eventually, outcome, output};

/// A pintle whose access log is a file in a folder of its own.
struct Bed {
    authority: Authority,
    folder: TempDir,
    pintle: Pintle,
    _origin: Origin,
}

impl Bed {
    fn new() -> Self {
        let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
        fs::create_dir(folder.path().join("logs")).unwrap();
        let config = format!(
            "[log]\naccess = {:?}\n[state]\ndirectory = {:?}\n{}",
            folder.path().join("logs/access.log"),
            folder.path().join("state"),
            blog(&authority, &origin)
        );
        let pintle = Pintle::start(&authority, &config);
        Self { authority, folder, pintle, _origin: origin }
    }

    fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    fn log(&self) -> PathBuf {
        self.logs().join("access.log")
    }

    fn visit(&self, target: &str) {
        Client::new(&self.authority).get(self.pintle.https(), BLOG, target);
    }

    fn metrics(&self) -> String {
        crate::admin::get(&self.folder.path().join("state/admin.sock"), "/metrics")
    }
}

fn has(file: &Path, target: &str) -> bool {
    fs::read_to_string(file).unwrap_or_default().contains(target)
}

#[test]
fn usr1_reopens_the_log_and_does_nothing_else() {
    let bed = Bed::new();
    bed.visit("/one");
    eventually("a line", || has(&bed.log(), "/one").then_some(()));
    let moved = bed.logs().join("access.log.1");
    fs::rename(bed.log(), &moved).unwrap();
    // Were this a reload, it would be refused.
    bed.pintle.rewrite(|text| format!("{text}nonsense = 1\n"));
    bed.pintle.signal("USR1");
    eventually("the file is made", || bed.log().exists().then_some(()));
    bed.visit("/two");
    eventually("a line in the new file", || has(&bed.log(), "/two").then_some(()));
    assert!(!has(&moved, "/two"));
    bed.pintle.logs("access log reopened");
    let status = bed.pintle.status();
    assert_eq!((&status["reloads"], &status["reloads_refused"]), (&0.into(), &0.into()));
    assert!(status["access_log"]["error"].is_null(), "{status:#}");
}

#[test]
fn a_log_that_cannot_be_reopened_is_told_until_it_can() {
    let bed = Bed::new();
    bed.visit("/one");
    eventually("a line", || has(&bed.log(), "/one").then_some(()));
    // The name leads nowhere: even root cannot write there.
    let moved = bed.logs().join("access.log.1");
    fs::rename(bed.log(), &moved).unwrap();
    std::os::unix::fs::symlink(bed.folder.path().join("nowhere/access.log"), bed.log()).unwrap();
    let (code, out, err) = outcome(&mut bed.pintle.command("reload"));
    assert_eq!(code, 0, "the configuration is in use: {out}{err}");
    assert!(err.contains("cannot reopen") && err.contains("hint: "), "{out}{err}");
    let (_, json, _) = outcome(&mut bed.pintle.command("reload --json"));
    let verdict: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(verdict["problems"][0].as_str().unwrap().contains("cannot reopen"), "{verdict}");
    // A refused reload says it, too.
    bed.pintle.rewrite(|text| format!("{text}nonsense = 1\n"));
    assert!(bed.pintle.reload_fails().contains("cannot reopen"));
    bed.visit("/two");
    eventually("no line is lost", || has(&moved, "/two").then_some(()));
    let reported = bed.pintle.logged("access log", 1);
    assert!(reported.len() == 1 && reported[0]["level"] == "ERROR", "logged once: {reported:?}");
    let status = bed.pintle.status();
    assert!(status["access_log"]["error"].as_str().unwrap().contains("cannot reopen"), "{status:#}");
    let human = output(&mut bed.pintle.command("status"));
    assert!(human.contains("ACCESS LOG     log.access: "), "{human}");
    assert!(bed.metrics().contains("pintle_access_log_ok 0\n"), "{}", bed.metrics());
    // Without anybody asking.
    fs::remove_file(bed.log()).unwrap();
    eventually("it is reopened", || bed.log().is_file().then_some(()));
    bed.pintle.logs("access log recovered");
    assert!(!bed.metrics().contains("pintle_access_log_reopen_failures_total 0\n"), "{}", bed.metrics());
    bed.visit("/three");
    eventually("a line in the new file", || has(&bed.log(), "/three").then_some(()));
    eventually("nothing is wrong any more", || bed.pintle.status()["access_log"]["error"].is_null().then_some(()));
    assert!(bed.metrics().contains("pintle_access_log_ok 1\n"), "{}", bed.metrics());
}

/// A name that is not a file delays neither a start nor a reload, and is reported until it is gone.
#[test]
fn a_fifo_is_no_log() {
    let bed = Bed::new();
    let moved = bed.logs().join("access.log.1");
    let fifo = || assert!(Command::new("mkfifo").arg(bed.log()).status().unwrap().success());
    let socket = || drop(std::os::unix::net::UnixListener::bind(bed.log()).unwrap());
    let read_fifo = || {
        fifo();
        // Somebody reads it, and no more than that.
        let mut reader = fs::OpenOptions::new();
        std::mem::forget(reader.read(true).write(true).open(bed.log()).unwrap());
    };
    let makers: [(&str, &dyn Fn()); 3] = [("fifo", &fifo), ("socket", &socket), ("fifo that is read", &read_fifo)];
    for (kind, make) in makers {
        fs::rename(bed.log(), &moved).unwrap();
        make();
        let (code, out, err) = outcome(&mut bed.pintle.command("reload"));
        assert_eq!(code, 0, "{kind}: {out}{err}");
        assert!(
            err.contains("not a regular file") && err.contains("hint: the name belongs to a FIFO"),
            "{kind}: {out}{err}"
        );
        let human = output(&mut bed.pintle.command("status"));
        assert!(human.contains("ACCESS LOG     log.access: "), "{kind}: {human}");
        let target = format!("/{}", kind.replace(' ', "-"));
        bed.visit(&target);
        eventually("no line is lost", || has(&moved, &target).then_some(()));
        fs::remove_file(bed.log()).unwrap();
        eventually("it is reopened", || bed.log().is_file().then_some(()));
        eventually("nothing is wrong", || bed.pintle.status()["access_log"]["error"].is_null().then_some(()));
    }
    // A start does not wait for it, either.
    let config = bed.folder.path().join("other.toml");
    let text =
        format!("[log]\naccess = {:?}\n[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n", bed.logs().join("fifo"));
    fs::write(&config, text + &blog(&bed.authority, &bed._origin)).unwrap();
    assert!(Command::new("mkfifo").arg(bed.logs().join("fifo")).status().unwrap().success());
    let mut run = Command::new("timeout");
    let (code, _, err) =
        outcome(run.args(["20", env!("CARGO_BIN_EXE_pintle"), "run", "--allow-root", "-c"]).arg(&config));
    assert!(code == 1 && err.contains("log.access: ") && err.contains("not a regular file"), "{code} {err}");
}

/// A disk that is full, as far as the process can tell.
#[test]
fn a_log_that_cannot_be_written_is_told() {
    let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
    let config = format!(
        "[log]\naccess = \"/dev/full\"\n[state]\ndirectory = {:?}\n{}",
        folder.path().join("state"),
        blog(&authority, &origin)
    );
    let pintle = Pintle::start(&authority, &config);
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    let log = eventually("it is logged", || {
        let log = pintle.status()["access_log"].clone();
        (!log["error"].is_null()).then_some(log)
    });
    assert!(log["error"].as_str().unwrap().contains("cannot write /dev/full"), "{log}");
    assert_eq!((&log["hint"], &log["lines_lost"]), (&"free space on its disk".into(), &1.into()));
    assert_eq!(pintle.logged("access log", 1).len(), 1);
}

/// A small file system of memory, while it lives.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Self {
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// While the disk is full, lines are lost and counted. None is cut, and the log recovers once there is space.
#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    if !crate::harness::is_root("mount a file system") {
        return;
    }
    let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let _small = Small::mount(&logs);
    let log = logs.join("access.log");
    let config = format!(
        "[log]\naccess = {log:?}\n[state]\ndirectory = {:?}\n{}",
        folder.path().join("state"),
        blog(&authority, &origin)
    );
    let pintle = Pintle::start(&authority, &config);
    let filler = logs.join("filler");
    fs::write(&filler, vec![0; 40 * 1024]).unwrap();
    let mut connection = Client::new(&authority).connect(pintle.https(), BLOG);
    let mut visits = 0;
    let mut visit = |target: &str| {
        visits += 1;
        assert_eq!(connection.get(BLOG, target).status, 200, "requests do not notice");
    };
    let trouble = |pintle: &Pintle| pintle.status()["access_log"]["error"].as_str().map(str::to_owned);
    let error = eventually("the disk is full", || {
        (0..20).for_each(|_| visit("/before"));
        trouble(&pintle)
    });
    assert!(error.contains("cannot write") && error.contains("no space left"), "{error}");
    // A record is written a little later than its answer: the disk stays full until one is lost.
    eventually("a lost line", || {
        visit("/lost");
        pintle.status()["access_log"]["lines_lost"].as_u64().filter(|lost| *lost > 0)
    });
    fs::remove_file(&filler).unwrap();
    eventually("it is written again", || {
        visit("/after");
        has(&log, "/after").then_some(())
    });
    eventually("nothing is wrong", || {
        visit("/healthy");
        trouble(&pintle).is_none().then_some(())
    });
    // Each line is whole, and each that is not there is counted.
    eventually("all are accounted for", || {
        let text = fs::read_to_string(&log).unwrap();
        if !text.ends_with('\n') {
            return None;
        }
        let whole = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
        assert_eq!(whole, text.lines().count(), "a line is cut");
        let lost = pintle.status()["access_log"]["lines_lost"].as_u64().unwrap();
        (lost > 0 && whole as u64 + lost == visits).then_some(())
    });
}

/// Clients that ask without pause, each target once.
fn under_load(pintle: &Pintle, meanwhile: impl FnOnce()) -> Vec<String> {
    let (stop, address) = (AtomicBool::new(false), pintle.http());
    std::thread::scope(|scope| {
        let ask = |client: usize| {
            let stop = &stop;
            move || {
                let mut connection = Connection::plain(address);
                let mut targets = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let target = format!("/{client}-{}", targets.len());
                    assert_eq!(connection.get(BLOG, &target).status, 301);
                    targets.push(target);
                }
                targets
            }
        };
        let clients: Vec<_> = (0..4).map(|client| scope.spawn(ask(client))).collect();
        meanwhile();
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// The targets in a file, whose lines must all be whole.
fn targets(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let target =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["target"].as_str().map(str::to_owned);
    let all = text.lines().map(|line| target(line).unwrap_or_else(|| panic!("{}: {line}", file.display())));
    all.collect()
}

/// logrotate's `create`: it renames the file, and sends a signal. No record is lost or split.
#[test]
fn rotation_under_load_loses_no_record() {
    let bed = Bed::new();
    let rounds = 20;
    let moved = |round: usize| bed.logs().join(format!("access.log.{round}"));
    let asked = under_load(&bed.pintle, || {
        for round in 0..rounds {
            std::thread::sleep(Duration::from_millis(50));
            fs::rename(bed.log(), moved(round)).unwrap();
            bed.pintle.signal(if round % 2 == 0 { "USR1" } else { "HUP" });
            eventually("the file is made", || bed.log().exists().then_some(()));
            let mode = fs::metadata(bed.log()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640);
        }
    });
    let mut asked = asked;
    asked.sort_unstable();
    assert!(asked.len() > 100, "no load: {}", asked.len());
    eventually("every record", || {
        let mut written: Vec<String> = (0..rounds).flat_map(|round| targets(&moved(round))).collect();
        written.extend(targets(&bed.log()));
        written.sort_unstable();
        (written == asked).then_some(())
    });
    assert_eq!(bed.pintle.status()["access_log"]["lines_lost"], 0);
}

/// logrotate's `copytruncate`: lines between the copy and the cut are lost, as logrotate documents. The file never has holes
/// or parts of lines, since pintle appends.
#[test]
fn a_truncated_log_has_whole_lines() {
    let bed = Bed::new();
    let asked = under_load(&bed.pintle, || {
        for round in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            fs::copy(bed.log(), bed.logs().join(format!("copy.{round}"))).unwrap();
            fs::OpenOptions::new().write(true).open(bed.log()).unwrap().set_len(0).unwrap();
        }
    });
    bed.visit("/last");
    eventually("the last record", || has(&bed.log(), "/last").then_some(()));
    let written = targets(&bed.log());
    assert!(written.iter().all(|target| target == "/last" || asked.contains(target)));
    assert_eq!(bed.pintle.status()["access_log"]["lines_lost"], 0);
}

/// The file that is shipped, by the program that it is for.
#[test]
fn logrotate_moves_the_log() {
    let bed = Bed::new();
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/logrotate/pintle")).unwrap();
    let wanted = "systemctl kill --signal=USR1 pintle.service";
    assert!(shipped.contains(wanted), "{shipped}");
    // The same with this user, this folder, and instead of systemd somebody who knows the process.
    let adapted = shipped
        .replace("/var/log/pintle", bed.logs().to_str().unwrap())
        .replace(wanted, &format!("kill -s USR1 {}", bed.pintle.pid()))
        .replace("systemctl --quiet is-active pintle.service", "true")
        .replace("    su pintle pintle\n", "");
    let rules = bed.folder.path().join("rules");
    fs::write(&rules, adapted).unwrap();
    fs::set_permissions(&rules, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(bed.logs(), fs::Permissions::from_mode(0o750)).unwrap();
    let rotate = || {
        let program = crate::harness::program("logrotate");
        output(Command::new(program).arg("--force").arg("--state").arg(bed.folder.path().join("rotated")).arg(&rules))
    };
    for round in 1..=3 {
        bed.visit(&format!("/round-{round}"));
        eventually("a line", || has(&bed.log(), &format!("/round-{round}")).then_some(()));
        rotate();
        eventually("the file is made", || bed.log().exists().then_some(()));
    }
    bed.visit("/last");
    eventually("a line", || has(&bed.log(), "/last").then_some(()));
    let log = fs::read_to_string(bed.log()).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(has(&bed.logs().join("access.log.1"), "/round-3"));
    assert!(bed.logs().join("access.log.2.gz").exists() && bed.logs().join("access.log.3.gz").exists());
    assert!(bed.pintle.status()["access_log"]["error"].is_null());
}

/// Each signal that asks for the file again hears why it was not opened.
#[test]
fn a_failed_reopening_is_never_silent() {
    let bed = Bed::new();
    let moved = bed.logs().join("access.log.1");
    fs::rename(bed.log(), &moved).unwrap();
    fs::create_dir(bed.log()).unwrap();
    for times in 1..=2 {
        bed.pintle.signal("USR1");
        let reported = bed.pintle.logged("access log not reopened", times);
        assert!(reported[0]["what"].as_str().unwrap().contains("cannot reopen"), "{reported:?}");
        assert!(reported[0]["hint"].as_str().unwrap().contains("move it away"), "{reported:?}");
    }
    bed.visit("/kept");
    eventually("the old file is written", || has(&moved, "/kept").then_some(()));
}

/// `check` refuses a log that `run` could not open, and the hint works as written.
#[test]
fn a_log_that_cannot_be_opened_is_known_before_the_start() {
    let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
    let log = folder.path().join("no/such/folder/access.log");
    let text = format!(
        "[log]\naccess = {log:?}\n[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}",
        blog(&authority, &origin)
    );
    let config = folder.path().join("pintle.toml");
    fs::write(&config, &text).unwrap();
    let said = |command: &str| {
        let mut run = Command::new("timeout");
        run.args(["20", env!("CARGO_BIN_EXE_pintle"), command, "--allow-root", "-c"]).arg(&config);
        let (code, out, err) = outcome(&mut run);
        assert!(code == 1 && err.contains("log.access: "), "{command}: {out}{err}");
        err
    };
    let err = said("check");
    assert_eq!(said("run"), err);
    let remedy = err.lines().find_map(|line| line.trim().strip_prefix("hint: ")).unwrap();
    output(Command::new("sh").args(["-c", remedy]));
    let (code, out, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&config));
    assert_eq!(code, 0, "{out}{err}");
    // A path that is not a file: `check` notices it, too.
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    assert!(said("check").contains("not a regular file") && said("run").contains("not a regular file"));
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    assert!(said("check").contains("a folder") && said("run").contains("a folder"));
}
