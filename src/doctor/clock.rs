//! The clock: pins, certificates and ACME depend on it.

use super::finding::{CheckResults, Finding, FindingSeverity};
use super::host::Host;

/// Seconds by which the clock may differ from those of the upstreams.
const OFF: i64 = 30;
/// Seconds that break things: certificates that are not yet valid, and orders that an authority refuses.
const FAR_OFF: i64 = 300;

/// Checks the clock against the Date fields of the upstreams, and the state of the kernel's clock.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let mut seen: Vec<(i64, String)> =
        host.visits().filter_map(|(upstream, visit)| Some((visit.clock_ahead?, upstream.place()))).collect();
    seen.sort_unstable();
    // The middle one: a single upstream with a wrong clock does not decide among three.
    if let Some((ahead, _)) = seen.get(seen.len() / 2).filter(|(ahead, _)| ahead.abs() > OFF) {
        let verdict = if ahead.abs() > FAR_OFF { FindingSeverity::Fault } else { FindingSeverity::Warning };
        let side = if *ahead > 0 { "ahead of" } else { "behind" };
        let what = format!("this clock is {} s {side} the upstreams' clocks", ahead.abs());
        let facts = seen.iter().map(|(ahead, place)| format!("{place}: Date differs by {ahead} s"));
        results.push(with_remedy(Finding::new("clock.offset", verdict, "clock", what).evidences(facts)));
    } else if host.synchronised == Some(false) {
        let what = "nothing keeps this clock right: the kernel's clock is not synchronised";
        let finding = Finding::warning("clock.unsynchronised", "clock", what);
        results.push(with_remedy(finding.evidence("timedatectl show, or chronyc tracking: not synchronised")));
    }
    if seen.is_empty() && host.synchronised.is_none() {
        results.needs("timedatectl or chronyc, or an upstream that sends Date");
    }
    results
}

fn with_remedy(finding: Finding) -> Finding {
    finding.remedy("let systemd-timesyncd set it", ["timedatectl set-ntp true", "systemctl restart systemd-timesyncd"]).advice(
        "if chrony or ntpd runs here: `chronyc tracking` or `ntpq -p` shows why it does not; in a container, the host's \
         clock counts",
    )
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::{UpstreamVisit, Visited};
    use super::*;

    #[test]
    fn offsets_and_state() {
        for (offsets, synchronised, want) in [
            (vec![0, 2, -3], None, None),
            (vec![0], Some(true), None),
            (vec![0], Some(false), Some(("clock.unsynchronised", FindingSeverity::Warning))),
            (vec![], Some(false), Some(("clock.unsynchronised", FindingSeverity::Warning))),
            (vec![40], None, Some(("clock.offset", FindingSeverity::Warning))),
            (vec![-4000], None, Some(("clock.offset", FindingSeverity::Fault))),
            (vec![0, 0, 9000], None, None),
        ] {
            let visit = |ahead| UpstreamVisit { clock_ahead: Some(ahead), ..UpstreamVisit::default() };
            let visited = Visited { visits: offsets.iter().copied().map(visit).collect(), ..Visited::default() };
            let host = Host { visited: vec![visited], synchronised, ..Host::of_files(tree(&[]).1) };
            let found = check(&host).findings;
            assert_eq!(found.first().map(|finding| (finding.id, finding.verdict)), want, "{offsets:?}");
        }
        assert_eq!(check(&Host::of_files(tree(&[]).1)).unknown.len(), 1);
    }
}
