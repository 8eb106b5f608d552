//! The rewriting of one body.

use super::css::Css;
use super::edit::{Edits, Scan};
use super::feed::Feed;
use super::html::{Html, Syntax};
use super::json::JsonText;
use super::media::RewriteKind;
use super::names::OwnNames;

/// The most bytes that are held back. A scanner that wants more has lost its way: the rest passes.
const HELD_MAX: usize = 256 << 10;
/// Byte order marks of UTF-16: such a text passes.
const UTF16: [&[u8]; 2] = [b"\xfe\xff", b"\xff\xfe"];

/// Begins an escape sequence that chooses a character set.
const ESCAPE: u8 = 0x1b;

/// A scanner, by the type of the body.
enum BodyScanner {
    Html(Box<Html>),
    Css(Box<Css>),
    Feed(Box<Feed>),
    Json(Box<JsonText>),
    /// Everything passes.
    None,
}

/// Rewrites a body, piece by piece. How it is cut into pieces makes no difference.
pub struct Rewriter {
    scanner: BodyScanner,
    /// Bytes that wait for more.
    held: Vec<u8>,
    edits: Edits,
    has_begun: bool,
    /// The last byte that was taken.
    last: u8,
    references: u64,
}

impl Rewriter {
    /// Begins a body. `keeps_inline` says that inline scripts and styles stay.
    #[must_use]
    pub fn new(kind: RewriteKind, names: OwnNames, keeps_inline: bool) -> Self {
        let scanner = match kind {
            RewriteKind::Html => BodyScanner::Html(Box::new(Html::new(names, Syntax::Html, keeps_inline))),
            RewriteKind::Xhtml => BodyScanner::Html(Box::new(Html::new(names, Syntax::Xhtml, keeps_inline))),
            RewriteKind::Css => BodyScanner::Css(Box::new(Css::new(names))),
            RewriteKind::Feed => BodyScanner::Feed(Box::new(Feed::new(names))),
            RewriteKind::Json => BodyScanner::Json(Box::new(JsonText::new(names))),
        };
        Self { scanner, held: Vec::new(), edits: Edits::default(), has_begun: false, last: 0, references: 0 }
    }

    /// Returns the number of references that were rewritten.
    #[must_use]
    pub fn references(&self) -> u64 {
        self.references
    }

    /// Takes a piece, and writes what is ready.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(at) = self.other_characters(piece) else { return self.read(piece, false, out) };
        self.read(&piece[..at], false, out);
        self.scanner = BodyScanner::None;
        self.read(&piece[at..], false, out);
    }

    /// Returns the place in a piece where another character set begins: one of ISO-2022-JP, which a page may name in
    /// `meta` alone. Quotes and angle brackets are parts of ordinary characters there. Text in other charsets has no
    /// such escape sequence.
    fn other_characters(&mut self, piece: &[u8]) -> Option<usize> {
        let chooses = |byte: &u8| matches!(byte, b'$' | b'(');
        let before = std::mem::replace(&mut self.last, *piece.last()?);
        if before == ESCAPE && piece.first().is_some_and(chooses) {
            return Some(0);
        }
        memchr::memchr_iter(ESCAPE, piece).find(|at| piece.get(at + 1).is_some_and(chooses))
    }

    /// Writes the rest, at the end of the body.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.read(&[], true, out);
    }

    fn read(&mut self, piece: &[u8], is_last: bool, out: &mut Vec<u8>) {
        if self.held.is_empty() {
            let done = self.scan(piece, is_last, out);
            self.held.extend_from_slice(&piece[done..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(piece);
            let done = self.scan(&held, is_last, out);
            held.drain(..done);
            self.held = held;
        }
        if self.held.len() > HELD_MAX || is_last {
            self.scanner = BodyScanner::None;
            out.append(&mut self.held);
        }
    }

    /// Reads a text and writes the part that is dealt with. Returns its length.
    fn scan(&mut self, text: &[u8], is_last: bool, out: &mut Vec<u8>) -> usize {
        if !self.has_begun {
            if text.len() < 2 && !is_last {
                return 0;
            }
            self.has_begun = true;
            if UTF16.iter().any(|mark| text.starts_with(mark)) {
                self.scanner = BodyScanner::None;
            }
        }
        self.edits.clear();
        let edits = &mut self.edits;
        let done = match &mut self.scanner {
            BodyScanner::Html(html) => html.scan(text, is_last, edits),
            BodyScanner::Css(css) => css.scan(text, is_last, edits),
            BodyScanner::Feed(feed) => feed.scan(text, is_last, edits),
            BodyScanner::Json(json) => json.scan(text, is_last, edits),
            BodyScanner::None => text.len(),
        };
        self.edits.apply(&text[..done], out);
        self.references += self.edits.references;
        done
    }
}
