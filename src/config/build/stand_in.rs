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
use super::stand_in_copies::StandInCopies;
use crate::config::file::{CertificateTable, SiteTable};
use crate::config::last_good::{Breaches, CopyIndex, KeyText, read_key};
use crate::config::{CheckContext, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::promise::{Promise, SiteNames};
use crate::reason::Problem;
use crate::tls::Certificate;
use crate::tls::certificate::Chain;
use crate::tls::key_process;

/// The pairs of one site that were served last.
pub(super) struct StandIns<'a> {
    before: Option<&'a Arc<SiteEntry>>,
    copies: &'a StandInCopies<'a>,
    context: &'a CheckContext<'a>,
    change: &'a CandidateChange,
    may_lack: MayLackHere<'a>,
    /// The site's names.
    hosts: &'a [HostPattern],
    /// The site has one pair.
    has_one: bool,
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

/// The pairs that one site may be without.
pub(super) enum MayLackHere<'a> {
    /// All of them.
    Any,
    /// The pairs with these chains.
    Only(Vec<&'a Path>),
}

impl MayLackHere<'_> {
    pub(super) fn includes(&self, path: Option<&Path>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(chains) => path.is_some_and(|path| chains.contains(&path)),
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

/// Makes a certificate of a copy. With a key process, the key comes from its own file only, even if a copy made earlier
/// has one: this process must have no key. Otherwise the file is used if the copy has no key.
fn certificate_of(contents: &[u8], key: &Path) -> Option<Certificate> {
    let chain = || Chain::from_pem(contents).ok();
    match key_process::running() {
        Some(keys) => Certificate::with_signer(chain()?, Arc::new(keys.load(key).ok()?)).ok(),
        None => {
            let whole = Certificate::new(chain()?, contents).ok();
            whole.or_else(|| Certificate::new(chain()?, &read_key(key)?).ok())
        }
    }
}

impl<'a> StandIns<'a> {
    /// The stand-ins of one site.
    pub(super) fn of(
        before: Option<&'a Arc<SiteEntry>>,
        copies: &'a StandInCopies<'a>,
        change: &'a CandidateChange,
        may_lack: MayLackHere<'a>,
        (hosts, table): (&'a [HostPattern], &SiteTable),
    ) -> Self {
        let has_one = table.certificates.len() == 1;
        Self { before, copies, context: copies.context(), change, may_lack, hosts, has_one }
    }

    /// `true` if the site may be without the pair with this chain.
    pub(super) fn may_lack(&self, path: Option<&Path>) -> bool {
        self.may_lack.includes(path)
    }

    /// The guard's objections to a pair that is to be left out.
    pub(super) fn dropped(&self, at: usize) -> Option<&'a [Problem]> {
        self.change.dropped.get(&at).map(Vec::as_slice)
    }

    /// The pair that was served last where this one is configured, whatever the file holds now. While no process serves, its
    /// copy may be one of another path.
    pub(super) fn served(&self, table: &CertificateTable, at: usize, path: &Path, folder: &Path) -> Option<ServedLast> {
        let read = || self.copies.index()?.read(path, self.hosts).or_else(|| self.served_elsewhere(table));
        self.served_where(|l| l.path == path, read, (table, at, path, folder))
    }

    /// While no process serves: the copy of the pair that the whole site was served with last, although its text names other
    /// files now. A reload may have refused them.
    fn served_elsewhere(&self, table: &CertificateTable) -> Option<Zeroizing<Vec<u8>>> {
        let is_meant = self.context.is_alone() && self.has_one && table.managed.is_none() && table.key.is_some();
        let first = self.hosts.first().filter(|_| is_meant)?;
        self.copies.contents_for(first, self.hosts)
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
            Some(_) => known.get(name)?.substitute.clone(),
            // A name below a wildcard was that of a site which is gone.
            None => self.copies.pair_for(name).filter(|_| hosts.contains(name)),
        };
        let apart = |name: &HostPattern| NameApart {
            name: name.clone(),
            label: name.to_string(),
            substitute: substitute(name),
        };
        names.iter().map(apart).collect()
    }

    /// `true` if these names, which the pair on disk does not cover, lose nothing by it: the pair that was served last where
    /// it is configured does not serve them either.
    pub(super) fn lacked(
        &self,
        names: &[HostPattern],
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
    ) -> bool {
        let Some(served) = self.served(table, at, path, folder) else { return false };
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
        self.served_where(|l| l.chain.pin() == pin, read, (table, at, path, folder))
    }

    /// The pair that was served last, wherever its files were, if it is for all names of the site.
    pub(super) fn served_until(
        &self,
        table: &CertificateTable,
        at: usize,
        path: &Path,
        folder: &Path,
    ) -> Option<LoadedCertificate> {
        let read = || self.copies.index()?.read_any(self.hosts);
        let served = self.served_where(|_| true, read, (table, at, path, folder))?.loaded;
        self.hosts.iter().all(|host| served.chain.leaf.covers_pattern(host)).then_some(served)
    }

    fn served_where(
        &self,
        is_meant: impl Fn(&LoadedCertificate) -> bool,
        read: impl FnOnce() -> Option<Zeroizing<Vec<u8>>>,
        (table, at, path, folder): (&CertificateTable, usize, &Path, &Path),
    ) -> Option<ServedLast> {
        let key = table.key.as_ref().map(|key| folder.join(&key.value).into_boxed_path());
        if let Some(before) = self.before {
            // The pair in use is known. A copy on disk may be older.
            let is_like = |l: &&LoadedCertificate| is_meant(l) && l.certificate.is_some() == table.key.is_some();
            let known = before.plan.loaded.iter().find(is_like);
            let by = By::Site(before.clone());
            return known.map(|l| ServedLast {
                loaded: LoadedCertificate {
                    at,
                    key,
                    path: path.to_owned(),
                    is_managed: table.managed.is_some(),
                    ..l.clone()
                },
                by,
            });
        }
        let contents = read()?;
        let by = By::Copy(Breaches::read(&contents));
        let (chain, certificate) = match &key {
            None => (Arc::new(Chain::from_pem(&contents).ok()?), None),
            Some(key) => {
                let certificate = Arc::new(certificate_of(&contents, key)?);
                (certificate.chain.clone(), Some(certificate))
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
