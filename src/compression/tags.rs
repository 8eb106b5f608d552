//! Entity tags of compressed responses: pintle makes them weak, and gives the upstream back what it sent.

use super::accept::choose;
use super::coding::Coding;
use crate::message::{Fields, RequestHead, strengthened};

/// Makes the weak tags of a request's conditions strong, as the upstream sent them. Returns `true` if there was one.
///
/// If-Match, too: the client has the representation that the strong tag names, and by strong comparison its weak tag would
/// never match (RFC 9110 section 13.1.1). If-Range stays: a range is one of the body that pintle did not compress.
pub fn undo(fields: &mut Fields) -> bool {
    let mut was_changed = false;
    for at in 0..fields.len() {
        let field = fields.list()[at];
        if let Some(strong) = strengthened(fields.name(&field), fields.value(&field)) {
            fields.replace(at, &strong);
            was_changed = true;
        }
    }
    was_changed
}

/// Drops the fields of a range whose condition is a date, if the client may have a part of a compressed body: that has the
/// date of the uncompressed one, so the date says nothing about the bytes (RFC 9110 section 8.8.2.2). `codings` are the
/// site's. Bodies that nobody compresses, by the ending of the target, stay in parts.
pub fn drop_dated_range(head: &mut RequestHead, codings: &[Coding]) {
    let is_dated = |condition: &[u8]| !condition.ends_with(b"\"");
    if head.fields.has_field(b"range")
        && head.fields.value_of(b"if-range").is_some_and(is_dated)
        && !is_packed(head.target_bytes())
        && choose(&head.fields, codings).is_some()
    {
        let is_of_range = |name: &[u8]| [&b"range"[..], b"if-range"].iter().any(|own| name.eq_ignore_ascii_case(own));
        head.fields.remove_if(|_, name, _| is_of_range(name));
    }
}

/// `true` for a target whose ending says that its body does not gain from compression.
fn is_packed(target: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 28] = [
        b"7z", b"aac", b"apk", b"avif", b"br", b"bz2", b"deb", b"epub", b"flac", b"gif", b"gz", b"iso", b"jpeg",
        b"jpg", b"m4a", b"m4v", b"mkv", b"mov", b"mp3", b"mp4", b"ogg", b"pdf", b"png", b"rar", b"webm", b"webp",
        b"woff2", b"zip",
    ];
    let path = target.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let dot = name.iter().rposition(|b| *b == b'.');
    dot.is_some_and(|dot| ENDINGS.contains(&&*name[dot + 1..].to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_a_date() {
        let date = "Fri, 27 Nov 2026 15:00:00 GMT";
        for (target, accepted, condition, stays) in [
            ("/", "br", date, false),
            ("/a.js?v=1.png", "gzip", date, false),
            ("/a.css", "identity", date, true),
            ("/a.css", "br", "\"x\"", true),
            ("/a.css", "br", "W/\"x\"", true),
            ("/a.MP4?x", "br", date, true),
        ] {
            let mut head = RequestHead::default();
            head.set_target(target.as_bytes());
            for (name, value) in [("Accept-Encoding", accepted), ("Range", "bytes=0-1"), ("If-Range", condition)] {
                head.fields.push(name.as_bytes(), value.as_bytes());
            }
            drop_dated_range(&mut head, &Coding::ALL);
            assert_eq!(head.fields.len(), if stays { 3 } else { 1 }, "{target} {accepted} {condition}");
        }
        let mut head = RequestHead::default();
        head.fields.push(b"Accept-Encoding", b"br");
        head.fields.push(b"Range", b"bytes=0-1");
        drop_dated_range(&mut head, &Coding::ALL);
        assert_eq!(head.fields.len(), 2);
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
