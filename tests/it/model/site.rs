//! Sites as the operator writes them, and as pintle serves them: the part of `config::build` that makes a site out of
//! its table, with the same calls to the rules.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use pintle::host::HostPattern;
use pintle::keys::pin::Pin;
use pintle::lease::Lease;
use pintle::ledger::leases::Pledge;
use pintle::ledger::{Book, Ramp, Ramped};
use pintle::policy::guard::Offer;
use pintle::policy::hpkp::{self, Hpkp, Mode};
use pintle::policy::promise::{Promise, Seconds};
use pintle::policy::ramp::Steps;

use super::client::{KEYS, Key, Policy};

/// The names that sites may have.
pub const PATTERNS: [&str; 7] = [
    "example.com",
    "shop.example.com",
    "*.example.com",
    "a.shop.example.com",
    "*.shop.example.com",
    "blog.example.com",
    "other.org",
];

/// The names that clients visit.
pub const NAMES: [&str; 8] = [
    "example.com",
    "shop.example.com",
    "blog.example.com",
    "www.example.com",
    "a.shop.example.com",
    "b.shop.example.com",
    "x.blog.example.com",
    "other.org",
];

static PARSED: LazyLock<Vec<HostPattern>> =
    LazyLock::new(|| PATTERNS.iter().map(|text| HostPattern::parse(text).unwrap()).collect());
static PINS: LazyLock<Vec<Pin>> = LazyLock::new(|| (0..KEYS).map(|key| Pin::of_spki(&[key])).collect());

pub fn pin(key: Key) -> Pin {
    PINS[usize::from(key)]
}

pub fn key(pin: &Pin) -> Key {
    PINS.iter().position(|p| p == pin).unwrap() as Key
}

pub fn pattern(at: usize) -> HostPattern {
    PARSED[at].clone()
}

/// A `[[site]]`, with what is in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// By their places among the patterns.
    pub hosts: Vec<usize>,
    /// One or two, leaf first.
    pub chains: Vec<Vec<Key>>,
    pub hpkp: Option<HpkpTable>,
    pub accept_lockout_until: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HpkpTable {
    pub mode: Mode,
    pub max_age: u64,
    pub ramp: bool,
    pub include_subdomains: bool,
    pub backups: Vec<Key>,
}

impl HpkpTable {
    pub fn steps(&self) -> Option<Steps> {
        self.ramp.then(|| Steps::new(vec![20, 100], 10, Some(self.max_age)))
    }
}

/// A header, as it is sent and as clients read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub name: &'static str,
    pub value: String,
    pub policy: Policy,
}

/// A site, ready.
#[derive(Debug)]
pub struct Entry {
    pub table: Table,
    pub hosts: Vec<HostPattern>,
    pub chains: Vec<Vec<Pin>>,
    pub header: Option<Rc<Header>>,
    pub pledge: Option<Pledge>,
    pub ramps: Vec<Ramp>,
}

impl Entry {
    pub fn label(&self) -> String {
        self.hosts[0].to_string()
    }

    pub fn promise(&self) -> Option<&Promise> {
        self.pledge.as_ref().map(|pledge| &pledge.promise)
    }

    pub fn offer(&self, is_kept: bool) -> Offer<'_> {
        let chains = self.chains.iter().map(Vec::as_slice).collect();
        Offer { hosts: &self.hosts, chains, set: self.promise(), is_kept }
    }
}

/// Makes a site; none if its pins are not fit to be sent.
pub fn make(table: &Table, hosts: &[HostPattern], except: &[HostPattern], book: &Book, now: Seconds) -> Option<Entry> {
    let chains: Vec<Vec<Pin>> = table.chains.iter().map(|c| c.iter().map(|k| pin(*k)).collect()).collect();
    let label = hosts[0].to_string();
    let mut entry =
        Entry { table: table.clone(), hosts: hosts.to_vec(), chains, header: None, pledge: None, ramps: Vec::new() };
    let Some(hpkp) = &table.hpkp else { return Some(entry) };
    let mut max_age = hpkp.max_age;
    if let Some(steps) = hpkp.steps() {
        let step = match book.ramp(&label, Ramped::Hpkp) {
            Some(known) => known.step.min(steps.count() - 1),
            None => {
                entry.ramps.push(Ramp { site: label, policy: Ramped::Hpkp, step: 0, since: now });
                0
            }
        };
        max_age = steps.max_age(step);
    }
    let backups: Vec<Pin> = hpkp.backups.iter().map(|k| pin(*k)).collect();
    let standing = hpkp::standing(&hpkp::judge(&entry.chains, &backups, hpkp.max_age, u64::MAX));
    if standing.is_refused {
        return None;
    }
    if !standing.is_withheld {
        let mut pins: Vec<Pin> = Vec::new();
        for pin in entry.chains.iter().map(|c| c[0]).chain(backups) {
            if !pins.contains(&pin) {
                pins.push(pin);
            }
        }
        let include_subdomains = hpkp.include_subdomains;
        let policy = Hpkp { mode: hpkp.mode, max_age, pins, include_subdomains, report_uri: None };
        let (name, value) = (policy.name(), policy.value());
        let read = Policy::read(&value).unwrap_or_else(|| panic!("a field that no client takes: {value}"));
        entry.header = Some(Rc::new(Header { name, value, policy: read }));
        let promise = Promise::of_header(hosts, except, &policy);
        entry.pledge = Some(Pledge { promise, lease: Arc::new(Lease::default()) });
    }
    Some(entry)
}

/// For each name, the site that it is served by: by its exact name, or else by a wildcard.
pub fn routes(entries: &[Rc<Entry>]) -> [Option<usize>; NAMES.len()] {
    NAMES.map(|name| {
        let by = |wildcard: bool| {
            let serves = |e: &Rc<Entry>| e.hosts.iter().any(|h| h.is_wildcard() == wildcard && h.matches(name));
            entries.iter().position(serves)
        };
        by(false).or_else(|| by(true))
    })
}
