//! `[metrics]`: Graphite.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::checker::Checker;
use super::upstream_url::{of_port, wrong_port};
use crate::config::file::MetricsTable;
use crate::config::problem::At;
use crate::graphite::{GraphiteSettings, push_node};
use crate::host::bare;
use crate::limits::Limits;
use crate::reason::Reason;

/// The port of Graphite's plaintext protocol.
const PORT: u16 = 2003;
/// The default and the bounds of the interval.
const INTERVAL: Duration = Duration::from_secs(60);
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
/// The longest prefix.
const PREFIX_MAX: usize = 200;
const EXAMPLE: &str = "graphite = \"tcp://127.0.0.1:2003\"";

pub(super) fn graphite(table: &MetricsTable, limits: &Limits, r: &mut Checker<'_>) -> Option<GraphiteSettings> {
    let prefix = prefix(table.graphite_prefix.as_ref(), r);
    let interval = interval(table.graphite_interval.as_ref(), r);
    let Some(at) = &table.graphite else {
        let prefix = table.graphite_prefix.as_ref().map(|at| ("graphite_prefix", &at.span));
        let interval = table.graphite_interval.as_ref().map(|at| ("graphite_interval", &at.span));
        for (key, span) in [prefix, interval].into_iter().flatten() {
            r.error_with_hint(span, format!("metrics.{key}: has no effect without metrics.graphite"), EXAMPLE);
        }
        return None;
    };
    let Some((host, port)) = place(&at.value) else {
        let reason = match at.value.strip_prefix("tcp://").and_then(wrong_port) {
            Some((host, port)) => of_port("metrics.graphite", port).meant(&format!("tcp://{host}")),
            None => Reason::new(format!("metrics.graphite: invalid address {:?}", at.value)).hint(EXAMPLE),
        };
        r.error(&at.span, reason);
        return None;
    };
    Some(GraphiteSettings { host, port, prefix, interval, queue: limits.graphite_queue })
}

/// Reads `tcp://HOST:PORT`; the port may be left out.
fn place(text: &str) -> Option<(String, u16)> {
    let url = text.parse::<http::Uri>().ok().filter(|url| url.scheme_str() == Some("tcp"))?;
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return None;
    }
    let host = bare(authority.host());
    let port = match authority.as_str().rsplit_once("]").map_or(authority.as_str(), |(_, rest)| rest).rsplit_once(':') {
        Some((_, port)) => port.parse().ok().filter(|port| *port > 0)?,
        None => PORT,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Returns the beginning of every path, by default `pintle.HOST`.
fn prefix(given: Option<&At<String>>, r: &mut Checker<'_>) -> String {
    let Some(given) = given else {
        let mut prefix = String::from("pintle.");
        push_node(&mut prefix, crate::os::usage::host_name());
        return prefix;
    };
    let is_node =
        |node: &str| !node.is_empty() && node.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if given.value.len() > PREFIX_MAX || !given.value.split('.').all(is_node) {
        // Without the value, which may be a key: everybody who may look reads why a reload was refused.
        let what = format!(
            "metrics.graphite_prefix: expected letters, digits, hyphens and underscores in parts with dots between, at most \
             {PREFIX_MAX}"
        );
        r.error_with_hint(&given.span, what, "graphite_prefix = \"servers.edge1.pintle\"");
    }
    given.value.clone()
}

fn interval(given: Option<&At<Duration>>, r: &mut Checker<'_>) -> Duration {
    let Some(given) = given else { return INTERVAL };
    if !INTERVALS.contains(&given.value) {
        r.error(&given.span, "metrics.graphite_interval: must be between 1s and 1d");
    }
    given.value
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places() {
        let check = |text: &str, want: Option<(&str, u16)>| {
            assert_eq!(place(text), want.map(|(host, port)| (host.to_owned(), port)), "{text}");
        };
        check("tcp://127.0.0.1:2003", Some(("127.0.0.1", 2003)));
        check("tcp://graphite.example.com", Some(("graphite.example.com", 2003)));
        check("tcp://[::1]:2004/", Some(("::1", 2004)));
        check("tcp://[::1]", Some(("::1", 2003)));
        for wrong in
            ["", "127.0.0.1:2003", "udp://a:1", "http://a:1", "tcp://", "tcp://a:0", "tcp://a:x", "tcp://a:70000"]
        {
            check(wrong, None);
        }
        for wrong in ["tcp://a:1/x", "tcp://a:1?x", "tcp://u@a:1", "tcp://:2003"] {
            check(wrong, None);
        }
    }
}
