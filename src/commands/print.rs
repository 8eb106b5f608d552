//! Output to standard output and standard error that survives a closed pipe, as in `pintle status | head -1`.
//!
//! The macros of the standard library panic if a write fails. The macros here have the same names and
//! replace them in all commands: they ignore a closed pipe, so that a command finishes its work and
//! keeps its exit code. [`finish`] reports any other error of standard output.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::reason::{Reason, Severity};
use crate::telemetry::log::LogFormat;

macro_rules! print {
    ($($text:tt)*) => { $crate::commands::print::to_stdout(format_args!($($text)*)) };
}

macro_rules! println {
    () => { print!("\n") };
    ($($text:tt)*) => { print!("{}\n", format_args!($($text)*)) };
}

macro_rules! eprint {
    ($($text:tt)*) => { $crate::commands::print::to_stderr(format_args!($($text)*)) };
}

macro_rules! eprintln {
    () => { eprint!("\n") };
    ($($text:tt)*) => { eprint!("{}\n", format_args!($($text)*)) };
}

/// The first error of standard output, other than a closed pipe.
static FAILED: OnceLock<io::Error> = OnceLock::new();

/// `true` for colours on standard error, in messages that carry no options.
static COLOR: OnceLock<bool> = OnceLock::new();

/// Sets the colours of standard error for the whole command.
pub(crate) fn set_color(color: bool) {
    let _ = COLOR.set(color);
}

/// Returns `true` if messages on standard error are coloured.
pub(crate) fn has_color() -> bool {
    COLOR.get().copied().unwrap_or_default()
}

/// `true` if messages on standard error are JSON, like the log.
static JSON: OnceLock<bool> = OnceLock::new();

/// Sets the format of messages on standard error for the whole command.
pub(crate) fn set_format(format: LogFormat) {
    let _ = JSON.set(format == LogFormat::Json);
}

/// Prints a problem on standard error: as text, or as one line of JSON with the fields of the log.
pub(crate) fn reason(reason: &Reason, severity: Severity) {
    if !has_json() {
        eprintln!("{}", reason.render(severity, has_color()));
        return;
    }
    let mut line = of_log(severity, &reason.what);
    if let Some(place) = &reason.place {
        (line["file"], line["line"], line["column"]) =
            (place.file.clone().into(), place.line.into(), place.column.into());
    }
    if !reason.notes.is_empty() {
        line["notes"] = reason.notes.clone().into();
    }
    if let Some(hint) = reason.hint_line() {
        line["hint"] = hint.into();
    }
    eprintln!("{line}");
}

/// Prints a remark on standard error.
pub(crate) fn note(text: &str) {
    if has_json() {
        eprintln!("{}", of_log(Severity::Warning, text));
    } else {
        eprintln!("{text}");
    }
}

fn has_json() -> bool {
    JSON.get().copied().unwrap_or_default()
}

fn of_log(severity: Severity, message: &str) -> Value {
    let level = match severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARN",
    };
    json!({ "timestamp": format!("{:.6}", Timestamp::now()), "level": level, "message": message })
}

/// Writes to standard output.
pub(crate) fn to_stdout(text: fmt::Arguments<'_>) {
    keep_error(io::stdout().lock().write_fmt(text));
}

/// Writes to standard error. Its errors have no other place to go.
pub(crate) fn to_stderr(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Returns the exit code of a command: its own, or 1 if its output could not be written.
pub(crate) fn finish(code: ExitCode) -> ExitCode {
    keep_error(io::stdout().lock().flush());
    match FAILED.get() {
        None => code,
        Some(error) => {
            eprintln!("pintle: standard output: {error}");
            ExitCode::from(1)
        }
    }
}

fn keep_error(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(error);
    }
}
