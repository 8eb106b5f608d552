//! The pin guard for a whole configuration: which chains may be served, and the refusal of each other one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::apart;
use super::breach::{Admitted, AllSites, BrokenPromises, SharedChains};
use super::builder::Builder;
use super::burnt;
use super::candidate::Candidate;
use super::checker::Checker;
use super::entry::SiteEntry;
use super::files::{IN_NO_COPY, ONLY_IN_MEMORY};
use super::keep::KeptSites;
use super::loaded::LoadedCertificate;
use super::refusal::Refusal;
use super::settle::{SiteObjection, Words, settle};
use super::unserved::{kept_aside, warn_of_removal};
use crate::config::CheckContext;
use crate::config::file::SiteTable;
use crate::config::last_good::noted_key;
use crate::host::HostPattern;
use crate::ledger::set_id;
use crate::policy::guard::{self, Breach, Clash, Offer};
use crate::reason::{Problem, Reason};
use crate::tls::key_process;

/// Judges all sites against all existing promises, and all that they would make now. Adds an error to each that fails.
///
/// Sites that may keep what they have do so. The pairs that break promises come first: a site that keeps its pair
/// does not make the promises of its new pair. Then come the sites whose promises would hurt another one.
pub(super) fn admit(
    candidates: &mut [Candidate],
    builder: &mut Builder<'_>,
    kept: &mut KeptSites,
    r: &mut Checker<'_>,
) -> Admitted {
    let mut changes = HashMap::new();
    loop {
        let (admitted, warnings, errors) = judge(builder, candidates, r);
        // Each round changes something new, so this ends.
        let (breaches, clashes): (Vec<_>, Vec<_>) = errors.into_iter().partition(|o| o.pair.is_some());
        let mut settle_all = |objections: &[SiteObjection]| {
            objections
                .iter()
                .fold(false, |any, objection| settle(objection, candidates, &mut changes, builder, kept, r) | any)
        };
        if settle_all(&breaches) || settle_all(&clashes) {
            continue;
        }
        for SiteObjection { site, problem, .. } in warnings.into_iter().chain(breaches).chain(clashes) {
            if let Some(candidate) = candidates.get_mut(site) {
                candidate.problems.push(problem);
            }
        }
        return admitted;
    }
}

/// A site with its place and its offer to the guard.
type JudgedSite<'c> = (usize, &'c Candidate, &'c Arc<SiteEntry>, Offer<'c>);

/// Returns what the guard admits, its warnings, and its objections.
fn judge(
    builder: &Builder<'_>,
    candidates: &[Candidate],
    r: &mut Checker<'_>,
) -> (Admitted, Vec<SiteObjection>, Vec<SiteObjection>) {
    let (file, context) = (builder.file, builder.context);
    let (mut admitted, mut warnings, mut errors) = (Admitted::default(), Vec::new(), Vec::new());
    let sites: Vec<JudgedSite<'_>> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, c)| c.entry.as_ref().map(|entry| (index, c, entry, offer(entry, c.is_kept))))
        .collect();
    let (offers, owners) = offers(&sites);
    let objections = guard::judge_by(&offers, builder.copies.promises(), context.now);
    let all = &all_sites(builder, &sites, &objections.breaches);
    let by_site = breaches_by_site(&objections.breaches);
    for (at, (index, candidate, entry, offer)) in sites.iter().enumerate() {
        let Some(table) = file.sites.get(*index) else { continue };
        // At a change of files, nobody has seen a refusal of the new chain: no line counts.
        let may_count = !context.keeps_sites;
        let is_wanted = may_count && brings_acceptance(builder, table, entry);
        let mut add = |pair: Option<usize>, problems: Vec<Problem>, refusal: Option<(Refusal, Vec<String>)>| {
            for problem in problems {
                let list = if problem.is_error() { &mut errors } else { &mut warnings };
                let mut problem = Problem { site: Some(entry.site.label()), ..problem };
                let refused = pair.filter(|_| problem.is_error());
                let extra = refused.map(|pair| more_hints(builder, candidate, pair)).unwrap_or_default();
                problem.reason.hints.extend(extra.iter().cloned());
                let refusal = refusal.clone().map(|(refusal, notes)| Words { refusal, notes, hints: extra });
                list.push(SiteObjection { site: *index, pair, is_wanted, problem, refusal });
            }
        };
        let mut breaks = false;
        for Breach { chain, broken, .. } in by_site.get(&at).into_iter().flatten().copied() {
            let Some(loaded) = entry.plan.loaded.get(*chain) else { continue };
            let mut problems = r.problems.scratch();
            let served = builder.served_with_key(candidate, loaded);
            // The line may wait for a chain that the operator has not seen. It counts if nothing else can be served.
            let counts_line = is_wanted || may_count && !builder.has_other_pair(candidate, loaded.at);
            let (promises, served) = (broken, served.as_ref());
            let breach = BrokenPromises { table, entry, loaded, promises, served, counts_line, all };
            // Pairs that a site keeps may break for its names what they broke before, and nothing else.
            if offer.is_kept && breach.news().is_empty() {
                continue;
            }
            breaks = true;
            let refusal = breach.report(&mut admitted, &mut problems);
            add(Some(loaded.at), problems.into_list(), refusal);
        }
        for (pair, problem) in burnt_keys(builder, candidate, table, entry) {
            add(pair, vec![problem], None);
        }
        let is_idle = !breaks && !offer.is_kept;
        add(None, further_problems((is_idle, offer.is_kept), table, entry, builder, r), None);
    }
    errors.extend(objections.clashes.iter().filter_map(|clash| against_clash(clash, builder, (&sites, &owners))));
    (admitted, warnings, errors)
}

/// The facts about all sites that refusals depend on.
fn all_sites<'s>(builder: &'s Builder<'_>, sites: &'s [JudgedSite<'_>], breaches: &[Breach<'_>]) -> AllSites<'s> {
    // Without a breach, nothing asks: skip ten thousand sites.
    let is_asked = !breaches.is_empty();
    let entries = sites.iter().map(|(_, _, entry, _)| *entry).filter(|_| is_asked);
    AllSites {
        shared: SharedChains::of(sites.iter().map(|(_, _, entry, _)| &***entry), breaches),
        sent: sent_from_now_on(entries, builder.context),
        names: builder.names.iter().flatten().filter(|_| is_asked).collect(),
        last: is_asked.then(|| builder.sent_last()),
        before: &builder.before,
        context: builder.context,
    }
}

/// The breaches of each site, by its place among the offers.
fn breaches_by_site<'b, 'p>(breaches: &'b [Breach<'p>]) -> HashMap<usize, Vec<&'b Breach<'p>>> {
    let mut by_site: HashMap<usize, Vec<&Breach<'p>>> = HashMap::new();
    for breach in breaches {
        by_site.entry(breach.site).or_default().push(breach);
    }
    by_site
}

/// The offers of sites, in their order, and then those of names that their pairs do not serve; and the place of each one's site.
fn offers<'c>(sites: &[JudgedSite<'c>]) -> (Vec<Offer<'c>>, Vec<usize>) {
    let own = sites.iter().enumerate().map(|(at, (.., offer))| (offer.clone(), at));
    let apart = sites
        .iter()
        .enumerate()
        .flat_map(|(at, &(_, _, entry, _))| apart::offers(&entry.plan).map(move |offer| (offer, at)));
    own.chain(apart).unzip()
}

/// The problems of a site that do not depend on a pair. `is_idle` if its chains break nothing.
fn further_problems(
    (is_idle, is_kept): (bool, bool),
    table: &SiteTable,
    entry: &Arc<SiteEntry>,
    builder: &Builder<'_>,
    r: &mut Checker<'_>,
) -> Vec<Problem> {
    let mut problems = r.problems.scratch();
    if is_idle {
        warn_of_idle_acceptance(table, &mut problems);
    }
    warn_of_removal(table, entry, builder, &mut problems);
    let pages = builder.globals.admin_https.as_ref().filter(|_| !is_kept);
    problems.extend(pages.and_then(|pages| pages.clash(table, entry, builder.context.now)));
    problems.into_list()
}

/// The objection to a site whose promise would hurt another one.
fn against_clash(
    clash: &Clash,
    builder: &Builder<'_>,
    (sites, owners): (&[JudgedSite<'_>], &[usize]),
) -> Option<SiteObjection> {
    let of = |offer: usize| owners.get(offer).and_then(|at| sites.get(*at));
    let [promiser, bound, blamed] = [clash.promiser, clash.bound, clash.blamed].map(of);
    let ((_, candidate, bound, _), promiser, site) = (bound?, promiser?.2, blamed?.0);
    let mut problem = clash_problem(builder.file.sites.get(site)?, clash, promiser, bound);
    // An installation of this chain brings the lockout, even if the file has the same chain already: it is not served yet.
    let is_news = |loaded: &&LoadedCertificate| {
        builder.context.served().is_some() && builder.served_with_key(candidate, loaded).is_none()
    };
    if let Some(loaded) = bound.plan.loaded.get(clash.chain).filter(is_news) {
        problem = problem.about(&loaded.path);
    }
    Some(SiteObjection { site, pair: None, is_wanted: false, problem, refusal: None })
}

/// Further hints for a site whose pair is refused.
fn more_hints(builder: &Builder<'_>, candidate: &Candidate, pair: usize) -> Vec<String> {
    let at_key = hint_at_key(builder, candidate, pair);
    let out_of_reach = builder.copies.remedies().iter().cloned();
    let aside = kept_aside(builder.copies.former(), &candidate.plan.hosts);
    aside.into_iter().chain(at_key).chain(out_of_reach).collect()
}

/// The hint for a refused pair of a site whose live key no copy has.
fn hint_at_key(builder: &Builder<'_>, candidate: &Candidate, pair: usize) -> Option<String> {
    let context = builder.context;
    // An installation has not replaced the key yet.
    if !builder.draft.has_key_process() || !context.instead.is_empty() {
        return None;
    }
    match builder.served_as(&candidate.plan.hosts) {
        Some(before) if before.plan.set.is_some() => {
            let is_replaced = |pair: &LoadedCertificate| key_process::running().is_none() || pair.is_in_memory_alone();
            before.pairs().iter().any(is_replaced).then(|| ONLY_IN_MEMORY.to_owned())
        }
        Some(_) => Some(in_no_copy(builder, candidate, pair)),
        None if context.served().is_some() => None,
        None if context.is_start() => {
            (!builder.has_other_pair(candidate, pair)).then(|| in_no_copy(builder, candidate, pair))
        }
        None => Some(ONLY_IN_MEMORY.to_owned()),
    }
}

/// The hint for a site without a certificate whose live key no copy has. A copy names the key's file, which may be another
/// one than the text names by now: the key process reads the folders of the text's keys alone.
fn in_no_copy(builder: &Builder<'_>, candidate: &Candidate, pair: usize) -> String {
    let known = || noted_key(&builder.copies.index()?.read_any(&candidate.plan.hosts)?);
    let named = candidate.plan.pair(pair).and_then(|here| std::path::absolute(here.key.as_deref()?).ok());
    match known().filter(|known| named.as_ref().is_some_and(|named| named != known)) {
        Some(known) => format!(
            "with tls.key_process, no copy has the live key, which was in {}: name this key and its chain in the site again, \
             and restart pintle",
            known.display()
        ),
        None => IN_NO_COPY.to_owned(),
    }
}

/// Warns of `accept_lockout_until` if the site's chains break nothing.
fn warn_of_idle_acceptance(table: &SiteTable, problems: &mut crate::config::Problems) {
    if let Some(accepted) = &table.accept_lockout_until {
        let reason = Reason::new("site.accept_lockout_until: has no effect: this chain locks nobody out");
        problems.warn(&accepted.span, reason.hint("remove it, so that it does not accept a lockout by another chain"));
    }
}

/// `true` if this reload brings `accept_lockout_until`, or another value of it. A start brings none: nobody knows which
/// lines the last process had.
fn brings_acceptance(builder: &Builder<'_>, table: &SiteTable, entry: &SiteEntry) -> bool {
    let Some(line) = table.accept_lockout_until.as_ref().map(|day| &day.value) else { return false };
    match (builder.served_as(entry.hosts()), &builder.context.days_in_use) {
        (Some(in_use), _) => in_use.made_from.accepts_until.as_ref() != Some(line),
        (None, Some(days)) => days.get(&entry.site.label()) != Some(line),
        (None, None) => false,
    }
}

/// The objections to burnt keys, each with the index of its pair. A kept site gets none.
fn burnt_keys(
    builder: &Builder<'_>,
    candidate: &Candidate,
    table: &SiteTable,
    entry: &SiteEntry,
) -> Vec<(Option<usize>, Problem)> {
    if candidate.is_kept {
        return Vec::new();
    }
    let is_served = |loaded: &LoadedCertificate| builder.served_with_key(candidate, loaded).is_some();
    let live = burnt::live(table, entry, builder.context, is_served).into_iter();
    let backup = burnt::backup(table, entry, builder.context);
    live.map(|(pair, problem)| (Some(pair), problem)).chain(backup.map(|problem| (None, problem))).collect()
}

/// The sets that pintle sends from now on, whether the entries are refused or not: if they are, the configuration in use
/// keeps sending its sets.
fn sent_from_now_on<'e>(
    entries: impl Iterator<Item = &'e Arc<SiteEntry>>,
    context: &CheckContext<'_>,
) -> HashSet<String> {
    let mut entries = entries.peekable();
    // Ten thousand sites have as many sets, and only a refusal names them.
    let in_use = context.before.filter(|_| entries.peek().is_some());
    let in_use = in_use.iter().flat_map(|before| &before.pledges).map(|pledge| set_id(&pledge.promise));
    let in_use: Vec<String> = in_use.collect();
    entries.filter_map(|entry| entry.pledge.as_ref()).map(|pledge| set_id(&pledge.promise)).chain(in_use).collect()
}

fn offer(entry: &SiteEntry, is_kept: bool) -> Offer<'_> {
    Offer {
        hosts: entry.served_names().hosts,
        chains: entry.chains().map(|chain| chain.certain.as_slice()).collect(),
        set: entry.pledge.as_ref().map(|pledge| &pledge.promise),
        is_kept,
    }
}

/// The problem of a set that binds another site, whose chain has none of its pins. The site that promises is to blame,
/// unless it keeps what it has.
fn clash_problem(table: &SiteTable, clash: &Clash, promiser: &SiteEntry, bound: &SiteEntry) -> Problem {
    let binds =
        |host: &&HostPattern| promiser.pledge.as_ref().is_some_and(|pledge| pledge.promise.binds(host, bound.except()));
    let names: Vec<String> = bound.plan.hosts.iter().filter(binds).map(HostPattern::to_string).collect();
    let (all, first) = (names.join(", "), names.first().map(String::as_str).unwrap_or_default());
    let pin = bound.plan.loaded.get(clash.chain).map(|l| l.chain.pin().to_string()).unwrap_or_default();
    let (span, message, hint) = if clash.blamed == clash.promiser {
        let hpkp = table.hpkp.as_ref();
        (
            hpkp.and_then(|h| h.include_subdomains.as_ref().map(|i| i.span.clone()).or_else(|| Some(h.span.clone()))),
            format!(
                "site.hpkp: would lock readers out of {all}: these pins bind it, too, and its chain has none of their keys ({pin})"
            ),
            format!("remove include_subdomains, or add the key of {first} to backups"),
        )
    } else {
        let at = bound.plan.loaded.get(clash.chain).map_or(clash.chain, |l| l.at);
        let chain = table.certificates.get(at).and_then(|c| c.chain.as_ref());
        let site = promiser.site.label();
        (
            Some(chain.map_or(&table.span, |c| &c.span).clone()),
            format!(
                "{pin}: would lock readers out of {all}: the pins of {site} bind it, too, and this chain has none of their keys"
            ),
            format!(
                "add the key of {first} to backups of {site}, and reload: its pins have room for it from then on; or get a \
                 certificate for a key among these pins"
            ),
        )
    };
    let site = Some(if clash.blamed == clash.promiser { promiser } else { bound }.site.label());
    Problem { site, ..Problem::error(&span.unwrap_or(0..0), Reason::new(message).hint(hint)) }
}
