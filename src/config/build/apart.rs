//! Names that a site's own pairs must not serve, as they would break promises there. Such a name is served with the pair
//! that it had last, or refused; the site's other names stay as they are.

use std::collections::{BTreeSet, HashSet};

use super::entry::SiteEntry;
use super::plan::{NameApart, SitePlan};
use super::refusal::listed;
use super::stand_in::ServedLast;
use crate::config::file::SiteTable;
use crate::host::HostPattern;
use crate::policy::guard::Offer;
use crate::policy::hpkp::{Hpkp, Mode};
use crate::policy::promise::{Promise, Promises, SiteNames};
use crate::reason::Problem;

/// The names of a site for which its pairs break these promises. A promise may be about a name below a wildcard only, such
/// as that of a site that is gone: then it is that name, and the wildcard's others are served. Names for which the pair that
/// is served already breaks the promise, too, stay with the site: no further reader is locked out there.
pub(super) fn names(entry: &SiteEntry, broken: &[Promise], last: Option<&ServedLast>) -> BTreeSet<HostPattern> {
    let (served, mut names) = (entry.served_names(), BTreeSet::new());
    for promise in broken {
        let before = last.and_then(|last| last.broken_for(promise));
        let is_news = |host: &HostPattern| {
            let host = SiteNames { hosts: std::slice::from_ref(host), except: served.except };
            !before.is_some_and(|before| host.were_all_among(before, promise))
        };
        for host in served.hosts.iter().filter(|host| promise.binds(host, served.except) && is_news(host)) {
            let below = names_below(host, promise, served.except);
            let except: Vec<HostPattern> = served.except.iter().chain(&below).cloned().collect();
            if below.is_empty() || promise.binds(host, &except) {
                names.insert(host.clone());
            } else {
                names.extend(below);
            }
        }
    }
    names
}

/// `true` if pins of a site with these hosts are not for all names that clients would hold them for: another pair serves a
/// name, or none does, and `includeSubDomains` binds it. Without its key, they would lock out clients that get it later.
pub(super) fn keep_pins_back(table: &SiteTable, hosts: &[HostPattern], apart: &[NameApart]) -> bool {
    let includes = table.hpkp.as_ref().and_then(|hpkp| hpkp.include_subdomains.as_ref()).is_some_and(|at| at.value);
    if apart.is_empty() || !includes {
        return apart.iter().any(|apart| apart.substitute.is_some());
    }
    let names: HashSet<&HostPattern> = apart.iter().map(|apart| &apart.name).collect();
    let own: Vec<HostPattern> = hosts.iter().filter(|host| !names.contains(host)).cloned().collect();
    let except: Vec<HostPattern> = names.iter().map(|name| (*name).clone()).collect();
    let policy = Hpkp { mode: Mode::Enforce, max_age: 1, pins: Vec::new(), include_subdomains: true, report_uri: None };
    let promise = Promise { last_sent: 1, ..Promise::of_header(&own, &except, &policy) };
    let promises = Promises::alive([&promise], 0);
    let is_bound = |name: &HostPattern| !promises.binding(std::slice::from_ref(name), &[]).is_empty();
    apart.iter().any(|apart| apart.substitute.is_some() || is_bound(&apart.name))
}

/// The names of a promise that a wildcard covers.
fn names_below(wildcard: &HostPattern, promise: &Promise, except: &[HostPattern]) -> Vec<HostPattern> {
    let is_below = |name: &&HostPattern| name.exact().is_some_and(|exact| wildcard.matches(exact));
    let names = promise.hosts.iter().filter(|_| wildcard.is_wildcard()).filter(is_below);
    names.filter(|name| !except.contains(name)).cloned().collect()
}

/// The offers to the guard for the names that a site's own pairs do not serve. Nothing is refused because of them: they have
/// what they had.
pub(super) fn offers(plan: &SitePlan) -> impl Iterator<Item = Offer<'_>> {
    let refused = plan.refused_names().map(|name| (name, None));
    let replaced = plan.apart.iter().filter_map(|apart| Some((&apart.name, Some(apart.substitute.as_ref()?))));
    refused.chain(replaced).map(|(name, substitute)| Offer {
        hosts: std::slice::from_ref(name),
        chains: substitute.into_iter().map(|one| one.chain.certain.as_slice()).collect(),
        set: None,
        is_kept: true,
    })
}

/// The objection to a site's pair, once the names are served apart, with the way in which they are.
pub(super) fn with_ways(problem: &Problem, apart: &[NameApart]) -> Problem {
    let names_of = |is_refused: bool| {
        let names = apart.iter().filter(|apart| apart.substitute.is_none() == is_refused);
        let names: Vec<String> = names.map(|apart| apart.name.to_string()).collect();
        (!names.is_empty()).then(|| listed(&names))
    };
    let refused = names_of(true).map(|names| {
        format!(
            "until then, pintle refuses TLS for {names}, and answers plain HTTP with 503; it serves the other names of the site"
        )
    });
    let replaced = names_of(false)
        .map(|names| format!("pintle serves {names} with the pair that it had last, from the copy in state.directory"));
    let reason = refused.into_iter().chain(replaced).fold(problem.reason.clone(), |reason, note| reason.note(note));
    Problem { reason, ..problem.clone() }
}
