//! The bodies that are rewritten: by type, charset and other fields of a response's head.

use crate::message::ResponseHead;

/// The kind of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteKind {
    /// HTML.
    Html,
    /// HTML in the syntax of XML.
    Xhtml,
    /// A style sheet.
    Css,
    /// A feed or a sitemap in XML.
    Feed,
    /// A feed in JSON.
    Json,
}

impl RewriteKind {
    /// Returns the kind in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Html => "HTML",
            Self::Xhtml => "XHTML",
            Self::Css => "a style sheet",
            Self::Feed => "XML, perhaps a feed",
            Self::Json => "JSON",
        }
    }
}

/// The kinds of bodies that a site has rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteTypes {
    /// HTML and XHTML.
    pub html: bool,
    /// Style sheets.
    pub css: bool,
    /// Feeds and sitemaps.
    pub feeds: bool,
    /// Other JSON.
    pub json: bool,
}

/// The reason why a body is not rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRewritten {
    /// Its type has no references, or none that are rewritten.
    Type,
    /// It is in a charset whose bytes below 128 are not ASCII, or in one that pintle does not know.
    Charset,
    /// It is a file to be saved.
    Attachment,
}

impl NotRewritten {
    /// Returns the reason in words.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Type => "its type is not rewritten",
            Self::Charset => "its charset is unknown, or no superset of ASCII",
            Self::Attachment => "it is a file to be saved",
        }
    }
}

/// Beginnings of the names of charsets whose bytes below 128 are ASCII, or whose multi-byte characters contain no
/// quote, no angle bracket and no slash.
const CHARSETS: [&str; 16] = [
    "utf-8",
    "utf8",
    "us-ascii",
    "ascii",
    "iso-8859-",
    "iso8859-",
    "latin1",
    "windows-12",
    "cp125",
    "koi8-",
    "gb",
    "big5",
    "shift_jis",
    "sjis",
    "euc-",
    "windows-874",
];

/// Returns the kind of a response's body.
///
/// # Errors
///
/// [`NotRewritten`], if it passes as it is.
pub fn kind_of(head: &ResponseHead, types: RewriteTypes) -> Result<RewriteKind, NotRewritten> {
    let value = field(head, b"content-type").unwrap_or_default();
    let mut parts = value.split(|b| *b == b';');
    let media = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let kind = match &*media {
        b"text/html" if types.html => RewriteKind::Html,
        b"application/xhtml+xml" if types.html => RewriteKind::Xhtml,
        b"text/css" if types.css => RewriteKind::Css,
        b"application/rss+xml"
        | b"application/atom+xml"
        | b"application/rdf+xml"
        | b"text/xml"
        | b"application/xml"
            if types.feeds =>
        {
            RewriteKind::Feed
        }
        b"application/feed+json" if types.feeds => RewriteKind::Json,
        b"application/json" if types.json => RewriteKind::Json,
        _ => return Err(NotRewritten::Type),
    };
    let charset = parts.find_map(|part| {
        let (name, value) = part.split_at_checked(part.iter().position(|b| *b == b'=')?)?;
        name.trim_ascii().eq_ignore_ascii_case(b"charset").then(|| value[1..].trim_ascii().to_ascii_lowercase())
    });
    let is_known = |charset: &[u8]| {
        let bare = charset.trim_ascii().strip_prefix(b"\"").unwrap_or(charset);
        CHARSETS.iter().any(|known| bare.starts_with(known.as_bytes()))
    };
    if charset.is_some_and(|charset| !is_known(&charset)) {
        return Err(NotRewritten::Charset);
    }
    let disposition = field(head, b"content-disposition").unwrap_or_default();
    if disposition.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"attachment")) {
        return Err(NotRewritten::Attachment);
    }
    Ok(kind)
}

/// `true` for documents: answers to which policies for documents belong.
#[must_use]
pub fn is_document(head: &ResponseHead) -> bool {
    let all = RewriteTypes { html: true, css: false, feeds: false, json: false };
    !matches!(kind_of(head, all), Err(NotRewritten::Type))
}

/// `true` if the response's own policies name inline scripts or styles by their hashes: these must not change.
#[must_use]
pub fn names_hashes(head: &ResponseHead) -> bool {
    head.fields.iter().any(|(_, name, value)| is_policy_with_hashes(name, value))
}

/// `true` for the field of a policy that names scripts or styles by their hashes.
#[must_use]
pub fn is_policy_with_hashes(name: &[u8], value: &[u8]) -> bool {
    let is_policy = name.eq_ignore_ascii_case(b"content-security-policy")
        || name.eq_ignore_ascii_case(b"content-security-policy-report-only");
    is_policy && [&b"'sha256-"[..], b"'sha384-", b"'sha512-"].iter().any(|hash| has(value, hash))
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn field<'a>(head: &'a ResponseHead, wanted: &[u8]) -> Option<&'a [u8]> {
    head.fields.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, _, value)| value)
}

/// `true` if the target of a request may name a body that is rewritten, by the ending of its path. Others may be asked
/// for in parts.
#[must_use]
pub fn may_be_rewritten(target: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 13] = [
        b"html", b"htm", b"xhtml", b"shtml", b"css", b"xml", b"rss", b"atom", b"rdf", b"json", b"php", b"aspx", b"jsp",
    ];
    let path = target.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    match name.iter().rposition(|b| *b == b'.') {
        Some(dot) => ENDINGS.contains(&&*name[dot + 1..].to_ascii_lowercase()),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::default();
        for (name, value) in fields {
            head.fields.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn kinds() {
        let types = RewriteTypes { html: true, css: true, feeds: true, json: false };
        let check = |value: &str, want: Result<RewriteKind, NotRewritten>| {
            assert_eq!(kind_of(&head(&[("Content-Type", value)]), types), want, "{value}");
        };
        check("text/html", Ok(RewriteKind::Html));
        check("Text/HTML; Charset=\"UTF-8\"", Ok(RewriteKind::Html));
        check("text/html; charset=windows-1251", Ok(RewriteKind::Html));
        check("text/html;charset=utf-16le", Err(NotRewritten::Charset));
        check("text/html; charset=iso-2022-jp", Err(NotRewritten::Charset));
        check("text/html; charset=ibm037", Err(NotRewritten::Charset));
        check("application/xhtml+xml", Ok(RewriteKind::Xhtml));
        check("text/css", Ok(RewriteKind::Css));
        check("application/rss+xml; charset=UTF-8", Ok(RewriteKind::Feed));
        check("application/feed+json", Ok(RewriteKind::Json));
        check("application/json", Err(NotRewritten::Type));
        check("application/javascript", Err(NotRewritten::Type));
        check("text/plain", Err(NotRewritten::Type));
        check("", Err(NotRewritten::Type));
        let saved = head(&[("Content-Type", "text/html"), ("Content-Disposition", "attachment; filename=a.html")]);
        assert_eq!(kind_of(&saved, types), Err(NotRewritten::Attachment));
        assert!(is_document(&saved) && !is_document(&head(&[("Content-Type", "text/css")])));
    }

    #[test]
    fn hashes() {
        assert!(names_hashes(&head(&[("Content-Security-Policy", "script-src 'SHA256-abc='")])));
        assert!(!names_hashes(&head(&[("Content-Security-Policy", "script-src 'self'")])));
    }

    #[test]
    fn targets() {
        for (target, may) in [
            ("/", true),
            ("/a/b", true),
            ("/a.html?b=c.mp4", true),
            ("/style.CSS", true),
            ("/feed.xml", true),
            ("/a.mp4", false),
            ("/a.pdf?x", false),
            ("/v1.0/a", true),
        ] {
            assert_eq!(may_be_rewritten(target.as_bytes()), may, "{target}");
        }
    }
}
