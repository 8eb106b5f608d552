//! The tokenizer's part for tags (HTML Living Standard, sections 13.2.5.6 to 13.2.5.40): where a tag ends, and where
//! its attributes are.

use std::ops::Range;

/// Attributes of a tag that are looked at. More are passed over.
const ATTRIBUTES_MAX: usize = 256;
/// The beginning of a tag in which attributes are looked at, in bytes.
pub const LOOKED_AT: usize = 64 << 10;

/// An attribute, as places in the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributePlace {
    /// Its name.
    pub name: Range<usize>,
    /// Its value, without quotes. Empty if it has none.
    pub value: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TagState {
    Name,
    BeforeName,
    AttributeName,
    AfterName,
    BeforeValue,
    Quoted(u8),
    Unquoted,
    AfterQuoted,
}

/// A tag that is being read. Its places count from its `<`.
#[derive(Debug, Clone)]
pub struct TagScan {
    state: TagState,
    at: usize,
    /// The place of its name.
    pub name: Range<usize>,
    /// Its attributes.
    pub attributes: Vec<AttributePlace>,
    /// The attribute that is being read: its name, and the beginning of its value.
    current: AttributePlace,
    /// `true` for `<a/>`.
    pub closes_itself: bool,
    /// `true` if the tag is too long to be looked at: only its end is searched.
    is_passing: bool,
}

impl TagScan {
    /// Begins a tag whose name is at `name`.
    #[must_use]
    pub fn new(name: usize) -> Self {
        Self {
            state: TagState::Name,
            at: name,
            name: name..name,
            attributes: Vec::new(),
            current: AttributePlace { name: 0..0, value: 0..0 },
            closes_itself: false,
            is_passing: false,
        }
    }

    /// Gives up looking at the tag: all of it that was read so far is dealt with, and the rest passes.
    pub fn pass(&mut self) {
        self.at = 0;
        self.is_passing = true;
        self.attributes.clear();
    }

    /// Reads on. Returns the length of the tag once its end has come. Each byte is read once.
    pub fn scan(&mut self, tag: &[u8]) -> Option<usize> {
        while let Some(byte) = tag.get(self.at) {
            if self.step(*byte, tag) {
                return Some(self.at);
            }
        }
        None
    }

    /// Reads a byte, or a run of a value. Returns `true` at the end of the tag.
    fn step(&mut self, byte: u8, tag: &[u8]) -> bool {
        let at = self.at;
        let is_space = matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ');
        let ends = byte == b'>';
        self.at += 1;
        match self.state {
            TagState::Name if is_space || ends || byte == b'/' => {
                if !self.is_passing {
                    self.name.end = at;
                }
                self.between(byte);
            }
            TagState::BeforeName | TagState::AfterQuoted if is_space || ends || byte == b'/' => self.between(byte),
            TagState::AfterName if byte == b'=' => self.state = TagState::BeforeValue,
            TagState::AfterName if is_space => {}
            TagState::BeforeName | TagState::AfterQuoted | TagState::AfterName => {
                self.keep();
                if ends || byte == b'/' {
                    self.between(byte);
                } else {
                    self.state = TagState::AttributeName;
                    self.current.name = at..at + 1;
                    self.current.value = at + 1..at + 1;
                }
            }
            TagState::AttributeName if is_space || ends || byte == b'/' || byte == b'=' => {
                self.current.name.end = at;
                self.current.value = at..at;
                match byte {
                    b'=' => self.state = TagState::BeforeValue,
                    _ if is_space => self.state = TagState::AfterName,
                    _ => {
                        self.keep();
                        self.between(byte);
                    }
                }
            }
            TagState::BeforeValue if is_space => {}
            TagState::BeforeValue => self.value_begins(byte, at),
            TagState::Quoted(quote) => self.quoted(quote, at, tag),
            TagState::Unquoted if is_space || ends => {
                self.current.value.end = at;
                self.keep();
                self.between(byte);
            }
            TagState::Name | TagState::AttributeName | TagState::Unquoted => {}
        }
        ends && self.state == TagState::BeforeName
    }

    /// The first byte of a value, or of its absence.
    fn value_begins(&mut self, byte: u8, at: usize) {
        self.current.value = at..at;
        match byte {
            b'"' | b'\'' => {
                self.state = TagState::Quoted(byte);
                self.current.value = at + 1..at + 1;
            }
            b'>' => {
                self.keep();
                self.between(byte);
            }
            _ => self.state = TagState::Unquoted,
        }
    }

    /// A run of a value in quotes.
    fn quoted(&mut self, quote: u8, at: usize, tag: &[u8]) {
        let rest = tag.get(at..).unwrap_or_default();
        let end = memchr::memchr(quote, rest).map(|n| at + n);
        self.at = end.map_or(tag.len(), |end| end + 1);
        if let Some(end) = end {
            self.current.value.end = end;
            self.keep();
            self.state = TagState::AfterQuoted;
        }
    }

    /// A byte between attributes.
    fn between(&mut self, byte: u8) {
        self.state = TagState::BeforeName;
        self.closes_itself = match byte {
            b'/' => true,
            b'>' => self.closes_itself,
            _ => false,
        };
    }

    /// Keeps the attribute that has ended, if there is one.
    fn keep(&mut self) {
        let current = std::mem::replace(&mut self.current, AttributePlace { name: 0..0, value: 0..0 });
        let is_near = current.value.end <= LOOKED_AT && self.attributes.len() < ATTRIBUTES_MAX;
        if !current.name.is_empty() && !self.is_passing && is_near {
            self.attributes.push(current);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(tag: &str, name: &str, attributes: &[(&str, &str)]) {
        for pieces in [tag.len(), 1] {
            let mut scan = TagScan::new(1);
            let mut end = None;
            for n in (0..=tag.len()).filter(|n| n % pieces == 0) {
                end = scan.scan(&tag.as_bytes()[..n]);
                if end.is_some() {
                    break;
                }
            }
            assert_eq!(end, Some(tag.len()), "{tag}");
            assert_eq!(&tag[scan.name.clone()], name, "{tag}");
            let found: Vec<_> = scan.attributes.iter().map(|a| (&tag[a.name.clone()], &tag[a.value.clone()])).collect();
            assert_eq!(found, attributes, "{tag}");
        }
    }

    #[test]
    fn tags() {
        check("<p>", "p", &[]);
        check("<br/>", "br", &[]);
        check("<img src=a alt='x > y' title=\"'\">", "img", &[("src", "a"), ("alt", "x > y"), ("title", "'")]);
        check("<a href = x/y >", "a", &[("href", "x/y")]);
        check("<a b c=d>", "a", &[("b", ""), ("c", "d")]);
        check("<a b=>", "a", &[("b", "")]);
        check("<a b='c'd=e/>", "a", &[("b", "c"), ("d", "e/")]);
        check("<a =b=c>", "a", &[("=b", "c")]);
        check("<a/b/c=d>", "a", &[("b", ""), ("c", "d")]);
        check("<a\nb\t=\r\"c\"\x0c>", "a", &[("b", "c")]);
        check("<a b=c\"d>", "a", &[("b", "c\"d")]);
    }

    #[test]
    fn self_closing() {
        for (tag, closes) in
            [("<a/>", true), ("<a />", true), ("<a b='c'/>", true), ("<a b=c/>", false), ("<a/ b>", false)]
        {
            let mut scan = TagScan::new(1);
            assert_eq!(scan.scan(tag.as_bytes()), Some(tag.len()));
            assert_eq!(scan.closes_itself, closes, "{tag}");
        }
    }

    #[test]
    fn long_tags_pass() {
        let mut scan = TagScan::new(1);
        assert_eq!(scan.scan(b"<img alt='a>"), None);
        scan.pass();
        assert_eq!(scan.scan(b"b>c' x>rest"), Some(7));
    }
}
