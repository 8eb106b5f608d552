//! The limits that apply to a request, by name and value.

use std::time::Duration;

use serde_json::{Value, json};

use super::Inputs;
use crate::config::Lines;
use crate::config::value::{show_duration, show_number, show_size};
use crate::limits::Limits;
use crate::message::Name;
use crate::policy::Scheme;
use crate::policy::rate::{ListedAs, RateRule, crawler};
use crate::server::explain::Decided;
use crate::upstream::Upstream;

/// The limits of every request, once its connection is there.
const OF_REQUESTS: [&str; 9] = [
    "limits.request_header",
    "limits.request_line",
    "limits.header_size",
    "limits.header_count",
    "limits.field_size",
    "limits.idle",
    "limits.requests_per_connection",
    "limits.body_progress",
    "limits.body_rate",
];

/// The limits of a request to an upstream.
const OF_UPSTREAMS: [&str; 11] = [
    "limits.request_body",
    "limits.retry_body",
    "limits.upstream_connections",
    "limits.upstream_queue",
    "limits.upstream_queue_wait",
    "limits.upstream_idle",
    "limits.response_header_size",
    "limits.response_header_count",
    "site.upstream_options.connect_timeout",
    "site.upstream_options.response_timeout",
    "site.upstream_options.total_timeout",
];

/// The limits of requests of a client, by the names in records, each with its key in a table of limits.
const OF_CLIENTS: [(&str, &str); 3] =
    [("rate_requests", "requests"), ("rate_concurrent", "concurrent"), ("rate_crawlers", "crawlers")];

/// The limits, each with the line that sets it.
pub(super) fn json(inputs: &Inputs<'_>) -> Vec<Value> {
    let mut keys = vec!["limits.connections"];
    if inputs.found.peer.proxy.is_none() || inputs.found.proxied.flatten().is_some() {
        keys.push("limits.connections_per_client");
    }
    if inputs.question.listener == Scheme::Https {
        keys.push("limits.handshakes");
    }
    keys.push("limits.handshake");
    keys.extend(OF_REQUESTS);
    keys.push("limits.connection_memory");
    if inputs.asked.http2 {
        keys.extend(["limits.http2_streams", "limits.http2_resets"]);
    }
    let mut upstream = None;
    match &inputs.found.decision {
        Decided::Challenge => keys.push("limits.challenges"),
        Decided::Report | Decided::MixedReport => {
            keys.extend(["limits.reports_per_minute", "limits.reports_per_client"])
        }
        Decided::Forward(asked) => {
            keys.extend(OF_UPSTREAMS);
            upstream = Some(&**asked);
            let site = inputs.found.site.and_then(|(index, _)| inputs.config.snapshot.sites.get(index));
            if site.is_some_and(|site| site.buffers_requests) {
                keys.extend(["site.buffer_request", "limits.buffer_memory", "limits.buffer_files"]);
            }
        }
        _ => {}
    }
    let limits = &inputs.config.snapshot.limits;
    let row =
        |key: &str| Some(json!({ "name": key, "value": value(limits, upstream, key)?, "at": inputs.lines.at(&[key]) }));
    let mut rows: Vec<Value> = keys.into_iter().filter_map(row).collect();
    if upstream.is_some() {
        rows.extend(of_client(inputs));
    }
    rows
}

/// The limits of `[[rate]]` and `[site.rate]` that apply to the request.
fn of_client(inputs: &Inputs<'_>) -> Vec<Value> {
    let (snapshot, found) = (&inputs.config.snapshot, inputs.found);
    let site = found.site.and_then(|(index, _)| snapshot.rates.as_ref()?.sites.get(index)?.as_ref());
    let (Some(site), Some(head), Some(origin)) = (site, &found.head, &found.origin) else { return Vec::new() };
    let mut rows = Vec::new();
    for rule in site.of(&head.method, head.path()) {
        let key = written_key(rule, inputs.lines);
        let exempt = match rule.addresses.find(origin.client) {
            Some(ListedAs::Allowed) => Some(format!("none: {} is in {key}.allow", origin.client)),
            _ if !rule.shared && snapshot.trust.contains(origin.client) => {
                Some(format!("none: {} is a trusted proxy", origin.client))
            }
            _ => None,
        };
        for part in ["requests", "concurrent"] {
            let name = format!("{key}.{part}");
            let value = value_of_rule(rule, part, inputs.lines).map(|value| exempt.clone().unwrap_or(value));
            rows.extend(value.map(|value| json!({ "name": name, "value": value, "at": inputs.lines.at(&[&name]) })));
        }
        let agent = head.fields.get(Name::UserAgent).and_then(crawler);
        if let (Some(_), Some(agent)) = (rule.crawlers, agent) {
            let name = format!("{key}.crawlers");
            let text = inputs.lines.text(&name).unwrap_or_default();
            rows.push(json!({ "name": name, "value": format!("{text} for {agent}"), "at": inputs.lines.at(&[&name]) }));
        }
    }
    rows
}

/// The key of a table of limits, as the file has it: a list of one table may be written as a table.
pub(super) fn written_key(rule: &RateRule, lines: &Lines) -> String {
    if lines.at(&[&rule.key]).is_some() { rule.key.to_string() } else { rule.key.replacen("[0]", "", 1) }
}

/// One limit of such a table in words: `requests`, `concurrent` or `crawlers`; `None` if the table has no such limit.
pub(super) fn value_of_rule(rule: &RateRule, part: &str, lines: &Lines) -> Option<String> {
    let who = if rule.shared { "for all clients together" } else { "for each client" };
    let text = || lines.text(&format!("{}.{part}", written_key(rule, lines))).unwrap_or_default().to_owned();
    match part {
        "requests" => rule.requests.map(|rate| format!("{}, {} at once, {who}", text(), show_number(rate.burst()))),
        "concurrent" => rule.concurrent.map(|most| format!("{} {who}", show_number(most.into()))),
        "crawlers" => rule.crawlers.map(|_| format!("{} for each crawler", text())),
        _ => None,
    }
}

/// The key within its table of a limit of requests that a record names.
pub(super) fn part_of_rule(name: &str) -> Option<&'static str> {
    OF_CLIENTS.iter().find(|(known, _)| *known == name).map(|(_, part)| *part)
}

/// The key of another limit that a record names.
pub(super) fn key_of(name: &str) -> String {
    let is_of_site = matches!(name, "connect_timeout" | "response_timeout" | "total_timeout");
    format!("{}.{name}", if is_of_site { "site.upstream_options" } else { "limits" })
}

/// The value of a limit in words; `None` if there is no such limit, or it is the upstream's and there is none.
pub(super) fn value(limits: &Limits, upstream: Option<&Upstream>, key: &str) -> Option<String> {
    let number = |n: usize| show_number(n as u64);
    let size = |n: usize| show_size(n as u64);
    let time = show_duration;
    Some(match key {
        "limits.connections" => number(limits.connections),
        "limits.shed_idle_at" => number(limits.shed_idle_at),
        "limits.connections_per_client" => number(limits.connections_per_client),
        "limits.handshake" => time(limits.handshake),
        "limits.handshakes" => number(limits.handshakes),
        "limits.request_header" => time(limits.request_header),
        "limits.request_line" => size(limits.request_line),
        "limits.header_size" => size(limits.header_size),
        "limits.header_count" => number(limits.header_count),
        "limits.field_size" => size(limits.field_size),
        "limits.idle" => time(limits.idle),
        "limits.requests_per_connection" => show_number(limits.requests_per_connection),
        "limits.body_progress" => time(limits.body_progress),
        "limits.body_rate" => format!("{} a second", show_size(limits.body_rate)),
        "limits.connection_memory" => size(limits.connection_memory),
        "limits.http2_streams" => show_number(limits.http2_streams.into()),
        "limits.http2_resets" => show_number(limits.http2_resets.into()),
        "limits.compressors" => number(limits.compressors),
        "limits.websocket_idle" => time(limits.websocket_idle),
        "limits.rate_clients" => number(limits.rate_clients),
        "limits.challenges" => number(limits.challenges),
        "limits.reports_per_minute" => show_number(limits.reports_per_minute),
        "limits.reports_per_client" => show_number(limits.reports_per_client),
        "limits.request_body" => show_size(limits.request_body),
        "limits.retry_body" => size(limits.retry_body),
        "limits.buffer_memory" => show_size(limits.buffer_memory),
        "limits.buffer_files" => show_size(limits.buffer_files),
        "site.buffer_request" => "the upstream is asked once the body is complete".to_owned(),
        "limits.upstream_connections" => number(limits.upstream_connections),
        "limits.upstream_queue" => number(limits.upstream_queue),
        "limits.upstream_queue_wait" => time(limits.upstream_queue_wait),
        "limits.upstream_idle" => time(limits.upstream_idle),
        "limits.response_header_size" => size(limits.response_header_size),
        "limits.response_header_count" => number(limits.response_header_count),
        "site.upstream_options.connect_timeout" => time(upstream?.connect_timeout),
        "site.upstream_options.response_timeout" => time(upstream?.response_timeout),
        "site.upstream_options.total_timeout" => {
            upstream?.total_timeout.map_or_else(|| "none".to_owned(), |total: Duration| time(total))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::meters::LIMITS;

    #[test]
    fn a_limit_that_a_record_can_name_has_a_value() {
        let limits = Limits::default();
        for name in LIMITS {
            let key = key_of(name);
            let is_of_client = part_of_rule(name).is_some();
            let is_known = value(&limits, None, &key).is_some() || OF_UPSTREAMS.contains(&&*key) || is_of_client;
            assert!(is_known, "{key}");
        }
    }
}
