//! `[site.request_headers]` and `[site.response_headers]`.

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};

use super::checker::Checker;
use crate::config::file::{HeadersTable, SiteTable};
use crate::config::problem::At;
use crate::message::{Name, folded, is_forbidden_trailer};
use crate::reason::Reason;
use crate::site::HeaderRules;
use crate::upstream::{is_reserved, is_vouched};

pub(super) fn build(table: Option<&HeadersTable>, key: &str, r: &mut Checker<'_>) -> HeaderRules {
    let mut rules = HeaderRules::default();
    let Some(table) = table else { return rules };
    for name in &table.remove {
        if let Some(name) = field_name(name, &format!("site.{key}.remove"), r) {
            rules.dropped.push(folded(name.as_str().as_bytes()));
        }
    }
    for name in &table.trailers {
        if let Some(name) = trailer_name(name, &format!("site.{key}.trailers"), r) {
            rules.trailers.push(name.as_str().as_bytes().into());
        }
    }
    check_lookalikes(table, key, r);
    let (set, add) = (table.set.iter().map(|p| (p, true)), table.add.iter().map(|p| (p, false)));
    for ((name, value), replaces) in set.chain(add) {
        let key = format!("site.{key}.{}", if replaces { "set" } else { "add" });
        let Some(field) = field_name(name, &key, r) else { continue };
        if HeaderValue::from_str(&value.value).is_err() {
            let message = format!("{key}: the value of {:?} has characters that no header field can carry", name.value);
            r.error_with_hint(&value.span, message, "remove line breaks and control characters");
            continue;
        }
        if replaces {
            rules.dropped.push(folded(field.as_str().as_bytes()));
        }
        // As written in the file: some clients see the case.
        rules.added.push(&name.value, &value.value).expect("both were checked");
    }
    rules
}

/// Refuses two names that differ, but are one name to servers of the CGI kind, and a name that is set twice.
fn check_lookalikes(table: &HeadersTable, key: &str, r: &mut Checker<'_>) {
    let set = table.set.iter().map(|(name, _)| ("set", name));
    let add = table.add.iter().map(|(name, _)| ("add", name));
    let sent: Vec<_> = set.chain(add).collect();
    let trailers: Vec<_> = table.trailers.iter().map(|name| ("trailers", name)).collect();
    for names in [sent, trailers] {
        // There may be many: each is looked up, and not compared with all others.
        let mut earlier: HashMap<Box<[u8]>, (&str, &At<String>)> = HashMap::new();
        for (list, name) in names {
            let Some((other_list, other)) = earlier.insert(folded(name.value.as_bytes()), (list, name)) else {
                continue;
            };
            if !other.value.eq_ignore_ascii_case(&name.value) {
                r.error_with_hint(
                    &name.span,
                    format!(
                        "site.{key}.{list}: {:?} looks like {:?}, which is listed before it",
                        name.value, other.value
                    ),
                    "keep one of them: many servers read both as the same field",
                );
            } else if (list, other_list) == ("set", "set") {
                r.error_with_hint(
                    &name.span,
                    format!("site.{key}.set: {:?} is the same field as {:?}", name.value, other.value),
                    "keep one of them, since the case of a name does not matter",
                );
            }
        }
    }
}

fn parse_name(name: &At<String>, key: &str, r: &mut Checker<'_>) -> Option<HeaderName> {
    // A valid character of names, which no field in use has.
    if name.value.contains('*') {
        r.error_with_hint(
            &name.span,
            format!("{key}: {:?} has a wildcard, which header rules do not support", name.value),
            "list each name",
        );
        return None;
    }
    let Ok(field) = HeaderName::from_bytes(name.value.as_bytes()) else {
        r.error(&name.span, invalid_name(key, &name.value));
        return None;
    };
    Some(field)
}

fn field_name(name: &At<String>, key: &str, r: &mut Checker<'_>) -> Option<HeaderName> {
    let field = parse_name(name, key, r)?;
    if key.starts_with("site.request_headers") && is_vouched(&field) {
        let hint = match Name::of_lookalike(name.value.as_bytes()) {
            Name::Via => "leave it out: pintle detects loops with it",
            _ => "leave it out: pintle writes the client there, as listen.trusted_proxies declare it",
        };
        r.error_with_hint(
            &name.span,
            format!("{key}: pintle itself writes {:?}, or a field that looks like it", name.value),
            hint,
        );
        return None;
    }
    if is_reserved(&field) {
        r.error_with_hint(
            &name.span,
            format!("{key}: rules cannot change {:?}, which belongs to the connection or the framing", name.value),
            match Name::of_lookalike(name.value.as_bytes()) {
                Name::Host => "set site.upstream_options.host_header instead",
                _ => "leave it out: pintle writes such fields itself",
            },
        );
        return None;
    }
    Some(field)
}

fn invalid_name(key: &str, name: &str) -> Reason {
    let reason = Reason::new(format!("{key}: invalid header name {name:?}"));
    match name.split_once(':') {
        Some((first, _)) if HeaderName::from_bytes(first.as_bytes()).is_ok() => {
            reason.hint(format!("did you mean {first:?}?"))
        }
        _ => reason.note("expected letters, digits and hyphens"),
    }
}

fn trailer_name(name: &At<String>, key: &str, r: &mut Checker<'_>) -> Option<HeaderName> {
    let field = parse_name(name, key, r)?;
    if is_forbidden_trailer(name.value.as_bytes()) {
        r.error_with_hint(
            &name.span,
            format!("{key}: {:?} must not be a trailer: recipients need it before the body", name.value),
            "remove it from the list (RFC 9110 section 6.5.1)",
        );
        return None;
    }
    Some(field)
}

/// Reports policy headers in header rules: nothing checks those.
pub(super) fn check_policies(table: &SiteTable, r: &mut Checker<'_>) {
    let Some(headers) = &table.response_headers else { return };
    for (name, _) in headers.set.iter().chain(&headers.add) {
        let field = Name::of(name.value.as_bytes());
        let (policy, taken) = match field {
            Name::StrictTransportSecurity => ("hsts", table.hsts.is_some()),
            Name::PublicKeyPins | Name::PublicKeyPinsReportOnly => ("hpkp", table.hpkp.is_some()),
            _ => continue,
        };
        if taken {
            let message = format!("site.response_headers: [site.{policy}] sends {:?} already", name.value);
            r.error_with_hint(&name.span, message, "keep one of them: clients may refuse two such fields");
        } else if field == Name::PublicKeyPins {
            // The guard knows nothing of these pins: the next rotation would lock their holders out.
            let message = "site.response_headers: Public-Key-Pins would be a promise that the ledger does not have";
            r.error_with_hint(
                &name.span,
                message,
                "use [site.hpkp]: it sends the header, and refuses certificates that break it",
            );
        } else {
            let message = format!("site.response_headers: pintle sends this {:?} without any check", name.value);
            r.warn(
                &name.span,
                message,
                format!("use [site.{policy}]: it sends the header, and refuses values that would lock readers out"),
            );
        }
    }
}
