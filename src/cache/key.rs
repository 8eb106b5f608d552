//! The key of a page: the authority as the client asked for it, the name that a trusted proxy states, and the target
//! byte for byte. The scheme is https: pintle redirects everything else.

use crate::host::{HostPattern, split_authority};

/// Divides the parts. Neither an authority nor a target has it.
const MARK: u8 = b'\n';
/// The most other keys of one page.
const KEYS_MAX: usize = 512;
/// The most names of a site that may be names of one page.
const NAMES_MAX: usize = 100;

/// Returns a key. `stated` is the authority that a trusted proxy states.
#[must_use]
pub fn key(host: &[u8], port: Option<u16>, stated: Option<&[u8]>, target: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(host.len() + stated.map_or(0, <[u8]>::len) + target.len() + 8);
    write(&mut key, (host, port), stated, target);
    key
}

/// Writes a key at the end of `out`.
pub fn write(out: &mut Vec<u8>, (host, port): (&[u8], Option<u16>), stated: Option<&[u8]>, target: &[u8]) {
    out.extend_from_slice(host);
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    out.push(MARK);
    out.extend_from_slice(stated.unwrap_or_default());
    out.push(MARK);
    out.extend_from_slice(target);
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

fn joined(asked: &[u8], stated: &[u8], target: &[u8]) -> Vec<u8> {
    [asked, stated, target].join(&MARK)
}

/// Returns the sign of a target under all names of a site. No request has this key.
#[must_use]
pub fn under_every_name(of: &[u8]) -> Vec<u8> {
    joined(b"", b"", parts(of).1)
}

/// Returns the authorities under which clients know the page of a key: one for each exact name of
/// the site. The operator says that they are names of one site. Empty for a page under a wildcard:
/// names below it may belong to different people, and none of them may change the pages of another
/// (RFC 9111 section 4.4).
#[must_use]
pub fn site_names(of: &[u8], hosts: &[HostPattern]) -> Vec<Vec<u8>> {
    let mut own = origin(of).to_vec();
    let Ok(end) = split_authority(&mut own) else { return Vec::new() };
    let port = own.split_off(end.host_len);
    let exact = || hosts.iter().filter_map(HostPattern::exact).map(str::as_bytes);
    if !exact().any(|name| name == own) {
        return Vec::new();
    }
    exact().take(NAMES_MAX).map(|name| [name, &port[..]].concat()).collect()
}

/// Returns the other keys of a key's page: those under all names of its site. With `is_stated`, also
/// those of requests through trusted proxies that state a name.
#[must_use]
pub fn same_page(of: &[u8], hosts: &[HostPattern], is_stated: bool) -> Vec<Vec<u8>> {
    let names = site_names(of, hosts);
    let (asked, target) = parts(of);
    let stated = of.splitn(3, |b| *b == MARK).nth(1).unwrap_or_default();
    // The proxy of this request states names in this form.
    let port: &[u8] = if stated.ends_with(b":443") { b":443" } else { b"" };
    let asked_as = || std::iter::once(asked).chain(names.iter().map(Vec::as_slice).filter(move |name| *name != asked));
    let direct = names.iter().map(|name| joined(name, b"", target));
    let stated_as = |name: &[u8]| [name, port].concat();
    // Most proxies ask by the name that they state, or by one name for all.
    let usual = names.iter().filter(|_| is_stated).flat_map(|name| {
        let stated = stated_as(name);
        [asked, &name[..]].map(|asked| joined(asked, &stated, target))
    });
    let by_proxies = names.iter().filter(|_| is_stated).flat_map(|name| {
        let stated = stated_as(name);
        asked_as().map(move |asked| joined(asked, &stated, target))
    });
    direct.chain(usual).chain(by_proxies).filter(|key| key != of).take(KEYS_MAX).collect()
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
    fn pages_under_several_names() {
        let hosts = ["a.example", "www.a.example", "*.a.example"].map(|host| HostPattern::parse(host).unwrap());
        let others = |of: &[u8], is_stated: bool| same_page(of, &hosts, is_stated);
        let plain = |host: &str| key(host.as_bytes(), None, None, b"/x?y");
        assert_eq!(others(&plain("a.example"), false), [plain("www.a.example")]);
        assert_eq!(others(&plain("www.a.example"), false), [plain("a.example")]);
        // Names below a wildcard, and those of nobody.
        for host in ["b.a.example", "other.example", ""] {
            assert!(others(&plain(host), true).is_empty() && site_names(&plain(host), &hosts).is_empty(), "{host}");
        }
        let with_port = key(b"a.example", Some(8443), None, b"/");
        assert_eq!(others(&with_port, false), [key(b"www.a.example", Some(8443), None, b"/")]);
        assert_eq!(site_names(&with_port, &hosts), [&b"a.example:8443"[..], b"www.a.example:8443"]);
        // A proxy that asks by a name of its own, and states another one.
        let stated = |name: &str| key(b"in.a.example", None, Some(name.as_bytes()), b"/");
        let found = others(&stated("a.example:443"), true);
        for want in [
            key(b"a.example", None, None, b"/"),
            key(b"www.a.example", None, None, b"/"),
            stated("www.a.example:443"),
            key(b"www.a.example", None, Some(b"a.example:443"), b"/"),
        ] {
            assert!(found.contains(&want), "{}", String::from_utf8_lossy(&want));
        }
        assert!(!found.contains(&stated("a.example:443")), "the key itself");
        let many: Vec<_> = (0..300).map(|n| HostPattern::parse(&format!("h{n}.example")).unwrap()).collect();
        assert_eq!(same_page(&key(b"h7.example", None, None, b"/"), &many, true).len(), KEYS_MAX);
        assert_eq!(under_every_name(&plain("a.example")), key(b"", None, None, b"/x?y"));
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
