//! Pages that are on disk and not in memory: after a restart, or since memory is small.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::super::asked::Turn;
use super::super::cache_request::CacheRequest;
use crate::cache::SiteCache;
use crate::cache::page::CachedPage;

/// The longest wait for the disk. A slow one is left alone for a while.
const WAIT: Duration = Duration::from_secs(2);

/// `true` if the disk may have what memory lacks.
pub(super) fn may_have(cache: &SiteCache, wanted: &CacheRequest, held: Option<&CachedPage>, turn: &Turn<'_>) -> bool {
    let uptime = turn.context.worker.clock.uptime();
    cache.disk.as_ref().is_some_and(|disk| disk.may_have(&wanted.key, held, uptime))
}

/// Reads the responses of a page. Returns the page as it is in memory then.
pub(super) async fn recall(cache: &SiteCache, wanted: &CacheRequest, turn: &Turn<'_>) -> Option<CachedPage> {
    let (store, alarm) = (&cache.store, turn.alarm);
    let disk = cache.disk.as_ref()?;
    let Some(answer) = disk.recall(&wanted.key, store.epoch()) else { return store.page(&wanted.key) };
    let mut answer = pin!(answer);
    alarm.set(WAIT);
    let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => alarm.poll_due(cx).map(|()| None),
    });
    match answered.await {
        Some(Ok(recalled)) => store.promote(&wanted.key, disk, &recalled),
        Some(Err(_)) => store.page(&wanted.key),
        None => {
            disk.was_slow(turn.context.worker.clock.uptime());
            store.page(&wanted.key)
        }
    }
}
