//! The queue of batches for the log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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

impl LogMessage {
    /// The memory that it takes while it waits, in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Lines(batch) | Self::Records(batch) | Self::Copies(batch) => batch.bytes.capacity(),
            Self::Wake | Self::End => 0,
        }
    }
}

/// The bytes that wait for the thread, and the most of them.
#[derive(Debug)]
pub(super) struct WaitingBytes {
    bytes: AtomicUsize,
    most: AtomicUsize,
}

impl WaitingBytes {
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), most: AtomicUsize::new(most) }
    }

    /// Sets the most bytes. What waits already stays.
    pub(super) fn bound(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Adds a message, if there is room for it.
    fn add(&self, size: usize) -> bool {
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        let fits = size == 0 || before.saturating_add(size) <= self.most.load(Ordering::Relaxed);
        if !fits {
            self.remove(size);
        }
        fits
    }

    /// Removes a message that waits no longer.
    pub(super) fn remove(&self, size: usize) {
        self.bytes.fetch_sub(size, Ordering::Relaxed);
    }
}

/// Sends batches of lines; never waits.
#[derive(Debug, Clone)]
pub struct LogSink {
    pub(super) queue: SyncSender<LogMessage>,
    pub(super) waiting: Arc<WaitingBytes>,
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
        let size = message.size();
        if !self.waiting.add(size) {
            return self.lose(&message);
        }
        if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.queue.try_send(message) {
            self.waiting.remove(size);
            self.lose(&message);
        }
    }

    fn lose(&self, message: &LogMessage) {
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

    /// Bytes count, not messages: what waits has a bound, and what is beyond it is counted line by line.
    #[test]
    fn bytes_that_wait_are_bounded() {
        let (queue, messages) = sync_channel(8);
        let (waiting, lost) = (Arc::new(WaitingBytes::new(250)), Arc::<AtomicU64>::default());
        let sink = LogSink { queue, waiting: waiting.clone(), lost: lost.clone(), events: false, keeps: false };
        let batch = || {
            let mut bytes = Vec::with_capacity(100);
            bytes.extend_from_slice(b"one\ntwo\n");
            LogBatch::from(bytes)
        };
        (0..4).for_each(|_| sink.send_lines(batch()));
        assert_eq!((messages.try_iter().count(), lost.load(Ordering::Relaxed)), (2, 4));
        // Nobody has said yet that they were taken. A wake needs no room.
        sink.send_copies(batch());
        sink.try_send(LogMessage::Wake);
        assert!(matches!(messages.try_recv(), Ok(LogMessage::Wake)));
        waiting.remove(200);
        sink.send_lines(batch());
        assert_eq!((messages.try_iter().count(), lost.load(Ordering::Relaxed)), (1, 4));
        waiting.bound(100);
        sink.send_lines(batch());
        assert_eq!((messages.try_iter().count(), lost.load(Ordering::Relaxed)), (0, 6));
        // Full of messages.
        waiting.bound(1 << 20);
        (0..9).for_each(|_| sink.send_lines(batch()));
        assert_eq!((messages.try_iter().count(), lost.load(Ordering::Relaxed)), (8, 8));
        assert_eq!(waiting.bytes.load(Ordering::Relaxed), 900);
    }

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
