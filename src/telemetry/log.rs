//! The operator's log: text or JSON on standard error, written by a thread of its own.

use std::fmt::Write as _;
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
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(Lines { sink, format, color });
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
struct Lines {
    sink: LogSink,
    format: LogFormat,
    color: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { text: Vec::with_capacity(160), lines: self.clone() }
    }
}

/// One line, sent when it is complete.
struct Line {
    text: Vec<u8>,
    lines: Lines,
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
            let Lines { sink, format, color } = &self.lines;
            let text = std::mem::take(&mut self.text);
            sink.send(harmless(text, *format, *color && *format == LogFormat::Text));
        }
    }
}

/// Escapes what could control a terminal, or forge another line: control characters, and those that change the direction
/// of text. With `color`, the formatter's own colours stay.
fn harmless(line: Vec<u8>, format: LogFormat, color: bool) -> Vec<u8> {
    if line.iter().rev().skip(1).all(|b| matches!(b, b' '..=b'~')) {
        return line;
    }
    let text = String::from_utf8_lossy(&line);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let own = if color { sgr(rest) } else { None };
        if let Some(len) = own {
            out.push_str(&rest[..len]);
            rest = &rest[len..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            // JSON knows this form. Such a character can only be in one of its strings.
            c if is_harmful(c) && format == LogFormat::Json => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c if is_harmful(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push_str(end);
    out.into_bytes()
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of an escape sequence that sets a colour, at the beginning of the text. The formatter escapes ESC in values.
fn sgr(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let len = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[len..].starts_with('m').then_some(2 + len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_harmless() {
        let check = |line: &str, format: LogFormat, color: bool, want: &str| {
            assert_eq!(String::from_utf8(harmless(line.as_bytes().to_vec(), format, color)).unwrap(), want);
        };
        let evil = "a\u{1b}[31m\rb\nc\u{9b}d\u{202e}e\u{2066}f\u{7f}\u{e9}\n";
        let escaped = r"a\u{1b}[31m\u{d}b\u{a}c\u{9b}d\u{202e}e\u{2066}f\u{7f}";
        check(evil, LogFormat::Text, false, &format!("{escaped}\u{e9}\n"));
        check("plain\n", LogFormat::Text, false, "plain\n");
        check("\u{1b}[2mdim\u{1b}[0m\u{1b}[2J\n", LogFormat::Text, true, "\u{1b}[2mdim\u{1b}[0m\\u{1b}[2J\n");
        check("{\"a\":\"\u{9b}\u{202e}\"}\n", LogFormat::Json, false, "{\"a\":\"\\u009b\\u202e\"}\n");
    }
}
