//! Metrics of mixed content: reports of browsers.

use super::Control;
use super::label_sets::alone;
use crate::config::report::SiteReport;
use crate::telemetry::exposition::Exposition;

impl Control {
    pub(super) fn mixed_metrics(&self, metrics: &mut Exposition) {
        let reports = &self.server.reports().mixed_content;
        let counts = reports.counts();
        let of_site = |site: &SiteReport| {
            site.mixed_content.as_ref().map(|_| counts.get(site.name()).copied().unwrap_or_default() as f64)
        };
        let values: Vec<Option<f64>> = self.config.sites().map(of_site).collect();
        let help = "Reports of http references on pages.";
        metrics.many_counters("mixed_content_reports", help, &self.label_sets().sites, vec![alone(values)]);
        let help = "Reports of http references that were too many, too large or malformed.";
        metrics.counter("mixed_content_reports_refused", help, reports.refused());
    }
}
