//! The listener of the admin socket: its permissions, its life, and the limit of its connections.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::Control;
use super::admin_thread::{AcceptedConnection, AdminStream, AdminTask, start};
use super::api::CommandChannel;
use super::face::Caller;
use super::page_listeners::PageListeners;
use super::token::{SharedToken, Token};
use crate::config::AdminAddress;
use crate::config::admin::SharedAccess;
use crate::os::words::words;

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 32;
/// The longest socket path that the kernel takes, in bytes.
const SOCKET_PATH_MAX: usize = 107;
/// The interval at which pintle checks that the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Everybody may write in the folder; with the sticky bit, they cannot replace files of others.
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The open socket.
pub(super) struct OpenSocket {
    address: AdminAddress,
    /// Device and inode of a Unix socket.
    file: Option<(u64, u64)>,
    /// The token that requests over TCP must carry.
    token: Option<SharedToken>,
    task: AbortHandle,
}

/// The way to the admin thread.
pub(super) type Thread = mpsc::Sender<AdminTask>;

impl OpenSocket {
    /// `true` if clients still find the socket: it may have been deleted, or replaced by another
    /// process's.
    fn is_there(&self) -> bool {
        match &self.address {
            AdminAddress::Unix(path) => file_of(path) == self.file,
            AdminAddress::Tcp { .. } => self.token.as_ref().is_none_or(|token| token.now().is_there()),
        }
    }

    /// Reads or makes the token again if its file was deleted, replaced or changed. `true` if
    /// nothing else is wrong.
    fn renew_token(&self) -> bool {
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

fn file_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// The listener for commands, or why there is none.
pub(super) struct AdminListener {
    open: Option<OpenSocket>,
    /// The thread that answers, once there was a listener.
    thread: Option<Thread>,
    /// The readers of the pages, as configured.
    access: SharedAccess,
    /// The pages over TLS.
    pub(super) pages: PageListeners,
    /// Permits for connections, over all sockets that there were.
    places: Arc<Semaphore>,
    trouble: Option<String>,
    look_at: Instant,
}

impl AdminListener {
    pub(super) fn new() -> Self {
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
    pub(super) fn wait(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
    }

    /// `true` while a request is being answered.
    pub(super) fn is_talking(&self) -> bool {
        self.places.available_permits() < CONNECTIONS_MAX
    }
}

impl Control {
    /// Opens the listener if needed, at intervals.
    pub(super) fn watch_admin_listener(&mut self) {
        if self.operator.listener.look_at <= Instant::now() {
            self.open_admin_listener();
        }
    }

    /// Opens the listener if needed, now.
    pub(super) fn open_admin_listener(&mut self) {
        self.open_admin_listener_as(false);
    }

    /// The same, replacing the socket of the previous process.
    pub(super) fn replace_admin_listener(&mut self) {
        self.open_admin_listener_as(true);
    }

    fn open_admin_listener_as(&mut self, replaces: bool) {
        self.operator.listener.look_at = Instant::now() + LOOK_EVERY;
        self.operator.listener.access.replace(self.config.admin_access.clone());
        self.open_page_listeners();
        let wanted = self.config.admin.as_ref();
        if self.operator.listener.open.as_ref().map(|open| &open.address) == wanted
            && self.operator.listener.open.as_ref().is_none_or(OpenSocket::is_there)
        {
            return;
        }
        if self.operator.listener.open.as_ref().is_some_and(|open| Some(&open.address) == wanted && open.renew_token())
        {
            return;
        }
        self.operator.listener.open = None;
        let Some(address) = wanted else { return };
        let address = address.clone();
        let thread = self.admin_thread();
        match thread.and_then(|thread| listen(&address, &thread, &self.operator.listener.places, replaces)) {
            Ok(listening) => {
                self.operator.listener.open = Some(listening);
                if self.operator.listener.trouble.take().is_some() {
                    tracing::info!("admin socket listening");
                }
            }
            Err(error) => {
                let error = words(&error);
                if self.operator.listener.trouble.as_ref() != Some(&error) {
                    tracing::error!(
                        error,
                        hint = "name another place in admin.listen: \"unix:/run/pintle/admin.sock\"",
                        "admin socket unavailable: reload, status and install will not find this process"
                    );
                }
                self.operator.listener.trouble = Some(error);
            }
        }
    }

    /// The way to the thread of the pages, which is started now at the latest.
    pub(super) fn admin_thread(&mut self) -> io::Result<Thread> {
        let listener = &mut self.operator.listener;
        if let Some(thread) = &listener.thread {
            return Ok(thread.clone());
        }
        let settings = (listener.access.clone(), listener.pages.https.clone());
        let thread = start(CommandChannel(self.operator.sender.clone()), settings, CONNECTIONS_MAX)?;
        listener.thread = Some(thread.clone());
        Ok(thread)
    }

    /// Closes the listeners.
    pub(super) fn close_admin_listener(&mut self) {
        self.operator.listener.open = None;
        self.operator.listener.pages.close();
    }
}

/// Opens a listener.
fn listen(address: &AdminAddress, thread: &Thread, places: &Arc<Semaphore>, replaces: bool) -> io::Result<OpenSocket> {
    let (thread, places) = (thread.clone(), places.clone());
    let (task, file, token) = match address {
        AdminAddress::Unix(path) => {
            let listener = bind_unix(path, replaces)?;
            let task = spawn_local(async move {
                loop {
                    match listener.accept().await {
                        Ok((socket, _)) => {
                            let caller = if is_owner(&socket) { Caller::Owner } else { Caller::Stranger };
                            begin(socket.into_std().map(AdminStream::Unix), caller, &thread, &places);
                        }
                        Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    }
                }
            });
            (task, file_of(path), None)
        }
        AdminAddress::Tcp { address, token } => {
            let path =
                token.as_ref().ok_or_else(|| named("a port needs state.directory", &io::ErrorKind::NotFound.into()))?;
            let token = Token::provide(path).map_err(|e| named(&path.display().to_string(), &e))?;
            let token = SharedToken::new(token);
            let listener = std::net::TcpListener::bind(address).map_err(|e| named(&address.to_string(), &e))?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let of_now = token.clone();
            let task = spawn_local(async move {
                loop {
                    match listener.accept().await {
                        Ok((socket, from)) => {
                            let caller = Caller::Tcp { token: of_now.now(), from };
                            begin(socket.into_std().map(AdminStream::Tcp), caller, &thread, &places);
                        }
                        Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    }
                }
            });
            (task, None, Some(token))
        }
    };
    Ok(OpenSocket { address: address.clone(), file, token, task: task.abort_handle() })
}

/// The file's permissions decide who may connect, and a slip can widen them. The kernel says who
/// did connect (unix(7)).
fn is_owner(socket: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    socket.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("admin.listen: {what}: {}", words(error)))
}

/// Creates the folder of a socket, for this user alone.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Creates a socket for this user alone. It gets its name after its permissions, so that there is
/// no moment between.
fn bind_unix(path: &Path, replaces: bool) -> io::Result<UnixListener> {
    let error = |e: &io::Error| named(&path.display().to_string(), e);
    let fresh = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    if fresh.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(error(&io::Error::new(io::ErrorKind::InvalidInput, "the path is too long for a socket")));
    }
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        make_folder(folder).map_err(|e| error(&e))?;
        let mode = fs::metadata(folder).map_err(|e| error(&e))?.mode();
        if mode & WRITABLE_BY_ALL != 0 && mode & STICKY == 0 {
            let why = format!("everybody can replace the socket: chmod o-w {}", folder.display());
            return Err(error(&io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
    }
    // A live process answers; a dead one has left its socket behind.
    if !replaces && std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(error(&io::Error::new(io::ErrorKind::AddrInUse, "another pintle listens there")));
    }
    if fs::symlink_metadata(path).is_ok_and(|m| !m.file_type().is_socket()) {
        return Err(error(&io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is not a socket")));
    }
    let _ = fs::remove_file(&fresh);
    let bound = std::os::unix::net::UnixListener::bind(&fresh).map_err(|e| error(&e))?;
    let named = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).and_then(|()| fs::rename(&fresh, path));
    if let Err(e) = named {
        let _ = fs::remove_file(&fresh);
        return Err(error(&e));
    }
    bound.set_nonblocking(true)?;
    UnixListener::from_std(bound)
}

/// Gives a connection to the admin thread, if there is a place for it.
fn begin(socket: io::Result<AdminStream>, caller: Caller, thread: &Thread, places: &Arc<Semaphore>) {
    if let (Ok(socket), Ok(permit)) = (socket, places.clone().try_acquire_owned()) {
        let _ = thread.try_send(AdminTask::Connection(AcceptedConnection { socket, caller, permit }));
    }
}
