//! The settings of a site's cache.

use std::time::Duration;

use super::freshness::TimeRules;
use super::profile::CacheProfile;
use super::query::QueryRules;
use super::reuse::{Honour, Stale};

/// The settings of a site's cache: `[site.cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRules {
    /// The program that makes the pages.
    pub profile: CacheProfile,
    /// The bytes of all that is stored.
    pub memory: u64,
    /// The bytes that the pages may take on disk; 0 for none. Missing: the usual number, if stale pages are wanted while the
    /// origin fails.
    pub disk: Option<u64>,
    /// The largest body that is stored, in bytes.
    pub max_object: u64,
    /// Times for responses that state none.
    pub times: TimeRules,
    /// The stale responses that may be sent.
    pub stale: Stale,
    /// The rules for queries.
    pub query: QueryRules,
    /// The weight of directives of clients.
    pub honour: Honour,
    /// The longest wait for a response that another request has asked for.
    pub collapse_wait: Duration,
    /// pintle compresses what is stored, so the upstream is asked for bodies without a coding.
    pub compresses: bool,
}

/// The usual bytes on disk.
const DISK: u64 = 256 << 20;

impl CacheRules {
    /// The bytes that the pages may take on disk; `None` if none is written.
    #[must_use]
    pub fn disk_bytes(&self) -> Option<u64> {
        self.disk.or_else(|| self.stale.if_error.map(|_| DISK)).filter(|bytes| *bytes > 0)
    }

    /// The settings that decide which page is stored, and its key: pages that other rules have stored may be other ones.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{:?} {:?} {}", self.profile, self.query, self.compresses)
    }

    /// `true` if a store that was filled by other rules may be used by these.
    #[must_use]
    pub fn fits_store_of(&self, other: &Self) -> bool {
        self.profile == other.profile
            && self.memory == other.memory
            && self.max_object == other.max_object
            && self.query == other.query
            && self.compresses == other.compresses
    }
}
