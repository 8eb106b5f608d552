//! Histograms of durations, classic and native ones from the same counts. One thread writes each; readers add them up.
//!
//! A native histogram of Prometheus has buckets that grow exponentially. Their edges and those of the classic one, merged,
//! divide durations so finely that each count belongs to one bucket of each. So a duration costs one increment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper edges of the classic buckets, in microseconds. All histograms have the same. Beside Prometheus' usual ones
/// there are none: the objectives of the guide, 100 ms and 1 s, are among them.
const CLASSIC: [u64; 11] =
    [5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000];
/// The edges as labels.
const LABELS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"];

/// The schema of the native buckets: each octave has two to the power of this number, so that none is wider than 9.1 %.
pub const SCHEMA: u8 = 3;
const PER_OCTAVE: usize = 1 << SCHEMA;
/// The upper edges within an octave, by its beginning.
#[expect(clippy::approx_constant, reason = "the numbers 2^(n/8)")]
const OCTAVE: [f64; PER_OCTAVE] = [
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    1.4142135623730951,
    1.5422108254079407,
    1.681792830507429,
    1.8340080864093424,
];
/// The octaves below one second, and from there: about a microsecond to 33 hours.
const OCTAVES_BELOW: usize = 20;
const OCTAVES: usize = OCTAVES_BELOW + 17;
const NATIVES: usize = OCTAVES * PER_OCTAVE;
/// The number of the first native bucket. Bucket 0 ends at one second.
const FIRST: i32 = -160;
const _: () = assert!(OCTAVES_BELOW * PER_OCTAVE == 160);

/// The upper edges of the native buckets, in whole microseconds.
const NATIVE: [u64; NATIVES] = {
    let mut edges = [0; NATIVES];
    let (mut at, mut begin) = (0, 1e6 / (1_u64 << OCTAVES_BELOW) as f64);
    while at < NATIVES {
        edges[at] = whole(OCTAVE[at % PER_OCTAVE] * begin);
        at += 1;
        if at.is_multiple_of(PER_OCTAVE) {
            begin *= 2.0;
        }
    }
    edges
};

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "constants, from 0 to 2^38")]
const fn whole(micros: f64) -> u64 {
    micros as u64
}

const EDGES_LEN: usize = NATIVES + CLASSIC.len() + 1;
/// Zero and all edges, in order.
static EDGES: [u64; EDGES_LEN] = {
    let mut edges = [0; EDGES_LEN];
    let (mut at, mut native, mut classic) = (1, 0, 0);
    while at < EDGES_LEN {
        if classic == CLASSIC.len() || native < NATIVES && NATIVE[native] <= CLASSIC[classic] {
            edges[at] = NATIVE[native];
            native += 1;
        } else {
            edges[at] = CLASSIC[classic];
            classic += 1;
        }
        at += 1;
    }
    edges
};
/// The counts: one up to each edge, and one beyond.
const COUNTS: usize = EDGES_LEN + 1;

/// The number of edges that have fewer bits than this.
static BEFORE: [usize; 66] = {
    let (mut before, mut bits, mut at) = ([0; 66], 1, 0);
    while bits < 66 {
        while at < EDGES_LEN && 64 - EDGES[at].leading_zeros() < bits {
            at += 1;
        }
        before[bits as usize] = at;
        bits += 1;
    }
    before
};

/// The count that a duration belongs to. Only edges with as many bits come into question.
fn place(micros: u64) -> usize {
    let bits = (u64::BITS - micros.leading_zeros()) as usize;
    let (from, to) = (BEFORE[bits], BEFORE[bits + 1]);
    from + EDGES.get(from..to).unwrap_or_default().partition_point(|edge| *edge < micros)
}

/// The counts of one thread.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; COUNTS],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; COUNTS], micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds a duration. Only one thread may do so.
    pub fn note(&self, duration: Duration) {
        let micros = micros(duration);
        if let Some(count) = self.counts.get(place(micros)) {
            add(count, 1);
        }
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HistogramSum {
    counts: [u64; COUNTS],
    micros: u64,
}

impl Default for HistogramSum {
    fn default() -> Self {
        Self { counts: [0; COUNTS], micros: 0 }
    }
}

impl HistogramSum {
    /// The upper edges of the classic buckets, in milliseconds.
    #[must_use]
    pub fn edges_ms() -> [u64; CLASSIC.len()] {
        CLASSIC.map(|edge| edge / 1000)
    }

    /// Adds a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        self.micros += histogram.micros.load(Ordering::Relaxed);
    }

    /// The upper edge of each count, and the count. The last one has no edge.
    fn by_edge(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        EDGES.iter().copied().map(Some).chain([None]).zip(self.counts)
    }

    /// The edges and the number of values up to each.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LABELS.into_iter().zip(self.buckets()).scan(0, |sum, (label, count)| {
            *sum += count;
            Some((label, *sum))
        })
    }

    /// The number of values in each classic bucket. The last one has no upper edge.
    #[must_use]
    pub fn buckets(&self) -> [u64; LABELS.len()] {
        let mut buckets = [0; LABELS.len()];
        for (edge, count) in self.by_edge() {
            let at = edge.map_or(CLASSIC.len(), |edge| CLASSIC.partition_point(|classic| *classic < edge));
            buckets[at] += count;
        }
        buckets
    }

    /// The number of zeros, and the native buckets that are not empty, each with its number. Longer durations than any
    /// bucket has count in the last one.
    #[must_use]
    pub fn native(&self) -> (u64, Vec<(i32, u64)>) {
        let mut buckets: Vec<(i32, u64)> = Vec::new();
        let mut zeros = 0;
        for (edge, count) in self.by_edge().filter(|(_, count)| *count > 0) {
            if edge == Some(0) {
                zeros = count;
                continue;
            }
            let at = edge.map_or(NATIVES, |edge| NATIVE.partition_point(|native| *native < edge)).min(NATIVES - 1);
            let number = FIRST.saturating_add(i32::try_from(at).unwrap_or(i32::MAX));
            match buckets.last_mut() {
                Some((last, sum)) if *last == number => *sum += count,
                _ => buckets.push((number, count)),
            }
        }
        (zeros, buckets)
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
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
    use proptest::prelude::*;

    fn sum_of(micros: &[u64]) -> HistogramSum {
        let histogram = Histogram::default();
        micros.iter().for_each(|micros| histogram.note(Duration::from_micros(*micros)));
        let mut sum = HistogramSum::default();
        sum.add(&histogram);
        sum
    }

    #[test]
    fn values_on_an_edge_belong_below_it() {
        for (micros, label) in
            [(0, "0.005"), (5_000, "0.005"), (5_001, "0.01"), (10_000_000, "10.0"), (10_000_001, "+Inf")]
        {
            let sum = sum_of(&[micros]);
            assert_eq!(sum.cumulative().find(|(_, count)| *count == 1).unwrap().0, label, "{micros}");
            assert_eq!((sum.count(), sum.cumulative().last()), (1, Some(("+Inf", 1))));
        }
        let labels = CLASSIC.iter().map(|edge| format!("{:?}", *edge as f64 / 1e6));
        assert!(labels.eq(LABELS[..11].iter().map(|label| (*label).to_owned())));
        assert!(EDGES.is_sorted() && EDGES[0] == 0 && EDGES[EDGES_LEN - 1] > 33 * 3600 * 1_000_000);
    }

    /// Bucket n ends at 2^(n/8) seconds.
    #[test]
    fn native_buckets() {
        assert_eq!(sum_of(&[0, 0]).native(), (2, vec![]));
        for (micros, number) in [
            (1_000_000, 0),
            (1_000_001, 1),
            (1_090_507, 1),
            (1_090_508, 2),
            (2_000_000, 8),
            (500_000, -8),
            (500_001, -7),
            (1, -159),
            (2, -151),
        ] {
            assert_eq!(sum_of(&[micros]).native(), (0, vec![(number, 1)]), "{micros}");
        }
        let last = FIRST + i32::try_from(NATIVES).unwrap() - 1;
        assert_eq!(sum_of(&[u64::MAX, u64::MAX]).native(), (0, vec![(last, 2)]));
        // Values of one native bucket on both sides of a classic edge.
        assert_eq!(sum_of(&[249_000, 251_000]).native(), (0, vec![(-16, 1), (-15, 1)]));
        assert_eq!(sum_of(&[99_500, 100_500]).native(), (0, vec![(-26, 2)]));
    }

    proptest! {
        #[test]
        fn each_value_is_in_its_bucket(micros in 1..100_000_000_000_u64) {
            let sum = sum_of(&[micros]);
            let (zeros, buckets) = sum.native();
            let [(number, 1)] = buckets[..] else { panic!("{buckets:?}") };
            let edge = |number: i32| 2_f64.powf(f64::from(number) / 8.0);
            let seconds = micros as f64 / 1e6;
            prop_assert!(zeros == 0 && seconds <= edge(number) * (1.0 + 1e-12), "{number}");
            prop_assert!(seconds > edge(number - 1) * (1.0 - 1e-12), "{number}");
            let classic = CLASSIC.partition_point(|edge| *edge < micros);
            prop_assert_eq!(sum.cumulative().filter(|(_, count)| *count == 0).count(), classic);
        }
    }
}
