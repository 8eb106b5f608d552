//! The operator's log: text or JSON on standard error, or fields in the journal, written by a thread of its own.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::harmless::{harmless, harmless_json};
use super::journal::{self, Journal, ToJournal, ToSyslog};
use super::sink::LogSink;
use super::syslog::Syslog;
use super::writer::LogThread;

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// Messages of syslog, and no line on standard error.
    Syslog,
}

/// The lost lines of the process's log.
static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Lines that the operator's log has lost since the start.
#[must_use]
pub fn lost() -> u64 {
    LOST.get().map_or(0, |lost| lost.load(Ordering::Relaxed))
}

/// Returns `true` if standard error leads to the journal, which takes `<3>` before a line as its
/// severity (sd-daemon(3)).
#[must_use]
pub fn is_in_journal() -> bool {
    journal::is_stderr()
}

/// Starts logging: `tracing` events go to standard error, the journal or syslog until the guard is dropped.
///
/// # Errors
///
/// If no more threads can be created, or there is no syslog.
pub fn start(format: LogFormat, level: Level, color: bool) -> io::Result<LogThread> {
    // JSON is for somebody who asks for it.
    let journal = if format == LogFormat::Text { Journal::of_stderr() } else { None };
    let is_journal = journal.is_some();
    let thread = match journal {
        Some(journal) => LogThread::journal(journal)?,
        None if format == LogFormat::Syslog => LogThread::syslog(Syslog::of_operator()?, None)?,
        None => LogThread::stderr()?,
    };
    if let Some(sink) = thread.sink() {
        // Events of libraries are for their authors. Warnings are about peers, which could fill the log with them.
        let others = if level == Level::TRACE { Level::TRACE } else { Level::ERROR };
        let filter = Targets::new().with_target(env!("CARGO_PKG_NAME"), level).with_default(others);
        let _ = LOST.set(sink.losses());
        let registry = tracing_subscriber::registry().with(filter);
        if is_journal {
            let _ = tracing::subscriber::set_global_default(registry.with(ToJournal(move |event| sink.send(event))));
            return Ok(thread);
        }
        if format == LogFormat::Syslog {
            let _ = tracing::subscriber::set_global_default(registry.with(ToSyslog(move |line| sink.send(line))));
            return Ok(thread);
        }
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(LogLines { sink, format, color });
        // If a process starts twice (tests), the first log stays.
        let _ = match format {
            LogFormat::Text | LogFormat::Syslog => {
                tracing::subscriber::set_global_default(registry.with(layer.with_ansi(color)))
            }
            LogFormat::Json => tracing::subscriber::set_global_default(
                registry.with(layer.with_ansi(false).json().flatten_event(true)),
            ),
        };
    }
    Ok(thread)
}

#[derive(Clone)]
struct LogLines {
    sink: LogSink,
    format: LogFormat,
    color: bool,
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { text: Vec::with_capacity(160), lines: self.clone() }
    }
}

/// One line, sent when it is complete.
struct LogLine {
    text: Vec<u8>,
    lines: LogLines,
}

impl io::Write for LogLine {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            let LogLines { sink, format, color } = &self.lines;
            let text = std::mem::take(&mut self.text);
            let is_text = *format == LogFormat::Text;
            sink.send(if is_text { harmless(text, *color) } else { harmless_json(text) });
        }
    }
}
