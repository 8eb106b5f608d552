//! Text from servers in files and on terminals.

/// Returns bytes of a server as plain ASCII, at most this many characters. Every other character,
/// line ends and control characters among them, becomes `?`: the text can neither leave a comment
/// nor command a terminal.
#[must_use]
pub fn clean(bytes: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(bytes.get(..max.saturating_mul(4)).unwrap_or(bytes));
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let mut short: String = text.chars().take(max).map(plain).collect();
    if text.chars().nth(max).is_some() || bytes.len() > max.saturating_mul(4) {
        short.push_str("...");
    }
    short
}

/// Returns `true` if a text contains another one, without regard to ASCII case.
#[must_use]
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// Returns `true` if a text begins with another one, without regard to ASCII case.
#[must_use]
pub fn begins(text: &[u8], part: &[u8]) -> bool {
    text.get(..part.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        assert_eq!(clean(b"WordPress.com", 40), "WordPress.com");
        assert_eq!(clean(b"a\nupstream = \"http://evil\"\r\t\x1b[31m\x7f", 80), "a?upstream = \"http://evil\"???[31m?");
        assert_eq!(clean("b\u{fc}cher\u{2028}\u{202e}\u{85}".as_bytes(), 80), "b?cher???");
        assert_eq!(clean(&[0xff; 8], 4), "????...");
        assert_eq!(clean(&[b'x'; 5], 4), "xxxx...");
        assert_eq!(clean(&[b'x'; 4], 4), "xxxx");
        assert!(contains(b"xGhOsTx", b"ghost") && !contains(b"x", b"") && !contains(b"", b"a"));
        assert!(begins(b"Ghost 5", b"ghost") && !begins(b"Gh", b"ghost"));
    }

    proptest! {
        #[test]
        fn any_bytes_become_plain(bytes in prop::collection::vec(any::<u8>(), 0..200), max in 0..60usize) {
            let text = clean(&bytes, max);
            prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert!(text.len() <= max + 3);
        }
    }
}
