//! The upstreams: their names, addresses, answers, certificates, and the path to them.

use std::time::Duration;

use jiff::Timestamp;

use super::files::HostFiles;
use super::finding::{CheckResults, Finding, FindingSeverity};
use super::host::{Host, UpstreamVisit, VisitStep, Visited};
use super::sysctl::set_and_keep;

/// A step that takes longer is slow for readers.
const SLOW: Duration = Duration::from_secs(3);
/// The part of a certificate's life that is left when its renewal is late, as one in this many.
const LATE: i64 = 10;
/// A renewal is not late before that many seconds are left: 30 days. Certificates of private CAs live for decades.
const LATE_AT_MOST: i64 = 30 * 86_400;

/// Checks the visits to the upstreams.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    for visited in &host.visited {
        results.findings.extend(reached(visited));
        results.findings.extend(path(&host.files, visited));
        results.findings.extend(slow(visited));
        results.findings.extend(certificate(visited, host.now));
    }
    let (visited, all) = (host.visited.len(), host.wanted.upstreams.len());
    if visited < all {
        results.needs(format!("a look by hand at {} upstreams: doctor visits the first {visited}", all - visited));
    }
    results
}

fn line(visit: &UpstreamVisit) -> String {
    let address = visit.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    match &visit.failed {
        Some(failed) => format!("{address}: {}", failed.why),
        None => format!("{address}: {}", times(visit)),
    }
}

/// Returns the times of a visit: `TCP 3 ms, TLS 9 ms, first byte 20 ms`.
#[must_use]
pub fn times(visit: &UpstreamVisit) -> String {
    let times = visit.times;
    let all = [("DNS", times.dns), ("TCP", times.tcp), ("TLS", times.tls), ("first byte", times.first_byte)];
    let known = all.iter().filter_map(|(name, time)| Some(format!("{name} {} ms", (*time)?.as_millis())));
    known.collect::<Vec<_>>().join(", ")
}

/// Returns `true` if a visit failed because this host has no IPv6: nothing is wrong with the upstream's address.
fn is_foreign(visit: &UpstreamVisit) -> bool {
    let is_six = visit.address.is_some_and(|address| address.is_ipv6());
    is_six && visit.failed.as_ref().is_some_and(|failed| failed.no_route)
}

fn reached(visited: &Visited) -> Option<Finding> {
    let tried: Vec<&UpstreamVisit> = visited.visits.iter().filter(|visit| !is_foreign(visit)).collect();
    let all = if tried.is_empty() { visited.visits.iter().collect() } else { tried };
    let failed: Vec<&&UpstreamVisit> = all.iter().filter(|visit| visit.failed.is_some()).collect();
    let first = failed.first()?.failed.as_ref()?;
    let place = visited.upstream.place();
    let stalls = failed.iter().all(|visit| visit.large_stalls);
    if stalls {
        return None;
    }
    let only_six = failed.iter().all(|visit| visit.address.is_some_and(|address| address.is_ipv6()));
    let facts: Vec<String> = all.iter().map(|visit| line(visit)).collect();
    let is_partial = failed.len() < all.len();
    let site = format!("site {}", visited.upstream.site);
    if is_partial && only_six {
        let what = format!("upstream {place} announces IPv6 that does not answer from here");
        return Some(
            Finding::warning("upstream.ipv6-dead", &place, what)
                .evidence(site)
                .evidences(facts)
                .remedy("see where the packets end", [format!("tracepath -6 -n {}", visited.upstream.host)])
                .advice("if this host's IPv6 is broken, repair it; else ask the operator of the upstream to remove the AAAA record"),
        );
    }
    if is_partial {
        let what = format!("upstream {place}: {} of {} addresses fail", failed.len(), all.len());
        return Some(
            Finding::warning("upstream.address-dead", &place, what)
                .evidence(site)
                .evidences(facts)
                .advice("pintle leaves a dead address out; ask the operator of the upstream about it"),
        );
    }
    let (id, what) = match first.step {
        VisitStep::Dns => ("upstream.dns", format!("upstream {place}: the name has no address")),
        VisitStep::Tcp => ("upstream.unreachable", format!("upstream {place} cannot be reached")),
        VisitStep::Tls => ("upstream.tls", format!("upstream {place}: the TLS handshake fails")),
        VisitStep::Http => ("upstream.no-response", format!("upstream {place} does not answer a request")),
    };
    let host = &visited.upstream.host;
    let finding = Finding::fault(id, &place, what).evidence(site).evidences(facts);
    Some(match first.step {
        VisitStep::Dns => finding
            .remedy("ask by hand", [format!("getent ahosts {host}")])
            .advice("correct the site's upstream, or its DNS"),
        VisitStep::Tcp => finding
            .remedy(
                "see the route, and where packets end",
                [
                    format!(
                        "ip route get {}",
                        all.iter().find_map(|visit| visit.address).map_or_else(|| host.clone(), |a| a.ip().to_string())
                    ),
                    format!("tracepath -n {host}"),
                ],
            )
            .advice("start the upstream, or open its firewall for this host"),
        VisitStep::Tls | VisitStep::Http => finding.remedy("try by hand", [by_hand(visited)]),
    })
}

fn by_hand(visited: &Visited) -> String {
    let upstream = &visited.upstream;
    let (scheme, name) = upstream.tls.as_ref().map_or(("http", &upstream.host_header), |name| ("https", name));
    let host = &upstream.host;
    format!("curl -vk --max-time 20 -o /dev/null --connect-to ::{host}:{} {scheme}://{name}/", upstream.port)
}

fn path(files: &HostFiles, visited: &Visited) -> Option<Finding> {
    let stalling: Vec<&UpstreamVisit> = visited.visits.iter().filter(|visit| visit.large_stalls).collect();
    let address = stalling.first()?.address?;
    let place = visited.upstream.place();
    let mtu = |visit: &&UpstreamVisit| {
        visit.mtu.map_or_else(String::new, |mtu| format!(", path MTU {mtu} as the kernel knows it"))
    };
    let facts =
        stalling.iter().map(|visit| format!("{}: small packets pass, full packets do not{}", line(visit), mtu(visit)));
    let what = format!("upstream {place}: full-size packets are lost on the path (a path MTU black hole)");
    Some(
        Finding::fault("upstream.path-mtu", &place, what)
            .evidence(format!("site {}", visited.upstream.site))
            .evidences(facts)
            .remedy("let the kernel find a size that passes, now and at every boot", set_and_keep(files, "net/ipv4/tcp_mtu_probing", "1"))
            .remedy("and find the place that loses them", [format!("tracepath -n {}", address.ip())])
            .advice("firewalls on the path must permit ICMP \"fragmentation needed\" (IPv4 type 3, code 4) and \"packet too big\" (IPv6 type 2)"),
    )
}

fn slow(visited: &Visited) -> Option<Finding> {
    let is_slow = |visit: &&UpstreamVisit| {
        let times = visit.times;
        [times.dns, times.tcp, times.tls, times.first_byte].into_iter().flatten().any(|time| time > SLOW)
    };
    let facts: Vec<String> =
        visited.visits.iter().filter(|visit| visit.failed.is_none()).filter(is_slow).map(line).collect();
    if facts.is_empty() {
        return None;
    }
    let place = visited.upstream.place();
    Some(
        Finding::warning("upstream.slow", &place, format!("upstream {place} answers slowly"))
            .evidence(format!("site {}", visited.upstream.site))
            .evidences(facts)
            .advice("slow DNS: the name servers; slow TCP and TLS: the network; slow first byte: the upstream itself"),
    )
}

fn certificate(visited: &Visited, now: i64) -> Option<Finding> {
    let (from, to) = visited.visits.iter().filter_map(|visit| visit.validity).min_by_key(|(_, to)| *to)?;
    let left = to.saturating_sub(now);
    let date =
        |seconds: i64| Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string());
    let place = visited.upstream.place();
    let days = left / 86_400;
    let stopped = "its operator must renew it: pintle forwards no request until then";
    let (verdict, what, advice) = match left {
        ..=0 => (FindingSeverity::Fault, format!("upstream {place}: the certificate has expired"), stopped),
        _ if from > now => {
            (FindingSeverity::Fault, format!("upstream {place}: the certificate is not yet valid"), stopped)
        }
        _ if left < (to.saturating_sub(from) / LATE).min(LATE_AT_MOST) => (
            FindingSeverity::Warning,
            format!("upstream {place}: the certificate expires in {days} days"),
            "its operator must renew it in time: pintle forwards no request to an expired certificate",
        ),
        _ => return None,
    };
    Some(
        Finding::new("upstream.certificate", verdict, &place, what)
            .evidence(format!("site {}", visited.upstream.site))
            .evidence(format!("valid from {} until {}", date(from), date(to)))
            .advice(advice),
    )
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::{Failed, Times, WantedUpstream};
    use super::*;

    const DAY: i64 = 86_400;

    fn visit(address: &str, failed: Option<VisitStep>) -> UpstreamVisit {
        let failed = failed.map(|step| Failed { step, why: "why".into(), timed_out: true, no_route: false });
        UpstreamVisit { address: address.parse().ok(), failed, ..UpstreamVisit::default() }
    }

    fn found(visits: Vec<UpstreamVisit>) -> Vec<(&'static str, FindingSeverity)> {
        let upstream =
            WantedUpstream { site: "a.example".into(), host: "up.example".into(), port: 443, ..Default::default() };
        let host = Host { visited: vec![Visited { upstream, visits }], now: 100 * DAY, ..Host::of_files(tree(&[]).1) };
        check(&host).findings.iter().map(|finding| (finding.id, finding.verdict)).collect()
    }

    const FOUR: &str = "192.0.2.1:443";
    const SIX: &str = "[2001:db8::1]:443";

    #[test]
    fn reachable_or_not() {
        assert_eq!(found(vec![visit(FOUR, None), visit(SIX, None)]), []);
        for (step, id) in [
            (VisitStep::Dns, "upstream.dns"),
            (VisitStep::Tcp, "upstream.unreachable"),
            (VisitStep::Tls, "upstream.tls"),
            (VisitStep::Http, "upstream.no-response"),
        ] {
            assert_eq!(found(vec![visit(FOUR, Some(step))]), [(id, FindingSeverity::Fault)]);
        }
        assert_eq!(found(vec![visit(FOUR, None), visit(SIX, Some(VisitStep::Tcp))])[0].0, "upstream.ipv6-dead");
        assert_eq!(found(vec![visit(FOUR, Some(VisitStep::Tcp)), visit(SIX, None)])[0].0, "upstream.address-dead");
        // A host without IPv6 is healthy.
        let mut foreign = visit(SIX, Some(VisitStep::Tcp));
        foreign.failed.as_mut().unwrap().no_route = true;
        assert_eq!(found(vec![visit(FOUR, None), foreign.clone()]), []);
        assert_eq!(found(vec![foreign])[0].0, "upstream.unreachable");
    }

    #[test]
    fn upstreams_without_a_visit_are_unknown() {
        let mut host = Host::of_files(tree(&[]).1);
        host.wanted.upstreams = vec![WantedUpstream::default(); 3];
        host.visited = vec![Visited::default()];
        let results = check(&host);
        assert_eq!((results.findings, results.unknown.len()), (vec![], 1));
        host.visited = vec![Visited::default(); 3];
        assert_eq!(check(&host).unknown, [""; 0]);
    }

    #[test]
    fn path_and_times() {
        let stalls = UpstreamVisit { large_stalls: true, mtu: Some(1500), ..visit(FOUR, None) };
        assert_eq!(found(vec![stalls]), [("upstream.path-mtu", FindingSeverity::Fault)]);
        let stalls = UpstreamVisit { large_stalls: true, ..visit(FOUR, Some(VisitStep::Tls)) };
        assert_eq!(found(vec![stalls]), [("upstream.path-mtu", FindingSeverity::Fault)]);
        let times = Times { first_byte: Some(Duration::from_secs(4)), ..Times::default() };
        assert_eq!(
            found(vec![UpstreamVisit { times, ..visit(FOUR, None) }]),
            [("upstream.slow", FindingSeverity::Warning)]
        );
    }

    #[test]
    fn the_end_of_the_certificate() {
        for (from, to, want) in [
            (50, 150, None),
            (10, 105, Some(FindingSeverity::Warning)),
            (97, 103, None),
            (-20_000, 100 + 729, None),
            (-20_000, 100 + 29, Some(FindingSeverity::Warning)),
            (10, 99, Some(FindingSeverity::Fault)),
            (101, 200, Some(FindingSeverity::Fault)),
        ] {
            let visit = UpstreamVisit { validity: Some((from * DAY, to * DAY)), ..visit(FOUR, None) };
            assert_eq!(found(vec![visit]).first().map(|(_, verdict)| *verdict), want, "{from} {to}");
        }
    }
}
