//! Metrics as text: Prometheus' format, version 0.0.4, and OpenMetrics 1.0.

use std::io::Write as _;
use std::sync::Arc;

use super::delimited::{MetricMessages, NATIVE};
use super::histogram::HistogramSum;
pub use super::labels::{LabelSets, Labels, label_pairs};

/// The format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' messages, each behind its length. The exposition is text with the native histograms in comments, from
    /// which [`super::delimited`] makes the messages.
    Delimited,
}

/// The type of these messages.
const MESSAGE: &str = "io.prometheus.client.MetricFamily";

impl Format {
    /// The format that an Accept field prefers (RFC 9110 section 12.5.1): OpenMetrics and messages only if they are named.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        let (mut best, mut best_quality) = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known, mut is_delimited) = (1.0_f32, true, false);
            for parameter in parts {
                match parameter.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))) {
                    Some((name, value)) if name.eq_ignore_ascii_case("q") => quality = value.parse().unwrap_or(0.0),
                    Some((name, value)) if name.eq_ignore_ascii_case("version") => {
                        is_known = value == if kind == "text/plain" { "0.0.4" } else { "1.0.0" };
                    }
                    Some((name, value)) if name.eq_ignore_ascii_case("proto") => is_known &= value == MESSAGE,
                    Some((name, value)) if name.eq_ignore_ascii_case("encoding") => is_delimited = value == "delimited",
                    _ => {}
                }
            }
            let format = match kind.as_str() {
                "application/vnd.google.protobuf" if is_known && is_delimited => Self::Delimited,
                "application/openmetrics-text" if is_known => Self::OpenMetrics,
                "text/plain" if is_known => Self::Text,
                _ => continue,
            };
            if quality > best_quality || quality == best_quality && format > best {
                (best, best_quality) = (format, quality);
            }
        }
        if best_quality > 0.0 { best } else { Self::Text }
    }

    /// The Content-Type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Delimited => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// Values of one metric, each with its labels.
pub type Values = Vec<(Labels, f64)>;

/// Series of one metric that differ in the labels behind those of their [`LabelSets`].
pub struct SeriesColumn {
    /// The further labels, with the brace that ends all: `,state="open"}`, or `}` alone.
    pub labels: &'static str,
    /// A value for each set. `None` where there is no series.
    pub values: Vec<Option<f64>>,
}

/// Metrics, one after the other. Long ones are written when they are sent, in pieces, and on a thread of the caller's
/// choice.
pub struct Exposition {
    parts: Vec<ExpositionPart>,
    /// The part that is being written.
    text: Vec<u8>,
    format: Format,
}

enum ExpositionPart {
    Text(Vec<u8>),
    Later(Box<dyn FnOnce(&mut MetricPieces<'_>) + Send>),
}

/// The prefix of all names, except those that all programs share.
const PREFIX: &str = "pintle_";
const SHARED: &str = "process_";

impl Exposition {
    /// Begins it.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { parts: Vec::new(), text: Vec::new(), format }
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Adds counters. The name is given without `_total`.
    pub fn counters(&mut self, name: &str, help: &str, values: &Values) {
        let name = self.counter_family(name, help);
        self.samples(&name, values);
    }

    /// Adds a counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, &vec![(Labels::default(), value as f64)]);
    }

    /// Adds gauges.
    pub fn gauges(&mut self, name: &str, help: &str, values: &Values) {
        let name = self.family(name, "gauge", help);
        self.samples(&name, values);
    }

    /// Adds a gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, &vec![(Labels::default(), value)]);
    }

    /// Adds a gauge that is 1 or 0.
    pub fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help, f64::from(u8::from(value)));
    }

    /// Adds histograms.
    pub fn histograms(&mut self, name: &str, help: &str, values: &[(Labels, HistogramSum)]) {
        let name = self.family(name, "histogram", help);
        for (labels, sum) in values {
            if self.format == Format::Delimited {
                let (zeros, buckets) = sum.native();
                let _ = write!(self.text, "{NATIVE}{zeros}");
                buckets.iter().for_each(|(number, count)| _ = write!(self.text, " {number}:{count}"));
                self.text.push(b'\n');
            }
            let begun = labels.begun();
            let comma = if begun == "{" { "" } else { "," };
            for (edge, count) in sum.cumulative() {
                let _ = writeln!(self.text, "{name}_bucket{begun}{comma}le=\"{edge}\"}} {count}");
            }
            let labels = labels.as_str();
            let _ = writeln!(self.text, "{name}_sum{labels} {}\n{name}_count{labels} {}", sum.seconds(), sum.count());
        }
    }

    /// Adds gauges with one value for each of many label sets.
    pub fn many_gauges(&mut self, name: &str, help: &str, sets: &Arc<LabelSets>, columns: Vec<SeriesColumn>) {
        let name = self.family(name, "gauge", help);
        self.columns(name, sets, columns);
    }

    /// Adds counters with one value for each of many label sets. The name is given without `_total`.
    pub fn many_counters(&mut self, name: &str, help: &str, sets: &Arc<LabelSets>, columns: Vec<SeriesColumn>) {
        let name = self.counter_family(name, help);
        self.columns(name, sets, columns);
    }

    /// Adds constants with many label sets. The name is given without `_info`.
    pub fn many_infos(&mut self, name: &str, help: &str, sets: &Arc<LabelSets>) {
        let name = self.info_family(name, help);
        let values = vec![Some(1.0); sets.count()];
        self.columns(name, sets, vec![SeriesColumn { labels: "}", values }]);
    }

    /// Adds counters that `write` writes when they are sent. It gets the name. The name is given without `_total`.
    pub fn counters_later<W>(&mut self, name: &str, help: &str, write: W)
    where
        W: FnOnce(&str, &mut MetricPieces<'_>) + Send + 'static,
    {
        let name = self.counter_family(name, help);
        self.later(move |pieces| write(&name, pieces));
    }

    /// Adds constants: facts in labels. The name is given without `_info`.
    pub fn infos(&mut self, name: &str, help: &str, labels: impl IntoIterator<Item = Labels>) {
        let values: Values = labels.into_iter().map(|labels| (labels, 1.0)).collect();
        let name = self.info_family(name, help);
        self.samples(&name, &values);
    }

    /// Writes all of it, in pieces of at most 64 KiB. Ends early if `take` returns `false`.
    pub fn write(self, take: &mut dyn FnMut(Vec<u8>) -> bool) {
        if self.format != Format::Delimited {
            return self.write_text(take);
        }
        let (mut messages, mut is_wanted) = (MetricMessages::default(), true);
        let mut pass_on = |made: Vec<u8>| made.chunks(PIECE).all(|piece| take(piece.to_vec()));
        self.write_text(&mut |text| {
            messages.add(&text);
            is_wanted = pass_on(messages.take());
            is_wanted
        });
        if is_wanted {
            pass_on(messages.finish());
        }
    }

    fn write_text(mut self, take: &mut dyn FnMut(Vec<u8>) -> bool) {
        if self.format == Format::OpenMetrics {
            self.text.extend_from_slice(b"# EOF\n");
        }
        self.parts.push(ExpositionPart::Text(self.text));
        let mut pieces = MetricPieces { piece: Vec::with_capacity(PIECE), take, is_wanted: true };
        for part in self.parts {
            match part {
                ExpositionPart::Text(text) => text.chunks(PIECE).for_each(|text| pieces.text(text)),
                ExpositionPart::Later(write) => write(&mut pieces),
            }
            if !pieces.is_wanted {
                return;
            }
        }
        pieces.flush();
    }

    /// Returns the text.
    #[must_use]
    pub fn finish(self) -> String {
        let mut all = Vec::new();
        self.write(&mut |piece| {
            all.extend_from_slice(&piece);
            true
        });
        String::from_utf8(all).unwrap_or_default()
    }

    fn later(&mut self, write: impl FnOnce(&mut MetricPieces<'_>) + Send + 'static) {
        self.parts.push(ExpositionPart::Text(std::mem::take(&mut self.text)));
        self.parts.push(ExpositionPart::Later(Box::new(write)));
    }

    fn columns(&mut self, name: String, sets: &Arc<LabelSets>, columns: Vec<SeriesColumn>) {
        let sets = sets.clone();
        self.later(move |pieces| {
            for (at, labels) in sets.iter().enumerate() {
                for SeriesColumn { labels: further, values } in &columns {
                    if let Some(Some(value)) = values.get(at) {
                        pieces.sample([&name, labels, further], *value);
                    }
                }
            }
        });
    }

    /// Begins a family of counters, and returns the name of its samples.
    fn counter_family(&mut self, name: &str, help: &str) -> String {
        let sample = format!("{name}_total");
        let family = if self.format == Format::OpenMetrics { name } else { &sample };
        self.family(family, "counter", help);
        with_prefix(&sample)
    }

    /// Begins a family of constants, and returns the name of its samples.
    fn info_family(&mut self, name: &str, help: &str) -> String {
        let sample = format!("{name}_info");
        match self.format {
            Format::Text | Format::Delimited => self.family(&sample, "gauge", help),
            Format::OpenMetrics => self.family(name, "info", help),
        };
        with_prefix(&sample)
    }

    /// Begins a family, and returns its name.
    fn family(&mut self, name: &str, kind: &str, help: &str) -> String {
        let name = with_prefix(name);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        name
    }

    fn samples(&mut self, name: &str, values: &Values) {
        for (labels, value) in values {
            self.text.extend_from_slice(name.as_bytes());
            self.text.extend_from_slice(labels.as_str().as_bytes());
            push_value(&mut self.text, *value);
        }
    }
}

/// The size of a piece, in bytes.
const PIECE: usize = 64 * 1024;
/// The most bytes of a value with its line.
const VALUE: usize = 400;

/// The text in the making: it goes away piece by piece.
pub struct MetricPieces<'t> {
    piece: Vec<u8>,
    take: &'t mut dyn FnMut(Vec<u8>) -> bool,
    /// `false` once nobody takes pieces any more.
    is_wanted: bool,
}

impl MetricPieces<'_> {
    /// Adds a sample. Its name and labels are given in three parts, which are escaped already.
    pub fn sample(&mut self, series: [&str; 3], value: f64) {
        self.series(series);
        push_value(&mut self.piece, value);
    }

    /// Adds a sample of a counter in the same way.
    pub fn count(&mut self, series: [&str; 3], value: u64) {
        self.series(series);
        push_count(&mut self.piece, value);
    }

    fn series(&mut self, series: [&str; 3]) {
        let parts = series.map(str::as_bytes);
        if self.piece.len() + parts.iter().map(|part| part.len()).sum::<usize>() + VALUE > PIECE {
            self.flush();
        }
        parts.iter().for_each(|part| self.piece.extend_from_slice(part));
    }

    fn text(&mut self, text: &[u8]) {
        if self.piece.len() + text.len() > PIECE {
            self.flush();
        }
        self.piece.extend_from_slice(text);
    }

    fn flush(&mut self) {
        if !self.piece.is_empty() {
            let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
            self.is_wanted = self.is_wanted && (self.take)(piece);
        }
    }
}

/// Writes a value behind its series, and ends the line.
fn push_value(out: &mut Vec<u8>, value: f64) {
    /// Whole numbers below this have one form only.
    const WHOLE: f64 = 9e15;
    // Most values are one of these, and formatting a float takes longer than the rest of the line.
    if value == 0.0 {
        out.extend_from_slice(b" 0\n");
    } else if value == 1.0 {
        out.extend_from_slice(b" 1\n");
    } else if value > 0.0 && value < WHOLE && value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole, positive and small")]
        push_count(out, value as u64);
    } else {
        let _ = writeln!(out, " {value}");
    }
}

fn push_count(out: &mut Vec<u8>, value: u64) {
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.push(b'\n');
}

fn with_prefix(name: &str) -> String {
    let prefix = if name.starts_with(SHARED) { "" } else { PREFIX };
    format!("{prefix}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_negotiated() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let native = format!("application/vnd.google.protobuf;proto={MESSAGE};encoding=delimited,{prometheus}");
        assert_eq!(Format::of(&native), Format::Delimited);
        for (accept, delimited) in [
            ("application/vnd.google.protobuf; proto=\"io.prometheus.client.MetricFamily\"; encoding=delimited", true),
            ("application/vnd.google.protobuf;encoding=delimited", true),
            ("application/vnd.google.protobuf;proto=other;encoding=delimited", false),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", false),
            ("application/vnd.google.protobuf", false),
            ("application/vnd.google.protobuf;encoding=delimited;q=0.4,text/plain;q=0.5", false),
            ("application/vnd.google.protobuf;encoding=delimited;q=0", false),
        ] {
            assert_eq!(Format::of(accept) == Format::Delimited, delimited, "{accept}");
        }
        for (accept, open) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", true),
            ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.5", false),
            ("application/openmetrics-text;version=1.0.0;q=0", false),
            ("application/openmetrics-text;version=2.0.0", false),
            ("application/openmetrics-text;q=x", false),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
            (",;=,;;q=", false),
        ] {
            assert_eq!(Format::of(accept) == Format::OpenMetrics, open, "{accept}");
        }
    }

    #[test]
    fn both_formats() {
        let write = |format| {
            let mut metrics = Exposition::new(format);
            metrics.counter("requests", "Requests.", 7);
            metrics.gauges("left_ratio", "Left.", &vec![(Labels::new(&[("site", "a\"\\\n"), ("pin", "x")]), 0.25)]);
            metrics.infos("build", "This build.", [Labels::new(&[("version", "1")])]);
            metrics.gauge("process_open_fds", "Open.", 3.0);
            metrics.finish()
        };
        let samples = "pintle_left_ratio{site=\"a\\\"\\\\\\n\",pin=\"x\"} 0.25\n";
        assert_eq!(
            write(Format::Text),
            format!(
                "# HELP pintle_requests_total Requests.\n# TYPE pintle_requests_total counter\npintle_requests_total 7\n\
                 # HELP pintle_left_ratio Left.\n# TYPE pintle_left_ratio gauge\n{samples}\
                 # HELP pintle_build_info This build.\n# TYPE pintle_build_info gauge\npintle_build_info{{version=\"1\"}} 1\n\
                 # HELP process_open_fds Open.\n# TYPE process_open_fds gauge\nprocess_open_fds 3\n"
            )
        );
        assert_eq!(
            write(Format::OpenMetrics),
            format!(
                "# HELP pintle_requests Requests.\n# TYPE pintle_requests counter\npintle_requests_total 7\n\
                 # HELP pintle_left_ratio Left.\n# TYPE pintle_left_ratio gauge\n{samples}\
                 # HELP pintle_build This build.\n# TYPE pintle_build info\npintle_build_info{{version=\"1\"}} 1\n\
                 # HELP process_open_fds Open.\n# TYPE process_open_fds gauge\nprocess_open_fds 3\n# EOF\n"
            )
        );
    }
}
