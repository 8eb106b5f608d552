//! Memory and pressure: of the host, and of the control group of pintle.

use super::counters::is_full;
use super::finding::{CheckResults, Finding};
use super::host::Host;

const CGROUPS: &str = "/sys/fs/cgroup";
/// The part of a memory limit that is too full, in percent.
const FULL: u64 = 90;
/// The share of the last minute that tasks may wait, in percent: resource, kind, bound.
const BOUNDS: [(&str, &str, f64); 3] = [("memory", "full", 5.0), ("io", "full", 40.0), ("cpu", "some", 80.0)];

/// Checks the pressure, and the memory of the control group.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    for (resource, kind, bound) in BOUNDS {
        match host.files.text(&format!("/proc/pressure/{resource}")) {
            Some(text) => results.findings.extend(waiting(
                &format!("/proc/pressure/{resource}"),
                "this host",
                resource,
                kind,
                bound,
                &text,
            )),
            None => results.needs(format!("a kernel with /proc/pressure/{resource}")),
        }
    }
    if let Some(group) = group(host) {
        of_group(host, &group, &mut results);
    }
    results
}

/// The folder of the control group: of the running pintle, or of this process.
fn group(host: &Host) -> Option<String> {
    let process = host.running.as_ref().map_or_else(|| "self".to_owned(), |running| running.pid.to_string());
    let groups = host.files.text(&format!("/proc/{process}/cgroup"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_inside = !path.split('/').any(|part| part == "..");
    is_inside.then(|| format!("{CGROUPS}/{path}").trim_end_matches('/').to_owned())
}

fn of_group(host: &Host, group: &str, results: &mut CheckResults) {
    let number = |name: &str| host.files.number(&format!("{group}/{name}"));
    let service = group.rsplit('/').next().unwrap_or_default();
    if let Some(text) = host.files.text(&format!("{group}/memory.pressure")) {
        let (resource, kind, bound) = BOUNDS[0];
        results.findings.extend(waiting(&format!("{group}/memory.pressure"), service, resource, kind, bound, &text));
    }
    let raise = |finding: Finding, max: u64| match service.ends_with(".service") {
        true => finding.remedy(
            "raise the limit",
            [format!("systemctl set-property {service} MemoryMax={}", max.saturating_mul(2))],
        ),
        false => finding.advice("give the container more memory, or lower limits.connections"),
    };
    let (current, max) = (number("memory.current"), number("memory.max"));
    // Page cache counts, and goes when memory is needed.
    let cache = field(&host.files.text(&format!("{group}/memory.stat")).unwrap_or_default(), "inactive_file");
    if let (Some(current), Some(max)) = (current, max.filter(|max| *max > 0)) {
        let used = current.saturating_sub(cache);
        if is_full(used, max, FULL) {
            let what = format!("{service} uses {} of {} MiB of memory", used >> 20, max >> 20);
            let finding = Finding::warning("memory.limit", service, what).evidence(format!(
                "{group}/memory.current: {current}, without inactive files {used}; memory.max: {max}"
            ));
            results.push(raise(finding, max));
        }
    }
    let kills = field(&host.files.text(&format!("{group}/memory.events")).unwrap_or_default(), "oom_kill");
    if kills > 0 && host.running.is_some() {
        let what = format!("the kernel has killed processes of {service} for lack of memory");
        let finding =
            Finding::fault("memory.killed", service, what).evidence(format!("{group}/memory.events: oom_kill {kills}"));
        results.push(raise(finding, max.unwrap_or(512 << 20)));
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

fn waiting(path: &str, subject: &str, resource: &str, kind: &str, bound: f64, text: &str) -> Option<Finding> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
    let share: f64 = line.split(' ').find_map(|word| word.strip_prefix("avg60="))?.parse().ok()?;
    if share < bound {
        return None;
    }
    let (id, word, advice) = match resource {
        "memory" => (
            "pressure.memory",
            "memory",
            "`ps -eo rss,comm --sort=-rss | head` shows who has it: give the host more, or move something away",
        ),
        "io" => (
            "pressure.io",
            "disks",
            "`cat /proc/[0-9]*/io` and iotop show who writes: move it away, or let pintle log elsewhere",
        ),
        _ => ("pressure.cpu", "processors", "`top` shows who runs: move it away, or give the host more processors"),
    };
    let what = format!("{subject}: tasks wait for {word} during {share} % of the time");
    Some(Finding::warning(id, subject, what).evidence(format!("{path}: {line}")).advice(advice))
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::RunningProcess;
    use super::*;

    const CALM: &str =
        "some avg10=0.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.50 avg300=0.00 total=1\n";
    const GROUP: &str = "/sys/fs/cgroup/system.slice/pintle.service";

    fn ids(more: &[(&str, &str)]) -> Vec<&'static str> {
        let base = ["cpu", "io", "memory"].map(|name| (format!("/proc/pressure/{name}"), CALM.to_owned()));
        let mut all: Vec<(String, String)> = base.to_vec();
        all.extend(more.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
        all.push(("/proc/7/cgroup".into(), "1:cpu:/x\n0::/system.slice/pintle.service\n".into()));
        let all: Vec<(&str, &str)> = all.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let (_folder, files) = tree(&all);
        let host =
            Host { running: Some(RunningProcess { pid: 7, ..RunningProcess::default() }), ..Host::of_files(files) };
        check(&host).findings.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn pressure_and_memory() {
        let busy = "some avg10=0.00 avg60=91.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=50.00 avg300=0.00 total=1\n";
        let at = |name: &str| format!("{GROUP}/{name}");
        assert_eq!(ids(&[]), [""; 0]);
        for (resource, id) in [("cpu", "pressure.cpu"), ("io", "pressure.io"), ("memory", "pressure.memory")] {
            assert_eq!(ids(&[(&format!("/proc/pressure/{resource}"), busy)]), [id]);
        }
        assert_eq!(ids(&[(&at("memory.pressure"), busy)]), ["pressure.memory"]);
        assert_eq!(ids(&[(&at("memory.current"), "95"), (&at("memory.max"), "100")]), ["memory.limit"]);
        assert_eq!(ids(&[(&at("memory.current"), "95"), (&at("memory.max"), "max")]), [""; 0]);
        let cached = [
            (at("memory.current"), "95"),
            (at("memory.max"), "100"),
            (at("memory.stat"), "anon 3\ninactive_file 50\n"),
        ];
        assert_eq!(ids(&cached.each_ref().map(|(path, text)| (path.as_str(), *text))), [""; 0]);
        assert_eq!(ids(&[(&at("memory.events"), "low 0\noom 1\noom_kill 1\n")]), ["memory.killed"]);
        assert_eq!(check(&Host::of_files(tree(&[]).1)).unknown.len(), 3, "no PSI is no proof of health");
    }
}
