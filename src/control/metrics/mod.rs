//! The metrics: `/metrics` of the admin socket. docs/guide/monitoring.md lists them.

mod certificates;
mod hooks;
mod process;
mod promises;
mod traffic;
mod renewals;
mod upstreams;

use super::Control;
use crate::config::report::SiteReport;
use crate::telemetry::exposition::{Exposition, Format, Labels, Values};

impl Control {
    /// Returns all metrics.
    pub(super) fn metrics(&self, format: Format) -> String {
        let mut metrics = Exposition::new(format);
        self.process_metrics(&mut metrics);
        self.traffic_metrics(&mut metrics);
        self.log_metrics(&mut metrics);
        self.promise_metrics(&mut metrics);
        self.certificate_metrics(&mut metrics);
        self.renewal_metrics(&mut metrics);
        self.upstream_metrics(&mut metrics);
        self.report_metrics(&mut metrics);
        self.hook_metrics(&mut metrics);
        metrics.finish()
    }

    fn by_site(&self, value: &dyn Fn(&SiteReport) -> f64) -> Values {
        self.config.sites().map(|site| (of_site(site), value(site))).collect()
    }
}

fn of_site(site: &SiteReport) -> Labels {
    Labels::new(&[("site", site.name())])
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
