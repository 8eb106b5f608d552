//! Media types that gain by compression.

/// A pattern of media types: `text/html`, `text/*` or `*+json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypePattern {
    /// This type.
    Exact(Box<str>),
    /// All subtypes of a type: its name with the slash.
    Family(Box<str>),
    /// All types with a suffix: its name with the plus.
    Suffix(Box<str>),
}

/// The types that are compressed unless the operator says otherwise. Images, films, archives and web fonts are compressed
/// by their own formats.
const USUAL: [&str; 16] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// Returns the patterns that are compressed unless the operator says otherwise.
#[must_use]
pub fn usual_types() -> Vec<TypePattern> {
    USUAL.into_iter().filter_map(TypePattern::parse).collect()
}

impl TypePattern {
    /// Reads a pattern. `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix("*+") {
            return is_name(suffix).then(|| Self::Suffix(text[1..].into()));
        }
        let (family, name) = text.split_once('/')?;
        match name {
            "*" if is_name(family) => Some(Self::Family(text[..=family.len()].into())),
            name if is_name(family) && is_name(name) => Some(Self::Exact(text.into())),
            _ => None,
        }
    }

    /// `true` if a Content-Type is of these types.
    #[must_use]
    pub fn matches(&self, content_type: &[u8]) -> bool {
        let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        match self {
            Self::Exact(name) => essence.eq_ignore_ascii_case(name.as_bytes()),
            Self::Family(family) => {
                essence.get(..family.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(family.as_bytes()))
            }
            Self::Suffix(suffix) => {
                let at = essence.len().checked_sub(suffix.len());
                at.is_some_and(|at| at > 0 && essence[at..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }
}

/// `true` for event streams, whose pieces must not wait for others.
#[must_use]
pub fn is_event_stream(content_type: &[u8]) -> bool {
    TypePattern::Exact("text/event-stream".into()).matches(content_type)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual() {
        let types = usual_types();
        assert_eq!(types.len(), USUAL.len());
        for (text, want) in [
            ("text/html", true),
            ("Text/HTML; charset=utf-8", true),
            ("application/ld+json", true),
            ("application/rss+xml", true),
            ("image/svg+xml", true),
            ("application/json;charset=x", true),
            ("image/png", false),
            ("image/jpeg", false),
            ("video/mp4", false),
            ("font/woff2", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("multipart/byteranges; boundary=x", false),
            ("+json", false),
            ("", false),
            ("text", false),
        ] {
            assert_eq!(types.iter().any(|pattern| pattern.matches(text.as_bytes())), want, "{text}");
        }
        assert!(is_event_stream(b"text/event-stream; charset=utf-8") && !is_event_stream(b"text/plain"));
    }

    #[test]
    fn patterns() {
        for (text, is_one) in [
            ("text/html", true),
            ("text/*", true),
            ("*+json", true),
            ("TEXT/HTML", true),
            ("*/*", false),
            ("*", false),
            ("text", false),
            ("text/", false),
            ("/html", false),
            ("text/html; charset=utf-8", false),
            ("text/ht*", false),
            ("*+", false),
            ("", false),
        ] {
            assert_eq!(TypePattern::parse(text).is_some(), is_one, "{text}");
        }
    }
}
