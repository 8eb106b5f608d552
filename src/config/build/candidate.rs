//! A site that is being made, from its plan, the ledger and the time.

use std::sync::Arc;

use super::checker::{Checker, of_site};
use super::entry::{EntriesByName, MadeFrom, SiteEntry, make};
use super::loaded::LoadedCertificate;
use super::plan::SitePlan;
use super::planning::Planned;
use super::report;
use super::stand_in::{MissingPair, RefusedPair};
use crate::config::CheckContext;
use crate::config::file::SiteTable;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::{Ramp, Ramped};
use crate::policy::hsts::Hsts;
use crate::policy::promise::Promises;
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason};
use crate::tls::certificate::Chain;
use crate::tls::preflight;

/// A site that is being made: its entry, if there is one, and its problems.
pub(super) struct Candidate {
    /// Its place in the file.
    pub(super) index: usize,
    pub(super) entry: Option<Arc<SiteEntry>>,
    pub(super) plan: Arc<SitePlan>,
    pub(super) problems: Vec<Problem>,
    /// New warnings: those about files that have changed.
    pub(super) news: Vec<Problem>,
    /// Pairs on disk that other pairs replace.
    pub(super) refused: Vec<RefusedPair>,
    /// Pairs on disk that nothing replaces.
    pub(super) missing: Vec<MissingPair>,
    /// Problems of files that something else replaces.
    pub(super) notes: Vec<Problem>,
    /// Objections to pairs that serve all but some names of the site.
    pub(super) apart: Vec<Problem>,
    /// The fallback if this candidate is rejected: the previous files, with the ledger and the time of now.
    pub(super) standing: Option<Arc<SiteEntry>>,
    pub(super) by_guard: bool,
    /// It is the one that was served before.
    pub(super) is_kept: bool,
}

impl Candidate {
    fn new(
        index: usize,
        entry: Option<Arc<SiteEntry>>,
        plan: Arc<SitePlan>,
        (problems, news): (Vec<Problem>, Vec<Problem>),
        (refused, missing): (Vec<RefusedPair>, Vec<MissingPair>),
    ) -> Self {
        Self {
            index,
            entry,
            plan,
            problems,
            news,
            refused,
            missing,
            notes: Vec::new(),
            apart: Vec::new(),
            standing: None,
            by_guard: false,
            is_kept: false,
        }
    }

    pub(super) fn is_fit(&self) -> bool {
        self.entry.is_some() && !self.problems.iter().any(Problem::is_error)
    }
}

/// The parts that a candidate is made from, besides its plan.
pub(super) struct Basis<'a> {
    /// The sites of the configuration in use.
    pub(super) before: &'a EntriesByName<'a>,
    /// The site's place in the file.
    pub(super) index: usize,
    pub(super) table: &'a SiteTable,
    /// The names that the site's wildcards do not cover.
    pub(super) except: Vec<HostPattern>,
    /// The promises that are alive.
    pub(super) promises: &'a Promises<'a>,
    pub(super) context: &'a CheckContext<'a>,
}

impl<'a> Basis<'a> {
    /// The site of this plan in the configuration in use. Its place in the file may have changed.
    pub(super) fn in_use(&self, plan: &SitePlan) -> Option<&'a Arc<SiteEntry>> {
        let label = plan.hosts.first().map(ToString::to_string).unwrap_or_default();
        self.before.get(label.as_str()).copied()
    }
}

/// Makes a site from its plan. Reuses the previous entry if nothing about it is new.
pub(super) fn candidate(
    basis: &Basis<'_>,
    planned: Planned,
    withhold: Option<report::Withheld>,
    r: &mut Checker<'_>,
) -> Candidate {
    let Basis { table, except, context, .. } = basis;
    let Planned { plan, mut problems, refused, missing } = planned;
    let unserved = (refused, missing);
    let except = &plan.exceptions(except);
    let mut scratch = r.problems.scratch();
    let mut own = Checker { problems: &mut scratch, stamps: Vec::new(), ..*r };
    let label = plan.hosts.first().map(ToString::to_string).unwrap_or_default();
    let before = basis.in_use(&plan);
    let mut news = Vec::new();
    if let Some(before) = before.filter(|before| !Arc::ptr_eq(&before.plan, &plan)) {
        warn_of_older(table, &plan, before, &mut own);
        news.extend(plan.news(&before.plan, table.span.start));
    }
    news.extend(own.problems.sorted().into_iter().map(|problem| of_site(&label, problem.clone())));
    let mut ramps = Vec::new();
    let mut climb = |policy: Ramped, steps: Option<&Steps>| climb(&label, policy, steps, context, &mut ramps);
    let (has_name, is_noted) = noted(&plan);
    let (planned_hsts, planned_pins) =
        (plan.hsts.as_ref().filter(|_| is_noted), plan.pins.as_ref().filter(|_| is_noted));
    let (hsts_step, hsts_ramp) = climb(Ramped::Hsts, planned_hsts.and_then(|h| h.steps.as_ref()));
    let (hpkp_step, hpkp_ramp) = climb(Ramped::Hpkp, planned_pins.and_then(|p| p.steps.as_ref()));
    let hsts = planned_hsts.map(|h| at_step(h.policy, h.steps.as_ref(), hsts_step));
    let promised = |pin: Pin| is_live_promise(basis.promises, &plan, except, pin);
    if !has_name {
        warn_of_addresses(table, &plan, &mut own);
    }
    let judged = match (planned_pins, &table.hpkp) {
        (Some(pins), Some(hpkp)) => Some(pins.judge(hpkp, pins.max_age(hpkp_step), &plan.loaded, promised, &mut own)),
        _ => None,
    };
    problems.extend(scratch.into_list().into_iter().map(|problem| of_site(&label, problem)));
    if problems.iter().any(Problem::is_error) {
        return Candidate::new(basis.index, None, plan, (problems, news), unserved);
    }
    let made_from = MadeFrom {
        accepts_until: table.accept_lockout_until.as_ref().map(|day| day.value.clone()),
        withheld: judged.as_ref().and_then(|j| j.withheld.or(withhold)),
        promoted: judged.as_ref().map(|j| j.promoted.clone()).unwrap_or_default(),
        hpkp: judged.map(|j| j.policy),
        except: except.clone(),
        hsts,
        ramps: [hpkp_ramp, hsts_ramp].into_iter().flatten().collect(),
    };
    let entry = match before {
        Some(before) if Arc::ptr_eq(&before.plan, &plan) && before.made_from == made_from && ramps.is_empty() => {
            before.clone()
        }
        _ => Arc::new(make(plan.clone(), made_from, ramps)),
    };
    Candidate::new(basis.index, Some(entry), plan, (problems, news), unserved)
}

/// Returns `true` if the site has a name, and `true` if clients note its policies.
fn noted(plan: &SitePlan) -> (bool, bool) {
    // Clients note nothing about addresses (RFC 6797 section 8.1.1, RFC 7469 section 2.3.1).
    let are_named = |hosts: &[HostPattern]| hosts.iter().any(|host| host.address().is_none());
    // Without a certificate, no client sees a policy, and no ramp begins.
    (are_named(&plan.hosts), are_named(plan.served_hosts()) && plan.lack.is_none())
}

/// The fallback of a site whose files are unfit: what it has now. Its ramps follow the ledger all the same.
pub(super) fn standing(basis: &Basis<'_>, candidate: &Candidate, r: &mut Checker<'_>) -> Option<Arc<SiteEntry>> {
    let before = basis.in_use(&candidate.plan)?;
    // Pins that are withheld stay withheld: an unfit file is no reason to begin sending them.
    let withhold = before.made_from.withheld;
    match &candidate.entry {
        Some(entry) if Arc::ptr_eq(&entry.plan, &before.plan) && entry.made_from.withheld >= withhold => {
            Some(entry.clone())
        }
        _ => {
            let planned =
                Planned { plan: before.plan.clone(), problems: Vec::new(), refused: Vec::new(), missing: Vec::new() };
            let again = self::candidate(basis, planned, withhold, r);
            again.entry.or_else(|| Some(before.clone()))
        }
    }
}

fn warn_of_older(table: &SiteTable, plan: &SitePlan, before: &SiteEntry, r: &mut Checker<'_>) {
    for loaded in &plan.loaded {
        let same_kind = |c: &&Chain| {
            std::mem::discriminant(&c.leaf.algorithm) == std::mem::discriminant(&loaded.chain.leaf.algorithm)
        };
        let in_use = before.chains().find(same_kind);
        for fault in preflight::judge(&loaded.chain, &plan.hosts, r.now, in_use) {
            if matches!(fault, preflight::ChainFault::Older { .. } | preflight::ChainFault::Shorter(..)) {
                let span =
                    table.certificates.get(loaded.at).and_then(|c| c.chain.as_ref()).map_or(&table.span, |c| &c.span);
                let reason = Reason::new(format!("{}: {fault}", r.shown(&loaded.path)));
                r.report(Problem::warning(span, reason.hint(fault.hint(&loaded.chain.leaf))).about(&loaded.path));
            }
        }
    }
}

/// A site of addresses alone has no policies, whatever is configured.
fn warn_of_addresses(table: &SiteTable, plan: &SitePlan, r: &mut Checker<'_>) {
    // `[site.hsts]` warns of each address by itself.
    if let Some(hpkp) = table.hpkp.as_ref().filter(|_| plan.pins.is_some()) {
        let reason =
            Reason::new("site.hpkp: pintle sends no pins: clients note none for an address, and the site has no name");
        let reason = reason.hint("add a name to hosts").hint("remove [site.hpkp]; `pintle export` makes pins for apps");
        r.report(Problem::warning(&hpkp.span, reason));
    }
}

fn at_step(policy: Hsts, steps: Option<&Steps>, step: usize) -> Hsts {
    steps.map_or(policy, |steps| Hsts { max_age: steps.max_age(step), ..policy })
}

/// `true` if clients of a site may hold a pin; `None` for a key that is in refused chains only: it is not live, whatever
/// their files say.
fn is_live_promise(promises: &Promises<'_>, plan: &SitePlan, except: &[HostPattern], pin: Pin) -> Option<bool> {
    let hosts = plan.served_hosts();
    let breaks_any = |l: &LoadedCertificate| !promises.broken_by(hosts, except, &l.chain.certain).is_empty();
    let mut live = plan.loaded.iter().filter(|l| l.chain.pins.contains(&pin)).peekable();
    let is_refused = live.peek().is_some() && live.all(breaks_any);
    (!is_refused).then(|| promises.binding(hosts, except).iter().any(|p| p.pins.binary_search(&pin).is_ok()))
}

/// The step of a ramp. A new ramp begins.
fn climb(
    site: &str,
    policy: Ramped,
    steps: Option<&Steps>,
    context: &CheckContext<'_>,
    begun: &mut Vec<Ramp>,
) -> (usize, Option<report::RampReport>) {
    let Some(steps) = steps else { return (0, None) };
    let (step, since) = match context.book.ramp(site, policy) {
        Some(known) => (known.step.min(steps.count() - 1), known.since),
        None => {
            begun.push(Ramp { site: site.to_owned(), policy, step: 0, since: context.now });
            (0, context.now)
        }
    };
    let next = steps.next(step, since);
    let ramp_now = report::RampReport { policy, step, steps: steps.count(), max_age: steps.max_age(step), since, next };
    (step, Some(ramp_now))
}
