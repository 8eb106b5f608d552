//! The options of every command about its output.

use std::io::IsTerminal;

use clap::{ArgMatches, ValueEnum};

use crate::commands::{self, Output};
use crate::export::ExportForm;
use crate::telemetry::log::LogFormat;

#[derive(clap::Args)]
pub(super) struct OutputArgs {
    /// The format of the log on standard error; syslog sends it to syslog instead
    #[arg(long, global = true, value_enum, default_value_t = LogFormatArg::Text)]
    log_format: LogFormatArg,
    /// Log errors and warnings only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Log more; -vv logs everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

/// Reads the command line. With `--json`, a command that fails answers in JSON, too.
pub(super) fn matches(command: clap::Command) -> ArgMatches {
    let matches = command.get_matches();
    if wants_json(&matches) {
        commands::print::answer_in_json();
    }
    matches
}

/// Returns `true` if the command has `--json`, or `--as json`.
fn wants_json(matches: &ArgMatches) -> bool {
    if let Some((_, matches)) = matches.subcommand() {
        return wants_json(matches);
    }
    let form = matches.try_get_one::<ExportForm>("form").ok().flatten();
    matches.try_get_one::<bool>("json").ok().flatten().copied().unwrap_or_default() || form == Some(&ExportForm::Json)
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormatArg {
    Text,
    Json,
    Syslog,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// The one rule for all commands: on a terminal, unless NO_COLOR has a value (no-color.org) or TERM is `dumb`.
    fn is_on(self, stream: &impl IsTerminal) -> bool {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                stream.is_terminal()
                    && !is_set("NO_COLOR")
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

impl OutputArgs {
    /// Converts the options for the commands.
    pub(super) fn output(&self) -> Output {
        Output {
            log_format: match self.log_format {
                LogFormatArg::Text => LogFormat::Text,
                LogFormatArg::Json => LogFormat::Json,
                LogFormatArg::Syslog => LogFormat::Syslog,
            },
            log_level: match (self.quiet, self.verbose) {
                (true, _) => tracing::Level::WARN,
                (_, 0) => tracing::Level::INFO,
                (_, 1) => tracing::Level::DEBUG,
                _ => tracing::Level::TRACE,
            },
            color: self.color.is_on(&std::io::stderr()),
            color_of_stdout: self.color.is_on(&std::io::stdout()),
        }
    }
}
