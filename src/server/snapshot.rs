//! What the configuration comes to: immutable, swapped whole, shared by all workers.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::clock::Clock;
use crate::host::HostMap;
use crate::limits::Limits;
use crate::pin::Pin;
use crate::policy::forwarded::Trust;
use crate::policy::redirect::HttpsPort;
use crate::site::{ReportsAt, Site};
use crate::telemetry::Counters;
use crate::tls::{CertificateSet, Certificates};
use crate::upstream::{Pool, Upstream};

/// Everything that a request may ask about.
pub struct Snapshot {
    /// The sites, in the order of the configuration.
    pub sites: Vec<Arc<Site>>,
    /// Each site's upstream; none where a site only collects reports.
    pub upstreams: Vec<Option<Arc<Upstream>>>,
    /// From host to site.
    pub by_host: HostMap<usize>,
    /// From name to certificates.
    pub certificates: Arc<Certificates>,
    /// The certificates of each site, if it has any.
    pub sets: Vec<Option<CertificateSet>>,
    /// The chains that each site had before, for as long as sessions that began with them are resumed.
    pub earlier: Vec<Arc<[Earlier]>>,
    /// TLS, with these certificates.
    pub tls: Arc<ServerConfig>,
    /// Whom to believe.
    pub trust: Trust,
    /// Whether trusted peers begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Where clients find the TLS listener.
    pub https_port: HttpsPort,
    /// The folder that answers ACME's http-01 challenges.
    pub acme_webroot: Option<PathBuf>,
    /// Where reports of pins that did not match come in.
    pub reports: Option<ReportsAt>,
    /// The bounds of everything.
    pub limits: Limits,
}

/// A chain that was served under a site's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The pins of the whole chain.
    pub pins: Vec<Pin>,
    /// Until when sessions that began with it may be resumed, in seconds since 1970.
    pub until: i64,
}

/// A snapshot as one worker uses it: with its own connections to the upstreams.
pub struct View {
    /// What all workers share.
    pub shared: Arc<Snapshot>,
    /// The connections, by site; sites of one upstream share theirs.
    pub pools: Vec<Option<Rc<Pool>>>,
}

impl View {
    /// A worker's view of a snapshot. Pools whose upstream goes on are taken over from `before`.
    pub(super) fn new(
        shared: Arc<Snapshot>,
        before: Option<&Self>,
        clock: &Rc<Clock>,
        streaming: &Rc<Cell<usize>>,
        counters: &Arc<Counters>,
    ) -> Rc<Self> {
        let limits = shared.limits.pool();
        let mut pools: Vec<Option<Rc<Pool>>> = Vec::with_capacity(shared.upstreams.len());
        let mut known: std::collections::HashMap<*const Upstream, Rc<Pool>> = std::collections::HashMap::new();
        for pool in before.iter().flat_map(|b| &b.pools).flatten() {
            pool.limit(limits);
            known.insert(Arc::as_ptr(pool.upstream()), pool.clone());
        }
        for upstream in &shared.upstreams {
            pools.push(upstream.as_ref().map(|upstream| {
                let new = || Pool::new(upstream.clone(), limits, clock.clone(), streaming.clone(), counters.clone());
                known.entry(Arc::as_ptr(upstream)).or_insert_with(new).clone()
            }));
        }
        Rc::new(Self { shared, pools })
    }

    /// The site for a host.
    pub(super) fn site(&self, host: &str) -> Option<(usize, &Arc<Site>)> {
        let index = *self.shared.by_host.get(host)?;
        self.shared.sites.get(index).map(|site| (index, site))
    }
}
