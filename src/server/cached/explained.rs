//! The cache's part in a request, for `pintle explain`. Changes nothing.

use super::super::asked::Turn;
use super::super::cache_request::{CacheRequest, Verdict, pass_conditions, verdict};
use super::reused::{decided, is_in_reserve};
use crate::cache::SiteCache;
use crate::cache::page::StoredResponse;
use crate::cache::reuse::{Because, Honour, ReuseDecision};
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

/// Parts of the cache that other parts of the report know.
const HIT: &str = "hit";
const STALE: &str = "stale";
const RECALL: &str = "recall";
const REFUSE: &str = "refuse";

impl CacheVerdict {
    /// `true` if a stored response is the answer: nobody waits for the upstream.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self.what, HIT | STALE)
    }

    /// `true` if the disk decides whether a stored response is the answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.what == RECALL
    }

    /// `true` if only a stored response is wanted, and none may be sent.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.what == REFUSE
    }
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
    let mut wanted = CacheRequest::of(cache, turn);
    wanted.varied(&cache.store);
    let page = cache.store.peek(&wanted.key);
    let stored = page.as_ref().and_then(|page| page.find(&head.fields));
    let stored = stored.filter(|stored| wanted.may_have(&stored.head));
    let uptime = crate::clock::uptime();
    let verdict = match stored {
        Some(stored) => of_stored(cache, stored, &wanted, uptime),
        None if cache.disk.as_ref().is_some_and(|disk| disk.may_have(&wanted.key, page.as_deref(), uptime)) => {
            (RECALL, "the disk is asked first: memory lacks the page")
        }
        // Only the process that serves uses the folder.
        None if page.is_none() && cache.disk.as_ref().is_some_and(|disk| !disk.is_open()) => {
            (RECALL, "memory lacks the page; the running process knows the disk (--live)")
        }
        None if wanted.directives.only_if_cached && !wanted.has_range => {
            (REFUSE, "only a stored response is wanted, and none is stored")
        }
        None if wanted.is_for_a_part(head) => ("fetch", "a part of a page that is not stored as a whole"),
        None if wanted.has_range => ("forward", "several parts, or parts with a condition, are not stored"),
        None if page.is_some() => ("fetch", "only responses for other requests are stored (Vary)"),
        None => match cache.store.under_way.refusal(&wanted.key) {
            Some(reason) => ("fetch", reason.code()),
            None => ("fetch", "nothing is stored under this URL"),
        },
    };
    let (what, why) = verdict;
    let mut own = match stored {
        None if wanted.is_for_a_part(head) => wanted.part_head(head, page.as_deref()),
        _ => wanted.upstream_head(head, stored.map(|stored| &**stored), page.as_deref()),
    };
    if stored.is_none() && !wanted.is_for_a_part(head) {
        pass_conditions(&cache.store, &wanted.key, head, &mut own);
    }
    (CacheVerdict { what, why }, (what != "forward").then_some(own))
}

/// The decision about a stored response. A client's wish for validation counts here, even right after another one.
fn of_stored(
    cache: &SiteCache,
    stored: &StoredResponse,
    wanted: &CacheRequest,
    uptime: u64,
) -> (&'static str, &'static str) {
    let is_invalid = stored.is_invalid(cache.store.epoch());
    match decided(cache, stored, wanted, uptime, || true) {
        ReuseDecision::Fresh => (HIT, "a fresh response is stored"),
        ReuseDecision::MaxStale => (STALE, "the client takes stale responses (max-stale)"),
        ReuseDecision::WhileRevalidate if wanted.directives.only_if_cached => {
            (STALE, "stale-while-revalidate: only a stored response is wanted")
        }
        ReuseDecision::WhileRevalidate => (STALE, "stale-while-revalidate: the upstream is asked in the background"),
        ReuseDecision::Nothing => (REFUSE, "only a stored response is wanted, and the stored one may not be sent"),
        ReuseDecision::Validate(_) if is_in_reserve(cache, stored, wanted, uptime) => {
            (STALE, "stale-if-error: the upstream has failed just now")
        }
        ReuseDecision::Validate(_) if is_invalid => ("validate", "purged softly, or changed"),
        ReuseDecision::Validate(Because::Request) if cache.rules.honour == Honour::Cheap => {
            ("validate", "the client asks for it; this counts once a second for a fresh response (honour_client)")
        }
        ReuseDecision::Validate(Because::Request) => ("validate", "the client asks for it"),
        ReuseDecision::Validate(Because::NoCache) => ("validate", "the stored response has no-cache"),
        ReuseDecision::Validate(Because::Stale) => ("validate", "the stored response is stale"),
    }
}
