//! The tags that responses can be purged by.

use crate::message::{Fields, tokens};

/// The most tags of a response, and their longest text in bytes.
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 4096;

/// The tags of a response: Cache-Tag and Cache-Groups divide them by commas, Surrogate-Key by spaces.
#[must_use]
pub fn tags(fields: &Fields) -> Box<[Box<[u8]>]> {
    let by_comma = [&b"cache-tag"[..], b"cache-groups"].into_iter().flat_map(|name| fields.values_of(name));
    let by_comma = by_comma.flat_map(tokens).map(|tag| tag.strip_prefix(b"\"").unwrap_or(tag));
    let by_comma = by_comma.map(|tag| tag.strip_suffix(b"\"").unwrap_or(tag));
    let by_space = fields.values_of(b"surrogate-key").flat_map(|value| value.split(u8::is_ascii_whitespace));
    let mut left = TAG_BYTES_MAX;
    let all = by_comma.chain(by_space).filter(|tag| !tag.is_empty()).take(TAGS_MAX);
    let all = all.take_while(|tag| {
        let fits = tag.len() <= left;
        left = left.saturating_sub(tag.len());
        fits
    });
    all.map(Into::into).collect()
}
