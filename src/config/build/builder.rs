//! Makes candidates of sites, also again where something must differ from their files.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::candidate::{self, Candidate};
use super::checker::Checker;
use super::entry::{ByName, Entry};
use super::globals::Globals;
use super::loaded::Loaded;
use super::planning::Reuse;
use super::stand_in::{Served, StandIns};
use super::upstream::Upstreams;
use crate::config::file::File;
use crate::config::problem::At;
use crate::config::{Context, Draft, StandIn};
use crate::host::HostPattern;

/// Makes candidates of sites.
pub(super) struct Builder<'a> {
    pub(super) draft: &'a Draft,
    pub(super) file: &'a File,
    pub(super) hosts: &'a [Vec<At<HostPattern>>],
    pub(super) globals: &'a Globals,
    pub(super) except: Vec<Vec<HostPattern>>,
    pub(super) before: ByName<'a>,
    pub(super) reuse: Reuse,
    pub(super) upstreams: Upstreams,
    pub(super) context: &'a Context<'a>,
}

/// The ways in which a candidate must differ from its text and files.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// Indexes in `[[site.certificate]]` whose pair on disk would break a promise: the pair that was served last stays.
    pub(super) forced: BTreeSet<usize>,
    /// Its pins would lock readers out of another site: pintle sends none.
    pub(super) withhold: bool,
}

impl Builder<'_> {
    pub(super) fn candidate(&mut self, index: usize, change: &Change, r: &mut Checker<'_>) -> Candidate {
        let (Some(table), Some(hosts)) = (self.file.sites.get(index), self.hosts.get(index)) else {
            unreachable!("called with the places of file.sites")
        };
        let except = self.except.get(index).cloned().unwrap_or_default();
        let label = hosts.first().map(|at| at.value.to_string()).unwrap_or_default();
        let stand_ins = StandIns::of(self.served_as(&label), self.context, &change.forced);
        let (draft, file, globals) = (self.draft, self.file, self.globals);
        let planned = self.reuse.plan(draft, file, index, hosts, globals, &stand_ins, &mut self.upstreams, r);
        let mut candidate =
            candidate::candidate(&self.before, table, except.clone(), planned, change.withhold, self.context, r);
        // A reload must not fail because of files that it did not change: with the same text, they are as good or bad as
        // they were.
        let has_same_text = || {
            let before = self.context.served().and_then(|before| before.entries.get(index));
            before.is_some_and(|before| before.plan.source == candidate.plan.source)
        };
        if self.context.keeps_sites || (self.context.stand_in == StandIn::Always && has_same_text()) {
            candidate.standing = candidate::standing(index, &self.before, table, except, &candidate, self.context, r);
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
    pub(super) fn served(&self, candidate: &Candidate, pair: &Loaded) -> Option<Served> {
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
