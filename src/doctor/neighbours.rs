//! Neighbours: entries of next hops that fail, change their hardware address, or share it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::counters::is_full;
use super::finding::{CheckResults, Finding};
use super::host::{Host, UpstreamVisit, VisitStep};
use super::network::{EntryState, Mac, Neighbour, Network, Route};
use super::sysctl::{keep, set_now};

/// The number of IPv4 addresses on a link that may share a hardware address: a router with an address of its own and one
/// that it shares.
const SHARED_MAX: usize = 2;
/// Hardware addresses that a cloud's network gives to every neighbour: Azure.
const OF_CLOUDS: [&str; 1] = ["12:34:56:78:9a:bc"];
/// The part of gc_thresh3 that is too full, in percent.
const FULL: u64 = 75;
/// Changes from REACHABLE to STALE during one watch that are a pattern.
const CYCLES: usize = 2;

/// Checks the neighbours.
#[must_use]
pub fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let network = match &host.network {
        Ok(network) => network,
        Err(why) => {
            results.needs(format!("rtnetlink: {why}"));
            return results;
        }
    };
    let next_hops = next_hops(network);
    for ((next_hop, link), routes) in &next_hops {
        let Some(entry) = network.neighbour(*next_hop, link) else { continue };
        results.findings.extend(of_next_hop(host, entry, routes));
    }
    let is_next_hop = |n: &&Neighbour| next_hops.contains_key(&(n.address, n.link.clone()));
    for entry in network.neighbours.iter().filter(|entry| !is_next_hop(entry)) {
        results.findings.extend(flapping(host, entry));
    }
    results.findings.extend(shared(network));
    results.findings.extend(table(host, network));
    results
}

/// The next hops, with the routes through each.
fn next_hops(network: &Network) -> BTreeMap<(IpAddr, String), Vec<&Route>> {
    let mut hops: BTreeMap<(IpAddr, String), Vec<&Route>> = BTreeMap::new();
    for route in &network.routes {
        hops.entry((route.next_hop(), route.link.clone())).or_default().push(route);
    }
    hops
}

fn of_next_hop(host: &Host, entry: &Neighbour, routes: &[&Route]) -> Vec<Finding> {
    let visits = || routes.iter().flat_map(|route| host.visits_at(route.to));
    let failures: Vec<String> = visits()
        .filter_map(|(upstream, visit)| Some(format!("upstream {}: {}", upstream.place(), visit.failed.as_ref()?.why)))
        .collect();
    let mut found: Vec<Finding> = flapping(host, entry).into_iter().collect();
    let what = match entry.state {
        EntryState::Failed => format!("next hop {} does not answer on {}", entry.address, entry.link),
        EntryState::Incomplete if !failures.is_empty() => {
            format!("next hop {} has no hardware address on {}", entry.address, entry.link)
        }
        _ if found.is_empty() && is_silent(visits().map(|(_, visit)| visit)) => {
            return doubtful(host, entry, failures).into_iter().collect();
        }
        _ => return found,
    };
    found.push(with_remedy(
        Finding::fault("neighbour.failed", entry.address.to_string(), what)
            .evidence(entry.line())
            .evidence(uses(routes))
            .evidences(failures),
        entry,
    ));
    found
}

/// `true` if connections through a next hop time out, and none succeeds: else, its entry is right.
pub(super) fn is_silent<'v>(visits: impl Iterator<Item = &'v UpstreamVisit>) -> bool {
    let mut has_timeout = false;
    for visit in visits {
        let Some(failed) = visit.failed.as_ref().filter(|failed| failed.step == VisitStep::Tcp) else { return false };
        has_timeout |= failed.timed_out;
    }
    has_timeout
}

fn uses(routes: &[&Route]) -> String {
    let addresses: Vec<String> = routes.iter().map(|route| route.to.to_string()).collect();
    format!("it is the next hop to {}", addresses.join(", "))
}

/// Reports an entry with a hardware address from which nothing comes back. `None` if that address answers now.
fn doubtful(host: &Host, entry: &Neighbour, failures: Vec<String>) -> Option<Finding> {
    let answer = host.answering.iter().find(|(at, link, _)| (at, link) == (&entry.address, &entry.link));
    if let (Some((.., answer)), Some(mac)) = (answer, &entry.mac) {
        if answer == mac {
            return None;
        }
        let what = format!("next hop {}: the entry says {mac}, but {answer} answers", entry.address);
        let finding = Finding::fault("neighbour.wrong-mac", entry.address.to_string(), what)
            .evidence(entry.line())
            .evidence(format!("arping on {}: {answer}", entry.link))
            .evidences(failures);
        return Some(with_remedy(finding, entry));
    }
    let what = format!("next hop {} may have a wrong hardware address: upstreams behind it time out", entry.address);
    let (cycles, states) = host.history.cycles(entry.address, &entry.link);
    let mut finding = Finding::warning("neighbour.doubtful", entry.address.to_string(), what)
        .evidence(entry.line())
        .evidences(failures);
    if cycles >= CYCLES {
        finding = finding.evidence(format!("it went from REACHABLE to STALE {cycles} times: {states}"));
    }
    if let Some(running) = host.running.as_ref().filter(|running| running.upstream_errors > 0) {
        finding = finding.evidence(format!(
            "the running pintle has counted {} requests that failed at an upstream",
            running.upstream_errors
        ));
    }
    if let Some(kernel) = old_kernel(host) {
        finding = finding.evidence(format!(
            "kernel {kernel}: before 4.11, replies of one next hop confirm another one that shares the route, so it is never \
             probed"
        ));
    }
    Some(with_remedy(finding, entry).remedy(
        "and compare the hardware address with the one that answers",
        [format!("arping -c 2 -I {} {}", entry.link, entry.address)],
    ))
}

/// The release of a kernel before 4.11.
fn old_kernel(host: &Host) -> Option<String> {
    let release = host.files.word("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    (version < (4, 11)).then_some(release)
}

fn with_remedy(finding: Finding, entry: &Neighbour) -> Finding {
    let Neighbour { address, link, .. } = entry;
    finding.remedy(
        "delete the entry: the kernel asks again",
        [format!("ip neigh del {address} dev {link}"), format!("ip neigh flush to {address} dev {link}")],
    )
}

fn flapping(host: &Host, entry: &Neighbour) -> Option<Finding> {
    let macs = host.history.macs(entry.address, &entry.link);
    if macs.len() < 2 {
        return None;
    }
    let shown: Vec<String> = macs.iter().map(Mac::to_string).collect();
    let what = format!("{} changes its hardware address on {}: two machines claim it", entry.address, entry.link);
    let finding = Finding::warning("neighbour.flapping", entry.address.to_string(), what)
        .evidence(entry.line())
        .evidence(format!("seen while watching: {}", shown.join(" → ")));
    Some(
        with_remedy(finding, entry)
            .remedy("and see who answers", [format!("arping -D -c 3 -I {} {}", entry.link, entry.address)]),
    )
}

/// One hardware address behind many addresses: a proxy that answers for all, or wrong entries.
fn shared(network: &Network) -> Vec<Finding> {
    let mut owners: BTreeMap<(&str, &Mac), Vec<&Neighbour>> = BTreeMap::new();
    let known = network.neighbours.iter().filter(|entry| entry.address.is_ipv4());
    for entry in
        known.filter(|entry| !matches!(entry.state, EntryState::Failed | EntryState::Incomplete | EntryState::NoArp))
    {
        if let Some(mac) = &entry.mac {
            owners.entry((entry.link.as_str(), mac)).or_default().push(entry);
        }
    }
    let is_cloud = |mac: &Mac| OF_CLOUDS.contains(&mac.to_string().as_str());
    let many = owners.into_iter().filter(|((_, mac), entries)| entries.len() > SHARED_MAX && !is_cloud(mac));
    many.map(|((link, mac), entries)| {
        let what = format!("{mac} answers for {} addresses on {link}", entries.len());
        let shown = entries.iter().take(10).map(|entry| entry.line());
        Finding::warning("neighbour.shared-mac", mac.to_string(), what)
            .evidences(shown)
            .remedy(
                "delete the entries: the kernel asks again",
                entries.iter().take(10).map(|entry| format!("ip neigh del {} dev {link}", entry.address)),
            )
            .advice("if they come back, a machine on this link answers for all of them (proxy ARP): ask its operator")
    })
    .collect()
}

/// Reports tables with little place left for new neighbours.
fn table(host: &Host, network: &Network) -> Vec<Finding> {
    let mut found = Vec::new();
    for (family, is_four) in [("ipv4", true), ("ipv6", false)] {
        let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
        let Some(max) = host.files.number(&path).filter(|max| *max > 0) else { continue };
        let counts = |n: &&Neighbour| {
            n.address.is_ipv4() == is_four && !matches!(n.state, EntryState::NoArp | EntryState::Permanent)
        };
        let count = u64::try_from(network.neighbours.iter().filter(counts).count()).unwrap_or(u64::MAX);
        if !is_full(count, max, FULL) {
            continue;
        }
        let key = format!("net.{family}.neigh.default.gc_thresh");
        let what = format!("the table of neighbours is nearly full: {count} of {max}");
        let larger = [1, 2, 3].map(|level| {
            (format!("net/{family}/neigh/default/gc_thresh{level}"), (max.saturating_mul(4) >> (3 - level)).to_string())
        });
        let larger = larger.each_ref().map(|(path, value)| (path.as_str(), value.as_str()));
        found.push(
            Finding::warning("neighbour.table-full", format!("{key}3"), what)
                .evidence(format!("{path}: {max}"))
                .evidence(
                    "a full table drops packets to new neighbours: \"neighbour table overflow\" in the kernel's log",
                )
                .remedy("make the table larger, now", set_now(&larger))
                .remedy("and at every boot", keep(&host.files, &larger)),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::{Failed, Visited, WantedUpstream};
    use super::*;

    fn entry(address: &str, mac: &str, state: EntryState) -> Neighbour {
        Neighbour {
            address: address.parse().unwrap(),
            link: "eth0".into(),
            mac: Mac::parse(mac),
            state,
            confirmed: Some(3),
            probes: 0,
        }
    }

    fn host(neighbours: Vec<Neighbour>, failed: Option<(&str, bool)>) -> Host {
        let to: IpAddr = "192.0.2.80".parse().unwrap();
        let route = Route { to, gateway: Some("10.0.0.1".parse().unwrap()), link: "eth0".into() };
        let failed = failed.map(|(why, timed_out)| Failed {
            step: VisitStep::Tcp,
            why: why.to_owned(),
            timed_out,
            no_route: false,
        });
        let visit = UpstreamVisit { address: Some((to, 443).into()), failed, ..UpstreamVisit::default() };
        let upstream = WantedUpstream { host: "up.example".into(), port: 443, ..Default::default() };
        Host {
            network: Ok(Network { neighbours, routes: vec![route] }),
            visited: vec![Visited { upstream, visits: vec![visit] }],
            ..Host::of_files(tree(&[]).1)
        }
    }

    fn ids(host: &Host) -> Vec<&'static str> {
        check(host).findings.iter().map(|finding| finding.id).collect()
    }

    const ONE: &str = "02:00:00:00:00:01";
    const TWO: &str = "02:00:00:00:00:02";

    #[test]
    fn states_of_the_next_hop() {
        for (state, failed, want) in [
            (EntryState::Reachable, None, None),
            (EntryState::Stale, None, None),
            (EntryState::Delay, None, None),
            (EntryState::Permanent, None, None),
            (EntryState::Incomplete, None, None),
            (EntryState::Failed, None, Some("neighbour.failed")),
            (EntryState::Incomplete, Some(("no route to host", false)), Some("neighbour.failed")),
            (EntryState::Stale, Some(("timed out", true)), Some("neighbour.doubtful")),
            (EntryState::Permanent, Some(("timed out", true)), Some("neighbour.doubtful")),
            (EntryState::Reachable, Some(("connection refused", false)), None),
        ] {
            let host = host(vec![entry("10.0.0.1", ONE, state)], failed);
            assert_eq!(ids(&host), want.into_iter().collect::<Vec<_>>(), "{state:?} {failed:?}");
        }
        // Another machine on the link is not our concern.
        assert_eq!(ids(&host(vec![entry("10.0.0.9", ONE, EntryState::Failed)], None)), [""; 0]);
    }

    #[test]
    fn the_cycles_of_a_doubtful_entry() {
        let mut host = host(vec![entry("10.0.0.1", ONE, EntryState::Stale)], Some(("timed out", true)));
        for state in
            [EntryState::Reachable, EntryState::Stale, EntryState::Probe, EntryState::Reachable, EntryState::Stale]
        {
            host.history.note(&entry("10.0.0.1", ONE, state));
        }
        let evidence = &check(&host).findings[0].evidence;
        let want = "it went from REACHABLE to STALE 2 times: REACHABLE → STALE → PROBE → REACHABLE → STALE";
        assert!(evidence.iter().any(|fact| fact == want), "{evidence:?}");
    }

    #[test]
    fn the_hardware_address_that_answers_decides() {
        for (answer, want) in [(ONE, None), (TWO, Some("neighbour.wrong-mac"))] {
            let mut host = host(vec![entry("10.0.0.1", ONE, EntryState::Reachable)], Some(("timed out", true)));
            host.answering = vec![("10.0.0.1".parse().unwrap(), "eth0".into(), Mac::parse(answer).unwrap())];
            assert_eq!(ids(&host), want.into_iter().collect::<Vec<_>>(), "{answer}");
        }
    }

    #[test]
    fn one_upstream_that_answers_proves_the_entry() {
        let mut host = host(vec![entry("10.0.0.1", ONE, EntryState::Stale)], Some(("timed out", true)));
        let fine = UpstreamVisit { address: host.visited[0].visits[0].address, ..UpstreamVisit::default() };
        host.visited[0].visits.push(fine);
        assert_eq!(ids(&host), [""; 0]);
    }

    #[test]
    fn remedies_name_address_and_link() {
        let finding = &check(&host(vec![entry("10.0.0.1", ONE, EntryState::Failed)], None)).findings[0];
        assert_eq!(finding.remedies[0].run, ["ip neigh del 10.0.0.1 dev eth0", "ip neigh flush to 10.0.0.1 dev eth0"]);
    }

    #[test]
    fn an_address_that_changes_hands() {
        let mut host = host(vec![entry("10.0.0.1", TWO, EntryState::Stale)], None);
        for mac in [ONE, ONE, TWO] {
            host.history.note(&entry("10.0.0.1", mac, EntryState::Stale));
        }
        assert_eq!(ids(&host), ["neighbour.flapping"]);
    }

    #[test]
    fn one_machine_behind_many_addresses() {
        let many = |mac: &str, count: u8| {
            let entries = (1..=count).map(|n| entry(&format!("10.0.0.{n}"), mac, EntryState::Reachable)).collect();
            ids(&host(entries, None))
        };
        assert_eq!(many(ONE, 2), [""; 0]);
        assert_eq!(many(ONE, 3), ["neighbour.shared-mac"]);
        assert_eq!(many("12:34:56:78:9a:bc", 9), [""; 0]);
    }

    #[test]
    fn a_full_table() {
        let (_folder, files) = tree(&[("/proc/sys/net/ipv4/neigh/default/gc_thresh3", "8\n")]);
        let count = |count: u8| {
            let entries = (1..=count)
                .map(|n| entry(&format!("10.0.0.{n}"), &format!("02:00:00:00:00:{n:02x}"), EntryState::Stale));
            ids(&Host { files: files.clone(), ..host(entries.collect(), None) })
        };
        assert_eq!(count(5), [""; 0]);
        assert_eq!(count(6), ["neighbour.table-full"]);
    }

    #[test]
    fn old_kernels_are_named_in_doubt() {
        for (release, want) in
            [("4.4.0-210-generic", true), ("4.10.17", true), ("4.11.0", false), ("6.18.44", false), ("odd", false)]
        {
            let (_folder, files) = tree(&[("/proc/sys/kernel/osrelease", release)]);
            assert_eq!(old_kernel(&Host::of_files(files)).is_some(), want, "{release}");
        }
    }
}
