//! The plan of one certificate: what happens next, when, with which key, at which CA, and why.
//!
//! Pure: facts and the time go in, one action comes out. The driver performs the action, which changes
//! the facts, and asks again.

use super::due;
use super::facts::{Ca, CertificateFacts, Checked, Compromise, NextKey, OpenOrder, PreflightVerdict};
use super::problem::AcmeRemedy;
use super::step::{
    Abandoned, Cause, CertificatePlan, CertificateStanding, Changeover, Hold, HoldCause, KeyChoice, NextStep,
    OrderReason, Stop,
};
use crate::keys::pin::Pin;
use crate::policy::promise::{DAY, Seconds};

/// A preflight counts for an order for this long, in seconds.
const PREFLIGHT_FRESH: Seconds = 3600;
/// The waits after broken preflights in a row, in seconds. Then it is an hour.
const PREFLIGHT_LADDER: [Seconds; 3] = [60, 300, 900];
/// The time that a CA has for its part of an order, in seconds. Then another CA is asked, if there is one.
const STUCK: Seconds = 3600;

/// Returns the plan of a certificate.
#[must_use]
pub fn next(facts: &CertificateFacts, now: Seconds) -> CertificatePlan {
    Planner::new(facts, now).plan()
}

/// A reason to order, from a time on.
#[derive(Debug, Clone)]
struct Goal {
    at: Seconds,
    why: OrderReason,
    /// `true` if the second CA may be asked, too.
    is_urgent: bool,
}

/// The facts, with what follows from them.
struct Planner<'a> {
    facts: &'a CertificateFacts,
    now: Seconds,
    /// The time of the renewal; `None` without a chain.
    renewal: Option<due::RenewalTime>,
    changeover: Option<Changeover>,
    goal: Goal,
    /// The keys that may be ordered for now, the best one first.
    keys: Vec<(KeyChoice, Pin)>,
}

/// The next action for an order.
enum OrderChoice {
    Now(KeyChoice, usize),
    Later(Hold),
    /// Only the operator can help. The time of the next try.
    Never(Stop, Seconds),
}

impl<'a> Planner<'a> {
    fn new(facts: &'a CertificateFacts, now: Seconds) -> Self {
        let renewal = facts.chain.as_ref().map(|chain| due::renewal(facts, chain));
        let changeover = changeover(facts, now);
        let goal = goal(facts, now, renewal, changeover);
        let keys = keys(facts, now, changeover);
        Self { facts, now, renewal, changeover, goal, keys }
    }

    fn plan(self) -> CertificatePlan {
        let next = self.action();
        CertificatePlan {
            hold: self.hold(&next),
            next_check: self.next_check(),
            next,
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

    fn action(&self) -> NextStep {
        if let Some(key) = self.missing_key() {
            return NextStep::MakeKey(key);
        }
        if let Some(fault) = self.facts.unusable_live.as_ref().filter(|_| self.facts.live.is_none()) {
            return NextStep::OperatorsTurn { stop: Stop::Key(fault.clone()), until: self.soonest(self.now + DAY) };
        }
        if let Some(next) = self.retirement() {
            return next;
        }
        if let Some(next) = self.facts.order.as_ref().and_then(|order| self.open_order(order)) {
            return next;
        }
        if self.ask_from().is_some_and(|from| from <= self.now) {
            return NextStep::AskWindow;
        }
        if self.goal.at <= self.now {
            return self.order();
        }
        if self.facts.chain.is_some() && self.preflight_from(DAY) <= self.now {
            return NextStep::Preflight;
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
    fn retirement(&self) -> Option<NextStep> {
        let compromise = self.facts.retired()?;
        if compromise.is_revoked {
            return Some(NextStep::Burn);
        }
        // If the CA does not revoke it, the key is burnt all the same.
        if compromise.attempts.stopped {
            return Some(NextStep::Burn);
        }
        (compromise.attempts.retry() <= self.now).then_some(NextStep::Revoke)
    }

    /// The next action for an open order; `None` if another order replaces it.
    fn open_order(&self, order: &OpenOrder) -> Option<NextStep> {
        let abandon = |why| Some(NextStep::Abandon { why });
        if order.names != self.facts.names {
            return abandon(Abandoned::Names);
        }
        if !self.keys.iter().any(|(_, pin)| *pin == order.key) {
            return abandon(Abandoned::Key);
        }
        if order.has_expired(self.now) {
            return abandon(Abandoned::Expired);
        }
        let Some(ca) = self.facts.cas.iter().find(|ca| ca.directory == order.ca) else {
            return abandon(Abandoned::Authority);
        };
        if ca.attempts.stopped {
            return abandon(Abandoned::Authority);
        }
        if self.is_stuck(order) {
            return abandon(Abandoned::Stuck);
        }
        let at = ca.attempts.retry().max(order.poll_from);
        if at <= self.now {
            return Some(NextStep::Resume);
        }
        if ca.attempts.failure().is_some() && self.goal.at <= self.now {
            // Another CA may be ready while this one waits.
            return match self.choose(Some(&order.ca)) {
                OrderChoice::Now(..) => None,
                OrderChoice::Later(other) => Some(self.wait(other.until.min(at))),
                OrderChoice::Never(..) => Some(self.wait(at)),
            };
        }
        Some(self.wait(at))
    }

    /// `true` if the CA has had long enough for its part of an order. A CA that was asked to issue may take longer,
    /// as with an approval by hand, unless another one can issue meanwhile.
    fn is_stuck(&self, order: &OpenOrder) -> bool {
        let since = order.waits_since().filter(|since| since.saturating_add(STUCK) <= self.now);
        let is_due = self.goal.at <= self.now;
        since.is_some()
            && (!order.is_finalized || is_due && matches!(self.choose(Some(&order.ca)), OrderChoice::Now(..)))
    }

    /// The time of the next question for renewal information: the issuer of a valid chain answers it.
    fn ask_from(&self) -> Option<Seconds> {
        let chain = self.facts.chain.as_ref().filter(|chain| self.now < chain.not_after && chain.id.is_some())?;
        let offers = |ca: &Ca| Some(&ca.directory) == chain.from.as_ref() && ca.has_renewal_info;
        self.facts.cas.iter().any(offers).then(|| self.facts.info.ask_from())
    }

    fn order(&self) -> NextStep {
        let (key, ca) = match self.choose(None) {
            OrderChoice::Now(key, ca) => (key, ca),
            OrderChoice::Later(hold) => return self.wait(hold.until),
            OrderChoice::Never(stop, until) => return NextStep::OperatorsTurn { stop, until: self.soonest(until) },
        };
        let fresh = self.preflight_from(PREFLIGHT_FRESH);
        if fresh <= self.now {
            return NextStep::Preflight;
        }
        if self.is_broken() && !self.orders_anyway() {
            return self.wait(fresh);
        }
        NextStep::Order { key, ca, replaces: self.facts.replaces(ca).map(str::to_owned) }
    }

    fn is_broken(&self) -> bool {
        self.facts.checked.as_ref().is_some_and(|checked| checked.verdict == PreflightVerdict::Broken)
    }

    /// `true` if pintle orders despite a broken preflight: the operator asked for that, the key is compromised, or
    /// little time is left.
    fn orders_anyway(&self) -> bool {
        let times = self.facts.chain.as_ref().zip(self.renewal);
        let is_late = times.is_some_and(|(chain, renewal)| due::despite_preflight(chain, renewal.at) <= self.now);
        is_late || self.facts.asked.despite_preflight || self.is_emergency()
    }

    /// `true` if the live key is compromised, and may change over now.
    fn is_emergency(&self) -> bool {
        self.changeover.is_some_and(|changeover| changeover.is_emergency(self.now))
    }

    /// Why a due order waits.
    fn hold(&self, next: &NextStep) -> Option<Hold> {
        if self.goal.at > self.now || !matches!(next, NextStep::Wait { .. }) {
            return None;
        }
        if let Some(order) = &self.facts.order {
            let ca = self.facts.cas.iter().find(|ca| ca.directory == order.ca)?;
            let failed = ca.attempts.retry();
            return Some(match failed > order.poll_from {
                true => Hold { until: failed, cause: failure(ca) },
                false => Hold { until: order.poll_from, cause: HoldCause::Order },
            });
        }
        match self.choose(None) {
            OrderChoice::Later(hold) => Some(hold),
            OrderChoice::Now(..) if self.is_broken() => {
                Some(Hold { until: self.preflight_from(PREFLIGHT_FRESH), cause: HoldCause::Preflight })
            }
            OrderChoice::Now(..) | OrderChoice::Never(..) => None,
        }
    }

    /// The time of the next preflight.
    fn next_check(&self) -> Option<Seconds> {
        let good_for = if self.goal.at <= self.now { PREFLIGHT_FRESH } else { DAY };
        let is_planned = self.facts.chain.is_some() || self.goal.at <= self.now;
        is_planned.then(|| self.preflight_from(good_for).max(self.now))
    }

    /// The time of the next preflight, if a good one counts for so long.
    fn preflight_from(&self, good_for: Seconds) -> Seconds {
        let counts = |checked: &&Checked| checked.names == self.facts.names && !checked.expired;
        let Some(checked) = self.facts.checked.as_ref().filter(counts) else {
            return Seconds::MIN;
        };
        let wait = match checked.verdict {
            PreflightVerdict::Fine | PreflightVerdict::Unknown => good_for,
            PreflightVerdict::Broken => {
                let rung = usize::try_from(checked.failures.saturating_sub(1)).unwrap_or(usize::MAX);
                PREFLIGHT_LADDER.get(rung).copied().unwrap_or(PREFLIGHT_FRESH)
            }
        };
        checked.at.saturating_add(wait)
    }

    /// The first CA that takes an order now, and the best key that it takes. The second CA is asked
    /// if a certificate is needed and the first one cannot give it now.
    fn choose(&self, except: Option<&str>) -> OrderChoice {
        let mut later: Option<Hold> = None;
        let mut refusals = Vec::new();
        let mut lacks_key = false;
        let mut again = self.now.saturating_add(DAY);
        for (at, ca) in self.facts.cas.iter().enumerate().take(if self.goal.is_urgent { usize::MAX } else { 1 }) {
            if except == Some(ca.directory.as_str()) {
                continue;
            }
            let Some((key, _)) = self.keys.iter().find(|(_, pin)| !ca.attempts.refuses(*pin, self.now)) else {
                lacks_key = true;
                again = again.min(ca.attempts.refuses_until().max(self.now));
                continue;
            };
            let hold = hold_at(ca, self.is_emergency());
            if hold.until <= self.now {
                return OrderChoice::Now(*key, at);
            }
            if ca.attempts.stopped {
                again = again.min(hold.until);
                refusals.extend(ca.attempts.last.as_ref().map(|last| last.reason().full_line()));
            } else if later.as_ref().is_none_or(|later| hold.until < later.until) {
                later = Some(hold);
            }
        }
        let changeover = self.changeover.filter(|changeover| changeover.from > self.now);
        match later {
            Some(hold) => OrderChoice::Later(Hold { until: hold.until.min(again), ..hold }),
            None if self.facts.cas.is_empty() => OrderChoice::Never(Stop::NoAuthority, again),
            None if self.keys.is_empty() => {
                let usable = self.facts.next.as_ref().and_then(|next| next.usable_from).unwrap_or(self.now);
                OrderChoice::Never(Stop::Burnt(usable), again)
            }
            None if lacks_key && refusals.is_empty() => {
                let from = self.facts.next.as_ref().map(due::usable_from).filter(|from| *from > self.now);
                let from = from.or_else(|| changeover.map(|changeover| changeover.from));
                OrderChoice::Never(Stop::KeysRefused(from), again)
            }
            None => OrderChoice::Never(Stop::Refused(refusals.pop().unwrap_or_default()), again),
        }
    }

    fn wait(&self, until: Seconds) -> NextStep {
        NextStep::Wait { until: self.soonest(until) }
    }

    /// The next time at which anything happens, later than now, and a day from now at most.
    fn soonest(&self, until: Seconds) -> Seconds {
        let preflight = self.facts.chain.as_ref().map(|_| self.preflight_from(DAY));
        let revocation = self.facts.retired().map(|compromise| compromise.attempts.retry());
        let waiting = self.facts.order.as_ref().and_then(OpenOrder::waits_since);
        let stuck = waiting.map(|since| since.saturating_add(STUCK));
        let usable = self.facts.next.as_ref().map(due::usable_from);
        let changeover = self.changeover.map(|changeover| changeover.from);
        let times = [Some(until), self.ask_from(), preflight, revocation, stuck, usable, changeover];
        let soonest = times.into_iter().flatten().filter(|at| *at > self.now).min();
        soonest.map_or(self.now + DAY, |at| at.min(self.now + DAY))
    }

    fn standing(&self) -> CertificateStanding {
        let (Some(chain), Some(renewal)) = (&self.facts.chain, self.renewal) else {
            return CertificateStanding::Missing;
        };
        if self.now >= chain.not_after {
            return CertificateStanding::Expired;
        }
        if self.now < renewal.at {
            return if self.goal.at <= self.now { CertificateStanding::Due } else { CertificateStanding::Current };
        }
        let failed = |ca: &Ca| ca.attempts.failure().is_some_and(|last| last.at >= renewal.at);
        let is_broken = self.facts.checked.as_ref().is_some_and(|c| c.verdict == PreflightVerdict::Broken);
        // A window that moved to the past was not missed before it was known.
        let known = self.facts.info.window.as_ref().map_or(Seconds::MIN, |window| window.since);
        let is_late = self.now >= due::overdue_from(chain, renewal.at.max(known));
        if is_late || is_broken || self.facts.cas.iter().any(failed) {
            CertificateStanding::Overdue
        } else {
            CertificateStanding::Due
        }
    }
}

/// The time from which a CA takes an order, and the reason.
fn hold_at(ca: &Ca, is_emergency: bool) -> Hold {
    let failed = Hold { until: ca.attempts.retry(), cause: failure(ca) };
    // pintle's own limits are lower than the CA's. If a thief has the key, only the CA's count.
    match if is_emergency { &ca.emergency_from } else { &ca.order_from } {
        Some((from, limit)) if *from > failed.until => Hold { until: *from, cause: HoldCause::Budget(limit.clone()) },
        _ => failed,
    }
}

/// The last failure at a CA, as the reason of a wait.
fn failure(ca: &Ca) -> HoldCause {
    match &ca.attempts.last {
        Some(last) if last.remedy == Some(AcmeRemedy::RateLimit) => HoldCause::RateLimit(last.reason().full_line()),
        last => HoldCause::Failure(last.as_ref().map(|last| last.reason().full_line()).unwrap_or_default()),
    }
}

/// The changeover that is planned or asked for.
fn changeover(facts: &CertificateFacts, now: Seconds) -> Option<Changeover> {
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
    // Before the first certificate, or with a lost record, nobody knows since when: the next certificate begins the time.
    let since = Some(facts.live_since).filter(|since| *since > 0)?;
    let wanted = since.saturating_add(facts.rotate_every?);
    Some(Changeover { cause: Cause::RotateEvery, wanted, from: usable.max(wanted) })
}

/// The earliest reason to order.
fn goal(
    facts: &CertificateFacts,
    now: Seconds,
    renewal: Option<due::RenewalTime>,
    changeover: Option<Changeover>,
) -> Goal {
    let urgent = |at, why| Goal { at, why, is_urgent: true };
    let (Some(chain), Some(renewal)) = (&facts.chain, renewal) else { return urgent(now, OrderReason::First) };
    let is_due = renewal.at <= now;
    let why = match facts.info.window.as_ref().filter(|_| renewal.by_window) {
        Some(window) => OrderReason::Window(window.explanation.clone()),
        None => OrderReason::Lifetime,
    };
    let mut goals = vec![urgent(renewal.at, why)];
    if let Some(changeover) = changeover {
        let is_urgent = is_due || changeover.cause == Cause::Compromised;
        goals.push(Goal { at: changeover.from, why: OrderReason::Changeover(changeover.cause), is_urgent });
    }
    let missing = facts.missing_names();
    if !missing.is_empty() {
        goals.push(urgent(now, OrderReason::Names(missing)));
    }
    if facts.live.is_some_and(|live| live != chain.pin) {
        goals.push(urgent(now, OrderReason::OtherKey));
    }
    if facts.has_left_its_ca() {
        goals.push(Goal { at: now, why: OrderReason::OtherCa, is_urgent: is_due });
    }
    if facts.asked.renew {
        goals.push(Goal { at: now, why: OrderReason::Asked, is_urgent: is_due });
    }
    // Of several that are due, the first in the list tells why; any of them makes it urgent.
    let is_urgent = goals.iter().any(|goal| goal.at <= now && goal.is_urgent);
    let first = goals.into_iter().min_by_key(|goal| goal.at.max(now)).expect("the renewal is always one");
    Goal { is_urgent: is_urgent || first.is_urgent, ..first }
}

/// The keys that may be ordered for now, the best one first.
fn keys(facts: &CertificateFacts, now: Seconds, changeover: Option<Changeover>) -> Vec<(KeyChoice, Pin)> {
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
