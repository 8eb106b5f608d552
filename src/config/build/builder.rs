//! Makes candidates of sites, also again where something must differ from their files.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::candidate::{self, Basis, Candidate};
use super::checker::Checker;
use super::entry::{ByHost, EntriesByName, SiteEntry};
use super::globals::Globals;
use super::held_pins::HeldPins;
use super::loaded::LoadedCertificate;
use super::plan::NameApart;
use super::planning::{Reuse, SiteToPlan};
use super::stand_in::{CandidateChange, MayLackHere, ServedLast, SitesInUse, StandIns};
use super::stand_in_copies::StandInCopies;
use super::upstream::Upstreams;
use crate::config::file::{ConfigFile, SiteTable};
use crate::config::problem::At;
use crate::config::{CheckContext, Draft, MayLack, ServedBefore, StandIn};
use crate::host::HostPattern;
use crate::policy::promise::Promise;

/// The sites that an earlier process served, by all their names.
type ServedByHost<'a> = HashMap<&'a HostPattern, &'a ServedBefore, foldhash::fast::RandomState>;

/// Indexes for all sites, each made once somebody asks.
#[derive(Default)]
pub(super) struct BuilderIndexes<'a> {
    /// The sites of the configuration in use by all their names.
    by_host: OnceCell<ByHost<'a>>,
    /// The sites that an earlier process served, by all their names.
    served_before: OnceCell<ServedByHost<'a>>,
    /// The set of pins that each site sent last.
    sent_last: OnceCell<HashMap<&'a str, &'a Promise>>,
    /// The ends of promises in headers.
    held_pins: OnceCell<HeldPins<'a>>,
}

/// Makes candidates of sites.
pub(super) struct Builder<'a> {
    pub(super) draft: &'a Draft,
    pub(super) file: &'a ConfigFile,
    pub(super) hosts: &'a [Vec<At<HostPattern>>],
    /// The same, without their places.
    pub(super) names: &'a [Vec<HostPattern>],
    pub(super) globals: &'a Globals,
    pub(super) except: Vec<Vec<HostPattern>>,
    pub(super) before: EntriesByName<'a>,
    pub(super) indexes: BuilderIndexes<'a>,
    pub(super) copies: &'a StandInCopies<'a>,
    pub(super) reuse: Reuse,
    pub(super) upstreams: Upstreams,
    pub(super) context: &'a CheckContext<'a>,
}

impl Builder<'_> {
    pub(super) fn candidate(&mut self, index: usize, change: &CandidateChange, r: &mut Checker<'_>) -> Candidate {
        let (Some(table), Some(hosts)) = (self.file.sites.get(index), self.hosts.get(index)) else {
            unreachable!("called with the places of file.sites")
        };
        let except = self.except.get(index).cloned().unwrap_or_default();
        let names = self.names.get(index).map_or(&[][..], Vec::as_slice);
        let may_lack = self.may_lack(index);
        let stand_ins = StandIns::of(self.in_use_for(names), self.copies, change, may_lack, (names, table));
        let (draft, file, globals) = (self.draft, self.file, self.globals);
        let site = SiteToPlan { draft, file, index, hosts, globals, stand_ins: &stand_ins };
        let planned = self.reuse.plan(&site, &mut self.upstreams, r);
        let promises = self.copies.promises();
        let basis = Basis { before: &self.before, index, table, except, promises, context: self.context };
        let mut candidate = candidate::candidate(&basis, planned, change.withhold, r);
        // A reload must not fail because of files that it did not change: with the same text, they are as good or bad as
        // they were.
        let has_same_text = || {
            let before = self.context.served().and_then(|_| basis.in_use(&candidate.plan));
            before.is_some_and(|before| before.plan.source == candidate.plan.source)
        };
        if self.context.keeps_sites || (self.context.stand_in == StandIn::Always && has_same_text()) {
            candidate.standing = candidate::standing(&basis, &candidate, r);
        }
        candidate
    }
}

impl<'a> Builder<'a> {
    /// The site with these names that clients see now. Their order may have changed.
    pub(super) fn served_as(&self, names: &[HostPattern]) -> Option<&'a Arc<SiteEntry>> {
        names.iter().find_map(|name| self.in_use(name)).filter(|_| self.context.is_served)
    }

    /// The sites that clients see now: the one with these names, and one that serves a name of them.
    fn in_use_for(&self, names: &[HostPattern]) -> SitesInUse<'a> {
        let serving = || names.iter().find_map(|name| self.serving(name));
        SitesInUse { own: self.served_as(names), serving: self.context.served().and_then(|_| serving()) }
    }

    /// The set of pins that each site sent last in its header.
    pub(super) fn sent_last(&self) -> &HashMap<&'a str, &'a Promise> {
        self.indexes.sent_last.get_or_init(|| self.context.book.sent_last(|_| true))
    }

    /// The ends of the promises in headers.
    pub(super) fn held_pins(&self) -> &HeldPins<'a> {
        self.indexes.held_pins.get_or_init(|| HeldPins::of(self.context.book.promises(), self.context.now))
    }

    /// The site of the configuration in use with this name.
    fn in_use(&self, name: &HostPattern) -> Option<&'a Arc<SiteEntry>> {
        let find = || {
            let entries = self.context.before.iter().flat_map(|before| &before.entries);
            entries.flat_map(|entry| entry.hosts().iter().map(move |host| (host, entry))).collect()
        };
        self.indexes.by_host.get_or_init(find).get(name).copied()
    }

    /// The site of the configuration in use that serves a name now: its own one, or that of the wildcard above it.
    fn serving(&self, name: &HostPattern) -> Option<&'a Arc<SiteEntry>> {
        // A site without any pair in its text leaves TLS for its names to a wildcard.
        let own = self.in_use(name).filter(|own| own.plan.set.is_some() || own.plan.lack.is_some());
        let entry = own.or_else(|| self.in_use(&name.wildcard_above()?))?;
        let is_refused = entry.plan.refused_names().any(|refused| refused == name);
        (entry.plan.set.is_some() && !is_refused).then_some(entry)
    }

    /// The site that served a name in the earlier process: its own one, or that of the wildcard above it.
    fn serving_before(&self, served: &'a [ServedBefore], name: &HostPattern) -> Option<&'a ServedBefore> {
        let by_host = self.served_before(served);
        by_host.get(name).copied().or_else(|| {
            let above = by_host.get(&name.wildcard_above()?).copied()?;
            above.unserved_below.as_ref().is_some_and(|names| !names.contains(name)).then_some(above)
        })
    }

    /// The sites that an earlier process served, by all their names.
    fn served_before(&self, served: &'a [ServedBefore]) -> &ServedByHost<'a> {
        let find = || served.iter().flat_map(|site| site.hosts.iter().map(move |host| (host, site))).collect();
        self.indexes.served_before.get_or_init(find)
    }

    /// The pairs that a site may be without: all, if none of its names has a certificate now, and otherwise those that it
    /// lacks already, beside another one.
    fn may_lack(&self, index: usize) -> MayLackHere<'a> {
        let names = self.names.get(index).map_or(&[][..], Vec::as_slice);
        match (&self.context.may_lack, self.context.served()) {
            (MayLack::None, _) => MayLackHere::None,
            (_, Some(_)) if names.iter().any(|name| self.serving(name).is_some()) => {
                let own: Vec<&'a Arc<SiteEntry>> = names.iter().filter_map(|name| self.in_use(name)).collect();
                MayLackHere::Served(own.into_iter().flat_map(|entry| entry.missing()).collect())
            }
            (MayLack::AllBut(served), None) if names.iter().any(|n| self.serving_before(served, n).is_some()) => {
                let by_host = self.served_before(served);
                let own: Vec<&'a ServedBefore> = names.iter().filter_map(|name| by_host.get(name).copied()).collect();
                MayLackHere::Served(own.into_iter().flat_map(|site| &site.missing).map(PathBuf::as_path).collect())
            }
            (MayLack::All | MayLack::AllBut(_), _) => MayLackHere::Any,
        }
    }

    /// `true` if a pair that breaks a promise may be left out. At a reload, only a site that lacks the pair already may
    /// do so: the operator is there to decide.
    pub(super) fn may_drop(&self, candidate: &Candidate, pair: usize) -> bool {
        let Some(loaded) = candidate.plan.pair(pair) else { return false };
        let lacks = |before: &Arc<SiteEntry>| before.missing().any(|path| path == loaded.path);
        match self.may_lack(candidate.index) {
            MayLackHere::Any if self.context.served().is_some() => {
                self.served_as(&candidate.plan.hosts).is_some_and(lacks)
            }
            may_lack => may_lack.includes(Some(&loaded.path)),
        }
    }

    /// The pair that was served last where this one is configured.
    pub(super) fn served(&self, candidate: &Candidate, pair: &LoadedCertificate) -> Option<ServedLast> {
        self.of_site(candidate, |stand_ins, table| {
            let table = table.certificates.get(pair.at)?;
            stand_ins.served(table, pair.at, &pair.path, &self.draft.folder, Some(&pair.chain))
        })
    }

    /// The pair that was served last with the key of this one: where this one is configured, or elsewhere.
    pub(super) fn served_with_key(&self, candidate: &Candidate, pair: &LoadedCertificate) -> Option<ServedLast> {
        let pin = pair.chain.pin();
        self.of_site(candidate, |stand_ins, table| {
            let table = table.certificates.get(pair.at)?;
            let here = stand_ins.served(table, pair.at, &pair.path, &self.draft.folder, Some(&pair.chain));
            here.filter(|served| served.loaded.chain.pin() == pin)
                .or_else(|| stand_ins.served_with(pin, table, pair.at, &pair.path, &self.draft.folder))
        })
    }

    /// `true` if another pair was served last where this one is configured. A chain of the same key under another issuer is
    /// another pair: the issuer's key may be a promised one.
    pub(super) fn has_other_pair(&self, candidate: &Candidate, pair: usize) -> bool {
        // Without a process, a judgement alone puts no copy into use.
        if self.context.stand_in == StandIn::Never && self.context.served().is_none() {
            return false;
        }
        let Some(here) = candidate.plan.pair(pair) else { return false };
        let served = self.served(candidate, here);
        served.is_some_and(|served| served.loaded.chain.certain != here.chain.certain)
    }

    /// The pairs that some names of a site were served with last, if these may serve them.
    pub(super) fn substitutes(&self, candidate: &Candidate, names: &BTreeSet<HostPattern>) -> Vec<NameApart> {
        self.of_site(candidate, |stand_ins, _| Some(stand_ins.substitutes(names))).unwrap_or_default()
    }

    /// `true` if names may be served apart from their site's own pairs, and so perhaps be refused. A reload may do so only
    /// with those that are apart or refused already: the operator is there to decide. An upgrade may do so, too, with those
    /// that the old process serves with another pair, if it has that pair.
    pub(super) fn may_part(&self, candidate: &Candidate, names: &BTreeSet<HostPattern>) -> bool {
        if self.context.served().is_some() {
            let Some(before) = self.served_as(&candidate.plan.hosts) else { return false };
            let apart = before.plan.apart.iter().map(|apart| &apart.name);
            let known: HashSet<&HostPattern> = apart.chain(before.plan.refused_names()).collect();
            return names.iter().all(|name| known.contains(name));
        }
        match &self.context.may_lack {
            // A judgement alone serves nothing, and its caller knows that no name would be lost.
            MayLack::None if self.context.stand_in == StandIn::Never => true,
            // A start without `--strict` would serve the names apart. It refuses those without a pair, which is a fault.
            MayLack::None if self.context.is_check() => self.have_pairs(candidate, names),
            MayLack::None => false,
            MayLack::All => true,
            MayLack::AllBut(served) => {
                let before = |name: &HostPattern| self.serving_before(served, name);
                let known: BTreeSet<HostPattern> =
                    names.iter().filter(|name| before(name).is_some()).cloned().collect();
                known.iter().all(|name| before(name).is_some_and(|site| site.replaced.contains(name)))
                    && self.have_pairs(candidate, &known)
            }
        }
    }

    /// `true` if pairs that served names of a site before may serve all of these.
    fn have_pairs(&self, candidate: &Candidate, names: &BTreeSet<HostPattern>) -> bool {
        self.substitutes(candidate, names).iter().all(|apart| apart.substitute.is_some())
    }

    fn of_site<T>(
        &self,
        candidate: &Candidate,
        find: impl FnOnce(&StandIns<'_>, &SiteTable) -> Option<T>,
    ) -> Option<T> {
        let names = &candidate.plan.hosts;
        names.first()?;
        let table = self.file.sites.get(candidate.index)?;
        let (none, may_lack) = (CandidateChange::default(), MayLackHere::None);
        find(&StandIns::of(self.in_use_for(names), self.copies, &none, may_lack, (names, table)), table)
    }
}
