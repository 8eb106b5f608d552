//! Promises that nobody keeps sending: a site without its `[site.hpkp]`, or a name without its site.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::builder::Builder;
use super::checker::Checker;
use super::entry::{SiteEntry, timestamp};
use super::refusal::{listed, safe_day};
use crate::config::file::SiteTable;
use crate::config::last_good::FormerCopies;
use crate::host::HostPattern;
use crate::policy::promise::Seconds;
use crate::reason::{Problem, Reason, shell_path, shell_word};

/// Groups of names without a site that get a warning each.
const SINGLE_MAX: usize = 3;

/// Warns if `[site.hpkp]` was removed: that withdraws nothing.
pub(super) fn warn_of_removal(
    table: &SiteTable,
    entry: &Arc<SiteEntry>,
    builder: &Builder<'_>,
    problems: &mut crate::config::Problems,
) {
    if table.hpkp.is_some() {
        return;
    }
    if let Some(until) = builder.held_pins().until(entry.report.name(), &entry.plan.hosts) {
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
    let is_served =
        |name: &HostPattern| hosts.contains(name) || name.wildcard_above().is_some_and(|above| hosts.contains(&above));
    let mut until: BTreeMap<String, (Seconds, Vec<HostPattern>)> = BTreeMap::new();
    for promise in context.book.promises().iter().filter(|p| p.is_alive(context.now)) {
        let unserved: Vec<&HostPattern> = promise.hosts.iter().filter(|h| !is_served(h)).collect();
        let names: Vec<String> = unserved.iter().map(ToString::to_string).collect();
        if !names.is_empty() {
            let (known, hosts) = until.entry(names.join(", ")).or_default();
            *known = promise.honoured_until().max(*known);
            *hosts = unserved.into_iter().cloned().collect();
        }
    }
    // Many share one warning, and so one hint.
    let is_many = until.len() > SINGLE_MAX;
    let latest = until.values().map(|(until, _)| *until).max().unwrap_or_default();
    for (until, hosts) in until.into_values() {
        let names = listed(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let what = format!("no site serves {names}, but clients hold pins until {}", timestamp(until));
        let hint = format!(
            "keep the promised keys until {}: whatever serves these names needs one of them. A site with [site.hpkp] and \
             mode = \"withdraw\" makes clients that visit forget the pins",
            safe_day(if is_many { latest } else { until })
        );
        let reason = Reason::new(what).hint(hint).hints(kept_aside(builder.copies.former(), &hosts));
        let problem = Problem::warning(&(0..0), reason);
        r.report(match is_many {
            true => problem.shared("pins of names without a site", format!("{names} (until {})", safe_day(until))),
            false => problem,
        });
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
