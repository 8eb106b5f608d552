//! The queue of spans.

use std::sync::Arc;

use tokio::sync::mpsc;

#[cfg(feature = "otlp")]
use crate::otlp::SpanExporter;
use crate::telemetry::trace::{SpanBatch, SpanCounters, SpanSink, channel};

/// The workers' queue of spans, and the thread that sends them, from the first configuration that wants it.
pub(in crate::control) struct Spans {
    pub(in crate::control) sink: SpanSink,
    pub(in crate::control) numbers: Arc<SpanCounters>,
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "held, so that the queue stays open"))]
    pub(in crate::control) batches: Option<mpsc::Receiver<SpanBatch>>,
    #[cfg(feature = "otlp")]
    pub(in crate::control) exporter: Option<SpanExporter>,
}

impl Default for Spans {
    fn default() -> Self {
        let (sink, batches) = channel();
        Self {
            sink,
            numbers: Arc::default(),
            batches: Some(batches),
            #[cfg(feature = "otlp")]
            exporter: None,
        }
    }
}

impl Spans {
    /// Sends the last spans, once no worker makes any.
    pub(in crate::control) fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.finish();
        }
    }
}
