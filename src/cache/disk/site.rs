//! The files of one site, as its store and the workers see them: what is there, and what shall become of it. Nothing here
//! touches the disk.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::name::{PageFileName, Sought, page_of};
use super::service::DiskService;
use super::state::{DiskState, RecallWait, Recalled, Settled, WriteJob};
use crate::cache::page::{CachedPage, StoredResponse, VARIANTS_MAX};
use crate::cache::purge::PurgeScope;
use crate::clock::boot::wall_millis;

/// The most responses of a site that wait to be written, and their bytes.
const QUEUE_MAX: usize = 256;
const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// The part of the budget that one file may take, as a divisor.
const FILE_PART: u64 = 4;
/// The most requests that wait for files of a site.
const WAITERS_MAX: usize = 4096;
/// The time for which a disk that was too slow is not asked, in milliseconds.
const SLOW_FOR: u64 = 10_000;

/// The files of one site.
pub struct SiteDisk {
    pub(super) service: Arc<DiskService>,
    /// The folder's name: of the sources of its pages.
    id: String,
    /// The bytes that all files may take.
    budget: AtomicU64,
    state: Mutex<DiskState>,
    /// The counts of reads, writes and faults.
    pub counts: DiskCounts,
    /// The uptime until which the disk is not asked.
    slow_until: AtomicU64,
}

/// Counts of reads, writes and faults, since the start.
#[derive(Debug, Default)]
pub struct DiskCounts {
    /// Responses written.
    pub written: AtomicU64,
    /// Responses not written, since too many waited or the disk refused.
    pub dropped: AtomicU64,
    /// Responses read.
    pub read: AtomicU64,
    /// Files that were damaged, or of another version.
    pub damaged: AtomicU64,
    /// Files that made room for others.
    pub evicted: AtomicU64,
    /// Operations that the disk refused.
    pub failed: AtomicU64,
}

/// Counts one more.
pub(super) fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Debug for SiteDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteDisk").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the name of the folder for pages from these sources.
#[must_use]
pub fn folder_for(source: &str) -> String {
    Sha256::digest(source.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl SiteDisk {
    /// Makes the part of a store that is on disk. It is used from [`Self::open`] on. `source` names what the pages are made
    /// from.
    #[must_use]
    pub fn new(service: &Arc<DiskService>, source: &str, budget: u64) -> Arc<Self> {
        Arc::new(Self {
            service: service.clone(),
            id: folder_for(source),
            budget: budget.into(),
            state: Mutex::default(),
            counts: DiskCounts::default(),
            slow_until: AtomicU64::default(),
        })
    }

    /// The name of its folder.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.service.folder().join(&self.id)
    }

    /// The bytes that all files may take.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// Changes that number.
    pub fn limit(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of files, and their bytes. `true` once all are known.
    #[must_use]
    pub fn size(&self) -> (usize, u64, bool) {
        let state = self.state();
        let (files, bytes) = state.index.size();
        (files, bytes, state.is_wholly_scanned())
    }

    /// The number of responses that wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.state();
        state.queue.len() + usize::from(state.current.is_some())
    }

    /// The number of files that a purge is for.
    #[must_use]
    pub fn files(&self, scope: &PurgeScope) -> usize {
        self.state().index.found(&Sought::of(scope)).len()
    }

    /// Begins to use the folder, which no other process uses: looks for files, reads and writes.
    pub fn open(self: &Arc<Self>) {
        let mut state = self.state();
        if !state.is_open {
            (state.is_open, state.scanned) = (true, 0);
            self.enlist(&mut state);
        }
    }

    /// `true` while this process uses the folder.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// Leaves the folder to another process. What waits to be written is still written.
    pub fn close(&self) {
        self.state().is_open = false;
    }

    /// Gives up what still waits to be written.
    pub fn give_up(&self) {
        let mut state = self.state();
        (state.queue, state.queued) = (VecDeque::new(), 0);
    }

    /// Puts the site in line for the thread that writes.
    pub(super) fn enlist(self: &Arc<Self>, state: &mut DiskState) {
        if !std::mem::replace(&mut state.is_enlisted, true) {
            self.service.enlist(self.clone());
        }
    }

    /// Has a response written that was stored just now. If the disk is full, only one that was used again is worth another
    /// one's place.
    pub fn offer(self: &Arc<Self>, page_key: &[u8], stored: &Arc<StoredResponse>, is_new: bool) {
        let name = PageFileName::of(page_key, stored.head.variant());
        let mut state = self.state();
        // A purge that has marked a page in memory has been here, or comes yet.
        if !state.is_open || !is_new && stored.is_marked_invalid() {
            return;
        }
        let before = state.queue.iter().position(|job| job.name == name).and_then(|at| state.queue.remove(at));
        state.queued -= before.map_or(0, |job| job.stored.body.len() as u64);
        let (bytes, (_, held)) = (stored.body.len() as u64, state.index.size());
        let is_full = held + state.queued + bytes > self.budget();
        let is_unfit = bytes > self.budget() / FILE_PART || is_full && is_new && !state.index.has(name);
        let is_crowded = state.queued + bytes > QUEUE_BYTES_MAX && !state.queue.is_empty();
        if is_unfit || is_crowded || state.queue.len() >= QUEUE_MAX {
            // The old file must not outlive what has replaced it.
            if state.index.remove(name).is_some() {
                state.removals.push(name);
                self.enlist(&mut state);
            }
            if !is_unfit {
                count(&self.counts.dropped);
            }
            return;
        }
        state.queued += bytes;
        state.queue.push_back(WriteJob { name, key: page_key.into(), stored: stored.clone() });
        self.enlist(&mut state);
    }

    /// Notes the use of a response, for the choice of those that make room. Has it written if it is not on disk.
    pub fn used(self: &Arc<Self>, page_key: &[u8], stored: &Arc<StoredResponse>) {
        // A hit waits for nobody.
        let Ok(mut state) = self.state.try_lock() else { return };
        if !state.is_open {
            return;
        }
        let name = PageFileName::of(page_key, stored.head.variant());
        if let Some(entry) = state.index.get_mut(name) {
            entry.used = hours(wall_millis());
        } else if !state.queue.iter().any(|job| job.name == name) {
            drop(state);
            self.offer(page_key, stored, false);
        }
    }

    /// `true` if files of a page may hold a variant that this page in memory lacks.
    #[must_use]
    pub fn may_have(&self, page_key: &[u8], held: Option<&CachedPage>, uptime: u64) -> bool {
        if uptime < self.slow_until.load(Ordering::Relaxed) {
            return false;
        }
        let (page, state) = (page_of(page_key), self.state());
        if !state.is_open || held.is_some_and(|held| held.variants().len() >= VARIANTS_MAX) {
            return false;
        }
        if !state.is_scanned(page) {
            return true;
        }
        // Parts of a page are in memory only, and a whole page on disk is better.
        let variants = || held.into_iter().flat_map(CachedPage::variants).filter(|stored| stored.parts.is_none());
        let is_held = |name| variants().any(|stored| PageFileName::of(page_key, stored.head.variant()) == name);
        state.index.of_page(page).any(|(name, _)| !is_held(name))
    }

    /// Has the files of a page read; `None` if too many wait.
    #[must_use]
    pub fn recall(self: &Arc<Self>, page_key: &[u8], epoch: u64) -> Option<oneshot::Receiver<Recalled>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if let Some(wait) = state.recalls.get_mut(page_key) {
            if wait.waiters.len() >= WAITERS_MAX {
                return None;
            }
            wait.waiters.push(sender);
            return Some(receiver);
        }
        if !self.service.ask(self.clone(), page_key) {
            return None;
        }
        state.recalls.insert(page_key.into(), RecallWait { epoch, waiters: vec![sender] });
        Some(receiver)
    }

    /// Notes that the disk did not answer in time.
    pub fn was_slow(&self, uptime: u64) {
        self.slow_until.store(uptime + SLOW_FOR, Ordering::Relaxed);
    }

    /// `true` if a file that was read is still valid. It may have been marked meanwhile.
    #[must_use]
    pub fn confirms(&self, name: PageFileName, stored: &StoredResponse) -> bool {
        let mut state = self.state();
        let Some(entry) = state.index.get_mut(name) else { return false };
        if entry.is_invalid {
            stored.invalidate();
        }
        true
    }

    /// Drops a response.
    pub fn remove(self: &Arc<Self>, page_key: &[u8], stored: &StoredResponse) {
        let name = PageFileName::of(page_key, stored.head.variant());
        let mut state = self.state();
        if !state.is_scanned(name.page) {
            state.remember(&PurgeScope::page(page_key), false);
        }
        let found: &[PageFileName] = if state.index.has(name) { &[name] } else { &[] };
        state.drop_all(found, |queued, _| queued == name);
        self.enlist(&mut state);
    }

    /// Purges: at once for readers, and on disk once [`Self::settled`] says so. Returns the names of the files that it is
    /// for; for a soft purge of the site, none.
    pub fn purge(self: &Arc<Self>, scope: &PurgeScope, is_soft: bool) -> HashSet<PageFileName> {
        let sought = Sought::of(scope);
        let mut state = self.state();
        let is_meant = |job: &WriteJob| scope.covers(&job.key, job.stored.head.tags());
        let mut found = Vec::new();
        if is_soft && *scope == PurgeScope::Site {
            state.bumps = state.bumps.wrapping_add(1);
            state.mark_all(&found, is_meant);
        } else {
            found = state.index.found(&sought);
            match is_soft {
                true => state.mark_all(&found, is_meant),
                false => state.drop_all(&found, |_, job| is_meant(job)),
            }
            state.remember(scope, is_soft);
        }
        if state.has_work() {
            self.enlist(&mut state);
        }
        found.into_iter().collect()
    }

    /// Waits until everything that was asked for before is done on disk.
    pub fn settled(self: &Arc<Self>) -> oneshot::Receiver<Settled> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.waiters.push(sender);
        self.enlist(&mut state);
        receiver
    }
}

/// A time in hours since 1970.
pub(super) fn hours(millis: i64) -> u32 {
    u32::try_from(millis / 3_600_000).unwrap_or_default()
}
