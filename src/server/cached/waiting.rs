//! Waits for the response that another request has asked for: one request to the origin for many clients, and never all of
//! them at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Method;

use super::super::asked::Turn;
use super::super::cache_note::CacheNote;
use super::super::cache_request::{CacheRequest, Fetch};
use super::super::local_reply::reject;
use super::super::rejection::Rejection;
use super::super::reply::Reply;
use super::answer;
use super::leading::Leading;
use super::pump::SharedBody;
use super::reused::{StoredUse, reuse};
use crate::cache::filling::{Filling, FillingFollower, Outcome};
use crate::cache::status::Status;
use crate::cache::store::CachePart;
use crate::cache::stored_head::StoredHead;
use crate::cache::under_way::Join;
use crate::message::Fields;
use crate::upstream::UpstreamError;

/// The number of times that a request waits again because the one that it has waited for was abandoned.
const ROUNDS: usize = 3;
/// The number of times that waiting requests ask once more after a failure of the origin, one at a time.
const FAILURES: usize = 2;

/// A request's place before it would ask the origin.
pub(super) enum AskingPlace {
    /// Another one has asked for it, or several have in vain.
    Answered(Box<Reply>),
    Lead(Leading),
}

/// Finds a request's place, and waits there.
pub(super) async fn place(fetch: &Fetch, turn: &Turn<'_>) -> AskingPlace {
    let (store, key, clock) = (fetch.store(), &fetch.wanted.key, &turn.context.worker.clock);
    let CacheRequest { has_authorization, directives, .. } = &fetch.wanted;
    let waits = !fetch.cache.rules.collapse_wait.is_zero();
    let collapses = waits && turn.head.method == Method::GET && !has_authorization && !directives.no_store;
    let mut join = if collapses { store.under_way.join(key, clock.uptime()) } else { Join::Alone };
    let (mut rounds, mut failures) = (0, 0);
    loop {
        let followed = match join {
            Join::Alone => return AskingPlace::Lead(fetch.leading(store.under_way.filling())),
            Join::Lead(filling) => return new_or_lead(fetch, fetch.leading(filling), turn),
            // Most requests do not wait, and need no room for it.
            Join::Follow(follower) => Box::pin(follow(fetch, follower, turn)).await,
        };
        join = match followed {
            Followed::Answered(reply) => return AskingPlace::Answered(reply),
            Followed::Again if rounds < ROUNDS => {
                rounds += 1;
                store.under_way.join(key, clock.uptime())
            }
            Followed::Failed if failures < FAILURES => {
                failures += 1;
                store.under_way.join(key, clock.uptime())
            }
            // As for one that waits for a connection.
            Followed::Failed => {
                let rejection = Rejection::Upstream(UpstreamError::QueueTimeout);
                let reply = reject(rejection, turn.head, Some(turn.asked), turn.context);
                turn.asked.cache.set(Some(fetch.miss(None)));
                return AskingPlace::Answered(Box::new(reply));
            }
            Followed::Late(join) => join,
            Followed::Again | Followed::Alone => Join::Alone,
        };
    }
}

/// Another request may have filled the place meanwhile.
fn new_or_lead(fetch: &Fetch, leading: Leading, turn: &Turn<'_>) -> AskingPlace {
    let new = fetch.store().find(&fetch.wanted.key, &turn.head.fields).filter(|new| {
        let is_new = fetch.stored.as_ref().is_none_or(|stored| !Arc::ptr_eq(stored, new));
        is_new && matches!(reuse(&fetch.cache, new, &fetch.wanted, turn), StoredUse::Send(None))
    });
    match new {
        Some(new) => {
            leading.resolve(Outcome::Whole(new.clone(), None));
            AskingPlace::Answered(Box::new(answer::hit(turn, &new, None)))
        }
        None => AskingPlace::Lead(leading),
    }
}

/// The end of waiting for another request.
enum Followed {
    Answered(Box<Reply>),
    /// That request has ended without an answer.
    Again,
    /// The origin has not answered it.
    Failed,
    /// It takes too long. The waiting request gets this place.
    Late(Join),
    /// Its answer is not for this one.
    Alone,
}

/// Waits for another request. Each time that takes too long, one of those who wait asks, too, and the others wait for either:
/// a slow origin gets one request more, not one from each.
async fn follow(fetch: &Fetch, first: FillingFollower, turn: &Turn<'_>) -> Followed {
    let (alarm, under_way, wait) = (turn.alarm, &fetch.store().under_way, fetch.cache.rules.collapse_wait);
    let (mut latest, mut followers) = (first.filling().clone(), vec![first]);
    loop {
        alarm.set(wait);
        let come = poll_fn(|cx| {
            for (at, follower) in followers.iter().enumerate() {
                if let Poll::Ready(outcome) = poll_usable(follower.filling(), &turn.head.fields, cx) {
                    return Poll::Ready(Some((at, outcome)));
                }
            }
            alarm.poll_due(cx).map(|()| None)
        })
        .await;
        match come {
            Some((at, Outcome::Abandoned | Outcome::Failed)) if followers.len() > 1 => drop(followers.swap_remove(at)),
            Some((_, Outcome::Abandoned)) => return Followed::Again,
            Some((_, Outcome::Failed)) => return Followed::Failed,
            Some((at, outcome)) => return followed(fetch, outcome, followers.swap_remove(at).filling(), turn),
            None => match under_way.join_after(&fetch.wanted.key, &latest, turn.context.worker.clock.uptime()) {
                Join::Follow(follower) => {
                    latest = follower.filling().clone();
                    followers.push(follower);
                }
                join => return Followed::Late(join),
            },
        }
    }
}

/// Polls for what one who waits can use. A body that turns out to be too large goes as fast as its slowest reader, and it has
/// one: a body of unknown length must come whole first.
fn poll_usable(filling: &Filling, fields: &Fields, cx: &Context<'_>) -> Poll<Outcome> {
    let outcome = ready!(filling.poll_outcome(cx));
    match &outcome {
        Outcome::Streams(head, None) if head.variant().fits(fields) && head.is_shareable() => {
            let is_whole = ready!(filling.poll_whole(cx));
            Poll::Ready(if is_whole { outcome } else { Outcome::Released })
        }
        _ => Poll::Ready(outcome),
    }
}

/// Answers with what another request has got, if it is for this one, too.
fn followed(fetch: &Fetch, outcome: Outcome, filling: &Arc<Filling>, turn: &Turn<'_>) -> Followed {
    let fields = &turn.head.fields;
    let note = |head: &StoredHead, detail| {
        let ttl = Some(head.clock(turn.context.worker.clock.uptime()).left());
        let status = Status { forwarded: Some(fetch.reason), collapsed: true, ttl, detail, ..Status::default() };
        CacheNote { status, part: CachePart::Collapsed }
    };
    match outcome {
        Outcome::Whole(stored, detail)
            if stored.head.variant().fits(fields)
                && match detail {
                    // The request that led may have allowed what this one does not.
                    Some(_) => fetch.may_be_stale(&stored, turn.context.worker.clock.uptime()),
                    None => stored.head.is_shareable(),
                } =>
        {
            let note = note(&stored.head, detail);
            Followed::Answered(Box::new(answer::whole(turn, &stored, note)))
        }
        Outcome::Streams(head, length) if head.variant().fits(fields) && head.is_shareable() => {
            match SharedBody::of(filling) {
                Some(body) => {
                    let note = note(&head, None);
                    Followed::Answered(Box::new(answer::streamed(turn, &head, length, body, note)))
                }
                None => Followed::Alone,
            }
        }
        _ => Followed::Alone,
    }
}
