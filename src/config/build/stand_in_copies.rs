//! The copies of pairs that were served last, and the promises by which they are judged: both are read once for a whole
//! build, however many sites and names ask.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::needed_copies::APART;
use crate::config::CheckContext;
use crate::config::last_good::{Breaches, CopyIndex, FormerCopies, noted_key, read_key};
use crate::host::HostPattern;
use crate::keys::key_file::KeyAlgorithm;
use crate::keys::pin::Pin;
use crate::policy::promise::{Promise, Promises};
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
    /// The pairs that sites have, once a copy is in question.
    of_sites: OnceCell<PairsByKey>,
}

/// A pair, with the file of its key, if that is known.
pub(super) type PairWithKey = (Arc<Certificate>, Option<Box<Path>>);

/// Pairs by their leaf keys.
pub(super) type PairsByKey = HashMap<Pin, Vec<PairWithKey>>;

/// The pair of a copy, and the promises that it breaks already.
struct CopiedPair {
    pair: PairWithKey,
    breaches: Breaches,
}

/// `true` for a pair that older clients know, too.
pub(super) fn is_rsa(chain: &Chain) -> bool {
    matches!(chain.leaf.algorithm, KeyAlgorithm::Rsa(_))
}

/// Makes a certificate of a copy. With a key process, the key comes from its own file only, even if a copy made earlier
/// has one: this process must have no key. The file is the configured one, or that of the copy if another one is configured
/// now. Otherwise the file is used if the copy has no key.
pub(super) fn certificate_of(contents: &[u8], configured: Option<&Path>) -> Option<PairWithKey> {
    let chain = || Chain::from_pem(contents).ok();
    let by_process = |file: &Path| -> Option<PairWithKey> {
        let key = key_process::running()?.load(file).ok()?;
        let certificate = Certificate::with_signer(chain()?, Arc::new(key)).ok()?;
        Some((Arc::new(certificate), Some(file.into())))
    };
    if key_process::running().is_some() {
        return configured.and_then(by_process).or_else(|| by_process(&noted_key(contents)?));
    }
    let whole = Certificate::new(chain()?, contents).ok();
    let certificate = whole.or_else(|| Certificate::new(chain()?, &read_key(configured?)?).ok())?;
    Some((Arc::new(certificate), configured.map(Into::into)))
}

impl<'a> StandInCopies<'a> {
    pub(super) fn of(context: &'a CheckContext<'a>) -> Self {
        Self {
            context,
            index: context.last_good.as_ref().map(CopyIndex::of),
            promises: Promises::alive(context.book.promises(), context.now),
            pairs: RefCell::default(),
            of_sites: OnceCell::new(),
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

    /// The best copy of a pair that served a name and may serve these hosts, among those that are meant: its contents.
    pub(super) fn contents_for(
        &self,
        name: &HostPattern,
        hosts: &[HostPattern],
        is_meant: impl Fn(&Chain) -> bool,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let index = self.index.as_ref()?;
        let is_fit = |at: &usize| self.fit(*at, hosts).is_some_and(|(pair, _)| is_meant(&pair.chain));
        index.contents(index.serving(name).into_iter().find(is_fit)?)
    }

    /// The best pair that served a name and may serve it.
    pub(super) fn pair_for(&self, name: &HostPattern) -> Option<PairWithKey> {
        let places = self.index.as_ref()?.serving(name);
        places.into_iter().find_map(|at| self.fit(at, std::slice::from_ref(name)))
    }

    /// The best pair that served a name which has no site of its own: that of the wildcard above it, or one for the name
    /// alone.
    pub(super) fn pair_below(&self, name: &HostPattern) -> Option<PairWithKey> {
        let index = self.index.as_ref()?;
        let above = name.wildcard_above()?;
        let is_meant = |at: &usize| index.made_for(&above).contains(at) || index.is_of_path(*at, Path::new(APART));
        let mut places = index.serving(name).into_iter().filter(is_meant);
        places.find_map(|at| self.fit(at, std::slice::from_ref(name)))
    }

    /// Notes the pairs that sites have: one of them may renew that of a copy.
    pub(super) fn note_pairs(&self, of_sites: impl FnOnce() -> PairsByKey) {
        self.of_sites.get_or_init(of_sites);
    }

    /// The pair of a site that renews this one for some hosts, or this one: with the same key, a later end, all names, and
    /// no further broken promise. Without one of the same key, one that the names' promises name: the former site may have
    /// gone on to its backup.
    pub(super) fn renewed(&self, hosts: &[HostPattern], known: PairWithKey) -> PairWithKey {
        let chain = &known.0.chain;
        let hosts: Vec<HostPattern> = hosts.iter().filter(|host| chain.leaf.covers_pattern(host)).cloned().collect();
        let broken = |chain: &Chain| self.promises.broken_by(&hosts, &[], &chain.certain);
        let is_later = |pair: &&PairWithKey| {
            let new = &pair.0.chain;
            let before: Vec<*const Promise> = broken(chain).into_iter().map(std::ptr::from_ref).collect();
            new.leaf.not_after > chain.leaf.not_after
                && hosts.iter().all(|host| new.leaf.covers_pattern(host))
                && broken(new).into_iter().all(|promise| before.contains(&std::ptr::from_ref(promise)))
        };
        let latest = |pins: &[Pin], is_meant: &dyn Fn(&Chain) -> bool| {
            let pairs = pins.iter().filter_map(|pin| self.of_sites.get()?.get(pin)).flatten();
            let found = pairs.filter(|pair| is_meant(&pair.0.chain)).filter(is_later);
            found.max_by_key(|pair| pair.0.chain.leaf.not_after).cloned()
        };
        let found = latest(&[chain.pin()], &|_: &Chain| true).or_else(|| {
            let promised: BTreeSet<Pin> =
                self.promises.binding(&hosts, &[]).into_iter().flat_map(|promise| &promise.pins).copied().collect();
            let promised: Vec<Pin> = promised.into_iter().collect();
            // Of several pairs, each is for the clients that know its kind of key.
            let is_usable = |new: &Chain| {
                is_rsa(new) == is_rsa(chain) && self.context.book.burnt(new.pin()).is_none() && broken(new).is_empty()
            };
            latest(&promised, &is_usable)
        });
        found.unwrap_or(known)
    }

    /// The pair of a copy, if it covers some names and breaks no promise there, except those that it broke already.
    fn fit(&self, at: usize, hosts: &[HostPattern]) -> Option<PairWithKey> {
        let pair = self.pair(at)?;
        let chain = &pair.pair.0.chain;
        let broken = self.promises.broken_by(hosts, &[], &chain.certain);
        let is_fit = hosts.iter().all(|host| chain.leaf.covers_pattern(host))
            && broken.into_iter().all(|promise| pair.breaches.has(promise))
            && self.context.book.burnt(chain.pin()).is_none();
        is_fit.then(|| pair.pair.clone())
    }

    fn pair(&self, at: usize) -> Option<Rc<CopiedPair>> {
        let mut known = self.pairs.borrow_mut();
        known.entry(at).or_insert_with(|| self.read_pair(at).map(Rc::new)).clone()
    }

    fn read_pair(&self, at: usize) -> Option<CopiedPair> {
        let copy = self.index.as_ref()?.contents(at)?;
        Some(CopiedPair { pair: certificate_of(&copy, None)?, breaches: Breaches::read(&copy) })
    }
}
