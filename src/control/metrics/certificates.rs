//! Metrics of certificates: dates, pins, refusals.

use super::{Control, flag};
use crate::config::report::{CertificateLack, SiteReport};
use crate::control::expiry::ExpiryStage;
use crate::telemetry::exposition::Exposition;

impl Control {
    pub(super) fn certificate_metrics(&self, metrics: &mut Exposition) {
        let help = "1 if the files on disk are refused.";
        self.site_gauges(metrics, "certificate_refused", help, |site| {
            flag(self.files.refused.contains_key(site.name()))
        });
        let help = "1 if TLS is refused because the site has no certificate.";
        self.site_gauges(metrics, "site_without_certificate", help, |site| flag(site.lacks_certificate.is_some()));
        let help = "1 if the site waits for its first certificate from the CA.";
        let waits = |site: &SiteReport| flag(site.lacks_certificate == Some(CertificateLack::NotYet));
        self.site_gauges(metrics, "site_waits_for_certificate", help, waits);
        let help = "Names of the site for which TLS is refused, as its certificate does not cover them.";
        self.site_gauges(metrics, "site_names_without_certificate", help, |site| site.refused_names.len() as f64);
        let help = "The serial number, the issuer and the pin of a certificate.";
        metrics.many_infos("certificate", help, &self.label_sets().certificate_infos);
        let now = self.now();
        let help = "0 valid; 1 to 4 less than 14, 7, 3, 1 days left, or a fraction of a short lifetime; 5 expired.";
        self.certificate_gauges(metrics, "certificate_ending_stage", help, |_, c| {
            ExpiryStage::of(c, now).number() as f64
        });
        let help = "When a certificate becomes valid, in seconds since 1970.";
        let name = "certificate_not_before_timestamp_seconds";
        self.certificate_gauges(metrics, name, help, |_, c| c.not_before.as_second() as f64);
        let help = "When a certificate expires, in seconds since 1970.";
        let name = "certificate_not_after_timestamp_seconds";
        self.certificate_gauges(metrics, name, help, |_, c| c.not_after.as_second() as f64);
        let help = "When this process began to serve a certificate, in seconds since 1970.";
        let since = |site: &_, c: &_| self.observed.endings.since(site, c).map(|since| since as f64);
        self.certificate_gauges(metrics, "certificate_loaded_timestamp_seconds", help, since);
        let help = "The part of a certificate's lifetime that is left.";
        self.certificate_gauges(metrics, "certificate_lifetime_left_ratio", help, |_, c| {
            let (begin, end) = (c.not_before.as_second(), c.not_after.as_second());
            let lifetime = end.saturating_sub(begin).max(1) as f64;
            (end.saturating_sub(now) as f64 / lifetime).clamp(0.0, 1.0)
        });
    }
}
