//! Logs certificates that are about to end.

use std::collections::HashMap;

use super::Control;
use super::expiry::{ExpiryStage, ReportedCertificate, left, remedy, thresholds};
use crate::config::report;
use crate::policy::promise::Seconds;

impl Control {
    /// Logs each threshold that a certificate has passed, once. A jump of the clock over several thresholds reports the
    /// last of them.
    pub(super) fn watch_endings(&mut self) {
        let now = self.now();
        if self.observed.endings.next.is_some_and(|next| now < next) {
            return;
        }
        let mut stages = HashMap::new();
        let mut next = Seconds::MAX;
        for site in self.config.sites() {
            let mut of_site = Vec::with_capacity(site.certificates.len());
            for certificate in &site.certificates {
                let ends = std::iter::once(certificate.not_after.as_second());
                next = thresholds(certificate).chain(ends).filter(|time| *time > now).fold(next, Seconds::min);
                let stage = ExpiryStage::of(certificate, now);
                let seen = self.observed.endings.seen(site, certificate);
                let (known, since) =
                    seen.map_or_else(|| (ExpiryStage::default(), now), |seen| (seen.stage, seen.since));
                if stage > known {
                    log(site, certificate, stage, now);
                }
                let (serial, pin) = (certificate.serial.clone(), certificate.pin);
                // A clock that is set back repeats no report.
                of_site.push(ReportedCertificate { serial, pin, stage: stage.max(known), since });
            }
            stages.insert(site.name().to_owned(), of_site);
        }
        self.observed.endings.stages = stages;
        self.observed.endings.next = Some(next);
    }
}

fn log(site: &report::SiteReport, certificate: &report::CertificateReport, stage: ExpiryStage, now: Seconds) {
    let (site, file) = (site.name(), certificate.file());
    let (serial, not_after) = (certificate.serial.as_str(), certificate.not_after.to_string());
    let hint = remedy(site, certificate);
    if stage == ExpiryStage::ENDED {
        tracing::error!(site, file, serial, not_after, hint, "certificate has expired: clients refuse it");
    } else {
        let left = left(certificate, now);
        tracing::warn!(site, file, serial, not_after, left, hint, "certificate is about to expire");
    }
}
