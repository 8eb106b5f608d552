//! The threads that read and write the files of all sites. Only they touch these files. A worker waits for them for two
//! seconds at most.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::sweep::sweep;

/// The most reads that wait for their thread.
const READS_MAX: usize = 256;
/// The time from one look for folders of former sites to the next.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// The interval at which [`DiskService::settle`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The files of a site, as these threads see them.
pub(super) trait DiskTask: Send + Sync + fmt::Debug {
    /// Does some of the work. Returns `true` if there is more.
    fn step(&self) -> bool;
    /// Reads the files of a page.
    fn read(self: Arc<Self>, key: &[u8]);
}

#[derive(Debug, Default)]
struct ServiceWork {
    /// Sites with work, each once.
    ready: VecDeque<Arc<dyn DiskTask>>,
    /// A step is under way.
    is_busy: bool,
    is_started: bool,
    is_ended: bool,
    /// The folders of sites.
    kept: Vec<String>,
    sweeps: bool,
    /// Purges that wait until all folders of former sites are removed.
    drops: Vec<oneshot::Sender<()>>,
}

type Reads = VecDeque<(Arc<dyn DiskTask>, Box<[u8]>)>;

/// The threads, and their work.
#[derive(Debug)]
pub struct DiskService {
    folder: PathBuf,
    work: Mutex<ServiceWork>,
    has_work: Condvar,
    reads: Mutex<Reads>,
    has_reads: Condvar,
    /// The disk refuses, and the log has it.
    is_failing: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskService {
    /// Makes a service for a folder. It begins with [`Self::keep`].
    #[must_use]
    pub fn new(folder: PathBuf) -> Arc<Self> {
        // The first call must come before the sandbox.
        let _ = crate::clock::boot::boot_id();
        Arc::new(Self {
            folder,
            work: Mutex::default(),
            has_work: Condvar::new(),
            reads: Mutex::default(),
            has_reads: Condvar::new(),
            is_failing: AtomicBool::default(),
        })
    }

    /// Returns the folder that has one for each site.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes the folders that belong to sites: others are removed after a while. Starts the threads.
    pub fn keep(self: &Arc<Self>, folders: Vec<String>) {
        let mut work = lock(&self.work);
        (work.kept, work.sweeps) = (folders, true);
        if !std::mem::replace(&mut work.is_started, true) {
            let (writer, reader) = (self.clone(), self.clone());
            let writer = thread::Builder::new().name("cache-write".to_owned()).spawn(move || writer.write());
            let reader = thread::Builder::new().name("cache-read".to_owned()).spawn(move || reader.read());
            if let Some(error) = writer.err().or_else(|| reader.err()) {
                tracing::error!(%error, "cannot start the threads of the cache: pages are kept in memory only");
            }
        }
        drop(work);
        self.has_work.notify_all();
    }

    /// Removes the folders of former sites: a purge does not look into them. They were marked when their sites went.
    pub fn drop_former(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.work).drops.push(sender);
        self.has_work.notify_all();
        receiver
    }

    /// Puts a site in line, which is not in it yet.
    pub(super) fn enlist(&self, task: Arc<dyn DiskTask>) {
        lock(&self.work).ready.push_back(task);
        self.has_work.notify_all();
    }

    /// Has the files of a page read; `false` if too many wait.
    pub(super) fn ask(&self, task: Arc<dyn DiskTask>, key: &[u8]) -> bool {
        let mut reads = lock(&self.reads);
        if reads.len() >= READS_MAX {
            return false;
        }
        reads.push_back((task, key.into()));
        drop(reads);
        self.has_reads.notify_one();
        true
    }

    fn write(&self) {
        let mut work = lock(&self.work);
        let mut swept_at = Instant::now();
        while !work.is_ended {
            let drops = std::mem::take(&mut work.drops);
            work.sweeps |= swept_at.elapsed() >= SWEEP_EVERY || !drops.is_empty();
            if std::mem::take(&mut work.sweeps) {
                swept_at = Instant::now();
                let kept = work.kept.clone();
                work.is_busy = true;
                drop(work);
                sweep(&self.folder, &kept, !drops.is_empty());
                drops.into_iter().for_each(|waiter| _ = waiter.send(()));
                work = lock(&self.work);
                work.is_busy = false;
            }
            let Some(task) = work.ready.pop_front() else {
                if work.drops.is_empty() {
                    let waited = self.has_work.wait_timeout(work, SWEEP_EVERY);
                    (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
                }
                continue;
            };
            work.is_busy = true;
            drop(work);
            let has_more = task.step();
            work = lock(&self.work);
            work.is_busy = false;
            if has_more {
                work.ready.push_back(task);
            }
        }
    }

    fn read(&self) {
        loop {
            let mut reads = lock(&self.reads);
            let (task, key) = loop {
                match reads.pop_front() {
                    Some(read) => break read,
                    None => reads = self.has_reads.wait(reads).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(reads);
            task.read(&key);
        }
    }

    /// Waits until all work is done, but not longer than this. Returns `false` if some is left.
    #[must_use]
    pub fn settle(&self, limit: Duration) -> bool {
        let begun = crate::clock::since_boot();
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            let work = lock(&self.work);
            if !work.is_started || work.ready.is_empty() && !work.is_busy {
                return true;
            }
            drop(work);
            if crate::clock::since_boot().saturating_sub(begun) >= limit {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the thread that writes.
    pub fn end(&self) {
        lock(&self.work).is_ended = true;
        self.has_work.notify_all();
    }

    /// Logs that the disk refuses, once.
    pub(super) fn fails(&self, error: &dyn fmt::Display) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let hint = "free space, or check the permissions of state.directory; pintle serves from memory meanwhile";
            tracing::warn!(folder = %self.folder.display(), %error, hint, "the cache cannot write to disk");
        }
    }

    /// Logs that it does no more, once.
    pub(super) fn works(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(folder = %self.folder.display(), "the cache writes to disk again");
        }
    }

    /// `true` if the last attempt to write has failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }
}
