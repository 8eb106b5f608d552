//! Lines without characters that could control a terminal, or forge another line.

use std::fmt::{self, Write as _};

/// Escapes characters that could control a terminal, or forge another line: control characters, and those that change the
/// direction of text. With `color`, the formatter's own colours stay.
pub(super) fn harmless(line: Vec<u8>, color: bool) -> Vec<u8> {
    escaped(line, color, false)
}

/// The same for a line of JSON, in the form that JSON knows. Such a character can only be in one of its strings.
pub(super) fn harmless_json(line: Vec<u8>) -> Vec<u8> {
    escaped(line, false, true)
}

fn escaped(line: Vec<u8>, color: bool, json: bool) -> Vec<u8> {
    if line.iter().rev().skip(1).all(|b| matches!(b, b' '..=b'~')) {
        return line;
    }
    let text = String::from_utf8_lossy(&line);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    let mut out = String::with_capacity(line.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let own = if color { sgr(rest) } else { None };
        if let Some(len) = own {
            out.push_str(&rest[..len]);
            rest = &rest[len..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            c if is_harmful(c) && json => {
                let _ = write!(out, "{}", JsonEscape(c));
            }
            c if is_harmful(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push_str(end);
    out.into_bytes()
}

/// A character as JSON's escapes, one for each unit of UTF-16 (RFC 8259 section 7).
pub(super) struct JsonEscape(pub(super) char);

impl fmt::Display for JsonEscape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(f, "\\u{unit:04x}"))
    }
}

/// Returns `true` for a character that could control a terminal, forge a line, or change the direction of text.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of an escape sequence that sets a colour, at the beginning of the text. The formatter escapes ESC in values.
fn sgr(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let len = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[len..].starts_with('m').then_some(2 + len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_harmless() {
        let check = |line: &str, color: bool, want: &str| {
            assert_eq!(String::from_utf8(harmless(line.as_bytes().to_vec(), color)).unwrap(), want);
        };
        let evil = "a\u{1b}[31m\rb\nc\u{9b}d\u{202e}e\u{2066}f\u{7f}\u{e9}\n";
        let escaped = r"a\u{1b}[31m\u{d}b\u{a}c\u{9b}d\u{202e}e\u{2066}f\u{7f}";
        check(evil, false, &format!("{escaped}\u{e9}\n"));
        check("plain\n", false, "plain\n");
        check("\u{1b}[2mdim\u{1b}[0m\u{1b}[2J\n", true, "\u{1b}[2mdim\u{1b}[0m\\u{1b}[2J\n");
        let json = harmless_json("{\"a\":\"\u{9b}\u{202e}\"}\n".as_bytes().to_vec());
        assert_eq!(String::from_utf8(json).unwrap(), "{\"a\":\"\\u009b\\u202e\"}\n");
    }
}
