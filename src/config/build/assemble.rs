//! All sites together: the configuration that the workers serve.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;

use super::admin_https;
use super::breach::Admitted;
use super::entry::SiteEntry;
use super::globals::Globals;
use super::upstream::Upstreams;
use crate::cache::SiteCache;
use crate::cache::disk;
use crate::cache::disk::DiskService;
use crate::config::admin_https::AdminHttps;
use crate::config::{CheckContext, Config, Draft, KeptSite, Problem};
use crate::ledger::Ramp;
use crate::policy::rate::SiteRates;
use crate::server::{RateCounts, RequestLimits, Snapshot};
use crate::tls::resolver::ForProbes;
use crate::tls::{Certificates, Tickets, config as tls_config};

/// The outcome of judging all sites.
pub(super) struct AssembleOutcome {
    pub(super) admitted: Admitted,
    pub(super) kept: Vec<KeptSite>,
    pub(super) news: Vec<(String, Problem)>,
}

pub(super) fn assemble(
    (draft, context): (&Draft, &CheckContext<'_>),
    mut globals: Globals,
    (entries, mut upstreams): (Vec<Arc<SiteEntry>>, Upstreams),
    outcome: AssembleOutcome,
) -> Option<Config> {
    let (certificates, tickets, tls, pages) = tls_parts(&entries, &mut globals, context)?;
    let disk = disk_service(draft, &entries, context);
    let caches = caches(&entries, context, disk.as_ref());
    let snapshot = snapshot((draft, context), &mut globals, &entries, (certificates, tls), caches);
    Some(Config {
        https: globals.listen.https,
        http: globals.listen.http,
        workers: globals.listen.workers,
        snapshot: Arc::new(snapshot),
        names: upstreams.finish(entries.iter().filter_map(|e| e.plan.target.as_ref())),
        name_servers: globals.name_servers,
        access: globals.access,
        access_format: globals.access_format,
        recent: globals.recent,
        state: draft.state(),
        disk,
        admin: draft.admin(),
        admin_access: globals.admin_access,
        admin_https: pages,
        process: draft.process(),
        key_process: draft.has_key_process(),
        sandbox: globals.sandbox,
        acme: globals.acme.map(Arc::new),
        hooks: globals.hooks,
        graphite: globals.graphite,
        traces: globals.traces,
        pledges: entries.iter().filter_map(|e| e.pledge.clone()).collect(),
        accepted: outcome.admitted.accepted,
        ramps: new_ramps(&entries, context),
        kept: outcome.kept,
        news: outcome.news,
        entries,
        upstreams,
        tickets,
    })
}

/// The threads for stored pages on disk: the previous ones, if there are some. A folder without sites is tidied, too.
fn disk_service(draft: &Draft, entries: &[Arc<SiteEntry>], context: &CheckContext<'_>) -> Option<Arc<DiskService>> {
    // Another folder takes effect at the next start.
    let before = context.before.and_then(|before| before.disk.clone());
    let folder = draft.state()?.join(disk::FOLDER);
    let is_used = || entries.iter().any(|entry| entry.plan.cache.as_ref().is_some_and(|c| c.disk_bytes().is_some()));
    before.or_else(|| (is_used() || folder.is_dir()).then(|| DiskService::new(folder)))
}

/// The caches of the sites. A site keeps its stored responses for as long as nothing that they were made from changes.
fn caches(
    entries: &[Arc<SiteEntry>],
    context: &CheckContext<'_>,
    disk: Option<&Arc<DiskService>>,
) -> Vec<Option<Arc<SiteCache>>> {
    if entries.iter().all(|entry| entry.plan.cache.is_none()) {
        return Vec::new();
    }
    let before = context.before.map(|before| &before.snapshot);
    let caches = before.iter().flat_map(|before| before.sites.iter().map(|site| &*site.name).zip(&before.caches));
    let known: HashMap<&str, &Arc<SiteCache>> =
        caches.filter_map(|(name, cache)| Some((name, cache.as_ref()?))).collect();
    let cache = |entry: &Arc<SiteEntry>| {
        let rules = entry.plan.cache.clone()?;
        let target = entry.plan.target.as_ref()?;
        let hosts: Vec<String> = entry.plan.hosts.iter().map(ToString::to_string).collect();
        // Pages are stored as they were rewritten.
        let rewrites = entry.site.mixed.as_ref().and_then(|mixed| mixed.rewrites.as_ref());
        let source =
            format!("{} {:?} {} {rewrites:?}", target.upstream.label, target.upstream.host_header, hosts.join(" "));
        Some(SiteCache::new(rules, source, known.get(&*entry.site.name).copied(), disk))
    };
    entries.iter().map(cache).collect()
}

/// The part that the server sees.
fn snapshot(
    (draft, context): (&Draft, &CheckContext<'_>),
    globals: &mut Globals,
    entries: &[Arc<SiteEntry>],
    (certificates, (tls, probe_tls)): (Arc<Certificates>, TlsConfigs),
    caches: Vec<Option<Arc<SiteCache>>>,
) -> Snapshot {
    Snapshot {
        sites: entries.iter().map(|e| e.site.clone()).collect(),
        upstreams: entries.iter().map(|e| e.plan.target.as_ref().map(|t| t.upstream.clone())).collect(),
        sets: entries.iter().map(|e| e.plan.set.clone()).collect(),
        caches,
        by_host: std::mem::take(&mut globals.by_host),
        certificates,
        tls,
        probe_tls,
        trust: globals.listen.trust.clone(),
        proxy_protocol: globals.listen.proxy_protocol,
        public_https_port: globals.listen.public_https_port,
        health_path: globals.listen.health_path.take(),
        error_details: globals.listen.error_details,
        acme_webroot: globals.acme_webroot.take(),
        answers: context.before.map(|before| before.snapshot.answers.clone()).unwrap_or_default(),
        reports: globals.reports.take(),
        rates: rates(std::mem::take(&mut globals.rates), globals.limits.rate_clients, context),
        state: draft.state(),
        limits: globals.limits.clone(),
        log: globals.log,
        traces: globals.traces.as_ref().map(|traces| traces.rules),
        measures: draft.admin().is_some() || globals.graphite.is_some() || globals.traces.is_some(),
    }
}

/// The two configurations of rustls.
type TlsConfigs = (Arc<ServerConfig>, Option<Arc<ServerConfig>>);
/// Everything that a configuration's TLS is made of: certificates, tickets, the configurations of rustls, and the pages.
type TlsParts = (Arc<Certificates>, Arc<Tickets>, TlsConfigs, Option<Arc<AdminHttps>>);

fn tls_parts(entries: &[Arc<SiteEntry>], globals: &mut Globals, context: &CheckContext<'_>) -> Option<TlsParts> {
    let (certificates, tickets) = (certificates(entries, globals), tickets(context)?);
    let tls = tls(entries, globals, &certificates, &tickets)?;
    let pages = globals.admin_https.take();
    let pages = pages.map(|plan| admin_https::build(plan, entries, &globals.offer, &globals.limits, context));
    Some((certificates, tickets, tls, pages.map(Arc::new)))
}

/// The limits of requests. The counts in use stay, so that a reload gives nobody a fresh burst.
fn rates(sites: Vec<Option<SiteRates>>, clients: usize, context: &CheckContext<'_>) -> Option<RequestLimits> {
    sites.iter().any(Option::is_some).then(|| {
        let before = context.before.and_then(|before| before.snapshot.rates.as_ref());
        let counts = before.map(|before| before.counts.clone()).filter(|counts| counts.clients() == clients);
        RequestLimits { sites, counts: counts.unwrap_or_else(|| Arc::new(RateCounts::new(clients))) }
    })
}

/// The ramps that the ledger does not know.
fn new_ramps(entries: &[Arc<SiteEntry>], context: &CheckContext<'_>) -> Vec<Ramp> {
    let is_new = |ramp: &Ramp| context.book.ramp(&ramp.site, ramp.policy).is_none();
    entries.iter().flat_map(|e| e.ramps.clone()).filter(is_new).collect()
}

/// The keys of session tickets: those in use, if there are any.
fn tickets(context: &CheckContext<'_>) -> Option<Arc<Tickets>> {
    match context.before {
        Some(before) => Some(before.tickets.clone()),
        None => Some(Arc::new(Tickets::new().ok()?)),
    }
}

fn certificates(entries: &[Arc<SiteEntry>], globals: &Globals) -> Arc<Certificates> {
    let mut certificates = Certificates::default();
    for entry in entries {
        match &entry.plan.set {
            Some(set) => {
                certificates.insert(&entry.plan.hosts, set);
                for (name, covering) in &entry.plan.uncovered {
                    certificates.put(std::slice::from_ref(name), covering.as_ref());
                }
            }
            None if entry.plan.lack.is_some() => certificates.refuse(&entry.plan.hosts),
            None => {}
        }
    }
    if let Some(set) = globals.default_site.and_then(|index| entries.get(index)?.plan.set.as_ref()) {
        certificates.set_default(set.clone());
    }
    Arc::new(certificates)
}

/// The settings of TLS for clients, and for trusted peers that ask for the health of the process without a name.
fn tls(
    entries: &[Arc<SiteEntry>],
    globals: &Globals,
    certificates: &Arc<Certificates>,
    tickets: &Arc<Tickets>,
) -> Option<TlsConfigs> {
    let tls = tls_config::server(certificates.clone(), &globals.offer, tickets.clone()).ok()?;
    let nameless = entries.iter().find_map(|e| e.plan.set.clone()).filter(|_| globals.listen.health_path.is_some());
    let Some(nameless) = nameless else { return Some((tls, None)) };
    let resolver = Arc::new(ForProbes { certificates: certificates.clone(), nameless });
    Some((tls, Some(tls_config::server(resolver, &globals.offer, tickets.clone()).ok()?)))
}
