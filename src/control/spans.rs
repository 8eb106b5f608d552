//! Spans that go to a collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::Control;
#[cfg(feature = "otlp")]
use crate::otlp::SpanExporter;
use crate::telemetry::exposition::Exposition;
use crate::telemetry::trace::{SpanBatch, SpanCounters, SpanSink, channel};

/// The workers' queue of spans, and the thread that sends them, from the first configuration that wants it.
pub(super) struct Spans {
    pub(super) sink: SpanSink,
    numbers: Arc<SpanCounters>,
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "held, so that the queue stays open"))]
    batches: Option<mpsc::Receiver<SpanBatch>>,
    #[cfg(feature = "otlp")]
    exporter: Option<SpanExporter>,
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
    pub(super) fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(exporter) = self.exporter {
            exporter.finish();
        }
    }
}

impl Control {
    /// Starts, changes or ends the sending of spans. Only the process that serves calls this.
    #[cfg(feature = "otlp")]
    pub(super) fn drive_spans(&mut self) {
        let wanted = self.config.traces.clone();
        let spans = &mut self.operator.spans;
        spans.sink.limit(wanted.as_ref().map_or(0, |settings| settings.queue));
        if let Some(exporter) = &spans.exporter {
            return exporter.set(wanted);
        }
        let Some(settings) = wanted else { return };
        let Some(batches) = spans.batches.take() else { return };
        let servers = self.config.name_servers.clone();
        match SpanExporter::start(settings, (spans.sink.clone(), batches), spans.numbers.clone(), servers) {
            Ok(exporter) => spans.exporter = Some(exporter),
            Err(error) => tracing::error!(%error, "otlp: no thread; no span is sent"),
        }
    }

    /// Does nothing: without the feature, no configuration wants it.
    #[cfg(not(feature = "otlp"))]
    pub(super) fn drive_spans(&mut self) {}

    pub(super) fn span_metrics(&self, metrics: &mut Exposition) {
        let Spans { sink, numbers, .. } = &self.operator.spans;
        for (name, help, value) in [
            ("otlp_spans_sent", "Spans that the collector has taken.", numbers.sent.load(Ordering::Relaxed)),
            ("otlp_spans_dropped", "Spans that were given up.", sink.dropped()),
            ("otlp_failures", "Attempts to send spans that failed.", numbers.failures.load(Ordering::Relaxed)),
        ] {
            metrics.counter(name, help, value);
        }
    }
}
