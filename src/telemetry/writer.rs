//! The thread that writes logs: a slow disk or a full pipe holds up nobody else.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::Instant;

/// Batches that may wait for the disk; what comes on top is dropped and counted.
const QUEUE: usize = 1024;
/// How often a file that could not be reopened is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long whoever has a log reopened waits for what comes of it.
const PATIENCE: Duration = Duration::from_secs(2);

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

    fn name(&self) -> String {
        match self {
            Self::Stdout => "standard output".into(),
            Self::Stderr => "standard error".into(),
            Self::File(path, _) => path.display().to_string(),
        }
    }
}

/// Why a log is not written as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTrouble {
    /// The log, and what fails.
    pub what: String,
    /// The remedy.
    pub hint: &'static str,
}

/// How far a log's thread has come.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// How many requests to reopen it have been carried out, in vain or not.
    reopened: u64,
    trouble: Option<LogTrouble>,
}

/// Writes one log; dropped, it writes what waits, and ends.
pub struct LogThread {
    sink: Option<LogSink>,
    thread: Option<JoinHandle<()>>,
    /// How many times it was asked to reopen its file.
    asked: Arc<AtomicU64>,
    /// The last of these that was not carried out in time.
    late: Arc<AtomicU64>,
    progress: watch::Receiver<Progress>,
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
            Ok(()) => {}
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => {
                self.lost.fetch_add(lines(&batch), Ordering::Relaxed);
            }
        }
    }
}

fn lines(batch: &[u8]) -> u64 {
    batch.iter().filter(|b| **b == b'\n').count() as u64
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
        Self::start(Target::File(path.to_owned(), open_log(path)?))
    }

    /// Reopens a file, which may have been moved away (logrotate). The thread does it whether the future is polled or not;
    /// the future returns why it could not. A file that cannot be reopened is tried again every second.
    pub fn reopen(&self) -> impl Future<Output = Option<LogTrouble>> + use<> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(sink) = &self.sink {
            // If the queue is full, the thread sees the number with the next batch.
            sink.send(WAKE.to_vec());
        }
        let (mut progress, late) = (self.progress.clone(), self.late.clone());
        async move {
            let in_time = tokio::time::timeout(PATIENCE, progress.wait_for(|p| p.reopened >= number)).await.is_ok();
            // If the thread has ended, what it said last holds.
            let trouble = progress.borrow().trouble.clone();
            if !in_time {
                late.fetch_max(number, Ordering::Relaxed);
            }
            trouble.or_else(|| (!in_time).then(not_in_time))
        }
    }

    /// Why the log is not written as it should be at present.
    #[must_use]
    pub fn trouble(&self) -> Option<LogTrouble> {
        let progress = self.progress.borrow();
        let is_late = self.late.load(Ordering::Relaxed) > progress.reopened;
        progress.trouble.clone().or_else(|| is_late.then(not_in_time))
    }

    /// Lines that were lost since the start: the log was written too slowly, or not at all.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.lost.load(Ordering::Relaxed))
    }

    fn start(target: Target) -> io::Result<Self> {
        let (queue, batches) = sync_channel::<Vec<u8>>(QUEUE);
        let (lost, asked) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (published, progress) = watch::channel(Progress::default());
        let sink = LogSink { queue, lost: lost.clone() };
        let writer = Writer {
            target,
            lost,
            told: 0,
            asked: asked.clone(),
            reopened: 0,
            not_reopened: None,
            tried: Instant::now(),
            not_written: None,
            published,
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writer.run(&batches))?;
        Ok(Self { sink: Some(sink), thread: Some(thread), asked, late: Arc::default(), progress })
    }

    /// Where to hand lines to.
    #[must_use]
    pub fn sink(&self) -> Option<LogSink> {
        self.sink.clone()
    }
}

/// The thread's own state.
struct Writer {
    target: Target,
    lost: Arc<AtomicU64>,
    /// Lost lines that were reported.
    told: u64,
    asked: Arc<AtomicU64>,
    reopened: u64,
    not_reopened: Option<io::Error>,
    /// When the file was last tried to be reopened.
    tried: Instant,
    not_written: Option<io::Error>,
    published: watch::Sender<Progress>,
}

impl Writer {
    fn run(mut self, batches: &Receiver<Vec<u8>>) {
        loop {
            let wait = if self.not_reopened.is_some() { RETRY } else { Duration::MAX };
            let batch = match batches.recv_timeout(wait) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => WAKE.to_vec(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let asked = self.asked.load(Ordering::Relaxed);
            if asked > self.reopened || self.not_reopened.is_some() && self.tried.elapsed() >= RETRY {
                self.reopen();
                self.reopened = asked;
                self.publish();
            }
            if batch == END {
                return;
            }
            if batch != WAKE && !self.write(&batch) {
                return;
            }
        }
    }

    /// Writes a batch. Returns false if there is no use in trying again.
    fn write(&mut self, batch: &[u8]) -> bool {
        let written = self.target.write(batch);
        if let Err(error) = written {
            self.lost.fetch_add(lines(batch), Ordering::Relaxed);
            // A log that cannot be written must not end the service.
            if self.not_written.is_none() {
                self.not_written = Some(error);
                self.publish();
            }
            return !matches!(self.target, Target::Stdout);
        }
        if self.not_written.take().is_some() {
            self.publish();
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.told {
            let _ = writeln!(
                io::stderr(),
                "pintle: {} log lines were lost: the log is written too slowly, or could not be written",
                lost - self.told
            );
            self.told = lost;
        }
        true
    }

    fn reopen(&mut self) {
        self.tried = Instant::now();
        let Target::File(path, file) = &mut self.target else { return };
        match open_log(path) {
            Ok(opened) => {
                *file = opened;
                self.not_reopened = None;
            }
            // The old file is better than none.
            Err(error) => self.not_reopened = Some(error),
        }
    }

    /// Lets others know how it stands, and the operator whether that has changed.
    fn publish(&self) {
        let trouble = self.trouble();
        let before = self.published.send_replace(Progress { reopened: self.reopened, trouble: trouble.clone() });
        // The operator's own log has nowhere else to say it.
        if before.trouble == trouble || matches!(self.target, Target::Stderr) {
            return;
        }
        match trouble {
            Some(LogTrouble { what, hint }) => tracing::error!(what, hint, "access log"),
            None => tracing::info!(file = self.target.name(), "access log: written as it should be again"),
        }
    }

    fn trouble(&self) -> Option<LogTrouble> {
        let name = self.target.name();
        if let Some(error) = &self.not_reopened {
            let what = format!(
                "log.access: {name} cannot be reopened ({error}): lines go on into the file that was open before"
            );
            return Some(LogTrouble { what, hint: remedy(error) });
        }
        let error = self.not_written.as_ref()?;
        Some(LogTrouble {
            what: format!("log.access: {name} cannot be written ({error}): lines are lost"),
            hint: remedy(error),
        })
    }
}

fn not_in_time() -> LogTrouble {
    LogTrouble {
        what: format!("log.access: the file was not reopened within {PATIENCE:?}"),
        hint: "its disk does not answer; look at the disk, then at `pintle status`",
    }
}

/// What helps against an error.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::InvalidInput => {
            "a FIFO, a socket or a disk has this name: move it away, and a file is made in its place"
        }
        io::ErrorKind::NotFound => "make its folder again, for the user that serves; pintle tries again every second",
        io::ErrorKind::PermissionDenied => {
            "let the user that serves write in its folder; a folder that was made after the start is outside the sandbox: \
             `pintle upgrade`, or a restart, takes it in"
        }
        io::ErrorKind::IsADirectory => "a folder has this name: move it away; pintle tries again every second",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on its disk",
        io::ErrorKind::BrokenPipe => "whoever read standard output has ended: restart pintle, or name a file",
        _ => "see what is wrong with its disk; pintle tries again",
    }
}

/// No batch of lines is this.
const END: &[u8] = b"";
/// Neither is this: it makes the thread look at what it was asked for.
const WAKE: &[u8] = b"\0";

/// Opens a log's file, which is made if need be: a regular file, or a character device such as `/dev/null`. Whoever is at
/// the other end of a FIFO is not waited for.
///
/// # Errors
///
/// If it cannot be opened for writing, or is something else.
pub fn open_log(path: &Path) -> io::Result<File> {
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    // Clients' addresses are for the operator's group at most.
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(nonblock).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        // A FIFO that nobody reads, or a socket.
        Some(number) if number == Errno::NXIO.raw_os_error() => no_file(),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(no_file());
    }
    // A terminal takes its time, and is given it.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")
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
