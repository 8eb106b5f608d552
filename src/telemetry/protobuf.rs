//! Writes messages of Protocol Buffers: the few kinds of fields that metrics and spans need.

/// The kinds of fields on the wire.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// Adds a number of variable length: seven bits in each byte, the lowest first.
pub fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn push_key(out: &mut Vec<u8>, field: u64, kind: u64) {
    push_varint(out, field << 3 | kind);
}

/// Adds an unsigned number, an enumeration or a flag.
pub fn push_number(out: &mut Vec<u8>, field: u64, value: u64) {
    push_key(out, field, VARINT);
    push_varint(out, value);
}

/// Adds a signed number of the kind `sint32` or `sint64`, whose sign is in the lowest bit.
pub fn push_signed(out: &mut Vec<u8>, field: u64, value: i64) {
    push_number(out, field, (value << 1 ^ value >> 63).cast_unsigned());
}

/// Adds a number of eight bytes.
pub fn push_fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    push_key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Adds a number of four bytes.
pub fn push_fixed32(out: &mut Vec<u8>, field: u64, value: u32) {
    push_key(out, field, FIXED32);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Adds a floating-point number.
pub fn push_double(out: &mut Vec<u8>, field: u64, value: f64) {
    push_fixed64(out, field, value.to_bits());
}

/// Adds a string or bytes.
pub fn push_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    push_key(out, field, BYTES);
    push_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Adds a message within the message.
pub fn push_message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    push_key(out, field, BYTES);
    push_delimited(out, write);
}

/// Adds a message behind its length.
pub fn push_delimited(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    write(out);
    insert_length(out, begin);
}

/// Puts the length of everything from `begin` in front of it.
pub fn insert_length(out: &mut Vec<u8>, begin: usize) {
    let mut length = Vec::with_capacity(10);
    push_varint(&mut length, (out.len() - begin) as u64);
    out.splice(begin..begin, length);
}

/// Returns the first number of a message in a field of its own, if both are there: `message.number`. Returns `None` for
/// bytes that are not such a message.
#[must_use]
pub fn nested_number(bytes: &[u8], message: u64, number: u64) -> Option<u64> {
    let inner = fields(bytes).find_map(|(field, value)| match value {
        WireValue::Bytes(inner) if field == message => Some(inner),
        _ => None,
    })?;
    fields(inner).find_map(|(field, value)| match value {
        WireValue::Number(value) if field == number => Some(value),
        _ => None,
    })
}

enum WireValue<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// Returns the fields of a message, up to the first byte that is not one.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, WireValue<'_>)> {
    std::iter::from_fn(move || {
        let key = take_varint(&mut rest)?;
        let value = match key & 7 {
            VARINT => WireValue::Number(take_varint(&mut rest)?),
            FIXED64 => WireValue::Bytes(rest.split_off(..8)?),
            BYTES => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                WireValue::Bytes(rest.split_off(..length)?)
            }
            FIXED32 => WireValue::Bytes(rest.split_off(..4)?),
            _ => return None,
        };
        Some((key >> 3, value))
    })
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    /// The examples of the encoding's documentation, and the numbers at the edges.
    #[test]
    fn fields_on_the_wire() {
        for (bytes, want) in [
            (written(|out| push_number(out, 1, 150)), &b"\x08\x96\x01"[..]),
            (written(|out| push_number(out, 16, 0)), b"\x80\x01\x00"),
            (written(|out| push_number(out, 1, u64::MAX)), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            (written(|out| push_bytes(out, 2, b"testing")), b"\x12\x07testing"),
            (written(|out| push_message(out, 3, |out| push_number(out, 1, 150))), b"\x1a\x03\x08\x96\x01"),
            (written(|out| push_signed(out, 1, 0)), b"\x08\x00"),
            (written(|out| push_signed(out, 1, -1)), b"\x08\x01"),
            (written(|out| push_signed(out, 1, 1)), b"\x08\x02"),
            (written(|out| push_signed(out, 1, -2)), b"\x08\x03"),
            (written(|out| push_signed(out, 1, i64::MIN)), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            (written(|out| push_double(out, 1, 1.0)), b"\x09\0\0\0\0\0\0\xf0\x3f"),
            (written(|out| push_fixed32(out, 16, 0x0101)), b"\x85\x01\x01\x01\0\0"),
        ] {
            assert_eq!(bytes, want);
        }
        let long = written(|out| push_message(out, 1, |out| out.extend_from_slice(&[7; 300])));
        assert_eq!((&long[..3], long.len()), (&b"\x0a\xac\x02"[..], 303));
    }

    #[test]
    fn a_nested_number() {
        let bytes = written(|out| {
            push_double(out, 7, 1.0);
            push_message(out, 1, |out| {
                push_bytes(out, 2, b"why");
                push_number(out, 1, 300);
            });
        });
        assert_eq!(nested_number(&bytes, 1, 1), Some(300));
        assert_eq!(nested_number(&bytes, 1, 3), None);
        assert_eq!(nested_number(&bytes, 2, 1), None);
        assert_eq!(nested_number(b"", 1, 1), None);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = nested_number(&bytes, 1, 1);
        }

        #[test]
        fn varints_come_back(value: u64) {
            let bytes = written(|out| push_varint(out, value));
            prop_assert_eq!(take_varint(&mut &bytes[..]), Some(value));
        }
    }
}
