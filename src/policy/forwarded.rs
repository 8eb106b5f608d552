//! Who the client is and which scheme it used, as far as trusted proxies say so.
//!
//! The rule, in one place:
//!
//! * Only peers in `trusted_proxies` are believed. What strangers send in `X-Forwarded-*`, `Forwarded` or `X-Real-IP`
//!   is dropped.
//! * The scheme is what the PROXY header's TLS TLV says; else `Forwarded: proto=`; else `X-Forwarded-Proto`; else the
//!   listener's own.
//! * A list (members in one field or in several) is read from the right, where the nearest proxy appends. A member of
//!   `Forwarded` belongs to its own hop; a member of `X-Forwarded-Proto` to the hop at the same place of
//!   `X-Forwarded-For` where both lists are equally long. The walk goes left as long as the address that a hop reports
//!   is a trusted proxy's, and the last hop's word counts. Where lists cannot be laid side by side, the rightmost
//!   member counts.
//! * A member that is neither http nor https says nothing.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::redirect::Scheme;
use crate::message::{Fields, Name, tokens};

/// More members than this in one list are not looked at: the leftmost are the client's own anyway.
const HOPS_MAX: usize = 32;

/// The peers that may state scheme and client.
#[derive(Debug, Clone, Default)]
pub struct Trust(Vec<IpNet>);

impl Trust {
    /// Trusts these ranges, and nobody else.
    #[must_use]
    pub fn new(ranges: Vec<IpNet>) -> Self {
        Self(ranges)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address is trusted; IPv4 addresses in their IPv6 form are taken for what they are.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// Whom a connection is from, before any request is read.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The other end of the socket, or the source that a trusted PROXY header gave.
    pub address: IpAddr,
    /// Whether the other end of the socket is trusted to state the scheme.
    pub states_scheme: bool,
    /// Whether `address` is a trusted proxy, so that its lists of clients are believed.
    pub states_client: bool,
    /// What the PROXY header's TLS TLV says.
    pub tlv_scheme: Option<Scheme>,
    /// What the listener speaks.
    pub listener: Scheme,
}

/// What is known of a request's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The scheme that the client used.
    pub scheme: Scheme,
    /// Whether a header said so (and not the connection): caches need to know.
    pub scheme_from_header: bool,
    /// Whether anybody said so at all: header or TLV.
    pub scheme_stated: bool,
    /// The client's address.
    pub client: IpAddr,
    /// The trusted hops between the client and the peer.
    pub hops: Vec<IpAddr>,
}

/// Finds scheme and client of a request.
#[must_use]
pub fn origin(peer: &Peer, fields: &Fields, trust: &Trust) -> Origin {
    let mut origin = Origin {
        scheme: peer.tlv_scheme.unwrap_or(peer.listener),
        scheme_from_header: false,
        scheme_stated: peer.tlv_scheme.is_some(),
        client: peer.address,
        hops: Vec::new(),
    };
    if !peer.states_scheme && !peer.states_client {
        return origin;
    }
    let standard = forwarded_hops(fields);
    let usual = x_forwarded_hops(fields);
    if peer.tlv_scheme.is_none() && peer.states_scheme {
        let stated = standard.iter().any(|h| h.scheme.is_some()).then(|| walk(&standard, trust).scheme).flatten();
        let stated = stated.or_else(|| walk(&usual, trust).scheme).or_else(|| last_word(fields));
        if let Some(scheme) = stated {
            origin.scheme = scheme;
            origin.scheme_from_header = true;
            origin.scheme_stated = true;
        }
    }
    if peer.states_client {
        let named = |hops: &[Hop]| hops.iter().any(|h| h.address.is_some());
        let walked = walk(if named(&standard) { &standard } else { &usual }, trust);
        if let Some((client, hops)) = walked.addresses.split_first() {
            origin.client = *client;
            origin.hops = hops.to_vec();
            origin.hops.push(peer.address);
        }
    }
    origin
}

/// What one proxy reported about whom it got the request from.
#[derive(Debug, Clone, Copy, Default)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<Scheme>,
}

#[derive(Debug, Default)]
struct Walk {
    scheme: Option<Scheme>,
    /// The client first, then the trusted proxies that passed its request on.
    addresses: Vec<IpAddr>,
}

/// From the right, as long as the addresses are trusted.
fn walk(hops: &[Hop], trust: &Trust) -> Walk {
    let mut walk = Walk::default();
    for hop in hops.iter().rev() {
        // A hop that does not tell its side of the scheme leaves that of the hop before.
        walk.scheme = hop.scheme.or(walk.scheme);
        let Some(address) = hop.address else { break };
        walk.addresses.insert(0, address);
        if !trust.contains(address) {
            break;
        }
    }
    walk
}

/// The members of `X-Forwarded-For`, each with its member of `X-Forwarded-Proto`, if there are as many.
fn x_forwarded_hops(fields: &Fields) -> Vec<Hop> {
    let addresses = members(fields, Name::XForwardedFor);
    let schemes = members(fields, Name::XForwardedProto);
    let aligned = addresses.len() == schemes.len();
    let hop = |(at, text): (usize, &&[u8])| Hop {
        address: parse_address(text),
        scheme: if aligned { schemes.get(at).and_then(|s| Scheme::parse(s)) } else { None },
    };
    addresses.iter().enumerate().map(hop).collect()
}

/// The rightmost member of `X-Forwarded-Proto`.
fn last_word(fields: &Fields) -> Option<Scheme> {
    members(fields, Name::XForwardedProto).last().and_then(|word| Scheme::parse(word))
}

fn members(fields: &Fields, name: Name) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = fields.get_all(name).flat_map(tokens).collect();
    if all.len() > HOPS_MAX {
        all.drain(..all.len() - HOPS_MAX);
    }
    all
}

/// The members of `Forwarded` (RFC 7239 section 4).
fn forwarded_hops(fields: &Fields) -> Vec<Hop> {
    let mut hops = Vec::new();
    for element in fields.get_all(Name::Forwarded).flat_map(|v| split_quoted(v, b',')) {
        let mut hop = Hop::default();
        for pair in split_quoted(element, b';') {
            let Some(at) = pair.iter().position(|b| *b == b'=') else { continue };
            let (name, value) = (pair[..at].trim_ascii(), unquote(pair[at + 1..].trim_ascii()));
            if name.eq_ignore_ascii_case(b"for") {
                hop.address = parse_address(value);
            } else if name.eq_ignore_ascii_case(b"proto") {
                hop.scheme = Scheme::parse(value);
            }
        }
        hops.push(hop);
    }
    if hops.len() > HOPS_MAX {
        hops.drain(..hops.len() - HOPS_MAX);
    }
    hops
}

/// Splits at `separator` outside of quoted strings; trims, and leaves empty parts out.
fn split_quoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value
        .split(move |b| {
            if escaped {
                escaped = false;
            } else {
                match b {
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b if *b == separator && !quoted => return true,
                    _ => {}
                }
            }
            false
        })
        .map(<[u8]>::trim_ascii)
        .filter(|part| !part.is_empty())
}

fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

/// An address with or without port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. Names and
/// obfuscated identifiers (RFC 7239 section 6) are none.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquote(text)).ok()?;
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

    fn trust() -> Trust {
        Trust::new(vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()])
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn peer(address: &str) -> Peer {
        let trusted = trust().contains(ip(address));
        Peer {
            address: ip(address),
            states_scheme: trusted,
            states_client: trusted,
            tlv_scheme: None,
            listener: Scheme::Http,
        }
    }

    #[test]
    fn whom_to_trust() {
        let trust = trust();
        assert!(trust.contains(ip("10.1.2.3")));
        assert!(trust.contains(ip("::ffff:10.1.2.3")));
        assert!(trust.contains(ip("2001:db8::1")));
        assert!(!trust.contains(ip("11.0.0.1")));
        assert!(!Trust::default().contains(ip("127.0.0.1")));
    }

    #[test]
    fn scheme_table() {
        let check = |from: &str, pairs: &[(&str, &str)], want: Option<Scheme>| {
            let origin = origin(&peer(from), &fields(pairs), &trust());
            assert_eq!(origin.scheme_stated.then_some(origin.scheme), want, "{from} {pairs:?}");
        };
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        let xfp = "X-Forwarded-Proto";
        let xff = "X-Forwarded-For";
        // Strangers state nothing.
        check("192.0.2.1", &[(xfp, "https")], None);
        check("192.0.2.1", &[("Forwarded", "proto=https")], None);
        // One trusted proxy.
        check("10.0.0.1", &[], None);
        check("10.0.0.1", &[(xfp, "https")], https);
        check("10.0.0.1", &[(xfp, "HTTPS")], https);
        check("10.0.0.1", &[(xfp, "http")], http);
        check("10.0.0.1", &[(xfp, "gopher")], None);
        check("10.0.0.1", &[(xfp, "")], None);
        // Lists: in one field, or in two.
        check("10.0.0.1", &[(xfp, "http, https")], https);
        check("10.0.0.1", &[(xfp, "https,http")], http);
        check("10.0.0.1", &[(xfp, "https"), (xfp, "http")], http);
        check("10.0.0.1", &[(xfp, "http"), (xfp, "https")], https);
        check("10.0.0.1", &[(xfp, "https, nonsense")], None);
        // A trusted balancer behind a trusted offloader: the offloader's word counts.
        check("10.0.0.1", &[(xff, "192.0.2.9, 10.0.0.2"), (xfp, "https, http")], https);
        check("10.0.0.1", &[(xff, "192.0.2.9, 10.0.0.2"), (xfp, "https")], https);
        // The client's own members stand left of the walk.
        check("10.0.0.1", &[(xff, "192.0.2.7, 192.0.2.9"), (xfp, "https, http")], http);
        check("10.0.0.1", &[(xff, "192.0.2.9"), (xfp, "http, https")], https);
        // Forwarded comes first.
        check("10.0.0.1", &[("Forwarded", "for=192.0.2.9;proto=https"), (xfp, "http")], https);
        check("10.0.0.1", &[("Forwarded", "for=192.0.2.9"), (xfp, "https")], https);
        check("10.0.0.1", &[("Forwarded", "for=192.0.2.9;proto=http, for=192.0.2.8;proto=https")], https);
        check("10.0.0.1", &[("Forwarded", "for=192.0.2.9;proto=https, for=10.0.0.2;proto=http")], https);
        check("10.0.0.1", &[("forwarded", "for=\"[2001:db8::9]:443\"; Proto=\"https\" ;by=_x")], https);
    }

    #[test]
    fn the_tlv_wins() {
        let peer = Peer { tlv_scheme: Some(Scheme::Https), ..peer("10.0.0.1") };
        let got = origin(&peer, &fields(&[("X-Forwarded-Proto", "http")]), &trust());
        assert_eq!((got.scheme, got.scheme_from_header), (Scheme::Https, false));
    }

    #[test]
    fn client_table() {
        let check = |from: &str, pairs: &[(&str, &str)], want: &[&str]| {
            let origin = origin(&peer(from), &fields(pairs), &trust());
            let mut got = vec![origin.client];
            got.extend(&origin.hops);
            assert_eq!(got, want.iter().map(|a| ip(a)).collect::<Vec<_>>(), "{from} {pairs:?}");
        };
        let xff = "X-Forwarded-For";
        check("192.0.2.1", &[(xff, "198.51.100.1")], &["192.0.2.1"]);
        check("10.0.0.1", &[], &["10.0.0.1"]);
        check("10.0.0.1", &[(xff, "198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", &[(xff, "203.0.113.1, 198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check(
            "10.0.0.1",
            &[(xff, "203.0.113.1"), (xff, "198.51.100.1, 10.0.0.2")],
            &["198.51.100.1", "10.0.0.2", "10.0.0.1"],
        );
        check("10.0.0.1", &[(xff, "198.51.100.1:1234")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", &[(xff, "[2001:db9::1]:99")], &["2001:db9::1", "10.0.0.1"]);
        check("10.0.0.1", &[(xff, "::ffff:198.51.100.1")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", &[(xff, "unknown")], &["10.0.0.1"]);
        check("10.0.0.1", &[(xff, "198.51.100.1, junk, 10.0.0.2")], &["10.0.0.2", "10.0.0.1"]);
        check("10.0.0.1", &[("Forwarded", "for=198.51.100.1"), (xff, "198.51.100.2")], &["198.51.100.1", "10.0.0.1"]);
        check("10.0.0.1", &[("Forwarded", "for=_hidden"), (xff, "198.51.100.2")], &["198.51.100.2", "10.0.0.1"]);
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
            let got = origin(&peer("192.0.2.1"), &all, &trust());
            prop_assert_eq!(got.client, ip("192.0.2.1"));
            prop_assert!(!got.scheme_stated && got.hops.is_empty());
        }

        #[test]
        fn what_is_left_of_a_stranger_does_not_matter(left in "[ -~]{0,40}") {
            let left = left.replace('"', "");
            let got = origin(&peer("10.0.0.1"), &fields(&[("X-Forwarded-For", &format!("{left}, 198.51.100.1"))]), &trust());
            prop_assert_eq!(got.client, ip("198.51.100.1"));
        }
    }
}
