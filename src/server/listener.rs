//! Sockets that listen: one for each address and worker, among which the kernel spreads the connections.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::policy::Scheme;

/// Connections that wait to be accepted; the kernel may allow fewer (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// Bound listeners, yet to be given to workers.
pub struct Bound {
    /// By address: a socket for each worker.
    listeners: Vec<(Vec<TcpListener>, Scheme)>,
    workers: usize,
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

/// Binds all addresses for this many workers.
///
/// # Errors
///
/// All addresses that cannot be had.
pub fn bind(https: &[SocketAddr], http: &[SocketAddr], workers: usize) -> Result<Bound, Vec<BindError>> {
    let mut bound = Bound { listeners: Vec::new(), workers };
    let mut errors = Vec::new();
    let wanted = https.iter().map(|a| (*a, Scheme::Https)).chain(http.iter().map(|a| (*a, Scheme::Http)));
    for (address, scheme) in wanted {
        match bind_one(address, workers) {
            Ok(listeners) => bound.listeners.push((listeners, scheme)),
            Err(error) => errors.push(BindError { address, error }),
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
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
        let address = |(sockets, scheme): &(Vec<TcpListener>, Scheme)| {
            sockets.first().and_then(|s| s.local_addr().ok()).map(|a| (a, *scheme))
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// The listeners of each worker.
    pub(super) fn into_workers(self) -> Vec<Vec<(TcpListener, Scheme)>> {
        let mut workers: Vec<Vec<(TcpListener, Scheme)>> = (0..self.workers.max(1)).map(|_| Vec::new()).collect();
        for (sockets, scheme) in self.listeners {
            for (worker, socket) in workers.iter_mut().zip(sockets) {
                worker.push((socket, scheme));
            }
        }
        workers
    }
}
