//! HTML that is text within another text: in strings of JSON, and in escaped XML. URLs are found by what stands before
//! them: a quote behind an equals sign, or the descriptor of an image candidate.

use super::edit::{Edits, Scan};
use super::escape::{DecodedText, Escaping};
use super::names::OwnNames;
use super::probe::{PROBE_MAX, UrlProbe, probe};

/// The beginning of a URL, as programs write it.
const HTTP: &[u8] = b"http:";
/// Bytes before a URL that are looked at.
const BEFORE_MAX: usize = 12;

/// A scanner of HTML within a text.
#[derive(Debug)]
pub struct InnerText {
    names: OwnNames,
    escaping: Escaping,
    /// The last bytes that were dealt with.
    before: Vec<u8>,
}

impl InnerText {
    /// Begins a text.
    #[must_use]
    pub fn new(names: OwnNames, escaping: Escaping) -> Self {
        Self { names, escaping, before: Vec::new() }
    }

    /// Begins another text.
    pub fn restart(&mut self) {
        self.before.clear();
    }

    /// `true` if a URL may begin behind these bytes.
    fn begins(&self, before: &[u8]) -> bool {
        let decoded = DecodedText::of(before, self.escaping, true).text;
        let bare = decoded.trim_ascii_end();
        let is_candidate = decoded.len() > bare.len()
            && bare
                .strip_suffix(b",")
                .is_some_and(|before| matches!(before.trim_ascii_end().last(), Some(b'w' | b'x')));
        decoded.ends_with(b"=\"") || decoded.ends_with(b"='") || is_candidate
    }

    /// Remembers the last bytes before a place.
    fn note(&mut self, text: &[u8]) {
        self.before.extend_from_slice(&text[text.len().saturating_sub(BEFORE_MAX)..]);
        let surplus = self.before.len().saturating_sub(BEFORE_MAX);
        self.before.drain(..surplus);
    }

    /// Returns the bytes before a place.
    fn before(&self, text: &[u8]) -> Vec<u8> {
        let near = &text[text.len().saturating_sub(BEFORE_MAX)..];
        let known = self.before.len().saturating_sub(BEFORE_MAX - near.len());
        [&self.before[known..], near].concat()
    }
}

impl Scan for InnerText {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        let done = loop {
            let Some(found) = memchr::memmem::find(&text[at..], HTTP) else {
                // The last bytes may be the beginning of one.
                let kept = (1..HTTP.len()).rev().find(|n| text[at..].ends_with(&HTTP[..*n])).unwrap_or_default();
                break text.len() - if is_last { 0 } else { kept };
            };
            let start = at + found;
            at = start + HTTP.len();
            if !self.begins(&self.before(&text[..start])) {
                continue;
            }
            let window = &text[start..text.len().min(start + PROBE_MAX + 1)];
            let mut part = Edits::default();
            let outcome = probe(window, self.escaping, is_last, &self.names, &mut part);
            if outcome == UrlProbe::More && window.len() <= PROBE_MAX {
                break start;
            }
            edits.adopt(part, |place| start + place);
        };
        self.note(&text[..done]);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::blog;
    use super::*;

    #[test]
    fn within_other_texts() {
        let check = |source: &str, escaping: Escaping, want: &str| {
            let (mut edits, mut out) = (Edits::default(), Vec::new());
            let done = InnerText::new(blog(), escaping).scan(source.as_bytes(), true, &mut edits);
            assert_eq!(done, source.len());
            edits.apply(source.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        };
        check(
            r#"see http://blog.example/ <img src=\"http:\/\/blog.example\/a\" srcset='http://blog.example/b 1x, http://blog.example/c 2x'>"#,
            Escaping::Json,
            r#"see http://blog.example/ <img src=\"https:\/\/blog.example\/a\" srcset='https://blog.example/b 1x, https://blog.example/c 2x'>"#,
        );
        check(
            "&lt;a href=&quot;http://blog.example&quot;&gt;http://blog.example&lt;a href=\"http://evil.example\"",
            Escaping::Html,
            "&lt;a href=&quot;https://blog.example&quot;&gt;http://blog.example&lt;a href=\"http://evil.example\"",
        );
    }
}
