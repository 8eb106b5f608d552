//! The findings in words: each names the record to change.

use super::address::{AddressFault, AddressVerdict, SeenAddress};
use super::ask::{CaaIssuer, PreflightFinding, PreflightOrder, Subject};
use super::caa::CaaRefusal;
use crate::acme::dns::Persist;
use crate::acme::words::minute;
use crate::config::acme::Method;
use crate::host::without_wildcard;
use crate::reason::pasted::pintle;
use crate::reason::{Reason, Severity};

/// The remedy if the network in front cannot be moved out of the way.
const BY_DNS: &str = "dns_hook = \"/etc/pintle/dns-hook\" and challenges = [\"dns-01\"] in [acme]";

fn finding(name: &str, subject: Subject, severity: Severity, reason: Reason) -> PreflightFinding {
    PreflightFinding { name: name.to_owned(), subject, severity, reason }
}

pub(in crate::acme) fn wildcard(name: &str, method: Method) -> PreflightFinding {
    let reason = Reason::new(format!("{name}: {} cannot validate a wildcard", method.name())).hint(BY_DNS);
    finding(name, Subject::Method, Severity::Error, reason)
}

pub(in crate::acme) fn address_by_dns(name: &str, method: Method) -> PreflightFinding {
    let reason = Reason::new(format!("{name}: {} cannot validate an IP address", method.name()));
    finding(name, Subject::Method, Severity::Error, reason.hint("challenges = [\"http-01\"] in [acme]"))
}

/// `at` is the name that was asked for; for CAA, it may be above the name.
pub(super) fn failed(name: &str, at: &str, record: &str, why: &str) -> PreflightFinding {
    let whose = if at == name { String::new() } else { format!("{name}: ") };
    let reason = Reason::new(format!("{whose}{at}: the lookup of its {record} record failed: {why}"))
        .note(match record {
            "CAA" => "a CA that gets the same answer must not issue (RFC 8659 section 3)",
            _ => "a CA that gets the same answer cannot validate the name",
        })
        .hint(format!("repair the name servers of the zone; try: dig {at} {record}"));
    finding(name, Subject::Dns, Severity::Error, reason)
}

pub(super) fn no_address(ask: &PreflightOrder, name: &str) -> PreflightFinding {
    let reason = Reason::new(format!("{name}: no A or AAAA record"))
        .hint(format!("{name}. IN A ADDRESS, with the public IPv4 address of this host"));
    match ask.other_view {
        false => finding(name, Subject::Address, Severity::Error, reason),
        true => {
            let reason = reason.note("unknown from here: a private authority may ask other name servers");
            let reason = reason.hint("[resolver] name_servers = [\"192.0.2.53\"], the authority's");
            finding(name, Subject::Address, Severity::Warning, reason)
        }
    }
}

/// Makes a failed lookup of addresses a warning: the other kind of record leads here.
pub(super) fn other_kind(finding: &mut PreflightFinding) {
    finding.severity = Severity::Warning;
    finding.reason.notes = vec!["the other addresses of the name lead here".to_owned()];
}

/// Makes a silent address a warning: another one of the same kind leads here.
pub(super) fn one_of_several(finding: &mut PreflightFinding) {
    finding.severity = Severity::Warning;
    finding.reason.notes.push("another address leads here; a CA that takes this one fails".to_owned());
}

/// Makes a failed lookup a warning: the name servers answer no question, so the zone may be in order.
pub(super) fn unheard(finding: &mut PreflightFinding) {
    finding.severity = Severity::Warning;
    finding.reason.notes = vec!["unknown from here: the name servers answer no question at all".to_owned()];
    finding.reason.hints = vec!["[resolver] name_servers = [\"192.0.2.53\"]".to_owned()];
}

/// The line of a zone file that dns-persist-01 needs.
fn line(ask: &PreflightOrder, name: &str) -> Option<String> {
    let base = without_wildcard(name);
    let wildcard = ask.names.iter().any(|other| other.strip_prefix("*.") == Some(base));
    let (issuer, account) = (ask.issuer.identities.first()?.clone(), ask.issuer.account.clone()?);
    Some(Persist { issuer, account, wildcard, until: None }.line(name))
}

pub(super) fn record(ask: &PreflightOrder, name: &str, why: &str) -> PreflightFinding {
    let reason = Reason::new(format!("{name}: {}: {why}", Persist::name(name)));
    finding(name, Subject::Record, Severity::Error, reason.hints(line(ask, name).map(|line| format!("add: {line}"))))
}

pub(super) fn record_ends(ask: &PreflightOrder, name: &str, until: i64) -> PreflightFinding {
    let what = format!("{name}: {}: the record ends on {} (persistUntil)", Persist::name(name), minute(until));
    let reason = Reason::new(what).hints(line(ask, name).map(|line| format!("replace it with: {line}")));
    finding(name, Subject::Record, Severity::Warning, reason)
}

pub(super) fn record_unknown(ask: &PreflightOrder, name: &str) -> PreflightFinding {
    let what = match ask.issuer.account {
        Some(_) => format!("{} does not say which name identifies it in DNS records", ask.issuer.title),
        None => format!("pintle has no account at {} yet", ask.issuer.title),
    };
    let reason = Reason::new(format!("{name}: {}: unknown: {what}", Persist::name(name)));
    finding(name, Subject::Record, Severity::Warning, reason)
}

/// The program that sets records is configured, and not started yet.
pub(in crate::acme) fn no_hook(name: &str) -> PreflightFinding {
    let reason = Reason::new(format!("{name}: pintle started without acme.dns_hook"));
    finding(name, Subject::Method, Severity::Error, reason.command(pintle("upgrade")))
}

/// The remedy beside the owner's records, if the owner is another name.
fn of_alias(name: &str, owner: &str) -> Option<String> {
    (name != owner).then(|| format!("replace the CNAME of {name} with A and AAAA records of this host"))
}

/// Puts the verdict about an address into words. `record` is the type of its record, and the name that
/// has it; `None` if the address is the name.
pub(super) fn of_address(
    ask: &PreflightOrder,
    name: &str,
    record: Option<(&'static str, &str)>,
    seen: &SeenAddress,
    verdict: AddressVerdict,
) -> Option<PreflightFinding> {
    let (address, port) = (seen.address, if ask.method == Method::TlsAlpn01 { ask.ports.tls } else { ask.ports.http });
    let place = record.map_or_else(|| name.to_owned(), |(record, _)| format!("{name}: {record} {address}"));
    let remove = record.map(|(record, owner)| format!("correct or remove the record: {owner}. IN {record} {address}"));
    let remove: Vec<String> = remove.into_iter().chain(record.and_then(|(_, owner)| of_alias(name, owner))).collect();
    let (severity, reason) = match verdict {
        AddressVerdict::Here => return None,
        AddressVerdict::Unknown(why) => {
            let reason = Reason::new(format!("{place}: unknown from here: nothing answers on port {port}; {why}"));
            (Severity::Warning, reason)
        }
        AddressVerdict::Fault(AddressFault::Closed(why)) => {
            let what = format!("{place}: an address of this host, but nothing answers on port {port}: {why}");
            let key = if ask.method == Method::TlsAlpn01 { "https" } else { "http" };
            let wildcard = if address.is_ipv6() { "[::]" } else { "0.0.0.0" };
            let reason = Reason::new(what).hint(format!("[listen] {key} = [\"{wildcard}:{port}\"]")).hints(remove);
            (Severity::Error, reason)
        }
        AddressVerdict::Fault(AddressFault::Dead(why)) => {
            let reason = Reason::new(format!("{place}: does not point here: nothing answers on port {port}: {why}"));
            let firewall = format!("let the firewall pass port {port}, if this is the host's public address");
            (Severity::Error, reason.hints(remove).hint(firewall))
        }
        AddressVerdict::Fault(AddressFault::Elsewhere(what)) => {
            let reason = Reason::new(format!("{place}: points to another server: {what}"));
            let port = format!("forward port {port} of that address to pintle");
            (Severity::Error, reason.hints(remove).hint(port))
        }
        AddressVerdict::Fault(AddressFault::Cdn(cdn)) => {
            let reason =
                Reason::new(format!("{place}: {cdn} answers for this name, so challenges do not reach pintle"))
                    .note("visitors get its certificate, not pintle's")
                    .hint(format!("let {name} point to this host itself (at Cloudflare: \"DNS only\")"))
                    .hint(BY_DNS);
            (Severity::Error, reason)
        }
        AddressVerdict::Fault(AddressFault::Tls(certificate)) => {
            let what = format!("{place}: TLS ends at another server: {certificate}");
            let reason = Reason::new(what)
                .note("visitors get its certificate, not pintle's")
                .hint(format!("forward port {} of that address to pintle", ask.ports.tls))
                .hint(BY_DNS);
            (Severity::Error, reason)
        }
    };
    Some(finding(name, Subject::Address, severity, reason))
}

/// `at` is the name whose records count, and `owner` the name that has them: another one if `at` is an alias.
pub(super) fn of_caa(
    ask: &PreflightOrder,
    name: &str,
    (at, owner): (&str, &str),
    issuer: &CaaIssuer,
    refusal: &CaaRefusal,
    severity: Severity,
) -> PreflightFinding {
    let front = if severity == Severity::Error { "" } else { "no second authority: " };
    let alias = if owner == at { String::new() } else { format!(" (the target of the CNAME of {at})") };
    let what = format!("{front}{name}: the CAA records of {owner}{alias} {refusal}; not {}", issuer.title);
    let mut reason = Reason::new(what);
    let tag = if name.starts_with("*.") { "issuewild" } else { "issue" };
    let method = ask.method.name();
    if let Some(identity) = issuer.identities.first() {
        let account = issuer.account.as_ref();
        let value = match (refusal, account) {
            (CaaRefusal::Account(_), Some(account)) => format!("{identity}; accounturi={account}"),
            (CaaRefusal::Method(_), Some(account)) => {
                format!("{identity}; accounturi={account}; validationmethods={method}")
            }
            (CaaRefusal::Method(_), None) => format!("{identity}; validationmethods={method}"),
            _ => identity.clone(),
        };
        reason = match refusal {
            CaaRefusal::Critical(_) => reason.hint(format!("remove that record of {owner}")),
            _ => reason.hint(format!("add: {owner}. IN CAA 0 {tag} \"{value}\"")),
        };
        reason = reason.hints(of_alias(at, owner));
    }
    finding(name, Subject::Caa, severity, reason)
}

pub(super) fn caa_unknown(name: &str, at: &str, issuer: &CaaIssuer) -> PreflightFinding {
    let what =
        format!("{name}: {at} has CAA records, and {} does not say which name identifies it there", issuer.title);
    finding(name, Subject::Caa, Severity::Warning, Reason::new(what))
}
