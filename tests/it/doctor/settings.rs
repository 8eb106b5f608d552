//! Kernel settings: the real files, the real programs that apply them, and the remedies as pasted.

use super::{Cable, Shell, commands, finding, ids};

const FORWARD: &str = "cat /proc/sys/net/ipv4/ip_forward";
const SYSTEMD: &str = "/lib/systemd/systemd-sysctl";
const PROCPS: &str = "sysctl --system";

/// A host with Docker's bridge, which has set ip_forward at run time, and a cloud image's file that says 0.
fn cloud(shell: &mut Shell) {
    shell.ok("ip link add docker0 type bridge && sysctl -w net.ipv4.ip_forward=1");
    shell.write("/etc/sysctl.d/99-cloud.conf", "# by the image\nnet.ipv4.ip_forward = 0");
}

#[test]
fn the_next_apply_would_cut_containers_off() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    cloud(&mut shell);
    let (report, code) = shell.doctor("--only sysctl");
    assert_eq!(code, 1);
    let found = finding(&report, "sysctl.docker-forwarding");
    assert_eq!((&found["verdict"], &found["subject"]), (&"fault".into(), &"net.ipv4.ip_forward".into()));
    let evidence = found["evidence"].to_string();
    assert!(evidence.contains("/etc/sysctl.d/99-cloud.conf:2: net.ipv4.ip_forward = 0"), "{evidence}");
    // It is so: both programs set 0.
    for program in [SYSTEMD, PROCPS] {
        shell.ok(&format!("sysctl -w net.ipv4.ip_forward=1; {program}"));
        assert_eq!(shell.ok(FORWARD), "0", "{program}");
    }
    shell.ok("sysctl -w net.ipv4.ip_forward=1");
    // The remedy, as pasted. The file's missing newline is a finding of its own.
    shell.ok(&commands(found, 0));
    shell.ok(&commands(finding(&report, "sysctl.final-newline"), 0));
    for program in [SYSTEMD, PROCPS] {
        shell.ok(program);
        assert_eq!(shell.ok(FORWARD), "1", "{program}");
    }
    let (report, code) = shell.doctor("--only sysctl");
    assert_eq!((ids(&report), code), (vec![], 0), "{report:#}");
    // The file ends with a newline: what a script appends is a line of its own.
    shell.ok("for f in /etc/sysctl.d/*.conf; do echo net.ipv4.conf.near.rp_filter=1 >> $f; done");
    for program in [SYSTEMD, PROCPS] {
        shell.ok(program);
        assert_eq!(shell.ok("cat /proc/sys/net/ipv4/conf/near/rp_filter /proc/sys/net/ipv4/ip_forward"), "1\n1");
    }
}

/// procps reads /etc/sysctl.conf after every other file, so that a later file alone is no remedy.
#[test]
fn remedies_win_over_the_old_file() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    shell.ok("ip link add docker0 type bridge && sysctl -w net.ipv4.ip_forward=1");
    shell.write("/etc/sysctl.conf", "# old\nnet.ipv4.ip_forward = 0\n");
    shell.ok("ln -s ../sysctl.conf /etc/sysctl.d/99-sysctl.conf");
    let (report, _) = shell.doctor("--only sysctl");
    shell.ok(&commands(finding(&report, "sysctl.docker-forwarding"), 0));
    for program in [SYSTEMD, PROCPS] {
        shell.ok(program);
        assert_eq!(shell.ok(FORWARD), "1", "{program}");
    }
    assert_eq!(ids(&shell.doctor("--only sysctl").0), [""; 0]);
    // A faulty line of it is one finding, although it has two names, and the link stays one.
    shell.write("/etc/sysctl.conf", "net.ipv4.ip_forward 1\n");
    let (report, _) = shell.doctor("--only sysctl");
    assert_eq!(ids(&report), ["sysctl.syntax"], "{report:#}");
    shell.ok(&commands(finding(&report, "sysctl.syntax"), 0));
    assert_eq!(shell.ok("readlink /etc/sysctl.d/99-sysctl.conf"), "../sysctl.conf");
    assert_eq!(ids(&shell.doctor("--only sysctl").0), [""; 0]);
}

#[test]
fn faults_of_lines_and_their_remedies() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    shell.ok("ip link add d0.5 type bridge && ip link add d0 type bridge");
    shell.ok("sysctl -w net.ipv4.conf.d0.rp_filter=1 net/ipv4/conf/d0.5/rp_filter=2 net.ipv4.ip_forward=0");
    for (id, text, key, value) in [
        ("sysctl.refused", "net.ipv4.conf.d0.rp_filter=1net.ipv4.ip_forward=0\n", "net/ipv4/ip_forward", "0"),
        ("sysctl.swallowed", "# the endnet.ipv4.ip_forward=0\n", "net/ipv4/ip_forward", "0"),
        ("sysctl.syntax", "net.ipv4.ip_forward 1\n", "net/ipv4/ip_forward", "0"),
        ("sysctl.device-name", "net.ipv4.conf.d0.5.rp_filter = 2\n", "net/ipv4/conf/d0.5/rp_filter", "2"),
        ("sysctl.final-newline", "net.ipv4.ip_forward=0", "net/ipv4/ip_forward", "0"),
        ("sysctl.final-newline", "# comment", "net/ipv4/ip_forward", "0"),
        ("sysctl.drift", "net.ipv4.ip_forward = 1\n", "net/ipv4/ip_forward", "0"),
        ("sysctl.drift", "net.ipv4.conf.*.rp_filter = 0\n", "net/ipv4/conf/d0.5/rp_filter", "2"),
    ] {
        shell.write("/etc/sysctl.d/50-x.conf", text);
        let (report, code) = shell.doctor("--only sysctl");
        assert_eq!(code, 1);
        let all = report["findings"].as_array().unwrap().clone();
        assert!(all.iter().all(|found| found["id"] == id) && !all.is_empty(), "{text}: {report:#}");
        for found in &all {
            shell.ok(&commands(found, 0));
        }
        let (report, code) = shell.doctor("--only sysctl");
        assert_eq!((ids(&report), code), (vec![], 0), "{text}: {report:#}");
        // And both programs leave it so, without an error.
        for program in [SYSTEMD, PROCPS] {
            shell.ok(program);
            assert_eq!(shell.ok(&format!("cat /proc/sys/{key}")), value, "{program}: {text}");
        }
        shell.ok("rm -f /etc/sysctl.d/*");
    }
    assert_eq!(ids(&shell.doctor("--only sysctl").0), [""; 0]);
}

/// One check finds this alone; its first remedy, as pasted, ends it.
#[track_caller]
fn heals(shell: &mut Shell, check: &str, id: &str) {
    let (report, code) = shell.doctor(&format!("--only {check}"));
    assert_eq!((ids(&report), code), (vec![id], 1), "{report:#}");
    // systemd does not run in this namespace, so `systemctl daemon-reload` fails.
    shell.run(&commands(finding(&report, id), 0));
    let (report, code) = shell.doctor(&format!("--only {check}"));
    assert_eq!((ids(&report), code), (vec![], 0), "{report:#}");
}

#[test]
fn limits_of_the_kernel_and_their_remedies() {
    let Some(cable) = Cable::make() else { return };
    let mut shell = cable.shell();
    shell.ok("sysctl -w net.core.somaxconn=128");
    heals(&mut shell, "accept", "accept.somaxconn");
    let track =
        "iptables -w -A INPUT -m conntrack --ctstate NEW -j ACCEPT && ls /proc/sys/net/netfilter/nf_conntrack_max";
    if shell.run(track).0 != 0 {
        return eprintln!("stepping aside: the firewall's part needs iptables with conntrack");
    }
    shell.ok("iptables -w -P FORWARD DROP && ip link add docker0 type bridge && sysctl -w net.ipv4.ip_forward=0");
    heals(&mut shell, "docker", "docker.forwarding-off");
    shell.ok("iptables -w -P FORWARD ACCEPT");
    heals(&mut shell, "docker", "docker.forward-policy");
    // Real connections in a table whose bound is ours: the kernel has one bound for all namespaces.
    let send = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 1000 + n))";
    shell.ok(&format!("python3 -c \"import socket; [{send} for n in range(7)]\""));
    shell.write("/run/max", "8\n");
    shell.ok("mount --bind /run/max /proc/sys/net/netfilter/nf_conntrack_max");
    heals(&mut shell, "conntrack", "conntrack.full");
}
