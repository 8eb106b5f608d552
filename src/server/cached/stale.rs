//! Answers from the store because the origin fails.

use http::StatusCode;

use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::Fetch;
use super::super::local_reply::reject;
use super::super::rejection::Rejection;
use super::super::reply::Reply;
use super::answer;
use super::leading::Leading;
use super::reused::ON_ERROR;
use crate::cache::filling::Outcome;
use crate::cache::status::Status;
use crate::cache::store::CachePart;
use crate::upstream::PSEUDONYM;

/// The failure of the origin behind a stale response.
#[derive(Clone, Copy)]
pub(super) enum OriginFailure {
    /// It has answered with this status.
    Status(StatusCode),
    /// It has not, or not to the end: the type of the error (RFC 9209 section 2.3), and the status of what has come.
    Error(&'static str, Option<StatusCode>),
}

/// Answers with the response in reserve, since the origin has failed. Those who wait get it, too.
pub(super) fn stale(fetch: &Fetch, leading: &Leading, failure: OriginFailure, turn: &Turn<'_>) -> Reply {
    let Turn { head, asked, context, .. } = *turn;
    let worker = &context.worker;
    let Some(stored) = &fetch.stored else { return reject(Rejection::NotStored, head, Some(asked), context) };
    match failure {
        OriginFailure::Status(_) => stored.refused(worker.clock.uptime()),
        OriginFailure::Error(..) => stored.failed(worker.clock.uptime()),
    }
    leading.resolve(Outcome::Whole(stored.clone(), Some(ON_ERROR)));
    if let Some(site) = &asked.site {
        worker.warn_seldom(site.index(), "stale responses", || {
            let upstream = &*fetch.pool.upstream().label;
            let hint = "the upstream fails: pintle answers from the cache for as long as stale_if_error allows";
            tracing::warn!(site = site.label(), upstream, hint, "stale responses are sent");
        });
    }
    let ttl = Some(stored.head.clock(worker.clock.uptime()).left());
    let (forwarded_status, proxy_status) = match failure {
        OriginFailure::Status(status) => (Some(status), format!("{PSEUDONYM}; received-status={}", status.as_u16())),
        OriginFailure::Error(error, status) => (status, format!("{PSEUDONYM}; error={error}")),
    };
    let forwarded_status = forwarded_status.map(|status| status.as_u16());
    let status =
        Status { forwarded: Some(fetch.reason), forwarded_status, ttl, detail: Some(ON_ERROR), ..Status::default() };
    let mut reply = answer::whole(turn, stored, CacheNote { status, part: CachePart::Stale });
    if asked.sees_details(context) {
        reply.head.fields.push(b"Proxy-Status", proxy_status.as_bytes());
    }
    reply
}
