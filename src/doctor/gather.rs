//! The facts of the running host, collected for the checks.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::counters::KernelCounters;
use super::files::HostFiles;
use super::host::{Host, HostDemands, RunningProcess, ServerAnswer, Visited};
use super::neighbour_history::History;
use super::netlink::{self, NeighbourChanges};
use super::network::{Mac, Network};
use super::{dns, neighbours, programs, visit};

/// The least time between two readings of the counters.
const WATCH: Duration = Duration::from_secs(1);
/// The most addresses whose routes are asked for.
const ROUTES_MAX: usize = 256;

/// The most next hops that are asked.
const ASKED_MAX: usize = 4;

/// The part of the host that outlasts a round.
#[derive(Debug)]
pub struct HostWatch {
    files: HostFiles,
    history: History,
    /// The counters at the beginning of the last round.
    counters: Option<KernelCounters>,
}

impl HostWatch {
    /// A watch on the files of a host.
    #[must_use]
    pub fn new(files: HostFiles) -> Self {
        Self { files, history: History::default(), counters: None }
    }

    /// Collects the facts of one round.
    #[must_use]
    pub fn round(&mut self, wanted: HostDemands, running: Option<RunningProcess>) -> Host {
        let files = self.files.clone();
        let is_root = rustix::process::geteuid().is_root();
        let before = self.counters.take().unwrap_or_else(|| KernelCounters::read(&files));
        let start = Instant::now();
        let (visited, servers) = self.while_watching(|| {
            let visited = visit::all(&wanted.upstreams);
            let servers = ask_servers(&wanted, &files);
            std::thread::sleep(WATCH.saturating_sub(start.elapsed()));
            (visited, servers)
        });
        let mut addresses: Vec<IpAddr> = visited
            .iter()
            .flat_map(|of| &of.visits)
            .filter_map(|visit| Some(visit.address?.ip()))
            .chain(wanted.name_servers.iter().map(|server| server.ip()))
            .take(ROUTES_MAX)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let network: Result<Network, String> = netlink::network(&addresses).map_err(|error| error.to_string());
        for neighbour in network.iter().flat_map(|network| &network.neighbours) {
            self.history.note(neighbour);
        }
        let answering = if is_root { ask_next_hops(&network, &visited) } else { Vec::new() };
        let after = KernelCounters::read(&files);
        self.counters = Some(after.clone());
        Host {
            now: Timestamp::now().as_second(),
            network,
            history: self.history.clone(),
            answering,
            visited,
            servers,
            synchronised: if files.are_real() { programs::synchronised() } else { None },
            forward: programs::forward_policy(is_root),
            wanted,
            running,
            before,
            after,
            sockets: OnceCell::new(),
            files,
        }
    }

    /// Runs a function, and notes the changes of neighbours meanwhile.
    fn while_watching<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let history = &mut self.history;
        if let Ok(network) = netlink::network(&[]) {
            network.neighbours.iter().for_each(|neighbour| history.note(neighbour));
        }
        let Ok(changes) = NeighbourChanges::subscribe() else { return act() };
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    changes.until(Instant::now() + Duration::from_millis(100), |n| history.note(&n));
                }
            });
            let result = act();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let _ = watching.join();
            result
        })
    }
}

/// Asks for the hardware addresses of next hops through which nothing comes back.
fn ask_next_hops(network: &Result<Network, String>, visited: &[Visited]) -> Vec<(IpAddr, String, Mac)> {
    let mut answering = Vec::new();
    for route in network.iter().flat_map(|network| &network.routes) {
        let visits = visited.iter().flat_map(|of| &of.visits);
        let through = visits.filter(|visit| visit.address.is_some_and(|address| address.ip() == route.to));
        let (next_hop, link) = (route.next_hop(), &route.link);
        let is_asked = answering.iter().any(|(at, on, _)| (at, on) == (&next_hop, link));
        if answering.len() < ASKED_MAX && !is_asked && next_hop.is_ipv4() && neighbours::is_silent(through) {
            answering.extend(programs::answering(link, next_hop).map(|mac| (next_hop, link.clone(), mac)));
        }
    }
    answering
}

/// Asks the name servers for the names of the upstreams.
fn ask_servers(wanted: &HostDemands, files: &HostFiles) -> Vec<ServerAnswer> {
    let names = wanted.upstreams.iter().map(|upstream| upstream.host.clone());
    let mut names: Vec<String> = names.filter(|host| host.contains('.') && host.parse::<IpAddr>().is_err()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Vec::new();
    }
    let servers = if wanted.name_servers.is_empty() { dns::of_system(files) } else { wanted.name_servers.clone() };
    dns::ask(&servers, &names)
}
