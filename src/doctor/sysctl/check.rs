//! The check of kernel settings.

use std::collections::BTreeSet;

use super::line::{Tool, key_of};
use super::plan::{FORWARD, FinalValue, PROC, Write, outcomes, plan, running};
use super::value::{Written, write};
use super::{faults, remedy};
use crate::doctor::docker;
use crate::doctor::files::HostFiles;
use crate::doctor::finding::{CheckResults, Finding};
use crate::doctor::host::Host;

/// The settings that keep containers connected.
const FORWARDING: [&str; 2] = [FORWARD, "net/ipv6/conf/all/forwarding"];

/// The folders of the distribution.
const VENDOR: [&str; 2] = ["/usr/lib/sysctl.d/", "/lib/sysctl.d/"];

/// Compares the running values with those of the next apply.
#[must_use]
pub fn check(host: &Host) -> CheckResults {
    let files = &host.files;
    let mut results = CheckResults::default();
    let [systemd, procps] = Tool::ALL.map(|tool| plan(files, tool));
    let (by_systemd, by_procps) = (outcomes(files, &systemd.writes), outcomes(files, &procps.writes));
    let paths: BTreeSet<&String> = by_systemd.values.keys().chain(by_procps.values.keys()).collect();
    for path in paths {
        // In a container, the host's kernel settings are read-only: no apply changes them.
        if files.is_read_only(&format!("{PROC}/{path}")) {
            continue;
        }
        let Some(now) = running(files, path) else { continue };
        let planned = [by_systemd.values.get(path), by_procps.values.get(path)];
        results.findings.extend(Setting { files, path, now, planned, by_procps: &procps.writes }.findings());
    }
    results.findings.extend(faults::of_lines(files, &procps, &by_procps.refused));
    results.findings.extend(faults::of_files(files, [&systemd, &procps]));
    let unreadable: BTreeSet<&String> = systemd.unreadable.iter().chain(&procps.unreadable).collect();
    for file in unreadable {
        results.needs(format!("permission to read {file}"));
    }
    results
}

/// A setting that the files name.
struct Setting<'s> {
    files: &'s HostFiles,
    /// The path below /proc/sys.
    path: &'s str,
    /// The running value.
    now: String,
    /// The outcomes of the programs, in the order of `Tool::ALL`.
    planned: [Option<&'s FinalValue>; 2],
    /// All writes of procps.
    by_procps: &'s [Write],
}

impl Setting<'_> {
    fn findings(&self) -> Vec<Finding> {
        if self.planned.iter().flatten().all(|outcome| self.is_idle(outcome)) {
            return Vec::new();
        }
        let is_change = |outcome: &&&FinalValue| write(&outcome.value, &self.now) != Written::Same;
        let changing: Vec<&FinalValue> = self.planned.iter().flatten().filter(is_change).copied().collect();
        let cuts = changing.iter().any(|outcome| outcome.value == "0") && self.now != "0";
        let proof = if cuts && FORWARDING.contains(&self.path) { docker::evidence(self.files) } else { None };
        let change = match proof {
            Some(proof) => Some(self.cut(proof)),
            None => changing.first().map(|next| self.drift(next)),
        };
        change.into_iter().chain(self.disagreement()).collect()
    }

    /// A line of the distribution that nothing applies: without systemd, as in a container, its defaults are not in
    /// force, and nobody misses them. Settings of the network count everywhere.
    fn is_idle(&self, outcome: &FinalValue) -> bool {
        let is_vendors = VENDOR.iter().any(|folder| outcome.place.file.starts_with(folder));
        is_vendors && !self.path.starts_with("net/") && !self.files.is_folder("/run/systemd/system")
    }

    fn drift(&self, next: &FinalValue) -> Finding {
        let key = key_of(self.path);
        let what = format!("{key} is {} now, and {} at the next apply", remedy::words(&self.now), next.value);
        Finding::warning("sysctl.drift", &key, what)
            .evidences(self.evidence())
            .remedy("keep the running value: a later file, with a final newline", self.keep())
            .remedy("or take the value of the files now", [remedy::set_now(self.path, &next.value)])
    }

    fn cut(&self, proof: String) -> Finding {
        let (key, now) = (key_of(self.path), &self.now);
        let what = format!("{key} is {now} now, and 0 at the next apply: Docker's containers lose their network");
        let finding = Finding::fault("sysctl.docker-forwarding", &key, what)
            .evidences(self.evidence())
            .evidence(proof)
            .evidence("Docker sets it to 1 when it creates a network, not later")
            .remedy("keep 1: a later file, with a final newline", self.keep());
        docker::with_forward_policy(finding)
    }

    /// The two programs set different values, or one of them sets nothing.
    fn disagreement(&self) -> Option<Finding> {
        let [one, other] = self.planned.map(|outcome| outcome.map(|outcome| outcome.value.as_str()));
        if one == other {
            return None;
        }
        let key = key_of(self.path);
        let what = format!(
            "{key}: systemd-sysctl sets {} at boot, sysctl --system sets {}",
            one.unwrap_or("nothing"),
            other.unwrap_or("nothing")
        );
        Some(
            Finding::warning("sysctl.disagreement", &key, what)
                .evidences(self.evidence())
                .remedy("let both set the running value", self.keep()),
        )
    }

    fn keep(&self) -> Vec<String> {
        remedy::keep(self.files, self.by_procps, self.path, &self.now)
    }

    fn evidence(&self) -> Vec<String> {
        let mut lines = vec![format!("running value: {}", remedy::words(&self.now))];
        for (tool, outcome) in Tool::ALL.iter().zip(self.planned) {
            lines.push(match outcome {
                Some(outcome) => format!("{} sets {}, by {}", tool.name(), outcome.value, outcome.place.shown()),
                None => format!("{} sets nothing", tool.name()),
            });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::files::tests::tree;
    use crate::doctor::finding::FindingSeverity;

    const CLOUD: (&str, &str) = ("/etc/sysctl.d/99-cloud.conf", "# cloud image\nnet.ipv4.ip_forward = 0\n");
    const FORWARDS: (&str, &str) = ("/proc/sys/net/ipv4/ip_forward", "1\n");
    const DOCKER: (&str, &str) = ("/sys/class/net/docker0/ifindex", "3\n");

    fn found(contents: &[(&str, &str)]) -> Vec<Finding> {
        let (_folder, files) = tree(contents);
        check(&Host::of_files(files)).findings
    }

    fn ids(contents: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        found(contents).into_iter().map(|finding| (finding.id, finding.subject)).collect()
    }

    #[test]
    fn nothing_on_a_healthy_host() {
        assert_eq!(ids(&[]), []);
        assert_eq!(ids(&[FORWARDS, DOCKER, ("/etc/sysctl.d/9.conf", "net.ipv4.ip_forward = 1\n")]), []);
        // Defaults of the distribution in a container, where nothing applies them.
        let vendors =
            [("/proc/sys/kernel/pid_max", "32768"), ("/usr/lib/sysctl.d/50.conf", "kernel.pid_max = 4194304\n")];
        assert_eq!(ids(&vendors), []);
        assert_eq!(ids(&[vendors[0], vendors[1], ("/run/systemd/system/", "")])[0].0, "sysctl.drift");
        assert_eq!(ids(&[FORWARDS, ("/usr/lib/sysctl.d/50.conf", "net.ipv4.ip_forward = 0\n")])[0].0, "sysctl.drift");
        // A key of a module that is not loaded.
        assert_eq!(ids(&[("/etc/sysctl.d/9.conf", "net.bridge.bridge-nf-call-iptables = 1\n")]), []);
    }

    #[test]
    fn the_classic_of_cloud_images_and_docker() {
        let all = found(&[CLOUD, FORWARDS, DOCKER]);
        assert_eq!(all.len(), 1, "{all:#?}");
        let finding = &all[0];
        assert_eq!((finding.id, finding.verdict), ("sysctl.docker-forwarding", FindingSeverity::Fault));
        assert!(
            finding.evidence.iter().any(|line| line.contains("/etc/sysctl.d/99-cloud.conf:2: net.ipv4.ip_forward = 0"))
        );
        assert_eq!(
            finding.remedies[0].run,
            ["printf '%s\\n' 'net.ipv4.ip_forward = 1' >> /etc/sysctl.d/zz-pintle.conf"]
        );
        // Without Docker, it is only a difference.
        assert_eq!(ids(&[CLOUD, FORWARDS]), [("sysctl.drift", "net.ipv4.ip_forward".to_owned())]);
        // The other name of the setting.
        let other = ("/etc/sysctl.d/99-x.conf", "net.ipv4.conf.all.forwarding=0\n");
        assert_eq!(ids(&[other, FORWARDS, DOCKER])[0].0, "sysctl.docker-forwarding");
    }

    /// Both programs read most files. (A link to itself is unreadable for root, too.)
    #[test]
    fn an_unreadable_file_is_named_once() {
        let (_folder, files) =
            tree(&[("/etc/sysctl.d/1.conf", "-> 1.conf"), ("/etc/sysctl.d/2.conf", "-> 2.conf"), FORWARDS]);
        let needs = ["/etc/sysctl.d/1.conf", "/etc/sysctl.d/2.conf"].map(|path| format!("permission to read {path}"));
        assert_eq!(check(&Host::of_files(files)).unknown, needs);
    }

    #[test]
    fn each_kind_of_fault() {
        let swappiness = ("/proc/sys/vm/swappiness", "60\n");
        let device = ("/proc/sys/net/ipv4/conf/d0.5/rp_filter", "1\n");
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("sysctl.drift", &[swappiness, ("/run/sysctl.d/1.conf", "vm.swappiness = 10\n")]),
            ("sysctl.drift", &[swappiness, ("/etc/sysctl.d/1.conf", "vm.swappiness = 0x0a\n")]),
            ("sysctl.final-newline", &[swappiness, ("/etc/sysctl.d/1.conf", "vm.swappiness = 60")]),
            ("sysctl.swallowed", &[("/etc/sysctl.d/1.conf", "# the endnet.ipv4.ip_forward=1\n")]),
            ("sysctl.refused", &[swappiness, ("/etc/sysctl.d/1.conf", "vm.swappiness = 60net.ipv4.ip_forward=1\n")]),
            ("sysctl.syntax", &[("/etc/sysctl.d/1.conf", "vm.swappiness 60\n")]),
            ("sysctl.device-name", &[device, ("/etc/sysctl.d/1.conf", "net.ipv4.conf.d0.5.rp_filter = 1\n")]),
        ];
        for (id, contents) in cases {
            let found: Vec<&str> = ids(contents).into_iter().map(|(id, _)| id).collect();
            assert_eq!(found, [*id], "{contents:?}");
        }
    }

    #[test]
    fn the_programs_disagree() {
        let swappiness = ("/proc/sys/vm/swappiness", "60\n");
        let old = ("/etc/sysctl.conf", "vm.swappiness = 60\n");
        // Without the link, systemd does not read the old file.
        assert_eq!(ids(&[swappiness, old]), [("sysctl.disagreement", "vm.swappiness".to_owned())]);
        let link = ("/etc/sysctl.d/99-sysctl.conf", "-> ../sysctl.conf");
        assert_eq!(ids(&[swappiness, old, link]), []);
        let hidden = ("/etc/sysctl.d/.90-a.conf", "vm.swappiness = 60\n");
        assert_eq!(ids(&[swappiness, hidden]), [("sysctl.disagreement", "vm.swappiness".to_owned())]);
    }

    #[test]
    fn the_old_file_decides_for_procps() {
        let contents = [("/proc/sys/vm/swappiness", "60"), ("/etc/sysctl.conf", "# x\nvm.swappiness = 10\n")];
        let finding = &found(&contents)[0];
        assert_eq!(finding.remedies[0].run.last().unwrap(), "sed -i '2s/^/# /' /etc/sysctl.conf");
        let both = [
            ("/proc/sys/vm/swappiness", "60"),
            ("/etc/sysctl.conf", "vm.swappiness = 60\n"),
            ("/etc/sysctl.d/1.conf", "vm.swappiness = 10\n"),
            ("/etc/sysctl.d/0.conf", "-x = 1\n"),
        ];
        let ids: Vec<&str> = found(&both).iter().map(|finding| finding.id).collect();
        assert_eq!(ids, ["sysctl.drift", "sysctl.disagreement"]);
    }

    #[test]
    fn a_file_is_edited_where_it_is() {
        let text = "vm.swappiness = 60net.ipv4.ip_forward=1\nvm.swappiness 60\nnet.ipv4.conf.d0.5.rp_filter = 1";
        let swappiness = ("/proc/sys/vm/swappiness", "60\n");
        let device = ("/proc/sys/net/ipv4/conf/d0.5/rp_filter", "1\n");
        let of = |file: &str, link: (&str, &str)| -> Vec<String> {
            let all = found(&[swappiness, device, (file, text), link]);
            all.into_iter().flat_map(|finding| finding.remedies).flat_map(|remedy| remedy.run).collect()
        };
        // procps reads the file by both names: each fault is named once, and no remedy replaces the link.
        let commands = of("/etc/sysctl.conf", ("/etc/sysctl.d/99-sysctl.conf", "-> ../sysctl.conf"));
        assert_eq!(commands.len(), 4, "{commands:#?}");
        assert!(commands.iter().all(|run| run.starts_with("sed -i ") && run.ends_with(" /etc/sysctl.conf")));
        let commands = of("/opt/x.conf", ("/etc/sysctl.d/1.conf", "-> ../../opt/x.conf"));
        assert_eq!(commands.len(), 4, "{commands:#?}");
        let (begin, end) = ("sed -i --follow-symlinks ", " /etc/sysctl.d/1.conf");
        assert!(commands.iter().all(|run| run.starts_with(begin) && run.ends_with(end)), "{commands:#?}");
    }
}
