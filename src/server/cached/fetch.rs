//! Asks the origin for a page: one request for many that wait, with the stale response in reserve.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::super::answered::answered;
use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::{Fetch, varied_by_dropped};
use super::super::local_reply::reject;
use super::super::record::upstream_failed;
use super::super::rejection::Rejection;
use super::super::reply::Reply;
use super::answer;
use super::detached::{OriginAnswer, OriginSending, fill};
use super::leading::Leading;
use super::pump::{BodyTimes, SharedBody};
use super::received::{self, OriginRequest, own};
use super::stale::{OriginFailure, stale};
use super::waiting::{AskingPlace, place};
use crate::cache::filling::Outcome;
use crate::cache::page::StoredResponse;
use crate::cache::status::Status;
use crate::cache::store::CachePart;
use crate::cache::stored_head::StoredHead;
use crate::cache::storing::NotStored;
use crate::message::Framing;
use crate::upstream::{Interim, ResponseBody, UpstreamError};

/// The beginning of a body in bytes that must have come before a stale response is given up for it.
const BEGINNING: u64 = 64 << 10;
/// The longest wait for it.
const BEGINNING_WAIT: Duration = Duration::from_secs(2);

/// Answers with another request's response, or asks the origin.
pub(in crate::server) async fn fetch(fetch: Box<Fetch>, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    match place(&fetch, turn).await {
        AskingPlace::Answered(reply) => *reply,
        AskingPlace::Lead(leading) => lead(fetch, leading, turn, interim).await,
    }
}

/// Asks the origin.
async fn lead(mut fetch: Box<Fetch>, mut leading: Leading, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    let Turn { head, asked, context, .. } = *turn;
    let Some(site) = &asked.site else { return reject(Rejection::Misdirected, head, Some(asked), context) };
    let worker = &context.worker;
    let (mut is_second, mut is_varied) = (false, false);
    loop {
        let begin = context.begin();
        let answer = OriginSending::new(fetch, leading, site, turn).answer(turn, interim).await;
        (fetch, leading) = (answer.fetch, answer.leading);
        let OriginAnswer { received, sent, .. } = answer;
        let status = sent.as_ref().ok().map(|response| response.head.status);
        if status.is_none_or(received::is_failure) && fetch.reserve(worker.clock.uptime()).is_some() {
            let failure = match &sent {
                Err(error) => {
                    upstream_failed(error, asked, context);
                    OriginFailure::Error(error.proxy_status(), None)
                }
                Ok(response) => OriginFailure::Status(response.head.status),
            };
            return stale(&fetch, &leading, failure, turn);
        }
        let has_failed = sent.is_err();
        let reply = answered(sent, None, turn, fetch.pool.upstream(), begin);
        if !reply.forwarded {
            leading.resolve(if has_failed { Outcome::Failed } else { Outcome::Released });
            asked.cache.set(Some(fetch.miss(None)));
            return reply;
        }
        let dropped = varied_by_dropped(&reply.head.fields, head, &fetch.head);
        let lacks_fields = !dropped.is_empty();
        if lacks_fields && !is_varied && fetch.store().under_way.vary(&fetch.wanted.key, dropped) {
            // Once more, with these fields; later requests of this key have them at once.
            is_varied = true;
            fetch.renew_head(head);
            continue;
        }
        if reply.head.status != StatusCode::NOT_MODIFIED {
            if lacks_fields {
                leading.resolve(Outcome::Released);
                return Box::pin(again(&fetch, reply, turn, interim)).await;
            }
            return match keep(&fetch, &leading, &received, reply, turn) {
                Ok(reply) => reply,
                Err(streamed) => Box::pin(stream(fetch, leading, received, streamed, turn)).await,
            };
        }
        match &fetch.stored {
            Some(stored) if stored.head.is_named_by(&reply.head.fields) => {
                return validated(&fetch, &leading, stored, &received, &reply, turn);
            }
            // The origin speaks of a response that is not here.
            Some(_) if !is_second => {
                is_second = true;
                fetch.drop_conditions();
            }
            _ => return confirmed(&fetch, &leading, reply, turn),
        }
    }
}

/// Answers with a 304 about the client's own copy, of a page that is not stored. Without a condition of the client, it is an
/// error of the origin.
fn confirmed(fetch: &Fetch, leading: &Leading, reply: Reply, turn: &Turn<'_>) -> Reply {
    leading.resolve(Outcome::Released);
    let Some(reason) = fetch.refused else {
        let error = UpstreamError::Malformed("304 to a request without a condition");
        return answered(Err(error), None, turn, fetch.pool.upstream(), None);
    };
    fetch.store().under_way.refuse(&fetch.wanted.key, reason, turn.context.worker.clock.uptime());
    own(reply, turn, fetch.miss(Some(reason.code())))
}

/// Answers with a stored response that the origin has confirmed.
fn validated(
    fetch: &Fetch,
    leading: &Leading,
    stored: &Arc<StoredResponse>,
    received: &OriginRequest,
    reply: &Reply,
    turn: &Turn<'_>,
) -> Reply {
    let uptime = turn.context.worker.clock.uptime();
    let (stored, was_stored) = match received.confirm(fetch, stored, &reply.head.fields) {
        Ok((updated, was_stored)) => {
            leading.resolve(Outcome::Whole(updated.clone(), None));
            (updated, was_stored)
        }
        Err(_) => {
            leading.resolve(Outcome::Released);
            (received.for_one(stored, &reply.head.fields), false)
        }
    };
    let status = Status {
        forwarded: Some(fetch.reason),
        forwarded_status: Some(304),
        ttl: Some(stored.head.clock(uptime).left()),
        stored: was_stored,
        ..Status::default()
    };
    answer::whole(turn, &stored, CacheNote { status, part: CachePart::Validated })
}

/// Answers with the origin's response to a request that nobody else waits for, and stores it if it may be stored.
pub(super) async fn keep_alone(fetch: Box<Fetch>, received: OriginRequest, reply: Reply, turn: &Turn<'_>) -> Reply {
    let leading = fetch.leading(fetch.store().under_way.filling());
    match keep(&fetch, &leading, &received, reply, turn) {
        Ok(reply) => reply,
        Err(streamed) => stream(fetch, leading, received, streamed, turn).await,
    }
}

/// Answers with the origin's response, and stores it if it may be stored. Returns one whose body is still under way.
fn keep(
    fetch: &Fetch,
    leading: &Leading,
    received: &OriginRequest,
    mut reply: Reply,
    turn: &Turn<'_>,
) -> Result<Reply, Box<Streamed>> {
    let Turn { head, context, .. } = *turn;
    let (worker, key) = (&context.worker, &fetch.wanted.key);
    if head.method == Method::HEAD {
        return Ok(described(fetch, reply, turn));
    }
    let judged = match received.judge_page(fetch, &reply.head) {
        Ok(judged) => judged,
        Err(reason) => {
            leading.resolve(Outcome::Released);
            return Ok(own(reply, turn, fetch.miss(Some(reason.code()))));
        }
    };
    let mut note = fetch.miss(None);
    note.status.stored = true;
    note.status.ttl = Some(judged.clock(worker.clock.uptime()).left());
    let length = match reply.head.framing {
        Framing::Length(length) => Some(length),
        _ => reply.length(),
    };
    let body = std::mem::replace(&mut reply.body, ResponseBody::Empty);
    let data = match come_whole(body) {
        Ok(data) => data,
        Err(body) => return Err(Box::new(Streamed { reply, body, judged, length, note })),
    };
    let stored = Arc::new(StoredResponse::new(judged, Bytes::copy_from_slice(&data)));
    note.status.stored = received.put(key, &stored);
    leading.resolve(Outcome::Whole(stored.clone(), None));
    if let Some(reply) = answer::not_modified(turn, &stored.head, note) {
        return Ok(reply);
    }
    reply.body = if data.is_empty() { ResponseBody::Empty } else { ResponseBody::Full(data) };
    Ok(own(reply, turn, note))
}

/// Finishes an answer to HEAD. It may contradict the stored page.
fn described(fetch: &Fetch, reply: Reply, turn: &Turn<'_>) -> Reply {
    let stored = fetch.stored.as_ref().filter(|_| !fetch.wanted.has_authorization);
    if let Some(stored) = stored.filter(|stored| received::contradicts(&reply, stored)) {
        fetch.store().contradicted(&fetch.wanted.key, stored);
    }
    own(reply, turn, fetch.miss(Some(NotStored::Method.code())))
}

/// Returns a body that has come whole, or the one that is under way.
pub(super) fn come_whole(body: ResponseBody) -> Result<Bytes, ResponseBody> {
    match body {
        ResponseBody::Empty => Ok(Bytes::new()),
        ResponseBody::Full(data) => Ok(data),
        body => Err(body),
    }
}

/// A response that may be stored, and whose body is still under way.
struct Streamed {
    reply: Reply,
    body: ResponseBody,
    judged: StoredHead,
    length: Option<u64>,
    note: CacheNote,
}

/// Answers with a body under way. A task of its own moves it: this request reads along, as others may.
async fn stream(
    fetch: Box<Fetch>,
    leading: Leading,
    received: OriginRequest,
    streamed: Box<Streamed>,
    turn: &Turn<'_>,
) -> Reply {
    let Turn { asked, context, alarm, .. } = *turn;
    let Streamed { mut reply, body, judged, length, note } = *streamed;
    let filling = leading.filling.clone();
    let own_body = SharedBody::of(&filling);
    let judged = Arc::new(judged);
    leading.resolve(Outcome::Streams(judged.clone(), length));
    alarm.uncap();
    let left = received.time_left(fetch.pool.upstream());
    let times = BodyTimes { pause: asked.view.shared.limits.body_progress, left };
    let has_reserve = fetch.reserve(context.worker.clock.uptime()).is_some();
    tokio::task::spawn_local(fill(body, leading, (received, judged.clone()), times));
    if has_reserve {
        alarm.set(BEGINNING_WAIT);
        let begun = poll_fn(|cx| match filling.poll_beginning(BEGINNING, cx) {
            Poll::Ready(begun) => Poll::Ready(begun),
            Poll::Pending => alarm.poll_due(cx).map(|()| None),
        })
        .await;
        if begun == Some(false) {
            let leading = fetch.leading(fetch.store().under_way.filling());
            return stale(
                &fetch,
                &leading,
                OriginFailure::Error("http_response_incomplete", Some(reply.head.status)),
                turn,
            );
        }
    }
    if let Some(reply) = answer::not_modified(turn, &judged, note) {
        return reply;
    }
    reply.body = own_body.unwrap_or(ResponseBody::Empty);
    own(reply, turn, note)
}

/// Asks once more, with all fields of the client: the origin's response varies by one that it did not get.
pub(super) async fn again(fetch: &Fetch, first: Reply, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    drop(first);
    let Some(site) = &turn.asked.site else {
        return reject(Rejection::Misdirected, turn.head, Some(turn.asked), turn.context);
    };
    let begin = turn.context.begin();
    let sent = fetch.send(turn.head, site, turn, interim).await;
    let reply = answered(sent, None, turn, fetch.pool.upstream(), begin);
    own(reply, turn, fetch.miss(Some(NotStored::Dropped.code())))
}
