//! The fields of a stored response: a store holds many of them, so that each takes one block of memory without room to spare.

use crate::message::{Fields, Name};

/// The lowest bit of a name's number: a rule knows the name.
const IS_KNOWN: usize = 1;

/// Fields in one block of memory.
///
/// It begins with the length of its table. The table has two numbers for each field: the length of the name, with a mark
/// in the lowest bit if a rule knows it, and the length of the value. Names and values follow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredFields(Box<[u8]>);

impl StoredFields {
    /// Packs fields.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let numbers = |(name, text, value): (Name, &[u8], &[u8])| {
            [text.len() << 1 | if name == Name::Other { 0 } else { IS_KNOWN }, value.len()]
        };
        let (mut table, mut text) = (0, 0);
        for (name, own, value) in fields.iter() {
            table += numbers((name, own, value)).into_iter().map(width).sum::<usize>();
            text += own.len() + value.len();
        }
        if table == 0 {
            return Self::default();
        }
        let mut block = Vec::with_capacity(width(table) + table + text);
        put(&mut block, table);
        for field in fields.iter() {
            numbers(field).into_iter().for_each(|number| put(&mut block, number));
        }
        for (_, name, value) in fields.iter() {
            block.extend_from_slice(name);
            block.extend_from_slice(value);
        }
        Self(block.into_boxed_slice())
    }

    /// Returns the table and the text.
    fn divided(&self) -> (&[u8], &[u8]) {
        let mut rest = &*self.0;
        let table = take(&mut rest).unwrap_or_default();
        rest.split_at_checked(table).unwrap_or_default()
    }

    /// Returns each field: `true` if a rule knows the name, the name, and the value.
    fn all(&self) -> impl Iterator<Item = (bool, &[u8], &[u8])> {
        let (table, mut text) = self.divided();
        lengths(table).map(move |(is_known, name, value)| {
            let (name, rest) = text.split_at_checked(name).unwrap_or_default();
            let (value, rest) = rest.split_at_checked(value).unwrap_or_default();
            text = rest;
            (is_known, name, value)
        })
    }

    /// Returns all names and values, in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all().map(|(_, name, value)| (name, value))
    }

    /// Returns the number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        lengths(self.divided().0).count()
    }

    /// Returns `true` if there are no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the bytes that they take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Returns them as the fields of a head.
    #[must_use]
    pub fn unpacked(&self) -> Fields {
        let (table, text) = self.divided();
        let mut at = 0;
        let parts = lengths(table).map(|(is_known, name, value)| {
            let own = text.get(at..at + name).unwrap_or_default();
            at += name + value;
            (if is_known { Name::of(own) } else { Name::Other }, name, value)
        });
        Fields::of_parts(text, parts)
    }
}

/// Returns the lengths of names and values. `true` if a rule knows the name.
fn lengths(mut table: &[u8]) -> impl Iterator<Item = (bool, usize, usize)> {
    std::iter::from_fn(move || {
        let (name, value) = (take(&mut table)?, take(&mut table)?);
        Some((name & IS_KNOWN != 0, name >> 1, value))
    })
}

/// The bytes that a number takes: seven bits in each.
fn width(number: usize) -> usize {
    let mut rest = number >> 7;
    let mut bytes = 1;
    while rest > 0 {
        rest >>= 7;
        bytes += 1;
    }
    bytes
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take(from: &mut &[u8]) -> Option<usize> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_one_block() {
        let (long_name, long_value) = ("x".repeat(300), "y".repeat(70_000));
        let list = [("Date", "today"), ("x-a", ""), (&*long_name, &*long_value), ("VARY", "accept"), ("", "z")];
        let stored = StoredFields::of(&Fields::of(&list));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own: Vec<_> = stored.iter().map(|(name, value)| (text(name), text(value))).collect();
        assert_eq!(own, list.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!((stored.len(), stored.value_of(b"Vary"), stored.value_of(b"y")), (5, Some(&b"accept"[..]), None));
        let back = stored.unpacked();
        assert_eq!((back.get(Name::Vary), back.get(Name::Date)), (Some(&b"accept"[..]), Some(&b"today"[..])));
        assert_eq!((back.value_of(b"X-A"), back.len()), (Some(&b""[..]), 5));
        assert_eq!(StoredFields::of(&back), stored);
        let lengths: usize = list.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert_eq!(stored.size(), lengths + 10 + 1 + 2 + 1);
        let none = StoredFields::of(&Fields::default());
        assert!(none.is_empty() && none.iter().next().is_none() && none.unpacked().is_empty());
    }
}
