//! Names that a site's own pairs must not serve, as they would break promises there. Such a name is served with the pair
//! that it had last, or refused; the site's other names stay as they are.

use std::collections::BTreeSet;

use super::entry::SiteEntry;
use super::plan::{NameApart, SitePlan};
use crate::host::HostPattern;
use crate::policy::guard::Offer;
use crate::policy::promise::Promise;
use crate::reason::Problem;

/// The names of a site for which its pairs break these promises. A promise may be about a name below a wildcard only, such
/// as that of a site that is gone: then it is that name, and the wildcard's others are served.
pub(super) fn names(entry: &SiteEntry, broken: &[Promise]) -> BTreeSet<HostPattern> {
    let (served, mut names) = (entry.served_names(), BTreeSet::new());
    for promise in broken {
        for host in served.hosts.iter().filter(|host| promise.binds(host, served.except)) {
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

/// The objection to a site's pair, once the names are served apart.
pub(super) fn told(problem: &Problem, apart: &[NameApart]) -> Problem {
    let listed = |is_refused: bool| {
        let names = apart.iter().filter(|apart| apart.substitute.is_none() == is_refused);
        let names: Vec<String> = names.map(|apart| apart.name.to_string()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let refused = listed(true).map(|names| {
        format!(
            "until then, pintle refuses TLS for {names}, and answers plain HTTP with 503; it serves the other names of the site"
        )
    });
    let replaced = listed(false)
        .map(|names| format!("pintle serves {names} with the pair that it had last, from the copy in state.directory"));
    let reason = refused.into_iter().chain(replaced).fold(problem.reason.clone(), |reason, note| reason.note(note));
    Problem { reason, ..problem.clone() }
}
