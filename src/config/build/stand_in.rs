//! Pairs that replace unfit ones on disk. A pair that is served now may always be served again: only changes are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::entry::SiteEntry;
use super::loaded::LoadedCertificate;
use super::plan::NameApart;
use super::report;
use super::report::CertificateLack;
use super::stand_in_copies::{StandInCopies, certificate_of, is_rsa};
use crate::config::file::{CertificateTable, SiteTable};
use crate::config::last_good::{Breaches, CopyIndex, KeyText};
use crate::config::{CheckContext, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::promise::{Promise, SiteNames};
use crate::reason::Problem;
use crate::tls::certificate::Chain;
use crate::tls::key_process;

/// The pairs of one site that were served last.
pub(super) struct StandIns<'a> {
    before: Option<&'a Arc<SiteEntry>>,
    /// The site that serves a name of it now: itself, or that of a wildcard.
    serving: Option<&'a Arc<SiteEntry>>,
    copies: &'a StandInCopies<'a>,
    context: &'a CheckContext<'a>,
    change: &'a CandidateChange,
    may_lack: MayLackHere<'a>,
    /// The site's names.
    hosts: &'a [HostPattern],
    table: &'a SiteTable,
}

/// The ways in which a candidate must differ from its text and files.
#[derive(Debug, Clone, Default)]
pub(super) struct CandidateChange {
    /// Indexes in `[[site.certificate]]` whose pair on disk would break a promise: the pair that was served last stays.
    pub(super) forced: BTreeSet<usize>,
    /// Indexes of pairs that would break a promise and that nothing replaces, with the guard's objections.
    pub(super) dropped: BTreeMap<usize, Vec<Problem>>,
    /// Names that its pairs must not serve.
    pub(super) apart: BTreeSet<HostPattern>,
    /// The reason why pintle sends none of its pins, if it must not.
    pub(super) withhold: Option<report::Withheld>,
}

/// The sites that clients see now, by the names of one site.
pub(super) struct SitesInUse<'a> {
    /// The one with these names.
    pub(super) own: Option<&'a Arc<SiteEntry>>,
    /// One that serves a name of them: their own, or that of a wildcard.
    pub(super) serving: Option<&'a Arc<SiteEntry>>,
}

/// The pairs that one site may be without.
pub(super) enum MayLackHere<'a> {
    /// All of them.
    Any,
    /// None of them.
    None,
    /// Clients reach a name of the site now: the pairs with these chains, beside another one.
    Served(Vec<&'a Path>),
}

impl MayLackHere<'_> {
    pub(super) fn includes(&self, path: Option<&Path>) -> bool {
        match self {
            Self::Any => true,
            Self::None => false,
            Self::Served(chains) => path.is_some_and(|path| chains.contains(&path)),
        }
    }
}

/// A pair that cannot be served and that nothing replaces.
#[derive(Debug, Clone)]
pub(super) struct MissingPair {
    /// The file of its chain, if the table names one.
    pub(super) path: Option<PathBuf>,
    /// `true` if pintle would end TLS with it.
    pub(super) has_key: bool,
    pub(super) lack: CertificateLack,
    /// The guard refuses it.
    pub(super) by_guard: bool,
    /// Its problems.
    pub(super) problems: Vec<Problem>,
    /// The certificate, if it could be read.
    pub(super) certificate: Option<report::CertificateReport>,
}

/// A pair on disk that is not served.
pub(super) struct RefusedPair {
    /// Its place in `[[site.certificate]]`.
    pub(super) at: usize,
    /// Its problems.
    pub(super) problems: Vec<Problem>,
    /// It is the very pair that was served last. Time has made it unfit, and it stays in use.
    pub(super) unchanged: bool,
    /// pintle obtains it, and has not yet, or its file is gone.
    pub(super) is_awaited: bool,
    /// The certificate, if it could be read.
    pub(super) certificate: Option<report::CertificateReport>,
}

/// A pair that was served last, and the promises that it breaks already.
pub(super) struct ServedLast {
    pub(super) loaded: LoadedCertificate,
    by: By,
}

enum By {
    /// The site that it is served for.
    Site(Arc<SiteEntry>),
    /// Its copy names them.
    Copy(Breaches),
}

impl ServedLast {
    /// `true` if it breaks a promise already, for all of these names for which the same key would break it. A site that
    /// gets another name does not lock out that name's readers yet.
    pub(super) fn breaks(&self, promise: &Promise, names: SiteNames<'_>) -> bool {
        self.broken_for(promise).is_some_and(|before| names.were_all_among(before, promise))
    }

    /// `true` if it breaks a promise, too, and is served for none of the names that the promise binds.
    pub(super) fn is_apart_from(&self, promise: &Promise) -> bool {
        let names = match &self.by {
            By::Site(before) => before.served_names(),
            By::Copy(breaches) => breaches.names(),
        };
        !promise.is_kept_by(&self.loaded.chain.certain) && !names.bound_by(promise)
    }

    /// The names that it is served for, if it breaks a promise already.
    pub(super) fn broken_for(&self, promise: &Promise) -> Option<SiteNames<'_>> {
        let (breaks, names) = match &self.by {
            By::Site(before) => (!promise.is_kept_by(&self.loaded.chain.certain), before.served_names()),
            By::Copy(breaches) => (breaches.has(promise), breaches.names()),
        };
        breaks.then_some(names)
    }
}

impl<'a> StandIns<'a> {
    /// The stand-ins of one site.
    pub(super) fn of(
        SitesInUse { own, serving }: SitesInUse<'a>,
        copies: &'a StandInCopies<'a>,
        change: &'a CandidateChange,
        may_lack: MayLackHere<'a>,
        (hosts, table): (&'a [HostPattern], &'a SiteTable),
    ) -> Self {
        Self { before: own, serving, copies, context: copies.context(), change, may_lack, hosts, table }
    }

    /// `true` if the site may be without the pair with this chain.
    pub(super) fn may_lack(&self, path: Option<&Path>) -> bool {
        self.may_lack.includes(path)
    }

    /// `true` if clients reach a name of the site now: it must not lose all of its pairs.
    pub(super) fn are_served(&self) -> bool {
        matches!(self.may_lack, MayLackHere::Served(_))
    }

    /// The guard's objections to a pair that is to be left out.
    pub(super) fn dropped(&self, at: usize) -> Option<&'a [Problem]> {
        self.change.dropped.get(&at).map(Vec::as_slice)
    }

    /// The pair that was served last where this one is configured, whatever the file holds now (`here`, if it is a chain).
    /// While no process serves, its copy may be one of another path.
    pub(super) fn served(
        &self,
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
        here: Option<&Chain>,
    ) -> Option<ServedLast> {
        let elsewhere = || self.served_elsewhere((table, at), here, folder);
        let read = || self.copies.index()?.read(path, self.hosts).or_else(elsewhere);
        self.served_where(self.before, |l| l.path == path, read, (table, at, path, folder))
    }

    /// While no process serves: the copy of a pair that the whole site was served with last, although its text names other
    /// files now, or has it in a table of its own. A reload may have refused them. Each of several pairs gets a copy with a
    /// key of its kind, as some clients know one kind only. If there is none, the first one gets any copy, unless another pair
    /// has one at its own path.
    fn served_elsewhere(
        &self,
        (pair, at): (&CertificateTable, usize),
        here: Option<&Chain>,
        folder: &Path,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let is_meant = self.context.is_alone() && pair.managed.is_none() && pair.key.is_some();
        let first = self.hosts.first().filter(|_| is_meant)?;
        let pairs = self.table.certificates.as_slice();
        if pairs.len() == 1 {
            return self.copies.contents_for(first, self.hosts, |_| true);
        }
        let in_place: Vec<Pin> = pairs.iter().filter_map(|pair| self.copied_at(pair, folder)).collect();
        let is_alike =
            |copy: &Chain| here.is_some_and(|here| is_rsa(here) == is_rsa(copy)) && !in_place.contains(&copy.pin());
        let alike = self.copies.contents_for(first, self.hosts, is_alike);
        alike.or_else(|| self.copies.contents_for(first, self.hosts, |_| at == 0 && in_place.is_empty()))
    }

    /// The leaf key of the copy of a pair at its own path.
    fn copied_at(&self, pair: &CertificateTable, folder: &Path) -> Option<Pin> {
        let chain = folder.join(&pair.chain.as_ref()?.value);
        let copy = self.copies.index()?.read(&chain, self.hosts)?;
        Chain::from_pem(&copy).ok().map(|chain| chain.pin())
    }

    /// The pair of another site that renews one which stands in, or that one: its own files are refused, and may stay so
    /// until it ends, or it is still to be obtained.
    pub(super) fn renewed(&self, served: LoadedCertificate, is_awaited: bool) -> LoadedCertificate {
        if is_awaited || self.is_forced(served.at) { self.latest(served) } else { served }
    }

    fn latest(&self, served: LoadedCertificate) -> LoadedCertificate {
        let Some(known) = served.certificate.clone() else { return served };
        let (certificate, key) = self.copies.renewed(self.hosts, (known.clone(), served.key.clone()));
        if Arc::ptr_eq(&certificate, &known) {
            return served;
        }
        let chain = certificate.chain.clone();
        LoadedCertificate { key, text: KeyText::default(), chain, certificate: Some(certificate), ..served }
    }

    /// The names that the site's pairs must not serve, with what is served instead.
    pub(super) fn apart(&self) -> Vec<NameApart> {
        self.substitutes(&self.change.apart)
    }

    /// The pairs that some names of the site were served with last, if these may serve them.
    pub(super) fn substitutes(&self, names: &BTreeSet<HostPattern>) -> Vec<NameApart> {
        if names.is_empty() {
            return Vec::new();
        }
        let known: HashMap<&HostPattern, &NameApart> =
            self.before.iter().flat_map(|before| &before.plan.apart).map(|apart| (&apart.name, apart)).collect();
        let hosts: HashSet<&HostPattern> = self.hosts.iter().collect();
        let substitute = |name: &HostPattern| match self.before {
            Some(_) => known.get(name).and_then(|known| Some((known.substitute.clone()?, known.key.clone()))),
            None if hosts.contains(name) => self.copies.pair_for(name),
            // A name below a wildcard was that of a site which is gone. The wildcard may have served it since.
            None => self.copies.pair_below(name),
        };
        let apart = |name: &HostPattern| {
            let pair = substitute(name).map(|pair| self.copies.renewed(std::slice::from_ref(name), pair));
            let (substitute, key) = pair.unzip();
            NameApart { name: name.clone(), label: name.to_string(), substitute, key: key.flatten() }
        };
        names.iter().map(apart).collect()
    }

    /// `true` if these names, which the pair on disk does not cover, lose nothing by it: the pair that was served last where
    /// it is configured does not serve them either.
    pub(super) fn lacked(
        &self,
        names: &[HostPattern],
        here: &Chain,
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
    ) -> bool {
        let Some(served) = self.served(table, at, path, folder, Some(here)) else { return false };
        let chain = &served.loaded.chain;
        match self.before {
            Some(before) => {
                let lacking: HashSet<&HostPattern> = before.plan.unserved_by(chain).collect();
                names.iter().all(|name| lacking.contains(name))
            }
            None => !names.iter().any(|name| chain.leaf.covers_pattern(name)),
        }
    }

    /// The pair that was served last with this leaf key, wherever its files were.
    pub(super) fn served_with(
        &self,
        pin: Pin,
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
    ) -> Option<ServedLast> {
        let read = || self.copies.index()?.read_with(pin, self.hosts);
        self.served_where(self.before, |l| l.chain.pin() == pin, read, (table, at, path, folder))
    }

    /// The pair that serves a name of the site now, or served it last, wherever its files were, or that renews this pair. Other
    /// names wait for theirs.
    pub(super) fn served_until(
        &self,
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
    ) -> Option<LoadedCertificate> {
        let covers = |l: &LoadedCertificate| self.hosts.iter().any(|host| l.chain.leaf.covers_pattern(host));
        let read = || self.copies.index()?.read_any(self.hosts);
        let served = self.served_where(self.serving, covers, read, (table, at, path, folder))?.loaded;
        covers(&served).then(|| self.latest(served))
    }

    fn served_where(
        &self,
        before: Option<&Arc<SiteEntry>>,
        is_meant: impl Fn(&LoadedCertificate) -> bool,
        read: impl FnOnce() -> Option<Zeroizing<Vec<u8>>>,
        (table, at, path, folder): (&CertificateTable, usize, &Path, &Path),
    ) -> Option<ServedLast> {
        if let Some(before) = before {
            // The pair in use is known. A copy on disk may be older.
            let is_like = |l: &&LoadedCertificate| is_meant(l) && l.certificate.is_some() == table.key.is_some();
            let known = before.plan.loaded.iter().find(is_like);
            let by = By::Site(before.clone());
            return known.map(|l| ServedLast {
                // Its key is where it was, whatever the text says now.
                loaded: LoadedCertificate {
                    at,
                    path: path.to_owned(),
                    is_managed: table.managed.is_some(),
                    ..l.clone()
                },
                by,
            });
        }
        let contents = read()?;
        let by = By::Copy(Breaches::read(&contents));
        let (chain, certificate, key) = match table.key.as_ref().map(|key| folder.join(&key.value)) {
            None => (Arc::new(Chain::from_pem(&contents).ok()?), None, None),
            Some(configured) => {
                let (certificate, key) = certificate_of(&contents, Some(configured.as_path()))?;
                (certificate.chain.clone(), Some(certificate), key)
            }
        };
        let text = if key_process::running().is_some() { KeyText::default() } else { KeyText::new(&contents) };
        Some(ServedLast {
            loaded: LoadedCertificate {
                at,
                path: path.to_owned(),
                key,
                text,
                chain,
                is_managed: table.managed.is_some(),
                certificate,
            },
            by,
        })
    }

    pub(super) fn is_forced(&self, at: usize) -> bool {
        self.change.forced.contains(&at)
    }

    pub(super) fn are_none_forced(&self) -> bool {
        self.change.forced.is_empty() && self.change.dropped.is_empty() && self.change.apart.is_empty()
    }

    /// `true` if an earlier process has served the site, or may have: a start serves whatever it can.
    pub(super) fn were_served(&self, table: &SiteTable, path: impl Fn(&str) -> PathBuf) -> bool {
        let mut chains = table.certificates.iter().filter_map(|pair| pair.chain.as_ref());
        let is_known =
            |copies: &CopyIndex<'_>| chains.any(|chain| copies.read(&path(&chain.value), self.hosts).is_some());
        let is_always = self.context.stand_in == StandIn::Always;
        self.context.is_start() || is_always && self.before.is_none() && self.copies.index().is_some_and(is_known)
    }

    /// `true` if a pair may replace the one on disk.
    pub(super) fn may_stand_in(&self, unchanged: bool) -> bool {
        match self.context.stand_in {
            StandIn::Never => false,
            StandIn::Unchanged => unchanged,
            StandIn::Always => true,
        }
    }

    /// `true` if pairs come from this process, not from a copy.
    pub(super) fn are_in_use(&self) -> bool {
        self.before.is_some()
    }
}
