//! The limits that apply to a request, by name and value.

use std::time::Duration;

use serde_json::{Value, json};

use super::Inputs;
use crate::config::value::{show_duration, show_number, show_size};
use crate::policy::Scheme;
use crate::server::explain::Decided;

/// The limits, each with the line that sets it.
pub(super) fn json(inputs: &Inputs<'_>) -> Vec<Value> {
    let limits = &inputs.config.snapshot.limits;
    let mut rows = Vec::new();
    let mut add = |key: &str, value: String| {
        rows.push(json!({ "name": key, "value": value, "at": inputs.lines.at(&[key]) }));
    };
    let number = |n: usize| show_number(n as u64);
    let size = |n: usize| show_size(n as u64);
    let time = show_duration;
    add("limits.connections", number(limits.connections));
    if inputs.found.peer.proxy.is_none() || inputs.found.proxied.flatten().is_some() {
        add("limits.connections_per_client", number(limits.connections_per_client));
    }
    if inputs.question.listener == Scheme::Https {
        add("limits.handshakes", number(limits.handshakes));
    }
    add("limits.handshake", time(limits.handshake));
    add("limits.request_header", time(limits.request_header));
    add("limits.request_line", size(limits.request_line));
    add("limits.header_size", size(limits.header_size));
    add("limits.header_count", number(limits.header_count));
    add("limits.field_size", size(limits.field_size));
    add("limits.idle", time(limits.idle));
    add("limits.requests_per_connection", show_number(limits.requests_per_connection));
    add("limits.body_progress", time(limits.body_progress));
    add("limits.body_rate", format!("{} a second", show_size(limits.body_rate)));
    add("limits.connection_memory", size(limits.connection_memory));
    match &inputs.found.decision {
        Decided::Challenge => add("limits.challenges", number(limits.challenges)),
        Decided::Report => {
            add("limits.reports_per_minute", show_number(limits.reports_per_minute));
            add("limits.reports_per_client", show_number(limits.reports_per_client));
        }
        Decided::Forward(upstream) => {
            add("limits.request_body", show_size(limits.request_body));
            add("limits.retry_body", size(limits.retry_body));
            add("limits.upstream_connections", number(limits.upstream_connections));
            add("limits.upstream_queue", number(limits.upstream_queue));
            add("limits.upstream_queue_wait", time(limits.upstream_queue_wait));
            add("limits.upstream_idle", time(limits.upstream_idle));
            add("limits.response_header_size", size(limits.response_header_size));
            add("limits.response_header_count", number(limits.response_header_count));
            add("site.upstream_options.connect_timeout", time(upstream.connect_timeout));
            add("site.upstream_options.response_timeout", time(upstream.response_timeout));
            let total = upstream.total_timeout.map_or_else(|| "none".to_owned(), |total: Duration| time(total));
            add("site.upstream_options.total_timeout", total);
        }
        _ => {}
    }
    rows
}
