//! The cache's part in a request, for `pintle explain`. Changes nothing.

use super::super::asked::Turn;
use super::super::cache_request::{CacheRequest, Verdict, verdict};
use crate::cache::SiteCache;
use crate::cache::status::ForwardReason;
use crate::message::RequestHead;

/// The cache's part in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheVerdict {
    /// What the cache does.
    pub what: &'static str,
    /// The reason.
    pub why: &'static str,
}

/// Returns the cache's part in a request, and the head that the upstream gets if it is asked for a page that may be stored.
pub(in crate::server) fn explained(cache: &SiteCache, turn: &Turn<'_>) -> (CacheVerdict, Option<RequestHead>) {
    let head = turn.head;
    let bypass = |why| (CacheVerdict { what: "bypass", why }, None);
    match verdict(&cache.rules, head) {
        Verdict::Bypass(ForwardReason::Method, _) => return bypass("the method is neither GET nor HEAD"),
        Verdict::Bypass(_, Some("body")) => return bypass("the request has a body"),
        Verdict::Bypass(_, Some("cookie")) => return bypass("a cookie may belong to a visitor"),
        Verdict::Bypass(_, Some("path")) => return bypass("the profile never stores this path"),
        Verdict::Bypass(_, Some("nonce")) => return bypass("the request has a nonce of WordPress"),
        Verdict::Bypass(_, Some("condition")) => {
            return bypass("only the upstream evaluates If-Match and If-Unmodified-Since");
        }
        Verdict::Bypass(..) => return bypass("the request asks for another protocol"),
        Verdict::Looks => {}
    }
    let wanted = CacheRequest::of(cache, turn);
    let page = cache.store.peek(&wanted.key);
    let stored = page.as_ref().and_then(|page| page.find(&head.fields));
    let stored = stored.filter(|stored| wanted.may_have(&stored.head));
    let uptime = crate::clock::uptime();
    let verdict = match stored {
        Some(stored) if stored.is_invalid(cache.store.epoch()) => ("validate", "purged softly, or changed"),
        Some(stored) if stored.head.clock(uptime).is_fresh() => ("hit", "a fresh response is stored"),
        Some(_) => ("validate", "the stored response is stale"),
        None if cache.disk.as_ref().is_some_and(|disk| disk.may_have(&wanted.key, page.as_deref(), uptime)) => {
            ("recall", "the disk is asked first: memory lacks the page")
        }
        None if wanted.is_for_a_part(head) => ("fetch", "a part of a page that is not stored as a whole"),
        None if wanted.has_range => ("forward", "several parts, or parts with a condition, are not stored"),
        None if page.is_some() => ("fetch", "only responses for other requests are stored (Vary)"),
        None => match cache.store.refusal(&wanted.key) {
            Some(reason) => ("fetch", reason.code()),
            None => ("fetch", "nothing is stored under this URL"),
        },
    };
    let (what, why) = verdict;
    let own = match stored {
        None if wanted.is_for_a_part(head) => wanted.part_head(head, page.as_deref()),
        _ => wanted.upstream_head(head, stored.map(|stored| &**stored), page.as_deref()),
    };
    (CacheVerdict { what, why }, (what != "forward").then_some(own))
}
