//! Patterns of paths, and the form of a path in which servers may read it.

/// A path with `*` for any bytes, slashes included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(Box<str>);

/// A path as servers may read it: without escapes, dot segments, doubled slashes and parameters of segments.
#[derive(Debug)]
pub struct NormalPath(Option<Vec<u8>>);

impl PathPattern {
    /// Returns the pattern of a text. Returns `None` unless the text begins with `/` or `*` and a path can have its bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.starts_with(['/', '*']) && text.bytes().all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
        fits.then(|| Self(text.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `true` if the pattern matches the whole path.
    fn matches(&self, path: &[u8]) -> bool {
        let pattern = self.0.as_bytes();
        let (mut at, mut read) = (0, 0);
        // The last star, and the end of the bytes that it matches.
        let mut star: Option<(usize, usize)> = None;
        while let Some(byte) = path.get(read) {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, read));
                    at += 1;
                }
                Some(own) if own == byte => {
                    at += 1;
                    read += 1;
                }
                _ => {
                    let Some((begin, end)) = star else { return false };
                    star = Some((begin, end + 1));
                    (at, read) = (begin + 1, end + 1);
                }
            }
        }
        pattern[at..].iter().all(|b| *b == b'*')
    }
}

impl NormalPath {
    /// Normalises a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let is_plain =
            !path.bytes().any(|b| matches!(b, b'%' | b';' | b'\\')) && !path.contains("//") && !path.contains("/.");
        Self((!is_plain).then(|| normalised(path.as_bytes())))
    }

    /// Returns `true` if a pattern matches the path, as it was sent or in its normal form.
    #[must_use]
    pub fn fits(&self, path: &str, pattern: &PathPattern) -> bool {
        pattern.matches(path.as_bytes()) || self.0.as_ref().is_some_and(|normal| pattern.matches(normal))
    }
}

fn normalised(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let hex =
            |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        let (byte, read) = match (*first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => (high << 4 | low, 2),
            (byte, ..) => (byte, 0),
        };
        plain.push(if byte == b'\\' { b'/' } else { byte });
        rest = after.get(read..).unwrap_or_default();
    }
    let is_folder = plain.ends_with(b"/") || plain.ends_with(b"/.") || plain.ends_with(b"/..");
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in plain.split(|b| *b == b'/') {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        match name {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut normal = vec![b'/'];
    normal.extend(segments.join(&b'/'));
    if is_folder && !segments.is_empty() {
        normal.push(b'/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, path: &str| PathPattern::new(pattern).unwrap().matches(path.as_bytes());
        for (pattern, path, want) in [
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/A", false),
            ("/a*", "/a", true),
            ("/a/*", "/a", false),
            ("/a/*", "/a/b/c", true),
            ("*.php", "/x/y.php", true),
            ("*.php", "/x/y.php5", false),
            ("/a/*/c", "/a/b/b/c", true),
            ("/a/*/c", "/a/c", false),
            ("*a*b*", "/xaxb", true),
            ("*", "/", true),
            ("/**", "/x", true),
            ("*ab", "/aab", true),
        ] {
            assert_eq!(matches(pattern, path), want, "{pattern} {path}");
        }
        for wrong in ["", "a", "^/a", "/a b", "/a?b", "/ä", "~/a"] {
            assert_eq!(PathPattern::new(wrong), None, "{wrong}");
        }
    }

    /// The forms in which a server may read `/wp-login.php`.
    #[test]
    fn other_forms_of_a_path_fit_as_well() {
        let pattern = PathPattern::new("/wp-login.php").unwrap();
        let fits = |path: &str| NormalPath::of(path).fits(path, &pattern);
        for same in [
            "/wp-login.php",
            "//wp-login.php",
            "/./wp-login.php",
            "/a/../wp-login.php",
            "/wp%2dlogin.php",
            "/wp%2Dlogin%2ephp",
            "/%2fwp-login.php",
            "/a%2f..%2fwp-login.php",
            "/%2e/wp-login.php",
            "/../wp-login.php",
            "/\\wp-login.php",
            "/wp-login.php;x=1",
        ] {
            assert!(fits(same), "{same}");
        }
        for other in [
            "/wp-login.php/",
            "/wp-login.php/x",
            "/wp-login.phpx",
            "/wp%252dlogin.php",
            "/",
            "/a/wp-login.php",
            "/wp%2",
        ] {
            assert!(!fits(other), "{other}");
        }
        let encoded = PathPattern::new("/a%2fb").unwrap();
        assert!(NormalPath::of("/a%2fb").fits("/a%2fb", &encoded), "the form that was sent counts, too");
        assert_eq!(normalised(b"/a//b/./c/.."), b"/a/b/");
        assert_eq!(normalised(b"/.."), b"/");
    }
}
