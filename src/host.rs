//! Host names: those of sites, and those that requests ask for.
//!
//! Names are compared in one normal form: ASCII, lower case, without a trailing dot; IPv6 addresses
//! keep their brackets. [`HostPattern`] (from the configuration) and [`split_authority`] (from a
//! request) both produce it, so a lookup compares bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

/// The longest name that DNS allows, in bytes (RFC 1035 section 2.3.4), without the trailing dot.
const NAME_MAX: usize = 253;
/// The length of one label, in bytes.
const LABEL: RangeInclusive<usize> = 1..=63;

/// The reason why a text is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidHost {
    /// No name before the port.
    Empty,
    /// Longer than 253 bytes, or a label longer than 63 or empty.
    Length,
    /// A byte that no host name contains: user information, white space, non-ASCII.
    Character,
    /// No number below 65536 after the colon.
    Port,
    /// Brackets without an IPv6 address.
    Address,
    /// A `*` that is not the whole first label.
    Wildcard,
    /// A port after a name that must not have one.
    HasPort,
    /// A URL instead of a name.
    Url,
    /// An IPv6 address without brackets.
    Bare,
    /// The last label is a number, but the name is not an IPv4 address: browsers convert or refuse
    /// it.
    Number,
    /// A wildcard before an address.
    WildcardAddress,
    /// A name with non-ASCII letters that has no ASCII form (UTS 46).
    International,
}

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a host name is needed",
            Self::Length => "a host name has at most 253 characters, in labels of 1 to 63",
            Self::Character => "a host name has letters, digits, hyphens and dots only",
            Self::Port => "the port is not a number from 0 to 65535",
            Self::Address => "the brackets hold no IPv6 address",
            Self::Wildcard => "a wildcard is a whole first label: *.example.com",
            Self::HasPort => "a host has no port: the site answers on every port of [listen]",
            Self::Url => "a host is a name without `https://` before it",
            Self::Bare => "an IPv6 address needs brackets",
            Self::Number => {
                "a name that ends in a number is an IPv4 address to browsers, which write it as four numbers from 0 to \
                 255: 192.0.2.1"
            }
            Self::WildcardAddress => "an address has no wildcard: each one is a host of its own",
            Self::International => "this international name has no ASCII form (UTS 46)",
        })
    }
}

impl std::error::Error for InvalidHost {}

/// The end of the host in an authority, and the port after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityEnd {
    /// The length of the host in bytes, without the trailing dot and the port.
    pub host_len: usize,
    /// The explicit port. `None` also for `host:`, which RFC 3986 section 3.2.3 allows.
    pub port: Option<u16>,
}

/// Checks the value of a Host field or an `:authority`, and lower-cases it in place.
///
/// # Errors
///
/// [`InvalidHost`] for everything except `host [ ":" port ]`: RFC 9112 section 3.2 requires a 400
/// then.
pub fn split_authority(raw: &mut [u8]) -> Result<AuthorityEnd, InvalidHost> {
    let (host_len, rest) = if raw.first() == Some(&b'[') {
        let close = raw.iter().position(|b| *b == b']').ok_or(InvalidHost::Address)?;
        let address = &mut raw[..close];
        address.make_ascii_lowercase();
        let text = std::str::from_utf8(&address[1..]).map_err(|_| InvalidHost::Address)?;
        text.parse::<Ipv6Addr>().map_err(|_| InvalidHost::Address)?;
        (close + 1, close + 1)
    } else {
        name_before_port(raw)?
    };
    let port = match &raw[rest..] {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(parse_port(digits)?),
        _ => return Err(InvalidHost::Character),
    };
    Ok(AuthorityEnd { host_len, port })
}

/// Each byte that a name may contain, in lower case; otherwise 0.
static NAME_BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut byte: u8 = 0;
    while byte.is_ascii() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            bytes[byte as usize] = byte.to_ascii_lowercase();
        }
        byte += 1;
    }
    bytes
};

/// Checks the name before a port and lower-cases it. Returns its length without and with the
/// trailing dot. Every request has one, so each byte is read once.
fn name_before_port(raw: &mut [u8]) -> Result<(usize, usize), InvalidHost> {
    let (mut label, mut end) = (0, 0);
    while end < raw.len() && raw[end] != b':' {
        match NAME_BYTES[usize::from(raw[end])] {
            0 => return Err(InvalidHost::Character),
            b'.' if LABEL.contains(&label) => label = 0,
            b'.' if end == 0 && matches!(raw.get(1), None | Some(b':')) => return Err(InvalidHost::Empty),
            b'.' => return Err(InvalidHost::Length),
            lower => {
                raw[end] = lower;
                label += 1;
            }
        }
        end += 1;
    }
    let len = end - usize::from(end > 0 && label == 0);
    if len == 0 {
        Err(InvalidHost::Empty)
    } else if len > NAME_MAX || label > *LABEL.end() {
        Err(InvalidHost::Length)
    } else {
        Ok((len, end))
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, InvalidHost> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidHost::Port);
    }
    let number = digits.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
    u16::try_from(number).map_err(|_| InvalidHost::Port)
}

/// A configured host: an exact name, or a wildcard for one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    wildcard: bool,
    /// The name without the wildcard's `*.`.
    name: Box<str>,
}

impl HostPattern {
    /// Parses `blog.example.com`, `*.example.com`, `bücher.example`, `192.0.2.1` or `[2001:db8::1]`.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`], also if there is a port.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let text = &*ascii(text)?;
        let (wildcard, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        if rest.contains('*') {
            return Err(InvalidHost::Wildcard);
        }
        let mut raw = rest.as_bytes().to_vec();
        let authority = split_authority(&mut raw).map_err(|error| match error {
            // Whatever is wrong with a port, there should be none.
            InvalidHost::Port if rest.contains('@') => InvalidHost::Character,
            InvalidHost::Port => InvalidHost::HasPort,
            error => error,
        })?;
        if authority.port.is_some() || rest.ends_with(':') {
            return Err(InvalidHost::HasPort);
        }
        raw.truncate(authority.host_len);
        let mut name = String::from_utf8(raw).map_err(|_| InvalidHost::Character)?.into_boxed_str();
        // An address in the normal form that clients send (RFC 5952).
        if let Some(address) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')?.parse::<Ipv6Addr>().ok()) {
            name = format!("[{address}]").into_boxed_str();
        }
        if wildcard && (!name.contains('.') || name.starts_with('[')) {
            return Err(InvalidHost::Wildcard);
        }
        Ok(Self { wildcard, name })
    }

    /// The same for a host of a site: refuses names that no browser would ask for, too.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`].
    pub fn of_site(text: &str) -> Result<Self, InvalidHost> {
        if text.contains("://") {
            return Err(InvalidHost::Url);
        }
        let name = without_wildcard(text);
        let is_wildcard = name.len() < text.len();
        if name.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
            match (is_wildcard, name.starts_with('[')) {
                (true, _) => return Err(InvalidHost::WildcardAddress),
                (false, false) => return Err(InvalidHost::Bare),
                (false, true) => {}
            }
        }
        let pattern = Self::parse(text)?;
        match (pattern.wildcard, pattern.address()) {
            (true, Some(_)) => Err(InvalidHost::WildcardAddress),
            (false, Some(_)) => Ok(pattern),
            (_, None) if ends_in_number(&pattern.name) => Err(InvalidHost::Number),
            (_, None) => Ok(pattern),
        }
    }

    /// The name, if it is exact.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (!self.wildcard).then_some(&*self.name)
    }

    /// The name without the `*.` of a wildcard.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.name
    }

    /// `true` for `*.something`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The wildcard that covers an exact name; `None` if no wildcard can.
    #[must_use]
    pub fn wildcard_above(&self) -> Option<Self> {
        let (_, above) = self.exact()?.split_once('.')?;
        let is_name = above.contains('.') && self.address().is_none();
        is_name.then(|| Self { wildcard: true, name: above.into() })
    }

    /// The address, if the name is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        bare(&self.name).parse().ok()
    }

    /// `true` if this pattern covers `host`. A wildcard covers exactly one label (RFC 9525 section
    /// 6.3).
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        if self.wildcard { wildcard_base(host.as_bytes()) == Some(self.name.as_bytes()) } else { host == &*self.name }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.name)
    }
}

/// `true` if the last label is a number in a URL's sense (WHATWG URL, "ends in a number"): decimal,
/// octal or hexadecimal.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Returns the ASCII form of a name that may be international: its A-labels (RFC 5890 section
/// 2.3.2.1).
///
/// # Errors
///
/// [`InvalidHost::International`] for names without one.
pub fn ascii(text: &str) -> Result<Cow<'_, str>, InvalidHost> {
    if text.is_ascii() {
        return Ok(text.into());
    }
    let (wildcard, name) = text.strip_prefix("*.").map_or(("", text), |name| ("*.", name));
    let name = idna::domain_to_ascii(name).map_err(|_| InvalidHost::International)?;
    Ok(format!("{wildcard}{name}").into())
}

/// The same for a name with an optional port.
///
/// # Errors
///
/// [`InvalidHost::International`] for names without one.
pub fn ascii_authority(text: &str) -> Result<Cow<'_, str>, InvalidHost> {
    let colon = text.find(':').unwrap_or(text.len());
    match ascii(&text[..colon])? {
        Cow::Borrowed(_) => Ok(text.into()),
        Cow::Owned(name) => Ok(format!("{name}{}", &text[colon..]).into()),
    }
}

/// A name for people: A-labels followed by their letters, `xn--bcher-kva.example (bücher.example)`.
#[must_use]
pub fn both_forms(name: &str) -> String {
    let (wildcard, base) = name.strip_prefix("*.").map_or(("", name), |base| ("*.", base));
    let (letters, valid) = idna::domain_to_unicode(base);
    if valid.is_ok() && letters != base { format!("{name} ({wildcard}{letters})") } else { name.to_owned() }
}

/// Returns a name without the `*.` of a wildcard.
#[must_use]
pub fn without_wildcard(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}

/// `b.c` for `a.b.c`: the name whose wildcard would match.
fn wildcard_base(host: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b'.', host).map(|dot| &host[dot + 1..])
}

/// The kind of pattern that a host was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// The name itself.
    Exact,
    /// A wildcard for it.
    Wildcard,
}

/// Values by host name. An exact name takes precedence over a wildcard.
#[derive(Debug, Clone)]
pub struct HostMap<T> {
    exact: NameMap<T>,
    wildcard: NameMap<T>,
}

/// Clients choose the names to look up, but only the operator's names are stored: no client can
/// make lookups slow.
type NameMap<T> = HashMap<Box<[u8]>, T, foldhash::fast::RandomState>;

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self { exact: NameMap::default(), wildcard: NameMap::default() }
    }
}

impl<T> HostMap<T> {
    /// Adds a pattern. Returns the value that it replaces.
    pub fn insert(&mut self, pattern: &HostPattern, value: T) -> Option<T> {
        let map = if pattern.wildcard { &mut self.wildcard } else { &mut self.exact };
        map.insert(pattern.name.as_bytes().into(), value)
    }

    /// The value for a host in the normal form of [`split_authority`].
    #[must_use]
    pub fn get<N: AsRef<[u8]> + ?Sized>(&self, host: &N) -> Option<&T> {
        self.find(host).map(|(_, value)| value)
    }

    /// The same, with the kind of pattern that it was found by.
    #[must_use]
    pub fn find<N: AsRef<[u8]> + ?Sized>(&self, host: &N) -> Option<(FoundBy, &T)> {
        let host = host.as_ref();
        if let Some(value) = self.exact.get(host) {
            return Some((FoundBy::Exact, value));
        }
        if self.wildcard.is_empty() {
            return None;
        }
        self.wildcard.get(wildcard_base(host)?).map(|value| (FoundBy::Wildcard, value))
    }

    /// The value of exactly this pattern.
    #[must_use]
    pub fn get_pattern(&self, pattern: &HostPattern) -> Option<&T> {
        let map = if pattern.wildcard { &self.wildcard } else { &self.exact };
        map.get(pattern.name.as_bytes())
    }
}

/// Returns `true` if a name lies below a domain: `b.c` and `c` for `a.b.c`. Both are in lower case.
#[must_use]
pub fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Returns a host without the brackets of an IPv6 address.
#[must_use]
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// Returns a host with the brackets of an IPv6 address.
#[must_use]
pub fn bracketed(host: &str) -> Cow<'_, str> {
    if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]").into() } else { host.into() }
}

/// Returns `true` if a name is a domain or lies below it. Both are in lower case.
#[must_use]
pub fn is_within(name: &str, domain: &str) -> bool {
    name == domain || is_below(name, domain)
}

/// Returns a host as a file name, without asterisk, brackets and colons.
#[must_use]
pub fn file_stem(host: &str) -> String {
    host.replace('*', "_wildcard").replace(['[', ']'], "").replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(raw: &str, want: Result<(&str, Option<u16>), InvalidHost>) {
        let mut bytes = raw.as_bytes().to_vec();
        let got = split_authority(&mut bytes);
        let got = got.map(|a| (std::str::from_utf8(&bytes[..a.host_len]).unwrap(), a.port));
        assert_eq!(got, want, "{raw:?}");
    }

    #[test]
    fn names_below() {
        assert!(is_within("a.wordpress.com", "wordpress.com") && is_within("wordpress.com", "wordpress.com"));
        assert!(is_below("a.wordpress.com", "wordpress.com") && !is_below("wordpress.com", "wordpress.com"));
        assert!(!is_within("notwordpress.com", "wordpress.com") && !is_within("wordpress.com.evil", "wordpress.com"));
    }

    #[test]
    fn wildcards_above() {
        for (name, above) in [
            ("a.w.example", Some("*.w.example")),
            ("b.a.w.example", Some("*.a.w.example")),
            ("w.example", None),
            ("localhost", None),
            ("*.w.example", None),
            ("192.0.2.1", None),
            ("[2001:db8::1]", None),
        ] {
            let found = HostPattern::parse(name).unwrap().wildcard_above();
            assert_eq!(found, above.map(|above| HostPattern::parse(above).unwrap()), "{name}");
            assert!(found.is_none_or(|found| found.matches(name)), "{name}");
        }
    }

    #[test]
    fn brackets() {
        for (with, without) in
            [("[2001:db8::1]", "2001:db8::1"), ("a.example", "a.example"), ("192.0.2.1", "192.0.2.1")]
        {
            assert_eq!((&*bracketed(without), bare(with)), (with, without));
            assert_eq!(bracketed(with), with);
        }
    }

    #[test]
    fn authorities() {
        check("blog.example.com", Ok(("blog.example.com", None)));
        check("Blog.EXAMPLE.com:8443", Ok(("blog.example.com", Some(8443))));
        check("blog.example.com.", Ok(("blog.example.com", None)));
        check("blog.example.com.:80", Ok(("blog.example.com", Some(80))));
        check("blog.example.com:", Ok(("blog.example.com", None)));
        check("[2001:DB8::1]", Ok(("[2001:db8::1]", None)));
        check("[::1]:443", Ok(("[::1]", Some(443))));
        check("127.0.0.1:8080", Ok(("127.0.0.1", Some(8080))));
        check("a_b.example", Ok(("a_b.example", None)));
        check("", Err(InvalidHost::Empty));
        check(".", Err(InvalidHost::Empty));
        check(":443", Err(InvalidHost::Empty));
        check("a..b", Err(InvalidHost::Length));
        check(".a", Err(InvalidHost::Length));
        check("a.b..", Err(InvalidHost::Length));
        check("user@host", Err(InvalidHost::Character));
        check("user:pw@host", Err(InvalidHost::Port));
        check("a b", Err(InvalidHost::Character));
        check("a/b", Err(InvalidHost::Character));
        check("bücher.example", Err(InvalidHost::Character));
        check("host:65536", Err(InvalidHost::Port));
        check("host:+80", Err(InvalidHost::Port));
        check("host:80:80", Err(InvalidHost::Port));
        check("[::1", Err(InvalidHost::Address));
        check("[::g]", Err(InvalidHost::Address));
        check("[::1]x", Err(InvalidHost::Character));
        check(&"a".repeat(64), Err(InvalidHost::Length));
        check(&format!("{}a", "ab.".repeat(85)), Err(InvalidHost::Length));
    }

    #[test]
    fn patterns() {
        let matches = |pattern: &str, host: &str| HostPattern::parse(pattern).unwrap().matches(host);
        assert!(matches("*.Example.com", "a.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(matches("example.com.", "example.com"));
        for bad in ["*", "*.com:443", "a.*.com", "*a.com", "host:1", "*.com"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
        for with_port in ["host:1", "*.example.com:443", "[::1]:443", "host:", "host:65536", "host:https", "host:-1"] {
            assert_eq!(HostPattern::parse(with_port), Err(InvalidHost::HasPort), "{with_port}");
        }
        assert_eq!(HostPattern::parse("[2001:DB8:0:0::1]").unwrap().to_string(), "[2001:db8::1]");
    }

    /// Names that browsers would not ask for in this form.
    #[test]
    fn hosts_of_sites() {
        let check = |text: &str, want: Result<(), InvalidHost>| {
            assert_eq!(HostPattern::of_site(text).map(|_| ()), want, "{text:?}");
        };
        for fine in
            ["a.example", "*.a.example", "192.0.2.1", "[2001:db8::1]", "1.example", "a.0xg", "a.1b", "a.xn--p1ai"]
        {
            check(fine, Ok(()));
        }
        for url in ["https://a.example", "http://a.example/", "https://a.example:8443", "https://[::1]", "https://"] {
            check(url, Err(InvalidHost::Url));
        }
        for bare in ["2001:db8::1", "::1", "::ffff:192.0.2.1"] {
            check(bare, Err(InvalidHost::Bare));
        }
        for wildcard in ["*.192.0.2.1", "*.[2001:db8::1]", "*.2001:db8::1", "*.192.0.2.1."] {
            check(wildcard, Err(InvalidHost::WildcardAddress));
        }
        for number in [
            "127.1",
            "0x7f.1",
            "2130706433",
            "192.0.2.256",
            "192.0.2.01",
            "1.2.3.4.5",
            "a.example.1",
            "a.0x1f",
            "a.0x",
            "0X7F.1",
            "*.a.1",
            "127.1.",
            "a.08",
            "\u{ff11}27.1",
        ] {
            check(number, Err(InvalidHost::Number));
        }
        check("a.example:443", Err(InvalidHost::HasPort));
        check("*", Err(InvalidHost::Wildcard));
        check("*.*.example.com", Err(InvalidHost::Wildcard));
        check("a.example/x", Err(InvalidHost::Character));
    }

    /// Accepted as people write them, compared and sent in ASCII, shown in both forms.
    #[test]
    fn international_names() {
        let check = |text: &str, ascii: &str, shown: &str| {
            let name = HostPattern::parse(text).unwrap().to_string();
            assert_eq!((name.as_str(), both_forms(&name).as_str()), (ascii, shown), "{text}");
        };
        check("bücher.example", "xn--bcher-kva.example", "xn--bcher-kva.example (bücher.example)");
        check("BÜCHER.Example", "xn--bcher-kva.example", "xn--bcher-kva.example (bücher.example)");
        check("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example (bücher.example)");
        check("*.bücher.example", "*.xn--bcher-kva.example", "*.xn--bcher-kva.example (*.bücher.example)");
        check("例え。テスト", "xn--r8jz45g.xn--zckzah", "xn--r8jz45g.xn--zckzah (例え.テスト)");
        check("blog.example.com", "blog.example.com", "blog.example.com");
        check("[::1]", "[::1]", "[::1]");
        for bad in ["bücher.example:8443", "a\u{ad00}\u{d7ff}.example", "bü cher.example", "\u{300}a.example"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exact_before_wildcard() {
        let mut map = HostMap::default();
        map.insert(&HostPattern::parse("*.example.com").unwrap(), 1);
        map.insert(&HostPattern::parse("www.example.com").unwrap(), 2);
        assert_eq!(map.get("www.example.com"), Some(&2));
        assert_eq!(map.get("blog.example.com"), Some(&1));
        assert_eq!(map.get("example.com"), None);
        assert_eq!(map.get("x.blog.example.com"), None);
    }

    prop_compose! {
        fn names()(labels in prop::collection::vec("[ab]{1,2}", 1..4)) -> String { labels.join(".") }
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_naive_scan(
            patterns in prop::collection::vec((any::<bool>(), names()), 0..12), host in names()
        ) {
            let patterns: Vec<HostPattern> = patterns.into_iter()
                .filter_map(|(w, n)| HostPattern::parse(&if w { format!("*.{n}") } else { n }).ok())
                .collect();
            let mut map = HostMap::default();
            for p in &patterns {
                map.insert(p, p.clone());
            }
            let naive = patterns.iter().filter(|p| p.matches(&host)).min_by_key(|p| p.is_wildcard());
            prop_assert_eq!(map.get(&host), naive);
        }

        #[test]
        fn any_bytes_are_refused_or_normal(raw in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut once = raw.clone();
            if let Ok(a) = split_authority(&mut once) {
                let mut host = once[..a.host_len].to_vec();
                let again = split_authority(&mut host).unwrap();
                prop_assert_eq!(again, AuthorityEnd { host_len: a.host_len, port: None });
                prop_assert!(host.iter().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
            }
        }
    }
}
