//! Metrics of the traffic: requests and bytes by site, latencies, handshakes, limits, causes, the delay of each worker.

use serde_json::{Value, json};

use super::Control;
use crate::server::NO_SITE;
use crate::telemetry::exposition::{Exposition, Labels, Values};
use crate::telemetry::meters::{CAUSES, HANDSHAKES, LIMITS, States};
use crate::telemetry::traffic::{METHODS, STATUSES};
use crate::telemetry::{Histogram, HistogramSum, Meters, TrafficSum};

impl Control {
    pub(super) fn traffic_metrics(&self, metrics: &mut Exposition) {
        let names = self.config.sites().map(|site| site.name()).chain([NO_SITE]);
        let labels = names.map(|name| Labels::new(&[("site", name)]));
        let sites: Vec<(Labels, TrafficSum)> = labels.zip(self.server.traffic()).collect();
        let kinds: Vec<String> = METHODS
            .iter()
            .flat_map(|method| STATUSES.map(|status| format!("method=\"{method}\",status=\"{status}\"}}")))
            .collect();
        let help = "Requests by site, class of method (read, write, other) and class of status.";
        let mut samples = metrics.many_counters("site_requests", help);
        for (labels, sum) in &sites {
            let begun = labels.begun();
            kinds.iter().zip(sum.requests).for_each(|(kind, count)| samples.add(&[&begun, kind], count));
        }
        let help = "Bytes of request bodies that were received.";
        let mut samples = metrics.many_counters("site_received_bytes", help);
        sites.iter().for_each(|(labels, sum)| samples.add(&[labels.as_str()], sum.received));
        let help = "Bytes of response bodies that were sent.";
        let mut samples = metrics.many_counters("site_sent_bytes", help);
        sites.iter().for_each(|(labels, sum)| samples.add(&[labels.as_str()], sum.sent));
        let sum = |of: &dyn Fn(&Meters) -> &Histogram| [(Labels::default(), self.latency(of))];
        let help = "From a request's head to the beginning of its response.";
        metrics.histograms("request_first_byte_seconds", help, &sum(&|meters| &meters.first_byte));
        let help = "From a request's head to the end of its response.";
        metrics.histograms("request_duration_seconds", help, &sum(&|meters| &meters.duration));
        let help = "From asking an upstream to the head of its response.";
        metrics.histograms("upstream_response_seconds", help, &sum(&|meters| &meters.upstream));
        let delays = self.server.meters().enumerate().map(|(number, meters)| {
            let mut sum = HistogramSum::default();
            sum.add(&meters.loop_delay);
            (Labels::new(&[("worker", &number.to_string())]), sum)
        });
        let help = "The delay of a worker's event loop, measured twice a second.";
        metrics.histograms("worker_loop_delay_seconds", help, &delays.collect::<Vec<_>>());
        self.tallies(metrics);
    }

    /// The latencies of all workers.
    fn latency(&self, of: &dyn Fn(&Meters) -> &Histogram) -> HistogramSum {
        let mut sum = HistogramSum::default();
        self.server.meters().for_each(|meters| sum.add(of(meters)));
        sum
    }

    /// The latencies for `pintle status`: the numbers of values in each bucket, and the upper edges of all but the last.
    pub(in crate::control) fn latencies(&self) -> Value {
        let first_byte = self.latency(&|meters| &meters.first_byte);
        let (total, upstream) = (self.latency(&|meters| &meters.duration), self.latency(&|meters| &meters.upstream));
        json!({
            "edges_ms": first_byte.buckets().1,
            "first_byte": first_byte.buckets().0,
            "total": total.buckets().0,
            "upstream": upstream.buckets().0,
        })
    }

    /// The connections by their states.
    pub(in crate::control) fn connection_states(&self) -> States {
        let mut sum = States::default();
        self.server.meters().for_each(|meters| meters.states.add_to(&mut sum));
        sum
    }

    fn tallies(&self, metrics: &mut Exposition) {
        let (mut handshakes, mut limits, mut causes) = ([0; HANDSHAKES.len()], [0; LIMITS.len()], [0; CAUSES.len()]);
        for meters in self.server.meters() {
            meters.handshakes.add_to(&mut handshakes);
            meters.limits.add_to(&mut limits);
            meters.causes.add_to(&mut causes);
        }
        let one = |label: &str, word: &str, count: u64| (Labels::new(&[(label, word)]), count as f64);
        let results = HANDSHAKES
            .iter()
            .zip(handshakes)
            .map(|((result, reason), count)| (Labels::new(&[("result", result), ("reason", reason)]), count as f64));
        metrics.counters("handshake_results", "TLS handshakes by result and reason.", &results.collect());
        let reached: Values = LIMITS.iter().zip(limits).map(|(name, count)| one("limit", name, count)).collect();
        metrics.counters("limits_reached", "Times that a limit was reached, by its name.", &reached);
        let failed: Values = CAUSES.iter().zip(causes).map(|(cause, count)| one("cause", cause, count)).collect();
        metrics.counters("upstream_failures", "Requests that failed at the upstream, by cause.", &failed);
    }
}
