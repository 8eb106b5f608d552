//! `[metrics]` and `[[hook]]`, as written.

use std::ops::Range;
use std::time::Duration;

use crate::config::problem::At;
use crate::config::reader::Reader;

#[derive(Debug, Default)]
pub(in crate::config) struct MetricsTable {
    pub(in crate::config) graphite: Option<At<String>>,
    pub(in crate::config) graphite_prefix: Option<At<String>>,
    pub(in crate::config) graphite_interval: Option<At<Duration>>,
    pub(in crate::config) otlp: Option<At<String>>,
    pub(in crate::config) otlp_ca: Option<At<String>>,
    pub(in crate::config) otlp_headers: Vec<(At<String>, At<String>)>,
    pub(in crate::config) otlp_sample: Option<At<f64>>,
    pub(in crate::config) otlp_parents: Option<At<String>>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct HookTable {
    pub(in crate::config) span: Range<usize>,
    pub(in crate::config) name: Option<At<String>>,
    pub(in crate::config) events: Option<Vec<At<String>>>,
    pub(in crate::config) url: Option<At<String>>,
    pub(in crate::config) secret_file: Option<At<String>>,
    pub(in crate::config) ca: Option<At<String>>,
    pub(in crate::config) command: Option<At<String>>,
    pub(in crate::config) retry: Option<Vec<At<Duration>>>,
}

impl MetricsTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            graphite: t.text("graphite"),
            graphite_prefix: t.text("graphite_prefix"),
            graphite_interval: t.duration("graphite_interval"),
            otlp: t.text("otlp"),
            otlp_ca: t.text("otlp_ca"),
            otlp_headers: t.pairs("otlp_headers"),
            otlp_sample: t.fraction("otlp_sample"),
            otlp_parents: t.text("otlp_parents"),
        };
        t.finish();
        table
    }
}

impl HookTable {
    pub(super) fn read(t: Reader<'_>) -> Self {
        let table = Self {
            span: t.span.clone(),
            name: t.text("name"),
            events: t.texts("events"),
            url: t.text("url"),
            secret_file: t.text("secret_file"),
            ca: t.text("ca"),
            command: t.text("command"),
            retry: t.durations("retry"),
        };
        t.finish();
        table
    }
}
