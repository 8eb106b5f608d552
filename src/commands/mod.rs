//! What each command does. The only place that prints.

pub mod check;
pub mod demo;
pub mod pin;
pub mod run;
pub mod verify;

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
