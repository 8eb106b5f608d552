//! The part of a site's cache in an answer, for its record.

use crate::cache::status::{ForwardReason, Status};
use crate::cache::store::CachePart;

/// The cache's part in an answer, for its record.
#[derive(Debug, Clone, Copy)]
pub(super) struct CacheNote {
    pub(super) status: Status,
    pub(super) part: CachePart,
}

impl CacheNote {
    /// Returns the note for a request that has nothing to do with the store.
    pub(super) fn bypass(reason: ForwardReason, detail: Option<&'static str>) -> Self {
        Self { status: Status { forwarded: Some(reason), detail, ..Status::default() }, part: CachePart::Bypass }
    }

    /// Returns the note for a stored response, with the seconds until it is stale.
    pub(super) fn hit(ttl: i64, detail: Option<&'static str>) -> Self {
        let part = if ttl > 0 { CachePart::Hit } else { CachePart::Stale };
        Self { status: Status { ttl: Some(ttl), detail, ..Status::default() }, part }
    }
}
