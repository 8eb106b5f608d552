//! Limits of requests: before a request is forwarded, its client is looked up in the counts of all workers.

use http::StatusCode;

use super::admission::ClientNetwork;
use super::asked::{Asked, Turn};
use super::held_rates::{HeldRates, ShownQuota, Taken};
use super::rate_counts::{AdmittedRequest, ClientKey, Exceeded};
use super::rates::{RateExceeded, RateLimit, RequestLimits};
use super::rejection::Rejection;
use super::reply::Reply;
use crate::message::Name;
use crate::policy::rate::{ListedAs, QuotaState, RateRule, RequestRate, SiteRates, crawler};

/// Returns the limits of a request's site.
fn of_site<'t>(turn: &Turn<'t>) -> Option<(&'t RequestLimits, &'t SiteRates)> {
    let rates = turn.asked.view.shared.rates.as_ref()?;
    let site = turn.asked.site.as_ref()?;
    Some((rates, rates.sites.get(site.index())?.as_ref()?))
}

/// Refuses a client whose address is denied.
pub(super) fn check_address(turn: &Turn<'_>) -> Result<(), Rejection> {
    let Turn { head, asked, .. } = *turn;
    let Some((_, site)) = of_site(turn) else { return Ok(()) };
    let is_denied = |rule: &&RateRule| rule.addresses.find(asked.origin.client) == Some(ListedAs::Denied);
    match site.of(&head.method, head.path()).find(is_denied) {
        Some(rule) => {
            let refused_by = Some(rule.name.clone());
            let held = HeldRates { view: asked.view.clone(), taken: Vec::new(), shown: None, refused_by };
            let _ = asked.rates.set(Box::new(held));
            Err(Rejection::AddressDenied(rule.key.clone()))
        }
        None => Ok(()),
    }
}

/// Counts a request that is to be forwarded, under all rules that apply, or under none if one of them refuses it.
pub(super) fn admit(turn: &Turn<'_>) -> Result<(), Rejection> {
    let Turn { head, asked, context, .. } = *turn;
    let Some((rates, site)) = of_site(turn) else { return Ok(()) };
    let now = rates.counts.time(context.worker.clock.time());
    let held = HeldRates { view: asked.view.clone(), taken: Vec::new(), shown: None, refused_by: None };
    let mut check = RateCheck { turn, rates, now, held };
    let refused = site.of(&head.method, head.path()).find_map(|rule| check.admit_by(rule).err());
    let RateCheck { mut held, .. } = check;
    if let Some(exceeded) = &refused {
        held.refused_by = Some(exceeded.name.clone());
        for taken in held.taken.drain(..) {
            rates.counts.take_back(taken.key, taken.rate, taken.counted);
        }
    }
    let _ = asked.rates.set(Box::new(held));
    refused.map_or(Ok(()), |exceeded| Err(Rejection::RateExceeded(exceeded)))
}

/// A request on its way through the rules.
struct RateCheck<'a> {
    turn: &'a Turn<'a>,
    rates: &'a RequestLimits,
    now: u64,
    held: HeldRates,
}

impl RateCheck<'_> {
    /// Counts the request under one rule.
    fn admit_by(&mut self, rule: &RateRule) -> Result<(), RateExceeded> {
        let Turn { head, asked, .. } = *self.turn;
        let client = asked.origin.client;
        let is_allowed = rule.addresses.find(client) == Some(ListedAs::Allowed);
        let agent = || head.fields.get(Name::UserAgent).and_then(crawler);
        if let Some((rate, crawler)) = rule.crawlers.and_then(|rate| Some((rate, agent()?))) {
            // Whoever only claims the name uses up no request of those that the operator knows.
            let key = self.rates.counts.key(rule.mark, ("crawler", crawler, is_allowed));
            self.take(rule, RateLimit::Crawlers, key, (Some(rate), None))?;
        }
        // A trusted proxy that names no client speaks for many.
        if is_allowed || (!rule.shared && asked.view.shared.trust.contains(client)) {
            return Ok(());
        }
        let of = (!rule.shared).then(|| ClientNetwork::of(client));
        let key = self.rates.counts.key(rule.mark, ("client", of));
        self.take(rule, RateLimit::Requests, key, (rule.requests, rule.concurrent))
    }

    fn take(
        &mut self,
        rule: &RateRule,
        limit: RateLimit,
        key: ClientKey,
        (rate, concurrent): (Option<RequestRate>, Option<u32>),
    ) -> Result<(), RateExceeded> {
        if rate.is_none() && concurrent.is_none() {
            return Ok(());
        }
        match self.rates.counts.admit(key, rate, concurrent, self.now) {
            Ok(AdmittedRequest { due, counted, was_full }) => {
                if was_full {
                    self.turn.context.worker.limit_reached("rate_clients");
                }
                self.held.taken.push(Taken { key, rate, counted });
                self.show(rule, limit, rate.map(|rate| (rate, rate.state(due, self.now))));
                Ok(())
            }
            Err(exceeded) => {
                let (limit, wait) = match exceeded {
                    Exceeded::Concurrent => (RateLimit::Concurrent, 1),
                    Exceeded::Requests(nanoseconds) => (limit, nanoseconds.div_ceil(1_000_000_000).max(1)),
                };
                self.held.shown = None;
                if limit != RateLimit::Concurrent {
                    self.show(rule, limit, rate.map(|rate| (rate, QuotaState { left: 0, next: wait })));
                }
                Err(RateExceeded { limit, key: rule.key.clone(), name: rule.name.clone(), wait })
            }
        }
    }

    /// Shows a quota, if it is that of the client and smaller than the one shown so far.
    fn show(&mut self, rule: &RateRule, limit: RateLimit, quota: Option<(RequestRate, QuotaState)>) {
        let Some((rate, state)) = quota.filter(|_| rule.fields && !rule.shared && limit == RateLimit::Requests) else {
            return;
        };
        if self.held.shown.as_ref().is_none_or(|shown| shown.state.left > state.left) {
            self.held.shown = Some(ShownQuota { name: rule.name.clone(), rate, state });
        }
    }
}

/// Adds RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers) to an answer, behind those of the upstream. A
/// redirect gets none: its client would be asked to wait on the page behind it. A 304 is none of these.
pub(super) fn add_fields(asked: Option<&Asked>, reply: &mut Reply) {
    let Some(held) = asked.and_then(|asked| asked.rates.get()) else { return };
    let status = reply.head.status;
    let Some(ShownQuota { name, rate, state }) = &held.shown else { return };
    let is_redirect = status.is_redirection() && status != StatusCode::NOT_MODIFIED;
    if is_redirect || status.is_informational() {
        return;
    }
    let policy = format!("\"{name}\";q={};w={}", rate.burst(), rate.window());
    reply.head.fields.push(b"RateLimit-Policy", policy.as_bytes());
    let quota = format!("\"{name}\";r={};t={}", state.left, state.next);
    reply.head.fields.push(b"RateLimit", quota.as_bytes());
}
