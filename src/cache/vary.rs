//! The requests that may have the same response (RFC 9111 section 4.1).

use super::encoding::Encoding;
use crate::message::{Fields, Name, tokens};

/// The longest values of nominated fields that are kept for a response, in bytes.
const KEPT_MAX: usize = 16 << 10;

/// A name, and its value if the request has the field.
pub type Nominated = (Box<[u8]>, Option<Box<[u8]>>);

/// The fields that a response nominates, with the values of the request that it answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant {
    /// Names in lower case, sorted, each once; the value, or none if the request lacks the field.
    nominated: Vec<Nominated>,
}

impl Variant {
    /// That of a response which nominates nothing.
    pub const FOR_ALL: Self = Self { nominated: Vec::new() };

    /// Notes what a response nominates. `None` if it varies by something else (`*`), or by more
    /// bytes than are kept. `has_any_coding` says that the response is for clients of every coding.
    #[must_use]
    pub fn of(response: &Fields, request: &Fields, has_any_coding: bool) -> Option<Self> {
        let mut names: Vec<Vec<u8>> =
            response.get_all(Name::Vary).flat_map(tokens).map(<[u8]>::to_ascii_lowercase).collect();
        // Requests whose cookies say something about the visitor have nothing to do with the store, and the others lose
        // theirs. The host is in the key.
        names.retain(|name| name != b"cookie" && name != b"host" && !(has_any_coding && name == b"accept-encoding"));
        names.sort_unstable();
        names.dedup();
        let (mut nominated, mut kept) = (Vec::with_capacity(names.len()), 0);
        for name in names {
            let value = canonical(request, &name);
            kept += name.len() + value.as_ref().map_or(0, Vec::len);
            if name == b"*" || kept > KEPT_MAX {
                return None;
            }
            nominated.push((name.into_boxed_slice(), value.map(Vec::into_boxed_slice)));
        }
        Some(Self { nominated })
    }

    /// Makes the one that had these fields: names in lower case, sorted.
    #[must_use]
    pub fn restored(nominated: Vec<Nominated>) -> Self {
        Self { nominated }
    }

    /// `true` if a request may have the response.
    #[must_use]
    pub fn fits(&self, request: &Fields) -> bool {
        self.nominated.iter().all(|(name, value)| canonical(request, name).as_deref() == value.as_deref())
    }

    /// The bytes that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nominated.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len()) + 32).sum()
    }

    /// `true` if the response is for every request.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.nominated.is_empty()
    }

    /// Returns the nominated fields: the request of a validation carries them.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.nominated.iter().map(|(name, value)| (&**name, value.as_deref()))
    }
}

/// All lines of a field as one list, without white space around its commas. Bytes in quotes stay. Accept-Encoding is the
/// class of its client.
fn canonical(fields: &Fields, name: &[u8]) -> Option<Vec<u8>> {
    if name == b"accept-encoding" {
        return Some(Encoding::of(fields).value().to_vec());
    }
    let mut all: Option<Vec<u8>> = None;
    for (_, held, value) in fields.iter() {
        if held.eq_ignore_ascii_case(name) {
            match &mut all {
                Some(list) => list.push(b','),
                none => *none = Some(Vec::with_capacity(value.len())),
            }
            squeeze(value.trim_ascii(), all.get_or_insert_default());
        }
    }
    all
}

fn squeeze(value: &[u8], into: &mut Vec<u8>) {
    let (mut is_quoted, mut is_escaped, mut blanks) = (false, false, 0);
    for b in value {
        match b {
            b' ' | b'\t' if !is_quoted => {
                blanks += 1;
                continue;
            }
            b',' if !is_quoted => {}
            // After a comma, blanks go; elsewhere they stay as they are many.
            _ if into.last() != Some(&b',') => into.extend(std::iter::repeat_n(b' ', blanks)),
            _ => {}
        }
        blanks = 0;
        match b {
            b'"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = is_quoted && *b == b'\\' && !is_escaped;
        into.push(*b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_match() {
        let first = Fields::of(&[("Accept", "text/html, image/png"), ("Accept-Language", "de"), ("X", "1")]);
        for (vary, other, want) in [
            ("", vec![], true),
            ("accept", vec![("ACCEPT", "text/html, image/png")], true),
            ("Accept", vec![("Accept", "text/html,image/png")], true),
            ("Accept", vec![("Accept", " text/html ,\t image/png ")], true),
            ("Accept", vec![("Accept", "text/html"), ("Accept", "image/png")], true),
            ("Accept", vec![("Accept", "Text/html, image/png")], false),
            ("Accept", vec![("Accept", "image/png, text/html")], false),
            ("Accept", vec![], false),
            ("Accept", vec![("Accept", "")], false),
            ("Accept, Accept-Language", vec![("Accept", "text/html, image/png"), ("Accept-Language", "de")], true),
            ("Accept, Accept-Language", vec![("Accept", "text/html, image/png")], false),
            ("Y", vec![], true),
            ("Y", vec![("Y", "")], false),
            ("y, Y, y", vec![("Z", "1")], true),
        ] {
            let variant = Variant::of(&Fields::of(&[("Vary", vary)]), &first, false).unwrap();
            assert_eq!(variant.fits(&Fields::of(&other)), want, "{vary} {other:?}");
        }
        let many: Vec<String> = (0..60).map(|n| format!("x-{n}")).collect();
        let variant = Variant::of(&Fields::of(&[("Vary", &many.join(","))]), &first, false).unwrap();
        assert!(variant.fits(&first) && !variant.fits(&Fields::of(&[("x-59", "1")])));
    }

    #[test]
    fn responses_that_match_nothing_else() {
        let request = Fields::of(&[("Big", &"x".repeat(KEPT_MAX))]);
        for vary in ["*", "Accept, *", "*, Accept", "Big"] {
            assert_eq!(Variant::of(&Fields::of(&[("Vary", vary)]), &request, false), None, "{vary}");
        }
        assert_eq!(Variant::of(&Fields::of(&[("Vary", "Accept"), ("vary", "*")]), &request, false), None);
    }

    #[test]
    fn blanks_in_quotes_count() {
        let first = Fields::of(&[("A", "x=\"a , b\\\" , c\" , d")]);
        let variant = Variant::of(&Fields::of(&[("Vary", "A")]), &first, false).unwrap();
        assert!(variant.fits(&Fields::of(&[("A", "x=\"a , b\\\" , c\",d")])));
        assert!(!variant.fits(&Fields::of(&[("A", "x=\"a,b\\\" , c\",d")])));
        assert!(!variant.fits(&Fields::of(&[("A", "x=\"a , b\\\",c\",d")])));
        let spaced = Fields::of(&[("A", "a  b")]);
        let variant = Variant::of(&Fields::of(&[("Vary", "A")]), &spaced, false).unwrap();
        assert!(!variant.fits(&Fields::of(&[("A", "a b")])));
    }
}
