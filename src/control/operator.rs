//! The ways to the operator: signals, the admin socket and its commands, the service manager, the access log.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admin::AdminCommand;
use super::socket::AdminListener;
use super::spans::Spans;
use crate::graphite::{Graphite, GraphiteCounters};
use crate::os::systemd::Notify;
use crate::telemetry::LogThread;

/// Commands that wait for their turn.
const COMMANDS: usize = 16;

/// Signals and commands of the operator, and the places where pintle answers.
pub(super) struct Operator {
    /// SIGHUP: reload.
    pub(super) hangup: Signal,
    /// SIGUSR1: reopen the logs.
    pub(super) reopen_asked: Signal,
    pub(super) commands: mpsc::Receiver<AdminCommand>,
    /// For the connections of the admin socket.
    pub(super) sender: mpsc::Sender<AdminCommand>,
    pub(super) listener: AdminListener,
    pub(super) notify: Notify,
    /// The time of the last notification to the service manager's watchdog.
    pub(super) shown: Instant,
    pub(super) access_log: Option<LogThread>,
    /// The thread that sends metrics, if it is wanted.
    pub(super) push: Option<Push>,
    pub(super) graphite_numbers: Arc<GraphiteCounters>,
    pub(super) spans: Spans,
}

/// The thread that sends metrics, and the time of the next ones.
pub(super) struct Push {
    pub(super) graphite: Graphite,
    pub(super) due: Instant,
}

impl Operator {
    pub(super) fn new(
        hangup: Signal,
        reopen_asked: Signal,
        notify: Notify,
        access_log: Option<LogThread>,
        spans: Spans,
    ) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let listener = AdminListener::new();
        let (push, graphite_numbers) = (None, Arc::default());
        let shown = Instant::now();
        Self {
            hangup,
            reopen_asked,
            commands,
            sender,
            listener,
            notify,
            shown,
            access_log,
            push,
            graphite_numbers,
            spans,
        }
    }
}
