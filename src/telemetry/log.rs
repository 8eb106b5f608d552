//! The operator's log: text or JSON on standard error, written by a thread of its own.

use std::io;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::writer::{LogSink, LogThread};

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Starts logging: `tracing` events go to standard error until the guard is dropped.
///
/// # Errors
///
/// If no more threads can be created.
pub fn start(format: LogFormat, level: Level, color: bool) -> io::Result<LogThread> {
    let thread = LogThread::stderr()?;
    if let Some(sink) = thread.sink() {
        // Events of libraries are for their authors.
        let others = if level == Level::TRACE { Level::TRACE } else { Level::WARN };
        let filter = Targets::new().with_target(env!("CARGO_PKG_NAME"), level).with_default(others);
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(Lines(sink));
        let registry = tracing_subscriber::registry().with(filter);
        // If a process starts twice (tests), the first log stays.
        let _ = match format {
            LogFormat::Text => tracing::subscriber::set_global_default(registry.with(layer.with_ansi(color))),
            LogFormat::Json => tracing::subscriber::set_global_default(
                registry.with(layer.with_ansi(false).json().flatten_event(true)),
            ),
        };
    }
    Ok(thread)
}

#[derive(Clone)]
struct Lines(LogSink);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::with_capacity(160), sink: self.0.clone() }
    }
}

/// One line, sent when it is complete.
struct Line {
    text: Vec<u8>,
    sink: LogSink,
}

impl io::Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.sink.send(std::mem::take(&mut self.text));
        }
    }
}
