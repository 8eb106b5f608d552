//! The table of connections that the firewall tracks.

use super::counters::is_full;
use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::sysctl::{keep, set_now};

const FOLDER: &str = "/proc/sys/net/netfilter";
/// The part of the table that is too full, in percent.
const FULL: u64 = 75;
/// Counters of packets that found no place.
const LOST: [&str; 3] = ["conntrack.drop", "conntrack.early_drop", "conntrack.insert_failed"];

/// Checks the fill of the table. Without the module, there is none.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let read = |name: &str| host.files.number(&format!("{FOLDER}/{name}"));
    let (Some(count), Some(max)) = (read("nf_conntrack_count"), read("nf_conntrack_max").filter(|max| *max > 0)) else {
        return results;
    };
    let larger = max.saturating_mul(4).to_string();
    let setting = [("net/netfilter/nf_conntrack_max", larger.as_str())];
    let with_remedy = |finding: Finding| {
        finding
            .evidence(format!("{FOLDER}/nf_conntrack_count: {count}, nf_conntrack_max: {max}"))
            .remedy("make the table larger, now", set_now(&setting))
            .remedy(
                "and at every boot",
                ["mkdir -p /etc/modules-load.d", "printf 'nf_conntrack\\n' > /etc/modules-load.d/nf_conntrack.conf"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(keep(&host.files, &setting)),
            )
    };
    if is_full(count, max, FULL) {
        let what = format!("the table of tracked connections is {} % full", count.saturating_mul(100) / max);
        results.push(with_remedy(Finding::warning("conntrack.full", "nf_conntrack", what)));
    }
    let lost: Vec<String> = LOST.iter().filter_map(|name| host.rose(name)).collect();
    if !lost.is_empty() && results.findings.is_empty() && is_full(count, max, FULL / 2) {
        let what = "the firewall drops packets because its table is full";
        results.push(with_remedy(Finding::warning("conntrack.drops", "nf_conntrack", what).evidences(lost)));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::super::counters::KernelCounters;
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn full_tables() {
        for (count, drops, want) in [
            ("74", 0, None),
            ("75", 0, Some("conntrack.full")),
            ("50", 3, Some("conntrack.drops")),
            ("9", 3, None),
            ("x", 3, None),
        ] {
            let (_folder, files) = tree(&[
                (&format!("{FOLDER}/nf_conntrack_count"), count),
                (&format!("{FOLDER}/nf_conntrack_max"), "100\n"),
            ]);
            let counters = |value| KernelCounters([("conntrack.drop".to_owned(), value)].into());
            let host = Host { before: counters(0), after: counters(drops), ..Host::of_files(files) };
            let found: Vec<&str> = check(&host).findings.iter().map(|finding| finding.id).collect();
            assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{count}");
        }
        assert_eq!(check(&Host::of_files(tree(&[]).1)), CheckResults::default());
    }
}
