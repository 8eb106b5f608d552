//! The thread of the admin listener: it reads requests, renders pages and writes answers, so that neither the control thread
//! nor a worker waits for a reader. The control thread only accepts the connections.

use std::io;
use std::rc::Rc;

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::api::CommandChannel;
use super::face::{AdminConnection, AdminShared, serve};
use super::state::{AcceptedConnection, AdminStream, AdminTask};
use super::visitors::{PatientStream, listen};
use crate::admin::Pages;
use crate::config::admin::SharedAccess;
use crate::config::admin_https::SharedAdminHttps;
use crate::os::priority;

/// Starts the thread. It ends once the sender is dropped. `connections` bounds those that wait for it.
///
/// # Errors
///
/// If there can be no thread.
pub(super) fn start(
    api: CommandChannel,
    (access, https): (SharedAccess, SharedAdminHttps),
    connections: usize,
) -> io::Result<mpsc::Sender<AdminTask>> {
    let (sender, mut tasks) = mpsc::channel::<AdminTask>(connections);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("pintle-admin".into()).spawn(move || {
        // Whoever keeps this thread busy takes no time from the workers.
        priority::lower();
        let places = Rc::default();
        let shared = Rc::new(AdminShared { api, pages: Pages::new(access), https, places });
        LocalSet::new().block_on(&runtime, async move {
            while let Some(task) = tasks.recv().await {
                match task {
                    AdminTask::Connection(accepted) => _ = spawn_local(connect(accepted, shared.clone())),
                    AdminTask::Listener(listener) => _ = spawn_local(listen(listener, shared.clone())),
                }
            }
        });
    })?;
    Ok(sender)
}

/// Serves an accepted connection.
async fn connect(AcceptedConnection { socket, caller, permit }: AcceptedConnection, shared: Rc<AdminShared>) {
    let connection = AdminConnection { caller, shared, permit: Rc::new(permit) };
    let _ = match socket {
        AdminStream::Unix(socket) => match tokio::net::UnixStream::from_std(socket) {
            Ok(socket) => serve(TokioIo::new(PatientStream::new(socket)), connection).await,
            Err(_) => return,
        },
        AdminStream::Tcp(socket) => match tokio::net::TcpStream::from_std(socket) {
            Ok(socket) => serve(TokioIo::new(PatientStream::new(socket)), connection).await,
            Err(_) => return,
        },
    };
}
