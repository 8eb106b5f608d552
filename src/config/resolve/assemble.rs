//! All sites together: what the workers serve.

use std::collections::HashMap;
use std::sync::Arc;

use super::guard::Admitted;
use super::{Entry, Globals, Upstreams};
use crate::config::{Config, Context, Draft, Kept, Problem};
use crate::ledger::Ramp;
use crate::policy::guard::Seconds;
use crate::server::{Earlier, Snapshot};
use crate::tls::{Certificates, Tickets, config as tls_config};

/// Tickets are good for twelve hours; clocks may be set.
const TICKETS_LIVE: i64 = 24 * 3600;
/// Chains of one site that are remembered.
const EARLIER_MAX: usize = 100;

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
        None => Arc::new(Tickets::new().ok()?),
    };
    let tls = tls_config::server(certificates.clone(), globals.versions, tickets.clone()).ok()?;
    let names = upstreams.finish(entries.iter().filter_map(|e| e.plan.target.as_ref()));
    let is_new = |ramp: &Ramp| context.book.ramp(&ramp.site, ramp.policy).is_none();
    let before = context.before.iter().flat_map(|before| before.entries.iter().enumerate());
    let places: HashMap<&str, usize> = before.map(|(at, entry)| (entry.report.name(), at)).collect();
    let snapshot = Snapshot {
        sites: entries.iter().map(|e| e.site.clone()).collect(),
        upstreams: entries.iter().map(|e| e.plan.target.as_ref().map(|t| t.upstream.clone())).collect(),
        sets: entries.iter().map(|e| e.plan.set.clone()).collect(),
        by_host: globals.by_host,
        earlier: entries.iter().map(|entry| earlier(entry, &places, context)).collect(),
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
        process: draft.process(),
        key_process: draft.kept_keys().is_some(),
        sandbox: globals.sandbox,
        pledges: entries.iter().filter_map(|e| e.pledge.clone()).collect(),
        accepted: outcome.admitted.accepted,
        ramps: entries.iter().flat_map(|e| e.ramps.clone()).filter(is_new).collect(),
        kept: outcome.kept,
        news: outcome.news,
        entries,
        upstreams,
        tickets,
    })
}

/// The chains of a site, for as long as tickets are about that are given out under them now.
pub(in crate::config) fn chains_until(entry: &Entry, now: Seconds) -> impl Iterator<Item = Earlier> {
    let until = now.saturating_add(TICKETS_LIVE);
    entry.chains().map(move |chain| Earlier { pins: chain.certain.clone(), until })
}

/// The chains that a site had before this one, as long as tickets may be about that were given out under them.
fn earlier(entry: &Entry, places: &HashMap<&str, usize>, context: &Context<'_>) -> Arc<[Earlier]> {
    let own = earlier_here(entry, places, context);
    let Some(elsewhere) = context.earlier.get(entry.report.name()) else { return own };
    let news = elsewhere.iter().filter(|chain| !own.iter().any(|own| own.pins == chain.pins));
    own.iter().chain(news).cloned().collect()
}

/// The same, in this process.
fn earlier_here(entry: &Entry, places: &HashMap<&str, usize>, context: &Context<'_>) -> Arc<[Earlier]> {
    let Some(before) = context.before else { return Arc::default() };
    let Some(&index) = places.get(entry.report.name()) else { return Arc::default() };
    let (old, known) = (&before.entries[index], before.snapshot.earlier.get(index).cloned().unwrap_or_default());
    let is_same = match (&old.plan.set, &entry.plan.set) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if is_same {
        return known;
    }
    let until = context.now.saturating_add(TICKETS_LIVE);
    let mut chains: Vec<Earlier> = chains_until(old, context.now).collect();
    for chain in known.iter().filter(|chain| chain.until > context.now) {
        if !chains.iter().any(|c| c.pins == chain.pins) {
            chains.push(chain.clone());
        }
    }
    if chains.len() > EARLIER_MAX {
        // One that no pins fit stands for all that are left out.
        chains.truncate(EARLIER_MAX);
        chains.push(Earlier { pins: Vec::new(), until });
    }
    chains.into()
}
