//! The ways to the operator: signals, the admin socket and its commands, the service manager, the access log.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::listener::AdminListener;
use super::spans::Spans;
use crate::control::admin::AdminCommand;
use crate::graphite::{Graphite, GraphiteCounters};
use crate::os::systemd::Notify;
use crate::telemetry::LogThread;

/// Commands that wait for their turn.
const COMMANDS: usize = 16;

/// Signals and commands of the operator, and the places where pintle answers.
pub(in crate::control) struct Operator {
    /// SIGHUP: reload.
    pub(in crate::control) hangup: Signal,
    /// SIGUSR1: reopen the logs.
    pub(in crate::control) reopen_asked: Signal,
    pub(in crate::control) commands: mpsc::Receiver<AdminCommand>,
    /// For the connections of the admin socket.
    pub(in crate::control) sender: mpsc::Sender<AdminCommand>,
    pub(in crate::control) listener: AdminListener,
    pub(in crate::control) notify: Notify,
    /// The time of the last notification to the service manager's watchdog.
    pub(in crate::control) shown: Instant,
    pub(in crate::control) access_log: Option<LogThread>,
    /// The thread that sends metrics, if it is wanted.
    pub(in crate::control) push: Option<Push>,
    pub(in crate::control) graphite_numbers: Arc<GraphiteCounters>,
    pub(in crate::control) spans: Spans,
}

/// The thread that sends metrics, and the time of the next ones.
pub(in crate::control) struct Push {
    pub(in crate::control) graphite: Graphite,
    pub(in crate::control) due: Instant,
}

impl Operator {
    pub(in crate::control) fn new(
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
