//! The program that sets DNS records: what it gets, what happens when it fails, hangs or is left alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pintle::acme::dns::{Presented, present, record, visible};
use pintle::acme::hook::{Action, HookProcess, TxtRecord};
use pintle::acme::lookup::Lookup;
use pintle::upstream::dns::NameServers;
use tempfile::TempDir;

use crate::harness::pebble::TestDns;
use crate::harness::{eventually, pintle, send_signal};

/// A hook program with these lines, which notes its arguments in the file `calls`.
fn program(folder: &Path, lines: &str) -> PathBuf {
    let (path, calls) = (folder.join("hook"), folder.join("calls"));
    fs::write(&path, format!("#!/bin/sh\necho \"$*\" >>{}\n{lines}\n", calls.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Lines that set and remove the records of a challenge test server.
fn lines(dns: &TestDns) -> String {
    format!(
        "case $1 in present) to=set-txt ;; *) to=clear-txt ;; esac\n\
         curl --silent --show-error --fail --data \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}/$to >&2",
        dns.management()
    )
}

fn calls(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The hook process of a program: `pintle dns-hook`, as the serving process starts it.
fn hook(program: &Path, limit: Duration) -> std::sync::Arc<HookProcess> {
    std::sync::Arc::new(HookProcess::start_as(pintle(), program, limit).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_name_and_its_wildcard_have_two_values_that_go_again() {
    let folder = TempDir::new().unwrap();
    let dns = TestDns::start(folder.path(), "127.0.0.1", "");
    let hook = hook(&program(folder.path(), &lines(&dns)), Duration::from_secs(20));
    let records = [record("example.com", "a.thumb"), record("*.example.com", "b.thumb")];
    let lookup = |dns: &TestDns| Lookup::new(&NameServers(vec![dns.address()])).unwrap();
    block_on(async {
        let presented = present(&hook, &records).await.unwrap();
        visible(&records, &lookup(&dns), Duration::from_secs(30)).await.unwrap();
        let values = lookup(&dns).txt("_acme-challenge.example.com").await.records();
        assert_eq!(values.len(), 2, "{values:?}");
        presented.clean().await;
    });
    let want: Vec<String> = ["present", "present", "cleanup", "cleanup"]
        .iter()
        .zip(records.iter().cycle())
        .map(|(action, record)| format!("{action} {} {}", record.name, record.value))
        .collect();
    assert_eq!(calls(folder.path()), want);
    // An alias is followed, and a record that never comes is waited for no longer than allowed.
    dns.set_cname("_acme-challenge.blog.example.com", "challenges.example.net");
    block_on(async {
        let alias = [record("blog.example.com", "c.thumb")];
        dns.add_txt("challenges.example.net", &alias[0].value);
        let presented = present(&hook, &alias).await.unwrap();
        visible(&alias, &lookup(&dns), Duration::from_secs(30)).await.unwrap();
        dns.clear_txt("challenges.example.net");
        let error = visible(&alias, &lookup(&dns), Duration::ZERO).await.unwrap_err();
        assert!(
            error.what.contains("_acme-challenge.blog.example.com") && error.what.contains("not visible"),
            "{error}"
        );
        presented.clean().await;
    });
}

#[test]
fn a_failure_is_told_and_cleaned_up() {
    let folder = TempDir::new().unwrap();
    let path = program(folder.path(), "echo 'no such zone' >&2\nif [ \"$1\" = present ]; then exit 3; fi");
    let hook = hook(&path, Duration::from_secs(20));
    let one = record("example.com", "a.thumb");
    let error = block_on(present(&hook, std::slice::from_ref(&one))).map(|_: Presented| ()).unwrap_err();
    for part in ["dns_hook", "_acme-challenge.example.com", "exit status: 3", "no such zone"] {
        assert!(error.what.contains(part), "{error}");
    }
    assert_eq!(calls(folder.path()).len(), 2, "{:?}", calls(folder.path()));
    assert!(calls(folder.path())[1].starts_with("cleanup"));
    // Nothing but records of dns-01 reaches the program.
    let odd = TxtRecord { name: "example.com".into(), value: one.value };
    assert!(hook.run(Action::Present, &odd).unwrap_err().contains("no record of dns-01"));
    assert_eq!(calls(folder.path()).len(), 2);
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let folder = TempDir::new().unwrap();
    let pid = folder.path().join("child");
    let path =
        program(folder.path(), &format!("[ $1 = present ] || exit 0\nsleep 1000 & echo $! >{}\nwait", pid.display()));
    let hook = hook(&path, Duration::from_secs(1));
    let error = hook.run(Action::Present, &record("example.com", "a.thumb")).unwrap_err();
    assert!(error.contains("limits.dns_hook"), "{error}");
    let child = fs::read_to_string(&pid).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    eventually("the child of the program is gone", || {
        let state = fs::read_to_string(&stat).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
    drop(hook);
    // The record may have been set: it is removed when the serving process ends.
    eventually("the cleanup", || (calls(folder.path()).len() == 2).then_some(()));
}

/// The serving process is killed with a record in the zone: the hook process takes it out.
#[test]
fn a_killed_process_leaves_no_record() {
    let folder = TempDir::new().unwrap();
    let path = program(folder.path(), "");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut child = pintle()
        .arg("dns-hook")
        .arg(&path)
        .arg("20")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    let mut channel = pintle::handover::Channel::on(ours);
    let one = record("example.com", "a.thumb");
    let request = serde_json::json!({ "action": "present", "record": { "name": one.name, "value": one.value } });
    channel.send(&request, &[], Duration::from_secs(10)).unwrap();
    let report: serde_json::Value = channel.receive(Some(Duration::from_secs(30)), None).unwrap();
    assert!(report["failure"].is_null(), "{report}");
    // SIGTERM to the whole group, as a terminal or a service manager sends it, does not end it early.
    send_signal("TERM", child.id());
    drop(channel);
    assert!(child.wait().unwrap().success());
    assert_eq!(
        calls(folder.path()),
        [format!("present {} {}", one.name, one.value), format!("cleanup {} {}", one.name, one.value)]
    );
}
