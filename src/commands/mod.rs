//! What each command does. The only place that prints.

pub mod check;
pub mod demo;
pub mod export;
mod files;
pub mod install;
pub mod key;
pub mod keys;
pub mod ledger;
pub mod pin;
mod probe;
mod reach;
pub mod remote;
pub mod run;
mod step_down;
mod told;
pub mod verify;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use tracing::Level;

use crate::config::{self, Config, Context, Draft, LastGood, Problems, StandIn};
use crate::ledger::time::wall;
use crate::ledger::{Book, Notice};
use crate::telemetry::log::LogFormat;

/// Warnings that are printed at once.
const WARNINGS_MAX: usize = 100;

/// How commands talk.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form of the operator's log.
    pub log_format: LogFormat,
    /// How much of it.
    pub log_level: Level,
    /// Whether in colour.
    pub color: bool,
}

/// Says what went wrong; exit code 1.
pub(crate) fn fail(error: &dyn fmt::Display) -> ExitCode {
    eprintln!("pintle: {error}");
    ExitCode::from(1)
}

/// Says what went wrong, and what to do about it; exit code 1.
fn fail_with_hint(error: &dyn fmt::Display, hint: &dyn fmt::Display) -> ExitCode {
    eprintln!("pintle: {error}\n  hint: {hint}");
    ExitCode::from(1)
}

/// Says that no site has a host, and which there are.
fn no_such_site(host: &str, hosts: impl Iterator<Item = String>) -> ExitCode {
    let (error, hint) = told_of_no_site(host, hosts);
    fail_with_hint(&error, &hint)
}

fn told_of_no_site(host: &str, hosts: impl Iterator<Item = String>) -> (String, String) {
    let known: Vec<String> = hosts.collect();
    let hint = match known.is_empty() {
        true => "the configuration has no site".to_owned(),
        false => format!("the sites' hosts are {}", known.join(", ")),
    };
    (format!("--site: no site has the host {host:?}"), hint)
}

/// A configuration that can be served, and what it was made from.
struct Loaded {
    draft: Draft,
    config: Config,
    problems: Problems,
}

/// Reads and checks a configuration with what is known of promises, and says what is wrong with it.
fn load(path: &Path, book: impl FnOnce(&Draft) -> Result<Book, String>, output: &Output) -> Result<Loaded, ExitCode> {
    judge(read(path).map_err(|error| fail(&error))?, book, StandIn::Unchanged, output)
}

/// Reads a configuration; or says which file cannot be read.
fn read(path: &Path) -> Result<Draft, String> {
    config::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Checks what has been read, and says what is wrong with it.
fn judge(
    draft: Draft,
    book: impl FnOnce(&Draft) -> Result<Book, String>,
    stand_in: StandIn,
    output: &Output,
) -> Result<Loaded, ExitCode> {
    let loaded = try_judge(draft, book, stand_in);
    let problems = loaded.as_ref().map_or_else(|unfit| unfit.problems.as_ref(), |loaded| Some(&loaded.problems));
    if let Some(problems) = problems {
        print_problems(problems, output);
    }
    loaded.map_err(|unfit| fail(&unfit.error))
}

/// Why a configuration cannot be served: what is wrong with it, if that is it, and all in all.
struct Unfit {
    problems: Option<Problems>,
    error: String,
}

/// The same, without a word.
fn try_judge(
    draft: Draft,
    book: impl FnOnce(&Draft) -> Result<Book, String>,
    stand_in: StandIn,
) -> Result<Loaded, Box<Unfit>> {
    let book = book(&draft).map_err(|error| Box::new(Unfit { problems: None, error }))?;
    let (config, problems) = draft.resolve(&context(&draft, &book, stand_in));
    match config {
        Some(config) => Ok(Loaded { draft, config, problems }),
        None => {
            let errors = problems.sorted().iter().filter(|p| p.severity == config::Severity::Error).count();
            let plural = if errors == 1 { "" } else { "s" };
            let error = format!("{}: {errors} error{plural}", draft.path().display());
            Err(Box::new(Unfit { problems: Some(problems), error }))
        }
    }
}

/// What there is to know at a start: what was promised, and what was served last.
fn context<'a>(draft: &Draft, book: &'a Book, stand_in: StandIn) -> Context<'a> {
    Context { last_good: draft.state().map(|state| LastGood::of(&state)), stand_in, ..Context::new(book, wall()) }
}

/// Errors are printed all; of very many warnings, the first ones will do.
fn print_problems(problems: &Problems, output: &Output) {
    let mut warnings = 0;
    for problem in problems.sorted() {
        warnings += usize::from(problem.severity == config::Severity::Warning);
        if problem.severity == config::Severity::Error || warnings <= WARNINGS_MAX {
            eprint!("{}", problems.render(problem, output.color));
        }
    }
    if let more @ 1.. = warnings.saturating_sub(WARNINGS_MAX) {
        eprintln!("and {more} warnings more: `pintle check --json` has them all");
    }
}

/// What a configuration's ledger says, for commands that only look.
fn look_at_book(draft: &Draft) -> Result<Book, String> {
    draft.state().map_or_else(|| Ok(Book::default()), |folder| look_at(&folder))
}

fn look_at(folder: &Path) -> Result<Book, String> {
    let file = folder.join(crate::ledger::FILE);
    let (book, notices) = crate::ledger::look(folder).map_err(|error| format!("{}: {error}", file.display()))?;
    // A running server may just be writing its last line.
    for notice in notices.iter().filter(|n| !matches!(n, Notice::Torn { .. })) {
        eprintln!("pintle: {}: {notice}", file.display());
    }
    Ok(book)
}
