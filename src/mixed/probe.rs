//! A look at the beginning of a URL: does it lead to an own host by http, and what changes then?
//!
//! URLs are read as browsers read them (WHATWG URL, section 4.4): tabs and line ends do not count, the scheme has no
//! case, and `\` is `/`. Two slashes are required, though: `http:host` is a mistake, whose https form means something
//! else.

use super::edit::{Edit, Edits};
use super::escape::{DecodedText, Escaping, OTHER};
use super::names::{NewAuthority, OwnNames};
use crate::host::{ascii_authority, split_authority};

/// The bytes within which the authority of a URL must end. A name has at most 253 characters, and each may be escaped.
pub const PROBE_MAX: usize = 2048;
/// The bytes that are looked at first. Most URLs are decided there. Each further look is twice as long: in a text full
/// of beginnings, no byte is decoded for many of them.
const FIRST_LOOK: usize = 64;

/// The outcome of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlProbe {
    /// More bytes decide.
    More,
    /// The URL stays.
    Stays,
    /// The changes were added.
    Rewritten,
}

/// The URLs that are rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlUse {
    /// References by http.
    Reference,
    /// The canonical URL of a page: the upstream's name goes, by https, too.
    Canonical,
}

/// Looks at a URL that begins with `source`, and adds its changes, as places in `source`. `is_whole` says that it ends
/// there.
pub fn probe(source: &[u8], escaping: Escaping, is_whole: bool, names: &OwnNames, edits: &mut Edits) -> UrlProbe {
    // Most URLs are decided by their first byte.
    let first = source.iter().find(|b| !b.is_ascii_whitespace());
    match first {
        Some(b'h' | b'H' | b'&' | b'\\') => {}
        Some(b) if *b > b' ' => return UrlProbe::Stays,
        _ => {}
    }
    let is_long = source.len() > PROBE_MAX;
    let source = source.get(..PROBE_MAX).unwrap_or(source);
    let mut size = FIRST_LOOK;
    while let Some(begin) = source.get(..size).filter(|begin| begin.len() < source.len()) {
        let decoded = DecodedText::of(begin, escaping, false);
        let outcome = probe_decoded(decoded, false, UrlUse::Reference, names, edits);
        if outcome != UrlProbe::More {
            return outcome;
        }
        size *= 2;
    }
    let decoded = DecodedText::of(source, escaping, is_whole && !is_long);
    match probe_decoded(decoded, is_whole && !is_long, UrlUse::Reference, names, edits) {
        UrlProbe::More if is_whole || is_long => UrlProbe::Stays,
        outcome => outcome,
    }
}

/// Looks at a URL without escapes. The changes are places in the source of `decoded`.
pub fn probe_decoded(
    mut decoded: DecodedText,
    is_whole: bool,
    url_use: UrlUse,
    names: &OwnNames,
    edits: &mut Edits,
) -> UrlProbe {
    decoded.retain(|b| !matches!(b, b'\t' | b'\n' | b'\r'));
    let text = &*decoded.text;
    let start = text.iter().take_while(|b| **b <= b' ').count();
    let Some(scheme) = read_scheme(&text[start..], is_whole) else { return UrlProbe::More };
    let Some((scheme, slashes)) = scheme else { return UrlProbe::Stays };
    let is_https = scheme == SECURE;
    if is_https && url_use == UrlUse::Reference {
        return UrlProbe::Stays;
    }
    let begin = start + scheme.len() + slashes;
    let end = text[begin..].iter().position(|b| !is_of_authority(*b)).map(|n| begin + n);
    let end = match end {
        None if !is_whole => return UrlProbe::More,
        Some(end) if !ends_authority(text[end]) => return UrlProbe::Stays,
        end => end.unwrap_or(text.len()),
    };
    let Some((host, port)) = parse_authority(&text[begin..end]) else { return UrlProbe::Stays };
    let new = if is_https { names.of_canonical_https(&host, port) } else { names.of_http(&host, port) };
    let Some(new) = new else { return UrlProbe::Stays };
    if !is_https {
        let after = decoded.place(start + 4);
        edits.push(Edit { range: after..after, with: (&b"s"[..]).into() });
    }
    let colon = text[begin..end].iter().rposition(|b| *b == b':').filter(|_| !text[begin..end].ends_with(b"]"));
    let host_end = colon.map_or(end, |colon| begin + colon);
    let (range, with) = match new {
        NewAuthority::SameHost(None) => (host_end..end, Vec::new()),
        NewAuthority::SameHost(Some(port)) => (host_end..end, format!(":{port}").into_bytes()),
        NewAuthority::Other(authority) => (begin..end, authority.as_bytes().to_vec()),
    };
    if !(range.is_empty() && with.is_empty()) {
        edits.push(Edit { range: decoded.place(range.start)..decoded.place(range.end), with: with.into() });
    }
    edits.references += 1;
    UrlProbe::Rewritten
}

const PLAIN: &[u8] = b"http:";
const SECURE: &[u8] = b"https:";

/// Reads a scheme and the slashes behind it. `None` if more bytes decide, `Some(None)` if it is another scheme.
fn read_scheme(text: &[u8], is_whole: bool) -> Option<Option<(&'static [u8], usize)>> {
    for scheme in [PLAIN, SECURE] {
        let length = text.len().min(scheme.len());
        if !text[..length].eq_ignore_ascii_case(&scheme[..length]) {
            continue;
        }
        let rest = &text[length..];
        let slashes = rest.iter().take_while(|b| matches!(b, b'/' | b'\\')).count();
        // The first byte of the authority tells that there are no more slashes.
        if !is_whole && (length < scheme.len() || slashes == rest.len()) {
            return None;
        }
        return Some((length == scheme.len() && slashes >= 2).then_some((scheme, slashes)));
    }
    Some(None)
}

fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || !byte.is_ascii()
        || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']' | b'@' | b'%' | OTHER)
}

/// `true` for bytes that end an authority in a URL, and for those that end the URL in its text.
fn ends_authority(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'&' | b')' | b',' | b' ')
}

/// Reads a host and a port; `None` if it has user information, or is no name. Names may have letters beyond ASCII.
fn parse_authority(text: &[u8]) -> Option<(String, Option<u16>)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut raw = ascii_authority(text).ok()?.into_owned().into_bytes();
    let end = split_authority(&mut raw).ok()?;
    raw.truncate(end.host_len);
    Some((String::from_utf8(raw).ok()?, end.port))
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::blog;
    use super::super::work;
    use super::*;

    fn rewritten(source: &str, escaping: Escaping) -> String {
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        let outcome = probe(source.as_bytes(), escaping, true, &blog(), &mut edits);
        assert_eq!(outcome == UrlProbe::Rewritten, !edits.is_empty(), "{source}");
        edits.apply(source.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[track_caller]
    fn check(source: &str, want: &str) {
        assert_eq!(rewritten(source, Escaping::Html), want, "{source}");
        assert_eq!(rewritten(want, Escaping::Html), want, "again: {want}");
    }

    #[test]
    fn own_hosts() {
        check("http://blog.example/a?b#c", "https://blog.example/a?b#c");
        check("http://blog.example", "https://blog.example");
        check("http://blog.example.", "https://blog.example.");
        check("http://blog.example:80/a", "https://blog.example/a");
        check("http://blog.example:/a", "https://blog.example/a");
        check("HTTP://Blog.Example/A", "HTTPs://Blog.Example/A");
        check("http:\\\\blog.example\\a", "https:\\\\blog.example\\a");
        check("http:///blog.example/", "https:///blog.example/");
        check("http:&#47;&#47;blog.example/", "https:&#47;&#47;blog.example/");
        check("&#104;ttp&colon;&sol;/blog.example&#58;80/", "&#104;ttps&colon;&sol;/blog.example/");
        check(" \n ht\ntp://blog.exa\tmple/", " \n ht\ntps://blog.exa\tmple/");
        check("http://bücher.example/", "https://bücher.example/");
        check("http://xn--bcher-kva.example/", "https://xn--bcher-kva.example/");
        check("http://a.pages.example/", "https://a.pages.example/");
        check("http://cdn.example/a", "https://cdn.example/a");
        check("http://blog.wordpress.example/a", "https://blog.example/a");
        check("http://127.0.0.1:8080/a", "https://blog.example/a");
    }

    #[test]
    fn all_others_stay() {
        for stays in [
            "http://blog.example.evil.net/",
            "http://blog.example@evil.net/",
            "http://blog.example:80@evil.net/",
            "http://blog.example&#64;evil.net/",
            "http://user@blog.example/",
            "http://blog.example:8081/",
            "http://blog.example:443/",
            "http://evil.net/http://blog.example/",
            "http://xblog.example/",
            "http://blog.example%2eevil.net/",
            "http://blog.example%2f",
            "http://blog.example{{path}}",
            "http%3A%2F%2Fblog.example",
            "//blog.example/",
            "https://blog.example/",
            "https://blog.wordpress.example/",
            "http:blog.example",
            "http:/blog.example",
            "xhttp://blog.example/",
            "/http://blog.example/",
            "javascript:'http://blog.example/'",
            "http://",
            "http:",
            "h",
            "",
        ] {
            check(stays, stays);
        }
    }

    #[test]
    fn other_escapes() {
        assert_eq!(rewritten(r"http:\/\/blog.example\/a", Escaping::Json), r"https:\/\/blog.example\/a");
        assert_eq!(rewritten(r"http:\u002f\u002fblog.example", Escaping::Json), r"https:\u002f\u002fblog.example");
        assert_eq!(rewritten(r"\68ttp:\2f /blog.example:80/", Escaping::Css), r"\68ttps:\2f /blog.example/");
    }

    #[test]
    fn canonical_urls() {
        let (mut edits, mut out) = (Edits::default(), Vec::new());
        let source = b"https://blog.wordpress.example:443/a";
        let decoded = DecodedText::of(source, Escaping::Html, true);
        probe_decoded(decoded, true, UrlUse::Canonical, &blog(), &mut edits);
        edits.apply(source, &mut out);
        assert_eq!(out, b"https://blog.example/a");
    }

    /// A look ends near the byte that decides, however much text follows.
    #[test]
    fn short_looks_decide() {
        let decoded = |begin: &str, escaping: Escaping| {
            let text = [begin, &"x/".repeat(PROBE_MAX)].concat();
            work::count(|| probe(text.as_bytes(), escaping, false, &blog(), &mut Edits::default()))
        };
        for (begin, escaping, want) in [
            ("http:=\"", Escaping::Json, UrlProbe::Stays),
            ("http:&quot;", Escaping::Html, UrlProbe::Stays),
            (r#"http:\/\/\""#, Escaping::Json, UrlProbe::Stays),
            ("http://blog.example/", Escaping::Html, UrlProbe::Rewritten),
        ] {
            let (outcome, work) = decoded(begin, escaping);
            assert_eq!(outcome, want, "{begin}");
            assert!(work <= FIRST_LOOK, "{begin}: {work} bytes");
        }
        for length in [100, 500, 1500] {
            let (outcome, work) = decoded(&format!("http://{}/", "a".repeat(length)), Escaping::Html);
            assert_eq!(outcome, UrlProbe::Stays);
            assert!(work <= 4 * (length + FIRST_LOOK), "{length}: {work} bytes");
        }
    }

    #[test]
    fn beginnings_wait() {
        let whole = "http://blog.example:80/";
        for end in 0..whole.len() {
            let mut edits = Edits::default();
            let outcome = probe(&whole.as_bytes()[..end], Escaping::Html, false, &blog(), &mut edits);
            assert_eq!(outcome, UrlProbe::More, "{}", &whole[..end]);
        }
        let long = format!("http://{}", "a".repeat(PROBE_MAX));
        assert_eq!(probe(long.as_bytes(), Escaping::Html, false, &blog(), &mut Edits::default()), UrlProbe::Stays);
        assert_eq!(probe(b"ftp", Escaping::Html, false, &blog(), &mut Edits::default()), UrlProbe::Stays);
    }
}
