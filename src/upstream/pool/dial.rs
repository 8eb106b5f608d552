//! A new connection to an upstream: its address, TCP (IPv6 and IPv4 in a race), TLS.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::budget::RETRIES_MAX;
use crate::clock::Alarm;
use crate::telemetry::access::UpstreamFacts;
use crate::upstream::dns::Addresses;
use crate::upstream::error::UpstreamError;
use crate::upstream::settings::{Protocols, Upstream, UpstreamTransport};
use crate::upstream::tls::secure;

/// The delay before the next address is tried (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// A connection in the making.
pub(super) struct Dial<'p> {
    upstream: &'p Upstream,
    protocols: Protocols,
    /// An address to avoid, if the upstream has another.
    avoid: Option<SocketAddr>,
    /// Asks the budget for a retry on another address.
    may_retry: &'p dyn Fn() -> bool,
    /// The addresses that connection attempts are under way to.
    trying: RefCell<Vec<SocketAddr>>,
    facts: &'p RefCell<UpstreamFacts>,
}

impl<'p> Dial<'p> {
    pub(super) fn new(
        upstream: &'p Upstream,
        protocols: Protocols,
        avoid: Option<SocketAddr>,
        may_retry: &'p dyn Fn() -> bool,
        facts: &'p RefCell<UpstreamFacts>,
    ) -> Self {
        Self { upstream, protocols, avoid, may_retry, trying: RefCell::default(), facts }
    }

    /// Connects within the upstream's connect timeout.
    ///
    /// # Errors
    ///
    /// Returns an [`UpstreamError`] if DNS, TCP or TLS fails, or takes too long.
    pub(super) async fn connect(&self, alarm: &Alarm) -> Result<(UpstreamTransport, SocketAddr), UpstreamError> {
        let upstream = self.upstream;
        alarm.set(upstream.connect_timeout);
        let mut connecting = Box::pin(self.connect_unbounded());
        poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending if alarm.poll_due(cx).is_ready() => {
                let trying = self.trying.take();
                trying.into_iter().for_each(|address| self.failed(address));
                Poll::Ready(Err(timeout(upstream)))
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn connect_unbounded(&self) -> Result<(UpstreamTransport, SocketAddr), UpstreamError> {
        let (upstream, mut begin) = (self.upstream, Instant::now());
        let mut candidates = interleave(&addresses(&upstream.addresses).await?);
        upstream.health.sort(&mut candidates);
        if let (Some(avoid), true) = (self.avoid, candidates.len() > 1) {
            candidates.retain(|address| *address != avoid);
        }
        let mut retries = 0;
        loop {
            let raced = race(&candidates, &self.trying, &|address| self.failed(address)).await;
            let (socket, address) = raced.map_err(|(address, e)| UpstreamError::Connect(address, e))?;
            let _ = socket.set_nodelay(true);
            let connected = Instant::now();
            let connect = Some(connected - begin);
            UpstreamFacts::note(self.facts, |facts| (facts.address, facts.connect) = (Some(address), connect));
            let secured = secure(upstream, self.protocols, socket).await;
            if upstream.tls.is_some() {
                UpstreamFacts::note(self.facts, |facts| facts.tls = Some(connected.elapsed()));
            }
            match secured {
                Ok(transport) => return Ok((transport, address)),
                Err(error) => {
                    self.failed(address);
                    candidates.retain(|other| *other != address);
                    let again = !candidates.is_empty() && retries < RETRIES_MAX;
                    if !again || !(self.may_retry)() {
                        return Err(error);
                    }
                    retries += 1;
                    UpstreamFacts::note(self.facts, |facts| facts.retries += 1);
                    begin = Instant::now();
                }
            }
        }
    }

    /// Counts a failure against an address, if the upstream has several.
    fn failed(&self, address: SocketAddr) {
        UpstreamFacts::note(self.facts, |facts| facts.address = Some(address));
        if self.upstream.addresses.are_several() {
            self.upstream.health.address_failed(address);
        }
    }
}

/// Returns the error of a connection that took too long: a DNS error, if the name was never
/// resolved.
fn timeout(upstream: &Upstream) -> UpstreamError {
    match &upstream.addresses {
        Addresses::Followed { state, .. } if state.borrow().addresses.is_empty() => {
            UpstreamError::Dns("no answer in time".into())
        }
        _ => UpstreamError::ConnectTimeout,
    }
}

/// Returns the upstream's addresses. Waits for the first lookup.
async fn addresses(source: &Addresses) -> Result<Arc<[SocketAddr]>, UpstreamError> {
    let (state, nudge) = match source {
        Addresses::Fixed(addresses) => return Ok(addresses.clone()),
        Addresses::Followed { state, nudge } => (state, nudge),
    };
    let mut state = state.clone();
    let gone = || UpstreamError::Dns("the resolver has stopped".into());
    let known = state.wait_for(|s| !s.addresses.is_empty() || s.error.is_some()).await.map_err(|_| gone())?;
    if known.addresses.is_empty() {
        nudge.notify_one();
        let why = known.error.clone().unwrap_or_default();
        return Err(UpstreamError::Dns(why));
    }
    Ok(known.addresses.clone())
}

/// Alternates IPv6 and IPv4, IPv6 first (RFC 8305 section 4). Each family keeps the order of the
/// answer.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut v6 = addresses.iter().filter(|a| a.is_ipv6());
    let mut v4 = addresses.iter().filter(|a| a.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(v6.next());
        order.extend(v4.next());
    }
    order
}

type Connecting = Pin<Box<dyn Future<Output = (SocketAddr, io::Result<TcpStream>)>>>;

/// Returns the first connection that succeeds.
///
/// The next address is tried when the previous one fails, or after [`STAGGER`]. An address that a
/// later one overtakes counts as failed, too. `trying` holds the addresses under way.
async fn race(
    addresses: &[SocketAddr],
    trying: &RefCell<Vec<SocketAddr>>,
    failed: &dyn Fn(SocketAddr),
) -> Result<(TcpStream, SocketAddr), (SocketAddr, io::Error)> {
    *trying.borrow_mut() = addresses.iter().take(1).copied().collect();
    if let [only] = addresses {
        return TcpStream::connect(*only).await.map(|socket| (socket, *only)).map_err(|e| {
            failed(*only);
            (*only, e)
        });
    }
    trying.borrow_mut().clear();
    let mut waiting = addresses.iter().copied();
    let mut attempts: Vec<Connecting> = Vec::new();
    let mut stagger = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut last_error = None;
    poll_fn(|cx| {
        loop {
            match poll_any(&mut attempts, cx) {
                Some((address, Ok(socket))) => {
                    let begun = std::mem::replace(&mut *trying.borrow_mut(), vec![address]);
                    begun.into_iter().take_while(|earlier| *earlier != address).for_each(failed);
                    return Poll::Ready(Ok((socket, address)));
                }
                Some((address, Err(e))) => {
                    trying.borrow_mut().retain(|tried| *tried != address);
                    failed(address);
                    last_error = Some((address, e));
                    stagger.as_mut().reset(Instant::now());
                    continue;
                }
                None => {}
            }
            if attempts.is_empty() && waiting.len() == 0 {
                let nothing = || (SocketAddr::from(([0, 0, 0, 0], 0)), io::ErrorKind::AddrNotAvailable.into());
                return Poll::Ready(Err(last_error.take().unwrap_or_else(nothing)));
            }
            if waiting.len() == 0 || stagger.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(address) = waiting.next() {
                trying.borrow_mut().push(address);
                attempts.push(Box::pin(async move { (address, TcpStream::connect(address).await) }));
                stagger.as_mut().reset(Instant::now() + STAGGER);
            }
        }
    })
    .await
}

/// Returns the outcome of an attempt that is over.
fn poll_any(attempts: &mut Vec<Connecting>, cx: &mut Context<'_>) -> Option<(SocketAddr, io::Result<TcpStream>)> {
    for at in 0..attempts.len() {
        if let Poll::Ready(done) = attempts[at].as_mut().poll(cx) {
            drop(attempts.swap_remove(at));
            return Some(done);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let got = interleave(&parse(&["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.3:1"]));
        assert_eq!(got, parse(&["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"]));
    }

    #[tokio::test]
    async fn a_dead_address_does_not_hold_up_a_live_one() {
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
        let dead = gone.local_addr().unwrap();
        drop(gone);
        let (trying, failed) = (RefCell::default(), RefCell::new(Vec::new()));
        let note = |address| failed.borrow_mut().push(address);
        let live = live.local_addr().unwrap();
        let (socket, address) = race(&[dead, live], &trying, &note).await.unwrap();
        assert_eq!((socket.peer_addr().unwrap(), address), (live, live));
        assert_eq!((failed.take(), trying.take()), (vec![dead], vec![live]));
        let (address, error) = race(&[dead, dead], &trying, &note).await.unwrap_err();
        assert_eq!((address, error.kind()), (dead, io::ErrorKind::ConnectionRefused));
        assert!(race(&[], &trying, &note).await.is_err());
    }
}
