//! The listener of the admin socket: its permissions, its life, and the limit of its connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::Control;
use super::admin_thread::start;
use super::api::CommandChannel;
use super::socket_file::{bind_unix, file_of, named};
use super::state::{
    AcceptedConnection, AdminStream, AdminTask, CONNECTIONS_MAX, Caller, LOOK_EVERY, OpenSocket, Thread,
};
use super::token::{SharedToken, Token};
use crate::config::AdminAddress;
use crate::os::words::words;

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

/// Gives a connection to the admin thread, if there is a place for it.
fn begin(socket: io::Result<AdminStream>, caller: Caller, thread: &Thread, places: &Arc<Semaphore>) {
    if let (Ok(socket), Ok(permit)) = (socket, places.clone().try_acquire_owned()) {
        let _ = thread.try_send(AdminTask::Connection(AcceptedConnection { socket, caller, permit }));
    }
}
