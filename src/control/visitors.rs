//! Readers on other hosts: the listeners of the pages over TLS, on the thread of the pages. Their connections have places of
//! their own, so that strangers keep no command of the operator waiting.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::face::{AdminConnection, AdminShared, serve};
use super::state::{Caller, VisitorListener};
use super::visitor_places::VisitorPlace;
use crate::admin::attempts::LogInNetwork;
use crate::admin::entrance::ClientProof;
use crate::config::admin_https::{AdminHttps, AdminTls};

/// The longest time that a client may take no byte of its answer.
const STALL: Duration = Duration::from_secs(30);
/// A pause after an error of the listener.
const PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections until the listener must close.
pub(super) async fn listen(listener: VisitorListener, shared: Rc<AdminShared>) {
    let VisitorListener { socket, mut open } = listener;
    let Ok(socket) = TcpListener::from_std(socket) else { return };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut open => return,
            accepted = socket.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let Some((https, tls)) = shared.https.now().and_then(|https| Some((https.clone(), https.tls.clone()?))) else {
            continue;
        };
        if let Some(place) = shared.places.take(LogInNetwork::of(Some(from.ip())), https.limits) {
            spawn_local(visit(stream, from, (https, tls), place, shared.clone()));
        }
    }
}

/// Serves one connection.
async fn visit(
    stream: TcpStream,
    from: SocketAddr,
    (https, tls): (Arc<AdminHttps>, AdminTls),
    place: VisitorPlace,
    shared: Rc<AdminShared>,
) {
    let handshake = timeout(https.limits.handshake, TlsAcceptor::from(tls.config).accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let client = proof(stream.get_ref().1, &https);
    if let ClientProof::Refused(why) = &client
        && shared.pages.entrance.may_warn()
    {
        tracing::warn!(%from, why, "client certificate refused");
    }
    let caller = Caller::Visitor { from, https, client };
    let connection = AdminConnection { caller, shared, permit: Rc::new(place) };
    let _ = serve(TokioIo::new(PatientStream::new(stream)), connection).await;
}

/// The worth of the certificates that a client has shown.
fn proof(session: &rustls::ServerConnection, https: &AdminHttps) -> ClientProof {
    let Some((authority, role)) = &https.clients else { return ClientProof::NotWanted };
    match session.peer_certificates() {
        None | Some([]) => ClientProof::Missing,
        Some(chain) => match authority.judge(chain, Timestamp::now()) {
            Ok(identity) => ClientProof::Proved(identity, *role),
            Err(why) => ClientProof::Refused(why),
        },
    }
}

/// A connection whose client must continue to read.
pub(super) struct PatientStream<S> {
    inner: S,
    /// The end of the wait for the client.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> PatientStream<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, stalled: None }
    }

    /// The outcome of an attempt to write, or an error once the client has taken nothing for too long.
    fn within<T>(&mut self, cx: &mut Context<'_>, tried: Poll<std::io::Result<T>>) -> Poll<std::io::Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let tried = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.within(cx, tried)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let tried = Pin::new(&mut self.inner).poll_flush(cx);
        self.within(cx, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let tried = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.within(cx, tried)
    }
}
