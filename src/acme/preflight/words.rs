//! The findings in words: each names the record to change.

use super::address::{Fault, Seen, Verdict};
use super::ask::{Ask, Finding, Issuer, Subject};
use super::caa::Refusal;
use crate::config::acme::Method;
use crate::reason::{Reason, Severity};

/// The remedy if the network in front cannot be moved out of the way.
const BY_DNS: &str = "dns_hook = \"/etc/pintle/dns-hook\" and challenges = [\"dns-01\"] in [acme]";

fn finding(name: &str, subject: Subject, severity: Severity, reason: Reason) -> Finding {
    Finding { name: name.to_owned(), subject, severity, reason }
}

pub(super) fn wildcard(name: &str, method: Method) -> Finding {
    let reason = Reason::new(format!("{name}: {} proves no wildcard", method.name())).hint(BY_DNS);
    finding(name, Subject::Method, Severity::Error, reason)
}

pub(super) fn address_by_dns(name: &str, method: Method) -> Finding {
    let reason = Reason::new(format!("{name}: {} proves no address", method.name()));
    finding(name, Subject::Method, Severity::Error, reason.hint("challenges = [\"http-01\"] in [acme]"))
}

pub(super) fn failed(name: &str, record: &str, why: &str) -> Finding {
    let reason = Reason::new(format!("{name}: the lookup of its {record} record failed: {why}"))
        .note("an authority that gets the same answer must not issue")
        .hint(format!("repair the name servers of the zone; try: dig {name} {record}"));
    finding(name, Subject::Dns, Severity::Error, reason)
}

pub(super) fn no_address(name: &str) -> Finding {
    let reason = Reason::new(format!("{name}: no A or AAAA record"))
        .hint(format!("{name}. IN A ADDRESS, with the public IPv4 address of this host"));
    finding(name, Subject::Address, Severity::Error, reason)
}

/// Puts the verdict about an address into words. `record` is the type of its record; `None` if the
/// address is the name.
pub(super) fn of_address(
    ask: &Ask,
    name: &str,
    record: Option<&'static str>,
    seen: &Seen,
    verdict: Verdict,
) -> Option<Finding> {
    let (address, port) = (seen.address, if ask.method == Method::TlsAlpn01 { ask.ports.tls } else { ask.ports.http });
    let place = record.map_or_else(|| name.to_owned(), |record| format!("{name}: {record} {address}"));
    let remove = record.map(|record| format!("correct or remove the record: {name}. IN {record} {address}"));
    let (severity, reason) = match verdict {
        Verdict::Here => return None,
        Verdict::Unknown(why) => {
            let reason = Reason::new(format!("{place}: unknown from here: nothing answers on port {port}; {why}"));
            (Severity::Warning, reason)
        }
        Verdict::Fault(Fault::Closed(why)) => {
            let what = format!("{place}: an address of this host, but nothing answers on port {port}: {why}");
            let key = if ask.method == Method::TlsAlpn01 { "https" } else { "http" };
            let wildcard = if address.is_ipv6() { "[::]" } else { "0.0.0.0" };
            let reason = Reason::new(what).hint(format!("[listen] {key} = [\"{wildcard}:{port}\"]")).hints(remove);
            (Severity::Error, reason)
        }
        Verdict::Fault(Fault::Dead(why)) => {
            let reason = Reason::new(format!("{place}: does not lead here: nothing answers on port {port}: {why}"));
            let firewall = format!("let the firewall pass port {port}, if this is the host's public address");
            (Severity::Error, reason.hints(remove).hint(firewall))
        }
        Verdict::Fault(Fault::Elsewhere(what)) => {
            let reason = Reason::new(format!("{place}: leads to another server: {what}"));
            let port = format!("let port {port} of that address lead to pintle");
            (Severity::Error, reason.hints(remove).hint(port))
        }
        Verdict::Fault(Fault::Cdn(cdn)) => {
            let reason = Reason::new(format!("{place}: {cdn} is in between, so challenges end there"))
                .note("visitors get its certificate, not pintle's")
                .hint(format!("let {name} lead to this host itself (at Cloudflare: \"DNS only\")"))
                .hint(BY_DNS);
            (Severity::Error, reason)
        }
        Verdict::Fault(Fault::Tls(certificate)) => {
            let what = format!("{place}: TLS ends at another server: {certificate}");
            let reason = Reason::new(what)
                .note("visitors get its certificate, not pintle's")
                .hint(format!("let port {} of that address lead to pintle", ask.ports.tls))
                .hint(BY_DNS);
            (Severity::Error, reason)
        }
    };
    Some(finding(name, Subject::Address, severity, reason))
}

pub(super) fn of_caa(
    ask: &Ask,
    name: &str,
    at: &str,
    issuer: &Issuer,
    refusal: &Refusal,
    severity: Severity,
) -> Finding {
    let front = if severity == Severity::Error { "" } else { "no second authority: " };
    let what = format!("{front}{name}: the CAA records of {at} {refusal}; not {}", issuer.title);
    let mut reason = Reason::new(what);
    let tag = if name.starts_with("*.") { "issuewild" } else { "issue" };
    let method = ask.method.name();
    if let Some(identity) = issuer.identities.first() {
        let account = issuer.account.as_ref();
        let value = match (refusal, account) {
            (Refusal::Account(_), Some(account)) => format!("{identity}; accounturi={account}"),
            (Refusal::Method(_), Some(account)) => {
                format!("{identity}; accounturi={account}; validationmethods={method}")
            }
            (Refusal::Method(_), None) => format!("{identity}; validationmethods={method}"),
            _ => identity.clone(),
        };
        reason = match refusal {
            Refusal::Critical(_) => reason.hint(format!("remove that record of {at}")),
            _ => reason.hint(format!("add: {at}. IN CAA 0 {tag} \"{value}\"")),
        };
    }
    finding(name, Subject::Caa, severity, reason)
}

pub(super) fn caa_unknown(name: &str, at: &str, issuer: &Issuer) -> Finding {
    let what = format!("{name}: {at} has CAA records, and {} does not say by which name it goes there", issuer.title);
    finding(name, Subject::Caa, Severity::Warning, Reason::new(what))
}
