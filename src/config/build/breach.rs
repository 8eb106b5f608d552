//! A pair that breaks promises: the judgement of the lockout, and its record.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, absolute};
use std::sync::Arc;

use super::entry::{EntriesByName, SiteEntry};
use super::loaded::LoadedCertificate;
use super::refusal::{OwnKey, Refusal, SharedChain};
use super::stand_in::ServedLast;
use crate::config::file::SiteTable;
use crate::config::{AcceptedByCommand, CheckContext, Problems};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::{Accepted, set_id};
use crate::policy::guard::Breach;
use crate::policy::promise::{Promise, PromiseChannel};
use crate::reason::pasted::pintle;
use crate::reason::{Problem, Reason};

/// The note about a pair that is as good or bad as the one in use.
const BROKEN_BY_BOTH: &str = "the key in use breaks these promises, too: they were merged, or accepted. Refusing its \
                              certificate would help nobody";

/// The lockouts that the operator has accepted.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) accepted: Vec<Accepted>,
}

/// Promises that a chain breaks.
pub(super) struct BrokenPromises<'a> {
    pub(super) table: &'a SiteTable,
    pub(super) entry: &'a SiteEntry,
    pub(super) loaded: &'a LoadedCertificate,
    pub(super) promises: &'a [&'a Promise],
    /// The chain with the same key that is served already, if there is one. Refusing this one would help nobody whom that
    /// one locks out.
    pub(super) served: Option<&'a ServedLast>,
    /// `accept_lockout_until` in the file may accept this lockout.
    pub(super) counts_line: bool,
    pub(super) all: &'a AllSites<'a>,
}

/// The facts about all sites that are judged together.
pub(super) struct AllSites<'a> {
    pub(super) shared: SharedChains<'a>,
    /// The sets that pintle sends from now on, whether a chain is refused or not.
    pub(super) sent: HashSet<String>,
    /// The names of all sites of the file.
    pub(super) names: HashSet<&'a HostPattern>,
    /// The set that each site sent last, if a promise is broken.
    pub(super) last: Option<&'a HashMap<&'a str, &'a Promise>>,
    /// The sites of the configuration in use.
    pub(super) before: &'a EntriesByName<'a>,
    pub(super) context: &'a CheckContext<'a>,
}

/// The sites that share the chains of breaches, by the chain's file and the leaf's pin.
pub(super) struct SharedChains<'e>(HashMap<(&'e OsStr, Pin), Arc<SharedChain>>);

impl<'e> SharedChains<'e> {
    /// The shared chains of judged sites, in the order of the judgement.
    pub(super) fn of(entries: impl Iterator<Item = &'e SiteEntry>, breaches: &[Breach<'_>]) -> Self {
        let mut known: HashMap<_, SharedChain> = HashMap::new();
        // Without a breach, nothing asks: skip ten thousand sites.
        let entries: Vec<&'e SiteEntry> = entries.filter(|_| !breaches.is_empty()).collect();
        for breach in breaches {
            let Some(entry) = entries.get(breach.site) else { continue };
            let Some(loaded) = entry.plan.loaded.get(breach.chain) else { continue };
            let shared = known.entry(file_and_pin(loaded)).or_default();
            shared.breaking.push(entry.site.label());
            let until = breach.broken.iter().map(|promise| promise.honoured_until()).max();
            shared.safe_from = shared.safe_from.max(until.unwrap_or_default());
        }
        for entry in entries {
            for loaded in &entry.plan.loaded {
                if let Some(shared) = known.get_mut(&file_and_pin(loaded)) {
                    shared.sites.insert(entry.site.label());
                }
            }
        }
        Self(known.into_iter().map(|(chain, shared)| (chain, Arc::new(shared))).collect())
    }

    fn get(&self, loaded: &LoadedCertificate) -> Arc<SharedChain> {
        self.0.get(&file_and_pin(loaded)).cloned().unwrap_or_default()
    }
}

fn file_and_pin(loaded: &LoadedCertificate) -> (&OsStr, Pin) {
    (loaded.path.as_os_str(), loaded.chain.pin())
}

impl BrokenPromises<'_> {
    /// The promises that the served chain of this key does not break already.
    pub(super) fn news(&self) -> Vec<&Promise> {
        let names = self.entry.served_names();
        let is_news = |promise: &&&Promise| self.served.is_none_or(|served| !served.breaks(promise, names));
        self.promises.iter().filter(is_news).copied().collect()
    }

    /// Reports the breach. Returns the words of a refusal.
    pub(super) fn report(&self, admitted: &mut Admitted, problems: &mut Problems) -> Option<(Refusal, Vec<String>)> {
        let (table, entry, context) = (self.table, self.entry, self.all.context);
        let certificate = table.certificates.get(self.loaded.at).and_then(|c| c.chain.as_ref());
        let span = certificate.map_or(&table.span, |c| &c.span);
        let path = &self.loaded.path;
        let warn = |reason: Reason| Problem::warning(span, reason).about(path);
        let news = self.news();
        if news.is_empty() {
            problems.insert(warn(Reason::new(self.refusal(self.promises).to_string()).note(BROKEN_BY_BOTH)));
            return None;
        }
        let mut refusal = self.refusal(&news);
        let accepted = |refusal: &Refusal| {
            let note = format!("accepted until {}, as accept_lockout_until says", refusal.safe_day());
            warn(Reason::new(refusal.to_string()).note(note))
        };
        let note = match acceptance(table, entry, &refusal, self.counts_line, context) {
            Acceptance::Known => return None,
            Acceptance::Excused => {
                problems.insert(warn(Reason::new(refusal.to_string()).note(BROKEN_BY_BOTH)));
                return None;
            }
            Acceptance::Given => {
                problems.insert(accepted(&refusal));
                admitted.accepted.push(self.accepted(refusal));
                return None;
            }
            Acceptance::Not(why) => {
                refusal.by_command = why.is_by_command(&refusal, self.counts_line, context);
                why.note()
            }
        };
        let notes: Vec<String> = note.into_iter().collect();
        let reason = notes.iter().fold(refusal.reason(), |reason, note| reason.note(note.clone()));
        problems.insert(Problem::error(span, reason).about(path).of_key(refusal.pin.to_string()));
        Some((refusal, notes))
    }

    /// The record of an accepted lockout: for this key, these promises, and the names that they bind.
    fn accepted(&self, refusal: Refusal) -> Accepted {
        let (names, book) = (self.entry.served_names(), self.all.context.book);
        let is_bound = |host: &&HostPattern| refusal.broken.iter().any(|promise| promise.binds(host, names.except));
        let hosts: Vec<HostPattern> = names.hosts.iter().filter(is_bound).cloned().collect();
        Accepted {
            site: self.entry.site.label(),
            pin: refusal.pin,
            sets: refusal.broken.iter().map(set_id).collect(),
            until: refusal.safe_day(),
            // A clock that was set back must not make it look older than what it is about.
            at: book.newest().map_or(self.all.context.now, |newest| newest.max(self.all.context.now)),
            except: if hosts.iter().any(HostPattern::is_wildcard) { names.except.to_vec() } else { Vec::new() },
            hosts,
            is_excuse: false,
        }
    }

    /// `true` if pintle sends a set from now on. A command does not know what a running process sends: the promise's lease
    /// tells, unless the site has sent another set since.
    fn is_sent(&self, promise: &Promise) -> bool {
        let is_leased = || {
            let is_last = || self.all.last.and_then(|last| last.get(promise.site.as_str())) == Some(&promise);
            matches!(promise.channel, PromiseChannel::Header(_))
                && promise.last_sent >= self.all.context.now
                && is_last()
        };
        self.all.sent.contains(&set_id(promise)) || self.all.context.before.is_none() && is_leased()
    }

    fn refusal(&self, broken: &[&Promise]) -> Refusal {
        let (pin, label) = (self.loaded.chain.pin(), self.entry.site.label());
        let is_backup = self.entry.plan.pins.iter().flat_map(|p| &p.backups).any(|b| b.key.pin == pin);
        Refusal {
            site: label.clone(),
            files: if self.is_in_text_alone(broken) { Vec::new() } else { self.files() },
            shared: self.all.shared.get(self.loaded),
            chain: self.all.context.shown(&self.loaded.path).to_string(),
            pin,
            certain: self.loaded.chain.certain.clone(),
            satisfied_by: satisfying((self.entry, self.all.before), broken, self.all.context),
            own_key: match is_backup {
                true => OwnKey::Backup { promised_since: self.all.context.book.promised_since(&label, pin) },
                false => OwnKey::Unknown,
            },
            still_sent: broken.iter().map(|p| self.is_sent(p)).collect(),
            also_sent_by: Vec::new(),
            gone: self.gone(broken),
            broken: broken.iter().map(|p| (*p).clone()).collect(),
            by_command: false,
            safe_from: broken.iter().map(|p| p.honoured_until()).max().unwrap_or_default(),
        }
    }

    /// The sites that made these promises, and that the file does not have any more.
    fn gone(&self, broken: &[&Promise]) -> Vec<String> {
        let is_there = |site: &str| HostPattern::parse(site).is_ok_and(|site| self.all.names.contains(&site));
        let sites: BTreeSet<&String> = broken.iter().map(|promise| &promise.site).collect();
        sites.into_iter().filter(|site| !is_there(site)).cloned().collect()
    }

    /// `true` if the serving process has no such pair for the names that these promises bind: an installation would be about
    /// the text that it has loaded, and accept nothing for this one.
    fn is_in_text_alone(&self, broken: &[&Promise]) -> bool {
        if self.all.context.served().is_none() {
            return false;
        }
        let Some(in_use) = self.all.before.get(self.entry.report.name()) else { return true };
        let path = &self.loaded.path;
        let has_pair =
            in_use.pairs().iter().any(|pair| pair.path == *path) || in_use.missing().any(|missing| missing == path);
        let (names, known) = (self.entry.served_names(), in_use.hosts().iter().collect::<HashSet<_>>());
        let is_bound = |host: &HostPattern| broken.iter().any(|promise| promise.binds(host, names.except));
        !has_pair || names.hosts.iter().any(|host| !known.contains(host) && is_bound(host))
    }

    /// The files that `pintle install` gets: those of an installation that is being judged, otherwise those in place.
    fn files(&self) -> Vec<String> {
        let LoadedCertificate { path, key, is_managed, .. } = self.loaded;
        if *is_managed {
            return Vec::new();
        }
        let given = |path: &Path| self.all.context.shown_as.get(path).map(|file| file.display().to_string());
        let in_place = |path: &Path| absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let chain = path.as_path();
        let key = key.as_deref().filter(|key| *key != chain);
        match given(chain) {
            Some(chain) => [Some(chain), key.and_then(given)].into_iter().flatten().collect(),
            None => [Some(in_place(chain)), key.map(in_place)].into_iter().flatten().collect(),
        }
    }
}

enum Acceptance {
    /// The ledger has it.
    Known,
    /// The ledger has it, as the effect of a merge or a repair.
    Excused,
    /// It names the right day.
    Given,
    Not(NotAccepted),
}

/// The reason why a lockout is not accepted.
enum NotAccepted {
    /// The line names another day.
    Another { given: String, wanted: String },
    /// The line names the right day, but was there before the chain: the operator may not have seen this refusal.
    BeforeTheChain,
    /// The line names the right day, but no refusal has named this key: the operator may have seen that of another key.
    Unnamed,
    /// The day was used for this key.
    Used(Pin),
    /// There is no line.
    NoLine,
}

impl NotAccepted {
    /// `true` if a line would not count, but only a command.
    fn is_by_command(&self, refusal: &Refusal, counts_line: bool, context: &CheckContext<'_>) -> bool {
        match self {
            Self::Another { .. } => false,
            Self::BeforeTheChain | Self::Unnamed | Self::Used(_) => true,
            // At a start, a line would not count. Beside a process that has not refused this key, a reload that brings the
            // line would refuse it first.
            Self::NoLine => {
                let is_start = context.days_in_use.is_none() && !counts_line;
                context.served().is_none() && (is_start || !context.has_named(&refusal.site, refusal.pin))
            }
        }
    }

    fn note(&self) -> Option<String> {
        Some(match self {
            Self::Another { given, wanted } => format!(
                "accept_lockout_until is {given:?}, should be {wanted:?} for this chain; without a lockout, remove it"
            ),
            Self::BeforeTheChain => {
                "accept_lockout_until was set before this chain came, and accepts no lockout: remove it".into()
            }
            Self::Unnamed => format!(
                "accept_lockout_until came before any refusal had named this key: if you mean this key, `{}` once more",
                pintle("reload")
            ),
            Self::Used(pin) => {
                format!("accept_lockout_until accepted the key {pin}, and accepts no other one: remove it")
            }
            Self::NoLine => return None,
        })
    }
}

fn acceptance(
    table: &SiteTable,
    entry: &SiteEntry,
    refusal: &Refusal,
    counts_line: bool,
    context: &CheckContext<'_>,
) -> Acceptance {
    let (site, book) = (entry.site.label(), context.book);
    let day = refusal.safe_day();
    if book.accepts(&site, refusal.pin, &day, &refusal.broken, entry.served_names()) {
        let sets: HashSet<String> = refusal.broken.iter().map(set_id).collect();
        let mut own = book.lockouts().iter().filter(|a| a.site == site && a.pin == refusal.pin);
        let is_excuse = own.any(|a| a.is_excuse && !book.is_replaced(a) && a.sets.iter().any(|set| sets.contains(set)));
        return if is_excuse { Acceptance::Excused } else { Acceptance::Known };
    }
    // Whoever puts a chain into a file does so for all sites that have this file.
    let is_meant = |a: &&AcceptedByCommand| {
        (a.site == site || refusal.shared.sites.contains(&a.site)) && a.pin.is_none_or(|pin| pin == refusal.pin)
    };
    if let Some(accepted) = context.accept.as_ref().filter(is_meant) {
        let (given, wanted) = (accepted.day.clone(), refusal.day_of_command());
        return match given == wanted {
            true => Acceptance::Given,
            false => Acceptance::Not(NotAccepted::Another { given, wanted }),
        };
    }
    match table.accept_lockout_until.as_ref().map(|at| &at.value) {
        Some(given) if *given != day => Acceptance::Not(NotAccepted::Another { given: given.clone(), wanted: day }),
        Some(_) => match book.accepted_instead(&site, refusal.pin, &day) {
            Some(pin) => Acceptance::Not(NotAccepted::Used(pin)),
            None if !counts_line => Acceptance::Not(NotAccepted::BeforeTheChain),
            None if !context.has_named(&site, refusal.pin) => Acceptance::Not(NotAccepted::Unnamed),
            None => Acceptance::Given,
        },
        None => Acceptance::Not(NotAccepted::NoLine),
    }
}

/// The configured keys, each of which would keep these promises: those of the chains, the backups, and the one in use as
/// long as its file is there. (It is there while a chain is judged before it replaces the file.)
fn satisfying(
    (entry, before): (&SiteEntry, &EntriesByName<'_>),
    broken: &[&Promise],
    context: &CheckContext<'_>,
) -> Vec<(Pin, String)> {
    let live = entry.plan.loaded.iter().map(|l| (l.chain.pin(), context.shown(&l.path).to_string()));
    let backups = entry.plan.pins.iter().flat_map(|p| &p.backups).map(|b| (b.key.pin, b.file.clone()));
    let label = entry.site.label();
    let before = before.get(label.as_str()).filter(|_| !context.instead.is_empty());
    let in_use = before.into_iter().flat_map(|b| b.chains()).map(|chain| (chain.pin(), "in use".to_owned()));
    let mut found: Vec<(Pin, String)> = Vec::new();
    for (pin, whose) in live.chain(backups).chain(in_use) {
        if broken.iter().all(|p| p.is_kept_by(&[pin])) && !found.iter().any(|(known, _)| *known == pin) {
            found.push((pin, whose));
        }
    }
    found
}
