//! The listener for commands and pages, and the tasks that it gives to its thread.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::admin::entrance::ClientProof;
use crate::config::AdminAddress;
use crate::config::admin::SharedAccess;
use crate::config::admin_https::{AdminHttps, SharedAdminHttps};
use crate::control::socket_file::file_of;
use crate::control::token::{SharedToken, Token};
use crate::os::words::words;

/// Connections at the same time.
pub(in crate::control) const CONNECTIONS_MAX: usize = 32;
/// The interval at which pintle checks that the socket is still there.
pub(in crate::control) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The listener for commands, or why there is none.
pub(in crate::control) struct AdminListener {
    pub(in crate::control) open: Option<OpenSocket>,
    /// The thread that answers, once there was a listener.
    pub(in crate::control) thread: Option<Thread>,
    /// The readers of the pages, as configured.
    pub(in crate::control) access: SharedAccess,
    /// The pages over TLS.
    pub(in crate::control) pages: PageListeners,
    /// Permits for connections, over all sockets that there were.
    pub(in crate::control) places: Arc<Semaphore>,
    pub(in crate::control) trouble: Option<String>,
    pub(in crate::control) look_at: Instant,
}

impl AdminListener {
    pub(in crate::control) fn new() -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self {
            open: None,
            thread: None,
            access: SharedAccess::default(),
            pages: PageListeners::default(),
            places,
            trouble: None,
            look_at: Instant::now(),
        }
    }

    /// Delays the next attempt to open it.
    pub(in crate::control) fn wait(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
    }

    /// `true` while a request is being answered.
    pub(in crate::control) fn is_talking(&self) -> bool {
        self.places.available_permits() < CONNECTIONS_MAX
    }
}

/// The open socket.
pub(in crate::control) struct OpenSocket {
    pub(in crate::control) address: AdminAddress,
    /// Device and inode of a Unix socket.
    pub(in crate::control) file: Option<(u64, u64)>,
    /// The token that requests over TCP must carry.
    pub(in crate::control) token: Option<SharedToken>,
    pub(in crate::control) task: AbortHandle,
}

/// The way to the admin thread.
pub(in crate::control) type Thread = mpsc::Sender<AdminTask>;

impl OpenSocket {
    /// `true` if clients still find the socket: it may have been deleted, or replaced by another
    /// process's.
    pub(in crate::control) fn is_there(&self) -> bool {
        match &self.address {
            AdminAddress::Unix(path) => file_of(path) == self.file,
            AdminAddress::Tcp { .. } => self.token.as_ref().is_none_or(|token| token.now().is_there()),
        }
    }

    /// Reads or makes the token again if its file was deleted, replaced or changed. `true` if
    /// nothing else is wrong.
    pub(in crate::control) fn renew_token(&self) -> bool {
        let (AdminAddress::Tcp { token: Some(path), .. }, Some(token)) = (&self.address, &self.token) else {
            return false;
        };
        let renewed = Token::provide(path);
        match &renewed {
            Ok(new) if token.now().is_same(new) => {}
            Ok(_) => {
                let why = "its file was removed, changed, or open to others";
                tracing::warn!(why, file = %path.display(), "new token for commands over TCP");
            }
            Err(error) => {
                tracing::error!(error = %words(error), file = %path.display(), "no token for commands over TCP");
            }
        }
        renewed.map(|new| token.replace(new)).is_ok()
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.task.abort();
        if let (AdminAddress::Unix(path), true) = (&self.address, self.is_there()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A bound socket for the pages.
#[derive(Debug)]
pub struct PageSocket {
    /// The configured address.
    pub asked: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

/// An open listener.
pub(in crate::control) struct OpenPageListener {
    pub(in crate::control) is: PageSocket,
    pub(in crate::control) address: SocketAddr,
    /// Closes the listener when it is dropped.
    pub(in crate::control) _open: oneshot::Sender<Infallible>,
}

/// The listeners of the pages over TLS.
#[derive(Default)]
pub(in crate::control) struct PageListeners {
    pub(in crate::control) open: Vec<OpenPageListener>,
    /// Sockets that wait for their use.
    pub(in crate::control) bound: Vec<PageSocket>,
    /// The settings in use.
    pub(in crate::control) https: SharedAdminHttps,
    /// The faults that have been logged.
    pub(in crate::control) reported: Vec<String>,
}

impl PageListeners {
    /// Closes all listeners.
    pub(in crate::control) fn close(&mut self) {
        self.open.clear();
        self.bound.clear();
    }

    /// The sockets, for the next process.
    pub(in crate::control) fn shared(&self) -> io::Result<Vec<PageSocket>> {
        let share =
            |open: &OpenPageListener| Ok(PageSocket { asked: open.is.asked, socket: open.is.socket.try_clone()? });
        self.open.iter().map(share).collect()
    }
}

/// A task for the thread.
pub(in crate::control) enum AdminTask {
    /// Serve this connection.
    Connection(AcceptedConnection),
    /// Serve what this listener accepts.
    Listener(VisitorListener),
}

/// A connection that the control thread has accepted.
pub(in crate::control) struct AcceptedConnection {
    pub(in crate::control) socket: AdminStream,
    pub(in crate::control) caller: Caller,
    /// The permit for the connection, given back when it ends.
    pub(in crate::control) permit: OwnedSemaphorePermit,
}

/// The socket of a connection, without a runtime.
pub(in crate::control) enum AdminStream {
    Unix(UnixStream),
    Tcp(std::net::TcpStream),
}

/// The origin of a request.
pub(in crate::control) enum Caller {
    /// From the Unix socket, by a process of this user or of root.
    Owner,
    /// From the Unix socket, by a process of another user, whatever the file's permissions.
    Stranger,
    /// From a browser, through `pintle page`: a session decides.
    Browser,
    /// From this host over TCP; the token or a session decides.
    Tcp { token: Arc<Token>, from: SocketAddr },
    /// Over TLS; a session or a certificate decides.
    Visitor { from: SocketAddr, https: Arc<AdminHttps>, client: ClientProof },
}

/// A listener for the thread of the pages.
pub(in crate::control) struct VisitorListener {
    pub(in crate::control) socket: TcpListener,
    /// Ends when the listener must close: its other end is dropped.
    pub(in crate::control) open: oneshot::Receiver<Infallible>,
}
