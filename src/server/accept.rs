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

use super::channels::{Drain, Listening};
use super::connection;
use super::worker::{EVERY_SITE, Worker};
use crate::policy::Scheme;

/// How long accepting pauses when there are no more files to be had.
const NO_FILES_PAUSE: Duration = Duration::from_millis(100);

/// A listener that is accepted on.
struct Accepting {
    address: (SocketAddr, Scheme),
    stop: watch::Sender<Until>,
    task: JoinHandle<()>,
}

/// Until when a listener is accepted on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It goes on.
    Told,
    /// It is to be closed, once what is queued is accepted.
    Empty,
    /// Another process accepts on it, too: what is queued is for that.
    Now,
}

/// Accepts on what there is to listen on, as it changes, until the drain begins.
pub(super) async fn listen(
    worker: &Rc<Worker>,
    mut listeners: watch::Receiver<Listening>,
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
            let (stop, stopped) = watch::channel(Until::Told);
            let task = accept(TcpListener::from_std(listener)?, scheme, worker.clone(), stopped);
            accepting.push(Accepting { address: (address, scheme), stop, task: tokio::task::spawn_local(task) });
        }
        tokio::select! {
            // The sender lives as long as the server; without it, too, there is nothing left to do.
            _ = draining.wait_for(|draining| *draining != Drain::No) => break,
            changed = listeners.changed() => if changed.is_err() { break },
        }
    }
    let how = draining.borrow().clone();
    for listener in accepting {
        let until = match &how {
            Drain::HandOver(kept) if kept.contains(&listener.address) => Until::Now,
            _ => Until::Empty,
        };
        listener.stop.send_replace(until);
        let _ = listener.task.await;
    }
    Ok(how)
}

/// Accepts until it is stopped, and then what is queued already: with SO_REUSEPORT, closing the listener would reset it.
async fn accept(listener: TcpListener, scheme: Scheme, worker: Rc<Worker>, mut stopped: watch::Receiver<Until>) {
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|until| *until != Until::Told) => break,
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
    // From here on it counts: a drain that begins before its task has run waits for it.
    let open = worker.connection();
    tokio::task::spawn_local(connection::serve(socket, address, scheme, worker.clone(), open));
}

/// A connection that ended before it was accepted is nobody's fault. Without files or memory there is no use in
/// trying again at once; those who have connections keep them.
async fn pause_after(error: &io::Error, worker: &Worker) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    worker.warn_seldom(EVERY_SITE, "accept", || {
        tracing::error!(%error, "cannot accept connections; raise the limit of open files (LimitNOFILE=, ulimit -n)");
    });
    tokio::time::sleep(NO_FILES_PAUSE).await;
}
