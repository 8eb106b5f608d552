//! From the text to what is served: checks every value, and reports every problem.
//!
//! A site is made in two steps. Its [`Plan`] comes from the text and the files alone, and is reused as long as these
//! stay the same. Its [`Entry`] adds what the ledger and the time contribute. The guard then judges all sites together.

mod addresses;
mod assemble;
mod certificates;
mod entry;
mod guard;
mod headers;
mod health;
mod hsts;
mod keep;
mod limits;
mod listen;
mod offer;
mod pins;
mod plan;
mod process;
pub(in crate::config) mod refusal;
pub mod report;
mod stand_in;
mod upstream;

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Display, Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::file::{File, SiteTable};
use super::problem::{At, Problem, Problems};
use super::stamp::{Looked, Stamp};
use super::{AccessTarget, Config, Context, Draft, StandIn};
use crate::host::{HostMap, HostPattern};
use crate::ledger::time::{DOUBT, wall};
use crate::policy::promise::others;
use crate::reason::Reason;
use crate::reason::near::did_you_mean;
use crate::telemetry::AccessFormat;
use crate::tls::offer::TlsOffer;
use keep::{keep_unfit, mark_shorter, note_refused};
use plan::Plan;
use stand_in::{RefusedPair, Served, StandIns};

pub(super) use assemble::chains_until;
pub(super) use certificates::Loaded;
pub(super) use entry::{Entry, by_name};
pub(super) use upstream::Upstreams;

/// What every check needs: where relative paths begin, where problems go, and the time.
struct Checker<'a> {
    folder: &'a Path,
    problems: &'a mut Problems,
    now: Timestamp,
    /// The clock's time, where it is doubtful: either the clock is wrong, or nothing was written down for a year.
    doubted: Option<Timestamp>,
    /// Contents that replace those of files.
    instead: &'a HashMap<PathBuf, Vec<u8>>,
    /// Names of files in messages, where they differ from the path.
    shown_as: &'a HashMap<PathBuf, PathBuf>,
    /// The chains among `instead` have no keys here.
    chains_alone: bool,
    looked: &'a Looked,
    /// The files that were read, with their stamps.
    stamps: Vec<(PathBuf, Stamp)>,
}

impl Checker<'_> {
    fn error(&mut self, span: &Range<usize>, reason: impl Into<Reason>) {
        self.problems.error(span, reason);
    }

    fn error_with_hint(&mut self, span: &Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.error(span, Reason::new(what).hint(hint));
    }

    fn warn(&mut self, span: &Range<usize>, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.warn(span, Reason::new(what).hint(hint));
    }

    fn report(&mut self, problem: Problem) {
        self.problems.insert(problem);
    }

    /// The name of a file in messages.
    fn shown<'p>(&'p self, path: &'p Path) -> Display<'p> {
        self.shown_as.get(path).map_or(path, PathBuf::as_path).display()
    }

    /// The path that the configuration means: relative ones begin in its folder.
    fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// One of several words; `default` if the value is missing or unknown.
    fn choice<T: Copy>(&mut self, key: &str, value: Option<&At<String>>, words: &[(&str, T)], default: T) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == value.value) {
            return *chosen;
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        let noun = if matches!(last, "mode" | "profile" | "format") { last } else { "value" };
        let reason = unknown(key, noun, &value.value, words.iter().map(|(word, _)| *word));
        self.error(&value.span, reason);
        default
    }
}

/// An unknown word: which ones are known, and which one may have been meant.
fn unknown<'k>(key: &str, noun: &str, word: &str, known: impl Iterator<Item = &'k str> + Clone) -> Reason {
    let expected: Vec<&str> = known.clone().collect();
    let mut reason = Reason::new(format!("{key}: unknown {noun} {word:?}"));
    reason.notes.push(format!("expected one of: {}", expected.join(", ")));
    reason.hints.extend(did_you_mean(word, known));
    reason
}

/// The settings that belong to no site.
struct Globals {
    listen: listen::Listen,
    limits: crate::limits::Limits,
    reports: Option<crate::site::ReportsAt>,
    offer: TlsOffer,
    access: AccessTarget,
    access_format: AccessFormat,
    acme_webroot: Option<PathBuf>,
    name_servers: crate::upstream::dns::NameServers,
    by_host: HostMap<usize>,
    default_site: Option<usize>,
    sandbox: crate::os::sandbox::Settings,
}

/// A site that is being made: its entry, if there is one, and its problems.
struct Candidate {
    entry: Option<Arc<Entry>>,
    plan: Arc<Plan>,
    problems: Vec<Problem>,
    /// New warnings: those about files that have changed.
    news: Vec<Problem>,
    /// Pairs on disk that other pairs replace.
    refused: Vec<RefusedPair>,
    /// Problems of files that something else replaces.
    notes: Vec<Problem>,
    /// The fallback if this candidate is rejected: the previous files, with the ledger and the time of now.
    standing: Option<Arc<Entry>>,
    by_guard: bool,
    /// It is the one that was served before.
    is_kept: bool,
}

impl Candidate {
    fn new(
        entry: Option<Arc<Entry>>,
        plan: Arc<Plan>,
        problems: Vec<Problem>,
        news: Vec<Problem>,
        refused: Vec<RefusedPair>,
    ) -> Self {
        let (notes, standing) = (Vec::new(), None);
        Self { entry, plan, problems, news, refused, notes, standing, by_guard: false, is_kept: false }
    }

    fn is_fit(&self) -> bool {
        self.entry.is_some() && !self.problems.iter().any(Problem::is_error)
    }
}

/// Checks everything. Returns a configuration only if there are no errors.
pub(super) fn build(draft: &Draft, file: &File, context: &Context<'_>, problems: &mut Problems) -> Option<Config> {
    let now = Timestamp::from_second(context.now).unwrap_or_default();
    let folder = &draft.folder;
    let (instead, shown_as, looked) = (&context.instead, &context.shown_as, &context.looked);
    let doubted = Some(wall()).filter(|wall| wall.saturating_sub(context.now) > DOUBT);
    let doubted = doubted.and_then(|wall| Timestamp::from_second(wall).ok());
    let chains_alone = context.chains_alone;
    let mut r = Checker { folder, problems, now, doubted, instead, shown_as, chains_alone, looked, stamps: Vec::new() };
    let mut taken = HashMap::new();
    let hosts: Vec<Vec<At<HostPattern>>> =
        file.sites.iter().enumerate().map(|(index, table)| hosts(table, index, &mut taken, &mut r)).collect();
    let globals = globals(draft, file, &hosts, &mut r);
    if context.keeps_sites {
        // The text is the one in use. A folder that is gone since then must not keep certificates from being renewed.
        r.problems.forgive();
    }
    let names: Vec<Vec<HostPattern>> = hosts.iter().map(|h| h.iter().map(|at| at.value.clone()).collect()).collect();
    let mut builder = Builder {
        draft,
        file,
        hosts: &hosts,
        globals: &globals,
        except: others(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        before: by_name(context.before.map_or(&[], |before| &before.entries)),
        reuse: plan::Reuse::of(context.before),
        upstreams: context.before.map(|b| b.upstreams.clone()).unwrap_or_default(),
        context,
    };
    let mut candidates: Vec<Candidate> =
        (0..file.sites.len()).map(|index| builder.candidate(index, &Change::default(), &mut r)).collect();
    let mut kept = Vec::new();
    for (index, candidate) in candidates.iter_mut().enumerate() {
        note_refused(index, candidate, context, &mut kept);
    }
    if context.keeps_sites
        && let Some(settled) = &context.waits_for_chains
    {
        mark_shorter(&mut candidates, context, settled);
    }
    for (index, candidate) in candidates.iter_mut().enumerate() {
        keep_unfit(candidate, index, context, &mut kept);
    }
    let entries: Vec<&Entry> = candidates.iter().filter_map(|c| c.entry.as_deref()).collect();
    // One renewed certificate is no reason to refuse all others.
    let may_refuse = !context.keeps_sites;
    offer::check_keys(&file.tls, &globals.offer, &entries, may_refuse, &mut r);
    let admitted = guard::admit(&mut candidates, &mut builder, &mut kept, &mut r);
    let upstreams = builder.upstreams;
    guard::warn_of_unserved(&names, context, &mut r);
    for candidate in &candidates {
        r.problems.extend(candidate.problems.iter().chain(&candidate.notes).cloned());
    }
    if r.problems.has_errors() {
        return None;
    }
    let (mut entries, mut news) = (Vec::with_capacity(candidates.len()), Vec::new());
    for candidate in candidates {
        let Some(entry) = candidate.entry else { continue };
        news.extend(candidate.news.into_iter().map(|problem| (entry.site.label(), problem)));
        entries.push(entry);
    }
    let outcome = assemble::Outcome { admitted, kept, news };
    assemble::assemble(draft, globals, entries, upstreams, outcome, context)
}

/// Makes candidates of sites.
struct Builder<'a> {
    draft: &'a Draft,
    file: &'a File,
    hosts: &'a [Vec<At<HostPattern>>],
    globals: &'a Globals,
    except: Vec<Vec<HostPattern>>,
    before: entry::ByName<'a>,
    reuse: plan::Reuse,
    upstreams: Upstreams,
    context: &'a Context<'a>,
}

/// What a candidate must do differently from its text and files.
#[derive(Debug, Clone, Default)]
struct Change {
    /// Indexes in `[[site.certificate]]` whose pair on disk would break a promise: the pair that was served last stays.
    forced: BTreeSet<usize>,
    /// Its pins would lock readers out of another site: pintle sends none.
    withhold: bool,
}

impl Builder<'_> {
    fn candidate(&mut self, index: usize, change: &Change, r: &mut Checker<'_>) -> Candidate {
        let (Some(table), Some(hosts)) = (self.file.sites.get(index), self.hosts.get(index)) else {
            unreachable!("called with the places of file.sites")
        };
        let except = self.except.get(index).cloned().unwrap_or_default();
        let label = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
        let stand_ins = StandIns::of(self.served_as(&label), self.context, &change.forced);
        let (draft, file, globals) = (self.draft, self.file, self.globals);
        let planned = self.reuse.plan(draft, file, index, hosts, globals, &stand_ins, &mut self.upstreams, r);
        let mut candidate =
            entry::candidate(&self.before, table, except.clone(), planned, change.withhold, self.context, r);
        // A reload must not fail because of files that it did not change: with the same text, they are as good or bad as
        // they were.
        let has_same_text = || {
            let before = self.context.served().and_then(|before| before.entries.get(index));
            before.is_some_and(|before| before.plan.source == candidate.plan.source)
        };
        if self.context.keeps_sites || (self.context.stand_in == StandIn::Always && has_same_text()) {
            candidate.standing = entry::standing(index, &self.before, table, except, &candidate, self.context, r);
        }
        candidate
    }
}

impl<'a> Builder<'a> {
    /// The site with this first name that clients see now.
    fn served_as(&self, label: &str) -> Option<&'a Arc<Entry>> {
        self.before.get(label).copied().filter(|_| self.context.is_served)
    }
}

impl Builder<'_> {
    /// The pair that was served last where this one is configured.
    fn served(&self, candidate: &Candidate, pair: &Loaded) -> Option<Served> {
        let label = candidate.plan.hosts.first().map(ToString::to_string).unwrap_or_default();
        let table = self
            .file
            .sites
            .iter()
            .zip(self.hosts)
            .find(|(_, hosts)| hosts.first().is_some_and(|at| Some(&at.value) == candidate.plan.hosts.first()))?
            .0
            .certificates
            .get(pair.at)?;
        let none = BTreeSet::new();
        let stand_ins = StandIns::of(self.served_as(&label), self.context, &none);
        stand_ins.served(table, pair.at, &pair.path, &self.draft.folder)
    }
}

fn globals(draft: &Draft, file: &File, hosts: &[Vec<At<HostPattern>>], r: &mut Checker<'_>) -> Globals {
    let listen = listen::build(&file.listen, r);
    let mut limits = limits::build(&file.limits, r);
    listen::check_admin(file.admin_listen.as_ref(), draft, r);
    if let Some(directory) = &file.state_directory
        && directory.value.is_empty()
    {
        r.error_with_hint(&directory.span, "state.directory: must not be empty", "leave the key out, or name a folder");
    }
    if file.sites.is_empty() {
        r.error_with_hint(&(0..0), "no site is configured", "add a [[site]] with hosts and upstream");
    }
    let mut by_host = HostMap::default();
    for (index, hosts) in hosts.iter().enumerate() {
        for host in hosts {
            by_host.insert(&host.value, index);
        }
    }
    let reports = file.reports.as_ref().and_then(|t| listen::reports(t, &by_host, r));
    let default_site = listen::default_site(&file.tls, hosts, &by_host, r);
    let places = addresses::Places { listen: &listen, tls: &file.tls, default_site };
    addresses::check(file, hosts, &places, r);
    if default_site.and_then(|at| file.sites.get(at)).is_some_and(|s| s.certificates.iter().all(|c| c.key.is_none())) {
        let span = file.tls.default_site.as_ref().map_or(&file.tls.span, |d| &d.span).clone();
        let hint = "give it [site.certificate] with chain and key, or name another site";
        r.error_with_hint(&span, "tls.default_site: this site has no certificate with a key", hint);
    }
    let offer = offer::build(&file.tls, r);
    let formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let access_format = r.choice("log.format", file.log.format.as_ref(), &formats, AccessFormat::Json);
    let access = match file.log.access.as_ref().map(|a| (a.value.as_str(), draft.access_file())) {
        None | Some(("stdout", _)) => AccessTarget::Stdout,
        Some((_, None)) => AccessTarget::Off,
        Some((_, Some(path))) => AccessTarget::File(path),
    };
    process::check_access(file.log.access.as_ref(), &access, r);
    let acme_webroot = file.acme_webroot.as_ref().map(|w| {
        let path = r.path(&w.value);
        if !path.is_dir() {
            let what = if path.exists() { "not a folder" } else { "no such folder" };
            r.error_with_hint(
                &w.span,
                format!("acme.webroot: {}: {what}", path.display()),
                format!("mkdir -p {}, or leave the key out", path.display()),
            );
        }
        path
    });
    let name_servers = listen::name_servers(file.name_servers.as_deref(), r);
    listen::fit_limits(&file.limits, &mut limits);
    process::check(&file.process, r);
    let sandbox = process::sandbox(&file.sandbox, r);
    Globals {
        listen,
        limits,
        reports,
        offer,
        access,
        access_format,
        acme_webroot,
        name_servers,
        by_host,
        default_site,
        sandbox,
    }
}

/// The host that was meant by a URL, or by a host with a port.
fn host_within(text: &str) -> Option<HostPattern> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let bracket = authority.rfind(']').unwrap_or(0);
    let host = authority[bracket..].rfind(':').map_or(authority, |colon| &authority[..bracket + colon]);
    // An IPv6 address without its brackets.
    let bare = authority.parse::<std::net::Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    HostPattern::of_site(&bare.unwrap_or_else(|| host.to_owned())).ok()
}

/// A site's names; each belongs to one site only.
fn hosts(
    table: &SiteTable,
    index: usize,
    taken: &mut HashMap<HostPattern, (usize, Range<usize>)>,
    r: &mut Checker<'_>,
) -> Vec<At<HostPattern>> {
    let Some(listed) = &table.hosts else {
        if !table.has_hosts {
            r.error_with_hint(&table.span, "site: hosts is missing", "hosts = [\"blog.example.com\"]");
        }
        return Vec::new();
    };
    if listed.is_empty() {
        r.error_with_hint(&table.span, "site.hosts: must not be empty", "hosts = [\"blog.example.com\"]");
    }
    let mut hosts = Vec::new();
    for text in listed {
        let pattern = match HostPattern::of_site(&text.value) {
            Ok(pattern) => pattern,
            Err(why) => {
                let message = format!("site.hosts: {:?}: {why}", text.value);
                match host_within(&text.value) {
                    Some(host) => r.error_with_hint(&text.span, message, format!("hosts = [{:?}]", host.to_string())),
                    None => r.error(&text.span, message),
                }
                continue;
            }
        };
        if let Some((other, span)) = taken.get(&pattern) {
            let (line, _) = r.problems.line_and_column(span.start);
            let whose = if *other == index { "this site" } else { "another site" };
            r.error(
                &text.span,
                Reason::new(format!("site.hosts: {pattern} is taken: {whose} has it in line {line}"))
                    .hint("remove one of them"),
            );
            continue;
        }
        taken.insert(pattern.clone(), (index, text.span.clone()));
        hosts.push(text.with(pattern));
    }
    hosts
}
