//! Replaced snapshots that may still be in use. The last holder has to drop them, and the tables of ten thousand sites take
//! longer to drop than a request may wait. So the control thread holds all of it until no worker does.

use std::any::Any;
use std::sync::Arc;

use super::snapshot::Snapshot;

/// Replaced snapshots, and their parts that connections hold for longer than a request.
#[derive(Default)]
pub(super) struct Retired(Vec<Arc<dyn Any + Send + Sync>>);

impl Retired {
    /// Takes a snapshot that has just been replaced.
    pub(super) fn take(&mut self, snapshot: Arc<Snapshot>) {
        let tls = std::iter::once(snapshot.tls.clone()).chain(snapshot.probe_tls.clone());
        let tls: Vec<_> = tls.map(|tls| tls as Arc<dyn Any + Send + Sync>).collect();
        let certificates = snapshot.certificates.clone();
        // In this order the drop of each one releases the next. A connection that keeps its TLS configuration does not keep
        // the rest of the snapshot.
        self.0.push(snapshot);
        self.0.extend(tls);
        self.0.push(certificates);
    }

    /// Drops what nobody else holds. A count of one cannot rise again, so that it is not out of date.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|held| Arc::strong_count(held) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_to_let_go() {
        let worker = Arc::new(5);
        let seen = Arc::downgrade(&worker);
        let mut retired = Retired::default();
        retired.0.push(worker.clone());
        retired.tidy();
        drop(worker);
        assert!(seen.upgrade().is_some(), "the worker's drop is not the last");
        retired.tidy();
        assert!(seen.upgrade().is_none());
    }
}
