//! Sites that keep what they have, or some of it, since what is on disk is not fit to be served.

use super::{Candidate, report};
use crate::config::problem::{Problem, Severity};
use crate::config::{Context, Kept};

/// Tells of pairs on disk that are not served.
pub(super) fn note_refused(index: usize, candidate: &mut Candidate, context: &Context<'_>, kept: &mut Vec<Kept>) {
    let (unchanged, refused): (Vec<_>, Vec<_>) =
        std::mem::take(&mut candidate.refused).into_iter().partition(|pair| pair.unchanged);
    for problem in unchanged.into_iter().flat_map(|pair| pair.problems) {
        candidate.notes.push(goes_on(&problem, "it was served before, and goes on"));
    }
    for pair in refused {
        keep(index, candidate, pair.problems, pair.certificate, context, kept);
    }
}

/// Notes that a site keeps what it has, or some of it; and warns of it, unless whoever keeps sites tells of that.
pub(super) fn keep(
    index: usize,
    candidate: &mut Candidate,
    problems: Vec<Problem>,
    certificates: impl IntoIterator<Item = report::Certificate>,
    context: &Context<'_>,
    kept: &mut Vec<Kept>,
) {
    if !context.keeps_sites {
        let errors = problems.iter().filter(|p| p.severity == Severity::Error);
        let what = if context.served().is_some() {
            "the pair in use goes on"
        } else {
            "the pair that was served last goes on, from the copy in state.directory"
        };
        candidate.notes.extend(errors.map(|problem| goes_on(problem, what)));
    }
    let by_guard = candidate.by_guard;
    if let Some(known) = kept.iter_mut().find(|known| known.index == index) {
        known.problems.extend(problems);
        known.certificates.extend(certificates);
        known.by_guard |= by_guard;
        return;
    }
    let site = candidate.plan.hosts.first().map(ToString::to_string).unwrap_or_default();
    kept.push(Kept { index, site, problems, by_guard, certificates: certificates.into_iter().collect() });
}

/// An error about files, where something else is served in their place.
pub(super) fn goes_on(problem: &Problem, what: &str) -> Problem {
    Problem { severity: Severity::Warning, message: format!("{}; {what}", problem.message), ..problem.clone() }
}

/// Takes chains that have become shorter for unfit.
pub(super) fn mark_shorter(candidates: &mut [Candidate], context: &Context<'_>, settled: &[String]) {
    let Some(before) = context.before else { return };
    for (candidate, before) in candidates.iter_mut().zip(&before.entries) {
        let Some(entry) = candidate.entry.as_ref().filter(|e| !settled.contains(&e.site.label())) else { continue };
        let shorter = before.chains().zip(entry.chains()).find(|(b, a)| a.pins.len() < b.pins.len());
        if let Some((before, after)) = shorter {
            candidate.problems.push(Problem {
                severity: Severity::Error,
                span: 0..0,
                message: format!("{} certificates in place of {}", after.pins.len(), before.pins.len()),
                hint: None,
            });
        }
    }
}

/// Puts what a site has in place of what it cannot have.
pub(super) fn keep_unfit(candidate: &mut Candidate, index: usize, context: &Context<'_>, kept: &mut Vec<Kept>) {
    if candidate.is_kept || candidate.is_fit() {
        return;
    }
    let Some(entry) = candidate.standing.clone().filter(|_| context.served().is_some()) else { return };
    let refused = candidate.entry.replace(entry);
    let problems = std::mem::take(&mut candidate.problems);
    let certificates = refused.map(|refused| refused.report.certificates.clone()).unwrap_or_default();
    keep(index, candidate, problems, certificates, context, kept);
    candidate.is_kept = true;
    candidate.news.clear();
}
