//! The queue of batches for the log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use memchr::memchr_iter;

/// The most empty batches that wait for their worker.
const SPARE: usize = 4;

/// A message to the thread.
pub(super) enum LogMessage {
    /// Whole lines; for the journal, an event.
    Lines(LogBatch),
    /// Lines that are records as JSON.
    Records(LogBatch),
    /// Records as JSON that the log has in another format.
    Copies(LogBatch),
    /// Look at the requests to reopen the file.
    Wake,
    /// End.
    End,
}

/// A batch of lines. When dropped, its memory returns to the worker that takes it again.
#[derive(Debug, Default)]
pub(super) struct LogBatch {
    pub(super) bytes: Vec<u8>,
    home: Option<SyncSender<Vec<u8>>>,
}

impl From<Vec<u8>> for LogBatch {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Drop for LogBatch {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            // The worker has enough of them, or has ended.
            let _ = home.try_send(bytes);
        }
    }
}

/// The memory of a worker's batches, which the log's thread returns.
#[derive(Debug)]
pub(super) struct SpareBatches {
    home: SyncSender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
}

impl Default for SpareBatches {
    fn default() -> Self {
        let (home, returned) = sync_channel(SPARE);
        Self { home, returned }
    }
}

impl SpareBatches {
    /// Returns an empty batch with at least this space.
    pub(super) fn take(&self, space: usize) -> Vec<u8> {
        let returned = self.returned.try_recv().ok().filter(|bytes| bytes.capacity() >= space);
        returned.unwrap_or_else(|| Vec::with_capacity(space))
    }

    /// Makes a batch whose memory returns here.
    pub(super) fn batch(&self, bytes: Vec<u8>) -> LogBatch {
        LogBatch { bytes, home: Some(self.home.clone()) }
    }
}

/// Sends batches of lines; never waits.
#[derive(Debug, Clone)]
pub struct LogSink {
    pub(super) queue: SyncSender<LogMessage>,
    pub(super) lost: Arc<AtomicU64>,
    /// Each batch is one event, and not lines.
    pub(super) events: bool,
    /// The thread keeps recent records.
    pub(super) keeps: bool,
}

impl LogSink {
    /// The counter of lost lines.
    pub(super) fn losses(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    /// Sends a batch. If the queue is full, the batch is lost.
    pub fn send(&self, batch: Vec<u8>) {
        self.send_lines(batch.into());
    }

    /// Sends a batch. If the queue is full, the batch is lost.
    pub(super) fn send_lines(&self, batch: LogBatch) {
        self.try_send(LogMessage::Lines(batch));
    }

    /// Sends a batch of records as JSON. If the queue is full, the batch is lost.
    pub(super) fn send_records(&self, records: LogBatch) {
        self.try_send(LogMessage::Records(records));
    }

    pub(super) fn try_send(&self, message: LogMessage) {
        let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.queue.try_send(message)
        else {
            return;
        };
        if let LogMessage::Lines(batch) | LogMessage::Records(batch) = message {
            self.lost.fetch_add(if self.events { 1 } else { lines(&batch.bytes) }, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the thread keeps recent records.
    pub(super) fn keeps_records(&self) -> bool {
        self.keeps
    }

    /// Sends records as JSON that the log has in another format. If the queue is full, nobody can ask for them.
    pub(super) fn send_copies(&self, records: LogBatch) {
        self.try_send(LogMessage::Copies(records));
    }
}

/// Counts lines.
pub(super) fn lines(batch: &[u8]) -> u64 {
    memchr_iter(b'\n', batch).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_returns_to_its_worker() {
        let spare = SpareBatches::default();
        let bytes = spare.take(100);
        let place = bytes.as_ptr();
        let mut batch = spare.batch(bytes);
        batch.bytes.extend_from_slice(b"line\n");
        drop(batch);
        let again = spare.take(100);
        assert_eq!((again.as_ptr(), again.len()), (place, 0), "the same memory, empty");
        drop(spare.batch(again));
        assert!(spare.take(1000).capacity() >= 1000, "memory that is too small is not used");
        for _ in 0..SPARE + 3 {
            drop(spare.batch(Vec::with_capacity(100)));
        }
        assert_eq!(spare.returned.try_iter().count(), SPARE);
        let left = spare.batch(Vec::new());
        drop(spare);
        drop(left);
    }
}
