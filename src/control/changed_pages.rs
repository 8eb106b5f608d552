//! Stored pages that the last requests to the old process of an upgrade change. The new process has stored them, too, and
//! hears of each change.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::spawn_blocking;

use super::Control;
use crate::cache::SiteCache;
use crate::cache::key::same_page;
use crate::cache::purge::PurgeScope;
use crate::config::Config;
use crate::handover::channel::ChannelError;
use crate::handover::{ChangedPages, Channel, HandedChange};
use crate::site::Site;

/// Time limit for telling changes: the new process reads at once.
const TELL: Duration = Duration::from_secs(2);
/// The most messages that wait to be applied.
pub(super) const HEARD_MAX: usize = 64;

/// The sites of a configuration that have a cache.
fn cached_sites(config: &Config) -> impl Iterator<Item = (&Site, &SiteCache)> {
    let snapshot = &config.snapshot;
    let caches = snapshot.sites.iter().zip(&snapshot.caches);
    caches.filter_map(|(site, cache)| Some((&**site, cache.as_deref()?)))
}

/// Notes changes of stored pages from now on: another process is about to store pages.
pub(super) fn note_changes(config: &Config) {
    cached_sites(config).for_each(|(_, cache)| cache.store.handed.begin());
}

/// Notes none any more: that process has failed.
pub(super) fn note_no_changes(config: &Config) {
    cached_sites(config).for_each(|(_, cache)| cache.store.handed.end());
}

/// Sends the successor the pages that have changed since the last call. Without a channel, it sends nothing.
pub(super) async fn send_changes(config: &Config, successor: &mut Option<Channel>) {
    let changed = cached_sites(config).filter_map(|(site, cache)| {
        let changes = cache.store.handed.take();
        (!changes.is_empty()).then(|| ChangedPages { site: site.name.to_string(), changes })
    });
    let changed: Vec<ChangedPages> = changed.collect();
    if changed.is_empty() {
        return;
    }
    let Some(mut channel) = successor.take() else { return };
    let telling = spawn_blocking(move || {
        changed.iter().try_for_each(|pages| channel.send(pages, &[], TELL))?;
        Ok::<Channel, ChannelError>(channel)
    });
    let error = match telling.await {
        Ok(Ok(channel)) => {
            *successor = Some(channel);
            return;
        }
        // A version without this message has closed its end.
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    tracing::warn!(
        error,
        hint = "run `pintle purge --site HOST --soft` for sites with a cache",
        "the new process does not hear which stored pages the last requests have changed"
    );
}

/// Hears of changes until the old process ends, on a thread of its own.
pub(super) fn hear_changes(channel: Arc<Mutex<Channel>>, heard: Sender<ChangedPages>) {
    let hearing = thread::Builder::new().name("changed-pages".to_owned()).spawn(move || {
        let mut channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(pages) = channel.receive::<ChangedPages>(None, None) {
            if heard.blocking_send(pages).is_err() {
                break;
            }
        }
    });
    if let Err(error) = hearing {
        tracing::error!(%error, "cannot hear which stored pages the old process changes");
    }
}

/// Completes when the old process has changed pages.
pub(super) async fn heard_changes(heard: &mut Option<Receiver<ChangedPages>>) -> ChangedPages {
    if let Some(receiver) = heard
        && let Some(pages) = receiver.recv().await
    {
        return pages;
    }
    *heard = None;
    std::future::pending().await
}

impl Control {
    /// Requires validation of pages that the old process has changed.
    pub(super) fn apply_changes(&self, pages: &ChangedPages) {
        let ChangedPages { site: name, changes } = pages;
        tracing::debug!(site = name, changes = changes.len(), "the old process has changed stored pages");
        // In a new configuration, the site may have another first name.
        let is_known = cached_sites(&self.config).any(|(site, _)| *site.name == **name);
        let meant = cached_sites(&self.config).filter(|(site, _)| !is_known || *site.name == **name);
        for (site, cache) in meant {
            for change in changes {
                match change {
                    HandedChange::Page(key) => cache.store.invalidate(key, &same_page(key, &site.hosts, true)),
                    HandedChange::Group(origin, group) => {
                        _ = cache.store.purge(&PurgeScope::Group(origin.clone(), group.clone()), true);
                    }
                    HandedChange::All => _ = cache.store.purge(&PurgeScope::Site, true),
                }
            }
        }
    }
}
