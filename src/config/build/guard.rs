//! The pin guard for a whole configuration: which chains may be served, and the refusal of each other one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::apart;
use super::breach::{Admitted, BrokenPromises, SharedChains};
use super::builder::Builder;
use super::burnt;
use super::candidate::Candidate;
use super::checker::Checker;
use super::entry::SiteEntry;
use super::files::ONLY_IN_MEMORY;
use super::keep::{keep, keep_apart, keep_unfit, stays_in_use};
use super::loaded::LoadedCertificate;
use super::refusal::Refusal;
use super::report::Withheld;
use super::stand_in::{CandidateChange, RefusedPair};
use super::unserved::{kept_aside, warn_of_removal};
use crate::config::file::SiteTable;
use crate::config::{CheckContext, KeptSite, LastGood, StandIn};
use crate::host::HostPattern;
use crate::ledger::set_id;
use crate::policy::guard::{self, Breach, Clash, Offer};
use crate::policy::promise::Promises;
use crate::reason::{Kind, Problem, Reason};

/// A reason against a site.
struct SiteObjection {
    /// The site's place in the file.
    site: usize,
    /// The index in `[[site.certificate]]` of a pair that breaks a promise; `None` if the objection is to what the site
    /// would promise.
    pair: Option<usize>,
    /// This reload brings `accept_lockout_until`, with another day: the operator wants this chain and no other.
    is_wanted: bool,
    problem: Problem,
    /// The words of a refused pair.
    refusal: Option<Words>,
}

/// The words of a refusal: what it breaks, the notes, and hints that do not depend on the promises.
struct Words {
    refusal: Refusal,
    notes: Vec<String>,
    hints: Vec<String>,
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

/// Judges all sites against all existing promises, and all that they would make now. Adds an error to each that fails.
///
/// Sites that may keep what they have do so. The pairs that break promises come first: a site that keeps its pair
/// does not make the promises of its new pair. Then come the sites whose promises would hurt another one.
pub(super) fn admit(
    candidates: &mut [Candidate],
    builder: &mut Builder<'_>,
    kept: &mut Vec<KeptSite>,
    r: &mut Checker<'_>,
) -> Admitted {
    let mut changes = HashMap::new();
    loop {
        let (admitted, warnings, errors) = judge(builder, candidates, r);
        // Each round changes something new, so this ends.
        let (breaches, clashes): (Vec<_>, Vec<_>) = errors.into_iter().partition(|o| o.pair.is_some());
        let mut settle = |objections: &[SiteObjection]| {
            objections
                .iter()
                .fold(false, |any, objection| settle(objection, candidates, &mut changes, builder, kept, r) | any)
        };
        if settle(&breaches) || settle(&clashes) {
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

/// Lets a site keep what it has, or as much of it as necessary. Returns `false` if there is nothing to keep.
fn settle(
    objection: &SiteObjection,
    candidates: &mut [Candidate],
    changes: &mut HashMap<usize, CandidateChange>,
    builder: &mut Builder<'_>,
    kept: &mut Vec<KeptSite>,
    r: &mut Checker<'_>,
) -> bool {
    let context = builder.context;
    let Some(candidate) = candidates.get_mut(objection.site).filter(|c| !c.is_kept) else { return false };
    let change = changes.entry(objection.site).or_default();
    if context.stand_in == StandIn::Always {
        match objection.pair {
            // An operator who accepts a lockout wants this chain and no other. A line from an earlier lockout does not count.
            Some(_) if objection.is_wanted => return false,
            Some(pair) if has_other_pair(candidate, pair, builder) && change.forced.insert(pair) => {
                let refused = rebuild(objection.site, candidate, change, builder, r);
                candidate.by_guard = true;
                let certificates = refused.into_iter().filter(|p| p.at == pair).filter_map(|p| p.certificate);
                let problem = objection.beside(candidate.entry.as_ref());
                keep(objection.site, candidate, vec![problem], certificates, context, kept);
                return true;
            }
            Some(pair) if part(objection, candidate, change, builder) => {
                let refused = candidate.plan.loaded.iter().find(|l| l.at == pair).map(LoadedCertificate::report);
                rebuild(objection.site, candidate, change, builder, r);
                let problem = apart::told(&objection.problem, &candidate.plan.apart);
                keep_apart(objection.site, candidate, problem, refused, kept);
                return true;
            }
            Some(pair) if !change.dropped.contains_key(&pair) && builder.may_drop(candidate, objection.site, pair) => {
                change.dropped.insert(pair, vec![objection.problem.clone()]);
                rebuild(objection.site, candidate, change, builder, r);
                return true;
            }
            None if change.withhold.is_none() && may_withhold(candidate, builder) => {
                let is_burnt = objection.problem.kind == Kind::BurntKey;
                change.withhold = Some(if is_burnt { Withheld::BurntBackup } else { Withheld::OtherSite });
                rebuild(objection.site, candidate, change, builder, r);
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
    keep_unfit(candidate, objection.site, context, kept);
    true
}

/// Makes a candidate again. Returns the pairs on disk that are not served now.
fn rebuild(
    site: usize,
    candidate: &mut Candidate,
    change: &CandidateChange,
    builder: &mut Builder<'_>,
    r: &mut Checker<'_>,
) -> Vec<RefusedPair> {
    let mut made = builder.candidate(site, change, r);
    made.notes = std::mem::take(&mut candidate.notes);
    made.apart = std::mem::take(&mut candidate.apart);
    made.by_guard = candidate.by_guard;
    let refused = std::mem::take(&mut made.refused);
    *candidate = made;
    refused
}

/// `true` if another pair was served last where this one is configured. A chain of the same key under another issuer is
/// another pair: the issuer's key may be a promised one.
fn has_other_pair(candidate: &Candidate, pair: usize, builder: &Builder<'_>) -> bool {
    let Some(here) = candidate.plan.loaded.iter().find(|l| l.at == pair) else { return false };
    let served = builder.served(candidate, here);
    served.is_some_and(|served| served.loaded.chain.certain != here.chain.certain)
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
    let mut names = apart::names(entry, &refusal.broken);
    if pairs.len() > 1 {
        let promises = Promises::alive(builder.context.book.promises(), builder.context.now);
        let breaks = |pair: &LoadedCertificate, name: &HostPattern| {
            !promises.broken_by(std::slice::from_ref(name), entry.except(), &pair.chain.certain).is_empty()
        };
        names.retain(|name| pairs.iter().all(|pair| breaks(pair, name)));
    }
    let is_new = names.iter().any(|name| !change.apart.contains(name));
    let serves = entry.served_names().hosts.iter().any(|host| !names.contains(host));
    let leaves_some = || serves || names.iter().any(|name| builder.substitute(candidate, name).is_some());
    if !is_new || !names.iter().all(|name| builder.may_part(candidate, name)) || !leaves_some() {
        return false;
    }
    change.apart.extend(names);
    true
}

/// `true` if a site may be served without its pins: at a start; at an upgrade, if it was served before; and as long as it
/// is served without them already, with the same text.
fn may_withhold(candidate: &Candidate, builder: &Builder<'_>) -> bool {
    let context = builder.context;
    let withholds = |before: &Arc<SiteEntry>| {
        let withheld = before.made_from.withheld;
        matches!(withheld, Some(Withheld::OtherSite | Withheld::BurntBackup))
            && before.plan.source == candidate.plan.source
    };
    match context.served() {
        Some(_) => builder.served_as(&candidate.plan.hosts).is_some_and(withholds),
        None => context.is_start() || was_served(candidate, context),
    }
}

/// `true` if a site was served before: there is a copy of a pair of it, or it has sent pins.
fn was_served(candidate: &Candidate, context: &CheckContext<'_>) -> bool {
    let has_copy =
        |copies: &LastGood| candidate.plan.loaded.iter().any(|l| copies.read(&l.path, &candidate.plan.hosts).is_some());
    let label = candidate.plan.hosts.first().map(ToString::to_string).unwrap_or_default();
    context.last_good.as_ref().is_some_and(has_copy) || context.book.sent_last(&label, |_| true).is_some()
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
    let objections = guard::judge(&offers, context.book.promises(), context.now);
    let entries = sites.iter().map(|(_, _, entry, _)| *entry).filter(|_| !objections.breaches.is_empty());
    let sent = sent_from_now_on(entries, context);
    let shared = &SharedChains::of(sites.iter().map(|(_, _, entry, _)| &***entry), &objections.breaches);
    for (at, (index, candidate, entry, offer)) in sites.iter().enumerate() {
        let Some(table) = file.sites.get(*index) else { continue };
        // At a change of files, nobody has seen a refusal of the new chain: no line counts.
        let may_count = !context.keeps_sites;
        let is_wanted = may_count && brings_acceptance(builder, table, entry);
        let mut add = |pair: Option<usize>, problems: Vec<Problem>, refusal: Option<(Refusal, Vec<String>)>| {
            for problem in problems {
                let list = if problem.is_error() { &mut errors } else { &mut warnings };
                let mut problem = Problem { site: Some(entry.site.label()), ..problem };
                let has_more = pair.is_some() && problem.is_error();
                let extra = if has_more { more_hints(builder, entry) } else { Vec::new() };
                problem.reason.hints.extend(extra.iter().cloned());
                let refusal = refusal.clone().map(|(refusal, notes)| Words { refusal, notes, hints: extra });
                list.push(SiteObjection { site: *index, pair, is_wanted, problem, refusal });
            }
        };
        let mut breaks = false;
        for Breach { chain, broken, .. } in objections.breaches.iter().filter(|b| b.site == at) {
            let Some(loaded) = entry.plan.loaded.get(*chain) else { continue };
            let mut problems = r.problems.scratch();
            let served = builder.served_with_key(candidate, loaded);
            // The line may wait for a chain that the operator has not seen. It counts if nothing else can be served.
            let counts_line = is_wanted || may_count && !has_other_pair(candidate, loaded.at, builder);
            let (promises, served, sent, names) = (broken, served.as_ref(), &sent, builder.names);
            let breach =
                BrokenPromises { table, entry, loaded, promises, served, sent, counts_line, shared, names, context };
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
    let (context, mut problems) = (builder.context, r.problems.scratch());
    if is_idle {
        warn_of_idle_acceptance(table, &mut problems);
    }
    warn_of_removal(table, entry, context, &mut problems);
    let pages = builder.globals.admin_https.as_ref().filter(|_| !is_kept);
    problems.extend(pages.and_then(|pages| pages.clash(table, entry, context.now)));
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
fn more_hints(builder: &Builder<'_>, entry: &SiteEntry) -> Vec<String> {
    // An installation has not replaced the key yet.
    let is_replaced = builder.draft.has_key_process() && builder.context.instead.is_empty();
    let in_memory = is_replaced.then(|| ONLY_IN_MEMORY.to_owned());
    let out_of_reach = builder.context.last_good.iter().flat_map(LastGood::remedies);
    kept_aside(builder.former(), entry.hosts()).into_iter().chain(in_memory).chain(out_of_reach).collect()
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
