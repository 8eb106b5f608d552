//! The copies of one folder, listed once and read once, however many sites ask for theirs.

use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::contents::{Breaches, Pinned};
use super::name::{CopyName, FORMER, of_path, of_pin, of_site};
use super::{FormerCopy, LastGood, read};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::promise::Seconds;
use crate::tls::certificate::Chain;

/// Copies that are read one by one rather than all together.
const FEW: usize = 8;

/// The copies as they are when somebody first asks: for one judgement of a configuration.
#[derive(Debug)]
pub struct CopyIndex<'c> {
    copies: &'c LastGood,
    listed: OnceCell<ListedCopies>,
    copied: OnceCell<CopiedNames>,
    /// The leaf keys that somebody asked for; `None` for a copy without a chain.
    pins: RefCell<HashMap<usize, Option<Pin>>>,
    former: OnceCell<FormerCopies>,
    remedies: OnceCell<Vec<String>>,
    /// The files that were read.
    #[cfg(test)]
    pub(super) reads: std::cell::Cell<usize>,
}

/// The names that copies were made for.
#[derive(Debug, Default)]
struct CopiedNames {
    by_host: HashMap<HostPattern, Vec<usize>>,
    /// The names that the wildcards of a copy did not cover.
    except: HashMap<usize, HashSet<HostPattern>>,
    /// The copies' notes on promises.
    pinned: HashMap<usize, Pinned>,
}

/// A name whose clients may hold pins, as far as copies tell.
#[derive(Debug, Clone)]
pub struct PinnedName {
    /// The name.
    pub host: HostPattern,
    /// The names that a wildcard did not cover.
    pub except: Vec<HostPattern>,
    /// The leaf keys that were served.
    pub keys: Vec<Pin>,
    /// The pins that all promises have; `None` if a copy of an older version does not tell.
    pub pins: Option<Vec<Pin>>,
    /// The names below it are bound, too.
    pub below: bool,
    /// Pins were sent after the copies were written, or may have been: only the ledger knew their end.
    pub sent: bool,
    /// The end of the promises that nothing has renewed since.
    pub until: Option<Seconds>,
}

impl PinnedName {
    /// Returns `true` if no client holds pins any more.
    #[must_use]
    pub fn is_over(&self, now: Seconds) -> bool {
        !self.sent && self.until.is_some_and(|until| until <= now)
    }
}

/// The names of the copies, the newest first, and their places by what the names say.
#[derive(Debug, Default)]
struct ListedCopies {
    names: Vec<String>,
    /// Copies that name a site: by it, by the path, and by the key.
    by_site: HashMap<String, Vec<usize>>,
    by_path: HashMap<String, Vec<usize>>,
    by_pin: HashMap<String, Vec<usize>>,
    /// Copies of older versions, which name no site: by the path and by the key.
    without_site: Vec<usize>,
    without_site_by_path: HashMap<String, Vec<usize>>,
    without_site_by_pin: HashMap<String, Vec<usize>>,
}

/// The copies that a caller means.
enum Meant {
    /// The copies of a chain's path.
    Path(String),
    /// The copies of a leaf key.
    Key(String),
    Any,
}

impl Meant {
    fn includes(&self, copy: &CopyName<'_>) -> bool {
        match self {
            Self::Path(path) => copy.path() == path,
            Self::Key(pin) => copy.pin() == pin,
            Self::Any => true,
        }
    }
}

/// The copies whose sites are gone, with their places by their names.
#[derive(Debug, Default)]
pub(in crate::config) struct FormerCopies {
    list: Vec<FormerCopy>,
    by_host: HashMap<HostPattern, usize>,
}

impl FormerCopies {
    /// The first copy that was made for one of these names.
    pub(in crate::config) fn find(&self, hosts: &[HostPattern]) -> Option<&FormerCopy> {
        let place = hosts.iter().filter_map(|host| self.by_host.get(host)).min()?;
        self.list.get(*place)
    }

    fn of(list: Vec<FormerCopy>) -> Self {
        let mut by_host = HashMap::new();
        for (place, copy) in list.iter().enumerate() {
            for host in &copy.hosts {
                by_host.entry(host.clone()).or_insert(place);
            }
        }
        Self { list, by_host }
    }
}

impl ListedCopies {
    fn of(copies: &LastGood) -> Self {
        let written = |name: &String| -> Option<SystemTime> {
            fs::symlink_metadata(copies.folder.join(name)).and_then(|file| file.modified()).ok()
        };
        let mut in_folder = copies.names().unwrap_or_default();
        in_folder.retain(|name| CopyName::parse_any(name).is_some() && !copies.handed.has(name));
        in_folder.sort_by_cached_key(|name| Reverse((written(name), name.clone())));
        // The other process serves those that it hands over now.
        let names: Vec<String> = copies.handed.names().cloned().chain(in_folder).collect();
        let mut listed = Self::default();
        for (at, name) in names.iter().enumerate() {
            // Copies of sites that are gone replace no pair.
            let Some(copy) = CopyName::parse(name) else { continue };
            match copy.site() {
                Some(site) => {
                    listed.by_site.entry(site.to_owned()).or_default().push(at);
                    listed.by_path.entry(copy.path().to_owned()).or_default().push(at);
                    listed.by_pin.entry(copy.pin().to_owned()).or_default().push(at);
                }
                None => {
                    listed.without_site.push(at);
                    listed.without_site_by_path.entry(copy.path().to_owned()).or_default().push(at);
                    listed.without_site_by_pin.entry(copy.pin().to_owned()).or_default().push(at);
                }
            }
        }
        Self { names, ..listed }
    }

    /// The copies that name one of these sites: those of the first one, then the others, each time the newest first.
    fn named(&self, sites: &[String], meant: &Meant) -> Vec<usize> {
        let of_sites: BTreeSet<usize> =
            sites.iter().filter_map(|site| self.by_site.get(site)).flatten().copied().collect();
        let ranked = of_sites.into_iter().filter_map(|at| {
            let copy = CopyName::parse(self.names.get(at)?)?;
            meant.includes(&copy).then(|| (Reverse(copy.rank(sites)), at))
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, at)| at).collect()
    }

    fn without_site(&self, meant: &Meant) -> &[usize] {
        match meant {
            Meant::Path(path) => self.without_site_by_path.get(path).map_or(&[], Vec::as_slice),
            Meant::Key(pin) => self.without_site_by_pin.get(pin).map_or(&[], Vec::as_slice),
            Meant::Any => &self.without_site,
        }
    }

    /// The copies that name a site, if they are few.
    fn few(&self, meant: &Meant) -> Option<&[usize]> {
        let found = match meant {
            Meant::Path(path) => self.by_path.get(path),
            Meant::Key(pin) => self.by_pin.get(pin),
            Meant::Any => return None,
        };
        Some(found.map_or(&[][..], Vec::as_slice)).filter(|few| few.len() <= FEW)
    }

    /// `true` if a copy names a site, though perhaps another one, and may replace a pair.
    fn is_meant(&self, at: usize, meant: &Meant) -> bool {
        let copy = self.names.get(at).and_then(|name| CopyName::parse(name));
        copy.is_some_and(|copy| copy.site().is_some() && meant.includes(&copy))
    }
}

impl<'c> CopyIndex<'c> {
    /// The index of some copies. Nothing is read yet.
    #[must_use]
    pub fn of(copies: &'c LastGood) -> Self {
        Self {
            copies,
            listed: OnceCell::new(),
            copied: OnceCell::new(),
            pins: RefCell::default(),
            former: OnceCell::new(),
            remedies: OnceCell::new(),
            #[cfg(test)]
            reads: std::cell::Cell::new(0),
        }
    }

    /// Returns `true` if there is no copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed().names.is_empty()
    }

    /// The chain and key that a site with these names served last where this chain is configured, in PEM.
    #[must_use]
    pub fn read(&self, chain: &Path, hosts: &[HostPattern]) -> Option<Zeroizing<Vec<u8>>> {
        self.best(hosts, &Meant::Path(of_path(chain)))
    }

    /// The leaf keys of the copies of pairs that served a name.
    #[must_use]
    pub fn keys_of(&self, host: &HostPattern) -> Vec<Pin> {
        self.serving(host).into_iter().filter_map(|at| self.pin(at)).collect()
    }

    /// The names whose clients may hold pins: all names of copies that do not deny it. Pins that are over by now do not
    /// count beside others.
    #[must_use]
    pub fn pinned_names(&self, now: Seconds) -> Vec<PinnedName> {
        let mut hosts: Vec<&HostPattern> = self.copied().by_host.keys().collect();
        hosts.sort_unstable();
        hosts.into_iter().filter_map(|host| self.pinned_name(host, now)).collect()
    }

    fn pinned_name(&self, host: &HostPattern, now: Seconds) -> Option<PinnedName> {
        let (copied, places) = (self.copied(), self.serving(host));
        let notes: Vec<&Pinned> =
            places.iter().filter_map(|at| copied.pinned.get(at)).filter(|pinned| **pinned != Pinned::No).collect();
        let mut keys: Vec<Pin> = places.iter().filter_map(|at| self.pin(*at)).collect();
        keys.sort_unstable();
        keys.dedup();
        if notes.is_empty() || keys.is_empty() {
            return None;
        }
        let (mut pins, mut is_below): (Option<Vec<Pin>>, bool) = (None, false);
        let (mut is_told, mut is_sent, mut end) = (true, false, None);
        for note in notes {
            let Pinned::Yes { pins: of_copy, below, sent, until, lasting } = note else {
                (is_told, is_sent) = (false, true);
                continue;
            };
            let lasting = lasting.as_ref().filter(|_| until.is_some_and(|until| until <= now));
            let of_copy = lasting.unwrap_or(of_copy);
            is_below |= *below;
            is_sent |= *sent;
            end = end.max(*until);
            match &mut pins {
                Some(pins) => pins.retain(|pin| of_copy.contains(pin)),
                None => pins = Some(of_copy.clone()),
            }
        }
        let except = self.made_for(host).first().and_then(|at| copied.except.get(at));
        let mut except: Vec<HostPattern> = except.into_iter().flatten().cloned().collect();
        except.sort_unstable();
        let (host, pins) = (host.clone(), pins.filter(|_| is_told));
        Some(PinnedName { host, except, keys, pins, below: is_below, sent: is_sent, until: end })
    }

    /// The chain and key that a site with these names served last with this leaf key, wherever the chain is configured.
    pub(in crate::config) fn read_with(&self, pin: Pin, hosts: &[HostPattern]) -> Option<Zeroizing<Vec<u8>>> {
        self.best(hosts, &Meant::Key(of_pin(pin)))
    }

    /// The chain and key that a site with these names served last.
    pub(in crate::config) fn read_any(&self, hosts: &[HostPattern]) -> Option<Zeroizing<Vec<u8>>> {
        self.best(hosts, &Meant::Any)
    }

    /// The places of the copies that were made for a name, the newest first; those of sites that are gone, too.
    pub(in crate::config) fn made_for(&self, host: &HostPattern) -> &[usize] {
        self.copied().by_host.get(host).map_or(&[], Vec::as_slice)
    }

    /// The places of the copies of pairs that served a name, the best first: those that were made for it. Without one whose
    /// site is there, also those of the wildcard above it, unless the name was an exception.
    pub(in crate::config) fn serving(&self, host: &HostPattern) -> Vec<usize> {
        let own = self.made_for(host);
        let is_former = |at: &usize| self.listed().names.get(*at).is_some_and(|name| name.ends_with(FORMER));
        let Some(above) = host.wildcard_above().filter(|_| own.iter().all(is_former)) else { return own.to_vec() };
        let except = &self.copied().except;
        let covers = |at: &&usize| !except.get(*at).is_some_and(|names| names.contains(host));
        let mut found: Vec<usize> = own.iter().chain(self.made_for(&above).iter().filter(covers)).copied().collect();
        found.sort_by_key(is_former);
        found
    }

    /// `true` if the copy at a place was made of a chain with this path.
    pub(in crate::config) fn is_of_path(&self, at: usize, chain: &Path) -> bool {
        let name = self.listed().names.get(at).and_then(|name| CopyName::parse_any(name));
        name.is_some_and(|name| name.path() == of_path(chain))
    }

    /// The contents of the copy at a place.
    pub(in crate::config) fn contents(&self, at: usize) -> Option<Zeroizing<Vec<u8>>> {
        let name = self.listed().names.get(at)?;
        #[cfg(test)]
        self.reads.set(self.reads.get() + 1);
        let in_folder = || read(&self.copies.folder.join(name)).ok().map(Zeroizing::new);
        self.copies.handed.get(name).or_else(in_folder)
    }

    /// The leaf key of the copy at a place.
    fn pin(&self, at: usize) -> Option<Pin> {
        let of_copy = || Chain::from_pem(&self.contents(at)?).ok().map(|chain| chain.pin());
        *self.pins.borrow_mut().entry(at).or_insert_with(of_copy)
    }

    /// The copies whose sites are gone.
    pub(in crate::config) fn former(&self) -> &FormerCopies {
        self.former.get_or_init(|| FormerCopies::of(self.copies.former()))
    }

    /// The remedies if copies are out of reach.
    pub(in crate::config) fn remedies(&self) -> &[String] {
        self.remedies.get_or_init(|| self.copies.remedies())
    }

    /// The copy that fits a site best, among those that are meant. A copy names its site by the first host, which may have
    /// changed its place, or be gone. Copies of older versions name no site.
    fn best(&self, hosts: &[HostPattern], meant: &Meant) -> Option<Zeroizing<Vec<u8>>> {
        let listed = self.listed();
        let sites: Vec<String> = hosts.iter().map(of_site).collect();
        self.first(listed.named(&sites, meant)).or_else(|| {
            let of_names = self.of_names(hosts, meant);
            self.first(of_names.into_iter().chain(listed.without_site(meant).iter().copied()))
        })
    }

    /// The copies that name another site, and were made for one of these names.
    fn of_names(&self, hosts: &[HostPattern], meant: &Meant) -> Vec<usize> {
        let listed = self.listed();
        if let Some(few) = listed.few(meant) {
            let hosts: HashSet<&HostPattern> = hosts.iter().collect();
            let is_for =
                |contents: &[u8]| Breaches::read(contents).known_hosts().iter().any(|host| hosts.contains(host));
            let fitting = few.iter().copied().filter(|at| self.contents(*at).is_some_and(|found| is_for(&found)));
            return fitting.collect();
        }
        let served = |host: &HostPattern| match meant {
            Meant::Any => self.serving(host),
            Meant::Path(_) | Meant::Key(_) => self.made_for(host).to_vec(),
        };
        let of_names: BTreeSet<usize> = hosts.iter().flat_map(served).collect();
        of_names.into_iter().filter(|at| listed.is_meant(*at, meant)).collect()
    }

    /// The first of some copies that can be read.
    fn first(&self, places: impl IntoIterator<Item = usize>) -> Option<Zeroizing<Vec<u8>>> {
        places.into_iter().find_map(|at| self.contents(at))
    }

    fn listed(&self) -> &ListedCopies {
        self.listed.get_or_init(|| ListedCopies::of(self.copies))
    }

    fn copied(&self) -> &CopiedNames {
        self.copied.get_or_init(|| {
            let mut copied = CopiedNames::default();
            for at in 0..self.listed().names.len() {
                let Some(contents) = self.contents(at) else { continue };
                let breaches = Breaches::read(&contents);
                for host in breaches.known_hosts() {
                    copied.by_host.entry(host.clone()).or_default().push(at);
                }
                let except = breaches.names().except;
                if !except.is_empty() {
                    copied.except.insert(at, except.iter().cloned().collect());
                }
                copied.pinned.insert(at, breaches.pinned().clone());
            }
            copied
        })
    }
}
