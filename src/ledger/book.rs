//! The contents of the ledger in memory: the sum of its records.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::line::set_id;
use super::record::{Accepted, Burnt, ClockNote, Declined, Ramp, Ramped, Record, Repair, Replaced};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::lease::ahead;
use crate::policy::promise::{Promise, PromiseChannel, Seconds, SiteNames};

/// Seconds that an expired promise stays in the history.
const HISTORY: i64 = 400 * 86400;

/// All recorded promises, ramps, lockouts and repairs.
#[derive(Debug, Default, Clone)]
pub struct Book {
    promises: Vec<Promise>,
    by_set: HashMap<SetKey, usize>,
    by_site: HashMap<String, Vec<usize>>,
    ramps: HashMap<(String, Ramped), Ramp>,
    accepted: Vec<Accepted>,
    /// Burnt keys that were in use when this node heard of that.
    burnt_in_use: Vec<Accepted>,
    /// By site and key: excuses up to this time are over.
    replaced: HashMap<(String, Pin), Seconds>,
    repairs: Vec<Repair>,
    /// By set: promises of other folders up to this time do not count.
    declined: BTreeMap<String, Seconds>,
    /// The last time that a process noted that it keeps this ledger.
    seen: Option<Seconds>,
    /// The newest one of each boot.
    clocks: BTreeMap<String, ClockNote>,
    burnt: BTreeMap<Pin, Burnt>,
    /// Burnt keys that only newer versions' records contain.
    derived_burnt: BTreeMap<Pin, Burnt>,
    /// Records of newer versions, in order of arrival.
    unknown: Vec<String>,
    known_unknown: HashSet<String>,
    /// Promises that only those records contain.
    derived: HashSet<SetKey>,
}

/// The identity of a promise: all of it except its times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SetKey {
    site: String,
    hosts: Vec<String>,
    except: Vec<String>,
    pins: Vec<Pin>,
    max_age: u64,
    include_subdomains: bool,
    channel: PromiseChannel,
}

impl SetKey {
    fn of(promise: &Promise) -> Self {
        let names = |patterns: &[HostPattern]| {
            let mut names: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        Self {
            site: promise.site.clone(),
            hosts: names(&promise.hosts),
            except: names(&promise.except),
            pins: promise.pins.clone(),
            max_age: promise.max_age,
            include_subdomains: promise.include_subdomains,
            channel: promise.channel.clone(),
        }
    }
}

/// Returns the time at which a promise was last recorded.
pub(super) fn written(promise: &Promise) -> Seconds {
    match promise.channel {
        PromiseChannel::Header(_) | PromiseChannel::Assumed => {
            promise.last_sent.saturating_sub(ahead(promise.max_age)).max(promise.first_sent)
        }
        PromiseChannel::Export { .. } => promise.last_sent,
    }
}

impl Book {
    /// Adds a record; returns `true` if it changed anything. Times only ever widen, so the order of
    /// records does not matter, and neither does a clock that steps back.
    pub fn apply(&mut self, record: Record) -> bool {
        match record {
            Record::Format(_) => false,
            Record::Promise(promise) => {
                let was_derived = !self.derived.is_empty() && self.derived.remove(&SetKey::of(&promise));
                self.promise(promise) || was_derived
            }
            Record::Ramp(ramp) => self.ramp_to(ramp),
            Record::Accepted(accepted) => self.accept(accepted),
            Record::Replaced(Replaced { site, pin, at }) => {
                let known = self.replaced.entry((site, pin)).or_insert(Seconds::MIN);
                let is_new = *known < at;
                *known = at.max(*known);
                is_new
            }
            Record::Repair(repair) => {
                let is_new = !self.repairs.contains(&repair);
                if is_new {
                    self.repairs.push(repair);
                }
                is_new
            }
            Record::Seen(at) => {
                let is_new = self.seen.is_none_or(|seen| seen < at);
                self.seen = self.seen.max(Some(at));
                is_new
            }
            Record::Burnt(burnt) => self.burn(burnt),
            Record::Declined(Declined { set, at }) => {
                let known = self.declined.entry(set).or_insert(Seconds::MIN);
                let is_new = *known < at;
                *known = at.max(*known);
                is_new
            }
            Record::Clock(note) => self.note_clock(note),
            Record::Unknown(json) => self.foreign(json),
        }
    }

    /// Keeps a newer version's record unchanged, and the promise in it in its strictest reading.
    fn foreign(&mut self, json: String) -> bool {
        if !self.known_unknown.insert(json.clone()) {
            return false;
        }
        if let Some(promise) = Record::strictest(&json) {
            let key = SetKey::of(&promise);
            if !self.by_set.contains_key(&key) {
                self.derived.insert(key);
            }
            self.promise(promise);
        }
        if let Some(burnt) = Burnt::strictest(&json) {
            self.derived_burnt.entry(burnt.pin).or_insert(burnt);
        }
        self.unknown.push(json);
        true
    }

    /// A key stays burnt, whatever else is recorded. Of two records, the earlier one counts.
    fn burn(&mut self, burnt: Burnt) -> bool {
        match self.burnt.get_mut(&burnt.pin) {
            Some(known) if (known.at, &known.site) <= (burnt.at, &burnt.site) => return false,
            Some(known) => *known = burnt,
            None => _ = self.burnt.insert(burnt.pin, burnt),
        }
        true
    }

    /// The later note of a boot counts; of two at the same moment, the one with the earlier time.
    fn note_clock(&mut self, note: ClockNote) -> bool {
        let rank = |note: &ClockNote| (note.uptime, std::cmp::Reverse((note.at, note.since)));
        let is_new = self.clocks.get(&note.boot).is_none_or(|known| rank(known) < rank(&note));
        if is_new {
            self.clocks.insert(note.boot.clone(), note);
        }
        is_new
    }

    fn promise(&mut self, promise: Promise) -> bool {
        let key = SetKey::of(&promise);
        let Some(known) = self.by_set.get(&key).and_then(|at| self.promises.get_mut(*at)) else {
            let at = self.promises.len();
            self.by_set.insert(key, at);
            self.by_site.entry(promise.site.clone()).or_default().push(at);
            self.promises.push(promise);
            return true;
        };
        let is_news = promise.first_sent < known.first_sent || promise.last_sent > known.last_sent;
        known.first_sent = known.first_sent.min(promise.first_sent);
        known.last_sent = known.last_sent.max(promise.last_sent);
        is_news
    }

    fn accept(&mut self, accepted: Accepted) -> bool {
        let is_same =
            |a: &&mut Accepted| a.site == accepted.site && Accepted { at: accepted.at, ..(**a).clone() } == accepted;
        let of_kind = if accepted.sets.is_empty() { &mut self.burnt_in_use } else { &mut self.accepted };
        match of_kind.iter_mut().find(is_same) {
            Some(known) if known.at >= accepted.at => return false,
            Some(known) => known.at = accepted.at,
            None => of_kind.push(accepted),
        }
        true
    }

    /// The later record counts; of two in the same second, the lower step.
    fn ramp_to(&mut self, ramp: Ramp) -> bool {
        let key = (ramp.site.clone(), ramp.policy);
        match self.ramps.get(&key) {
            Some(known) if (known.since, usize::MAX - known.step) >= (ramp.since, usize::MAX - ramp.step) => false,
            _ => {
                self.ramps.insert(key, ramp);
                true
            }
        }
    }

    /// Returns all promises, expired ones too, in order of arrival.
    #[must_use]
    pub fn promises(&self) -> &[Promise] {
        &self.promises
    }

    /// Returns the promises of a site, expired ones too, in order of arrival.
    pub fn of_site(&self, site: &str) -> impl Iterator<Item = &Promise> {
        let places = self.by_site.get(site).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|at| self.promises.get(*at))
    }

    /// Returns the recorded promise of the same set, with its first and last time of sending.
    #[must_use]
    pub fn find(&self, set: &Promise) -> Option<&Promise> {
        self.by_set.get(&SetKey::of(set)).and_then(|at| self.promises.get(*at))
    }

    /// Returns the first time at which clients of a site received a pin, through any channel.
    #[must_use]
    pub fn promised_since(&self, site: &str, pin: Pin) -> Option<Seconds> {
        self.of_site(site).filter(|p| p.pins.binary_search(&pin).is_ok()).map(|p| p.first_sent).min()
    }

    /// Returns the set of pins that each site sent last in its header, among those that `counts` admits, by the site.
    pub fn sent_last(&self, counts: impl Fn(&Promise) -> bool) -> HashMap<&str, &Promise> {
        let mut last: HashMap<&str, &Promise> = HashMap::new();
        let is_header = |p: &&Promise| matches!(p.channel, PromiseChannel::Header(_));
        for promise in self.promises.iter().filter(is_header).filter(|p| counts(p)) {
            let known = last.entry(&promise.site).or_insert(promise);
            if written(promise) >= written(known) {
                *known = promise;
            }
        }
        last
    }

    /// Returns the progress of a ramp.
    #[must_use]
    pub fn ramp(&self, site: &str, policy: Ramped) -> Option<&Ramp> {
        self.ramps.get(&(site.to_owned(), policy))
    }

    /// Returns `true` if the operator accepted serving a chain with this leaf until that day,
    /// although it breaks these promises. The acceptance covers the sets that were recorded then,
    /// for the names that the site had then, and not later promises or names.
    #[must_use]
    pub fn accepts(&self, site: &str, pin: Pin, until: &str, broken: &[Promise], names: SiteNames<'_>) -> bool {
        let is_about = |a: &Accepted, promise: &Promise| {
            written(promise) <= a.at
                && a.sets.contains(&set_id(promise))
                && a.names().is_none_or(|had| names.were_all_among(had, promise))
        };
        let of_key = self.accepted.iter().filter(|a| a.site == site && a.pin == pin && *a.until >= *until);
        let mut words = of_key.filter(|a| !self.is_replaced(a));
        words.any(|a| broken.iter().all(|promise| is_about(a, promise)))
    }

    /// Returns `true` if an excuse is over, since another key has replaced the excused one.
    #[must_use]
    pub fn is_replaced(&self, accepted: &Accepted) -> bool {
        let ended = || self.replaced.get(&(accepted.site.clone(), accepted.pin));
        accepted.is_excuse && ended().is_some_and(|ended| accepted.at <= *ended)
    }

    /// Returns the other key that the operator accepted for a site under the same day, if any: the
    /// day in the configuration accepts one key, not the next one, too.
    #[must_use]
    pub fn accepted_instead(&self, site: &str, pin: Pin, until: &str) -> Option<Pin> {
        let of_day = self.accepted.iter().filter(|a| a.site == site && a.until == until && !a.is_excuse);
        of_day.map(|a| a.pin).find(|known| *known != pin)
    }

    /// Returns the ends of excuses for keys that a site no longer serves. `serves` has the pins of a
    /// site, by its first name; `None` if there is no such site.
    pub fn ended_excuses<'s>(&self, serves: impl Fn(&str) -> Option<Vec<Pin>> + 's) -> Vec<Record> {
        let all = self.accepted.iter().chain(&self.burnt_in_use);
        let excuses = all.filter(|a| a.is_excuse && !self.is_replaced(a));
        let ended = excuses.filter(|a| serves(&a.site).is_some_and(|pins| !pins.contains(&a.pin)));
        ended.map(|a| Record::Replaced(Replaced { site: a.site.clone(), pin: a.pin, at: a.at })).collect()
    }

    /// Returns `true` if the operator says that no client holds a promise of another folder. If it is made again later, it
    /// counts, unless a running process only renews it (`is_held`).
    #[must_use]
    pub fn declines(&self, promise: &Promise, is_held: bool) -> bool {
        let made = if is_held { promise.first_sent } else { written(promise) };
        !self.declined.is_empty() && self.declined.get(&set_id(promise)).is_some_and(|at| made <= *at)
    }

    /// Returns the newest time at which anything was recorded. The end of a lease does not count:
    /// each start would otherwise begin a lease ahead of the previous one.
    #[must_use]
    pub fn newest(&self) -> Option<Seconds> {
        let repairs = self.repairs.iter().map(|r| r.at);
        let burnt = self.burnt.values().map(|b| b.at);
        self.promises
            .iter()
            .map(written)
            .chain(self.accepted.iter().chain(&self.burnt_in_use).map(|a| a.at))
            .chain(repairs)
            .chain(self.seen)
            .chain(burnt)
            .chain(self.declined.values().copied())
            .max()
    }

    /// Returns the lockouts that the operator accepted, in order of acceptance.
    #[must_use]
    pub fn lockouts(&self) -> &[Accepted] {
        &self.accepted
    }

    /// Returns the ledger faults that the operator accepted.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// Returns the newest note of a clock in this boot of the machine.
    #[must_use]
    pub fn clock(&self, boot: &str) -> Option<&ClockNote> {
        self.clocks.get(boot)
    }

    /// Returns the record of a burnt key: it never serves again, and does not count as a backup.
    #[must_use]
    pub fn burnt(&self, pin: Pin) -> Option<&Burnt> {
        self.burnt.get(&pin).or_else(|| self.derived_burnt.get(&pin))
    }

    /// Returns `true` if a site served a burnt key when this node heard of that, and no other key
    /// since: refusing it would help nobody.
    #[must_use]
    pub fn serves_burnt(&self, site: &str, pin: Pin) -> bool {
        self.burnt_in_use.iter().any(|a| a.site == site && a.pin == pin && !self.is_replaced(a))
    }

    /// Returns all burnt keys.
    pub fn burnt_keys(&self) -> impl Iterator<Item = &Burnt> {
        let derived = self.derived_burnt.values().filter(|burnt| !self.burnt.contains_key(&burnt.pin));
        self.burnt.values().chain(derived)
    }

    /// Returns the number of records that a new file of this book has.
    #[must_use]
    pub fn len(&self) -> usize {
        let own = self.promises.len() - self.derived.len();
        own + self.ramps.len()
            + self.accepted.len()
            + self.burnt_in_use.len()
            + self.replaced.len()
            + self.repairs.len()
            + usize::from(self.seen.is_some())
            + self.burnt.len()
            + self.declined.len()
            + self.clocks.len()
            + self.unknown.len()
    }

    /// Returns `true` if the book has no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the book as records.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let mut ramps: Vec<&Ramp> = self.ramps.values().collect();
        ramps.sort_by(|a, b| (&a.site, a.policy).cmp(&(&b.site, b.policy)));
        let mut replaced: Vec<_> = self.replaced.iter().collect();
        replaced.sort_unstable();
        let replaced = replaced
            .into_iter()
            .map(|((site, pin), at)| Record::Replaced(Replaced { site: site.clone(), pin: *pin, at: *at }));
        let declined = self.declined.iter().map(|(set, at)| Record::Declined(Declined { set: set.clone(), at: *at }));
        let is_own = |p: &&Promise| !self.is_derived(p);
        let promises = self.promises.iter().filter(is_own).map(|p| Record::Promise(p.clone()));
        promises
            .chain(ramps.into_iter().map(|r| Record::Ramp(r.clone())))
            .chain(self.accepted.iter().chain(&self.burnt_in_use).map(|a| Record::Accepted(a.clone())))
            .chain(replaced)
            .chain(self.repairs.iter().map(|r| Record::Repair(r.clone())))
            .chain(self.seen.map(Record::Seen))
            .chain(self.burnt.values().map(|b| Record::Burnt(b.clone())))
            .chain(declined)
            .chain(self.clocks.values().map(|c| Record::Clock(c.clone())))
            .chain(self.unknown.iter().map(|u| Record::Unknown(u.clone())))
    }

    /// Removes promises and lockouts that ended longer ago than the history reaches, and notes of
    /// clocks of that time.
    pub fn forget_history(&mut self, now: Seconds) {
        let derived = &self.derived;
        let is_derived = |p: &Promise| !derived.is_empty() && derived.contains(&SetKey::of(p));
        self.promises.retain(|p| is_derived(p) || now.saturating_sub(p.honoured_until()) < HISTORY);
        self.accepted.retain(|a| !a.is_over(now) || now.saturating_sub(a.at) < HISTORY);
        self.clocks.retain(|_, note| now.saturating_sub(note.at.div_euclid(1000)) < HISTORY);
        self.by_set = self.promises.iter().enumerate().map(|(at, p)| (SetKey::of(p), at)).collect();
        self.by_site.clear();
        for (at, promise) in self.promises.iter().enumerate() {
            self.by_site.entry(promise.site.clone()).or_default().push(at);
        }
    }

    /// Replaces the promises by others that say the same.
    pub(super) fn replace_promises(&mut self, promises: impl Iterator<Item = Promise>) {
        self.promises.clear();
        self.by_set.clear();
        self.by_site.clear();
        promises.for_each(|promise| _ = self.promise(promise));
    }

    /// Returns `true` if only a newer version's record contains a promise.
    pub(super) fn is_derived(&self, promise: &Promise) -> bool {
        !self.derived.is_empty() && self.derived.contains(&SetKey::of(promise))
    }

    /// Returns the records of another book that this one lacks.
    #[must_use]
    pub fn news(&self, other: &Self) -> Vec<Record> {
        let mut merged = self.clone();
        let is_known = |record: &Record| matches!(record, Record::Promise(promise) if self.covers(promise));
        other.records().filter(|record| !is_known(record) && merged.apply(record.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::any_record;
    use super::*;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    fn book(records: &[Record]) -> Book {
        let mut book = Book::default();
        for record in records {
            book.apply(record.clone());
        }
        book
    }

    fn contents(book: &Book) -> Vec<String> {
        let mut lines: Vec<String> = book.records().map(|r| r.line()).collect();
        lines.sort();
        lines
    }

    proptest! {
        /// Merging is commutative and idempotent.
        #[test]
        fn merging(a in prop::collection::vec(any_record(), 0..20), b in prop::collection::vec(any_record(), 0..20)) {
            let (one, other) = (book(&a), book(&b));
            let merge = |to: &Book, from: &Book| {
                let mut merged = to.clone();
                for record in to.news(from) {
                    prop_assert!(merged.apply(record));
                }
                Ok(merged)
            };
            let (ab, ba) = (merge(&one, &other)?, merge(&other, &one)?);
            // A set that others cover may be missing.
            let times = |b: &Book| {
                let mut b = b.clone();
                b.fold(Seconds::MAX, |_| false);
                let mut all: Vec<_> = b.promises().iter().map(|p| (SetKey::of(p).site, p.pins.clone(), p.first_sent, p.last_sent)).collect();
                all.sort();
                all
            };
            prop_assert_eq!(times(&ab), times(&ba));
            prop_assert!(ab.news(&other).is_empty() && ab.news(&one).is_empty());
            let mut kept = ab.clone();
            kept.forget_history(HISTORY + 100);
            for book in [&ab, &kept] {
                for promise in book.promises() {
                    let of_site: Vec<&Promise> = book.promises().iter().filter(|p| p.site == promise.site).collect();
                    prop_assert_eq!(book.of_site(&promise.site).collect::<Vec<_>>(), of_site);
                }
            }
            // A burnt key stays burnt.
            for burnt in one.burnt_keys().chain(other.burnt_keys()) {
                prop_assert!(ab.burnt(burnt.pin).is_some_and(|known| known.at <= burnt.at));
            }
            prop_assert_eq!(&ab.burnt, &ba.burnt);
            // A record never shortens anything.
            for promise in one.promises().iter().chain(other.promises()) {
                let Some(merged) = ab.find(promise) else {
                    prop_assert!(ab.covers(promise));
                    continue;
                };
                prop_assert!(merged.last_sent >= promise.last_sent && merged.first_sent <= promise.first_sent);
            }
        }

        #[test]
        fn writing_and_reading_gives_the_same(records in prop::collection::vec(any_record(), 0..30)) {
            let first = book(&records);
            let again = book(&first.records().collect::<Vec<_>>());
            prop_assert_eq!(contents(&first), contents(&again));
            prop_assert_eq!(first.len(), first.records().count());
        }
    }

    #[test]
    fn what_was_accepted_is_not_about_what_was_promised_since() {
        let promise = |last_sent| Promise {
            site: "a.example".into(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"")],
            max_age: 100,
            include_subdomains: false,
            channel: PromiseChannel::Header(crate::policy::hpkp::Mode::Enforce),
            first_sent: 0,
            last_sent,
        };
        let (pin, site) = (Pin::of_spki(b"new"), "a.example".to_owned());
        let word = |at| {
            let (site, sets) = (site.clone(), vec![set_id(&promise(7))]);
            let (until, hosts) = ("1970-01-02".into(), Vec::new());
            Record::Accepted(Accepted { site, pin, sets, until, at, hosts, except: Vec::new(), is_excuse: false })
        };
        let mut book = book(&[word(1000)]);
        let accepts =
            |book: &Book, until: &str, last_sent| book.accepts("a.example", pin, until, &[promise(last_sent)], NONE);
        // A lease and the flight last 21 seconds together.
        assert!(accepts(&book, "1970-01-02", 1021) && accepts(&book, "1970-01-01", 1000));
        assert!(!accepts(&book, "1970-01-03", 1021) && !accepts(&book, "1970-01-02", 1022));
        assert!(!book.apply(word(900)) && book.apply(word(1001)) && !book.apply(word(1001)));
        assert!(accepts(&book, "1970-01-02", 1022));
        let elsewhere = Promise { hosts: vec![HostPattern::parse("b.example").unwrap()], ..promise(1000) };
        assert!(!book.accepts("a.example", pin, "1970-01-02", &[promise(1000), elsewhere], NONE));
    }

    const NONE: SiteNames<'_> = SiteNames { hosts: &[], except: &[] };

    /// The acceptance is about the names that the site had, and an excuse is about the key in use.
    #[test]
    fn what_was_accepted_covers_its_names_and_its_key() {
        let names = |names: &[&str]| names.iter().map(|n| HostPattern::parse(n).unwrap()).collect::<Vec<_>>();
        let promise = Promise {
            site: "a.e.test".into(),
            hosts: names(&["e.test"]),
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"")],
            max_age: 100,
            include_subdomains: true,
            channel: PromiseChannel::Header(crate::policy::hpkp::Mode::Enforce),
            first_sent: 0,
            last_sent: 0,
        };
        let (pin, until, site) = (Pin::of_spki(b"new"), "1970-01-02", "a.e.test");
        let word = |hosts: &[&str], except: &[&str], is_excuse| Accepted {
            site: site.into(),
            pin,
            sets: vec![set_id(&promise)],
            until: until.into(),
            at: 50,
            hosts: names(hosts),
            except: names(except),
            is_excuse,
        };
        let accepts = |book: &Book, hosts: &[&str], except: &[&str]| {
            let (hosts, except) = (names(hosts), names(except));
            let names = SiteNames { hosts: &hosts, except: &except };
            book.accepts(site, pin, until, std::slice::from_ref(&promise), names)
        };
        let one = book(&[Record::Accepted(word(&["a.e.test"], &[], false))]);
        assert!(accepts(&one, &["a.e.test"], &[]) && accepts(&one, &["a.e.test", "other.test"], &[]));
        assert!(!accepts(&one, &["a.e.test", "shop.e.test"], &[]) && !accepts(&one, &["*.e.test"], &[]));
        let wide = book(&[Record::Accepted(word(&["*.e.test"], &["shop.e.test"], false))]);
        assert!(accepts(&wide, &["*.e.test"], &["shop.e.test"]) && accepts(&wide, &["b.e.test"], &[]));
        assert!(!accepts(&wide, &["*.e.test"], &[]) && !accepts(&wide, &["shop.e.test"], &[]));
        // Without names: a record of an older version.
        let mut old = book(&[Record::Accepted(word(&[], &[], true))]);
        assert!(accepts(&old, &["b.e.test"], &[]));
        assert_eq!(old.accepted_instead(site, Pin::of_spki(b"x"), until), None);
        assert_eq!(one.accepted_instead(site, Pin::of_spki(b"x"), until), Some(pin));
        assert_eq!(
            (one.accepted_instead(site, pin, until), one.accepted_instead(site, pin, "1970-01-03")),
            (None, None)
        );
        // The excuse ends with another key, once; a later excuse counts again.
        assert!(old.ended_excuses(|_| Some(vec![pin])).is_empty() && old.ended_excuses(|_| None).is_empty());
        let ended = old.ended_excuses(|_| Some(Vec::new()));
        assert_eq!(ended.len(), 1);
        assert!(old.apply(ended[0].clone()) && !old.apply(ended[0].clone()));
        assert!(!accepts(&old, &["b.e.test"], &[]) && old.ended_excuses(|_| Some(Vec::new())).is_empty());
        old.apply(Record::Accepted(Accepted { at: 51, ..word(&[], &[], true) }));
        assert!(accepts(&old, &["b.e.test"], &[]));
    }

    #[test]
    fn history_ends() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut book = Book::default();
        while book.promises().len() < 5 {
            let record = any_record().new_tree(&mut runner).unwrap().current();
            book.apply(record);
        }
        let last = book.promises().iter().map(Promise::honoured_until).max().unwrap();
        book.forget_history(last);
        assert_eq!(book.promises().len(), 5);
        book.forget_history(last + HISTORY);
        assert!(book.promises().is_empty());
    }
}
