//! The store of a site: pages by key, bounded in bytes, and the responses that are still under way. All workers share it.
//! A hit takes the lock of one shard, for reading.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use super::counts::{PartCounts, ReasonCounts};
use super::disk::{PageFileName, Recalled, SiteDisk};

use super::changes::PageChanges;
use super::editors::KnownEditors;
use super::handed::HandedChanges;
use super::key::parts;
use super::page::{CachedPage, StoredResponse};
use super::page_key::{ByOwnHash, PageKey};
use super::partial::StoredParts;
use super::purge::PurgeScope;
use super::purge_pace::PurgePace;
use super::stored_head::StoredHead;
use super::under_way::UnderWay;
use crate::handover::HandedChange;
use crate::message::Fields;

pub use super::counts::CachePart;

/// The size of a page that the tables are made for, in bytes.
const USUAL_PAGE: u64 = 16 << 10;
/// The most shards. Each has an equal part of the memory, and must have room for some of the largest pages.
const SHARDS_MAX: u64 = 16;
const LARGEST_PER_SHARD: u64 = 4;
/// The most validations in the background at the same time.
const BACKGROUND_MAX: usize = 64;

#[derive(Debug, Clone)]
struct PageWeight;

impl Weighter<PageKey, CachedPage> for PageWeight {
    fn weight(&self, key: &PageKey, page: &CachedPage) -> u64 {
        page.weight(key)
    }
}

/// The store of a site.
pub struct Store {
    pages: Cache<PageKey, CachedPage, PageWeight, ByOwnHash>,
    /// The changes so far. Held while a page is changed.
    writing: Mutex<PageChanges>,
    /// The number of purges and changes: a response that was asked for before is not stored, if it is one of those.
    generation: AtomicU64,
    /// The number of soft purges of everything.
    epoch: AtomicU64,
    /// The responses under way, and what is known of their keys.
    pub under_way: UnderWay,
    /// The people who are logged in to the site's program.
    pub editors: KnownEditors,
    /// The pace of soft purges of everything.
    pub purge_pace: PurgePace,
    /// The changes that the next process has to hear of.
    pub handed: HandedChanges,
    counts: PartCounts,
    /// The reasons for answers that were not from the store.
    pub reasons: ReasonCounts,
    /// Validations in the background.
    background: AtomicUsize,
    memory: u64,
    max_object: u64,
    /// The part that survives the process.
    disk: RwLock<Option<Arc<SiteDisk>>>,
}

/// A place for a validation in the background.
#[derive(Debug)]
pub struct BackgroundPlace(Arc<Store>);

impl Drop for BackgroundPlace {
    fn drop(&mut self) {
        self.0.background.fetch_sub(1, Ordering::AcqRel);
    }
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
            pages: Cache::with_options(options, PageWeight, ByOwnHash::default(), DefaultLifecycle::default()),
            writing: Mutex::default(),
            generation: AtomicU64::default(),
            epoch: AtomicU64::default(),
            under_way: UnderWay::new(memory, max_object),
            editors: KnownEditors::default(),
            purge_pace: PurgePace::default(),
            handed: HandedChanges::default(),
            counts: Default::default(),
            reasons: ReasonCounts::default(),
            background: AtomicUsize::default(),
            memory,
            max_object,
            disk: RwLock::default(),
        }
    }

    /// Returns the page of a key.
    #[must_use]
    pub fn page(&self, key: &PageKey) -> Option<CachedPage> {
        self.pages.get(key)
    }

    /// The same, without a trace: the page counts as unread.
    #[must_use]
    pub fn peek(&self, key: &PageKey) -> Option<CachedPage> {
        self.pages.peek(key)
    }

    /// Returns the pages that a purge is for. Looks at every page.
    #[must_use]
    pub fn covered(&self, scope: &PurgeScope) -> Vec<CachedPage> {
        let is_meant =
            |key: &[u8], page: &CachedPage| page.variants().iter().any(|stored| scope.covers(key, stored.head.tags()));
        self.pages.iter().filter(|(key, page)| is_meant(key, page)).map(|(_, page)| page).collect()
    }

    /// Returns the response for a request.
    #[must_use]
    pub fn find(&self, key: &PageKey, request: &Fields) -> Option<Arc<StoredResponse>> {
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

    fn writing(&self) -> MutexGuard<'_, PageChanges> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub fn put(&self, key: &PageKey, stored: Arc<StoredResponse>, generation: u64) -> bool {
        let changes = self.writing();
        if changes.is_changed(key, generation) {
            return false;
        }
        let page = self.pages.peek(key).unwrap_or_default().with(stored.clone());
        self.pages.insert(key.clone(), page);
        if let Some(disk) = self.disk() {
            disk.offer(key, &stored, true);
        }
        true
    }

    /// Stores a part of a response: `range` of `total` bytes, with the others that are stored of it. A whole response stays.
    /// Returns `false` if it was not stored.
    pub fn put_part(
        &self,
        key: &PageKey,
        head: &StoredHead,
        ((range, total), data): ((Range<u64>, u64), &Bytes),
        generation: u64,
    ) -> bool {
        let changes = self.writing();
        let page = self.pages.peek(key).unwrap_or_default();
        let mut same = page.variants().iter().filter(|held| held.head.variant() == head.variant());
        let held = same.next();
        if changes.is_changed(key, generation) || held.is_some_and(|held| held.parts.is_none()) {
            return false;
        }
        let fits = |held: &&Arc<StoredResponse>| !held.is_invalid(self.epoch()) && held.head.has_tag_of(head);
        let before = held.filter(fits).and_then(|held| Some((held, held.parts.as_deref()?)));
        let together = before.filter(|(_, parts)| parts.total() == total);
        let together = together.and_then(|(held, parts)| parts.with(&held.body, range.clone(), data));
        let (parts, body) = together.unwrap_or_else(|| (StoredParts::new(range, total), data.clone()));
        let stored = Arc::new(match parts.is_whole() {
            true => StoredResponse::new(head.of_whole(), body),
            false => StoredResponse::in_parts(head.clone(), body, parts),
        });
        self.pages.insert(key.clone(), page.with(stored.clone()));
        if let Some(disk) = self.disk().filter(|_| stored.parts.is_none()) {
            disk.offer(key, &stored, true);
        }
        true
    }

    /// Takes responses into memory that were read from disk. Returns the page with them.
    #[must_use]
    pub fn promote(&self, key: &PageKey, disk: &Arc<SiteDisk>, recalled: &Recalled) -> Option<CachedPage> {
        let _writing = self.writing();
        let before = self.pages.peek(key);
        let mut page = before.clone().unwrap_or_default();
        let count = page.variants().len();
        for (_, stored) in recalled.iter().filter(|(name, stored)| disk.confirms(*name, stored)) {
            if !page.variants().iter().any(|held| held.parts.is_none() && held.head.variant() == stored.head.variant())
            {
                page = page.with(stored.clone());
            }
        }
        if page.variants().len() == count {
            return before;
        }
        self.pages.insert(key.clone(), page.clone());
        Some(page)
    }

    /// Notes the use of a response.
    pub fn used(&self, key: &[u8], stored: &Arc<StoredResponse>) {
        if let Some(disk) = self.disk().filter(|_| !stored.is_invalid(self.epoch())) {
            disk.used(key, stored);
        }
    }

    /// Removes one response.
    pub fn remove(&self, key: &PageKey, stored: &Arc<StoredResponse>) {
        let _writing = self.writing();
        stored.withdraw();
        if let Some(disk) = self.disk() {
            disk.remove(key, stored);
        }
        self.remove_from(key, |one| std::ptr::eq(one, Arc::as_ptr(stored)));
    }

    fn remove_from(&self, key: &PageKey, drops: impl Fn(&StoredResponse) -> bool) {
        let Some(page) = self.pages.peek(key) else { return };
        match page.without(drops) {
            Some(left) if left.variants().len() < page.variants().len() => {
                self.pages.insert(key.clone(), left);
            }
            Some(_) => {}
            None => _ = self.pages.remove(key),
        }
    }

    /// Requires validation of all variants of a page: an unsafe method has changed it. `others` are
    /// its keys under other names of the site.
    pub fn invalidate(&self, key: &[u8], others: &[Vec<u8>]) {
        let mut changes = self.writing();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        changes.note(key, !others.is_empty(), generation);
        self.handed.note(|| HandedChange::Page(key.to_vec()));
        let all = || std::iter::once(key).chain(others.iter().map(Vec::as_slice));
        for key in all().map(PageKey::of) {
            self.under_way.forget(&key);
            if let Some(page) = self.pages.peek(&key) {
                page.variants().iter().for_each(|stored| stored.invalidate());
            }
        }
        if let Some(disk) = self.disk() {
            // The name that a proxy states does not matter there.
            let asked: HashSet<&[u8]> = all().map(|key| parts(key).0).collect();
            let scopes = asked.into_iter().map(|asked| PurgeScope::Page(asked.to_vec(), parts(key).1.to_vec()));
            scopes.for_each(|scope| _ = disk.purge(&scope, true));
        }
    }

    /// Purges. A soft purge keeps the responses for the time that the origin fails. Returns the number of responses;
    /// for a soft purge of the site, of those that are stored.
    pub fn purge(&self, purge: &PurgeScope, is_soft: bool) -> usize {
        let mut changes = self.writing();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        changes.note_many(generation);
        self.handed.note(|| match purge {
            PurgeScope::Group(origin, group) => HandedChange::Group(origin.clone(), group.clone()),
            _ => HandedChange::All,
        });
        self.under_way.forget_all();
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
        let matches = |key: &[u8], stored: &StoredResponse| purge.covers(key, stored.head.tags());
        for (key, page) in self.pages.iter() {
            let hits: Vec<_> = page.variants().iter().filter(|stored| matches(&key, stored)).collect();
            hits.iter().for_each(|stored| if is_soft { stored.invalidate() } else { stored.withdraw() });
            let is_there = |stored: &StoredResponse| {
                !on_disk.is_empty() && on_disk.contains(&PageFileName::of(&key, stored.head.variant()))
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

    /// Takes a place for a validation in the background; `None` if all are taken. The place is free again when it is
    /// dropped.
    #[must_use]
    pub fn background(self: &Arc<Self>) -> Option<BackgroundPlace> {
        let before = self.background.fetch_add(1, Ordering::AcqRel);
        let place = BackgroundPlace(self.clone());
        (before < BACKGROUND_MAX).then_some(place)
    }

    /// Requires validation of a response that the origin's answer to HEAD contradicts, on disk, too.
    pub fn contradicted(&self, key: &[u8], stored: &StoredResponse) {
        let _writing = self.writing();
        stored.invalidate();
        if let Some(disk) = self.disk() {
            disk.purge(&PurgeScope::page(key), true);
        }
    }

    /// Counts an answer of a worker. `why` is the reason if it is not from the store.
    pub fn count(&self, worker: usize, part: CachePart, why: Option<&'static str>) {
        self.counts.count(worker, part);
        if let (CachePart::Miss | CachePart::Bypass, Some(why)) = (part, why) {
            self.reasons.count(why);
        }
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
    pub fn pages(&self, most: usize) -> Vec<(PageKey, CachedPage)> {
        self.pages.iter().take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::directives::Request;
    use super::super::freshness::ReceivedAt;
    use super::super::stored_head::{ForRequest, HeadArrival, own_request};
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
        Arc::new(StoredResponse::new(head, Bytes::from(vec![0; size])))
    }

    fn key(target: &str) -> PageKey {
        PageKey::of_page(b"a.example", None, None, target.as_bytes())
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
            (PurgeScope::Group(b"a.example".to_vec(), b"x".to_vec()), vec!["/a", "/a/b"]),
            (PurgeScope::Group(b"b.example".to_vec(), b"x".to_vec()), vec![]),
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
        store.invalidate(&key("/new"), &[]);
        assert!(!store.put(&key("/new"), stored("", 1), before));
        let before = store.generation();
        store.invalidate(&key("/other"), &[]);
        assert!(store.put(&key("/new"), stored("", 1), before), "that was another page");
        for n in 0..crate::cache::changes::CHANGES_MAX + 1 {
            store.invalidate(&key(&format!("/{n}")), &[]);
        }
        assert!(!store.put(&key("/new"), stored("", 1), before), "the first changes are forgotten");
        assert!(store.put(&key("/new"), stored("", 1), store.generation()) && has(&store, "/new"));
        let one = store.find(&key("/new"), &Fields::default()).unwrap();
        store.remove(&key("/new"), &one);
        assert!(!has(&store, "/new"));
    }

    #[test]
    fn a_page_that_has_changed_under_another_name() {
        let store = filled();
        let other = PageKey::of_page(b"www.a.example", None, None, b"/a");
        let third = PageKey::of_page(b"b.example", None, None, b"/a");
        let before = store.generation();
        store.invalidate(&other, &[key("/a").to_vec()]);
        let is_invalid = |target: &str| store.find(&key(target), &Fields::default()).unwrap().is_invalid(store.epoch());
        assert!(is_invalid("/a") && !is_invalid("/a/b"));
        // A response to an earlier request is not stored, under any name.
        for key in [&key("/a"), &other, &third] {
            assert!(!store.put(key, stored("", 1), before));
        }
        assert!(store.put(&key("/a"), stored("", 1), store.generation()));
        // Without other names, it is a change of this page only.
        let before = store.generation();
        store.invalidate(&other, &[]);
        assert!(!store.put(&other, stored("", 1), before) && store.put(&key("/a"), stored("", 1), before));
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
