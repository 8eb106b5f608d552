//! The key of a page: the authority as the client asked for it, the name that a trusted proxy states, and the target
//! byte for byte. The scheme is https: pintle redirects everything else.

/// Divides the parts. Neither an authority nor a target has it.
const MARK: u8 = b'\n';

/// Writes a key. `stated` is the authority that a trusted proxy states.
#[must_use]
pub fn key(host: &[u8], port: Option<u16>, stated: Option<&[u8]>, target: &[u8]) -> Vec<u8> {
    let stated = stated.unwrap_or_default();
    let mut key = Vec::with_capacity(host.len() + stated.len() + target.len() + 8);
    key.extend_from_slice(host);
    if let Some(port) = port {
        key.push(b':');
        key.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    key.push(MARK);
    key.extend_from_slice(stated);
    key.push(MARK);
    key.extend_from_slice(target);
    key
}

/// Returns a key's authority as the client asked for it, and its target.
#[must_use]
pub fn parts(key: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = key.splitn(3, |b| *b == MARK);
    let authority = parts.next().unwrap_or_default();
    (authority, parts.nth(1).unwrap_or_default())
}

/// Returns the authorities by which the page of a key is known: the one that was asked for, and the one that a trusted proxy
/// states, without the port that https has anyway.
pub fn names(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut parts = key.splitn(3, |b| *b == MARK);
    let (asked, stated) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let stated = stated.strip_suffix(b":443").unwrap_or(stated);
    std::iter::once(asked).chain(Some(stated).filter(|stated| !stated.is_empty() && *stated != asked))
}

/// Returns the authority of the page's origin, as clients know it.
#[must_use]
pub fn origin(key: &[u8]) -> &[u8] {
    names(key).last().unwrap_or_default()
}

/// Returns a key with another target.
#[must_use]
pub fn with_target(of: &[u8], target: &[u8]) -> Vec<u8> {
    let (_, own) = parts(of);
    let mut key = of[..of.len() - own.len()].to_vec();
    key.extend_from_slice(target);
    key
}

/// `true` if a target is below a path, by whole segments: `/a` has `/a`, `/a?x` and `/a/b`, not `/ab`.
#[must_use]
pub fn is_below(target: &[u8], path: &[u8]) -> bool {
    let Some(rest) = target.strip_prefix(path) else { return false };
    path.ends_with(b"/") || matches!(rest.first(), None | Some(b'/' | b'?'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let plain = key(b"a.example", None, None, b"/x?y");
        assert_eq!(parts(&plain), (&b"a.example"[..], &b"/x?y"[..]));
        let all = key(b"a.example", Some(8443), Some(b"b.example"), b"/");
        assert_eq!(parts(&all), (&b"a.example:8443"[..], &b"/"[..]));
        assert_ne!(key(b"a", None, Some(b"b"), b"/"), key(b"a", None, None, b"/"));
        let known = |key: &[u8]| names(key).map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>();
        assert_eq!((known(&plain), origin(&plain)), (vec!["a.example".to_owned()], &b"a.example"[..]));
        assert_eq!((known(&all).join(" "), origin(&all)), ("a.example:8443 b.example".to_owned(), &b"b.example"[..]));
        for (stated, want) in [("b:443", "b"), ("b:8443", "b:8443"), ("a", "a"), ("a:443", "a")] {
            assert_eq!(origin(&key(b"a", None, Some(stated.as_bytes()), b"/")), want.as_bytes(), "{stated}");
        }
        assert_eq!(with_target(&all, b"/z"), key(b"a.example", Some(8443), Some(b"b.example"), b"/z"));
    }

    #[test]
    fn prefixes() {
        for (target, path, want) in [
            ("/a", "/a", true),
            ("/a?x", "/a", true),
            ("/a/b", "/a", true),
            ("/a/b", "/a/", true),
            ("/ab", "/a", false),
            ("/a", "/a/", false),
            ("/x", "/", true),
        ] {
            assert_eq!(is_below(target.as_bytes(), path.as_bytes()), want, "{target} {path}");
        }
    }
}
