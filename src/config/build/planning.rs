//! Makes the plan of a site, or reuses the one in use as long as its text and files stay the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::checker::{Checker, of_site};
use super::globals::Globals;
use super::pins::MissingPairs;
use super::plan::{NameApart, SitePlan, shifted};
use super::report::{CertificateLack, Missing};
use super::stand_in::{MissingPair, RefusedPair, StandIns};
use super::suites::Fit;
use super::upstream::Upstreams;
use super::{apart, cache, certificates, compression, headers, hsts, mixed, own_keys, pins, upstream};
use crate::config::file::{ConfigFile, SiteTable};
use crate::config::problem::At;
use crate::config::{Config, Draft};
use crate::host::HostPattern;
use crate::reason::Problem;
use crate::reason::pasted::pintle;
use crate::tls::{Certificate, CertificateSet, Certificates};

/// A plan, and the findings on the way to it.
pub(super) struct Planned {
    pub(super) plan: Arc<SitePlan>,
    pub(super) problems: Vec<Problem>,
    /// Pairs on disk that are not served.
    pub(super) refused: Vec<RefusedPair>,
    /// Pairs that nothing replaces.
    pub(super) missing: Vec<MissingPair>,
}

/// A site of the file, and what its plan depends on besides its text and files.
pub(super) struct SiteToPlan<'a> {
    pub(super) draft: &'a Draft,
    pub(super) file: &'a ConfigFile,
    /// Its place in the file.
    pub(super) index: usize,
    pub(super) hosts: &'a [At<HostPattern>],
    pub(super) globals: &'a Globals,
    pub(super) stand_ins: &'a StandIns<'a>,
}

/// The plans of the configuration in use, by what they were made from.
pub(super) struct Reuse {
    by_source: HashMap<[u8; 32], Arc<SitePlan>>,
}

impl Reuse {
    pub(super) fn of(before: Option<&Config>) -> Self {
        let plans = before.iter().flat_map(|b| &b.entries).map(|e| (e.plan.source, e.plan.clone()));
        Self { by_source: plans.collect() }
    }

    /// Returns a site's plan, its problems, and the pairs on disk that are not in it.
    pub(super) fn plan(&self, site: &SiteToPlan<'_>, upstreams: &mut Upstreams, r: &mut Checker<'_>) -> Planned {
        let SiteToPlan { draft, file, index, hosts, globals, stand_ins } = *site;
        let Some(table) = file.sites.get(index) else { unreachable!("called with the places of file.sites") };
        let start = table.span.start;
        let end = file.sites.get(index + 1).map_or_else(|| draft.problems.text().len(), |next| next.span.start);
        let source = source(draft, globals, start..end.max(start));
        let usable = |plan: &Arc<SitePlan>| {
            plan.is_fit() && plan.hosts.iter().eq(hosts.iter().map(|h| &h.value)) && plan.is_current(r.looked)
        };
        let is_as_on_disk = |plan: &SitePlan| plan.stamps.iter().all(|(path, _)| !r.instead.contains_key(path));
        let known = self.by_source.get(&source).filter(|plan| is_as_on_disk(plan));
        let (plan, refused, missing) = match known.filter(|p| usable(p) && stand_ins.are_none_forced()) {
            Some(plan) => (plan.clone(), Vec::new(), Vec::new()),
            None => {
                let (plan, refused, missing) = make(table, site, upstreams, source, r);
                // Nothing on disk is new: the plan in use stays.
                let same = known.filter(|known| plan.has_stand_ins && known.is_fit() && known.serves_the_same(&plan));
                (same.cloned().unwrap_or_else(|| Arc::new(plan)), refused, missing)
            }
        };
        let problems = plan.problems.iter().map(|p| shifted(p, start)).collect();
        Planned { plan, problems, refused, missing }
    }
}

/// A hash of all that a plan depends on, without its files.
fn source(draft: &Draft, globals: &Globals, range: std::ops::Range<usize>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(draft.folder.as_os_str().as_encoded_bytes());
    hash.update([0, u8::from(globals.listen.trust.is_empty())]);
    if let Some(reports) = &globals.reports {
        hash.update(reports.host.as_bytes());
    }
    hash.update([0]);
    hash.update(globals.fit.as_ref().map_or([2, 2], Fit::mark));
    hash.update(draft.problems.text().as_bytes().get(range).unwrap_or_default());
    hash.finalize().into()
}

fn make(
    table: &SiteTable,
    &SiteToPlan { hosts, globals, stand_ins, .. }: &SiteToPlan<'_>,
    upstreams: &mut Upstreams,
    source: [u8; 32],
    r: &mut Checker<'_>,
) -> (SitePlan, Vec<RefusedPair>, Vec<MissingPair>) {
    let mut problems = r.problems.scratch();
    let mut own = Checker { problems: &mut problems, stamps: Vec::new(), ..*r };
    let r = &mut own;
    let names: Vec<HostPattern> = hosts.iter().map(|h| h.value.clone()).collect();
    let certificates::Pairs { loaded, refused, missing } =
        certificates::build(table, &names, globals.fit.as_ref(), stand_ins, r);
    let apart = stand_ins.apart();
    let missing_pairs = match apart::keep_pins_back(table, &names, &apart) {
        true => MissingPairs::Some,
        false => MissingPairs::of(&missing),
    };
    let are_own = refused.is_empty() && missing.is_empty();
    let pins = pins::plan(table, hosts, (&loaded, are_own, missing_pairs), stand_ins, r);
    let hsts = table.hsts.as_ref().map(|t| hsts::plan(t, hosts, r));
    let collects = globals.reports.as_ref().is_some_and(|reports| names.iter().any(|n| n.matches(&reports.host)));
    let target = upstream::build(table, &names, collects, upstreams, r);
    let compression = compression::build(table, r);
    let cache = cache::build(table, compression.is_some(), r);
    own_keys::report(table, r);
    report_headers(table, globals, r);
    let served: Vec<_> = loaded.iter().filter_map(|l| l.certificate.clone()).collect();
    let mut uncovered = uncovered(&names, &served);
    report_uncovered(table, hosts, &uncovered, r);
    part(&mut uncovered, &apart);
    let (mixed, canonical) = (mixed::build(table, r), canonical(table, hosts, r));
    let request = Arc::new(headers::build(table.request_headers.as_deref(), "request_headers", r));
    let response = Arc::new(headers::build(table.response_headers.as_deref(), "response_headers", r));
    let (stamps, start) = (std::mem::take(&mut r.stamps), table.span.start);
    let problems = within_site(problems.into_list(), &names, start);
    let plan = SitePlan {
        canonical,
        unlogged: table.log.as_ref().is_some_and(|log| !log.value),
        buffers_requests: table.buffer_request.as_ref().is_some_and(|buffer| buffer.value),
        lack: lack(&missing).filter(|_| served.is_empty()),
        has_stand_ins: !are_own || !apart.is_empty(),
        served: served_hosts(&names, &uncovered, &apart),
        uncovered,
        apart,
        set: (!served.is_empty()).then(|| Certificates::set(served)),
        hosts: names,
        missing: missing.iter().map(|pair| Missing { path: pair.path.clone(), lack: pair.lack }).collect(),
        loaded,
        pins,
        hsts,
        target,
        cache,
        compression,
        mixed,
        request,
        response,
        problems,
        stamps,
        source,
    };
    (plan, refused, missing)
}

/// The problems of a site's plan, with spans from its start.
fn within_site(problems: Vec<Problem>, names: &[HostPattern], start: usize) -> Vec<Problem> {
    let label = names.first().map(ToString::to_string).unwrap_or_default();
    let shifted = |problem: Problem| {
        let span = problem.span.start.saturating_sub(start)..problem.span.end.saturating_sub(start);
        Problem { span, ..of_site(&label, problem) }
    };
    problems.into_iter().map(shifted).collect()
}

/// Warns about policies that are configured twice, and about a site that nobody can reach over https.
fn report_headers(table: &SiteTable, globals: &Globals, r: &mut Checker<'_>) {
    headers::check_policies(table, r);
    if globals.listen.trust.is_empty() && table.certificates.iter().all(|c| c.key.is_none() && c.by_acme().is_none()) {
        r.warn(
            &table.span,
            "site: no certificate with a key, and no trusted proxy that ends TLS: clients get nothing but redirects to https",
            "add [site.certificate], or name the proxy in front in listen.trusted_proxies",
        );
    }
}

/// The names that not all of a site's certificates cover, with those that do.
fn uncovered(hosts: &[HostPattern], served: &[Arc<Certificate>]) -> Vec<(HostPattern, Option<CertificateSet>)> {
    let covers = |one: &Certificate, host: &HostPattern| one.chain.leaf.covers_pattern(host);
    let partly = hosts.iter().filter(|host| !served.iter().all(|one| covers(one, host)));
    let with_covering = partly.map(|host| {
        let covering: Vec<_> = served.iter().filter(|one| covers(one, host)).cloned().collect();
        (host.clone(), (!covering.is_empty()).then(|| Certificates::set(covering)))
    });
    with_covering.collect()
}

/// Gives the names that the site's own pairs must not serve their substitutes, or none.
fn part(uncovered: &mut Vec<(HostPattern, Option<CertificateSet>)>, apart: &[NameApart]) {
    let names: HashSet<&HostPattern> = apart.iter().map(|apart| &apart.name).collect();
    uncovered.retain(|(known, _)| !names.contains(known));
    for NameApart { name, substitute, .. } in apart {
        let set = substitute.as_ref().map(|one| Certificates::set(vec![one.clone()]));
        uncovered.push((name.clone(), set));
    }
}

/// The hosts that the site's own pairs serve; `None` if they serve all.
fn served_hosts(
    hosts: &[HostPattern],
    uncovered: &[(HostPattern, Option<CertificateSet>)],
    apart: &[NameApart],
) -> Option<Vec<HostPattern>> {
    let refused = uncovered.iter().filter(|(_, set)| set.is_none()).map(|(name, _)| name);
    let others: HashSet<&HostPattern> = refused.chain(apart.iter().map(|apart| &apart.name)).collect();
    let own = || hosts.iter().filter(|host| !others.contains(host)).cloned().collect();
    (!others.is_empty()).then(own)
}

/// Warns of names that no certificate of the site covers. If the site has errors, they say what is wrong with its pairs.
fn report_uncovered(
    table: &SiteTable,
    hosts: &[At<HostPattern>],
    uncovered: &[(HostPattern, Option<CertificateSet>)],
    r: &mut Checker<'_>,
) {
    if r.problems.has_errors() {
        return;
    }
    let refused: Vec<&HostPattern> = uncovered.iter().filter(|(_, set)| set.is_none()).map(|(name, _)| name).collect();
    let Some(first) = hosts.iter().find(|host| refused.contains(&&host.value)) else { return };
    let site = hosts.first().map(|host| host.value.to_string()).unwrap_or_default();
    let names: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let what = format!(
        "site.hosts: the certificate does not cover {} yet: until it does, pintle refuses TLS and answers plain HTTP with 503",
        names.join(", ")
    );
    let hint = match table.certificates.iter().any(|pair| pair.managed.is_some()) {
        true => {
            let plan = pintle(format_args!("acme plan --site {site}"));
            format!("pintle orders one for all hosts by itself: `{plan}` shows when")
        }
        false => {
            let install = pintle(format_args!("install --site {site}"));
            format!("get one for all hosts, then `{install}`; or make two sites")
        }
    };
    r.warn(&first.span, what, hint);
}

/// The reason why a site without any certificate has none: a broken pair is worse than one that is still to come.
fn lack(missing: &[MissingPair]) -> Option<CertificateLack> {
    let mut lacks = missing.iter().filter(|pair| pair.has_key).map(|pair| pair.lack);
    let first = lacks.next()?;
    Some(if lacks.any(|lack| lack == CertificateLack::Broken) { CertificateLack::Broken } else { first })
}

/// The name that the others are redirected to.
fn canonical(table: &SiteTable, hosts: &[At<HostPattern>], r: &mut Checker<'_>) -> Option<Box<str>> {
    let wanted = table.canonical_redirect.as_ref().filter(|c| c.value)?;
    let first = hosts.first()?;
    match first.value.exact() {
        Some(name) => Some(name.into()),
        None => {
            let message = "site.canonical_redirect: the first host is a wildcard, and a redirect needs an exact name";
            r.error_with_hint(&wanted.span, message, "put an exact name first in hosts");
            None
        }
    }
}
