//! Records that reach the ledger from elsewhere, or while nobody serves: from another node's ledger, from an old copy, or
//! made out of a damaged line.
//!
//! The pair that was served last may break such a promise, or its key may be burnt. A start that refuses the pair would
//! help nobody, so the ledger notes the lockout as accepted: the operator has asked for the merge or the repair. The copy
//! of the pair in `last-good/` tells which one was served. Without a copy, as after a full disk, the last set of pins that
//! the site sent tells if the pair on disk was.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::build::by_name;
use super::build::refusal::safe_day;
use super::file::SiteTable;
use super::last_good::{CopyIndex, read_key};
use super::{Config, Draft, LastGood};
use crate::host::HostPattern;
use crate::keys::key_file::public_key;
use crate::keys::pin::Pin;
use crate::ledger::{Accepted, Book, News, set_id};
use crate::policy::promise::{Promise, Promises, Seconds, SiteNames, others};
use crate::tls::certificate::Chain;

/// The excuses for pairs that were served last.
#[derive(Debug, Default)]
pub struct Excuses {
    /// Their records.
    pub records: Vec<Accepted>,
    /// Pairs on disk that would need one, and that nothing shows as served: a start refuses them.
    pub unknown: Vec<UnknownPair>,
}

/// The day of an excuse for a burnt key: it has no end but another key.
const FOR_EVER: &str = "9999-12-31";

/// A pair on disk that breaks promises, or has a burnt key. It has no copy, so nobody knows if it was served.
#[derive(Debug)]
pub struct UnknownPair {
    /// The site's first name.
    pub site: String,
    /// The file of its chain.
    pub path: PathBuf,
    /// The pin of its leaf.
    pub pin: Pin,
    /// The key is burnt.
    pub is_burnt: bool,
}

/// A pair in use, and the names that it is used for.
struct PairInUse<'a> {
    label: String,
    names: SiteNames<'a>,
    chain: &'a Chain,
}

impl PairInUse<'_> {
    fn excuses(&self, new: &News, book: &Book, promises: &Promises<'_>, at: Seconds) -> Vec<Accepted> {
        self.breaks(new, book, promises, at).into_iter().chain(self.is_burnt(new, at)).collect()
    }

    /// The excuse for a burnt key, if it is new that it is.
    fn is_burnt(&self, new: &News, at: Seconds) -> Option<Accepted> {
        let Self { label, names, chain } = self;
        let pin = chain.pin();
        new.burns(pin).then(|| Accepted {
            site: label.clone(),
            pin,
            sets: Vec::new(),
            until: FOR_EVER.into(),
            at,
            hosts: names.hosts.to_vec(),
            except: names.except.to_vec(),
            is_excuse: true,
        })
    }

    /// The excuse for the promises that the pair breaks, if one of them is new. It also covers those
    /// that were accepted for this pair and these names before: one record must cover all of them.
    fn breaks(&self, new: &News, book: &Book, promises: &Promises<'_>, at: Seconds) -> Option<Accepted> {
        let Self { label, names, chain } = self;
        let broken = promises.broken_by(names.hosts, names.except, &chain.certain);
        let is_new = |promise: &Promise| new.has(promise);
        if !broken.iter().any(|promise| is_new(promise)) {
            return None;
        }
        let is_accepted = |promise: &Promise| {
            let until = safe_day(promise.honoured_until());
            book.accepts(label, chain.pin(), &until, std::slice::from_ref(promise), *names)
        };
        let excused: Vec<&Promise> =
            broken.into_iter().filter(|promise| is_new(promise) || is_accepted(promise)).collect();
        let until = excused.iter().map(|promise| promise.honoured_until()).max()?;
        let is_bound = |host: &&HostPattern| excused.iter().any(|promise| promise.binds(host, names.except));
        let hosts: Vec<HostPattern> = names.hosts.iter().filter(is_bound).cloned().collect();
        Some(Accepted {
            site: label.clone(),
            pin: chain.pin(),
            sets: excused.into_iter().map(set_id).collect(),
            until: safe_day(until),
            at,
            except: if hosts.iter().any(HostPattern::is_wildcard) { names.except.to_vec() } else { Vec::new() },
            hosts,
            is_excuse: true,
        })
    }
}

/// Returns the date of a note. A clock that was set back must not make it older than the promises in it.
fn noted_at(book: &Book, now: Seconds) -> Seconds {
    book.newest().map_or(now, |newest| newest.max(now))
}

impl Draft {
    /// Returns the excuses of each pair that was served last and breaks one of the `new` promises of the book, or has a
    /// newly burnt key. Any other pair is still refused. `is_own` says which sets a site has sent itself.
    #[must_use]
    pub fn excuses(&self, new: &News, is_own: impl Fn(&Promise) -> bool, book: &Book, now: Seconds) -> Excuses {
        let mut excuses = Excuses::default();
        let (Some(file), Some(state)) = (&self.file, self.state()) else { return excuses };
        let copies = LastGood::of(&state);
        let copies = CopyIndex::of(&copies);
        let names = |texts: &[super::At<String>]| {
            texts.iter().filter_map(|text| HostPattern::of_site(&text.value).ok()).collect::<Vec<_>>()
        };
        let hosts: Vec<Vec<HostPattern>> =
            file.sites.iter().map(|site| site.hosts.as_deref().map(names).unwrap_or_default()).collect();
        let except = others(&hosts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let promises = Promises::alive(book.promises().iter(), now);
        let at = noted_at(book, now);
        let last = book.sent_last(is_own);
        for ((site, hosts), except) in file.sites.iter().zip(&hosts).zip(&except) {
            let Some(label) = hosts.first().map(ToString::to_string) else { continue };
            for path in site.certificates.iter().filter_map(|pair| pair.chain.as_ref()) {
                let path = self.folder.join(&path.value);
                let copy = copies.read(&path, hosts).and_then(|contents| Chain::from_pem(&contents).ok());
                let is_known = copy.is_some();
                let on_disk = || Chain::from_pem(&read_key(&path)?).ok();
                let Some(chain) = copy.or_else(on_disk) else { continue };
                let pair = PairInUse { label: label.clone(), names: SiteNames { hosts, except }, chain: &chain };
                let needed = pair.excuses(new, book, &promises, at);
                let Some(first) = needed.first() else { continue };
                if is_known || self.was_sent_last(site, &label, chain.pin(), &last) {
                    excuses.records.extend(needed);
                } else {
                    let is_burnt = first.sets.is_empty();
                    excuses.unknown.push(UnknownPair { site: label.clone(), path, pin: chain.pin(), is_burnt });
                }
            }
        }
        excuses
    }

    /// `true` if the last set of pins that a site sent names a key, and not as a backup: the site served that key.
    fn was_sent_last(&self, site: &SiteTable, label: &str, pin: Pin, last: &HashMap<&str, &Promise>) -> bool {
        let listed = site.hpkp.iter().flat_map(|hpkp| hpkp.listed());
        let is_backup = |file: &super::At<String>| {
            let contents = read_key(&self.folder.join(&file.value));
            contents.is_some_and(|contents| public_key(&contents).is_ok_and(|key| key.pin == pin))
        };
        last.get(label).is_some_and(|last| last.pins.binary_search(&pin).is_ok()) && !listed.into_iter().any(is_backup)
    }
}

impl Config {
    /// Returns the excuses of each pair in use that breaks one of the `new` promises of the book, or has a newly burnt key.
    #[must_use]
    pub fn excuses(&self, new: &News, book: &Book, now: Seconds) -> Vec<Accepted> {
        let promises = Promises::alive(book.promises().iter(), now);
        let at = noted_at(book, now);
        let pairs = self.entries.iter().flat_map(|entry| entry.pairs().iter().map(move |pair| (entry, pair)));
        let in_use = pairs.map(|(entry, pair)| PairInUse {
            label: entry.report.name().to_owned(),
            names: entry.served_names(),
            chain: &pair.chain,
        });
        in_use.flat_map(|pair| pair.excuses(new, book, &promises, at)).collect()
    }

    /// Returns the ids of the sets that pairs in use break.
    #[must_use]
    pub fn broken_sets(&self, book: &Book, now: Seconds) -> HashSet<String> {
        let promises = Promises::alive(book.promises().iter(), now);
        let pairs =
            self.entries.iter().flat_map(|entry| entry.pairs().iter().map(move |pair| (entry.served_names(), pair)));
        let broken = pairs.flat_map(|(names, pair)| promises.broken_by(names.hosts, names.except, &pair.chain.certain));
        broken.map(set_id).collect()
    }

    /// Returns the pins that each site serves, by its first name. Leaves out sites that lack a pair: no other key has
    /// replaced it yet.
    pub fn pins_by_site(&self) -> impl Fn(&str) -> Option<Vec<Pin>> + '_ {
        let entries = by_name(&self.entries);
        move |site| {
            let entry = entries.get(site).filter(|entry| entry.report.missing.is_empty())?;
            Some(entry.pairs().iter().map(|pair| pair.chain.pin()).collect())
        }
    }
}
