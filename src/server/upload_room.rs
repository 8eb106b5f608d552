//! The room that buffered request bodies take, in all workers together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one body that are kept in memory: the uploads of forms and comments.
pub(super) const MEMORY_EACH: usize = 64 * 1024;
/// Files at the same time, in all workers together: each takes a file descriptor.
pub(super) const FILES_MAX: u64 = 512;

/// What the buffered bodies of all workers take.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Bytes in memory.
    pub(super) memory: AtomicU64,
    /// Bytes in files.
    pub(super) filed: AtomicU64,
    /// Files.
    pub(super) files: AtomicU64,
}

/// Takes `more` of what `most` allows. Returns `false` if that is not left.
pub(super) fn take(taken: &AtomicU64, more: u64, most: u64) -> bool {
    let sum = |now: u64| now.checked_add(more).filter(|sum| *sum <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

/// Gives back what was taken.
pub(super) fn give_back(taken: &AtomicU64, bytes: u64) {
    taken.fetch_sub(bytes, Ordering::Relaxed);
}
