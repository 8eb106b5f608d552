//! Pairs that stand in for those on disk, if these are not fit to be served: what is served now may always be started
//! again, and only changes are refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificates::Loaded;
use super::{Entry, report};
use crate::config::file::{CertificateTable, SiteTable};
use crate::config::problem::Problem;
use crate::config::{Context, LastGood, StandIn};
use crate::tls::Certificate;
use crate::tls::certificate::Chain;

/// The pairs of one site that were served last.
pub(super) struct StandIns<'a> {
    before: Option<&'a Arc<Entry>>,
    last_good: Option<&'a LastGood>,
    allowed: StandIn,
    /// Places in `[[site.certificate]]` whose pair on disk may not be served: it would break a promise.
    forced: &'a BTreeSet<usize>,
}

/// A pair on disk that is not served.
pub(super) struct RefusedPair {
    /// Its place in `[[site.certificate]]`.
    pub(super) at: usize,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
    /// It is the very pair that was served last: time has made it unfit, and it goes on.
    pub(super) unchanged: bool,
    /// The certificate, if it could be read.
    pub(super) certificate: Option<report::Certificate>,
}

impl<'a> StandIns<'a> {
    /// Those of the site with this first name.
    pub(super) fn of(before: Option<&'a Arc<Entry>>, context: &'a Context<'_>, forced: &'a BTreeSet<usize>) -> Self {
        Self { before, last_good: context.last_good.as_ref(), allowed: context.stand_in, forced }
    }

    /// The pair that was served last under this path of a chain, whatever is there now.
    pub(super) fn served(&self, table: &CertificateTable, at: usize, path: &Path, folder: &Path) -> Option<Loaded> {
        let key = table.key.as_ref().map(|key| folder.join(&key.value).into_boxed_path());
        if let Some(before) = self.before {
            // What is in use is known; a copy on disk may be older.
            let known =
                before.plan.loaded.iter().find(|l| l.path == path && l.certificate.is_some() == table.key.is_some());
            return known.map(|l| Loaded { at, key, ..l.clone() });
        }
        let contents = self.last_good?.read(path)?;
        let chain = Chain::from_pem(&contents).ok()?;
        if table.key.is_none() {
            return Some(Loaded { at, path: path.to_owned(), key, chain: Arc::new(chain), certificate: None });
        }
        let certificate = Arc::new(Certificate::new(chain, &contents).ok()?);
        Some(Loaded {
            at,
            path: path.to_owned(),
            key,
            chain: certificate.chain.clone(),
            certificate: Some(certificate),
        })
    }

    pub(super) fn is_forced(&self, at: usize) -> bool {
        self.forced.contains(&at)
    }

    pub(super) fn are_none_forced(&self) -> bool {
        self.forced.is_empty()
    }

    /// Whether a process before this one has served the site.
    pub(super) fn were_served(&self, table: &SiteTable, path: impl Fn(&str) -> PathBuf) -> bool {
        let mut chains = table.certificates.iter().filter_map(|pair| pair.chain.as_ref());
        self.allowed == StandIn::Always
            && self.before.is_none()
            && self.last_good.is_some_and(|copies| chains.any(|chain| copies.read(&path(&chain.value)).is_some()))
    }

    /// Whether a pair may take the place of the one on disk.
    pub(super) fn may_stand_in(&self, unchanged: bool) -> bool {
        match self.allowed {
            StandIn::Never => false,
            StandIn::Unchanged => unchanged,
            StandIn::Always => true,
        }
    }

    /// Whether pairs come from the process itself, and not from a copy.
    pub(super) fn are_in_use(&self) -> bool {
        self.before.is_some()
    }
}
