//! The responses that a purge is for.

use super::key;

/// The responses that a purge is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeScope {
    /// Everything.
    Site,
    /// The target under the authority that was asked for, whatever trusted proxies state, with all variants.
    Page(Vec<u8>, Vec<u8>),
    /// The target under an authority, with all its variants. The authority is any by which the page is known: the one that
    /// was asked for, or the one that a trusted proxy states.
    Url(Vec<u8>, Vec<u8>),
    /// The path under such an authority, and what is below it by whole segments.
    Prefix(Vec<u8>, Vec<u8>),
    /// The responses with a tag.
    Tag(Vec<u8>),
    /// The responses of an origin, by its authority, with a tag (RFC 9875 section 2: a group belongs to one origin).
    Group(Vec<u8>, Vec<u8>),
}

impl PurgeScope {
    /// The scope of one key.
    #[must_use]
    pub fn page(key: &[u8]) -> Self {
        let (authority, target) = key::parts(key);
        Self::Page(authority.to_vec(), target.to_vec())
    }

    /// `true` if it is for a response with this key and these tags.
    #[must_use]
    pub fn covers(&self, key: &[u8], tags: &[Box<[u8]>]) -> bool {
        let (authority, target) = key::parts(key);
        let is_known_as = |host: &[u8]| key::names(key).any(|name| name == host);
        let has = |tag: &[u8]| tags.iter().any(|own| **own == *tag);
        match self {
            Self::Site => true,
            Self::Page(host, wanted) => authority == host && target == wanted,
            Self::Url(host, wanted) => target == wanted && is_known_as(host),
            Self::Prefix(host, path) => key::is_below(target, path) && is_known_as(host),
            Self::Tag(tag) => has(tag),
            Self::Group(host, tag) => key::origin(key) == host && has(tag),
        }
    }
}
