//! Metrics as text: Prometheus' format, version 0.0.4, and OpenMetrics 1.0.

use std::fmt::Write as _;

use super::histogram::HistogramSum;

/// The format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an Accept field prefers (RFC 9110 section 12.5.1): OpenMetrics only if it is named.
    #[must_use]
    pub fn of(accept: &str) -> Self {
        let (mut text, mut open) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1.0_f32, true);
            for parameter in parts {
                match parameter.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))) {
                    Some((name, value)) if name.eq_ignore_ascii_case("q") => quality = value.parse().unwrap_or(0.0),
                    Some((name, value)) if name.eq_ignore_ascii_case("version") => {
                        is_known = value == if kind == "text/plain" { "0.0.4" } else { "1.0.0" };
                    }
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = quality.max(open),
                "text/plain" if is_known => text = quality.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The Content-Type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The labels of one series, in braces; empty without labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// Their text, with braces.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Their text with room for further ones: without the last brace.
    #[must_use]
    pub fn begun(&self) -> String {
        self.0.strip_suffix('}').map_or_else(|| "{".to_owned(), |some| format!("{some},"))
    }

    /// Creates them. Values are escaped.
    #[must_use]
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        let mut text = String::with_capacity(64);
        text.push('{');
        for (name, value) in pairs {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(&mut text, value);
            text.push('"');
        }
        text.push('}');
        Self(text)
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// Values of one metric, each with its labels.
pub type Values = Vec<(Labels, f64)>;

/// The samples of a metric with many series.
pub struct Samples<'t> {
    text: &'t mut String,
    name: String,
}

impl Samples<'_> {
    /// Adds one. `labels` stand in braces, and are escaped already.
    pub fn add(&mut self, labels: &[&str], value: u64) {
        self.text.push_str(&self.name);
        labels.iter().for_each(|part| self.text.push_str(part));
        self.text.push(' ');
        self.text.push_str(itoa::Buffer::new().format(value));
        self.text.push('\n');
    }
}

/// The text, metric by metric.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    format: Format,
}

/// The prefix of all names, except those that all programs share.
const PREFIX: &str = "pintle_";
const SHARED: &str = "process_";

impl Exposition {
    /// Begins it.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { text: String::new(), format }
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
        self.family(name, "gauge", help);
        self.samples(name, values);
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
        self.family(name, "histogram", help);
        let name = with_prefix(name);
        for (labels, sum) in values {
            let (begun, labels) = (labels.begun(), labels.as_str());
            for (edge, count) in sum.cumulative() {
                let _ = writeln!(self.text, "{name}_bucket{begun}le=\"{edge}\"}} {count}");
            }
            let _ = writeln!(self.text, "{name}_sum{labels} {}\n{name}_count{labels} {}", sum.seconds(), sum.count());
        }
    }

    /// Begins counters of many series, which the caller adds. The name is given without `_total`.
    pub fn many_counters(&mut self, name: &str, help: &str) -> Samples<'_> {
        let name = with_prefix(&self.counter_family(name, help));
        Samples { text: &mut self.text, name }
    }

    /// Adds constants: facts in labels. The name is given without `_info`.
    pub fn infos(&mut self, name: &str, help: &str, labels: impl IntoIterator<Item = Labels>) {
        let values: Values = labels.into_iter().map(|labels| (labels, 1.0)).collect();
        match self.format {
            Format::Text => self.family(&format!("{name}_info"), "gauge", help),
            Format::OpenMetrics => self.family(name, "info", help),
        }
        self.samples(&format!("{name}_info"), &values);
    }

    /// Returns the text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Begins a family of counters, and returns the name of its samples.
    fn counter_family(&mut self, name: &str, help: &str) -> String {
        let sample = format!("{name}_total");
        let family = if self.format == Format::Text { &sample } else { name };
        self.family(family, "counter", help);
        sample
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = with_prefix(name);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn samples(&mut self, name: &str, values: &Values) {
        let name = with_prefix(name);
        for (Labels(labels), value) in values {
            self.text.push_str(&name);
            self.text.push_str(labels);
            // Most values are one of these, and formatting a float takes longer than the rest of the line.
            let _ = match *value {
                0.0 => self.text.write_str(" 0\n"),
                1.0 => self.text.write_str(" 1\n"),
                value => writeln!(self.text, " {value}"),
            };
        }
    }
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
