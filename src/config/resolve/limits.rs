//! `[limits]`: each within what makes sense.

use std::time::Duration;

use super::Resolver;
use crate::config::file::LimitsTable;
use crate::config::problem::At;
use crate::config::value::show_duration;
use crate::limits::Limits;

pub(super) fn resolve(table: &LimitsTable, r: &mut Resolver<'_>) -> Limits {
    let mut limits = Limits::default();
    let mut number = |key: &str, given: &Option<At<u64>>, least: u64, most: u64, set: &mut dyn FnMut(u64)| {
        if let Some(given) = given {
            if (least..=most).contains(&given.value) {
                set(given.value);
            } else {
                r.error(&given.span, format!("limits.{key}: {} is not from {least} to {most}", given.value));
            }
        }
    };
    let large = 1 << 40;
    number("connections", &table.connections, 1, 10_000_000, &mut |n| limits.connections = n as usize);
    number("connections_per_client", &table.connections_per_client, 1, 10_000_000, &mut |n| {
        limits.connections_per_client = n as usize;
    });
    number("handshakes", &table.handshakes, 1, 1_000_000, &mut |n| limits.handshakes = n as usize);
    number("body_rate", &table.body_rate, 0, 1 << 30, &mut |n| limits.body_rate = n);
    number("request_line", &table.request_line, 256, 1 << 20, &mut |n| limits.request_line = n as usize);
    number("header_size", &table.header_size, 1024, 1 << 20, &mut |n| limits.header_size = n as usize);
    number("header_count", &table.header_count, 8, 128, &mut |n| limits.header_count = n as usize);
    number("request_body", &table.request_body, 0, large * 1024, &mut |n| limits.request_body = n);
    number("requests_per_connection", &table.requests_per_connection, 1, large, &mut |n| {
        limits.requests_per_connection = n;
    });
    number("http2_streams", &table.http2_streams, 1, 10_000, &mut |n| limits.http2_streams = n as u32);
    number("http2_resets", &table.http2_resets, 1, 1 << 30, &mut |n| limits.http2_resets = n as u32);
    number("upstream_connections", &table.upstream_connections, 1, 1_000_000, &mut |n| {
        limits.upstream_connections = n as usize;
    });
    number("upstream_queue", &table.upstream_queue, 0, 1_000_000, &mut |n| limits.upstream_queue = n as usize);
    number("reports_per_minute", &table.reports_per_minute, 1, 1_000_000, &mut |n| limits.reports_per_minute = n);
    number("response_header_size", &table.response_header_size, 1024, 1 << 20, &mut |n| {
        limits.response_header_size = n as usize;
    });
    // What is not given grows with what needs it.
    let least = limits.connection_memory_least();
    match &table.connection_memory {
        Some(given) if given.value < least as u64 => r.error_with_hint(
            &given.span,
            format!("limits.connection_memory: {} octets are less than what its streams and heads need", given.value),
            format!(
                "at least \"{}KiB\", or a smaller `http2_streams` ({})",
                least.div_ceil(1024),
                limits.http2_streams
            ),
        ),
        Some(given) => limits.connection_memory = given.value as usize,
        None => limits.connection_memory = limits.connection_memory.max(least.saturating_mul(3) / 2),
    }
    let mut time = |key: &str, given: &Option<At<Duration>>, least: Duration, set: &mut dyn FnMut(Duration)| {
        if let Some(given) = given {
            if given.value >= least {
                set(given.value);
            } else {
                r.error(&given.span, format!("limits.{key}: is less than {}", show_duration(least)));
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
