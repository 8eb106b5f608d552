//! Listening sockets: one for each address and worker. The kernel spreads the connections among them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::os::words::words;
use crate::policy::Scheme;

/// Connections that may wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bound listeners that no worker has yet.
pub struct Bound {
    listeners: Vec<ListenerGroup>,
    workers: usize,
}

/// The listeners of one address: at least one for each worker.
struct ListenerGroup {
    asked: SocketAddr,
    scheme: Scheme,
    listeners: Vec<TcpListener>,
    /// The number of different sockets among them. The rest are duplicates, if the previous process had fewer workers: a new
    /// socket for the same address would lose its queue if this process failed to start.
    distinct: usize,
}

/// Sockets of one address that the previous process or the service manager has bound.
#[derive(Debug)]
pub struct Lent {
    /// The address in the configuration of the previous process. `None` for sockets of the service manager.
    pub asked: Option<SocketAddr>,
    /// The address that they are bound to.
    pub address: SocketAddr,
    /// The scheme that they are for, if it is known.
    pub scheme: Option<Scheme>,
    /// At least one socket.
    pub listeners: Vec<TcpListener>,
}

/// Sockets that are in use, for a process that takes over.
pub struct SharedSockets {
    /// The address in the configuration.
    pub asked: SocketAddr,
    /// The address that they are bound to.
    pub address: SocketAddr,
    /// The scheme that they are for.
    pub scheme: Scheme,
    /// The sockets.
    pub listeners: Vec<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The scheme that it is for.
    pub scheme: Scheme,
    /// The error.
    pub error: io::Error,
}

impl BindError {
    /// Returns the remedy.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self.error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("another process listens there; `ss -ltnp 'sport = :{}'` names it", self.address.port())
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are bound at the start, as root or with CAP_NET_BIND_SERVICE: restart pintle; for reloads, \
                 process.bind_low_ports = true keeps that, or lower net.ipv4.ip_unprivileged_port_start"
                    .into()
            }
            // Every host with IPv6 has these two.
            io::ErrorKind::AddrNotAvailable
                if self.address.is_ipv4() || !(self.address.ip().is_unspecified() || self.address.ip().is_loopback()) =>
            {
                "no interface of this host has the address: `ip address` lists those that it has".into()
            }
            _ if self.address.is_ipv6() => {
                let key = self.scheme.as_str();
                format!("if this host has no IPv6: {key} = [\"0.0.0.0:{}\"] in [listen]", self.address.port())
            }
            _ => return None,
        })
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, words(&self.error))
    }
}

impl std::error::Error for BindError {}

/// Binds all addresses for this many workers. Takes fitting sockets from `lent` instead, and leaves the others there.
///
/// # Errors
///
/// All addresses that cannot be bound.
pub fn bind(
    https: &[SocketAddr],
    http: &[SocketAddr],
    workers: usize,
    lent: &mut Vec<Lent>,
) -> Result<Bound, Vec<BindError>> {
    let mut bound = Bound { listeners: Vec::new(), workers };
    let mut errors = Vec::new();
    let wanted = https.iter().map(|a| (*a, Scheme::Https)).chain(http.iter().map(|a| (*a, Scheme::Http)));
    for (address, scheme) in wanted {
        let listeners = match take(lent, address, scheme) {
            Some(lent) => Ok(lent.listeners),
            None => bind_one(address, workers),
        };
        match listeners.and_then(|listeners| ListenerGroup::new(address, scheme, listeners, workers)) {
            Ok(group) => bound.listeners.push(group),
            Err(error) => errors.push(BindError { address, scheme, error }),
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

/// Takes the lent sockets that fit best: those with the same configured address, then those bound to the same address. The
/// previous process may have used them for another scheme; a scheme that the service manager names must fit.
fn take(lent: &mut Vec<Lent>, asked: SocketAddr, scheme: Scheme) -> Option<Lent> {
    let is_open = |l: &Lent| asked.port() == 0 && l.address.ip() == asked.ip();
    let fits: [&dyn Fn(&Lent) -> bool; 4] = [
        &|l| l.asked == Some(asked) && l.scheme == Some(scheme),
        &|l| l.address == asked && l.scheme.is_none_or(|s| s == scheme),
        &|l| l.asked.is_none() && is_open(l) && l.scheme == Some(scheme),
        &|l| l.asked.is_some() && l.address == asked,
    ];
    let at = fits.iter().find_map(|fits| lent.iter().position(fits))?;
    Some(lent.remove(at))
}

impl ListenerGroup {
    fn new(asked: SocketAddr, scheme: Scheme, mut listeners: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let distinct = listeners.len();
        for listener in &listeners {
            // On Linux, accepted connections inherit the option. That saves a system call for each.
            let _ = SockRef::from(listener).set_tcp_nodelay(true);
        }
        for at in 0..workers.saturating_sub(distinct) {
            if let Some(listener) = listeners.get(at) {
                listeners.push(listener.try_clone()?);
            }
        }
        Ok(Self { asked, scheme, listeners, distinct })
    }

    fn address(&self) -> Option<SocketAddr> {
        self.listeners.first()?.local_addr().ok()
    }
}

fn bind_one(mut address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let a second pintle share the port silently, so try without it first.
    if address.port() != 0 {
        drop(socket(address, false)?);
    }
    let mut listeners = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let listener: TcpListener = socket(address, true)?.into();
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` includes IPv4, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl Bound {
    /// Returns the bound addresses, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<(SocketAddr, Scheme)> {
        self.listeners.iter().filter_map(|group| Some((group.address()?, group.scheme))).collect()
    }

    /// Duplicates the sockets for a process that takes over.
    ///
    /// # Errors
    ///
    /// If descriptors have run out.
    pub(super) fn shared(&self) -> io::Result<Vec<SharedSockets>> {
        let mut shared = Vec::with_capacity(self.listeners.len());
        for group in &self.listeners {
            let listeners = group.listeners.iter().take(group.distinct).map(TcpListener::try_clone);
            shared.push(SharedSockets {
                asked: group.asked,
                address: group.address().unwrap_or(group.asked),
                scheme: group.scheme,
                listeners: listeners.collect::<io::Result<_>>()?,
            });
        }
        Ok(shared)
    }

    /// Returns the number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.max(1)
    }

    /// Returns the listeners of each worker.
    pub(super) fn into_workers(self) -> Vec<Vec<(TcpListener, Scheme)>> {
        let count = self.workers();
        let mut workers: Vec<Vec<(TcpListener, Scheme)>> = (0..count).map(|_| Vec::new()).collect();
        for group in self.listeners {
            // Sockets of a process with more workers go round: each needs a worker that accepts on it.
            for (at, socket) in group.listeners.into_iter().enumerate() {
                workers[at % count].push((socket, group.scheme));
            }
        }
        workers
    }
}
