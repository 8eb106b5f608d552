//! The cache of a site on the path of a request: `[site.cache]`.
//!
//! [`look`] answers from the store, or returns the work: a plain request to the upstream for requests that have nothing to
//! do with the store, and a [`Fetch`] for the others. A site without a cache never comes here.

mod answer;
mod background;
mod explained;
pub(super) mod fetch;
mod pump;
mod received;
mod reused;

use std::rc::Rc;
use std::sync::Arc;

use super::asked::Turn;
use super::cache_note::CacheNote;
use super::cache_request::{CacheRequest, Fetch, Verdict, verdict};
use super::decide::Work;
use super::local_reply::reject;
use super::rejection::Rejection;
use super::reply::Reply;
use crate::cache::SiteCache;
use crate::cache::status::ForwardReason;
use crate::upstream::Pool;

use reused::{StoredUse, WHILE_REVALIDATE, reuse};

pub use explained::CacheVerdict;
pub(super) use explained::explained;
pub(super) use received::note as note_forwarded;

/// Methods by which other caches are purged. They are for the admin socket, and never forwarded.
const PURGES: [&str; 2] = ["PURGE", "BAN"];

/// Answers from the store, or returns the work.
pub(super) fn look(cache: &Arc<SiteCache>, pool: Rc<Pool>, turn: &Turn<'_>) -> Result<Reply, Work> {
    let Turn { head, asked, context, .. } = *turn;
    if PURGES.contains(&head.method.as_str()) {
        return Ok(reject(Rejection::MethodNotAllowed, head, Some(asked), context));
    }
    let wanted = match verdict(&cache.rules, head) {
        Verdict::Bypass(reason, detail) => {
            asked.cache.set(Some(CacheNote::bypass(reason, detail)));
            return Err(Work::Forward(pool, None));
        }
        Verdict::Looks => CacheRequest::of(cache, turn),
    };
    let store = &cache.store;
    let page = store.page(&wanted.key);
    let found = page.as_ref().and_then(|page| page.find(&head.fields)).cloned();
    let Some(stored) = found.filter(|stored| !wanted.has_authorization || stored.head.is_for_authorized()) else {
        if wanted.directives.only_if_cached {
            return Ok(reject(Rejection::NotStored, head, Some(asked), context));
        }
        let reason = if page.is_some() { ForwardReason::VaryMiss } else { ForwardReason::UriMiss };
        if wanted.has_range {
            // A part of a page that is not stored: the origin's answer is for this request alone.
            asked.cache.set(Some(CacheNote::bypass(reason, Some("range"))));
            return Err(Work::Forward(pool, None));
        }
        return Err(Work::Cached(Box::new(Fetch::new(cache, pool, wanted, (reason, None), page.as_deref(), head))));
    };
    match reuse(cache, &stored, &wanted, turn) {
        StoredUse::Send(detail) => Ok(answer::hit(turn, &stored, detail)),
        StoredUse::SendAndValidate => {
            let reply = answer::hit(turn, &stored, Some(WHILE_REVALIDATE));
            background::validate(cache, &pool, &wanted, &stored, turn);
            Ok(reply)
        }
        StoredUse::Nothing => Ok(reject(Rejection::NotStored, head, Some(asked), context)),
        StoredUse::Ask(reason) => {
            Err(Work::Cached(Box::new(Fetch::new(cache, pool, wanted, (reason, Some(stored)), page.as_deref(), head))))
        }
    }
}
