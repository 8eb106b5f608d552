//! The plan of one certificate: what happens next, when, with which key, at which CA, and why.
//!
//! Pure: facts and the time go in, one action comes out. The driver performs the action, which changes
//! the facts, and asks again.

use super::backoff::{DAY, Retry};
use super::due;
use super::facts::{Ca, Checked, Compromise, Facts, NextKey, OpenOrder, Verdict};
use super::step::{Abandoned, Cause, Changeover, KeyChoice, Next, Plan, Standing, Stop, Why};
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;

/// A preflight counts for an order for this long, in seconds.
const PREFLIGHT_FRESH: Seconds = 3600;
/// The waits after broken preflights in a row, in seconds. Then it is an hour.
const PREFLIGHT_LADDER: [Seconds; 3] = [60, 300, 900];

/// Returns the plan of a certificate.
#[must_use]
pub fn next(facts: &Facts, now: Seconds) -> Plan {
    Planner::new(facts, now).plan()
}

/// A reason to order, from a time on.
#[derive(Debug, Clone)]
struct Goal {
    at: Seconds,
    why: Why,
    /// `true` if the second CA may be asked, too.
    is_urgent: bool,
}

/// The facts, with what follows from them.
struct Planner<'a> {
    facts: &'a Facts,
    now: Seconds,
    /// The time of the renewal; `None` without a chain.
    renewal: Option<due::Renewal>,
    changeover: Option<Changeover>,
    goal: Goal,
    /// The keys that may be ordered for now, the best one first.
    keys: Vec<(KeyChoice, Pin)>,
}

/// The next action for an order.
enum Choice {
    Now(KeyChoice, usize),
    Later(Seconds),
    Never(Stop),
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, now: Seconds) -> Self {
        let renewal = facts.chain.as_ref().map(|chain| due::renewal(facts, chain));
        let changeover = changeover(facts, now);
        let goal = goal(facts, now, renewal, changeover);
        let keys = keys(facts, now, changeover);
        Self { facts, now, renewal, changeover, goal, keys }
    }

    fn plan(self) -> Plan {
        Plan {
            next: self.action(),
            due: self.goal.at,
            why: self.goal.why.clone(),
            key: self.key(),
            standing: self.standing(),
            changeover: self.changeover,
        }
    }

    /// The key of the next order: at its time, the next one may be ready.
    fn key(&self) -> KeyChoice {
        let at = self.goal.at.max(self.now);
        let is_ready = self.changeover.is_some_and(|changeover| changeover.from <= at);
        match self.keys.first() {
            Some((KeyChoice::Live, _)) if is_ready && self.goal.at > self.now => KeyChoice::Next,
            Some((key, _)) => *key,
            None => KeyChoice::Next,
        }
    }

    fn action(&self) -> Next {
        if let Some(key) = self.missing_key() {
            return Next::MakeKey(key);
        }
        if let Some(fault) = self.facts.unusable_live.as_ref().filter(|_| self.facts.live.is_none()) {
            return Next::OperatorsTurn { stop: Stop::Key(fault.clone()), until: self.soonest(self.now + DAY) };
        }
        if let Some(next) = self.retirement() {
            return next;
        }
        if let Some(next) = self.facts.order.as_ref().and_then(|order| self.open_order(order)) {
            return next;
        }
        if self.ask_from().is_some_and(|from| from <= self.now) {
            return Next::AskWindow;
        }
        if self.goal.at <= self.now {
            return self.order();
        }
        if self.facts.chain.is_some() && self.preflight_from(DAY) <= self.now {
            return Next::Preflight;
        }
        self.wait(self.goal.at)
    }

    /// A key that is to be made.
    fn missing_key(&self) -> Option<KeyChoice> {
        let facts = self.facts;
        // Clients may hold the pin of a key that cannot be read now: it is not replaced.
        let Some(live) = facts.live else { return facts.unusable_live.is_none().then_some(KeyChoice::Live) };
        if facts.unusable_next.is_some() {
            return None;
        }
        let is_unfit = |next: &NextKey| {
            next.pin == live || facts.is_burnt(next.pin) || facts.compromise.as_ref().is_some_and(|c| c.pin == next.pin)
        };
        (facts.next.as_ref().is_none_or(is_unfit)).then_some(KeyChoice::Next)
    }

    /// The end of a compromised key that serves no more.
    fn retirement(&self) -> Option<Next> {
        let compromise = self.facts.retired()?;
        if compromise.is_revoked {
            return Some(Next::Burn);
        }
        match compromise.attempts.retry() {
            Retry::At(at) if at <= self.now => Some(Next::Revoke),
            // The CA does not revoke it. The key is burnt all the same.
            Retry::Stopped => Some(Next::Burn),
            Retry::At(_) => None,
        }
    }

    /// The next action for an open order; `None` if another order replaces it.
    fn open_order(&self, order: &OpenOrder) -> Option<Next> {
        let abandon = |why| Some(Next::Abandon { why });
        if order.names != self.facts.names {
            return abandon(Abandoned::Names);
        }
        if !self.keys.iter().any(|(_, pin)| *pin == order.key) {
            return abandon(Abandoned::Key);
        }
        if order.expires.is_some_and(|expires| expires <= self.now) {
            return abandon(Abandoned::Expired);
        }
        let Some(ca) = self.facts.cas.iter().find(|ca| ca.directory == order.ca) else {
            return abandon(Abandoned::Authority);
        };
        let Some(at) = ca.attempts.retry().at() else { return abandon(Abandoned::Authority) };
        let at = at.max(order.poll_from);
        if at <= self.now {
            return Some(Next::Resume);
        }
        if ca.attempts.has_failed() && self.goal.at <= self.now {
            // Another CA may be ready while this one waits.
            return match self.choose() {
                Choice::Now(_, other) if self.facts.cas[other].directory != order.ca => None,
                Choice::Later(other) => Some(self.wait(other.min(at))),
                _ => Some(self.wait(at)),
            };
        }
        Some(self.wait(at))
    }

    /// The time of the next question for renewal information: the issuer of a valid chain answers it.
    fn ask_from(&self) -> Option<Seconds> {
        let chain = self.facts.chain.as_ref().filter(|chain| self.now < chain.not_after && chain.id.is_some())?;
        let offers = |ca: &Ca| Some(&ca.directory) == chain.from.as_ref() && ca.has_renewal_info;
        self.facts.cas.iter().any(offers).then(|| self.facts.info.ask_from())
    }

    fn order(&self) -> Next {
        let (key, ca) = match self.choose() {
            Choice::Now(key, ca) => (key, ca),
            Choice::Later(at) => return self.wait(at),
            Choice::Never(stop) => return Next::OperatorsTurn { stop, until: self.soonest(self.now + DAY) },
        };
        let fresh = self.preflight_from(PREFLIGHT_FRESH);
        if fresh <= self.now {
            return Next::Preflight;
        }
        let is_broken = self.facts.checked.as_ref().is_some_and(|checked| checked.verdict == Verdict::Broken);
        if is_broken && !self.orders_anyway() {
            return self.wait(fresh);
        }
        Next::Order { key, ca, replaces: self.facts.replaces(ca).map(str::to_owned) }
    }

    /// `true` if so little is left that pintle orders despite a broken preflight.
    fn orders_anyway(&self) -> bool {
        let times = self.facts.chain.as_ref().zip(self.renewal);
        times.is_some_and(|(chain, renewal)| due::despite_preflight(chain, renewal.at) <= self.now)
    }

    /// The time of the next preflight, if a good one counts for so long.
    fn preflight_from(&self, good_for: Seconds) -> Seconds {
        let counts = |checked: &&Checked| checked.names == self.facts.names && !checked.expired;
        let Some(checked) = self.facts.checked.as_ref().filter(counts) else {
            return Seconds::MIN;
        };
        let wait = match checked.verdict {
            Verdict::Fine | Verdict::Unknown => good_for,
            Verdict::Broken => {
                let rung = usize::try_from(checked.failures.saturating_sub(1)).unwrap_or(usize::MAX);
                PREFLIGHT_LADDER.get(rung).copied().unwrap_or(PREFLIGHT_FRESH)
            }
        };
        checked.at.saturating_add(wait)
    }

    /// The first CA that takes an order now, and the best key that it takes. The second CA is asked
    /// if a certificate is needed and the first one cannot give it now.
    fn choose(&self) -> Choice {
        let mut later: Option<Seconds> = None;
        let mut refusals = Vec::new();
        let mut lacks_key = false;
        for (at, ca) in self.facts.cas.iter().enumerate().take(if self.goal.is_urgent { usize::MAX } else { 1 }) {
            let Some((key, _)) = self.keys.iter().find(|(_, pin)| !ca.attempts.refused_keys.contains(pin)) else {
                lacks_key = true;
                continue;
            };
            let from = match ca.attempts.retry() {
                Retry::At(from) => from.max(ca.order_from.as_ref().map_or(Seconds::MIN, |(from, _)| *from)),
                Retry::Stopped => {
                    refusals.extend(ca.attempts.last.as_ref().map(|last| last.text.clone()));
                    continue;
                }
            };
            if from <= self.now {
                return Choice::Now(*key, at);
            }
            later = Some(later.map_or(from, |later| later.min(from)));
        }
        let changeover = self.changeover.filter(|changeover| changeover.from > self.now);
        match later {
            Some(at) => Choice::Later(at),
            None if self.facts.cas.is_empty() => Choice::Never(Stop::NoAuthority),
            None if self.keys.is_empty() => Choice::Never(Stop::Burnt(
                self.facts.next.as_ref().and_then(|next| next.usable_from).unwrap_or(self.now),
            )),
            None if lacks_key && refusals.is_empty() => {
                let from = self.facts.next.as_ref().map(due::usable_from).filter(|from| *from > self.now);
                Choice::Never(Stop::KeysRefused(from.or_else(|| changeover.map(|changeover| changeover.from))))
            }
            None => Choice::Never(Stop::Refused(refusals.pop().unwrap_or_default())),
        }
    }

    fn wait(&self, until: Seconds) -> Next {
        Next::Wait { until: self.soonest(until) }
    }

    /// The next time at which anything happens, later than now, and a day from now at most.
    fn soonest(&self, until: Seconds) -> Seconds {
        let preflight = self.facts.chain.as_ref().map(|_| self.preflight_from(DAY));
        let revocation = self.facts.retired().and_then(|compromise| compromise.attempts.retry().at());
        let usable = self.facts.next.as_ref().map(due::usable_from);
        let changeover = self.changeover.map(|changeover| changeover.from);
        let times = [Some(until), self.ask_from(), preflight, revocation, usable, changeover];
        let soonest = times.into_iter().flatten().filter(|at| *at > self.now).min();
        soonest.map_or(self.now + DAY, |at| at.min(self.now + DAY))
    }

    fn standing(&self) -> Standing {
        let (Some(chain), Some(renewal)) = (&self.facts.chain, self.renewal) else { return Standing::Missing };
        if self.now >= chain.not_after {
            return Standing::Expired;
        }
        if self.now < renewal.at {
            return if self.goal.at <= self.now { Standing::Due } else { Standing::Current };
        }
        let failed = |ca: &Ca| ca.attempts.last.as_ref().is_some_and(|l| l.remedy.is_some() && l.at >= renewal.at);
        let is_broken = self.facts.checked.as_ref().is_some_and(|c| c.verdict == Verdict::Broken);
        // A window that moved to the past was not missed before it was known.
        let known = self.facts.info.window.as_ref().map_or(Seconds::MIN, |window| window.since);
        let is_late = self.now >= due::overdue_from(chain, renewal.at.max(known));
        if is_late || is_broken || self.facts.cas.iter().any(failed) { Standing::Overdue } else { Standing::Due }
    }
}

/// The changeover that is planned or asked for.
fn changeover(facts: &Facts, now: Seconds) -> Option<Changeover> {
    let (live, next) = (facts.live?, facts.next.as_ref()?);
    let usable = due::usable_from(next);
    let compromise = facts.compromise.as_ref().filter(|compromise| compromise.pin == live);
    if compromise.is_some() || facts.is_burnt(live) {
        let accepts = compromise.is_some_and(Compromise::accepts_lockout);
        let wanted = compromise.map_or(now, |compromise| compromise.since.min(now));
        // Only the guard's rule counts: a thief has the live key, so nothing is gained by more patience.
        let by_guard = next.usable_from.unwrap_or(Seconds::MIN);
        let from = if accepts { wanted } else { by_guard.max(wanted) };
        return Some(Changeover { cause: Cause::Compromised, wanted, from });
    }
    if facts.asked.rotate {
        return Some(Changeover { cause: Cause::Asked, wanted: now, from: usable.max(now) });
    }
    let wanted = facts.live_since.saturating_add(facts.rotate_every?);
    Some(Changeover { cause: Cause::RotateEvery, wanted, from: usable.max(wanted) })
}

/// The earliest reason to order.
fn goal(facts: &Facts, now: Seconds, renewal: Option<due::Renewal>, changeover: Option<Changeover>) -> Goal {
    let urgent = |at, why| Goal { at, why, is_urgent: true };
    let (Some(chain), Some(renewal)) = (&facts.chain, renewal) else { return urgent(now, Why::First) };
    let is_due = renewal.at <= now;
    let why = match facts.info.window.as_ref().filter(|_| renewal.by_window) {
        Some(window) => Why::Window(window.explanation.clone()),
        None => Why::Lifetime,
    };
    let mut goals = vec![urgent(renewal.at, why)];
    if let Some(changeover) = changeover {
        let is_urgent = is_due || changeover.cause == Cause::Compromised;
        goals.push(Goal { at: changeover.from, why: Why::Changeover(changeover.cause), is_urgent });
    }
    let missing = facts.missing_names();
    if !missing.is_empty() {
        goals.push(urgent(now, Why::Names(missing)));
    }
    if facts.live.is_some_and(|live| live != chain.pin) {
        goals.push(urgent(now, Why::OtherKey));
    }
    if facts.asked.renew {
        goals.push(Goal { at: now, why: Why::Asked, is_urgent: is_due });
    }
    // Of several that are due, the first in the list tells why; any of them makes it urgent.
    let is_urgent = goals.iter().any(|goal| goal.at <= now && goal.is_urgent);
    let first = goals.into_iter().min_by_key(|goal| goal.at.max(now)).expect("the renewal is always one");
    Goal { is_urgent: is_urgent || first.is_urgent, ..first }
}

/// The keys that may be ordered for now, the best one first.
fn keys(facts: &Facts, now: Seconds, changeover: Option<Changeover>) -> Vec<(KeyChoice, Pin)> {
    let is_reached = changeover.is_some_and(|changeover| changeover.from <= now);
    let is_compromised = facts.live.is_some_and(|live| facts.compromise.as_ref().is_some_and(|c| c.pin == live));
    let live = facts.live.filter(|live| !(facts.is_burnt(*live) || is_compromised && is_reached));
    let is_usable = |next: &&NextKey| is_reached || due::usable_from(next) <= now;
    let next = facts.next.as_ref().filter(|next| !facts.is_burnt(next.pin)).filter(is_usable).map(|next| next.pin);
    let (live, next) = (live.map(|pin| (KeyChoice::Live, pin)), next.map(|pin| (KeyChoice::Next, pin)));
    let order = if is_reached { [next, live] } else { [live, next] };
    order.into_iter().flatten().collect()
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
