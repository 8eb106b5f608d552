//! The memory and files of buffered request bodies, in all workers together, and the part of them for one network.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admission::ClientNetwork;

/// Bytes of one body that are kept in memory: the uploads of forms and comments.
pub(super) const MEMORY_EACH: usize = 64 * 1024;
/// Files at the same time, in all workers together: each takes a file descriptor.
pub(super) const FILES_MAX: u64 = 512;
/// The part of each budget that the bodies of one network may take, as a divisor.
const NETWORK_PART: u64 = 8;
/// The part that they may take with a body that is larger, as a divisor.
const LARGE_PART: u64 = 2;

/// The memory and files of the buffered bodies of all workers.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    taken: TakenBudget,
    /// The networks that have bodies here.
    by_network: Mutex<HashMap<ClientNetwork, Arc<NetworkBudget>>>,
}

impl Uploads {
    /// Counts a body of a network while the place lives.
    pub(super) fn enter(self: &Arc<Self>, network: ClientNetwork) -> UploadPlace {
        let mut networks = self.networks();
        let of_network = networks.entry(network).or_default().clone();
        // Changes under the lock only, as the entry does.
        of_network.bodies.fetch_add(1, Ordering::Relaxed);
        UploadPlace { uploads: self.clone(), network, of_network, is_large: AtomicBool::new(false) }
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<ClientNetwork, Arc<NetworkBudget>>> {
        self.by_network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A kind of budget.
#[derive(Debug, Clone, Copy)]
pub(super) enum UploadBudget {
    /// Bytes in memory.
    Memory,
    /// Bytes in files.
    Filed,
    /// Files.
    Files,
}

/// The part in use of each kind.
#[derive(Debug, Default)]
struct TakenBudget {
    memory: AtomicU64,
    filed: AtomicU64,
    files: AtomicU64,
}

impl TakenBudget {
    fn of(&self, kind: UploadBudget) -> &AtomicU64 {
        match kind {
            UploadBudget::Memory => &self.memory,
            UploadBudget::Filed => &self.filed,
            UploadBudget::Files => &self.files,
        }
    }
}

/// The memory and files of the bodies of one network.
#[derive(Debug, Default)]
struct NetworkBudget {
    bodies: AtomicU64,
    taken: TakenBudget,
    /// One of them takes more than the network's part.
    has_large: AtomicBool,
}

/// The reason why a piece is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverBudget {
    /// The budget of all is spent, or the disk does not take it.
    All,
    /// The network's part is spent.
    Network,
}

impl From<io::Error> for OverBudget {
    fn from(_: io::Error) -> Self {
        Self::All
    }
}

/// The place of one body among those of its network.
#[derive(Debug)]
pub(super) struct UploadPlace {
    uploads: Arc<Uploads>,
    network: ClientNetwork,
    of_network: Arc<NetworkBudget>,
    is_large: AtomicBool,
}

impl UploadPlace {
    /// Takes `more` of what `most` allows for all bodies together.
    pub(super) fn take(&self, kind: UploadBudget, more: u64, most: u64) -> Result<(), OverBudget> {
        if more == 0 {
            return Ok(());
        }
        let (all, own) = (self.uploads.taken.of(kind), self.of_network.taken.of(kind));
        if !take(all, more, most) {
            return Err(OverBudget::All);
        }
        let refused = match take(own, more, most / NETWORK_PART) {
            true => return Ok(()),
            // Or else a body that is larger than the part could never be sent.
            false if self.becomes_large() => match take(own, more, most / LARGE_PART) {
                true => return Ok(()),
                false => OverBudget::All,
            },
            false => OverBudget::Network,
        };
        give_back(all, more);
        Err(refused)
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, kind: UploadBudget, less: u64) {
        give_back(self.uploads.taken.of(kind), less);
        give_back(self.of_network.taken.of(kind), less);
    }

    /// Returns `true` if the body is the one of its network that may take more than the part.
    fn becomes_large(&self) -> bool {
        if !self.is_large.load(Ordering::Relaxed) && !self.of_network.has_large.swap(true, Ordering::Relaxed) {
            self.is_large.store(true, Ordering::Relaxed);
        }
        self.is_large.load(Ordering::Relaxed)
    }
}

impl Drop for UploadPlace {
    fn drop(&mut self) {
        if *self.is_large.get_mut() {
            self.of_network.has_large.store(false, Ordering::Relaxed);
        }
        let mut networks = self.uploads.networks();
        if self.of_network.bodies.fetch_sub(1, Ordering::Relaxed) == 1 {
            networks.remove(&self.network);
        }
    }
}

/// Takes `more` of what `most` allows. Returns `false` if that is not left.
fn take(taken: &AtomicU64, more: u64, most: u64) -> bool {
    let sum = |now: u64| now.checked_add(more).filter(|sum| *sum <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

fn give_back(taken: &AtomicU64, less: u64) {
    taken.fetch_sub(less, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, n].into())
    }

    #[test]
    fn a_network_has_its_part() {
        let uploads = Arc::new(Uploads::default());
        let places: Vec<_> = (0..3).map(|_| uploads.enter(network(1))).collect();
        let other = uploads.enter(network(2));
        let take = |n: usize, more| places[n].take(UploadBudget::Filed, more, 800);
        assert_eq!((take(0, 60), take(1, 40)), (Ok(()), Ok(())));
        // One of them may be larger, up to half of all.
        assert_eq!(
            (take(2, 200), take(0, 1), take(1, 1)),
            (Ok(()), Err(OverBudget::Network), Err(OverBudget::Network))
        );
        assert_eq!((take(2, 100), take(2, 1)), (Ok(()), Err(OverBudget::All)));
        // What was refused is not taken.
        assert_eq!(uploads.taken.filed.load(Ordering::Relaxed), 400);
        assert_eq!(other.take(UploadBudget::Filed, 100, 800), Ok(()));
        assert_eq!(other.take(UploadBudget::Files, 1, 0), Err(OverBudget::All), "a budget of nothing");
    }

    #[test]
    fn budget_and_places_are_given_back() {
        let uploads = Arc::new(Uploads::default());
        let (first, second) = (uploads.enter(network(1)), uploads.enter(network(1)));
        assert_eq!(first.take(UploadBudget::Memory, 300, 800), Ok(()));
        assert_eq!(second.take(UploadBudget::Memory, 1, 800), Err(OverBudget::Network));
        first.give_back(UploadBudget::Memory, 300);
        drop(first);
        assert_eq!(second.take(UploadBudget::Memory, 300, 800), Ok(()), "it may be the large one now");
        second.give_back(UploadBudget::Memory, 300);
        drop(second);
        assert!(uploads.networks().is_empty());
        assert_eq!(uploads.taken.memory.load(Ordering::Relaxed), 0);
    }
}
