//! The references of a style sheet: `url(...)` and `@import "..."` (CSS Syntax Level 3, sections
//! 4.3.5 and 4.3.6; CSS Cascade, section 2). Comments and the contents of other strings are
//! skipped.

/// The most references that are read from one style sheet.
const REFERENCES_MAX: usize = 4096;

/// Returns all references: `true` with an import, and the text.
#[must_use]
pub fn references(css: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = css;
    let mut import = false;
    while let Some((&first, behind)) = rest.split_first() {
        if found.len() >= REFERENCES_MAX {
            break;
        }
        if rest.starts_with(b"/*") {
            rest = after(&rest[2..], b"*/");
        } else if starts(rest, b"@import") {
            import = true;
            rest = &rest[7..];
        } else if starts(rest, b"url(") {
            let (url, behind) = url(&rest[4..]);
            found.push((import, url));
            (rest, import) = (behind, false);
        } else if matches!(first, b'"' | b'\'') {
            let (text, behind) = string(behind, first);
            if import {
                found.push((true, text));
            }
            (rest, import) = (behind, false);
        } else if is_name(first) {
            // A name is read whole, so that `curl(` is not taken for `url(`.
            let end = rest.iter().position(|b| !is_name(*b)).unwrap_or(rest.len());
            rest = &rest[end..];
        } else {
            import &= first != b';';
            rest = behind;
        }
    }
    found
}

fn starts(css: &[u8], word: &[u8]) -> bool {
    css.get(..word.len()).is_some_and(|w| w.eq_ignore_ascii_case(word))
}

fn after<'a>(css: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = css.windows(end.len()).position(|w| w == end);
    at.map_or(&[], |at| &css[at + end.len()..])
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || !b.is_ascii()
}

/// Reads the contents of `url(`, quoted or not; returns them with the text after the closing
/// parenthesis.
fn url(css: &[u8]) -> (Vec<u8>, &[u8]) {
    let css = css.trim_ascii_start();
    match css.split_first() {
        Some((&quote @ (b'"' | b'\''), text)) => {
            let (text, behind) = string(text, quote);
            (text, after(behind, b")"))
        }
        _ => {
            let end = css.iter().position(|b| *b == b')').unwrap_or(css.len());
            (unescape(css[..end].trim_ascii()), css.get(end + 1..).unwrap_or_default())
        }
    }
}

/// Reads a string up to its quote, or to the end of its line, where CSS ends it.
fn string(css: &[u8], quote: u8) -> (Vec<u8>, &[u8]) {
    let mut escaped = false;
    for (at, b) in css.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'\n' => return (Vec::new(), &css[at..]),
            b if *b == quote => return (unescape(&css[..at]), &css[at + 1..]),
            _ => {}
        }
    }
    (unescape(css), &[])
}

/// Section 4.3.7: up to six hexadecimal digits and a white space, or the character itself.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        let digits = behind.iter().take(6).take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 {
            if let Some((&escaped, behind)) = behind.split_first() {
                // A backslash at the end of a line joins the lines.
                out.extend((escaped != b'\n').then_some(escaped));
                rest = behind;
            }
            continue;
        }
        let number = behind[..digits].iter().fold(0, |n, b| n * 16 + char::from(*b).to_digit(16).unwrap_or_default());
        let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        let space = usize::from(behind.get(digits).is_some_and(u8::is_ascii_whitespace));
        rest = &behind[digits + space..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let check = |css: &str, want: &[(bool, &str)]| {
            let got = references(css.as_bytes());
            let got: Vec<(bool, &str)> = got.iter().map(|(i, u)| (*i, std::str::from_utf8(u).unwrap())).collect();
            assert_eq!(got, want, "{css}");
        };
        check("a { background: url(http://x/a.png) }", &[(false, "http://x/a.png")]);
        check("a{background:URL( 'b.png' ) , url(\"c\")}", &[(false, "b.png"), (false, "c")]);
        check("@import \"http://x/a.css\"; a{}", &[(true, "http://x/a.css")]);
        check("@IMPORT url(http://x/a.css) screen; b{background:url(c)}", &[(true, "http://x/a.css"), (false, "c")]);
        check("@import; a { content: \"http://x/\" }", &[]);
        check("a { content: 'url(http://x/)' } /* url(http://y/) @import 'z' */", &[]);
        check("a { x: curl(http://x/) }", &[]);
        check("a { x: \"it\\\"s url(http://x/)\" }", &[]);
        check("a { x: url(http\\3a //x/a\\)b) }", &[(false, "http://x/a")]);
        check("a { x: url('h\\74 tp://x/') }", &[(false, "http://x/")]);
        check("a { x: \"open\n url(http://x/)", &[(false, "http://x/")]);
        check("/* open url(http://x/)", &[]);
        check("url(", &[(false, "")]);
    }

    proptest! {
        #[test]
        fn bytes_never_panic(css in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"@importul(\"')/*\\; \n"[..])], 0..100)) {
            let _ = references(&css);
        }
    }
}
