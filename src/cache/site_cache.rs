//! The cache of one site: its settings, and its store.

use std::sync::Arc;

use super::encoded::EncodedBodies;
use super::rules::CacheRules;
use super::store::Store;

/// The cache of one site.
#[derive(Debug)]
pub struct SiteCache {
    /// Its settings.
    pub rules: Arc<CacheRules>,
    /// What stored responses were made from, besides the rules: the upstream, and the names of the site.
    source: Box<str>,
    /// The responses. They outlive a reload that changes only times.
    pub store: Arc<Store>,
    /// Their compressed forms, if pintle compresses.
    pub encoded: Option<Arc<EncodedBodies>>,
}

impl SiteCache {
    /// Makes the cache of a site. Takes over the store of `before` if its responses would be the same. `source` names
    /// the upstream and the site's hosts.
    #[must_use]
    pub fn new(rules: Arc<CacheRules>, source: String, before: Option<&Arc<Self>>) -> Arc<Self> {
        let kept = before.filter(|before| *before.source == *source && rules.fits_store_of(&before.rules));
        match kept {
            Some(kept) if kept.rules == rules => kept.clone(),
            Some(kept) => {
                let (store, encoded) = (kept.store.clone(), kept.encoded.clone());
                Arc::new(Self { rules, source: source.into(), store, encoded })
            }
            None => {
                let store = Arc::new(Store::new(rules.memory, rules.max_object));
                let encoded = rules.compresses.then(|| Arc::new(EncodedBodies::new(rules.memory)));
                Arc::new(Self { rules, source: source.into(), store, encoded })
            }
        }
    }
}
