//! Metrics of promises: the ledger, pins that clients hold, backups, ramps, accepted lockouts, reports.

use super::{Control, flag, of_site};
use crate::control::promises::held;
use crate::keys::pin::Pin;
use crate::ledger::Ramped;
use crate::policy::promise::Promises;
use crate::server::NO_SITE;
use crate::telemetry::exposition::{Exposition, Labels, Values};

impl Control {
    pub(super) fn promise_metrics(&self, metrics: &mut Exposition) {
        metrics.flag("ledger_writable", "1 if promises can be written.", self.promises.trouble.is_none());
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
        let alive = self.by_site(&|site| held.get(site.name()).map_or(0, |held| held.sets) as f64);
        metrics.gauges("promises_alive", "Sets of pins that clients may hold.", &alive);
        let until = self.config.sites().filter_map(|site| Some((of_site(site), held.get(site.name())?.until as f64)));
        let help = "When the last promise to clients ends, in seconds since 1970.";
        metrics.gauges("promises_until_timestamp_seconds", help, &until.collect());
        let help = "When the site may change to any new key, in seconds since 1970; absent if it may do so now.";
        metrics.gauges("rotation_safe_timestamp_seconds", help, &self.safe_days(&Promises::alive(promises, now)));
        let pinned: Vec<_> = self.config.sites().filter(|site| site.hpkp.is_some()).collect();
        let backups =
            pinned.iter().map(|site| (of_site(site), site.backups.len().saturating_sub(site.promoted.len()) as f64));
        metrics.gauges("pin_backups", "Backup keys of a site with pins that are not live.", &backups.collect());
        let withheld =
            pinned.iter().map(|site| (of_site(site), flag(site.withheld.is_some() || self.promises.trouble.is_some())));
        metrics.gauges("pins_withheld", "1 if the site has pins and does not send them.", &withheld.collect());
        let ramps = self.config.sites().flat_map(|site| site.ramps.iter().map(move |ramp| (site, ramp)));
        let ramps: Vec<(Labels, _)> = ramps
            .map(|(site, ramp)| {
                let policy = match ramp.policy {
                    Ramped::Hpkp => "hpkp",
                    Ramped::Hsts => "hsts",
                };
                (Labels::new(&[("site", site.name()), ("policy", policy)]), ramp)
            })
            .collect();
        let steps = ramps.iter().map(|(labels, ramp)| (labels.clone(), (ramp.step + 1) as f64));
        metrics.gauges("ramp_step", "The step of a ramp, from 1.", &steps.collect());
        let ages = ramps.iter().map(|(labels, ramp)| (labels.clone(), ramp.max_age as f64));
        metrics.gauges("ramp_max_age_seconds", "The max-age of a ramp's step.", &ages.collect());
    }

    /// The time at which each site may change to a key that nobody was promised.
    fn safe_days(&self, alive: &Promises<'_>) -> Values {
        let new = Pin::of_spki(b"");
        let bound = self.config.sites().zip(self.bound());
        let day = |(site, (hosts, except)): (_, (&[_], Vec<_>))| {
            Some((of_site(site), alive.safe_from(hosts, &except, new)? as f64))
        };
        bound.filter_map(day).collect()
    }

    pub(super) fn report_metrics(&self, metrics: &mut Exposition) {
        let counts = self.server.reports().counts();
        let mut reported = self.by_site(&|site| counts.get(site.name()).copied().unwrap_or_default() as f64);
        let other = counts.get(NO_SITE).copied().unwrap_or_default();
        reported.push((Labels::new(&[("site", NO_SITE)]), other as f64));
        metrics.counters("pin_reports", "Reports of pins that did not match.", &reported);
        let refused = self.server.reports().refused();
        metrics.counter("pin_reports_refused", "Reports that were too many, too large or malformed.", refused);
    }
}
