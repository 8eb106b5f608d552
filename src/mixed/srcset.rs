//! Lists of image candidates (HTML Living Standard, section 4.8.4.2.1): URLs with descriptors, between commas that URLs
//! may have, too.

use std::ops::Range;

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}

/// Returns the places of the URLs.
pub fn urls(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    let skip = |from: usize, skips: &dyn Fn(u8) -> bool| {
        from + text.get(from..).unwrap_or_default().iter().take_while(|b| skips(**b)).count()
    };
    loop {
        at = skip(at, &|b| is_space(b) || b == b',');
        let end = skip(at, &|b| !is_space(b));
        if end == at {
            return found;
        }
        let url = &text[at..end];
        let bare = url.iter().rposition(|b| *b != b',').map_or(0, |last| last + 1);
        found.push(at..at + bare);
        at = if bare < url.len() { end } else { descriptors(text, end) };
    }
}

/// Passes over the descriptors behind a URL, and returns the place of the comma that ends them.
fn descriptors(text: &[u8], from: usize) -> usize {
    let mut depth = 0u32;
    for (n, byte) in text.iter().enumerate().skip(from) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return n,
            _ => {}
        }
    }
    text.len()
}

/// Returns the places of URLs between white space (`ping`).
pub fn list(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    for part in text.split(|b| is_space(*b)) {
        if !part.is_empty() {
            found.push(at..at + part.len());
        }
        at += part.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates() {
        let check = |text: &str, want: &[&str]| {
            let found: Vec<_> = urls(text.as_bytes()).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, want, "{text}");
        };
        check("", &[]);
        check("a", &["a"]);
        check("a 1x, b 2x", &["a", "b"]);
        check(" a 300w ,\n b,c 2x,, d", &["a", "b,c", "d"]);
        check("a, b", &["a", "b"]);
        check("data:image/png;base64,AA, b 2x", &["data:image/png;base64,AA", "b"]);
        check("a (1,2) x, b", &["a", "b"]);
        check("a,,, b", &["a", "b"]);
        check(",,,", &[]);
    }

    #[test]
    fn lists() {
        assert_eq!(list(b" a  bc\nd"), [1..2, 4..6, 7..8]);
    }
}
