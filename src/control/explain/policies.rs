//! HSTS and pins in a report: as they are sent, or why they are not.

use serde_json::{Value, json};

use super::{Inputs, text};
use crate::config::report;
use crate::ledger::Ramped;
use crate::policy::Scheme;
use crate::server::explain::NoPins;

/// Both policies.
pub(super) fn json(inputs: &Inputs<'_>) -> Value {
    json!({ "hsts": hsts(inputs), "pins": pins(inputs) })
}

fn hsts(inputs: &Inputs<'_>) -> Value {
    let sent = sent(inputs, &["Strict-Transport-Security"]);
    let why_not = sent.is_none().then(|| common(inputs).unwrap_or_else(|| absent(inputs, "hsts")));
    json!({
        "name": "Strict-Transport-Security",
        "value": sent.map(|(_, value)| value),
        "why_not": why_not,
        "notes": notes(inputs, Ramped::Hsts),
        "at": at(inputs, &["site.hsts.max_age", "site.hsts"]),
    })
}

fn pins(inputs: &Inputs<'_>) -> Value {
    let sent = sent(inputs, &["Public-Key-Pins", "Public-Key-Pins-Report-Only"]);
    let why_not = sent.is_none().then(|| common(inputs).unwrap_or_else(|| why_no_pins(inputs)));
    let name = sent.as_ref().map(|(name, _)| name.clone());
    let configured = inputs.site.and_then(|site| site.hpkp.as_ref()).map(|(name, _)| (*name).to_owned());
    json!({
        "name": name.or(configured),
        "value": sent.map(|(_, value)| value),
        "why_not": why_not,
        "notes": notes(inputs, Ramped::Hpkp),
        "at": at(inputs, &["site.hpkp"]),
    })
}

/// The line of a policy. Without a site, the lines are those of another one.
fn at(inputs: &Inputs<'_>, keys: &[&str]) -> Option<String> {
    inputs.site.and_then(|_| inputs.lines.at(keys))
}

/// The field of the answer that carries a policy.
fn sent(inputs: &Inputs<'_>, names: &[&str]) -> Option<(String, String)> {
    let fields = &inputs.found.answer.as_ref()?.fields;
    let is_it = |own: &[u8]| names.iter().any(|name| own.eq_ignore_ascii_case(name.as_bytes()));
    fields.iter().find(|(name, _)| is_it(name)).map(|(name, value)| (text(name), text(value)))
}

/// The reasons that keep back any policy.
fn common(inputs: &Inputs<'_>) -> Option<String> {
    let found = inputs.found;
    if found.answer.is_none() {
        return Some("there is no response".to_owned());
    }
    let scheme = found.origin.as_ref().map(|origin| origin.scheme);
    if scheme == Some(Scheme::Http) {
        return Some("the scheme is http, and policies go over https only".to_owned());
    }
    if inputs.site.is_none() {
        let is_early = found.origin.is_none();
        let why = if is_early { "the request is refused before its host counts" } else { "no site has this host" };
        return Some(why.to_owned());
    }
    (!found.noted).then(|| "the answer is not for a host of this site on this connection".to_owned())
}

/// The reason why a site has no policy.
fn absent(inputs: &Inputs<'_>, table: &str) -> String {
    let is_configured = inputs.lines.at(&[&format!("site.{table}")]).is_some();
    match inputs.site {
        _ if !is_configured => format!("the site has no [site.{table}]"),
        Some(site) if site.lacks_certificate.is_some() => "the site has no certificate".to_owned(),
        _ => "clients note no policy for an address, and the site has no name".to_owned(),
    }
}

fn why_no_pins(inputs: &Inputs<'_>) -> String {
    match (inputs.found.pins, inputs.site.and_then(|site| site.withheld)) {
        (_, Some(withheld)) => withheld.why().to_owned(),
        (Err(NoPins::None) | Ok(()), None) => absent(inputs, "hpkp"),
        (Err(NoPins::NoLease), None) => match inputs.live.as_ref().and_then(Option::as_ref) {
            Some(trouble) => format!("the ledger grants no lease: {trouble}"),
            None => "the ledger grants no lease now".to_owned(),
        },
        (Err(NoPins::Refused), None) => {
            "the site has no certificate for this host, and promises no pins for it".to_owned()
        }
        (Err(NoPins::OtherChain), None) => "the connection shows a chain that they do not match".to_owned(),
        (Err(NoPins::Unnamed), None) => {
            "the client named no site in SNI, and tls.default_site may change: pins go to clients that name the site"
                .to_owned()
        }
    }
}

/// The step of a ramp, and an address as host.
fn notes(inputs: &Inputs<'_>, policy: Ramped) -> Vec<String> {
    let of_site = |site: &report::SiteReport| -> Vec<String> {
        let own = site.ramps.iter().filter(|ramp| ramp.policy == policy);
        own.map(|ramp| format!("ramp: step {} of {}, max-age {}", ramp.step + 1, ramp.steps, ramp.max_age)).collect()
    };
    let mut notes = inputs.site.map(of_site).unwrap_or_default();
    if inputs.url.address().is_some() {
        notes.push("the host is an address: clients note no policy for it".to_owned());
    }
    if inputs.live.is_none() && policy == Ramped::Hpkp && inputs.found.pins.is_ok() {
        notes.push("if the ledger can be written: --live asks the running process".to_owned());
    }
    notes
}
