//! Classic histograms of durations. One thread writes each; readers add them up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper edges of the buckets, in microseconds. All histograms have the same. Beside Prometheus' usual ones there are
/// none: the objectives of the guide, 100 ms and 1 s, are among them.
const EDGES: [u64; 11] =
    [5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];
/// The edges as labels.
const LABELS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"];

/// The counts of one thread.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; 12],
    micros: AtomicU64,
}

impl Histogram {
    /// Adds a duration. Only one thread may do so.
    pub fn note(&self, duration: Duration) {
        let micros = micros(duration);
        add(&self.buckets[EDGES.partition_point(|edge| *edge < micros)], 1);
        add(&self.micros, micros);
    }
}

/// Whole microseconds, in 64 bits.
pub(super) fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into())
}

/// Adds to a number that only one thread changes: without the lock of `fetch_add`.
pub(super) fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

/// The sum of several histograms.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct HistogramSum {
    buckets: [u64; 12],
    micros: u64,
}

impl HistogramSum {
    /// Adds a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.micros += histogram.micros.load(Ordering::Relaxed);
    }

    /// The edges and the number of values up to each.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LABELS.into_iter().zip(self.buckets).scan(0, |sum, (label, count)| {
            *sum += count;
            Some((label, *sum))
        })
    }

    /// The number of values in each bucket, and the buckets' upper edges in milliseconds; the last one has none.
    #[must_use]
    pub fn buckets(&self) -> (&[u64; 12], [u64; 11]) {
        (&self.buckets, EDGES.map(|edge| edge / 1000))
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the values, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_on_an_edge_belong_below_it() {
        for (micros, label) in
            [(0, "0.005"), (5_000, "0.005"), (5_001, "0.01"), (10_000_000, "10.0"), (10_000_001, "+Inf")]
        {
            let histogram = Histogram::default();
            histogram.note(Duration::from_micros(micros));
            let mut sum = HistogramSum::default();
            sum.add(&histogram);
            assert_eq!(sum.cumulative().find(|(_, count)| *count == 1).unwrap().0, label, "{micros}");
            assert_eq!((sum.count(), sum.cumulative().last()), (1, Some(("+Inf", 1))));
        }
        let labels = EDGES.iter().map(|edge| format!("{:?}", *edge as f64 / 1e6));
        assert!(labels.eq(LABELS[..11].iter().map(|label| (*label).to_owned())));
    }
}
