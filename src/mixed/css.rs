//! Style sheets (CSS Syntax, section 4): `url(...)`, `@import "..."` and `image-set("...")`. Comments, and strings that
//! are no URLs, stay.

use super::edit::{Edits, Scan};
use super::escape::{Escaping, until};
use super::names::OwnNames;
use super::probe::{PROBE_MAX, UrlProbe, probe};

/// The longest name that is read whole; `-webkit-image-set` fits.
const IDENT_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CssState {
    Normal,
    Comment,
    /// In the rest of a long name.
    LongIdent,
    /// Behind `url(`.
    UrlOpens,
    /// At the beginning of a URL, which ends with a quote or with `)`.
    Url(u8),
    /// In the rest of a string or a URL.
    Rest(u8),
}

/// A scanner of style sheets.
#[derive(Debug)]
pub struct Css {
    names: OwnNames,
    state: CssState,
    /// `true` between `@import` and its URL.
    imports: bool,
    depth: u32,
    /// The depth of the parentheses of `image-set`.
    image_set: Option<u32>,
}

impl Css {
    /// Begins a style sheet.
    #[must_use]
    pub fn new(names: OwnNames) -> Self {
        Self { names, state: CssState::Normal, imports: false, depth: 0, image_set: None }
    }

    /// Begins another one.
    pub fn restart(&mut self) {
        (self.state, self.imports, self.depth, self.image_set) = (CssState::Normal, false, 0, None);
    }

    /// Reads a token or a part of one. Returns its length; 0 in the same state if more bytes are needed.
    fn step(&mut self, text: &[u8], is_last: bool) -> usize {
        match self.state {
            CssState::Normal => self.normal(text, is_last),
            CssState::Comment => match memchr::memmem::find(text, b"*/") {
                Some(end) => {
                    self.state = CssState::Normal;
                    end + 2
                }
                None if is_last => text.len(),
                // The last byte may be the beginning of the end.
                None => text.len() - usize::from(text.ends_with(b"*")),
            },
            CssState::LongIdent => {
                let length = ident_length(text);
                if length < text.len() && !text[length..].starts_with(b"\\") {
                    self.state = CssState::Normal;
                }
                length
            }
            CssState::UrlOpens => {
                let space = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
                let (end, length) = match text.get(space) {
                    Some(quote @ (b'"' | b'\'')) => (*quote, space + 1),
                    Some(_) => (b')', space),
                    None => return space,
                };
                self.state = CssState::Url(end);
                length
            }
            CssState::Url(_) => 0,
            CssState::Rest(end) => match until(text, end, end != b')') {
                (length, true) => {
                    self.state = CssState::Normal;
                    // `normal` counts the parenthesis.
                    length + usize::from(end != b')')
                }
                (length, false) => {
                    if is_last {
                        text.len()
                    } else {
                        length
                    }
                }
            },
        }
    }

    fn normal(&mut self, text: &[u8], is_last: bool) -> usize {
        let Some(byte) = text.first() else { return 0 };
        match byte {
            b'/' => match text.get(1) {
                Some(b'*') => {
                    self.state = CssState::Comment;
                    return 2;
                }
                None if !is_last => return 0,
                _ => {}
            },
            quote @ (b'"' | b'\'') => {
                let is_url = self.imports || self.image_set == Some(self.depth);
                self.imports = false;
                self.state = if is_url { CssState::Url(*quote) } else { CssState::Rest(*quote) };
            }
            b'(' => self.depth = self.depth.saturating_add(1),
            b')' => {
                if self.image_set == Some(self.depth) {
                    self.image_set = None;
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b';' | b'{' | b'}' => self.imports = false,
            byte if is_ident(*byte) => return self.ident(text, is_last),
            // White space and marks without a meaning here, up to the next byte that has one.
            _ => {
                let means = |b: &u8| is_ident(*b) || b"/\"'();{}".contains(b);
                return text.iter().take_while(|b| !means(b)).count();
            }
        }
        1
    }

    fn ident(&mut self, text: &[u8], is_last: bool) -> usize {
        let length = ident_length(text);
        let next = text.get(length).filter(|next| **next != b'\\');
        let Some(next) = next else {
            if length > IDENT_MAX {
                self.state = CssState::LongIdent;
                return length;
            }
            return if is_last { text.len() } else { 0 };
        };
        let is = |wanted: &str| text[..length].eq_ignore_ascii_case(wanted.as_bytes());
        match next {
            b'(' if is("url") => {
                self.imports = false;
                self.depth = self.depth.saturating_add(1);
                self.state = CssState::UrlOpens;
                return length + 1;
            }
            b'(' if is("image-set") || is("-webkit-image-set") => {
                self.depth = self.depth.saturating_add(1);
                self.image_set = Some(self.depth);
                return length + 1;
            }
            _ => self.imports = is("@import"),
        }
        length
    }

    /// Looks at a URL. Returns `false` if more bytes are needed.
    fn url(&mut self, end: u8, text: &[u8], is_last: bool, edits: &mut Edits) -> bool {
        let window = &text[..text.len().min(PROBE_MAX + 1)];
        let (length, ends) = until(window, end, end != b')');
        let space = window[..length].iter().position(u8::is_ascii_whitespace).filter(|_| end == b')');
        let (url, is_whole) = (&window[..space.unwrap_or(length)], ends || is_last || space.is_some());
        if probe(url, Escaping::Css, is_whole, &self.names, edits) == UrlProbe::More && window.len() <= PROBE_MAX {
            return false;
        }
        self.state = CssState::Rest(end);
        true
    }
}

/// Returns the length of a name. An escape that is cut off at its end is left out.
fn ident_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = text.get(at).filter(|b| is_ident(**b)) {
        match byte {
            b'\\' if at + 1 == text.len() => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

fn is_ident(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || matches!(byte, b'-' | b'_' | b'@' | b'\\')
}

impl Scan for Css {
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            if let CssState::Url(end) = self.state {
                let mut part = Edits::default();
                if !self.url(end, rest, is_last, &mut part) {
                    return at;
                }
                edits.adopt(part, |place| at + place);
                continue;
            }
            let before = self.state;
            let length = self.step(rest, is_last);
            if length == 0 && self.state == before {
                return if is_last { text.len() } else { at };
            }
            at += length;
        }
        at
    }
}
