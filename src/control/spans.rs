//! Spans that go to a collector.

use std::sync::atomic::Ordering;

use super::Control;
use super::state::Spans;
#[cfg(feature = "otlp")]
use crate::otlp::SpanExporter;
use crate::telemetry::exposition::Exposition;

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
