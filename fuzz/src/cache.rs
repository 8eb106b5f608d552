//! The fields that decide about a stored response.

use http::Method;
use pintle::cache::conditional::{Validators, evaluate, range_counts};
use pintle::cache::directives::{Request, Response};
use pintle::cache::disk::fuzzing::{sealed, written_anew};
use pintle::cache::encoding::Encoding;
use pintle::cache::freshness::{ReceivedAt, TimeRules, initial_age, lifetime};
use pintle::cache::query::QueryRules;
use pintle::cache::range::{RequestedRange, wanted};
use pintle::cache::stored_fields::StoredFields;
use pintle::cache::vary::Variant;
use pintle::cache::{date, profile};
use pintle::message::Fields;

/// The length of the body that ranges are read for.
const LENGTH: u64 = 1000;
const NOW: i64 = 1_795_794_000;

fn fields(list: &[(&str, &[u8])]) -> Fields {
    let mut fields = Fields::default();
    list.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value));
    fields
}

/// A value, as each of the fields that a cache reads. A prohibition behind it always counts, parts lie within the body, and
/// what the rules for queries leave, they leave.
pub fn cache(data: &[u8]) {
    let data: Vec<u8> = data.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
    let said = Response::of(&fields(&[("Cache-Control", &data), ("Cache-Control", b"no-store")]));
    assert!(said.no_store, "{:?}", String::from_utf8_lossy(&data));
    assert!(Request::of(&fields(&[("Cache-Control", &data), ("Cache-Control", b"no-store")])).no_store);
    for name in ["Cache-Control", "CDN-Cache-Control", "Pintle-Cache-Control", "Pragma", "Expires", "Age", "Date"] {
        let all = fields(&[(name, &data), ("Last-Modified", &data), ("ETag", &data)]);
        let said = Response::of(&all);
        let times = TimeRules { default_ttl: Some(9), replaces_zero: true, negative: Some(3), heuristic_max: Some(60) };
        let received = ReceivedAt { at: NOW, delay: 1 };
        let _ = lifetime(http::StatusCode::OK, &said, &all, received, times);
        assert!(initial_age(&all, received) >= 1 || name == "Age");
        let asked = fields(&[("If-None-Match", &data), ("If-Modified-Since", &data), ("If-Range", &data)]);
        let stored = StoredFields::of(&all);
        let text = |fields: &Fields| fields.iter().map(|(_, name, value)| [name, value].concat()).collect::<Vec<_>>();
        assert_eq!(text(&stored.unpacked()), text(&all));
        let held = Validators::of(&stored, NOW);
        let _ = (evaluate(&Method::GET, &asked, held, NOW), range_counts(&asked, held, NOW));
    }
    if let RequestedRange::Parts(parts) = wanted(&data, LENGTH) {
        assert!(!parts.is_empty() && parts.iter().all(|part| part.start < part.end && part.end <= LENGTH));
    }
    let request = fields(&[("Accept-Encoding", &data), ("Accept", &data)]);
    let _ = Encoding::of(&request);
    let vary = Variant::of(&fields(&[("Vary", &data)]), &request, false);
    assert!(vary.is_none_or(|variant| variant.fits(&request)));
    assert!(Variant::of(&fields(&[("Vary", b"Accept")]), &request, false).is_none_or(|variant| variant.fits(&request)));
    let rules = QueryRules { drop: vec!["utm_*".into()], keep: Some(vec!["p".into()]), sort: true };
    let once = rules.apply(&data).into_owned();
    assert_eq!(*rules.apply(&once), *once);
    let _ = (date::parse(&data, NOW), profile::CacheProfile::WordPress.bypasses(&data));
    let _ = profile::CacheProfile::Ghost.cookies(std::iter::once(data.as_slice()));
}

/// A file of a stored page, and a head with checksums that fit: what is stored of it is read back.
pub fn cache_file(data: &[u8]) {
    for file in [data.to_vec(), sealed(data, b"the body")] {
        if let Some(anew) = written_anew(&file) {
            assert_eq!(written_anew(&anew).as_ref(), Some(&anew));
        }
    }
}
