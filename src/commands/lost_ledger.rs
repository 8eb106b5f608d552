//! A ledger of which nothing shows that it is the newest one, while copies show what was served: promises may be lost. Every
//! file is gone, even the lock that each start makes; or the lock alone; or another ledger's file is in the place of the own
//! one. Another key than those of the copies may lock readers out, so the ledger begins with a promise of these, for each name
//! that has a copy, unless it has just that promise already. A copy tells if its names were promised any pins, and which; one
//! of an older version does not, and counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::slice::from_ref;

use zeroize::Zeroizing;

use crate::config::report::CertificateReport;
use crate::config::{CheckContext, Config, CopyIndex, Draft, LAST_GOOD, LastGood, MayLack, PinnedName, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::lease;
use crate::ledger::repair::{SKEW, date};
use crate::ledger::time::{ClockReading, Time, day, judged_now};
use crate::ledger::{
    Book, FILE, LOCK, News, Record, boot, has_served, is_new, is_replaced, is_unused, look, own_id, set_id,
};
use crate::os::words::words;
use crate::policy::hpkp::MAX_AGE_CAP;
use crate::policy::promise::{Promise, PromiseChannel, Promises, Seconds, SiteNames};
use crate::reason::pasted::option_for;
use crate::reason::{Reason, shell_path, shell_word};
use crate::tls::certificate::Chain;

/// A folder that has lost its ledger.
#[derive(Debug, Clone)]
pub(super) struct LostLedger {
    folder: PathBuf,
    /// Another ledger's file is in the place of its own one.
    is_replaced: bool,
    /// The option that names the configuration, for commands.
    option: String,
    /// The promises that may be lost, as far as the copies show them.
    promises: Vec<Promise>,
    /// Promises that the ledger has, as sent until now: it may be a copy from before they were sent last.
    sent_on: Vec<Promise>,
    /// The lockouts by pairs that were served last, if another ledger's promises come beside the own ones.
    excuses: Vec<Record>,
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
        let folder = draft.state().filter(|folder| !has_served(folder) && folder.join(LAST_GOOD).exists())?;
        let last_good = LastGood::of(&folder);
        let lost = Self::shown_by(&last_good, folder, draft, book)?;
        (lost.is_told() || !lost.sent_on.is_empty()).then_some(lost)
    }

    /// The same of a folder in which another ledger's file is. `None` unless the copies can be read: then nobody knows what
    /// the own one had.
    pub(super) fn of_replaced(draft: &Draft) -> Option<Self> {
        let folder = draft.state().filter(|folder| is_replaced(folder))?;
        let (theirs, _) = look(&folder).ok()?;
        let last_good = LastGood::of(&folder);
        let copies = CopyIndex::of(&last_good);
        // Copies from another ledger's folder know nothing of the own promises.
        let ids = last_good.ledger_ids();
        let are_own = ids.is_empty() || own_id(&folder).is_some_and(|id| ids.contains(&id));
        if copies.is_empty() || !are_own {
            return None;
        }
        let lost = Self::shown_by(&last_good, folder, draft, &theirs)?;
        if lost.unread.is_some() {
            return None;
        }
        let excuses = lost.excuses(draft, &theirs, &copies);
        Some(Self { is_replaced: true, excuses, ..lost })
    }

    /// The lockouts by pairs that were served last and break promises of another ledger, as after a merge: refusing them
    /// helps nobody. That is true of promises from before the end of the own ledger: if the other one may follow it, later
    /// ones show that another pair was served since.
    fn excuses(&self, draft: &Draft, theirs: &Book, copies: &CopyIndex<'_>) -> Vec<Record> {
        let Some(end) = left_at(&self.folder) else { return Vec::new() };
        let follows = may_follow(theirs, copies);
        // Another node may have sent its pins all the time, and its clock may differ.
        let (end, is_sent_since) = if follows { (end, false) } else { (end.saturating_add(SKEW), true) };
        let is_before = |record: &Record| match record {
            Record::Promise(promise) if is_sent_since => promise.first_sent <= end,
            other => date(other).is_some_and(|date| date <= end),
        };
        let before: Vec<Record> = theirs.records().filter(is_before).collect();
        let mut merged = theirs.clone();
        self.records().for_each(|record| _ = merged.apply(record));
        let (now, _) = judged_now(merged.newest());
        let excuses = draft.excuses(&News::of(&before), |_| false, &merged, now);
        excuses.records.into_iter().map(Record::Accepted).collect()
    }

    /// The promises that copies show, and a ledger lacks.
    fn shown_by(last_good: &LastGood, folder: PathBuf, draft: &Draft, book: &Book) -> Option<Self> {
        let (now, _) = judged_now(None);
        let unread = last_good.unreadable().map(|error| {
            let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
            (words(&error), is_forbidden.then(|| last_good.hint_to_read()))
        });
        // Beside a ledger, a damaged copy is as good as none.
        let damaged = || last_good.damaged().filter(|_| is_new(&folder)).map(|copy| of_damaged(&copy));
        let unread = unread.or_else(damaged);
        let context = CheckContext {
            last_good: Some(last_good.clone()),
            stand_in: StandIn::Always,
            may_lack: MayLack::All,
            ..CheckContext::new(book, now)
        };
        let (config, _) = draft.build(&context);
        let AssumedPromises { mut promises, sent_on, example } =
            AssumedPromises::of(&config?, &CopyIndex::of(last_good), book, now);
        // A start that has failed, or a command, has written them: their dates stay, as an accepted lockout has one of them.
        let known: Vec<&Promise> = book.promises().iter().filter(|p| p.channel == PromiseChannel::Assumed).collect();
        let known_sets: HashSet<String> = known.iter().map(|known| set_id(known)).collect();
        let is_known = |promise: &Promise| {
            let includes = |known: &&Promise| {
                // One that ends with an export lasts shorter each time.
                let other = Promise { max_age: known.max_age, ..promise.clone() };
                known.is_same_set(&other) && known.honoured_until() >= promise.honoured_until()
            };
            known_sets.contains(&set_id(promise)) || known.iter().any(includes)
        };
        promises.retain(|promise| !is_known(promise));
        let time = Time::start(Some(now), ClockReading::take());
        Some(Self {
            folder,
            is_replaced: false,
            option: option_for(draft.path()),
            clock: boot::note(&Book::default(), &time).filter(|_| !promises.is_empty() || !sent_on.is_empty()),
            promises,
            sent_on,
            excuses: Vec::new(),
            example,
            unread,
        })
    }

    /// `true` if promises may be lost: otherwise, the ledger has all of them, though perhaps with earlier dates.
    pub(super) fn is_told(&self) -> bool {
        self.is_replaced || self.unread.is_some() || !self.promises.is_empty()
    }

    /// The promises, as a ledger's contents.
    pub(super) fn book(&self) -> Book {
        let mut book = Book::default();
        self.records().for_each(|record| _ = book.apply(record));
        book
    }

    /// The promises that the new ledger begins with. If the clock was behind, they are dated anew once it is right.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let promises = self.promises.iter().chain(&self.sent_on).cloned().map(Record::Promise);
        promises.chain(self.excuses.iter().cloned()).chain(self.clock.clone())
    }

    /// The ledger of the folder, in words.
    fn lacks(&self) -> &'static str {
        match (self.is_replaced, is_new(&self.folder)) {
            (true, _) => "has another ledger's file in the place of its own one",
            (false, true) => "has no ledger",
            (false, false) => "has no ledger that was in use there",
        }
    }

    pub(super) fn reason(&self) -> Reason {
        let (at, lacks) = (self.folder.display(), self.lacks());
        let what = match (&self.unread, &self.example) {
            (Some((why, _)), _) => format!(
                "{at} {lacks}, and pintle cannot read what it has served, in {LAST_GOOD}: {why}: promises may be lost, \
                 and any key may be served for a name whose copy cannot be read"
            ),
            (None, Some((name, file))) => format!(
                "{at} {lacks}, and its {LAST_GOOD} shows that {name} was served with another key than that of {file}: \
                 promises may be lost, and this key may lock readers out"
            ),
            (None, None) => format!(
                "{at} {lacks}, and its {LAST_GOOD} shows that pintle has served from it before: promises may be lost"
            ),
        };
        let until = self.promises.iter().map(Promise::honoured_until).max();
        let of_copies = until
            .map(|until| format!("so the ledger has the keys and pins of the copies as promised until {}", day(until)));
        let served = "pairs that were served last are served on, although they break promises of the other ledger";
        let on = (!self.excuses.is_empty()).then(|| served.to_owned());
        let reason = of_copies.into_iter().chain(on).fold(Reason::new(what), Reason::note);
        let reason = reason.hints(self.unread.as_ref().and_then(|(_, hint)| hint.clone()));
        // An older copy in the ledger's place would hide that anything is lost.
        let reason = reason.hint(format!(
            "if you have a copy of {} ledger, add its promises: pintle ledger merge{} COPY/{FILE}",
            if self.is_replaced { "the own" } else { "the" },
            self.option
        ));
        match self.example {
            Some(_) => reason.hint("put the chain and the key back that were served last"),
            None => reason,
        }
    }
}

/// The reason why a damaged copy does not tell what was served, and the hint to begin without it.
fn of_damaged(copy: &Path) -> (String, Option<String>) {
    let (from, to) = (shell_path(copy), shell_word(&format!("{}.aside", copy.display())));
    let hint = format!("if no client holds pins of its names, begin without this copy: mv {from} {to}");
    (format!("{} is damaged", copy.display()), Some(hint))
}

/// The time at which a folder's ledger was written last, as the file of its lock shows.
fn left_at(folder: &Path) -> Option<Seconds> {
    fs::symlink_metadata(folder.join(LOCK)).ok().map(|lock| lock.mtime())
}

/// `true` if another ledger may follow the one of the copies, as that of a folder to which the state was moved for a while:
/// it has their pins, or somebody has declined some.
fn may_follow(theirs: &Book, copies: &CopyIndex<'_>) -> bool {
    let promises = Promises::alive(theirs.promises(), Seconds::MIN);
    let has_pins = |name: &PinnedName| {
        let sets = promises.binding(from_ref(&name.host), &name.except);
        // A copy of an older version does not tell the pins.
        name.pins.as_ref().is_none_or(|pins| sets.iter().any(|set| pins.iter().all(|pin| set.pins.contains(pin))))
    };
    theirs.records().any(|record| matches!(record, Record::Declined(_)))
        || copies.pinned_names(Seconds::MIN).iter().any(has_pins)
}

/// The reason against a start of which nobody can tell whom it would lock out.
pub(super) fn refusal(lost: Option<&LostLedger>, draft: &Draft) -> Option<Reason> {
    // Where there is a ledger, it has the promises.
    let lost = lost.filter(|lost| is_unused(&lost.folder) && draft.sends_pins())?;
    let (why, hint) = lost.unread.as_ref()?;
    let (at, copies, lacks) = (lost.folder.display(), lost.folder.join(LAST_GOOD), lost.lacks());
    let what = format!(
        "{at} {lacks}, and pintle cannot read what it has served, in {LAST_GOOD}: {why}: nothing shows which keys readers \
         were promised, and any other one would lock them out"
    );
    let reason = Reason::new(what).hints(hint.clone());
    let (from, to) = (shell_path(&copies), shell_word(&format!("{}.aside", copies.display())));
    Some(reason.hint(format!("if no client holds pins of these sites, begin without the copies: mv {from} {to}")))
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
    /// Some pins were sent until now, as far as anybody knows.
    sent: bool,
    /// The end of the others.
    until: Option<Seconds>,
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
            sent: name.sent,
            until: name.until,
        }
    }

    /// The promise to these names. Its dates are those of one that is sent now, unless the copies name its end.
    fn promise(self, hosts: Vec<HostPattern>, now: Seconds) -> Promise {
        let sent_now = now.saturating_add(lease::ahead(self.max_age));
        let age = i64::try_from(self.max_age).unwrap_or(i64::MAX);
        let (mut last_sent, mut max_age) = (sent_now, self.max_age);
        if let Some(until) = self.until {
            match until.saturating_sub(age) {
                // A later date of sending would be impossible.
                ends if ends > sent_now => max_age = u64::try_from(until.saturating_sub(sent_now)).unwrap_or(max_age),
                ends if !self.sent => last_sent = ends,
                _ => {}
            }
        }
        Promise {
            site: self.site.or_else(|| hosts.first().map(ToString::to_string)).unwrap_or_default(),
            hosts,
            except: self.except,
            pins: self.pins,
            max_age,
            include_subdomains: self.below,
            channel: PromiseChannel::Assumed,
            first_sent: now.min(last_sent),
            last_sent,
        }
    }
}

/// The promises that copies show.
struct AssumedPromises {
    /// Promises that may be lost.
    promises: Vec<Promise>,
    /// Promises that the ledger has, as sent until now.
    sent_on: Vec<Promise>,
    /// The first name whose certificate breaks one that may be lost, and the file.
    example: Option<(String, String)>,
}

impl AssumedPromises {
    fn of(config: &Config, copies: &CopyIndex<'_>, book: &Book, now: Seconds) -> Self {
        let sites = ConfiguredSite::all(config);
        let by_host: HashMap<&HostPattern, &ConfiguredSite<'_>> =
            sites.iter().flat_map(|site| site.names.hosts.iter().map(move |host| (host, site))).collect();
        let pledged = Promises::alive(config.pledges.iter().map(|pledge| &pledge.promise), Seconds::MIN);
        let held = Promises::alive(book.promises(), now);
        let (known, names): (Vec<_>, Vec<_>) =
            pinned_names(&sites, copies, now).into_iter().partition(|name| is_known(name, &held));
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
        Self { promises, sent_on: sent_on(book, &known, &held, now), example }
    }
}

/// `true` if the promises of a ledger leave a name the pins that its copies tell: then it has all of them.
fn is_known(name: &PinnedName, held: &Promises<'_>) -> bool {
    let sets = held.binding(from_ref(&name.host), &name.except);
    let Some((pins, (first, others))) = name.pins.as_ref().zip(sets.split_first()) else { return false };
    let left: Vec<Pin> =
        first.pins.iter().filter(|pin| others.iter().all(|set| set.pins.contains(pin))).copied().collect();
    left.len() == pins.len() && left.iter().all(|pin| pins.contains(pin))
}

/// The sets of known names that were sent last, as sent until now, if pins were sent on.
fn sent_on(book: &Book, known: &[PinnedName], held: &Promises<'_>, now: Seconds) -> Vec<Promise> {
    let last = book.sent_last(|promise| promise.is_alive(now));
    let mut last: HashSet<*const Promise> = last.into_values().map(std::ptr::from_ref).collect();
    let bound = known.iter().filter(|name| name.sent);
    let bound = bound.flat_map(|name| held.binding(from_ref(&name.host), &name.except));
    let is_last = |promise: &&Promise| last.remove(&std::ptr::from_ref(*promise));
    let as_of_now = |promise: &Promise| {
        let last_sent = promise.last_sent.max(now.saturating_add(lease::ahead(promise.max_age)));
        Promise { last_sent, ..promise.clone() }
    };
    bound.filter(is_last).map(as_of_now).collect()
}

/// The names whose clients may hold pins.
fn pinned_names(sites: &[ConfiguredSite<'_>], copies: &CopyIndex<'_>, now: Seconds) -> Vec<PinnedName> {
    let mut pinned = copies.pinned_names(now);
    pinned.retain(|name| !name.is_over(now));
    for site in sites {
        for host in site.names.hosts.iter().filter(|host| copies.keys_of(host).is_empty()) {
            // Copies of older versions name no hosts.
            let pin = |copy: Option<Zeroizing<Vec<u8>>>| Chain::from_pem(&copy?).ok().map(|chain| chain.pin());
            let read =
                |certificate: &&CertificateReport| pin(copies.read(Path::new(&certificate.path), from_ref(host)));
            let keys: Vec<Pin> = site.served.iter().filter_map(read).collect();
            if !keys.is_empty() {
                let (host, except) = (host.clone(), site.names.except.to_vec());
                pinned.push(PinnedName { host, except, keys, pins: None, below: false, sent: true, until: None });
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
