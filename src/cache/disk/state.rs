//! The state of a site's files: the index, and the work that waits.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::index::DiskIndex;
use super::name::{FOLDERS, PageFileName, folder_of};
use crate::cache::page::StoredResponse;
use crate::cache::purge::PurgeScope;

/// The most purges that are remembered while the folder is looked through. More become one, of everything.
const PENDING_MAX: usize = 1024;

/// Responses that were read, each with the name of its file.
pub type Recalled = Arc<[(PageFileName, Arc<StoredResponse>)]>;
/// The end of a purge on disk; an error names what the disk refused.
pub type Settled = Result<(), String>;

/// A response to write.
#[derive(Debug, Clone)]
pub(super) struct WriteJob {
    pub(super) name: PageFileName,
    pub(super) key: Box<[u8]>,
    pub(super) stored: Arc<StoredResponse>,
}

/// Requests that wait for the files of a page.
#[derive(Debug)]
pub(super) struct RecallWait {
    /// The number of soft purges of the store.
    pub(super) epoch: u64,
    pub(super) waiters: Vec<oneshot::Sender<Recalled>>,
}

/// The index of the files, and the work that waits.
#[derive(Debug, Default)]
pub(super) struct DiskState {
    pub(super) index: DiskIndex,
    /// The folders that were looked through.
    pub(super) scanned: usize,
    /// Purges since the look through the folders began: for files that were not found yet. `true` for soft ones.
    pub(super) pending: Vec<(PurgeScope, bool)>,
    pub(super) queue: VecDeque<WriteJob>,
    pub(super) queued: u64,
    /// The response that is being written. `true` if it is to be removed again.
    pub(super) current: Option<(WriteJob, bool)>,
    pub(super) removals: Vec<PageFileName>,
    pub(super) marks: Vec<PageFileName>,
    /// Removals and marks that the disk has refused. They are tried again with each other work.
    pub(super) refused: Vec<PageFileName>,
    pub(super) refused_marks: Vec<PageFileName>,
    /// The folders with removals that may not survive a loss of power yet.
    pub(super) unsynced: BTreeSet<usize>,
    /// The number of soft purges of the site in the folder, once it was read, and those since.
    pub(super) epoch: Option<u64>,
    pub(super) bumps: u64,
    /// Of these, those that are in the folder, and those that the disk was asked to note.
    pub(super) epoch_written: u64,
    pub(super) epoch_tried: u64,
    pub(super) waiters: Vec<oneshot::Sender<Settled>>,
    pub(super) recalls: HashMap<Box<[u8]>, RecallWait>,
    /// The site has its place in the line for the thread that writes.
    pub(super) is_enlisted: bool,
    /// This process uses the folder.
    pub(super) is_open: bool,
    /// The uptime before which nothing is written, and the length of that pause.
    pub(super) resume_at: u64,
    pub(super) pause: u64,
}

impl DiskState {
    /// `true` if the folder of a page was looked through.
    pub(super) fn is_scanned(&self, page: [u64; 2]) -> bool {
        folder_of(page) < self.scanned
    }

    pub(super) fn is_wholly_scanned(&self) -> bool {
        self.scanned >= FOLDERS
    }

    /// The number of soft purges of the site.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.unwrap_or_default().wrapping_add(self.bumps)
    }

    /// `true` if there is something to do for the thread that writes.
    pub(super) fn has_work(&self) -> bool {
        let is_tidy = self.removals.is_empty() && self.marks.is_empty() && self.epoch_tried == self.bumps;
        // Another process looks through a folder that this one has left.
        let is_scanned = self.is_wholly_scanned() || !self.is_open;
        let is_done = is_tidy && self.queue.is_empty() && self.waiters.is_empty() && is_scanned;
        !is_done
    }

    /// Ends the place in line. Returns `true` if there is more to do.
    pub(super) fn rests(&mut self, is_too_large: bool) -> bool {
        self.is_enlisted = is_too_large || self.has_work();
        self.is_enlisted
    }

    /// Drops what was written of these, and what waits to be written.
    pub(super) fn drop_all(&mut self, found: &[PageFileName], is_meant: impl Fn(PageFileName, &WriteJob) -> bool) {
        for name in found {
            self.index.remove(*name);
        }
        self.removals.extend_from_slice(found);
        let queued = &mut self.queued;
        self.queue.retain(|job| {
            let stays = !is_meant(job.name, job);
            *queued -= if stays { 0 } else { job.stored.body.len() as u64 };
            stays
        });
        if let Some((job, is_over)) = &mut self.current {
            *is_over |= is_meant(job.name, job);
        }
    }

    pub(super) fn mark_all(&mut self, found: &[PageFileName], is_meant: impl Fn(&WriteJob) -> bool) {
        for name in found {
            if let Some(entry) = self.index.get_mut(*name).filter(|entry| !entry.is_invalid) {
                entry.is_invalid = true;
                self.marks.push(*name);
            }
        }
        let current = self.current.iter().map(|(job, _)| job);
        self.queue.iter().chain(current).filter(|job| is_meant(job)).for_each(|job| job.stored.invalidate());
    }

    pub(super) fn remember(&mut self, scope: &PurgeScope, is_soft: bool) {
        let new = (scope.clone(), is_soft);
        if self.is_wholly_scanned() || self.pending.contains(&new) {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            let is_soft = self.pending.iter().all(|(_, soft)| *soft) && is_soft;
            self.pending = vec![(PurgeScope::Site, is_soft)];
        } else {
            self.pending.push(new);
        }
    }
}
