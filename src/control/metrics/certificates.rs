//! Metrics of certificates: dates, pins, refusals.

use super::{Control, flag};
use crate::config::report::{CertificateLack, CertificateReport, SiteReport};
use crate::control::expiry::ExpiryStage;
use crate::telemetry::exposition::{Exposition, Labels, Values};

impl Control {
    pub(super) fn certificate_metrics(&self, metrics: &mut Exposition) {
        let refused = self.by_site(&|site| flag(self.files.refused.contains_key(site.name())));
        metrics.gauges("certificate_refused", "1 if the files on disk are refused.", &refused);
        let lacks = self.by_site(&|site| flag(site.lacks_certificate.is_some()));
        metrics.gauges("site_without_certificate", "1 if TLS is refused because the site has no certificate.", &lacks);
        let waits = self.by_site(&|site| flag(site.lacks_certificate == Some(CertificateLack::NotYet)));
        metrics.gauges(
            "site_waits_for_certificate",
            "1 if the site waits for its first certificate from the CA.",
            &waits,
        );
        let refused = self.by_site(&|site| site.refused_names.len() as f64);
        let help = "Names of the site for which TLS is refused, as its certificate does not cover them.";
        metrics.gauges("site_names_without_certificate", help, &refused);
        let infos = self.certificates().map(|(site, c)| {
            let (pin, algorithm) = (c.pin.to_string(), c.algorithm.to_string());
            let facts =
                [("algorithm", algorithm.as_str()), ("pin", &pin), ("serial", &c.serial), ("issuer", &c.issuer)];
            Labels::new(&[&[("site", site.name())], &facts[..]].concat())
        });
        metrics.infos("certificate", "The serial number, the issuer and the pin of a certificate.", infos);
        let labels = |site: &SiteReport, c: &CertificateReport| {
            Labels::new(&[("site", site.name()), ("algorithm", &c.algorithm.to_string())])
        };
        let of_each = |value: &dyn Fn(&CertificateReport) -> f64| -> Values {
            self.certificates().map(|(site, c)| (labels(site, c), value(c))).collect()
        };
        let now = self.now();
        let stages = of_each(&|c| ExpiryStage::of(c, now).number() as f64);
        let help = "0 valid; 1 to 4 less than 14, 7, 3, 1 days left, or a fraction of a short lifetime; 5 expired.";
        metrics.gauges("certificate_ending_stage", help, &stages);
        let begins = of_each(&|c| c.not_before.as_second() as f64);
        let help = "When a certificate becomes valid, in seconds since 1970.";
        metrics.gauges("certificate_not_before_timestamp_seconds", help, &begins);
        let ends = of_each(&|c| c.not_after.as_second() as f64);
        metrics.gauges(
            "certificate_not_after_timestamp_seconds",
            "When a certificate expires, in seconds since 1970.",
            &ends,
        );
        let loaded =
            self.certificates().filter_map(|(site, c)| Some((labels(site, c), self.endings.since(site, c)? as f64)));
        let help = "When this process began to serve a certificate, in seconds since 1970.";
        metrics.gauges("certificate_loaded_timestamp_seconds", help, &loaded.collect());
        let left = of_each(&|c| {
            let (begin, end) = (c.not_before.as_second(), c.not_after.as_second());
            let lifetime = end.saturating_sub(begin).max(1) as f64;
            (end.saturating_sub(now) as f64 / lifetime).clamp(0.0, 1.0)
        });
        metrics.gauges("certificate_lifetime_left_ratio", "The part of a certificate's lifetime that is left.", &left);
    }

    fn certificates(&self) -> impl Iterator<Item = (&SiteReport, &CertificateReport)> {
        self.config.sites().flat_map(|site| site.certificates.iter().map(move |certificate| (site, certificate)))
    }
}
