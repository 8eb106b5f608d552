//! Metrics as Prometheus' messages (io.prometheus.client.MetricFamily), each behind its length: the only format that has
//! native histograms. Made from the text, family by family.

use super::histogram::SCHEMA;
use super::labels::label_pairs;
use super::protobuf::{push_bytes, push_delimited, push_double, push_message, push_number, push_signed};

/// The beginning of the line that has the native buckets of the next histogram.
pub(super) const NATIVE: &str = "# NATIVE ";
/// Values up to this, two to the power of -128, are zeros. Other programs have the same.
const ZERO_MAX: f64 = 2.938_735_877_055_719e-39;
/// Empty buckets up to this number are written, since a further span takes as many bytes.
const GAP_MAX: i64 = 2;

/// The types of families.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const HISTOGRAM: u64 = 4;

/// Turns metrics in Prometheus' text format into messages. The text may come in pieces.
#[derive(Debug, Default)]
pub struct MetricMessages {
    out: Vec<u8>,
    /// A line that is not complete yet.
    begun: Vec<u8>,
    name: String,
    help: String,
    kind: u64,
    /// The metrics of the family, encoded.
    metrics: Vec<u8>,
    histogram: PartialHistogram,
}

/// A histogram whose lines are being read.
#[derive(Debug, Default)]
struct PartialHistogram {
    zeros: u64,
    native: Vec<(i64, u64)>,
    /// The edges and the numbers of values up to each.
    classic: Vec<(f64, u64)>,
    sum: f64,
}

impl MetricMessages {
    /// Adds a piece of the text, which may end within a line.
    pub fn add(&mut self, piece: &[u8]) {
        self.begun.extend_from_slice(piece);
        let end = self.begun.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        let rest = self.begun.split_off(end);
        let lines = std::mem::replace(&mut self.begun, rest);
        self.add_lines(&String::from_utf8_lossy(&lines));
    }

    fn add_lines(&mut self, lines: &str) {
        for line in lines.lines() {
            if let Some(native) = line.strip_prefix(NATIVE) {
                self.histogram = PartialHistogram::of(native);
            } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
                self.finish_family();
                name.clone_into(&mut self.name);
                help.clone_into(&mut self.help);
            } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
                self.kind = match kind {
                    "counter" => COUNTER,
                    "histogram" => HISTOGRAM,
                    _ => GAUGE,
                };
            } else if let Some((series, value)) = line.rsplit_once(' ') {
                let value: f64 = value.parse().unwrap_or(f64::NAN);
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                self.sample(name, labels, value);
            }
        }
    }

    /// Returns the messages that are complete.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Returns the rest.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.finish_family();
        self.out
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        if self.kind != HISTOGRAM {
            // A Counter and a Gauge are the fields 3 and 2 of a Metric.
            let field = if self.kind == COUNTER { 3 } else { 2 };
            return self.metric(labels, |out| push_message(out, field, |out| push_double(out, 1, value)));
        }
        let part = name.get(self.name.len()..).unwrap_or_default();
        match part {
            "_bucket" => {
                let edge =
                    label_pairs(labels).find(|(name, _)| *name == "le").map(|(_, edge)| edge).unwrap_or_default();
                // The last edge, infinity, is the count.
                if let Some(edge) = edge.parse().ok().filter(|edge: &f64| edge.is_finite()) {
                    self.histogram.classic.push((edge, whole(value)));
                }
            }
            "_sum" => self.histogram.sum = value,
            _ => {
                let histogram = std::mem::take(&mut self.histogram);
                self.metric(labels, |out| push_message(out, 7, |out| histogram.push(whole(value), out)));
            }
        }
    }

    fn metric(&mut self, labels: &str, write: impl FnOnce(&mut Vec<u8>)) {
        push_message(&mut self.metrics, 4, |out| {
            for (name, value) in label_pairs(labels) {
                push_message(out, 1, |out| {
                    push_bytes(out, 1, name.as_bytes());
                    push_bytes(out, 2, value.as_bytes());
                });
            }
            write(out);
        });
    }

    fn finish_family(&mut self) {
        let metrics = std::mem::take(&mut self.metrics);
        // Prometheus refuses a family without metrics.
        if metrics.is_empty() {
            return;
        }
        push_delimited(&mut self.out, |out| {
            push_bytes(out, 1, self.name.as_bytes());
            push_bytes(out, 2, self.help.as_bytes());
            push_number(out, 3, self.kind);
            out.extend_from_slice(&metrics);
        });
    }
}

impl PartialHistogram {
    /// Reads `ZEROS NUMBER:COUNT NUMBER:COUNT`.
    fn of(line: &str) -> Self {
        let mut words = line.split(' ');
        let zeros = words.next().and_then(|zeros| zeros.parse().ok()).unwrap_or_default();
        let bucket = |word: &str| {
            let (number, count) = word.split_once(':')?;
            Some((number.parse().ok()?, count.parse().ok()?))
        };
        Self { zeros, native: words.filter_map(bucket).collect(), ..Self::default() }
    }

    fn push(&self, count: u64, out: &mut Vec<u8>) {
        push_number(out, 1, count);
        push_double(out, 2, self.sum);
        for (edge, count) in &self.classic {
            push_message(out, 3, |out| {
                push_number(out, 1, *count);
                push_double(out, 2, *edge);
            });
        }
        push_signed(out, 5, SCHEMA.into());
        push_double(out, 6, ZERO_MAX);
        push_number(out, 7, self.zeros);
        let (spans, deltas) = spans(&self.native);
        // Without a span, nothing says that the histogram is a native one.
        let spans = if spans.is_empty() { vec![(0, 0)] } else { spans };
        for (offset, length) in spans {
            push_message(out, 12, |out| {
                push_signed(out, 1, offset);
                push_number(out, 2, length);
            });
        }
        deltas.into_iter().for_each(|delta| push_signed(out, 13, delta));
    }
}

/// Returns runs of buckets, each with the number of buckets before it and its length, and the counts, each as the
/// difference to the one before.
fn spans(buckets: &[(i64, u64)]) -> (Vec<(i64, u64)>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<(i64, u64)>, Vec<i64>) = Default::default();
    let (mut next, mut before) = (0, 0);
    for (number, count) in buckets {
        let gap = number - next;
        match spans.last_mut() {
            Some((_, length)) if gap <= GAP_MAX => {
                for _ in 0..gap {
                    *length += 1;
                    deltas.push(-before);
                    before = 0;
                }
                *length += 1;
            }
            _ => spans.push((gap, 1)),
        }
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        deltas.push(count.saturating_sub(before));
        (next, before) = (number + 1, count);
    }
    (spans, deltas)
}

/// A count of the text.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count is never negative; `as` saturates"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_buckets() {
        type Case<'c> = (&'c [(i64, u64)], &'c [(i64, u64)], &'c [i64]);
        let cases: [Case<'_>; 6] = [
            (&[], &[], &[]),
            (&[(-5, 3)], &[(-5, 1)], &[3]),
            (&[(0, 1), (1, 4), (2, 2)], &[(0, 3)], &[1, 3, -2]),
            (&[(1, 1), (4, 2)], &[(1, 4)], &[1, -1, 0, 2]),
            (&[(1, 1), (5, 2)], &[(1, 1), (3, 1)], &[1, 1]),
            (&[(-3, 7), (9, 7)], &[(-3, 1), (11, 1)], &[7, 0]),
        ];
        for (buckets, want_spans, want_deltas) in cases {
            let (spans, deltas) = spans(buckets);
            assert_eq!((&spans[..], &deltas[..]), (want_spans, want_deltas), "{buckets:?}");
        }
    }

    #[test]
    fn families() {
        let mut messages = MetricMessages::default();
        messages.add(b"# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"y\"} 7\n# HELP b B.\n# TYPE b gauge\n");
        let counter =
            b"\x0a\x07a_total\x12\x02A.\x18\x00\x22\x13\x0a\x06\x0a\x01x\x12\x01y\x1a\x09\x09\0\0\0\0\0\0\x1c\x40";
        let taken = messages.take();
        assert_eq!((usize::from(taken[0]), &taken[1..]), (counter.len(), &counter[..]));
        messages.add(b"# HELP c C.\n# TYPE c gauge\nc 1\n");
        let gauge = b"\x0a\x01c\x12\x02C.\x18\x01\x22\x0b\x12\x09\x09\0\0\0\0\0\0\xf0\x3f";
        let rest = messages.finish();
        assert_eq!((usize::from(rest[0]), &rest[1..]), (gauge.len(), &gauge[..]), "an empty family is left out");
    }
}
