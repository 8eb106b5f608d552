//! The arguments of `pintle purge` and `pintle cache`.

use super::CheckArgs;

#[derive(clap::Args)]
pub(in crate::cli) struct PurgeArgs {
    /// The URLs to purge, with all their variants
    #[arg(value_name = "URL", required_unless_present_any = ["prefix", "tag", "site"])]
    pub(in crate::cli) urls: Vec<String>,
    /// Purge the URLs below this one, by whole segments of the path
    #[arg(long, value_name = "URL", conflicts_with_all = ["urls", "tag", "site"])]
    pub(in crate::cli) prefix: Option<String>,
    /// Purge the responses with this tag: Cache-Tag, Surrogate-Key or Cache-Groups
    #[arg(long, value_name = "TAG", conflicts_with = "urls")]
    pub(in crate::cli) tag: Option<String>,
    /// Purge all responses of the site with this host; with --tag, only those with the tag
    #[arg(long, alias = "host", value_name = "HOST", conflicts_with = "urls")]
    pub(in crate::cli) site: Option<String>,
    /// Keep the responses in case the upstream fails, and validate them before their next use
    #[arg(long)]
    pub(in crate::cli) soft: bool,
    #[command(flatten)]
    pub(in crate::cli) check: CheckArgs,
}

#[derive(clap::Args)]
pub(in crate::cli) struct CacheArgs {
    /// Show the stored responses of this URL, or why there are none [default: the figures of all caches]
    #[arg(value_name = "URL")]
    pub(in crate::cli) url: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) check: CheckArgs,
}
