//! The path and query of a request: the bytes that pintle refuses, encodes or passes as they are.
//!
//! One rule applies to HTTP/1.1 and HTTP/2 on both sides. RFC 3986 does not permit
//! ``" < > \ ^ ` { | }`` in a path or a query.
//! Browsers send most of them in queries, and curl sends whatever it is given: a 400 would break
//! pages that work elsewhere. Some parsers refuse the raw bytes (those of
//! HTTP/2 do), and some read `\` as `/`. Percent-encoded, they mean the same to every origin (RFC
//! 3986 section 2.1). `[` and `]` pass: all parsers accept them, and forms use them often. pintle
//! refuses control characters, white space, `#` and non-ASCII bytes, since two parsers could read
//! them differently.

use super::fault::HeadFault;

/// The longest encoded path and query: HTTP/2 libraries accept no longer one. Longer ones get 414,
/// whatever the limits are.
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

/// Checks a target, or a part of one. Returns it percent-encoded, or `None` if it passes as it is.
///
/// # Errors
///
/// Returns a [`HeadFault`] if the target is too long, or a byte is not permitted.
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
    fn encoded_bytes() {
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
    fn encoded_targets_fit_into_http2() {
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
