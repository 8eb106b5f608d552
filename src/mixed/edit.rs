//! Changes of a text: places and what takes their place.

use std::borrow::Cow;
use std::ops::Range;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The bytes that go. It is empty for an insertion.
    pub range: Range<usize>,
    /// The bytes that come.
    pub with: Cow<'static, [u8]>,
}

/// Changes of a text, in its order.
#[derive(Debug, Default)]
pub struct Edits {
    list: Vec<Edit>,
    /// The number of references that they rewrite.
    pub references: u64,
}

/// A scanner of text in pieces.
pub trait Scan {
    /// Reads text from where the last call ended, and adds its changes. Returns how many bytes it has dealt with; the
    /// others come again, followed by more. At the end (`is_last`), it deals with all.
    fn scan(&mut self, text: &[u8], is_last: bool, edits: &mut Edits) -> usize;
}

impl Edits {
    /// `true` if nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a change. Changes that do not follow the last one are left out: their places are known from broken text.
    pub fn push(&mut self, edit: Edit) {
        if self.list.last().is_none_or(|last| last.range.end <= edit.range.start) && edit.range.start <= edit.range.end
        {
            self.list.push(edit);
        }
    }

    /// Adds the changes of a part of the text. `at` is the place of each of the part's bytes, and of its end.
    pub fn adopt(&mut self, part: Self, at: impl Fn(usize) -> usize) {
        self.references += part.references;
        for Edit { range, with } in part.list {
            self.push(Edit { range: at(range.start)..at(range.end), with });
        }
    }

    /// Writes a text with its changes.
    pub fn apply(&self, text: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        for Edit { range, with } in &self.list {
            out.extend_from_slice(text.get(at..range.start).unwrap_or_default());
            out.extend_from_slice(with);
            at = range.end;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
    }

    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.list.clear();
        self.references = 0;
    }
}
