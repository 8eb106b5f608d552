//! The configuration as workers use it: immutable, swapped as a whole, shared by all workers.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::task::yield_now;

use super::answers::Answers;
use super::rates::RequestLimits;
use crate::cache::SiteCache;
use crate::clock::Clock;
use crate::host::HostMap;
use crate::limits::Limits;
use crate::policy::forwarded::Trust;
use crate::site::{ReportsAt, Site};
use crate::telemetry::access::LogRules;
use crate::telemetry::trace::TraceRules;
use crate::telemetry::{Counters, SiteTraffic};
use crate::tls::{CertificateSet, Certificates};
use crate::upstream::{Pool, Upstream};

/// Everything that a request depends on.
pub struct Snapshot {
    /// The sites, in the order of the configuration.
    pub sites: Vec<Arc<Site>>,
    /// Each site's upstream. `None` for a site that only collects reports.
    pub upstreams: Vec<Option<Arc<Upstream>>>,
    /// Each site's cache, if it has one.
    pub caches: Vec<Option<Arc<SiteCache>>>,
    /// From host to site.
    pub by_host: HostMap<usize>,
    /// From name to certificates.
    pub certificates: Arc<Certificates>,
    /// The certificates of each site, if it has any.
    pub sets: Vec<Option<CertificateSet>>,
    /// TLS, with these certificates.
    pub tls: Arc<ServerConfig>,
    /// TLS for trusted peers that may name no site, where such peers may ask for this process's health.
    pub probe_tls: Option<Arc<ServerConfig>>,
    /// The trusted proxies.
    pub trust: Trust,
    /// `true` if trusted peers begin with a PROXY header.
    pub proxy_protocol: bool,
    /// The port in front of the TLS listener that clients see, if configured.
    pub public_https_port: Option<u16>,
    /// The path at which trusted peers ask for this process's health.
    pub health_path: Option<Box<str>>,
    /// `true` if error details go to every client, not only to trusted ones.
    pub error_details: bool,
    /// The folder that answers ACME's http-01 challenges.
    pub acme_webroot: Option<PathBuf>,
    /// Answers to the challenges of pintle's own orders.
    pub answers: Arc<Answers>,
    /// The host and path that accept reports of failed pin validation.
    pub reports: Option<ReportsAt>,
    /// The folder of the state, for bodies that do not fit in memory.
    pub state: Option<PathBuf>,
    /// The limits.
    pub limits: Limits,
    /// The limits of requests, if any site has some.
    pub rates: Option<RequestLimits>,
    /// The rules for records in the access log.
    pub log: LogRules,
    /// The rules for traces, if pintle takes part in them.
    pub traces: Option<TraceRules>,
    /// `true` if somebody may ask for the metrics, or requests have spans, so that latencies are measured.
    pub measures: bool,
}

/// Sites that a worker processes before it serves its connections again: some 50 microseconds of work.
pub(super) const SITES_AT_ONCE: usize = 256;

/// A snapshot as one worker uses it: with its own connections to the upstreams.
pub struct View {
    /// The snapshot, shared by all workers.
    pub shared: Arc<Snapshot>,
    /// The pools of connections, by site. Sites of one upstream share a pool.
    pub pools: Vec<Option<Rc<Pool>>>,
    /// The traffic of the sites, in their order, and of requests for no site.
    pub(super) traffic: Arc<[Arc<SiteTraffic>]>,
}

impl View {
    /// Builds a worker's view of a snapshot. Takes over from `before` the pools of upstreams that remain. Yields in between if
    /// there are many sites.
    pub(super) async fn new(
        shared: Arc<Snapshot>,
        traffic: Arc<[Arc<SiteTraffic>]>,
        before: Option<&Self>,
        clock: &Rc<Clock>,
        streaming: &Rc<Cell<usize>>,
        counters: &Arc<Counters>,
    ) -> Rc<Self> {
        let limits = shared.limits.pool();
        let mut pools: Vec<Option<Rc<Pool>>> = Vec::with_capacity(shared.upstreams.len());
        let mut known: HashMap<*const Upstream, Rc<Pool>> = HashMap::with_capacity(shared.upstreams.len());
        for pools in before.iter().flat_map(|b| b.pools.chunks(SITES_AT_ONCE)) {
            for pool in pools.iter().flatten() {
                pool.limit(limits);
                known.insert(Arc::as_ptr(pool.upstream()), pool.clone());
            }
            yield_now().await;
        }
        for upstreams in shared.upstreams.chunks(SITES_AT_ONCE) {
            for upstream in upstreams {
                pools.push(upstream.as_ref().map(|upstream| {
                    let new =
                        || Pool::new(upstream.clone(), limits, clock.clone(), streaming.clone(), counters.clone());
                    known.entry(Arc::as_ptr(upstream)).or_insert_with(new).clone()
                }));
            }
            yield_now().await;
        }
        let mut known = known.into_values();
        while known.by_ref().take(SITES_AT_ONCE).count() > 0 {
            yield_now().await;
        }
        Rc::new(Self { shared, pools, traffic })
    }

    /// Drops a view bit by bit. Returns it if it is still in use.
    pub(super) async fn drop_slowly(view: Rc<Self>) -> Result<(), Rc<Self>> {
        let Self { mut pools, .. } = Rc::try_unwrap(view)?;
        while !pools.is_empty() {
            pools.truncate(pools.len().saturating_sub(SITES_AT_ONCE));
            yield_now().await;
        }
        Ok(())
    }

    /// Returns the site for a host.
    pub(super) fn site(self: &Rc<Self>, host: &[u8]) -> Option<SiteOfView> {
        let index = *self.shared.by_host.get(host)?;
        (index < self.shared.sites.len()).then(|| SiteOfView { view: self.clone(), index })
    }
}

/// A site, held through its worker's view. A count of the site's own holders would be shared by all workers, and their cores
/// would contend for its cache line with every request.
#[derive(Clone)]
pub(super) struct SiteOfView {
    view: Rc<View>,
    index: usize,
}

impl SiteOfView {
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The site's cache, if it has one.
    pub(super) fn cache(&self) -> Option<&Arc<SiteCache>> {
        self.view.shared.caches.get(self.index)?.as_ref()
    }

    /// The site's index in the snapshot.
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

impl Deref for SiteOfView {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.view.shared.sites[self.index]
    }
}
