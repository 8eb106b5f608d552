//! Readiness for the browsers' preload list (hstspreload.org).

use crate::verify::field::PolicyField;
use crate::verify::finding::{Finding, Group, Level};
use crate::verify::grammar::read;
use crate::verify::judge::redirect::Leads;
use crate::verify::target::Url;

/// What the list asks for, in seconds.
const MAX_AGE: u64 = 365 * 86400;

/// What the list wants to know.
#[derive(Debug)]
pub struct Facts<'a> {
    /// What was asked for.
    pub url: &'a Url,
    /// Whether the chain is trusted.
    pub trusted: bool,
    /// Whether plain HTTP leads to https on the same host at its first step.
    pub leads: Leads,
    /// The values of Strict-Transport-Security.
    pub sts: &'a [&'a [u8]],
}

/// Whether the host could be on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preload {
    /// Whether the header asks for it.
    pub asked: bool,
    /// What stands in the way.
    pub reasons: Vec<String>,
}

/// What stands in the way of the list.
#[must_use]
pub fn examine(facts: &Facts<'_>) -> Preload {
    let mut reasons: Vec<String> = Vec::new();
    let mut need = |met: bool, reason: String| {
        if !met {
            reasons.push(reason);
        }
    };
    let reading = facts.sts.first().map(|value| read(PolicyField::Sts, value)).unwrap_or_default();
    let asked = reading.preload;
    if facts.sts.is_empty() {
        need(false, "there is no HSTS".into());
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
        Some(domain) => need(domain == host, format!("the list takes {domain}, not a name below it")),
        None => need(false, format!("{host} is no domain that can be registered")),
    }
    need(facts.url.port == 443, format!("the list looks at port 443, not {}", facts.url.port));
    Preload { asked, reasons }
}

/// The row.
#[must_use]
pub fn judge(facts: &Facts<'_>, preload: &Preload) -> Finding {
    let row = |level, check, message: String| Finding::new(Group::Hsts, level, check, message);
    let reasons = preload.reasons.join("; ");
    match (preload.reasons.is_empty(), preload.asked) {
        (true, _) if facts.leads.is_none() => {
            row(Level::Ok, "preload-ready", "ready for the preload list, if plain HTTP redirects or is closed".into())
        }
        (true, _) => row(Level::Ok, "preload-ready", "ready for the preload list".into()),
        (false, true) => row(Level::Warning, "preload-not-ready", format!("asks for the preload list, but: {reasons}"))
            .hint("`preload` is consent to be listed: take it out unless you mean it (hstspreload.org)"),
        (false, false) => row(
            Level::Note,
            "preload-not-ready",
            format!("not for the preload list, and does not ask to be: {reasons}"),
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
            let facts = Facts { url: &url, trusted, leads, sts: &sts };
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
        check("https://co.uk/", &[FULL], true, yes, Level::Warning, &["no domain"]);
        check("https://192.0.2.1/", &[FULL], true, yes, Level::Warning, &["no domain"]);
        check("https://example.com:8443/", &[FULL], true, yes, Level::Warning, &["port 443"]);
        check("https://example.com/", &[FULL], false, Some(false), Level::Warning, &["not trusted", "redirect"]);
        check("https://example.com/", &[], true, yes, Level::Note, &["no HSTS"]);
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
