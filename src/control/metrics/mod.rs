//! The metrics: `/metrics` of the admin socket. docs/guide/monitoring.md lists them.

mod certificates;
mod hooks;
mod label_sets;
mod mixed;
mod process;
mod promises;
mod renewals;
mod traffic;
mod upstreams;

use super::Control;
use crate::telemetry::exposition::{Exposition, Format};

impl Control {
    /// Collects all metrics. Another thread writes their text.
    pub(super) fn metrics(&self, format: Format) -> Exposition {
        let mut metrics = Exposition::new(format);
        self.process_metrics(&mut metrics);
        self.traffic_metrics(&mut metrics);
        self.log_metrics(&mut metrics);
        self.promise_metrics(&mut metrics);
        self.certificate_metrics(&mut metrics);
        self.renewal_metrics(&mut metrics);
        self.upstream_metrics(&mut metrics);
        self.report_metrics(&mut metrics);
        self.mixed_metrics(&mut metrics);
        self.hook_metrics(&mut metrics);
        self.span_metrics(&mut metrics);
        metrics
    }
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}
