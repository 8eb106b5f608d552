//! Docker: its networks need ip_forward, and its FORWARD policy depends on who has set that.

use super::files::HostFiles;
use super::finding::{CheckResults, Finding};
use super::host::{Forward, Host};

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Returns the proof that Docker has networks on this host.
#[must_use]
pub fn evidence(files: &HostFiles) -> Option<String> {
    let is_bridge = |name: &&String| {
        let id = name.strip_prefix("br-").unwrap_or_default();
        name.as_str() == "docker0" || (id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if let Some(bridge) = files.names("/sys/class/net").iter().find(is_bridge) {
        return Some(format!("Docker's network {bridge} exists"));
    }
    let pids = ["/run/docker.pid", "/var/run/docker.pid"];
    pids.iter().find(|path| files.is_there(path)).map(|path| format!("Docker runs: {path} exists"))
}

/// Adds the second line of the remedy: Docker sets the policy DROP only if it has changed ip_forward itself.
#[must_use]
pub fn with_forward_policy(finding: Finding) -> Finding {
    finding.remedy(
        "and drop other forwarded traffic: with 1 from a file, Docker (before 29) leaves the FORWARD policy ACCEPT, and \
         this host routes for everybody",
        drop_commands(),
    )
}

fn drop_commands() -> Vec<String> {
    let folder = "/etc/systemd/system/docker.service.d";
    vec![
        format!("mkdir -p {folder}"),
        format!(
            "printf '[Service]\\nExecStartPost=/usr/sbin/iptables -w -P FORWARD DROP\\n' > {folder}/forward-drop.conf"
        ),
        "systemctl daemon-reload".to_owned(),
        "iptables -w -P FORWARD DROP".to_owned(),
    ]
}

/// Checks that containers are connected, and that the host routes for them only.
#[must_use]
pub fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let Some(proof) = evidence(&host.files) else { return results };
    let Some(forward) = host.files.word(FORWARD) else { return results };
    if forward == "0" {
        results.push(
            Finding::fault(
                "docker.forwarding-off",
                "net.ipv4.ip_forward",
                "Docker's containers have no network: ip_forward is 0",
            )
            .evidence(format!("{FORWARD}: 0"))
            .evidence(proof)
            .remedy("forward now", ["sysctl -w net.ipv4.ip_forward=1"])
            .advice("then run `pintle doctor` again: it names the file and line that would set 0 at the next boot"),
        );
        return results;
    }
    match &host.forward {
        Forward::Accept => {
            let what = "this host routes for everybody: the FORWARD policy is ACCEPT, and ip_forward is 1";
            let finding = Finding::warning("docker.forward-policy", "FORWARD", what)
                .evidence("iptables -S FORWARD: -P FORWARD ACCEPT")
                .evidence(format!("{FORWARD}: {forward}"))
                .evidence(proof)
                .evidence("Docker sets DROP only if it has changed ip_forward from 0 to 1 itself");
            results.push(finding.remedy("drop packets that no rule of Docker accepts", drop_commands()));
        }
        Forward::Drop => {}
        Forward::Unknown(needs) => results.needs(format!("{needs}, for the FORWARD policy")),
    }
    results
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::*;

    fn ids(forward: &str, bridge: &str, policy: Forward) -> Vec<&'static str> {
        let (_folder, files) = tree(&[(FORWARD, forward), (&format!("/sys/class/net/{bridge}/ifindex"), "3")]);
        check(&Host { forward: policy, ..Host::of_files(files) }).findings.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn containers_are_connected_and_the_host_is_no_router() {
        for (forward, bridge, policy, want) in [
            ("1", "docker0", Forward::Drop, None),
            ("0", "eth0", Forward::Accept, None),
            ("1", "br-lan", Forward::Accept, None),
            ("0", "docker0", Forward::Drop, Some("docker.forwarding-off")),
            ("1", "docker0", Forward::Accept, Some("docker.forward-policy")),
            ("1", "br-0123456789ab", Forward::Accept, Some("docker.forward-policy")),
        ] {
            assert_eq!(ids(forward, bridge, policy), want.into_iter().collect::<Vec<_>>(), "{forward} {bridge}");
        }
        let (_folder, files) = tree(&[(FORWARD, "1"), ("/run/docker.pid", "1")]);
        let host = Host { forward: Forward::Unknown("root".to_owned()), ..Host::of_files(files) };
        assert_eq!(check(&host).unknown, ["root, for the FORWARD policy"]);
    }
}
