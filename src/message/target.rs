//! The path and query of a request: what is refused, what is encoded, and what passes as it is.
//!
//! One rule for HTTP/1.1 and HTTP/2 on both sides. RFC 3986 has no place for ``" < > \ ^ ` { | }`` in a path or a query, but
//! browsers send most of them in queries, and curl sends whatever it is given: a 400 would break pages that work elsewhere.
//! Passed as they are, some parsers refuse them (HTTP/2's among them), and some take `\` for `/`. Percent-encoded they mean
//! the same to every origin (RFC 3986 section 2.1). `[` and `]` pass: all parsers take them, and forms are full of them.
//! Control characters, white space, `#` and non-ASCII bytes are refused, since two parsers could read those differently.

use super::http1::HeadFault;

/// The longest path and query, once it is encoded: HTTP/2's libraries know no longer one. Longer ones get 414, whatever the
/// limits say.
pub const TARGET_MAX: usize = u16::MAX as usize - 1;

const PLAIN: u8 = 0;
const ENCODED: u8 = 1;
const REFUSED: u8 = 2;

const CLASSES: [u8; 256] = {
    let mut classes = [REFUSED; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        classes[byte as usize] = match byte {
            b'#' => REFUSED,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => ENCODED,
            _ => PLAIN,
        };
        byte += 1;
    }
    classes
};

/// Checks a target, or a part of one; gives it percent-encoded where it has to be.
///
/// # Errors
///
/// [`HeadFault`] if a byte has no place in a target, or if it is too long.
pub(crate) fn encode(target: &[u8]) -> Result<Option<Vec<u8>>, HeadFault> {
    let worst = target.iter().fold(PLAIN, |worst, byte| worst.max(CLASSES[usize::from(*byte)]));
    if worst == REFUSED {
        return Err(HeadFault::Syntax("request target"));
    }
    if target.len() > TARGET_MAX {
        return Err(HeadFault::TargetTooLong);
    }
    if worst == PLAIN {
        return Ok(None);
    }
    let mut encoded = Vec::with_capacity(target.len() + 32);
    for byte in target {
        if CLASSES[usize::from(*byte)] == ENCODED {
            let hex = |digit: u8| b"0123456789ABCDEF"[usize::from(digit)];
            encoded.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
        } else {
            encoded.push(*byte);
        }
    }
    if encoded.len() > TARGET_MAX { Err(HeadFault::TargetTooLong) } else { Ok(Some(encoded)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(target: &str) -> Result<String, HeadFault> {
        let changed = encode(target.as_bytes())?.unwrap_or_else(|| target.as_bytes().to_vec());
        Ok(String::from_utf8(changed).unwrap())
    }

    #[test]
    fn what_is_encoded() {
        for (target, want) in [
            ("/", "/"),
            ("*", "*"),
            ("/a?b=c&d[]=%20'()*+,;:@!$-._~", "/a?b=c&d[]=%20'()*+,;:@!$-._~"),
            ("/<>\"\\^`{|}", "/%3C%3E%22%5C%5E%60%7B%7C%7D"),
            ("/?q={\"a\":1}|%7c%zz%", "/?q=%7B%22a%22:1%7D%7C%7c%zz%"),
        ] {
            assert_eq!(encoded(target).as_deref(), Ok(want));
        }
        for refused in ["/a b", "/a#b", "/\t", "/\u{7f}", "/\0", "/\u{fc}", "/\r"] {
            assert_eq!(encoded(refused), Err(HeadFault::Syntax("request target")), "{refused:?}");
        }
    }

    #[test]
    fn what_is_encoded_fits_into_http2() {
        let all: String = (b'!'..=b'~').filter(|b| *b != b'#').map(char::from).collect();
        let target = encoded(&format!("/{all}?{all}")).unwrap();
        assert_eq!(http::uri::PathAndQuery::try_from(&*target).unwrap().as_str(), target);
        for (length, fits) in [(TARGET_MAX, true), (TARGET_MAX + 1, false)] {
            let target = format!("/{}", "x".repeat(length - 1));
            assert_eq!((encoded(&target).is_ok(), http::uri::PathAndQuery::try_from(&*target).is_ok()), (fits, fits));
        }
        assert!(encoded(&format!("/{}", "{".repeat(TARGET_MAX / 3))).is_ok());
        assert!(encoded(&format!("/{}", "{".repeat(TARGET_MAX / 3 + 1))).is_err());
    }
}
