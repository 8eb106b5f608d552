//! Responses that were stored earlier.

use http::StatusCode;

use super::freshness::Lifetime;
use super::tags::tags;
use super::vary::Variant;
use crate::message::Fields;

/// The head of a response that was stored earlier, by this process or another one.
#[derive(Debug)]
pub struct EarlierHead {
    /// The status code.
    pub status: StatusCode,
    /// The fields that were stored.
    pub fields: Fields,
    /// The requests that it answers.
    pub variant: Variant,
    /// The time for which it is fresh.
    pub lifetime: Lifetime,
    /// Its age when it was stored, in seconds.
    pub age: u32,
}

impl EarlierHead {
    /// Returns the tags that it can be purged by.
    #[must_use]
    pub fn tags(&self) -> Box<[Box<[u8]>]> {
        tags(&self.fields)
    }
}
