//! Mixed content of the sites, for the operator: the tools in use, and the references that browsers have reported.

use serde_json::{Value, json};

use super::Control;
use crate::config::report::SiteReport;
use crate::ledger::time::rfc3339;
use crate::telemetry::exposition::{Exposition, SeriesColumn};

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

    pub(super) fn mixed_metrics(&self, metrics: &mut Exposition) {
        let reports = &self.server.reports().mixed_content;
        let counts = reports.counts();
        let of_site = |site: &SiteReport| {
            site.mixed_content.as_ref().map(|_| counts.get(site.name()).copied().unwrap_or_default() as f64)
        };
        let values: Vec<Option<f64>> = self.config.sites().map(of_site).collect();
        let help = "Reports of http references on pages.";
        let columns = vec![SeriesColumn { labels: "}", values }];
        metrics.many_counters("mixed_content_reports", help, &self.label_sets().sites, columns);
        let help = "Reports of http references that were too many, too large or malformed.";
        metrics.counter("mixed_content_reports_refused", help, reports.refused());
    }
}
