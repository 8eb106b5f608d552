//! The addresses of upstream names. The control thread looks them up, again whenever their TTL
//! ends, and keeps the last ones while DNS fails.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The shortest time between two lookups of a name, whatever its TTL.
const TTL_FLOOR: Duration = Duration::from_secs(1);
/// The longest time between two lookups of a name, whatever its TTL.
const TTL_CEILING: Duration = Duration::from_secs(3600);
/// The TTL of addresses that have none: from /etc/hosts, or through the C library.
const TTL_UNKNOWN: Duration = Duration::from_secs(30);
/// The longest time between two attempts after failures. It begins with one second, and doubles
/// with each failure.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The time that addresses of one family wait for those of the other (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// The most addresses of one name.
const ADDRESSES_MAX: usize = 32;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// The state of a name.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The addresses of the last successful lookup.
    pub addresses: Arc<[SocketAddr]>,
    /// The error of the last lookup, if it failed. The addresses are then from an earlier one.
    pub error: Option<Arc<str>>,
}

/// The source of an upstream's addresses.
#[derive(Debug, Clone)]
pub enum Addresses {
    /// Addresses in the configuration.
    Fixed(Arc<[SocketAddr]>),
    /// A name that [`follow`] looks up.
    Followed {
        /// The newest state.
        state: watch::Receiver<Resolution>,
        /// Asks for a lookup now, because a request needs an address and there is none.
        nudge: Arc<Notify>,
    },
}

impl Addresses {
    /// Returns `true` if there is more than one address.
    #[must_use]
    pub fn are_several(&self) -> bool {
        match self {
            Self::Fixed(addresses) => addresses.len() > 1,
            Self::Followed { state, .. } => state.borrow().addresses.len() > 1,
        }
    }

    /// Returns the addresses that are known at present.
    #[must_use]
    pub fn known(&self) -> Arc<[SocketAddr]> {
        match self {
            Self::Fixed(addresses) => addresses.clone(),
            Self::Followed { state, .. } => state.borrow().addresses.clone(),
        }
    }
}

/// A name to look up, for [`follow`] on the control thread.
#[derive(Debug)]
pub struct UpstreamName {
    host: String,
    port: u16,
    state: watch::Sender<Resolution>,
    nudge: Arc<Notify>,
}

impl UpstreamName {
    /// Makes a name, and the handle through which its addresses are read.
    #[must_use]
    pub fn new(host: &str, port: u16) -> (Self, Addresses) {
        let (sender, state) = watch::channel(Resolution::default());
        let nudge = Arc::new(Notify::new());
        let name = Self { host: host.to_owned(), port, state: sender, nudge: nudge.clone() };
        (name, Addresses::Followed { state, nudge })
    }
}

/// The name servers to ask. If empty, those of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameServers(pub Vec<SocketAddr>);

/// Looks a name up, again and again, for as long as its addresses are in use.
pub async fn follow(name: UpstreamName, resolver: Rc<Resolver>) {
    let mut failures = 0u32;
    loop {
        let wait = match resolver.look_up(&name).await {
            Ok(ttl) => {
                failures = 0;
                ttl.clamp(TTL_FLOOR, TTL_CEILING)
            }
            Err(why) => {
                failures += 1;
                report_failure(&name, &why, failures);
                RETRY_MAX.min(Duration::from_secs(1 << failures.min(6).saturating_sub(1)))
            }
        };
        // A nudge does not shorten the wait below the floor: each request would look up a dead
        // name.
        tokio::time::sleep(TTL_FLOOR).await;
        tokio::select! {
            () = tokio::time::sleep(wait.saturating_sub(TTL_FLOOR)) => {}
            () = name.nudge.notified(), if failures > 0 => {}
            () = name.state.closed() => return,
        }
    }
}

fn publish(name: &UpstreamName, found: &[IpAddr]) {
    let addresses: Arc<[SocketAddr]> =
        found.iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(*ip, name.port)).collect();
    name.state.send_if_modified(|state| {
        let changed = state.error.is_some() || !same_set(&state.addresses, &addresses);
        if changed {
            if state.error.take().is_some() {
                tracing::info!(name = name.host, "name resolves again");
            }
            if !state.addresses.is_empty() {
                tracing::info!(name = name.host, addresses = ?addresses, "upstream addresses changed");
            }
            state.addresses = addresses;
        }
        changed
    });
}

/// Compares addresses without regard to their order, which DNS servers rotate.
fn same_set(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}

fn report_failure(name: &UpstreamName, why: &str, failures: u32) {
    name.state.send_if_modified(|state| {
        let kept = state.addresses.len();
        if failures == 1 {
            tracing::warn!(name = name.host, error = why, kept, "name does not resolve");
        }
        state.error = Some(why.into());
        failures == 1
    });
}

/// A DNS resolver with the system's configuration, or with name servers of its own. It is rebuilt
/// when the system's configuration changes.
pub struct Resolver {
    servers: NameServers,
    current: RefCell<Current>,
}

#[derive(Default)]
struct Current {
    made_from: [Option<SystemTime>; 2],
    resolvers: Option<Families>,
}

/// A resolver for each address family, since their answers arrive separately.
#[derive(Clone)]
struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

/// The outcome of a lookup for one family.
enum FamilyLookup {
    /// At least one address, and the TTL.
    Found(Vec<IpAddr>, Duration),
    /// The name has no addresses of this family.
    Nothing(String),
    /// No answer, or an error.
    Failed(String),
}

impl Resolver {
    /// Makes a resolver for these name servers; for those of the system, if there are none.
    #[must_use]
    pub fn new(servers: NameServers) -> Self {
        Self { servers, current: RefCell::default() }
    }

    /// Looks a name up once, and returns its addresses; an address is its own.
    ///
    /// # Errors
    ///
    /// The reason, if it has no addresses.
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (name, addresses) = UpstreamName::new(host, port);
        self.look_up(&name).await?;
        Ok(addresses.known().to_vec())
    }

    /// Looks a name up, publishes the addresses, and returns their TTL.
    ///
    /// If DNS fails, asks the C library, which also follows nsswitch.conf.
    async fn look_up(&self, name: &UpstreamName) -> Result<Duration, String> {
        let why = match self.current() {
            Some(resolvers) => match look_up_both(resolvers, name).await {
                Ok(ttl) => return Ok(ttl),
                Err(why) => why,
            },
            None => "no name server".to_owned(),
        };
        if !self.servers.0.is_empty() {
            return Err(why);
        }
        match tokio::net::lookup_host((name.host.as_str(), 0)).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.map(|a| a.ip()).collect();
                if addresses.is_empty() {
                    return Err(why);
                }
                publish(name, &addresses);
                Ok(TTL_UNKNOWN)
            }
            Err(_) => Err(why),
        }
    }

    fn current(&self) -> Option<Families> {
        let changed = |path| fs::metadata(path).and_then(|m| m.modified()).ok();
        let made_from = [changed(RESOLV_CONF), changed(HOSTS)];
        let mut current = self.current.borrow_mut();
        if current.resolvers.is_none() || made_from != current.made_from {
            let build = |strategy| self.build(strategy);
            let built = build(LookupIpStrategy::Ipv4Only).zip(build(LookupIpStrategy::Ipv6Only));
            // Falls back to the previous resolvers: pintle may lack permission to read a file that
            // replaced another.
            let resolvers = built.map(|(v4, v6)| Families { v4, v6 }).or_else(|| current.resolvers.take());
            *current = Current { made_from, resolvers };
        }
        current.resolvers.clone()
    }

    fn build(&self, strategy: LookupIpStrategy) -> Option<TokioResolver> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if self.servers.0.is_empty() {
            TokioResolver::builder(provider).ok()?
        } else {
            let servers = self.servers.0.iter().map(name_server).collect();
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers), provider)
        };
        configure(builder.options_mut(), strategy);
        builder.build().ok()
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// Looks up the addresses of both families at once.
///
/// The first answer is published after [`RESOLUTION_DELAY`], even if the other has not come: some
/// name servers never answer for one family. The known addresses of a family stay while its lookup
/// is under way, and if it fails.
async fn look_up_both(resolvers: Families, name: &UpstreamName) -> Result<Duration, String> {
    let mut v4 = pin!(look_up_one(&resolvers.v4, &name.host));
    let mut v6 = pin!(look_up_one(&resolvers.v6, &name.host));
    let (mut four, mut six): (Option<FamilyLookup>, Option<FamilyLookup>) = (None, None);
    let mut publish_at: Option<Instant> = None;
    while four.is_none() || six.is_none() {
        tokio::select! {
            answer = &mut v4, if four.is_none() => four = Some(answer),
            answer = &mut v6, if six.is_none() => six = Some(answer),
            () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => {
                publish_both(name, four.as_ref(), six.as_ref());
                publish_at = None;
                // Nothing else remains but to wait for the missing answer.
                match (&four, &six) {
                    (None, _) => four = Some((&mut v4).await),
                    _ => six = Some((&mut v6).await),
                }
            }
        }
        let found = [&four, &six].into_iter().any(|answer| matches!(answer, Some(FamilyLookup::Found(..))));
        if found && publish_at.is_none() {
            publish_at = Some(Instant::now() + RESOLUTION_DELAY);
        }
    }
    match (&four, &six) {
        (Some(FamilyLookup::Found(_, a)), Some(FamilyLookup::Found(_, b))) => {
            publish_both(name, four.as_ref(), six.as_ref());
            Ok(*a.min(b))
        }
        (Some(FamilyLookup::Found(_, ttl)), _) | (_, Some(FamilyLookup::Found(_, ttl))) => {
            publish_both(name, four.as_ref(), six.as_ref());
            Ok(*ttl)
        }
        (Some(FamilyLookup::Failed(why)), _) | (_, Some(FamilyLookup::Failed(why))) => Err(why.clone()),
        (Some(FamilyLookup::Nothing(why)), _) => Err(why.clone()),
        (None, _) => Err("no answer".into()),
    }
}

/// Publishes the addresses of both families. A family without an answer, or with an error, keeps
/// its known addresses.
fn publish_both(name: &UpstreamName, four: Option<&FamilyLookup>, six: Option<&FamilyLookup>) {
    let known = name.state.borrow().addresses.clone();
    let known_of = |is_v4: bool| known.iter().map(SocketAddr::ip).filter(move |ip| ip.is_ipv4() == is_v4);
    let of = |answer: Option<&FamilyLookup>, is_v4: bool| -> Vec<IpAddr> {
        match answer {
            Some(FamilyLookup::Found(addresses, _)) => addresses.clone(),
            Some(FamilyLookup::Nothing(_)) => Vec::new(),
            Some(FamilyLookup::Failed(_)) | None => known_of(is_v4).collect(),
        }
    };
    let mut all = of(four, true);
    for address in of(six, false) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    publish(name, &all);
}

async fn look_up_one(resolver: &TokioResolver, host: &str) -> FamilyLookup {
    match resolver.lookup_ip(host).await {
        Ok(found) => {
            let ttl = Instant::from_std(found.valid_until()).saturating_duration_since(Instant::now());
            // Entries of /etc/hosts have the largest possible TTL.
            let ttl = if ttl > Duration::from_secs(12 * 3600) { TTL_UNKNOWN } else { ttl };
            let addresses: Vec<IpAddr> = found.iter().collect();
            if addresses.is_empty() {
                FamilyLookup::Nothing("no address".into())
            } else {
                FamilyLookup::Found(addresses, ttl)
            }
        }
        Err(error) if error.is_no_records_found() => FamilyLookup::Nothing(words(&error)),
        Err(error) => FamilyLookup::Failed(words(&error)),
    }
}

/// The words for name servers that are silent.
pub const NO_ANSWER: &str = "no name server answered in time";

/// Describes why a lookup has no answer.
#[must_use]
pub fn words(error: &NetError) -> String {
    match error {
        NetError::Timeout => NO_ANSWER.to_owned(),
        NetError::NoConnections => "no name server answers".to_owned(),
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "the name does not exist".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "the name has no address".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => {
            format!("the name server answers {}", format!("{code:?}").to_ascii_uppercase())
        }
        other => other.to_string(),
    }
}

fn configure(options: &mut ResolverOpts, strategy: LookupIpStrategy) {
    options.ip_strategy = strategy;
    // As in the C library: some servers refuse queries with EDNS, or never answer them. Answers
    // that are too long without EDNS come over TCP.
    options.edns0 = false;
    options.use_hosts_file = ResolveHosts::Always;
    // `follow` keeps the answers for their TTL.
    options.cache_size = 0;
    options.timeout = options.timeout.min(Duration::from_secs(3));
}
