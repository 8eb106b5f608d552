//! Entity tags of an upstream, which pintle makes weak when it changes a body (RFC 9110 section 8.8.3).

use std::sync::atomic::{AtomicBool, Ordering};

/// The known facts about the tags of a site's upstream.
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

/// Returns the tags of an If-None-Match or If-Match without `W/`; `None` for other fields, and if no tag has it.
#[must_use]
pub fn strengthened(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let is_condition = name.eq_ignore_ascii_case(b"if-none-match") || name.eq_ignore_ascii_case(b"if-match");
    if is_condition { without_weak(value) } else { None }
}

/// Returns a list of tags without `W/`; `None` if it has none. Text in quotes stays.
fn without_weak(list: &[u8]) -> Option<Vec<u8>> {
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
            assert_eq!(without_weak(before.as_bytes()).as_deref(), after.map(str::as_bytes), "{before}");
        }
    }
}
