//! The settings of a site against mixed content, and the fields that documents get for it.

use std::sync::Arc;

use super::media::RewriteTypes;
use super::names::HttpsNames;
use crate::message::{Rendered, UpstreamTags};

/// The path on each host of a site to which browsers report.
pub const REPORT_PATH: &str = "/.well-known/pintle/mixed-content";
/// The name of the endpoint, in the site's own list of them.
const ENDPOINT: &str = "pintle-mixed-content";
/// Everything that is no http reference.
const ALLOWED: &str = "https: wss: data: blob: mediastream: filesystem: 'unsafe-inline' 'unsafe-eval'";

/// The settings of a site: `[site.mixed_content]`.
#[derive(Debug, Default)]
pub struct MixedContent {
    /// Browsers report http references.
    pub reports: bool,
    /// Browsers ask for them by https.
    pub upgrades: bool,
    /// pintle rewrites references to the site's own hosts.
    pub rewrites: Option<RewriteRules>,
    /// The fields of documents, for the first two.
    pub document_fields: Rendered,
    /// The tags of the upstream, as far as bodies with them were rewritten.
    pub tags: UpstreamTags,
}

/// The rules for rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewriteRules {
    /// The hosts.
    pub names: Arc<HttpsNames>,
    /// The bodies.
    pub types: RewriteTypes,
}

impl MixedContent {
    /// Makes the settings, and their fields.
    ///
    /// # Errors
    ///
    /// If a field is invalid; they are constant.
    pub fn new(reports: bool, upgrades: bool, rewrites: Option<RewriteRules>) -> Result<Self, http::Error> {
        let mut document_fields = Rendered::default();
        if upgrades {
            // A field of its own is a policy of its own, beside the upstream's: it takes nothing from it, and this
            // directive forbids nothing (W3C Upgrade Insecure Requests, section 3.1; CSP, section 3.1).
            document_fields.push("Content-Security-Policy", "upgrade-insecure-requests")?;
        }
        if reports {
            let policy =
                format!("default-src {ALLOWED}; form-action https:; report-uri {REPORT_PATH}; report-to {ENDPOINT}");
            document_fields.push("Content-Security-Policy-Report-Only", &policy)?;
            // A dictionary: browsers join it with the upstream's fields of that name.
            document_fields.push("Reporting-Endpoints", &format!("{ENDPOINT}=\"{REPORT_PATH}\""))?;
        }
        Ok(Self { reports, upgrades, rewrites, document_fields, tags: UpstreamTags::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_documents() {
        let names = |reports, upgrades| -> Vec<String> {
            let mixed = MixedContent::new(reports, upgrades, None).unwrap();
            mixed
                .document_fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
                .collect()
        };
        assert!(names(false, false).is_empty());
        assert_eq!(names(false, true), ["content-security-policy: upgrade-insecure-requests"]);
        let report = names(true, false);
        assert!(report[0].starts_with("content-security-policy-report-only: default-src https: "), "{report:?}");
        assert_eq!(report[1], "reporting-endpoints: pintle-mixed-content=\"/.well-known/pintle/mixed-content\"");
    }
}
