//! The end: running requests finish, questions are still answered, and nothing new begins.

use std::io;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep};

use super::Control;
use super::admin::{AdminCommand, DRAINING, Tested};
use super::cache::close_disk;
use super::changed_pages::{heard_changes, send_changes};
use super::state::Successor;
use crate::acme::request::DriverEnd;
use crate::handover::Channel;
use crate::os::words::words;
use crate::server::Drain;

/// The interval between checks whether everything has finished.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The interval between reports of progress in the log.
const PROGRESS: Duration = Duration::from_secs(5);

/// The time that a client of the admin socket has to read its answer after everything else has
/// finished.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// Everything has finished, or the time limit has passed.
    Drained,
    /// A second signal asked for an end without waiting.
    Asked,
}

impl Control {
    /// Lets everything finish. A second `stop` ends the wait.
    ///
    /// # Errors
    ///
    /// If a worker ended by a bug.
    pub(super) async fn end(
        mut self,
        successor: Option<Successor>,
        stop: &mut impl AsyncFnMut(),
    ) -> io::Result<ProcessEnd> {
        let limit = self.config.snapshot.limits.drain;
        self.draining = true;
        let is_lent = successor.is_some();
        let how = if is_lent { DriverEnd::HandOver } else { DriverEnd::Stop };
        let acme = self.end_acme(how).await;
        self.operator.push = None;
        let hooks_end = spawn_local(self.end_hooks(successor.as_ref().map(|successor| successor.pid)));
        let mut to_successor = None;
        match successor {
            Some(successor) => to_successor = self.make_way_for(successor).await,
            None => {
                self.server.drain(Drain::Stop);
                tracing::info!(?limit, "draining: no new connections, running requests may finish");
                self.operator.notify.stopping("draining");
                // Every promise must be known at the next start, whatever has become of the file.
                self.leave_ledger(false).await;
                // A new process that does not serve yet must not begin to.
                self.upgrades.under_way = None;
                drop(self.give_up_successor());
            }
        }
        let (mut look, mut reported_at) = (interval(LOOK_EVERY), Instant::now());
        while !self.server.has_drained() {
            tokio::select! {
                biased;
                () = stop() => {
                    tracing::warn!("second signal: stopping without waiting");
                    return Ok(ProcessEnd::Asked);
                }
                _ = self.operator.reopen_asked.recv() => self.reopen_log().await,
                Some(command) = self.operator.commands.recv() => self.answer_at_the_end(command),
                pages = heard_changes(&mut self.upgrades.heard) => self.apply_changes(&pages),
                _ = look.tick() => {}
            }
            send_changes(&self.config, &mut to_successor).await;
            self.report_draining(&mut reported_at);
            self.show_life();
        }
        // First: the new process answers with these pages meanwhile.
        send_changes(&self.config, &mut to_successor).await;
        if let Some(acme) = acme {
            acme.finish().await;
        }
        self.leave_ledger(is_lent).await;
        self.hear_out().await;
        let _ = hooks_end.await;
        self.leave_disk().await;
        let requests = self.server.counters().requests.get();
        self.server.finish()?;
        send_changes(&self.config, &mut to_successor).await;
        self.operator.spans.finish();
        tracing::info!(requests, "stopped");
        Ok(ProcessEnd::Drained)
    }

    /// Lets clients of the admin socket read their last answers.
    async fn hear_out(&mut self) {
        self.close_admin_listener();
        let end = Instant::now() + LAST_WORDS;
        while self.operator.listener.is_talking() && Instant::now() < end {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Leaves the stored pages on disk.
    async fn leave_disk(&self) {
        if let Some(closing) = close_disk(&self.config) {
            let _ = closing.await;
        }
        self.config.disk.iter().for_each(|service| service.end());
    }

    /// Reports the progress once in a while.
    fn report_draining(&self, reported_at: &mut Instant) {
        if reported_at.elapsed() < PROGRESS {
            return;
        }
        *reported_at = Instant::now();
        let connections = self.server.connections();
        tracing::info!(connections, "draining");
        self.operator.notify.status(&format!("draining: {} left", crate::reason::counted(connections, "connection")));
    }

    /// Stops accepting, and then tells the successor. Returns the channel to it.
    async fn make_way_for(&mut self, successor: Successor) -> Option<Channel> {
        let limit = self.config.snapshot.limits.drain;
        let rotates = successor.rotates;
        self.server.drain(Drain::HandOver { kept: successor.kept.clone().into(), rotates });
        tracing::info!(
            ?limit,
            successor = successor.pid,
            "draining: another process serves; running requests may finish"
        );
        // Only then may the successor send pins that the chains here break.
        self.server.accepts_no_more().await;
        self.make_way(successor).await
    }

    /// Leaves a ledger from which the next start knows every promise. If the clock was set a moment ago, the corrected dates
    /// are written now: after a reboot, nothing shows that they are needed. A successor writes its own.
    async fn leave_ledger(&mut self, is_lent: bool) {
        let _ = self.now();
        let mended = if is_lent { Vec::new() } else { self.promises.leases.borrow().mended() };
        let written = match self.record(mended).await {
            Ok(()) => self.keep_ledger().await,
            failed => failed,
        };
        if let Err(error) = written {
            tracing::error!(error = %words(&error), "cannot write the ledger: the next start will not know all promises");
        }
    }

    /// Questions are answered; commands that change something are refused.
    fn answer_at_the_end(&self, command: AdminCommand) {
        match command {
            AdminCommand::Status(reply) => _ = reply.send(self.status()),
            AdminCommand::Metrics { format, reply } => _ = reply.send(self.metrics(format)),
            AdminCommand::Ready { reply, .. } => _ = reply.send(Err(DRAINING.to_owned())),
            AdminCommand::Promised { site, reply } => _ = reply.send(self.promised(&site)),
            AdminCommand::Book(reply) => _ = reply.send(self.known()),
            AdminCommand::View { question, reply } => _ = reply.send(self.view(question)),
            AdminCommand::Served(reply) => _ = reply.send(self.served()),
            AdminCommand::Judge { asked, reply } => _ = reply.send(self.judge_certificate(&asked)),
            AdminCommand::Records(reply) => _ = reply.send(self.kept_records()),
            AdminCommand::TestHooks { reply, .. } => _ = reply.send(Tested::default()),
            AdminCommand::Config(reply) => self.config_in_use(reply),
            AdminCommand::Keys { wanted, reply } => _ = reply.send(self.keys(&wanted)),
            AdminCommand::Outline(reply) => _ = reply.send(None),
            AdminCommand::Cache { call, reply } => _ = reply.send(self.cache(&call)),
            AdminCommand::Purge { call, reply } => self.purge(&call, reply),
            AdminCommand::Reload { .. }
            | AdminCommand::CheckConfig { .. }
            | AdminCommand::Install(_)
            | AdminCommand::ChangeConfig { .. }
            | AdminCommand::Certificates { .. }
            | AdminCommand::Ledger { .. }
            | AdminCommand::Promise { .. }
            | AdminCommand::Acme(_)
            | AdminCommand::Explain { .. }
            | AdminCommand::ExplainRecord { .. }
            | AdminCommand::Findings { .. }
            | AdminCommand::Upgrade(_) => {}
        }
    }
}
