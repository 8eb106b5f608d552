//! The arguments of `pintle page` and `pintle admin`.

use clap::Subcommand;

use super::CheckArgs;
use crate::config::admin::AdminRole;

#[derive(clap::Args)]
pub(in crate::cli) struct PageArgs {
    #[command(flatten)]
    pub(in crate::cli) check: CheckArgs,
    /// The permissions: view; operate (also install, renew, reload); configure (everything)
    #[arg(long, value_name = "ROLE", default_value = "configure", value_parser = ["view", "operate", "configure"])]
    role: String,
    /// The loopback port for the browser [default: any free port]
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(in crate::cli) port: u16,
    /// Print the link, and open no browser
    #[arg(long)]
    pub(in crate::cli) no_open: bool,
}

impl PageArgs {
    /// The permissions.
    pub(in crate::cli) fn role(&self) -> AdminRole {
        self.role.parse().unwrap_or(AdminRole::View)
    }
}

#[derive(Subcommand)]
pub(in crate::cli) enum AdminSubcommand {
    /// Ask for a password, and print the line with its hash for the configuration
    ///
    /// Asks twice, and shows nothing of what you type. Without a terminal, it reads one line of standard input. The
    /// hash is Argon2id with 19 MiB and 2 passes.
    Password {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
