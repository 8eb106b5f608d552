//! The name servers: the answers of each for the names of the upstreams, and their times.

use std::time::Duration;

use super::finding::{CheckResults, Finding};
use super::host::Host;

/// An answer that takes longer holds requests up when addresses change.
const SLOW: Duration = Duration::from_secs(1);

/// Checks the answers of each name server.
#[must_use]
pub(super) fn check(host: &Host) -> CheckResults {
    let mut results = CheckResults::default();
    let mut servers: Vec<_> = host.servers.iter().map(|answer| answer.server).collect();
    servers.sort_unstable();
    servers.dedup();
    let source = if host.wanted.name_servers.is_empty() { "/etc/resolv.conf" } else { "resolver.name_servers" };
    for server in servers {
        let answers: Vec<_> = host.servers.iter().filter(|answer| answer.server == server).collect();
        let shown = |answer: &&super::host::ServerAnswer| match &answer.result {
            Ok(time) => format!("{}: answered in {} ms", answer.name, time.as_millis()),
            Err(why) => format!("{}: {why}", answer.name),
        };
        let failed: Vec<String> = answers.iter().filter(|answer| answer.result.is_err()).map(shown).collect();
        let slow: Vec<String> =
            answers.iter().filter(|answer| answer.result.as_ref().is_ok_and(|time| *time > SLOW)).map(shown).collect();
        let (id, what, facts) = match (failed.is_empty(), slow.is_empty()) {
            (false, _) => ("dns.no-answer", format!("name server {server} does not answer for an upstream"), failed),
            (true, false) => ("dns.slow", format!("name server {server} answers slowly"), slow),
            (true, true) => continue,
        };
        let ip = server.ip();
        let name = answers.first().map(|answer| answer.name.clone()).unwrap_or_default();
        results.push(
            Finding::warning(id, server.to_string(), what)
                .evidences(facts)
                .evidence(format!("{source} names {server}"))
                .remedy("ask it by hand", [format!("dig @{ip} -p {} {name}", server.port())])
                .advice(format!(
                    "repair it, or remove it from {source}: each failed question delays a change of addresses"
                )),
        );
    }
    results
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::tree;
    use super::super::host::ServerAnswer;
    use super::*;

    #[test]
    fn answers() {
        let ms = |ms| Ok(Duration::from_millis(ms));
        for (results, want) in [
            (vec![ms(3), ms(900)], None),
            (vec![ms(3), ms(1100)], Some("dns.slow")),
            (vec![ms(3), Err("SERVFAIL".to_owned())], Some("dns.no-answer")),
        ] {
            let server = "192.0.2.53:53".parse().unwrap();
            let answer = |result| ServerAnswer { server, name: "up.example".into(), result };
            let host = Host { servers: results.into_iter().map(answer).collect(), ..Host::of_files(tree(&[]).1) };
            assert_eq!(check(&host).findings.first().map(|finding| finding.id), want);
        }
    }
}
