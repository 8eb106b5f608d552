//! The command: output, exit codes, other programs on its ports.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Cable, config, ids};
use crate::harness::{Authority, BLOG, Origin, Pintle, Reply, blog, outcome, pintle, program};

/// A namespace without anything in it is a healthy host. (The pressure and the clock are those of the machine.)
#[test]
fn nothing_is_found_on_a_healthy_host() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    let all = [
        "sysctl",
        "docker",
        "neighbours",
        "upstreams",
        "dns",
        "nic",
        "conntrack",
        "accept",
        "ports",
        "listen",
        "systemd",
        "keys",
    ];
    let only = all.map(|check| format!("--only {check}")).join(" ");
    let origin = cable.within(1, || Origin::start_at("10.98.0.2:0", |_| Reply::ok("ok")));
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), &origin.url());
    let (report, code) = shell.doctor(&format!("{only} -c {config}"));
    assert_eq!((ids(&report), code, &report["ok"]), (vec![], 0, &Value::Bool(true)), "{report:#}");
    let (code, text) = shell.run(&format!("{} doctor {only} -c {config}", super::PINTLE));
    assert!(code == 0 && text.ends_with("12 checks: nothing found"), "{text}");
}

#[test]
fn a_configuration_that_is_missing_is_an_error() {
    let (code, text, errors) = outcome(pintle().args(["doctor", "--only", "sysctl", "-c", "missing.toml"]));
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(errors.starts_with("error: missing.toml: no such file\n  hint: "), "{errors}");
    let (code, text, errors) = outcome(pintle().args(["doctor", "--only", "sysctl", "--root", "/missing"]));
    assert_eq!((code, text.as_str()), (1, ""));
    assert!(errors.starts_with("error: /missing: no such folder\n  hint: "), "{errors}");
}

#[test]
fn findings_are_printed_with_their_remedies() {
    let root = TempDir::new().unwrap();
    let settings = root.path().join("etc/sysctl.d");
    fs::create_dir_all(&settings).unwrap();
    fs::create_dir_all(root.path().join("proc/sys/vm")).unwrap();
    fs::write(root.path().join("proc/sys/vm/swappiness"), "60\n").unwrap();
    fs::write(settings.join("1.conf"), "vm.swappiness = 10 \x1b[31m\n").unwrap();
    let mut command = pintle();
    command.args(["doctor", "--only", "sysctl", "--root"]).arg(root.path()).current_dir(root.path());
    let (code, text, errors) = outcome(&mut command);
    assert_eq!((code, errors.as_str()), (1, ""));
    assert!(text.contains("warning: vm.swappiness is 60 now, and 10 at the next apply [sysctl.drift]\n"), "{text}");
    assert!(text.contains("\n    printf '%s\\n' 'vm.swappiness = 60' >> /etc/sysctl.d/zz-pintle.conf\n"), "{text}");
    assert!(!text.contains('\x1b') && text.ends_with("1 check: 1 finding\n"), "{text:?}");
    // A watch without a terminal is plain, too.
    let (code, text, _) = outcome(command.args(["--watch", "100ms", "--rounds", "2"]));
    assert_eq!((code, text.matches("1 check: 1 finding").count()), (1, 2), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

/// Each round replaces the file as a whole; Prometheus' own linter reads it.
#[test]
fn a_watch_writes_metrics() {
    let root = TempDir::new().unwrap();
    let settings = root.path().join("etc/sysctl.d");
    fs::create_dir_all(&settings).unwrap();
    fs::create_dir_all(root.path().join("proc/sys/vm")).unwrap();
    fs::write(root.path().join("proc/sys/vm/swappiness"), "60\n").unwrap();
    fs::write(settings.join("1.conf"), "vm.swappiness = 10\n").unwrap();
    let file = root.path().join("pintle_doctor.prom");
    let doctor = |only: &[&str], code: i32| {
        let mut command = pintle();
        command
            .args(["doctor", "--watch", "100ms", "--rounds", "2", "--metrics"])
            .arg(&file)
            .arg("--root")
            .arg(root.path());
        only.iter().for_each(|only| _ = command.args(["--only", only]));
        let (found, out, err) = outcome(command.current_dir(root.path()));
        assert_eq!(found, code, "{out}{err}");
        fs::read_to_string(&file).unwrap_or_default()
    };
    let text = doctor(&["sysctl", "keys"], 1);
    for line in [
        "pintle_doctor_findings{check=\"sysctl\",verdict=\"fault\"} 0\n",
        "pintle_doctor_findings{check=\"sysctl\",verdict=\"warning\"} 1\n",
        "pintle_doctor_findings{check=\"keys\",verdict=\"fault\"} 0\n",
        "pintle_doctor_unknown{check=\"keys\"} 0\n",
    ] {
        assert!(text.contains(line), "{line} {text}");
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let lint = format!("{} check metrics < {}", program("promtool").display(), file.display());
    assert_eq!(outcome(Command::new("sh").args(["-c", &lint])), (0, String::new(), String::new()));
    // Repaired.
    fs::write(settings.join("1.conf"), "vm.swappiness = 60\n").unwrap();
    let text = doctor(&["sysctl"], 0);
    assert!(text.contains("{check=\"sysctl\",verdict=\"warning\"} 0\n") && !text.contains("keys"), "{text}");
    let left = fs::read_dir(root.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut left: Vec<String> = left.collect();
    left.sort();
    assert_eq!(left, ["etc", "pintle_doctor.prom", "proc"]);
    // A folder that is not there fails loudly.
    let mut command = pintle();
    command.args(["doctor", "--only", "sysctl", "--metrics", "/nowhere/x.prom", "--root"]).arg(root.path());
    let (code, _, err) = outcome(&mut command);
    assert!(code == 1 && err.contains("cannot write the metrics"), "{err}");
}

#[test]
fn wrong_usage() {
    for arguments in [&["--only", "sysctls"][..], &["--rounds", "2"], &["--watch", "soon"]] {
        let (code, _, errors) = outcome(pintle().arg("doctor").args(arguments));
        assert_eq!(code, 2, "{arguments:?} {errors}");
    }
}

#[test]
fn the_running_pintle_is_no_stranger_on_its_ports() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let state = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    let running = Pintle::start(&authority, &(state + &blog(&authority, &origin)));
    let (https, path) = (running.https(), running.config_path());
    // With the ports that the kernel chose.
    running.rewrite(|text| text.replacen("127.0.0.1:0", &https.to_string(), 1));
    let doctor = |path: &Path, only: &str| -> Value {
        let (_, text, errors) = outcome(pintle().args(["doctor", "--json", "--only", only, "-c"]).arg(path));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"))
    };
    assert_eq!(ids(&doctor(&path, "listen")), [""; 0]);
    assert_eq!(ids(&doctor(&path, "keys")), [""; 0], "{BLOG}");
    let key = authority.folder().join(
        fs::read_dir(authority.folder())
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .find(|n| n.to_string_lossy().ends_with(".key"))
            .unwrap(),
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let report = doctor(&path, "keys");
    assert!(ids(&report).contains(&"keys.permissions"), "{report:#} {}", key.display());
    let copy = authority.folder().join("copy.toml");
    fs::copy(&path, &copy).unwrap();
    drop(running);
    // Another program takes its place.
    let _other = TcpListener::bind(https).unwrap();
    let report = doctor(&copy, "listen");
    assert_eq!(ids(&report), ["listen.taken"], "{report:#}");
}
