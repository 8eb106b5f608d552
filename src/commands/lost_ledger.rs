//! A ledger of which every file is gone, even the one that each start makes, while copies show what was served: promises may
//! be lost. Another key than those of the copies may lock readers out, so the new ledger begins with a promise of these. The
//! copies do not say if pins were sent: so each name counts that has one, with pins in the configuration or without.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::report::CertificateReport;
use crate::config::{CheckContext, Config, CopyIndex, Draft, LAST_GOOD, LastGood, MayLack, StandIn};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::ledger::time::{day, judged_now};
use crate::ledger::{Book, Record, has_served, is_new};
use crate::policy::hpkp::{MAX_AGE_CAP, Mode};
use crate::policy::promise::{Promise, PromiseChannel, Seconds, SiteNames};
use crate::reason::Reason;
use crate::tls::certificate::Chain;

/// A folder that has lost its ledger.
#[derive(Debug, Clone)]
pub(super) struct LostLedger {
    folder: PathBuf,
    /// The promises that may be lost, as far as the copies show them.
    promises: Vec<Promise>,
    /// The first name among them, and the file of its unknown certificate.
    example: (String, String),
}

impl LostLedger {
    /// `None` unless a name would be served with another key than its copies have.
    pub(super) fn of(draft: &Draft, book: &Book) -> Option<Self> {
        let folder = draft.state().filter(|folder| book.is_empty() && is_new(folder) && !has_served(folder))?;
        if !folder.join(LAST_GOOD).exists() {
            return None;
        }
        let (now, _) = judged_now(None);
        let last_good = LastGood::of(&folder);
        let copies = CopyIndex::of(&last_good);
        let keys = copies.keys_by_host();
        let context = CheckContext {
            last_good: Some(last_good.clone()),
            stand_in: StandIn::Always,
            may_lack: MayLack::All,
            ..CheckContext::new(book, now)
        };
        let (config, _) = draft.build(&context);
        let config = config?;
        let (mut promises, mut example) = (Vec::new(), None);
        for (index, site) in config.sites().enumerate() {
            let Some(names) = config.names_of(index) else { continue };
            let served: Vec<_> = site.certificates.iter().filter(|certificate| certificate.served).collect();
            let mut by_keys: BTreeMap<Vec<Pin>, Vec<HostPattern>> = BTreeMap::new();
            for host in names.hosts {
                let known = known_keys(host, &served, &keys, &copies);
                let strange = served.iter().find(|certificate| !known.contains(&certificate.pin));
                if let (Some(strange), false) = (strange, known.is_empty()) {
                    example.get_or_insert_with(|| (host.to_string(), strange.file()));
                    by_keys.entry(known).or_default().push(host.clone());
                }
            }
            let of_names = |(known, hosts): (Vec<Pin>, Vec<HostPattern>)| {
                let names = SiteNames { hosts: &hosts, except: names.except };
                assumed(&config, site.name(), names, &known, &served, now)
            };
            promises.extend(by_keys.into_iter().map(of_names));
        }
        Some(Self { folder, promises, example: example? })
    }

    /// The promises that the new ledger begins with.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.promises.iter().cloned().map(Record::Promise)
    }

    pub(super) fn reason(&self) -> Reason {
        let (site, file) = &self.example;
        let until = self.promises.iter().map(Promise::honoured_until).max().unwrap_or_default();
        let more = match self.promises.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(" (and of {more} more)"),
        };
        let what = format!(
            "{} has no ledger, and its {LAST_GOOD} shows that {site} was served with another key than that of {file}{more}: \
             promises may be lost, and this key may lock readers out",
            self.folder.display(),
        );
        Reason::new(what)
            .note(format!("so the new ledger has the keys of the copies as promised until {}", day(until)))
            .hint("if you have a copy of both ledger.jsonl and ledger.head: stop pintle, restore them, and start it")
            .hint("put the chain and the key back that were served last")
    }
}

/// The leaf keys that the copies show as served for a name.
fn known_keys(
    host: &HostPattern,
    served: &[&CertificateReport],
    keys: &HashMap<HostPattern, Vec<Pin>>,
    copies: &CopyIndex<'_>,
) -> Vec<Pin> {
    let mut known = keys.get(host).cloned().unwrap_or_default();
    if known.is_empty() {
        // Copies of older versions name no hosts.
        let pin = |copy: Option<Zeroizing<Vec<u8>>>| Chain::from_pem(&copy?).ok().map(|chain| chain.pin());
        let host = std::slice::from_ref(host);
        known.extend(served.iter().filter_map(|certificate| pin(copies.read(Path::new(&certificate.path), host))));
    }
    known.sort_unstable();
    known.dedup();
    known
}

/// The set that clients of some names may hold: the keys of the copies, and those of the pins that bind these names now,
/// without the keys that nobody has served there. Nobody knows its max-age any more.
fn assumed(
    config: &Config,
    site: &str,
    names: SiteNames<'_>,
    known: &[Pin],
    served: &[&CertificateReport],
    now: Seconds,
) -> Promise {
    let sets = config.pledges.iter().map(|pledge| &pledge.promise).filter(|set| names.bound_by(set));
    let sets: Vec<&Promise> = sets.collect();
    let is_strange = |pin: &Pin| !known.contains(pin) && served.iter().any(|certificate| certificate.pin == *pin);
    let configured = sets.iter().flat_map(|set| &set.pins).filter(|pin| !is_strange(pin));
    let mut pins: Vec<Pin> = configured.chain(known).copied().collect();
    pins.sort_unstable();
    pins.dedup();
    Promise {
        site: site.to_owned(),
        hosts: names.hosts.to_vec(),
        except: names.except.to_vec(),
        pins,
        max_age: sets.iter().map(|set| set.max_age).max().unwrap_or_default().max(MAX_AGE_CAP),
        include_subdomains: sets.iter().any(|set| set.site == site && set.include_subdomains),
        channel: PromiseChannel::Header(Mode::Enforce),
        first_sent: now,
        last_sent: now,
    }
}
