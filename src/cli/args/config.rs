//! The arguments of `pintle config`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{CheckArgs, ConfigArgs};

/// Versions that are listed without a wish.
const VERSIONS: u16 = 20;

#[derive(Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// List the versions of the configuration that pintle has served, the newest first; * marks the one in use
    ///
    /// They are commits in config.git, in state.directory: clone, log and push them with git. Secrets are left out.
    History {
        #[command(flatten)]
        check: CheckArgs,
        /// Show at most this many
        #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = VERSIONS, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
        /// Show only versions before this one
        #[arg(long, value_name = "VERSION")]
        before: Option<String>,
    },
    /// Print a version, or the file
    Show {
        /// The id of a version, its beginning, or HEAD~1 [default: the file]
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        #[command(flatten)]
        check: CheckArgs,
    },
    /// Compare two versions
    ///
    /// Each is the id of a version, its beginning, HEAD~1, `running` (the text in use) or `file`. Values of secrets are
    /// left out.
    Diff {
        /// The old one
        #[arg(value_name = "FROM", default_value = "running")]
        from: String,
        /// The new one
        #[arg(value_name = "TO", default_value = "file")]
        to: String,
        #[command(flatten)]
        check: CheckArgs,
    },
    /// Check a new configuration, write it into the file, and load it
    ///
    /// A refused text changes nothing. The file keeps its mode and owner.
    Apply {
        /// The file with the new configuration; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Bring a version back, after the same checks as apply
    ///
    /// The version is written into the configuration file with the secrets that the file has now.
    Restore {
        /// The id of the version, its beginning, or HEAD~1
        #[arg(value_name = "VERSION")]
        version: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

#[derive(clap::Args)]
pub(in crate::cli) struct ChangeArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// Print the verdict and the difference, change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Start a new process instead of a reload: for folders and ports outside the sandbox of the running process
    #[arg(long, conflicts_with = "dry_run")]
    pub(in crate::cli) upgrade: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
