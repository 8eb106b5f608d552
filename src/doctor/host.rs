//! A host as the checks see it: files, and answers that were collected before.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::counters::KernelCounters;
use super::files::HostFiles;
use super::neighbour_history::History;
use super::network::{Mac, Network};
use super::sockets::{self, Socket};
use crate::host::bracketed;

/// The demands of the configuration on its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDemands {
    /// The upstreams, each address and name once.
    pub upstreams: Vec<WantedUpstream>,
    /// The addresses of the listeners.
    pub listen: Vec<SocketAddr>,
    /// `limits.connections`.
    pub connections: u64,
    /// Files that the process needs to have open at the same time.
    pub open_files: u64,
    /// The name servers of the configuration; empty for those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// The files of private keys.
    pub key_files: Vec<String>,
}

/// An upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedUpstream {
    /// The first name of its site.
    pub site: String,
    /// The name or address that pintle connects to.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name in SNI; `None` for plain HTTP.
    pub tls: Option<String>,
    /// The Host field.
    pub host_header: String,
}

impl WantedUpstream {
    /// Returns `HOST:PORT`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}

/// The time that each step of a visit took; `None` if the visit did not get there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The DNS lookup.
    pub dns: Option<Duration>,
    /// The TCP handshake.
    pub tcp: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the request to the first byte of the response.
    pub first_byte: Option<Duration>,
}

/// A step of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisitStep {
    /// The DNS lookup.
    Dns,
    /// The TCP handshake.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// The response.
    Http,
}

/// The failure of a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The step that failed.
    pub step: VisitStep,
    /// The error.
    pub why: String,
    /// `true` if nothing came within the time limit.
    pub timed_out: bool,
    /// `true` if this host has no way to such addresses.
    pub no_route: bool,
}

/// A visit to one address of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamVisit {
    /// The address; `None` if the name has none.
    pub address: Option<SocketAddr>,
    /// The times.
    pub times: Times,
    /// The failure, if it failed.
    pub failed: Option<Failed>,
    /// The validity of the server's certificate, in seconds since 1970.
    pub validity: Option<(i64, i64)>,
    /// Seconds by which this host's clock is ahead of the Date field.
    pub clock_ahead: Option<i64>,
    /// The path MTU that the kernel knows.
    pub mtu: Option<u32>,
    /// `true` if a small request was answered, and a large one stalled.
    pub large_stalls: bool,
}

/// The visits to an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visited {
    /// The upstream.
    pub upstream: WantedUpstream,
    /// A visit for each address.
    pub visits: Vec<UpstreamVisit>,
}

/// An answer of a name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The server.
    pub server: SocketAddr,
    /// The name that was asked for.
    pub name: String,
    /// The result.
    pub result: Result<Duration, String>,
}

/// The policy for forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Packets that no rule matches are forwarded.
    Accept,
    /// Packets that no rule matches are dropped.
    Drop,
    /// The policy cannot be read without this permission or program.
    Unknown(String),
}

/// The running pintle, as its status describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningProcess {
    /// The process.
    pub pid: u32,
    /// Requests that failed at an upstream.
    pub upstream_errors: u64,
    /// Its checks of the way that a CA takes to it, one for each certificate that it obtains.
    pub outside: Vec<OutsideView>,
}

/// The result of the last check of the way from a CA to a site: its DNS records, and ports 80 and 443.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutsideView {
    /// The first name of the site.
    pub site: String,
    /// The time of the check.
    pub at: String,
    /// The result.
    pub verdict: OutsideVerdict,
    /// The result in words, one fact each.
    pub facts: Vec<String>,
    /// The remedies in words.
    pub hints: Vec<String>,
}

/// The result of a check from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutsideVerdict {
    /// The CA reaches pintle.
    Fine,
    /// Nobody can say from here.
    #[default]
    Unknown,
    /// The CA does not reach pintle, or may not issue.
    Broken,
}

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its files.
    pub files: HostFiles,
    /// The time, in seconds since 1970.
    pub now: i64,
    /// Neighbours and routes.
    pub network: Result<Network, String>,
    /// The changes of neighbours.
    pub history: History,
    /// The hardware addresses that answer now for doubtful next hops: address, link, answer.
    pub answering: Vec<(IpAddr, String, Mac)>,
    /// The demands of the configuration.
    pub wanted: HostDemands,
    /// The visits to the upstreams.
    pub visited: Vec<Visited>,
    /// The answers of the name servers.
    pub servers: Vec<ServerAnswer>,
    /// `Some(false)` if the kernel's clock is not synchronised.
    pub synchronised: Option<bool>,
    /// The policy for forwarded packets.
    pub forward: Forward,
    /// The running pintle.
    pub running: Option<RunningProcess>,
    /// The counters at the beginning.
    pub before: KernelCounters,
    /// The counters at the end.
    pub after: KernelCounters,
    /// The TCP sockets, once a check has asked for them.
    pub(super) sockets: OnceCell<Option<Vec<Socket>>>,
}

impl Host {
    /// A host of which only the files are known.
    #[must_use]
    pub fn of_files(files: HostFiles) -> Self {
        Self {
            files,
            now: 0,
            network: Ok(Network::default()),
            history: History::default(),
            answering: Vec::new(),
            wanted: HostDemands::default(),
            visited: Vec::new(),
            servers: Vec::new(),
            synchronised: None,
            forward: Forward::Unknown("root".to_owned()),
            running: None,
            before: KernelCounters::default(),
            after: KernelCounters::default(),
            sockets: OnceCell::new(),
        }
    }

    /// Returns the TCP sockets, which are read at the first call. `None` if the kernel's tables cannot be read.
    #[must_use]
    pub fn sockets(&self) -> Option<&[Socket]> {
        self.sockets.get_or_init(|| sockets::read(&self.files)).as_deref()
    }

    /// Returns all visits, with their upstreams.
    pub fn visits(&self) -> impl Iterator<Item = (&WantedUpstream, &UpstreamVisit)> {
        self.visited.iter().flat_map(|of| of.visits.iter().map(move |visit| (&of.upstream, visit)))
    }

    /// Returns the visits to an address.
    pub fn visits_at(&self, address: IpAddr) -> impl Iterator<Item = (&WantedUpstream, &UpstreamVisit)> {
        self.visits().filter(move |(_, visit)| visit.address.is_some_and(|at| at.ip() == address))
    }

    /// Returns the rise of a counter while pintle watched.
    #[must_use]
    pub fn rise(&self, name: &str) -> u64 {
        self.after.rise(&self.before, name)
    }

    /// Returns the rise of a counter as evidence. `None` if it did not rise.
    #[must_use]
    pub fn rose(&self, name: &str) -> Option<String> {
        let rise = self.rise(name);
        (rise > 0).then(|| format!("{name} rose by {rise} while pintle watched"))
    }
}
