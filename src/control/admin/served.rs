//! Promises and certificates to be judged, and objections to them.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// A site whose clients a promise would lock out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedOutSite {
    /// The site's first name.
    pub site: String,
    /// All its hosts.
    pub hosts: Vec<String>,
    /// The pin of its live key.
    pub pin: String,
}

/// The reason why a promise is refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Objection {
    /// The fault.
    #[serde(default)]
    pub error: String,
    /// The remedies.
    #[serde(default)]
    pub hints: Vec<String>,
    /// The sites whose clients it would lock out.
    #[serde(default)]
    pub locked_out: Vec<LockedOutSite>,
}

impl Objection {
    /// The reason; `unknown` if the process gave none.
    #[must_use]
    pub fn reason(&self, unknown: &str) -> Reason {
        let error = if self.error.is_empty() { unknown } else { &self.error };
        Reason::of_text(error).hints(self.hints.iter().cloned())
    }
}

impl From<Reason> for Objection {
    fn from(reason: Reason) -> Self {
        Self { error: reason.line(), hints: reason.hints, locked_out: Vec::new() }
    }
}

/// A certificate to be judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateToJudge {
    /// A host of the site.
    pub host: String,
    /// The chain, in PEM.
    pub chain: String,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<String>,
    /// The operator's file of the chain, and that of its key if it is a new one: the names in messages.
    #[serde(default)]
    pub files: Vec<String>,
}
