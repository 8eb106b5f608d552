//! Metrics of promises: the ledger, pins that clients hold, backups, ramps, accepted lockouts, reports.

use std::sync::Arc;

use super::label_sets::alone;
use super::{Control, flag};
use crate::config::report::SiteReport;
use crate::control::promises::held;
use crate::keys::pin::Pin;
use crate::ledger::Ramped;
use crate::policy::promise::Promises;
use crate::server::NO_SITE;
use crate::telemetry::exposition::{Exposition, LabelSets};

impl Control {
    pub(super) fn promise_metrics(&self, metrics: &mut Exposition) {
        metrics.flag(
            "ledger_writable",
            "1 if the last attempt to write the ledger succeeded.",
            !self.promises.is_unwritable.get(),
        );
        metrics.counter("ledger_errors", "Failed attempts to write the ledger.", self.promises.errors.get());
        let is_doubted = self.promises.trouble.as_ref().is_some_and(|trouble| trouble.by_clock);
        metrics.flag("clock_doubted", "1 if pins are withheld because the clock contradicts the ledger.", is_doubted);
        let now = self.now();
        let ledger = self.ledger();
        let (book, promises) = (ledger.book(), ledger.book().promises());
        let lockouts = book.lockouts().iter().filter(|a| !a.is_over(now) && !book.is_replaced(a)).count();
        metrics.gauge("lockouts_in_force", "Accepted lockouts that have not ended.", lockouts as f64);
        let repairs = book.repairs().len() as f64;
        metrics.gauge("ledger_repairs", "Faults of the ledger that the operator accepted.", repairs);
        metrics.gauge("ledger_promises", "Sets of pins in the ledger.", promises.len() as f64);
        let held = held(book, now);
        let help = "Sets of pins that clients may hold.";
        let sets = |site: &SiteReport| held.get(site.name()).map_or(0, |held| held.sets) as f64;
        self.site_gauges(metrics, "promises_alive", help, sets);
        let help = "When the last promise to clients ends, in seconds since 1970.";
        let until = |site: &SiteReport| held.get(site.name()).map(|held| held.until as f64);
        self.site_gauges(metrics, "promises_until_timestamp_seconds", help, until);
        let help = "When the site may change to any new key, in seconds since 1970; absent if it may do so now.";
        let safe_days = vec![alone(self.safe_days(&Promises::alive(promises, now)))];
        metrics.many_gauges("rotation_safe_timestamp_seconds", help, &self.label_sets().sites, safe_days);
        let help = "Backup keys of a site with pins that are not live.";
        let backups = |site: &SiteReport| site.backups.len().saturating_sub(site.promoted.len()) as f64;
        self.site_gauges(metrics, "pin_backups", help, |site| site.hpkp.is_some().then(|| backups(site)));
        let help = "1 if the site has pins and does not send them.";
        let is_withheld = |site: &SiteReport| flag(site.withheld.is_some() || self.promises.trouble.is_some());
        self.site_gauges(metrics, "pins_withheld", help, |site| site.hpkp.is_some().then(|| is_withheld(site)));
        let ramps = self.config.sites().flat_map(|site| site.ramps.iter().map(move |ramp| (site, ramp)));
        let ramps: Vec<_> = ramps.collect();
        let mut labels = LabelSets::default();
        for (site, ramp) in &ramps {
            let policy = match ramp.policy {
                Ramped::Hpkp => "hpkp",
                Ramped::Hsts => "hsts",
            };
            labels.push(&[("site", site.name()), ("policy", policy)]);
        }
        let labels = Arc::new(labels);
        let steps = ramps.iter().map(|(_, ramp)| Some((ramp.step + 1) as f64)).collect();
        metrics.many_gauges("ramp_step", "The step of a ramp, from 1.", &labels, vec![alone(steps)]);
        let ages = ramps.iter().map(|(_, ramp)| Some(ramp.max_age as f64)).collect();
        metrics.many_gauges("ramp_max_age_seconds", "The max-age of a ramp's step.", &labels, vec![alone(ages)]);
    }

    /// The time at which each site may change to a key that nobody was promised.
    fn safe_days(&self, alive: &Promises<'_>) -> Vec<Option<f64>> {
        if alive.is_empty() {
            return Vec::new();
        }
        let new = Pin::of_spki(b"");
        let day = |(hosts, except): (&[_], Vec<_>)| alive.safe_from(hosts, &except, new).map(|day| day as f64);
        self.bound().into_iter().map(day).collect()
    }

    pub(super) fn report_metrics(&self, metrics: &mut Exposition) {
        let counts = self.server.reports().counts();
        let names = self.config.sites().map(|site| site.name()).chain([NO_SITE]);
        let reported = names.map(|name| Some(counts.get(name).copied().unwrap_or_default() as f64)).collect();
        let help = "Reports of pins that did not match.";
        metrics.many_counters("pin_reports", help, &self.label_sets().sites, vec![alone(reported)]);
        let refused = self.server.reports().refused();
        metrics.counter("pin_reports_refused", "Reports that were too many, too large or malformed.", refused);
    }
}
