//! Commands whose output cannot be written: a reader that has gone, as in `pintle status | head -1`; a full disk.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Authority, BLOG, Origin, Pintle, Reply, blog, outcome, pintle};

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    io::pipe().unwrap().1.into()
}

/// Runs a command with both outputs open, with standard output closed, and with both closed.
#[track_caller]
fn check(command: &dyn Fn() -> Command, code: i32) {
    let (open, out, _) = outcome(&mut command());
    assert!(open == code && !out.is_empty(), "{:?}: {open} {out}", command());
    let done = command().stdout(closed()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(code), "{:?}: {err}", command());
    assert!(!err.contains("panicked") && !err.contains("Broken pipe"), "{:?}: {err}", command());
    let both = command().stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(both.code(), Some(code), "{:?}, with both closed", command());
}

#[test]
fn commands_end_quietly_with_their_exit_code() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let origin = Origin::start(|_| Reply::ok("hello"));
    let config = format!("[state]\ndirectory = {:?}\n{}", folder.path().join("state"), blog(&authority, &origin));
    let running = Pintle::start(&authority, &config);
    let of_running = |arguments: &str| check(&|| running.command(arguments), 0);
    for arguments in [
        "status",
        "status --json",
        "check",
        "check --json",
        "key list",
        "key list --json",
        "ledger show",
        "ledger show --json",
        "ledger repair",
        "reload",
        "reload --json",
    ] {
        of_running(arguments);
    }
    of_running(&format!("export --site {BLOG} --as curl --without-backup"));
    for arguments in ["--help", "status --help", "--version", "completions bash", "man"] {
        let command = || {
            let mut command = pintle();
            command.args(arguments.split(' '));
            command
        };
        check(&command, 0);
    }
    let pin = || {
        let mut command = pintle();
        command.arg("pin").arg(authority.ca_path());
        command
    };
    check(&pin, 0);
    // Problems keep their exit code.
    let broken = folder.path().join("broken.toml");
    std::fs::write(&broken, "[[site]]\n").unwrap();
    let refused = || {
        let mut command = pintle();
        command.args(["check", "--json", "-c"]).arg(&broken);
        command
    };
    check(&refused, 1);
}

#[test]
fn a_full_disk_is_reported() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&["completions", "bash"][..], &["man"]] {
        let done = pintle().args(arguments).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let done = done.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{err}");
        assert!(err.starts_with("error: standard output: no space left on device"), "{err}");
    }
}
