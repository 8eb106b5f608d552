//! Visits to the upstreams: lookup, connection, handshake, two requests. Every step has a time limit.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use rustls::{ClientConnection, StreamOwned};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::host::{Failed, Times, UpstreamVisit, VisitStep, Visited, WantedUpstream};
use crate::os::words::words;
use crate::tls::{KeyTypes, Possession};

/// Time limit for each step.
const PATIENCE: Duration = Duration::from_secs(6);
/// Time limit for the answer to a long request: a kernel that probes for a smaller size needs some seconds.
const PATIENCE_LARGE: Duration = Duration::from_secs(15);
/// The most upstreams, those at the same time, and the most addresses of one.
const UPSTREAMS_MAX: usize = 64;
const AT_ONCE: usize = 16;
const ADDRESSES_MAX: usize = 4;
/// The most bytes of a response's head.
const HEAD_MAX: usize = 64 * 1024;
/// The bytes that make a request longer than any packet.
const PADDING: usize = 6000;
const AGENT: &str = concat!("pintle-doctor/", env!("CARGO_PKG_VERSION"));

/// Visits the first 64 upstreams.
#[must_use]
pub fn all(upstreams: &[WantedUpstream]) -> Vec<Visited> {
    let mut visited = Vec::new();
    for some in upstreams[..upstreams.len().min(UPSTREAMS_MAX)].chunks(AT_ONCE) {
        thread::scope(|scope| {
            let visits: Vec<_> = some.iter().map(|upstream| scope.spawn(move || visit(upstream))).collect();
            visited.extend(visits.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    visited
}

fn visit(upstream: &WantedUpstream) -> Visited {
    let start = Instant::now();
    let looked_up = look_up(upstream);
    let dns = Some(start.elapsed());
    let visits = match looked_up {
        Ok(addresses) => thread::scope(|scope| {
            let visits: Vec<_> =
                addresses.iter().map(|address| scope.spawn(move || one(upstream, *address, dns))).collect();
            visits.into_iter().filter_map(|thread| thread.join().ok()).collect()
        }),
        Err(error) => {
            vec![UpstreamVisit { failed: Some(failed(VisitStep::Dns, &error)), ..UpstreamVisit::default() }]
        }
    };
    Visited { upstream: upstream.clone(), visits }
}

/// Looks a name up as the system does. The C library knows no time limit: after ours, its thread continues unheard.
fn look_up(upstream: &WantedUpstream) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let place = (upstream.host.clone(), upstream.port);
    thread::spawn(move || {
        let found = place.to_socket_addrs().map(|found| found.take(ADDRESSES_MAX * 8).collect::<Vec<_>>());
        let _ = sender.send(found);
    });
    let mut found = receiver.recv_timeout(PATIENCE).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    found.dedup();
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    // Some of each family.
    let of = |is_four: bool| found.iter().copied().filter(move |a| a.is_ipv4() == is_four).take(ADDRESSES_MAX / 2);
    Ok(of(false).chain(of(true)).collect())
}

/// Returns `true` for the error of a time limit. That of a socket is `WouldBlock`.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn failed(step: VisitStep, error: &io::Error) -> Failed {
    let timed_out = is_timeout(error);
    let no_route = matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable);
    let name = match step {
        VisitStep::Dns => "DNS lookup",
        VisitStep::Tcp => "TCP",
        VisitStep::Tls => "TLS",
        VisitStep::Http => "request",
    };
    let why = match timed_out {
        true => format!("{name}: nothing within {} s", PATIENCE.as_secs()),
        false => format!("{name}: {}", words(error)),
    };
    Failed { step, why, timed_out, no_route }
}

/// A socket whose reads and writes end at one time.
struct Limited {
    socket: TcpStream,
    end: Instant,
}

impl Limited {
    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl Write for Limited {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

enum VisitStream {
    Plain(Limited),
    Tls(Box<StreamOwned<ClientConnection, Limited>>),
}

impl VisitStream {
    fn restart(&mut self, patience: Duration) {
        let limited = match self {
            Self::Plain(limited) => limited,
            Self::Tls(stream) => &mut stream.sock,
        };
        limited.end = Instant::now() + patience;
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(limited) => limited.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(limited) => limited.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

fn one(upstream: &WantedUpstream, address: SocketAddr, dns: Option<Duration>) -> UpstreamVisit {
    let times = Times { dns, ..Times::default() };
    let mut visit = UpstreamVisit { address: Some(address), times, ..UpstreamVisit::default() };
    match try_one(upstream, address, &mut visit, false) {
        Ok(()) => visit.large_stalls = large_stalls(upstream, address),
        Err((step, error)) => {
            visit.failed = Some(failed(step, &error));
            // Perhaps the long ClientHello gets lost.
            let is_stalled = step == VisitStep::Tls && is_timeout(&error);
            visit.large_stalls = is_stalled && try_one(upstream, address, &mut UpstreamVisit::default(), true).is_ok();
        }
    }
    visit
}

fn try_one(
    upstream: &WantedUpstream,
    address: SocketAddr,
    visit: &mut UpstreamVisit,
    short: bool,
) -> Result<(), (VisitStep, io::Error)> {
    let mut stream = connect(upstream, address, visit, short)?;
    let asked_at = Timestamp::now();
    let head = ask(&mut stream, upstream, 0, &mut visit.times).map_err(|error| (VisitStep::Http, error))?;
    visit.clock_ahead = date(&head).map(|theirs| asked_at.as_second() - theirs);
    Ok(())
}

/// Sends a request that fills packets. `true` if no byte comes back, though a small one was answered.
fn large_stalls(upstream: &WantedUpstream, address: SocketAddr) -> bool {
    let mut visit = UpstreamVisit::default();
    let Ok(mut stream) = connect(upstream, address, &mut visit, true) else { return false };
    ask(&mut stream, upstream, PADDING, &mut visit.times).is_err_and(|error| is_timeout(&error))
}

fn connect(
    upstream: &WantedUpstream,
    address: SocketAddr,
    visit: &mut UpstreamVisit,
    short: bool,
) -> Result<VisitStream, (VisitStep, io::Error)> {
    let start = Instant::now();
    let socket = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| (VisitStep::Tcp, error))?;
    visit.times.tcp = Some(start.elapsed());
    let _ = socket.set_nodelay(true);
    visit.mtu = if address.is_ipv4() { ip_mtu(&socket) } else { ipv6_mtu(&socket) }.ok();
    let limited = Limited { socket, end: Instant::now() + PATIENCE };
    let Some(name) = &upstream.tls else { return Ok(VisitStream::Plain(limited)) };
    let start = Instant::now();
    let stream = handshake(limited, name, short).map_err(|error| (VisitStep::Tls, error))?;
    visit.times.tls = Some(start.elapsed());
    let leaf = stream.conn.peer_certificates().and_then(<[_]>::first);
    let parsed = leaf.and_then(|leaf| X509Certificate::from_der(leaf).ok());
    visit.validity = parsed.map(|(_, leaf)| {
        let validity = leaf.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    });
    Ok(VisitStream::Tls(Box::new(stream)))
}

/// Accepts any certificate: requests judge it, and count their failures.
fn handshake(limited: Limited, name: &str, short: bool) -> io::Result<StreamOwned<ClientConnection, Limited>> {
    let possession = Possession::of_any(KeyTypes::Any);
    let possession = if short { possession.with_short_hello() } else { possession };
    possession.connect(limited, name)
}

/// Sends a request, notes the time of the first byte, and returns the head of the response.
fn ask(stream: &mut VisitStream, upstream: &WantedUpstream, padding: usize, times: &mut Times) -> io::Result<Vec<u8>> {
    let start = Instant::now();
    stream.restart(if padding > 0 { PATIENCE_LARGE } else { PATIENCE });
    // One field of a usual length each: servers refuse long ones, which is an answer, too.
    let pads: String = (0..padding / 100).map(|at| format!("X-Padding-{at:02}: {}\r\n", "x".repeat(80))).collect();
    let host = &upstream.host_header;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\n{pads}Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while head.len() < HEAD_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        times.first_byte.get_or_insert_with(|| start.elapsed());
        head.extend_from_slice(&buffer[..length]);
    }
    if head.starts_with(b"HTTP/") { Ok(head) } else { Err(io::Error::other("no HTTP response")) }
}

fn date(head: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then_some(value)
    })?;
    Some(jiff::fmt::rfc2822::parse(line.trim()).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_response() {
        assert_eq!(date(b"HTTP/1.1 200 OK\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"), Some(784_111_777));
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: soon\r\n\r\n", ""] {
            assert_eq!(date(head.as_bytes()), None);
        }
    }
}
