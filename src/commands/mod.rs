//! What each command does. The only place that prints.

pub mod check;
pub mod demo;
pub mod export;
mod files;
pub mod key;
pub mod pin;
pub mod run;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use tracing::Level;

use crate::config::{self, Config, Problems};
use crate::telemetry::log::LogFormat;

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
    let known: Vec<String> = hosts.collect();
    let hint = match known.is_empty() {
        true => "the configuration has no site".to_owned(),
        false => format!("the sites' hosts are {}", known.join(", ")),
    };
    fail_with_hint(&format!("--site: no site has the host {host:?}"), &hint)
}

/// Reads a configuration, and says what is wrong with it.
fn load(path: &Path, output: &Output) -> Result<(Config, Problems), ExitCode> {
    let (config, problems) = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => return Err(fail(&format!("{}: {error}", path.display()))),
    };
    for problem in problems.sorted() {
        eprint!("{}", problems.render(problem, output.color));
    }
    match config {
        Some(config) => Ok((config, problems)),
        None => {
            let errors = problems.sorted().iter().filter(|p| p.severity == config::Severity::Error).count();
            let plural = if errors == 1 { "" } else { "s" };
            Err(fail(&format!("{}: {errors} error{plural}", path.display())))
        }
    }
}
