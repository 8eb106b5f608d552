//! The caches of the sites, for the operator: what they hold, and purges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{Instant, timeout};

use super::Control;
use super::admin::{CacheCall, PurgeReply};
use crate::admin::api::Answer;
use crate::cache::SiteCache;
use crate::cache::disk::{Settled, SiteDisk};
use crate::cache::page::CachedPage;
use crate::cache::purge::PurgeScope;
use crate::cache::store::CachePart;
use crate::clock::uptime;
use crate::config::Config;
use crate::message::{RequestHead, TargetScheme};
use crate::reason::Reason;
use crate::telemetry::exposition::{Exposition, Labels, Values};

/// The most variants of a URL that an answer lists.
const LISTED_MAX: usize = 64;

/// The longest wait of a purge for the disk.
const PURGE_WAIT: Duration = Duration::from_secs(20);
/// The longest wait for pages to be written before another process takes over, or before the end.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// Puts the stored pages on disk of a configuration into use. No other process uses them. `before` had others.
pub(super) fn open_disk(config: &Config, before: Option<&Config>) {
    let Some(service) = &config.disk else { return };
    let caches = || config.snapshot.caches.iter().flatten();
    caches().for_each(|cache| cache.open());
    let kept: Vec<String> = caches().filter_map(|cache| Some(cache.disk.as_ref()?.id().to_owned())).collect();
    for cache in before.iter().flat_map(|before| before.snapshot.caches.iter().flatten()) {
        cache.disk.iter().filter(|disk| !kept.iter().any(|id| id == disk.id())).for_each(|disk| disk.close());
        // A response under way may still end in a former store: what it brings may have been purged from the new one.
        if !caches().any(|kept| Arc::ptr_eq(&kept.store, &cache.store)) {
            cache.store.attach(None);
        }
    }
    service.keep(kept);
}

/// Leaves them to another process. What waits to be written is written meanwhile.
pub(super) fn close_disk(config: &Config) -> Option<JoinHandle<()>> {
    let service = config.disk.clone()?;
    let caches = config.snapshot.caches.iter().flatten();
    let disks: Vec<_> = caches.filter_map(|cache| cache.disk.clone()).collect();
    disks.iter().for_each(|disk| disk.close());
    Some(spawn_blocking(move || {
        if !service.settle(LEAVE_WAIT) {
            // The successor has the folder from now on.
            disks.iter().for_each(|disk| disk.give_up());
        }
    }))
}

/// Turns the outcome of a call into its answer.
pub(super) fn answer(outcome: Option<Result<Value, Reason>>) -> Answer {
    match outcome {
        Some(Ok(shown)) => Answer::json(StatusCode::OK, shown),
        Some(Err(reason)) => Answer::refused(StatusCode::BAD_REQUEST, &reason),
        None => Answer::gone(),
    }
}

/// A URL, in the form of requests.
fn read_url(url: &str) -> Result<RequestHead, Reason> {
    let wrong = |why: &str| Reason::new(format!("{url:?}: {why}")).hint("write it like https://blog.example.com/page");
    let scheme = url.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let http = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    let rest = match (scheme, http) {
        (Some(_), _) => &url[8..],
        (None, Some(_)) => &url[7..],
        (None, None) => return Err(wrong("not an http or https URL")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let mut head = RequestHead::default();
    head.set_authority(authority.as_bytes()).map_err(|_| wrong("the host is not valid"))?;
    head.read_target(target.as_bytes()).map_err(|_| wrong("the path is not valid"))?;
    head.drop_default_port(if http.is_some() { TargetScheme::Http } else { TargetScheme::Https });
    Ok(head)
}

fn authority(head: &RequestHead) -> Vec<u8> {
    head.authority().into_bytes()
}

/// The result of a purge.
struct PurgeAnswer {
    kind: &'static str,
    is_soft: bool,
    purged: usize,
    millis: f64,
}

impl PurgeAnswer {
    fn to_json(&self) -> Value {
        let Self { kind, is_soft, purged, millis } = self;
        json!({ "ok": true, "kind": kind, "soft": is_soft, "purged": purged, "duration_ms": millis })
    }
}

impl Control {
    /// The sites that have a cache, by their names.
    fn caches(&self) -> impl Iterator<Item = (&str, &SiteCache)> {
        let snapshot = &self.config.snapshot;
        let caches = snapshot.sites.iter().zip(&snapshot.caches);
        caches.filter_map(|(site, cache)| Some((&*site.name, cache.as_deref()?)))
    }

    /// The cache of the site with this host.
    fn cache_of(&self, host: &str) -> Result<(&str, &SiteCache), Reason> {
        let snapshot = &self.config.snapshot;
        let mut head = RequestHead::default();
        let known = head.set_authority(host.as_bytes()).ok().and_then(|()| snapshot.by_host.get(head.host_bytes()));
        let Some(index) = known else { return Err(Reason::new(format!("no site has the host {host:?}"))) };
        let name = snapshot.sites.get(*index).map(|site| &*site.name).unwrap_or_default();
        match snapshot.caches.get(*index).and_then(Option::as_deref) {
            Some(cache) => Ok((name, cache)),
            None => Err(Reason::new(format!("the site {name} has no cache"))
                .hint("add [site.cache] to it, then `pintle reload`")),
        }
    }

    /// Purges, and answers once it is done on disk, too.
    pub(super) fn purge(&self, call: &CacheCall, reply: PurgeReply) {
        let began = Instant::now();
        let (answer, caches) = match self.purge_memory(call) {
            Ok(purged) => purged,
            Err(reason) => {
                let _ = reply.send(Err(reason));
                return;
            }
        };
        let settling: Vec<oneshot::Receiver<Settled>> = caches.iter().map(SiteDisk::settled).collect();
        // A soft purge leaves pages for the time that the origin fails, and those of former sites are validated, too.
        let dropping = self.config.disk.as_ref().filter(|_| !call.is_soft).map(|service| service.drop_former());
        spawn_local(async move {
            let settled = timeout(PURGE_WAIT, async {
                if let Some(dropping) = dropping {
                    let _ = dropping.await;
                }
                for settled in settling {
                    settled.await.unwrap_or(Ok(()))?;
                }
                Ok::<(), String>(())
            });
            let failed = |why: &str| {
                let reason = Reason::new(format!("purged from memory, but not from disk: {why}"));
                Err(reason.hint("check state.directory, then purge again: a restart would bring the pages back"))
            };
            let _ = reply.send(match settled.await {
                Ok(Ok(())) => {
                    let millis = began.elapsed().as_secs_f64() * 1000.0;
                    Ok(PurgeAnswer { millis, ..answer }.to_json())
                }
                Ok(Err(why)) => failed(&why),
                Err(_) => failed("the disk did not answer in time"),
            });
        });
    }

    /// Purges what is in memory, and what is known of the disk.
    fn purge_memory(&self, call: &CacheCall) -> Result<(PurgeAnswer, Vec<Arc<SiteDisk>>), Reason> {
        let CacheCall { url, prefix, tag, site, is_soft } = call;
        let named = [url, prefix, tag].into_iter().flatten().count();
        let is_whole = named == 0 && site.is_some();
        if named != 1 && !is_whole {
            let reason = Reason::new("name one of url, prefix, tag and site");
            return Err(reason.command("pintle purge https://blog.example.com/page"));
        }
        let (kind, scope, caches) = if let Some(text) = url.as_ref().or(prefix.as_ref()) {
            let head = read_url(text)?;
            let (_, cache) = self.cache_of(head.host())?;
            if url.is_some() {
                let target = cache.rules.query.apply(head.target_bytes()).into_owned();
                ("url", PurgeScope::Url(authority(&head), target), vec![cache])
            } else {
                let path = head.path().as_bytes().to_vec();
                ("prefix", PurgeScope::Prefix(authority(&head), path), vec![cache])
            }
        } else {
            let caches: Vec<&SiteCache> = match site {
                Some(host) => vec![self.cache_of(host)?.1],
                None => self.caches().map(|(_, cache)| cache).collect(),
            };
            match tag {
                Some(tag) => ("tag", PurgeScope::Tag(tag.clone().into_bytes()), caches),
                None => ("site", PurgeScope::Site, caches),
            }
        };
        let disks: Vec<Arc<SiteDisk>> = caches.iter().filter_map(|cache| cache.disk.clone()).collect();
        if disks.iter().any(|disk| !disk.is_open()) {
            return Err(Reason::new("another process takes over the stored pages").hint("purge again in a moment"));
        }
        let purged = caches.iter().map(|cache| cache.store.purge(&scope, *is_soft)).sum();
        tracing::info!(kind, soft = *is_soft, purged, "cache purged");
        Ok((PurgeAnswer { kind, is_soft: *is_soft, purged, millis: 0.0 }, disks))
    }

    /// The caches, or what is stored of a URL.
    pub(super) fn cache(&self, call: &CacheCall) -> Result<Value, Reason> {
        match &call.url {
            Some(url) => self.cached_url(url),
            None => Ok(json!({ "caches": self.cache_summaries() })),
        }
    }

    /// Each cache in figures.
    pub(super) fn cache_summaries(&self) -> Vec<Value> {
        self.caches().map(|(name, cache)| summary(name, cache)).collect()
    }

    fn cached_url(&self, url: &str) -> Result<Value, Reason> {
        let head = read_url(url)?;
        let (name, cache) = self.cache_of(head.host())?;
        let target = cache.rules.query.apply(head.target_bytes());
        let scope = PurgeScope::Url(authority(&head), target.to_vec());
        let pages = cache.store.covered(&scope);
        let variants: Vec<Value> = pages.iter().flat_map(|page| variants(page, cache)).take(LISTED_MAX).collect();
        let bypassed = cache.rules.profile.bypasses(head.target_bytes());
        let why_not = match (variants.is_empty(), bypassed) {
            (false, _) => None,
            (true, true) => Some("path"),
            (true, false) => cache.store.under_way.refusal_of(&scope).map(|reason| reason.code()),
        };
        let on_disk = cache.disk.as_ref().map(|disk| disk.files(&scope));
        let key = format!("{}{}", head.authority(), String::from_utf8_lossy(&target));
        let stored = !variants.is_empty() || on_disk.is_some_and(|files| files > 0);
        Ok(json!({
            "site": name, "key": key, "stored": stored, "variants": variants, "on_disk": on_disk, "why_not": why_not,
        }))
    }

    /// Adds the figures of the caches.
    pub(super) fn cache_metrics(&self, metrics: &mut Exposition) {
        let caches: Vec<(&str, &SiteCache)> = self.caches().collect();
        let counts: Values = caches
            .iter()
            .flat_map(|(name, cache)| {
                let counts = CachePart::ALL.iter().zip(cache.store.counts());
                counts.map(|(part, count)| (Labels::new(&[("site", name), ("cache", part.name())]), count as f64))
            })
            .collect();
        metrics.counters(
            "cache_requests",
            "Answered requests of sites with a cache, by the cache's part in them.",
            &counts,
        );
        let each = |value: &dyn Fn(&SiteCache) -> f64| -> Values {
            caches.iter().map(|(name, cache)| (Labels::new(&[("site", name)]), value(cache))).collect()
        };
        metrics.gauges("cache_bytes", "Bytes in the store of a site.", &each(&|cache| cache.store.size().1 as f64));
        metrics.gauges("cache_urls", "URLs in the store of a site.", &each(&|cache| cache.store.size().0 as f64));
        let help = "The bytes that the store of a site may take.";
        metrics.gauges("cache_memory_bytes", help, &each(&|cache| cache.rules.memory as f64));
        self.disk_metrics(metrics);
    }

    /// Adds the figures of stored pages on disk.
    fn disk_metrics(&self, metrics: &mut Exposition) {
        let disks: Vec<(&str, &SiteDisk)> =
            self.caches().filter_map(|(name, cache)| Some((name, &**cache.disk.as_ref()?))).collect();
        let each = |value: &dyn Fn(&SiteDisk) -> f64| -> Values {
            disks.iter().map(|(name, disk)| (Labels::new(&[("site", name)]), value(disk))).collect()
        };
        let help = "Bytes of a site's stored pages on disk.";
        metrics.gauges("cache_disk_bytes", help, &each(&|disk| disk.size().1 as f64));
        let help = "The bytes that a site's stored pages may take on disk.";
        metrics.gauges("cache_disk_limit_bytes", help, &each(&|disk| disk.budget() as f64));
        metrics.gauges("cache_disk_files", "Stored responses of a site on disk.", &each(&|disk| disk.size().0 as f64));
        let counts: Values = disks
            .iter()
            .flat_map(|(name, disk)| {
                disk_counts(disk).map(|(what, count)| (Labels::new(&[("site", name), ("event", what)]), count as f64))
            })
            .collect();
        let help =
            "What happened to stored pages on disk: written, read, dropped (not written), evicted, damaged, failed.";
        metrics.counters("cache_disk_events", help, &counts);
        let is_failing = self.config.disk.as_ref().is_some_and(|service| service.is_failing());
        let help = "1 if the last attempt to write a stored page to disk has failed.";
        metrics.flag("cache_disk_failing", help, is_failing);
    }
}

/// The counts of the disk.
fn disk_counts(disk: &SiteDisk) -> [(&'static str, u64); 6] {
    let counts = &disk.counts;
    [
        ("written", &counts.written),
        ("read", &counts.read),
        ("dropped", &counts.dropped),
        ("evicted", &counts.evicted),
        ("damaged", &counts.damaged),
        ("failed", &counts.failed),
    ]
    .map(|(what, count)| (what, count.load(Ordering::Relaxed)))
}

/// The part on disk in figures; null if there is none.
fn disk_summary(cache: &SiteCache) -> Value {
    let Some(disk) = &cache.disk else { return Value::Null };
    let (files, bytes, is_known) = disk.size();
    let counts: serde_json::Map<String, Value> =
        disk_counts(disk).into_iter().map(|(what, count)| (what.to_owned(), count.into())).collect();
    json!({
        "files": files, "bytes": bytes, "limit": disk.budget(), "looked_through": is_known, "waiting": disk.waiting(),
        "events": counts,
    })
}

/// A cache in figures.
fn summary(name: &str, cache: &SiteCache) -> Value {
    let ((urls, bytes), counts) = (cache.store.size(), cache.store.counts());
    let count = |part: CachePart| {
        CachePart::ALL.iter().zip(counts).find(|(one, _)| **one == part).map_or(0, |(_, count)| count)
    };
    let served =
        count(CachePart::Hit) + count(CachePart::Stale) + count(CachePart::Collapsed) + count(CachePart::Validated);
    let looked = served + count(CachePart::Miss);
    let rate = (looked > 0).then(|| served as f64 / looked as f64);
    let counts: serde_json::Map<String, Value> =
        CachePart::ALL.iter().zip(counts).map(|(part, count)| (part.name().to_owned(), count.into())).collect();
    json!({
        "site": name, "urls": urls, "bytes": bytes, "memory": cache.rules.memory, "max_object": cache.rules.max_object,
        "requests": counts, "from_upstream": cache.store.reasons.all(), "hit_rate": rate, "disk": disk_summary(cache),
    })
}

fn variants(page: &CachedPage, cache: &SiteCache) -> Vec<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = page.variants().iter().take(LISTED_MAX).map(|stored| {
        let clock = stored.head.clock(uptime());
        let vary: serde_json::Map<String, Value> = stored
            .head
            .variant()
            .fields()
            .map(|(name, value)| (text(name), value.map_or(Value::Null, |value| text(value).into())))
            .collect();
        json!({
            "status": stored.head.status.as_u16(), "bytes": stored.body.len(), "age": clock.age, "ttl": clock.left(),
            "lifetime_from": stored.head.lifetime().basis.name(), "invalid": stored.is_invalid(cache.store.epoch()),
            "vary": vary, "tags": stored.head.tags().iter().map(|tag| text(tag)).collect::<Vec<_>>(),
        })
    });
    shown.collect()
}
