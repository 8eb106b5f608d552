//! The PROXY protocol, versions 1 and 2: a trusted balancer's header before the client's first byte.

use std::net::IpAddr;

use ppp::v2::{Addresses, Header};

use crate::policy::Scheme;

/// The longest header of version 1, with its CRLF.
const V1_MAX: usize = 107;
/// The fixed part of a header of version 2, up to its length.
const V2_FIXED: usize = 16;
/// The longest header of version 2 that is read: addresses, and TLVs with a certificate's name or two.
const V2_MAX: usize = 4096;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, and the command LOCAL.
const V2_LOCAL: u8 = 0x20;

const TLV_CRC32C: u8 = 0x03;
const TLV_SSL: u8 = 0x20;
/// The client came over TLS.
const CLIENT_SSL: u8 = 0x01;

/// A PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address. `None` if the balancer speaks for itself (LOCAL, UNKNOWN, a Unix socket).
    pub source: Option<IpAddr>,
    /// The scheme of the client's connection, from the TLS TLV.
    pub scheme: Option<Scheme>,
}

/// An invalid PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoProxyHeader;

/// Parses the header at the front of `buf`, and returns it with its length. `None` if it is incomplete.
///
/// # Errors
///
/// [`NoProxyHeader`]: the connection must be closed.
pub fn parse(buf: &[u8]) -> Result<Option<(usize, ProxyHeader)>, NoProxyHeader> {
    let same = |with: &[u8]| buf.iter().zip(with).all(|(a, b)| a == b);
    if same(V2_SIGNATURE) && !buf.is_empty() {
        parse_v2(buf)
    } else if same(b"PROXY ") {
        parse_v1(buf)
    } else {
        Err(NoProxyHeader)
    }
}

fn parse_v1(buf: &[u8]) -> Result<Option<(usize, ProxyHeader)>, NoProxyHeader> {
    let line = &buf[..buf.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|b| *b == b'\n') else {
        return if buf.len() >= V1_MAX { Err(NoProxyHeader) } else { Ok(None) };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(NoProxyHeader)?;
    let text = std::str::from_utf8(line).map_err(|_| NoProxyHeader)?;
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // "the receiver must ignore anything presented before the CRLF"
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut address = || words.next().and_then(|w| w.parse::<IpAddr>().ok()).ok_or(NoProxyHeader);
            let (source, destination) = (address()?, address()?);
            let ports = [words.next(), words.next()];
            let fits = |a: IpAddr| a.is_ipv4() == (family == "TCP4");
            if !fits(source) || !fits(destination) || !ports.iter().all(is_port) || words.next().is_some() {
                return Err(NoProxyHeader);
            }
            Some(source)
        }
        _ => return Err(NoProxyHeader),
    };
    Ok(Some((end + 1, ProxyHeader { source, scheme: None })))
}

/// Returns `true` for a canonical decimal from 0 to 65535.
fn is_port(word: &Option<&str>) -> bool {
    let is_number = |w: &str| w.parse::<u16>().is_ok_and(|n| n.to_string() == w);
    word.is_some_and(is_number)
}

fn parse_v2(buf: &[u8]) -> Result<Option<(usize, ProxyHeader)>, NoProxyHeader> {
    if buf.len() < V2_FIXED {
        return Ok(None);
    }
    let len = V2_FIXED + usize::from(u16::from_be_bytes([buf[14], buf[15]]));
    if len > V2_MAX {
        return Err(NoProxyHeader);
    }
    if buf.len() < len {
        // Another version is refused without waiting for the rest.
        return if buf[12] >> 4 == 2 { Ok(None) } else { Err(NoProxyHeader) };
    }
    if buf[12] == V2_LOCAL {
        // The balancer itself: "the receiver must [...] discard the protocol block including the family".
        return Ok(Some((len, ProxyHeader { source: None, scheme: None })));
    }
    let header = Header::try_from(&buf[..len]).map_err(|_| NoProxyHeader)?;
    let mut scheme = None;
    for tlv in header.tlvs() {
        let tlv = tlv.map_err(|_| NoProxyHeader)?;
        match tlv.kind {
            TLV_CRC32C if !checksum_fits(&buf[..len], &tlv.value) => return Err(NoProxyHeader),
            TLV_SSL => {
                let client = tlv.value.first().ok_or(NoProxyHeader)?;
                scheme = Some(if client & CLIENT_SSL != 0 { Scheme::Https } else { Scheme::Http });
            }
            _ => {}
        }
    }
    let stated = match header.addresses {
        Addresses::IPv4(a) => ProxyHeader { source: Some(IpAddr::V4(a.source_address)), scheme },
        Addresses::IPv6(a) => ProxyHeader { source: Some(IpAddr::V6(a.source_address).to_canonical()), scheme },
        Addresses::Unix(_) => ProxyHeader { source: None, scheme },
        // As UNKNOWN of version 1: the rest of an unknown family is skipped.
        Addresses::Unspecified => ProxyHeader { source: None, scheme: None },
    };
    Ok(Some((len, stated)))
}

/// Returns `true` if the checksum fits the header, in which the checksum's own bytes count as zero.
fn checksum_fits(header: &[u8], stated: &[u8]) -> bool {
    let Ok(stated) = <[u8; 4]>::try_from(stated) else { return false };
    // Finds the value in the header by its type and length: TLVs are contiguous.
    let mark = [&[TLV_CRC32C, 0, 4], &stated[..]].concat();
    let Some(at) = header.windows(mark.len()).rposition(|w| w == mark) else { return false };
    let mut copy = header.to_vec();
    copy[at + 3..at + 7].fill(0);
    crc32c(&copy) == u32::from_be_bytes(stated)
}

/// CRC-32C (RFC 4960 appendix B); headers are short and rare, so bit by bit will do.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for b in bytes {
        crc ^= u32::from(*b);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parsed = Result<Option<(usize, ProxyHeader)>, NoProxyHeader>;

    fn stated(source: Option<&str>, scheme: Option<Scheme>) -> ProxyHeader {
        ProxyHeader { source: source.map(|s| s.parse().unwrap()), scheme }
    }

    #[test]
    fn version_1() {
        let check = |text: &str, want: Parsed| assert_eq!(parse(text.as_bytes()), want, "{text:?}");
        let ok =
            |text: &str, source| check(&format!("{text}\r\nGET"), Ok(Some((text.len() + 2, stated(source, None)))));
        ok("PROXY TCP4 192.0.2.1 10.0.0.1 56324 443", Some("192.0.2.1"));
        ok("PROXY TCP6 2001:db8::1 ::1 0 65535", Some("2001:db8::1"));
        ok("PROXY UNKNOWN", None);
        ok("PROXY UNKNOWN ffff::1 junk 1", None);
        for partial in ["", "P", "PROXY", "PROXY TCP4 192.0.2.1 10.0.0.1 1 2", "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r"] {
            check(partial, Ok(None));
        }
        for bad in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
            "PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 ::1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
            "PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
            "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
            "PROXY \r\n",
        ] {
            check(bad, Err(NoProxyHeader));
        }
        check(&format!("PROXY UNKNOWN {}", "x".repeat(93)), Err(NoProxyHeader));
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = [V2_SIGNATURE, &[command, family]].concat();
        header.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb];

    fn with_checksum(mut header: Vec<u8>) -> Vec<u8> {
        let at = header.len() - 4;
        let crc = crc32c(&header);
        header[at..].copy_from_slice(&crc.to_be_bytes());
        header
    }

    #[test]
    fn version_2() {
        let check = |bytes: &[u8], want: Parsed| assert_eq!(parse(bytes), want, "{bytes:x?}");
        let ok = |bytes: &[u8], want| {
            check(bytes, Ok(Some((bytes.len(), want))));
            check(&[bytes, b"GET"].concat(), Ok(Some((bytes.len(), want))));
            for len in 0..bytes.len() {
                check(&bytes[..len], Ok(None));
            }
        };
        ok(&v2(0x21, 0x11, &IPV4), stated(Some("192.0.2.1"), None));
        ok(&v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 1, 0]].concat()), stated(Some("192.0.2.1"), None));
        let tls = [0x20, 0, 5, 1, 0, 0, 0, 0];
        let plain = [0x20, 0, 5, 0, 0, 0, 0, 0];
        ok(&v2(0x21, 0x11, &[&IPV4[..], &tls].concat()), stated(Some("192.0.2.1"), Some(Scheme::Https)));
        ok(&v2(0x21, 0x11, &[&IPV4[..], &plain].concat()), stated(Some("192.0.2.1"), Some(Scheme::Http)));
        ok(&v2(0x20, 0x00, &[]), stated(None, None));
        ok(&v2(0x20, 0x11, &[&IPV4[..], &tls].concat()), stated(None, None));
        ok(&v2(0x20, 0x00, &tls), stated(None, None));
        ok(&v2(0x20, 0x31, &[&[0; 216][..], &tls].concat()), stated(None, None));
        ok(&v2(0x20, 0x77, &[1, 2, 3]), stated(None, None));
        ok(&v2(0x21, 0x00, &[]), stated(None, None));
        ok(&v2(0x21, 0x00, &tls), stated(None, None));
        ok(&v2(0x21, 0x31, &[0; 216]), stated(None, None));
        ok(&v2(0x21, 0x31, &[&[0; 216][..], &tls].concat()), stated(None, Some(Scheme::Https)));
        ok(&v2(0x21, 0x31, &[&[0; 216][..], &plain].concat()), stated(None, Some(Scheme::Http)));
        ok(
            &with_checksum(v2(0x21, 0x11, &[&IPV4[..], &[3, 0, 4, 0, 0, 0, 0]].concat())),
            stated(Some("192.0.2.1"), None),
        );
        let mut v6 = [0u8; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        ok(&v2(0x21, 0x21, &v6), stated(Some("2001:db8::1"), None));
        for bad in [
            v2(0x31, 0x11, &IPV4),
            v2(0x22, 0x11, &IPV4),
            v2(0x21, 0x41, &IPV4),
            v2(0x21, 0x13, &IPV4),
            v2(0x21, 0x11, &IPV4[..11]),
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0, 9, 0]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[4, 0]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()),
            v2(0x21, 0x11, &[&IPV4[..], &[0x20, 0, 0]].concat()),
            v2(0x21, 0x11, &[0; 5000]),
        ] {
            check(&bad, Err(NoProxyHeader));
        }
    }

    #[test]
    fn checksum_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    const STARTS: [&[u8]; 5] = [b"", b"PROXY ", b"PROXY TCP4 ", V2_SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14"];

    proptest! {
        #[test]
        fn bytes_never_panic(start in prop::sample::select(&STARTS[..]),
                              rest in prop::collection::vec(any::<u8>(), 0..120)) {
            let bytes = [start, &rest].concat();
            if let Ok(Some((len, _))) = parse(&bytes) {
                prop_assert!(len <= bytes.len());
                prop_assert_eq!(parse(&bytes[..len]).map(|p| p.map(|p| p.0)), Ok(Some(len)));
            }
        }
    }
}
