//! The queue of connections that wait to be accepted.

use super::counters::is_full;
use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::sockets::Tcp;
use super::sysctl::set_and_keep;

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
/// pintle asks for this backlog.
const BACKLOG: u64 = 4096;
/// A bound of the kernel below this is too small for an edge: before Linux 5.4, it was 128.
const LEAST: u64 = 1024;
/// The part of a queue that is too full, in percent.
const FULL: u64 = 75;
/// Counters of lost connections.
const LOST: [&str; 4] =
    ["TcpExt.ListenOverflows", "TcpExt.ListenDrops", "TcpExt.TCPReqQFullDrop", "TcpExt.TCPReqQFullDoCookies"];

/// Checks the bound of the queue, its fill, and the counters of lost connections.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let bound = host.files.number(SOMAXCONN);
    let raise = |finding: Finding| {
        finding
            .remedy(
                "raise the bound, now and at every boot",
                set_and_keep(&host.files, "net/core/somaxconn", &BACKLOG.to_string()),
            )
            .remedy("and restart pintle: a listener keeps the bound of its start", ["systemctl restart pintle"])
    };
    if let Some(bound) = bound.filter(|bound| *bound < LEAST) {
        let what = format!("the kernel lets {bound} connections wait; more are lost in a burst");
        let finding = Finding::warning("accept.somaxconn", "net.core.somaxconn", what);
        results.push(raise(finding.evidence(format!("{SOMAXCONN}: {bound}; pintle asks for {BACKLOG}"))));
    }
    let size = bound.unwrap_or(BACKLOG).min(BACKLOG);
    let ours = |port: u16| host.wanted.listen.iter().any(|address| address.port() == port);
    let full: Vec<String> = host
        .sockets()
        .unwrap_or_default()
        .iter()
        .filter(|socket| socket.state == Tcp::Listen && ours(socket.local.port()))
        .filter(|socket| is_full(socket.waiting, size, FULL))
        .map(|socket| format!("{}: {} of {size} connections wait", socket.local, socket.waiting))
        .collect();
    let lost: Vec<String> =
        LOST.iter().filter_map(|name| host.rose(name)).map(|rose| format!("{rose} (host-wide)")).collect();
    if !full.is_empty() || !lost.is_empty() {
        let finding =
            Finding::warning("accept.overflow", "listeners", "connections are lost before a process accepts them")
                .evidences(full)
                .evidences(lost);
        results.push(finding.advice(
            "`pintle status` shows if pintle is the cause: it has limits.connections connections, or its workers are busy; \
             otherwise, `ss -ltn` shows the listener whose Recv-Q is full",
        ));
    }
    results
}

#[cfg(test)]
mod tests {
    use super::super::counters::KernelCounters;
    use super::super::files::tests::tree;
    use super::*;

    #[test]
    fn queues() {
        let table =
            |waiting: &str| format!("sl\n 0: 00000000:01BB 00000000:0000 0A 00000000:{waiting} 00:0 0 0 0 1 1\n");
        for (bound, waiting, lost, want) in [
            ("4096", "00000000", 0, None),
            ("4096", "00000FFF", 0, Some("accept.overflow")),
            ("4096", "00000000", 2, Some("accept.overflow")),
            ("128", "00000000", 0, Some("accept.somaxconn")),
        ] {
            let (_folder, files) = tree(&[(SOMAXCONN, bound), ("/proc/net/tcp", &table(waiting))]);
            let counters = |value| KernelCounters([("TcpExt.ListenOverflows".to_owned(), value)].into());
            let mut host = Host { before: counters(7), after: counters(7 + lost), ..Host::of_files(files) };
            host.wanted.listen = vec!["0.0.0.0:443".parse().unwrap()];
            let found: Vec<&str> = check(&host).findings.iter().map(|finding| finding.id).collect();
            assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{bound} {waiting}");
            host.wanted.listen = vec!["0.0.0.0:444".parse().unwrap()];
            assert!(lost > 0 || bound == "128" || check(&host).findings.is_empty(), "another program's queue");
        }
    }
}
