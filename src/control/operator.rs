//! The ways to the operator: signals, the admin socket and its commands, the service manager, the access log.

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::admin::Command;
use super::socket::AdminListener;
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
    pub(super) commands: mpsc::Receiver<Command>,
    /// For the connections of the admin socket.
    pub(super) sender: mpsc::Sender<Command>,
    pub(super) listener: AdminListener,
    pub(super) notify: Notify,
    /// The time of the last notification to the service manager's watchdog.
    pub(super) shown: Instant,
    pub(super) access_log: Option<LogThread>,
}

impl Operator {
    pub(super) fn new(hangup: Signal, reopen_asked: Signal, notify: Notify, access_log: Option<LogThread>) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let listener = AdminListener::new();
        Self { hangup, reopen_asked, commands, sender, listener, notify, shown: Instant::now(), access_log }
    }
}
