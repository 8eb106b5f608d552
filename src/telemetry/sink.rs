//! The queue of batches for the log's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

/// A message to the thread.
pub(super) enum LogMessage {
    /// Whole lines; for the journal, an event.
    Lines(Vec<u8>),
    /// Lines that are records as JSON.
    Records(Vec<u8>),
    /// Records as JSON that the log has in another format.
    Copies(Vec<u8>),
    /// Look at the requests to reopen the file.
    Wake,
    /// End.
    End,
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
        self.try_send(LogMessage::Lines(batch));
    }

    /// Sends a batch of records as JSON. If the queue is full, the batch is lost.
    pub(super) fn send_records(&self, records: Vec<u8>) {
        self.try_send(LogMessage::Records(records));
    }

    pub(super) fn try_send(&self, message: LogMessage) {
        let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.queue.try_send(message)
        else {
            return;
        };
        if let LogMessage::Lines(batch) | LogMessage::Records(batch) = message {
            self.lost.fetch_add(if self.events { 1 } else { lines(&batch) }, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the thread keeps recent records.
    pub(super) fn keeps_records(&self) -> bool {
        self.keeps
    }

    /// Sends records as JSON that the log has in another format. If the queue is full, nobody can ask for them.
    pub(super) fn send_copies(&self, records: Vec<u8>) {
        self.try_send(LogMessage::Copies(records));
    }
}

/// Counts lines.
pub(super) fn lines(batch: &[u8]) -> u64 {
    batch.iter().filter(|b| **b == b'\n').count() as u64
}
