//! The thread that writes logs, so that a slow disk or a full pipe blocks nobody else.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::journal::Journal;
use super::log_file::{open_log, remedy};
use super::log_target::LogTarget;
use super::recent::RecentRecords;
use super::sink::{LogBatch, LogMessage, LogSink, WaitingBytes, lines};
use super::syslog::Syslog;
use crate::os::words::words;
use crate::reason::Reason;

/// Batches that may wait for the disk, of 140 KiB each at most; further ones are dropped and counted. `limits.log_queue`
/// bounds their bytes.
const QUEUE: usize = 512;
/// The bytes of batches that may wait if nobody sets another bound.
const QUEUE_BYTES: usize = 16 << 20;
/// The time between two attempts to reopen a file.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time that a caller waits for the result of reopening.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of a log's thread.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// The number of requests to reopen the file that were carried out, successful or not.
    reopened: u64,
    /// The number of attempts to reopen it that failed.
    failures: u64,
    trouble: Option<Reason>,
}

/// Writes one log. When dropped, it writes the waiting lines and ends.
pub struct LogThread {
    sink: Option<LogSink>,
    thread: Option<JoinHandle<()>>,
    /// The number of requests to reopen the file.
    asked: Arc<AtomicU64>,
    /// The last such request that timed out.
    late: Arc<AtomicU64>,
    progress: watch::Receiver<Progress>,
    recent: Option<Arc<RecentRecords>>,
}

impl LogThread {
    /// Starts a log on standard output.
    ///
    /// # Errors
    ///
    /// If no more threads can be created.
    pub fn stdout(recent: Option<RecentRecords>) -> io::Result<Self> {
        Self::start(LogTarget::Stdout, recent)
    }

    /// Starts a log that nobody reads, for its recent records.
    ///
    /// # Errors
    ///
    /// If no more threads can be created.
    pub fn nowhere(recent: RecentRecords) -> io::Result<Self> {
        Self::start(LogTarget::Nowhere, Some(recent))
    }

    /// Starts a log on standard error.
    ///
    /// # Errors
    ///
    /// If no more threads can be created.
    pub fn stderr() -> io::Result<Self> {
        Self::start(LogTarget::Stderr, None)
    }

    /// Starts a log in the journal.
    ///
    /// # Errors
    ///
    /// If no more threads can be created.
    pub(super) fn journal(journal: Journal) -> io::Result<Self> {
        Self::start(LogTarget::Journal(journal), None)
    }

    /// Starts a log that sends each line to syslog.
    ///
    /// # Errors
    ///
    /// If no more threads can be created.
    pub fn syslog(syslog: Syslog, recent: Option<RecentRecords>) -> io::Result<Self> {
        Self::start(LogTarget::Syslog(syslog), recent)
    }

    /// Starts a log that appends to a file, and creates it if needed.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for writing.
    pub fn file(path: &Path, recent: Option<RecentRecords>) -> io::Result<Self> {
        Self::start(LogTarget::File(path.to_owned(), open_log(path)?), recent)
    }

    /// Reopens the file, which may have been moved away (logrotate). The thread does so whether the
    /// future is polled or not; the future returns the fault, if any. The thread retries every
    /// second until it succeeds.
    pub fn reopen(&self) -> impl Future<Output = Option<Reason>> + use<> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(sink) = &self.sink {
            // If the queue is full, the thread sees the number with the next batch.
            sink.try_send(LogMessage::Wake);
        }
        let (mut progress, late) = (self.progress.clone(), self.late.clone());
        async move {
            let in_time = tokio::time::timeout(PATIENCE, progress.wait_for(|p| p.reopened >= number)).await.is_ok();
            // If the thread has ended, its last report holds.
            let trouble = progress.borrow().trouble.clone();
            if !in_time {
                late.fetch_max(number, Ordering::Relaxed);
            }
            trouble.or_else(|| (!in_time).then(not_in_time))
        }
    }

    /// The log's present fault, if any.
    #[must_use]
    pub fn trouble(&self) -> Option<Reason> {
        let progress = self.progress.borrow();
        let is_late = self.late.load(Ordering::Relaxed) > progress.reopened;
        progress.trouble.clone().or_else(|| is_late.then(not_in_time))
    }

    /// Lines lost since the start: the log was too slow, or could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.lost.load(Ordering::Relaxed))
    }

    /// The number of failed attempts to reopen the file.
    #[must_use]
    pub fn reopen_failures(&self) -> u64 {
        self.progress.borrow().failures
    }

    fn start(target: LogTarget, recent: Option<RecentRecords>) -> io::Result<Self> {
        let recent = recent.map(Arc::new);
        let (queue, messages) = sync_channel(QUEUE);
        let (lost, asked) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (published, progress) = watch::channel(Progress::default());
        let events = matches!(target, LogTarget::Journal(_));
        let waiting = Arc::new(WaitingBytes::new(QUEUE_BYTES));
        let sink = LogSink { queue, waiting: waiting.clone(), lost: lost.clone(), events, keeps: recent.is_some() };
        let writer = Writer {
            target,
            recent: recent.clone(),
            waiting,
            lost,
            reported_lost: 0,
            asked: asked.clone(),
            reopened: 0,
            failures: 0,
            not_reopened: None,
            tried: Instant::now(),
            not_written: None,
            torn: Vec::new(),
            published,
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&messages))?;
        Ok(Self { sink: Some(sink), thread: Some(thread), asked, late: Arc::default(), progress, recent })
    }

    /// Bounds the bytes that may wait to be written.
    pub fn bound(&self, bytes: usize) {
        if let Some(sink) = &self.sink {
            sink.waiting.bound(bytes);
        }
    }

    /// The recent records, if they are kept.
    #[must_use]
    pub fn recent(&self) -> Option<Arc<RecentRecords>> {
        self.recent.clone()
    }

    /// A sender for lines.
    #[must_use]
    pub fn sink(&self) -> Option<LogSink> {
        self.sink.clone()
    }
}

/// The thread's state.
struct Writer {
    target: LogTarget,
    recent: Option<Arc<RecentRecords>>,
    waiting: Arc<WaitingBytes>,
    lost: Arc<AtomicU64>,
    /// Lost lines that were already reported.
    reported_lost: u64,
    asked: Arc<AtomicU64>,
    reopened: u64,
    failures: u64,
    not_reopened: Option<io::Error>,
    /// The time of the last attempt to reopen the file.
    tried: Instant,
    not_written: Option<io::Error>,
    /// The rest of a line that was written in part, as the disk became full. It comes first once there is space.
    torn: Vec<u8>,
    published: watch::Sender<Progress>,
}

impl Writer {
    fn run(mut self, messages: &Receiver<LogMessage>) {
        loop {
            let wait = if self.not_reopened.is_some() { RETRY } else { Duration::MAX };
            let message = match messages.recv_timeout(wait) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => LogMessage::Wake,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.waiting.remove(message.size());
            let asked = self.asked.load(Ordering::Relaxed);
            if asked > self.reopened || self.not_reopened.is_some() && self.tried.elapsed() >= RETRY {
                self.reopen();
                self.reopened = asked;
                self.publish();
            }
            let can_write = match message {
                LogMessage::Wake => continue,
                LogMessage::End => return,
                LogMessage::Copies(records) => {
                    self.keep(records);
                    continue;
                }
                LogMessage::Records(records) => {
                    let records = self.keep(records);
                    self.write(&records.bytes)
                }
                LogMessage::Lines(batch) => self.write(&batch.bytes),
            };
            // Even if nobody can read the log, its recent records serve.
            if !can_write && self.recent.is_none() {
                return;
            }
        }
    }

    /// Adds a batch to the recent records, if they are kept.
    fn keep(&self, records: LogBatch) -> Arc<LogBatch> {
        let records = Arc::new(records);
        if let Some(recent) = &self.recent {
            recent.add(records.clone());
        }
        records
    }

    /// Writes a batch. Returns `false` if further attempts are useless.
    fn write(&mut self, batch: &[u8]) -> bool {
        if let Err(error) = self.write_lines(batch) {
            // An unwritable log must not end the service.
            if self.not_written.is_none() {
                self.not_written = Some(error);
                self.publish();
            }
            return !matches!(self.target, LogTarget::Stdout);
        }
        if self.not_written.take().is_some() {
            self.publish();
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.reported_lost {
            let (log, lines) = (self.target.name(), lost - self.reported_lost);
            tracing::warn!(log, lines, "log lines lost: it is written too slowly, or could not be written");
            self.reported_lost = lost;
        }
        true
    }

    /// Writes whole lines. Counts lost lines. A line that was begun is completed with a later batch.
    fn write_lines(&mut self, batch: &[u8]) -> io::Result<()> {
        if let LogTarget::Syslog(syslog) = &mut self.target {
            let (lost, result) = syslog.send_lines(batch);
            self.lost.fetch_add(lost, Ordering::Relaxed);
            return result;
        }
        if let LogTarget::Journal(journal) = &self.target {
            return journal.send(batch).inspect_err(|_| {
                self.lost.fetch_add(1, Ordering::Relaxed);
            });
        }
        let (written, result) = self.target.write(&self.torn);
        self.torn.drain(..written);
        if let Err(error) = result {
            self.lost.fetch_add(lines(batch), Ordering::Relaxed);
            return Err(error);
        }
        let (written, result) = self.target.write(batch);
        let (done, rest) = batch.split_at_checked(written).unwrap_or((batch, &[]));
        if result.is_err() {
            let is_begun = done.last().is_some_and(|last| *last != b'\n');
            let end = rest.iter().position(|b| *b == b'\n').filter(|_| is_begun).map_or(0, |end| end + 1);
            self.torn = rest[..end].to_vec();
            self.lost.fetch_add(lines(&rest[end..]), Ordering::Relaxed);
        }
        result
    }

    /// Completes a line that was begun in the file that is about to be closed. If that is impossible, the line is lost.
    fn complete(&mut self) {
        let (written, result) = self.target.write(&self.torn);
        if result.is_err() && written < self.torn.len() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.torn.clear();
    }

    fn reopen(&mut self) {
        self.tried = Instant::now();
        if let LogTarget::Syslog(syslog) = &mut self.target {
            syslog.reopen();
        }
        let LogTarget::File(path, _) = &self.target else { return };
        let opened = open_log(path);
        if opened.is_ok() {
            self.complete();
        }
        let LogTarget::File(_, file) = &mut self.target else { return };
        match opened {
            Ok(opened) => {
                *file = opened;
                self.not_reopened = None;
            }
            // The old file is better than none.
            Err(error) => {
                self.failures += 1;
                self.not_reopened = Some(error);
            }
        }
    }

    /// Publishes the state, and logs a change of it.
    fn publish(&self) {
        let trouble = self.trouble();
        let before = self.published.send_replace(Progress {
            reopened: self.reopened,
            failures: self.failures,
            trouble: trouble.clone(),
        });
        // The operator's own log has no other place to report its faults.
        let is_own = match &self.target {
            LogTarget::Stderr | LogTarget::Journal(_) => true,
            LogTarget::Syslog(syslog) => syslog.is_operators(),
            LogTarget::Stdout | LogTarget::File(..) | LogTarget::Nowhere => false,
        };
        if before.trouble == trouble || is_own {
            return;
        }
        match trouble {
            Some(fault) => tracing::error!(what = fault.what, hint = fault.hint_line(), "access log"),
            None => tracing::info!(file = self.target.name(), "access log recovered"),
        }
    }

    fn trouble(&self) -> Option<Reason> {
        let name = self.target.name();
        if let Some(error) = &self.not_reopened {
            let what = format!(
                "log.access: cannot reopen {name} ({}): lines continue into the previously opened file",
                words(error)
            );
            return Some(Reason::new(what).hint(remedy(error)));
        }
        let error = self.not_written.as_ref()?;
        let remedy = match &self.target {
            LogTarget::Syslog(_) => {
                "start the syslog daemon, or look why it reads nothing; pintle tries with each line"
            }
            _ => remedy(error),
        };
        Some(Reason::new(format!("log.access: cannot write {name} ({}): lines are lost", words(error))).hint(remedy))
    }
}

fn not_in_time() -> Reason {
    Reason::new(format!("log.access: the file was not reopened within {PATIENCE:?}"))
        .hint("its disk does not answer; check the disk, then `pintle status`")
}

impl Drop for LogThread {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            // Queued behind all waiting batches; blocks as long as the disk does.
            let _ = sink.queue.send(LogMessage::End);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
