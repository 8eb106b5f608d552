//! A configuration that can be served.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{SiteEntry, by_name};
use super::needed_copies::{NeededCopies, fresh_replacing, replacing};
use super::noted_promises::NotedPromises;
use super::report::{self, DaysInUse};
use super::upstream::Upstreams;
use crate::cache::disk::DiskService;
use crate::config::acme::Acme;
use crate::config::admin::AdminAccess;
use crate::config::admin_https::AdminHttps;
use crate::config::draft::AdminAddress;
use crate::config::last_good::{Fresh, LastGood, Pair, ServedPair};
use crate::config::process::Process;
use crate::config::stamp::{Stamp, Stamps};
use crate::events::{Hook, HookLimits};
use crate::graphite;
use crate::handover::HandedCopy;
use crate::lease::Lease;
use crate::ledger::leases::Pledge;
use crate::ledger::{Accepted, Book, Ramp, set_id};
use crate::os::sandbox;
use crate::policy::promise::{Promise, Promises, Seconds, SiteNames};
use crate::reason::Problem;
use crate::server::Snapshot;
use crate::telemetry::trace::CollectorSettings;
use crate::telemetry::{AccessFormat, SyslogPlace};
use crate::tls::Tickets;
use crate::upstream::dns::{NameServers, UpstreamName};

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
    pub names: Vec<UpstreamName>,
    /// The name servers.
    pub name_servers: NameServers,
    /// The target of the access log.
    pub access: AccessTarget,
    /// Its format, if the file names one.
    pub access_format: Option<AccessFormat>,
    /// The number of recent records that can be asked for.
    pub recent: usize,
    /// The folder of the state, if there is one.
    pub state: Option<PathBuf>,
    /// The threads for stored pages on disk, if there is a folder for them.
    pub disk: Option<Arc<DiskService>>,
    /// The address of the admin socket, if there is one.
    pub admin: Option<AdminAddress>,
    /// The readers of the pages.
    pub admin_access: Arc<AdminAccess>,
    /// The pages over TLS, if they are wanted.
    pub admin_https: Option<Arc<AdminHttps>>,
    /// The user that serves.
    pub process: Process,
    /// `true` if a key process has the keys.
    pub key_process: bool,
    /// The settings of the sandbox.
    pub sandbox: sandbox::SandboxSettings,
    /// The certificates that pintle obtains, if there are any.
    pub acme: Option<Arc<Acme>>,
    /// The hooks for events.
    pub hooks: Vec<Hook>,
    /// The receiver of metrics, if there is one.
    pub graphite: Option<graphite::GraphiteSettings>,
    /// The collector of traces, if there is one.
    pub traces: Option<CollectorSettings>,
    /// The promises of the pin headers, site by site. They have to be in the ledger before pintle sends them.
    pub pledges: Vec<Pledge>,
    /// Lockouts that the operator has just accepted. They have to be in the ledger before they happen.
    pub accepted: Vec<Accepted>,
    /// Ramps that begin.
    pub ramps: Vec<Ramp>,
    /// Sites that keep what they have, or a part of it.
    pub kept: Vec<KeptSite>,
    /// Warnings about files that have changed, each with its site.
    pub news: Vec<(String, Problem)>,
    pub(in crate::config) entries: Vec<Arc<SiteEntry>>,
    pub(super) upstreams: Upstreams,
    pub(super) tickets: Arc<Tickets>,
}

/// A site whose files are unfit now.
#[derive(Debug, Clone)]
pub struct KeptSite {
    /// Its index in the file.
    pub index: usize,
    /// Its first name.
    pub site: String,
    /// Its problems, with spans in the draft.
    pub problems: Vec<Problem>,
    /// `true` if a promise would be broken, `false` if only a file is.
    pub by_guard: bool,
    /// The refused certificates, if they could be read.
    pub certificates: Vec<report::CertificateReport>,
    /// `true` if the site has no certificate at all.
    pub lacks: bool,
    /// Names that the refused certificates would lock readers out of, while the site serves all others with them.
    pub apart: Vec<String>,
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
    /// Syslog.
    Syslog(SyslogPlace),
}

impl Config {
    /// The days in `accept_lockout_until`.
    #[must_use]
    pub fn days(&self) -> DaysInUse {
        let days = self
            .entries
            .iter()
            .filter_map(|entry| entry.made_from.accepts_until.clone().map(|day| (entry.site.label(), day)));
        days.collect()
    }

    /// The report of each site.
    pub fn sites(&self) -> impl ExactSizeIterator<Item = &report::SiteReport> {
        self.entries.iter().map(|entry| &entry.report)
    }

    /// The names of one site, by its place in the configuration.
    #[must_use]
    pub fn names_of(&self, index: usize) -> Option<SiteNames<'_>> {
        self.entries.get(index).map(|entry| entry.names())
    }

    /// The sets of pins that this configuration sends and that bind some names, by their ids.
    #[must_use]
    pub fn sent_sets(&self, names: SiteNames<'_>) -> HashSet<String> {
        let sets = self.pledges.iter().map(|pledge| &pledge.promise);
        sets.filter(|promise| names.bound_by(promise)).map(set_id).collect()
    }

    /// The names of each site, by its first name.
    #[must_use]
    pub fn site_names(&self) -> HashMap<&str, SiteNames<'_>> {
        self.entries.iter().map(|entry| (entry.report.name(), entry.names())).collect()
    }

    /// The sites that pintle refuses TLS for, since they have no certificate.
    pub fn without_certificate(&self) -> impl Iterator<Item = (&report::SiteReport, report::CertificateLack)> {
        self.sites().filter_map(|site| Some((site, site.lacks_certificate?)))
    }

    /// The names that pintle refuses TLS for, by the wildcards above them.
    #[must_use]
    pub fn unserved_below(&self) -> HashMap<String, Vec<String>> {
        let mut below: HashMap<String, Vec<String>> = HashMap::new();
        for entry in &self.entries {
            let all = entry.hosts().iter().filter(|_| entry.plan.lack.is_some());
            for name in all.chain(entry.plan.refused_names()) {
                if let Some(above) = name.wildcard_above() {
                    below.entry(above.to_string()).or_default().push(name.to_string());
                }
            }
        }
        below
    }

    /// The limits of hooks.
    #[must_use]
    pub fn hook_limits(&self) -> HookLimits {
        let limits = &self.snapshot.limits;
        HookLimits { queue: limits.hook_queue, time: limits.hook_timeout }
    }

    /// The files of the receivers of events and traces: secrets and roots.
    pub fn files_of_receivers(&self) -> impl Iterator<Item = &Path> {
        super::hooks::files(&self.hooks).chain(self.traces.iter().filter_map(|to| to.ca.as_deref()))
    }

    /// The keys of session tickets.
    #[must_use]
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// All files that the sites, and the pages over TLS, were made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.stamps().map(|(path, _)| path.as_path())
    }

    /// The files of sites that differ from that configuration, and those of the pages.
    pub fn files_beside(&self, before: Option<&Self>) -> impl Iterator<Item = &Path> {
        let plans = before.iter().flat_map(|before| &before.entries).map(|entry| Arc::as_ptr(&entry.plan));
        let known: HashSet<_, foldhash::fast::RandomState> = plans.collect();
        let different = self.entries.iter().filter(move |entry| !known.contains(&Arc::as_ptr(&entry.plan)));
        let pages = self.admin_https.iter().flat_map(|https| &https.stamps);
        different.flat_map(|entry| entry.plan.files()).chain(pages).map(|(path, _)| path.as_path())
    }

    /// The same files, with their stamps.
    pub fn stamps(&self) -> impl Iterator<Item = &(PathBuf, Stamp)> {
        let pages = self.admin_https.iter().flat_map(|https| &https.stamps);
        self.entries.iter().flat_map(|entry| entry.plan.files()).chain(pages)
    }

    /// Returns the sites that continue without their pins, as they did before, with the same text, by their first names.
    #[must_use]
    pub fn going_on_without_pins(&self, before: &Self) -> HashSet<&str> {
        let known = by_name(&before.entries);
        let withheld = |entry: &SiteEntry| entry.made_from.withheld.map(|_| entry.plan.source);
        let goes_on = |entry: &&Arc<SiteEntry>| {
            let before = known.get(entry.report.name()).and_then(|before| withheld(before));
            before.is_some() && withheld(entry) == before
        };
        self.entries.iter().filter(goes_on).map(|entry| entry.report.name()).collect()
    }

    /// The pairs that it serves, and the pairs that serve single names instead.
    pub(in crate::config) fn pairs(&self) -> impl Iterator<Item = ServedPair<'_>> {
        self.entries.iter().flat_map(|entry| {
            let site = entry.report.name();
            let own = entry.pairs().iter().map(move |l| ServedPair { site, chain: &l.path, pin: l.chain.pin() });
            own.chain(replacing(entry))
        })
    }

    /// Also allows copies of its pairs, which are about to be served.
    pub fn allow_copies(&self, copies: &LastGood) {
        copies.allow(self.pairs());
    }

    /// Removes the copies of pairs that it does not serve (`LastGood::retain`). A copy is set aside as long as its pair stands
    /// in for a name, or a promise needs its key for a name without a certificate.
    ///
    /// # Errors
    ///
    /// If a copy may still be there.
    pub fn forget_other_copies(&self, copies: &LastGood, book: &Book, now: Seconds) -> io::Result<()> {
        let needs = OnceCell::new();
        copies.retain(self.pairs(), self.missing_chains(), |hosts, copy| {
            needs.get_or_init(|| NeededCopies::of(&self.entries, book, now)).has(hosts, copy)
        })
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
            site.is_some_and(|entry| entry.plan.lack.is_none() && entry.plan.apart.is_empty())
                && !broken.contains(&std::ptr::from_ref(&pledge.promise))
        };
        self.pledges.iter().filter(is_kept).map(|pledge| Arc::as_ptr(&pledge.lease)).collect()
    }

    /// `true` if one of its pairs breaks one of these promises.
    pub fn breaks_any<'p>(&self, promises: impl Iterator<Item = &'p Promise>) -> bool {
        let promises = Promises::alive(promises, Seconds::MIN);
        let mut pairs = self.entries.iter().flat_map(|entry| entry.pairs().iter().map(move |pair| (entry, pair)));
        pairs.any(|(entry, pair)| !entry.breaks(pair, &promises).is_empty())
    }

    /// The pairs that it serves and that are not in their files any more, with their keys: for the process that takes over.
    #[must_use]
    pub fn pairs_to_hand_over(&self, book: &Book, now: Seconds) -> Vec<HandedCopy> {
        let (promises, unlooked) = (NotedPromises::of(book, now, &self.pledges, &[]), Stamps::default());
        let changed = self.entries.iter().filter(|entry| !entry.plan.is_current(&unlooked));
        let pairs = changed.flat_map(|entry| entry.pairs().iter().map(move |pair| (entry, pair)));
        let handed = pairs.filter_map(|(entry, pair)| {
            let breaches = promises.text(entry, promises.broken_by(entry, pair));
            pair.clone().into_pair(entry.report.name().to_owned(), breaches).to_hand_over()
        });
        handed.collect()
    }

    /// The pairs that it serves and another configuration does not; those whose copies do not note its promises; and all
    /// that break promises, which other nodes may have made since.
    #[must_use]
    pub fn fresh_pairs(&self, beside: Option<&Self>, book: &Book, now: Seconds) -> Fresh {
        let before = beside.iter().flat_map(|config| &config.entries).flat_map(|entry| {
            entry.pairs().iter().map(move |l| ((entry.report.name(), l.path.as_path()), (Arc::as_ptr(&l.chain), entry)))
        });
        let known: HashMap<_, (_, &Arc<SiteEntry>), foldhash::fast::RandomState> = before.collect();
        let promises = NotedPromises::of(book, now, &self.pledges, beside.map_or(&[], |config| &config.pledges));
        // They come first: after that, the other copies may be for fewer names.
        let mut fresh: Vec<Pair> =
            fresh_replacing(&self.entries, beside.map_or(&[], |config| &config.entries), &promises);
        for entry in &self.entries {
            let (site, are_noted) = (entry.report.name(), promises.are_noted(entry.served_names()));
            for (at, l) in entry.pairs().iter().enumerate() {
                let is_known = known.get(&(site, l.path.as_path())).is_some_and(|(chain, before)| {
                    *chain == Arc::as_ptr(&l.chain)
                        && before.plan.served_hosts() == entry.plan.served_hosts()
                        && before.except() == entry.except()
                });
                let breaks = promises.broken_by(entry, l);
                let is_listed = entry.pairs().iter().take(at).any(|other| other.path == l.path);
                if (breaks.is_empty() && is_known && are_noted) || is_listed {
                    continue;
                }
                fresh.push(l.clone().into_pair(site.to_owned(), promises.text(entry, breaks)));
            }
        }
        Fresh(fresh)
    }

    /// The pairs whose names some promises have bound, with those that bind them now.
    #[must_use]
    pub fn pairs_bound_by(&self, over: &[Promise], book: &Book, now: Seconds) -> Fresh {
        let promises = NotedPromises::of(book, now, &self.pledges, &[]);
        let over = Promises::alive(over, Seconds::MIN);
        let is_bound = |names: SiteNames<'_>| !over.binding(names.hosts, names.except).is_empty();
        let mut fresh: Vec<Pair> = fresh_replacing(&self.entries, &[], &promises);
        for entry in self.entries.iter().filter(|entry| is_bound(entry.served_names())) {
            for (at, l) in entry.pairs().iter().enumerate() {
                if !entry.pairs().iter().take(at).any(|other| other.path == l.path) {
                    let text = promises.text(entry, promises.broken_by(entry, l));
                    fresh.push(l.clone().into_pair(entry.report.name().to_owned(), text));
                }
            }
        }
        Fresh(fresh)
    }
}
