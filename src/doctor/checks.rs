//! All checks, in the order in which people read their findings.

use super::finding::{CheckResults, Finding, Unknown};
use super::host::Host;
use super::{
    accept_queue, clock, conntrack, descriptors, docker, huge_pages, key_files, listeners, name_servers, neighbours,
    nic, outside, ports, pressure, sysctl, units, upstreams,
};

/// A check: its name, its subject, and its function.
pub struct Check {
    /// The stable name, as programs know it.
    pub id: &'static str,
    /// The subject, for people.
    pub subject: &'static str,
    /// The function.
    pub check: fn(&Host) -> CheckResults,
}

/// The checks.
pub const CHECKS: &[Check] = &[
    Check { id: "sysctl", subject: "kernel settings at the next apply", check: sysctl::check::check },
    Check { id: "docker", subject: "Docker's networks", check: docker::check },
    Check { id: "neighbours", subject: "next hops and neighbours", check: neighbours::check },
    Check { id: "upstreams", subject: "upstreams: addresses, path, answers, certificates", check: upstreams::check },
    Check { id: "dns", subject: "name servers", check: name_servers::check },
    Check { id: "clock", subject: "clock", check: clock::check },
    Check { id: "nic", subject: "network devices and drivers", check: nic::check },
    Check { id: "conntrack", subject: "tracked connections", check: conntrack::check },
    Check { id: "accept", subject: "connections that wait for accept", check: accept_queue::check },
    Check { id: "descriptors", subject: "open files", check: descriptors::check },
    Check { id: "ports", subject: "local ports and TIME_WAIT", check: ports::check },
    Check { id: "memory", subject: "memory and pressure", check: pressure::check },
    Check { id: "huge-pages", subject: "transparent huge pages", check: huge_pages::check },
    Check { id: "listen", subject: "other programs on our ports", check: listeners::check },
    Check { id: "outside", subject: "ports 80 and 443, as a CA reaches them", check: outside::check },
    Check { id: "systemd", subject: "overrides of the service", check: units::check },
    Check { id: "keys", subject: "permissions of private keys", check: key_files::check },
];

/// The results of all checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoctorReport {
    /// The findings, faults first.
    pub findings: Vec<Finding>,
    /// Parts that could not be judged.
    pub unknown: Vec<Unknown>,
}

/// Returns the checks with these names, each once; all if there are none.
pub fn wanted(only: &[String]) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(|check| only.is_empty() || only.iter().any(|name| name == check.id))
}

/// Runs the checks with these names; all if there are none. Returns the results of each.
#[must_use]
pub fn run(host: &Host, only: &[String]) -> Vec<(&'static Check, CheckResults)> {
    wanted(only).map(|check| (check, (check.check)(host))).collect()
}

impl DoctorReport {
    /// Joins the results of checks.
    #[must_use]
    pub fn of(all: Vec<(&'static Check, CheckResults)>) -> Self {
        let mut report = Self::default();
        for (Check { id, .. }, results) in all {
            report.findings.extend(results.findings);
            report.unknown.extend(results.unknown.into_iter().map(|needs| Unknown { check: id, needs }));
        }
        // Stable: checks keep their order among findings of one verdict.
        report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        report
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    /// The files of a small host, in good health.
    const HEALTHY: &[(&str, &str)] = &[
        ("/etc/sysctl.conf", "# all comments\n#net.ipv4.ip_forward=1\n"),
        ("/etc/sysctl.d/99-sysctl.conf", "-> ../sysctl.conf"),
        (
            "/usr/lib/sysctl.d/50-default.conf",
            "kernel.sysrq = 0x01b6\n-net.ipv4.conf.all.rp_filter\nnet.ipv4.conf.*.rp_filter = 2\n",
        ),
        ("/proc/sys/kernel/sysrq", "438\n"),
        ("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        ("/proc/sys/net/ipv4/ip_forward", "0\n"),
        ("/proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
        ("/proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n"),
        ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("/proc/sys/net/ipv4/tcp_max_tw_buckets", "131072\n"),
        ("/proc/sys/net/core/somaxconn", "4096\n"),
        ("/proc/sys/fs/file-nr", "1024\t0\t9223372036854775807\n"),
        ("/proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n"),
        ("/proc/pressure/cpu", "some avg10=1.00 avg60=2.00 avg300=0.00 total=1\n"),
        ("/proc/pressure/io", "some avg10=0 avg60=0 avg300=0 total=1\nfull avg10=0 avg60=0.10 avg300=0 total=1\n"),
        ("/proc/pressure/memory", "some avg10=0 avg60=0 avg300=0 total=1\nfull avg10=0 avg60=0 avg300=0 total=1\n"),
        ("/proc/net/tcp", "sl\n 0: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n"),
        ("/sys/class/net/eth0/device/driver", "-> ../../bus/virtio/drivers/virtio_net"),
        ("/sys/class/net/eth0/statistics/tx_dropped", "12\n"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
        ("/sys/kernel/mm/transparent_hugepage/defrag", "always defer defer+madvise [madvise] never\n"),
    ];

    #[test]
    fn a_healthy_host_has_no_findings() {
        let (_folder, files) = tree(HEALTHY);
        let host = Host { synchronised: Some(true), ..Host::of_files(files) };
        assert_eq!(DoctorReport::of(run(&host, &[])), DoctorReport::default());
    }

    #[test]
    fn an_empty_root_has_no_findings() {
        assert_eq!(DoctorReport::of(run(&Host::of_files(tree(&[]).1), &[])).findings, []);
    }

    #[test]
    fn names_are_distinct_and_findings_belong_to_a_check() {
        let mut names: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }

    #[test]
    fn a_check_that_is_named_twice_runs_once() {
        let only = ["keys", "sysctl", "keys"].map(str::to_owned);
        assert_eq!(wanted(&only).map(|check| check.id).collect::<Vec<_>>(), ["sysctl", "keys"]);
        assert_eq!(wanted(&[]).count(), CHECKS.len());
    }

    /// No content of a file makes a check panic.
    #[test]
    fn any_bytes_in_any_file() {
        let odd = [
            "",
            "\n",
            "\0",
            "=",
            "-",
            "- =",
            "a",
            "é",
            "18446744073709551616",
            "-1",
            "1 2 3 4",
            ": :\n: :",
            "[always]",
            "full avg60=NaN",
            "net.ipv4.=\n-=",
            "0::/../..",
            "Max open files",
            " 0: : : 0A :",
        ];
        for text in odd {
            let contents: Vec<(&str, &str)> =
                HEALTHY.iter().map(|(path, old)| (*path, if old.starts_with("-> ") { *old } else { text })).collect();
            let (_folder, files) = tree(&contents);
            let mut host = Host { running: Some(Default::default()), ..Host::of_files(files) };
            host.wanted.listen = vec!["[::]:443".parse().unwrap()];
            host.before = super::super::counters::KernelCounters::read(&host.files);
            let _ = run(&host, &[]);
        }
    }
}
