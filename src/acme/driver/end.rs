//! The end of the driver: all work stops at once; DNS records are removed after that, or left to another process.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Driver, DriverThread};
use crate::acme::hook;
use crate::acme::request::DriverEnd;

/// The time limit for the removal of DNS records at the end of the process. The next start removes what is left.
const REMOVAL: Duration = Duration::from_secs(10);
/// The time limit for the end of all work, which waits for nothing but the disk.
const WORK: Duration = Duration::from_secs(10);

/// A driver that works no more, and may still remove DNS records.
pub struct Ending(Option<JoinHandle<()>>);

impl Ending {
    /// Waits until its DNS records are removed, up to a time limit.
    pub async fn finish(mut self) {
        let Some(thread) = self.0.take() else { return };
        if timeout(REMOVAL, spawn_blocking(move || thread.join())).await.is_err() {
            tracing::warn!("ACME: DNS records are not removed yet; the next start removes them");
        }
    }
}

impl Driver {
    /// Ends all work: nothing is ordered or written any more. An open order is on disk.
    pub async fn end(self, how: DriverEnd) -> Ending {
        let Self { messages, end, stopped, thread, .. } = self;
        if let Some(hook) = hook::running().filter(|_| how == DriverEnd::HandOver) {
            hook.hand_over();
        }
        let _ = end.send(how);
        drop(messages);
        if timeout(WORK, stopped).await.is_err() {
            tracing::warn!("ACME: the thread does not end");
        }
        Ending(thread)
    }
}

impl DriverThread {
    /// Ends all tasks, says so, and then removes DNS records, or leaves them to another process.
    pub(super) async fn end(mut self, how: DriverEnd, stopped: oneshot::Sender<()>) {
        for (_, task) in self.busy.drain() {
            task.abort();
            let _ = task.await;
        }
        let _ = stopped.send(());
        match (how, hook::running()) {
            (DriverEnd::Stop, _) => {
                for work in self.certificates.values() {
                    work.clean().await;
                }
            }
            (DriverEnd::HandOver, Some(hook)) => _ = spawn_blocking(move || hook.forget()).await,
            (DriverEnd::HandOver, None) => {}
        }
    }
}
