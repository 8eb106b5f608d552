//! The judgement of CAA records: who may certify a name (RFC 8659), for which account and by which
//! challenge (RFC 8657).

use std::fmt;

use crate::acme::lookup::CaaRecord as Record;
use crate::host::without_wildcard;

/// Tags that do not restrict certificates for servers, or that [`judge`] reads. A record with any
/// other tag and the critical flag forbids everything.
const KNOWN: [&str; 7] = ["issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"];
/// The most values of one kind that a refusal names.
const NAMED_MAX: usize = 8;

/// The certificate that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct WantedCertificate<'a> {
    /// The names by which records mean this CA: `meta.caaIdentities`.
    pub identities: &'a [String],
    /// The URL of the account, once it exists.
    pub account: Option<&'a str>,
    /// The challenge, as `validationmethods` names it.
    pub method: &'a str,
    /// `true` for `*.NAME`.
    pub wildcard: bool,
}

/// The judgement of one set of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaaVerdict {
    /// The CA may issue.
    Allowed,
    /// There are restrictions, and the CA does not say which name it goes by.
    Unknown,
    /// The CA must not issue.
    Refused(CaaRefusal),
}

/// The reason why a set of records refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaaRefusal {
    /// A critical record with this unknown tag.
    Critical(String),
    /// No CA may issue.
    Nobody,
    /// Other CAs may: their names.
    Others(Vec<String>),
    /// This CA may, for other accounts: their URLs.
    Account(Vec<String>),
    /// This CA may, by other challenges: their names.
    Method(Vec<String>),
}

impl fmt::Display for CaaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Critical(tag) => write!(f, "have a critical tag that no CA may ignore: {tag}"),
            Self::Nobody => write!(f, "forbid certificates by any CA"),
            Self::Others(names) => write!(f, "admit another CA only: {}", names.join(", ")),
            Self::Account(urls) => write!(f, "admit another account only: {}", urls.join(", ")),
            Self::Method(names) => write!(f, "admit another challenge only: {}", names.join(", ")),
        }
    }
}

/// Judges the first non-empty set of records from a name to its top-level domain.
#[must_use]
pub fn judge(set: &[Record], wanted: &WantedCertificate<'_>) -> CaaVerdict {
    let unknown = |record: &&Record| record.critical && !KNOWN.iter().any(|tag| record.tag.eq_ignore_ascii_case(tag));
    if let Some(record) = set.iter().find(unknown) {
        return CaaVerdict::Refused(CaaRefusal::Critical(printable(&record.tag)));
    }
    let tagged = |tag: &str| set.iter().filter(|r| r.tag.eq_ignore_ascii_case(tag)).collect::<Vec<_>>();
    let mut restrictions = if wanted.wildcard { tagged("issuewild") } else { Vec::new() };
    if restrictions.is_empty() {
        restrictions = tagged("issue");
    }
    if restrictions.is_empty() {
        return CaaVerdict::Allowed;
    }
    // A malformed value counts as one that names nobody.
    let named: Vec<Issue> =
        restrictions.iter().filter_map(|r| Issue::parse(&r.value)).filter(|issue| !issue.domain.is_empty()).collect();
    if named.is_empty() {
        return CaaVerdict::Refused(CaaRefusal::Nobody);
    }
    if wanted.identities.is_empty() {
        return CaaVerdict::Unknown;
    }
    let is_own = |issue: &&Issue| wanted.identities.iter().any(|own| own.eq_ignore_ascii_case(&issue.domain));
    let own: Vec<&Issue> = named.iter().filter(is_own).collect();
    if own.is_empty() {
        return CaaVerdict::Refused(CaaRefusal::Others(listed(named.iter().map(|issue| issue.domain.clone()))));
    }
    let for_account: Vec<&&Issue> = own.iter().filter(|issue| issue.admits_account(wanted.account)).collect();
    if for_account.is_empty() {
        return CaaVerdict::Refused(CaaRefusal::Account(listed(own.iter().flat_map(|i| i.values("accounturi")))));
    }
    if for_account.iter().any(|issue| issue.admits_method(wanted.method)) {
        return CaaVerdict::Allowed;
    }
    CaaVerdict::Refused(CaaRefusal::Method(listed(for_account.iter().flat_map(|i| i.values("validationmethods")))))
}

/// Returns the names whose records count, in the order in which to ask: the name itself, without an
/// asterisk, and those above it, without the root.
pub fn climb(name: &str) -> impl Iterator<Item = &str> {
    let base = without_wildcard(name).trim_end_matches('.');
    std::iter::successors(Some(base), |name| name.split_once('.').map(|(_, above)| above))
}

fn listed(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for value in values.map(|value| printable(&value)).take(NAMED_MAX) {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// Returns a text from DNS as it may be logged.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(256).collect()
}

/// The value of `issue` or `issuewild` (RFC 8659 section 4.2).
#[derive(Debug, PartialEq, Eq)]
struct Issue {
    /// The CA; empty for nobody.
    domain: String,
    parameters: Vec<(String, String)>,
}

impl Issue {
    /// Returns `None` for a malformed value.
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let space = [' ', '\t'];
        let (domain, rest) = text.split_once(';').map_or((text, None), |(domain, rest)| (domain, Some(rest)));
        let domain = domain.trim_matches(space).trim_end_matches('.');
        if !domain.is_empty() && !domain.split('.').all(is_label) {
            return None;
        }
        let rest = rest.unwrap_or_default().trim_matches(space);
        // A semicolon at the end is beyond the grammar, but common.
        let rest = rest.strip_suffix(';').unwrap_or(rest).trim_end_matches(space);
        let mut parameters = Vec::new();
        for part in rest.split(';').filter(|_| !rest.is_empty()) {
            let (tag, value) = part.split_once('=')?;
            let (tag, value) = (tag.trim_matches(space), value.trim_matches(space));
            if !is_label(tag) || !value.bytes().all(|b| matches!(b, 0x21..=0x3a | 0x3c..=0x7e)) {
                return None;
            }
            parameters.push((tag.to_ascii_lowercase(), value.to_owned()));
        }
        Some(Self { domain: domain.to_ascii_lowercase(), parameters })
    }

    fn values(&self, tag: &'static str) -> impl Iterator<Item = String> {
        self.parameters.iter().filter(move |(name, _)| name == tag).map(|(_, value)| value.clone())
    }

    /// RFC 8657 section 3: a URI that is not the account's, and a repeated parameter, match nothing.
    fn admits_account(&self, account: Option<&str>) -> bool {
        match &self.values("accounturi").collect::<Vec<_>>()[..] {
            [] => true,
            [uri] => account == Some(uri.as_str()),
            _ => false,
        }
    }

    /// RFC 8657 section 4.
    fn admits_method(&self, method: &str) -> bool {
        match &self.values("validationmethods").collect::<Vec<_>>()[..] {
            [] => true,
            [methods] => methods.split(',').any(|name| name.eq_ignore_ascii_case(method)),
            _ => false,
        }
    }
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "https://ca.example/acct/7";

    fn verdict(records: &[(&str, &str)], wildcard: bool) -> CaaVerdict {
        let set: Vec<Record> = records
            .iter()
            .map(|(tag, value)| {
                let (tag, critical) = tag.strip_suffix('!').map_or((*tag, false), |tag| (tag, true));
                Record { critical, tag: tag.to_owned(), value: value.as_bytes().to_vec() }
            })
            .collect();
        let identities = ["ca.example".to_owned(), "ca.example.net".to_owned()];
        judge(&set, &WantedCertificate { identities: &identities, account: Some(ACCOUNT), method: "http-01", wildcard })
    }

    #[test]
    fn who_may_issue() {
        let allowed = CaaVerdict::Allowed;
        let others = |names: &[&str]| {
            CaaVerdict::Refused(CaaRefusal::Others(names.iter().map(|name| (*name).to_owned()).collect()))
        };
        let nobody = CaaVerdict::Refused(CaaRefusal::Nobody);
        type Case<'a> = (&'a [(&'a str, &'a str)], CaaVerdict, CaaVerdict);
        let cases: &[Case<'_>] = &[
            (&[], allowed.clone(), allowed.clone()),
            (&[("issue", "ca.example")], allowed.clone(), allowed.clone()),
            (&[("ISSUE", " CA.Example.NET. ; ")], allowed.clone(), allowed.clone()),
            (&[("issue", "other.example")], others(&["other.example"]), others(&["other.example"])),
            (&[("issue", "other.example"), ("issue", "ca.example")], allowed.clone(), allowed.clone()),
            (&[("issue", ";")], nobody.clone(), nobody.clone()),
            (&[("issue", "")], nobody.clone(), nobody.clone()),
            (&[("issue", "%%%%%")], nobody.clone(), nobody.clone()),
            (&[("issue", ";"), ("issue", "ca.example")], allowed.clone(), allowed.clone()),
            // `issuewild` counts for wildcards only, and replaces `issue` for them.
            (&[("issuewild", ";")], allowed.clone(), nobody.clone()),
            (&[("issue", "ca.example"), ("issuewild", ";")], allowed.clone(), nobody.clone()),
            (&[("issue", ";"), ("issuewild", "ca.example")], nobody.clone(), allowed.clone()),
            (&[("iodef", "mailto:x@example.com")], allowed.clone(), allowed.clone()),
            (&[("iodef!", "mailto:x@example.com")], allowed.clone(), allowed.clone()),
            (&[("issuemail", ";")], allowed.clone(), allowed.clone()),
            (&[("new", "x"), ("issue", "ca.example")], allowed.clone(), allowed.clone()),
            (
                &[("new!", "x"), ("issue", "ca.example")],
                CaaVerdict::Refused(CaaRefusal::Critical("new".into())),
                CaaVerdict::Refused(CaaRefusal::Critical("new".into())),
            ),
            // A name that only begins like ours.
            (&[("issue", "ca.example.org")], others(&["ca.example.org"]), others(&["ca.example.org"])),
        ];
        for (records, name, wildcard) in cases {
            assert_eq!(&verdict(records, false), name, "{records:?}");
            assert_eq!(&verdict(records, true), wildcard, "*. {records:?}");
        }
    }

    #[test]
    fn accounts_and_methods() {
        let check = |value: &str, want: CaaVerdict| assert_eq!(verdict(&[("issue", value)], false), want, "{value}");
        let account = |urls: &[&str]| {
            CaaVerdict::Refused(CaaRefusal::Account(urls.iter().map(|url| (*url).to_owned()).collect()))
        };
        let method =
            |names: &[&str]| CaaVerdict::Refused(CaaRefusal::Method(names.iter().map(|n| (*n).to_owned()).collect()));
        check("ca.example; accounturi=https://ca.example/acct/7", CaaVerdict::Allowed);
        check(
            "ca.example;accounturi = https://ca.example/acct/7 ;validationmethods=dns-01,http-01",
            CaaVerdict::Allowed,
        );
        check("ca.example; accounturi=https://ca.example/acct/8", account(&["https://ca.example/acct/8"]));
        check("ca.example; accounturi=", account(&[""]));
        let twice = "ca.example; accounturi=https://ca.example/acct/7; accounturi=https://ca.example/acct/7";
        check(twice, account(&["https://ca.example/acct/7"]));
        check("ca.example; validationmethods=dns-01", method(&["dns-01"]));
        check("ca.example; validationmethods=", method(&[""]));
        check("ca.example; validationmethods=http-01x", method(&["http-01x"]));
        check("ca.example; policy=ev", CaaVerdict::Allowed);
        check("ca.example; no value", CaaVerdict::Refused(CaaRefusal::Nobody));
        check("ca.example; =x", CaaVerdict::Refused(CaaRefusal::Nobody));
        // One record for the account by another challenge, another one for any account by ours.
        let two = [
            ("issue", "ca.example; accounturi=https://ca.example/acct/7; validationmethods=dns-01"),
            ("issue", "ca.example; validationmethods=http-01"),
        ];
        assert_eq!(verdict(&two, false), CaaVerdict::Allowed);
        let apart = [
            ("issue", "ca.example; accounturi=https://ca.example/acct/7; validationmethods=dns-01"),
            ("issue", "ca.example; accounturi=https://ca.example/acct/8; validationmethods=http-01"),
        ];
        assert_eq!(verdict(&apart, false), method(&["dns-01"]));
    }

    /// Without `caaIdentities` nobody can compare, but `;` is plain.
    #[test]
    fn a_ca_without_a_name() {
        let wanted = WantedCertificate { identities: &[], account: None, method: "http-01", wildcard: false };
        let record = |value: &str| Record { critical: false, tag: "issue".into(), value: value.into() };
        assert_eq!(judge(&[record("ca.example")], &wanted), CaaVerdict::Unknown);
        assert_eq!(judge(&[record(";")], &wanted), CaaVerdict::Refused(CaaRefusal::Nobody));
        assert_eq!(judge(&[], &wanted), CaaVerdict::Allowed);
    }

    #[test]
    fn the_names_to_ask() {
        let all = |name| climb(name).collect::<Vec<_>>();
        assert_eq!(all("a.b.example.com"), ["a.b.example.com", "b.example.com", "example.com", "com"]);
        assert_eq!(all("*.example.com."), ["example.com", "com"]);
        assert_eq!(all("com"), ["com"]);
    }
}
