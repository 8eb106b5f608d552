//! The responses that a purge is for.

use super::key;

/// The responses that a purge is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeScope {
    /// Everything.
    Site,
    /// The target under an authority, with all its variants.
    Url(Vec<u8>, Vec<u8>),
    /// The path under an authority, and what is below it by whole segments.
    Prefix(Vec<u8>, Vec<u8>),
    /// The responses with a tag.
    Tag(Vec<u8>),
}

impl PurgeScope {
    /// The scope of one key.
    #[must_use]
    pub fn url(key: &[u8]) -> Self {
        let (authority, target) = key::parts(key);
        Self::Url(authority.to_vec(), target.to_vec())
    }

    /// `true` if it is for a response with this key and these tags.
    #[must_use]
    pub fn covers(&self, key: &[u8], tags: &[Box<[u8]>]) -> bool {
        let (authority, target) = key::parts(key);
        match self {
            Self::Site => true,
            Self::Url(host, wanted) => authority == host && target == wanted,
            Self::Prefix(host, path) => authority == host && key::is_below(target, path),
            Self::Tag(tag) => tags.iter().any(|own| **own == **tag),
        }
    }
}
