//! The addresses of upstream names: looked up on the control thread, followed by their TTL, and kept when DNS fails.

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
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// A name is not asked for more often than this, whatever its TTL.
const TTL_FLOOR: Duration = Duration::from_secs(1);
/// A name is asked for at least this often, whatever its TTL.
const TTL_CEILING: Duration = Duration::from_secs(3600);
/// For addresses that come without a TTL: from /etc/hosts, or by way of the C library.
const TTL_UNKNOWN: Duration = Duration::from_secs(30);
/// After a failure, the next try comes after one second, then after twice as long each time, up to this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long addresses of one family wait for those of the other (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Addresses of one name.
const ADDRESSES_MAX: usize = 32;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// What is known of a name.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The addresses of the last lookup that gave any.
    pub addresses: Arc<[SocketAddr]>,
    /// Why the last lookup failed. With addresses: they are those of before.
    pub error: Option<Arc<str>>,
}

/// Where an upstream's addresses come from.
#[derive(Debug, Clone)]
pub enum Addresses {
    /// The configuration gives an address.
    Fixed(Arc<[SocketAddr]>),
    /// A name, followed by [`follow`].
    Followed {
        /// The newest state.
        state: watch::Receiver<Resolution>,
        /// Asks for a lookup now, because somebody needs an address and there is none.
        nudge: Arc<Notify>,
    },
}

impl Addresses {
    /// Whether there is a choice.
    #[must_use]
    pub fn are_several(&self) -> bool {
        match self {
            Self::Fixed(addresses) => addresses.len() > 1,
            Self::Followed { state, .. } => state.borrow().addresses.len() > 1,
        }
    }

    /// Those that are known now.
    #[must_use]
    pub fn known(&self) -> Arc<[SocketAddr]> {
        match self {
            Self::Fixed(addresses) => addresses.clone(),
            Self::Followed { state, .. } => state.borrow().addresses.clone(),
        }
    }
}

/// A name to be followed: give it to [`follow`] on the control thread.
#[derive(Debug)]
pub struct Name {
    host: String,
    port: u16,
    state: watch::Sender<Resolution>,
    nudge: Arc<Notify>,
}

impl Name {
    /// A name, and where its addresses will be found.
    #[must_use]
    pub fn new(host: &str, port: u16) -> (Self, Addresses) {
        let (sender, state) = watch::channel(Resolution::default());
        let nudge = Arc::new(Notify::new());
        let name = Self { host: host.to_owned(), port, state: sender, nudge: nudge.clone() };
        (name, Addresses::Followed { state, nudge })
    }
}

/// Which name servers to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameServers(pub Vec<SocketAddr>);

/// Follows a name for as long as somebody wants its addresses.
pub async fn follow(name: Name, resolver: Rc<Resolver>) {
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
        // A nudge cannot make the wait shorter than the floor, or a dead name would be asked for at every request.
        tokio::time::sleep(TTL_FLOOR).await;
        tokio::select! {
            () = tokio::time::sleep(wait.saturating_sub(TTL_FLOOR)) => {}
            () = name.nudge.notified(), if failures > 0 => {}
            () = name.state.closed() => return,
        }
    }
}

fn publish(name: &Name, found: &[IpAddr]) {
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

/// DNS servers turn the order of addresses; that is no change.
fn same_set(a: &[SocketAddr], b: &[SocketAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}

fn report_failure(name: &Name, why: &str, failures: u32) {
    name.state.send_if_modified(|state| {
        let kept = state.addresses.len();
        if failures == 1 {
            tracing::warn!(name = name.host, error = why, kept, "name does not resolve, last good addresses are kept");
        }
        state.error = Some(why.into());
        failures == 1
    });
}

/// The system's resolver, or one of our own; made anew when the system's configuration changes.
pub struct Resolver {
    servers: NameServers,
    current: RefCell<Current>,
}

#[derive(Default)]
struct Current {
    made_from: [Option<SystemTime>; 2],
    resolvers: Option<Families>,
}

/// A resolver for each family, as each answer is waited for by itself.
#[derive(Clone)]
struct Families {
    v4: TokioResolver,
    v6: TokioResolver,
}

/// What was asked for one family.
enum Answer {
    /// Addresses, at least one, and how long they are good for.
    Found(Vec<IpAddr>, Duration),
    /// There are none.
    Nothing(String),
    /// Nobody knows.
    Failed(String),
}

impl Resolver {
    /// A resolver that asks these servers; the system's, if there are none.
    #[must_use]
    pub fn new(servers: NameServers) -> Self {
        Self { servers, current: RefCell::default() }
    }

    /// Looks a name up, and publishes what is found; gives how long that is good for. First by DNS; where that fails, by the C
    /// library, which also knows what nsswitch.conf says.
    async fn look_up(&self, name: &Name) -> Result<Duration, String> {
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
            // What was known before is better than nothing: a file that was put in the old one's place may be out of reach.
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

/// Asks for the addresses of both families at once. Those that come first are published after a moment, whether the others
/// come or not: a name server may never answer a question for the others. What was known of a family stays while it is asked
/// for, and when that fails.
async fn look_up_both(resolvers: Families, name: &Name) -> Result<Duration, String> {
    let mut v4 = pin!(ask(&resolvers.v4, &name.host));
    let mut v6 = pin!(ask(&resolvers.v6, &name.host));
    let (mut four, mut six): (Option<Answer>, Option<Answer>) = (None, None);
    let mut publish_at: Option<Instant> = None;
    while four.is_none() || six.is_none() {
        tokio::select! {
            answer = &mut v4, if four.is_none() => four = Some(answer),
            answer = &mut v6, if six.is_none() => six = Some(answer),
            () = sleep_until(publish_at.unwrap_or_else(Instant::now)), if publish_at.is_some() => {
                publish_both(name, four.as_ref(), six.as_ref());
                publish_at = None;
                // The answer that is missing is the last thing to wait for.
                match (&four, &six) {
                    (None, _) => four = Some((&mut v4).await),
                    _ => six = Some((&mut v6).await),
                }
            }
        }
        let found = [&four, &six].into_iter().any(|answer| matches!(answer, Some(Answer::Found(..))));
        if found && publish_at.is_none() {
            publish_at = Some(Instant::now() + RESOLUTION_DELAY);
        }
    }
    match (&four, &six) {
        (Some(Answer::Found(_, a)), Some(Answer::Found(_, b))) => {
            publish_both(name, four.as_ref(), six.as_ref());
            Ok(*a.min(b))
        }
        (Some(Answer::Found(_, ttl)), _) | (_, Some(Answer::Found(_, ttl))) => {
            publish_both(name, four.as_ref(), six.as_ref());
            Ok(*ttl)
        }
        (Some(Answer::Failed(why)), _) | (_, Some(Answer::Failed(why))) => Err(why.clone()),
        (Some(Answer::Nothing(why)), _) => Err(why.clone()),
        (None, _) => Err("no answer".into()),
    }
}

/// Publishes what was found of both families, with what was known of one that is not answered, or not in order.
fn publish_both(name: &Name, four: Option<&Answer>, six: Option<&Answer>) {
    let known = name.state.borrow().addresses.clone();
    let known_of = |is_v4: bool| known.iter().map(SocketAddr::ip).filter(move |ip| ip.is_ipv4() == is_v4);
    let of = |answer: Option<&Answer>, is_v4: bool| -> Vec<IpAddr> {
        match answer {
            Some(Answer::Found(addresses, _)) => addresses.clone(),
            Some(Answer::Nothing(_)) => Vec::new(),
            Some(Answer::Failed(_)) | None => known_of(is_v4).collect(),
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

async fn ask(resolver: &TokioResolver, host: &str) -> Answer {
    match resolver.lookup_ip(host).await {
        Ok(found) => {
            let ttl = Instant::from_std(found.valid_until()).saturating_duration_since(Instant::now());
            // Entries of /etc/hosts come with the largest TTL there is.
            let ttl = if ttl > Duration::from_secs(12 * 3600) { TTL_UNKNOWN } else { ttl };
            let addresses: Vec<IpAddr> = found.iter().collect();
            if addresses.is_empty() { Answer::Nothing("no address".into()) } else { Answer::Found(addresses, ttl) }
        }
        Err(error) if error.is_no_records_found() => Answer::Nothing(error.to_string()),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn configure(options: &mut ResolverOpts, strategy: LookupIpStrategy) {
    options.ip_strategy = strategy;
    // As the C library does: some servers refuse a question with EDNS, and some never answer it. What is too long without
    // it is asked for again by TCP.
    options.edns0 = false;
    options.use_hosts_file = ResolveHosts::Always;
    // We keep the answers ourselves, for as long as they are good.
    options.cache_size = 0;
    options.timeout = options.timeout.min(Duration::from_secs(3));
}
