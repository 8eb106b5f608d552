//! The store of a site: pages by key, bounded in bytes, and the responses that are still under way. All workers share it.
//! A hit takes the lock of one shard, for reading.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::RandomState;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::counts::PartCounts;
use super::disk::{PageFileName, Recalled, SiteDisk};
use super::filling::{Filling, FillingRoom, Outcome};

use super::page::{CachedPage, StoredHead, StoredResponse};
use super::partial::StoredParts;
use super::purge::PurgeScope;
use super::storing::NotStored;
use crate::message::Fields;

pub use super::counts::CachePart;

/// The size of a page that the tables are made for, in bytes.
const USUAL_PAGE: u64 = 16 << 10;
/// The most shards. Each has an equal part of the memory, and must have room for some of the largest pages.
const SHARDS_MAX: u64 = 16;
const LARGEST_PER_SHARD: u64 = 4;
/// The most keys that are remembered because their responses cannot be shared, and for how long, in milliseconds.
const REFUSED_MAX: usize = 4096;
const REFUSED_FOR: u64 = 10_000;
/// The most keys whose last change is remembered.
const CHANGES_MAX: usize = 1024;
/// The part of the memory that bodies under way may take besides, as a divisor; a body of the largest size always may.
const UNDER_WAY_PART: u64 = 2;
/// The most responses under way.
const FILLINGS_MAX: usize = 10_000;
/// The most keys with fields that responses vary by, and the most of these of a key.
const VARIED_MAX: usize = 4096;
const VARIED_NAMES_MAX: usize = 16;
/// The most validations in the background at the same time.
const BACKGROUND_MAX: usize = 64;

#[derive(Debug, Clone)]
struct PageWeight;

impl Weighter<Box<[u8]>, Arc<CachedPage>> for PageWeight {
    fn weight(&self, key: &Box<[u8]>, page: &Arc<CachedPage>) -> u64 {
        page.weight(key)
    }
}

/// The store of a site.
pub struct Store {
    pages: Cache<Box<[u8]>, Arc<CachedPage>, PageWeight, RandomState>,
    /// Held while a page is changed.
    writing: Mutex<()>,
    /// The number of purges and changes: a response that was asked for before is not stored, if it is one of those.
    generation: AtomicU64,
    /// Those that were for more than one key, or are forgotten, and the latest for each other key.
    changes: Mutex<Changes>,
    /// The number of soft purges of everything.
    epoch: AtomicU64,
    under_way: Mutex<UnderWay>,
    /// The memory for bodies under way.
    room: Arc<FillingRoom>,
    counts: PartCounts,
    /// Validations in the background.
    background: AtomicUsize,
    memory: u64,
    max_object: u64,
    /// The part that survives the process.
    disk: RwLock<Option<Arc<SiteDisk>>>,
}

/// Names of fields, in lower case.
pub type FieldNames = Arc<[Box<[u8]>]>;

/// The generations of changes.
#[derive(Debug, Default)]
struct Changes {
    of_many: u64,
    by_key: HashMap<Box<[u8]>, u64, RandomState>,
}

impl Changes {
    fn note(&mut self, key: &[u8], generation: u64) {
        if self.by_key.len() >= CHANGES_MAX {
            // Who was asked for before the oldest of these is not known any more.
            self.by_key.clear();
            self.of_many = generation;
        }
        self.by_key.insert(key.into(), generation);
    }

    fn note_many(&mut self, generation: u64) {
        self.by_key.clear();
        self.of_many = generation;
    }

    /// `true` if this key was changed after `generation`.
    fn is_changed(&self, key: &[u8], generation: u64) -> bool {
        self.of_many > generation || self.by_key.get(key).is_some_and(|changed| *changed > generation)
    }
}

#[derive(Debug, Default)]
struct UnderWay {
    fillings: HashMap<Box<[u8]>, Arc<Filling>, RandomState>,
    /// Keys whose responses could not be shared or stored, with the reason, and the uptime until which nobody waits.
    /// Without a reason, they are stored, and validated for each request.
    refused: HashMap<Box<[u8]>, (Option<NotStored>, u64), RandomState>,
    /// Fields of clients that responses vary by, and that the origin gets for this key only.
    varied: HashMap<Box<[u8]>, FieldNames, RandomState>,
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
            changes: Mutex::default(),
            epoch: AtomicU64::default(),
            under_way: Mutex::default(),
            room: FillingRoom::new((memory / UNDER_WAY_PART).max(max_object)),
            counts: Default::default(),
            background: AtomicUsize::default(),
            memory,
            max_object,
            disk: RwLock::default(),
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

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the store a part on disk, or takes it.
    pub fn attach(&self, disk: Option<Arc<SiteDisk>>) {
        *self.disk.write().unwrap_or_else(PoisonError::into_inner) = disk;
    }

    /// The part on disk.
    #[must_use]
    pub fn disk(&self) -> Option<Arc<SiteDisk>> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores a response, unless something was purged or changed since `generation`.
    pub fn put(&self, key: &[u8], stored: Arc<StoredResponse>, generation: u64) -> bool {
        let _writing = self.writing();
        if self.changes().is_changed(key, generation) {
            return false;
        }
        let page = self.pages.peek(key).unwrap_or_default().with(stored.clone());
        self.pages.insert(key.into(), Arc::new(page));
        if let Some(disk) = self.disk() {
            disk.offer(key, &stored, true);
        }
        true
    }

    /// Stores a part of a response: `range` of `total` bytes, with the others that are stored of it. A whole response stays.
    /// Returns `false` if it was not stored.
    pub fn put_part(
        &self,
        key: &[u8],
        head: &Arc<StoredHead>,
        ((range, total), data): ((Range<u64>, u64), &Bytes),
        generation: u64,
    ) -> bool {
        let _writing = self.writing();
        let page = self.pages.peek(key).unwrap_or_default();
        let mut same = page.variants().iter().filter(|held| held.head.variant == head.variant);
        let held = same.next();
        if self.changes().is_changed(key, generation) || held.is_some_and(|held| held.parts.is_none()) {
            return false;
        }
        let fits = |held: &&Arc<StoredResponse>| !held.is_invalid(self.epoch()) && held.head.has_tag_of(head);
        let before = held.filter(fits).and_then(|held| Some((held, held.parts.as_deref()?)));
        let together = before.filter(|(_, parts)| parts.total() == total);
        let together = together.and_then(|(held, parts)| parts.with(&held.body, range.clone(), data));
        let (parts, body) = together.unwrap_or_else(|| (StoredParts::new(range, total), data.clone()));
        let stored = Arc::new(match parts.is_whole() {
            true => StoredResponse::new(Arc::new(head.of_whole()), body),
            false => StoredResponse::in_parts(head.clone(), body, parts),
        });
        self.pages.insert(key.into(), Arc::new(page.with(stored.clone())));
        if let Some(disk) = self.disk().filter(|_| stored.parts.is_none()) {
            disk.offer(key, &stored, true);
        }
        true
    }

    /// Takes responses into memory that were read from disk. Returns the page with them.
    #[must_use]
    pub fn promote(&self, key: &[u8], disk: &Arc<SiteDisk>, recalled: &Recalled) -> Option<Arc<CachedPage>> {
        let _writing = self.writing();
        let before = self.pages.peek(key);
        let mut page = before.as_deref().cloned().unwrap_or_default();
        let count = page.variants().len();
        for (_, stored) in recalled.iter().filter(|(name, stored)| disk.confirms(*name, stored)) {
            if !page.variants().iter().any(|held| held.parts.is_none() && held.head.variant == stored.head.variant) {
                page = page.with(stored.clone());
            }
        }
        if page.variants().len() == count {
            return before;
        }
        let page = Arc::new(page);
        self.pages.insert(key.into(), page.clone());
        Some(page)
    }

    /// Notes the use of a response.
    pub fn used(&self, key: &[u8], stored: &Arc<StoredResponse>) {
        if let Some(disk) = self.disk().filter(|_| !stored.is_invalid(self.epoch())) {
            disk.used(key, stored);
        }
    }

    /// Removes one response.
    pub fn remove(&self, key: &[u8], stored: &Arc<StoredResponse>) {
        let _writing = self.writing();
        stored.withdraw();
        if let Some(disk) = self.disk() {
            disk.remove(key, stored);
        }
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
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes().note(key, generation);
        let mut under_way = self.under_way();
        under_way.fillings.remove(key);
        under_way.refused.remove(key);
        drop(under_way);
        if let Some(page) = self.pages.peek(key) {
            page.variants().iter().for_each(|stored| stored.invalidate());
        }
        if let Some(disk) = self.disk() {
            disk.purge(&PurgeScope::url(key), true);
        }
    }

    /// Purges. A soft purge keeps the responses for the time that the origin fails. Returns the number of responses;
    /// for a soft purge of the site, of those that are stored.
    pub fn purge(&self, purge: &PurgeScope, is_soft: bool) -> usize {
        let _writing = self.writing();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes().note_many(generation);
        let mut under_way = self.under_way();
        under_way.fillings.clear();
        under_way.refused.clear();
        drop(under_way);
        let on_disk = self.disk().map(|disk| disk.purge(purge, is_soft)).unwrap_or_default();
        if *purge == PurgeScope::Site && is_soft {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            let files = self.disk().map_or(0, |disk| disk.size().0);
            return self.pages.len().max(files);
        }
        let count = self.purge_memory(purge, is_soft, &on_disk) + on_disk.len();
        // Meanwhile, a hit may have had its page written anew: from here on, each is marked.
        self.disk().into_iter().for_each(|disk| _ = disk.purge(purge, is_soft));
        count
    }

    /// Purges what is in memory. Returns the number of responses that are not on disk, too.
    fn purge_memory(&self, purge: &PurgeScope, is_soft: bool, on_disk: &HashSet<PageFileName>) -> usize {
        let mut count = 0;
        let mut touched = Vec::new();
        let matches = |key: &[u8], stored: &StoredResponse| purge.covers(key, &stored.head.tags);
        for (key, page) in self.pages.iter() {
            let hits: Vec<_> = page.variants().iter().filter(|stored| matches(&key, stored)).collect();
            hits.iter().for_each(|stored| if is_soft { stored.invalidate() } else { stored.withdraw() });
            let is_there = |stored: &StoredResponse| {
                !on_disk.is_empty() && on_disk.contains(&PageFileName::of(&key, &stored.head.variant))
            };
            count += hits.iter().filter(|stored| !is_there(stored)).count();
            if !hits.is_empty() && !is_soft {
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
        let filling = self.filling();
        under_way.fillings.insert(key.into(), filling.clone());
        Join::Lead(filling)
    }

    /// Begins a response that nobody else waits for.
    #[must_use]
    pub fn filling(&self) -> Arc<Filling> {
        Filling::new(self.max_object, &self.room)
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
        self.ask_alone(key, Some(reason), uptime);
    }

    /// Notes that a key's responses are validated for each request: for a while, nobody waits for another one.
    pub fn validate_each(&self, key: &[u8], uptime: u64) {
        self.ask_alone(key, None, uptime);
    }

    fn ask_alone(&self, key: &[u8], reason: Option<NotStored>, uptime: u64) {
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
        self.under_way().refused.get(key).and_then(|(reason, _)| *reason)
    }

    /// Notes fields that a key's responses vary by, and that the origin did not get. Returns `false` if they are too many.
    pub fn vary(&self, key: &[u8], names: Vec<Box<[u8]>>) -> bool {
        let mut under_way = self.under_way();
        let mut all: Vec<_> = under_way.varied.get(key).map(|known| known.to_vec()).unwrap_or_default();
        all.extend(names);
        all.sort_unstable();
        all.dedup();
        if all.len() > VARIED_NAMES_MAX {
            return false;
        }
        if under_way.varied.len() >= VARIED_MAX && !under_way.varied.contains_key(key) {
            under_way.varied.clear();
        }
        under_way.varied.insert(key.into(), all.into());
        true
    }

    /// Returns the fields that [`Self::vary`] has noted.
    #[must_use]
    pub fn varied(&self, key: &[u8]) -> Option<FieldNames> {
        self.under_way().varied.get(key).cloned()
    }

    /// Requires validation of a response that the origin's answer to HEAD contradicts, on disk, too.
    pub fn contradicted(&self, key: &[u8], stored: &StoredResponse) {
        let _writing = self.writing();
        stored.invalidate();
        if let Some(disk) = self.disk() {
            disk.purge(&PurgeScope::url(key), true);
        }
    }

    /// Counts an answer of a worker.
    pub fn count(&self, worker: usize, part: CachePart) {
        self.counts.count(worker, part);
    }

    /// The counts of all workers, in the order of [`CachePart::ALL`].
    #[must_use]
    pub fn counts(&self) -> [u64; CachePart::ALL.len()] {
        self.counts.sums()
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
    use super::super::page::{ForRequest, HeadArrival, own_request};
    use super::*;
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
            disk: None,
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
        crate::cache::key::key(b"a.example", None, None, target.as_bytes())
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
        store.invalidate(&key("/new"));
        assert!(!store.put(&key("/new"), stored("", 1), before));
        let before = store.generation();
        store.invalidate(&key("/other"));
        assert!(store.put(&key("/new"), stored("", 1), before), "that was another page");
        for n in 0..CHANGES_MAX + 1 {
            store.invalidate(&key(&format!("/{n}")));
        }
        assert!(!store.put(&key("/new"), stored("", 1), before), "the first changes are forgotten");
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
        store.leave(b"k", &store.filling());
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
}
