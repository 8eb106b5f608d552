//! A site as it is served now: its plan, with the ledger and the time taken into account.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::loaded::LoadedCertificate;
use super::mixed::MixedPlan;
use super::plan::SitePlan;
use super::report;
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::lease::Lease;
use crate::ledger::Ramp;
use crate::ledger::leases::Pledge;
use crate::message::Rendered;
use crate::mixed::policy::MixedContent;
use crate::policy::hpkp::Hpkp;
use crate::policy::hsts::Hsts;
use crate::policy::promise::{Promise, Promises, Seconds, SiteNames};
use crate::site::{PinHeader, RenderedPolicy, Site, SiteCompression};
use crate::tls::certificate::Chain;

/// A site, ready.
pub(in crate::config) struct SiteEntry {
    pub(in crate::config) plan: Arc<SitePlan>,
    pub(in crate::config) site: Arc<Site>,
    pub(in crate::config) report: report::SiteReport,
    pub(super) pledge: Option<Pledge>,
    /// Ramps that begin with this site.
    pub(super) ramps: Vec<Ramp>,
    /// Its inputs besides the plan.
    pub(super) made_from: MadeFrom,
}

/// The inputs of an entry, beside its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MadeFrom {
    pub(super) hpkp: Option<Hpkp>,
    /// Names that its wildcards do not cover.
    pub(super) except: Vec<HostPattern>,
    pub(super) withheld: Option<report::Withheld>,
    /// The day in `accept_lockout_until`.
    pub(super) accepts_until: Option<String>,
    pub(super) promoted: Vec<Pin>,
    pub(super) hsts: Option<Hsts>,
    pub(super) ramps: Vec<report::RampReport>,
}

impl SiteEntry {
    /// Its chains, with their keys.
    pub(in crate::config) fn pairs(&self) -> &[LoadedCertificate] {
        &self.plan.loaded
    }

    /// The chains that it should have and has not.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Path> {
        self.plan.missing.iter().filter_map(|missing| missing.path.as_deref())
    }

    pub(in crate::config) fn hosts(&self) -> &[HostPattern] {
        &self.plan.hosts
    }

    /// The promises that one of its pairs breaks.
    pub(in crate::config) fn breaks<'p>(&self, pair: &LoadedCertificate, promises: &Promises<'p>) -> Vec<&'p Promise> {
        promises.broken_by(self.plan.served_hosts(), self.except(), &pair.chain.certain)
    }

    pub(super) fn chains(&self) -> impl Iterator<Item = &Chain> {
        self.plan.loaded.iter().map(|l| &*l.chain)
    }

    /// Its names.
    pub(in crate::config) fn names(&self) -> SiteNames<'_> {
        SiteNames { hosts: self.hosts(), except: self.except() }
    }

    /// Its names, without those that its own pairs do not serve.
    pub(in crate::config) fn served_names(&self) -> SiteNames<'_> {
        SiteNames { hosts: self.plan.served_hosts(), except: self.except() }
    }

    /// Names that its wildcards do not cover.
    pub(super) fn except(&self) -> &[HostPattern] {
        &self.made_from.except
    }
}

/// The sites of a configuration by their first names.
pub(in crate::config) type EntriesByName<'a> = HashMap<&'a str, &'a Arc<SiteEntry>>;

/// The sites of a configuration by all their names.
pub(in crate::config) type ByHost<'a> = HashMap<&'a HostPattern, &'a Arc<SiteEntry>, foldhash::fast::RandomState>;

/// Finds sites by their first names.
pub(in crate::config) fn by_name(entries: &[Arc<SiteEntry>]) -> EntriesByName<'_> {
    entries.iter().map(|entry| (entry.report.name(), entry)).collect()
}

/// Makes an entry.
pub(super) fn make(plan: Arc<SitePlan>, made_from: MadeFrom, ramps: Vec<Ramp>) -> SiteEntry {
    let MadeFrom { hpkp, withheld, .. } = &made_from;
    let sent = hpkp.clone().filter(|_| withheld.is_none()).map(|policy| {
        let field = rendered(policy.name(), &policy.value());
        PinHeader { policy, field, lease: Arc::new(Lease::default()) }
    });
    let pledge = sent.as_ref().map(|sent| Pledge {
        // No client notes pins for a name that is refused. The promise is known by the site's first name all the same.
        promise: Promise {
            site: plan.hosts.first().map(ToString::to_string).unwrap_or_default(),
            ..Promise::of_header(plan.served_hosts(), &made_from.except, &sent.policy)
        },
        lease: sent.lease.clone(),
    });
    let hsts = made_from.hsts;
    let report = site_report(&plan, hsts.as_ref(), hpkp.as_ref(), *withheld, &made_from.promoted, &made_from.ramps);
    let site = Site {
        name: report.name().into(),
        hosts: plan.hosts.clone(),
        // A redirect must not lead to a name without a certificate.
        canonical: plan
            .canonical
            .clone()
            .filter(|name| !plan.refused_names().any(|refused| refused.exact() == Some(name))),
        hsts: hsts.map(|policy| RenderedPolicy { policy, field: rendered(Hsts::NAME, &policy.to_string()) }),
        hpkp: sent,
        request: plan.request.clone(),
        response: plan.response.clone(),
        compression: plan.compression.clone().map(SiteCompression::new),
        refuses_names: plan.lack.is_some() || plan.refused_names().next().is_some(),
        unlogged: plan.unlogged,
        mixed: mixed_content(&plan),
        buffers_requests: plan.buffers_requests,
    };
    SiteEntry { plan, site: Arc::new(site), report, pledge, ramps, made_from }
}

/// The tools of a site against mixed content. References are rewritten to names that pintle serves by https.
fn mixed_content(plan: &SitePlan) -> Option<Box<MixedContent>> {
    let is_refused = |host: &&HostPattern| plan.lack.is_some() || plan.refused_names().any(|refused| refused == *host);
    let served = || plan.hosts.iter().filter(|host| !is_refused(host)).cloned().collect();
    let upstream = || plan.target.as_ref().map(|target| target.upstream.own_names.clone()).unwrap_or_default();
    plan.mixed.as_ref().map(|mixed| Box::new(mixed.content(served(), upstream())))
}

/// The facts about a site.
fn site_report(
    plan: &SitePlan,
    hsts: Option<&Hsts>,
    hpkp: Option<&Hpkp>,
    withheld: Option<report::Withheld>,
    promoted: &[Pin],
    ramps: &[report::RampReport],
) -> report::SiteReport {
    let backups = plan.pins.iter().flat_map(|p| &p.backups);
    report::SiteReport {
        hosts: plan.hosts.iter().map(ToString::to_string).collect(),
        upstream: plan.target.as_ref().map(|t| t.report.clone()),
        certificates: plan.loaded.iter().map(LoadedCertificate::report).collect(),
        missing: plan.missing.clone(),
        lacks_certificate: plan.lack,
        refused_names: plan.refused_names().map(ToString::to_string).collect(),
        names_apart: plan.apart.iter().map(|apart| apart.name.to_string()).collect(),
        hsts: hsts.map(ToString::to_string),
        hpkp: hpkp.map(|p| (p.name(), p.value())),
        withheld,
        promoted: promoted.to_vec(),
        ramps: ramps.to_vec(),
        backups: backups.map(|b| (b.file.clone(), b.key)).collect(),
        mixed_content: plan.mixed.as_ref().map(MixedPlan::modes),
    }
}

fn rendered(name: &str, value: &str) -> Rendered {
    let mut field = Rendered::default();
    field.push(name, value).expect("names are constant, and values made of digits, base64 and a checked URI");
    field
}

/// The wall clock's time as a timestamp.
pub(super) fn timestamp(seconds: Seconds) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}
