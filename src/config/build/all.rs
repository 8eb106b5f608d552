//! The order of the checks: globals, each site by itself, then the guard over all sites together.

use std::collections::HashMap;

use jiff::Timestamp;

use super::builder::{Builder, BuilderIndexes};
use super::candidate::Candidate;
use super::checker::Checker;
use super::entry::{SiteEntry, by_name};
use super::files_ahead::FilesAhead;
use super::globals::globals;
use super::hosts::hosts;
use super::keep::{KeptSites, keep_unfit, mark_shorter, note_missing, note_refused};
use super::stand_in::CandidateChange;
use super::stand_in_copies::StandInCopies;
use super::{assemble, guard, planning, settle, suites, unserved};
use crate::config::file::ConfigFile;
use crate::config::problem::{At, Problems};
use crate::config::{CheckContext, Config, Draft};
use crate::host::HostPattern;
use crate::ledger::time::{DOUBT, wall};
use crate::policy::promise::others;

impl Draft {
    /// Checks everything. Returns a configuration unless the problems have errors; errors of pairs that nothing replaces
    /// count only if the context says so ([`CheckContext::may_lack`]).
    #[must_use]
    pub fn build(&self, context: &CheckContext<'_>) -> (Option<Config>, Problems) {
        let mut problems = self.problems.clone();
        let Some(file) = &self.file else { return (None, problems) };
        let config = build(self, file, context, &mut problems);
        (config, problems)
    }
}

/// Checks everything. Returns a configuration only if there are no errors.
fn build(draft: &Draft, file: &ConfigFile, context: &CheckContext<'_>, problems: &mut Problems) -> Option<Config> {
    let ahead = files_ahead(draft, file, context);
    let mut r = checker(draft, context, &ahead, problems);
    let mut taken = HashMap::new();
    let hosts: Vec<Vec<At<HostPattern>>> =
        file.sites.iter().enumerate().map(|(index, table)| hosts(table, index, &mut taken, &mut r)).collect();
    let globals = globals(draft, file, &hosts, context, &mut r);
    if context.keeps_sites {
        // The text is the one in use. A folder that is gone since then must not keep certificates from being renewed.
        r.problems.forgive();
    }
    let names: Vec<Vec<HostPattern>> = hosts.iter().map(|h| h.iter().map(|at| at.value.clone()).collect()).collect();
    let copies = StandInCopies::of(context);
    let mut builder = Builder {
        draft,
        file,
        hosts: &hosts,
        names: &names,
        globals: &globals,
        except: others(&names.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        before: by_name(context.before.map_or(&[], |before| &before.entries)),
        indexes: BuilderIndexes::default(),
        copies: &copies,
        reuse: planning::Reuse::of(context.before),
        upstreams: context.before.map(|b| b.upstreams.clone()).unwrap_or_default(),
        context,
    };
    let none = CandidateChange::default();
    let candidates = || (0..file.sites.len()).map(|index| builder.candidate(index, &none, &mut r)).collect();
    let mut candidates: Vec<Candidate> = ahead.during(candidates);
    settle::renew_awaited(&mut candidates, &mut builder, &mut r);
    let mut kept = keep(&mut candidates, context);
    let entries: Vec<&SiteEntry> = candidates.iter().filter_map(|c| c.entry.as_deref()).collect();
    // One renewed certificate is no reason to refuse all others.
    let may_refuse = !context.keeps_sites;
    suites::check(&file.tls, &globals.offer, &entries, may_refuse, &mut r);
    let admitted = guard::admit(&mut candidates, &mut builder, &mut kept, &mut r);
    unserved::warn_of_unserved(&builder, &mut r);
    let upstreams = builder.upstreams;
    for candidate in &candidates {
        r.problems.extend(candidate.problems.iter().chain(&candidate.notes).cloned());
    }
    let has_errors = r.problems.has_errors();
    for candidate in &mut candidates {
        r.problems.extend(note_missing(candidate, &mut kept));
        r.problems.extend(std::mem::take(&mut candidate.apart));
    }
    if has_errors {
        return None;
    }
    let (mut entries, mut news) = (Vec::with_capacity(candidates.len()), Vec::new());
    for candidate in candidates {
        let Some(entry) = candidate.entry else { continue };
        news.extend(candidate.news.into_iter().map(|problem| (entry.site.label(), problem)));
        entries.push(entry);
    }
    let outcome = assemble::AssembleOutcome { admitted, kept: kept.into_list(), news };
    assemble::assemble((draft, context), globals, (entries, upstreams), outcome)
}

/// The files to read ahead. Beside a configuration in use, most sites stay as they are.
fn files_ahead(draft: &Draft, file: &ConfigFile, context: &CheckContext<'_>) -> FilesAhead {
    match context.before {
        Some(_) => FilesAhead::default(),
        None => FilesAhead::of(&draft.folder, file, &context.instead, context.chains_alone),
    }
}

/// Lets unfit sites keep what they have, or a part of it.
fn keep(candidates: &mut [Candidate], context: &CheckContext<'_>) -> KeptSites {
    let mut kept = KeptSites::default();
    for candidate in candidates.iter_mut() {
        note_refused(candidate, context, &mut kept);
    }
    if context.keeps_sites
        && let Some(settled) = &context.waits_for_chains
    {
        mark_shorter(candidates, context, settled);
    }
    for candidate in candidates.iter_mut() {
        keep_unfit(candidate, context, &mut kept);
    }
    kept
}

fn checker<'a>(
    draft: &'a Draft,
    context: &'a CheckContext<'_>,
    ahead: &'a FilesAhead,
    problems: &'a mut Problems,
) -> Checker<'a> {
    let doubted = Some(wall()).filter(|wall| wall.saturating_sub(context.now) > DOUBT);
    Checker {
        folder: &draft.folder,
        problems,
        now: Timestamp::from_second(context.now).unwrap_or_default(),
        doubted: doubted.and_then(|wall| Timestamp::from_second(wall).ok()),
        instead: &context.instead,
        shown_as: &context.shown_as,
        chains_alone: context.chains_alone,
        looked: &context.looked,
        ahead,
        stamps: Vec::new(),
    }
}
