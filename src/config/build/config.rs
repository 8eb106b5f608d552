//! A configuration that can be served.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, by_name};
use super::report;
use super::upstream::Upstreams;
use crate::config::acme::Acme;
use crate::config::draft::AdminAddress;
use crate::config::last_good::{Breaches, Fresh, Pair};
use crate::config::process::Process;
use crate::config::stamp::Stamp;
use crate::keys::pin::Pin;
use crate::lease::Lease;
use crate::ledger::leases::Pledge;
use crate::ledger::{Accepted, Book, Ramp};
use crate::os::sandbox;
use crate::policy::promise::{Promise, Promises, Seconds};
use crate::reason::Problem;
use crate::server::Snapshot;
use crate::telemetry::AccessFormat;
use crate::tls::Tickets;
use crate::upstream::dns::{Name, NameServers};

/// A configuration that can be served.
pub struct Config {
    /// The addresses of the TLS listeners.
    pub https: Vec<SocketAddr>,
    /// The addresses of the plain listeners.
    pub http: Vec<SocketAddr>,
    /// The number of workers.
    pub workers: usize,
    /// The snapshot for the workers.
    pub snapshot: Arc<Snapshot>,
    /// The upstreams' names that nobody follows yet.
    pub names: Vec<Name>,
    /// The name servers.
    pub name_servers: NameServers,
    /// The target of the access log.
    pub access: AccessTarget,
    /// Its format.
    pub access_format: AccessFormat,
    /// The folder of the state, if there is one.
    pub state: Option<PathBuf>,
    /// The address of the admin socket, if there is one.
    pub admin: Option<AdminAddress>,
    /// The user that serves.
    pub process: Process,
    /// `true` if a key process has the keys.
    pub key_process: bool,
    /// The settings of the sandbox.
    pub sandbox: sandbox::Settings,
    /// The certificates that pintle obtains, if there are any.
    pub acme: Option<Arc<Acme>>,
    /// The promises of the pin headers, site by site. They have to be in the ledger before pintle sends them.
    pub pledges: Vec<Pledge>,
    /// Lockouts that the operator has just accepted. They have to be in the ledger before they happen.
    pub accepted: Vec<Accepted>,
    /// Ramps that begin.
    pub ramps: Vec<Ramp>,
    /// Sites that keep what they have, or a part of it.
    pub kept: Vec<Kept>,
    /// Warnings about files that have changed, each with its site.
    pub news: Vec<(String, Problem)>,
    pub(in crate::config) entries: Vec<Arc<Entry>>,
    pub(super) upstreams: Upstreams,
    pub(super) tickets: Arc<Tickets>,
}

/// A site whose files are unfit now.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its index in the file.
    pub index: usize,
    /// Its first name.
    pub site: String,
    /// Its problems, with spans in the draft.
    pub problems: Vec<Problem>,
    /// `true` if a promise would be broken, `false` if only a file is.
    pub by_guard: bool,
    /// The refused certificates, if they could be read.
    pub certificates: Vec<report::Certificate>,
    /// `true` if the site has no certificate at all.
    pub lacks: bool,
}

/// The target of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, at its end.
    File(PathBuf),
}

impl Config {
    /// The report of each site.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &report::Site> {
        self.entries.iter().map(|entry| &entry.report)
    }

    /// The sites that pintle refuses TLS for, since they have no certificate.
    pub fn without_certificate(&self) -> impl Iterator<Item = (&report::Site, report::Lack)> {
        self.sites().filter_map(|site| Some((site, site.lacks_certificate?)))
    }

    /// The keys of session tickets.
    #[must_use]
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// All files that the sites were made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.stamps().map(|(path, _)| path.as_path())
    }

    /// The files of sites that differ from that configuration.
    pub fn files_beside(&self, before: Option<&Self>) -> impl Iterator<Item = &Path> {
        let plans = before.iter().flat_map(|before| &before.entries).map(|entry| Arc::as_ptr(&entry.plan));
        let known: HashSet<_, foldhash::fast::RandomState> = plans.collect();
        let different = self.entries.iter().filter(move |entry| !known.contains(&Arc::as_ptr(&entry.plan)));
        different.flat_map(|entry| entry.plan.files()).map(|(path, _)| path.as_path())
    }

    /// All files that the sites were made from, with their stamps.
    pub fn stamps(&self) -> impl Iterator<Item = &(PathBuf, Stamp)> {
        self.entries.iter().flat_map(|entry| entry.plan.files())
    }

    /// The pairs that it serves: the path of the chain, and the pin of the leaf.
    pub fn pairs(&self) -> impl Iterator<Item = (&Path, Pin)> {
        self.entries.iter().flat_map(|entry| entry.pairs()).map(|l| (l.path.as_path(), l.chain.pin()))
    }

    /// The chains that sites should have and have not.
    pub fn missing_chains(&self) -> impl Iterator<Item = &Path> {
        self.entries.iter().flat_map(|entry| entry.missing())
    }

    /// The leases whose pins all chains of the previous configuration keep, wherever these pins bind.
    #[must_use]
    pub fn kept_leases(&self, before: &Self) -> HashSet<*const Lease> {
        let promises = Promises::alive(self.pledges.iter().map(|pledge| &pledge.promise), Seconds::MIN);
        let pairs = before.entries.iter().flat_map(|entry| entry.pairs().iter().map(move |pair| (entry, pair)));
        let broken: HashSet<*const Promise> =
            pairs.flat_map(|(entry, pair)| entry.breaks(pair, &promises)).map(std::ptr::from_ref).collect();
        let known = by_name(&before.entries);
        let is_kept = |pledge: &&Pledge| {
            // A new site waits: another one may have had its names.
            let site = known.get(pledge.promise.site.as_str());
            site.is_some_and(|entry| entry.plan.lack.is_none())
                && !broken.contains(&std::ptr::from_ref(&pledge.promise))
        };
        self.pledges.iter().filter(is_kept).map(|pledge| Arc::as_ptr(&pledge.lease)).collect()
    }

    /// The pairs that it serves and another configuration does not; and all that break promises, which other nodes may
    /// have made since.
    #[must_use]
    pub fn fresh_pairs(&self, beside: Option<&Self>, book: &Book, now: Seconds) -> Fresh {
        let before = beside.iter().flat_map(|config| &config.entries).flat_map(|entry| entry.pairs());
        let known: HashSet<_, foldhash::fast::RandomState> =
            before.map(|l| (Arc::as_ptr(&l.chain), l.path.as_path())).collect();
        let promises = Promises::alive(book.promises(), now);
        let pairs = self.entries.iter().flat_map(|entry| entry.pairs().iter().map(move |l| (entry, l)));
        let mut fresh: Vec<Pair> = Vec::new();
        // Sites may share a chain, and its copy.
        let mut places = HashMap::new();
        for (entry, l) in pairs {
            let breaks = entry.breaks(l, &promises);
            if breaks.is_empty() && known.contains(&(Arc::as_ptr(&l.chain), l.path.as_path())) {
                continue;
            }
            let breaches = Breaches::of(entry.names(), breaks);
            match places.entry((l.path.as_path(), l.chain.pin())) {
                Vacant(place) => {
                    place.insert(fresh.len());
                    fresh.push(l.clone().into_pair(breaches));
                }
                Occupied(place) => fresh[*place.get()].breaches.add(breaches),
            }
        }
        Fresh(fresh)
    }
}
