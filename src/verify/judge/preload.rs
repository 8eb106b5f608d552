//! Readiness for the browsers' preload list (hstspreload.org).

use crate::verify::field::PolicyField;
use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::grammar::read;
use crate::verify::judge::redirect::Leads;
use crate::verify::target::Url;

/// The list's minimum of max-age, in seconds.
const MAX_AGE: u64 = 365 * 86400;

/// The facts that the list requires.
#[derive(Debug)]
pub struct PreloadFacts<'a> {
    /// The https URL.
    pub url: &'a Url,
    /// `true` if the chain is trusted.
    pub trusted: bool,
    /// `true` if the first step of plain HTTP leads to https on the same host.
    pub leads: Leads,
    /// The values of Strict-Transport-Security.
    pub sts: &'a [&'a [u8]],
}

/// The state for the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preload {
    /// `true` if the header requests it.
    pub asked: bool,
    /// The unmet requirements.
    pub reasons: Vec<String>,
}

/// Examines the requirements of the list.
#[must_use]
pub fn examine(facts: &PreloadFacts<'_>) -> Preload {
    let mut reasons: Vec<String> = Vec::new();
    let mut need = |met: bool, reason: String| {
        if !met {
            reasons.push(reason);
        }
    };
    let reading = facts.sts.first().map(|value| read(PolicyField::Sts, value)).unwrap_or_default();
    let asked = reading.preload;
    if facts.sts.is_empty() {
        need(false, "HSTS is missing".into());
    } else if !reading.is_valid() || facts.sts.len() > 1 {
        need(false, "the HSTS field is not valid".into());
    } else {
        need(reading.max_age.is_some_and(|age| age >= MAX_AGE), format!("max-age is below {MAX_AGE}, a year"));
        need(reading.include_subdomains, "includeSubDomains is missing".into());
        need(asked, "preload is missing".into());
    }
    need(facts.trusted, "the certificate is not trusted".into());
    need(facts.leads != Some(false), "plain HTTP does not redirect to https on the same host first".into());
    let host = facts.url.host.as_str();
    match psl::domain_str(host).filter(|_| facts.url.address().is_none()) {
        Some(domain) => need(domain == host, format!("the list takes {domain}, but no name below it")),
        None => need(false, format!("{host} is not a domain that can be registered")),
    }
    need(facts.url.port == 443, format!("the list requires port 443, not {}", facts.url.port));
    Preload { asked, reasons }
}

/// Judges the state for the list.
#[must_use]
pub fn judge(facts: &PreloadFacts<'_>, preload: &Preload) -> VerifyFinding {
    let row = |level, check, message: String| VerifyFinding::new(Group::Hsts, level, check, message);
    let reasons = preload.reasons.join("; ");
    match (preload.reasons.is_empty(), preload.asked) {
        (true, _) if facts.leads.is_none() => {
            row(Level::Ok, "preload-ready", "ready for the preload list, if plain HTTP redirects or is closed".into())
        }
        (true, _) => row(Level::Ok, "preload-ready", "ready for the preload list".into()),
        (false, true) => row(Level::Warning, "preload-not-ready", format!("requests the preload list, but: {reasons}"))
            .hint("`preload` is consent to be listed: remove it unless you want that (hstspreload.org)"),
        (false, false) => row(
            Level::Note,
            "preload-not-ready",
            format!("not ready for the preload list, and does not request it: {reasons}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        const FULL: &str = "max-age=31536000; includeSubDomains; preload";
        let check = |url: &str, sts: &[&str], trusted, leads, want: Level, reasons: &[&str]| {
            let sts: Vec<&[u8]> = sts.iter().map(|v| v.as_bytes()).collect();
            let url = url.parse().unwrap();
            let facts = PreloadFacts { url: &url, trusted, leads, sts: &sts };
            let preload = examine(&facts);
            assert_eq!(judge(&facts, &preload).level, want, "{preload:?}");
            assert_eq!(preload.reasons.len(), reasons.len(), "{preload:?}");
            for (got, want) in preload.reasons.iter().zip(reasons) {
                assert!(got.contains(want), "{preload:?}");
            }
        };
        let yes = Some(true);
        check("https://example.com/", &[FULL], true, yes, Level::Ok, &[]);
        check("https://example.co.uk/", &[FULL], true, None, Level::Ok, &[]);
        check("https://www.example.co.uk/", &[FULL], true, yes, Level::Warning, &["takes example.co.uk"]);
        check("https://co.uk/", &[FULL], true, yes, Level::Warning, &["not a domain"]);
        check("https://192.0.2.1/", &[FULL], true, yes, Level::Warning, &["not a domain"]);
        check("https://example.com:8443/", &[FULL], true, yes, Level::Warning, &["port 443"]);
        check("https://example.com/", &[FULL], false, Some(false), Level::Warning, &["not trusted", "redirect"]);
        check("https://example.com/", &[], true, yes, Level::Note, &["HSTS is missing"]);
        check("https://example.com/", &["max-age=31536000"], true, yes, Level::Note, &["includeSubDomains", "preload"]);
        check(
            "https://example.com/",
            &["max-age=5; includeSubDomains; preload"],
            true,
            yes,
            Level::Warning,
            &["below"],
        );
        check("https://example.com/", &["max-age: 5"], true, yes, Level::Note, &["not valid"]);
        check("https://example.com/", &[FULL, FULL], true, yes, Level::Warning, &["not valid"]);
    }
}
