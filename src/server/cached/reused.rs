//! The decision about a stored response.

use super::super::asked::Turn;
use super::super::cache_request::CacheRequest;
use crate::cache::SiteCache;
use crate::cache::page::StoredResponse;
use crate::cache::reuse::{Because, ReuseDecision, decide, is_usable_on_error};
use crate::cache::status::ForwardReason;

/// The word for a stale response that was sent because the origin fails.
pub(super) const ON_ERROR: &str = "stale-if-error";
/// The word for a stale response that is validated meanwhile.
pub(super) const WHILE_REVALIDATE: &str = "stale-while-revalidate";
/// The use of a stored response.
pub(super) enum StoredUse {
    /// Sends it.
    Send(Option<&'static str>),
    /// Sends it, and validates it meanwhile.
    SendAndValidate,
    /// Asks the origin, for this reason.
    Ask(ForwardReason),
    /// Answers 504.
    Nothing,
}

/// Decides about a stored response.
pub(super) fn reuse(cache: &SiteCache, stored: &StoredResponse, wanted: &CacheRequest, turn: &Turn<'_>) -> StoredUse {
    let uptime = turn.context.worker.clock.uptime();
    let asked = &wanted.directives;
    match decided(cache, stored, wanted, uptime, || stored.may_insist(uptime)) {
        ReuseDecision::Fresh => StoredUse::Send(None),
        ReuseDecision::MaxStale => StoredUse::Send(Some("max-stale")),
        // Only what is stored is wanted: the origin is not asked, not even later.
        ReuseDecision::WhileRevalidate if asked.only_if_cached => StoredUse::Send(Some(WHILE_REVALIDATE)),
        ReuseDecision::WhileRevalidate => StoredUse::SendAndValidate,
        ReuseDecision::Nothing => StoredUse::Nothing,
        // The origin has failed just now: nobody waits for it again before the pause is over.
        ReuseDecision::Validate(_) if is_in_reserve(cache, stored, wanted, uptime) => StoredUse::Send(Some(ON_ERROR)),
        ReuseDecision::Validate(Because::Request) => StoredUse::Ask(ForwardReason::Request),
        ReuseDecision::Validate(Because::Stale | Because::NoCache) => StoredUse::Ask(ForwardReason::Stale),
    }
}

/// Decides by the directives of both sides, and by purges. `may_insist` says whether the client's wish for validation
/// counts now.
pub(super) fn decided(
    cache: &SiteCache,
    stored: &StoredResponse,
    wanted: &CacheRequest,
    uptime: u64,
    may_insist: impl FnOnce() -> bool,
) -> ReuseDecision {
    let (rules, asked) = (&cache.rules, &wanted.directives);
    match stored.is_invalid(cache.store.epoch()) {
        true if asked.only_if_cached => ReuseDecision::Nothing,
        true => ReuseDecision::Validate(Because::Stale),
        false => {
            let (clock, said) = (stored.head.clock(uptime), stored.head.said());
            decide(clock, &said, asked, rules.honour, rules.stale, may_insist)
        }
    }
}

/// `true` if the origin has failed just now, and the response may be sent meanwhile.
pub(super) fn is_in_reserve(cache: &SiteCache, stored: &StoredResponse, wanted: &CacheRequest, uptime: u64) -> bool {
    stored.is_resting(uptime) && may_be_stale(cache, stored, wanted, uptime)
}

/// `true` if the response may be sent because the origin fails.
pub(super) fn may_be_stale(cache: &SiteCache, stored: &StoredResponse, wanted: &CacheRequest, uptime: u64) -> bool {
    let (rules, clock) = (&cache.rules, stored.head.clock(uptime));
    !stored.is_gone() && is_usable_on_error(clock, &stored.head.said(), &wanted.directives, rules.honour, rules.stale)
}
