//! Everything that would make an order fail, found before the order: addresses that lead elsewhere,
//! CAA records, name servers that fail, a content delivery network in between. A failed validation
//! costs a part of the CA's rate limit; a lookup costs nothing.
//!
//! `caa` and `address` judge, and perform no I/O; `probe` and [`super::lookup`] gather the facts.

pub mod address;
mod ask;
pub mod caa;
mod probe;
pub(in crate::acme) mod words;

use std::net::IpAddr;

use futures_util::StreamExt as _;
use futures_util::stream;

use self::address::{AddressFault, AddressVerdict};
use super::dns::{Persist, RecordState, standing};
use super::lookup::{Lookup, LookupAnswer};
use crate::config::acme::Method;
use crate::host::bare;
use crate::policy::promise::{DAY, Seconds};
use crate::reason::{Reason, Severity};
use crate::upstream::dns::NameServers;

pub use ask::{CaaIssuer, PreflightFinding, PreflightOrder, Subject};
pub use probe::{Ports, Probe};

/// The names that are checked at the same time.
const NAMES_AT_ONCE: usize = 8;
/// A record of dns-persist-01 that ends earlier is named, in seconds.
const RECORD_ENDS: Seconds = 30 * DAY;
/// The most addresses of a name that are probed. A CA tries one or two.
const ADDRESSES_MAX: usize = 16;

/// Checks all names of an order. Takes at most about a minute for a hundred names that time out.
pub async fn check(ask: &PreflightOrder, servers: &NameServers) -> Vec<PreflightFinding> {
    let lookup = match Lookup::new(servers) {
        Ok(lookup) => lookup,
        Err(why) => {
            let reason = Reason::new(format!("no name server to ask: {why}"));
            let reason = reason.hint("[resolver] name_servers = [\"192.0.2.53\"]");
            let name = ask.names.first().cloned().unwrap_or_default();
            return vec![PreflightFinding { name, subject: Subject::Dns, severity: Severity::Warning, reason }];
        }
    };
    let lookup = &lookup;
    let all = stream::iter(&ask.names).map(|name| check_name(ask, name, lookup)).buffered(NAMES_AT_ONCE);
    let mut findings: Vec<PreflightFinding> = all.collect::<Vec<_>>().await.into_iter().flatten().collect();
    let failed = |finding: &&mut PreflightFinding| finding.subject == Subject::Dns;
    // The zone's servers are at fault only if the name servers answer at all.
    if findings.iter_mut().any(|finding| failed(&finding)) && !lookup.works().await {
        findings.iter_mut().filter(failed).for_each(words::unheard);
    }
    findings
}

async fn check_name(ask: &PreflightOrder, name: &str, lookup: &Lookup) -> Vec<PreflightFinding> {
    let by_dns = ask.method.is_by_dns();
    let address: Option<IpAddr> = bare(name).parse().ok();
    if name.starts_with("*.") && !by_dns {
        return vec![words::wildcard(name, ask.method)];
    }
    let mut findings = Vec::new();
    match address {
        Some(_) if by_dns => return vec![words::address_by_dns(name, ask.method)],
        Some(ip) => findings.extend(check_address(ask, &ip.to_string(), ip, None).await.1),
        None if !by_dns => findings.extend(check_addresses(ask, name, lookup).await),
        None => {}
    }
    if ask.method == Method::DnsPersist01 {
        findings.extend(check_record(ask, name, lookup).await);
    }
    if address.is_none() {
        findings.extend(check_caa(ask, name, lookup).await);
    }
    findings
}

async fn check_addresses(ask: &PreflightOrder, name: &str, lookup: &Lookup) -> Vec<PreflightFinding> {
    let (v4, v6, owner) =
        futures_util::join!(lookup.addresses(name, false), lookup.addresses(name, true), lookup.owner(name));
    let owner = owner.as_str();
    let mut failed = Vec::new();
    let mut all = Vec::new();
    for (record, found) in [("A", v4), ("AAAA", v6)] {
        match found {
            LookupAnswer::Records(addresses) => all.extend(addresses.into_iter().map(|address| (record, address))),
            LookupAnswer::Nothing => {}
            LookupAnswer::Failed(why) => failed.push(words::failed(name, name, record, &why)),
        }
    }
    if all.is_empty() && failed.is_empty() {
        return vec![words::no_address(ask, name)];
    }
    let each = all.into_iter().take(ADDRESSES_MAX);
    let probed = stream::iter(each).map(|(record, ip)| async move {
        let (verdict, finding) = check_address(ask, name, ip, Some((record, owner))).await;
        (record, verdict, finding)
    });
    let probed: Vec<_> = probed.buffered(ADDRESSES_MAX).collect().await;
    let leads_here =
        |of: &str| probed.iter().any(|(record, verdict, _)| *record == of && *verdict == AddressVerdict::Here);
    let some_lead_here = leads_here("A") || leads_here("AAAA");
    // A CA has the other kind of address.
    failed.iter_mut().filter(|_| some_lead_here).for_each(words::other_kind);
    let others_lead_here = leads_here("A");
    let mut findings = failed;
    for (record, verdict, finding) in probed {
        let is_silent = matches!(verdict, AddressVerdict::Fault(AddressFault::Closed(_) | AddressFault::Dead(_)));
        findings.extend(finding.map(|mut finding| {
            // A CA takes any of several A records, but an AAAA record before all of them.
            if is_silent && record == "A" && others_lead_here {
                words::one_of_several(&mut finding);
            }
            finding
        }));
    }
    findings
}

/// `record` is the type of the address's record, and the name that has it; `None` if the address is the name.
async fn check_address(
    ask: &PreflightOrder,
    name: &str,
    address: IpAddr,
    record: Option<(&'static str, &str)>,
) -> (AddressVerdict, Option<PreflightFinding>) {
    let answer = match ask.method {
        Method::TlsAlpn01 => probe::by_tls(name, address, ask.ports, &ask.probe).await,
        _ => probe::by_http(name, address, ask.ports, &ask.probe).await,
    };
    let is_ours = matches!(answer, address::ProbeAnswer::Ours { .. });
    let foreign = match ask.method {
        // The challenge itself has shown where TLS ends.
        Method::Http01 if is_ours => probe::foreign(name, address, ask.ports, &ask.own).await,
        _ => None,
    };
    let seen = address::SeenAddress { address, answer, source: probe::source(address), foreign };
    let verdict = address::judge(&seen, ask.behind_proxy);
    (verdict.clone(), words::of_address(ask, name, record, &seen, verdict))
}

/// The record of dns-persist-01, which the operator has set.
async fn check_record(ask: &PreflightOrder, name: &str, lookup: &Lookup) -> Option<PreflightFinding> {
    let CaaIssuer { identities, account, .. } = &ask.issuer;
    let at = Persist::name(name);
    let values = match lookup.txt(&at).await.known() {
        Ok(values) => values,
        Err(why) => return Some(words::failed(name, &at, "TXT", &why)),
    };
    let Some(account) = account.as_deref().filter(|_| !identities.is_empty()) else {
        return Some(words::record_unknown(ask, name));
    };
    match standing(&values, identities, account, name, ask.now) {
        RecordState::Good(None) => None,
        RecordState::Good(Some(until)) if until > ask.now + RECORD_ENDS => None,
        RecordState::Good(Some(until)) => Some(words::record_ends(ask, name, until)),
        RecordState::Bad(why) => Some(words::record(ask, name, why)),
    }
}

async fn check_caa(ask: &PreflightOrder, name: &str, lookup: &Lookup) -> Option<PreflightFinding> {
    for at in caa::climb(name) {
        let set = match lookup.caa(at).await {
            LookupAnswer::Nothing => continue,
            LookupAnswer::Records(set) => set,
            LookupAnswer::Failed(why) => return Some(words::failed(name, at, "CAA", &why)),
        };
        let verdict = |issuer: &CaaIssuer| {
            let wanted = caa::WantedCertificate {
                identities: &issuer.identities,
                account: issuer.account.as_deref(),
                method: ask.method.name(),
                wildcard: name.starts_with("*."),
            };
            caa::judge(&set, &wanted)
        };
        return match (verdict(&ask.issuer), ask.fallback.as_ref().map(|second| (second, verdict(second)))) {
            (caa::CaaVerdict::Refused(refusal), _) => {
                let owner = lookup.owner(at).await;
                Some(words::of_caa(ask, name, (at, owner.as_str()), &ask.issuer, &refusal, Severity::Error))
            }
            (caa::CaaVerdict::Unknown, _) => Some(words::caa_unknown(name, at, &ask.issuer)),
            // An account that is to be made yet matches no URI.
            (_, Some((second, caa::CaaVerdict::Refused(refusal)))) => {
                let owner = lookup.owner(at).await;
                Some(words::of_caa(ask, name, (at, owner.as_str()), second, &refusal, Severity::Warning))
            }
            (caa::CaaVerdict::Allowed, _) => None,
        };
    }
    None
}
