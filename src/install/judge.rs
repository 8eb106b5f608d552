//! The judgement of an installation before anything is written: the checks of a chain, and the guard.

use std::collections::HashMap;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::plan::InstallPlan;
use crate::config::{AcceptedByCommand, CheckContext, Config, Draft, LastGood};
use crate::ledger::{Accepted, Book};
use crate::policy::promise::Seconds;
use crate::reason::Problem;

/// A verdict on a pair.
#[derive(Debug)]
pub struct InstallVerdict {
    /// `true` if it may be served.
    pub ok: bool,
    /// Its errors and warnings, with their places in the configuration.
    pub problems: Vec<Problem>,
    /// The configuration has other errors, which are not the pair's.
    pub has_other_errors: bool,
    /// The lockouts that are accepted, at the sites that have this chain file. The ledger has none of them yet.
    pub accepted: Vec<Accepted>,
}

/// The inputs of a judgement.
pub struct InstallContext<'a> {
    /// The promises.
    pub book: &'a Book,
    /// The time.
    pub now: Seconds,
    /// The configuration in use, if this process serves it. It judges chains without their keys, which it may be unable to
    /// read.
    pub served: Option<&'a Config>,
    /// The day until which the operator accepts a lockout.
    pub accept: Option<&'a str>,
}

/// The lockout that the operator accepts: for this chain only, not for the site's other chains, and at all sites that have
/// its file.
#[must_use]
pub fn accepted(plan: &InstallPlan, day: Option<&str>) -> Option<AcceptedByCommand> {
    Some(AcceptedByCommand { site: plan.site.clone(), day: day?.to_owned(), pin: Some(plan.chain.pin()) })
}

/// Judges as a start would with the files in place. Problems that exist without the new files are not this certificate's,
/// unless they are about its places.
#[must_use]
pub fn judge(draft: &Draft, plan: &InstallPlan, context: &InstallContext<'_>) -> InstallVerdict {
    let (book, now) = (context.book, context.now);
    // Messages name the operator's own files.
    let shown_as: HashMap<PathBuf, PathBuf> =
        plan.files.iter().map(|file| (file.path.clone(), file.source.clone())).collect();
    // Without a process, the copies tell which names the pair in place does not serve either.
    let state = draft.state().filter(|_| context.served.is_none());
    let empty = || CheckContext {
        chains_alone: context.served.is_some(),
        last_good: state.as_deref().map(LastGood::of),
        ..CheckContext::new(book, now)
    };
    let first = CheckContext { before: context.served, shown_as: shown_as.clone(), ..empty() };
    let (built, old) = draft.build(&first);
    let chain = || Zeroizing::new(plan.chain.pem().into_bytes());
    let instead: HashMap<PathBuf, Zeroizing<Vec<u8>>> = match context.served {
        Some(_) => plan.places.first().map(|path| (path.clone(), chain())).into_iter().collect(),
        None => plan.files.iter().map(|file| (file.path.clone(), file.contents.clone())).collect(),
    };
    let (accept, before) = (accepted(plan, context.accept), context.served.or(built.as_ref()));
    let (config, problems) = draft.build(&CheckContext { before, instead, shown_as, accept, ..empty() });
    let known: Vec<&Problem> = old.sorted();
    let about_it = |p: &Problem| p.path.as_ref().is_some_and(|path| plan.places.contains(path));
    let is_like = |p: &Problem, k: &Problem| (k.severity, &k.reason.what) == (p.severity, &p.reason.what);
    let is_old = |p: &Problem| known.iter().any(|k| is_like(p, k)) && !(p.is_error() && about_it(p));
    let (others, own): (Vec<&Problem>, Vec<&Problem>) = problems.sorted().into_iter().partition(|p| is_old(p));
    InstallVerdict {
        ok: !own.iter().any(|problem| problem.is_error()),
        problems: own.into_iter().map(|problem| problems.placed(problem)).collect(),
        has_other_errors: others.into_iter().any(Problem::is_error),
        accepted: lockouts_by(plan, config),
    }
}

/// The lockouts by this pair that a configuration accepts. A line of another site is about another key.
#[must_use]
pub fn lockouts_by(plan: &InstallPlan, config: Option<Config>) -> Vec<Accepted> {
    let all = config.into_iter().flat_map(|config| config.accepted);
    all.filter(|lockout| lockout.pin == plan.chain.pin()).collect()
}
