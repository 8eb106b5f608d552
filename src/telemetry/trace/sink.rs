//! The queue of spans from the workers to the thread that sends them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::span::{SpanEntry, push_spans};

/// A batch is handed over at this size, in bytes, or when the worker is idle.
const BATCH: usize = 16 * 1024;
/// Batches that may wait, however small they are.
const BATCHES_MAX: usize = 16 * 1024;

/// Spans of one worker, encoded as fields of an OTLP message.
#[derive(Debug, Default)]
pub struct SpanBatch {
    /// The fields, one behind the other.
    pub bytes: Vec<u8>,
    /// The number of spans.
    pub count: u64,
}

/// Counters of the thread that sends.
#[derive(Debug, Default)]
pub struct SpanCounters {
    /// Spans that a collector has taken.
    pub sent: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
}

/// Takes spans of the workers; never waits.
#[derive(Debug, Clone)]
pub struct SpanSink {
    queue: mpsc::Sender<SpanBatch>,
    waiting: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

thread_local! {
    static BATCHED: RefCell<(SpanBatch, Option<SpanSink>)> = const {
        RefCell::new((SpanBatch { bytes: Vec::new(), count: 0 }, None))
    };
}

/// Creates the queue. It takes nothing before [`SpanSink::limit`] has set its size.
#[must_use]
pub fn channel() -> (SpanSink, mpsc::Receiver<SpanBatch>) {
    let (queue, batches) = mpsc::channel(BATCHES_MAX);
    (SpanSink { queue, waiting: Arc::default(), most: Arc::default(), dropped: Arc::default() }, batches)
}

impl SpanSink {
    /// Adds the spans of a request.
    pub fn add(&self, entry: &SpanEntry<'_>) {
        BATCHED.with_borrow_mut(|(batch, sink)| {
            sink.get_or_insert_with(|| self.clone());
            batch.count += push_spans(entry, &mut batch.bytes);
            if batch.bytes.len() >= BATCH {
                self.send(std::mem::take(batch));
            }
        });
    }

    /// Hands over the spans that this thread has collected. Call it when the thread is idle.
    pub fn flush_thread() {
        BATCHED.with_borrow_mut(|(batch, sink)| {
            if let (1.., Some(sink)) = (batch.count, sink) {
                sink.send(std::mem::take(batch));
            }
        });
    }

    /// Hands a batch over. If too many bytes wait, its spans are dropped.
    fn send(&self, batch: SpanBatch) {
        let (size, count) = (batch.bytes.len(), batch.count);
        let waiting = self.waiting.fetch_add(size, Ordering::Relaxed).saturating_add(size);
        if waiting > self.most.load(Ordering::Relaxed) || self.queue.try_send(batch).is_err() {
            self.taken(size);
            self.lost(count);
        }
    }

    /// Sets the most bytes that wait.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Notes bytes that wait no longer.
    pub fn taken(&self, size: usize) {
        self.waiting.fetch_sub(size, Ordering::Relaxed);
    }

    /// Counts spans that were given up.
    pub fn lost(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// Spans that were given up since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (sink, mut batches) = channel();
        let batch = |size: usize| SpanBatch { bytes: vec![0; size], count: 2 };
        sink.send(batch(1));
        assert_eq!(sink.dropped(), 2, "nobody has set its size");
        sink.limit(10);
        sink.send(batch(6));
        sink.send(batch(5));
        assert_eq!(sink.dropped(), 4);
        sink.taken(batches.try_recv().unwrap().bytes.len());
        sink.send(batch(10));
        assert_eq!((sink.dropped(), batches.try_recv().unwrap().bytes.len()), (4, 10));
    }
}
