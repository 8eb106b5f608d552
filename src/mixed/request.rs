//! Requests whose responses may be rewritten: the upstream gets them without fields that lead to a part, or to a copy from
//! before the rewriting.

use crate::message::{Fields, RequestHead};
use http::Method;

use super::media::may_be_rewritten;

/// The fields of a request that do not go upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WholeRequest {
    /// All go.
    No,
    /// Those of ranges do not.
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

    /// `true` for a field that does not go upstream.
    #[must_use]
    pub fn drops(self, name: &[u8]) -> bool {
        let is = |names: [&[u8]; 2]| names.iter().any(|known| name.eq_ignore_ascii_case(known));
        match self {
            Self::No => false,
            Self::Whole => is([b"range", b"if-range"]),
            Self::Anew => is([b"range", b"if-range"]) || is([b"if-none-match", b"if-modified-since"]),
        }
    }
}

fn has_strong_tag(fields: &Fields) -> bool {
    let mut lists = fields.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"if-none-match"));
    // A quote that ends a tag is followed by a comma, or by nothing.
    lists.any(|(_, _, list)| {
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
        assert!(WholeRequest::Whole.drops(b"Range") && !WholeRequest::Whole.drops(b"If-None-Match"));
        assert!(WholeRequest::Anew.drops(b"if-modified-since") && !WholeRequest::No.drops(b"Range"));
    }
}
