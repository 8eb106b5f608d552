//! The options of every command about its output.

use std::io::IsTerminal as _;

use clap::ValueEnum;

use crate::commands::Output;
use crate::telemetry::log::LogFormat;

#[derive(clap::Args)]
pub(super) struct OutputArgs {
    /// The format of the log on standard error
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

#[derive(Clone, Copy, ValueEnum)]
enum LogFormatArg {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl OutputArgs {
    /// Converts the options for the commands.
    pub(super) fn output(&self) -> Output {
        Output {
            log_format: match self.log_format {
                LogFormatArg::Text => LogFormat::Text,
                LogFormatArg::Json => LogFormat::Json,
            },
            log_level: match (self.quiet, self.verbose) {
                (true, _) => tracing::Level::WARN,
                (_, 0) => tracing::Level::INFO,
                (_, 1) => tracing::Level::DEBUG,
                _ => tracing::Level::TRACE,
            },
            color: match self.color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            },
        }
    }
}
