//! Accepts on the listeners of one worker, as they change, until it drains.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::channels::{Drain, WorkerListeners};
use super::connection;
use super::worker::{EVERY_SITE, Worker};
use crate::os::words::words;
use crate::policy::Scheme;

/// The pause in accepting when descriptors have run out.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);

/// A listener with a task that accepts on it.
struct Accepting {
    address: (SocketAddr, Scheme),
    stop: watch::Sender<Until>,
    task: JoinHandle<()>,
}

/// The signal at which a task stops accepting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Not yet.
    Never,
    /// Once the queue is empty: the listener will be closed.
    Empty,
    /// Now: another process accepts on the same listener, and takes the queue.
    Now,
}

/// Accepts on the listeners, as they change, until a drain begins. Returns how to drain.
pub(super) async fn listen(
    worker: &Rc<Worker>,
    mut listeners: watch::Receiver<WorkerListeners>,
    draining: &mut watch::Receiver<Drain>,
) -> io::Result<Drain> {
    let mut accepting: Vec<Accepting> = Vec::new();
    loop {
        let (keep, new) = {
            let listening = listeners.borrow_and_update();
            let new = std::mem::take(&mut *listening.new.lock().unwrap_or_else(PoisonError::into_inner));
            (listening.keep.clone(), new)
        };
        let tls = keep.iter().filter(|(_, scheme)| *scheme == Scheme::Https);
        worker.set_https_ports(tls.map(|(address, _)| address.port()).collect());
        accepting.retain(|listener| {
            let stays = keep.contains(&listener.address);
            if !stays {
                listener.stop.send_replace(Until::Empty);
            }
            stays
        });
        for (listener, scheme) in new {
            let address = listener.local_addr()?;
            if !keep.contains(&(address, scheme)) {
                continue;
            }
            let (stop, stopped) = watch::channel(Until::Never);
            let task = accept(TcpListener::from_std(listener)?, scheme, worker.clone(), stopped);
            accepting.push(Accepting { address: (address, scheme), stop, task: tokio::task::spawn_local(task) });
        }
        tokio::select! {
            // The sender lives as long as the server. Without it there is nothing left to do.
            _ = draining.wait_for(|draining| *draining != Drain::No) => break,
            changed = listeners.changed() => if changed.is_err() { break },
        }
    }
    let how = draining.borrow().clone();
    for listener in accepting {
        let until = match &how {
            Drain::HandOver { kept, .. } if kept.contains(&listener.address) => Until::Now,
            _ => Until::Empty,
        };
        listener.stop.send_replace(until);
        let _ = listener.task.await;
    }
    Ok(how)
}

/// Accepts until it is stopped, and then empties the queue: with SO_REUSEPORT, closing the listener would reset it.
async fn accept(listener: TcpListener, scheme: Scheme, worker: Rc<Worker>, mut stopped: watch::Receiver<Until>) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|until| *until != Until::Never) => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => begin(socket, address, scheme, &worker),
                Err(error) => pause_after(&error, &worker).await,
            },
        }
    }
    if *stopped.borrow() == Until::Now {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok((socket, address))) = listener.poll_accept(&mut cx) {
        begin(socket, address, scheme, &worker);
    }
}

fn begin(socket: TcpStream, address: SocketAddr, scheme: Scheme, worker: &Rc<Worker>) {
    worker.counters.connections_accepted.increment();
    // Counts from here on: a drain that begins before the task has run waits for it.
    let open = worker.connection();
    tokio::task::spawn_local(connection::serve(socket, address, scheme, worker.clone(), open));
}

/// Pauses after an error. A connection that ended before it was accepted is not an error. Out of descriptors or memory: back
/// off. Existing connections are unaffected.
async fn pause_after(error: &io::Error, worker: &Worker) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    worker.warn_seldom(EVERY_SITE, "accept", || {
        tracing::error!(error = %words(error), "cannot accept connections; raise the limit of open files (LimitNOFILE=, ulimit -n)");
    });
    tokio::time::sleep(NO_FILES_PAUSE).await;
}
