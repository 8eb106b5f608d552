//! An order that is open already: resumed, awaited, or abandoned.

use super::super::super::problem::AcmeRemedy;
use super::*;

fn open_now(f: &CertificateFacts, now: Seconds) -> OpenOrder {
    OpenOrder {
        url: None,
        ca: "first".to_owned(),
        key: pin(1),
        names: f.names.clone(),
        since: now,
        expires: Some(now + DAY),
        poll_from: 0,
        is_changeover: false,
        replaces: false,
        waiting_since: None,
        is_finalized: false,
        is_counted: false,
        seen: 0,
    }
}

#[test]
fn an_open_order() {
    let now = T0 + 60 * DAY;
    let mut f = facts(now);
    let open = open_now(&f, now);
    let mut with = |edit: &dyn Fn(&mut OpenOrder)| {
        let mut order = open.clone();
        edit(&mut order);
        f.order = Some(order);
        next(&f, now).next
    };
    assert_eq!(with(&|_| {}), NextStep::Resume);
    assert_eq!(with(&|o| o.poll_from = now + 9), NextStep::Wait { until: now + 9 });
    assert_eq!(with(&|o| o.expires = Some(now)), NextStep::Abandon { why: Abandoned::Expired });
    // The clock may have jumped: the CA is asked once more.
    let expired = |o: &mut OpenOrder| (o.url, o.expires) = (Some("https://ca/1".to_owned()), Some(now));
    assert_eq!(with(&expired), NextStep::Resume);
    let seen = |o: &mut OpenOrder| (o.url, o.expires, o.seen) = (Some("https://ca/1".to_owned()), Some(now), now);
    assert_eq!(with(&seen), NextStep::Abandon { why: Abandoned::Expired });
    assert_eq!(with(&|o| o.names.clear()), NextStep::Abandon { why: Abandoned::Names });
    assert_eq!(with(&|o| o.key = pin(9)), NextStep::Abandon { why: Abandoned::Key });
    assert_eq!(with(&|o| o.ca.clear()), NextStep::Abandon { why: Abandoned::Authority });
    // The CA has all that it asked for, and does not issue: another one does.
    let since = Some(now - STUCK);
    let processing = |o: &mut OpenOrder| (o.waiting_since, o.is_finalized, o.poll_from) = (since, true, now + 99);
    assert_eq!(with(&processing), NextStep::Abandon { why: Abandoned::Stuck });
    assert_eq!(with(&|o| o.waiting_since = since), NextStep::Abandon { why: Abandoned::Stuck });
    // Nobody noted since when: the process was killed as it asked.
    let unnoted = |o: &mut OpenOrder| (o.since, o.is_finalized, o.poll_from) = (now - STUCK, true, now + 99);
    assert_eq!(with(&unnoted), NextStep::Abandon { why: Abandoned::Stuck });
    let young = |o: &mut OpenOrder| (o.waiting_since, o.poll_from) = (Some(now - STUCK + 9), now + 99);
    assert_eq!(with(&young), NextStep::Wait { until: now + 9 });
    // Without another one, the order stays: somebody may have to approve it.
    let mut alone = f.clone();
    alone.cas.truncate(1);
    let mut slow = open.clone();
    processing(&mut slow);
    alone.order = Some(slow);
    assert_eq!(next(&alone, now).next, NextStep::Wait { until: now + 99 });
    assert_eq!(next(&alone, now).hold, Some(Hold { until: now + 99, cause: HoldCause::Order }));
    // Its CA is down, and the certificate is due.
    f.order = Some(open);
    fail(&mut f, 0, AcmeRemedy::Temporary, now);
    assert_eq!(next(&f, now).next, order(KeyChoice::Live, 1));
    fail(&mut f, 1, AcmeRemedy::RateLimit, now);
    assert_eq!(next(&f, now).next, NextStep::Wait { until: now + 60 });
    assert_eq!(next(&f, now + 60).next, NextStep::Resume);
}
