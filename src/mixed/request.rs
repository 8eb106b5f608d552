//! Requests whose responses may be rewritten: the upstream gets them without fields that lead to a part, or to a copy
//! from before the rewriting.

use crate::message::{Fields, RequestHead, tokens};
use http::Method;

use super::media::may_be_rewritten;

const ACCEPT_ENCODING: &[u8] = b"accept-encoding";

/// `true` if a field is an Accept-Encoding that takes gzip. pintle has to decode a body before it rewrites it, and asks
/// for the coding that costs least; if the body turns out to be of another type, the client gets it as it is.
fn accepts_gzip(name: &[u8], value: &[u8]) -> bool {
    name.eq_ignore_ascii_case(ACCEPT_ENCODING)
        && tokens(value).any(|member| {
            let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
            let is_refused =
                |part: &[u8]| part.get(..2).is_some_and(|q| q.eq_ignore_ascii_case(b"q=")) && is_zero(&part[2..]);
            is_gzip && !parts.any(is_refused)
        })
}

/// `true` for `0`, `0.0` and their like.
fn is_zero(weight: &[u8]) -> bool {
    weight.starts_with(b"0") && weight.iter().all(|b| matches!(b, b'0' | b'.'))
}

/// The fields of a request that do not go upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeRequest {
    /// All go.
    No,
    /// Requests for ranges do not.
    Whole,
    /// Nor do conditions: the client's copy has a strong ETag, which no rewritten body has.
    Anew,
}

impl WholeRequest {
    /// Looks at a request to a site that has responses rewritten.
    #[must_use]
    pub fn of(head: &RequestHead) -> Self {
        if !matches!(head.method, Method::GET | Method::HEAD) || !may_be_rewritten(head.target_bytes()) {
            return Self::No;
        }
        if has_strong_tag(&head.fields) { Self::Anew } else { Self::Whole }
    }

    /// Returns the content coding that the upstream is asked for; `None` for the client's choice.
    #[must_use]
    pub fn coding(self, fields: &Fields) -> Option<&'static [u8]> {
        let mut all = fields.iter();
        let takes_gzip = self != Self::No && all.any(|(_, name, value)| accepts_gzip(name, value));
        match self {
            Self::No => None,
            _ if takes_gzip => Some(b"gzip"),
            _ => Some(b"identity"),
        }
    }

    /// `true` for a field that does not go upstream.
    #[must_use]
    pub fn drops(self, name: &[u8]) -> bool {
        let is = |names: [&[u8]; 2]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        match self {
            Self::No => false,
            Self::Whole => is([b"range", b"if-range"]) || name.eq_ignore_ascii_case(ACCEPT_ENCODING),
            Self::Anew => Self::Whole.drops(name) || is([b"if-none-match", b"if-modified-since"]),
        }
    }
}

fn has_strong_tag(fields: &Fields) -> bool {
    // A quote that ends a tag is followed by a comma, or by nothing.
    fields.values_of(b"if-none-match").any(|list| {
        let mut is_open = false;
        list.iter().enumerate().any(|(at, byte)| {
            if *byte != b'"' {
                return false;
            }
            is_open = !is_open;
            is_open && (at < 2 || list[at - 2..at] != *b"W/")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let check = |target: &str, name: &str, value: &str, want: WholeRequest| {
            let mut head = RequestHead::default();
            head.set_target(target.as_bytes());
            head.fields.push(name.as_bytes(), value.as_bytes());
            assert_eq!(WholeRequest::of(&head), want, "{target} {name}: {value}");
        };
        check("/", "Range", "bytes=0-1", WholeRequest::Whole);
        check("/a.mp4", "Range", "bytes=0-1", WholeRequest::No);
        check("/", "If-None-Match", "W/\"a\", W/\"b\"", WholeRequest::Whole);
        check("/", "If-None-Match", "\"a\"", WholeRequest::Anew);
        check("/", "If-None-Match", "W/\"a\",\"b\"", WholeRequest::Anew);
        check("/", "If-None-Match", "*", WholeRequest::Whole);
        for (value, want) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("gzip; q=0.000", false), ("br", false)]
        {
            assert_eq!(accepts_gzip(b"Accept-Encoding", value.as_bytes()), want, "{value}");
        }
        assert!(!accepts_gzip(b"TE", b"gzip") && WholeRequest::Whole.drops(b"accept-encoding"));
        assert!(WholeRequest::Whole.drops(b"Range") && !WholeRequest::Whole.drops(b"If-None-Match"));
        assert!(WholeRequest::Anew.drops(b"if-modified-since") && !WholeRequest::No.drops(b"Range"));
    }
}
