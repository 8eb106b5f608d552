//! Responses for tests.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use crate::cache::directives::Request;
use crate::cache::freshness::{ReceivedAt, TimeRules};
use crate::cache::page::StoredResponse;
use crate::cache::profile::CacheProfile;
use crate::cache::query::QueryRules;
use crate::cache::reuse::{Honour, Stale};
use crate::cache::rules::CacheRules;
use crate::cache::stored_head::{ForRequest, HeadArrival, StoredHead, own_request};
use crate::message::Fields;

/// A response that is fresh for a minute.
pub(super) fn sample(body: &[u8]) -> Arc<StoredResponse> {
    sample_with("", body)
}

/// The same, with more fields.
pub(super) fn sample_with(more: &str, body: &[u8]) -> Arc<StoredResponse> {
    let mut sent = Fields::default();
    sent.push(b"Accept-Language", b"de, en");
    sample_for(more, &sent, body)
}

/// The same, for a request with these fields.
pub(super) fn sample_for(more: &str, sent: &Fields, body: &[u8]) -> Arc<StoredResponse> {
    let mut fields = Fields::default();
    fields.push(b"Cache-Control", b"max-age=60");
    for (name, value) in more.lines().filter_map(|line| line.split_once(": ")) {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let directives = Request::default();
    let request = ForRequest { asked: &own_request(&directives), sent };
    let rules = CacheRules {
        profile: CacheProfile::None,
        memory: 0,
        disk: None,
        max_object: 0,
        times: TimeRules::default(),
        stale: Stale::default(),
        query: QueryRules::default(),
        honour: Honour::No,
        compresses: false,
        collapse_wait: std::time::Duration::ZERO,
    };
    let arrival = HeadArrival { received: ReceivedAt { at: 1_795_794_000, delay: 0 }, uptime: 0, epoch: 0 };
    let head = StoredHead::of(&rules, request, StatusCode::OK, &fields, arrival).unwrap();
    Arc::new(StoredResponse::new(head, Bytes::copy_from_slice(body)))
}
