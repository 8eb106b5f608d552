//! Mixed content of the sites, for the operator: the tools in use, and the references that browsers have reported.

use serde_json::{Value, json};

use super::Control;
use crate::config::report::SiteReport;
use crate::ledger::time::rfc3339;

/// The most references that the state of a site lists.
const LISTED_MAX: usize = 100;

impl Control {
    /// The tools of a site, and its reported references; `null` without tools.
    pub(super) fn mixed_content(&self, site: &SiteReport) -> Value {
        let Some(modes) = &site.mixed_content else { return Value::Null };
        let reports = &self.server.reports().mixed_content;
        let found = reports.of_site(site.name());
        let listed = found.iter().take(LISTED_MAX).map(|found| {
            json!({
                "page": found.violation.page, "reference": found.violation.blocked, "kind": found.violation.directive,
                "own": found.is_own, "reports": found.count, "first": rfc3339(found.first), "last": rfc3339(found.last),
            })
        });
        let count = reports.counts().get(site.name()).copied().unwrap_or_default();
        json!({
            "mode": modes, "reports": count, "references_known": found.len(),
            "references": listed.collect::<Vec<_>>(),
        })
    }
}
