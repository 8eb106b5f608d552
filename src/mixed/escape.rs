//! Texts without their escapes, each byte with its place in the source.

/// The way in which a text escapes its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escaping {
    /// Character references: `&#47;`.
    Html,
    /// `\2f ` and `\/`.
    Css,
    /// `\/` and `\u002f`.
    Json,
    /// None.
    Plain,
}

/// Returns the length of a string, or of a URL in a style sheet, before its end, and `true` if the end is there. A
/// backslash escapes the byte behind it. `breaks` says that a line's end is an end, too.
#[must_use]
pub fn until(text: &[u8], end: u8, breaks: bool) -> (usize, bool) {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if at + 1 == text.len() => return (at, false),
            b'\\' => at += 1,
            byte if *byte == end || breaks && *byte == b'\n' => return (at, true),
            _ => {}
        }
        at += 1;
    }
    (text.len(), false)
}

/// A decoded text.
#[derive(Debug, Default, Clone)]
pub struct DecodedText {
    /// Its bytes. Characters beyond ASCII that were escaped are [`OTHER`].
    pub text: Vec<u8>,
    /// The place of each byte in the source, and the end.
    places: Vec<usize>,
}

/// A byte for a character that no host name and no syntax has.
pub const OTHER: u8 = 0x7f;

/// Named references of the characters in URLs and CSS (HTML Living Standard, section 13.5). Others stay as they are: no
/// host name has them.
const NAMED: [(&[u8], u8); 20] = [
    (b"amp;", b'&'),
    (b"AMP;", b'&'),
    (b"quot;", b'"'),
    (b"apos;", b'\''),
    (b"lt;", b'<'),
    (b"gt;", b'>'),
    (b"colon;", b':'),
    (b"sol;", b'/'),
    (b"bsol;", b'\\'),
    (b"period;", b'.'),
    (b"comma;", b','),
    (b"semi;", b';'),
    (b"lpar;", b'('),
    (b"rpar;", b')'),
    (b"quest;", b'?'),
    (b"num;", b'#'),
    (b"commat;", b'@'),
    (b"equals;", b'='),
    (b"Tab;", b'\t'),
    (b"NewLine;", b'\n'),
];

impl DecodedText {
    /// Decodes a text. If more may follow, an escape that is cut off at its end is left out.
    #[must_use]
    pub fn of(source: &[u8], escaping: Escaping, is_whole: bool) -> Self {
        let mut decoded = Self { text: Vec::with_capacity(source.len()), places: Vec::with_capacity(source.len() + 1) };
        let mut at = 0;
        while let Some(byte) = source.get(at) {
            let (character, length) = match (escaping, byte) {
                (Escaping::Html, b'&') => reference(&source[at..]),
                (Escaping::Css, b'\\') => css(&source[at..]),
                (Escaping::Json, b'\\') => json(&source[at..]),
                _ => (*byte, 1),
            };
            // An escape at the end may continue.
            if !is_whole && length > 1 && at + length >= source.len() || at + length > source.len() {
                break;
            }
            if !is_whole && length == 1 && is_cut(*byte, &source[at..], escaping) {
                break;
            }
            decoded.places.push(at);
            decoded.text.push(character);
            at += length;
        }
        #[cfg(test)]
        super::work::add(at);
        decoded.places.push(at.min(source.len()));
        decoded
    }

    /// Returns the place in the source of a byte of the text, or of its end.
    #[must_use]
    pub fn place(&self, at: usize) -> usize {
        self.places.get(at).or_else(|| self.places.last()).copied().unwrap_or_default()
    }

    /// Removes bytes that do not count.
    pub fn retain(&mut self, counts: impl Fn(u8) -> bool) {
        if self.text.iter().all(|b| counts(*b)) {
            return;
        }
        let end = self.places.pop();
        let mut kept = self.text.iter().map(|b| counts(*b));
        self.places.retain(|_| kept.next().unwrap_or_default());
        self.places.extend(end);
        self.text.retain(|b| counts(*b));
    }
}

/// `true` if an escape may begin with this last byte, or with a few before the end.
fn is_cut(first: u8, rest: &[u8], escaping: Escaping) -> bool {
    const LONGEST: usize = 10;
    match escaping {
        Escaping::Html => first == b'&' && rest.len() < LONGEST && !rest.contains(&b';'),
        Escaping::Css | Escaping::Json => first == b'\\' && rest.len() < LONGEST,
        Escaping::Plain => false,
    }
}

fn character(number: Option<u32>) -> u8 {
    let ascii = number.and_then(|number| u8::try_from(number).ok()).filter(|b| b.is_ascii() && *b != 0);
    ascii.unwrap_or(OTHER)
}

/// Reads a character reference. Anything else is `&` itself.
fn reference(text: &[u8]) -> (u8, usize) {
    let Some(rest) = text.get(1..).filter(|rest| !rest.is_empty()) else { return (b'&', 1) };
    if rest[0] != b'#' {
        let found = NAMED.iter().find(|(name, _)| rest.starts_with(name));
        return found.map_or((b'&', 1), |(name, character)| (*character, 1 + name.len()));
    }
    let (radix, start) = if matches!(rest.get(1), Some(b'x' | b'X')) { (16, 2) } else { (10, 1) };
    let is_digit = |b: &u8| char::from(*b).is_digit(radix);
    let digits = rest.get(start..).unwrap_or_default().iter().take_while(|b| is_digit(b)).count();
    if digits == 0 {
        return (b'&', 1);
    }
    let number =
        std::str::from_utf8(&rest[start..start + digits]).ok().and_then(|d| u32::from_str_radix(d, radix).ok());
    let ends = usize::from(rest.get(start + digits) == Some(&b';'));
    (character(number), 1 + start + digits + ends)
}

/// Reads an escape (CSS Syntax, section 4.3.7).
fn css(text: &[u8]) -> (u8, usize) {
    let rest = text.get(1..).unwrap_or_default();
    let digits = rest.iter().take(6).take_while(|b| b.is_ascii_hexdigit()).count();
    match (digits, rest.first()) {
        (0, None) => (b'\\', 1),
        // A line's end within a string: no character.
        (0, Some(b'\n')) => (OTHER, 2),
        (0, Some(other)) => (if other.is_ascii() { *other } else { OTHER }, 2),
        _ => {
            let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|d| u32::from_str_radix(d, 16).ok());
            let space = usize::from(rest.get(digits).is_some_and(u8::is_ascii_whitespace));
            (character(number), 1 + digits + space)
        }
    }
}

/// Reads an escape (RFC 8259 section 7).
fn json(text: &[u8]) -> (u8, usize) {
    match text.get(1) {
        None => (b'\\', 1),
        Some(b'u') => match text.get(2..6).and_then(|d| std::str::from_utf8(d).ok()) {
            Some(digits) => (character(u32::from_str_radix(digits, 16).ok()), 6),
            None => (b'\\', 1),
        },
        Some(b'n' | b'r') => (b'\n', 2),
        Some(b't') => (b'\t', 2),
        Some(b'b' | b'f') => (b' ', 2),
        Some(other) => (if other.is_ascii() { *other } else { OTHER }, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (source, escaping, want) in [
            ("http:&#47;&#x2F;a&amp;b&eacute;&#8364;", Escaping::Html, "http://a&b&eacute;\x7f"),
            ("&#;&#x;&", Escaping::Html, "&#;&#x;&"),
            ("&colon;&sol;&#47", Escaping::Html, "://"),
            (r"\68ttp:\2f /a", Escaping::Css, "http://a"),
            (r"http:\/\/a\u002fb\u20ac", Escaping::Json, "http://a/b\x7f"),
        ] {
            let decoded = DecodedText::of(source.as_bytes(), escaping, true);
            assert_eq!(String::from_utf8(decoded.text.clone()).unwrap(), want, "{source}");
            assert_eq!(decoded.place(decoded.text.len()), source.len());
        }
    }

    #[test]
    fn escapes_that_are_cut_wait() {
        for (source, escaping) in
            [("a&#4", Escaping::Html), ("a&co", Escaping::Html), (r"a\2", Escaping::Css), (r"a\u00", Escaping::Json)]
        {
            let decoded = DecodedText::of(source.as_bytes(), escaping, false);
            assert_eq!(decoded.text, b"a", "{source}");
            assert_eq!(decoded.place(1), 1, "{source}");
        }
    }
}
