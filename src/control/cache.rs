//! The caches of the sites, for the operator: what they hold, and purges.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Control;
use crate::admin::api::{Answer, Call};
use crate::admin::asked::parameter;
use crate::cache::page::CachedPage;
use crate::cache::store::{CachePart, PurgeScope};
use crate::cache::{SiteCache, key};
use crate::clock::uptime;
use crate::message::{RequestHead, TargetScheme};
use crate::reason::Reason;
use crate::telemetry::exposition::{Exposition, Labels, Values};

/// The most variants of a URL that an answer lists.
const LISTED_MAX: usize = 64;

/// A question or a command about caches.
#[derive(Debug)]
pub(super) struct CacheCall {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    site: Option<String>,
    is_soft: bool,
}

impl CacheCall {
    /// Reads the query of a call.
    pub(super) fn of(call: &Call) -> Self {
        let named = |name| parameter(&call.query, name).filter(|value| !value.is_empty());
        let is_soft = call.query.split('&').any(|part| part == "soft" || part == "soft=true");
        Self { url: named("url"), prefix: named("prefix"), tag: named("tag"), site: named("site"), is_soft }
    }
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

    /// Purges. Returns the number of responses.
    pub(super) fn purge(&self, call: &CacheCall) -> Result<Value, Reason> {
        let CacheCall { url, prefix, tag, site, is_soft } = call;
        let began = Instant::now();
        let named = [url, prefix, tag].into_iter().flatten().count();
        let is_whole = named == 0 && site.is_some();
        if named != 1 && !is_whole {
            let reason = Reason::new("name one of url, prefix, tag and site");
            return Err(reason.hint("pintle purge https://blog.example.com/page"));
        }
        let (kind, purged) = if let Some(text) = url.as_ref().or(prefix.as_ref()) {
            let head = read_url(text)?;
            let (_, cache) = self.cache_of(head.host())?;
            if url.is_some() {
                let target = cache.rules.query.apply(head.target_bytes()).into_owned();
                ("url", cache.store.purge(&PurgeScope::Url(authority(&head), target), *is_soft))
            } else {
                let path = head.path().as_bytes().to_vec();
                ("prefix", cache.store.purge(&PurgeScope::Prefix(authority(&head), path), *is_soft))
            }
        } else {
            let caches: Vec<&SiteCache> = match site {
                Some(host) => vec![self.cache_of(host)?.1],
                None => self.caches().map(|(_, cache)| cache).collect(),
            };
            let (kind, purge) = match tag {
                Some(tag) => ("tag", PurgeScope::Tag(tag.clone().into_bytes())),
                None => ("site", PurgeScope::Site),
            };
            (kind, caches.iter().map(|cache| cache.store.purge(&purge, *is_soft)).sum())
        };
        let millis = began.elapsed().as_secs_f64() * 1000.0;
        tracing::info!(kind, soft = *is_soft, purged, "cache purged");
        Ok(json!({ "ok": true, "kind": kind, "soft": is_soft, "purged": purged, "duration_ms": millis }))
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
        let key = key::key(head.host_bytes(), head.port(), None, &target);
        let page = cache.store.peek(&key);
        let variants = page.as_deref().map(|page| variants(page, cache)).unwrap_or_default();
        let bypassed = cache.rules.profile.bypasses(head.target_bytes());
        let why_not = match (variants.is_empty(), bypassed) {
            (false, _) => None,
            (true, true) => Some("path"),
            (true, false) => cache.store.refusal(&key).map(|reason| reason.code()),
        };
        let (authority, target) = key::parts(&key);
        let key = format!("{}{}", String::from_utf8_lossy(authority), String::from_utf8_lossy(target));
        Ok(
            json!({ "site": name, "key": key, "stored": !variants.is_empty(), "variants": variants, "why_not": why_not }),
        )
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
    }
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
        "requests": counts, "hit_rate": rate,
    })
}

fn variants(page: &CachedPage, cache: &SiteCache) -> Vec<Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = page.variants().iter().take(LISTED_MAX).map(|stored| {
        let clock = stored.head.clock(uptime());
        let vary: serde_json::Map<String, Value> = stored
            .head
            .variant
            .fields()
            .map(|(name, value)| (text(name), value.map_or(Value::Null, |value| text(value).into())))
            .collect();
        json!({
            "status": stored.head.status.as_u16(), "bytes": stored.body.len(), "age": clock.age, "ttl": clock.left(),
            "lifetime_from": stored.head.lifetime.basis.name(), "invalid": stored.is_invalid(cache.store.epoch()),
            "vary": vary, "tags": stored.head.tags.iter().map(|tag| text(tag)).collect::<Vec<_>>(),
        })
    });
    shown.collect()
}
