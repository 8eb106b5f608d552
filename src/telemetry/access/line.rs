//! Writes values into a line: no client forges a line, or controls the reader's terminal.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::fields::{RecordField, RecordFields};
use crate::telemetry::harmless::JsonEscape;
use crate::telemetry::histogram::micros;

/// A JSON object in the making, at the end of a batch.
pub(super) struct JsonLine<'o> {
    out: &'o mut Vec<u8>,
    fields: RecordFields,
    /// Fields whose values were cut.
    cut: RecordFields,
    /// Fields with bytes that are not UTF-8.
    invalid: RecordFields,
}

impl<'o> JsonLine<'o> {
    /// Continues an object behind its first fields.
    pub(super) fn new(out: &'o mut Vec<u8>, fields: RecordFields) -> Self {
        Self { out, fields, cut: RecordFields::NONE, invalid: RecordFields::NONE }
    }

    /// Writes a field's name, if the field is chosen. Inlined, as most methods here: the name is a constant then.
    #[inline(always)]
    fn begin(&mut self, field: RecordField) -> bool {
        if !self.fields.has(field) {
            return false;
        }
        self.out.extend_from_slice(field.key().as_bytes());
        true
    }

    /// Adds fields that are written already.
    pub(super) fn written(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Adds a text from outside, of at most `most` bytes.
    #[inline(always)]
    pub(super) fn text(&mut self, field: RecordField, value: &[u8], most: usize) {
        if !self.begin(field) {
            return;
        }
        if value.len() <= most && is_all_plain(value) {
            self.out.push(b'"');
            self.out.extend_from_slice(value);
            self.out.push(b'"');
            return;
        }
        let losses = push_json_string(self.out, value, most);
        self.mark(field, &losses);
    }

    fn mark(&mut self, field: RecordField, losses: &Losses) {
        if losses.is_cut {
            self.cut.insert(field);
        }
        if losses.is_invalid {
            self.invalid.insert(field);
        }
    }

    /// Adds a list of such texts.
    pub(super) fn list<'t>(&mut self, field: RecordField, values: impl Iterator<Item = &'t [u8]>, most: usize) {
        if !self.begin(field) {
            return;
        }
        self.out.push(b'[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            let losses = push_json_string(self.out, value, most);
            self.mark(field, &losses);
        }
        self.out.push(b']');
    }

    /// Adds a word that needs no escapes.
    #[inline(always)]
    pub(super) fn word(&mut self, field: RecordField, value: &str) {
        if self.begin(field) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        }
    }

    #[inline(always)]
    pub(super) fn number(&mut self, field: RecordField, value: u64) {
        if self.begin(field) {
            push_number(self.out, value);
        }
    }

    pub(super) fn fraction(&mut self, field: RecordField, value: f64) {
        if self.begin(field) {
            let _ = write!(self.out, "{value}");
        }
    }

    #[inline(always)]
    pub(super) fn flag(&mut self, field: RecordField, value: bool) {
        if self.begin(field) {
            self.out.extend_from_slice(if value { b"true" } else { b"false" });
        }
    }

    #[inline(always)]
    pub(super) fn millis(&mut self, field: RecordField, value: Duration) {
        if self.begin(field) {
            push_millis(self.out, value);
        }
    }

    pub(super) fn address(&mut self, field: RecordField, value: IpAddr) {
        if self.begin(field) {
            self.out.push(b'"');
            push_address(self.out, value);
            self.out.push(b'"');
        }
    }

    pub(super) fn socket_address(&mut self, field: RecordField, value: SocketAddr) {
        if self.begin(field) {
            self.out.push(b'"');
            push_socket_address(self.out, value);
            self.out.push(b'"');
        }
    }

    /// Adds the marks of cut and invalid values, without the end of the object.
    #[inline(always)]
    pub(super) fn finish(self) {
        if self.cut != RecordFields::NONE || self.invalid != RecordFields::NONE {
            self.add_marks();
        }
    }

    fn add_marks(self) {
        for (name, marked) in [("truncated", self.cut), ("invalid", self.invalid)] {
            if marked == RecordFields::NONE {
                continue;
            }
            let _ = write!(self.out, ",\"{name}\":[");
            for (at, field) in RecordField::ALL.iter().filter(|field| marked.has(**field)).enumerate() {
                let _ = write!(self.out, "{}\"{}\"", if at > 0 { "," } else { "" }, field.name());
            }
            self.out.push(b']');
        }
    }
}

/// The losses of a text that was written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Losses {
    /// It was too long.
    is_cut: bool,
    /// It had bytes that are not UTF-8.
    is_invalid: bool,
}

/// Returns `true` for plain text that a string in quotation marks can hold as it is.
fn is_plain(b: &u8) -> bool {
    matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')
}

/// `true` if all bytes are [plain](is_plain). Looks at eight at a time.
fn is_all_plain(value: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES * 0x80;
    // The high bit of each byte that is 0; of a byte above one that is 0 perhaps, too.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let is_odd = |word: u64| {
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = zeros(word ^ (ONES * 0x7f));
        let (quote, backslash) = (zeros(word ^ (ONES * u64::from(b'"'))), zeros(word ^ (ONES * u64::from(b'\\'))));
        (word | below_space | delete | quote | backslash) & HIGH != 0
    };
    let (words, rest) = value.as_chunks::<8>();
    rest.iter().all(is_plain) && !words.iter().any(|word| is_odd(u64::from_le_bytes(*word)))
}

/// Escapes as JSON requires (RFC 8259 section 7), and everything that is not ASCII text. Invalid bytes become U+FFFD. A
/// text that takes more than `most` bytes is cut, and ends with an ellipsis.
fn push_json_string(out: &mut Vec<u8>, value: &[u8], most: usize) -> Losses {
    out.push(b'"');
    let end = out.len() + most;
    let mut losses = Losses::default();
    'all: for chunk in value.utf8_chunks() {
        let invalid = if chunk.invalid().is_empty() { "" } else { "\u{fffd}" };
        losses.is_invalid |= !invalid.is_empty();
        for c in chunk.valid().chars().chain(invalid.chars()) {
            let before = out.len();
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(c as u8),
                _ => {
                    let _ = write!(out, "{}", JsonEscape(c));
                }
            }
            if out.len() > end {
                out.truncate(before);
                out.extend_from_slice(b"\\u2026");
                losses.is_cut = true;
                break 'all;
            }
        }
    }
    out.push(b'"');
    losses
}

/// As in nginx: hexadecimal for everything except plain text. A text that takes more than `most` bytes is cut, and ends
/// with `...`.
pub(super) fn push_quoted(out: &mut Vec<u8>, value: &[u8], most: usize) {
    let end = out.len() + most;
    for b in value {
        if out.len() > end {
            out.extend_from_slice(b"...");
            return;
        }
        if is_plain(b) {
            out.push(*b);
        } else {
            let _ = write!(out, "\\x{b:02X}");
        }
    }
}

pub(super) fn push_number(out: &mut Vec<u8>, value: u64) {
    if let (Ok(digit), 0..10) = (u8::try_from(value), value) {
        return out.push(b'0' + digit);
    }
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Milliseconds with three decimals.
pub(super) fn push_millis(out: &mut Vec<u8>, value: Duration) {
    let micros = micros(value);
    let (millis, rest) = (micros / 1000, micros % 1000);
    if millis < 10 {
        return out.extend_from_slice(&[digit(millis), b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
    push_number(out, millis);
    out.push(b'.');
    push_three_digits(out, rest);
}

/// A number below 1000 with its zeros in front.
pub(super) fn push_three_digits(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&[digit(n / 100), digit(n / 10), digit(n)]);
}

/// The last digit of a number.
fn digit(n: u64) -> u8 {
    b'0' + u8::try_from(n % 10).unwrap_or_default()
}

pub(super) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            // The longest one has 15 bytes, and a dot behind it.
            let (mut text, mut len) = ([b'.'; 16], 0);
            for byte in v4.octets() {
                let digits = [byte / 100, byte / 10 % 10, byte % 10];
                let first = if byte >= 100 {
                    0
                } else if byte >= 10 {
                    1
                } else {
                    2
                };
                for digit in &digits[first..] {
                    text[len % 16] = b'0' + digit;
                    len += 1;
                }
                len += 1;
            }
            out.extend_from_slice(&text[..(len - 1) % 16]);
        }
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

fn push_socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            push_address(out, (*v4.ip()).into());
            out.push(b':');
            push_number(out, v4.port().into());
        }
        SocketAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_flagged_and_cut() {
        let check = |value: &[u8], most: usize, want: &str, is_cut: bool, is_invalid: bool| {
            let mut out = Vec::new();
            let losses = push_json_string(&mut out, value, most);
            assert_eq!(String::from_utf8(out).unwrap(), want);
            assert_eq!(losses, Losses { is_cut, is_invalid }, "{want}");
            let mut out = Vec::new();
            let mut line = JsonLine::new(&mut out, RecordFields::default());
            line.text(RecordField::Host, value, most);
            assert_eq!(
                (line.cut.has(RecordField::Host), line.invalid.has(RecordField::Host)),
                (is_cut, is_invalid),
                "{want}"
            );
            assert_eq!(String::from_utf8(out).unwrap(), format!(",\"host\":{want}"));
        };
        check(b"plain", 5, r#""plain""#, false, false);
        check(b"plainer", 5, r#""plain\u2026""#, true, false);
        check(b"a\"\\\n", 99, r#""a\"\\\u000a""#, false, false);
        check(b"a\xffb", 99, r#""a\ufffdb""#, false, true);
        check("\u{fffd}".as_bytes(), 99, r#""\ufffd""#, false, false);
        check("\u{202e}\u{9b}\u{7f}\u{1f600}".as_bytes(), 99, r#""\u202e\u009b\u007f\ud83d\ude00""#, false, false);
        check("\u{1f600}".as_bytes(), 11, r#""\u2026""#, true, false);
    }

    #[test]
    fn plain_is_plain_at_every_place() {
        for len in 0..20 {
            let plain = vec![b'a'; len];
            assert!(is_all_plain(&plain));
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut value = plain.clone();
                    value[at] = byte;
                    assert_eq!(is_all_plain(&value), is_plain(&byte), "{byte} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn numbers() {
        for (micros, want) in [
            (0, "0.000"),
            (7, "0.007"),
            (1_500, "1.500"),
            (9_999, "9.999"),
            (10_000, "10.000"),
            (12_345_678, "12345.678"),
        ] {
            let mut out = Vec::new();
            push_millis(&mut out, Duration::from_micros(micros));
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        for address in ["192.0.2.1", "0.0.0.0", "255.99.100.10", "255.255.255.255", "9.10.99.100", "2001:db8::1", "::"]
        {
            let mut out = Vec::new();
            push_address(&mut out, address.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), address);
        }
        for address in ["192.0.2.1:443", "[2001:db8::1]:80", "[fe80::1%3]:65535"] {
            let mut out = Vec::new();
            push_socket_address(&mut out, address.parse().unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), address);
        }
    }
}
