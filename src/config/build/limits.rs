//! `[limits]`: each within what makes sense.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Checker;
use crate::config::file::LimitsTable;
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::limits::Limits;

pub(super) fn build(table: &LimitsTable, r: &mut Checker<'_>) -> Limits {
    let mut limits = Limits::default();
    let most = Limits::largest();
    number("connections", &table.connections, 1..=most.connections, &mut limits.connections, r);
    number(
        "connections_per_client",
        &table.connections_per_client,
        1..=most.connections_per_client,
        &mut limits.connections_per_client,
        r,
    );
    number("handshakes", &table.handshakes, 1..=most.handshakes, &mut limits.handshakes, r);
    number("body_rate", &table.body_rate, 0..=most.body_rate, &mut limits.body_rate, r);
    number("request_line", &table.request_line, 256..=most.request_line, &mut limits.request_line, r);
    number("header_size", &table.header_size, 1024..=most.header_size, &mut limits.header_size, r);
    number("header_count", &table.header_count, 8..=most.header_count, &mut limits.header_count, r);
    number("field_size", &table.field_size, 256..=most.field_size, &mut limits.field_size, r);
    number("request_body", &table.request_body, 0..=most.request_body, &mut limits.request_body, r);
    number(
        "requests_per_connection",
        &table.requests_per_connection,
        1..=most.requests_per_connection,
        &mut limits.requests_per_connection,
        r,
    );
    number("http2_streams", &table.http2_streams, 1..=most.http2_streams, &mut limits.http2_streams, r);
    number("http2_resets", &table.http2_resets, 1..=most.http2_resets, &mut limits.http2_resets, r);
    number(
        "upstream_connections",
        &table.upstream_connections,
        1..=most.upstream_connections,
        &mut limits.upstream_connections,
        r,
    );
    number("upstream_queue", &table.upstream_queue, 0..=most.upstream_queue, &mut limits.upstream_queue, r);
    number(
        "reports_per_minute",
        &table.reports_per_minute,
        1..=most.reports_per_minute,
        &mut limits.reports_per_minute,
        r,
    );
    number("retry_body", &table.retry_body, 0..=most.retry_body, &mut limits.retry_body, r);
    number(
        "reports_per_client",
        &table.reports_per_client,
        1..=most.reports_per_client,
        &mut limits.reports_per_client,
        r,
    );
    number(
        "response_header_size",
        &table.response_header_size,
        1024..=most.response_header_size,
        &mut limits.response_header_size,
        r,
    );
    number("challenges", &table.challenges, 1..=most.challenges, &mut limits.challenges, r);
    number(
        "response_header_count",
        &table.response_header_count,
        8..=most.response_header_count,
        &mut limits.response_header_count,
        r,
    );
    // What is not given grows with what needs it.
    let least = limits.connection_memory_least();
    limits.connection_memory = limits.connection_memory.max(least.saturating_mul(3) / 2);
    if let Some(given) = &table.connection_memory {
        if given.value < least as u64 {
            let message = format!(
                "limits.connection_memory: {} bytes are less than what its streams and heads need",
                given.value
            );
            let (least, streams) = (least.div_ceil(1024), limits.http2_streams);
            r.error_with_hint(
                &given.span,
                message,
                format!("at least \"{least}KiB\", or a smaller `http2_streams` ({streams})"),
            );
        } else {
            number(
                "connection_memory",
                &table.connection_memory,
                1..=most.connection_memory,
                &mut limits.connection_memory,
                r,
            );
        }
    }
    let (second, none) = (Duration::from_secs(1), Duration::ZERO);
    time("handshake", &table.handshake, second..=most.handshake, &mut limits.handshake, r);
    time("request_header", &table.request_header, second..=most.request_header, &mut limits.request_header, r);
    time("idle", &table.idle, second..=most.idle, &mut limits.idle, r);
    time("body_progress", &table.body_progress, second..=most.body_progress, &mut limits.body_progress, r);
    time("websocket_idle", &table.websocket_idle, second..=most.websocket_idle, &mut limits.websocket_idle, r);
    time("linger", &table.linger, none..=most.linger, &mut limits.linger, r);
    time("drain", &table.drain, none..=most.drain, &mut limits.drain, r);
    time("upgrade", &table.upgrade, second..=most.upgrade, &mut limits.upgrade, r);
    time(
        "upstream_queue_wait",
        &table.upstream_queue_wait,
        second..=most.upstream_queue_wait,
        &mut limits.upstream_queue_wait,
        r,
    );
    time("upstream_idle", &table.upstream_idle, none..=most.upstream_idle, &mut limits.upstream_idle, r);
    limits
}

/// Sets a limit to the number that is given, if the number is within bounds.
fn number<T: TryFrom<u64> + PartialOrd + std::fmt::Display>(
    key: &str,
    given: &Option<At<u64>>,
    bounds: RangeInclusive<T>,
    limit: &mut T,
    r: &mut Checker<'_>,
) {
    let Some(given) = given else { return };
    match T::try_from(given.value) {
        Ok(value) if bounds.contains(&value) => *limit = value,
        _ => {
            let (least, most) = bounds.into_inner();
            r.error(&given.span, format!("limits.{key}: {} is not from {least} to {most}", given.value));
        }
    }
}

/// The same for a time.
fn time(
    key: &str,
    given: &Option<At<Duration>>,
    bounds: RangeInclusive<Duration>,
    limit: &mut Duration,
    r: &mut Checker<'_>,
) {
    let Some(given) = given else { return };
    if bounds.contains(&given.value) {
        *limit = given.value;
        return;
    }
    let (least, most) = bounds.into_inner();
    let bound = if given.value < least { ("less", show_duration(least)) } else { ("more", show_duration(most)) };
    r.error(&given.span, format!("limits.{key}: is {} than {}", bound.0, bound.1));
}
