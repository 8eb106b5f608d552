//! The cache of one site: its settings, and its store.

use std::sync::Arc;

use super::disk::{DiskService, SiteDisk, folder_for};
use super::encoded::EncodedBodies;
use super::rules::CacheRules;
use super::store::Store;

/// The cache of one site.
#[derive(Debug)]
pub struct SiteCache {
    /// Its settings.
    pub rules: Arc<CacheRules>,
    /// The source of stored responses, besides the rules: the upstream, and the names of the site.
    source: Box<str>,
    /// The part of the store on disk.
    pub disk: Option<Arc<SiteDisk>>,
    /// The responses. They outlive a reload that changes only times.
    pub store: Arc<Store>,
    /// Their compressed forms, if pintle compresses.
    pub encoded: Option<Arc<EncodedBodies>>,
}

impl SiteCache {
    /// Makes the cache of a site. Takes over the store of `before` if its responses would be the same. `source` names
    /// the upstream and the site's hosts. `service` runs the part on disk.
    #[must_use]
    pub fn new(
        rules: Arc<CacheRules>,
        source: String,
        before: Option<&Arc<Self>>,
        service: Option<&Arc<DiskService>>,
    ) -> Arc<Self> {
        let kept = before.filter(|before| *before.source == *source && rules.fits_store_of(&before.rules));
        let disk = Self::disk(&rules, &source, before, service);
        match kept {
            Some(kept) if kept.rules == rules => kept.clone(),
            Some(kept) => {
                let (store, encoded) = (kept.store.clone(), kept.encoded.clone());
                Arc::new(Self { rules, disk, source: source.into(), store, encoded })
            }
            None => {
                let store = Arc::new(Store::new(rules.memory, rules.max_object));
                let encoded = rules.compresses.then(|| Arc::new(EncodedBodies::new(rules.memory)));
                Arc::new(Self { rules, disk, source: source.into(), store, encoded })
            }
        }
    }

    /// The part on disk: the previous one, if its pages would be the same.
    fn disk(
        rules: &CacheRules,
        source: &str,
        before: Option<&Arc<Self>>,
        service: Option<&Arc<DiskService>>,
    ) -> Option<Arc<SiteDisk>> {
        let (service, bytes) = (service?, rules.disk_bytes()?);
        let source = format!("{source} {}", rules.source());
        let known = before.and_then(|before| before.disk.clone()).filter(|disk| disk.id() == folder_for(&source));
        Some(known.unwrap_or_else(|| SiteDisk::new(service, &source, bytes)))
    }

    /// Puts the part on disk into use, as these rules say. Nobody else uses its folder.
    pub fn open(&self) {
        if let (Some(disk), Some(bytes)) = (&self.disk, self.rules.disk_bytes()) {
            disk.limit(bytes);
            disk.open();
        }
        let attached = self.store.disk();
        if let Some(former) = attached.filter(|former| self.disk.as_ref().is_none_or(|own| own.id() != former.id())) {
            former.close();
        }
        self.store.attach(self.disk.clone());
    }
}
