//! The labels of the sites and certificates in use. A configuration's labels are written with its first scrape.

use super::Control;
use crate::config::report::{CertificateReport, SiteReport};
use crate::control::state::LabelsInUse;
use crate::server::NO_SITE;
use crate::telemetry::exposition::{Exposition, LabelSets, SeriesColumn};

impl Control {
    pub(super) fn label_sets(&self) -> &LabelsInUse {
        self.observed.labels.get_or_init(|| self.write_label_sets())
    }

    fn write_label_sets(&self) -> LabelsInUse {
        let [mut sites, mut certificates, mut infos] = [(); 3].map(|()| LabelSets::default());
        self.config.sites().for_each(|site| sites.push(&[("site", site.name())]));
        sites.push(&[("site", NO_SITE)]);
        for (site, c) in self.certificates() {
            let (pin, algorithm) = (c.pin.to_string(), c.algorithm.to_string());
            let [site, algorithm] = [("site", site.name()), ("algorithm", &algorithm)];
            certificates.push(&[site, algorithm]);
            infos.push(&[site, algorithm, ("pin", &pin), ("serial", &c.serial), ("issuer", &c.issuer)]);
        }
        LabelsInUse { sites: sites.into(), certificates: certificates.into(), certificate_infos: infos.into() }
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = (&SiteReport, &CertificateReport)> {
        self.config.sites().flat_map(|site| site.certificates.iter().map(move |certificate| (site, certificate)))
    }

    /// Adds gauges with a value for each site. Sites without one have no series.
    pub(super) fn site_gauges<V: Into<Option<f64>>>(
        &self,
        metrics: &mut Exposition,
        name: &str,
        help: &str,
        value: impl Fn(&SiteReport) -> V,
    ) {
        let values = self.config.sites().map(|site| value(site).into()).collect();
        metrics.many_gauges(name, help, &self.label_sets().sites, vec![alone(values)]);
    }

    /// Adds gauges with a value for each certificate.
    pub(super) fn certificate_gauges<V: Into<Option<f64>>>(
        &self,
        metrics: &mut Exposition,
        name: &str,
        help: &str,
        value: impl Fn(&SiteReport, &CertificateReport) -> V,
    ) {
        let values = self.certificates().map(|(site, certificate)| value(site, certificate).into()).collect();
        metrics.many_gauges(name, help, &self.label_sets().certificates, vec![alone(values)]);
    }
}

/// Values without further labels.
pub(super) fn alone(values: Vec<Option<f64>>) -> SeriesColumn {
    SeriesColumn { labels: "}", values }
}
