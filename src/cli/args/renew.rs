//! The arguments of `pintle acme renew`.

use super::SiteArgs;

#[derive(clap::Args)]
pub(in crate::cli) struct RenewArgs {
    #[command(flatten)]
    pub(in crate::cli) of: SiteArgs,
    /// Order even if the check of the names fails; for a host that sees other records or addresses than the CA
    ///
    /// Split DNS, a router without hairpin NAT or a content delivery network can make the check wrong. This applies
    /// until the next certificate arrives. Failed validations count at the CA, so pintle tries at most four per hour
    /// and name.
    #[arg(long)]
    pub(in crate::cli) despite_preflight: bool,
}
