//! A site as it is served now: its plan, with the ledger and the time taken into account.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::certificates::Loaded;
use super::plan::{Plan, Planned};
use super::{Candidate, Checker, report};
use crate::config::Context;
use crate::config::file::SiteTable;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::lease::Lease;
use crate::ledger::leases::Pledge;
use crate::ledger::{Ramp, Ramped};
use crate::message::Rendered;
use crate::policy::hpkp::Hpkp;
use crate::policy::hsts::Hsts;
use crate::policy::promise::{Promise, Promises, Seconds};
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason};
use crate::site::{PinHeader, Policy, Site};
use crate::tls::certificate::Chain;
use crate::tls::preflight;

/// A site, ready.
pub(in crate::config) struct Entry {
    pub(in crate::config) plan: Arc<Plan>,
    pub(in crate::config) site: Arc<Site>,
    pub(in crate::config) report: report::Site,
    pub(super) pledge: Option<Pledge>,
    /// Ramps that begin with this site.
    pub(super) ramps: Vec<Ramp>,
    /// What it was made from, beside the plan.
    made_from: MadeFrom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MadeFrom {
    hpkp: Option<Hpkp>,
    /// Names that its wildcards do not cover.
    except: Vec<HostPattern>,
    withheld: bool,
    promoted: Vec<Pin>,
    hsts: Option<Hsts>,
    ramps: Vec<report::Ramp>,
}

impl Entry {
    /// Its chains, with their keys.
    pub(in crate::config) fn pairs(&self) -> &[Loaded] {
        &self.plan.loaded
    }

    pub(in crate::config) fn hosts(&self) -> &[HostPattern] {
        &self.plan.hosts
    }

    /// The promises that one of its pairs breaks.
    pub(in crate::config) fn breaks<'p>(&self, pair: &Loaded, promises: &Promises<'p>) -> Vec<&'p Promise> {
        promises.broken_by(&self.plan.hosts, self.except(), &pair.chain.certain)
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.plan.loaded.iter().map(|l| &*l.chain)
    }

    /// Names that its wildcards do not cover.
    pub(super) fn except(&self) -> &[HostPattern] {
        &self.made_from.except
    }
}

/// Makes a site from its plan. Reuses the previous entry if nothing about it is new. `except` has the names that its
/// wildcards do not cover.
pub(super) fn candidate(
    before: &ByName<'_>,
    table: &SiteTable,
    except: Vec<HostPattern>,
    planned: Planned,
    withhold: bool,
    context: &Context<'_>,
    r: &mut Checker<'_>,
) -> Candidate {
    let Planned { plan, mut problems, refused } = planned;
    let mut scratch = r.problems.scratch();
    let mut own = Checker { problems: &mut scratch, stamps: Vec::new(), ..*r };
    let label = plan.hosts.first().map(ToString::to_string).unwrap_or_default();
    let before = before.get(label.as_str()).copied();
    let mut news = Vec::new();
    if let Some(before) = before.filter(|before| !Arc::ptr_eq(&before.plan, &plan)) {
        warn_of_older(table, &plan, before, &mut own);
        news.extend(plan.news(&before.plan, table.span.start));
    }
    news.extend(own.problems.sorted().into_iter().map(|problem| of_site(&label, problem.clone())));
    let mut ramps = Vec::new();
    let mut climb = |policy: Ramped, steps: Option<&Steps>| climb(&label, policy, steps, context, &mut ramps);
    // Clients note nothing about addresses (RFC 6797 section 8.1.1, RFC 7469 section 2.3.1).
    let is_noted = plan.hosts.iter().any(|host| host.address().is_none());
    let (planned_hsts, planned_pins) =
        (plan.hsts.as_ref().filter(|_| is_noted), plan.pins.as_ref().filter(|_| is_noted));
    let (hsts_step, hsts_ramp) = climb(Ramped::Hsts, planned_hsts.and_then(|h| h.steps.as_ref()));
    let (hpkp_step, hpkp_ramp) = climb(Ramped::Hpkp, planned_pins.and_then(|p| p.steps.as_ref()));
    let hsts = planned_hsts.map(|h| match &h.steps {
        Some(steps) => Hsts { max_age: steps.max_age(hsts_step), ..h.policy },
        None => h.policy,
    });
    let promised = |pin: Pin| is_promised(context, &plan, &except, pin);
    if !is_noted {
        warn_of_addresses(table, &plan, &mut own);
    }
    let judged = match (planned_pins, &table.hpkp) {
        (Some(pins), Some(hpkp)) => Some(pins.judge(hpkp, pins.max_age(hpkp_step), &plan.loaded, promised, &mut own)),
        _ => None,
    };
    problems.extend(scratch.into_list().into_iter().map(|problem| of_site(&label, problem)));
    if problems.iter().any(Problem::is_error) {
        return Candidate::new(None, plan, problems, news, refused);
    }
    let made_from = MadeFrom {
        withheld: judged.as_ref().is_some_and(|j| j.withheld || withhold),
        promoted: judged.as_ref().map(|j| j.promoted.clone()).unwrap_or_default(),
        hpkp: judged.map(|j| j.policy),
        except,
        hsts,
        ramps: [hpkp_ramp, hsts_ramp].into_iter().flatten().collect(),
    };
    let entry = match before {
        Some(before) if Arc::ptr_eq(&before.plan, &plan) && before.made_from == made_from && ramps.is_empty() => {
            before.clone()
        }
        _ => Arc::new(make(plan.clone(), made_from, ramps)),
    };
    Candidate::new(Some(entry), plan, problems, news, refused)
}

/// The same problem, with the site that has it.
pub(super) fn of_site(label: &str, problem: Problem) -> Problem {
    Problem { site: Some(label.to_owned()), ..problem }
}

/// The fallback of a site whose files are unfit: what it has now. Its ramps follow the ledger all the same.
pub(super) fn standing(
    index: usize,
    known: &ByName<'_>,
    table: &SiteTable,
    except: Vec<HostPattern>,
    candidate: &Candidate,
    context: &Context<'_>,
    r: &mut Checker<'_>,
) -> Option<Arc<Entry>> {
    let before = context.before?.entries.get(index)?;
    // Pins that are withheld stay withheld: an unfit file is no reason to begin sending them.
    let withhold = before.made_from.withheld;
    match &candidate.entry {
        Some(entry) if Arc::ptr_eq(&entry.plan, &before.plan) && entry.made_from.withheld >= withhold => {
            Some(entry.clone())
        }
        _ => {
            let planned = Planned { plan: before.plan.clone(), problems: Vec::new(), refused: Vec::new() };
            let again = self::candidate(known, table, except, planned, withhold, context, r);
            again.entry.or_else(|| Some(before.clone()))
        }
    }
}

/// The sites of a configuration by their first names.
pub(in crate::config) type ByName<'a> = HashMap<&'a str, &'a Arc<Entry>>;

/// Finds sites by their first names.
pub(in crate::config) fn by_name(entries: &[Arc<Entry>]) -> ByName<'_> {
    entries.iter().map(|entry| (entry.report.name(), entry)).collect()
}

fn warn_of_older(table: &SiteTable, plan: &Plan, before: &Entry, r: &mut Checker<'_>) {
    for (at, loaded) in plan.loaded.iter().enumerate() {
        let same_kind = |c: &&Chain| {
            std::mem::discriminant(&c.leaf.algorithm) == std::mem::discriminant(&loaded.chain.leaf.algorithm)
        };
        let in_use = before.chains().find(same_kind);
        for fault in preflight::judge(&loaded.chain, &plan.hosts, r.now, in_use) {
            if matches!(fault, preflight::Fault::Older { .. } | preflight::Fault::Shorter(..)) {
                let span = table.certificates.get(at).and_then(|c| c.chain.as_ref()).map_or(&table.span, |c| &c.span);
                let reason = Reason::new(format!("{}: {fault}", r.shown(&loaded.path)));
                r.report(Problem::warning(span, reason.hint(fault.hint(&loaded.chain.leaf))).about(&loaded.path));
            }
        }
    }
}

/// A site of addresses alone has no policies, whatever is configured.
fn warn_of_addresses(table: &SiteTable, plan: &Plan, r: &mut Checker<'_>) {
    // `[site.hsts]` warns of each address by itself.
    if let Some(hpkp) = table.hpkp.as_ref().filter(|_| plan.pins.is_some()) {
        let reason =
            Reason::new("site.hpkp: pintle sends no pins: clients note none for an address, and the site has no name");
        let reason = reason.hint("add a name to hosts").hint("remove [site.hpkp]; `pintle export` makes pins for apps");
        r.report(Problem::warning(&hpkp.span, reason));
    }
}

/// `true` if clients of a site may hold a pin: an enforced set that is alive for one of its names has it.
fn is_promised(context: &Context<'_>, plan: &Plan, except: &[HostPattern], pin: Pin) -> bool {
    let promises = context.book.promises().iter();
    promises
        .filter(|p| p.is_alive(context.now) && p.pins.binary_search(&pin).is_ok())
        .any(|p| plan.hosts.iter().any(|host| p.binds(host, except)))
}

/// The step of a ramp. A new ramp begins.
fn climb(
    site: &str,
    policy: Ramped,
    steps: Option<&Steps>,
    context: &Context<'_>,
    begun: &mut Vec<Ramp>,
) -> (usize, Option<report::Ramp>) {
    let Some(steps) = steps else { return (0, None) };
    let (step, since) = match context.book.ramp(site, policy) {
        Some(known) => (known.step.min(steps.count() - 1), known.since),
        None => {
            begun.push(Ramp { site: site.to_owned(), policy, step: 0, since: context.now });
            (0, context.now)
        }
    };
    let next = steps.next(step, since);
    let told = report::Ramp { policy, step, steps: steps.count(), max_age: steps.max_age(step), since, next };
    (step, Some(told))
}

fn make(plan: Arc<Plan>, made_from: MadeFrom, ramps: Vec<Ramp>) -> Entry {
    let MadeFrom { hpkp, withheld, .. } = &made_from;
    let sent = hpkp.clone().filter(|_| !withheld).map(|policy| {
        let field = rendered(policy.name(), &policy.value());
        PinHeader { policy, field, lease: Arc::new(Lease::default()) }
    });
    let pledge = sent.as_ref().map(|sent| Pledge {
        promise: Promise::of_header(&plan.hosts, &made_from.except, &sent.policy),
        lease: sent.lease.clone(),
    });
    let hsts = made_from.hsts;
    let report =
        report::Site::new(&plan, hsts.as_ref(), hpkp.as_ref(), *withheld, &made_from.promoted, &made_from.ramps);
    let site = Site {
        hosts: plan.hosts.clone(),
        canonical: plan.canonical.clone(),
        hsts: hsts.map(|policy| Policy { policy, field: rendered(Hsts::NAME, &policy.to_string()) }),
        hpkp: sent,
        request: plan.request.clone(),
        response: plan.response.clone(),
    };
    Entry { plan, site: Arc::new(site), report, pledge, ramps, made_from }
}

fn rendered(name: &str, value: &str) -> Rendered {
    let mut field = Rendered::default();
    field.push(name, value).expect("names are constant, and values made of digits, base64 and a checked URI");
    field
}

/// The wall clock's time as a timestamp.
pub(super) fn timestamp(seconds: Seconds) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}
