//! Parts of stored bodies (RFC 9110 section 14).

use std::ops::Range;

/// The most ranges of a request; more get the whole body.
const RANGES_MAX: usize = 8;
/// The most ranges that may overlap; more get the whole body.
const OVERLAPS_MAX: usize = 2;

/// The part to send for a Range field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedRange {
    /// The whole body: there is no range, it is not understood, or it asks for too many parts.
    Whole,
    /// 206 with these parts, in the order of the request.
    Parts(Vec<Range<u64>>),
    /// 416: no part is within the body.
    Unsatisfiable,
}

/// Reads the Range field of a GET for a body of `length` bytes.
#[must_use]
pub fn wanted(field: &[u8], length: u64) -> RequestedRange {
    let Some((unit, set)) = split(field, b'=') else { return RequestedRange::Whole };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return RequestedRange::Whole;
    }
    let (mut parts, mut count) = (Vec::new(), 0);
    for spec in set.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        count += 1;
        let Some(part) = part(spec, length) else { return RequestedRange::Whole };
        if count > RANGES_MAX {
            return RequestedRange::Whole;
        }
        parts.extend(part);
    }
    match (count, parts.len()) {
        (0, _) => RequestedRange::Whole,
        (_, 0) => RequestedRange::Unsatisfiable,
        _ if overlaps(&parts) > OVERLAPS_MAX => RequestedRange::Whole,
        _ => RequestedRange::Parts(parts),
    }
}

/// A range within the body; `Some(None)` if it lies outside, `None` if it is malformed.
fn part(spec: &[u8], length: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = split(spec, b'-')?;
    let within = |range: Range<u64>| Some((range.start < range.end).then_some(range));
    if first.is_empty() {
        let suffix = number(last)?;
        return within(length.saturating_sub(suffix)..length);
    }
    let first = number(first)?;
    if last.is_empty() {
        return within(first..length);
    }
    let last = number(last)?;
    if last < first {
        return None;
    }
    within(first..last.saturating_add(1).min(length))
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|b| *b == at)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A number; one that is too large is the largest.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.iter().fold(0, add))
}

/// The number of parts that begin before the end of an earlier one.
fn overlaps(parts: &[Range<u64>]) -> usize {
    let mut sorted = parts.to_vec();
    sorted.sort_unstable_by_key(|part| part.start);
    let (mut count, mut end) = (0, 0);
    for part in sorted {
        count += usize::from(part.start < end);
        end = end.max(part.end);
    }
    count
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some with one")]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_100_bytes() {
        let parts = |list: &[Range<u64>]| RequestedRange::Parts(list.to_vec());
        for (field, want) in [
            ("bytes=0-0", parts(&[0..1])),
            ("bytes=0-99", parts(&[0..100])),
            ("bytes=0-", parts(&[0..100])),
            ("bytes=99-", parts(&[99..100])),
            ("bytes=90-200", parts(&[90..100])),
            ("bytes=-1", parts(&[99..100])),
            ("bytes=-100", parts(&[0..100])),
            ("bytes=-1000", parts(&[0..100])),
            ("BYTES=5-6", parts(&[5..7])),
            ("bytes= 5-6 , 9-9", parts(&[5..7, 9..10])),
            ("bytes=9-9,5-6", parts(&[9..10, 5..7])),
            ("bytes=,5-6,,", parts(&[5..7])),
            ("bytes=0-9,200-", parts(&[0..10])),
            ("bytes=0-99999999999999999999999", parts(&[0..100])),
            ("bytes=0-9,5-14,10-19", parts(&[0..10, 5..15, 10..20])),
            ("bytes=0-9,0-9,0-9,0-9", RequestedRange::Whole),
            (
                "bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14",
                parts(&[0..1, 2..3, 4..5, 6..7, 8..9, 10..11, 12..13, 14..15]),
            ),
            ("bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16", RequestedRange::Whole),
            ("bytes=100-", RequestedRange::Unsatisfiable),
            ("bytes=100-200", RequestedRange::Unsatisfiable),
            ("bytes=-0", RequestedRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", RequestedRange::Unsatisfiable),
            ("bytes=5-4", RequestedRange::Whole),
            ("bytes=a-b", RequestedRange::Whole),
            ("bytes=5", RequestedRange::Whole),
            ("bytes=--5", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=", RequestedRange::Whole),
            ("bytes", RequestedRange::Whole),
            ("items=0-5", RequestedRange::Whole),
            ("bytes =0-5", RequestedRange::Whole),
            ("bytes=0-5;x", RequestedRange::Whole),
            ("bytes=+1-5", RequestedRange::Whole),
            ("", RequestedRange::Whole),
        ] {
            assert_eq!(wanted(field.as_bytes(), 100), want, "{field}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), RequestedRange::Unsatisfiable);
        assert_eq!(wanted(b"bytes=-5", 0), RequestedRange::Unsatisfiable);
    }

    proptest::proptest! {
        /// Parts are within the body, and those that were asked for.
        #[test]
        fn parts_are_within(first in 0u64..300, last in proptest::option::of(0u64..300), length in 0u64..200) {
            let field = format!("bytes={first}-{}", last.map_or(String::new(), |l| l.to_string()));
            let body: Vec<u64> = (0..length).collect();
            let end = last.map_or(length, |l| (l + 1).min(length));
            match wanted(field.as_bytes(), length) {
                RequestedRange::Parts(parts) => {
                    let [part] = parts.as_slice() else { panic!("one range") };
                    let at = |n: u64| usize::try_from(n).unwrap();
                    let slice = &body[at(part.start)..at(part.end)];
                    proptest::prop_assert_eq!(slice, &body[at(first)..at(end)]);
                }
                RequestedRange::Unsatisfiable => proptest::prop_assert!(first >= length),
                RequestedRange::Whole => proptest::prop_assert!(last.is_some_and(|l| l < first)),
            }
        }
    }
}
