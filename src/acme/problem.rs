//! Problem documents of a CA (RFC 8555 section 6.7, RFC 7807), and the remedy of each type as data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The prefix of the types of ACME.
const PREFIX: &str = "urn:ietf:params:acme:error:";
/// The longest text kept from a CA, in characters.
const TEXT_MAX: usize = 500;
/// Subproblems kept from one document.
const SUBPROBLEMS_MAX: usize = 100;

/// The remedy of a failure, for code that reacts to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeRemedy {
    /// Sign again with the nonce of the error response. Not a failure.
    NewNonce,
    /// Order again without `replaces`. Not a failure.
    WithoutReplaces,
    /// Read the order again.
    ReadOrder,
    /// Register the account once again, then continue.
    Register,
    /// Try again later, with growing waits.
    Temporary,
    /// Wait for Retry-After, or else an hour.
    RateLimit,
    /// The validation failed: run the preflight, name the record or port, and try again later.
    Validation,
    /// The configuration refused the new certificate. The old one stays in use.
    Candidate,
    /// A CAA record forbids the order: no retry for a day.
    Caa,
    /// This CA takes no such key: use another key, or another CA.
    Key,
    /// The CA does not offer the profile.
    Profile,
    /// This CA gives no certificate for the name.
    Name,
    /// The operator must act: no automatic retry.
    Operator,
}

/// The types of problems, without the prefix, and the remedy of each.
const TABLE: &[(&str, AcmeRemedy)] = &[
    ("accountDoesNotExist", AcmeRemedy::Register),
    ("alreadyReplaced", AcmeRemedy::WithoutReplaces),
    ("badCSR", AcmeRemedy::Key),
    ("badNonce", AcmeRemedy::NewNonce),
    ("badPublicKey", AcmeRemedy::Key),
    ("badSignatureAlgorithm", AcmeRemedy::Key),
    ("caa", AcmeRemedy::Caa),
    ("connection", AcmeRemedy::Validation),
    ("dns", AcmeRemedy::Validation),
    ("externalAccountRequired", AcmeRemedy::Operator),
    ("incorrectResponse", AcmeRemedy::Validation),
    ("invalidContact", AcmeRemedy::Operator),
    ("invalidProfile", AcmeRemedy::Profile),
    ("malformed", AcmeRemedy::Operator),
    ("orderNotReady", AcmeRemedy::ReadOrder),
    ("rateLimited", AcmeRemedy::RateLimit),
    ("rejectedIdentifier", AcmeRemedy::Name),
    ("serverInternal", AcmeRemedy::Temporary),
    ("tls", AcmeRemedy::Validation),
    ("unauthorized", AcmeRemedy::Validation),
    ("unsupportedContact", AcmeRemedy::Operator),
    ("unsupportedIdentifier", AcmeRemedy::Name),
    ("userActionRequired", AcmeRemedy::Operator),
];

/// The type of a request that the CA does not understand.
pub const MALFORMED: &str = "malformed";
/// The type of a request that the account may not make, and of an answer to a challenge that is not the expected one.
pub const UNAUTHORIZED: &str = "unauthorized";
/// The type of an error of the CA itself.
pub const SERVER_INTERNAL: &str = "serverInternal";
/// The type of a problem that says that its subproblems decide.
const COMPOUND: &str = "compound";
/// The type that answers the revocation of a revoked certificate. That is a success.
pub const ALREADY_REVOKED: &str = "alreadyRevoked";

/// A problem that a CA reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcmeProblem {
    /// The type, without the prefix of ACME; empty if the answer has none.
    pub kind: String,
    /// The HTTP status; 0 if the problem belongs to an order or a challenge.
    pub status: u16,
    /// The CA's words.
    pub detail: String,
    /// A page about it: the new terms of service, for instance.
    pub instance: Option<String>,
    /// Problems of single names.
    pub subproblems: Vec<Subproblem>,
}

/// A problem of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subproblem {
    /// The name.
    pub identifier: Option<String>,
    /// The type, without the prefix of ACME.
    pub kind: String,
    /// The CA's words.
    pub detail: String,
}

impl From<&instant_acme::Problem> for AcmeProblem {
    fn from(problem: &instant_acme::Problem) -> Self {
        Self::of_json(&serde_json::json!({ "type": problem.r#type, "detail": problem.detail }))
    }
}

impl AcmeProblem {
    /// Reads the body of an answer. A body that is not a problem document gives a problem without a
    /// type: its status decides.
    #[must_use]
    pub fn read(status: u16, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        Self { status, ..Self::of_json(&document) }
    }

    /// Reads a problem document within an order, an authorization or a challenge.
    #[must_use]
    pub fn of_json(document: &Value) -> Self {
        let subproblem = |value: &Value| Subproblem {
            identifier: value.get("identifier").and_then(|of| text(of, "value")),
            kind: kind(value),
            detail: text(value, "detail").unwrap_or_default(),
        };
        let subproblems = document.get("subproblems").and_then(Value::as_array);
        Self {
            kind: kind(document),
            status: 0,
            detail: text(document, "detail").unwrap_or_default(),
            instance: text(document, "instance"),
            subproblems: subproblems.into_iter().flatten().take(SUBPROBLEMS_MAX).map(subproblem).collect(),
        }
    }

    /// Returns the remedy. Subproblems decide about a compound problem: the one that needs most.
    /// A problem of an unknown type is treated as temporary, unless the status says more.
    #[must_use]
    pub fn remedy(&self) -> AcmeRemedy {
        if self.kind == COMPOUND {
            let remedies = self.subproblems.iter().map(|sub| of_kind(&sub.kind).unwrap_or(AcmeRemedy::Temporary));
            return remedies.max().unwrap_or(AcmeRemedy::Temporary);
        }
        of_kind(&self.kind).unwrap_or(if self.status == 429 { AcmeRemedy::RateLimit } else { AcmeRemedy::Temporary })
    }

    /// Returns the names whose validation failed: a failed validation of each counts at the CA.
    pub fn failed_names(&self) -> impl Iterator<Item = &str> {
        let failed = |sub: &&Subproblem| matches!(of_kind(&sub.kind), Some(AcmeRemedy::Validation | AcmeRemedy::Caa));
        self.subproblems.iter().filter(failed).filter_map(|sub| sub.identifier.as_deref())
    }
}

impl std::fmt::Display for AcmeProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.kind.as_str(), self.status) {
            ("", 0) => f.write_str("the CA names no reason")?,
            ("", status) => write!(f, "the CA answered with status {status}")?,
            (kind, _) => f.write_str(kind)?,
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        for sub in &self.subproblems {
            let name = sub.identifier.as_deref().unwrap_or("a name");
            write!(f, "; {name}: {}", if sub.kind.is_empty() { "no type" } else { &sub.kind })?;
            if !sub.detail.is_empty() {
                write!(f, ": {}", sub.detail)?;
            }
        }
        if let Some(page) = &self.instance {
            write!(f, " (see {page})")?;
        }
        Ok(())
    }
}

fn of_kind(kind: &str) -> Option<AcmeRemedy> {
    TABLE.iter().find(|(name, _)| *name == kind).map(|(_, remedy)| *remedy)
}

fn kind(document: &Value) -> String {
    let kind = text(document, "type").unwrap_or_default();
    match kind.strip_prefix(PREFIX) {
        Some(name) => name.to_owned(),
        // RFC 7807 section 4.2: the type of a problem that has none.
        None if kind == "about:blank" => String::new(),
        None => kind,
    }
}

/// Returns a text member, with its controls replaced, and cut: it is shown in logs and tables.
fn text(document: &Value, member: &str) -> Option<String> {
    let text = document.get(member)?.as_str()?;
    let clean = |c: char| if c.is_control() || is_bidi(c) { '\u{fffd}' } else { c };
    Some(text.chars().take(TEXT_MAX).map(clean).collect())
}

/// Returns `true` for characters that reorder the text around them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn problem(kind: &str, subproblems: &[(&str, &str)]) -> AcmeProblem {
        let sub = |(name, kind): &(&str, &str)| json!({"type": format!("{PREFIX}{kind}"), "detail": "why", "identifier": {"type": "dns", "value": name}});
        let subs: Vec<Value> = subproblems.iter().map(sub).collect();
        let document = json!({"type": format!("{PREFIX}{kind}"), "detail": "words", "subproblems": subs});
        AcmeProblem::read(400, document.to_string().as_bytes())
    }

    #[test]
    fn the_table_is_sorted_and_each_type_has_its_remedy() {
        assert!(TABLE.is_sorted_by_key(|(kind, _)| *kind));
        for (kind, remedy) in TABLE {
            assert_eq!(problem(kind, &[]).remedy(), *remedy, "{kind}");
        }
    }

    #[test]
    fn without_a_known_type_the_status_decides() {
        for (status, body, want) in [
            (429, &b"slow down"[..], AcmeRemedy::RateLimit),
            (503, b"", AcmeRemedy::Temporary),
            (500, b"{\"type\":\"about:blank\"}", AcmeRemedy::Temporary),
            (429, b"{\"type\":\"urn:ietf:params:acme:error:later\"}", AcmeRemedy::RateLimit),
            (503, b"{\"type\":\"urn:ietf:params:acme:error:rateLimited\"}", AcmeRemedy::RateLimit),
            (400, b"{\"type\":\"https://ca.example/own-type\"}", AcmeRemedy::Temporary),
            (400, b"[1,2]", AcmeRemedy::Temporary),
        ] {
            assert_eq!(AcmeProblem::read(status, body).remedy(), want, "{status} {body:?}");
        }
    }

    #[test]
    fn subproblems_decide_about_a_compound_problem() {
        let two = problem("compound", &[("a.example", "serverInternal"), ("b.example", "rejectedIdentifier")]);
        assert_eq!(two.remedy(), AcmeRemedy::Name);
        assert_eq!(problem("compound", &[("a.example", "dns"), ("b.example", "caa")]).remedy(), AcmeRemedy::Caa);
        assert_eq!(problem("compound", &[("a.example", "later")]).remedy(), AcmeRemedy::Temporary);
        assert_eq!(problem("compound", &[]).remedy(), AcmeRemedy::Temporary);
        let failed = problem("malformed", &[("a.example", "dns"), ("b.example", "caa"), ("c.example", "tls")]);
        assert_eq!(failed.failed_names().collect::<Vec<_>>(), ["a.example", "b.example", "c.example"]);
        assert_eq!(failed.remedy(), AcmeRemedy::Operator);
    }

    #[test]
    fn words() {
        let two = problem("compound", &[("a.example", "dns"), ("b.example", "caa")]);
        assert_eq!(two.to_string(), "compound: words; a.example: dns: why; b.example: caa: why");
        assert_eq!(AcmeProblem::read(502, b"").to_string(), "the CA answered with status 502");
        let terms = json!({"type": format!("{PREFIX}userActionRequired"), "instance": "https://ca.example/terms"});
        assert_eq!(AcmeProblem::of_json(&terms).to_string(), "userActionRequired (see https://ca.example/terms)");
        let rough = json!({"type": "x", "detail": format!("a\u{1b}[2J\n\u{202e}{}", "y".repeat(900))});
        let shown = AcmeProblem::of_json(&rough).to_string();
        assert!(shown.chars().count() <= TEXT_MAX + 3 && !shown.chars().any(|c| c.is_control() || is_bidi(c)));
        let revoked = AcmeProblem::of_json(&json!({"type": format!("{PREFIX}alreadyRevoked")}));
        assert_eq!(revoked.kind, ALREADY_REVOKED);
    }

    proptest! {
        /// No body of an answer makes the reader panic, or gives a long text.
        #[test]
        fn any_body(status in any::<u16>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let problem = AcmeProblem::read(status, &body);
            let _ = (problem.remedy(), problem.failed_names().count());
            prop_assert!(problem.detail.chars().count() <= TEXT_MAX);
        }
    }
}
