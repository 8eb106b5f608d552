//! Parts of a response that is not stored as a whole (RFC 9111 sections 3.3 and 3.4).

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::range::number;

/// The most parts that do not touch each other. Further ones are not kept.
const PARTS_MAX: usize = 64;

/// The places of the parts in the whole. The parts themselves are one body, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredParts {
    total: u64,
    /// In their order. None touches the next.
    ranges: Vec<Range<u64>>,
}

impl StoredParts {
    /// Begins with one part of a whole of `total` bytes.
    #[must_use]
    pub fn new(range: Range<u64>, total: u64) -> Self {
        Self { total, ranges: vec![range] }
    }

    /// The length of the whole, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// `true` if no part is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.ranges.as_slice(), [only] if *only == (0..self.total))
    }

    /// Returns the place of a range in the body of parts, if all of it is there.
    #[must_use]
    pub fn find(&self, wanted: &Range<u64>) -> Option<Range<usize>> {
        let mut before = 0;
        for range in &self.ranges {
            if range.start <= wanted.start && wanted.end <= range.end {
                let at = |n: u64| usize::try_from(before + n - range.start).ok();
                return Some(at(wanted.start)?..at(wanted.end)?);
            }
            before += range.end - range.start;
        }
        None
    }

    /// Adds a part: `data` is the bytes of `range`. Returns the parts together, with their body. Where both have bytes, the
    /// new ones count. `None` if there would be too many parts.
    #[must_use]
    pub fn with(&self, held: &Bytes, range: Range<u64>, data: &Bytes) -> Option<(Self, Bytes)> {
        let mut pieces: Vec<(u64, Bytes)> = vec![(range.start, data.clone())];
        for own in &self.ranges {
            for (start, end) in [(own.start, own.end.min(range.start)), (own.start.max(range.end), own.end)] {
                if start < end {
                    pieces.push((start, held.slice(self.find(&(start..end))?)));
                }
            }
        }
        pieces.retain(|(_, data)| !data.is_empty());
        pieces.sort_by_key(|(start, _)| *start);
        let (mut ranges, mut body): (Vec<Range<u64>>, _) = (Vec::new(), BytesMut::new());
        for (start, data) in pieces {
            let end = start + data.len() as u64;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
            body.extend_from_slice(&data);
        }
        (ranges.len() <= PARTS_MAX).then(|| (Self { total: self.total, ranges }, body.freeze()))
    }

    /// The bytes that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.ranges.len() * size_of::<Range<u64>>()
    }
}

/// Reads a Content-Range of bytes whose total is known; `None` for any other.
#[must_use]
pub fn content_range(value: &[u8]) -> Option<(Range<u64>, u64)> {
    let (unit, rest) = value.split_at_checked(6)?;
    let (range, total) = split(rest, b'/').filter(|_| unit.eq_ignore_ascii_case(b"bytes "))?;
    let (first, last) = split(range, b'-')?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then(|| (first..last + 1, total))
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == at)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"0123456789abcdefghij";

    fn slice(range: &Range<u64>) -> Bytes {
        let at = |n: u64| usize::try_from(n).unwrap();
        Bytes::copy_from_slice(&WHOLE[at(range.start)..at(range.end)])
    }

    #[test]
    fn parts_become_a_whole() {
        let parts = StoredParts::new(0..5, 20);
        let body = slice(&(0..5));
        assert_eq!((parts.find(&(1..5)), parts.find(&(1..6)), parts.is_whole()), (Some(1..5), None, false));
        let (parts, body) = parts.with(&body, 10..15, &slice(&(10..15))).unwrap();
        assert_eq!((parts.find(&(11..13)), parts.find(&(4..11))), (Some(6..8), None));
        let (parts, body) = parts.with(&body, 3..12, &slice(&(3..12))).unwrap();
        assert_eq!(parts, StoredParts::new(0..15, 20));
        let (parts, body) = parts.with(&body, 15..20, &slice(&(15..20))).unwrap();
        assert!(parts.is_whole() && body == WHOLE && parts.total() == 20);
        // The new bytes count.
        let (_, body) = parts.with(&body, 1..3, &Bytes::from_static(b"XY")).unwrap();
        assert_eq!(&body[..5], b"0XY34");
    }

    #[test]
    fn ranges_of_responses() {
        for (value, want) in [
            ("bytes 0-0/1", Some((0..1, 1))),
            ("Bytes 5-9/100", Some((5..10, 100))),
            ("bytes 5-4/100", None),
            ("bytes 0-100/100", None),
            ("bytes 0-5/*", None),
            ("bytes */100", None),
            ("bytes=0-5/100", None),
            ("lines 0-5/100", None),
            ("bytes 0-5", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("bytes -5/9", None),
            ("", None),
        ] {
            assert_eq!(content_range(value.as_bytes()), want, "{value}");
        }
    }

    proptest::proptest! {
        /// Whatever the order: each byte that was added is found where it belongs, and nothing else.
        #[test]
        fn any_order(list in proptest::collection::vec((0u64..20, 1u64..8), 1..12)) {
            let ranges: Vec<Range<u64>> = list.iter().map(|(start, length)| *start..(start + length).min(20)).collect();
            let (mut parts, mut body) = (StoredParts::new(ranges[0].clone(), 20), slice(&ranges[0]));
            for range in &ranges[1..] {
                (parts, body) = parts.with(&body, range.clone(), &slice(range)).unwrap();
            }
            for start in 0..20 {
                for end in start + 1..=20 {
                    let is_there = (start..end).all(|at| ranges.iter().any(|range| range.contains(&at)));
                    let found = parts.find(&(start..end)).map(|at| body.slice(at));
                    proptest::prop_assert_eq!(found, is_there.then(|| slice(&(start..end))));
                }
            }
        }
    }
}
