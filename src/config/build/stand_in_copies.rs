//! The copies of pairs that were served last, and the promises by which they are judged: both are read once for a whole
//! build, however many sites and names ask.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::CheckContext;
use crate::config::last_good::{Breaches, CopyIndex, FormerCopies};
use crate::host::HostPattern;
use crate::policy::promise::Promises;
use crate::tls::Certificate;
use crate::tls::certificate::Chain;
use crate::tls::key_process;

/// The copies and the promises.
pub(super) struct StandInCopies<'a> {
    context: &'a CheckContext<'a>,
    index: Option<CopyIndex<'a>>,
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
    pub(super) fn of(context: &'a CheckContext<'a>) -> Self {
        Self {
            context,
            index: context.last_good.as_ref().map(CopyIndex::of),
            promises: Promises::alive(context.book.promises(), context.now),
            pairs: RefCell::default(),
        }
    }

    /// The context of the build.
    pub(super) fn context(&self) -> &'a CheckContext<'a> {
        self.context
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
    pub(super) fn contents_for(&self, name: &HostPattern, hosts: &[HostPattern]) -> Option<Zeroizing<Vec<u8>>> {
        let (at, _) = self.fitting(name, hosts)?;
        self.index.as_ref()?.contents(at)
    }

    /// The pair of the newest copy that was made for a name and may serve it.
    pub(super) fn pair_for(&self, name: &HostPattern) -> Option<Arc<Certificate>> {
        self.fitting(name, std::slice::from_ref(name)).map(|(_, pair)| pair)
    }

    /// The place and the pair of the newest copy that was made for a name and may serve these hosts. `None` with a key
    /// process, which has the keys of configured files only.
    fn fitting(&self, name: &HostPattern, hosts: &[HostPattern]) -> Option<(usize, Arc<Certificate>)> {
        let index = self.index.as_ref().filter(|_| key_process::running().is_none())?;
        index.made_for(name).iter().find_map(|at| Some((*at, self.fit(*at, hosts)?)))
    }

    /// The pair of a copy, if it covers some names and breaks no promise there, except those that it broke already.
    fn fit(&self, at: usize, hosts: &[HostPattern]) -> Option<Arc<Certificate>> {
        let pair = self.pair(at)?;
        let chain = &pair.certificate.chain;
        let broken = self.promises.broken_by(hosts, &[], &chain.certain);
        let is_fit = hosts.iter().all(|host| chain.leaf.covers_pattern(host))
            && broken.into_iter().all(|promise| pair.breaches.has(promise))
            && self.context.book.burnt(chain.pin()).is_none();
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
