//! The cache of a site on the path of a request: `[site.cache]`.
//!
//! [`look`] answers from the store, or returns the work: a plain request to the upstream for requests that have nothing to
//! do with the store, and a [`Fetch`] for the others. A site without a cache never comes here.

mod answer;
mod background;
mod detached;
mod editors;
mod explained;
mod fetch;
mod leading;
mod partial;
mod pump;
mod recalled;
mod received;
mod reused;
mod stale;
mod waiting;

use std::rc::Rc;
use std::sync::Arc;

use super::asked::Turn;
use super::cache_note::CacheNote;
use super::cache_request::{CacheRequest, Fetch, bypass_cause};
use super::decide::Work;
use super::local_reply::reject;
use super::rejection::Rejection;
use super::reply::Reply;
use crate::cache::SiteCache;
use crate::cache::page::{CachedPage, StoredResponse};
use crate::cache::status::ForwardReason;
use crate::upstream::{Interim, Pool};

use reused::{StoredUse, WHILE_REVALIDATE, reuse};

pub(super) use explained::explained;
pub use explained::{CacheStep, CacheVerdict};
pub(super) use received::note as note_forwarded;

/// Methods by which other caches are purged. They are for the admin socket, and never forwarded.
const PURGES: [&str; 2] = ["PURGE", "BAN"];

/// Answers from the store, or returns the work.
pub(super) fn look(cache: &Arc<SiteCache>, pool: Rc<Pool>, turn: &Turn<'_>) -> Result<Reply, Work> {
    let Turn { head, asked, context, .. } = *turn;
    if PURGES.contains(&head.method.as_str()) {
        return Ok(reject(Rejection::MethodNotAllowed, head, Some(asked), context));
    }
    if let Some(cause) = bypass_cause(&cache.rules, head) {
        let (reason, detail) = cause.cache_status();
        asked.cache.set(Some(CacheNote::bypass(reason, detail)));
        return Err(Work::Forward(pool, None));
    }
    let wanted = CacheRequest::of(cache, turn);
    let page = cache.store.page(&wanted.key);
    let stored = find(page.as_ref(), &wanted, turn);
    if stored.is_none() && recalled::may_have(cache, &wanted, page.as_ref(), turn) {
        return Err(Work::Recall(pool));
    }
    decide(cache, pool, wanted, (page, stored), turn)
}

/// Answers from the store, or returns the work, after a look at the disk.
pub(super) async fn recall(cache: &Arc<SiteCache>, pool: Rc<Pool>, turn: &Turn<'_>) -> Result<Reply, Work> {
    let wanted = CacheRequest::of(cache, turn);
    let page = recalled::recall(cache, &wanted, turn).await;
    let stored = find(page.as_ref(), &wanted, turn);
    decide(cache, pool, wanted, (page, stored), turn)
}

/// Asks the origin for a page, or a part of it.
pub(super) async fn ask(asking: Box<Fetch>, turn: &Turn<'_>, interim: &mut dyn Interim) -> Reply {
    match asking.is_part {
        true => Box::pin(partial::fetch(asking, turn, interim)).await,
        false => fetch::fetch(asking, turn, interim).await,
    }
}

/// The response of a page for a request.
fn find(page: Option<&CachedPage>, wanted: &CacheRequest, turn: &Turn<'_>) -> Option<Arc<StoredResponse>> {
    let found = page.and_then(|page| page.find(&turn.head.fields)).cloned();
    found.filter(|stored| wanted.may_have(&stored.head))
}

/// Decides about what was found.
fn decide(
    cache: &Arc<SiteCache>,
    pool: Rc<Pool>,
    wanted: CacheRequest,
    (page, stored): (Option<CachedPage>, Option<Arc<StoredResponse>>),
    turn: &Turn<'_>,
) -> Result<Reply, Work> {
    let Turn { head, asked, context, .. } = *turn;
    let Some(stored) = stored else {
        if wanted.directives.only_if_cached && !wanted.has_range {
            return Ok(reject(Rejection::NotStored, head, Some(asked), context));
        }
        let reason = match &page {
            Some(page) if page.find_parts(&head.fields).is_some() => ForwardReason::Partial,
            Some(_) => ForwardReason::VaryMiss,
            None => ForwardReason::UriMiss,
        };
        if wanted.has_range {
            return partial::look(cache, pool, wanted, (reason, page), turn);
        }
        return Err(Work::Cached(Box::new(Fetch::new(cache, pool, wanted, (reason, None), page.as_ref(), head))));
    };
    match reuse(cache, &stored, &wanted, turn) {
        StoredUse::Send(detail) => {
            if stored.is_note_due(context.worker.clock.uptime()) {
                cache.store.used(&wanted.key, &stored);
            }
            Ok(answer::hit(turn, &stored, detail))
        }
        StoredUse::SendAndValidate => {
            let reply = answer::hit(turn, &stored, Some(WHILE_REVALIDATE));
            background::validate(cache, &pool, &wanted, &stored, turn);
            Ok(reply)
        }
        StoredUse::Nothing => Ok(reject(Rejection::NotStored, head, Some(asked), context)),
        StoredUse::Ask(reason) => {
            Err(Work::Cached(Box::new(Fetch::new(cache, pool, wanted, (reason, Some(stored)), page.as_ref(), head))))
        }
    }
}
