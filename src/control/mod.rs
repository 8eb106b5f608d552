//! The control thread, which serves the operator: it loads and reloads the configuration, watches
//! the files, keeps the ledger, and hands snapshots to the workers, which never wait for it.

pub mod admin;
pub mod client;
pub mod config;
pub mod sandbox_rules;
mod acme;
mod adopt;
mod admin_thread;
mod api;
mod attention;
mod cache;
mod conditions;
mod difference;
mod ending;
mod events;
mod expiring;
mod expiry;
mod face;
pub mod explain;
mod files;
mod first_site;
mod found_promises;
mod history;
mod install;
mod keys;
mod ledger_trouble;
mod merge;
mod metrics;
mod metrics_body;
mod mixed;
mod nearby_ledgers;
mod notes;
mod obey;
mod open_ledger;
pub mod own_keys;
mod page_listeners;
pub mod pin_set;
mod promises;
mod prove;
mod push;
mod ramp;
mod records;
mod reload;
pub mod served;
mod site_state;
mod socket;
mod socket_file;
mod spans;
mod starting;
mod state;
mod status;
mod succession;
mod takeover;
mod token;
mod upgrade;
mod views;
mod visitors;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::config::history::How;
use crate::config::{AcceptedByCommand, CheckContext, Config, Draft, MayLack, Problems, Stamps, StandIn};
use crate::policy::Scheme;
use crate::tls::key_process;

use admin::AdoptionOrigin;

pub use admin::{ReloadOutcome, UpgradeOutcome};
pub use ending::ProcessEnd;
pub use found_promises::{FoundPromises, begun_with};
pub use nearby_ledgers::{NearbyLedgers, trusted_users};
pub use open_ledger::{dates_ahead, hint_to_move, moved, open_ledger, remedy, unreadable_ledger};
pub use page_listeners::bind_pages;
pub use reload::log_warnings;
pub use starting::{Beginning, StartError};
pub use state::{Control, PageSocket, ProcessCounts, Refused};
pub use takeover::{Listeners, NewProcess};

/// The interval between checks of leases, ramps and the clock. A lease lasts at least eight of these.
const TICK: Duration = Duration::from_millis(500);
/// A worker without a tick for this long counts as dead for the service manager's watchdog. A
/// worker that gets to run ticks twice a second.
const LIFE_MIN: Duration = Duration::from_secs(2);
/// The number of sites logged one by one at the start; nobody would read ten thousand.
const ANNOUNCED_MAX: usize = 200;

/// The sites that keep their present pairs if the files on disk are unfit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Keep {
    /// No site, and no pair either.
    NoPair,
    /// No site: the whole configuration is refused. Pairs in use stay.
    Nothing,
    /// Sites that cannot be served.
    Unfit,
    /// Also sites with a shorter chain, which may be half written; except the named sites.
    UnfitAndShorter(Vec<String>),
}

impl Control {
    /// The listeners' addresses, with the ports that the kernel chose.
    #[must_use]
    pub fn listening(&self) -> &[(SocketAddr, Scheme)] {
        self.server.listening()
    }

    /// Logs what is served.
    pub fn announce(&self) {
        for (address, scheme) in self.listening() {
            tracing::info!(%address, scheme = scheme.as_str(), "listening");
        }
        for site in self.config.sites().take(ANNOUNCED_MAX) {
            adopt::announce_site(site);
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

    /// The status text for the service manager.
    fn summary(&self) -> String {
        let sites = crate::reason::counted(self.config.sites().len(), "site");
        let without = match self.config.without_certificate().count() {
            0 => String::new(),
            without => format!(", {without} of them without a certificate"),
        };
        format!("pintle {} serves {sites}{without}", env!("CARGO_PKG_VERSION"))
    }

    /// Handles one event. Returns the successor once it has taken over.
    async fn step(&mut self, tick: &mut tokio::time::Interval) -> Option<state::Successor> {
        let due = self.files.pending.as_ref().map(|p| p.due);
        tokio::select! {
            _ = self.operator.hangup.recv() => {
                let _ = self.reload(AdoptionOrigin::new(How::Signal, "SIGHUP")).await;
            }
            _ = self.operator.reopen_asked.recv() => self.reopen_log().await,
            _ = self.upgrades.asked.recv() => self.begin_upgrade(None).await,
            standby = upgrade::stands_by(&mut self.upgrades.under_way) => return self.hand_over(standby).await,
            () = takeover::released(&mut self.upgrades.released) => {
                self.upgrades.released = None;
                self.renew_leases().await;
                self.open_admin_listener();
                self.operator.notify.ready(&self.summary());
                self.drive_acme().await;
                self.drive_senders();
            }
            request = self.acme.request() => self.answer_acme(request).await,
            Some(command) = self.operator.commands.recv() => self.obey(command).await,
            () = self.files.watch.changed() => self.files_changed(),
            () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                self.look_at_files().await;
            }
            _ = tick.tick() => self.tick().await,
        }
        None
    }

    /// Resets the service manager's watchdog if this thread and each worker are alive.
    fn show_life(&mut self) {
        let Some(period) = self.operator.notify.watchdog().filter(|_| self.upgrades.released.is_none()) else { return };
        if self.operator.shown.elapsed() >= period / 4 && self.server.is_alive((period / 2).max(LIFE_MIN)) {
            self.operator.shown = Instant::now();
            self.operator.notify.alive();
        }
    }

    /// Gives the settings in use to the threads that send events, metrics and spans.
    fn drive_senders(&mut self) {
        self.drive_hooks();
        self.drive_graphite();
        self.drive_spans();
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

    /// Builds the draft again, with the pairs in use.
    fn build(&self, draft: &Draft, keep: Keep, accept: Option<AcceptedByCommand>) -> (Option<Config>, Problems) {
        self.resolve_with(draft, Stamps::default(), keep, accept)
    }

    /// The same, with the stamps of files just looked at.
    fn resolve_with(
        &self,
        draft: &Draft,
        looked: Stamps,
        keep: Keep,
        accept: Option<AcceptedByCommand>,
    ) -> (Option<Config>, Problems) {
        let now = self.now();
        let ledger = self.ledger();
        let context = CheckContext {
            before: Some(&*self.config),
            keeps_sites: !matches!(keep, Keep::NoPair | Keep::Nothing),
            stand_in: if keep == Keep::NoPair { StandIn::Never } else { StandIn::Always },
            may_lack: if self.strict || keep == Keep::NoPair { MayLack::None } else { MayLack::All },
            waits_for_chains: match keep {
                Keep::UnfitAndShorter(settled) => Some(settled),
                Keep::NoPair | Keep::Nothing | Keep::Unfit => None,
            },
            accept,
            looked,
            ..CheckContext::new(ledger.book(), now)
        };
        draft.build(&context)
    }
}

/// Reaps the processes that process 1 of a container inherits.
fn reap_orphans() {
    let keys = key_process::running().map(key_process::KeyProcess::process);
    crate::os::supervisor::reap(keys.as_slice());
}
