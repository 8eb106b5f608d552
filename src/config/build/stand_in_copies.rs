//! The copies of pairs that were served last, and the promises by which they are judged: both are read once for a whole
//! build, however many sites and names ask.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::CheckContext;
use crate::config::last_good::{Breaches, CopyIndex, FormerCopies};
use crate::host::HostPattern;
use crate::ledger::Book;
use crate::policy::promise::Promises;
use crate::tls::Certificate;
use crate::tls::certificate::Chain;
use crate::tls::key_process;

/// The copies and the promises.
pub(super) struct StandInCopies<'a> {
    index: Option<CopyIndex<'a>>,
    book: &'a Book,
    promises: Promises<'a>,
    /// The pairs of copies that somebody asked for; `None` for one without a usable pair.
    pairs: RefCell<HashMap<usize, Option<Rc<CopiedPair>>>>,
}

/// The pair of a copy, and the promises that it breaks already.
struct CopiedPair {
    certificate: Arc<Certificate>,
    breaches: Breaches,
}

impl<'a> StandInCopies<'a> {
    pub(super) fn of(context: &'a CheckContext<'_>) -> Self {
        Self {
            index: context.last_good.as_ref().map(CopyIndex::of),
            book: context.book,
            promises: Promises::alive(context.book.promises(), context.now),
            pairs: RefCell::default(),
        }
    }

    pub(super) fn index(&self) -> Option<&CopyIndex<'a>> {
        self.index.as_ref()
    }

    /// The promises that are alive.
    pub(super) fn promises(&self) -> &Promises<'a> {
        &self.promises
    }

    /// The copies whose sites are gone.
    pub(super) fn former(&self) -> Option<&FormerCopies> {
        self.index.as_ref().map(CopyIndex::former)
    }

    /// The remedies if copies are out of reach.
    pub(super) fn remedies(&self) -> &[String] {
        self.index.as_ref().map_or(&[], CopyIndex::remedies)
    }

    /// The newest copy that was made for a name and may serve these hosts: its contents.
    pub(super) fn contents_for(&self, name: &HostPattern, hosts: &[HostPattern]) -> Option<Vec<u8>> {
        let index = self.with_keys()?;
        let at = index.made_for(name).iter().find(|at| self.fit(**at, hosts).is_some())?;
        index.contents(*at).map(|contents| contents.to_vec())
    }

    /// The pair of the newest copy that was made for a name and may serve it.
    pub(super) fn pair_for(&self, name: &HostPattern) -> Option<Arc<Certificate>> {
        self.with_keys()?.made_for(name).iter().find_map(|at| self.fit(*at, std::slice::from_ref(name)))
    }

    /// The copies, unless a key process has the keys: it has those of configured files only.
    fn with_keys(&self) -> Option<&CopyIndex<'a>> {
        self.index.as_ref().filter(|_| key_process::running().is_none())
    }

    /// The pair of a copy, if it covers some names and breaks no promise there, except those that it broke already.
    fn fit(&self, at: usize, hosts: &[HostPattern]) -> Option<Arc<Certificate>> {
        let pair = self.pair(at)?;
        let chain = &pair.certificate.chain;
        let broken = self.promises.broken_by(hosts, &[], &chain.certain);
        let is_fit = hosts.iter().all(|host| chain.leaf.covers_pattern(host))
            && broken.into_iter().all(|promise| pair.breaches.has(promise))
            && self.book.burnt(chain.pin()).is_none();
        is_fit.then(|| pair.certificate.clone())
    }

    fn pair(&self, at: usize) -> Option<Rc<CopiedPair>> {
        let mut known = self.pairs.borrow_mut();
        known.entry(at).or_insert_with(|| self.read_pair(at).map(Rc::new)).clone()
    }

    fn read_pair(&self, at: usize) -> Option<CopiedPair> {
        let copy = self.index.as_ref()?.contents(at)?;
        let certificate = Arc::new(Certificate::new(Chain::from_pem(&copy).ok()?, &copy).ok()?);
        Some(CopiedPair { certificate, breaches: Breaches::read(&copy) })
    }
}
