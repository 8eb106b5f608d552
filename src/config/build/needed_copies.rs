//! Copies of pairs that no site serves as its own, and that must stay all the same.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::entry::SiteEntry;
use super::noted_promises::NotedPromises;
use crate::config::last_good::{Breaches, CopyName, KeyText, Pair, ServedPair};
use crate::host::HostPattern;
use crate::keys::pem;
use crate::keys::pin::Pin;
use crate::ledger::Book;
use crate::policy::promise::{Promises, Seconds, SiteNames};
use crate::tls::Certificate;

/// Stands for the path of the chain in the names of copies that are for single names: no site has these pairs.
pub(super) const APART: &str = "/apart";

/// The names that are served, and the promises: what a copy is needed for.
pub(super) struct NeededCopies<'a> {
    /// The names that sites serve with their own pairs.
    served: HashSet<&'a HostPattern>,
    /// The names that other pairs serve, with their leaf keys.
    replaced: HashMap<&'a HostPattern, Pin>,
    promises: Promises<'a>,
}

impl<'a> NeededCopies<'a> {
    pub(super) fn of(entries: &'a [Arc<SiteEntry>], book: &'a Book, now: Seconds) -> Self {
        let with_pairs = entries.iter().filter(|entry| !entry.pairs().is_empty());
        let apart = entries.iter().flat_map(|entry| &entry.plan.apart);
        Self {
            served: with_pairs.flat_map(|entry| entry.plan.served_hosts()).collect(),
            replaced: apart.filter_map(|apart| Some((&apart.name, apart.substitute.as_ref()?.chain.pin()))).collect(),
            promises: Promises::alive(book.promises(), now),
        }
    }

    /// `true` if the copy that was made for some names is needed: its pair serves one of them now, which may be the only
    /// copy of the key; or a promise needs its key for a name that no site serves.
    pub(super) fn has(&self, hosts: &[HostPattern], copy: &CopyName<'_>) -> bool {
        if hosts.iter().any(|host| self.replaced.get(host).is_some_and(|pin| copy.is_of(*pin))) {
            return true;
        }
        let open: Vec<HostPattern> = hosts.iter().filter(|host| !self.served.contains(*host)).cloned().collect();
        let promises = self.promises.binding(&open, &[]);
        promises.iter().any(|promise| promise.pins.iter().any(|pin| copy.is_of(*pin)))
    }
}

/// The pairs that serve single names instead of their site's own. Each has a copy for its name alone: the copy of the
/// site that had the name before is written anew for the names which that site has now.
pub(super) fn replacing(entry: &SiteEntry) -> impl Iterator<Item = ServedPair<'_>> {
    entry.plan.apart.iter().filter_map(|apart| {
        let pin = apart.substitute.as_ref()?.chain.pin();
        Some(ServedPair { site: &apart.label, chain: Path::new(APART), pin })
    })
}

/// Copies that need to be written: their pairs serve names that they did not serve before, or break promises.
pub(super) fn fresh_replacing(
    entries: &[Arc<SiteEntry>],
    before: &[Arc<SiteEntry>],
    promises: &NotedPromises<'_>,
) -> Vec<Pair> {
    let known = before.iter().flat_map(|entry| &entry.plan.apart);
    let known: HashSet<(&HostPattern, *const Certificate)> =
        known.filter_map(|apart| Some((&apart.name, Arc::as_ptr(apart.substitute.as_ref()?)))).collect();
    let mut fresh = Vec::new();
    for entry in entries {
        for apart in &entry.plan.apart {
            let Some(substitute) = &apart.substitute else { continue };
            let hosts = std::slice::from_ref(&apart.name);
            // All that a start looks for when it judges the copy.
            let breaks = promises.known().broken_by(hosts, &[], &substitute.chain.certain);
            let alone = || SiteNames { hosts, except: &[] };
            let is_known = known.contains(&(&apart.name, Arc::as_ptr(substitute)));
            if breaks.is_empty() && is_known && promises.are_noted(alone()) {
                continue;
            }
            let certificate = substitute.clone();
            fresh.push(Pair {
                site: apart.label.clone(),
                breaches: Breaches::of(SiteNames { hosts, except: entry.except() }, breaks)
                    .bound_by(&promises.binding(alone())),
                path: APART.into(),
                pin: substitute.chain.pin(),
                // Another copy has it, if no file does.
                key: Some(apart.key.as_deref().unwrap_or_else(|| Path::new(APART)).to_owned()),
                text: KeyText::default(),
                chain: Box::new(move || pem::certificates(certificate.der())),
            });
        }
    }
    fresh
}
