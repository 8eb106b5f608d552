//! JSON, and strings in scripts that a program wrote as JSON.

use super::edit::{Edits, Scan};
use super::escape::{Escaping, until};
use super::inner::InnerText;
use super::names::OwnNames;
use super::probe::{PROBE_MAX, UrlProbe, probe};

/// Members whose values are names, though they look like URLs.
const IDS: [&[u8]; 4] = [b"id", b"@id", b"guid", b"@context"];
/// The longest name of a member that is compared.
const NAME_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JsonState {
    Between,
    Begins,
    Within,
    /// In a string that stays.
    Stays,
}

/// A scanner of JSON: URLs at the beginning of strings, and in HTML within strings. Names of members stay, and the
/// values of `IDS`.
#[derive(Debug)]
pub struct JsonText {
    names: OwnNames,
    state: JsonState,
    inner: InnerText,
    /// The beginning of the last string, and `true` if a colon followed it.
    last: Vec<u8>,
    is_value: bool,
}

impl JsonText {
    /// Begins a text.
    #[must_use]
    pub fn new(names: OwnNames) -> Self {
        let inner = InnerText::new(names.clone(), Escaping::Json);
        Self { names, state: JsonState::Between, inner, last: Vec::new(), is_value: false }
    }

    /// Reads between strings.
    fn between(&mut self, text: &[u8]) -> usize {
        let end = memchr::memchr(b'"', text);
        let part = &text[..end.unwrap_or(text.len())];
        if let Some(mark) = part.iter().rev().find(|b| !b.is_ascii_whitespace()) {
            self.is_value = *mark == b':';
        }
        let Some(end) = end else { return text.len() };
        let is_id = self.is_value && IDS.contains(&&*self.last);
        self.state = if is_id { JsonState::Stays } else { JsonState::Begins };
        self.last.clear();
        self.inner.restart();
        end + 1
    }

    /// Reads a string.
    fn string(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> Option<usize> {
        let (length, ends) = until(text, b'"', false);
        let content = &text[..length];
        if self.state == JsonState::Begins {
            let window = &content[..length.min(PROBE_MAX + 1)];
            let outcome = probe(window, Escaping::Json, ends || is_last, &self.names, edits);
            if outcome == UrlProbe::More && window.len() <= PROBE_MAX {
                return None;
            }
            self.state = JsonState::Within;
        }
        let done = match self.state {
            JsonState::Within => self.inner.scan(content, ends || is_last, edits),
            _ => length,
        };
        let room = NAME_MAX.saturating_sub(self.last.len());
        self.last.extend_from_slice(&content[..done.min(room)]);
        if ends {
            self.state = JsonState::Between;
            return Some(length + 1);
        }
        Some(if is_last { text.len() } else { done }).filter(|done| *done > 0)
    }
}

impl Scan for JsonText {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let mut part = Edits::default();
            let length = match self.state {
                JsonState::Between => Some(self.between(rest)),
                _ => self.string(rest, is_last, &mut part),
            };
            edits.adopt(part, |place| at + place);
            match length {
                Some(length) => at += length,
                None => return at,
            }
        }
        at
    }
}

/// A scanner of scripts. Only strings in the form that programs write are read, `"http:\/\/...`: PHP's `json_encode`
/// does, and nobody else. Whatever a script does with other strings, it stays as it is.
#[derive(Debug)]
pub struct ScriptText {
    names: OwnNames,
}

/// The beginning of such a string.
const BEGIN: &[u8] = br#""http:\/\/"#;

impl ScriptText {
    /// Begins a script.
    #[must_use]
    pub fn new(names: OwnNames) -> Self {
        Self { names }
    }
}

impl Scan for ScriptText {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        loop {
            let Some(found) = memchr::memmem::find(&text[at..], BEGIN) else {
                let kept = (1..BEGIN.len()).rev().find(|n| text[at..].ends_with(&BEGIN[..*n])).unwrap_or_default();
                return text.len() - if is_last { 0 } else { kept };
            };
            let start = at + found + 1;
            let window = &text[start..text.len().min(start + PROBE_MAX + 1)];
            let mut part = Edits::default();
            // A quote ends an authority: the end of the string needs no search.
            let outcome = probe(window, Escaping::Json, is_last, &self.names, &mut part);
            if outcome == UrlProbe::More && window.len() <= PROBE_MAX {
                return start - 1;
            }
            edits.adopt(part, |place| start + place);
            at = start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::blog;
    use super::*;

    fn rewritten(scan: &mut dyn Scan, source: &str) -> String {
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        assert_eq!(scan.scan(source.as_bytes(), true, &mut edits), source.len());
        edits.apply(source.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json() {
        let check = |source: &str, want: &str| assert_eq!(rewritten(&mut JsonText::new(blog()), source), want);
        check(
            r#"{"url":"http://blog.example/","id":"http://blog.example/?p=1"}"#,
            r#"{"url":"https://blog.example/","id":"http://blog.example/?p=1"}"#,
        );
        check(
            r#"{"id" : "http:\/\/blog.example", "x": ["http:\/\/blog.example\/a", "b"]}"#,
            r#"{"id" : "http:\/\/blog.example", "x": ["https:\/\/blog.example\/a", "b"]}"#,
        );
        check(
            r#"{"content_html":"<img src=\"http:\/\/blog.example\/a\">http://blog.example"}"#,
            r#"{"content_html":"<img src=\"https:\/\/blog.example\/a\">http://blog.example"}"#,
        );
        check(
            r#"["http://evil.example", "\"http://blog.example", ""]"#,
            r#"["http://evil.example", "\"http://blog.example", ""]"#,
        );
    }

    #[test]
    fn scripts() {
        let check = |source: &str, want: &str| assert_eq!(rewritten(&mut ScriptText::new(blog()), source), want);
        check(r#"var a = {"url":"http:\/\/blog.example\/x"};"#, r#"var a = {"url":"https:\/\/blog.example\/x"};"#);
        let stays = r#"var a = "http://blog.example/x", b = 'http:\/\/blog.example', c = /"http:\/\/evil.example/;"#;
        check(stays, stays);
        // The string ends with the URL, with an escaped quote, or with the script.
        check(r#"a("http:\/\/blog.example","b")"#, r#"a("https:\/\/blog.example","b")"#);
        check(r#"a("http:\/\/blog.example\"b")"#, r#"a("https:\/\/blog.example\"b")"#);
        check(r#"a("http:\/\/blog.example"#, r#"a("https:\/\/blog.example"#);
        check(r#"a("http:\/\/","blog.example")"#, r#"a("http:\/\/","blog.example")"#);
    }
}
