//! The steps of the hot path, a thousand times each, every one in a function of its own: callgrind counts the
//! instructions of those named `step_*`, and `benches/instructions` compares them with what they were.

mod setting;

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use pintle::host::{HostMap, HostPattern};
use pintle::message::{
    BodyDecoder, Decoded, FieldSink, Framing, Rendered, RequestHead, ResponseHead, parse_request, parse_response,
};
use pintle::policy::forwarded::origin;
use pintle::policy::redirect::HttpsPorts;
use pintle::tls::certificate::{Certificate, Chain};
use pintle::tls::config::server;
use pintle::tls::offer::{TlsOffer, Versions};
use pintle::tls::resolver::Certificates;
use pintle::tls::stream::{Records, ServerSession};
use pintle::tls::tickets::Tickets;
use pintle::upstream::rewrite::rewrite;
use pintle::upstream::tls::{Verification, client};
use rustls::ServerConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;

use setting::{LIMITS, REQUEST, RESPONSE, RESPONSE_LIMITS, Setting, setting};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `benches/instructions` divides by it.
const TIMES: usize = 1000;

fn main() {
    let s = setting();
    step_parse_request();
    let (sites, name) = many_sites();
    step_find_site_among_10000(&sites, &name);
    step_find_client(&s);
    step_write_outbound(&s);
    step_parse_response();
    let mut response = ResponseHead::default();
    parse_response(RESPONSE, false, &RESPONSE_LIMITS, &mut response).expect("a response");
    step_rewrite_response(&s, &mut vec![response; TIMES]);
    step_add_policy_headers(&policy_headers());
    step_decode_chunked_8k(&mut vec![BytesMut::from(&chunked()[..]); TIMES]);
    let (mut ours, mut theirs) = connection();
    let record = |len: usize, theirs: &mut Client| theirs.drain(&vec![b'x'; len]).expect("a record");
    let small: Vec<Vec<u8>> = (0..TIMES).map(|_| record(512, &mut theirs)).collect();
    step_open_record_512(&mut ours, &small);
    let full: Vec<Vec<u8>> = (0..TIMES).map(|_| record(16 * 1024, &mut theirs)).collect();
    step_open_record_16k(&mut ours, &full);
    step_seal_record_1k(&mut ours, &[b'x'; 1024]);
    step_seal_records_64k(&mut ours, &[b'x'; 64 * 1024]);
}

#[inline(never)]
fn step_parse_request() {
    let mut head = RequestHead::default();
    for _ in 0..TIMES {
        head.clear();
        parse_request(black_box(REQUEST), &LIMITS, &mut head).expect("a request");
    }
}

fn many_sites() -> (HostMap<usize>, String) {
    let mut map = HostMap::default();
    let name = |n: usize| format!("site-{n}.example.com");
    for n in 0..10_000 {
        map.insert(&HostPattern::parse(&name(n)).expect("a name"), n);
    }
    (map, name(9_999))
}

#[inline(never)]
fn step_find_site_among_10000(sites: &HostMap<usize>, name: &str) {
    for _ in 0..TIMES {
        black_box(sites.get(black_box(name)));
    }
}

#[inline(never)]
fn step_find_client(s: &Setting) {
    for _ in 0..TIMES {
        black_box(origin(black_box(&s.client.peer), &s.head.fields, &s.trust));
    }
}

#[inline(never)]
fn step_write_outbound(s: &Setting) {
    let client_origin = origin(&s.client.peer, &s.head.fields, &s.trust);
    let mut out = Vec::with_capacity(4096);
    for _ in 0..TIMES {
        out.clear();
        s.upstream_request(&client_origin).write_http1(black_box(&s.upstream), &mut out);
    }
}

#[inline(never)]
fn step_parse_response() {
    let mut response = ResponseHead::default();
    for _ in 0..TIMES {
        response.clear();
        parse_response(black_box(RESPONSE), false, &RESPONSE_LIMITS, &mut response).expect("a response");
    }
}

#[inline(never)]
fn step_rewrite_response(s: &Setting, responses: &mut [ResponseHead]) {
    for response in responses {
        assert!(rewrite(response, &s.head, &s.site, &s.upstream, HttpsPorts::default()).is_none());
    }
}

fn policy_headers() -> Rendered {
    let mut rendered = Rendered::default();
    rendered.push("Strict-Transport-Security", "max-age=31536000; includeSubDomains").expect("a field");
    let pins = format!("pin-sha256=\"{0}\"; pin-sha256=\"{0}\"; max-age=2592000", "A".repeat(44));
    rendered.push("Public-Key-Pins", &pins).expect("a field");
    rendered
}

#[inline(never)]
fn step_add_policy_headers(rendered: &Rendered) {
    let mut out = Vec::with_capacity(4096);
    for _ in 0..TIMES {
        out.clear();
        out.rendered(black_box(rendered));
        black_box(&out);
    }
}

fn chunked() -> Vec<u8> {
    let chunk: Vec<u8> = b"400\r\n".iter().copied().chain([b'x'; 0x400]).chain(*b"\r\n").collect();
    chunk.repeat(8).into_iter().chain(*b"0\r\n\r\n").collect()
}

#[inline(never)]
fn step_decode_chunked_8k(bodies: &mut [BytesMut]) {
    for body in bodies {
        let mut decoder = BodyDecoder::response(Framing::Chunked);
        while let Ok(Decoded::Data(data)) = decoder.decode(body) {
            black_box(data);
        }
        assert!(decoder.is_end());
    }
}

type Client = Records<UnbufferedClientConnection>;

fn server_config() -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).expect("a certificate");
    let chain = Chain::from_pem(made.cert.pem().as_bytes()).expect("a chain");
    let certificate = Certificate::new(chain, made.signing_key.serialize_pem().as_bytes()).expect("its key");
    let mut certificates = Certificates::default();
    let names = [HostPattern::parse("a.example").expect("a name")];
    certificates.insert(&names, &Certificates::set(vec![Arc::new(certificate)]));
    let versions = Versions { tls12: true, tls13: true };
    server(Arc::new(certificates), &TlsOffer::usual(versions), Arc::new(Tickets::new().expect("randomness")))
        .expect("a configuration")
}

/// A connection, both ends, after its handshake.
fn connection() -> (Records<ServerSession>, Client) {
    let name = || ServerName::try_from("a.example").expect("a name");
    let config = client(name(), &Verification::Skip, false).expect("a configuration").any;
    let mut theirs = Records::new(UnbufferedClientConnection::new(config, name()).expect("a session"), Vec::new());
    let mut ours = Records::new(ServerSession::new(server_config()).expect("a session"), Vec::new());
    theirs.feed(&[]).expect("a ClientHello");
    for _ in 0..3 {
        let said = theirs.drain(&[]).expect("bytes");
        ours.feed(&said).expect("a handshake");
        let said = ours.drain(&[]).expect("bytes");
        theirs.feed(&said).expect("a handshake");
    }
    (ours, theirs)
}

#[inline(never)]
fn step_open_record_512(ours: &mut Records<ServerSession>, records: &[Vec<u8>]) {
    for record in records {
        black_box(ours.feed(record).expect("plaintext"));
    }
}

#[inline(never)]
fn step_open_record_16k(ours: &mut Records<ServerSession>, records: &[Vec<u8>]) {
    for record in records {
        black_box(ours.feed(record).expect("plaintext"));
    }
}

#[inline(never)]
fn step_seal_record_1k(ours: &mut Records<ServerSession>, plaintext: &[u8]) {
    for _ in 0..TIMES {
        black_box(ours.drain(plaintext).expect("a record"));
    }
}

#[inline(never)]
fn step_seal_records_64k(ours: &mut Records<ServerSession>, plaintext: &[u8]) {
    for _ in 0..TIMES {
        black_box(ours.drain(plaintext).expect("records"));
    }
}
