//! Metrics of the traffic: requests and bytes by site, latencies, handshakes, limits, causes, the delay of each worker.

use serde_json::{Value, json};

use super::Control;
use crate::telemetry::compressed::{CODINGS, CompressedSum};
use crate::telemetry::exposition::{Exposition, Labels, Values};
use crate::telemetry::meters::{CAUSES, HANDSHAKES, LIMITS, States};
use crate::telemetry::traffic::{METHODS, STATUSES};
use crate::telemetry::{Histogram, HistogramSum, Meters, TrafficSum};

impl Control {
    pub(super) fn traffic_metrics(&self, metrics: &mut Exposition) {
        let (sets, traffic) = (self.label_sets().sites.clone(), self.server.traffic());
        let help = "Requests by site, class of method (read, write, other) and class of status.";
        metrics.counters_later("site_requests", help, move |name, pieces| {
            let kinds = METHODS.iter().flat_map(|method| {
                STATUSES.iter().map(move |status| format!(",method=\"{method}\",status=\"{status}\"}}"))
            });
            let kinds: Vec<String> = kinds.collect();
            for (labels, site) in sets.iter().zip(&*traffic) {
                let of_kinds = kinds.iter().zip(site.sum().requests);
                of_kinds.for_each(|(kind, count)| pieces.count([name, labels, kind], count));
            }
        });
        let help = "Bytes of request bodies that were received.";
        self.bytes_of_sites(metrics, "site_received_bytes", help, |sum| sum.received);
        let help = "Bytes of response bodies that were sent.";
        self.bytes_of_sites(metrics, "site_sent_bytes", help, |sum| sum.sent);
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
        self.cache_metrics(metrics);
        self.compression_metrics(metrics);
    }

    /// The responses that pintle has compressed.
    fn compression_metrics(&self, metrics: &mut Exposition) {
        let mut sums = [CompressedSum::default(); CODINGS.len()];
        self.server.meters().for_each(|meters| meters.compressed.add_to(&mut sums));
        let each = |value: fn(&CompressedSum) -> u64| -> Values {
            let pairs = CODINGS.iter().zip(&sums);
            pairs.map(|(coding, sum)| (Labels::new(&[("coding", coding)]), value(sum) as f64)).collect()
        };
        let help = "Responses that pintle compressed.";
        metrics.counters("compressed_responses", help, &each(|sum| sum.responses));
        let help = "Bytes of their bodies before compression.";
        metrics.counters("compression_in_bytes", help, &each(|sum| sum.before));
        let help = "Bytes of their bodies that were sent.";
        metrics.counters("compression_out_bytes", help, &each(|sum| sum.after));
    }

    fn bytes_of_sites(&self, metrics: &mut Exposition, name: &str, help: &str, bytes: fn(&TrafficSum) -> u64) {
        let (sets, traffic) = (self.label_sets().sites.clone(), self.server.traffic());
        metrics.counters_later(name, help, move |name, pieces| {
            for (labels, site) in sets.iter().zip(&*traffic) {
                pieces.count([name, labels, "}"], bytes(&site.sum()));
            }
        });
    }

    /// The latencies of all workers.
    fn latency(&self, of: &dyn Fn(&Meters) -> &Histogram) -> HistogramSum {
        let mut sum = HistogramSum::default();
        self.server.meters().for_each(|meters| sum.add(of(meters)));
        sum
    }

    /// The latencies for `pintle status`: the numbers of values in each bucket, and the upper edges of all but the last.
    pub(in crate::control) fn latencies(&self) -> Value {
        json!({
            "edges_ms": HistogramSum::edges_ms(),
            "first_byte": self.latency(&|meters| &meters.first_byte).buckets(),
            "total": self.latency(&|meters| &meters.duration).buckets(),
            "upstream": self.latency(&|meters| &meters.upstream).buckets(),
        })
    }

    /// The connections by their states.
    pub(in crate::control) fn connection_states(&self) -> States {
        let mut sum = States::default();
        self.server.meters().for_each(|meters| meters.states.add_to(&mut sum));
        sum
    }

    /// The limits that were reached, each with the number of times.
    pub(in crate::control) fn limits_reached(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut limits = [0; LIMITS.len()];
        self.server.meters().for_each(|meters| meters.limits.add_to(&mut limits));
        LIMITS.into_iter().zip(limits).filter(|(_, count)| *count > 0)
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
