//! One client connection, from the accepted socket to HTTP: admission, PROXY header, TLS, and the protocol chosen.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::admission::{AdmissionPass, ClientNetwork};
use super::connections::ConnectionEntry;
use super::context::{ClientTransport, Context, TlsFacts};
use super::handshake_record::HandshakeFailure;
use super::handshakes::{Begin, HandshakeSlot};
use super::proxy_header::{self, ProxyHeader};
use super::relief::ArrivingConnection;
use super::snapshot::Snapshot;
use super::why::{self, Why};
use super::worker::{Open, Worker};
use super::{http1, http2};
use crate::clock::{Alarm, Clock};
use crate::os::words::words;
use crate::policy::Scheme;
use crate::policy::forwarded::Peer;
use crate::tls::{FirstMessage, ServerSession, TlsStream, acme_challenge, failure};
use crate::upstream::Client;
use crate::wire::transport::Transport;

/// Serves a connection to its end. The task itself is small: each of its two parts has memory while it runs.
pub(super) fn serve(
    socket: TcpStream,
    address: SocketAddr,
    listener: Scheme,
    worker: Rc<Worker>,
    open: Open,
) -> impl Future<Output = ()> {
    let clock = worker.clock.clone();
    let beginning = Box::pin(begin(socket, address, listener, worker, open));
    async move {
        let Some(serving) = beginning.await else { return };
        in_turns(&clock, serving).await;
    }
}

/// The part of a connection's task that serves requests.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

async fn begin(
    socket: TcpStream,
    address: SocketAddr,
    listener: Scheme,
    worker: Rc<Worker>,
    open: Open,
) -> Option<Serving> {
    worker.clock.begin_turn();
    let alarm = worker.clock.alarm();
    let established = establish(socket, address, listener, &worker, open, &alarm).await?;
    let Established { transport, received, context, http2 } = established;
    let context = Rc::new(context);
    Some(if http2 {
        Box::pin(http2::serve(transport, context, alarm))
    } else {
        Box::pin(http1::serve(transport, received, context, alarm))
    })
}

/// Polls a task, with one reading of the clock each time at most.
fn in_turns(clock: &Clock, mut task: Serving) -> impl Future<Output = ()> {
    poll_fn(move |cx| {
        clock.begin_turn();
        task.as_mut().poll(cx)
    })
}

struct Established {
    transport: ClientTransport,
    /// Bytes after a PROXY header on a plain connection.
    received: Vec<u8>,
    context: Context,
    http2: bool,
}

async fn establish(
    socket: TcpStream,
    address: SocketAddr,
    listener: Scheme,
    worker: &Rc<Worker>,
    open: Open,
    alarm: &Alarm,
) -> Option<Established> {
    let begin = worker.begin();
    let view = worker.view();
    let shared = &view.shared;
    let peer = Peer::new(address.ip(), listener, &shared.trust);
    let network = ClientNetwork::of(peer.address);
    let entry = worker.listed.list(network, worker.ticks(), alarm);
    let newcomer = ArrivingConnection { worker, entry: &entry, alarm };
    let Some(pass) = newcomer.admit(peer.proxy.is_none().then_some(network)).await else {
        return refused(address, worker);
    };
    worker.note_states();
    alarm.set(shared.limits.handshake);
    let mut arrival = Arrival { socket, received: Vec::new(), peer, entry, pass, shared, worker, alarm, begin };
    if shared.proxy_protocol && arrival.peer.proxy.is_some() {
        arrival.take_proxy_header(address).await?;
    }
    let client = Client::new(arrival.peer);
    if listener == Scheme::Http {
        let Arrival { socket, received, entry, pass, .. } = arrival;
        if !received.is_empty() {
            entry.speaks();
        }
        let context = Context::new(worker.clone(), client, None, entry, open, pass);
        return Some(Established { transport: Transport::Plain(socket), received, context, http2: false });
    }
    let hello = arrival.read_hello(&client).await?;
    if worker.begins_no_handshake() {
        return None;
    }
    let slot = arrival.begin_handshake(&client, hello.received())?;
    let Arrival { socket, entry, pass, .. } = arrival;
    // Clients open connections ahead of time. One that speaks after a rotation must not get the
    // chain from before it: on another connection, its client may have noted the new pins.
    let view = worker.view();
    let beginning = HandshakeStart { client: &client, slot: &slot, begin };
    let stream = handshake(socket, hello.into_received(), &view.shared, worker, &beginning, alarm).await?;
    drop(slot);
    if stream.alpn() == Some(acme_challenge::PROTOCOL) {
        return close(stream, alarm).await;
    }
    let tls = facts(&stream, begin)?;
    let http2 = tls.alpn == Some(b"h2");
    let context = Context::new(worker.clone(), client, Some(tls), entry, open, pass);
    Some(Established { transport: Transport::Tls(stream), received: Vec::new(), context, http2 })
}

/// The facts of a handshake that has succeeded.
fn facts(stream: &TlsStream<ServerSession>, begin: Option<Instant>) -> Option<TlsFacts> {
    let choice = stream.session().choice()?;
    Some(TlsFacts {
        name: choice.name.clone(),
        certificates: choice.certificates()?.clone(),
        negotiated: stream.session().negotiated(),
        alpn: stream.alpn().map(|alpn| if alpn == b"h2" { &b"h2"[..] } else { b"http/1.1" }),
        duration: begin.map(|begin| begin.elapsed()),
    })
}

/// A connection that is admitted and not yet established.
struct Arrival<'a> {
    socket: TcpStream,
    received: Vec<u8>,
    peer: Peer,
    entry: ConnectionEntry,
    pass: AdmissionPass,
    shared: &'a Snapshot,
    worker: &'a Worker,
    alarm: &'a Alarm,
    /// The time at which it was accepted. `None` if nobody measures.
    begin: Option<Instant>,
}

/// A handshake that begins.
struct HandshakeStart<'a> {
    client: &'a Client,
    slot: &'a HandshakeSlot,
    /// The time at which the connection was accepted. `None` if nobody measures.
    begin: Option<Instant>,
}

impl Arrival<'_> {
    /// Reads the PROXY header of a trusted proxy, and counts the connection for the client that the header names.
    async fn take_proxy_header(&mut self, address: SocketAddr) -> Option<()> {
        let Self { shared, worker, alarm, .. } = *self;
        let Ok(header) = read_proxy_header(&mut self.socket, &mut self.received, alarm).await else {
            worker.counters.proxy_headers_refused.increment();
            tracing::debug!(proxy = %address.ip(), "no valid PROXY header");
            return self.gone();
        };
        self.peer.speaks_for(header.source, header.scheme, &shared.trust);
        let network = ClientNetwork::of(self.peer.address);
        // The client counts, not the proxy.
        let is_client = !shared.trust.contains(self.peer.address);
        let reached = is_client.then(|| self.pass.count(network, shared.limits.connections_per_client)).flatten();
        if !(ArrivingConnection { worker, entry: &self.entry, alarm }).make_room(reached).await {
            return refused(address, worker);
        }
        self.entry.is_of(network);
        Some(())
    }

    /// Waits for the whole ClientHello.
    async fn read_hello(&mut self, client: &Client) -> Option<FirstMessage> {
        let Self { worker, alarm, .. } = *self;
        let mut hello = FirstMessage::new(std::mem::take(&mut self.received));
        let whole = poll_fn(|cx| match hello.poll_whole(&mut self.socket, cx) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        });
        if let Err(error) = whole.await {
            worker.counters.handshakes_failed.increment();
            tracing::debug!(client = client.address(), %error, "no ClientHello");
            let why = match error.kind() {
                io::ErrorKind::TimedOut => why::limit(limit_of(alarm)),
                _ => why::of_handshake(&error, None),
            };
            self.failed(client, hello.received(), why, "no whole ClientHello");
            return self.gone();
        }
        self.entry.speaks();
        Some(hello)
    }

    /// Takes a slot for the handshake: from here on the connection costs cryptography.
    fn begin_handshake(&self, client: &Client, received: &[u8]) -> Option<HandshakeSlot> {
        let Self { shared, worker, alarm, .. } = *self;
        let network = ClientNetwork::of(client.peer.address);
        let begin = worker.handshakes.begin(shared.limits.handshakes, network, alarm, &worker.clock);
        if !matches!(begin, Begin::Begun(_)) {
            worker.counters.handshakes_shed.increment();
            tracing::debug!(client = client.address(), "too many handshakes");
        }
        match begin {
            Begin::Begun(slot) | Begin::Instead(slot) => Some(slot),
            Begin::Full => {
                self.failed(client, received, why::limit("handshakes"), "too many handshakes");
                reset(&self.socket)
            }
        }
    }

    fn failed(&self, client: &Client, received: &[u8], why: Why, error: &str) {
        let has_begun = !received.is_empty();
        self.worker.handshake_failed(&HandshakeFailure { client, begin: self.begin, has_begun, received, why, error });
    }

    /// Ends a connection whose client has said nothing of use; with a reset, if it must make room for others.
    fn gone<T>(&self) -> Option<T> {
        if self.alarm.was_rung() { reset(&self.socket) } else { None }
    }
}

/// Returns the limit that has ended the wait for a client before its first request.
fn limit_of(alarm: &Alarm) -> &'static str {
    if alarm.was_rung() { "connections" } else { "handshake" }
}

/// Counts a connection for which there is no room.
fn refused<T>(address: SocketAddr, worker: &Worker) -> Option<T> {
    worker.counters.connections_refused.increment();
    tracing::debug!(client = %address.ip(), "connection refused: too many connections");
    None
}

/// Makes the close of a connection a reset, so that the kernel keeps nothing of it.
fn reset<T>(socket: &TcpStream) -> Option<T> {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    None
}

/// Reads a PROXY header, and leaves the bytes after it in `received`.
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

/// Closes a connection that has served its purpose: the validation of a name.
async fn close<T>(mut stream: TlsStream<ServerSession>, alarm: &Alarm) -> Option<T> {
    let closed = poll_fn(|cx| match stream.poll_shutdown(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    });
    let _ = closed.await;
    None
}

/// Returns the TLS settings for a peer whose ClientHello is at the front of `received`.
pub(super) fn tls_settings(shared: &Snapshot, received: &[u8], peer: &Peer) -> Arc<ServerConfig> {
    let is_probe = peer.proxy == Some(peer.address);
    let challenge = shared.answers.tls(received);
    let probe = || shared.probe_tls.as_ref().filter(|_| is_probe);
    challenge.as_ref().or_else(probe).unwrap_or(&shared.tls).clone()
}

async fn handshake(
    socket: TcpStream,
    received: Vec<u8>,
    shared: &Snapshot,
    worker: &Worker,
    beginning: &HandshakeStart<'_>,
    alarm: &Alarm,
) -> Option<TlsStream<ServerSession>> {
    let client = beginning.client;
    let session = match ServerSession::new(tls_settings(shared, &received, &client.peer)) {
        Ok(session) => session,
        Err(error) => {
            tracing::error!(%error, "TLS configuration unusable");
            return None;
        }
    };
    // Clients send no name for an IP address: the certificate depends on the address that they have reached.
    let reached = shared.certificates.has_addresses().then(|| socket.local_addr().ok()).flatten();
    let session = session.reached(reached.map(|address| address.ip()));
    // The record of a failure has the client's offers.
    let offered = worker.access.as_ref().map(|_| received.clone()).unwrap_or_default();
    let mut stream = TlsStream::new(socket, session, received);
    let done = poll_fn(|cx| match stream.poll_handshake(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => alarm.poll_due(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    });
    match done.await {
        Ok(()) => {
            worker.handshake_succeeded(stream.session().is_resumed());
            Some(stream)
        }
        Err(error) => {
            worker.counters.handshakes_failed.increment();
            let name = stream.session().choice().and_then(|c| c.name.as_deref());
            tracing::debug!(client = client.address(), name, %error, "TLS handshake failed");
            let why = match error.kind() {
                io::ErrorKind::TimedOut if beginning.slot.is_lost() => why::limit("handshakes"),
                io::ErrorKind::TimedOut if alarm.was_rung() || error.raw_os_error().is_none() => {
                    why::limit(limit_of(alarm))
                }
                _ => why::of_handshake(&error, stream.alert_sent()),
            };
            let (begin, received, words) = (beginning.begin, &*offered, words_of(&error, &why));
            worker.handshake_failed(&HandshakeFailure { client, begin, has_begun: true, received, why, error: &words });
            None
        }
    }
}

/// Describes the failure of a handshake for its record.
fn words_of(error: &io::Error, why: &Why) -> String {
    match (why.limit, why.alert_sent) {
        (Some(_), _) => "the handshake took too long, or made room for others".to_owned(),
        (_, Some("unrecognized_name")) => "no site has this name".to_owned(),
        (_, Some("protocol_version")) => "no TLS version in common".to_owned(),
        (_, Some("no_application_protocol")) => "no application protocol in common".to_owned(),
        (_, Some("handshake_failure")) => "no cipher suite, group or signature algorithm in common".to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "the client closed the connection".to_owned(),
        _ if failure::is_not_tls(error) => {
            "the client does not speak TLS: plain HTTP on this port, for instance".to_owned()
        }
        _ => words(error),
    }
}
