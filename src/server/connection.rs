//! One client connection, from the accepted socket to HTTP: admission, PROXY header, TLS, and the protocol chosen.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::admission::Network;
use super::context::{ClientTransport, Context, TlsFacts};
use super::handshakes::Begin;
use super::proxy_header::{self, ProxyHeader};
use super::relief::Newcomer;
use super::snapshot::Snapshot;
use super::worker::{Open, Worker};
use super::{http1, http2};
use crate::clock::Alarm;
use crate::policy::Scheme;
use crate::policy::forwarded::Peer;
use crate::tls::{FirstMessage, ServerSession, TlsStream};
use crate::upstream::Client;
use crate::wire::transport::Transport;

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
        let context = Context::new(worker.clone(), client, None, entry, open, pass);
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
    let context = Context::new(worker.clone(), client, tls, entry, open, pass);
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
