use super::super::backoff::{AttemptFailure, Attempts};
use super::super::facts::{ChainInUse, Checked};
use super::super::problem::AcmeRemedy;
use super::super::renewal_info::{RenewalInfo, Window};
use super::*;
use crate::reason::Reason;

mod open_order;

pub(super) const T0: Seconds = 1_800_000_000;
pub(super) const HOUR: Seconds = 3600;

pub(super) fn pin(key: u8) -> Pin {
    Pin::of_spki(&[key])
}

/// A site with a certificate for 90 days since T0 on key 1, next key 2, checked just now, and two CAs.
pub(super) fn facts(now: Seconds) -> CertificateFacts {
    let names = vec!["a.example".to_owned(), "b.example".to_owned()];
    let ca = |directory: &str| Ca { directory: directory.to_owned(), has_renewal_info: true, ..Ca::default() };
    let chain = ChainInUse {
        not_before: T0,
        not_after: T0 + 90 * DAY,
        pin: pin(1),
        names: names.clone(),
        id: Some("a.b".to_owned()),
        from: Some("first".to_owned()),
        spread: 0.0,
    };
    CertificateFacts {
        site: "a.example".to_owned(),
        algorithm: "ecdsa-p256".to_owned(),
        names: names.clone(),
        chain: Some(chain),
        live: Some(pin(1)),
        live_since: T0,
        next: Some(NextKey { pin: pin(2), promised_since: Some(T0), usable_from: None, longest: 30 * DAY }),
        info: RenewalInfo { asked: Some(now), wait: 6 * HOUR, ..RenewalInfo::default() },
        checked: Some(Checked { at: now, names, verdict: PreflightVerdict::Fine, ..Checked::default() }),
        cas: vec![ca("first"), ca("second")],
        ..CertificateFacts::default()
    }
}

pub(super) fn window(facts: &mut CertificateFacts, start: Seconds, end: Seconds, chosen: Seconds) {
    facts.info.window = Some(Window { start, end, chosen, since: start.max(T0), explanation: None });
}

pub(super) fn fail(facts: &mut CertificateFacts, ca: usize, remedy: AcmeRemedy, at: Seconds) {
    let failure = AttemptFailure { remedy, reason: "why".into(), retry_after: None, key: facts.live };
    facts.cas[ca].attempts.failed(failure, at, Some(DAY), 0.0);
}

pub(super) fn order(key: KeyChoice, ca: usize) -> NextStep {
    NextStep::Order { key, ca, replaces: (ca == 0).then(|| "a.b".to_owned()) }
}

#[test]
fn from_nothing_to_a_certificate() {
    let mut f = CertificateFacts { chain: None, live: None, next: None, checked: None, ..facts(T0) };
    assert_eq!(next(&f, T0).next, NextStep::MakeKey(KeyChoice::Live));
    f.live = Some(pin(1));
    assert_eq!(next(&f, T0).next, NextStep::MakeKey(KeyChoice::Next));
    f.next = facts(T0).next;
    assert_eq!(next(&f, T0).next, NextStep::Preflight);
    f.checked = facts(T0).checked;
    let plan = next(&f, T0);
    assert_eq!(plan.next, NextStep::Order { key: KeyChoice::Live, ca: 0, replaces: None });
    assert_eq!(
        (plan.standing, plan.why, plan.key),
        (CertificateStanding::Missing, OrderReason::First, KeyChoice::Live)
    );
    // The second CA from the first failure on, since there is no certificate.
    fail(&mut f, 0, AcmeRemedy::Temporary, T0);
    assert_eq!(next(&f, T0).next, NextStep::Order { key: KeyChoice::Live, ca: 1, replaces: None });
    fail(&mut f, 1, AcmeRemedy::RateLimit, T0);
    assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + 60 });
    fail(&mut f, 0, AcmeRemedy::Operator, T0);
    assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + HOUR });
    fail(&mut f, 1, AcmeRemedy::Name, T0);
    let stop = Stop::Refused("why".to_owned());
    assert_eq!(next(&f, T0).next, NextStep::OperatorsTurn { stop, until: T0 + DAY });
    // A day later, it may be cured.
    f.checked.as_mut().unwrap().at = T0 + DAY;
    assert!(matches!(next(&f, T0 + DAY).next, NextStep::Order { ca: 0, .. }));
    f.checked.as_mut().unwrap().at = T0;
    f.cas.clear();
    assert_eq!(next(&f, T0).next, NextStep::OperatorsTurn { stop: Stop::NoAuthority, until: T0 + DAY });
}

/// The first certificate is for the live key, which may be the operator's.
#[test]
fn no_changeover_before_the_live_key_has_served() {
    let mut f = CertificateFacts { chain: None, live_since: 0, rotate_every: Some(30 * DAY), ..facts(T0) };
    (f.next.as_mut().unwrap().promised_since, f.next.as_mut().unwrap().longest) = (None, 0);
    let plan = next(&f, T0);
    assert_eq!(plan.next, NextStep::Order { key: KeyChoice::Live, ca: 0, replaces: None });
    assert_eq!(plan.changeover, None);
    // The record of a certificate was lost.
    f.chain = facts(T0).chain;
    assert_eq!((next(&f, T0).due, next(&f, T0).changeover), (T0 + 60 * DAY, None));
    f.live_since = T0;
    assert_eq!(next(&f, T0).changeover.unwrap().from, T0 + 30 * DAY);
}

#[test]
fn a_preflight_that_fails_costs_no_order() {
    let mut f = CertificateFacts { chain: None, ..facts(T0) };
    for (failures, wait) in [(1, 60), (2, 300), (3, 900), (4, HOUR), (40, HOUR)] {
        let checked = f.checked.as_mut().unwrap();
        (checked.verdict, checked.failures) = (PreflightVerdict::Broken, failures);
        assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + wait });
        assert_eq!(next(&f, T0 + wait).next, NextStep::Preflight);
    }
    let plan = next(&f, T0);
    assert_eq!(plan.hold, Some(Hold { until: T0 + HOUR, cause: HoldCause::Preflight }));
    assert_eq!(plan.next_check, Some(T0 + HOUR));
    // The operator knows better.
    f.asked.despite_preflight = true;
    assert!(matches!(next(&f, T0).next, NextStep::Order { .. }));
    f.asked.despite_preflight = false;
    f.checked.as_mut().unwrap().verdict = PreflightVerdict::Unknown;
    assert!(matches!(next(&f, T0).next, NextStep::Order { .. }));
    f.names.push("c.example".to_owned());
    assert_eq!(next(&f, T0).next, NextStep::Preflight);
}

/// The certificate of a CA for tests does not stay until its renewal.
#[test]
fn another_ca_in_the_configuration() {
    let from = |ca: Option<&str>| {
        let mut f = facts(T0);
        f.chain.as_mut().unwrap().from = ca.map(str::to_owned);
        f
    };
    let mut f = from(Some("staging"));
    let plan = next(&f, T0);
    assert_eq!(plan.next, NextStep::Order { key: KeyChoice::Live, ca: 0, replaces: None });
    assert_eq!((plan.why, plan.standing), (OrderReason::OtherCa, CertificateStanding::Due));
    // It is no emergency: the second CA is not asked.
    fail(&mut f, 0, AcmeRemedy::Temporary, T0);
    assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + 60 });
    // The second CA, and a chain that the operator gave, stay until they are due.
    for ca in [Some("second"), None] {
        assert_eq!(next(&from(ca), T0).due, T0 + 60 * DAY, "{ca:?}");
    }
}

#[test]
fn the_challenge_path_is_checked_every_day() {
    let f = facts(T0);
    assert_eq!(next(&f, T0 + HOUR).next, NextStep::Wait { until: T0 + 6 * HOUR });
    let mut f = facts(T0);
    f.info.wait = 30 * DAY;
    assert_eq!(next(&f, T0 + HOUR).next, NextStep::Wait { until: T0 + DAY });
    assert_eq!(next(&f, T0 + DAY).next, NextStep::Preflight);
}

/// A broken preflight does not stop a renewal for ever: it may be wrong.
#[test]
fn a_broken_preflight_before_a_renewal() {
    let broken = |now| {
        let mut f = facts(now);
        let checked = f.checked.as_mut().unwrap();
        (checked.verdict, checked.failures) = (PreflightVerdict::Broken, 9);
        next(&f, now)
    };
    let due = T0 + 60 * DAY;
    assert_eq!(
        (broken(due).next, broken(due).standing),
        (NextStep::Wait { until: due + HOUR }, CertificateStanding::Overdue)
    );
    assert_eq!(broken(due + 15 * DAY - 1).next, NextStep::Wait { until: due + 15 * DAY - 1 + HOUR });
    assert_eq!(broken(due + 15 * DAY).next, order(KeyChoice::Live, 0));
}

#[test]
fn when_by_the_lifetime() {
    for (lifetime, spread, due) in [
        (90 * DAY, 0.0, 60 * DAY),
        (90 * DAY, 0.5, 60 * DAY - 3 * DAY / 2),
        (45 * DAY, 0.0, 30 * DAY),
        (160 * HOUR, 0.0, 80 * HOUR),
        (160 * HOUR, 0.999_999, 72 * HOUR),
        (60, 0.0, 30),
    ] {
        let mut f = facts(T0);
        let chain = f.chain.as_mut().unwrap();
        (chain.not_after, chain.spread) = (T0 + lifetime, spread);
        let plan = next(&f, T0);
        assert!((plan.due - T0 - due).abs() <= 1, "{lifetime} {spread}: {}", plan.due - T0);
        assert_eq!((plan.why, plan.standing), (OrderReason::Lifetime, CertificateStanding::Current));
    }
}

#[test]
fn when_by_the_window() {
    let mut f = facts(T0);
    window(&mut f, T0 + 10 * DAY, T0 + 12 * DAY, T0 + 11 * DAY);
    let plan = next(&f, T0);
    assert_eq!((plan.due, plan.why), (T0 + 11 * DAY, OrderReason::Window(None)));
    // The past: now.
    window(&mut f, T0 - 9 * DAY, T0 - 8 * DAY, T0 - 8 * DAY);
    assert_eq!(next(&f, T0).next, order(KeyChoice::Live, 0));
    assert_eq!(next(&f, T0).standing, CertificateStanding::Due);
    // After the end, or nearly: half of the usual time is left.
    window(&mut f, T0 + 100 * DAY, T0 + 101 * DAY, T0 + 101 * DAY);
    assert_eq!(next(&f, T0).due, T0 + 75 * DAY);
    // The question comes first.
    f.info.wait = 0;
    assert_eq!(next(&f, T0).next, NextStep::AskWindow);
    assert_ne!(next(&f, T0 + 90 * DAY).next, NextStep::AskWindow);
    f.cas[0].has_renewal_info = false;
    assert_ne!(next(&f, T0).next, NextStep::AskWindow);
    f.cas[0].has_renewal_info = true;
    f.chain.as_mut().unwrap().from = None;
    assert_ne!(next(&f, T0).next, NextStep::AskWindow);
}

#[test]
fn overdue_is_a_state_of_its_own() {
    let due = T0 + 60 * DAY;
    let mut f = facts(due);
    for (now, want) in [
        (due - 1, CertificateStanding::Current),
        (due, CertificateStanding::Due),
        (due + 90 * DAY / 100 - 1, CertificateStanding::Due),
        (due + 90 * DAY / 100, CertificateStanding::Overdue),
        (T0 + 90 * DAY - 1, CertificateStanding::Overdue),
        (T0 + 90 * DAY, CertificateStanding::Expired),
    ] {
        assert_eq!(next(&f, now).standing, want, "{}", now - due);
    }
    // A failure before it was due does not count, one since then does at once.
    fail(&mut f, 0, AcmeRemedy::Temporary, due - 5);
    assert_eq!(next(&f, due).standing, CertificateStanding::Due);
    fail(&mut f, 0, AcmeRemedy::Temporary, due);
    assert_eq!(next(&f, due).standing, CertificateStanding::Overdue);
    assert!(next(&f, due).standing.is_overdue() && CertificateStanding::Missing.is_alarming());
    assert_eq!(next(&f, due).next, order(KeyChoice::Live, 1));
}

#[test]
fn the_second_ca_only_if_it_is_due() {
    let mut f = facts(T0);
    f.asked.renew = true;
    assert_eq!(next(&f, T0).next, order(KeyChoice::Live, 0));
    fail(&mut f, 0, AcmeRemedy::Temporary, T0);
    assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + 60 });
    let due = T0 + 60 * DAY;
    let mut f = CertificateFacts { cas: f.cas, asked: f.asked, ..facts(due) };
    fail(&mut f, 0, AcmeRemedy::Temporary, due);
    assert_eq!(next(&f, due).next, order(KeyChoice::Live, 1));
}

#[test]
fn the_budget_delays() {
    let mut f = facts(T0 + 60 * DAY);
    let now = T0 + 60 * DAY;
    f.cas[0].order_from = Some((now + 100, "orders for the same names".to_owned()));
    assert_eq!(next(&f, now).next, order(KeyChoice::Live, 1));
    f.cas[1].order_from = Some((now + 50, "orders for the same names".to_owned()));
    let plan = next(&f, now);
    assert_eq!(plan.next, NextStep::Wait { until: now + 50 });
    assert_eq!(plan.hold, Some(Hold { until: now + 50, cause: HoldCause::Budget("orders for the same names".into()) }));
}

#[test]
fn names_added_and_removed() {
    let mut f = facts(T0);
    f.names = vec!["a.example".to_owned()];
    f.checked.as_mut().unwrap().names = f.names.clone();
    assert_eq!(next(&f, T0 + 1).standing, CertificateStanding::Current);
    f.names.push("c.example".to_owned());
    f.checked.as_mut().unwrap().names = f.names.clone();
    let plan = next(&f, T0 + 1);
    assert_eq!((plan.next, plan.why), (order(KeyChoice::Live, 0), OrderReason::Names(vec!["c.example".to_owned()])));
    // No shared name: nothing is replaced.
    f.names.remove(0);
    f.checked.as_mut().unwrap().names = f.names.clone();
    assert_eq!(next(&f, T0 + 1).next, NextStep::Order { key: KeyChoice::Live, ca: 0, replaces: None });
}

/// Renewal is not rotation.
#[test]
fn which_key() {
    let year = 365 * DAY;
    let mut f = facts(T0 + 60 * DAY);
    assert_eq!(next(&f, T0 + 60 * DAY).next, order(KeyChoice::Live, 0));
    f.rotate_every = Some(year);
    let plan = next(&f, T0 + 60 * DAY);
    assert_eq!((plan.next, plan.key), (order(KeyChoice::Live, 0), KeyChoice::Live));
    let want = Changeover { cause: Cause::RotateEvery, wanted: T0 + year, from: T0 + year };
    assert_eq!(plan.changeover, Some(want));
    // The day of the changeover, with a certificate that is not due.
    let at = |now: Seconds, edit: &dyn Fn(&mut CertificateFacts)| {
        let mut f = facts(now);
        f.rotate_every = Some(year);
        let chain = f.chain.as_mut().unwrap();
        (chain.not_before, chain.not_after) = (now - DAY, now + 89 * DAY);
        edit(&mut f);
        next(&f, now)
    };
    let plan = at(T0 + year, &|_| {});
    assert_eq!((plan.next, plan.why), (order(KeyChoice::Next, 0), OrderReason::Changeover(Cause::RotateEvery)));
    assert_eq!(at(T0 + year - 1, &|_| {}).key, KeyChoice::Next);
    // The next key is not known for long enough, or not to all.
    let young = |f: &mut CertificateFacts| f.next.as_mut().unwrap().promised_since = Some(T0 + year - 30 * DAY + 5);
    let plan = at(T0 + year, &young);
    assert!(plan.changeover.unwrap().waits(T0 + year) && plan.next == NextStep::Wait { until: T0 + year + 5 });
    let unknown = |f: &mut CertificateFacts| f.next.as_mut().unwrap().usable_from = Some(T0 + year + 7);
    assert_eq!(at(T0 + year, &unknown).next, NextStep::Wait { until: T0 + year + 7 });
    // A renewal that is due meanwhile takes the live key.
    let due = |f: &mut CertificateFacts| {
        unknown(f);
        f.chain.as_mut().unwrap().not_after = T0 + year + 20 * DAY;
        f.chain.as_mut().unwrap().not_before = T0 + year - 70 * DAY;
    };
    assert_eq!(at(T0 + year, &due).next, order(KeyChoice::Live, 0));
    // By hand: as soon as possible.
    let asked = |f: &mut CertificateFacts| f.asked.rotate = true;
    assert_eq!(at(T0 + 40 * DAY, &asked).next, order(KeyChoice::Next, 0));
    let plan = at(T0 + 20 * DAY, &asked);
    assert_eq!(plan.changeover.unwrap().from, T0 + 30 * DAY);
    assert_eq!((plan.due, plan.key), (T0 + 30 * DAY, KeyChoice::Next));
}

#[test]
fn a_refused_key() {
    let now = T0 + 60 * DAY;
    let mut f = facts(now);
    fail(&mut f, 0, AcmeRemedy::Key, now);
    // Every living promise has the next key: it is used.
    assert_eq!(next(&f, now).next, order(KeyChoice::Next, 0));
    // Else the other CA, and else it is the operator's turn, until the next key is usable.
    f.next.as_mut().unwrap().usable_from = Some(now + 5 * DAY);
    assert_eq!(next(&f, now).next, order(KeyChoice::Live, 1));
    fail(&mut f, 1, AcmeRemedy::Key, now);
    let NextStep::OperatorsTurn { stop, until } = next(&f, now).next else { panic!() };
    assert_eq!((stop, until), (Stop::KeysRefused(Some(now + 5 * DAY)), now + 6 * HOUR));
    // The CA may have changed its mind a day later.
    let checked = facts(now + DAY).checked;
    let day_later = CertificateFacts { checked, info: facts(now + DAY).info, ..f.clone() };
    assert_eq!(next(&day_later, now + DAY).next, order(KeyChoice::Live, 0));
    assert_eq!(
        next(&CertificateFacts { checked: facts(now + 5 * DAY).checked, ..f }, now + 5 * DAY).next,
        NextStep::AskWindow
    );
}

pub(super) fn compromise(key: u8, accepts_lockout: bool) -> Option<Compromise> {
    let (since, is_revoked, attempts) = (T0, false, Attempts::default());
    let accepted_until = accepts_lockout.then(|| "2026-12-24".to_owned());
    Some(Compromise { pin: pin(key), since, accepted_until, is_revoked, attempts })
}

#[test]
fn a_compromised_key() {
    let mut f = CertificateFacts { compromise: compromise(1, false), ..facts(T0) };
    // Every living promise has the next key: nobody is locked out.
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 0));
    // Without the operator's consent to a lockout it waits, and the certificate stays valid meanwhile.
    f.next.as_mut().unwrap().usable_from = Some(T0 + 30 * DAY);
    assert_eq!(next(&f, T0).changeover.unwrap().from, T0 + 30 * DAY);
    assert_eq!(next(&f, T0).key, KeyChoice::Next);
    assert!(matches!(next(&f, T0).next, NextStep::Wait { .. }));
    f.compromise = compromise(1, true);
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 0));
    // An emergency does not wait for the preflight, which may be wrong.
    f.checked.as_mut().unwrap().verdict = PreflightVerdict::Broken;
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 0));
    f.checked.as_mut().unwrap().verdict = PreflightVerdict::Fine;
    // Nor for pintle's own limits, which are lower than the CA's; but for those of the CA, and for its answers.
    f.cas[0].order_from = Some((T0 + DAY, "certificates for the same names".to_owned()));
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 0));
    f.cas[0].emergency_from = Some((T0 + HOUR, "certificates for the same names".to_owned()));
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 1));
    f.cas[0].emergency_from = None;
    fail(&mut f, 0, AcmeRemedy::RateLimit, T0);
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 1));
    f.cas[0].attempts = Attempts::default();
    fail(&mut f, 0, AcmeRemedy::Temporary, T0);
    assert_eq!(next(&f, T0).next, order(KeyChoice::Next, 1));
    // The new key serves: revoke, then mark as burnt. And a fresh next key first.
    (f.live, f.chain.as_mut().unwrap().pin) = (Some(pin(2)), pin(2));
    assert_eq!(next(&f, T0).next, NextStep::MakeKey(KeyChoice::Next));
    f.next.as_mut().unwrap().pin = pin(3);
    assert_eq!(next(&f, T0).next, NextStep::Revoke);
    let failure =
        AttemptFailure { remedy: AcmeRemedy::Temporary, reason: Reason::default(), retry_after: None, key: None };
    f.compromise.as_mut().unwrap().attempts.failed(failure, T0, None, 0.0);
    assert_eq!(next(&f, T0).next, NextStep::Wait { until: T0 + 60 });
    assert_eq!(next(&f, T0 + 60).next, NextStep::Revoke);
    f.compromise.as_mut().unwrap().is_revoked = true;
    assert_eq!(next(&f, T0).next, NextStep::Burn);
}

#[test]
fn a_burnt_key_is_never_ordered_with() {
    let mut f = CertificateFacts { burnt: vec![pin(1)], ..facts(T0 + 40 * DAY) };
    assert_eq!(next(&f, T0 + 40 * DAY).next, order(KeyChoice::Next, 0));
    // The mark in the ledger alone makes it an emergency: nobody has declared it here.
    assert!(next(&f, T0 + 40 * DAY).changeover.unwrap().is_emergency(T0 + 40 * DAY));
    f.next.as_mut().unwrap().usable_from = Some(T0 + 50 * DAY);
    assert!(!next(&f, T0 + 40 * DAY).changeover.unwrap().is_emergency(T0 + 40 * DAY));
    assert_eq!(next(&f, T0 + 40 * DAY).due, T0 + 50 * DAY);
    let now = T0 + 60 * DAY;
    let mut f = CertificateFacts { burnt: vec![pin(1)], ..facts(now) };
    f.next.as_mut().unwrap().usable_from = Some(T0 + 70 * DAY);
    let stop = Stop::Burnt(T0 + 70 * DAY);
    assert_eq!(next(&f, now).next, NextStep::OperatorsTurn { stop, until: now + 6 * HOUR });
    let f = CertificateFacts { burnt: vec![pin(2)], ..facts(T0) };
    assert_eq!(next(&f, T0).next, NextStep::MakeKey(KeyChoice::Next));
    let f = CertificateFacts { compromise: compromise(2, false), ..facts(T0) };
    assert_eq!(next(&f, T0).next, NextStep::MakeKey(KeyChoice::Next));
}
