//! Limits of requests as data: the rules of all sites with the counts behind them, and the limit that a request exceeds.

use std::sync::Arc;

use super::rate_counts::RateCounts;
use crate::policy::rate::SiteRates;

/// The limits of all sites, and the counts behind them.
pub struct RequestLimits {
    /// The limits of each site, in their order.
    pub sites: Vec<Option<SiteRates>>,
    /// The counts of their clients.
    pub counts: Arc<RateCounts>,
}

/// The limit that a request exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateLimit {
    /// The requests of a client.
    Requests,
    /// The requests of a client under way.
    Concurrent,
    /// The requests of a crawler.
    Crawlers,
}

impl RateLimit {
    /// Returns its name in records and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "rate_requests",
            Self::Concurrent => "rate_concurrent",
            Self::Crawlers => "rate_crawlers",
        }
    }

    /// Returns its key in the table of its rule.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Concurrent => "concurrent",
            Self::Crawlers => "crawlers",
        }
    }
}

/// A request beyond a limit.
#[derive(Debug)]
pub(super) struct RateExceeded {
    pub(super) limit: RateLimit,
    /// The key of its rule in the configuration, and the rule's name.
    pub(super) key: Box<str>,
    pub(super) name: Box<str>,
    /// Seconds until the next request is admitted.
    pub(super) wait: u64,
}
