//! The cache's part in a request, for `pintle explain`. Changes nothing.

use super::super::asked::Turn;
use super::super::cache_request::{BypassCause, CacheRequest, bypass_cause, pass_conditions};
use super::reused::{decided, is_in_reserve};
use crate::cache::SiteCache;
use crate::cache::page::StoredResponse;
use crate::cache::reuse::{Because, Honour, ReuseDecision};
use crate::message::RequestHead;

/// A step of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStep {
    /// A fresh stored response is the answer.
    Hit,
    /// A stale stored response is the answer.
    Stale,
    /// The disk decides whether a stored response is the answer.
    Recall,
    /// Only a stored response is wanted, and none may be sent.
    Refuse,
    /// The upstream is asked whether the stored response is still right.
    Validate,
    /// The upstream is asked for a response that may be stored.
    Fetch,
    /// The upstream is asked, and its response is not stored.
    Forward,
    /// The request has nothing to do with the cache.
    Bypass,
}

impl CacheStep {
    /// Returns the word of the report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Recall => "recall",
            Self::Refuse => "refuse",
            Self::Validate => "validate",
            Self::Fetch => "fetch",
            Self::Forward => "forward",
            Self::Bypass => "bypass",
        }
    }
}

/// The cache's part in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheVerdict {
    /// The step of the cache.
    pub step: CacheStep,
    /// The reason.
    pub why: &'static str,
}

impl CacheVerdict {
    /// `true` if a stored response is the answer: nobody waits for the upstream.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self.step, CacheStep::Hit | CacheStep::Stale)
    }

    /// `true` if the disk decides whether a stored response is the answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.step == CacheStep::Recall
    }

    /// `true` if only a stored response is wanted, and none may be sent.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.step == CacheStep::Refuse
    }
}

/// Returns the cache's part in a request, and the head that the upstream gets if it is asked for a page that may be stored.
pub(in crate::server) fn explained(cache: &SiteCache, turn: &Turn<'_>) -> (CacheVerdict, Option<RequestHead>) {
    let head = turn.head;
    let bypass = |why| (CacheVerdict { step: CacheStep::Bypass, why }, None);
    if let Some(cause) = bypass_cause(&cache.rules, head) {
        return bypass(match cause {
            BypassCause::Method => "the method is neither GET nor HEAD",
            BypassCause::Body => "the request has a body",
            BypassCause::Cookie => "a cookie may belong to a visitor",
            BypassCause::Path => "the profile never stores this path",
            BypassCause::Nonce => "the request has a nonce of WordPress",
            BypassCause::Condition => "only the upstream evaluates If-Match and If-Unmodified-Since",
            BypassCause::Upgrade => "the request asks for another protocol",
        });
    }
    let mut wanted = CacheRequest::of(cache, turn);
    wanted.varied(&cache.store);
    let page = cache.store.peek(&wanted.key);
    let stored = page.as_ref().and_then(|page| page.find(&head.fields));
    let stored = stored.filter(|stored| wanted.may_have(&stored.head));
    let uptime = crate::clock::uptime();
    let verdict = match stored {
        Some(stored) => of_stored(cache, stored, &wanted, uptime),
        None if cache.disk.as_ref().is_some_and(|disk| disk.may_have(&wanted.key, page.as_ref(), uptime)) => {
            (CacheStep::Recall, "the disk is asked first: memory lacks the page")
        }
        // Only the process that serves uses the folder.
        None if page.is_none() && cache.disk.as_ref().is_some_and(|disk| !disk.is_open()) => {
            (CacheStep::Recall, "memory lacks the page; the running process knows the disk (--live)")
        }
        None if wanted.directives.only_if_cached && !wanted.has_range => {
            (CacheStep::Refuse, "only a stored response is wanted, and none is stored")
        }
        None if wanted.is_for_a_part(head) => (CacheStep::Fetch, "a part of a page that is not stored as a whole"),
        None if wanted.has_range => (CacheStep::Forward, "several parts, or parts with a condition, are not stored"),
        None if page.is_some() => (CacheStep::Fetch, "only responses for other requests are stored (Vary)"),
        None => match cache.store.under_way.refusal(&wanted.key) {
            Some(reason) => (CacheStep::Fetch, reason.code()),
            None => (CacheStep::Fetch, "nothing is stored under this URL"),
        },
    };
    let (step, why) = verdict;
    let mut own = match stored {
        None if wanted.is_for_a_part(head) => wanted.part_head(head, page.as_ref()),
        _ => wanted.upstream_head(head, stored.map(|stored| &**stored), page.as_ref()),
    };
    if stored.is_none() && !wanted.is_for_a_part(head) {
        pass_conditions(&cache.store, &wanted.key, head, &mut own);
    }
    (CacheVerdict { step, why }, (step != CacheStep::Forward).then_some(own))
}

/// The decision about a stored response. A client's wish for validation counts here, even right after another one.
fn of_stored(
    cache: &SiteCache,
    stored: &StoredResponse,
    wanted: &CacheRequest,
    uptime: u64,
) -> (CacheStep, &'static str) {
    let is_invalid = stored.is_invalid(cache.store.epoch());
    match decided(cache, stored, wanted, uptime, || true) {
        ReuseDecision::Fresh => (CacheStep::Hit, "a fresh response is stored"),
        ReuseDecision::MaxStale => (CacheStep::Stale, "the client takes stale responses (max-stale)"),
        ReuseDecision::WhileRevalidate if wanted.directives.only_if_cached => {
            (CacheStep::Stale, "stale-while-revalidate: only a stored response is wanted")
        }
        ReuseDecision::WhileRevalidate => {
            (CacheStep::Stale, "stale-while-revalidate: the upstream is asked in the background")
        }
        ReuseDecision::Nothing => {
            (CacheStep::Refuse, "only a stored response is wanted, and the stored one may not be sent")
        }
        ReuseDecision::Validate(_) if is_in_reserve(cache, stored, wanted, uptime) => {
            (CacheStep::Stale, "stale-if-error: the upstream has failed just now")
        }
        ReuseDecision::Validate(_) if is_invalid => (CacheStep::Validate, "purged softly, or changed"),
        ReuseDecision::Validate(Because::Request) if cache.rules.honour == Honour::Cheap => (
            CacheStep::Validate,
            "the client asks for it; this counts once a second for a fresh response (honour_client)",
        ),
        ReuseDecision::Validate(Because::Request) => (CacheStep::Validate, "the client asks for it"),
        ReuseDecision::Validate(Because::NoCache) => (CacheStep::Validate, "the stored response has no-cache"),
        ReuseDecision::Validate(Because::Stale) => (CacheStep::Validate, "the stored response is stale"),
    }
}
