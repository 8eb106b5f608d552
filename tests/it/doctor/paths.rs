//! The way to the upstream: packets that do not fit, servers that do not answer, certificates that end.

use std::net::TcpListener;

use tempfile::TempDir;

use super::{Cable, commands, config, finding, ids};
use crate::harness::{Origin, Reply, outcome, output, pintle};

/// Full packets get lost, and nobody says so.
#[test]
fn a_black_hole_of_path_mtu() {
    let Some(cable) = Cable::make() else { return };
    let origin = cable.within(1, || Origin::start_at("10.98.0.2:0", |_| Reply::ok("ok")));
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), &origin.url());
    let mut shell = cable.shell();
    let arguments = format!("-c {config} --only upstreams");
    assert_eq!(ids(&shell.doctor(&arguments).0), [""; 0]);
    // The far device takes smaller packets than it announces; segmentation must not hide that.
    shell.ok("ip link set near gso_max_segs 1 gso_max_size 2000; ethtool -K near tso off gso off || true");
    let far = &cable.names[1];
    output(std::process::Command::new("ip").args(["-n", far, "link", "set", "far", "mtu", "1280"]));
    output(std::process::Command::new("ip").args([
        "-n",
        far,
        "route",
        "change",
        "10.98.0.0/24",
        "dev",
        "far",
        "src",
        "10.98.0.2",
        "advmss",
        "1460",
    ]));
    let (report, code) = shell.doctor(&arguments);
    assert_eq!((ids(&report), code), (vec!["upstream.path-mtu"], 1), "{report:#}");
    // The setting is there. (On this cable, the device itself refuses the packets, so that no probing helps.)
    let remedy = commands(finding(&report, "upstream.path-mtu"), 0);
    assert_eq!(shell.ok(remedy.lines().next().unwrap()), "net.ipv4.tcp_mtu_probing = 1");
}

/// Every wait ends.
#[test]
fn an_upstream_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = TempDir::new().unwrap();
    for (scheme, id) in [("http", "upstream.no-response"), ("https", "upstream.tls")] {
        let config = config(folder.path(), &format!("{scheme}://{}", silent.local_addr().unwrap()));
        let (code, text, _) = outcome(pintle().args(["doctor", "--json", "--only", "upstreams", "-c", &config]));
        assert_eq!(code, 1, "{text}");
        assert_eq!(ids(&serde_json::from_str(&text).unwrap()), [id]);
    }
}
