//! The requests to upstreams. One pass over the client's fields applies every rule and writes the
//! head.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, Uri, Version as HttpVersion};

use super::settings::{HostHeader, Upstream};
use crate::message::{Field, FieldSink, Framing, HeaderMapSink, Name, RequestHead, Version, has_token, strengthened};
use crate::mixed::media::may_be_rewritten;
use crate::mixed::request::WholeRequest;
use crate::policy::forwarded::{Origin, Peer};
use crate::site::Site;
use crate::telemetry::access::UpstreamFacts;
use crate::telemetry::trace::{Trace, tracestate};

/// The name of pintle in Via (RFC 9110 section 7.6.3).
pub const PSEUDONYM: &str = "pintle";

/// A client's connection, as its requests describe it.
#[derive(Debug)]
pub struct Client {
    /// The peer.
    pub peer: Peer,
    address: OnceCell<String>,
}

impl Client {
    /// Makes the description of a connection.
    #[must_use]
    pub fn new(peer: Peer) -> Self {
        Self { peer, address: OnceCell::new() }
    }

    /// Returns the peer's address as text. It is formatted once.
    #[must_use]
    pub fn address(&self) -> &str {
        self.address.get_or_init(|| self.peer.address.to_string())
    }
}

/// A request to send to an upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamRequest<'a> {
    /// The client's request.
    pub head: &'a RequestHead,
    /// The site.
    pub site: &'a Site,
    /// The client and the scheme.
    pub origin: &'a Origin,
    /// The client's connection.
    pub client: &'a Client,
    /// The key to send for a WebSocket that came over HTTP/2 (RFC 8441 section 5).
    pub websocket_key: Option<&'a str>,
    /// The facts that the request leaves for its record.
    pub facts: &'a RefCell<UpstreamFacts>,
    /// The trace that it belongs to, if pintle takes part in traces.
    pub trace: Option<&'a Trace>,
}

impl UpstreamRequest<'_> {
    /// Returns the method for the upstream.
    pub(super) fn method(&self) -> &Method {
        if self.websocket_key.is_some() { &Method::GET } else { &self.head.method }
    }

    /// Writes the head of an HTTP/1.1 request.
    pub fn write_http1(&self, upstream: &Upstream, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method().as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.head.target_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        match &upstream.host_header {
            HostHeader::Fixed(host) => out.field(b"Host", host.as_bytes()),
            HostHeader::Client => {
                out.extend_from_slice(b"Host: ");
                write_authority(self.head, out);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.write_fields(out, false);
        if self.head.websocket {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
            if let Some(key) = self.websocket_key {
                out.field(b"Sec-WebSocket-Key", key.as_bytes());
            }
        }
        match self.head.framing {
            Framing::Length(n) => out.field(b"Content-Length", itoa::Buffer::new().format(n).as_bytes()),
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            // A server may need to know that a POST has no body (RFC 9110 section 8.6).
            _ if matches!(*self.method(), Method::POST | Method::PUT | Method::PATCH) => {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Makes the head of an HTTP/2 request.
    pub(super) fn to_http2(self, upstream: &Upstream) -> Result<http::Request<()>, http::Error> {
        let mut authority = Vec::new();
        match &upstream.host_header {
            HostHeader::Fixed(host) => authority.extend_from_slice(host.as_bytes()),
            HostHeader::Client => write_authority(self.head, &mut authority),
        }
        let scheme = if upstream.http2_only { "http" } else { "https" };
        let uri = Uri::builder().scheme(scheme).authority(authority.as_slice()).path_and_query(self.head.target());
        // With room for X-Forwarded-For and similar fields.
        let mut sink = HeaderMapSink::with_capacity(self.head.fields.len() + 8);
        self.write_fields(&mut sink, true);
        if let Framing::Length(n) = self.head.framing {
            sink.0.insert(http::header::CONTENT_LENGTH, HeaderValue::from(n));
        }
        let mut request = http::Request::new(());
        *request.method_mut() = self.method().clone();
        *request.uri_mut() = uri.build()?;
        *request.version_mut() = HttpVersion::HTTP_2;
        *request.headers_mut() = sink.0;
        Ok(request)
    }

    /// Writes all fields but Host and those of framing and upgrade.
    fn write_fields<S: FieldSink>(&self, sink: &mut S, http2: bool) {
        let head = self.head;
        let rules = &self.site.request;
        let whole = self.whole_request();
        let (mut cookies, mut via): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for field in head.fields.list() {
            let (name, bytes, value) = (field.name, head.fields.name(field), head.fields.value(field));
            match name {
                Name::Host | Name::ContentLength => continue,
                // Their trusted parts are in the origin, and `write_forwarded` writes them. The
                // rest is a client's claim.
                Name::XForwardedFor | Name::XForwardedProto | Name::XForwardedHost | Name::Forwarded => continue,
                Name::XForwardedOther | Name::XRealIp => continue,
                Name::Te => {
                    self.write_te(value, http2, sink);
                    continue;
                }
                Name::Expect if !head.expects_continue() => continue,
                Name::Traceparent | Name::Tracestate if self.trace.is_some() => continue,
                // The upstream gets a key of its own.
                Name::SecWebsocketKey if self.websocket_key.is_some() => continue,
                Name::Trailer => {
                    self.write_announced_trailers(field, value, sink);
                    continue;
                }
                Name::Via => {
                    join(&mut via, value, b", ");
                    continue;
                }
                // HTTP/2 may split the field (RFC 9113 section 8.2.3).
                Name::Cookie => {
                    if !rules.drops(bytes) && !field.is_named() {
                        join(&mut cookies, value, b"; ");
                    }
                    continue;
                }
                Name::MaxForwards => {
                    self.write_max_forwards(bytes, value, sink);
                    continue;
                }
                _ if name.is_hop_by_hop() || name.is_claim() || field.is_named() || whole.drops(bytes) => continue,
                _ => {}
            }
            if !rules.drops(bytes) {
                self.write_received(field, sink);
            }
        }
        if !cookies.is_empty() {
            sink.field(b"Cookie", &cookies);
        }
        self.write_coding(whole, sink);
        self.write_forwarded(&mut |name, value| {
            if !rules.drops(name) {
                sink.field(name, value);
            }
        });
        self.write_via(via, sink);
        self.write_trace(sink);
        sink.rendered(&rules.added);
    }

    /// Writes a field as it is, but for tags that pintle has made weak.
    fn write_received<S: FieldSink>(&self, field: &Field, sink: &mut S) {
        let fields = &self.head.fields;
        match strong_tags(self.site, self.head, fields.name(field), fields.value(field)) {
            Some(strong) => sink.field(fields.name(field), &strong),
            None => sink.copy(fields, field),
        }
    }

    /// The fields that do not go upstream, since the response may be rewritten.
    fn whole_request(&self) -> WholeRequest {
        match self.site.mixed.as_ref().is_some_and(|mixed| mixed.rewrites.is_some()) {
            true => WholeRequest::of(self.head),
            false => WholeRequest::No,
        }
    }

    /// Writes Accept-Encoding, if pintle decodes the response before it rewrites it.
    fn write_coding<S: FieldSink>(&self, whole: WholeRequest, sink: &mut S) {
        if let Some(coding) = whole.coding(&self.head.fields)
            && !self.site.request.drops(b"Accept-Encoding")
        {
            sink.field(b"Accept-Encoding", coding);
        }
    }

    /// Writes Via with pintle's own member at the end.
    fn write_via<S: FieldSink>(&self, mut via: Vec<u8>, sink: &mut S) {
        if self.site.request.drops(b"Via") {
            return;
        }
        let own = own_via(self.head.version);
        if via.is_empty() {
            sink.field(b"Via", own);
        } else {
            join(&mut via, own, b", ");
            sink.field(b"Via", &via);
        }
    }

    /// Writes the fields of the trace, if pintle takes part in one: the upstream's span has another parent than the client
    /// named. A state belongs to the client's trace, and not to one that begins here.
    fn write_trace<S: FieldSink>(&self, sink: &mut S) {
        let Some(trace) = self.trace else { return };
        let rules = &self.site.request;
        if !rules.drops(b"traceparent") {
            sink.field(b"traceparent", &trace.traceparent());
        }
        let states = || self.head.fields.get_all(Name::Tracestate);
        if trace.parent.is_some()
            && !rules.drops(b"tracestate")
            && let Some(state) = tracestate(states())
        {
            sink.field(b"tracestate", &state);
        }
    }

    /// Writes `TE: trailers`, if the client sent it and trailers of the response would pass. TE
    /// belongs to the hop, but an HTTP/2 upstream may need to know that trailers are welcome.
    fn write_te<S: FieldSink>(&self, value: &[u8], http2: bool, sink: &mut S) {
        let wants_trailers = || is_grpc(self.head) || !self.site.response.trailers.is_empty();
        if http2 && wants_trailers() && has_token(value, b"trailers") {
            sink.field(b"te", b"trailers");
        }
    }

    /// Writes a `Trailer` field without the trailers that do not pass.
    fn write_announced_trailers<S: FieldSink>(&self, field: &Field, value: &[u8], sink: &mut S) {
        let rules = &self.site.request;
        if self.head.framing != Framing::Chunked || rules.trailers.is_empty() || field.is_named() {
            return;
        }
        let announced = rules.announced_trailers(value, false);
        if !announced.is_empty() {
            sink.field(b"Trailer", &announced);
        }
    }

    /// Writes Max-Forwards. It is one less for the next hop, with the methods that it is defined
    /// for (RFC 9110 section
    /// 7.6.2).
    fn write_max_forwards<S: FieldSink>(&self, name: &[u8], value: &[u8], sink: &mut S) {
        let counts = matches!(self.head.method, Method::OPTIONS | Method::TRACE);
        match std::str::from_utf8(value).ok().and_then(|v| v.parse::<u32>().ok()) {
            Some(n) if counts => sink.field(name, n.saturating_sub(1).to_string().as_bytes()),
            _ => sink.field(name, value),
        }
    }

    /// Writes X-Forwarded-For, -Proto, -Host and Forwarded (RFC 7239), with only the trusted parts
    /// of received fields.
    fn write_forwarded(&self, field: &mut impl FnMut(&[u8], &[u8])) {
        let scheme = self.origin.scheme.as_str();
        // The host, followed by the value of Forwarded.
        let mut text = Vec::with_capacity(256);
        self.write_host(&mut text);
        let host = text.len();
        if self.origin.hops.is_empty() {
            // The client is the peer, whose address is formatted already.
            field(b"X-Forwarded-For", self.client.address().as_bytes());
        } else {
            let chain = std::iter::once(&self.origin.client).chain(&self.origin.hops);
            let chain: Vec<String> = chain.map(IpAddr::to_string).collect();
            field(b"X-Forwarded-For", chain.join(", ").as_bytes());
        }
        field(b"X-Forwarded-Proto", scheme.as_bytes());
        field(b"X-Forwarded-Host", &text);
        text.extend_from_slice(b"for=");
        if self.origin.hops.is_empty() {
            write_node(self.origin.client, self.client.address(), &mut text);
        } else {
            write_node(self.origin.client, &self.origin.client.to_string(), &mut text);
        }
        text.extend_from_slice(b";host=");
        // A colon or a bracket is not a character of tokens.
        let quote: &[u8] = if text[..host].iter().any(|b| matches!(b, b':' | b'[' | b']')) { b"\"" } else { b"" };
        text.extend_from_slice(quote);
        text.extend_from_within(..host);
        text.extend_from_slice(quote);
        text.extend_from_slice(b";proto=");
        text.extend_from_slice(scheme.as_bytes());
        for hop in &self.origin.hops {
            text.extend_from_slice(b", for=");
            write_node(*hop, &hop.to_string(), &mut text);
        }
        field(b"Forwarded", &text[host..]);
    }

    /// Writes the host that the client asked for: the one that a trusted proxy states, if it is a
    /// name of the site, or that of the request.
    fn write_host(&self, out: &mut Vec<u8>) {
        match self.origin.host_of(&self.site.hosts) {
            Some(stated) => out.extend_from_slice(&stated),
            None => write_authority(self.head, out),
        }
    }
}

fn write_authority(head: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(head.host_bytes());
    if let Some(port) = head.port() {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
}

/// Writes an address for Forwarded: IPv6 in brackets and quoted (RFC 7239 section 6).
fn write_node(address: IpAddr, text: &str, out: &mut Vec<u8>) {
    if address.is_ipv6() {
        out.extend_from_slice(b"\"[");
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"]\"");
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

/// Returns a condition with strong tags; `None` if it stays as it is. The tag of a rewritten body is weak for clients. By
/// strong comparison, the weak one would never match (RFC 9110 section 13.1.1), and many upstreams compare the text.
#[must_use]
pub fn strong_tags(site: &Site, head: &RequestHead, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let has_strong = site.mixed.as_ref().is_some_and(|mixed| mixed.rewrites.is_some() && !mixed.tags.are_weak());
    if has_strong { strengthened(name, value).filter(|_| may_be_rewritten(head.target_bytes())) } else { None }
}

fn join(list: &mut Vec<u8>, member: &[u8], separator: &[u8]) {
    if !list.is_empty() {
        list.extend_from_slice(separator);
    }
    list.extend_from_slice(member);
}

/// Returns pintle's own member of Via.
fn own_via(received: Version) -> &'static [u8] {
    match received {
        Version::Http10 => b"1.0 pintle",
        Version::Http11 => b"1.1 pintle",
        Version::Http2 => b"2 pintle",
    }
}

/// Returns the number of hops with pintle's name in Via. More than a few mean a loop.
#[must_use]
pub fn own_hops(head: &RequestHead) -> usize {
    let members = head.fields.get_all(Name::Via).flat_map(crate::message::tokens);
    let is_ours = |m: &&[u8]| m.split(u8::is_ascii_whitespace).nth(1) == Some(PSEUDONYM.as_bytes());
    members.filter(is_ours).count()
}

/// Returns `true` for a gRPC request, whose response has trailers.
#[must_use]
pub fn is_grpc(head: &RequestHead) -> bool {
    let kind = head.fields.get(Name::ContentType).unwrap_or_default();
    // `application/grpc` or `application/grpc+proto`. gRPC-Web has its trailers in the body.
    kind.get(..16).is_some_and(|k| k.eq_ignore_ascii_case(b"application/grpc"))
        && matches!(kind.get(16), None | Some(b'+' | b';' | b' '))
}

/// Returns `true` if header rules must not change fields of this name, or one that looks like it:
/// fields of framing, of routing and of one hop.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    let known = Name::of_lookalike(name.as_str().as_bytes());
    known.is_hop_by_hop() || matches!(known, Name::Host | Name::ContentLength | Name::Te | Name::Trailer | Name::Expect)
}

/// Returns `true` if pintle writes fields of this name itself, or one that looks like it: the
/// client, its scheme and host, and Via, which shows loops. Rules for requests must not change
/// them.
#[must_use]
pub fn is_vouched(name: &HeaderName) -> bool {
    matches!(
        Name::of_lookalike(name.as_str().as_bytes()),
        Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedOther
            | Name::XForwardedProto
            | Name::Forwarded
            | Name::Via
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::message::{HeadLimits, Rendered, parse_request};
    use crate::policy::Scheme;
    use crate::policy::forwarded::{Trust, TrustedField, origin};
    use crate::site::HeaderRules;
    use crate::upstream::dns::Addresses;
    use std::sync::Arc;
    use std::time::Duration;

    fn upstream(host: HostHeader) -> Upstream {
        Upstream {
            label: "http://origin".into(),
            addresses: Addresses::Fixed([].into()),
            tls: None,
            http2_only: false,
            host_header: host,
            own_names: Vec::new(),
            connect_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            total_timeout: None,
            health: crate::upstream::Health::default(),
        }
    }

    fn sent(request: &str, from: &str, field: Option<TrustedField>, site: &Site) -> String {
        let mut head = RequestHead::default();
        let limits = HeadLimits { request_line: 1000, head: 10_000, field: 5000, fields: 100 };
        parse_request(request.as_bytes(), &limits, &mut head).unwrap().unwrap();
        let address: IpAddr = from.parse().unwrap();
        let trust = field.map_or_else(Trust::default, |field| Trust::new(vec![address.into()], field));
        let peer = Peer::new(address, Scheme::Https, &trust);
        let origin = origin(&peer, &head.fields, &trust);
        let (client, facts) = (Client::new(peer), RefCell::default());
        let upstream_request = UpstreamRequest {
            head: &head,
            site,
            origin: &origin,
            client: &client,
            websocket_key: None,
            facts: &facts,
            trace: None,
        };
        let mut out = Vec::new();
        upstream_request.write_http1(&upstream(HostHeader::Fixed("origin.example".into())), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn site() -> Site {
        let hosts = ["a.example", "b.example"].map(|h| HostPattern::parse(h).unwrap()).to_vec();
        Site { hosts, ..Site::default() }
    }

    const TAIL: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n\
                        Forwarded: for=192.0.2.1;host=a.example;proto=https\r\nVia: 1.1 pintle\r\n";

    fn check(fields: &str, want: &str) {
        let got =
            sent(&format!("GET /x?y HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"), "192.0.2.1", None, &Site::default());
        let want = format!("GET /x?y HTTP/1.1\r\nHost: origin.example\r\n{want}{TAIL}\r\n");
        assert_eq!(got, want);
    }

    #[test]
    fn fields_of_one_hop_are_dropped() {
        check("X-Keep: 1\r\n", "X-Keep: 1\r\n");
        check(
            "Connection: X-Secret, close\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\n",
            "",
        );
        check("Upgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade, HTTP2-Settings\r\n", "");
        check("Proxy-Connection: keep-alive\r\nTrailer: X\r\n", "");
    }

    #[test]
    fn claims_of_clients_are_dropped() {
        check(
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n",
            "",
        );
        check("Forwarded: for=10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nX_Forwarded_Proto: http\r\nx_real-ip: 1\r\n", "");
        // Naming our fields in Connection does not keep them away.
        check("Connection: X-Forwarded-For, Host, Via\r\n", "");
    }

    #[test]
    fn trusted_hops_are_listed() {
        let request = "GET / HTTP/1.1\r\nHost: a.example:8443\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Host: b.example\r\nVia: 1.1 varnish\r\n\r\n";
        let got = sent(request, "2001:db8::1", Some(TrustedField::XForwarded), &site());
        for line in [
            "X-Forwarded-For: 198.51.100.7, 2001:db8::1\r\n",
            "X-Forwarded-Host: b.example\r\n",
            "Forwarded: for=198.51.100.7;host=b.example;proto=https, for=\"[2001:db8::1]\"\r\n",
            "Via: 1.1 varnish, 1.1 pintle\r\n",
        ] {
            assert!(got.contains(line), "{line:?} in {got}");
        }
        let got = sent("GET / HTTP/1.1\r\nHost: a.example:8443\r\n\r\n", "192.0.2.1", None, &Site::default());
        assert!(got.contains("Forwarded: for=192.0.2.1;host=\"a.example:8443\";proto=https\r\n"), "{got}");
    }

    #[test]
    fn trusted_hosts() {
        let host = |field, name: &str, stated: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: a.example\r\n{name}: {stated}\r\n\r\n");
            let got = sent(&request, "10.0.0.1", field, &site());
            let lines: Vec<&str> = got.lines().filter_map(|line| line.strip_prefix("X-Forwarded-Host: ")).collect();
            assert_eq!(lines.len(), 1, "{got}");
            assert!(got.contains(&format!("host={}", if lines[0].contains(':') { "\"" } else { lines[0] })), "{got}");
            lines[0].to_owned()
        };
        let (x, standard) = (Some(TrustedField::XForwarded), Some(TrustedField::Forwarded));
        for (stated, want) in [
            ("B.example.", "b.example"),
            ("b.example:8443", "b.example:8443"),
            ("evil.example, b.example", "b.example"),
            ("b.example, evil.example", "a.example"),
            ("evil.example", "a.example"),
            ("b.example.evil.example", "a.example"),
            ("b.example:99999", "a.example"),
            ("b.example/x", "a.example"),
            ("", "a.example"),
        ] {
            assert_eq!(host(x, "X-Forwarded-Host", stated), want, "{stated}");
            assert_eq!(host(None, "X-Forwarded-Host", stated), "a.example", "{stated}");
            assert_eq!(host(standard, "X-Forwarded-Host", stated), "a.example", "{stated}");
        }
        assert_eq!(host(standard, "Forwarded", "host=b.example"), "b.example");
        assert_eq!(host(standard, "Forwarded", "host=\"b.example:8443\";proto=https"), "b.example:8443");
        assert_eq!(host(standard, "Forwarded", "host=evil.example"), "a.example");
        assert_eq!(host(x, "Forwarded", "host=b.example"), "a.example");
    }

    #[test]
    fn claims_are_dropped_whatever_field_is_trusted() {
        let request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Real-IP: 198.51.100.9\r\nX-Forwarded-Port: 81\r\n\
                       X-Forwarded-Prefix: /evil\r\nX-Forwarded-Server: x\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-By: x\r\n\r\n";
        let fields = [None, Some(TrustedField::XForwarded), Some(TrustedField::Forwarded), Some(TrustedField::Proxy)];
        for field in fields {
            let got = sent(request, "192.0.2.1", field, &Site::default());
            assert_eq!(got, format!("GET / HTTP/1.1\r\nHost: origin.example\r\n{TAIL}\r\n"), "{field:?}");
        }
    }

    #[test]
    fn header_rules() {
        let mut added = Rendered::default();
        added.push("X-Edge", "pintle").unwrap();
        let site = Site {
            request: Arc::new(HeaderRules {
                dropped: vec![(*b"x-edge").into(), (*b"x-debug").into()],
                added,
                trailers: Vec::new(),
            }),
            ..Site::default()
        };
        let got = sent(
            "GET / HTTP/1.1\r\nHost: a\r\nX-EDGE: evil\r\nX-Debug: 1\r\nX-Other: 2\r\n\r\n",
            "192.0.2.1",
            None,
            &site,
        );
        assert!(got.contains("X-Other: 2\r\n") && got.ends_with("X-Edge: pintle\r\n\r\n"), "{got}");
        assert!(!got.contains("evil") && !got.contains("X-Debug"), "{got}");
    }

    #[test]
    fn bodies_and_cookies() {
        let post = |fields: &str| {
            sent(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), "192.0.2.1", None, &Site::default())
        };
        assert!(post("Content-Length: 5\r\n").ends_with("\r\nContent-Length: 5\r\n\r\n"));
        assert!(!post("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n").contains("Trailer"));
        assert!(post("").ends_with("\r\nContent-Length: 0\r\n\r\n"));
        assert!(post("Cookie: a=1\r\nCookie: b=2\r\n").contains("Cookie: a=1; b=2\r\n"));
        let options =
            sent("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", "192.0.2.1", None, &Site::default());
        assert!(options.starts_with("OPTIONS * HTTP/1.1\r\n") && options.contains("Max-Forwards: 2\r\n"), "{options}");
    }

    /// A WebSocket over HTTP/2 has no key (RFC 8441 section 5). One that a client sends all the
    /// same is dropped.
    #[test]
    fn a_websocket_has_one_key() {
        let mut head = RequestHead::default();
        head.websocket = true;
        head.set_target(b"/");
        head.set_authority(b"a.example").unwrap();
        head.fields.push(b"sec-websocket-key", b"of the client");
        head.fields.push(b"Sec-WebSocket-Key", b"of the client, too");
        let peer = Peer::new("192.0.2.1".parse().unwrap(), Scheme::Https, &Trust::default());
        let (site, origin) = (Site::default(), origin(&peer, &head.fields, &Trust::default()));
        let (client, facts) = (Client::new(peer), RefCell::default());
        let keys = |websocket_key| {
            let upstream_request = UpstreamRequest {
                head: &head,
                site: &site,
                origin: &origin,
                client: &client,
                websocket_key,
                facts: &facts,
                trace: None,
            };
            let mut out = Vec::new();
            upstream_request.write_http1(&upstream(HostHeader::Client), &mut out);
            let text = String::from_utf8(out).unwrap().to_ascii_lowercase();
            text.lines().filter_map(|l| l.strip_prefix("sec-websocket-key: ").map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(keys(Some("ours")), ["ours"]);
        assert_eq!(keys(None), ["of the client", "of the client, too"]);
    }

    #[test]
    fn loops_show_in_via() {
        let mut head = RequestHead::default();
        head.fields.push(b"Via", b"1.1 pintle, 2 other, 1.1 pintle-not");
        head.fields.push(b"via", b"2 pintle (comment)");
        assert_eq!(own_hops(&head), 2);
    }
}
