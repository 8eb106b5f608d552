//! Other programs on the ports of the configuration.

use std::collections::BTreeMap;

use super::finding::{CheckResults, Finding};
use super::host::Host;
use super::sockets::{Socket, Tcp};

/// The most processes that are looked at.
const PROCESSES_MAX: usize = 32_768;
/// Sockets that systemd holds for pintle (pintle-https.socket).
const HOLDER: &str = "systemd";

/// Checks that no other program listens on the configured ports.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let ours = |socket: &&Socket| {
        let meets = |address: &std::net::SocketAddr| {
            let same = address.ip() == socket.local.ip()
                || address.ip().is_unspecified()
                || socket.local.ip().is_unspecified();
            address.port() != 0 && address.port() == socket.local.port() && same
        };
        socket.state == Tcp::Listen && host.wanted.listen.iter().any(meets)
    };
    let listening: Vec<&Socket> = host.sockets().unwrap_or_default().iter().filter(ours).collect();
    if listening.is_empty() {
        return results;
    }
    let owners = owners(host, &listening);
    let mut found: BTreeMap<(u16, String), Finding> = BTreeMap::new();
    for socket in listening {
        let Some((pid, name)) = owners.get(&socket.inode) else {
            results.needs(format!("root, for the program that listens on {}", socket.local));
            continue;
        };
        let is_running = host.running.as_ref().is_some_and(|running| running.pid == *pid);
        let is_ours = is_running || ["pintle", HOLDER].contains(&name.as_str());
        if is_ours {
            continue;
        }
        let port = socket.local.port();
        let what = match host.running {
            Some(_) => format!("{name} listens on port {port}, too: clients reach either program"),
            None => format!("{name} listens on port {port}, so pintle cannot start"),
        };
        let finding = Finding::fault("listen.taken", format!("port {port}"), what)
            .evidence(format!("{}: process {pid} ({name})", socket.local))
            .remedy(
                "see its service, and stop it",
                [format!("systemctl status {pid}"), format!("ss -ltnp 'sport = :{port}'")],
            )
            .advice("or give pintle other ports: listen.https and listen.http");
        found.entry((port, name.clone())).or_insert(finding);
    }
    results.findings = found.into_values().collect();
    results.unknown.dedup();
    results
}

/// The processes that hold sockets, by inode. Other users' processes show theirs to root only.
fn owners(host: &Host, sockets: &[&Socket]) -> BTreeMap<u64, (u32, String)> {
    let mut owners = BTreeMap::new();
    let pids = host.files.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    for pid in pids.take(PROCESSES_MAX) {
        let folder = format!("/proc/{pid}/fd");
        for descriptor in host.files.names(&folder) {
            let link = host.files.link(&format!("{folder}/{descriptor}")).unwrap_or_default();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.trim_end_matches(']').parse::<u64>().ok());
            let Some(inode) = inode.filter(|inode| sockets.iter().any(|socket| socket.inode == *inode)) else {
                continue;
            };
            let name = host.files.text(&format!("/proc/{pid}/comm")).unwrap_or_default();
            owners.entry(inode).or_insert_with(|| (pid, name.trim().to_owned()));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::RunningProcess;
    use super::*;

    #[test]
    fn who_listens() {
        let table = "sl\n 0: 00000000:01BB 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n";
        let seen = |name: &str, fd: &str, listen: &str, pid: Option<u32>| {
            let (_folder, files) = tree(&[("/proc/net/tcp", table), ("/proc/9/comm", name), ("/proc/9/fd/3", fd)]);
            let running = pid.map(|pid| RunningProcess { pid, ..RunningProcess::default() });
            let mut host = Host { running, ..Host::of_files(files) };
            host.wanted.listen = vec![listen.parse().unwrap()];
            let results = check(&host);
            (results.findings.len(), results.unknown.len())
        };
        let link = "-> socket:[77]";
        assert_eq!(seen("nginx\n", link, "[::]:443", None), (1, 0));
        assert_eq!(seen("nginx\n", link, "127.0.0.1:443", Some(5)), (1, 0));
        assert_eq!(seen("nginx\n", link, "[::]:8443", None), (0, 0));
        assert_eq!(seen("pintle\n", link, "[::]:443", None), (0, 0));
        assert_eq!(seen("other\n", link, "[::]:443", Some(9)), (0, 0));
        assert_eq!(seen("systemd\n", link, "[::]:443", None), (0, 0));
        assert_eq!(seen("nginx\n", "-> socket:[78]", "[::]:443", None), (0, 1), "nobody's, as far as this user sees");
    }
}
