//! The thread that writes logs: a slow disk or a full pipe holds up nobody else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Batches that may wait for the disk; what comes on top is dropped and counted.
const QUEUE: usize = 1024;

/// Where a log goes.
enum Target {
    Stdout,
    Stderr,
    File(PathBuf, File),
}

impl Target {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(batch)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(batch),
            Self::File(_, file) => file.write_all(batch),
        }
    }
}

/// Writes one log; dropped, it writes what waits, and ends.
pub struct LogThread {
    sink: Option<LogSink>,
    thread: Option<JoinHandle<()>>,
}

/// Hands batches of lines over; never waits.
#[derive(Debug, Clone)]
pub struct LogSink {
    queue: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

impl LogSink {
    /// Hands a batch over; if the queue is full, it is lost.
    pub fn send(&self, batch: Vec<u8>) {
        match self.queue.try_send(batch) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(batch)) => {
                let lines = batch.iter().filter(|b| **b == b'\n').count();
                self.lost.fetch_add(lines as u64, Ordering::Relaxed);
            }
        }
    }
}

impl LogThread {
    /// To standard output.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn stdout() -> io::Result<Self> {
        Self::start(Target::Stdout)
    }

    /// To standard error.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub fn stderr() -> io::Result<Self> {
        Self::start(Target::Stderr)
    }

    /// To the end of a file, which is made if need be.
    ///
    /// # Errors
    ///
    /// When it cannot be opened for writing.
    pub fn file(path: &Path) -> io::Result<Self> {
        Self::start(Target::File(path.to_owned(), open(path)?))
    }

    /// Opens a file anew, as it may have been moved away (logrotate).
    pub fn reopen(&self) {
        if let Some(sink) = &self.sink {
            sink.send(REOPEN.to_vec());
        }
    }

    fn start(mut target: Target) -> io::Result<Self> {
        let (queue, batches) = sync_channel::<Vec<u8>>(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let sink = LogSink { queue, lost: lost.clone() };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || run(&mut target, &batches, &lost))?;
        Ok(Self { sink: Some(sink), thread: Some(thread) })
    }

    /// Where to hand lines to.
    #[must_use]
    pub fn sink(&self) -> Option<LogSink> {
        self.sink.clone()
    }
}

fn run(target: &mut Target, batches: &Receiver<Vec<u8>>, lost: &AtomicU64) {
    while let Ok(batch) = batches.recv() {
        if batch == REOPEN {
            // If it cannot be opened, the old one is better than none.
            if let Target::File(path, file) = target
                && let Ok(opened) = open(path)
            {
                *file = opened;
            }
            continue;
        }
        // A log that cannot be written must not end the service; there is nowhere left to say so.
        if batch == END || target.write(&batch).is_err() && matches!(target, Target::Stdout) {
            return;
        }
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let _ = writeln!(io::stderr(), "pintle: {lines} log lines were lost: the log is written too slowly");
        }
    }
}

/// No batch of lines is this.
const END: &[u8] = b"";
/// Neither is this.
const REOPEN: &[u8] = b"\0";

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            // Behind all that waits; blocks for as long as the disk takes.
            let _ = sink.queue.send(END.to_vec());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
