//! `[site.rate]` and `[[rate]]`: limits of requests.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use ipnet::IpNet;

use super::checker::Checker;
use super::listen::{canonical, no_such_host};
use crate::config::file::{ConfigFile, PathRateTable, RateTable};
use crate::config::problem::At;
use crate::config::value::show_number;
use crate::host::HostPattern;
use crate::policy::rate::{AddressList, ListedAs, PathPattern, RateRule, RequestRate, SiteRates};
use crate::reason::Reason;

/// The most `[[rate]]` tables, and the most paths of one.
const RULES_MAX: usize = 256;
/// The longest name of a rule.
const NAME_MAX: usize = 64;
/// The largest burst, and the most requests under way.
const COUNT_MAX: u64 = 1_000_000;
/// The largest number in a rate.
const RATE_MAX: u64 = 1_000_000_000;
/// Examples of a rate, for messages.
const RATE_FORM: &str = "expected one like: \"20/s\", \"300/m\", \"1000/h\" or \"5000/d\"";
/// The periods of rates: their units, and other words for them.
const PERIODS: [(&str, u64, &[&str]); 4] = [
    ("s", 1, &["sec", "second", "seconds"]),
    ("m", 60, &["min", "minute", "minutes"]),
    ("h", 3600, &["hour", "hours"]),
    ("d", 86_400, &["day", "days"]),
];

/// The limits of each site, in their order: those of `[[rate]]` first.
pub(super) fn build(file: &ConfigFile, hosts: &[Vec<At<HostPattern>>], r: &mut Checker<'_>) -> Vec<Option<SiteRates>> {
    if let Some(beyond) = file.rates.get(RULES_MAX) {
        r.error(&beyond.rate.span, format!("rate: at most {RULES_MAX} tables"));
    }
    let tables = file.rates.iter().take(RULES_MAX).enumerate();
    let rules: Vec<(Option<Vec<HostPattern>>, RateRule)> =
        tables.map(|(at, table)| (named_sites(table, hosts, r), path_rule(table, at, r))).collect();
    let sites = file.sites.iter().zip(hosts);
    let of_site = |(table, names): (&crate::config::file::SiteTable, &Vec<At<HostPattern>>)| {
        let label = names.first().map(|host| host.value.to_string()).unwrap_or_default();
        let applies = |sites: &Option<Vec<HostPattern>>| {
            sites.as_ref().is_none_or(|sites| names.iter().any(|host| sites.contains(&host.value)))
        };
        let mut own: Vec<RateRule> =
            rules.iter().filter(|(sites, _)| applies(sites)).map(|(_, rule)| rule.clone()).collect();
        if let Some(table) = &table.rate {
            own.push(rule(table, "site.rate", "site", r));
        }
        for at in 0..own.len() {
            let same = own[..at].iter().filter(|earlier| is_same(earlier, &own[at])).count();
            own[at].mark = mark(&own[at], &label, same);
        }
        (!own.is_empty()).then_some(SiteRates { rules: own })
    };
    sites.map(of_site).collect()
}

/// The identity of a rule of one site. Its name and its place among other rules do not matter; `same` is the number of rules
/// before it that are the same.
fn mark(rule: &RateRule, site: &str, same: usize) -> u64 {
    let mut hash = DefaultHasher::new();
    (site, &rule.paths, &rule.methods, rule.requests, rule.crawlers, rule.shared, same).hash(&mut hash);
    hash.finish()
}

fn is_same(one: &RateRule, other: &RateRule) -> bool {
    let counted = |rule: &RateRule| (rule.requests, rule.crawlers, rule.shared);
    counted(one) == counted(other) && one.paths == other.paths && one.methods == other.methods
}

fn path_rule(table: &PathRateTable, at: usize, r: &mut Checker<'_>) -> RateRule {
    let name = match &table.name {
        Some(name) if is_name(&name.value) => name.value.clone(),
        Some(name) => {
            let reason = Reason::new(format!("rate.name: invalid name {:?}", name.value))
                .note(format!("expected 1 to {NAME_MAX} letters, digits, dots, hyphens and underscores"))
                .hint("name = \"login\"");
            r.error(&name.span, reason);
            String::new()
        }
        None => format!("rate{at}"),
    };
    let rule = rule(&table.rate, "rate", &name, r);
    let paths = paths(table, r);
    let methods = table.methods.iter().flatten().filter_map(|method| read_method(method, r)).collect();
    for (key, list) in [("sites", &table.sites), ("paths", &table.paths), ("methods", &table.methods)] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            r.error_with_hint(&table.rate.span, format!("rate.{key}: must not be empty"), "leave the key out for all");
        }
    }
    RateRule { key: format!("rate[{at}]").into(), paths, methods, ..rule }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The hosts in `sites`, in the form of the sites' own; `None` without the key: the rule is for all sites.
fn named_sites(table: &PathRateTable, hosts: &[Vec<At<HostPattern>>], r: &mut Checker<'_>) -> Option<Vec<HostPattern>> {
    let mut named = Vec::new();
    for site in table.sites.as_ref()? {
        match HostPattern::parse(&site.value).ok().filter(|host| hosts.iter().flatten().any(|at| at.value == *host)) {
            Some(host) => named.push(host),
            None => r.error(&site.span, no_such_host("rate.sites", &site.value, hosts)),
        }
    }
    Some(named)
}

fn paths(table: &PathRateTable, r: &mut Checker<'_>) -> Vec<PathPattern> {
    let listed = table.paths.as_deref().unwrap_or_default();
    if let Some(beyond) = listed.get(RULES_MAX) {
        r.error(&beyond.span, format!("rate.paths: at most {RULES_MAX} paths"));
    }
    let mut paths = Vec::new();
    for path in listed {
        let Some(pattern) = PathPattern::new(&path.value) else {
            let reason = Reason::new(format!("rate.paths: invalid pattern {:?}", path.value));
            let reason =
                reason.note("expected a path that begins with / or *, without a query; * matches any characters");
            let hint = match path.value.starts_with(['^', '~']) {
                true => "regular expressions have no place here: paths = [\"/wp-login.php\", \"/api/*\", \"*.php\"]",
                false => "paths = [\"/wp-login.php\", \"/api/*\", \"*.php\"]",
            };
            r.error(&path.span, reason.hint(hint));
            continue;
        };
        if path.value.len() > 1 && path.value.ends_with('/') {
            r.warn(
                &path.span,
                format!("rate.paths: {:?} matches this path alone, and nothing below it", path.value),
                format!("\"{}*\" for everything below it", path.value),
            );
        }
        paths.push(pattern);
    }
    paths
}

fn read_method(method: &At<String>, r: &mut Checker<'_>) -> Option<Method> {
    let upper = method.value.to_ascii_uppercase();
    match Method::from_bytes(method.value.as_bytes()) {
        Ok(read) if upper == method.value => Some(read),
        Ok(_) => {
            r.error(
                &method.span,
                Reason::new(format!("rate.methods: {:?}: methods have capital letters", method.value)).meant(&upper),
            );
            None
        }
        Err(_) => {
            r.error_with_hint(
                &method.span,
                format!("rate.methods: invalid method {:?}", method.value),
                "methods = [\"POST\"]",
            );
            None
        }
    }
}

/// The part that both tables have.
fn rule(table: &RateTable, key: &str, name: &str, r: &mut Checker<'_>) -> RateRule {
    if !table.has_limit {
        r.error_with_hint(&table.span, format!("{key}: limits nothing"), "requests = \"20/s\"");
    }
    if let (Some(burst), None) = (&table.burst, &table.requests) {
        r.error_with_hint(&burst.span, format!("{key}.burst: has no effect without requests"), "requests = \"20/s\"");
    }
    if let (Some(crawlers), true) = (&table.crawlers, table.allow.is_empty()) {
        let what = format!("{key}.crawlers: a crawler shares its budget with everybody who claims its name");
        r.warn(&crawlers.span, what, "list its published ranges in allow");
    }
    let burst = count(table.burst.as_ref(), &format!("{key}.burst"), r);
    let concurrent = count(table.concurrent.as_ref(), &format!("{key}.concurrent"), r);
    RateRule {
        key: key.into(),
        name: name.into(),
        paths: Vec::new(),
        methods: Vec::new(),
        requests: table.requests.as_ref().and_then(|text| rate(text, &format!("{key}.requests"), burst, r)),
        concurrent: concurrent.and_then(|n| u32::try_from(n).ok()),
        crawlers: table.crawlers.as_ref().and_then(|text| rate(text, &format!("{key}.crawlers"), None, r)),
        shared: r.choice(&format!("{key}.per"), table.per.as_ref(), &[("client", false), ("site", true)], false),
        addresses: addresses(table, key, r),
        fields: table.headers.as_ref().is_none_or(|headers| headers.value),
        mark: 0,
    }
}

fn count(given: Option<&At<u64>>, key: &str, r: &mut Checker<'_>) -> Option<u64> {
    let given = given?;
    if !(1..=COUNT_MAX).contains(&given.value) {
        r.error(&given.span, format!("{key}: must be between 1 and {}", show_number(COUNT_MAX)));
        return None;
    }
    Some(given.value)
}

/// Reads `20/s`. Without a burst, as many requests may come at once as the rate names.
fn rate(text: &At<String>, key: &str, burst: Option<u64>, r: &mut Checker<'_>) -> Option<RequestRate> {
    let Some((count, seconds)) = parse(&text.value) else {
        let reason = Reason::new(format!("{key}: invalid rate {:?}", text.value)).note(RATE_FORM);
        r.error(&text.span, meant(&text.value).into_iter().fold(reason, |reason, meant| reason.meant(&meant)));
        return None;
    };
    let made = (1..=RATE_MAX)
        .contains(&count)
        .then(|| RequestRate::new(count, Duration::from_secs(seconds), burst.unwrap_or_else(|| count.min(COUNT_MAX))));
    match made {
        Some(Some(rate)) => Some(rate),
        Some(None) => {
            r.error_with_hint(&text.span, format!("{key}: a spent burst takes longer than a year"), "a smaller burst");
            None
        }
        None => {
            r.error(&text.span, format!("{key}: the number must be between 1 and {}", show_number(RATE_MAX)));
            None
        }
    }
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let (count, unit) = text.split_once('/')?;
    let (_, seconds, _) = PERIODS.iter().find(|(short, ..)| *short == unit)?;
    let is_number = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| count.parse().unwrap_or(u64::MAX)).map(|count| (count, *seconds))
}

/// The rate that somebody may have meant: `20/s` for `20r/s`, `20 / sec` or `20`.
fn meant(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, rest) = text.split_at(digits);
    let word: String =
        rest.trim_start_matches(['r', ' ']).trim_start_matches("per").trim_matches(['/', ' ', 'p']).to_owned();
    let unit = match word.as_str() {
        "" => "s",
        word => PERIODS.iter().find(|(short, _, words)| *short == word || words.contains(&word))?.0,
    };
    (!count.is_empty()).then(|| format!("{count}/{unit}"))
}

fn addresses(table: &RateTable, key: &str, r: &mut Checker<'_>) -> AddressList {
    let mut list = AddressList::default();
    for (name, texts, listed) in [("allow", &table.allow, ListedAs::Allowed), ("deny", &table.deny, ListedAs::Denied)] {
        for text in texts {
            let parsed =
                text.value.parse::<IpNet>().ok().or_else(|| text.value.parse::<IpAddr>().ok().map(IpNet::from));
            let Some(range) = parsed else {
                let example = "\"10.0.0.0/8\", \"192.0.2.1\" or \"2001:db8::/32\"";
                match text.value.as_str() {
                    "all" => r.error(
                        &text.span,
                        Reason::new(format!("{key}.{name}: \"all\" is not an address range"))
                            .hint(format!("{name} = [\"0.0.0.0/0\", \"::/0\"]")),
                    ),
                    other => {
                        r.error_with_hint(&text.span, format!("{key}.{name}: invalid address range {other:?}"), example)
                    }
                }
                continue;
            };
            if !list.add(canonical(range), listed) {
                let what = format!("{key}.{name}: {:?} is also in {key}.allow", text.value);
                r.error_with_hint(&text.span, what, "keep one of them");
            } else if range.addr() != range.network() {
                let (whole, one) = (canonical(range).trunc(), range.addr().to_canonical());
                let what = format!("{key}.{name}: {:?} is all of {whole}", text.value);
                r.warn(&text.span, what, format!("write \"{whole}\", or \"{one}\" for this address alone"));
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, want) in [
            ("20/s", Some((20, 1))),
            ("300/m", Some((300, 60))),
            ("1/h", Some((1, 3600))),
            ("5000/d", Some((5000, 86_400))),
            ("99999999999999999999/s", Some((u64::MAX, 1))),
            ("20", None),
            ("/s", None),
            ("-1/s", None),
            ("20/sec", None),
            ("20r/s", None),
            ("20/s ", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }

    #[test]
    fn rates_that_somebody_may_have_meant() {
        for (text, want) in [
            ("20", Some("20/s")),
            ("20r/s", Some("20/s")),
            ("20 / second", Some("20/s")),
            ("5 per minute", Some("5/m")),
            ("10rps", Some("10/s")),
            ("30/hours", Some("30/h")),
            ("7/day", Some("7/d")),
            ("fast", None),
            ("20/w", None),
        ] {
            assert_eq!(meant(text).as_deref(), want, "{text}");
        }
    }
}
