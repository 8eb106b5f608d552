//! Makes room for a connection at the limit, by ending a silent or idle one in this worker or in another.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::admission::{AdmissionPass, ClientNetwork, Reached};
use super::channels::ReliefRequest;
use super::connections::ConnectionEntry;
use super::worker::Worker;
use crate::clock::Alarm;

/// The longest wait for another worker's reply.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves the requests of other workers.
pub(super) async fn hear(worker: Rc<Worker>, mut requests: mpsc::Receiver<ReliefRequest>) {
    while let Some(ReliefRequest { network, reply }) = requests.recv().await {
        let _ = reply.send(worker.make_room(network, None));
    }
}

/// A connection that arrives. It is listed already, and may itself have to make room while it waits.
pub(super) struct ArrivingConnection<'a> {
    pub(super) worker: &'a Worker,
    pub(super) entry: &'a ConnectionEntry,
    pub(super) alarm: &'a Alarm,
}

impl ArrivingConnection<'_> {
    /// Admits the connection, or returns `None`. At its network's limit, a connection of that network makes room; near the
    /// limit of all, any connection does.
    pub(super) async fn admit(&self, network: Option<ClientNetwork>) -> Option<AdmissionPass> {
        let (worker, view) = (self.worker, self.worker.view());
        let limits = &view.shared.limits;
        let (pass, reached) = worker.admission.admit(network, limits.connections, limits.connections_per_client);
        if !self.make_room(reached).await {
            return None;
        }
        if reached.is_none() && worker.admission.is_above(limits.shed_idle_at) {
            worker.make_room(None, Some(self.entry));
        }
        Some(pass)
    }

    /// Makes room if a limit was reached. Returns `false` if no connection can be ended.
    pub(super) async fn make_room(&self, reached: Option<Reached>) -> bool {
        let network = match reached {
            None => return true,
            Some(Reached::Client(network)) => Some(network),
            Some(Reached::Total) => None,
        };
        self.worker.limit_reached(if network.is_some() { "connections_per_client" } else { "connections" });
        if self.worker.make_room(network, Some(self.entry)) {
            return true;
        }
        for (number, other) in self.worker.peers.iter().enumerate() {
            let (reply, answer) = oneshot::channel();
            if number != self.worker.number
                && other.try_send(ReliefRequest { network, reply }).is_ok()
                && self.hears(answer).await
            {
                return true;
            }
        }
        false
    }

    async fn hears(&self, answer: oneshot::Receiver<bool>) -> bool {
        let mut answer = pin!(tokio::time::timeout(PATIENCE, answer));
        poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(matches!(answer, Ok(Ok(true)))),
            Poll::Pending => self.alarm.poll_due(cx).map(|()| false),
        })
        .await
    }
}
