//! All sites together: what the workers serve.

use std::sync::Arc;

use super::guard::Admitted;
use super::{Entry, Globals, Upstreams};
use crate::config::{Config, Context, Draft, Kept, Problem};
use crate::server::Snapshot;
use crate::tls::{Certificates, config as tls_config};

/// What came of judging all sites.
pub(super) struct Outcome {
    pub(super) admitted: Admitted,
    pub(super) kept: Vec<Kept>,
    pub(super) news: Vec<(String, Problem)>,
}

pub(super) fn assemble(
    draft: &Draft,
    globals: Globals,
    entries: Vec<Arc<Entry>>,
    mut upstreams: Upstreams,
    outcome: Outcome,
    context: &Context<'_>,
) -> Option<Config> {
    let mut certificates = Certificates::default();
    for entry in &entries {
        if let Some(set) = &entry.plan.set {
            certificates.insert(&entry.plan.hosts, set);
        }
    }
    if let Some(set) = globals.default_site.and_then(|index| entries.get(index)?.plan.set.as_ref()) {
        certificates.set_default(set.clone());
    }
    let certificates = Arc::new(certificates);
    let tickets = match context.before {
        Some(before) => before.tickets.clone(),
        None => tls_config::tickets().ok()?,
    };
    let tls = tls_config::server(certificates.clone(), globals.versions, tickets.clone()).ok()?;
    let names = upstreams.finish(entries.iter().filter_map(|e| e.plan.target.as_ref()));
    let snapshot = Snapshot {
        sites: entries.iter().map(|e| e.site.clone()).collect(),
        upstreams: entries.iter().map(|e| e.plan.target.as_ref().map(|t| t.upstream.clone())).collect(),
        sets: entries.iter().map(|e| e.plan.set.clone()).collect(),
        by_host: globals.by_host,
        certificates,
        tls,
        trust: globals.listen.trust,
        proxy_protocol: globals.listen.proxy_protocol,
        https_port: globals.listen.https_port,
        acme_webroot: globals.acme_webroot,
        reports: globals.reports,
        limits: globals.limits,
    };
    Some(Config {
        https: globals.listen.https,
        http: globals.listen.http,
        workers: globals.listen.workers,
        snapshot: Arc::new(snapshot),
        names,
        name_servers: globals.name_servers,
        access: globals.access,
        access_format: globals.access_format,
        state: draft.state(),
        admin: draft.admin(),
        pledges: entries.iter().filter_map(|e| e.pledge.clone()).collect(),
        accepted: outcome.admitted.accepted,
        ramps: entries.iter().flat_map(|e| e.ramps.clone()).collect(),
        kept: outcome.kept,
        news: outcome.news,
        entries,
        upstreams,
        tickets,
    })
}
