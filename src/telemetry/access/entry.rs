//! The facts of a record, before they are written.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::fields::RecordFields;

/// The rules of a configuration for records. A reload replaces them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogRules {
    /// The fields.
    pub fields: RecordFields,
    /// The fraction of requests that are recorded.
    pub sample: Sample,
    /// The parts that are left out.
    pub redact: Redact,
}

/// The fraction of requests that are recorded, unless they fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample(pub f64);

impl Default for Sample {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Sample {
    /// `true` for this fraction of numbers that are spread over all of `u32`.
    #[must_use]
    pub fn takes(self, random: u32) -> bool {
        f64::from(random) < self.0 * (f64::from(u32::MAX) + 1.0)
    }

    /// `true` if every request is recorded.
    #[must_use]
    pub fn is_all(self) -> bool {
        self.0 >= 1.0
    }
}

/// The parts of a record that say too much about a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redact {
    /// Queries of targets and referrers.
    pub query: bool,
    /// Addresses of clients, and of their connections' other ends.
    pub client: bool,
}

impl Redact {
    /// The URL without its query; a `?` remains.
    #[must_use]
    pub fn url(self, url: &[u8]) -> &[u8] {
        if !self.query {
            return url;
        }
        match url.iter().position(|b| matches!(b, b'?' | b'#')) {
            Some(at) if url[at] == b'?' => &url[..=at],
            Some(at) => &url[..at],
            None => url,
        }
    }

    /// The address, or its network: /24 of IPv4, /48 of IPv6.
    #[must_use]
    pub fn address(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            address if !self.client => address,
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & !0xff).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 80 << 80).into(),
        }
    }
}

/// The facts of a client's connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// The other end.
    pub peer: IpAddr,
    /// Its TLS, if pintle terminates it.
    pub tls: Option<HandshakeFacts<'a>>,
}

/// The facts of a handshake.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeFacts<'a> {
    /// `1.2` or `1.3`
    pub version: &'a str,
    /// The cipher suite.
    pub cipher: &'a str,
    /// The group of the key exchange. A session that TLS 1.2 resumes has none.
    pub group: Option<&'a str>,
    /// It resumed a session.
    pub resumed: bool,
    /// The server name that the client asked for.
    pub sni: Option<&'a str>,
    /// The negotiated application protocol.
    pub alpn: Option<&'a [u8]>,
    /// From the accepted connection to the end of the handshake.
    pub duration: Option<Duration>,
}

/// The ways in which requests and handshakes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// The answer went out whole.
    #[default]
    Complete,
    /// pintle refused the request.
    Refused,
    /// The client left.
    Client,
    /// A limit was reached.
    Limit,
    /// The upstream failed.
    Upstream,
    /// pintle broke a handshake off.
    Pintle,
}

impl Ended {
    /// The value of `ended`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused => "refused",
            Self::Client => "client",
            Self::Limit => "limit",
            Self::Upstream => "upstream",
            Self::Pintle => "pintle",
        }
    }
}

/// The end of a request or a handshake, as data.
#[derive(Debug, Clone, Copy, Default)]
pub struct End<'a> {
    /// The side that ended it, or a limit.
    pub ended: Ended,
    /// The limit, by its name in the configuration.
    pub limit: Option<&'a str>,
    /// The name of the table of limits of requests that refused it.
    pub rule: Option<&'a str>,
    /// The cause of an upstream's failure.
    pub cause: Option<&'a str>,
    /// The number of the system's error.
    pub errno: Option<i32>,
    /// The TLS alert that pintle sent.
    pub alert_sent: Option<&'a str>,
    /// The TLS alert that pintle received.
    pub alert_received: Option<&'a str>,
    /// The error in words.
    pub error: Option<&'a str>,
}

/// The facts of a request to an upstream. The request keeps them while it is on its way, so that they survive a client
/// that leaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpstreamFacts {
    /// `true` once the upstream was chosen.
    pub asked: bool,
    /// The time from asking to the response's head, or to the failure.
    pub time: Option<Duration>,
    /// The address that was asked last.
    pub address: Option<SocketAddr>,
    /// `true` if the connection had been used before, or was made for another request.
    pub reused: bool,
    /// Retries, on other connections or addresses.
    pub retries: u32,
    /// The time in the queue for a connection, or for one in the making.
    pub wait: Option<Duration>,
    /// DNS and TCP of a new connection.
    pub connect: Option<Duration>,
    /// TLS of a new connection.
    pub tls: Option<Duration>,
    /// The status code of its response.
    pub status: Option<u16>,
}

impl UpstreamFacts {
    /// Changes the facts in their cell.
    pub fn note(cell: &RefCell<Self>, change: impl FnOnce(&mut Self)) {
        change(&mut cell.borrow_mut());
    }
}

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct AccessEntry<'a> {
    /// The facts of the connection, as [`super::AccessLog::connection_text`] has written them.
    pub connection: &'a str,
    /// The trace that the request belongs to.
    pub trace_id: Option<&'a str>,
    /// The site's first name.
    pub site: Option<&'a str>,
    /// The client's address, from a trusted source.
    pub client: IpAddr,
    /// The requested host.
    pub host: &'a [u8],
    /// The request's method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a [u8],
    /// `1.1`, `2`
    pub version: &'a str,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'a str,
    /// The source of the scheme.
    pub scheme_from: &'a str,
    /// The status code of the response; 499 if the client left before it.
    pub status: u16,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Bytes of the request's body.
    pub received: u64,
    /// The end, in milliseconds since 1970.
    pub time: i64,
    /// From the request's head to the last byte of the response.
    pub duration: Duration,
    /// From the request's head to the response's.
    pub first_byte: Option<Duration>,
    /// The upstream, if it was asked.
    pub upstream: Option<UpstreamFacts>,
    /// The part of the site's cache in the answer, if the site has one.
    pub cache: Option<&'a str>,
    /// The references that pintle has rewritten in the response's body; `None` if the site has none rewritten.
    pub rewritten: Option<u64>,
    /// The coding that pintle has compressed the response with, and the bytes of its body before.
    pub compressed: Option<(&'a str, u64)>,
    /// The User-Agent field.
    pub user_agent: &'a [u8],
    /// The Referer field.
    pub referer: &'a [u8],
    /// Its end.
    pub end: End<'a>,
}

/// A failed handshake, or several of one network.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeEntry<'a> {
    /// The site that the client asked for.
    pub site: Option<&'a str>,
    /// The client's address, or the network's first.
    pub client: Option<IpAddr>,
    /// The address of the connection's other end.
    pub peer: Option<IpAddr>,
    /// From the accepted connection to the failure.
    pub duration: Option<Duration>,
    /// The server name in the ClientHello.
    pub sni: Option<&'a [u8]>,
    /// The TLS versions in the ClientHello.
    pub versions: &'a [String],
    /// The groups in the ClientHello.
    pub groups: &'a [String],
    /// The application protocols in the ClientHello.
    pub alpn: &'a [Vec<u8>],
    /// The number of handshakes and the seconds that they took place in, in a sum.
    pub sum: Option<(u64, u64)>,
    /// Its end.
    pub end: End<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted() {
        let redact = Redact { query: true, client: true };
        for (url, want) in
            [("/a?b=c", "/a?"), ("/a", "/a"), ("https://a.example/?x#y", "https://a.example/?"), ("/#f", "/")]
        {
            assert_eq!(redact.url(url.as_bytes()), want.as_bytes());
            assert_eq!(Redact::default().url(url.as_bytes()), url.as_bytes());
        }
        for (address, want) in [
            ("192.0.2.77", "192.0.2.0"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::1", "::"),
        ] {
            assert_eq!(redact.address(address.parse().unwrap()), want.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn samples() {
        for (sample, random, taken) in
            [(1.0, u32::MAX, true), (0.0, 0, false), (0.5, u32::MAX / 2, true), (0.5, u32::MAX / 2 + 1, false)]
        {
            assert_eq!(Sample(sample).takes(random), taken, "{sample} {random}");
        }
    }
}
