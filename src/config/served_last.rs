//! Promises that reach the ledger while nobody serves: from another node's ledger, or made out of a damaged line.
//!
//! The pair that was served last may break such a promise. A start that refuses the pair would help nobody, so the
//! ledger notes the lockout as accepted: the operator has asked for the merge or the repair.

use std::collections::HashSet;

use super::build::refusal::safe_day;
use super::{Draft, LastGood};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::set_id;
use crate::ledger::{Accepted, Book};
use crate::policy::promise::{Promises, Seconds, others};
use crate::tls::certificate::Chain;

impl Draft {
    /// Returns an accepted lockout for each pair that was served last and breaks one of the `new` promises of the book.
    /// `new` has their set ids. The lockout also covers the broken promises that were accepted for
    /// this pair before: one record must cover all of them. Any other pair is still refused.
    #[must_use]
    pub fn excuses(&self, new: &HashSet<String>, book: &Book, now: Seconds) -> Vec<Accepted> {
        let (Some(file), Some(state)) = (&self.file, self.state()) else { return Vec::new() };
        let copies = LastGood::of(&state);
        let names = |texts: &[super::At<String>]| {
            texts.iter().filter_map(|text| HostPattern::of_site(&text.value).ok()).collect::<Vec<_>>()
        };
        let hosts: Vec<Vec<HostPattern>> =
            file.sites.iter().map(|site| site.hosts.as_deref().map(names).unwrap_or_default()).collect();
        let except = others(&hosts.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let promises = Promises::alive(book.promises().iter(), now);
        // A clock that was set back must not make the note older than the promises in it.
        let at = book.newest().map_or(now, |newest| newest.max(now));
        let mut excuses = Vec::new();
        for ((site, hosts), except) in file.sites.iter().zip(&hosts).zip(&except) {
            let Some(label) = hosts.first().map(ToString::to_string) else { continue };
            for path in site.certificates.iter().filter_map(|pair| pair.chain.as_ref()) {
                let served = copies.read(&self.folder.join(&path.value));
                let Some(chain) = served.and_then(|contents| Chain::from_pem(&contents).ok()) else { continue };
                let broken = promises.broken_by(hosts, except, &chain.certain);
                let accepted: HashSet<&String> = book
                    .lockouts()
                    .iter()
                    .filter(|lockout| lockout.site == label && lockout.pin == chain.pin())
                    .flat_map(|lockout| &lockout.sets)
                    .collect();
                let mut is_new = false;
                let broken: Vec<_> = broken
                    .into_iter()
                    .filter(|promise| {
                        let set = set_id(promise);
                        is_new |= new.contains(&set);
                        new.contains(&set) || accepted.contains(&set)
                    })
                    .collect();
                if !is_new {
                    continue;
                }
                let Some(until) = broken.iter().map(|promise| promise.honoured_until()).max() else { continue };
                let (site, pin, until): (_, Pin, _) = (label.clone(), chain.pin(), safe_day(until));
                let sets = broken.into_iter().map(set_id).collect();
                excuses.push(Accepted { site, pin, sets, until, at });
            }
        }
        excuses
    }
}
