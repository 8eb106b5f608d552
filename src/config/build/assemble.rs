//! All sites together: the configuration that the workers serve.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;

use super::entry::{Entry, TICKETS_LIVE, chains_until};
use super::globals::Globals;
use super::guard::Admitted;
use super::upstream::Upstreams;
use crate::config::{Config, Context, Draft, Kept, Problem};
use crate::host::HostPattern;
use crate::ledger::Ramp;
use crate::policy::promise::Seconds;
use crate::server::{Earlier, Snapshot};
use crate::tls::resolver::ForProbes;
use crate::tls::{Certificates, Tickets, config as tls_config};

/// The largest number of earlier chains of one site.
const EARLIER_MAX: usize = 100;

/// The outcome of judging all sites.
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
    let certificates = certificates(&entries, &globals);
    let tickets = tickets(context)?;
    let (tls, probe_tls) = tls(&entries, &globals, &certificates, &tickets)?;
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
        probe_tls,
        trust: globals.listen.trust,
        proxy_protocol: globals.listen.proxy_protocol,
        public_https_port: globals.listen.public_https_port,
        health_path: globals.listen.health_path,
        error_details: globals.listen.error_details,
        acme_webroot: globals.acme_webroot,
        answers: context.before.map(|before| before.snapshot.answers.clone()).unwrap_or_default(),
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
        acme: globals.acme.map(Arc::new),
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

/// The keys of session tickets: those in use, if there are any.
fn tickets(context: &Context<'_>) -> Option<Arc<Tickets>> {
    match context.before {
        Some(before) => Some(before.tickets.clone()),
        None => Some(Arc::new(Tickets::new().ok()?)),
    }
}

fn certificates(entries: &[Arc<Entry>], globals: &Globals) -> Arc<Certificates> {
    let mut certificates = Certificates::default();
    for entry in entries {
        match &entry.plan.set {
            Some(set) => certificates.insert(&entry.plan.hosts, set),
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
    entries: &[Arc<Entry>],
    globals: &Globals,
    certificates: &Arc<Certificates>,
    tickets: &Arc<Tickets>,
) -> Option<(Arc<ServerConfig>, Option<Arc<ServerConfig>>)> {
    let tls = tls_config::server(certificates.clone(), &globals.offer, tickets.clone()).ok()?;
    let nameless = entries.iter().find_map(|e| e.plan.set.clone()).filter(|_| globals.listen.health_path.is_some());
    let Some(nameless) = nameless else { return Some((tls, None)) };
    let resolver = Arc::new(ForProbes { certificates: certificates.clone(), nameless });
    Some((tls, Some(tls_config::server(resolver, &globals.offer, tickets.clone()).ok()?)))
}

/// The chains under which sessions for a site's names may have begun, without its present ones: its own previous chains,
/// and those of the sites that had its names. Each stays until its tickets expire.
fn earlier(entry: &Entry, places: &HashMap<&str, usize>, context: &Context<'_>) -> Arc<[Earlier]> {
    let own = earlier_here(entry, places, context);
    let elsewhere = context.earlier.iter().filter(|site| {
        site.name == entry.report.name()
            || site.hosts.iter().any(|had| entry.plan.hosts.iter().any(|host| meet(had, host)))
    });
    let news: Vec<&Earlier> = elsewhere.flat_map(|site| &site.chains).collect();
    if news.is_empty() {
        return own;
    }
    bounded(own.iter().chain(news), context.now)
}

/// The same, from this process alone.
fn earlier_here(entry: &Entry, places: &HashMap<&str, usize>, context: &Context<'_>) -> Arc<[Earlier]> {
    let Some(before) = context.before else { return Arc::default() };
    let known = |at: usize| before.snapshot.earlier.get(at).cloned().unwrap_or_default();
    let own = places.get(entry.report.name()).copied();
    if let Some(old) = own.and_then(|at| before.entries.get(at))
        && std::ptr::eq(&raw const **old, entry)
    {
        return own.map(known).unwrap_or_default();
    }
    let chains = |entry: &Entry| entry.pairs().iter().map(|l| Arc::as_ptr(&l.chain)).collect::<Vec<_>>();
    let mut all = own.map(known).unwrap_or_default().to_vec();
    for (at, old) in before.entries.iter().enumerate() {
        let is_own = Some(at) == own;
        let is_same = is_own && chains(old) == chains(entry);
        if !is_same && (is_own || old.plan.hosts.iter().any(|had| entry.plan.hosts.iter().any(|host| meet(had, host))))
        {
            all.extend(chains_until(old, context.now));
            all.extend(known(at).iter().cloned());
        }
    }
    // Clients that asked for a name of no site got the certificate of the default site, if there was one.
    let default = before.snapshot.certificates.find(None).filter(|_| own.is_none());
    let until = context.now.saturating_add(TICKETS_LIVE);
    all.extend(
        default.into_iter().flat_map(|set| set.iter()).map(|c| Earlier { pins: c.chain.certain.clone(), until }),
    );
    bounded(all.iter(), context.now)
}

/// `true` if some name matches both.
fn meet(a: &HostPattern, b: &HostPattern) -> bool {
    match (a.exact(), b.exact()) {
        (Some(name), _) => b.matches(name),
        (None, Some(name)) => a.matches(name),
        (None, None) => a.base() == b.base(),
    }
}

/// Each chain once, up to a maximum.
fn bounded<'e>(all: impl Iterator<Item = &'e Earlier>, now: Seconds) -> Arc<[Earlier]> {
    let mut chains: Vec<Earlier> = Vec::new();
    for chain in all.filter(|chain| chain.until > now) {
        match chains.iter_mut().find(|c| c.pins == chain.pins) {
            Some(known) => known.until = known.until.max(chain.until),
            None => chains.push(chain.clone()),
        }
        if chains.len() > EARLIER_MAX {
            // One without pins represents all the others: no pin fits it.
            chains.truncate(EARLIER_MAX);
            chains.push(Earlier { pins: Vec::new(), until: now.saturating_add(TICKETS_LIVE) });
            break;
        }
    }
    chains.into()
}
