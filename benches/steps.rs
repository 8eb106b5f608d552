//! The steps of a request, one by one: what each costs in user space. `cargo bench`; README.md says how to read it.

mod setting;

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pintle::host::{HostMap, HostPattern, split_authority};
use pintle::keys::pin::Pin;
use pintle::ledger::{Record, read_book};
use pintle::message::{
    BodyDecoder, Decoded, FieldSink, Framing, Rendered, RequestHead, ResponseHead, parse_request, parse_response,
};
use pintle::policy::forwarded::origin;
use pintle::policy::guard::{Objections, Offer, judge};
use pintle::policy::hpkp::{self, Hpkp};
use pintle::policy::promise::Promise;
use pintle::policy::redirect::HttpsPorts;
use pintle::upstream::rewrite::rewrite;

use setting::{LIMITS, REQUEST, RESPONSE, RESPONSE_LIMITS, setting};

fn hosts(c: &mut Criterion) {
    for sites in [1, 100, 10_000] {
        let mut map = HostMap::default();
        for n in 0..sites {
            map.insert(&HostPattern::parse(&format!("site-{n}.example.com")).expect("a name"), n);
        }
        map.insert(&HostPattern::parse("*.wild.example.com").expect("a name"), sites);
        let last = format!("site-{}.example.com", sites - 1);
        c.bench_function(&format!("host/exact name among {sites}"), |b| b.iter(|| map.get(black_box(&last)).copied()));
        c.bench_function(&format!("host/wildcard among {sites}"), |b| {
            b.iter(|| map.get(black_box("a.wild.example.com")).copied());
        });
    }
    c.bench_function("host/parse an authority", |b| {
        b.iter_batched_ref(
            || *b"Blog.Example.com:8443",
            |raw| split_authority(black_box(raw)),
            criterion::BatchSize::SmallInput,
        );
    });
}

fn messages(c: &mut Criterion) {
    let mut head = RequestHead::default();
    c.bench_function("message/parse a request", |b| {
        b.iter(|| {
            head.clear();
            parse_request(black_box(REQUEST), &LIMITS, &mut head).expect("a request")
        });
    });
    let mut response = ResponseHead::default();
    c.bench_function("message/parse a response", |b| {
        b.iter(|| {
            response.clear();
            parse_response(black_box(RESPONSE), false, &RESPONSE_LIMITS, &mut response).expect("a response")
        });
    });
    let chunk = b"4000\r\n".iter().copied().chain(vec![b'x'; 0x4000]).chain(*b"\r\n").collect::<Vec<u8>>();
    let body: Vec<u8> = chunk.repeat(8).into_iter().chain(*b"0\r\n\r\n").collect();
    let mut group = c.benchmark_group("message");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("decode a chunked body", |b| {
        b.iter_batched(
            || BytesMut::from(&body[..]),
            |mut buffer| {
                let mut decoder = BodyDecoder::response(Framing::Chunked);
                while let Ok(Decoded::Data(data)) = decoder.decode(&mut buffer) {
                    black_box(data);
                }
                assert!(decoder.is_end());
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn forwarding(c: &mut Criterion) {
    let s = setting();
    let client_origin = origin(&s.client.peer, &s.head.fields, &s.trust);
    c.bench_function("forward/who the client is, nobody trusted", |b| {
        b.iter(|| origin(black_box(&s.client.peer), &s.head.fields, &s.trust));
    });
    let mut out = Vec::with_capacity(4096);
    c.bench_function("forward/write the upstream's request", |b| {
        b.iter(|| {
            out.clear();
            s.upstream_request(&client_origin).write_http1(black_box(&s.upstream), &mut out);
            out.len()
        });
    });
    let mut response = ResponseHead::default();
    parse_response(RESPONSE, false, &RESPONSE_LIMITS, &mut response).expect("a response");
    c.bench_function("forward/rewrite a response's names", |b| {
        b.iter_batched_ref(
            || response.clone(),
            |response| rewrite(response, &s.head, &s.site, black_box(&s.upstream), HttpsPorts::default()),
            criterion::BatchSize::SmallInput,
        );
    });
}

fn policies(c: &mut Criterion) {
    let pins: Vec<Pin> = (0..4_u8).map(|n| Pin::of_spki(&[n])).collect();
    let policy = Hpkp {
        mode: hpkp::Mode::Enforce,
        pins,
        max_age: 30 * 86_400,
        include_subdomains: true,
        report_uri: Some("https://reports.example.net/hpkp".into()),
    };
    c.bench_function("policy/render Public-Key-Pins (once per load)", |b| b.iter(|| black_box(&policy).value()));
    let mut rendered = Rendered::default();
    rendered.push("Strict-Transport-Security", "max-age=31536000; includeSubDomains").expect("a field");
    rendered.push(policy.name(), &policy.value()).expect("a field");
    let mut out = Vec::with_capacity(4096);
    c.bench_function("policy/add rendered headers to a response", |b| {
        b.iter(|| {
            out.clear();
            out.rendered(black_box(&rendered));
            out.len()
        });
    });
    let spki = [0x5a_u8; 91];
    c.bench_function("pin/of a P-256 key's SubjectPublicKeyInfo", |b| b.iter(|| Pin::of_spki(black_box(&spki))));
    c.bench_function("pin/to base64", |b| {
        let pin = Pin::of_spki(&spki);
        b.iter(|| black_box(pin).to_string());
    });
}

const NOW: i64 = 1_800_000_000;

fn names(site: usize) -> Vec<HostPattern> {
    [format!("site-{site}.example.com"), format!("*.site-{site}.example.com")]
        .iter()
        .map(|name| HostPattern::parse(name).expect("a name"))
        .collect()
}

/// Sets that clients hold, for so many sites in turn. Key 0 is in all of them.
fn promises(count: usize, sites: usize) -> Vec<Promise> {
    let promise = |n: usize| {
        let pins = vec![Pin::of_spki(&[0]), Pin::of_spki(&n.to_be_bytes()), Pin::of_spki(&(n + 1).to_be_bytes())];
        let include_subdomains = n.is_multiple_of(2);
        let policy =
            Hpkp { mode: hpkp::Mode::Enforce, pins, max_age: 30 * 86_400, include_subdomains, report_uri: None };
        let sent = NOW - i64::try_from(n).expect("a small number");
        Promise { first_sent: sent, last_sent: sent, ..Promise::of_header(&names(n % sites), &[], &policy) }
    };
    (0..count).map(promise).collect()
}

/// From the book to the verdict: the index is made each time.
fn guard(c: &mut Criterion) {
    let spread = promises(10_000, 100);
    let hosts: Vec<Vec<HostPattern>> = (0..100).map(names).collect();
    let keys = [Pin::of_spki(&[0]), Pin::of_spki(&[1])];
    let site = |n: usize| Offer { hosts: &hosts[n], chains: vec![&keys], set: Some(&spread[n]), is_kept: false };
    let one = [site(7)];
    let all: Vec<Offer<'_>> = (0..100).map(site).collect();
    assert_eq!(judge(&all, &spread, NOW), Objections::default());
    c.bench_function("guard/judge a chain against 10,000 promises", |b| {
        b.iter(|| judge(black_box(&one), black_box(&spread), NOW));
    });
    c.bench_function("guard/judge the chains of 100 sites against 10,000 promises", |b| {
        b.iter(|| judge(black_box(&all), black_box(&spread), NOW));
    });
    let narrow = promises(10_000, 1);
    let one = [Offer { hosts: &hosts[0], chains: vec![&keys[1..]], set: None, is_kept: false }];
    assert_eq!(judge(&one, &narrow, NOW).breaches[0].broken.len(), narrow.len());
    c.bench_function("guard/judge a chain that breaks all of 10,000 promises", |b| {
        b.iter(|| judge(black_box(&one), black_box(&narrow), NOW));
    });
    let file: String = spread.iter().map(|promise| Record::Promise(promise.clone()).line()).collect();
    let mut group = c.benchmark_group("guard");
    group.sample_size(20).throughput(Throughput::Bytes(file.len() as u64));
    group.bench_function("read a ledger of 10,000 records", |b| {
        b.iter(|| read_book(black_box(file.as_bytes())).0.promises().len());
    });
    group.finish();
}

criterion_group!(steps, hosts, messages, forwarding, policies, guard);
criterion_main!(steps);
