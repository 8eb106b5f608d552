//! Output to standard output and standard error that survives a closed pipe, as in `pintle status | head -1`.
//!
//! The macros of the standard library panic if a write fails. The macros here have the same names and
//! replace them in all commands: they ignore a closed pipe, so that a command finishes its work and
//! keeps its exit code. [`finish`] reports any other error of standard output.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::os::words::words;
use crate::reason::{Problem, Reason, Severity};
use crate::telemetry::log::{LogFormat, is_in_journal};

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

/// The problems so far of a command with `--json`: the answer of one that fails before it has another.
static UNANSWERED: OnceLock<Mutex<Vec<Problem>>> = OnceLock::new();

/// `true` once something was written to standard output.
static IS_ANSWERED: AtomicBool = AtomicBool::new(false);

/// Makes a failure of this command an answer in JSON, too.
pub(crate) fn answer_in_json() {
    let _ = UNANSWERED.set(Mutex::default());
}

/// The answer of a command that failed without one: the last error, and the problems before it.
fn failure(mut problems: Vec<Problem>) -> Value {
    let last = problems.iter().rposition(|problem| problem.severity == Severity::Error);
    let error = last.map(|at| problems.remove(at)).unwrap_or_default();
    json!({
        "ok": false,
        "error": error.reason.line(),
        "hint": error.reason.hint_line(),
        "hints": error.reason.hints,
        "problems": problems.iter().map(placed_json).collect::<Vec<_>>(),
    })
}

/// A problem with its place, in JSON.
pub(crate) fn placed_json(problem: &Problem) -> Value {
    let Problem { severity, kind, path, site, reason, .. } = problem;
    let place = reason.place.as_ref();
    json!({
        "severity": severity,
        "kind": kind,
        "file": place.map(|place| &place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "message": reason.what,
        "notes": reason.notes,
        "hint": reason.hint_line(),
        "hints": reason.hints,
        "path": path.as_ref().map(|path| path.display().to_string()),
        "site": site,
    })
}

/// Prints a problem on standard error: as text, or as one line of JSON with the fields of the log.
pub(crate) fn reason(reason: &Reason, severity: Severity) {
    if let Some(problems) = UNANSWERED.get() {
        let problem = Problem { severity, ..Problem::from(reason.clone()) };
        problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
    if !has_json() {
        eprintln!("{}", of_stderr(severity, reason.render(severity, has_color())));
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
        eprintln!("{}", of_stderr(Severity::Warning, text.to_owned()));
    }
}

/// A text for standard error. In the journal, each line has its severity: `journalctl -p err` shows why a start failed.
fn of_stderr(severity: Severity, text: String) -> String {
    if !is_in_journal() {
        return text;
    }
    let level = match severity {
        Severity::Error => "<3>",
        Severity::Warning => "<4>",
    };
    text.lines().map(|line| format!("{level}{line}")).collect::<Vec<_>>().join("\n")
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
    IS_ANSWERED.store(true, Ordering::Relaxed);
    keep_error(io::stdout().lock().write_fmt(text));
}

/// Writes to standard error. Its errors have no other place to go.
pub(crate) fn to_stderr(text: fmt::Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Returns the exit code of a command: its own, or 1 if its output could not be written.
///
/// A command with `--json` that failed without an answer gets one: its error.
pub(crate) fn finish(code: ExitCode) -> ExitCode {
    if let Some(problems) = UNANSWERED.get().filter(|_| code != ExitCode::SUCCESS)
        && !IS_ANSWERED.load(Ordering::Relaxed)
    {
        let problems = std::mem::take(&mut *problems.lock().unwrap_or_else(PoisonError::into_inner));
        println!("{:#}", failure(problems));
    }
    keep_error(io::stdout().lock().flush());
    match FAILED.get() {
        None => code,
        Some(error) => {
            reason(&Reason::new(format!("standard output: {}", words(error))), Severity::Error);
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
