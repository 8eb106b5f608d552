//! The client's address and scheme, as far as trusted proxies state them.
//!
//! The rule, in one place:
//!
//! * `listen.trust` names the one field that trusted proxies write. pintle reads that field from the
//!   peers in `trusted_proxies`. It reads no other field, and no field of other peers.
//! * A PROXY header replaces the peer: the address that it names is believed only if it is a trusted
//!   proxy's, too. Its TLS TLV states the scheme, unless such a proxy states one.
//! * A list (members in one field or in several) is read from the right, where the nearest proxy
//!   appends. The walk continues to the left while the address that a hop reports is a trusted
//!   proxy's. The last hop decides.
//! * An element of `Forwarded` belongs to its own hop. A member of `X-Forwarded-Proto` belongs to the
//!   hop at the same place of `X-Forwarded-For` if both lists have the same length. Otherwise its
//!   rightmost member counts.
//! * A syntax error states nothing, and neither does anything to its left. Everything to its right
//!   still counts: a client that leaves a quote open does not remove the balancer's own element.
//! * A scheme other than http and https states nothing.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::redirect::Scheme;
use crate::host::{HostPattern, split_authority};
use crate::message::{Fields, Name, tokens};

/// The most members of one list that are read. The client may have written further ones itself.
const HOPS_MAX: usize = 32;
/// The most parameters of one element of `Forwarded`; RFC 7239 defines four.
const PARAMETERS_MAX: usize = 8;

/// The field that trusted proxies write: `listen.trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustedField {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// The PROXY header before the first request; no field of a request.
    Proxy,
}

impl TrustedField {
    /// The request field; `None` for PROXY headers.
    #[must_use]
    pub fn of_requests(self) -> Option<RequestField> {
        match self {
            Self::XForwarded => Some(RequestField::XForwarded),
            Self::Forwarded => Some(RequestField::Forwarded),
            Self::Proxy => None,
        }
    }
}

/// A request field that trusted proxies write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestField {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl RequestField {
    /// The field that states the scheme, as `Vary` lists it.
    #[must_use]
    pub fn scheme_field(self) -> &'static str {
        match self {
            Self::XForwarded => "X-Forwarded-Proto",
            Self::Forwarded => "Forwarded",
        }
    }
}

/// The source of a request's scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemeSource {
    /// The listener: nobody states another one.
    Listener,
    /// The TLS TLV of a PROXY header.
    Proxy,
    /// A field of the request.
    Field(RequestField),
}

impl SchemeSource {
    /// Its name in records: `listener`, `PROXY`, or that of the field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Proxy => "PROXY",
            Self::Field(field) => field.scheme_field(),
        }
    }
}

/// The peers that may state scheme and client, and the field that they use.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    ranges: Vec<IpNet>,
    field: TrustedField,
}

impl Trust {
    /// Trusts these ranges, by this field.
    #[must_use]
    pub fn new(ranges: Vec<IpNet>, field: TrustedField) -> Self {
        Self { ranges, field }
    }

    /// `true` if nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// `true` if the address is trusted. IPv4 addresses in IPv6 form count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// The field that pintle reads from requests of this address, if any.
    fn believed(&self, address: IpAddr) -> Option<RequestField> {
        self.field.of_requests().filter(|_| self.contains(address))
    }
}

/// The origin of a connection, before any request is read.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The peer of the socket, or the source that a trusted proxy's PROXY header names.
    pub address: IpAddr,
    /// The peer of the socket, if it is a trusted proxy.
    pub proxy: Option<IpAddr>,
    /// The field that pintle reads from its requests. `None` for strangers, and for clients behind
    /// a PROXY header.
    pub believed: Option<RequestField>,
    /// The scheme that the PROXY header's TLS TLV states.
    pub tlv_scheme: Option<Scheme>,
    /// The scheme of the listener.
    pub listener: Scheme,
}

impl Peer {
    /// A connection without a PROXY header.
    #[must_use]
    pub fn new(address: IpAddr, listener: Scheme, trust: &Trust) -> Self {
        let address = address.to_canonical();
        let proxy = trust.contains(address).then_some(address);
        Self { address, proxy, believed: trust.believed(address), tlv_scheme: None, listener }
    }

    /// Applies a trusted proxy's PROXY header. Without a source (UNKNOWN, LOCAL, a Unix socket) the
    /// client is unknown, and no field of its requests is believed.
    pub fn speaks_for(&mut self, source: Option<IpAddr>, scheme: Option<Scheme>, trust: &Trust) {
        self.tlv_scheme = scheme;
        self.believed = source.and_then(|source| trust.believed(source));
        if let Some(source) = source {
            self.address = source.to_canonical();
        }
    }
}

/// The client of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// The source of the scheme.
    pub scheme_from: SchemeSource,
    /// The field that decides the scheme of this peer's requests, even if this request lacks it:
    /// caches need it.
    pub decided_by: Option<RequestField>,
    /// The client's address.
    pub client: IpAddr,
    /// The trusted hops between the client and the peer.
    pub hops: Vec<IpAddr>,
    /// The authority that the client asked for, as a trusted proxy states it. Use it only if it
    /// names a host of the site.
    pub host: Option<Box<[u8]>>,
}

impl Origin {
    /// The fields that influence the upstream's response, for `Vary`. They count even if this
    /// request lacks them, since another request may have them.
    #[must_use]
    pub fn vary(&self) -> Option<&'static str> {
        Some(match self.decided_by? {
            RequestField::XForwarded => "X-Forwarded-Proto, X-Forwarded-Host",
            RequestField::Forwarded => RequestField::Forwarded.scheme_field(),
        })
    }

    /// The authority that a trusted proxy states, in the normal form of hosts; `None` unless it
    /// names one of these hosts.
    #[must_use]
    pub fn host_of(&self, hosts: &[HostPattern]) -> Option<Vec<u8>> {
        let mut stated = self.host.as_deref()?.to_vec();
        let authority = split_authority(&mut stated).ok()?;
        stated.truncate(authority.host_len);
        let name = std::str::from_utf8(&stated).ok()?;
        if !hosts.iter().any(|pattern| pattern.matches(name)) {
            return None;
        }
        if let Some(port) = authority.port {
            stated.push(b':');
            stated.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        Some(stated)
    }
}

/// Determines the scheme and the client of a request.
#[must_use]
pub fn origin(peer: &Peer, fields: &Fields, trust: &Trust) -> Origin {
    let mut origin = Origin {
        scheme: peer.tlv_scheme.unwrap_or(peer.listener),
        scheme_from: peer.tlv_scheme.map_or(SchemeSource::Listener, |_| SchemeSource::Proxy),
        decided_by: peer.believed,
        client: peer.address,
        hops: Vec::new(),
        host: None,
    };
    let Some(field) = peer.believed else { return origin };
    let mut walk = match field {
        RequestField::XForwarded => x_forwarded(fields, trust),
        RequestField::Forwarded => walk(forwarded(fields), trust),
    };
    if let Some(scheme) = walk.scheme {
        origin.scheme = scheme;
        origin.scheme_from = SchemeSource::Field(field);
    }
    if let Some(client) = walk.addresses.pop() {
        origin.client = client;
        walk.addresses.reverse();
        walk.addresses.push(peer.address);
        origin.hops = walk.addresses;
    }
    origin.host = walk.host.map(Into::into);
    origin
}

/// One proxy's statement about its client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Hop<'a> {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
    host: Option<&'a [u8]>,
}

#[derive(Debug, Default)]
struct Walk<'a> {
    scheme: Option<Scheme>,
    host: Option<&'a [u8]>,
    /// The trusted proxies that passed the request on, the nearest first, then the client.
    addresses: Vec<IpAddr>,
}

/// Walks the hops, the nearest first, while their addresses are trusted.
fn walk<'a>(hops: impl Iterator<Item = Hop<'a>>, trust: &Trust) -> Walk<'a> {
    let mut walk = Walk::default();
    for hop in hops.take(HOPS_MAX) {
        // A hop that states no scheme keeps the scheme of the hop before.
        walk.scheme = hop.scheme.or(walk.scheme);
        walk.host = hop.host.or(walk.host);
        let Some(address) = hop.address else { break };
        walk.addresses.push(address);
        if !trust.contains(address) {
            break;
        }
    }
    walk
}

/// Walks the members of `X-Forwarded-For`, each with its member of `X-Forwarded-Proto` if the lists
/// have the same length.
fn x_forwarded<'a>(fields: &'a Fields, trust: &Trust) -> Walk<'a> {
    let members = |name| fields.get_all(name).flat_map(tokens);
    let aligned = members(Name::XForwardedFor).count() == members(Name::XForwardedProto).count();
    let mut schemes = members(Name::XForwardedProto).rev().map(Scheme::parse);
    let hops = members(Name::XForwardedFor).rev().map(|text| Hop {
        address: parse_address(text),
        scheme: if aligned { schemes.next().flatten() } else { None },
        host: None,
    });
    let mut walk = walk(hops, trust);
    if !aligned {
        walk.scheme = members(Name::XForwardedProto).next_back().and_then(Scheme::parse);
    }
    walk.host = members(Name::XForwardedHost).next_back();
    walk
}

/// The elements of `Forwarded` (RFC 7239 section 4), the nearest hop's first, up to the first
/// syntax error.
fn forwarded(fields: &Fields) -> impl Iterator<Item = Hop<'_>> {
    let elements = fields.get_all(Name::Forwarded).rev().flat_map(|value| Elements { rest: Some(value) });
    elements.map_while(|element| parse_element(element.ok()?))
}

/// A quote that is never closed, or never opened.
struct OpenQuote;

/// The elements of one field from the right, without empty ones (RFC 9110 section 5.6.1).
///
/// From the right, because proxies append. Everything that a client has written, even quotes and
/// backslashes, is left of the nearest proxy's element, and cannot change where that element
/// begins.
struct Elements<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], OpenQuote>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let value = self.rest.take()?;
            let mut quoted = false;
            let comma = value.iter().enumerate().rposition(|(at, b)| {
                // Read backwards, a quote opens a string, and the next unescaped quote closes it.
                if *b == b'"' && !(quoted && is_escaped(&value[..at])) {
                    quoted = !quoted;
                }
                *b == b',' && !quoted
            });
            if quoted {
                return Some(Err(OpenQuote));
            }
            let (rest, element) = match comma {
                Some(at) => (Some(&value[..at]), &value[at + 1..]),
                None => (None, value),
            };
            self.rest = rest;
            if !element.trim_ascii().is_empty() {
                return Some(Ok(element.trim_ascii()));
            }
        }
    }
}

/// `true` if the byte after these is escaped: an odd number of backslashes precedes it.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// Reads one element. `None` if it is malformed: a bad name or value, or a parameter that occurs
/// twice.
fn parse_element(mut rest: &[u8]) -> Option<Hop<'_>> {
    let mut hop = Hop::default();
    let mut names: [&[u8]; PARAMETERS_MAX] = [b""; PARAMETERS_MAX];
    let mut known = 0;
    loop {
        rest = rest.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b";") {
            let (name, value, behind) = parse_pair(rest)?;
            if names[..known].iter().any(|n| n.eq_ignore_ascii_case(name)) {
                return None;
            }
            *names.get_mut(known)? = name;
            known += 1;
            if name.eq_ignore_ascii_case(b"for") {
                hop.address = parse_address(value);
            } else if name.eq_ignore_ascii_case(b"proto") {
                hop.scheme = Scheme::parse(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                hop.host = Some(value);
            }
            rest = behind.trim_ascii_start();
        }
        match rest {
            [] => return Some(hop),
            [b';', behind @ ..] => rest = behind,
            _ => return None,
        }
    }
}

/// Reads `name=value` at the front. Returns the name, the value without quotes, and the rest.
fn parse_pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, value) = text.split_at(text.iter().position(|b| *b == b'=')?);
    let value = &value[1..];
    if !is_token(name) {
        return None;
    }
    if let Some(quoted) = value.strip_prefix(b"\"") {
        let is_end = |(at, b): (usize, &u8)| *b == b'"' && !is_escaped(&quoted[..at]);
        let end = quoted.iter().enumerate().position(is_end)?;
        return Some((name, &quoted[..end], &quoted[end + 1..]));
    }
    let end = value.iter().position(|b| *b == b';' || b.is_ascii_whitespace()).unwrap_or(value.len());
    is_token(&value[..end]).then(|| (name, &value[..end], &value[end..]))
}

/// A token (RFC 9110 section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    let is_tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !text.is_empty() && text.iter().all(is_tchar)
}

/// Reads an address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`,
/// `[2001:db8::1]:80`. `None` for names and obfuscated identifiers (RFC 7239 section 6).
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
        return port_fits.then(|| address.parse::<Ipv6Addr>().ok()).flatten().map(|a| IpAddr::from(a).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    address.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn trust(field: TrustedField) -> Trust {
        Trust::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()], field)
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn asked(from: &str, field: TrustedField, pairs: &[(&str, &str)]) -> Origin {
        let trust = trust(field);
        origin(&Peer::new(ip(from), Scheme::Http, &trust), &fields(pairs), &trust)
    }

    fn stated(origin: &Origin) -> Option<Scheme> {
        (origin.scheme_from != SchemeSource::Listener).then_some(origin.scheme)
    }

    fn chain(origin: &Origin) -> Vec<IpAddr> {
        std::iter::once(&origin.client).chain(&origin.hops).copied().collect()
    }

    const XFP: &str = "X-Forwarded-Proto";
    const XFF: &str = "X-Forwarded-For";
    const HTTP: Option<Scheme> = Some(Scheme::Http);
    const HTTPS: Option<Scheme> = Some(Scheme::Https);

    #[test]
    fn whom_to_trust() {
        let trust = trust(TrustedField::XForwarded);
        assert!(trust.contains(ip("10.1.2.3")));
        assert!(trust.contains(ip("::ffff:10.1.2.3")));
        assert!(trust.contains(ip("2001:db8::1")));
        assert!(!trust.contains(ip("11.0.0.1")));
        assert!(!Trust::default().contains(ip("127.0.0.1")));
    }

    #[test]
    fn exactly_one_field_is_read() {
        use TrustedField::{Forwarded, Proxy, XForwarded};
        let x: [(&str, &str); 3] = [(XFF, "198.51.100.1"), (XFP, "https"), ("X-Forwarded-Host", "a.example")];
        let standard = [("Forwarded", "for=198.51.100.2;proto=https;host=b.example")];
        let both = [&x[..], &standard[..]].concat();
        let nothing = |from: &str, field, pairs: &[(&str, &str)]| {
            let got = asked(from, field, pairs);
            let facts = (stated(&got), got.client, got.hops.len(), got.host.is_some());
            assert_eq!(facts, (None, ip(from), 0, false), "{field:?} {pairs:?}");
        };
        nothing("10.0.0.1", Forwarded, &x);
        nothing("10.0.0.1", XForwarded, &standard);
        nothing("10.0.0.1", Proxy, &both);
        for field in [XForwarded, Forwarded, Proxy] {
            nothing("192.0.2.1", field, &both);
            nothing("10.0.0.1", field, &[("X-Real-IP", "198.51.100.3"), ("X-Forwarded-Ssl", "on")]);
        }
        for (field, client, host) in
            [(XForwarded, "198.51.100.1", "a.example"), (Forwarded, "198.51.100.2", "b.example")]
        {
            let got = asked("10.0.0.1", field, &both);
            assert_eq!((stated(&got), got.client, got.decided_by), (HTTPS, ip(client), field.of_requests()));
            assert_eq!(got.host.as_deref(), Some(host.as_bytes()));
        }
    }

    #[test]
    fn scheme_by_x_forwarded_proto() {
        let check = |from: &str, pairs: &[(&str, &str)], want: Option<Scheme>| {
            assert_eq!(stated(&asked(from, TrustedField::XForwarded, pairs)), want, "{from} {pairs:?}");
        };
        // Strangers state nothing.
        check("192.0.2.1", &[(XFP, "https")], None);
        // One trusted proxy.
        check("10.0.0.1", &[], None);
        check("10.0.0.1", &[(XFP, "https")], HTTPS);
        check("10.0.0.1", &[(XFP, "HTTPS")], HTTPS);
        check("10.0.0.1", &[(XFP, "http")], HTTP);
        check("10.0.0.1", &[(XFP, "gopher")], None);
        check("10.0.0.1", &[(XFP, "\"https\"")], None);
        check("10.0.0.1", &[(XFP, "")], None);
        // Lists: in one field, or in two.
        check("10.0.0.1", &[(XFP, "http, https")], HTTPS);
        check("10.0.0.1", &[(XFP, "https,http")], HTTP);
        check("10.0.0.1", &[(XFP, "https"), (XFP, "http")], HTTP);
        check("10.0.0.1", &[(XFP, "http"), (XFP, "https")], HTTPS);
        check("10.0.0.1", &[(XFP, "https, nonsense")], None);
        // A trusted balancer behind a trusted offloader: the offloader decides.
        check("10.0.0.1", &[(XFF, "192.0.2.9, 10.0.0.2"), (XFP, "https, http")], HTTPS);
        check("10.0.0.1", &[(XFF, "192.0.2.9, 10.0.0.2"), (XFP, "https")], HTTPS);
        // The client's own members are left of the walk.
        check("10.0.0.1", &[(XFF, "192.0.2.7, 192.0.2.9"), (XFP, "https, http")], HTTP);
        check("10.0.0.1", &[(XFF, "10.0.0.9, 192.0.2.9"), (XFP, "https, http")], HTTP);
        check("10.0.0.1", &[(XFF, "192.0.2.9"), (XFP, "http, https")], HTTPS);
        // Unread members do not make two lists equally long.
        let (many, fewer) = ("10.0.0.2, ".repeat(40) + "10.0.0.2", "https, ".repeat(33) + "http");
        check("10.0.0.1", &[(XFF, &many), (XFP, &fewer)], HTTP);
    }

    #[test]
    fn scheme_by_forwarded() {
        let check = |value: &str, want: Option<Scheme>| {
            assert_eq!(stated(&asked("10.0.0.1", TrustedField::Forwarded, &[("Forwarded", value)])), want, "{value}");
        };
        check("proto=https", HTTPS);
        check("for=192.0.2.9", None);
        check("for=192.0.2.9;proto=http, for=192.0.2.8;proto=https", HTTPS);
        check("for=192.0.2.9;proto=https, for=10.0.0.2;proto=http", HTTPS);
        check("for=192.0.2.9;proto=https, for=10.0.0.2", HTTPS);
        check("for=192.0.2.9;proto=https, ,for=192.0.2.8;proto=http,", HTTP);
        check("for=\"[2001:db9::9]:443\"; Proto=\"https\" ;by=_x", HTTPS);
        check(";;proto=https;", HTTPS);
        check("x=\"a, b; \\\"c\";proto=https", HTTPS);
        // A malformed element states nothing.
        for wrong in [
            "proto=\"https",
            "proto=https\"",
            "proto = https",
            "proto=https for=192.0.2.9",
            "proto=https;proto=https",
            "proto=http;Proto=https",
            "for=192.0.2.9;proto=https;FOR=192.0.2.9",
            "x=1;x=2;proto=https",
            "a=1;b=1;c=1;d=1;e=1;f=1;g=1;h=1;proto=https",
            "proto",
            "=https;proto=https",
            "proto=",
            "proto=https;for=192.0.2.9:80",
            "proto=https;x=a\"b\"",
            "proto=https;x=\"a\"b",
            "proto=gopher",
        ] {
            check(wrong, None);
            // Neither does anything left of it. Elements to its right still count.
            check(&format!("for=192.0.2.9;proto=https, {wrong}"), None);
            check(&format!("{wrong}, for=192.0.2.9;proto=http"), HTTP);
            check(&format!("{wrong}, for=\"[2001:db9::1]\";proto=https"), HTTPS);
        }
    }

    #[test]
    fn a_client_of_a_proxy_header_is_believed_in_nothing() {
        let all = [(XFP, "https"), (XFF, "198.51.100.1"), ("Forwarded", "for=198.51.100.1;proto=https")];
        let check = |field, source: Option<&str>, tlv: Option<Scheme>, want: (Option<Scheme>, &str)| {
            let trust = trust(field);
            let mut peer = Peer::new(ip("10.0.0.1"), Scheme::Http, &trust);
            peer.speaks_for(source.map(ip), tlv, &trust);
            let got = origin(&peer, &fields(&all), &trust);
            assert_eq!((stated(&got), got.client), (want.0, ip(want.1)), "{field:?} {source:?} {tlv:?}");
            assert_eq!(peer.proxy, Some(ip("10.0.0.1")));
        };
        for field in [TrustedField::XForwarded, TrustedField::Forwarded, TrustedField::Proxy] {
            check(field, Some("192.0.2.7"), None, (None, "192.0.2.7"));
            check(field, Some("192.0.2.7"), HTTP, (HTTP, "192.0.2.7"));
            check(field, Some("192.0.2.7"), HTTPS, (HTTPS, "192.0.2.7"));
            check(field, None, None, (None, "10.0.0.1"));
        }
        // A source that is a trusted proxy itself may use the field; with `proxy`, no request's
        // field is believed.
        check(TrustedField::XForwarded, Some("10.0.0.2"), HTTP, (HTTPS, "198.51.100.1"));
        check(TrustedField::Forwarded, Some("::ffff:10.0.0.2"), None, (HTTPS, "198.51.100.1"));
        check(TrustedField::Proxy, Some("10.0.0.2"), HTTP, (HTTP, "10.0.0.2"));
    }

    #[test]
    fn clients() {
        let check = |from: &str, field, pairs: &[(&str, &str)], want: &[&str]| {
            let want: Vec<IpAddr> = want.iter().map(|a| ip(a)).collect();
            assert_eq!(chain(&asked(from, field, pairs)), want, "{from} {pairs:?}");
        };
        let x = TrustedField::XForwarded;
        check("192.0.2.1", x, &[(XFF, "198.51.100.1")], &["192.0.2.1"]);
        check("10.0.0.1", x, &[], &["10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "203.0.113.1, 198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check(
            "10.0.0.1",
            x,
            &[(XFF, "203.0.113.1"), (XFF, "198.51.100.1, 10.0.0.2")],
            &["198.51.100.1", "10.0.0.2", "10.0.0.1"],
        );
        check(
            "10.0.0.1",
            x,
            &[(XFF, "203.0.113.1, 198.51.100.1, 10.0.0.3, 10.0.0.2")],
            &["198.51.100.1", "10.0.0.3", "10.0.0.2", "10.0.0.1"],
        );
        check("10.0.0.1", x, &[(XFF, "198.51.100.1:1234")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "[2001:db9::1]:99")], &["2001:db9::1", "10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "::ffff:198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "unknown")], &["10.0.0.1"]);
        check("10.0.0.1", x, &[(XFF, "198.51.100.1, junk, 10.0.0.2")], &["10.0.0.2", "10.0.0.1"]);
        let standard = |value: &str, want: &[&str]| {
            check("10.0.0.1", TrustedField::Forwarded, &[("Forwarded", value)], want);
        };
        standard("for=198.51.100.1", &["198.51.100.1", "10.0.0.1"]);
        standard("for=\"198.51.100.1:80\"", &["198.51.100.1", "10.0.0.1"]);
        standard("for=198.51.100.1, for=10.0.0.2", &["198.51.100.1", "10.0.0.2", "10.0.0.1"]);
        standard("for=_hidden, for=10.0.0.2", &["10.0.0.2", "10.0.0.1"]);
        standard("for=unknown", &["10.0.0.1"]);
        standard("for=203.0.113.1;x=\", for=\"198.51.100.1\"", &["198.51.100.1", "10.0.0.1"]);
        standard("for=\"203.0.113.1, for=198.51.100.1;proto=http", &["198.51.100.1", "10.0.0.1"]);
        standard("for=203.0.113.1;for=203.0.113.1, for=10.0.0.2", &["10.0.0.2", "10.0.0.1"]);
    }

    proptest! {
        #[test]
        fn strangers_change_nothing(values in prop::collection::vec(("[a-zX-]{1,20}", "[ -~]{0,40}"), 0..6)) {
            let pairs: Vec<(&str, &str)> = values.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let mut all = fields(&pairs);
            for (_, v) in &values {
                all.push(b"X-Forwarded-For", v.as_bytes());
                all.push(b"X-Forwarded-Proto", v.as_bytes());
                all.push(b"Forwarded", v.as_bytes());
            }
            for field in [TrustedField::XForwarded, TrustedField::Forwarded, TrustedField::Proxy] {
                let trust = trust(field);
                let got = origin(&Peer::new(ip("192.0.2.1"), Scheme::Http, &trust), &all, &trust);
                prop_assert_eq!(got.client, ip("192.0.2.1"));
                prop_assert!(got.scheme_from == SchemeSource::Listener && got.hops.is_empty() && got.decided_by.is_none());
            }
        }

        #[test]
        fn what_the_nearest_proxy_appends_decides(
            left in prop_oneof!["[ -~]{0,40}", "[\"\\\\,;=a ]{0,20}"],
            own in prop_oneof![Just("for=198.51.100.1;proto=https"), Just("proto=\"https\";for=\"198.51.100.1:9\"")],
        ) {
            let xff = format!("{left}, 198.51.100.1");
            let got = asked("10.0.0.1", TrustedField::XForwarded, &[(XFF, &xff), (XFP, &format!("{left}, https"))]);
            prop_assert_eq!((got.client, stated(&got)), (ip("198.51.100.1"), HTTPS));
            let joined = format!("{left}, {own}");
            for pairs in [vec![("Forwarded", &*joined)], vec![("Forwarded", &*left), ("Forwarded", own)]] {
                let got = asked("10.0.0.1", TrustedField::Forwarded, &pairs);
                prop_assert_eq!((got.client, stated(&got)), (ip("198.51.100.1"), HTTPS), "{:?}", pairs);
            }
        }
    }
}
