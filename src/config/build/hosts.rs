//! `hosts`: the names of the sites.

use std::collections::HashMap;
use std::ops::Range;

use super::checker::Checker;
use crate::config::file::SiteTable;
use crate::config::problem::At;
use crate::host::HostPattern;
use crate::reason::Reason;

/// The host that was meant by a URL, or by a host with a port.
fn host_within(text: &str) -> Option<HostPattern> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest).trim();
    let authority = rest.split(['/', '?', '#']).next()?;
    let bracket = authority.rfind(']').unwrap_or(0);
    let host = authority[bracket..].rfind(':').map_or(authority, |colon| &authority[..bracket + colon]);
    // An IPv6 address without its brackets.
    let bare = authority.parse::<std::net::Ipv6Addr>().ok().map(|address| format!("[{address}]"));
    HostPattern::of_site(&bare.unwrap_or_else(|| host.to_owned())).ok()
}

/// The strings for several hosts in one: `"a.example", "b.example"`.
fn several_hosts(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split([',', ';', ' ', '\t']).filter(|part| !part.is_empty()).collect();
    let hosts: Option<Vec<String>> =
        parts.into_iter().map(|part| Some(format!("{:?}", host_within(part)?.to_string()))).collect();
    hosts.filter(|hosts| hosts.len() > 1).map(|hosts| hosts.join(", "))
}

/// A site's names; each belongs to one site only.
pub(super) fn hosts(
    table: &SiteTable,
    index: usize,
    taken: &mut HashMap<HostPattern, (usize, Range<usize>)>,
    r: &mut Checker<'_>,
) -> Vec<At<HostPattern>> {
    let Some(listed) = &table.hosts else {
        if !table.has_hosts {
            r.error_with_hint(&table.span, "site: hosts is missing", "hosts = [\"blog.example.com\"]");
        }
        return Vec::new();
    };
    if listed.is_empty() {
        r.error_with_hint(&table.span, "site.hosts: must not be empty", "hosts = [\"blog.example.com\"]");
    }
    let mut hosts = Vec::new();
    for text in listed {
        let pattern = match HostPattern::of_site(&text.value) {
            Ok(pattern) => pattern,
            Err(why) => {
                let reason = Reason::new(format!("site.hosts: {:?}: {why}", text.value));
                let reason = match (several_hosts(&text.value), host_within(&text.value)) {
                    (Some(list), _) => reason.hint(format!("one string for each: {list}")).fix(list),
                    (None, Some(host)) => reason.meant(&host.to_string()),
                    (None, None) => reason,
                };
                r.error(&text.span, reason);
                continue;
            }
        };
        if let Some((other, span)) = taken.get(&pattern) {
            let (line, _) = r.problems.line_and_column(span.start);
            let whose = if *other == index { "this site" } else { "another site" };
            r.error(
                &text.span,
                Reason::new(format!("site.hosts: {pattern} is taken: {whose} has it in line {line}"))
                    .hint("remove one of them"),
            );
            continue;
        }
        taken.insert(pattern.clone(), (index, text.span.clone()));
        hosts.push(text.with(pattern));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_one_string() {
        let check = |text: &str, want: Option<&str>| assert_eq!(several_hosts(text).as_deref(), want, "{text}");
        check("a.example,b.example", Some("\"a.example\", \"b.example\""));
        check("a.example:443, *.b.example", Some("\"a.example\", \"*.b.example\""));
        check("a.example b.example", Some("\"a.example\", \"b.example\""));
        check("a.example,", None);
        check("user@a.example", None);
        check("a.example, !", None);
    }
}
