//! `[site.circuit_breaker]` and `[site.health_check]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::checker::Checker;
use crate::config::file::{BreakerTable, CheckTable};
use crate::config::problem::At;
use crate::config::value::{show_duration, show_number};
use crate::host::HostPattern;
use crate::reason::Reason;
use crate::upstream::{BreakerRule, HealthCheck, HostHeader};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
const HEALTHY: u32 = 2;
const UNHEALTHY: u32 = 3;
const STATUS: RangeInclusive<u16> = 200..=399;
/// The shortest interval between checks, and the shortest time for a breaker to stay open.
const LEAST: Duration = Duration::from_millis(500);
/// The largest number of failures, or answers, in a row.
const RUN_MAX: u64 = 1_000_000;

pub(super) fn breaker(table: Option<&BreakerTable>, r: &mut Checker<'_>) -> BreakerRule {
    let mut rule = BreakerRule::default();
    let Some(table) = table else { return rule };
    let what = "site.circuit_breaker";
    if let Some(failures) = number(what, "failures", &table.failures, 0, r) {
        rule.failures = failures;
    }
    if let Some(open) = time(what, "open", &table.open, r) {
        rule.open = open;
        rule.open_max = rule.open_max.max(open);
    }
    if let Some(open_max) = time(what, "open_max", &table.open_max, r) {
        rule.open_max = open_max;
        if let (true, Some(at)) = (open_max < rule.open, &table.open_max) {
            let reason =
                Reason::new(format!("{what}.open_max: must be at least open, which is {}", show_duration(rule.open)));
            r.error(&at.span, reason);
        }
    }
    rule
}

/// Returns `None` after it has reported a problem.
pub(super) fn check(
    table: &CheckTable,
    host_header: &HostHeader,
    hosts: &[HostPattern],
    r: &mut Checker<'_>,
) -> Option<HealthCheck> {
    let what = "site.health_check";
    let interval = time(what, "interval", &table.interval, r);
    let timeout = time(what, "timeout", &table.timeout, r);
    let healthy = number(what, "healthy", &table.healthy, 1, r);
    let unhealthy = number(what, "unhealthy", &table.unhealthy, 1, r);
    let status = match &table.status {
        None => Some(STATUS),
        Some(text) => {
            let range = status_range(&text.value);
            if range.is_none() {
                let message = format!("{what}.status: invalid range of status codes {:?}", text.value);
                r.error_with_hint(&text.span, message, "status = \"200-399\", or one code: \"204\"");
            }
            range
        }
    };
    let host = match host_header {
        HostHeader::Fixed(host) => Some(host.clone()),
        HostHeader::Client => hosts.iter().find_map(|host| host.exact()).map(Into::into),
    };
    if host.is_none() {
        let message =
            format!("{what}: the site's hosts are all wildcards, so the check has no name for its Host field");
        r.error_with_hint(&table.span, message, "set site.upstream_options.host_header to a name");
    }
    let path = match &table.path {
        None => {
            r.error_with_hint(&table.span, format!("{what}: path is missing"), "path = \"/\"");
            None
        }
        Some(path) if path.value.starts_with('/') && path.value.bytes().all(|b| b.is_ascii_graphic() && b != b'#') => {
            Some(path.value.as_str().into())
        }
        Some(path) => {
            r.error_with_hint(&path.span, format!("{what}.path: invalid path {:?}", path.value), "path = \"/\"");
            None
        }
    };
    Some(HealthCheck {
        path: path?,
        host: host?,
        interval: interval.unwrap_or(INTERVAL),
        timeout: timeout.unwrap_or(TIMEOUT),
        healthy: healthy.unwrap_or(HEALTHY),
        unhealthy: unhealthy.unwrap_or(UNHEALTHY),
        status: status?,
    })
}

/// `200-399`, or `204`.
fn status_range(text: &str) -> Option<RangeInclusive<u16>> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = code(first)?..=code(last)?;
    (!range.is_empty()).then_some(range)
}

fn number(what: &str, key: &str, given: &Option<At<u64>>, least: u64, r: &mut Checker<'_>) -> Option<u32> {
    let given = given.as_ref()?;
    if !(least..=RUN_MAX).contains(&given.value) {
        let bounds = format!("must be between {} and {}", show_number(least), show_number(RUN_MAX));
        r.error(&given.span, format!("{what}.{key}: {bounds}"));
    }
    u32::try_from(given.value).ok()
}

fn time(what: &str, key: &str, given: &Option<At<Duration>>, r: &mut Checker<'_>) -> Option<Duration> {
    let given = given.as_ref()?;
    if given.value < LEAST {
        r.error(&given.span, format!("{what}.{key}: must be at least {}", show_duration(LEAST)));
    }
    Some(given.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_status_codes() {
        assert_eq!(status_range("200-399"), Some(200..=399));
        assert_eq!(status_range("204"), Some(204..=204));
        assert_eq!(status_range("200 - 204"), Some(200..=204));
        for bad in ["", "-", "399-200", "20", "200-", "200-600", "2xx", "200-299-300"] {
            assert_eq!(status_range(bad), None, "{bad}");
        }
    }
}
