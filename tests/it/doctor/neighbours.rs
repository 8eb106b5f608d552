//! Neighbours: real entries, wrong ones among them, and the remedies as pasted.

use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{Cable, PINTLE, commands, config, finding, ids};
use crate::harness::{Origin, Reply, eventually, output};

/// An upstream on the far side, which answers everything.
fn upstream(cable: &Cable) -> Origin {
    cable.within(1, || Origin::start_at("10.98.0.2:0", |_| Reply::ok("ok")))
}

#[test]
fn a_wrong_hardware_address_is_doubted_and_deleted() {
    let Some(cable) = Cable::make() else { return };
    let origin = upstream(&cable);
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), &origin.url());
    let mut shell = cable.shell();
    let arguments = format!("-c {config} --only neighbours --only upstreams");
    let (report, code) = shell.doctor(&arguments);
    assert_eq!((ids(&report), code), (vec![], 0), "{report:#}");
    assert!(report["visits"][0]["first_byte_ms"].as_f64().unwrap() > 0.0, "{report:#}");
    // Another machine's address in our entry, as a missed announcement leaves it.
    shell.ok("ip neigh replace 10.98.0.2 lladdr 02:00:00:00:00:99 dev near nud permanent");
    let (report, code) = shell.doctor(&arguments);
    assert_eq!((ids(&report), code), (vec!["upstream.unreachable", "neighbour.doubtful"], 1), "{report:#}");
    let found = finding(&report, "neighbour.doubtful");
    assert!(found["evidence"][0].as_str().unwrap().contains("lladdr 02:00:00:00:00:99 PERMANENT"), "{found:#}");
    shell.run(&commands(found, 0));
    let (report, code) = shell.doctor(&arguments);
    assert_eq!((ids(&report), code), (vec![], 0), "{report:#}");
}

#[test]
fn a_next_hop_that_is_not_there() {
    let Some(cable) = Cable::make() else { return };
    let folder = TempDir::new().unwrap();
    let mut shell = cable.shell();
    shell.ok("ip route add 192.0.2.0/24 via 10.98.0.77");
    let config = config(folder.path(), "http://192.0.2.1:80");
    let (report, code) = shell.doctor(&format!("-c {config} --only neighbours"));
    assert_eq!((ids(&report), code), (vec!["neighbour.failed"], 1), "{report:#}");
    let found = finding(&report, "neighbour.failed");
    assert_eq!(found["subject"], "10.98.0.77");
    assert!(found["evidence"].to_string().contains("192.0.2.1"), "{found:#}");
}

#[test]
fn one_hardware_address_behind_many_and_a_full_table() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    shell.ok("for n in 11 12 13; do ip neigh replace 10.98.0.$n lladdr 02:00:00:00:00:aa dev near nud stale; done");
    let (report, _) = shell.doctor("--only neighbours");
    assert_eq!(ids(&report), ["neighbour.shared-mac"], "{report:#}");
    shell.ok(&commands(finding(&report, "neighbour.shared-mac"), 0));
    assert_eq!(ids(&shell.doctor("--only neighbours").0), [""; 0]);
}

#[test]
fn an_entry_that_changes_while_watching() {
    let Some(cable) = Cable::make() else { return };
    let mut watching = Command::new("ip");
    watching.args(["netns", "exec", &cable.names[0], PINTLE, "doctor", "--json", "--only", "neighbours"]);
    let mut watching = watching
        .args(["--watch", "200ms", "--rounds", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut turn = 0;
    eventually("the watch ends", || {
        turn += 1;
        let mac = format!("02:00:00:00:00:0{}", turn % 2);
        let arguments = ["-n", &cable.names[0], "neigh", "replace", "10.98.0.2", "lladdr", &mac, "dev", "near"];
        output(Command::new("ip").args(arguments));
        std::thread::sleep(Duration::from_millis(50));
        watching.try_wait().unwrap()
    });
    let text = String::from_utf8(watching.wait_with_output().unwrap().stdout).unwrap();
    let rounds: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rounds.len(), 4);
    assert_eq!(ids(rounds.last().unwrap()), ["neighbour.flapping"], "{text}");
}
