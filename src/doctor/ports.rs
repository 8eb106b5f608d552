//! Local ports of connections to the upstreams, and connections in TIME_WAIT.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::counters::is_full;
use super::files::HostFiles;
use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::sockets::Tcp;
use super::sysctl::set_and_keep;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const TIME_WAIT_MAX: &str = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
/// The part that is too full, in percent.
const FULL: u64 = 75;
/// A wide range of local ports.
const WIDE: (u64, u64) = (10_240, 65_535);

/// Checks the ports in use towards each address, and the number of connections in TIME_WAIT.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let Some(sockets) = host.sockets() else { return results };
    let mut towards: HashMap<(IpAddr, SocketAddr), (u64, u64)> = HashMap::new();
    for socket in sockets.iter().filter(|socket| socket.state != Tcp::Listen && socket.remote.port() != 0) {
        let (all, late) = towards.entry((socket.local.ip(), socket.remote)).or_default();
        *all += 1;
        *late += u64::from(socket.state == Tcp::TimeWait);
    }
    let range = host.files.text(RANGE).unwrap_or_default();
    let bounds: Vec<u64> = range.split_whitespace().flat_map(str::parse).collect();
    if let [first, last] = bounds[..]
        && last >= first
    {
        let ports = last - first + 1;
        let mut full: Vec<_> = towards.iter().filter(|(_, (all, _))| is_full(*all, ports, FULL)).collect();
        full.sort_unstable();
        let found = full
            .into_iter()
            .map(|((local, remote), counts)| of_address(&host.files, (*local, *remote), *counts, (first, last)));
        results.findings.extend(found);
    }
    let late = u64::try_from(sockets.iter().filter(|socket| socket.state == Tcp::TimeWait).count()).unwrap_or(u64::MAX);
    if let Some(max) = host.files.number(TIME_WAIT_MAX).filter(|max| *max > 0)
        && is_full(late, max, FULL)
    {
        let larger = max.saturating_mul(4).to_string();
        results.push(
            Finding::warning(
                "ports.time-wait",
                "TIME_WAIT",
                format!("{late} connections are in TIME_WAIT, of at most {max}"),
            )
            .evidence(format!("{TIME_WAIT_MAX}: {max}"))
            .evidence("beyond the bound, the kernel ends them early, and late packets can reach new connections")
            .remedy(
                "raise the bound, now and at every boot",
                set_and_keep(&host.files, "net/ipv4/tcp_max_tw_buckets", &larger),
            ),
        );
    }
    results
}

fn of_address(
    files: &HostFiles,
    (local, remote): (IpAddr, SocketAddr),
    (all, late): (u64, u64),
    (first, last): (u64, u64),
) -> Finding {
    let ports = last - first + 1;
    let what = format!("connections to {remote} use {all} of {ports} local ports");
    let mut finding = Finding::warning("ports.ephemeral", remote.to_string(), what)
        .evidence(format!("/proc/net/tcp: {all} sockets from {local} to {remote}, {late} of them in TIME_WAIT"))
        .evidence(format!("{RANGE}: {ports} ports"));
    let wide = (first.min(WIDE.0), last.max(WIDE.1));
    if wide != (first, last) {
        let range = format!("{} {}", wide.0, wide.1);
        finding = finding.remedy(
            "widen the range, now and at every boot",
            set_and_keep(files, "net/ipv4/ip_local_port_range", &range),
        );
    }
    finding.advice("the upstream closes connections too early: let it keep idle connections longer than pintle does")
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn ports_and_time_wait() {
        let table = |count: u16, state: &str| -> String {
            (0..count).map(|n| format!(" {n}: 0200000A:{n:04X} 0100000A:0050 {state} 0:0 0:0 0 0 0 0 1\n")).collect()
        };
        for (count, state, max, want) in [
            (74, "01", "1000", None),
            (75, "01", "1000", Some("ports.ephemeral")),
            (75, "0A", "1000", None),
            (30, "06", "40", Some("ports.time-wait")),
            (29, "06", "40", None),
        ] {
            let (_folder, files) =
                tree(&[("/proc/net/tcp", &table(count, state)), (RANGE, "1001\t1100\n"), (TIME_WAIT_MAX, max)]);
            let found: Vec<&str> = check(&Host::of_files(files)).findings.iter().map(|finding| finding.id).collect();
            assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{count} {state}");
        }
    }

    #[test]
    fn no_remedy_makes_the_range_smaller() {
        let (_folder, files) = tree(&[]);
        let commands = |range| -> Vec<String> {
            let between = ("10.0.0.2".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
            let finding = of_address(&files, between, (50_000, 0), range);
            finding.remedies.into_iter().flat_map(|remedy| remedy.run).collect()
        };
        assert_eq!(commands((32_768, 60_999))[0], "sysctl -w 'net.ipv4.ip_local_port_range=10240 65535'");
        assert_eq!(commands((1024, 60_999))[0], "sysctl -w 'net.ipv4.ip_local_port_range=1024 65535'");
        assert_eq!(commands((1024, 65_535)), [""; 0]);
    }
}
