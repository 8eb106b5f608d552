//! Parts of pages that are not stored as a whole: from the store, or asked for and put together (RFC 9111 section 3.4).

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::task::spawn_local;

use super::super::answered::answered;
use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::{CacheRequest, Fetch, varied_by_dropped};
use super::super::decide::Work;
use super::super::local_reply::reject;
use super::super::rejection::Rejection;
use super::super::reply::Reply;
use super::answer;
use super::fetch::{again, come_whole, keep_alone};
use super::pump::{BodyTimes, SharedBody, pump};
use super::received::{OriginRequest, own};
use super::reused::{StoredUse, reuse};
use crate::cache::SiteCache;
use crate::cache::page::CachedPage;
use crate::cache::page_key::PageKey;
use crate::cache::partial::content_range;
use crate::cache::range::{RequestedRange, wanted as wanted_range};
use crate::cache::status::ForwardReason;
use crate::cache::stored_head::StoredHead;
use crate::cache::storing::NotStored;
use crate::message::Framing;
use crate::upstream::{Interim, Pool, ResponseBody};

/// Answers a request for a part of a page that is not stored as a whole, or returns the work.
pub(super) fn look(
    cache: &Arc<SiteCache>,
    pool: Rc<Pool>,
    wanted: CacheRequest,
    (reason, page): (ForwardReason, Option<CachedPage>),
    turn: &Turn<'_>,
) -> Result<Reply, Work> {
    let Turn { head, asked, context, .. } = *turn;
    let is_part = wanted.is_for_a_part(head);
    if is_part && let Some(reply) = stored(cache, &wanted, page.as_ref(), turn) {
        return Ok(reply);
    }
    if wanted.directives.only_if_cached {
        return Ok(reject(Rejection::NotStored, head, Some(asked), context));
    }
    if !is_part {
        // The origin's answer is for this request alone.
        asked.cache.set(Some(CacheNote::bypass(reason, Some("range"))));
        return Err(Work::Forward(pool, None));
    }
    Err(Work::Cached(Box::new(Fetch::part(cache, pool, wanted, reason, page.as_ref(), head))))
}

/// Answers from the parts that are stored, if they are fresh and have all of the range.
fn stored(cache: &SiteCache, wanted: &CacheRequest, page: Option<&CachedPage>, turn: &Turn<'_>) -> Option<Reply> {
    let held = page?.find_parts(&turn.head.fields)?;
    let parts = held.parts.as_deref()?;
    if !wanted.may_have(&held.head) || !matches!(reuse(cache, held, wanted, turn), StoredUse::Send(None)) {
        return None;
    }
    let field = turn.head.fields.value_of(b"range")?;
    let RequestedRange::Parts(ranges) = wanted_range(field, parts.total()) else { return None };
    let [range] = ranges.as_slice() else { return None };
    let at = parts.find(range)?;
    Some(answer::part_of_parts(turn, held, (range, parts.total()), at))
}

/// Asks the origin for a part. If it sends the whole page, that is stored.
pub(super) async fn fetch(fetch: Box<Fetch>, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    let Turn { head, asked, context, .. } = *turn;
    let Some(site) = &asked.site else { return reject(Rejection::Misdirected, head, Some(asked), context) };
    let worker = &context.worker;
    let begin = context.begin();
    let received = OriginRequest::begin(&fetch.cache, fetch.wanted.generation, worker);
    let sent = fetch.send(&fetch.head, site, turn, interim).await;
    let reply = answered(sent, None, turn, fetch.pool.upstream(), begin);
    if !reply.forwarded {
        asked.cache.set(Some(fetch.miss(None)));
        return reply;
    }
    match reply.head.status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT
            if !varied_by_dropped(&reply.head.fields, head, &fetch.head).is_empty() =>
        {
            again(&fetch, reply, turn, interim).await
        }
        StatusCode::OK => Box::pin(keep_alone(fetch, received, reply, turn)).await,
        StatusCode::PARTIAL_CONTENT => keep(&fetch, received, reply, turn),
        _ => own(reply, turn, fetch.miss(Some(NotStored::Status.code()))),
    }
}

/// The range that a response has, and the length of the whole, if it can be stored.
fn range_of(fetch: &Fetch, reply: &Reply) -> Option<(Range<u64>, u64)> {
    let (range, total) = content_range(reply.head.fields.value_of(b"content-range")?)?;
    let length = match reply.head.framing {
        Framing::Length(length) => Some(length),
        _ => reply.length(),
    };
    let fits = length.is_none_or(|length| length == range.end - range.start);
    (fits && total <= fetch.cache.rules.max_object).then_some((range, total))
}

/// Answers with the origin's part, and stores it if it may be stored.
fn keep(fetch: &Fetch, received: OriginRequest, mut reply: Reply, turn: &Turn<'_>) -> Reply {
    let worker = &turn.context.worker;
    let method = Method::GET;
    let request = fetch.wanted.asked(&method);
    let judged = received.judge_part(&reply.head, (&request, &fetch.head.fields));
    let judged = judged.and_then(|head| Ok((head, range_of(fetch, &reply).ok_or(NotStored::Part)?)));
    let (head, place) = match judged {
        Ok(judged) => judged,
        Err(reason) => return own(reply, turn, fetch.miss(Some(reason.code()))),
    };
    let mut note = fetch.miss(None);
    note.status.stored = true;
    note.status.ttl = Some(head.clock(worker.clock.uptime()).left());
    let key = fetch.wanted.key.clone();
    match come_whole(std::mem::replace(&mut reply.body, ResponseBody::Empty)) {
        Ok(data) => {
            note.status.stored = put(&received, &key, &head, &place, &Bytes::copy_from_slice(&data));
            reply.body = if data.is_empty() { ResponseBody::Empty } else { ResponseBody::Full(data) };
        }
        Err(body) => {
            let filling = fetch.cache.store.under_way.filling();
            reply.body = SharedBody::of(&filling).unwrap_or(ResponseBody::Empty);
            turn.alarm.uncap();
            let left = received.time_left(fetch.pool.upstream());
            let times = BodyTimes { pause: turn.asked.view.shared.limits.body_progress, left };
            let (clock, counters) = (worker.clock.clone(), worker.counters.clone());
            spawn_local(async move {
                let is_whole = pump(body, &filling, times, &clock).await;
                match filling.body().filter(|_| is_whole) {
                    Some(data) => _ = put(&received, &key, &head, &place, &data),
                    None if is_whole => {}
                    None => counters.upstream_errors.increment(),
                }
                filling.finish(is_whole);
            });
        }
    }
    own(reply, turn, note)
}

fn put(received: &OriginRequest, key: &PageKey, head: &StoredHead, place: &(Range<u64>, u64), data: &Bytes) -> bool {
    let (range, total) = place;
    // A part of another length than it says is none.
    range.end - range.start == data.len() as u64 && received.put_part(key, head, (range.clone(), *total), data)
}
