//! The arguments of `pintle key`.

use std::path::PathBuf;

use clap::Subcommand;

use super::values::parse_date;
use super::{ConfigArgs, ListKeysArgs, SiteArgs};
use crate::commands::key;
use crate::export::Role;

#[derive(Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a private key that only you can read, and a CSR with the site's names
    New(NewKeyArgs),
    /// List the keys of each site: role, pin, algorithm, file, promise, expiry of the certificate
    List(ListKeysArgs),
    /// Change over to the next key of a site whose certificates pintle obtains, as soon as every client knows it
    ///
    /// pintle prints the day from which that is possible. Until then, it renews with the live key.
    Rotate(SiteArgs),
    /// Replace a compromised key of a site whose certificates pintle obtains, mark it as burnt, and revoke its
    /// certificates
    ///
    /// pintle orders a certificate for the next key and serves it. Then the ledger marks the compromised key as burnt:
    /// it never serves again, and does not count as a backup. Then the CA revokes all its certificates (reason
    /// keyCompromise). The command first prints the effects. If clients would be locked out, it changes nothing and
    /// names the ways out.
    ///
    /// The next key is in the same folder as the live key. If a thief could read both, revoke the next key first, with
    /// --key next.
    Revoke(RevokeArgs),
}

#[derive(clap::Args)]
pub(in crate::cli) struct NewKeyArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// The use of the key
    #[arg(long, value_enum)]
    pub(in crate::cli) role: Role,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(in crate::cli) site: String,
    /// The kind of key
    #[arg(long, value_enum, default_value_t = key::Algorithm::EcdsaP256)]
    pub(in crate::cli) algorithm: key::Algorithm,
    /// The folder for the files [default: the folder of the site's certificate]
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(clap::Args)]
pub(in crate::cli) struct RevokeArgs {
    #[command(flatten)]
    pub(in crate::cli) config: ConfigArgs,
    /// Any host of the site
    #[arg(long, alias = "host", value_name = "HOST")]
    pub(in crate::cli) site: String,
    /// The algorithm of the key [default: the keys of all the site's certificates]
    #[arg(long, value_name = "ALGORITHM")]
    pub(in crate::cli) algorithm: Option<String>,
    /// The role of the compromised key
    #[arg(long, value_enum, default_value_t = CompromisedRole::Live)]
    pub(in crate::cli) key: CompromisedRole,
    /// Lock out clients that do not know the next key; DATE is the date that the refusal names
    #[arg(long, alias = "accept_lockout_until", value_name = "DATE", value_parser = parse_date)]
    pub(in crate::cli) accept_lockout_until: Option<String>,
    /// Print the effects, change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not wait until the key is burnt
    #[arg(long)]
    pub(in crate::cli) no_wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// The role of a compromised key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum CompromisedRole {
    /// The key in use
    Live,
    /// The next key; pintle makes another one
    Next,
}
