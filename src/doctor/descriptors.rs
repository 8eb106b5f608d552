//! File descriptors: the limits of the process and of the host.

use super::counters::is_full;
use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::sysctl::set_and_keep;

const OF_HOST: &str = "/proc/sys/fs/file-nr";
/// The part that is too full, in percent.
const FULL: u64 = 90;

/// Checks the limits of open files against the configured connections.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    if let Some(running) = &host.running {
        of_process(host, running.pid, &mut results);
    }
    let numbers: Vec<u64> =
        host.files.text(OF_HOST).unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    if let [open, _, max] = numbers[..]
        && max > 0
        && is_full(open, max, FULL)
    {
        let larger = max.saturating_mul(4).to_string();
        results.push(
            Finding::warning("descriptors.host", "fs.file-max", format!("the host has {open} of {max} files open"))
                .evidence(format!("{OF_HOST}: {open} of {max}"))
                .remedy("raise the limit, now and at every boot", set_and_keep(&host.files, "fs/file-max", &larger)),
        );
    }
    results
}

fn of_process(host: &Host, pid: u32, results: &mut CheckResults) {
    let path = format!("/proc/{pid}/limits");
    let Some(limits) = host.files.text(&path) else { return results.needs(format!("permission to read {path}")) };
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    // The hard limit: pintle raises the soft one to it.
    let Some(limit) = line.split_whitespace().nth(4).and_then(|word| word.parse::<u64>().ok()) else { return };
    let wanted = host.wanted.open_files;
    let with_remedy = |finding: Finding, least: u64| {
        finding.remedy(
            "raise the limit of the service, and restart it",
            [
                "mkdir -p /etc/systemd/system/pintle.service.d".to_owned(),
                format!(
                    "printf '[Service]\\nLimitNOFILE={}\\n' > /etc/systemd/system/pintle.service.d/files.conf",
                    least.next_power_of_two().max(65_536)
                ),
                "systemctl daemon-reload".to_owned(),
                "systemctl restart pintle".to_owned(),
            ],
        )
    };
    if limit < wanted {
        let what = format!("pintle may open {limit} files; its limits of connections need {wanted}");
        let finding =
            Finding::warning("descriptors.limit", format!("process {pid}"), what).evidence(format!("{path}: {line}"));
        let finding = finding.evidence(format!("limits.connections: {}", host.wanted.connections));
        results.push(with_remedy(finding, wanted));
    }
    let folder = format!("/proc/{pid}/fd");
    let open = u64::try_from(host.files.names(&folder).len()).unwrap_or(u64::MAX);
    if open == 0 {
        results.needs(format!("permission to read {folder}"));
    } else if is_full(open, limit, FULL) {
        let what = format!("pintle has {open} of {limit} files open");
        let finding = Finding::warning("descriptors.used", format!("process {pid}"), what);
        results.push(with_remedy(finding.evidence(format!("{folder}: {open} entries")), limit.saturating_mul(4)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::RunningProcess;
    use super::*;

    #[test]
    fn limits_and_use() {
        for (limit, file_nr, want) in [
            ("1048576", "100 0 1000", None),
            ("524288", "900 0 1000", Some("descriptors.host")),
            ("1024", "1 0 1000", Some("descriptors.limit")),
            ("2", "", Some("descriptors.limit")),
        ] {
            let (_folder, files) = tree(&[
                (
                    "/proc/7/limits",
                    &format!("Max open files            1024                 {limit}              files\n"),
                ),
                ("/proc/7/fd/0", ""),
                ("/proc/7/fd/1", ""),
                (OF_HOST, file_nr),
            ]);
            let mut host =
                Host { running: Some(RunningProcess { pid: 7, ..RunningProcess::default() }), ..Host::of_files(files) };
            host.wanted.open_files = 20_000;
            let found = check(&host).findings;
            assert_eq!(found.first().map(|finding| finding.id), want, "{limit}");
            assert_eq!(found.iter().any(|finding| finding.id == "descriptors.used"), limit == "2");
        }
        let host = Host {
            running: Some(RunningProcess { pid: 7, ..RunningProcess::default() }),
            ..Host::of_files(tree(&[]).1)
        };
        assert_eq!(check(&host).unknown, ["permission to read /proc/7/limits"]);
    }
}
