//! HTTP/1.1, from both sides.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use pintle::host::HostPattern;
use pintle::limits::Limits;
use pintle::message::{
    BodyDecoder, Decoded, Fields, Framing, HeadLimits, Name as FieldName, RequestHead, ResponseHead, ResponseLimits,
    Version, parse_request, parse_response,
};
use pintle::policy::Scheme;
use pintle::policy::forwarded::{Origin, Peer, SchemeSource, Trust, TrustedField, origin};
use pintle::policy::redirect::HttpsPorts;
use pintle::site::Site;
use pintle::upstream::dns::UpstreamName;
use pintle::upstream::rewrite::rewrite as rewritten;
use pintle::upstream::{Client, Health, HostHeader, Upstream, UpstreamRequest};

/// The limits of a head.
pub const LIMITS: HeadLimits = HeadLimits { request_line: 512, head: 4096, field: 4096, fields: 32 };

/// The same, as large as an operator may allow.
pub fn largest() -> HeadLimits {
    Limits::largest().head()
}

/// Limits of the head of a response: little, and as much as an operator may allow.
const RESPONSE_LIMITS: [ResponseLimits; 2] = [
    ResponseLimits { head: 4096, field: 4096, fields: 64 },
    ResponseLimits { head: 1 << 20, field: 1 << 20, fields: 10_000 },
];

/// A request's head. What is accepted is accepted only when it is whole; and what goes upstream for it is one request,
/// as another parser reads it.
pub fn request_head(data: &[u8]) {
    request_head_within(data, &LIMITS);
    request_head_within(data, &largest());
}

fn request_head_within(data: &[u8], limits: &HeadLimits) {
    let mut head = RequestHead::default();
    let Ok(Some(len)) = parse_request(data, limits, &mut head) else { return };
    assert!(len <= data.len() && len <= limits.head + 4);
    let mut shorter = RequestHead::default();
    assert_eq!(parse_request(&data[..len - 1], limits, &mut shorter), Ok(None), "accepted before its end");
    every_field_is_whole(&head.fields);
    if head.method == Method::CONNECT || head.host().is_empty() {
        // No tunnels; and HTTP/1.0 may leave the host out, but no site has that name.
        return;
    }
    assert!(head.target() == "*" || head.target().starts_with('/'));
    assert!(head.path().len() <= head.target().len());
    for field in [None, Some(TrustedField::XForwarded), Some(TrustedField::Forwarded)] {
        forward(&head, field);
    }
}

/// The name of a field follows from its bytes, however many there are.
fn every_field_is_whole(fields: &Fields) {
    for (name, bytes, value) in fields.iter() {
        assert_eq!(name, FieldName::of(bytes));
        assert!(bytes.len() + value.len() <= fields.size());
    }
}

/// The origin of all requests.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Trust in [`PEER`] by this field; in nobody, without one.
fn trust(field: Option<TrustedField>) -> Trust {
    let ranges = field.map(|_| "10.0.0.0/8".parse().expect("a range"));
    Trust::new(ranges.into_iter().collect(), field.unwrap_or_default())
}

/// A forwarded head is one request for another parser, too.
pub(super) fn forward(head: &RequestHead, field: Option<TrustedField>) {
    let trust = trust(field);
    let client = Client::new(Peer::new(PEER, Scheme::Https, &trust));
    let origin = origin(&client.peer, &head.fields, &trust);
    let upstream = upstream();
    let site = Site::default();
    // A WebSocket that came by HTTP/2 is asked for with a key of ours.
    let key = (head.websocket && head.version == Version::Http2).then_some("dGhlIHNhbXBsZSBub25jZQ==");
    let facts = std::cell::RefCell::default();
    let upstream_request = UpstreamRequest {
        head,
        site: &site,
        origin: &origin,
        client: &client,
        websocket_key: key,
        facts: &facts,
        trace: None,
    };
    let mut out = Vec::new();
    upstream_request.write_http1(&upstream, &mut out);

    // Our own fields come on top of the client's.
    let fields = largest().fields;
    if out.iter().filter(|byte| **byte == b'\n').count() > fields {
        // The parser that is at hand takes no more than a client may send.
        return;
    }
    let limits = HeadLimits { request_line: usize::MAX, head: usize::MAX, field: usize::MAX, fields };
    let mut received = RequestHead::default();
    let len = parse_request(&out, &limits, &mut received).expect("what goes upstream parses").expect("as a whole");
    assert_eq!(len, out.len(), "more than one head goes upstream");
    assert_eq!(received.method, if key.is_some() { Method::GET } else { head.method.clone() });
    assert_eq!(received.target(), head.target());
    assert_eq!(received.host(), head.host());
    let same =
        received.framing == head.framing || (received.framing, head.framing) == (Framing::Length(0), Framing::None);
    assert!(same, "{:?} became {:?}", head.framing, received.framing);
}

/// An upstream that is told the client's Host.
pub fn upstream() -> Upstream {
    let (_, addresses) = UpstreamName::new("upstream.example", 80);
    Upstream {
        label: "http://upstream.example".into(),
        addresses,
        tls: None,
        http2_only: false,
        host_header: HostHeader::Client,
        own_names: vec![("upstream.example".into(), 80)],
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        total_timeout: None,
        health: Health::default(),
    }
}

/// A response's head on its way to the client: what is rewritten stays one value, and nobody is led off https.
pub fn rewrite(data: &[u8]) {
    RESPONSE_LIMITS.iter().for_each(|limits| rewrite_within(data, limits));
}

fn rewrite_within(data: &[u8], limits: &ResponseLimits) {
    let mut response = ResponseHead::default();
    let Ok(Some(_)) = parse_response(data, false, limits, &mut response) else { return };
    let mut request = RequestHead::default();
    request.set_target(b"/here");
    request.set_authority(b"blog.example.com:8443").expect("a name");
    let site = Site { hosts: vec![HostPattern::parse("blog.example.com").expect("a name")], ..Site::default() };
    let https = HttpsPorts { public: None, listeners: &[8443] };
    let before: Vec<Vec<u8>> = response.fields.iter().map(|(_, _, value)| value.to_vec()).collect();
    if rewritten(&mut response, &request, &site, &upstream(), https).is_some() {
        return;
    }
    assert_eq!(response.fields.len(), before.len());
    for ((name, _, value), before) in response.fields.iter().zip(&before) {
        assert!(!value.contains(&b'\n') && !value.contains(&b'\r') && !value.contains(&0));
        if value != &before[..] && name == FieldName::Location {
            let led = [&b"https://blog.example.com"[..], b"//blog.example.com"];
            assert!(led.iter().any(|to| value.starts_with(to)), "{:?}", value.escape_ascii().to_string());
        }
    }
}

/// A response's head.
pub fn response_head(data: &[u8]) {
    for (to_head, limits) in [false, true].into_iter().flat_map(|to_head| RESPONSE_LIMITS.map(|l| (to_head, l))) {
        let mut head = ResponseHead::default();
        let Ok(Some(len)) = parse_response(data, to_head, &limits, &mut head) else { continue };
        assert!(len <= data.len());
        every_field_is_whole(&head.fields);
        for (name, bytes, value) in head.fields.iter() {
            assert!(!name.is_hop_by_hop(), "{bytes:?}");
            assert!(!value.contains(&b'\n') && !value.contains(&b'\r') && !value.contains(&0));
        }
    }
}

/// A chunked body: it means the same however it is cut into pieces.
pub fn chunked_body(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else { return };
    let whole = decode(&[body]);
    let cut = usize::from(*cut) % (body.len() + 1);
    let halves = decode(&[&body[..cut], &body[cut..]]);
    assert_eq!(whole, halves);
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(whole, decode(&bytes));
}

/// The body, its trailers if it came to an end, and how many bytes were left; or that it is broken.
type Outcome = (Vec<u8>, Option<Vec<(Vec<u8>, Vec<u8>)>>, Option<usize>);

fn decode(pieces: &[&[u8]]) -> Outcome {
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    let mut buffer = BytesMut::new();
    let (mut body, mut trailers) = (Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                Ok(Decoded::Trailers(fields)) => trailers = Some(list(&fields)),
                Ok(Decoded::More | Decoded::End) => break,
                Err(_) => return (body, None, None),
            }
        }
    }
    let ended = decoder.is_end();
    (body, ended.then(|| trailers.unwrap_or_default()), Some(if ended { buffer.len() } else { 0 }))
}

fn list(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// `Forwarded` and `X-Forwarded-*`, one field to a line: a stranger's change nothing, those that are not read change
/// nothing either, and behind all that was received the word of the nearest proxy is the one that counts.
pub fn forwarded(data: &[u8]) {
    let mut fields = Fields::default();
    for line in data.split(|b| *b == b'\n') {
        let at = line.iter().position(|b| *b == b':').unwrap_or(0);
        let (name, value) = line.split_at(at);
        fields.push(name, value.get(1..).unwrap_or_default());
    }
    let told = |fields: &Fields, field| {
        let trust = trust(field);
        let told = origin(&Peer::new(PEER, Scheme::Https, &trust), fields, &trust);
        assert!(told.hops.iter().all(|hop| trust.contains(*hop)), "a hop that nobody trusts: {told:?}");
        told
    };
    let nothing = |told: Origin| {
        let said = (told.scheme_from, told.client, told.host);
        assert_eq!(said, (SchemeSource::Listener, PEER, None), "believed without reason");
    };
    nothing(told(&fields, None));
    nothing(told(&fields, Some(TrustedField::Proxy)));
    told(&fields, Some(TrustedField::XForwarded));
    told(&fields, Some(TrustedField::Forwarded));

    // A proxy that appends to whatever its client has sent.
    let client = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let mut appended = Fields::default();
    appended.push(b"X-Forwarded-For", &[data, b", 198.51.100.1"].concat());
    appended.push(b"X-Forwarded-Proto", b"http");
    appended.push(b"Forwarded", &[data, b", for=\"198.51.100.1:80\";proto=http"].concat());
    for field in [TrustedField::XForwarded, TrustedField::Forwarded] {
        let told = told(&appended, Some(field));
        assert_eq!((told.client, told.scheme), (client, Scheme::Http), "{field:?}");
    }
}
