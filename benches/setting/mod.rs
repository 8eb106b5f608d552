//! A request, a response, and where they happen: the same for all benchmarks.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;

use pintle::host::HostPattern;
use pintle::message::{HeadLimits, RequestHead, ResponseLimits, parse_request};
use pintle::policy::Scheme;
use pintle::policy::forwarded::{Origin, Peer, Trust};
use pintle::site::Site;
use pintle::telemetry::access::UpstreamFacts;
use pintle::upstream::dns::UpstreamName;
use pintle::upstream::{Client, Health, HostHeader, Upstream, UpstreamRequest};

/// A browser's request.
pub(crate) const REQUEST: &[u8] = b"GET /2026/11/a-walk-in-the-woods/?utm_source=feed HTTP/1.1\r\n\
    Host: blog.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Cookie: wordpress_test_cookie=WP%20Cookie%20check; wp-settings-time-1=1763900000\r\n\
    Upgrade-Insecure-Requests: 1\r\n\r\n";

/// A hosted blog's response.
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: text/html; charset=UTF-8\r\n\
    Content-Length: 512\r\n\
    Connection: keep-alive\r\n\
    Vary: Accept-Encoding\r\n\
    Link: <https://example.wordpress.com/?p=1>; rel=shortlink\r\n\
    Set-Cookie: session=abc; Path=/; Domain=example.wordpress.com; HttpOnly\r\n\r\n";

/// The defaults.
pub(crate) const LIMITS: HeadLimits = HeadLimits { request_line: 8192, head: 32 * 1024, field: 64 * 1024, fields: 100 };
pub(crate) const RESPONSE_LIMITS: ResponseLimits = ResponseLimits { head: 64 * 1024, field: 64 * 1024, fields: 1000 };

/// A site, its upstream, and a client with a request.
pub(crate) struct Setting {
    pub(crate) head: RequestHead,
    pub(crate) client: Client,
    pub(crate) trust: Trust,
    pub(crate) site: Site,
    pub(crate) upstream: Upstream,
    pub(crate) facts: RefCell<UpstreamFacts>,
}

impl Setting {
    /// The request for the upstream.
    pub(crate) fn upstream_request<'s>(&'s self, origin: &'s Origin) -> UpstreamRequest<'s> {
        UpstreamRequest {
            head: &self.head,
            site: &self.site,
            origin,
            client: &self.client,
            websocket_key: None,
            facts: &self.facts,
            trace: None,
        }
    }
}

/// [`REQUEST`], for a site that names its upstream.
pub(crate) fn setting() -> Setting {
    let mut head = RequestHead::default();
    parse_request(REQUEST, &LIMITS, &mut head).expect("a request");
    let (_, addresses) = UpstreamName::new("example.wordpress.com", 443);
    Setting {
        head,
        client: Client::new(Peer::new(Ipv4Addr::new(192, 0, 2, 7).into(), Scheme::Https, &Trust::default())),
        trust: Trust::default(),
        facts: RefCell::default(),
        site: Site { hosts: vec![HostPattern::parse("blog.example.com").expect("a name")], ..Site::default() },
        upstream: Upstream {
            label: "https://example.wordpress.com".into(),
            addresses,
            tls: None,
            http2_only: false,
            host_header: HostHeader::Fixed("example.wordpress.com".into()),
            own_names: vec![("example.wordpress.com".into(), 443)],
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            total_timeout: None,
            health: Health::default(),
        },
    }
}
