//! The thread of the admin listener: it reads requests, renders pages and writes answers, so that neither the control thread
//! nor a worker waits for a reader. The control thread only accepts the connections.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{LocalSet, spawn_local};

use super::admin::{AdminShared, Caller, answer};
use super::api::CommandChannel;
use crate::admin::Pages;

/// Time limit for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the admin listener.
pub(super) struct AdminConnection {
    pub(super) socket: AdminStream,
    pub(super) caller: Caller,
    /// The permit for the connection, given back when it ends.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The socket of a connection, without a runtime.
pub(super) enum AdminStream {
    Unix(UnixStream),
    Tcp(std::net::TcpStream),
}

/// Starts the thread. It ends once the sender is dropped. `connections` bounds those that wait for it.
///
/// # Errors
///
/// If there can be no thread.
pub(super) fn start(api: CommandChannel, connections: usize) -> io::Result<mpsc::Sender<AdminConnection>> {
    let (sender, mut accepted) = mpsc::channel::<AdminConnection>(connections);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("pintle-admin".into()).spawn(move || {
        let shared = Rc::new(AdminShared { api, pages: Pages::new() });
        LocalSet::new().block_on(&runtime, async move {
            while let Some(AdminConnection { socket, caller, permit }) = accepted.recv().await {
                let shared = shared.clone();
                spawn_local(async move {
                    let _permit = permit;
                    let _ = match socket {
                        AdminStream::Unix(socket) => match tokio::net::UnixStream::from_std(socket) {
                            Ok(socket) => serve(socket, &caller, &shared).await,
                            Err(_) => return,
                        },
                        AdminStream::Tcp(socket) => match tokio::net::TcpStream::from_std(socket) {
                            Ok(socket) => serve(socket, &caller, &shared).await,
                            Err(_) => return,
                        },
                    };
                });
            }
        });
    })?;
    Ok(sender)
}

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
    caller: &Caller,
    shared: &AdminShared,
) -> hyper::Result<()> {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request, caller, shared).await) });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service)
        .await
}
