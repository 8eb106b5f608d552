//! An operator's pintle with one site: its files, its ledger, its clients, and what the driver does with a plan.

use std::collections::VecDeque;

use pintle::acme::backoff::{AttemptFailure, Attempts};
use pintle::acme::budget::{CountedOrder, OrderBudget};
use pintle::acme::due::left_at_renewal;
use pintle::acme::facts::{
    Ca, CertificateFacts, ChainInUse, Checked, Compromise, NextKey, OpenOrder, OperatorRequests, PreflightVerdict,
};
use pintle::acme::plan;
use pintle::acme::problem::AcmeRemedy;
use pintle::acme::renewal_info::RenewalInfo;
use pintle::acme::step::{Abandoned, Cause, CertificatePlan, KeyChoice, NextStep, OrderReason};
use pintle::host::HostPattern;
use pintle::keys::pin::Pin;
use pintle::lease::ahead;
use pintle::ledger::{Book, Burnt, Record};
use pintle::policy::guard::{Offer, judge};
use pintle::policy::hpkp::{Hpkp, Mode};
use pintle::policy::promise::{Promise, Promises, Seconds};

use super::super::client::{Client, Key, Policy};
use super::super::random::Random;
use super::authority::Authority;
use super::{DAY, HOUR, YEARS};

const HOST: &str = "shop.example.com";
const CLIENTS: usize = 8;
/// The actions that the plan may take without a wait.
const ACTIONS_MAX: usize = 200;
const TRACE: usize = 60;

/// Counts of events, so that a run that proves nothing fails.
#[derive(Debug, Default, Clone)]
pub struct Played {
    renewals: u64,
    changeovers: u64,
    planned: u64,
    visits: u64,
    refused_by_guard: u64,
    by_second: u64,
    failures: u64,
    revoked: u64,
    restarts: u64,
    /// Certificates that ended while no CA could give one.
    excused: u64,
    /// Certificates that ended before the machine's clock said so.
    by_clock: u64,
}

impl Played {
    pub fn add(&mut self, other: &Self) {
        self.renewals += other.renewals;
        self.changeovers += other.changeovers;
        self.planned += other.planned;
        self.visits += other.visits;
        self.refused_by_guard += other.refused_by_guard;
        self.by_second += other.by_second;
        self.failures += other.failures;
        self.revoked += other.revoked;
        self.restarts += other.restarts;
        self.excused += other.excused;
        self.by_clock += other.by_clock;
    }

    pub fn assert_enough(&self, histories: u64) {
        assert!(self.renewals > 40 * histories && self.visits > 1000 * histories, "{self:?}");
        assert!(self.changeovers > 4 * histories && self.planned > 2 * histories, "{self:?}");
        assert!(self.by_second > histories / 2 && self.failures > 10 * histories, "{self:?}");
        assert!(self.revoked > histories / 8 && self.restarts > 20 * histories, "{self:?}");
        assert!(self.excused < histories, "{self:?}");
        // A clock may be days behind for months, and certificates live six days: each of them ends.
        assert!(self.by_clock * 100 < self.renewals, "{self:?}");
    }
}

/// One certificate: what is on disk.
struct Certificate {
    algorithm: &'static str,
    live: Option<Key>,
    next: Option<Key>,
    live_since: Seconds,
    chain: Option<ChainInUse>,
    key_in_use: Option<Key>,
    info: RenewalInfo,
    order: Option<OpenOrder>,
    attempts: [Attempts; 2],
    asked: OperatorRequests,
    compromise: Option<Compromise>,
    checked: Option<Checked>,
    wake: Seconds,
    /// Since when a CA could have given a certificate.
    able_since: Option<Seconds>,
    is_excused: bool,
}

pub struct Operator {
    now: Seconds,
    /// By how much the clock that the plan sees is wrong.
    offset: Seconds,
    certificates: Vec<Certificate>,
    cas: [Authority; 2],
    budgets: [OrderBudget; 2],
    book: Book,
    clients: Vec<Client>,
    lifetime: Seconds,
    max_age: u64,
    rotate_every: Option<Seconds>,
    keys: Key,
    /// Until when a lockout that the operator accepted may last.
    lockout_until: Seconds,
    /// The time of a wrong preflight: it says that nobody reaches pintle.
    preflight_wrong_until: Seconds,
    trace: VecDeque<String>,
    played: Played,
}

fn pin(key: Key) -> Pin {
    Pin::of_spki(&[key])
}

fn hosts() -> Vec<HostPattern> {
    vec![HostPattern::parse(HOST).unwrap()]
}

impl Operator {
    pub fn new(random: &mut Random) -> Self {
        let now = 1_800_000_000 + random.below(DAY);
        let algorithms: &[&'static str] = if random.once_in(3) { &["ecdsa-p256", "rsa-2048"] } else { &["ecdsa-p256"] };
        let certificates = algorithms.iter().map(|algorithm| Certificate::new(algorithm, now)).collect();
        let cas = [Authority::new("https://one/dir", now, random), Authority::new("https://two/dir", now, random)];
        Self {
            now,
            offset: 0,
            certificates,
            cas,
            budgets: [OrderBudget::default(), OrderBudget::default()],
            book: Book::default(),
            clients: vec![Client::default(); CLIENTS],
            lifetime: *random.pick(&[160 * HOUR, 45 * DAY, 90 * DAY]),
            max_age: *random.pick(&[0, DAY as u64, 30 * DAY as u64, 60 * DAY as u64, 90 * DAY as u64]),
            rotate_every: *random.pick(&[Some(365 * DAY), Some(90 * DAY), None]),
            keys: 0,
            lockout_until: 0,
            preflight_wrong_until: 0,
            trace: VecDeque::new(),
            played: Played::default(),
        }
    }

    pub fn trace(&mut self) -> Vec<String> {
        self.trace.drain(..).collect()
    }

    fn log_line(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        let line = format!("{:>10} {}", self.now, line());
        self.trace.push_back(line);
    }

    fn clock(&self) -> Seconds {
        self.now + self.offset
    }

    pub fn play(&mut self, random: &mut Random) -> Played {
        let end = self.now + YEARS;
        let mut visit = self.now;
        let mut event = self.now + random.below(30 * DAY);
        while self.now < end {
            let wake = self.certificates.iter().map(|c| c.wake).min().unwrap_or(end);
            self.now = wake.min(visit).min(event).max(self.now);
            for at in 0..self.certificates.len() {
                self.look(at);
                if self.certificates[at].wake <= self.now {
                    self.work(at, random);
                }
            }
            self.send();
            if visit <= self.now {
                self.visit(random);
                visit = self.now + 1 + random.below(3 * DAY);
            }
            if event <= self.now {
                self.event(random);
                event = self.now + 1 + random.below(30 * DAY);
            }
        }
        self.played.clone()
    }

    /// Sent pins are in the ledger, as leases ensure.
    fn send(&mut self) {
        let Some(promise) = self.promise() else { return };
        let last_sent = self.now + ahead(promise.max_age);
        self.book.apply(Record::Promise(Promise { first_sent: self.now, last_sent, ..promise }));
    }

    fn header(&self) -> Vec<Key> {
        let live = self.certificates.iter().filter_map(|c| c.key_in_use);
        live.chain(self.certificates.iter().filter_map(|c| c.next)).collect()
    }

    fn is_sent(&self) -> bool {
        self.max_age > 0 && self.certificates.iter().all(|c| c.key_in_use.is_some() && c.next.is_some())
    }

    fn promise(&self) -> Option<Promise> {
        let pins = self.header().into_iter().map(pin).collect();
        let policy =
            Hpkp { mode: Mode::Enforce, max_age: self.max_age, pins, include_subdomains: false, report_uri: None };
        self.is_sent().then(|| Promise::of_header(&hosts(), &[], &policy))
    }

    /// Claim 1: a client gets any of the chains.
    fn visit(&mut self, random: &mut Random) {
        let served: Vec<Key> = self.certificates.iter().filter_map(|c| c.key_in_use).collect();
        if served.is_empty() {
            return;
        }
        self.played.visits += 1;
        let key = *random.pick(&served);
        let policy = Policy { pins: self.header(), max_age: self.max_age, include_subdomains: false };
        let field = self.is_sent().then_some(("Public-Key-Pins", &policy));
        let client = random.index(CLIENTS);
        let accepted = self.clients[client].visit(HOST, &[key], field, self.now * 1000);
        // Who is locked out as the operator accepted it comes back when that is over.
        assert!(accepted || self.now <= self.lockout_until, "a client is locked out: key {key}");
    }

    /// The actions of the operator and of the world.
    fn event(&mut self, random: &mut Random) {
        let at = random.index(self.certificates.len());
        match random.below(14) {
            0..3 => self.restart(),
            3 | 4 => {
                self.offset = if random.once_in(2) { 0 } else { random.below(4 * DAY) - 2 * DAY };
                self.log_line(|| "the clock is off".to_owned());
                self.settle();
            }
            5 => self.certificates[at].asked.rotate = true,
            6 => self.certificates[at].asked.renew = true,
            7 if self.max_age > 0 => self.max_age = *random.pick(&[DAY as u64, 30 * DAY as u64, 75 * DAY as u64]),
            8 => self.preflight_wrong_until = self.now + random.below(4 * DAY),
            9 if self.cas[0].refused.is_none() => {
                self.cas[0].refused = self.certificates[at].live.map(|key| (self.now, pin(key)));
                self.log_line(|| "the first CA refuses the live key from now on".to_owned());
            }
            10 if random.once_in(3) => self.compromise(at, random),
            _ => {}
        }
        self.certificates[at].wake = self.now;
    }

    fn compromise(&mut self, at: usize, random: &mut Random) {
        let accepted_until = random.once_in(2).then(|| "any day".to_owned());
        let accepts_lockout = accepted_until.is_some();
        let certificate = &mut self.certificates[at];
        let key = if random.once_in(4) { certificate.next } else { certificate.key_in_use };
        let (Some(key), None) = (key, &certificate.compromise) else { return };
        certificate.compromise = Some(Compromise {
            pin: pin(key),
            since: self.now,
            accepted_until,
            is_revoked: false,
            attempts: Attempts::default(),
        });
        self.log_line(|| format!("key {key} is compromised, lockout accepted: {accepts_lockout}"));
    }

    /// Only facts with a form on disk are kept.
    fn restart(&mut self) {
        fn again<T: serde::Serialize + serde::de::DeserializeOwned>(kept: &mut T) {
            *kept = serde_json::from_str(&serde_json::to_string(kept).unwrap()).unwrap();
        }
        for c in &mut self.certificates {
            again(&mut c.info);
            again(&mut c.order);
            again(&mut c.asked);
            again(&mut c.compromise);
            again(&mut c.checked);
            c.attempts.iter_mut().for_each(again);
        }
        self.budgets.iter_mut().for_each(again);
        let records: Vec<Record> = self.book.records().collect();
        self.book = Book::default();
        for record in records {
            self.book.apply(Record::of_json(&record.json()).unwrap());
        }
        self.played.restarts += 1;
        self.settle();
    }

    fn settle(&mut self) {
        let now = self.clock();
        self.budgets.iter_mut().for_each(|budget| budget.settle(now));
        for at in 0..self.certificates.len() {
            let mut facts = self.facts(at);
            facts.settle(now);
            let c = &mut self.certificates[at];
            (c.info, c.order, c.checked, c.live_since, c.compromise) =
                (facts.info, facts.order, facts.checked, facts.live_since, facts.compromise);
            for (kept, ca) in c.attempts.iter_mut().zip(facts.cas) {
                *kept = ca.attempts;
            }
            c.wake = self.now;
        }
    }

    fn facts(&self, at: usize) -> CertificateFacts {
        let c = &self.certificates[at];
        let hosts = hosts();
        let alive = Promises::alive(self.book.promises(), self.now);
        let next = c.next.map(|key| NextKey {
            pin: pin(key),
            promised_since: self.book.promised_since(HOST, pin(key)),
            usable_from: alive.safe_from(&hosts, &[], pin(key)),
            longest: alive.binding(&hosts, &[]).iter().map(|p| p.max_age as Seconds).max().unwrap_or(0),
        });
        let ca = |at: usize| Ca {
            directory: self.cas[at].directory.clone(),
            has_renewal_info: at == 0,
            attempts: c.attempts[at].clone(),
            order_from: None,
            emergency_from: None,
            open: 0,
        };
        let mut facts = CertificateFacts {
            site: HOST.to_owned(),
            algorithm: c.algorithm.to_owned(),
            names: vec![HOST.to_owned()],
            chain: c.chain.clone(),
            live: c.live.map(pin),
            live_since: c.live_since,
            next,
            unusable_live: None,
            unusable_next: None,
            info: c.info.clone(),
            order: c.order.clone(),
            checked: c.checked.clone(),
            asked: c.asked,
            compromise: c.compromise.clone(),
            burnt: self.book.burnt_keys().map(|burnt| burnt.pin).collect(),
            cas: vec![ca(0), ca(1)],
            rotate_every: self.rotate_every,
        };
        for at in 0..2 {
            let ask = CountedOrder { names: &facts.names, replaces: facts.replaces(at).is_some() };
            let from = self.budgets[at].order_from(ask, self.clock());
            facts.cas[at].order_from = from.map(|delay| (delay.from, delay.to_string()));
            let others = self.certificates.iter().filter(|other| other.algorithm != c.algorithm);
            let orders = others.filter_map(|other| other.order.as_ref());
            let open = orders.filter(|order| order.ca == self.cas[at].directory && !order.is_counted).count();
            let from = self.budgets[at].emergency_from(ask, open, self.clock());
            facts.cas[at].emergency_from = from.map(|delay| (delay.from, delay.to_string()));
        }
        facts
    }

    /// Claim 2, and what it depends on.
    fn look(&mut self, at: usize) {
        let c = &self.certificates[at];
        let keys: Vec<Pin> = [c.live, c.next].into_iter().flatten().map(pin).collect();
        let can = |n: usize| {
            let ca = &self.cas[n];
            let live = c.live.map(pin).is_some_and(|key| !ca.refuses(key, self.now) && self.book.burnt(key).is_none());
            !ca.is_down(self.now) && self.now >= ca.limited_until && live
        };
        let is_able = (can(0) || can(1)) && self.now >= self.preflight_wrong_until && !keys.is_empty();
        let able_since = if is_able { c.able_since.or(Some(self.now)) } else { None };
        let end = c.chain.as_ref().map_or(Seconds::MAX, |chain| chain.not_after);
        let (was_able, was_excused) = (c.able_since, c.is_excused);
        if self.now >= end && !was_excused {
            let left = was_able.map(|since| end - since.max(end - self.lifetime / 2));
            let is_short = |left: Seconds| left < self.lifetime / 6;
            // The latest time that a window can set, by the machine's clock.
            let due = end - left_at_renewal(self.lifetime) / 2;
            let is_behind = self.offset < 0 && is_short(self.clock() - due);
            match left.is_none_or(is_short) {
                true => self.played.excused += 1,
                false if is_behind => self.played.by_clock += 1,
                false => panic!("expired, although a CA could have given a certificate"),
            }
        }
        let c = &mut self.certificates[at];
        (c.able_since, c.is_excused) = (able_since, self.now >= end);
    }

    /// Does what the plan says, until it says to wait.
    fn work(&mut self, at: usize, random: &mut Random) {
        for _ in 0..ACTIONS_MAX {
            let facts = self.facts(at);
            let plan = plan::next(&facts, self.clock());
            if !matches!(plan.next, NextStep::Wait { .. } | NextStep::AskWindow | NextStep::Preflight) {
                self.log_line(|| format!("{at}: {:?}, {}", plan.next, plan.why));
            }
            match &plan.next {
                NextStep::Wait { until } => {
                    self.certificates[at].wake = until - self.offset;
                    return;
                }
                NextStep::OperatorsTurn { until, .. } => {
                    self.certificates[at].attempts.iter_mut().for_each(Attempts::release);
                    self.certificates[at].wake = until - self.offset;
                    return;
                }
                _ => self.act(at, &facts, &plan, random),
            }
            self.send();
        }
        panic!("the plan never waits");
    }

    fn act(&mut self, at: usize, facts: &CertificateFacts, plan: &CertificatePlan, random: &mut Random) {
        let clock = self.clock();
        let share = (random.below(1000) as f64) / 1000.0;
        let c = &mut self.certificates[at];
        match &plan.next {
            NextStep::AskWindow => {
                let chain = c.chain.as_ref().unwrap();
                match self.cas[0].window((chain.not_before, chain.not_after), self.now, random) {
                    Ok((answer, wait)) => _ = c.info.answered(answer, wait, clock, share),
                    Err(why) => c.info.unanswered(why, None, clock, share),
                }
            }
            NextStep::MakeKey(which) => {
                let key = self.keys;
                self.keys = self.keys.checked_add(1).expect("fewer than 256 keys");
                match which {
                    KeyChoice::Live => (c.live, c.live_since) = (Some(key), clock),
                    KeyChoice::Next => c.next = Some(key),
                }
            }
            NextStep::Preflight => {
                let verdict = match random.below(8) {
                    _ if self.now < self.preflight_wrong_until => PreflightVerdict::Broken,
                    0 => PreflightVerdict::Unknown,
                    _ => PreflightVerdict::Fine,
                };
                let before = c.checked.as_ref().map_or(0, |checked| checked.failures);
                let failures = if verdict == PreflightVerdict::Broken { before + 1 } else { 0 };
                let names = facts.names.clone();
                c.checked = Some(Checked { at: clock, names, verdict, failures, ..Checked::default() });
            }
            NextStep::Order { key, ca, replaces } => self.order(at, (*key, *ca, replaces.is_some()), facts, random),
            NextStep::Resume => self.resume(at, plan, random),
            NextStep::Abandon { why } => {
                let order = c.order.take().unwrap();
                if matches!(why, Abandoned::Expired | Abandoned::Stuck) {
                    self.fail(
                        at,
                        usize::from(order.ca != self.cas[0].directory),
                        (AcmeRemedy::Temporary, None),
                        random,
                    );
                }
            }
            NextStep::Revoke => {
                let compromise = c.compromise.as_mut().unwrap();
                let failure = |remedy| AttemptFailure { remedy, reason: "down".into(), retry_after: None, key: None };
                if self.cas[0].is_down(self.now) {
                    compromise.attempts.failed(failure(AcmeRemedy::Temporary), clock, None, share);
                } else {
                    compromise.is_revoked = true;
                    self.cas[0].revoked.push(compromise.pin);
                }
            }
            NextStep::Burn => {
                let compromise = c.compromise.take().unwrap();
                // Never the key that serves.
                assert_ne!(c.key_in_use.map(pin), Some(compromise.pin));
                self.book.apply(Record::Burnt(Burnt { site: HOST.to_owned(), pin: compromise.pin, at: self.now }));
                self.played.revoked += 1;
            }
            NextStep::Wait { .. } | NextStep::OperatorsTurn { .. } => {}
        }
    }

    fn order(
        &mut self,
        at: usize,
        (key, ca, replaces): (KeyChoice, usize, bool),
        facts: &CertificateFacts,
        random: &mut Random,
    ) {
        let clock = self.clock();
        let names = facts.names.clone();
        self.budgets[ca].take_order(clock);
        let c = &mut self.certificates[at];
        let is_changeover = key == KeyChoice::Next;
        let key = pin(if is_changeover { c.next } else { c.live }.unwrap());
        assert!(self.book.burnt(key).is_none(), "an order with a burnt key");
        c.order = Some(OpenOrder {
            url: None,
            ca: self.cas[ca].directory.clone(),
            key,
            names: names.clone(),
            since: clock,
            expires: Some(clock + 7 * DAY),
            poll_from: 0,
            is_changeover,
            replaces,
            waiting_since: Some(clock),
            is_finalized: true,
            is_counted: false,
            seen: clock,
        });
        if let Err(why) = self.cas[ca].order(self.now, random) {
            self.certificates[at].order = None;
            self.fail(at, ca, why, random);
        }
    }

    fn fail(
        &mut self,
        at: usize,
        ca: usize,
        (remedy, retry_after): (AcmeRemedy, Option<Seconds>),
        random: &mut Random,
    ) {
        let clock = self.clock();
        self.played.failures += 1;
        if remedy == AcmeRemedy::Validation {
            self.budgets[ca].take_failed_validation(HOST, clock);
        }
        let c = &mut self.certificates[at];
        let left = c.chain.as_ref().map(|chain| chain.not_after - clock);
        let key = c.order.as_ref().map(|order| order.key);
        let share = (random.below(1000) as f64) / 1000.0;
        c.attempts[ca].failed(
            AttemptFailure { remedy, reason: format!("{remedy:?}").into(), retry_after, key },
            clock,
            left,
            share,
        );
        self.log_line(|| format!("{at}: {remedy:?} at {ca}, retry after {retry_after:?}"));
    }

    fn resume(&mut self, at: usize, plan: &CertificatePlan, random: &mut Random) {
        let order = self.certificates[at].order.clone().unwrap();
        let ca = usize::from(order.ca != self.cas[0].directory);
        match self.cas[ca].step(order.key, self.now, random) {
            Ok(false) => self.certificates[at].order.as_mut().unwrap().poll_from = self.clock() + 5,
            Ok(true) => self.issued(at, ca, &order, plan, random),
            Err(why) => {
                self.fail(at, ca, why, random);
                // Some failures end the order at the CA.
                if !matches!(why.0, AcmeRemedy::Temporary | AcmeRemedy::ReadOrder | AcmeRemedy::RateLimit) {
                    self.certificates[at].order = None;
                }
            }
        }
    }

    /// A chain goes the way of all candidates: the guard judges it, and it is served.
    fn issued(&mut self, at: usize, ca: usize, order: &OpenOrder, plan: &CertificatePlan, random: &mut Random) {
        let chains: Vec<Vec<Pin>> = (0..self.certificates.len())
            .filter_map(|n| if n == at { Some(order.key) } else { self.certificates[n].key_in_use.map(pin) })
            .map(|pin| vec![pin])
            .collect();
        let ask = CountedOrder { names: &order.names, replaces: order.replaces };
        self.budgets[ca].take_certificate(ask, self.clock());
        self.cas[ca].issued(&order.names, order.replaces, self.now);
        let hosts = hosts();
        let offer =
            Offer { hosts: &hosts, chains: chains.iter().map(Vec::as_slice).collect(), set: None, is_kept: false };
        let objections = judge(&[offer], self.book.promises(), self.now);
        let accepts = self.certificates[at].compromise.as_ref().is_some_and(Compromise::accepts_lockout);
        // The key in use breaks these promises already: a refusal would help nobody.
        let is_renewal = self.certificates[at].key_in_use.map(pin) == Some(order.key);
        let breaks = |chain: usize| !is_renewal && chains[chain][0] == order.key;
        let broken = objections.breaches.iter().filter(|b| breaks(b.chain)).flat_map(|b| &b.broken);
        if let Some(until) = broken.map(|promise| promise.honoured_until()).max() {
            if !accepts {
                self.played.refused_by_guard += 1;
                self.fail(at, ca, (AcmeRemedy::Candidate, None), random);
                self.certificates[at].order = None;
                return;
            }
            self.lockout_until = self.lockout_until.max(until);
        }
        self.adopt(at, ca, order, plan, random);
    }

    /// Claim 3.
    fn adopt(&mut self, at: usize, ca: usize, order: &OpenOrder, plan: &CertificatePlan, random: &mut Random) {
        let facts = self.facts(at);
        let clock = self.clock();
        let is_changeover = facts.live != Some(order.key);
        if is_changeover {
            let next = facts.next.as_ref().unwrap();
            assert_eq!(next.pin, order.key, "neither the live nor the next key");
            let is_unfit = facts.compromise.as_ref().is_some_and(|c| Some(c.pin) == facts.live)
                || facts.live.is_some_and(|live| facts.is_burnt(live));
            let announced = next.promised_since.is_none_or(|since| since + next.longest <= self.now);
            // The guard alone decides about a compromised key.
            assert!(announced || is_unfit || self.offset != 0, "a key that clients do not know for long enough");
            let refused = facts.cas.iter().any(|ca| facts.live.is_some_and(|l| ca.attempts.refuses(l, clock)));
            assert!(plan.changeover.is_some() || refused, "the key changed over without a reason");
            self.planned(at, &facts, plan);
            self.played.changeovers += 1;
        }
        self.played.renewals += 1;
        self.played.by_second += u64::from(ca == 1);
        let c = &mut self.certificates[at];
        if is_changeover {
            (c.live, c.next, c.live_since) = (c.next, None, clock);
        }
        let not_before = self.now - HOUR;
        c.key_in_use = c.live;
        c.chain = Some(ChainInUse {
            not_before,
            not_after: not_before + self.lifetime,
            pin: order.key,
            names: order.names.clone(),
            id: Some("id".to_owned()),
            from: Some(order.ca.clone()),
            spread: (random.below(1000) as f64) / 1000.0,
        });
        (c.info, c.order) = (RenewalInfo::default(), None);
        c.asked.renew = false;
        c.asked.rotate &= !is_changeover;
        c.attempts[ca].succeeded("issued".to_owned(), clock);
        c.attempts[1 - ca].release();
        c.able_since = None;
        self.log_line(|| format!("{at}: adopted, changeover {is_changeover}"));
    }

    /// A planned changeover comes when it was planned, if CAs, clocks and clients permit.
    fn planned(&mut self, at: usize, facts: &CertificateFacts, plan: &CertificatePlan) {
        let (Some(every), OrderReason::Changeover(Cause::RotateEvery)) = (self.rotate_every, &plan.why) else { return };
        let age = self.now - self.certificates[at].live_since;
        assert!(age >= every || self.offset != 0, "changed over too early: {age}");
        let longest = facts.next.as_ref().map_or(0, |next| next.longest).max(90 * DAY);
        // An outage, the preflight's error, and a day of back-off each.
        assert!(age <= every + longest + 40 * DAY, "changed over too late: {age} of {every}");
        self.played.planned += 1;
    }
}

impl Certificate {
    fn new(algorithm: &'static str, now: Seconds) -> Self {
        Self {
            algorithm,
            live: None,
            next: None,
            live_since: now,
            chain: None,
            key_in_use: None,
            info: RenewalInfo::default(),
            order: None,
            attempts: [Attempts::default(), Attempts::default()],
            asked: OperatorRequests::default(),
            compromise: None,
            checked: None,
            wake: now,
            able_since: None,
            is_excused: false,
        }
    }
}
