//! Traces: the context that requests carry (W3C Trace Context), and spans made from records of requests. The
//! cargo feature `otlp` adds the thread that sends them.

mod context;
mod sink;
mod span;

pub use context::{SpanId, Trace, TraceId, TraceParent, hex, tracestate};
pub use sink::{SpanBatch, SpanCounters, SpanSink, channel};
pub use span::{SpanEntry, push_resource, push_scope};

use std::path::PathBuf;

use http::header::{HeaderName, HeaderValue};

use super::access::Sample;

/// The settings of the collector.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectorSettings {
    /// The URL that takes traces.
    pub url: String,
    /// The roots that are trusted, in DER; `None` for those of browsers.
    pub roots: Option<Vec<Vec<u8>>>,
    /// Their file.
    pub ca: Option<PathBuf>,
    /// The fields of each request. Their values may be keys, and show in no text.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The rules for traces.
    pub rules: TraceRules,
    /// The bytes of spans that wait.
    pub queue: usize,
}

/// The rules of a configuration for traces. A reload replaces them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TraceRules {
    /// The fraction of traces that begin here and are sampled.
    pub sample: Sample,
    /// The peers whose traces continue.
    pub parents: TrustedParents,
}

/// The peers whose traces continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustedParents {
    /// All clients.
    #[default]
    Any,
    /// Trusted proxies.
    Trusted,
    /// None: each request begins a trace.
    None,
}
