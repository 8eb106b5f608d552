//! Sites that keep what they have, or a part of it, because their files on disk are unfit.

use std::collections::{HashMap, HashSet};

use super::candidate::Candidate;
use super::report;
use super::report::CertificateLack;
use super::stand_in::MissingPair;
use crate::config::{CheckContext, KeptSite, LastGood};
use crate::reason::{Problem, Reason, Severity};

/// The note for a pair without a replacement.
const WITHOUT: &str = "until it can be served, the site is without a certificate: pintle refuses TLS for its names, and answers \
                       plain HTTP with 503, except ACME challenges";

/// The sites that keep what they have, or a part of it.
#[derive(Default)]
pub(super) struct KeptSites {
    list: Vec<KeptSite>,
    /// Places in the list, by the sites' places in the file.
    places: HashMap<usize, usize>,
}

impl KeptSites {
    pub(super) fn into_list(self) -> Vec<KeptSite> {
        self.list
    }

    /// The record of a site: the known one, or a new one.
    fn record(&mut self, candidate: &Candidate) -> &mut KeptSite {
        let (index, list) = (candidate.index, &mut self.list);
        let at = *self.places.entry(index).or_insert_with(|| {
            list.push(KeptSite {
                index,
                site: candidate.plan.hosts.first().map(ToString::to_string).unwrap_or_default(),
                problems: Vec::new(),
                by_guard: false,
                certificates: Vec::new(),
                lacks: false,
                apart: Vec::new(),
            });
            list.len() - 1
        });
        &mut self.list[at]
    }
}

/// Notes the pairs on disk that are not served.
pub(super) fn note_refused(candidate: &mut Candidate, context: &CheckContext<'_>, kept: &mut KeptSites) {
    let (unchanged, refused): (Vec<_>, Vec<_>) =
        std::mem::take(&mut candidate.refused).into_iter().partition(|pair| pair.unchanged);
    for problem in unchanged.into_iter().flat_map(|pair| pair.problems) {
        candidate.notes.push(stays_in_use(&problem, "it was served before, and stays in use"));
    }
    for pair in refused {
        keep(candidate, pair.problems, pair.certificate, context, kept);
    }
}

/// Notes that a site keeps what it has, or a part of it. Warns, unless the caller keeps sites and reports that itself.
pub(super) fn keep(
    candidate: &mut Candidate,
    problems: Vec<Problem>,
    certificates: impl IntoIterator<Item = report::CertificateReport>,
    context: &CheckContext<'_>,
    kept: &mut KeptSites,
) {
    if !context.keeps_sites {
        let errors = problems.iter().filter(|p| p.is_error());
        let is_in_use = || context.last_good.as_ref().is_some_and(LastGood::is_in_memory);
        let what = if context.served().is_some() || is_in_use() {
            "the pair in use stays"
        } else {
            "pintle serves the previous pair, from the copy in state.directory"
        };
        candidate.notes.extend(errors.map(|problem| stays_in_use(problem, what)));
    }
    let known = kept.record(candidate);
    known.problems.extend(problems);
    known.certificates.extend(certificates);
    known.by_guard |= candidate.by_guard;
}

/// Notes that a pair serves only a part of a site's names.
pub(super) fn keep_apart(
    candidate: &mut Candidate,
    problem: Problem,
    certificate: Option<report::CertificateReport>,
    kept: &mut KeptSites,
) {
    candidate.by_guard = true;
    candidate.apart.push(problem.clone());
    let known = kept.record(candidate);
    known.problems.push(problem);
    known.certificates.extend(certificate);
    known.by_guard = true;
    known.apart = candidate.plan.apart.iter().map(|apart| apart.name.to_string()).collect();
}

/// Notes the pairs that nothing replaces. Returns their problems.
pub(super) fn note_missing(candidate: &mut Candidate, kept: &mut KeptSites) -> Vec<Problem> {
    let site = candidate.plan.hosts.first().map(ToString::to_string).unwrap_or_default();
    let mut all = Vec::new();
    for missing in std::mem::take(&mut candidate.missing) {
        let MissingPair { by_guard, mut problems, certificate, lack, .. } = missing;
        problems.iter_mut().filter(|problem| problem.is_error()).for_each(|problem| {
            problem.site = Some(site.clone());
            if candidate.plan.lack.is_some() {
                problem.reason.notes.push(WITHOUT.to_owned());
            }
        });
        all.extend(problems.iter().cloned());
        if lack == CertificateLack::NotYet {
            continue;
        }
        let known = kept.record(candidate);
        known.problems.extend(problems);
        known.certificates.extend(certificate);
        known.by_guard |= by_guard;
        known.lacks |= candidate.plan.lack.is_some();
    }
    all
}

/// Makes a warning of an error about files that something else replaces.
pub(super) fn stays_in_use(problem: &Problem, what: &str) -> Problem {
    let reason = Reason { what: format!("{}; {what}", problem.reason.what), ..problem.reason.clone() };
    Problem { severity: Severity::Warning, reason, ..problem.clone() }
}

/// Marks chains that have become shorter as unfit.
pub(super) fn mark_shorter(candidates: &mut [Candidate], context: &CheckContext<'_>, settled: &[String]) {
    let Some(before) = context.before else { return };
    let settled: HashSet<&str> = settled.iter().map(String::as_str).collect();
    for (candidate, before) in candidates.iter_mut().zip(&before.entries) {
        let Some(entry) = candidate.entry.as_ref().filter(|e| !settled.contains(e.report.name())) else { continue };
        let pairs = before.plan.loaded.iter().filter_map(|b| {
            let after = entry.plan.pair(b.at)?;
            Some((&b.chain, &after.chain))
        });
        let shorter = pairs.into_iter().find(|(b, a)| a.pins.len() < b.pins.len());
        if let Some((before, after)) = shorter {
            let what = format!("the chain has {} certificates instead of {}", after.pins.len(), before.pins.len());
            candidate.problems.push(Problem::error(&(0..0), what));
        }
    }
}

/// Gives an unfit candidate its fallback.
pub(super) fn keep_unfit(candidate: &mut Candidate, context: &CheckContext<'_>, kept: &mut KeptSites) {
    if candidate.is_kept || candidate.is_fit() {
        return;
    }
    let Some(entry) = candidate.standing.clone().filter(|_| context.served().is_some()) else { return };
    let refused = candidate.entry.replace(entry);
    let problems = std::mem::take(&mut candidate.problems);
    let certificates = refused.map(|refused| refused.report.certificates.clone()).unwrap_or_default();
    keep(candidate, problems, certificates, context, kept);
    candidate.is_kept = true;
    candidate.news.clear();
}
