//! `[limits]`: each within what makes sense.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Resolver;
use crate::config::file::LimitsTable;
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::limits::Limits;

/// The largest head, in bytes, and the largest memory of a connection.
const HEAD_MOST: usize = 1 << 20;
const MEMORY_MOST: usize = 1 << 30;
/// The longest time: a sum with it is still a time.
const TIME_MOST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) fn resolve(table: &LimitsTable, r: &mut Resolver<'_>) -> Limits {
    let mut limits = Limits::default();
    let large = 1 << 40;
    number("connections", &table.connections, 1..=10_000_000, &mut limits.connections, r);
    number(
        "connections_per_client",
        &table.connections_per_client,
        1..=10_000_000,
        &mut limits.connections_per_client,
        r,
    );
    number("handshakes", &table.handshakes, 1..=1_000_000, &mut limits.handshakes, r);
    number("body_rate", &table.body_rate, 0..=1 << 30, &mut limits.body_rate, r);
    number("request_line", &table.request_line, 256..=HEAD_MOST, &mut limits.request_line, r);
    number("header_size", &table.header_size, 1024..=HEAD_MOST, &mut limits.header_size, r);
    number("header_count", &table.header_count, 8..=128, &mut limits.header_count, r);
    number("request_body", &table.request_body, 0..=large * 1024, &mut limits.request_body, r);
    number(
        "requests_per_connection",
        &table.requests_per_connection,
        1..=large,
        &mut limits.requests_per_connection,
        r,
    );
    number("http2_streams", &table.http2_streams, 1..=10_000, &mut limits.http2_streams, r);
    number("http2_resets", &table.http2_resets, 1..=1 << 30, &mut limits.http2_resets, r);
    number("upstream_connections", &table.upstream_connections, 1..=1_000_000, &mut limits.upstream_connections, r);
    number("upstream_queue", &table.upstream_queue, 0..=1_000_000, &mut limits.upstream_queue, r);
    number("reports_per_minute", &table.reports_per_minute, 1..=1_000_000, &mut limits.reports_per_minute, r);
    number("response_header_size", &table.response_header_size, 1024..=HEAD_MOST, &mut limits.response_header_size, r);
    // What is not given grows with what needs it.
    let least = limits.connection_memory_least();
    limits.connection_memory = limits.connection_memory.max(least.saturating_mul(3) / 2);
    if let Some(given) = &table.connection_memory {
        if given.value < least as u64 {
            let message = format!(
                "limits.connection_memory: {} octets are less than what its streams and heads need",
                given.value
            );
            let (least, streams) = (least.div_ceil(1024), limits.http2_streams);
            r.error_with_hint(
                &given.span,
                message,
                format!("at least \"{least}KiB\", or a smaller `http2_streams` ({streams})"),
            );
        } else {
            number("connection_memory", &table.connection_memory, 1..=MEMORY_MOST, &mut limits.connection_memory, r);
        }
    }
    let mut time = |key: &str, given: &Option<At<Duration>>, least: Duration, set: &mut dyn FnMut(Duration)| {
        if let Some(given) = given {
            if given.value < least {
                r.error(&given.span, format!("limits.{key}: is less than {}", show_duration(least)));
            } else if given.value > TIME_MOST {
                r.error(&given.span, format!("limits.{key}: is more than {}", show_duration(TIME_MOST)));
            } else {
                set(given.value);
            }
        }
    };
    let (second, none) = (Duration::from_secs(1), Duration::ZERO);
    time("handshake", &table.handshake, second, &mut |t| limits.handshake = t);
    time("request_header", &table.request_header, second, &mut |t| limits.request_header = t);
    time("idle", &table.idle, second, &mut |t| limits.idle = t);
    time("body_progress", &table.body_progress, second, &mut |t| limits.body_progress = t);
    time("websocket_idle", &table.websocket_idle, second, &mut |t| limits.websocket_idle = t);
    time("linger", &table.linger, none, &mut |t| limits.linger = t);
    time("drain", &table.drain, none, &mut |t| limits.drain = t);
    time("upgrade", &table.upgrade, second, &mut |t| limits.upgrade = t);
    time("upstream_queue_wait", &table.upstream_queue_wait, second, &mut |t| limits.upstream_queue_wait = t);
    time("upstream_idle", &table.upstream_idle, none, &mut |t| limits.upstream_idle = t);
    limits
}

/// Sets a limit to the number that is given, if the number is within bounds.
fn number<T: TryFrom<u64> + PartialOrd + std::fmt::Display>(
    key: &str,
    given: &Option<At<u64>>,
    bounds: RangeInclusive<T>,
    limit: &mut T,
    r: &mut Resolver<'_>,
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
