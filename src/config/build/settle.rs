//! The ways out of an objection: a site keeps what it has, or as much of it as necessary.

use std::collections::HashMap;
use std::sync::Arc;

use super::apart;
use super::builder::Builder;
use super::candidate::Candidate;
use super::checker::Checker;
use super::entry::SiteEntry;
use super::keep::{KeptSites, keep, keep_apart, keep_unfit, stays_in_use};
use super::loaded::LoadedCertificate;
use super::refusal::Refusal;
use super::report::{CertificateLack, Withheld};
use super::stand_in::{CandidateChange, RefusedPair};
use super::stand_in_copies::PairsByKey;
use crate::config::StandIn;
use crate::config::last_good::CopyIndex;
use crate::host::HostPattern;
use crate::ledger::set_id;
use crate::reason::{Kind, Problem, Severity};

/// A reason against a site.
pub(super) struct SiteObjection {
    /// The site's place in the file.
    pub(super) site: usize,
    /// The index in `[[site.certificate]]` of a pair that breaks a promise; `None` if the objection is to what the site
    /// would promise.
    pub(super) pair: Option<usize>,
    /// This reload brings `accept_lockout_until`, with another day: the operator wants this chain and no other.
    pub(super) is_wanted: bool,
    pub(super) problem: Problem,
    /// The words of a refused pair.
    pub(super) refusal: Option<Words>,
}

/// The words of a refusal: what it breaks, the notes, and hints that do not depend on the promises.
pub(super) struct Words {
    pub(super) refusal: Refusal,
    pub(super) notes: Vec<String>,
    pub(super) hints: Vec<String>,
}

impl SiteObjection {
    /// The problem, once another pair is served instead: its promise is sent from now on.
    fn beside(&self, entry: Option<&Arc<SiteEntry>>) -> Problem {
        let (Some(Words { refusal, notes, hints }), Some(sent)) =
            (&self.refusal, entry.and_then(|entry| entry.pledge.as_ref()))
        else {
            return self.problem.clone();
        };
        let (mut refusal, promised) = (refusal.clone(), &sent.promise);
        let sent = set_id(promised);
        for (is_sent, promise) in refusal.still_sent.iter_mut().zip(&refusal.broken) {
            *is_sent |= set_id(promise) == sent;
        }
        if !promised.is_kept_by(&refusal.certain) {
            refusal.also_sent_by.push(promised.site.clone());
        }
        let reason = notes.iter().fold(refusal.reason(), |reason, note| reason.note(note.clone()));
        Problem { reason: reason.hints(hints.iter().cloned()), ..self.problem.clone() }
    }
}

/// Lets a site keep what it has, or as much of it as necessary. Returns `false` if there is nothing to keep.
pub(super) fn settle(
    objection: &SiteObjection,
    candidates: &mut [Candidate],
    changes: &mut HashMap<usize, CandidateChange>,
    builder: &mut Builder<'_>,
    kept: &mut KeptSites,
    r: &mut Checker<'_>,
) -> bool {
    let context = builder.context;
    builder.copies.note_pairs(|| pairs_by_key(candidates));
    let Some(candidate) = candidates.get_mut(objection.site).filter(|c| !c.is_kept) else { return false };
    let change = changes.entry(objection.site).or_default();
    // Names that are apart already count for nothing against a pair, whether it is to be served or only judged.
    if let Some(pair) = objection.pair.filter(|_| !objection.is_wanted)
        && parts_first(objection, candidate, pair, builder)
        && part(objection, candidate, change, builder)
    {
        serve_apart((objection, pair), candidate, change, builder, kept, r);
        return true;
    }
    if context.stand_in == StandIn::Always {
        match objection.pair {
            // An operator who accepts a lockout wants this chain and no other. A line from an earlier lockout does not count.
            Some(_) if objection.is_wanted => return false,
            Some(pair) if builder.has_other_pair(candidate, pair) && change.forced.insert(pair) => {
                let refused = rebuild(candidate, change, builder, r);
                candidate.by_guard = true;
                let certificates = refused.into_iter().filter(|p| p.at == pair).filter_map(|p| p.certificate);
                let problem = objection.beside(candidate.entry.as_ref());
                keep(candidate, vec![problem], certificates, context, kept);
                return true;
            }
            Some(pair) if part(objection, candidate, change, builder) => {
                serve_apart((objection, pair), candidate, change, builder, kept, r);
                return true;
            }
            Some(pair) if !change.dropped.contains_key(&pair) && builder.may_drop(candidate, pair) => {
                change.dropped.insert(pair, vec![objection.problem.clone()]);
                rebuild(candidate, change, builder, r);
                return true;
            }
            None if change.withhold.is_none() && may_withhold(candidate, builder) => {
                let is_burnt = objection.problem.kind == Kind::BurntKey;
                change.withhold = Some(if is_burnt { Withheld::BurntBackup } else { Withheld::OtherSite });
                rebuild(candidate, change, builder, r);
                candidate.notes.push(stays_in_use(&objection.problem, "so pintle serves the site without its pins"));
                return true;
            }
            _ => {}
        }
    }
    if candidate.standing.is_none() || context.served().is_none() {
        return false;
    }
    candidate.by_guard = true;
    candidate.problems.push(objection.problem.clone());
    keep_unfit(candidate, context, kept);
    true
}

/// A site whose own pair has yet to be obtained keeps the one that served it: it takes up what another site has got for
/// these names since.
pub(super) fn renew_awaited(candidates: &mut [Candidate], builder: &mut Builder<'_>, r: &mut Checker<'_>) {
    let waits = |candidate: &Candidate| {
        let lacks = candidate.missing.iter().any(|pair| pair.lack == CertificateLack::NotYet);
        (lacks || candidate.refused.iter().any(|pair| pair.is_awaited)) && !candidate.plan.loaded.is_empty()
    };
    if !candidates.iter().any(waits) {
        return;
    }
    builder.copies.note_pairs(|| pairs_by_key(candidates));
    for candidate in candidates.iter_mut().filter(|candidate| waits(candidate)) {
        *candidate = builder.candidate(candidate.index, &CandidateChange::default(), r);
    }
}

/// The pairs of all fit sites by their keys.
fn pairs_by_key(candidates: &[Candidate]) -> PairsByKey {
    let mut by_key = PairsByKey::new();
    for pair in candidates.iter().filter_map(|candidate| candidate.entry.as_ref()).flat_map(|entry| entry.pairs()) {
        if let Some(certificate) = &pair.certificate {
            by_key.entry(pair.chain.pin()).or_default().push((certificate.clone(), pair.key.clone()));
        }
    }
    by_key
}

/// Makes a candidate again. Returns the pairs on disk that are not served now.
fn rebuild(
    candidate: &mut Candidate,
    change: &CandidateChange,
    builder: &mut Builder<'_>,
    r: &mut Checker<'_>,
) -> Vec<RefusedPair> {
    let mut made = builder.candidate(candidate.index, change, r);
    made.notes = std::mem::take(&mut candidate.notes);
    made.apart = std::mem::take(&mut candidate.apart);
    made.by_guard = candidate.by_guard;
    let refused = std::mem::take(&mut made.refused);
    *candidate = made;
    refused
}

/// Makes a candidate again whose pairs do not serve the names that are apart.
fn serve_apart(
    (objection, pair): (&SiteObjection, usize),
    candidate: &mut Candidate,
    change: &CandidateChange,
    builder: &mut Builder<'_>,
    kept: &mut KeptSites,
    r: &mut Checker<'_>,
) {
    let refused = candidate.plan.pair(pair).map(LoadedCertificate::report);
    rebuild(candidate, change, builder, r);
    let mut problem = apart::with_ways(&objection.problem, &candidate.plan.apart);
    if builder.context.stand_in != StandIn::Always {
        // A judgement of the pair: it is fit for the site.
        problem.severity = Severity::Warning;
    }
    keep_apart(candidate, problem, refused, kept);
}

/// `true` if it comes first that names are served apart from a pair. A start first looks for another pair of the site.
fn parts_first(objection: &SiteObjection, candidate: &Candidate, pair: usize, builder: &Builder<'_>) -> bool {
    builder.context.served().is_some()
        || loses_nothing(objection, candidate, pair, builder)
        || builder.context.is_check() && !builder.has_other_pair(candidate, pair)
}

/// `true` if the pair that was served last where this one is configured breaks the same promises, and was served for none
/// of the names that they bind: to serve it instead would help nobody.
fn loses_nothing(objection: &SiteObjection, candidate: &Candidate, pair: usize, builder: &Builder<'_>) -> bool {
    let Some(Words { refusal, .. }) = &objection.refusal else { return false };
    let served = candidate.plan.pair(pair).and_then(|here| builder.served(candidate, here));
    served.is_some_and(|served| refusal.broken.iter().all(|promise| served.is_apart_from(promise)))
}

/// Adds the names for which a pair breaks promises to those that its site's pairs must not serve. Returns `false` if that
/// is no way out: the pair breaks them for the whole site, another pair of the site keeps them, or somebody serves the names.
fn part(objection: &SiteObjection, candidate: &Candidate, change: &mut CandidateChange, builder: &Builder<'_>) -> bool {
    let (Some(Words { refusal, .. }), Some(entry)) = (&objection.refusal, &candidate.entry) else { return false };
    let pairs = entry.pairs();
    // Where TLS ends in front of pintle, it can refuse no name.
    if pairs.iter().any(|pair| pair.certificate.is_none()) {
        return false;
    }
    let loaded = objection.pair.and_then(|at| entry.plan.pair(at));
    let served = loaded.and_then(|loaded| builder.served_with_key(candidate, loaded));
    let mut names = apart::names(entry, &refusal.broken, served.as_ref());
    if pairs.len() > 1 {
        let promises = builder.copies.promises();
        let breaks = |pair: &LoadedCertificate, name: &HostPattern| {
            !promises.broken_by(std::slice::from_ref(name), entry.except(), &pair.chain.certain).is_empty()
        };
        names.retain(|name| pairs.iter().all(|pair| breaks(pair, name)));
    }
    let is_new = names.iter().any(|name| !change.apart.contains(name));
    if !is_new || !builder.may_part(candidate, &names) {
        return false;
    }
    let serves = entry.served_names().hosts.iter().any(|host| !names.contains(host));
    if !serves && builder.substitutes(candidate, &names).iter().all(|apart| apart.substitute.is_none()) {
        return false;
    }
    change.apart.extend(names);
    true
}

/// `true` if a site may be served without its pins: at a start; at an upgrade, if it was served before; and as long as it
/// is served without them already. That locks nobody out, whatever else has changed.
fn may_withhold(candidate: &Candidate, builder: &Builder<'_>) -> bool {
    let context = builder.context;
    let withholds = |before: &Arc<SiteEntry>| {
        matches!(before.made_from.withheld, Some(Withheld::OtherSite | Withheld::BurntBackup))
    };
    match context.served() {
        Some(_) => builder.served_as(&candidate.plan.hosts).is_some_and(withholds),
        None => context.is_start() || was_served(candidate, builder),
    }
}

/// `true` if a site was served before: there is a copy of a pair of it, or it has sent pins.
fn was_served(candidate: &Candidate, builder: &Builder<'_>) -> bool {
    let hosts = &candidate.plan.hosts;
    let has_copy = |copies: &CopyIndex<'_>| candidate.plan.loaded.iter().any(|l| copies.read(&l.path, hosts).is_some());
    let label = hosts.first().map(ToString::to_string).unwrap_or_default();
    builder.copies.index().is_some_and(has_copy) || builder.sent_last().contains_key(label.as_str())
}
