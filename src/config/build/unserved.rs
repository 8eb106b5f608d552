//! Promises that nobody keeps sending: a site without its `[site.hpkp]`, or a name without its site.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::builder::Builder;
use super::checker::Checker;
use super::entry::{SiteEntry, timestamp};
use super::refusal::safe_day;
use crate::config::CheckContext;
use crate::config::file::SiteTable;
use crate::config::last_good::FormerCopies;
use crate::host::HostPattern;
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::{Problem, Reason, shell_path, shell_word};

/// Warns if `[site.hpkp]` was removed: that withdraws nothing.
pub(super) fn warn_of_removal(
    table: &SiteTable,
    entry: &Arc<SiteEntry>,
    context: &CheckContext<'_>,
    problems: &mut crate::config::Problems,
) {
    if table.hpkp.is_some() {
        return;
    }
    let label = entry.site.label();
    let own = context.book.promises().iter().filter(|p| {
        p.channel == PromiseChannel::Header(Mode::Enforce)
            && p.is_alive(context.now)
            && (p.site == label || p.hosts.iter().any(|h| entry.plan.hosts.contains(h)))
    });
    if let Some(until) = own.map(Promise::honoured_until).max() {
        let what = format!("site: [site.hpkp] is gone, but clients hold its pins until {}", timestamp(until));
        let hint = format!(
            "until {}, keep [site.hpkp] with mode = \"withdraw\": clients that visit then forget the pins",
            safe_day(until)
        );
        problems.warn(&table.span, Reason::new(what).hint(hint));
    }
}

/// Warns if a whole site was removed: that withdraws nothing either, and binds whoever has its names next.
pub(super) fn warn_of_unserved(builder: &Builder<'_>, r: &mut Checker<'_>) {
    let context = builder.context;
    let hosts: HashSet<&HostPattern> = builder.names.iter().flatten().collect();
    let is_served = |name: &HostPattern| {
        let covers = |exact: &str| hosts.iter().any(|h| h.is_wildcard() && h.matches(exact));
        hosts.contains(name) || name.exact().is_some_and(covers)
    };
    let mut until: BTreeMap<String, (Seconds, Vec<HostPattern>)> = BTreeMap::new();
    for promise in context.book.promises().iter().filter(|p| p.is_alive(context.now)) {
        let unserved: Vec<&HostPattern> = promise.hosts.iter().filter(|h| !is_served(h)).collect();
        let names: Vec<String> = unserved.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            let (known, hosts) = until.entry(names.join(", ")).or_default();
            *known = promise.honoured_until().max(*known);
            hosts.extend(unserved.into_iter().cloned());
        }
    }
    for (names, (until, hosts)) in until {
        let what = format!("no site serves {names}, but clients hold pins until {}", timestamp(until));
        let hint = format!(
            "keep the promised keys until {}: whatever serves these names needs one of them. A site with [site.hpkp] and \
             mode = \"withdraw\" makes clients that visit forget the pins",
            safe_day(until)
        );
        r.report(Problem::warning(
            &(0..0),
            Reason::new(what).hint(hint).hints(kept_aside(builder.copies.former(), &hosts)),
        ));
    }
}

/// The place of a copy of the last certificate and key of a removed site with these names.
pub(super) fn kept_aside(former: Option<&FormerCopies>, hosts: &[HostPattern]) -> Option<String> {
    let copy = former?.find(hosts)?;
    let site = hosts.first()?.to_string();
    let (word, file) = (shell_word(&site), shell_path(&copy.path));
    Some(format!(
        "{file} has the certificate and key that served {site} last; for a site with these names: pintle install --site \
         {word} {file} {file}"
    ))
}
