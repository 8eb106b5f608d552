//! Entity tags of compressed responses: pintle makes them weak, and gives the upstream back what it sent.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::message::Fields;

/// What is known about the tags of a site's upstream.
///
/// `W/"x"` from a client may be the upstream's own, or `"x"` that pintle has made weak. An upstream mostly sends tags of
/// one kind, so the last one that was seen decides. A wrong guess costs a body instead of a 304.
#[derive(Debug, Default)]
pub struct UpstreamTags {
    are_weak: AtomicBool,
}

impl UpstreamTags {
    /// Notes the kind of a tag of the upstream.
    pub fn note(&self, are_weak: bool) {
        if self.are_weak() != are_weak {
            self.are_weak.store(are_weak, Ordering::Relaxed);
        }
    }

    /// `true` if the upstream's own tags are weak.
    #[must_use]
    pub fn are_weak(&self) -> bool {
        self.are_weak.load(Ordering::Relaxed)
    }
}

/// Makes the weak tags of a request's conditions strong, as the upstream sent them. Returns `true` if there was one.
///
/// If-Match, too: the client has the representation that the strong tag names, and by strong comparison its weak tag would
/// never match (RFC 9110 section 13.1.1). If-Range stays: a range is one of the body that pintle did not compress.
pub fn undo(fields: &mut Fields) -> bool {
    let mut was_changed = false;
    for at in 0..fields.len() {
        let field = fields.list()[at];
        let name = fields.name(&field);
        if !name.eq_ignore_ascii_case(b"if-none-match") && !name.eq_ignore_ascii_case(b"if-match") {
            continue;
        }
        if let Some(strong) = strengthened(fields.value(&field)) {
            fields.replace(at, &strong);
            was_changed = true;
        }
    }
    was_changed
}

/// A list of tags without `W/`; `None` if it has none. Text in quotes stays.
fn strengthened(list: &[u8]) -> Option<Vec<u8>> {
    let (mut strong, mut rest, mut is_quoted, mut was_changed) = (Vec::new(), list, false, false);
    while let Some((first, others)) = rest.split_first() {
        if !is_quoted && rest.starts_with(b"W/\"") {
            was_changed = true;
            rest = &rest[2..];
            continue;
        }
        is_quoted ^= *first == b'"';
        strong.push(*first);
        rest = others;
    }
    was_changed.then_some(strong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (before, after) in [
            ("W/\"x\"", Some("\"x\"")),
            ("\"x\"", None),
            ("*", None),
            ("W/\"a\", \"b\",W/\"c\"", Some("\"a\", \"b\",\"c\"")),
            ("\"W/\", W/\"a\"", Some("\"W/\", \"a\"")),
            ("\"a W/\"", None),
            ("w/\"a\"", None),
            ("W/x", None),
            ("", None),
            ("W/\"", Some("\"")),
        ] {
            assert_eq!(strengthened(before.as_bytes()).as_deref(), after.map(str::as_bytes), "{before}");
        }
    }

    #[test]
    fn conditions() {
        let mut fields = Fields::default();
        for name in ["If-None-Match", "If-Match", "If-Range", "X"] {
            fields.push(name.as_bytes(), b"W/\"x\"");
        }
        assert!(undo(&mut fields));
        let values: Vec<&[u8]> = fields.iter().map(|(.., value)| value).collect();
        assert_eq!(values, [&b"\"x\""[..], b"\"x\"", b"W/\"x\"", b"W/\"x\""]);
        assert!(!undo(&mut fields));
    }
}
