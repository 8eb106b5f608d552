//! Signals: which do something, and that no other ends a process of pintle's.

use std::fs;

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually, outcome, output, send_signal};

/// The processes that this one has started: the launcher, and the one that has the keys.
fn helpers(pintle: &Pintle) -> Vec<(u32, String)> {
    let parent = format!("PPid:\t{}\n", pintle.pid());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut found: Vec<(u32, String)> = processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let name = String::from_utf8_lossy(&line).split('\0').nth(1)?.to_owned();
            status.contains(&parent).then_some((pid, name))
        })
        .collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

fn send(signal: &str, pid: u32) {
    assert!(send_signal(signal, pid), "{signal}");
}

fn start(more: &str) -> (Authority, TempDir, Origin, Pintle) {
    let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
    let state = folder.path().join("state");
    let config = format!("{more}[state]\ndirectory = {state:?}\n{}", blog(&authority, &origin));
    let pintle = Pintle::start(&authority, &config);
    (authority, folder, origin, pintle)
}

/// `killall -USR1 pintle`, `systemctl kill`, a terminal that is closed: all processes get it.
#[test]
fn harmless_signals_end_no_process() {
    let (authority, _folder, _origin, pintle) = start("[tls]\nkey_process = true\n");
    let helpers = helpers(&pintle);
    let names: Vec<&str> = helpers.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["keys", "launcher"]);
    // Not every shell has a name for 16 (STKFLT) and 29 (POLL).
    let harmless = [
        "HUP", "USR1", "PIPE", "ALRM", "16", "CONT", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
        "29", "PWR", "35", "50", "64",
    ];
    for signal in harmless {
        send(signal, pintle.pid());
        helpers.iter().for_each(|(pid, _)| send(signal, *pid));
        assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200, "{signal}");
    }
    // USR2 is for the process that serves alone.
    helpers.iter().for_each(|(pid, _)| send("USR2", *pid));
    helpers.iter().for_each(|(pid, _)| send("INT", *pid));
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    assert_eq!(self::helpers(&pintle), helpers, "all are there");
    assert_eq!(pintle.status()["launcher"]["alive"], true);
    assert_eq!(pintle.stop(), 0);
}

#[test]
fn the_end_of_the_launcher_is_told() {
    let (authority, folder, _origin, pintle) = start("");
    let metrics = || crate::admin::get(&folder.path().join("state/admin.sock"), "/metrics");
    assert!(metrics().contains("pintle_launcher_alive 1\n"));
    let (launcher, _) = helpers(&pintle).into_iter().find(|(_, name)| name == "launcher").unwrap();
    send("KILL", launcher);
    let reported = pintle.logged("the launcher has ended: no more upgrades", 1);
    assert!(
        reported[0]["level"] == "ERROR" && reported[0]["how"].as_str().unwrap().contains("SIGKILL"),
        "{reported:?}"
    );
    let status = pintle.status();
    assert_eq!(status["launcher"]["alive"], false, "{status:#}");
    let human = output(&mut pintle.command("status"));
    assert!(human.contains("NO UPGRADES    no launcher (it has ended: signal: 9"), "{human}");
    assert!(metrics().contains("pintle_launcher_alive 0\n"));
    let (code, _, why) = outcome(&mut pintle.command("upgrade"));
    assert!(code == 1 && why.contains("no launcher (it has ended: signal: 9") && why.contains("restart"), "{why}");
    // Nothing else suffers.
    assert_eq!(Client::new(&authority).get(pintle.https(), BLOG, "/").status, 200);
    pintle.reload();
    assert_eq!(pintle.logged("the launcher has ended: no more upgrades", 1).len(), 1);
}

/// A signal during the start is not lost, and does not end the process.
#[test]
fn a_signal_during_the_start_waits() {
    let (authority, folder, origin) = (Authority::new(), TempDir::new().unwrap(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = authority.write(
        "pintle.toml",
        format!("{listen}[state]\ndirectory = {:?}\n{}", folder.path().join("state"), blog(&authority, &origin)),
    );
    let log = folder.path().join("log");
    let mut child = crate::harness::pintle()
        .args(["run", "-c"])
        .arg(&config)
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let blocked = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        status.lines().any(|l| l.starts_with("SigBlk:") && !l.ends_with("0000000000000000"))
    };
    eventually("it has begun", || blocked().then_some(()));
    for _ in 0..20 {
        send("USR1", child.id());
        send("HUP", child.id());
    }
    let said = || fs::read_to_string(&log).unwrap_or_default();
    eventually("it serves, and reloads", || (said().contains("serving") && said().contains("reloaded")).then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "{}", said());
    child.kill().unwrap();
    child.wait().unwrap();
}
