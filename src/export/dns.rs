//! All records of a site for its zone: HTTPS (RFC 9460), CAA (RFC 8659, RFC 8657), TLSA, and
//! dns-persist-01.

use super::form::ExportForm;
use super::set::{HTTPS, Issuer, PinSet};
use super::tools;
use crate::host::HostPattern;

/// The challenge without a record per order.
const PERSIST: &str = "dns-persist-01";
/// The challenges that prove a wildcard.
const BY_DNS: [&str; 2] = ["dns-01", PERSIST];
/// The longest string of a TXT record, in bytes.
const STRING_MAX: usize = 255;

/// Writes the records, with a word on each kind.
pub(super) fn zone(set: &PinSet) -> String {
    let mut text = format!("; {}\n", set.title(ExportForm::Dns));
    text.push_str(
        "; HTTPS: browsers use https from the first request. Leave these lines out for a name that is a CNAME.\n",
    );
    for host in set.named(ExportForm::Dns) {
        set.ports.iter().for_each(|port| text.push_str(&https(host, *port)));
    }
    text.push_str(&caa(set));
    text.push_str(&persistent(set));
    text.push_str(
        "; TLSA: needs DNSSEC. The next key's record must be there for longer than its TTL before that key is served.\n",
    );
    text + &tools::tlsa_records(set)
}

/// Ports other than 443 have names of their own (RFC 9460 section 2.3).
fn https(host: &HostPattern, port: u16) -> String {
    let alpn = "alpn=\"h2,http/1.1\"";
    match port {
        HTTPS => format!("{host}. IN HTTPS 1 . {alpn}\n"),
        // An asterisk is a wildcard as the leftmost label only.
        _ if host.is_wildcard() => {
            format!("; _{port}._https.NAME.{}. IN HTTPS 1 NAME.{0}. {alpn} port={port}\n", host.base())
        }
        _ => format!("_{port}._https.{host}. IN HTTPS 1 {host}. {alpn} port={port}\n"),
    }
}

fn caa(set: &PinSet) -> String {
    let mut text = String::new();
    for issuer in &set.issuers {
        if issuer.identity.is_none() {
            text.push_str(&format!("; No CAA records: the name of {} there is unknown.\n", issuer.title));
        }
    }
    if set.issuers.is_empty() {
        text.push_str(
            "; No CAA records: pintle does not obtain this certificate, so it does not know the authority.\n",
        );
    }
    if text.is_empty() {
        text.push_str("; CAA: no other authority, account or challenge can get a certificate for these names.\n");
        for host in set.named(ExportForm::Dns) {
            text.extend(set.issuers.iter().map(|issuer| caa_record(host, issuer)));
        }
    }
    text
}

fn caa_record(host: &HostPattern, issuer: &Issuer) -> String {
    let methods: Vec<&str> =
        issuer.methods.iter().copied().filter(|name| !host.is_wildcard() || BY_DNS.contains(name)).collect();
    let mut value = issuer.identity.clone().unwrap_or_default();
    if let Some(account) = &issuer.account {
        value.push_str(&format!("; accounturi={account}"));
    }
    if !methods.is_empty() {
        value.push_str(&format!("; validationmethods={}", methods.join(",")));
    }
    let tag = if host.is_wildcard() { "issuewild" } else { "issue" };
    format!("{}. IN CAA 0 {tag} \"{value}\"\n", host.base())
}

fn persistent(set: &PinSet) -> String {
    let mut text = String::new();
    for issuer in set.issuers.iter().filter(|issuer| issuer.methods.contains(&PERSIST)) {
        let (Some(identity), Some(account)) = (&issuer.identity, &issuer.account) else { continue };
        for host in set.named(ExportForm::Dns) {
            let policy = if host.is_wildcard() { "; policy=wildcard" } else { "" };
            let value = format!("{identity}; accounturi={account}{policy}");
            let strings: Vec<String> = value
                .as_bytes()
                .chunks(STRING_MAX)
                .map(|part| format!("\"{}\"", String::from_utf8_lossy(part)))
                .collect();
            text.push_str(&format!("_validation-persist.{}. IN TXT {}\n", host.base(), strings.join(" ")));
        }
    }
    text
}
