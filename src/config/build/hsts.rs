//! `[site.hsts]`, and ramps.

use std::time::Duration;

use super::checker::Checker;
use crate::config::file::{HstsTable, RampKeys};
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::host::HostPattern;
use crate::policy::hsts::{Hsts, UpstreamHeader};
use crate::policy::ramp::Steps;
use crate::reason::{Problem, Reason};

/// The age that an HSTS policy gets if the file does not say: one year.
const HSTS_MAX_AGE: u64 = 365 * 86400;
/// The duration of a step if the file does not say.
const RAMP_EVERY: Duration = Duration::from_secs(7 * 86400);
/// The largest number of steps.
const STEPS_MAX: usize = 100;

/// A policy at the end of its ramp, and the steps to it.
pub(super) struct HstsPlan {
    pub(super) policy: Hsts,
    pub(super) steps: Option<Steps>,
}

/// Reads `ramp` and `ramp_every`: ages that rise up to `max_age`.
pub(super) fn ramp(keys: &RampKeys, table: &str, goal: Option<&At<Duration>>, r: &mut Checker<'_>) -> Option<Steps> {
    let Some(steps) = &keys.steps else {
        if let Some(every) = &keys.every {
            let hint = "ramp = [\"5m\", \"1h\", \"1d\", \"7d\", \"30d\"]";
            r.error_with_hint(&every.span, format!("{table}.ramp_every: has no effect without ramp"), hint);
        }
        return None;
    };
    let every = keys.every.as_ref().map_or(RAMP_EVERY, |e| e.value);
    if let Some(at) = keys.every.as_ref().filter(|e| e.value.as_secs() == 0) {
        r.error(&at.span, format!("{table}.ramp_every: must be at least 1s"));
    }
    if steps.is_empty() || steps.len() > STEPS_MAX {
        let span = steps.first().map_or(0..0, |s| s.span.clone());
        r.error(&span, format!("{table}.ramp: must have between 1 and {STEPS_MAX} steps"));
        return None;
    }
    if let Some(step) = steps.first().filter(|step| step.value.as_secs() == 0) {
        r.error(&step.span, format!("{table}.ramp: each step must be at least 1s"));
    }
    for (at, step) in steps.iter().enumerate() {
        if at > 0 && step.value <= steps[at - 1].value {
            r.error(&step.span, format!("{table}.ramp: each step must be longer than the one before"));
        }
        if let Some(goal) = goal.filter(|goal| step.value > goal.value) {
            let goal = show_duration(goal.value);
            r.error(&step.span, format!("{table}.ramp: must not exceed max_age, which is {goal}"));
        }
    }
    let ages = steps.iter().map(|s| s.value.as_secs()).collect();
    Some(Steps::new(ages, every.as_secs(), goal.map(|g| g.value.as_secs())))
}

pub(super) fn plan(table: &HstsTable, hosts: &[At<HostPattern>], r: &mut Checker<'_>) -> HstsPlan {
    let steps = ramp(&table.ramp, "site.hsts", table.max_age.as_ref(), r);
    let goal = table.max_age.as_ref().map(|m| m.value.as_secs());
    let words = [("replace", UpstreamHeader::Replace), ("keep", UpstreamHeader::Keep)];
    let policy = Hsts {
        max_age: goal.or_else(|| steps.as_ref().map(Steps::goal)).unwrap_or(HSTS_MAX_AGE),
        include_subdomains: table.include_subdomains.as_ref().is_some_and(|i| i.value),
        preload: table.preload.as_ref().is_some_and(|p| p.value),
        upstream: r.choice("site.hsts.upstream", table.upstream.as_ref(), &words, UpstreamHeader::Replace),
    };
    let faults = policy.preload_faults();
    if !faults.is_empty() {
        let span = table.preload.as_ref().map_or(&table.span, |p| &p.span);
        r.error_with_hint(
            span,
            format!("site.hsts.preload: the preload list does not accept this policy: {}", faults.join("; ")),
            "set max_age = \"1y\" or more and include_subdomains = true, for the base domain; \
             leave preload out unless all subdomains use https permanently",
        );
    }
    if policy.preload && faults.is_empty() {
        // hstspreload.org: the header must come from the base domain.
        for host in hosts.iter().filter(|h| h.value.base().matches('.').count() > 1 || h.value.is_wildcard()) {
            let name = host.value.to_string();
            let what = format!("site.hsts.preload: {name} may not be a base domain, and browsers preload only those");
            let reason = Reason::new(what).hint("set preload for the site of example.com, not of www.example.com");
            r.report(Problem::warning(&host.span, reason).shared("preload below the base domain", name));
        }
    }
    for host in hosts.iter().filter(|h| h.value.address().is_some()) {
        let address = host.value.to_string();
        let what = format!("site.hsts: browsers keep no policy for an address like {address} (RFC 6797 section 8.1.1)");
        let reason = Reason::new(what).hint("give the site a name");
        r.report(Problem::warning(&host.span, reason).shared("policy for an address", address));
    }
    HstsPlan { policy, steps }
}
