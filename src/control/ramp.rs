//! Ramps: a max-age rises one step when the step's time has passed without a fault.
//!
//! A refused certificate is a certain fault, and delays a step until it is gone. Anybody can send
//! reports: if they come from several networks, they delay each step of the pins once, so that the
//! operator has time to look. They cannot prevent a step.

use super::Control;
use super::building::Keep;
use crate::config::report;
use crate::ledger::{Ramp, Ramped, Record};
use crate::os::words::words;
use crate::policy::promise::Seconds;

/// The number of client networks whose reports delay a step.
const WITNESSES: usize = 3;

impl Control {
    /// Takes the steps that are due. A refused certificate, or reports from several networks,
    /// restart a step's time.
    pub(super) async fn climb_ramps(&mut self) {
        let reported = self.server.reports().counts();
        let fresh: Vec<String> = reported
            .iter()
            .filter(|(site, count)| self.promises.reported.get(*site).copied().unwrap_or_default() < **count)
            .map(|(site, _)| site.clone())
            .collect();
        self.promises.reported = reported;
        for site in fresh {
            self.heed_reports(&site).await;
        }
        let now = self.now();
        // A refused certificate is a present fault, however old the refusal.
        let refused: Vec<String> = self.files.refused.keys().cloned().collect();
        for site in &refused {
            if self.is_due(site, now) {
                self.reset_ramps(site).await;
            }
        }
        let mut steps = Vec::new();
        for site in self.config.sites().filter(|site| !self.files.refused.contains_key(site.name())) {
            for ramp in &site.ramps {
                if let Some(next) = ramp.next.filter(|next| next.at <= now) {
                    tracing::info!(
                        site = site.name(),
                        policy = name(ramp),
                        // Counted from 1, as in `status`.
                        step = next.step + 1,
                        max_age = next.max_age,
                        "max-age rises"
                    );
                    steps.push(Ramp { site: site.name().to_owned(), policy: ramp.policy, step: next.step, since: now });
                }
            }
        }
        if steps.is_empty() {
            return;
        }
        match self.record(steps.into_iter().map(Record::Ramp).collect()).await {
            Ok(()) => self.look_at_files().await,
            Err(error) => tracing::warn!(error = %words(&error), "cannot write the ledger: max-age stays"),
        }
    }

    /// Delays the step of a site's pins if there are enough reporting networks, and reports have
    /// not delayed this step yet.
    async fn heed_reports(&mut self, site: &str) {
        let ramps = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.ramps);
        let pins = ramps.filter(|ramp| ramp.policy == Ramped::Hpkp && ramp.next.is_some());
        let Some((step, since)) = pins.map(|ramp| (ramp.step, ramp.since)).next() else { return };
        let networks = self.server.reports().witnesses(site, since);
        if networks < WITNESSES || self.promises.waited.get(site) == Some(&step) {
            return;
        }
        tracing::warn!(
            site,
            networks,
            hint =
                "compare the pins of `pintle status` with what clients are served; reports delay this step only once",
            "clients of several networks report that no pin matched"
        );
        self.promises.waited.insert(site.to_owned(), step);
        self.reset_ramps_of(site, |policy| policy == Ramped::Hpkp).await;
    }

    fn is_due(&self, site: &str, now: Seconds) -> bool {
        let mut ramps = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.ramps);
        ramps.any(|ramp| ramp.next.is_some_and(|next| next.at <= now))
    }

    /// Restarts the time of a site's steps after a fault.
    pub(super) async fn reset_ramps(&mut self, site: &str) {
        self.reset_ramps_of(site, |_| true).await;
    }

    async fn reset_ramps_of(&mut self, site: &str, which: impl Fn(Ramped) -> bool) {
        let now = self.now();
        let ramps = self.config.sites().filter(|s| s.name() == site).flat_map(|s| &s.ramps);
        let records: Vec<Record> = ramps
            .filter(|ramp| ramp.next.is_some() && which(ramp.policy))
            .map(|ramp| Record::Ramp(Ramp { site: site.to_owned(), policy: ramp.policy, step: ramp.step, since: now }))
            .collect();
        if records.is_empty() {
            return;
        }
        tracing::info!(site, "max-age stays: the step's time restarts");
        if let Err(error) = self.record(records).await {
            tracing::warn!(error = %words(&error), "cannot write the ledger");
            return;
        }
        // For `status` and the next step. Nothing served changes.
        let (config, _) = self.build(&self.draft, Keep::UnfitAndShorter(Vec::new()), None);
        if let Some(config) = config {
            let _ = Box::pin(self.adopt(config)).await;
        }
    }
}

fn name(ramp: &report::RampReport) -> &'static str {
    match ramp.policy {
        Ramped::Hpkp => "hpkp",
        Ramped::Hsts => "hsts",
    }
}
