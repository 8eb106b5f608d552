//! Metrics of deliveries: events for hooks, and metrics for Graphite.

use std::sync::atomic::Ordering;

use super::{Control, flag};
use crate::events::{HookCounters, HookLine};
use crate::telemetry::exposition::{Exposition, Labels, Values};

impl Control {
    pub(super) fn hook_metrics(&self, metrics: &mut Exposition) {
        let lines = self.reporter.hooks.lines();
        let labels = |line: &HookLine| Labels::new(&[("hook", &line.hook.name)]);
        let numbers: Vec<(Labels, HookCounters)> = lines.iter().map(|line| (labels(line), line.numbers())).collect();
        let of_each = |value: &dyn Fn(&HookCounters) -> f64| -> Values {
            numbers.iter().map(|(labels, numbers)| (labels.clone(), value(numbers))).collect()
        };
        metrics.counters("hook_events_delivered", "Events that a hook has taken.", &of_each(&|n| n.delivered as f64));
        metrics.counters("hook_attempts_failed", "Attempts to deliver that failed.", &of_each(&|n| n.failed as f64));
        metrics.counters("hook_events_dropped", "Events that were given up.", &of_each(&|n| n.dropped as f64));
        metrics.gauges("hook_events_waiting", "Events that wait for a delivery.", &of_each(&|n| n.waiting as f64));
        let disabled = lines.iter().map(|line| (labels(line), flag(line.is_disabled())));
        metrics.gauges("hook_disabled", "1 if a receiver wants no more events.", &disabled.collect());
        let numbers = &self.operator.graphite_numbers;
        for (name, help, number) in [
            ("graphite_lines_sent", "Lines that Graphite has taken.", &numbers.sent),
            ("graphite_lines_dropped", "Lines for Graphite that were given up.", &numbers.dropped),
            ("graphite_failures", "Attempts to send to Graphite that failed.", &numbers.failures),
        ] {
            metrics.counter(name, help, number.load(Ordering::Relaxed));
        }
    }
}
