//! The service manager: the status text that it shows, and its watchdog.

use std::time::Duration;

use tokio::time::Instant;

use super::Control;

/// A worker without a tick for this long counts as dead for the service manager's watchdog. A
/// worker that gets to run ticks twice a second.
const LIFE_MIN: Duration = Duration::from_secs(2);

impl Control {
    /// The status text for the service manager.
    pub(super) fn summary(&self) -> String {
        let sites = crate::reason::counted(self.config.sites().len(), "site");
        let without = match self.config.without_certificate().count() {
            0 => String::new(),
            without => format!(", {without} of them without a certificate"),
        };
        format!("pintle {} serves {sites}{without}", env!("CARGO_PKG_VERSION"))
    }

    /// Resets the service manager's watchdog if this thread and each worker are alive.
    pub(super) fn show_life(&mut self) {
        let Some(period) = self.operator.notify.watchdog().filter(|_| self.upgrades.released.is_none()) else { return };
        if self.operator.shown.elapsed() >= period / 4 && self.server.is_alive((period / 2).max(LIFE_MIN)) {
            self.operator.shown = Instant::now();
            self.operator.notify.alive();
        }
    }
}
