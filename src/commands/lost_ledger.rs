//! A ledger of which every file is gone, even the one that each start makes, while copies show what was served: promises may
//! be lost. Another key than those of the copies may lock readers out, so the new ledger begins with a promise of these, for
//! each name that has a copy. A copy tells if its names were promised any pins, and which; one of an older version does not,
//! and counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use zeroize::Zeroizing;

use crate::config::report::CertificateReport;
use crate::config::{CheckContext, Config, CopyIndex, Draft, LAST_GOOD, LastGood, MayLack, PinnedName, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::lease;
use crate::ledger::time::{ClockReading, Time, day, judged_now};
use crate::ledger::{Book, FILE, Record, boot, has_served, is_unused, set_id};
use crate::os::words::words;
use crate::policy::hpkp::MAX_AGE_CAP;
use crate::policy::promise::{Promise, PromiseChannel, Promises, Seconds, SiteNames};
use crate::reason::Reason;
use crate::reason::pasted::option_for;
use crate::tls::certificate::Chain;

/// A folder that has lost its ledger.
#[derive(Debug, Clone)]
pub(super) struct LostLedger {
    folder: PathBuf,
    /// The option that names the configuration, for commands.
    option: String,
    /// The promises that may be lost, as far as the copies show them.
    promises: Vec<Promise>,
    /// The clock that dates them.
    clock: Option<Record>,
    /// The first name with an unknown key among them, and the file of that certificate.
    example: Option<(String, String)>,
    /// The reason why copies cannot be read, and the remedy if there is one.
    unread: Option<(String, Option<String>)>,
}

impl LostLedger {
    /// `None` unless a copy shows that clients may hold pins, or nobody can read the copies.
    pub(super) fn of(draft: &Draft, book: &Book) -> Option<Self> {
        let folder = draft.state().filter(|folder| is_unused(folder) && !has_served(folder))?;
        if !folder.join(LAST_GOOD).exists() {
            return None;
        }
        let (now, _) = judged_now(None);
        let last_good = LastGood::of(&folder);
        let unread = last_good.unreadable().map(|error| {
            let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
            (words(&error), is_forbidden.then(|| last_good.hint_to_read()))
        });
        let context = CheckContext {
            last_good: Some(last_good.clone()),
            stand_in: StandIn::Always,
            may_lack: MayLack::All,
            ..CheckContext::new(book, now)
        };
        let (config, _) = draft.build(&context);
        let (mut promises, example) = assumed(&config?, &CopyIndex::of(&last_good), now);
        // A start that has failed, or a command, has written them: their dates stay, as an accepted lockout has one of them.
        let known: HashSet<String> =
            book.promises().iter().filter(|p| p.channel == PromiseChannel::Assumed).map(set_id).collect();
        promises.retain(|promise| !known.contains(&set_id(promise)));
        let time = Time::start(Some(now), ClockReading::take());
        let lost = Self {
            folder,
            option: option_for(draft.path()),
            clock: boot::note(&Book::default(), &time).filter(|_| !promises.is_empty()),
            promises,
            example,
            unread,
        };
        (!lost.promises.is_empty() || lost.unread.is_some()).then_some(lost)
    }

    /// The promises that the new ledger begins with. If the clock was behind, they are dated anew once it is right.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.promises.iter().cloned().map(Record::Promise).chain(self.clock.clone())
    }

    pub(super) fn reason(&self) -> Reason {
        let at = self.folder.display();
        let what = match (&self.unread, &self.example) {
            (Some((why, _)), _) => format!(
                "{at} has no ledger, and pintle cannot read what it has served, in {LAST_GOOD}: {why}: promises may be lost, \
                 and any key may be served for a name whose copy cannot be read"
            ),
            (None, Some((name, file))) => format!(
                "{at} has no ledger, and its {LAST_GOOD} shows that {name} was served with another key than that of {file}: \
                 promises may be lost, and this key may lock readers out"
            ),
            (None, None) => format!(
                "{at} has no ledger, and its {LAST_GOOD} shows that pintle has served from it before: promises may be lost"
            ),
        };
        let until = self.promises.iter().map(Promise::honoured_until).max();
        let of_copies = until.map(|until| {
            format!("so the new ledger has the keys and pins of the copies as promised until {}", day(until))
        });
        let reason = of_copies.into_iter().fold(Reason::new(what), Reason::note);
        let reason = reason.hints(self.unread.as_ref().and_then(|(_, hint)| hint.clone()));
        // An older copy in the ledger's place would hide that anything is lost.
        let reason = reason.hint(format!(
            "if you have a copy of the ledger, add its promises: pintle ledger merge{} COPY/{FILE}",
            self.option
        ));
        match self.example {
            Some(_) => reason.hint("put the chain and the key back that were served last"),
            None => reason,
        }
    }
}

/// A site of the configuration, with the certificates that it would serve.
struct ConfiguredSite<'c> {
    name: &'c str,
    names: SiteNames<'c>,
    served: Vec<&'c CertificateReport>,
}

impl<'c> ConfiguredSite<'c> {
    fn all(config: &'c Config) -> Vec<Self> {
        let sites = config.sites().enumerate().filter_map(|(index, site)| {
            let served = site.certificates.iter().filter(|certificate| certificate.served).collect();
            Some(Self { name: site.name(), names: config.names_of(index)?, served })
        });
        sites.collect()
    }

    /// The first name whose certificate breaks a promise, and the file of that certificate.
    fn breach(&self, promises: &Promises<'_>) -> Option<(String, String)> {
        let breaks = |hosts: &[HostPattern], certificate: &CertificateReport| {
            !promises.broken_by(hosts, self.names.except, &certificate.certain).is_empty()
        };
        let certificate = self.served.iter().find(|certificate| breaks(self.names.hosts, certificate))?;
        let host = self.names.hosts.iter().find(|host| breaks(from_ref(*host), certificate))?;
        Some((host.to_string(), certificate.file()))
    }
}

/// The set of pins that clients of a name may hold.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AssumedSet {
    site: Option<String>,
    except: Vec<HostPattern>,
    pins: Vec<Pin>,
    below: bool,
    max_age: u64,
}

impl AssumedSet {
    /// The keys of the copies, and the pins that all promises had. A copy of an older version does not tell the pins: then
    /// those count that bind the name now, without the keys that nobody has served there. Nobody knows the max-age any more.
    fn of(name: &PinnedName, site: Option<&ConfiguredSite<'_>>, pledged: &Promises<'_>) -> Self {
        let sets = pledged.binding(from_ref(&name.host), &name.except);
        let served: Vec<Pin> = site.iter().flat_map(|site| &site.served).map(|certificate| certificate.pin).collect();
        let is_known = |pin: &&Pin| name.keys.contains(*pin) || !served.contains(*pin);
        let of_now = || sets.iter().flat_map(|set| &set.pins).filter(is_known).copied().collect::<Vec<Pin>>();
        let mut pins: Vec<Pin> = name.pins.clone().unwrap_or_else(of_now);
        pins.extend(&name.keys);
        pins.sort_unstable();
        pins.dedup();
        let is_own = |set: &&&Promise| site.is_some_and(|site| set.site == site.name);
        let below = || sets.iter().filter(is_own).any(|set| set.include_subdomains);
        Self {
            site: site.map(|site| site.name.to_owned()),
            except: name.except.clone(),
            pins,
            below: name.below || name.pins.is_none() && below(),
            max_age: sets.iter().map(|set| set.max_age).max().unwrap_or_default().max(MAX_AGE_CAP),
        }
    }

    /// The promise to these names. Its dates are those of one that is sent now.
    fn promise(self, hosts: Vec<HostPattern>, now: Seconds) -> Promise {
        Promise {
            site: self.site.or_else(|| hosts.first().map(ToString::to_string)).unwrap_or_default(),
            hosts,
            except: self.except,
            pins: self.pins,
            max_age: self.max_age,
            include_subdomains: self.below,
            channel: PromiseChannel::Assumed,
            first_sent: now,
            last_sent: now.saturating_add(lease::ahead(self.max_age)),
        }
    }
}

/// The promises that may be lost, and the first name whose certificate breaks one, with the file.
fn assumed(config: &Config, copies: &CopyIndex<'_>, now: Seconds) -> (Vec<Promise>, Option<(String, String)>) {
    let sites = ConfiguredSite::all(config);
    let by_host: HashMap<&HostPattern, &ConfiguredSite<'_>> =
        sites.iter().flat_map(|site| site.names.hosts.iter().map(move |host| (host, site))).collect();
    let pledged = Promises::alive(config.pledges.iter().map(|pledge| &pledge.promise), Seconds::MIN);
    let names = pinned_names(&sites, copies);
    let mut sets: BTreeMap<AssumedSet, Vec<HostPattern>> = BTreeMap::new();
    for name in &names {
        let above = || by_host.get(&name.host.wildcard_above()?).copied();
        let site = by_host.get(&name.host).copied().or_else(above);
        let set = AssumedSet::of(name, site, &pledged);
        sets.entry(set).or_default().push(name.host.clone());
    }
    let mut promises: Vec<Promise> = sets.into_iter().map(|(set, hosts)| set.promise(hosts, now)).collect();
    admit_served(&mut promises, &names, now);
    let index = Promises::alive(promises.iter(), now);
    let example = sites.iter().find_map(|site| site.breach(&index));
    drop(index);
    (promises, example)
}

/// The names whose clients may hold pins.
fn pinned_names(sites: &[ConfiguredSite<'_>], copies: &CopyIndex<'_>) -> Vec<PinnedName> {
    let mut pinned = copies.pinned_names();
    for site in sites {
        for host in site.names.hosts.iter().filter(|host| copies.keys_of(host).is_empty()) {
            // Copies of older versions name no hosts.
            let pin = |copy: Option<Zeroizing<Vec<u8>>>| Chain::from_pem(&copy?).ok().map(|chain| chain.pin());
            let read =
                |certificate: &&CertificateReport| pin(copies.read(Path::new(&certificate.path), from_ref(host)));
            let keys: Vec<Pin> = site.served.iter().filter_map(read).collect();
            if !keys.is_empty() {
                let (host, except) = (host.clone(), site.names.except.to_vec());
                pinned.push(PinnedName { host, except, keys, pins: None, below: false });
            }
        }
    }
    pinned
}

/// Adds the keys that were served although a promise, of a name above for one, did not have them: that was accepted, and they
/// are served on.
fn admit_served(promises: &mut [Promise], names: &[PinnedName], now: Seconds) {
    let served = served_despite(&Promises::alive(promises.iter(), now), names);
    if served.is_empty() {
        return;
    }
    for promise in promises {
        if let Some(keys) = served.get(&set_id(promise)) {
            promise.pins.extend(keys);
            promise.pins.sort_unstable();
            promise.pins.dedup();
        }
    }
}

/// The keys that were served although they are not in a set, by its id.
fn served_despite(sets: &Promises<'_>, names: &[PinnedName]) -> HashMap<String, Vec<Pin>> {
    let mut served: HashMap<String, Vec<Pin>> = HashMap::new();
    for name in names {
        for key in &name.keys {
            for broken in sets.broken_by(from_ref(&name.host), &name.except, from_ref(key)) {
                served.entry(set_id(broken)).or_default().push(*key);
            }
        }
    }
    served
}
