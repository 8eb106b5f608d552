//! The pin guard for a whole configuration: which chains may be served, and the refusal of each other one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::builder::Builder;
use super::burnt;
use super::candidate::Candidate;
use super::checker::Checker;
use super::entry::{Entry, timestamp};
use super::keep::{keep, keep_unfit, stays_in_use};
use super::loaded::Loaded;
use super::refusal::{OwnKey, Refusal, safe_day};
use super::stand_in::{Change, RefusedPair, Served};
use crate::config::file::SiteTable;
use crate::config::{AcceptedByCommand, Context, Kept, MayLack, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::Accepted;
use crate::ledger::set_id;
use crate::policy::guard::{self, Breach, Clash, Offer};
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Channel, Promise, Seconds};
use crate::reason::{Problem, Reason};

/// The lockouts that the operator has accepted.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) accepted: Vec<Accepted>,
}

/// A reason against a site.
struct Objection {
    /// The site's place in the file.
    site: usize,
    /// The index in `[[site.certificate]]` of a pair that breaks a promise; `None` if the objection is to what the site
    /// would promise.
    pair: Option<usize>,
    /// The operator has accepted a lockout for it, if not this one.
    is_wanted: bool,
    problem: Problem,
}

/// Judges all sites against all existing promises, and all that they would make now. Adds an error to each that fails.
///
/// Where sites may keep what they have, they do. The pairs that break promises come first: a site that keeps its pair
/// does not make the promises of its new pair. Then come the sites whose promises would hurt another one.
pub(super) fn admit(
    candidates: &mut [Candidate],
    builder: &mut Builder<'_>,
    kept: &mut Vec<Kept>,
    r: &mut Checker<'_>,
) -> Admitted {
    let mut changes = HashMap::new();
    loop {
        let (admitted, warnings, errors) = judge(builder, candidates, r);
        // Each round changes something new, so this ends.
        let (breaches, clashes): (Vec<_>, Vec<_>) = errors.into_iter().partition(|o| o.pair.is_some());
        let mut settle = |objections: &[Objection]| {
            objections
                .iter()
                .fold(false, |any, objection| settle(objection, candidates, &mut changes, builder, kept, r) | any)
        };
        if settle(&breaches) || settle(&clashes) {
            continue;
        }
        for Objection { site, problem, .. } in warnings.into_iter().chain(breaches).chain(clashes) {
            if let Some(candidate) = candidates.get_mut(site) {
                candidate.problems.push(problem);
            }
        }
        return admitted;
    }
}

/// Lets a site keep what it has, or as much of it as necessary. Returns `false` if there is nothing to keep.
fn settle(
    objection: &Objection,
    candidates: &mut [Candidate],
    changes: &mut HashMap<usize, Change>,
    builder: &mut Builder<'_>,
    kept: &mut Vec<Kept>,
    r: &mut Checker<'_>,
) -> bool {
    let context = builder.context;
    let Some(candidate) = candidates.get_mut(objection.site).filter(|c| !c.is_kept) else { return false };
    let change = changes.entry(objection.site).or_default();
    let is_alone = context.may_lack == MayLack::All && context.served().is_none();
    if context.stand_in == StandIn::Always {
        match objection.pair {
            // An operator who accepts a lockout wants this chain and no other. At a start, nobody may be there.
            Some(_) if !context.keeps_sites && objection.is_wanted && !is_alone => return false,
            Some(pair) if has_other_pair(candidate, pair, builder) && change.forced.insert(pair) => {
                let refused = rebuild(objection.site, candidate, change, builder, r);
                candidate.by_guard = true;
                let certificates = refused.into_iter().filter(|p| p.at == pair).filter_map(|p| p.certificate);
                keep(objection.site, candidate, vec![objection.problem.clone()], certificates, context, kept);
                return true;
            }
            Some(pair) if !change.dropped.contains_key(&pair) && builder.may_drop(candidate, objection.site, pair) => {
                change.dropped.insert(pair, vec![objection.problem.clone()]);
                rebuild(objection.site, candidate, change, builder, r);
                return true;
            }
            None if !change.withhold && context.served().is_none() && was_served(candidate, context) => {
                change.withhold = true;
                rebuild(objection.site, candidate, change, builder, r);
                let what = "so pintle sends no pins; the site was served before, and stays in use";
                candidate.notes.push(stays_in_use(&objection.problem, what));
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
    change: &Change,
    builder: &mut Builder<'_>,
    r: &mut Checker<'_>,
) -> Vec<RefusedPair> {
    let mut made = builder.candidate(site, change, r);
    made.notes = std::mem::take(&mut candidate.notes);
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

fn was_served(candidate: &Candidate, context: &Context<'_>) -> bool {
    let copies = context.last_good.as_ref();
    copies.is_some_and(|copies| candidate.plan.loaded.iter().any(|l| copies.read(&l.path).is_some()))
}

type Judged = (Admitted, Vec<Objection>, Vec<Objection>);

/// Returns what the guard admits, its warnings, and its objections.
fn judge(builder: &Builder<'_>, candidates: &[Candidate], r: &mut Checker<'_>) -> Judged {
    let (file, context) = (builder.file, builder.context);
    let (mut admitted, mut warnings, mut errors) = (Admitted::default(), Vec::new(), Vec::new());
    let sites: Vec<(usize, &Candidate, &Arc<Entry>, Offer<'_>)> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, c)| c.entry.as_ref().map(|entry| (index, c, entry, offer(entry, c.is_kept))))
        .collect();
    let offers: Vec<Offer<'_>> = sites.iter().map(|(.., offer)| offer.clone()).collect();
    let objections = guard::judge(&offers, context.book.promises(), context.now);
    let entries = sites.iter().map(|(_, _, entry, _)| *entry).filter(|_| !objections.breaches.is_empty());
    let sent = sent_from_now_on(entries, context);
    for (at, (index, candidate, entry, offer)) in sites.iter().enumerate() {
        let Some(table) = file.sites.get(*index) else { continue };
        let is_wanted = table.accept_lockout_until.is_some();
        let mut add = |pair: Option<usize>, problems: Vec<Problem>| {
            for problem in problems {
                let list = if problem.is_error() { &mut errors } else { &mut warnings };
                let problem = Problem { site: Some(entry.site.label()), ..problem };
                list.push(Objection { site: *index, pair, is_wanted, problem });
            }
        };
        let mut breaks = false;
        for Breach { chain, broken, .. } in objections.breaches.iter().filter(|b| b.site == at && !offer.is_kept) {
            let Some(loaded) = entry.plan.loaded.get(*chain) else { continue };
            breaks = true;
            let mut problems = r.problems.scratch();
            let served = builder.served(candidate, loaded).filter(|s| s.loaded.chain.pin() == loaded.chain.pin());
            let breach =
                Broken { table, entry, loaded, promises: broken, served: served.as_ref(), sent: &sent, context };
            breach.report(&mut admitted, &mut problems);
            add(Some(loaded.at), problems.into_list());
        }
        if !offer.is_kept {
            let is_served = |loaded: &Loaded| {
                builder.served(candidate, loaded).is_some_and(|s| s.loaded.chain.pin() == loaded.chain.pin())
            };
            for (pair, problem) in burnt::live(table, entry, context, is_served) {
                add(Some(pair), vec![problem]);
            }
            add(None, burnt::backup(table, entry, context).into_iter().collect());
        }
        let mut problems = r.problems.scratch();
        if let (false, false, Some(accepted)) = (breaks, offer.is_kept, &table.accept_lockout_until) {
            let reason = Reason::new("site.accept_lockout_until: has no effect: this chain locks nobody out");
            problems
                .warn(&accepted.span, reason.hint("remove it, so that it does not accept a lockout by another chain"));
        }
        warn_of_removal(table, entry, context, &mut problems);
        add(None, problems.into_list());
    }
    for clash in &objections.clashes {
        let [Some(promiser), Some(bound), Some(blamed)] =
            [clash.promiser, clash.bound, clash.blamed].map(|at| sites.get(at))
        else {
            continue;
        };
        if let Some(table) = file.sites.get(blamed.0) {
            let problem = clash_problem(table, clash, promiser.2, bound.2);
            errors.push(Objection { site: blamed.0, pair: None, is_wanted: false, problem });
        }
    }
    (admitted, warnings, errors)
}

/// The sets that pintle sends from now on, whether the entries are refused or not: if they are, the configuration in use
/// keeps sending its sets.
fn sent_from_now_on<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>, context: &Context<'_>) -> HashSet<String> {
    let mut entries = entries.peekable();
    // Ten thousand sites have as many sets, and only a refusal names them.
    let in_use = context.before.filter(|_| entries.peek().is_some());
    let in_use = in_use.iter().flat_map(|before| &before.pledges).map(|pledge| set_id(&pledge.promise));
    let in_use: Vec<String> = in_use.collect();
    entries.filter_map(|entry| entry.pledge.as_ref()).map(|pledge| set_id(&pledge.promise)).chain(in_use).collect()
}

fn offer(entry: &Entry, is_kept: bool) -> Offer<'_> {
    Offer {
        hosts: &entry.plan.hosts,
        chains: entry.chains().map(|chain| chain.certain.as_slice()).collect(),
        set: entry.pledge.as_ref().map(|pledge| &pledge.promise),
        is_kept,
    }
}

/// Promises that a chain breaks.
struct Broken<'a> {
    table: &'a SiteTable,
    entry: &'a Entry,
    loaded: &'a Loaded,
    promises: &'a [&'a Promise],
    /// The chain with the same key that is served already, if there is one. Refusing this one would help nobody whom that
    /// one locks out.
    served: Option<&'a Served>,
    /// The sets that pintle sends from now on, whether this chain is refused or not.
    sent: &'a HashSet<String>,
    context: &'a Context<'a>,
}

impl Broken<'_> {
    fn report(&self, admitted: &mut Admitted, problems: &mut crate::config::Problems) {
        let Self { table, entry, context, .. } = *self;
        let certificate = table.certificates.get(self.loaded.at).and_then(|c| c.chain.as_ref());
        let span = certificate.map_or(&table.span, |c| &c.span);
        let is_news = |promise: &&&Promise| self.served.is_none_or(|served| !served.breaks(promise, entry));
        let news: Vec<&Promise> = self.promises.iter().filter(is_news).copied().collect();
        let path = &self.loaded.path;
        if news.is_empty() {
            let note = "the key in use breaks these promises, too: they were merged, or accepted. Refusing its certificate \
                        would help nobody";
            let reason = Reason::new(self.refusal(self.promises).to_string()).note(note);
            return problems.insert(Problem::warning(span, reason).about(path));
        }
        let refusal = self.refusal(&news);
        match acceptance(table, entry, &refusal, context) {
            Acceptance::Known => {}
            Acceptance::Given => {
                let note = format!("accepted until {}, as accept_lockout_until says", refusal.safe_day());
                let reason = Reason::new(refusal.to_string()).note(note);
                problems.insert(Problem::warning(span, reason).about(path));
                admitted.accepted.push(Accepted {
                    site: entry.site.label(),
                    pin: refusal.pin,
                    sets: refusal.broken.iter().map(set_id).collect(),
                    until: refusal.safe_day(),
                    // A clock that was set back must not make it look older than what it is about.
                    at: context.book.newest().map_or(context.now, |newest| newest.max(context.now)),
                });
            }
            Acceptance::Another(given) => {
                let note = format!("accept_lockout_until is {given:?}, should be {:?}", refusal.safe_day());
                problems.insert(Problem::error(span, refusal.reason().note(note)).about(path));
            }
            Acceptance::None => problems.insert(Problem::error(span, refusal.reason()).about(path)),
        }
    }

    fn refusal(&self, broken: &[&Promise]) -> Refusal {
        let (pin, label) = (self.loaded.chain.pin(), self.entry.site.label());
        let is_backup = self.entry.plan.pins.iter().flat_map(|p| &p.backups).any(|b| b.key.pin == pin);
        Refusal {
            chain: self.context.shown(&self.loaded.path).to_string(),
            pin,
            satisfied_by: satisfying(self.entry, broken, self.context),
            own_key: match is_backup {
                true => OwnKey::Backup { promised_since: self.context.book.promised_since(&label, pin) },
                false => OwnKey::Unknown,
            },
            still_sent: broken.iter().map(|p| self.sent.contains(&set_id(p))).collect(),
            broken: broken.iter().map(|p| (*p).clone()).collect(),
            safe_from: broken.iter().map(|p| p.honoured_until()).max().unwrap_or_default(),
        }
    }
}

enum Acceptance {
    /// The ledger has it.
    Known,
    /// It names the right day.
    Given,
    /// It names another day.
    Another(String),
    None,
}

fn acceptance(table: &SiteTable, entry: &Entry, refusal: &Refusal, context: &Context<'_>) -> Acceptance {
    let site = entry.site.label();
    let day = refusal.safe_day();
    if context.book.accepts(&site, refusal.pin, &day, &refusal.broken) {
        return Acceptance::Known;
    }
    let is_meant = |a: &&AcceptedByCommand| a.site == site && a.pin.is_none_or(|pin| pin == refusal.pin);
    let by_command = context.accept.as_ref().filter(is_meant).map(|accepted| &accepted.day);
    let by_file = table.accept_lockout_until.as_ref().map(|at| &at.value);
    match by_command.or(by_file) {
        Some(given) if *given == day => Acceptance::Given,
        Some(given) => Acceptance::Another(given.clone()),
        None => Acceptance::None,
    }
}

/// The configured keys, each of which would keep these promises: those of the chains, the backups, and the one in use as
/// long as its file is there. (It is there while a chain is judged before it replaces the file.)
fn satisfying(entry: &Entry, broken: &[&Promise], context: &Context<'_>) -> Vec<(Pin, String)> {
    let live = entry.plan.loaded.iter().map(|l| (l.chain.pin(), context.shown(&l.path).to_string()));
    let backups = entry.plan.pins.iter().flat_map(|p| &p.backups).map(|b| (b.key.pin, b.file.clone()));
    let label = entry.site.label();
    let before = context.before.filter(|_| !context.instead.is_empty());
    let before = before.and_then(|before| before.entries.iter().find(|e| e.site.label() == label));
    let in_use = before.into_iter().flat_map(|b| b.chains()).map(|chain| (chain.pin(), "in use".to_owned()));
    let mut found: Vec<(Pin, String)> = Vec::new();
    for (pin, whose) in live.chain(backups).chain(in_use) {
        if broken.iter().all(|p| p.is_kept_by(&[pin])) && !found.iter().any(|(known, _)| *known == pin) {
            found.push((pin, whose));
        }
    }
    found
}

/// The problem of a set that binds another site, whose chain has none of its pins. The site that promises is to blame,
/// unless it keeps what it has.
fn clash_problem(table: &SiteTable, clash: &Clash, promiser: &Entry, bound: &Entry) -> Problem {
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
            format!("get a certificate for a key among the pins of {site}"),
        )
    };
    let site = Some(if clash.blamed == clash.promiser { promiser } else { bound }.site.label());
    Problem { site, ..Problem::error(&span.unwrap_or(0..0), Reason::new(message).hint(hint)) }
}

/// Warns if `[site.hpkp]` was removed: that withdraws nothing.
fn warn_of_removal(
    table: &SiteTable,
    entry: &Arc<Entry>,
    context: &Context<'_>,
    problems: &mut crate::config::Problems,
) {
    if table.hpkp.is_some() {
        return;
    }
    let label = entry.site.label();
    let own = context.book.promises().iter().filter(|p| {
        p.channel == Channel::Header(Mode::Enforce)
            && p.is_alive(context.now)
            && (p.site == label || p.hosts.iter().any(|h| entry.plan.hosts.contains(h)))
    });
    if let Some(until) = own.map(Promise::honoured_until).max() {
        let what = format!("site: [site.hpkp] is gone, but clients hold its pins until {}", timestamp(until));
        let hint = format!(
            "until {}, keep [site.hpkp] with mode = \"withdraw\": clients that visit then forget the pins",
            safe_day(until)
        );
        problems.warn(&table.span, Reason::new(what).hint(hint));
    }
}

/// Warns if a whole site was removed: that withdraws nothing either, and binds whoever has its names next.
pub(super) fn warn_of_unserved(hosts: &[Vec<HostPattern>], context: &Context<'_>, r: &mut Checker<'_>) {
    let hosts: HashSet<&HostPattern> = hosts.iter().flatten().collect();
    let is_served = |name: &HostPattern| {
        let covers = |exact: &str| hosts.iter().any(|h| h.is_wildcard() && h.matches(exact));
        hosts.contains(name) || name.exact().is_some_and(covers)
    };
    let mut until: BTreeMap<String, Seconds> = BTreeMap::new();
    for promise in context.book.promises().iter().filter(|p| p.is_alive(context.now)) {
        let names: Vec<String> = promise.hosts.iter().filter(|h| !is_served(h)).map(ToString::to_string).collect();
        if !names.is_empty() {
            let known = until.entry(names.join(", ")).or_default();
            *known = promise.honoured_until().max(*known);
        }
    }
    for (names, until) in until {
        r.warn(
            &(0..0),
            format!("no site serves {names}, but clients hold pins until {}", timestamp(until)),
            format!(
                "keep the promised keys until {}: whatever serves these names needs one of them. A site with [site.hpkp] \
                 and mode = \"withdraw\" makes clients that visit forget the pins",
                safe_day(until)
            ),
        );
    }
}
