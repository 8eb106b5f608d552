//! The store of a site: pages by key, bounded in bytes, and the responses that are still under way. All workers share it.
//! A hit takes the lock of one shard, for reading.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::filling::{Filling, Outcome};
use super::key;
use super::page::{CachedPage, StoredResponse};
use super::storing::NotStored;
use crate::message::Fields;

/// The size of a page that the tables are made for, in bytes.
const USUAL_PAGE: u64 = 16 << 10;
/// The most shards. Each has an equal part of the memory, and must have room for some of the largest pages.
const SHARDS_MAX: u64 = 16;
const LARGEST_PER_SHARD: u64 = 4;
/// The most keys that are remembered because their responses cannot be shared, and for how long, in milliseconds.
const REFUSED_MAX: usize = 4096;
const REFUSED_FOR: u64 = 10_000;
/// The most responses under way.
const FILLINGS_MAX: usize = 10_000;
/// The most validations in the background at the same time.
const BACKGROUND_MAX: usize = 64;
/// The places of the counts: workers beyond share them.
const COUNTERS: usize = 32;

/// The ways in which a cache takes part in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePart {
    /// The stored response was sent.
    Hit,
    /// A stale stored response was sent.
    Stale,
    /// The origin confirmed the stored response.
    Validated,
    /// The response that another request had asked for was sent.
    Collapsed,
    /// The origin's response was sent.
    Miss,
    /// The request or its answer had nothing to do with the store.
    Bypass,
}

impl CachePart {
    /// All, in the order of the counts.
    pub const ALL: [Self; 6] = [Self::Hit, Self::Stale, Self::Validated, Self::Collapsed, Self::Miss, Self::Bypass];

    /// Its name in records, metrics and `pintle cache`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Validated => "validated",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

#[derive(Debug, Clone)]
struct PageWeight;

impl Weighter<Box<[u8]>, Arc<CachedPage>> for PageWeight {
    fn weight(&self, key: &Box<[u8]>, page: &Arc<CachedPage>) -> u64 {
        page.weight(key)
    }
}

/// Counts of one worker, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PartCounts([AtomicU64; CachePart::ALL.len()]);

/// The store of a site.
pub struct Store {
    pages: Cache<Box<[u8]>, Arc<CachedPage>, PageWeight, RandomState>,
    /// Held while a page is changed.
    writing: Mutex<()>,
    /// The number of purges and changes: a response that was asked for before is not stored.
    generation: AtomicU64,
    /// The number of soft purges of everything.
    epoch: AtomicU64,
    under_way: Mutex<UnderWay>,
    counts: [PartCounts; COUNTERS],
    /// Validations in the background.
    background: AtomicUsize,
    memory: u64,
    max_object: u64,
}

#[derive(Debug, Default)]
struct UnderWay {
    fillings: HashMap<Box<[u8]>, Arc<Filling>, RandomState>,
    /// Keys whose responses could not be shared or stored, with the reason, and the uptime until which nobody waits.
    refused: HashMap<Box<[u8]>, (NotStored, u64), RandomState>,
}

/// A place for a validation in the background.
#[derive(Debug)]
pub struct BackgroundPlace(Arc<Store>);

impl Drop for BackgroundPlace {
    fn drop(&mut self) {
        self.0.background.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A request's place among those of its key.
#[derive(Debug)]
pub enum Join {
    /// It asks the origin, and others wait for it.
    Lead(Arc<Filling>),
    /// It waits for another one.
    Follow(Arc<Filling>),
    /// It asks for itself.
    Alone,
}

/// The responses that a purge is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeScope {
    /// Everything.
    Site,
    /// The target under an authority, with all its variants.
    Url(Vec<u8>, Vec<u8>),
    /// The path under an authority, and what is below it by whole segments.
    Prefix(Vec<u8>, Vec<u8>),
    /// The responses with a tag.
    Tag(Vec<u8>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes an empty store. `memory` bounds its bytes, and `max_object` those of a body.
    #[must_use]
    pub fn new(memory: u64, max_object: u64) -> Self {
        let shards = (memory / (LARGEST_PER_SHARD * max_object.max(1))).clamp(1, SHARDS_MAX);
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .estimated_items_capacity(usize::try_from(memory / USUAL_PAGE).unwrap_or_default().clamp(16, 1 << 20))
            .weight_capacity(memory)
            .build();
        let options = options.expect("capacity and number of items are given");
        Self {
            pages: Cache::with_options(options, PageWeight, RandomState::default(), DefaultLifecycle::default()),
            writing: Mutex::default(),
            generation: AtomicU64::default(),
            epoch: AtomicU64::default(),
            under_way: Mutex::default(),
            counts: Default::default(),
            background: AtomicUsize::default(),
            memory,
            max_object,
        }
    }

    /// Returns the page of a key.
    #[must_use]
    pub fn page(&self, key: &[u8]) -> Option<Arc<CachedPage>> {
        self.pages.get(key)
    }

    /// The same, without a trace: the page counts as unread.
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Option<Arc<CachedPage>> {
        self.pages.peek(key)
    }

    /// Returns the response for a request.
    #[must_use]
    pub fn find(&self, key: &[u8], request: &Fields) -> Option<Arc<StoredResponse>> {
        self.pages.get(key)?.find(request).cloned()
    }

    /// The number of purges and changes so far.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The number of soft purges of everything so far.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The bounds in bytes: of all, and of a body.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        (self.memory, self.max_object)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a response, unless something was purged or changed since `generation`.
    pub fn put(&self, key: &[u8], stored: Arc<StoredResponse>, generation: u64) -> bool {
        let _writing = self.writing();
        if self.generation() != generation {
            return false;
        }
        let page = self.pages.peek(key).unwrap_or_default().with(stored);
        self.pages.insert(key.into(), Arc::new(page));
        true
    }

    /// Removes one response.
    pub fn remove(&self, key: &[u8], stored: &Arc<StoredResponse>) {
        let _writing = self.writing();
        self.remove_from(key, |one| std::ptr::eq(one, Arc::as_ptr(stored)));
    }

    fn remove_from(&self, key: &[u8], drops: impl Fn(&StoredResponse) -> bool) {
        let Some(page) = self.pages.peek(key) else { return };
        match page.without(drops) {
            Some(left) if left.variants().len() < page.variants().len() => {
                self.pages.insert(key.into(), Arc::new(left));
            }
            Some(_) => {}
            None => _ = self.pages.remove(key),
        }
    }

    /// Requires validation of all variants of a key: an unsafe method has changed it.
    pub fn invalidate(&self, key: &[u8]) {
        let _writing = self.writing();
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut under_way = self.under_way();
        under_way.fillings.remove(key);
        under_way.refused.remove(key);
        drop(under_way);
        if let Some(page) = self.pages.peek(key) {
            page.variants().iter().for_each(|stored| stored.invalidate());
        }
    }

    /// Purges. A soft purge keeps the responses for the time that the origin fails. Returns the number of responses;
    /// for a soft purge of the site, of those that are stored.
    pub fn purge(&self, purge: &PurgeScope, is_soft: bool) -> usize {
        let _writing = self.writing();
        self.generation.fetch_add(1, Ordering::AcqRel);
        let mut under_way = self.under_way();
        under_way.fillings.clear();
        under_way.refused.clear();
        drop(under_way);
        let matches = |key: &[u8], stored: &StoredResponse| {
            let (authority, target) = key::parts(key);
            match purge {
                PurgeScope::Site => true,
                PurgeScope::Url(host, wanted) => authority == host && target == wanted,
                PurgeScope::Prefix(host, path) => authority == host && key::is_below(target, path),
                PurgeScope::Tag(tag) => stored.head.tags.iter().any(|own| **own == **tag),
            }
        };
        if *purge == PurgeScope::Site && is_soft {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            return self.pages.len();
        }
        let mut count = 0;
        let mut touched = Vec::new();
        for (key, page) in self.pages.iter() {
            let hits = page.variants().iter().filter(|stored| matches(&key, stored));
            let hits = hits.inspect(|stored| stored.invalidate()).count();
            count += hits;
            if hits > 0 && !is_soft {
                touched.push(key);
            }
        }
        for key in touched {
            self.remove_from(&key, |stored| matches(&key, stored));
        }
        count
    }

    /// Finds a request's place.
    #[must_use]
    pub fn join(&self, key: &[u8], uptime: u64) -> Join {
        let mut under_way = self.under_way();
        if under_way.refused.get(key).is_some_and(|(_, until)| uptime < *until) {
            return Join::Alone;
        }
        if let Some(filling) = under_way.fillings.get(key) {
            return if filling.follow() { Join::Follow(filling.clone()) } else { Join::Alone };
        }
        if under_way.fillings.len() >= FILLINGS_MAX {
            return Join::Alone;
        }
        let filling = Filling::new(self.max_object);
        under_way.fillings.insert(key.into(), filling.clone());
        Join::Lead(filling)
    }

    /// Ends the place of a request that leads, if its outcome says all that others wait for.
    pub fn leave_if_over(&self, key: &[u8], filling: &Arc<Filling>, outcome: &Outcome) {
        if !matches!(outcome, Outcome::Streams(..)) {
            self.leave(key, filling);
        }
    }

    /// Ends the place of a request that leads. Requests that come later ask anew.
    pub fn leave(&self, key: &[u8], filling: &Arc<Filling>) {
        let mut under_way = self.under_way();
        if under_way.fillings.get(key).is_some_and(|own| Arc::ptr_eq(own, filling)) {
            under_way.fillings.remove(key);
        }
    }

    /// Takes a place for a validation in the background; `None` if all are taken. The place is free again when it is
    /// dropped.
    #[must_use]
    pub fn background(self: &Arc<Self>) -> Option<BackgroundPlace> {
        let before = self.background.fetch_add(1, Ordering::AcqRel);
        let place = BackgroundPlace(self.clone());
        (before < BACKGROUND_MAX).then_some(place)
    }

    /// Notes that a key's responses cannot be shared: for a while, nobody waits for one.
    pub fn refuse(&self, key: &[u8], reason: NotStored, uptime: u64) {
        let mut under_way = self.under_way();
        if under_way.refused.len() >= REFUSED_MAX {
            under_way.refused.retain(|_, (_, until)| uptime < *until);
            if under_way.refused.len() >= REFUSED_MAX {
                under_way.refused.clear();
            }
        }
        under_way.refused.insert(key.into(), (reason, uptime + REFUSED_FOR));
    }

    /// Notes that a key's responses can be shared.
    pub fn accept(&self, key: &[u8]) {
        self.under_way().refused.remove(key);
    }

    /// Returns the reason why the last response of a key was not stored, if it is remembered.
    #[must_use]
    pub fn refusal(&self, key: &[u8]) -> Option<NotStored> {
        self.under_way().refused.get(key).map(|(reason, _)| *reason)
    }

    /// Counts an answer of a worker.
    pub fn count(&self, worker: usize, part: CachePart) {
        let at = CachePart::ALL.iter().position(|one| *one == part).unwrap_or_default();
        if let Some(count) = self.counts.get(worker % COUNTERS).and_then(|counts| counts.0.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts of all workers, in the order of [`CachePart::ALL`].
    #[must_use]
    pub fn counts(&self) -> [u64; CachePart::ALL.len()] {
        let mut sums = [0; CachePart::ALL.len()];
        for counts in &self.counts {
            for (sum, count) in sums.iter_mut().zip(&counts.0) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// The number of URLs, and the bytes that all of it takes.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        (self.pages.len(), self.pages.weight())
    }

    /// Returns keys and pages of a site, at most this many.
    #[must_use]
    pub fn pages(&self, most: usize) -> Vec<(Box<[u8]>, Arc<CachedPage>)> {
        self.pages.iter().take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::directives::Request;
    use super::super::freshness::ReceivedAt;
    use super::super::page::{ForRequest, HeadArrival, StoredHead, own_request};
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;

    fn stored(tag: &str, size: usize) -> Arc<StoredResponse> {
        let mut fields = Fields::default();
        fields.push(b"Cache-Control", b"max-age=60");
        fields.push(b"Cache-Tag", tag.as_bytes());
        let (directives, sent) = (Request::default(), Fields::default());
        let request = ForRequest { asked: &own_request(&directives), sent: &sent };
        let rules = crate::cache::CacheRules {
            profile: crate::cache::profile::CacheProfile::None,
            memory: 0,
            max_object: 0,
            times: crate::cache::freshness::TimeRules::default(),
            stale: crate::cache::reuse::Stale::default(),
            query: crate::cache::query::QueryRules::default(),
            honour: crate::cache::reuse::Honour::No,
            collapse_wait: std::time::Duration::ZERO,
            compresses: false,
        };
        let arrival = HeadArrival { received: ReceivedAt { at: 0, delay: 0 }, uptime: 0, epoch: 0 };
        let head = StoredHead::of(&rules, request, StatusCode::OK, &fields, arrival).unwrap();
        Arc::new(StoredResponse::new(Arc::new(head), Bytes::from(vec![0; size])))
    }

    fn key(target: &str) -> Vec<u8> {
        key::key(b"a.example", None, None, target.as_bytes())
    }

    fn filled() -> Store {
        let store = Store::new(16 << 20, 1 << 20);
        for (target, tag) in [("/a", "x"), ("/a/b", "x, y"), ("/ab", "y"), ("/c?d", "z")] {
            assert!(store.put(&key(target), stored(tag, 10), store.generation()));
        }
        store
    }

    fn has(store: &Store, target: &str) -> bool {
        store.find(&key(target), &Fields::default()).is_some()
    }

    #[test]
    fn purges() {
        let url = |target: &str| PurgeScope::Url(b"a.example".to_vec(), target.as_bytes().to_vec());
        let prefix = |path: &str| PurgeScope::Prefix(b"a.example".to_vec(), path.as_bytes().to_vec());
        for (purge, want) in [
            (url("/a"), vec!["/a"]),
            (url("/c"), vec![]),
            (url("/c?d"), vec!["/c?d"]),
            (prefix("/a"), vec!["/a", "/a/b"]),
            (prefix("/"), vec!["/a", "/a/b", "/ab", "/c?d"]),
            (PurgeScope::Tag(b"y".to_vec()), vec!["/a/b", "/ab"]),
            (PurgeScope::Tag(b"Y".to_vec()), vec![]),
            (PurgeScope::Url(b"b.example".to_vec(), b"/a".to_vec()), vec![]),
            (PurgeScope::Site, vec!["/a", "/a/b", "/ab", "/c?d"]),
        ] {
            let hard = filled();
            assert_eq!(hard.purge(&purge, false), want.len(), "{purge:?}");
            let soft = filled();
            assert_eq!(soft.purge(&purge, true), want.len(), "{purge:?}");
            for target in ["/a", "/a/b", "/ab", "/c?d"] {
                assert_eq!(has(&hard, target), !want.contains(&target), "{purge:?} {target}");
                let kept = soft.find(&key(target), &Fields::default()).unwrap();
                assert_eq!(kept.is_invalid(soft.epoch()), want.contains(&target), "{purge:?} {target}");
            }
        }
    }

    #[test]
    fn responses_that_were_asked_for_before_a_purge() {
        let store = filled();
        let before = store.generation();
        store.purge(&PurgeScope::Tag(b"none".to_vec()), false);
        assert!(!store.put(&key("/new"), stored("", 1), before) && !has(&store, "/new"));
        let before = store.generation();
        store.invalidate(&key("/other"));
        assert!(!store.put(&key("/new"), stored("", 1), before));
        assert!(store.put(&key("/new"), stored("", 1), store.generation()) && has(&store, "/new"));
        let one = store.find(&key("/new"), &Fields::default()).unwrap();
        store.remove(&key("/new"), &one);
        assert!(!has(&store, "/new"));
    }

    #[test]
    fn places() {
        let store = filled();
        let Join::Lead(first) = store.join(b"k", 0) else { panic!() };
        assert!(matches!(store.join(b"k", 0), Join::Follow(_)));
        store.leave(b"k", &Filling::new(0));
        assert!(matches!(store.join(b"k", 0), Join::Follow(_)), "another one's place");
        store.leave(b"k", &first);
        assert!(matches!(store.join(b"k", 0), Join::Lead(_)));
        store.refuse(b"p", NotStored::Private, 0);
        assert!(matches!(store.join(b"p", REFUSED_FOR - 1), Join::Alone));
        assert_eq!(store.refusal(b"p"), Some(NotStored::Private));
        assert!(matches!(store.join(b"p", REFUSED_FOR), Join::Lead(_)));
        for n in 0..2 * REFUSED_MAX {
            store.refuse(&n.to_be_bytes(), NotStored::Private, 0);
        }
        assert!(store.under_way().refused.len() <= REFUSED_MAX);
    }

    /// Scanners ask for each URL once. The pages that readers ask for stay.
    #[test]
    fn scanners_do_not_flush_the_store() {
        let store = Store::new(4 << 20, 64 << 10);
        let put = |target: &str| store.put(&key(target), stored("", 4096), store.generation());
        let hot: Vec<String> = (0..300).map(|n| format!("/hot/{n}")).collect();
        let read = || hot.iter().filter(|target| has(&store, target)).count();
        for target in &hot {
            put(target);
            assert!(has(&store, target));
        }
        read();
        for n in 0..20_000 {
            put(&format!("/scan/{n}"));
            if n % 500 == 0 {
                hot.iter().filter(|target| !has(&store, target)).for_each(|target| _ = put(target));
            }
        }
        assert!(read() >= 290, "{} of {}", read(), hot.len());
        assert!(store.size().1 <= 4 << 20, "{}", store.size().1);
    }

    #[test]
    fn counts_by_part() {
        let store = filled();
        for worker in [0, 1, COUNTERS] {
            store.count(worker, CachePart::Hit);
        }
        store.count(0, CachePart::Bypass);
        assert_eq!(store.counts(), [3, 0, 0, 0, 0, 1]);
    }
}
