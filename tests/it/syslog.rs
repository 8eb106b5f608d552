//! `log.access = "syslog:..."` and `--log-format syslog`: a real rsyslogd gets the lines, over its socket and over UDP, and a
//! daemon that is away costs lines and nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::admin::Bed;
use crate::harness::{BLOG, Client, Pintle, Program, eventually, free_port, outcome, pintle, program};

/// An rsyslogd that writes facility, severity, program, process, kind and message of each message to a file.
struct Daemon {
    _program: Program,
}

impl Daemon {
    fn start(folder: &Path, port: u16) -> Self {
        let at = folder.display();
        let config = format!(
            "global(workDirectory=\"{at}\" maxMessageSize=\"32k\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{at}/log\")\n\
             module(load=\"imudp\")\ninput(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"all\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% %app-name% \
             %procid% %msgid% %protocol-version%%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{at}/messages\" template=\"all\")\n"
        );
        fs::write(folder.join("rsyslog.conf"), config).unwrap();
        let mut command = Command::new(program("rsyslogd"));
        command.arg("-n").args(["-f", &format!("{at}/rsyslog.conf"), "-i", &format!("{at}/pid")]);
        let started = Self { _program: Program::start(&mut command, folder, "rsyslogd") };
        eventually("rsyslogd has its socket", || folder.join("log").exists().then_some(()));
        started
    }
}

/// The message about a target, once it has come.
#[track_caller]
fn message(folder: &Path, target: &str) -> String {
    eventually(&format!("a message about {target}"), || {
        let text = fs::read_to_string(folder.join("messages")).ok()?;
        text.lines().find(|line| line.contains(&format!("\"target\":\"{target}\""))).map(str::to_owned)
    })
}

fn start(bed: &Bed, access: &str) -> Pintle {
    Pintle::start(&bed.authority, &bed.config(&format!("[sandbox]\n[log]\naccess = {access:?}\n")))
}

/// The record behind the words of a message.
fn record(message: &str) -> Value {
    serde_json::from_str(&message[message.find('{').unwrap()..]).unwrap_or_else(|error| panic!("{error}: {message}"))
}

#[test]
fn the_daemon_of_the_host() {
    let (bed, port) = (Bed::new(), free_port());
    let folder = bed.folder.path();
    let daemon = Daemon::start(folder, port);
    let pintle = start(&bed, &format!("syslog:{}", folder.join("log").display()));
    let visit = |path: &str| assert_eq!(Client::new(&bed.authority).get(pintle.https(), BLOG, path).status, 200);
    visit("/one");
    let one = message(folder, "/one");
    assert!(one.starts_with(&format!("daemon.info pintle {} - ", pintle.pid())), "{one}");
    assert_eq!(record(&one)["status"], 200);
    assert_eq!(pintle.status()["access_log"]["to"], format!("syslog:{}", folder.join("log").display()));
    // A line that is as long as a line may be.
    let long = format!("/{}", "y".repeat(7000));
    visit(&long);
    message(folder, &long);
    // The daemon ends: lines are lost and counted, and requests are answered.
    drop(daemon);
    visit("/lost");
    eventually("the line is counted", || {
        (bed.value("pintle_access_log_lines_lost_total").unwrap() >= 1.0).then_some(())
    });
    eventually("the fault is reported", || (bed.value("pintle_access_log_ok").unwrap() == 0.0).then_some(()));
    let (_, status, _) = outcome(&mut pintle.command("status"));
    assert!(status.contains("start the syslog daemon"), "{status}");
    // Another one, at the same place.
    let _ = fs::remove_file(folder.join("log"));
    let _daemon = Daemon::start(folder, port);
    eventually("lines arrive again", || {
        visit("/again");
        fs::read_to_string(folder.join("messages")).ok()?.contains("\"/again\"").then_some(())
    });
    eventually("the recovery is reported", || (bed.value("pintle_access_log_ok").unwrap() == 1.0).then_some(()));
    pintle.reload();
    visit("/reloaded");
    message(folder, "/reloaded");
}

#[test]
fn over_udp_in_the_new_format() {
    let (bed, port) = (Bed::new(), free_port());
    let folder = bed.folder.path();
    let _daemon = Daemon::start(folder, port);
    let pintle = start(&bed, &format!("syslog:udp://127.0.0.1:{port}"));
    let one = eventually("a message over UDP", || {
        Client::new(&bed.authority).get(pintle.https(), BLOG, "/udp");
        let text = fs::read_to_string(folder.join("messages")).ok()?;
        text.lines().find(|line| line.contains("\"/udp\"")).map(str::to_owned)
    });
    assert!(one.starts_with(&format!("daemon.info pintle {} access 1", pintle.pid())), "{one}");
    assert_eq!(record(&one)["host"], BLOG);
}

#[test]
fn the_operators_log() {
    let (bed, port) = (Bed::new(), free_port());
    let folder = bed.folder.path();
    let _daemon = Daemon::start(folder, port);
    let config = format!("[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n{}", bed.config(""));
    let config = bed.authority.write("syslog.toml", config);
    let mut command = pintle();
    command.args(["run", "--allow-root", "--log-format", "syslog", "-c"]).arg(&config);
    command.env("PINTLE_SYSLOG_SOCKET", folder.join("log"));
    let running = Program::start(&mut command, folder, "pintle");
    let serving = eventually("the start is logged", || {
        let text = fs::read_to_string(folder.join("messages")).ok()?;
        text.lines().find(|line| line.contains("serving workers=")).map(str::to_owned)
    });
    assert!(serving.starts_with("daemon.info pintle ") && serving.contains(" sites=1"), "{serving}");
    let warned = fs::read_to_string(folder.join("messages")).unwrap();
    assert!(warned.lines().all(|line| line.starts_with("daemon.")), "{warned}");
    assert_eq!(running.said(), "");
    drop(running);
    // Without a daemon, the start fails, and says why.
    let mut command = pintle();
    command.args(["run", "--allow-root", "--log-format", "syslog", "-c"]).arg(&config);
    let (code, _, said) = outcome(command.env("PINTLE_SYSLOG_SOCKET", folder.join("none")));
    assert!(code != 0 && said.contains("none: no such file or directory"), "{code}: {said}");
}

#[test]
fn places_that_are_none() {
    let bed = Bed::new();
    for (access, wanted) in [
        ("syslog:udp://logs.example.com:514", "not an IP address with a port"),
        ("syslog:tcp://127.0.0.1:514", "not a place of syslog"),
        ("syslog:udp://127.0.0.1:0", "not an IP address with a port"),
    ] {
        let config = bed.config(&format!("[log]\naccess = {access:?}\n"));
        let config = bed.authority.write("places.toml", config);
        let (code, _, said) = outcome(pintle().args(["check", "-c"]).arg(&config));
        assert!(code == 1 && said.contains(wanted) && said.contains("access = \"syslog:\""), "{access}: {said}");
    }
}
