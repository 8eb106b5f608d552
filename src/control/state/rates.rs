//! The traffic of the last minutes: rates and latencies between samples, for sparklines. A sample reads counters that the
//! workers keep anyway.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::server::Server;
use crate::telemetry::HistogramSum;

/// The time between two samples.
const EVERY: Duration = Duration::from_secs(10);
/// Points that are kept: ten minutes.
const POINTS_MAX: usize = 60;

/// The counters at one time.
#[derive(Debug)]
struct RateSample {
    at: Instant,
    /// The load of the configuration that the order of sites belongs to.
    loaded: Timestamp,
    /// Requests of each site; the last number is for requests that have no site.
    sites: Vec<u64>,
    failed: u64,
    first_byte: HistogramSum,
}

/// The traffic between two samples.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::control) struct RatePoint {
    requests: f64,
    /// Answers with a status of 500 or above, in percent of the requests.
    failed: f64,
    /// Milliseconds to the first byte, of the median request and of the slowest in a hundred; `None` without requests.
    median: Option<f64>,
    slowest: Option<f64>,
    connections: usize,
}

/// The samples so far.
#[derive(Debug, Default)]
pub(in crate::control) struct Rates {
    last: Option<RateSample>,
    points: VecDeque<RatePoint>,
    /// Requests per second of each site, between the last two samples.
    sites: Vec<f64>,
}

impl Rates {
    /// Takes a sample if one is due.
    pub(in crate::control) fn sample(&mut self, server: &Server, loaded: Timestamp) {
        if self.last.as_ref().is_some_and(|last| last.at.elapsed() < EVERY) {
            return;
        }
        let mut failed = 0;
        let traffic = server.traffic();
        let sites = traffic.iter().map(|site| {
            let sum = site.sum();
            failed += sum.failed();
            sum.requests.iter().sum()
        });
        let sites: Vec<u64> = sites.collect();
        let mut first_byte = HistogramSum::default();
        server.meters().for_each(|meters| first_byte.add(&meters.first_byte));
        let now = RateSample { at: Instant::now(), loaded, sites, failed, first_byte };
        if let Some(before) = self.last.take() {
            let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
            if before.loaded == now.loaded {
                let rate = |(now, before): (&u64, &u64)| quotient(now.saturating_sub(*before), seconds);
                self.sites = now.sites.iter().zip(&before.sites).map(rate).collect();
            } else {
                // The sites have another order now.
                self.sites.clear();
            }
            self.points.push_back(point(&before, &now, seconds, server.connections()));
            while self.points.len() > POINTS_MAX {
                self.points.pop_front();
            }
        }
        self.last = Some(now);
    }

    /// The requests per second of a site, once two samples know it.
    pub(in crate::control) fn of_site(&self, index: usize) -> Option<f64> {
        self.sites.get(index).copied()
    }

    /// The points, the oldest first.
    pub(in crate::control) fn json(&self, connections: usize) -> Value {
        let point = |point: &RatePoint| {
            json!({
                "requests": rounded(point.requests), "failed": rounded(point.failed), "connections": point.connections,
                "first_byte_median_ms": point.median.map(rounded), "first_byte_p99_ms": point.slowest.map(rounded),
            })
        };
        json!({
            "every": EVERY.as_secs(), "connections": connections,
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
        })
    }
}

fn point(before: &RateSample, now: &RateSample, seconds: f64, connections: usize) -> RatePoint {
    let sum = |sample: &RateSample| sample.sites.iter().sum::<u64>();
    let requests = sum(now).saturating_sub(sum(before));
    let failed = now.failed.saturating_sub(before.failed);
    let buckets: Vec<(Option<f64>, u64)> = now
        .first_byte
        .cumulative()
        .zip(before.first_byte.cumulative())
        .map(|((edge, now), (_, before))| {
            (edge.parse().ok().filter(|edge: &f64| edge.is_finite()), now.saturating_sub(before))
        })
        .collect();
    RatePoint {
        requests: quotient(requests, seconds),
        failed: if requests == 0 { 0.0 } else { quotient(failed.saturating_mul(100), whole(requests)) },
        median: quantile(&buckets, 0.5),
        slowest: quantile(&buckets, 0.99),
        connections,
    }
}

/// A count as a number that can be divided. Beyond 2^53 its last digits are lost, which no rate shows.
#[allow(clippy::cast_precision_loss)]
fn whole(count: u64) -> f64 {
    count as f64
}

fn quotient(count: u64, by: f64) -> f64 {
    whole(count) / by
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// The milliseconds below which this part of the values lies, between the edges of its bucket; `None` without values. The
/// bucket without an upper edge counts as its lower one.
fn quantile(cumulative: &[(Option<f64>, u64)], part: f64) -> Option<f64> {
    let all = cumulative.last().map(|(_, count)| *count).filter(|all| *all > 0)?;
    let wanted = whole(all) * part;
    let (mut edge_below, mut count_below) = (0.0, 0);
    for (edge, count) in cumulative {
        let Some(edge) = edge else { break };
        if whole(*count) >= wanted && *count > count_below {
            let share = (wanted - whole(count_below)).max(0.0) / whole(count - count_below);
            return Some((edge_below + (edge - edge_below) * share) * 1000.0);
        }
        (edge_below, count_below) = (*edge, *count);
    }
    Some(edge_below * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let buckets = |counts: [u64; 4]| {
            [(Some(0.005), counts[0]), (Some(0.01), counts[1]), (Some(0.025), counts[2]), (None, counts[3])]
        };
        assert_eq!(quantile(&buckets([0, 0, 0, 0]), 0.5), None);
        assert_eq!(quantile(&buckets([10, 10, 10, 10]), 0.5), Some(2.5));
        assert_eq!(quantile(&buckets([0, 10, 10, 10]), 0.5), Some(7.5));
        assert_eq!(quantile(&buckets([5, 10, 10, 10]), 0.5), Some(5.0));
        // Beyond the last edge, the truth is longer.
        assert_eq!(quantile(&buckets([0, 0, 0, 10]), 0.99), Some(25.0));
    }

    #[test]
    fn shares_of_no_requests() {
        let sample = |requests: u64, failed: u64| RateSample {
            at: Instant::now(),
            loaded: Timestamp::UNIX_EPOCH,
            sites: vec![requests, 0],
            failed,
            first_byte: HistogramSum::default(),
        };
        let idle = point(&sample(7, 1), &sample(7, 1), 10.0, 3);
        assert_eq!(idle, RatePoint { requests: 0.0, failed: 0.0, median: None, slowest: None, connections: 3 });
        let busy = point(&sample(0, 0), &sample(200, 3), 10.0, 3);
        assert_eq!((busy.requests, busy.failed), (20.0, 1.5));
    }
}
