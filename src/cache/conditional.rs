//! Conditional requests on stored responses (RFC 9110 section 13, RFC 9111 section 4.3.2).

use http::Method;

use super::date;
use super::stored_fields::StoredFields;
use crate::message::Fields;

/// The validators of a stored response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// The value of ETag.
    pub etag: Option<&'a [u8]>,
    /// The value of Last-Modified.
    pub last_modified: Option<&'a [u8]>,
    /// The time of its making, in seconds since 1970: a second best for Last-Modified.
    pub made: i64,
}

impl<'a> Validators<'a> {
    /// Reads the validators of a response.
    #[must_use]
    pub fn of(fields: &'a StoredFields, now: i64) -> Self {
        let made = fields.value_of(b"date").and_then(|value| date::parse(value, now)).unwrap_or(now);
        let etag = fields.value_of(b"etag").filter(|tag| opaque(tag).is_some());
        Self { etag, last_modified: fields.value_of(b"last-modified"), made }
    }
}

/// The answer to the conditions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionOutcome {
    /// The stored response.
    Whole,
    /// 304.
    NotModified,
}

/// `true` if a request has conditions that only the origin evaluates.
#[must_use]
pub fn is_for_the_origin(request: &Fields) -> bool {
    request.value_of(b"if-match").is_some() || request.value_of(b"if-unmodified-since").is_some()
}

/// `true` if a request has conditions that a stored response can meet.
#[must_use]
pub fn has_conditions(request: &Fields) -> bool {
    request.has_field(b"if-none-match") || request.has_field(b"if-modified-since")
}

/// Evaluates If-None-Match, or if it is missing If-Modified-Since, for a stored 200.
#[must_use]
pub fn evaluate(method: &Method, request: &Fields, held: Validators<'_>, now: i64) -> ConditionOutcome {
    let modified = |is_modified| if is_modified { ConditionOutcome::Whole } else { ConditionOutcome::NotModified };
    if method != Method::GET && method != Method::HEAD {
        return ConditionOutcome::Whole;
    }
    if request.value_of(b"if-none-match").is_some() {
        let lines = request.iter().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"if-none-match"));
        return modified(!lines.map(|(.., value)| value).any(|list| names(list, held.etag)));
    }
    let Some(since) = request.value_of(b"if-modified-since").and_then(|value| date::parse(value, now)) else {
        return ConditionOutcome::Whole;
    };
    let at = held.last_modified.and_then(|value| date::parse(value, now)).unwrap_or(held.made);
    modified(at > since)
}

/// `true` if a Range counts: If-Range is missing, or is the strong ETag, or the exact
/// Last-Modified, of what is stored (RFC 9110 section 13.1.5).
#[must_use]
pub fn range_counts(request: &Fields, held: Validators<'_>, now: i64) -> bool {
    let Some(stated) = request.value_of(b"if-range") else { return true };
    if stated.starts_with(b"\"") || stated.starts_with(b"W/") {
        return opaque(stated).is_some() && !stated.starts_with(b"W/") && held.etag == Some(stated);
    }
    let Some(modified) = held.last_modified.filter(|modified| *modified == stated) else { return false };
    // A date is strong only if the response was made well after it (section 8.8.2.2).
    date::parse(modified, now).is_some_and(|at| held.made - at >= 60)
}

/// `true` if a list of entity tags, or `*`, names the tag by weak comparison.
fn names(list: &[u8], tag: Option<&[u8]>) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    let Some(tag) = tag.and_then(opaque) else { return false };
    let mut rest = list;
    while let Some(at) = rest.iter().position(|b| *b == b'"') {
        let Some(end) = rest[at + 1..].iter().position(|b| *b == b'"') else { return false };
        let end = at + 1 + end;
        if rest[at..=end] == *tag {
            return true;
        }
        rest = &rest[end + 1..];
    }
    false
}

/// The quoted part of an entity tag. `None` if it is not one (RFC 9110 section 8.8.3).
#[must_use]
pub fn opaque(tag: &[u8]) -> Option<&[u8]> {
    let quoted = tag.strip_prefix(b"W/").unwrap_or(tag);
    let text = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let is_text = text.iter().all(|b| *b == b'!' || (b'#'..=b'~').contains(b) || *b >= 0x80);
    is_text.then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_794_000;
    const MODIFIED: &[u8] = b"Fri, 27 Nov 2026 15:00:00 GMT";

    #[test]
    fn not_modified() {
        let both = Validators { etag: Some(b"\"a\""), last_modified: Some(MODIFIED), made: NOW };
        let weak = Validators { etag: Some(b"W/\"a\""), ..both };
        let none = Validators { etag: None, last_modified: None, made: NOW };
        let (inm, ims) = ("If-None-Match", "If-Modified-Since");
        for (held, request, want) in [
            (both, vec![(inm, "\"a\"")], true),
            (both, vec![(inm, "W/\"a\"")], true),
            (weak, vec![(inm, "\"a\"")], true),
            (weak, vec![(inm, "W/\"a\"")], true),
            (both, vec![(inm, "\"b\", \"a\"")], true),
            (both, vec![(inm, "\"b\",\"a\"")], true),
            (both, vec![(inm, "\"x,y\", W/\"a\"")], true),
            (both, vec![(inm, "\"b\""), (inm, "\"a\"")], true),
            (both, vec![(inm, "*")], true),
            (none, vec![(inm, "*")], true),
            (both, vec![(inm, "\"b\"")], false),
            (both, vec![(inm, "\"A\"")], false),
            (both, vec![(inm, "a")], false),
            (both, vec![(inm, "\"a")], false),
            (both, vec![(inm, "\"ab\"")], false),
            (none, vec![(inm, "\"a\"")], false),
            // If-None-Match outweighs a date.
            (both, vec![(inm, "\"b\""), (ims, "Fri, 27 Nov 2026 15:30:00 GMT")], false),
            (both, vec![(inm, "\"a\""), (ims, "Fri, 27 Nov 2020 15:30:00 GMT")], true),
            (both, vec![(ims, "Fri, 27 Nov 2026 15:00:00 GMT")], true),
            (both, vec![(ims, "Fri, 27 Nov 2026 14:59:59 GMT")], false),
            (both, vec![(ims, "Fri, 27 Nov 2026 15:00:01 GMT")], true),
            (both, vec![(ims, "yesterday")], false),
            (none, vec![(ims, "Fri, 27 Nov 2026 15:40:00 GMT")], true),
            (none, vec![(ims, "Fri, 27 Nov 2026 15:39:59 GMT")], false),
            (both, vec![], false),
        ] {
            let request = Fields::of(&request);
            let want = if want { ConditionOutcome::NotModified } else { ConditionOutcome::Whole };
            assert_eq!(evaluate(&Method::GET, &request, held, NOW), want, "{request:?}");
            assert_eq!(evaluate(&Method::HEAD, &request, held, NOW), want, "{request:?}");
            assert_eq!(evaluate(&Method::POST, &request, held, NOW), ConditionOutcome::Whole);
        }
    }

    #[test]
    fn ranges_of_the_same_response() {
        let held = Validators { etag: Some(b"\"a\""), last_modified: Some(MODIFIED), made: NOW };
        let weak = Validators { etag: Some(b"W/\"a\""), ..held };
        let young = Validators { made: NOW - 2400, ..held };
        for (held, value, want) in [
            (held, "\"a\"", true),
            (held, "\"b\"", false),
            (held, "W/\"a\"", false),
            (weak, "W/\"a\"", false),
            (weak, "\"a\"", false),
            (held, "Fri, 27 Nov 2026 15:00:00 GMT", true),
            (held, "Fri, 27 Nov 2026 15:00:01 GMT", false),
            (held, "fri, 27 nov 2026 15:00:00 gmt", false),
            (young, "Fri, 27 Nov 2026 15:00:00 GMT", false),
            (held, "", false),
            (held, "a", false),
        ] {
            assert_eq!(range_counts(&Fields::of(&[("If-Range", value)]), held, NOW), want, "{value}");
        }
        assert!(range_counts(&Fields::default(), held, NOW));
    }

    #[test]
    fn tags() {
        for (tag, want) in [
            ("\"\"", Some("\"\"")),
            ("\"a b\"", None),
            ("W/\"x\"", Some("\"x\"")),
            ("w/\"x\"", None),
            ("\"a\"b\"", None),
            ("a", None),
            ("\"", None),
            ("", None),
        ] {
            assert_eq!(opaque(tag.as_bytes()), want.map(str::as_bytes), "{tag}");
        }
    }
}
