//! From what is written to what is served: every value checked, every problem told.
//!
//! A site is made in two steps. Its [`Plan`](plan::Plan) comes from the text and the files alone, and is taken over for as
//! long as these are the same; its [`Entry`] adds what the ledger and the time have to say. The guard then looks at all
//! of them together.

mod assemble;
mod certificates;
mod entry;
pub(in crate::config) mod guard;
mod headers;
mod health;
mod hsts;
mod limits;
mod listen;
mod pins;
mod plan;
mod process;
pub mod report;
mod upstream;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::file::{File, SiteTable};
use super::problem::{At, Problem, Problems, Severity};
use super::stamp::{Looked, Stamp};
use super::{AccessTarget, Config, Context, Draft, Kept};
use crate::host::{HostMap, HostPattern};
use crate::policy::guard::others;
use crate::telemetry::AccessFormat;
use crate::tls::config::Versions;

pub(super) use assemble::chains_until;
pub(super) use entry::{Entry, by_name};
pub(super) use upstream::Upstreams;

/// What resolving passes around.
struct Resolver<'a> {
    folder: &'a Path,
    problems: &'a mut Problems,
    now: Timestamp,
    /// Contents in place of those of files.
    instead: &'a HashMap<PathBuf, Vec<u8>>,
    looked: &'a Looked,
    /// The files that were looked at, and what they were like.
    stamps: Vec<(PathBuf, Stamp)>,
}

impl Resolver<'_> {
    fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        self.problems.error(span, message, None);
    }

    fn error_with_hint(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.error(span, message, Some(hint.into()));
    }

    fn warn(&mut self, span: &Range<usize>, message: impl Into<String>, hint: impl Into<String>) {
        self.problems.warn(span, message, Some(hint.into()));
    }

    /// Relative paths are taken from the folder of the file that names them.
    fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// One of several words.
    fn choice<T: Copy>(&mut self, key: &str, value: Option<&At<String>>, words: &[(&str, T)], default: T) -> T {
        let Some(value) = value else { return default };
        if let Some((_, chosen)) = words.iter().find(|(word, _)| *word == value.value) {
            return *chosen;
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.error(&value.span, format!("{key}: {:?} is none of {}", value.value, known.join(", ")));
        default
    }
}

/// What concerns no site in particular.
struct Globals {
    listen: listen::Listen,
    limits: crate::limits::Limits,
    reports: Option<crate::site::ReportsAt>,
    versions: Versions,
    access: AccessTarget,
    access_format: AccessFormat,
    acme_webroot: Option<PathBuf>,
    name_servers: crate::upstream::resolve::NameServers,
    by_host: HostMap<usize>,
    default_site: Option<usize>,
    sandbox: crate::sandbox::Settings,
}

/// A site on its way: what it comes to, and what there is to tell about it.
struct Candidate {
    entry: Option<Arc<Entry>>,
    problems: Vec<Problem>,
    /// Warnings that there were not before: those of files that have changed.
    news: Vec<Problem>,
    /// What goes on if this does not come to be: the files of before, with the ledger and the time of now.
    standing: Option<Arc<Entry>>,
    by_guard: bool,
    /// It is the one that was served before.
    is_kept: bool,
}

impl Candidate {
    fn is_fit(&self) -> bool {
        self.entry.is_some() && self.problems.iter().all(|p| p.severity == Severity::Warning)
    }
}

/// Checks everything. The configuration is complete only if there are no errors.
pub(super) fn resolve(draft: &Draft, file: &File, context: &Context<'_>, problems: &mut Problems) -> Option<Config> {
    let now = Timestamp::from_second(context.now).unwrap_or_default();
    let folder = &draft.folder;
    let (instead, looked) = (&context.instead, &context.looked);
    let mut r = Resolver { folder, problems, now, instead, looked, stamps: Vec::new() };
    let mut taken = HashMap::new();
    let hosts: Vec<Vec<At<HostPattern>>> =
        file.sites.iter().enumerate().map(|(index, table)| hosts(table, index, &mut taken, &mut r)).collect();
    let globals = globals(file, &hosts, &mut r);
    if context.keeps_sites {
        // The text is that of the configuration in use. A folder that is gone since is no reason to let certificates expire.
        r.problems.forgive();
    }
    let mut upstreams = context.before.map(|b| b.upstreams.clone()).unwrap_or_default();
    let mut reuse = plan::Reuse::of(context.before);
    let mut candidates = Vec::with_capacity(file.sites.len());
    let names: Vec<Vec<HostPattern>> = hosts.iter().map(|h| h.iter().map(|at| at.value.clone()).collect()).collect();
    let except = others(&names.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let before = by_name(context.before.map_or(&[], |before| &before.entries));
    for (index, ((table, hosts), except)) in file.sites.iter().zip(&hosts).zip(except).enumerate() {
        let plan = reuse.plan(draft, file, index, hosts, &globals, &mut upstreams, &mut r);
        let mut candidate = entry::candidate(&before, table, except.clone(), plan, context, &mut r);
        if context.keeps_sites {
            candidate.standing = entry::standing(index, &before, table, except, &candidate, context, &mut r);
        }
        candidates.push(candidate);
    }
    let mut kept = Vec::new();
    if context.keeps_sites {
        if let Some(settled) = &context.waits_for_chains {
            mark_shorter(&mut candidates, context, settled);
        }
        keep_unfit(&mut candidates, context, &mut kept);
    }
    let admitted = guard::admit(file, &mut candidates, context, &mut kept, &mut r);
    guard::warn_of_unserved(&names, context, &mut r);
    for candidate in &candidates {
        r.problems.extend(candidate.problems.iter().cloned());
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

/// Takes chains that have become shorter for unfit.
fn mark_shorter(candidates: &mut [Candidate], context: &Context<'_>, settled: &[String]) {
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
fn keep_unfit(candidates: &mut [Candidate], context: &Context<'_>, kept: &mut Vec<Kept>) {
    if context.before.is_none() {
        return;
    }
    for (index, candidate) in candidates.iter_mut().enumerate().filter(|(_, c)| !c.is_kept && !c.is_fit()) {
        let Some(entry) = candidate.standing.clone() else { continue };
        let refused = candidate.entry.replace(entry.clone());
        kept.push(Kept {
            index,
            site: entry.site.label(),
            problems: std::mem::take(&mut candidate.problems),
            by_guard: candidate.by_guard,
            certificates: refused.map(|refused| refused.report.certificates.clone()).unwrap_or_default(),
        });
        candidate.is_kept = true;
        candidate.news.clear();
    }
}

fn globals(file: &File, hosts: &[Vec<At<HostPattern>>], r: &mut Resolver<'_>) -> Globals {
    let listen = listen::resolve(&file.listen, r);
    let mut limits = limits::resolve(&file.limits, r);
    listen::check_admin(file.admin_listen.as_ref(), r);
    if let Some(directory) = &file.state_directory
        && directory.value.is_empty()
    {
        r.error(&directory.span, "state.directory: is empty");
    }
    if file.sites.is_empty() {
        r.error_with_hint(&(0..0), "there is no site", "add a [[site]] with hosts and upstream");
    }
    let mut by_host = HostMap::default();
    for (index, hosts) in hosts.iter().enumerate() {
        for host in hosts {
            by_host.insert(&host.value, index);
        }
    }
    let reports = file.reports.as_ref().and_then(|t| listen::reports(t, &by_host, r));
    let default_site = listen::default_site(&file.tls, &by_host, r);
    if default_site.and_then(|at| file.sites.get(at)).is_some_and(|s| s.certificates.iter().all(|c| c.key.is_none())) {
        let span = file.tls.default_site.as_ref().map_or(&file.tls.span, |d| &d.span).clone();
        r.error(&span, "tls.default_site: this site has no certificate with a key");
    }
    let versions = listen::versions(&file.tls, r);
    let formats = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    let access_format = r.choice("log.format", file.log.format.as_ref(), &formats, AccessFormat::Json);
    let access = match file.log.access.as_ref().map(|a| a.value.as_str()) {
        None | Some("stdout") => AccessTarget::Stdout,
        Some("off") => AccessTarget::Off,
        Some(path) => AccessTarget::File(r.path(path)),
    };
    let acme_webroot = file.acme_webroot.as_ref().map(|w| {
        let path = r.path(&w.value);
        if !path.is_dir() {
            r.error_with_hint(
                &w.span,
                format!("acme.webroot: {} is no folder", path.display()),
                "make it, or leave the key out",
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
        versions,
        access,
        access_format,
        acme_webroot,
        name_servers,
        by_host,
        default_site,
        sandbox,
    }
}

/// A site's names, each of which no other site has.
fn hosts(
    table: &SiteTable,
    index: usize,
    taken: &mut HashMap<HostPattern, (usize, Range<usize>)>,
    r: &mut Resolver<'_>,
) -> Vec<At<HostPattern>> {
    let Some(listed) = &table.hosts else {
        if !table.has_hosts {
            r.error_with_hint(&table.span, "site: has no hosts", "hosts = [\"blog.example.com\"]");
        }
        return Vec::new();
    };
    if listed.is_empty() {
        r.error_with_hint(&table.span, "site.hosts: is empty", "hosts = [\"blog.example.com\"]");
    }
    let mut hosts = Vec::new();
    for text in listed {
        let pattern = match HostPattern::parse(&text.value) {
            Ok(pattern) => pattern,
            Err(why) => {
                r.error(&text.span, format!("site.hosts: {:?}: {why}", text.value));
                continue;
            }
        };
        if let Some((other, span)) = taken.get(&pattern) {
            let (line, _) = r.problems.line_and_column(span.start);
            let whose = if *other == index { "this site" } else { "another site" };
            r.error(&text.span, format!("site.hosts: {pattern} belongs to {whose} already, in line {line}"));
            continue;
        }
        taken.insert(pattern.clone(), (index, text.span.clone()));
        hosts.push(text.with(pattern));
    }
    hosts
}
