//! The arguments of `pintle hook`.

use clap::Subcommand;

use super::CheckArgs;

#[derive(Subcommand)]
pub(in crate::cli) enum HookCommand {
    /// Send the event hook.test to one hook, or to all, and print the outcome
    ///
    /// The running process sends it once, whatever events the hook selects. The exit code is 1 if a hook fails.
    Test(HookTestArgs),
}

#[derive(clap::Args)]
pub(in crate::cli) struct HookTestArgs {
    /// The name of the hook [default: all hooks]; without hook.name, it is the host of its URL or the file name of its
    /// program
    #[arg(value_name = "HOOK")]
    pub(in crate::cli) name: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) check: CheckArgs,
}
