//! HTML, as a stream: a tokenizer (HTML Living Standard, section 13.2.5) that knows where attributes, style sheets and
//! scripts are, and passes over everything else.

use super::attribute::{self, AttributeRules, value_of};
use super::css::Css;
use super::edit::{Edits, Scan};
use super::foreign::ForeignContent;
use super::json::{JsonText, ScriptText};
use super::names::OwnNames;
use super::raw_text::{RawEnd, RawText};
use super::tag::{LOOKED_AT, TagScan};

/// The language of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// HTML.
    Html,
    /// XML: no raw text, and CDATA everywhere.
    Xhtml,
}

/// A scanner of documents.
pub struct Html {
    names: OwnNames,
    syntax: Syntax,
    /// `true` if inline scripts and styles stay, since a policy may have their hashes.
    keeps_inline: bool,
    /// `true` in a document that is an attribute's value: it has none of its own.
    is_nested: bool,
    state: HtmlState,
    foreign: ForeignContent,
}

enum HtmlState {
    Data,
    Tag(Box<OpenTag>),
    Comment,
    /// `<!doctype>`, `<?...>` and the like, up to `>`.
    Bogus,
    Cdata,
    Raw(Box<RawContent>),
    /// After `<plaintext>`.
    Plain,
}

/// A tag whose end has not come.
struct OpenTag {
    scan: TagScan,
    is_end: bool,
    /// The name of a tag that was too long.
    passing: Option<Vec<u8>>,
}

/// The raw text of an element.
struct RawContent {
    end: RawText,
    /// The bytes in which the end was searched already.
    searched: usize,
    reader: RawReader,
}

enum RawReader {
    None,
    Style(Css),
    Script(ScriptText),
    Json(JsonText),
}

impl Html {
    /// Begins a document.
    #[must_use]
    pub fn new(names: OwnNames, syntax: Syntax, keeps_inline: bool) -> Self {
        Self {
            names,
            syntax,
            keeps_inline,
            is_nested: false,
            state: HtmlState::Data,
            foreign: ForeignContent::default(),
        }
    }

    /// Reads text outside of tags. Returns its length, or `None` if more bytes decide.
    fn data(&mut self, text: &[u8], is_last: bool) -> Option<usize> {
        let Some(start) = memchr::memchr(b'<', text) else { return Some(text.len()) };
        if start > 0 {
            return Some(start);
        }
        let tag = |name, is_end| HtmlState::Tag(Box::new(OpenTag { scan: TagScan::new(name), is_end, passing: None }));
        let cut = if is_last { Some(text.len()) } else { None };
        let is_cut = |wanted: &[u8]| text.len() < wanted.len() && wanted.starts_with(text);
        match (text.get(1), text.get(2)) {
            (None, _) | (Some(b'/'), None) => return cut,
            (Some(first), _) if first.is_ascii_alphabetic() => {
                self.state = tag(1, false);
                return Some(0);
            }
            (Some(b'/'), Some(first)) if first.is_ascii_alphabetic() => {
                self.state = tag(2, true);
                return Some(0);
            }
            (Some(b'!'), _) if text.starts_with(b"<!--") => {
                self.state = HtmlState::Comment;
                // `<!-->` ends at once: the same hyphens count.
            }
            (Some(b'!'), _) if text.starts_with(b"<![CDATA[") && self.has_cdata() => self.state = HtmlState::Cdata,
            (Some(b'!'), _) if is_cut(b"<!--") || is_cut(b"<![CDATA[") => return cut,
            (Some(b'!' | b'?' | b'/'), _) => self.state = HtmlState::Bogus,
            _ => return Some(1),
        }
        Some(2)
    }

    fn has_cdata(&self) -> bool {
        self.syntax == Syntax::Xhtml || self.foreign.is_foreign()
    }

    /// Passes over text up to one of its ends.
    fn pass(&mut self, text: &[u8], ends: &[&[u8]], is_last: bool) -> Option<usize> {
        let found = first_end(text, ends);
        if let Some(length) = found {
            self.state = HtmlState::Data;
            return Some(length);
        }
        let longest = ends.iter().map(|end| end.len()).max().unwrap_or(1);
        let kept = if is_last { 0 } else { longest - 1 };
        Some(text.len().saturating_sub(kept)).filter(|length| *length > 0)
    }

    /// Reads a tag. Returns the length that is dealt with.
    fn tag(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> Option<usize> {
        let HtmlState::Tag(open) = &mut self.state else { return Some(0) };
        let end = open.scan.scan(text);
        let is_long = text.len() > LOOKED_AT;
        if end.is_none() && open.passing.is_none() && !is_long {
            return is_last.then_some(text.len());
        }
        let HtmlState::Tag(mut open) = std::mem::replace(&mut self.state, HtmlState::Data) else { return Some(0) };
        let was_long = open.passing.is_some() || end.is_some_and(|end| end > LOOKED_AT);
        let name = open.passing.take().unwrap_or_else(|| {
            let name = text[open.scan.name.clone()].to_ascii_lowercase();
            if !open.is_end {
                self.attributes(&name, text, &open.scan, edits);
            }
            name
        });
        match end {
            Some(length) => {
                self.follow(&name, &text[..length], &open, was_long);
                Some(length)
            }
            None => {
                open.scan.pass();
                open.passing = Some(name);
                self.state = HtmlState::Tag(open);
                Some(text.len())
            }
        }
    }

    fn attributes(&self, name: &[u8], tag: &[u8], scan: &TagScan, edits: &mut Edits) {
        let document = |text: &[u8], edits: &mut Edits| {
            if !self.is_nested {
                let mut nested = Self::new(self.names.clone(), Syntax::Html, self.keeps_inline);
                nested.is_nested = true;
                nested.scan(text, true, edits);
            }
        };
        let rules = AttributeRules { names: &self.names, keeps_styles: self.keeps_inline, document: &document };
        attribute::rewrite(name, tag, scan, rules, edits);
    }

    /// Goes on behind a tag.
    fn follow(&mut self, name: &[u8], tag: &[u8], open: &OpenTag, was_long: bool) {
        if open.is_end {
            self.foreign.end(name);
            return;
        }
        self.foreign.start(name, open.scan.closes_itself);
        if self.syntax == Syntax::Xhtml || self.foreign.is_foreign() {
            return;
        }
        if name == b"plaintext" {
            self.state = HtmlState::Plain;
        } else if let Some(end) = RawText::of(name) {
            // The type of its contents may be in a part that was not looked at.
            let reader = if was_long { RawReader::None } else { self.reader(name, tag, &open.scan) };
            self.state = HtmlState::Raw(Box::new(RawContent { end, searched: 0, reader }));
        }
    }

    /// Returns the reader of an element's raw text.
    fn reader(&self, name: &[u8], tag: &[u8], scan: &TagScan) -> RawReader {
        if self.keeps_inline {
            return RawReader::None;
        }
        let kind = value_of(tag, scan, "type").unwrap_or_default();
        match (name, &*kind) {
            (b"style", b"" | b"text/css") => RawReader::Style(Css::new(self.names.clone())),
            // Data that browsers and scripts load from. JSON-LD is for search engines, and its URLs are names.
            (b"script", b"importmap" | b"speculationrules" | b"application/json") => {
                RawReader::Json(JsonText::new(self.names.clone()))
            }
            (b"script", b"" | b"module" | b"text/javascript" | b"application/javascript") => {
                RawReader::Script(ScriptText::new(self.names.clone()))
            }
            _ => RawReader::None,
        }
    }

    /// Reads raw text. Returns the length that is dealt with, `None` if that is nothing.
    fn raw(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> Option<usize> {
        let HtmlState::Raw(raw) = &mut self.state else { return Some(0) };
        let (content, ends) = match raw.end.find(text, raw.searched, is_last) {
            RawEnd::At(end) => (end, true),
            RawEnd::After(end) => (end, is_last),
        };
        let length = match &mut raw.reader {
            RawReader::None => content,
            RawReader::Style(css) => css.scan(&text[..content], ends, edits),
            RawReader::Script(script) => script.scan(&text[..content], ends, edits),
            RawReader::Json(json) => json.scan(&text[..content], ends, edits),
        };
        raw.searched = content - length;
        if ends {
            self.state = HtmlState::Data;
            return Some(content);
        }
        Some(length).filter(|length| *length > 0)
    }
}

/// Returns the length of a text up to the first of its ends. All of them end with `>`: one search finds it, which reads
/// nothing behind it.
fn first_end(text: &[u8], ends: &[&[u8]]) -> Option<usize> {
    let is_end = |at: &usize| ends.iter().any(|end| text[..=*at].ends_with(end));
    let found = memchr::memchr_iter(b'>', text).find(is_end).map(|at| at + 1);
    #[cfg(test)]
    super::work::add(found.unwrap_or(text.len()));
    found
}

impl Scan for Html {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let mut part = Edits::default();
            let length = match &self.state {
                HtmlState::Data => self.data(rest, is_last),
                HtmlState::Tag(_) => self.tag(rest, is_last, &mut part),
                HtmlState::Comment => self.pass(rest, &[b"-->", b"--!>"], is_last),
                HtmlState::Bogus => self.pass(rest, &[b">"], is_last),
                HtmlState::Cdata => self.pass(rest, &[b"]]>"], is_last),
                HtmlState::Raw(_) => self.raw(rest, is_last, &mut part),
                HtmlState::Plain => Some(rest.len()),
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

#[cfg(test)]
mod tests {
    use super::super::work;
    use super::*;

    #[test]
    fn ends_of_comments() {
        const ENDS: [&[u8]; 2] = [b"-->", b"--!>"];
        for (text, want) in [
            ("--> a --!>", Some(3)),
            ("--!> a -->", Some(4)),
            (" > -> a-->", Some(10)),
            ("---->", Some(5)),
            ("a --", None),
            ("", None),
        ] {
            assert_eq!(first_end(text.as_bytes(), &ENDS), want, "{text}");
            // Nothing behind the end is read.
            let more = [text, &"x".repeat(10_000)].concat();
            let (found, work) = work::count(|| first_end(more.as_bytes(), &ENDS));
            assert!(found == want && work <= want.unwrap_or(more.len()), "{text}: {work} bytes");
        }
    }
}
