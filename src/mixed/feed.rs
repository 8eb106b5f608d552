//! Feeds and sitemaps: RSS, Atom, RDF, and the XML of sitemaps. Only members that are known to be links or HTML change:
//! `guid` and `id` are names, by which readers know what they have shown.

use super::attribute::rewrite_value_url;
use super::edit::{Edits, Scan};
use super::escape::Escaping;
use super::html::{Html, Syntax};
use super::inner::InnerText;
use super::names::OwnNames;
use super::probe::{PROBE_MAX, UrlProbe, probe};
use super::tag::TagScan;

/// Root elements of documents that are read. Others pass: exports, answers to calls.
const ROOTS: [&[u8]; 5] = [b"rss", b"feed", b"rdf:rdf", b"urlset", b"sitemapindex"];
/// Elements whose text is a URL.
const LINKS: [&[u8]; 13] = [
    b"link",
    b"url",
    b"loc",
    b"image:loc",
    b"video:thumbnail_loc",
    b"video:content_loc",
    b"video:player_loc",
    b"comments",
    b"wfw:commentrss",
    b"wfw:comment",
    b"logo",
    b"icon",
    b"uri",
];
/// Elements whose text is HTML.
const MARKUP: [&[u8]; 6] =
    [b"description", b"content:encoded", b"summary", b"content", b"itunes:summary", b"media:description"];
/// Attributes with a URL.
const ATTRIBUTES: [&[u8]; 4] = [b"href", b"url", b"src", b"xml:base"];

enum FeedState {
    /// Text, the element that it is in, and the reader of it.
    Text(TextKind),
    Tag(Box<TagScan>, bool),
    Comment,
    /// `<!doctype>` and `<?xml?>`.
    Bogus,
    Cdata(TextKind),
    /// Not a feed.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Other,
    /// At the beginning of a link.
    Link,
    Markup,
}

/// A scanner of feeds.
pub struct Feed {
    names: OwnNames,
    state: FeedState,
    is_known: bool,
    inner: InnerText,
    /// The document in a CDATA section.
    document: Option<Box<Html>>,
}

impl Feed {
    /// Begins a feed.
    #[must_use]
    pub fn new(names: OwnNames) -> Self {
        let inner = InnerText::new(names.clone(), Escaping::Html);
        Self { names, state: FeedState::Text(TextKind::Other), is_known: false, inner, document: None }
    }

    /// Reads text. Returns the length that is dealt with, `None` if more bytes decide.
    fn text(&mut self, text: &[u8], kind: TextKind, is_last: bool, edits: &mut Edits) -> Option<usize> {
        let end = memchr::memchr(b'<', text);
        let part = &text[..end.unwrap_or(text.len())];
        if !part.is_empty() {
            return self.content(part, kind, end.is_some() || is_last, Escaping::Html, edits);
        }
        let is_cut = |wanted: &[u8]| text.len() < wanted.len() && wanted.starts_with(text) && !is_last;
        if is_cut(b"<![CDATA[") || is_cut(b"<!--") || is_cut(b"<?xml-stylesheet") || is_cut(b"</") {
            return None;
        }
        let (state, length) = match text.get(1) {
            _ if text.starts_with(b"<![CDATA[") => {
                self.document = None;
                (FeedState::Cdata(kind), 9)
            }
            _ if text.starts_with(b"<!--") => (FeedState::Comment, 4),
            _ if text.starts_with(b"<?xml-stylesheet") => (FeedState::Tag(Box::new(TagScan::new(2)), false), 0),
            Some(b'/') => (FeedState::Tag(Box::new(TagScan::new(2)), true), 0),
            Some(b'!' | b'?') => (FeedState::Bogus, 2),
            _ => (FeedState::Tag(Box::new(TagScan::new(1)), false), 0),
        };
        self.state = state;
        Some(length)
    }

    /// Reads the contents of an element.
    fn content(
        &mut self,
        part: &[u8],
        kind: TextKind,
        ends: bool,
        escaping: Escaping,
        edits: &mut Edits,
    ) -> Option<usize> {
        match kind {
            TextKind::Other => Some(part.len()),
            TextKind::Markup => Some(self.inner.scan(part, ends, edits)).filter(|length| *length > 0),
            TextKind::Link => {
                let window = &part[..part.len().min(PROBE_MAX + 1)];
                if probe(window, escaping, ends, &self.names, edits) == UrlProbe::More && window.len() <= PROBE_MAX {
                    // White space alone may come before CDATA.
                    return None;
                }
                let is_space = part.trim_ascii().is_empty();
                if !is_space {
                    self.kind_is(TextKind::Other);
                }
                Some(part.len())
            }
        }
    }

    fn kind_is(&mut self, kind: TextKind) {
        if let FeedState::Text(known) | FeedState::Cdata(known) = &mut self.state {
            *known = kind;
        }
    }

    /// Reads a tag.
    fn tag(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> Option<usize> {
        let FeedState::Tag(scan, is_end) = &mut self.state else { return Some(0) };
        let Some(length) = scan.scan(text) else {
            if text.len() > super::tag::LOOKED_AT {
                self.state = FeedState::Foreign;
            }
            return is_last.then_some(text.len());
        };
        if length > super::tag::LOOKED_AT {
            self.state = FeedState::Foreign;
            return Some(length);
        }
        let name = text[scan.name.clone()].to_ascii_lowercase();
        let (is_end, attributes) = (*is_end, std::mem::take(&mut scan.attributes));
        let is_empty = scan.closes_itself;
        let is_instruction = name == b"xml-stylesheet";
        if !is_end && !is_instruction && !self.is_known {
            if !ROOTS.contains(&&*name) {
                self.state = FeedState::Foreign;
                return Some(length);
            }
            self.is_known = true;
        }
        for attribute in attributes {
            if ATTRIBUTES.contains(&&*text[attribute.name.clone()].to_ascii_lowercase()) {
                let mut part = Edits::default();
                rewrite_value_url(&text[attribute.value.clone()], &self.names, &mut part);
                edits.adopt(part, |place| attribute.value.start + place);
            }
        }
        let kind = match () {
            () if is_end || is_empty || is_instruction => TextKind::Other,
            () if LINKS.contains(&&*name) => TextKind::Link,
            () if MARKUP.contains(&&*name) => TextKind::Markup,
            () => TextKind::Other,
        };
        self.inner.restart();
        self.state = FeedState::Text(kind);
        Some(length)
    }

    /// Reads a CDATA section.
    fn cdata(&mut self, text: &[u8], kind: TextKind, is_last: bool, edits: &mut Edits) -> Option<usize> {
        let end = memchr::memmem::find(text, b"]]>");
        let kept = (1..3).rev().find(|n| text.ends_with(&b"]]>"[..*n])).unwrap_or_default();
        let length = end.unwrap_or(text.len() - if is_last { 0 } else { kept });
        let (part, ends) = (&text[..length], end.is_some() || is_last);
        let done = match kind {
            TextKind::Markup => {
                let new = || Box::new(Html::new(self.names.clone(), Syntax::Html, false));
                self.document.get_or_insert_with(new).scan(part, ends, edits)
            }
            _ if part.is_empty() => 0,
            kind => self.content(part, kind, ends, Escaping::Plain, edits)?,
        };
        if end.is_some() {
            let kind = if let FeedState::Cdata(kind) = self.state { kind } else { kind };
            self.state = FeedState::Text(kind);
            return Some(length + 3);
        }
        Some(done).filter(|done| *done > 0)
    }

    /// Passes over text up to its end.
    fn pass(&mut self, text: &[u8], end: &[u8], is_last: bool) -> Option<usize> {
        if let Some(found) = memchr::memmem::find(text, end) {
            self.state = FeedState::Text(TextKind::Other);
            return Some(found + end.len());
        }
        let kept = if is_last { 0 } else { end.len() - 1 };
        Some(text.len().saturating_sub(kept)).filter(|length| *length > 0)
    }
}

impl Scan for Feed {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let mut part = Edits::default();
            let length = match self.state {
                FeedState::Text(kind) => self.text(rest, kind, is_last, &mut part),
                FeedState::Tag(..) => self.tag(rest, is_last, &mut part),
                FeedState::Comment => self.pass(rest, b"-->", is_last),
                FeedState::Bogus => self.pass(rest, b">", is_last),
                FeedState::Cdata(kind) => self.cdata(rest, kind, is_last, &mut part),
                FeedState::Foreign => Some(rest.len()),
            };
            edits.adopt(part, |place| at + place);
            match length {
                Some(length) => at += length,
                None => return if is_last { text.len() } else { at },
            }
        }
        at
    }
}
