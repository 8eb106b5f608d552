//! The loop of the control thread: one event after the other, until the end.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Control;
use super::admin::AdoptionOrigin;
use super::adopt::announce_site;
use super::changed_pages::heard_changes;
use super::ending::ProcessEnd;
use super::state::Successor;
use super::takeover::released;
use super::upgrade::stands_by;
use crate::config::history::How;
use crate::tls::key_process;

/// The interval between checks of leases, ramps and the clock. A lease lasts at least eight of these.
const TICK: Duration = Duration::from_millis(500);
/// The number of sites logged one by one at the start; nobody would read ten thousand.
const ANNOUNCED_MAX: usize = 200;

impl Control {
    /// Logs what is served.
    pub fn announce(&self) {
        for (address, scheme) in self.listening() {
            tracing::info!(%address, scheme = scheme.as_str(), "listening");
        }
        for site in self.config.sites().take(ANNOUNCED_MAX) {
            announce_site(site);
        }
        if let more @ 1.. = self.config.sites().len().saturating_sub(ANNOUNCED_MAX) {
            tracing::info!(sites = more, "more sites: see `pintle status`");
        }
        if self.config.sites().any(|s| s.hpkp.is_some()) && self.fixed.state.is_none() {
            tracing::warn!(
                "state.directory is not set: promises to clients are forgotten at the next start, and cannot be \
                 kept then"
            );
        }
        self.files.announce_sites_without();
        tracing::info!(workers = self.server.workers(), sites = self.config.sites().len(), "serving");
    }

    /// Serves until `stop` or a successor ends it, then lets running requests finish.
    ///
    /// # Errors
    ///
    /// If a worker ended by a bug.
    pub async fn run(mut self, mut stop: impl AsyncFnMut()) -> io::Result<ProcessEnd> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.upgrades.released.is_none() {
            self.operator.notify.ready(&self.summary());
            self.drive_acme().await;
            self.drive_senders();
        }
        let successor = loop {
            tokio::select! {
                biased;
                // First, whatever else is under way: a hanging disk must not keep pintle from
                // stopping.
                () = stop() => break None,
                successor = self.step(&mut tick) => if successor.is_some() { break successor },
            }
            if key_process::running().is_some_and(key_process::KeyProcess::is_gone) {
                tracing::error!(
                    "the key process has ended, and no handshake can be signed without it: stopping, so that both \
                     are started again"
                );
                break None;
            }
        };
        self.end(successor, &mut stop).await
    }

    /// Handles one event. Returns the successor once it has taken over.
    async fn step(&mut self, tick: &mut tokio::time::Interval) -> Option<Successor> {
        let due = self.files.pending.as_ref().map(|p| p.due);
        tokio::select! {
            _ = self.operator.hangup.recv() => {
                let _ = self.reload(AdoptionOrigin::new(How::Signal, "SIGHUP")).await;
            }
            _ = self.operator.reopen_asked.recv() => self.reopen_log().await,
            _ = self.upgrades.asked.recv() => self.begin_upgrade(None).await,
            standby = stands_by(&mut self.upgrades.under_way) => return self.hand_over(standby).await,
            () = released(&mut self.upgrades.released) => {
                self.upgrades.released = None;
                self.renew_leases().await;
                self.open_admin_listener();
                self.operator.notify.ready(&self.summary());
                self.drive_acme().await;
                self.drive_senders();
            }
            request = self.acme.request() => self.answer_acme(request).await,
            pages = heard_changes(&mut self.upgrades.heard) => self.apply_changes(&pages),
            Some(command) = self.operator.commands.recv() => self.obey(command).await,
            () = self.files.watch.changed() => self.files_changed(),
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                self.look_at_files().await;
            }
            _ = tick.tick() => self.tick().await,
        }
        None
    }

    async fn tick(&mut self) {
        let _ = self.now();
        self.look_after_ledger().await;
        self.look_after_copies();
        self.look_after_history().await;
        self.renew_leases().await;
        self.climb_ramps().await;
        self.watch_endings();
        self.watch_admin_listener();
        self.watch_launcher();
        reap_orphans();
        self.look_for_events();
        self.push_metrics();
        self.show_life();
        self.observed.rates.sample(&self.server, self.loads.loaded);
        self.server.tidy();
        if self.files.refused.values().any(|refused| refused.look_again <= Instant::now()) {
            self.look_at_files().await;
        }
        if self.server.has_failed() {
            tracing::error!("a worker has ended because of a bug; please report it");
        }
    }
}

/// Reaps the processes that process 1 of a container inherits.
fn reap_orphans() {
    let keys = key_process::running().map(key_process::KeyProcess::process);
    crate::os::supervisor::reap(keys.as_slice());
}
