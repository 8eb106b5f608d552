//! Sockets that listen: one for each address and worker, among which the kernel spreads the connections.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::policy::Scheme;

/// Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bound listeners, yet to be given to workers.
pub struct Bound {
    listeners: Vec<Group>,
    workers: usize,
}

/// What listens on one address: at least a socket for each worker.
struct Group {
    asked: SocketAddr,
    scheme: Scheme,
    listeners: Vec<TcpListener>,
    /// So many of them are sockets of their own. The rest are those again, where the process before had fewer workers:
    /// a new socket of the same address would lose what is queued on it if this process did not come to serve.
    distinct: usize,
}

/// Sockets of one address that somebody else has bound: the process before this one, or the service manager.
#[derive(Debug)]
pub struct Lent {
    /// The address in the configuration of the process before, if it was one.
    pub asked: Option<SocketAddr>,
    /// The address that they are bound to.
    pub address: SocketAddr,
    /// What they are for, as far as that was said.
    pub scheme: Option<Scheme>,
    /// The sockets, one at least.
    pub listeners: Vec<TcpListener>,
}

/// Sockets that are in use, for a process that takes over.
pub struct Shared {
    /// The address in the configuration.
    pub asked: SocketAddr,
    /// The address that they are bound to.
    pub address: SocketAddr,
    /// What they are for.
    pub scheme: Scheme,
    /// The sockets.
    pub listeners: Vec<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

impl BindError {
    /// What to do about it.
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
            io::ErrorKind::AddrNotAvailable if self.address.is_ipv6() => {
                format!("without IPv6, listen on 0.0.0.0:{}", self.address.port())
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this host has the address".into(),
            _ if self.address.is_ipv6() => format!("without IPv6, listen on 0.0.0.0:{}", self.address.port()),
            _ => return None,
        })
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.address, self.error)
    }
}

impl std::error::Error for BindError {}

/// Binds all addresses for this many workers. What is lent is taken in place of that, and what nobody wants of it is
/// left there.
///
/// # Errors
///
/// All addresses that cannot be had.
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
        match listeners.and_then(|listeners| Group::new(address, scheme, listeners, workers)) {
            Ok(group) => bound.listeners.push(group),
            Err(error) => errors.push(BindError { address, error }),
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

/// The lent sockets that fit best: those that stood for the same words in the configuration before, then those of the same
/// address. The process before may have used them for another scheme; a name that the operator gave them must fit.
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

impl Group {
    fn new(asked: SocketAddr, scheme: Scheme, mut listeners: Vec<TcpListener>, workers: usize) -> io::Result<Self> {
        let distinct = listeners.len();
        for listener in &listeners {
            // Linux hands it on to every connection that is accepted: a system call less for each.
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
    // SO_REUSEPORT would let a second pintle share the port in silence: ask without it first.
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
        // `[::]` takes in IPv4, whatever the system's default is.
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
    /// The addresses that are listened on, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<(SocketAddr, Scheme)> {
        self.listeners.iter().filter_map(|group| Some((group.address()?, group.scheme))).collect()
    }

    /// The same sockets once more, for a process that takes over.
    ///
    /// # Errors
    ///
    /// When there are no more files to be had.
    pub(super) fn shared(&self) -> io::Result<Vec<Shared>> {
        let mut shared = Vec::with_capacity(self.listeners.len());
        for group in &self.listeners {
            let listeners = group.listeners.iter().take(group.distinct).map(TcpListener::try_clone);
            shared.push(Shared {
                asked: group.asked,
                address: group.address().unwrap_or(group.asked),
                scheme: group.scheme,
                listeners: listeners.collect::<io::Result<_>>()?,
            });
        }
        Ok(shared)
    }

    /// How many workers they are for.
    pub(super) fn workers(&self) -> usize {
        self.workers.max(1)
    }

    /// The listeners of each worker.
    pub(super) fn into_workers(self) -> Vec<Vec<(TcpListener, Scheme)>> {
        let count = self.workers();
        let mut workers: Vec<Vec<(TcpListener, Scheme)>> = (0..count).map(|_| Vec::new()).collect();
        for group in self.listeners {
            // Sockets of a process with more workers go round: none may be left without somebody who accepts.
            for (at, socket) in group.listeners.into_iter().enumerate() {
                workers[at % count].push((socket, group.scheme));
            }
        }
        workers
    }
}
