//! The traffic of all sites, over reloads: a site keeps its counters as long as it keeps its first name.

use std::collections::HashMap;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::telemetry::SiteTraffic;

/// The counters of the sites of a snapshot, in their order, and of requests for no site.
pub(super) struct Traffic {
    workers: usize,
    current: Arc<[Arc<SiteTraffic>]>,
}

impl Traffic {
    /// Makes the counters for this number of workers.
    pub(super) fn new(workers: usize, snapshot: &Snapshot) -> Self {
        let new = |_| Arc::new(SiteTraffic::new(workers));
        Self { workers, current: (0..=snapshot.sites.len()).map(new).collect() }
    }

    /// Returns the counters, in the order of the sites; the last are those of requests for no site.
    pub(super) fn current(&self) -> Arc<[Arc<SiteTraffic>]> {
        self.current.clone()
    }

    /// Makes the counters of another snapshot.
    pub(super) fn follow(&mut self, before: &Snapshot, after: &Snapshot) {
        let known: HashMap<&str, &Arc<SiteTraffic>, foldhash::fast::RandomState> =
            before.sites.iter().map(|site| &*site.name).zip(self.current.iter()).collect();
        let new = || Arc::new(SiteTraffic::new(self.workers));
        let of_sites = after.sites.iter().map(|site| known.get(&*site.name).map_or_else(new, |same| (*same).clone()));
        let of_none = self.current.last().cloned();
        self.current = of_sites.chain(of_none).collect();
    }
}
