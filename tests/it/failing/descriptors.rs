//! No free file descriptor: connected clients are served, and the log reports it now and then.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually};

/// Few files: those that pintle itself needs, and some for connections.
const FILES: usize = 100;

/// Runs it under these limits of open files, `SOFT:HARD`.
fn limited(command: &mut Command, limits: &str) {
    let mut outer = Command::new("prlimit");
    outer.arg(format!("--nofile={limits}")).arg(command.get_program()).args(command.get_args());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    *command = outer;
}

#[test]
fn established_connections_live_when_files_run_out() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let limits = "[limits]\nconnections = 10000\nconnections_per_client = 10000\n";
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\nworkers = 1\n";
    let config = limits.to_owned() + &blog(&authority, &origin);
    let pintle =
        Pintle::start_command(&authority, listen, &config, |command| limited(command, &format!("{FILES}:{FILES}")));
    let client = Client::new(&authority);
    let mut first = client.connect(pintle.https(), BLOG);
    assert_eq!(first.get(BLOG, "/").status, 200);
    // The kernel takes these; pintle cannot.
    let crowd: Vec<_> = (0..FILES).map(|_| std::net::TcpStream::connect(pintle.https()).unwrap()).collect();
    pintle.logs("cannot accept connections");
    for _ in 0..20 {
        assert_eq!(first.get(BLOG, "/").text(), "hello from the origin");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pintle.log().matches("cannot accept connections").count(), 1, "{}", pintle.log());
    // It waits instead of spinning: of these two seconds, it has worked for little.
    let used = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pintle.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = used();
    std::thread::sleep(Duration::from_secs(2));
    let ticks = used() - before;
    assert!(ticks < 60, "{ticks} hundredths of a second in two seconds");
    drop(crowd);
    eventually("there is room again", || client.try_connect(pintle.https(), BLOG).ok());
    assert_eq!(first.get(BLOG, "/").status, 200);
}

#[test]
fn a_soft_limit_is_raised_to_the_hard_one() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n";
    let config = blog(&authority, &origin);
    let pintle = Pintle::start_command(&authority, listen, &config, |command| limited(command, "64:700"));
    let limits = fs::read_to_string(format!("/proc/{}/limits", pintle.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().filter(|w| w.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers, ["700", "700"], "{line}");
}
