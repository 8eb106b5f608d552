//! Sets of pins that differ in the exceptions of their wildcards alone.
//!
//! A site with a wildcard promises its pins for all names but those of other sites. Each new name beside it makes
//! another set, with all these names in it. An earlier set adds one thing only: it still binds the names that have become
//! exceptions. So of a set that is no longer sent, the ledger keeps these names alone.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::book::Book;
use super::line::set_id;
use crate::host::HostPattern;
use crate::policy::promise::{Promise, Seconds};

impl Book {
    /// Shortens sets that a later one repeats but for exceptions. Afterwards every name is bound by
    /// the same pins until the same time as before. Returns `true` if there were such sets.
    ///
    /// Sets that may be sent now stay as they are, and so do those in accepted lockouts, and those
    /// that `stays` names: something refers to them by their id.
    pub fn fold(&mut self, now: Seconds, stays: impl Fn(&Promise) -> bool) -> bool {
        let mut kin: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, promise) in self.promises().iter().enumerate().filter(|(_, promise)| has_wildcard(promise)) {
            kin.entry(set_id(&without_exceptions(promise))).or_default().push(at);
        }
        kin.retain(|_, sets| sets.len() > 1);
        let accepted: HashSet<&str> = self.lockouts().iter().flat_map(|a| &a.sets).map(String::as_str).collect();
        let is_fixed = |promise: &Promise| {
            let is_meant = || accepted.contains(set_id(promise).as_str());
            promise.last_sent >= now || self.is_derived(promise) || is_meant() || stays(promise)
        };
        let mut promises: Vec<Option<Promise>> = self.promises().iter().cloned().map(Some).collect();
        let mut is_shorter = false;
        for sets in kin.values_mut() {
            // Of two that end at the same time, the one with fewer exceptions says more.
            let rank = |promise: &Promise| (promise.last_sent, Reverse(promise.except.len()), promise.except.clone());
            sets.sort_by_cached_key(|at| rank(&self.promises()[*at]));
            let mut begun = Seconds::MAX;
            for (number, at) in sets.iter().enumerate() {
                let set = &self.promises()[*at];
                begun = begun.min(set.first_sent);
                let next = sets.get(number + 1).map(|next| &self.promises()[*next]);
                promises[*at] = match next.filter(|_| !is_fixed(set)) {
                    Some(next) => {
                        is_shorter = true;
                        let hosts = left(set, next);
                        (!hosts.is_empty()).then(|| Promise {
                            hosts,
                            except: Vec::new(),
                            first_sent: begun,
                            ..set.clone()
                        })
                    }
                    None => Some(Promise { first_sent: begun, ..set.clone() }),
                };
            }
        }
        if is_shorter {
            self.replace_promises(promises.into_iter().flatten());
        }
        is_shorter
    }

    /// Returns `true` if other sets bind whatever a set binds, and for as long: it was shortened
    /// here, so a copy of it is no news.
    #[must_use]
    pub fn covers(&self, set: &Promise) -> bool {
        if !has_wildcard(set) || self.find(set).is_some() {
            return false;
        }
        let is_same = |other: &&Promise| {
            other.site == set.site
                && (other.max_age, other.include_subdomains) == (set.max_age, set.include_subdomains)
                && other.channel == set.channel
                && other.pins == set.pins
                && other.last_sent >= set.last_sent
                && other.first_sent <= set.first_sent
        };
        let lasting: Vec<&Promise> = self.promises().iter().filter(is_same).collect();
        let mut later = lasting.iter().filter(|other| other.hosts == set.hosts);
        later.any(|later| {
            let left = left(set, later);
            left.iter().all(|name| lasting.iter().any(|other| other.hosts.contains(name)))
        })
    }
}

fn has_wildcard(promise: &Promise) -> bool {
    promise.hosts.iter().any(HostPattern::is_wildcard)
}

fn without_exceptions(promise: &Promise) -> Promise {
    Promise { except: Vec::new(), ..promise.clone() }
}

/// Returns the names that a set binds, and that are exceptions of the next one.
fn left(set: &Promise, next: &Promise) -> Vec<HostPattern> {
    let excepted: HashSet<&HostPattern> = set.except.iter().collect();
    let names = next.except.iter().filter(|name| !excepted.contains(name) && name.exact().is_some());
    names.filter(|name| set.binds(name, &[])).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::pin::Pin;
    use crate::ledger::{Accepted, Record};
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::PromiseChannel;

    fn host(name: &str) -> HostPattern {
        HostPattern::parse(name).unwrap()
    }

    fn set(except: &[&str], include_subdomains: bool, last_sent: Seconds) -> Promise {
        Promise {
            site: "e.test".into(),
            hosts: vec![host("e.test"), host("*.e.test")],
            except: except.iter().map(|name| host(&format!("{name}.e.test"))).collect(),
            pins: vec![Pin::of_spki(b"key")],
            max_age: 100,
            include_subdomains,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: last_sent - 10,
            last_sent,
        }
    }

    fn book(sets: &[Promise]) -> Book {
        let mut book = Book::default();
        sets.iter().for_each(|set| _ = book.apply(Record::Promise(set.clone())));
        book
    }

    /// The end of what binds each of some names.
    fn ends(book: &Book) -> Vec<Seconds> {
        let names = ["e.test", "*.e.test", "a.e.test", "b.e.test", "c.e.test", "z.e.test", "x.a.e.test", "*.a.e.test"];
        let end = |name: &&str| {
            let bound = book.promises().iter().filter(|promise| promise.binds(&host(name), &[]));
            bound.map(Promise::honoured_until).max().unwrap_or_default()
        };
        names.iter().map(end).collect()
    }

    proptest! {
        /// Each name is bound for as long as before. What was known is known, and once is enough.
        #[test]
        fn nothing_is_lost_or_added(
            sets in prop::collection::vec((prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "x"]), 0..4), any::<bool>(), 20i64..60), 0..8),
            now in 20i64..70,
        ) {
            let sets: Vec<Promise> = sets.into_iter().map(|(mut except, sub, sent)| {
                except.sort_unstable();
                except.dedup();
                set(&except, sub, sent)
            }).collect();
            let raw = book(&sets);
            let mut folded = raw.clone();
            folded.fold(now, |_| false);
            prop_assert_eq!(ends(&folded), ends(&raw));
            prop_assert!(folded.news(&raw).is_empty(), "{:?}", folded.promises());
            prop_assert!(folded.promises().iter().filter(|p| has_wildcard(p) && p.last_sent < now).count() <= 2);
            let since = |book: &Book| book.promised_since("e.test", Pin::of_spki(b"key"));
            prop_assert_eq!(since(&folded), since(&raw));
            let again = folded.promises().to_vec();
            folded.fold(now, |_| false);
            prop_assert_eq!(folded.promises(), &again[..]);
        }
    }

    #[test]
    fn many_names_one_after_the_other() {
        let names: Vec<String> = (0..200).map(|n| format!("name-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sets: Vec<Promise> = (0..200).zip(1000..).map(|(n, sent)| set(&names[..n], false, sent)).collect();
        let mut folded = book(&sets);
        let len = |book: &Book| crate::ledger::written(book).len();
        let before = len(&folded);
        assert!(folded.fold(2000, |_| false) && len(&folded) < before / 5, "{before} {}", len(&folded));
        assert_eq!(folded.promises().iter().map(|promise| promise.except.len()).sum::<usize>(), 199);
        assert_eq!(folded.promises().iter().find(|p| p.hosts == [host("name-7.e.test")]).unwrap().last_sent, 1007);
    }

    #[test]
    fn sets_that_others_refer_to_stay() {
        let sets = [set(&[], false, 100), set(&["a"], false, 200), set(&["a", "b"], false, 300)];
        assert!(!book(&sets).fold(100, |_| false), "they may be sent");
        let mut all = book(&sets);
        assert!(!all.fold(250, |_| true));
        let sets_of = vec![set_id(&sets[0])];
        let accepted = Accepted {
            site: "e.test".into(),
            pin: Pin::of_spki(b"other"),
            sets: sets_of,
            until: "1970-01-02".into(),
            at: 200,
            hosts: Vec::new(),
            except: Vec::new(),
            is_excuse: false,
        };
        all.apply(Record::Accepted(accepted));
        assert!(all.fold(250, |_| false));
        assert!(all.find(&sets[0]).is_some() && all.find(&sets[1]).is_none() && all.find(&sets[2]).is_some());
    }
}
