//! The part of a site that follows from its text and its files alone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hsts::HstsPlan;
use super::loaded::LoadedCertificate;
use super::mixed::MixedPlan;
use super::pin_plan::PinPlan;
use super::report::{CertificateLack, Missing};
use super::upstream::SiteUpstream;
use crate::cache::CacheRules;
use crate::compression::CompressionRules;
use crate::config::stamp::{Stamp, Stamps};
use crate::host::HostPattern;
use crate::reason::Problem;
use crate::site::HeaderRules;
use crate::tls::certificate::Chain;
use crate::tls::{Certificate, CertificateSet};

/// A site, before the ledger and the time are taken into account.
pub(in crate::config) struct SitePlan {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) canonical: Option<Box<str>>,
    /// `true` if its requests have no records in the access log.
    pub(super) unlogged: bool,
    /// `true` if its upstream is asked once a request's body is complete.
    pub(super) buffers_requests: bool,
    pub(super) loaded: Vec<LoadedCertificate>,
    pub(super) set: Option<CertificateSet>,
    /// The pairs that it should have and has not.
    pub(super) missing: Vec<Missing>,
    /// Names that not all of its certificates cover, with those that do; `None` if no certificate does.
    pub(super) uncovered: Vec<(HostPattern, Option<CertificateSet>)>,
    /// Names that its own pairs must not serve.
    pub(super) apart: Vec<NameApart>,
    /// Its hosts without those that its own pairs do not serve; `None` if they serve all.
    pub(super) served: Option<Vec<HostPattern>>,
    /// The reason why TLS is refused for its names, if it is.
    pub(super) lack: Option<CertificateLack>,
    pub(super) pins: Option<PinPlan>,
    pub(super) hsts: Option<HstsPlan>,
    pub(super) target: Option<SiteUpstream>,
    pub(super) cache: Option<Arc<CacheRules>>,
    pub(super) compression: Option<Arc<CompressionRules>>,
    pub(super) mixed: Option<MixedPlan>,
    pub(super) request: Arc<HeaderRules>,
    pub(super) response: Arc<HeaderRules>,
    /// Problems, with spans from the start of the site.
    pub(super) problems: Vec<Problem>,
    pub(super) stamps: Vec<(PathBuf, Stamp)>,
    pub(super) source: [u8; 32],
    /// Some pair is not the one on disk, which has to be judged again each time.
    pub(super) has_stand_ins: bool,
}

/// A name that the site's own pairs must not serve: they would break promises there.
pub(super) struct NameApart {
    pub(super) name: HostPattern,
    /// The name as text.
    pub(super) label: String,
    /// The pair that it was served with last; `None` if its visitors get no certificate.
    pub(super) substitute: Option<Arc<Certificate>>,
    /// The file of that pair's key, if it is known.
    pub(super) key: Option<Box<Path>>,
}

impl SitePlan {
    /// The files that it was made from, with their stamps.
    pub(in crate::config) fn files(&self) -> &[(PathBuf, Stamp)] {
        &self.stamps
    }

    /// The problems that another plan did not have, with spans shifted by `start`.
    pub(super) fn news<'a>(&'a self, before: &'a Self, start: usize) -> impl Iterator<Item = Problem> + 'a {
        let same = |p: &Problem, b: &Problem| (&b.reason.what, b.severity) == (&p.reason.what, p.severity);
        let is_new = move |p: &&Problem| !before.problems.iter().any(|b| same(p, b));
        self.problems.iter().filter(is_new).map(move |p| shifted(p, start))
    }

    /// The pair at a place in `[[site.certificate]]`.
    pub(super) fn pair(&self, at: usize) -> Option<&LoadedCertificate> {
        self.loaded.iter().find(|loaded| loaded.at == at)
    }

    pub(super) fn is_current(&self, looked: &Stamps) -> bool {
        !self.has_stand_ins && self.stamps.iter().all(|(path, stamp)| looked.is_still(path, stamp))
    }

    /// `true` if it serves the same, with the same text.
    pub(super) fn serves_the_same(&self, other: &Self) -> bool {
        let chains = |plan: &Self| plan.loaded.iter().map(|l| Arc::as_ptr(&l.chain)).collect::<Vec<_>>();
        let backups = |plan: &Self| {
            let pins = plan.pins.iter().flat_map(|p| &p.backups).map(|b| b.key.pin);
            (pins.collect::<Vec<_>>(), plan.pins.as_ref().is_some_and(|p| p.lacks_backups))
        };
        let upstream = |plan: &Self| plan.target.as_ref().map(|t| Arc::as_ptr(&t.upstream));
        let problems = |plan: &Self| plan.problems.iter().map(|p| p.reason.what.clone()).collect::<Vec<_>>();
        let apart = |plan: &Self| {
            let names = plan.apart.iter().map(|apart| (apart.name.clone(), apart.substitute.as_ref().map(Arc::as_ptr)));
            names.collect::<Vec<_>>()
        };
        chains(self) == chains(other)
            && apart(self) == apart(other)
            && self.missing == other.missing
            && self.lack == other.lack
            && backups(self) == backups(other)
            && upstream(self) == upstream(other)
            && problems(self) == problems(other)
    }

    /// The hosts that its own pairs serve. Clients note policies for no other one.
    pub(super) fn served_hosts(&self) -> &[HostPattern] {
        self.served.as_deref().unwrap_or(&self.hosts)
    }

    /// The names that its wildcards do not cover: those of other sites, and those that its own pairs must not serve.
    pub(super) fn exceptions(&self, others: &[HostPattern]) -> Vec<HostPattern> {
        let is_below = |name: &&HostPattern| {
            let covers = |exact: &str| self.hosts.iter().any(|host| host.is_wildcard() && host.matches(exact));
            name.exact().is_some_and(covers)
        };
        let mut except = others.to_vec();
        except.extend(self.apart.iter().map(|apart| &apart.name).filter(is_below).cloned());
        except.sort_unstable();
        except.dedup();
        except
    }

    /// The names for which TLS is refused, although the site has a certificate: it was issued before they were added, or
    /// would break promises there.
    pub(super) fn refused_names(&self) -> impl Iterator<Item = &HostPattern> {
        self.uncovered.iter().filter(|(_, covering)| covering.is_none()).map(|(name, _)| name)
    }

    /// The names that a chain of it does not serve, and that lose nothing by another one that does not cover them either.
    pub(super) fn unserved_by(&self, chain: &Arc<Chain>) -> impl Iterator<Item = &HostPattern> {
        let replaced = self.apart.iter().filter(|apart| apart.substitute.is_some()).map(|apart| &apart.name);
        let replaced: HashSet<&HostPattern> = replaced.collect();
        let is_with = move |set: &CertificateSet| set.iter().any(|one| Arc::ptr_eq(&one.chain, chain));
        let is_unserved = move |set: Option<&CertificateSet>| !set.is_some_and(is_with);
        let names =
            self.uncovered.iter().filter(move |(name, set)| is_unserved(set.as_ref()) && !replaced.contains(name));
        names.map(|(name, _)| name)
    }

    pub(super) fn is_fit(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }
}

/// The same problem, with its span shifted by `start`.
pub(super) fn shifted(problem: &Problem, start: usize) -> Problem {
    Problem { span: problem.span.start + start..problem.span.end + start, ..problem.clone() }
}
