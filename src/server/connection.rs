//! One client connection, from the accepted socket to HTTP: admission, PROXY header, TLS, and the protocol chosen.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::admission::Network;
use super::connections::Entry;
use super::handshakes::Begin;
use super::proxy_header::{self, ProxyHeader};
use super::relief::Newcomer;
use super::service::Asked;
use super::snapshot::{SiteOfView, Snapshot, View};
use super::worker::{Open, Worker};
use super::{http1, http2};
use crate::clock::Alarm;
use crate::keys::pin::Pin;
use crate::message::{RequestHead, Version};
use crate::policy::Scheme;
use crate::policy::forwarded::Peer;
use crate::tls::{CertificateSet, FirstMessage, ServerSession, TlsStream};
use crate::upstream::Client;
use crate::wire::transport::Transport;

/// A client's connection.
pub(super) type ClientTransport = Transport<ServerSession>;

/// What is known about a connection for as long as it lives.
pub(super) struct Context {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Client,
    /// Under TLS: the name that the client asked for, and the certificates of that name.
    tls: Option<TlsFacts>,
    /// Where it stands among those that may have to make room for others.
    pub(super) entry: Entry,
    _open: Open,
    _pass: super::admission::Pass,
}

struct TlsFacts {
    name: Option<Box<str>>,
    certificates: CertificateSet,
    /// The client has seen the chain of the session that was resumed, and not that of now.
    resumed: bool,
}

impl Context {
    /// Whether the certificate that the client was shown is good for `host`, too (RFC 9110 section 7.4). Where TLS
    /// ended elsewhere, that is not for us to say.
    pub(super) fn certificate_covers(&self, site: &SiteOfView, head: &RequestHead) -> bool {
        let Some(tls) = &self.tls else { return true };
        let named = tls.name.as_deref();
        if named.map(str::as_bytes) == Some(head.host_bytes()) {
            // The usual case; unless the name got the certificates of the default site.
            let own = site.view().shared.certificates.find(named);
            if own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates)) {
                return true;
            }
        }
        // Which one of a pair the client has seen is not known here: all must do.
        tls.certificates.iter().all(|c| c.chain.leaf.covers(head.host()))
    }

    /// Whether a site's pins may be sent here: they are written down as sent until now, and the client has seen a chain
    /// that they fit. It has not where the certificate was changed since, or is another site's that covers this one, too.
    pub(super) fn may_pin(&self, site: &SiteOfView) -> bool {
        let Some(pins) = &site.hpkp else { return false };
        if !pins.lease.holds(self.worker.clock.uptime()) {
            return false;
        }
        // Where TLS ends in front of pintle, the file of the chain is all that there is to go by.
        let Some(tls) = &self.tls else { return true };
        let fits = |chain: &[Pin]| chain.iter().any(|pin| pins.policy.pins.contains(pin));
        let shared = &site.view().shared;
        if tls.resumed {
            // The session may have begun under any chain that the name in the SNI had since tickets are about: its site's,
            // or another's that had the name. What the default site had, to which other names go, is not looked up.
            let fits_earlier = |site: usize| {
                let earlier = shared.earlier.get(site);
                earlier.is_none_or(|earlier| earlier.iter().all(|chain| fits(&chain.pins)))
            };
            let named = tls.name.as_deref().and_then(|name| shared.by_host.get(name));
            if !named.is_some_and(|named| fits_earlier(*named)) || !fits_earlier(site.index()) {
                return false;
            }
        }
        let own = shared.sets.get(site.index()).and_then(Option::as_ref);
        let is_own = own.is_some_and(|own| Arc::ptr_eq(own, &tls.certificates));
        is_own || tls.certificates.iter().all(|c| fits(&c.chain.certain))
    }

    /// The time, if it will be asked for: when something begins that the access log tells the length of.
    pub(super) fn begin(&self) -> Option<Instant> {
        self.worker.access.is_some().then(Instant::now)
    }

    /// The site that the client named in its SNI: its rules hold for what is said on the connection, its policies do not.
    pub(super) fn site_of_connection(&self, view: &Rc<View>) -> Option<SiteOfView> {
        view.site(self.name()?.as_bytes())
    }

    /// The name that the client asked for in its SNI.
    pub(super) fn name(&self) -> Option<&str> {
        self.tls.as_ref()?.name.as_deref()
    }

    /// Whether the connection is under TLS that ends here.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// `true` if the request is a trusted proxy's own, and not one that it passes on for a stranger.
    pub(super) fn is_trusted(&self, asked: &Asked) -> bool {
        self.client.peer.proxy.is_some() && asked.view.shared.trust.contains(asked.origin.client)
    }

    /// A key to ask for a WebSocket with, when the client came by HTTP/2, where there is none.
    pub(super) fn websocket_key(&self, head: &RequestHead) -> Option<String> {
        if !head.websocket || head.version != Version::Http2 {
            return None;
        }
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).ok()?;
        Some(STANDARD.encode(bytes))
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(socket: TcpStream, address: SocketAddr, listener: Scheme, worker: Rc<Worker>, open: Open) {
    let alarm = worker.clock.alarm();
    let established = Box::pin(establish(socket, address, listener, &worker, open, &alarm)).await;
    let Some(Established { transport, received, context, http2 }) = established else { return };
    if http2 {
        Box::pin(http2::serve(transport, Rc::new(context), alarm)).await;
    } else {
        Box::pin(http1::serve(transport, received, Rc::new(context), alarm)).await;
    }
}

struct Established {
    transport: ClientTransport,
    /// What came behind a PROXY header on a plain connection.
    received: Vec<u8>,
    context: Context,
    http2: bool,
}

async fn establish(
    mut socket: TcpStream,
    address: SocketAddr,
    listener: Scheme,
    worker: &Rc<Worker>,
    open: Open,
    alarm: &Alarm,
) -> Option<Established> {
    let view = worker.view();
    let shared = &view.shared;
    let limits = &shared.limits;
    let mut peer = Peer::new(address.ip(), listener, &shared.trust);
    let network = Network::of(peer.address);
    let entry = worker.listed.list(network, worker.ticks(), alarm);
    let newcomer = Newcomer { worker, entry: &entry, alarm };
    let Some(mut pass) = newcomer.admit(peer.proxy.is_none().then_some(network)).await else {
        return refused(address, worker);
    };
    alarm.set(limits.handshake);
    let mut received = Vec::new();
    if shared.proxy_protocol && peer.proxy.is_some() {
        let Ok(header) = read_proxy_header(&mut socket, &mut received, alarm).await else {
            worker.counters.proxy_headers_refused.increment();
            tracing::debug!(proxy = %address.ip(), "no valid PROXY header");
            return gone(&socket, alarm);
        };
        peer.speaks_for(header.source, header.scheme, &shared.trust);
        let network = Network::of(peer.address);
        // Whom the proxy speaks for counts, and not the proxy.
        let is_client = !shared.trust.contains(peer.address);
        let reached = is_client.then(|| pass.count(network, limits.connections_per_client)).flatten();
        if !newcomer.make_room(reached).await {
            return refused(address, worker);
        }
        entry.is_of(network);
    }
    let client = Client::new(peer);
    if listener == Scheme::Http {
        if !received.is_empty() {
            entry.speaks();
        }
        let context = Context { worker: worker.clone(), client, tls: None, entry, _open: open, _pass: pass };
        return Some(Established { transport: Transport::Plain(socket), received, context, http2: false });
    }
    let mut hello = FirstMessage::new(received);
    let whole = poll_fn(|cx| match hello.poll_whole(&mut socket, cx) {
        Poll::Ready(read) => Poll::Ready(read),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    });
    if let Err(error) = whole.await {
        worker.counters.handshakes_failed.increment();
        tracing::debug!(client = client.address(), %error, "no ClientHello");
        return gone(&socket, alarm);
    }
    entry.speaks();
    // From here on it costs cryptography.
    let begin = worker.handshakes.begin(limits.handshakes, Network::of(client.peer.address), alarm, &worker.clock);
    if !matches!(begin, Begin::Begun(_)) {
        worker.counters.handshakes_shed.increment();
        tracing::debug!(client = client.address(), "too many handshakes");
    }
    let place = match begin {
        Begin::Begun(place) | Begin::Instead(place) => place,
        Begin::Full => return reset(&socket),
    };
    let stream = handshake(socket, hello.into_received(), shared, worker, &client, alarm).await?;
    drop(place);
    let http2 = stream.alpn() == Some(b"h2");
    let choice = stream.session().choice()?;
    let certificates = choice.certificates()?.clone();
    let tls = Some(TlsFacts { name: choice.name.clone(), certificates, resumed: stream.session().is_resumed() });
    let context = Context { worker: worker.clone(), client, tls, entry, _open: open, _pass: pass };
    Some(Established { transport: Transport::Tls(stream), received: Vec::new(), context, http2 })
}

/// There was no room.
fn refused<T>(address: SocketAddr, worker: &Worker) -> Option<T> {
    worker.counters.connections_refused.increment();
    tracing::debug!(client = %address.ip(), "connection refused: there are too many");
    None
}

/// A client that said nothing of use. Where it had to make room for others, nothing of it stays with us.
fn gone<T>(socket: &TcpStream, alarm: &Alarm) -> Option<T> {
    if alarm.was_rung() { reset(socket) } else { None }
}

/// Ends a connection so that nothing of it stays with us.
fn reset<T>(socket: &TcpStream) -> Option<T> {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    None
}

/// Reads a PROXY header, and leaves in `received` what came behind it.
async fn read_proxy_header(socket: &mut TcpStream, received: &mut Vec<u8>, alarm: &Alarm) -> io::Result<ProxyHeader> {
    loop {
        match proxy_header::parse(received) {
            Ok(Some((len, header))) => {
                received.drain(..len);
                return Ok(header);
            }
            Ok(None) => {}
            Err(proxy_header::NoProxyHeader) => return Err(io::ErrorKind::InvalidData.into()),
        }
        let mut read = Box::pin(socket.read_buf(received));
        let len = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        });
        if len.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn handshake(
    socket: TcpStream,
    received: Vec<u8>,
    shared: &Snapshot,
    worker: &Worker,
    client: &Client,
    alarm: &Alarm,
) -> Option<TlsStream<ServerSession>> {
    let is_probe = client.peer.proxy == Some(client.peer.address);
    let tls = shared.probe_tls.as_ref().filter(|_| is_probe).unwrap_or(&shared.tls);
    let session = match ServerSession::new(tls.clone()) {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "TLS cannot be used as configured");
            return None;
        }
    };
    // Clients send no name for an address: there it counts which one they have reached.
    let reached = shared.certificates.has_addresses().then(|| socket.local_addr().ok()).flatten();
    let session = session.reached(reached.map(|address| address.ip()));
    let mut stream = TlsStream::new(socket, session, received);
    let done = poll_fn(|cx| match stream.poll_handshake(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    });
    match done.await {
        Ok(()) => {
            worker.counters.handshakes.increment();
            if stream.session().is_resumed() {
                worker.counters.handshakes_resumed.increment();
            }
            Some(stream)
        }
        Err(error) => {
            worker.counters.handshakes_failed.increment();
            let name = stream.session().choice().and_then(|c| c.name.as_deref());
            tracing::debug!(client = client.address(), name, %error, "TLS handshake failed");
            None
        }
    }
}
