//! Properties of the plan: over any facts, and over the time before a renewal.

use proptest::prelude::*;

use super::super::facts::OperatorRequests;
use super::super::problem::AcmeRemedy;
use super::tests::*;
use super::*;

fn any_facts() -> impl Strategy<Value = (CertificateFacts, Seconds)> {
    let time = || T0 - 100 * DAY..T0 + 200 * DAY;
    let chain = prop::option::of((time(), prop::sample::select(vec![60, 160 * HOUR, 45 * DAY, 90 * DAY]), 0u8..4));
    let next_key = prop::option::of((0u8..4, prop::option::of(time()), prop::option::of(time()), 0..90 * DAY));
    let window = prop::option::of((time(), 1..9 * DAY));
    let failures = prop::collection::vec((0usize..2, 0usize..13, time()), 0..5);
    let checked = prop::option::of((time(), 0u32..6, 0u8..3));
    let flags = (any::<bool>(), any::<bool>(), prop::option::of((0u8..4, any::<bool>(), any::<bool>())));
    let rest =
        (prop::option::of(0..400 * DAY), prop::collection::vec(0u8..4, 0..2), prop::option::of(time()), 0..3usize);
    (chain, prop::option::of(0u8..4), next_key, window, failures, checked, flags, rest, time()).prop_map(build)
}

type Drawn = (
    Option<(Seconds, Seconds, u8)>,
    Option<u8>,
    Option<(u8, Option<Seconds>, Option<Seconds>, Seconds)>,
    Option<(Seconds, Seconds)>,
    Vec<(usize, usize, Seconds)>,
    Option<(Seconds, u32, u8)>,
    (bool, bool, Option<(u8, bool, bool)>),
    (Option<Seconds>, Vec<u8>, Option<Seconds>, usize),
    Seconds,
);

const REMEDIES: [AcmeRemedy; 13] = [
    AcmeRemedy::NewNonce,
    AcmeRemedy::WithoutReplaces,
    AcmeRemedy::ReadOrder,
    AcmeRemedy::Register,
    AcmeRemedy::Temporary,
    AcmeRemedy::RateLimit,
    AcmeRemedy::Validation,
    AcmeRemedy::Candidate,
    AcmeRemedy::Caa,
    AcmeRemedy::Key,
    AcmeRemedy::Profile,
    AcmeRemedy::Name,
    AcmeRemedy::Operator,
];

fn build(
    (chain, live, next_key, window_at, failures, checked, flags, rest, now): Drawn,
) -> (CertificateFacts, Seconds) {
    let mut f = facts(now);
    f.live = live.map(pin);
    match chain {
        Some((not_before, lifetime, key)) => {
            let held = f.chain.as_mut().unwrap();
            (held.not_before, held.not_after, held.pin) = (not_before, not_before + lifetime, pin(key));
        }
        None => f.chain = None,
    }
    f.next = next_key.map(|(key, promised_since, usable_from, longest)| NextKey {
        pin: pin(key),
        promised_since,
        usable_from,
        longest,
    });
    if let Some((start, length)) = window_at {
        window(&mut f, start, start + length, start + length / 2);
    }
    for (ca, remedy, at) in failures {
        fail(&mut f, ca, REMEDIES[remedy], at.min(now));
    }
    match checked {
        Some((at, failures, verdict)) => {
            let checked = f.checked.as_mut().unwrap();
            (checked.at, checked.failures) = (at.min(now), failures);
            checked.verdict =
                [PreflightVerdict::Fine, PreflightVerdict::Unknown, PreflightVerdict::Broken][usize::from(verdict)];
        }
        None => f.checked = None,
    }
    f.asked = OperatorRequests { renew: flags.0, rotate: flags.1, despite_preflight: false };
    f.compromise = flags.2.and_then(|(key, accepts, is_revoked)| {
        compromise(key, accepts).map(|compromise| Compromise { is_revoked, ..compromise })
    });
    let (rotate_every, burnt, budget, cas) = rest;
    f.rotate_every = rotate_every;
    f.burnt = burnt.into_iter().map(pin).collect();
    f.cas.truncate(cas);
    if let Some(ca) = f.cas.first_mut() {
        ca.order_from = budget.map(|at| (at, "orders".to_owned()));
        // Never later than for any other order.
        ca.emergency_from = budget.filter(|at| at % 2 == 0).map(|at| (at - 100, "orders".to_owned()));
    }
    (f, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the facts are: a wait ends later than now and within a day; an order is within the
    /// budget, no earlier than the CA's answers allow, for a key that no living promise lacks (unless the operator accepts it), that no
    /// ledger marks as burnt and that the CA has not refused.
    #[test]
    fn any_plan((facts, now) in any_facts()) {
        let plan = next(&facts, now);
        match plan.next {
            NextStep::Wait { until } | NextStep::OperatorsTurn { until, .. } => {
                prop_assert!((now + 1..=now + DAY).contains(&until), "{}", until - now);
            }
            NextStep::Order { key, ca, .. } => {
                prop_assert!(plan.due <= now && ca < facts.cas.len());
                let next_key = facts.next.as_ref().unwrap();
                let pin = if key == KeyChoice::Live { facts.live.unwrap() } else { next_key.pin };
                prop_assert!(!facts.is_burnt(pin) && !facts.cas[ca].attempts.refuses(pin, now));
                let of_live = facts.compromise.as_ref().filter(|c| Some(c.pin) == facts.live);
                let is_unfit = of_live.is_some() || facts.live.is_some_and(|live| facts.is_burnt(live));
                let by_guard = is_unfit && next_key.usable_from.is_none_or(|from| from <= now);
                let accepts = of_live.is_some_and(Compromise::accepts_lockout);
                prop_assert!(key == KeyChoice::Live || accepts || by_guard || due::usable_from(next_key) <= now);
                let is_emergency = plan.changeover.is_some_and(|c| c.cause == Cause::Compromised && c.from <= now);
                let budget = if is_emergency { &facts.cas[ca].emergency_from } else { &facts.cas[ca].order_from };
                prop_assert!(budget.as_ref().is_none_or(|(from, _)| *from <= now));
                // The CA's own answers hold always.
                prop_assert!(facts.cas[ca].attempts.retry() <= now);
            }
            _ => {}
        }
        // The same facts, the same plan.
        prop_assert_eq!(next(&facts, now), next(&facts, now));
        if plan.standing.is_overdue() {
            prop_assert!(plan.standing.is_alarming());
        }
    }

    /// The certificate is renewed before it ends, whatever window the CA shows.
    #[test]
    fn no_window_leads_to_a_day_without_a_certificate(
        lifetime in 60..400 * DAY, chosen in any::<i64>(), spread in any::<f64>(),
    ) {
        let mut f = facts(T0);
        let chain = f.chain.as_mut().unwrap();
        (chain.not_after, chain.spread) = (T0 + lifetime, spread);
        let without = next(&f, T0).due;
        prop_assert!((T0..T0 + lifetime).contains(&without));
        window(&mut f, chosen, chosen.saturating_add(1), chosen);
        prop_assert!(next(&f, T0).due < T0 + lifetime - lifetime / 7);
    }
}
