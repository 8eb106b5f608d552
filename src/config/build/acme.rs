//! `[acme]`, and the sites whose certificates pintle obtains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

use super::acme_sites::{check_adopted, check_names, check_tables};
use super::authorities::{KNOWN, known};
use super::checker::{Checker, unknown};
use super::files::{mode, program, read, read_roots};
use super::listen::Listen;
use crate::config::Draft;
use crate::config::acme::{Acme, Authority, Eab, FOLDER, Method};
use crate::config::file::{AcmeTable, CertificateTable, ConfigFile, EabTable};
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::host::HostPattern;
use crate::limits::Limits;
use crate::reason::{Problem, Reason};

/// The bounds of `rotate_every`.
const ROTATE_MIN: Duration = Duration::from_secs(3600);
const ROTATE_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Checks the settings. Returns them if pintle obtains a certificate.
pub(super) fn build(
    draft: &Draft,
    file: &ConfigFile,
    hosts: &[Vec<At<HostPattern>>],
    (listen, limits): (&Listen, &Limits),
    r: &mut Checker<'_>,
) -> Option<Acme> {
    let table = &file.acme;
    let authorities = authorities(table, r);
    let challenges = answerable(challenges(table, r), listen);
    let dns_hook = table.dns_hook.as_ref().map(|hook| program("acme.dns_hook", hook, r));
    let email = table.email.as_ref().and_then(|email| check_email(email, r));
    let rotate_every = table.rotate_every.as_ref().and_then(|every| check_rotation(every, r));
    check_profile(table, r);
    let is_private = authorities.first().is_some_and(|first| !KNOWN.iter().any(|k| k.directory == first.directory));
    let http_port = port("http_port", table.http_port.as_ref(), (80, &listen.http, is_private), r);
    let tls_port = port("tls_port", table.tls_port.as_ref(), (443, &listen.https, is_private), r);
    let mut first = None;
    for (site, hosts) in file.sites.iter().zip(hosts) {
        check_tables(site, r);
        let Some(certificate) = site.certificates.iter().find(|c| c.by_acme().is_some()) else { continue };
        first.get_or_insert(certificate);
        check_names(table, &challenges, hosts, r);
        site.certificates.iter().for_each(|certificate| check_adopted(certificate, hosts, r));
    }
    let certificate = first?;
    check_needs(draft, file, certificate, r);
    check_listeners(table, &challenges, listen, r);
    Some(Acme {
        folder: draft.state()?.join(FOLDER),
        authorities,
        email,
        profile: table.profile.as_ref().map(|profile| profile.value.clone()),
        rotate_every,
        dns_hook,
        challenges,
        http_port,
        tls_port,
        dns_propagation: limits.dns_propagation,
        other_view: is_private && file.name_servers.is_none(),
        certificates: draft.managed(),
        files: files(table, r),
    })
}

fn files(table: &AcmeTable, r: &Checker<'_>) -> Vec<PathBuf> {
    let keys = [&table.eab, &table.fallback_eab].into_iter().flatten().filter_map(|eab| eab.hmac_key_file.as_ref());
    table.ca.iter().chain(keys).map(|file| r.path(&file.value)).collect()
}

/// Returns a port at which the authorities validate. A private authority that validates at the standard port needs a
/// listener there; without one, it validates at another listener's port.
fn port(
    key: &str,
    given: Option<&At<u64>>,
    (standard, listeners, is_private): (u16, &[SocketAddr], bool),
    r: &mut Checker<'_>,
) -> u16 {
    let mut own = listeners.iter().map(SocketAddr::port).filter(|port| *port > 0);
    let default = match own.clone().next() {
        Some(first) if is_private && !own.any(|port| port == standard) => first,
        _ => standard,
    };
    let Some(given) = given else { return default };
    match u16::try_from(given.value) {
        Ok(port) if port > 0 => port,
        _ => {
            let what = format!("acme.{key}: must be between 1 and 65,535");
            r.error_with_hint(&given.span, what, format!("{key} = {default}, or leave the key out"));
            default
        }
    }
}

fn authorities(table: &AcmeTable, r: &mut Checker<'_>) -> Vec<Authority> {
    let default = At { value: KNOWN[0].name.to_owned(), span: table.span.clone() };
    let roots = roots(table, r);
    let first = table.directory.as_ref().unwrap_or(&default);
    let mut authorities: Vec<Authority> =
        authority("acme.directory", first, ("eab", table.eab.as_ref()), roots.as_ref(), r).into_iter().collect();
    match &table.fallback {
        Some(fallback) => {
            let eab = ("fallback_eab", table.fallback_eab.as_ref());
            let second = authority("acme.fallback", fallback, eab, roots.as_ref(), r);
            if second.is_some() && second.as_ref().map(|s| &s.directory) == authorities.first().map(|a| &a.directory) {
                r.error_with_hint(
                    &fallback.span,
                    "acme.fallback: the same authority as acme.directory",
                    "name another one, or leave the key out",
                );
            }
            authorities.extend(second);
        }
        None => {
            if let Some(eab) = &table.fallback_eab {
                let what = "acme.fallback_eab: has no effect without acme.fallback";
                r.error_with_hint(&eab.span, what, "fallback = \"zerossl\"");
            }
        }
    }
    authorities
}

/// Reads one authority: a known name, or the URL of a directory.
fn authority(
    key: &str,
    at: &At<String>,
    (eab_key, eab): (&str, Option<&EabTable>),
    roots: Option<&Vec<Vec<u8>>>,
    r: &mut Checker<'_>,
) -> Option<Authority> {
    let public = known(&at.value);
    let directory = match (public, at.value.split_once("://")) {
        (Some(known), _) => known.directory.to_owned(),
        (None, Some(("https", _))) if is_url(&at.value) => at.value.clone(),
        (None, Some(("http", rest))) => {
            let what = format!("{key}: ACME runs over https only (RFC 8555 section 6.1)");
            r.error_with_hint(&at.span, what, format!("{} = \"https://{rest}\"", last(key)));
            return None;
        }
        (None, Some(_)) => {
            let what = format!("{key}: invalid URL {:?}", at.value);
            r.error_with_hint(&at.span, what, format!("{} = \"https://ca.example.com/directory\"", last(key)));
            return None;
        }
        (None, None) => {
            let reason = unknown(key, "authority", &at.value, KNOWN.iter().map(|known| known.name));
            r.error(&at.span, reason.hint("a URL for any other: \"https://ca.example.com/directory\""));
            return None;
        }
    };
    if let (None, Some(known)) = (eab, public.filter(|known| known.needs_eab)) {
        let what = format!("{key}: {} needs an external account binding", known.title);
        let hint = format!(
            "{eab_key} = {{ key_id = \"...\", hmac_key_file = \"...\" }} in [acme], from your account at this authority"
        );
        r.error_with_hint(&at.span, what, hint);
    }
    Some(Authority {
        name: at.value.clone(),
        directory,
        eab: eab.and_then(|eab| check_eab(eab_key, eab, r)),
        roots: roots.filter(|_| public.is_none()).cloned(),
    })
}

fn last(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

fn check_eab(key: &str, table: &EabTable, r: &mut Checker<'_>) -> Option<Eab> {
    let key_id = table.key_id.as_ref().filter(|id| !id.value.is_empty());
    if key_id.is_none() {
        let example = format!("{key} = {{ key_id = \"...\", hmac_key_file = \"eab.key\" }}");
        r.error_with_hint(&table.span, format!("acme.{key}: key_id is missing"), example);
    }
    let Some(file) = &table.hmac_key_file else {
        let example = format!("{key} = {{ key_id = \"...\", hmac_key_file = \"eab.key\" }}");
        r.error_with_hint(&table.span, format!("acme.{key}: hmac_key_file is missing"), example);
        return None;
    };
    let path = r.path(&file.value);
    let contents = read(&format!("acme.{key}.hmac_key_file"), &path, &file.span, r)?;
    if mode(&path).is_some_and(|mode| mode & 0o007 != 0) {
        let what = format!("{}: everybody on this host can read the key", r.shown(&path));
        let hint = format!("chmod o= {}", r.shown(&path));
        r.warn(&file.span, what, hint);
    }
    let text = String::from_utf8_lossy(&contents);
    let text = text.trim().trim_end_matches('=');
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text).or_else(|_| BASE64_STANDARD_NO_PAD.decode(text));
    let Some(hmac_key) = decoded.ok().filter(|decoded| !decoded.is_empty()) else {
        let what = format!("acme.{key}.hmac_key_file: {}: not a key in base64url", r.shown(&path));
        r.error_with_hint(&file.span, what, "put the HMAC key there, as the authority shows it, and nothing else");
        return None;
    };
    Some(Eab { key_id: key_id?.value.clone(), hmac_key })
}

/// Reads the roots of private authorities.
fn roots(table: &AcmeTable, r: &mut Checker<'_>) -> Option<Vec<Vec<u8>>> {
    let at = table.ca.as_ref()?;
    let names = [table.directory.as_ref(), table.fallback.as_ref()];
    if !names.into_iter().flatten().any(|name| known(&name.value).is_none()) {
        r.warn(
            &at.span,
            "acme.ca: has no effect: it applies only if directory is a URL",
            "leave the key out, or directory = \"https://ca.example.com/directory\"",
        );
    }
    read_roots("acme.ca", at, "the authority's root certificates", r)
}

fn challenges(table: &AcmeTable, r: &mut Checker<'_>) -> Vec<Method> {
    let by_default = || {
        let dns = table.dns_hook.iter().map(|_| Method::Dns01);
        [Method::Http01, Method::TlsAlpn01].into_iter().chain(dns).collect()
    };
    let Some(listed) = &table.challenges else { return by_default() };
    let mut methods = Vec::new();
    for name in listed {
        let Some(method) = Method::ALL.into_iter().find(|method| method.name() == name.value) else {
            let reason =
                unknown("acme.challenges", "challenge", &name.value, Method::ALL.into_iter().map(Method::name));
            r.error(&name.span, reason);
            continue;
        };
        if method == Method::Dns01 && table.dns_hook.is_none() {
            let what = "acme.challenges: dns-01 needs a program that sets DNS records";
            r.error_with_hint(&name.span, what, "dns_hook = \"/etc/pintle/dns-hook\" in [acme]");
        }
        if methods.contains(&method) {
            r.error_with_hint(&name.span, format!("acme.challenges: {} is listed twice", name.value), "remove one");
        } else {
            methods.push(method);
        }
    }
    if listed.is_empty() {
        let hint = "challenges = [\"http-01\", \"tls-alpn-01\"], or leave the key out";
        r.error_with_hint(&table.span, "acme.challenges: must not be empty", hint);
    }
    if methods.is_empty() { by_default() } else { methods }
}

fn check_email(email: &At<String>, r: &mut Checker<'_>) -> Option<String> {
    let address = email.value.strip_prefix("mailto:").unwrap_or(&email.value);
    let is_address = address
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.') && HostPattern::parse(domain).is_ok())
        && !address.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',');
    if !is_address {
        let what = format!("acme.email: invalid address {:?}", email.value);
        r.error_with_hint(&email.span, what, "email = \"you@example.com\", or leave the key out");
        return None;
    }
    if address.len() < email.value.len() {
        let what = "acme.email: expected only the address";
        r.warn(&email.span, what, format!("email = {address:?}"));
    }
    Some(address.to_owned())
}

fn check_rotation(every: &At<Duration>, r: &mut Checker<'_>) -> Option<Duration> {
    if (ROTATE_MIN..=ROTATE_MAX).contains(&every.value) {
        return Some(every.value);
    }
    let bounds = format!("{} and {}", show_duration(ROTATE_MIN), show_duration(ROTATE_MAX));
    r.error_with_hint(&every.span, format!("acme.rotate_every: must be between {bounds}"), "rotate_every = \"1y\"");
    None
}

fn check_profile(table: &AcmeTable, r: &mut Checker<'_>) {
    let Some(profile) = &table.profile else { return };
    if profile.value.is_empty() {
        r.error_with_hint(&profile.span, "acme.profile: must not be empty", "leave the key out, or name a profile");
        return;
    }
    let public = known(table.directory.as_ref().map_or(KNOWN[0].name, |at| &at.value));
    if let Some(known) = public.filter(|known| !known.profiles.contains(&profile.value.as_str())) {
        let reason = match known.profiles {
            [] => Reason::new(format!("acme.profile: {} has no profiles", known.title)).hint("leave the key out"),
            some => unknown("acme.profile", "profile", &profile.value, some.iter().copied()),
        };
        // The authority may offer more by now: its directory decides.
        r.report(Problem::warning(&profile.span, reason));
    }
}

/// Reports missing settings that every certificate needs.
fn check_needs(draft: &Draft, file: &ConfigFile, certificate: &CertificateTable, r: &mut Checker<'_>) {
    let Some(span) = certificate.by_acme().cloned() else { return };
    if draft.state().is_none() && file.state_directory.is_none() {
        let what = "site.certificate.acme: keys and certificates need a place: state.directory is not set";
        r.error_with_hint(&span, what, "directory = \"/var/lib/pintle\" in [state]");
    }
    if !file.acme.terms.as_ref().is_some_and(|terms| terms.value) {
        let authority = file.acme.directory.as_ref().map_or(KNOWN[0].name, |at| &at.value);
        let title = known(authority).map_or(authority, |known| known.title);
        let place = file.acme.terms.as_ref().map_or(&span, |terms| &terms.span).clone();
        let what = format!("acme.terms: {title} requires agreement to its terms of service");
        let reason = Reason::new(what).note("the directory of the authority links to them");
        r.error(&place, reason.hint("terms = true in [acme]"));
    }
    if let Some(kept) = file.tls.key_process.as_ref().filter(|kept| kept.value) {
        let what = "tls.key_process: pintle makes the keys of acme = true itself, so the serving process has them";
        r.error_with_hint(&kept.span, what, "key_process = false, or certificates from another ACME client");
    }
}

/// Returns `true` if a listener answers a challenge, or if it needs none.
fn is_answered(method: Method, listen: &Listen) -> bool {
    match method {
        Method::Http01 => !listen.http.is_empty(),
        Method::TlsAlpn01 => !listen.https.is_empty(),
        Method::Dns01 | Method::DnsPersist01 => true,
    }
}

/// Returns the challenges that pintle can answer; all of them if it can answer none, for the checks to report.
fn answerable(challenges: Vec<Method>, listen: &Listen) -> Vec<Method> {
    let answered: Vec<Method> = challenges.iter().copied().filter(|method| is_answered(*method, listen)).collect();
    if answered.is_empty() { challenges } else { answered }
}

/// Reports challenges that no listener answers.
fn check_listeners(table: &AcmeTable, challenges: &[Method], listen: &Listen, r: &mut Checker<'_>) {
    if challenges.iter().any(|method| is_answered(*method, listen)) {
        return;
    }
    let span = table.challenges.as_ref().and_then(|listed| listed.first()).map_or(&table.span, |first| &first.span);
    let (what, hint) = match challenges.first() {
        Some(Method::TlsAlpn01) => ("tls-alpn-01 needs a listener for TLS", "https = [\"[::]:443\"] in [listen]"),
        _ => ("http-01 needs a listener for plain HTTP", "http = [\"[::]:80\"] in [listen]"),
    };
    r.error_with_hint(&span.clone(), format!("acme.challenges: {what}"), hint);
}
