//! `[limits]`: each within its bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::checker::Checker;
use crate::config::file::LimitsTable;
use crate::config::problem::At;
use crate::config::value::{show_duration, show_number, show_size};
use crate::limits::Limits;
use crate::reason::Reason;

/// Sets each limit that the file gives, if it is at least the number here and at most that of [`Limits::largest`].
macro_rules! set {
    ($bounded:ident: $table:ident, $most:ident, $limits:ident, $r:ident; $($key:ident $least:expr,)*) => {
        $($bounded(stringify!($key), &$table.$key, $least..=$most.$key, &mut $limits.$key, $r);)*
    };
}

pub(super) fn build(table: &LimitsTable, r: &mut Checker<'_>) -> Limits {
    let (mut limits, most) = (Limits::default(), Limits::largest());
    set! { number: table, most, limits, r;
        connections 1,
        shed_idle_at 1,
        connections_per_client 1,
        handshakes 1,
        header_count 8,
        requests_per_connection 1,
        http2_streams 1,
        http2_resets 1,
        upstream_connections 1,
        upstream_queue 0,
        response_header_count 8,
        reports_per_minute 1,
        reports_per_client 1,
        rate_clients 8,
        challenges 1,
        compressors 0,
        hook_queue 1,
        log_networks 1,
        admin_connections 1,
        admin_connections_per_client 1,
    }
    set! { size: table, most, limits, r;
        body_rate 0,
        request_line 256,
        header_size 1024,
        field_size 256,
        request_body 0,
        retry_body 0,
        buffer_memory 0,
        buffer_files 0,
        response_header_size 1024,
        graphite_queue 65536,
        otlp_queue 65536,
        log_queue 1 << 20,
        config_version 1024,
        config_history 1 << 20,
    }
    let (second, none) = (Duration::from_secs(1), Duration::ZERO);
    set! { time: table, most, limits, r;
        handshake second,
        request_header second,
        idle second,
        body_progress second,
        websocket_idle second,
        linger none,
        drain none,
        upgrade second,
        upstream_queue_wait second,
        upstream_idle none,
        dns_hook second,
        dns_propagation none,
        hook_timeout second,
    }
    connection_memory(table, most.connection_memory, &mut limits, r);
    limits
}

/// The memory of a connection, whose least value depends on other limits. Its default grows with them.
fn connection_memory(table: &LimitsTable, most: usize, limits: &mut Limits, r: &mut Checker<'_>) {
    let least = limits.connection_memory_least();
    limits.connection_memory = limits.connection_memory.max(least.saturating_mul(3) / 2);
    let Some(given) = table.connection_memory.as_ref() else { return };
    if given.value >= least as u64 {
        return size("connection_memory", &table.connection_memory, least..=most, &mut limits.connection_memory, r);
    }
    let least = least.div_ceil(1024) * 1024;
    let reason = Reason::new(format!("limits.connection_memory: must be at least {}", show_size(least as u64)))
        .note("its streams and heads need this much")
        .hint(format!("connection_memory = \"{}KiB\"", least / 1024))
        .hint(format!("a smaller http2_streams, which is {}", limits.http2_streams));
    r.error(&given.span, reason);
}

/// Sets a limit to the number that is given, if the number is within bounds.
fn number<T: TryFrom<u64> + PartialOrd + TryInto<u64>>(
    key: &str,
    given: &Option<At<u64>>,
    bounds: RangeInclusive<T>,
    limit: &mut T,
    r: &mut Checker<'_>,
) {
    bounded(key, given, bounds, limit, show_number, r);
}

/// Does the same for a number of bytes.
fn size<T: TryFrom<u64> + PartialOrd + TryInto<u64>>(
    key: &str,
    given: &Option<At<u64>>,
    bounds: RangeInclusive<T>,
    limit: &mut T,
    r: &mut Checker<'_>,
) {
    bounded(key, given, bounds, limit, show_size, r);
}

fn bounded<T: TryFrom<u64> + PartialOrd + TryInto<u64>>(
    key: &str,
    given: &Option<At<u64>>,
    bounds: RangeInclusive<T>,
    limit: &mut T,
    show: fn(u64) -> String,
    r: &mut Checker<'_>,
) {
    let Some(given) = given else { return };
    match T::try_from(given.value) {
        Ok(value) if bounds.contains(&value) => *limit = value,
        _ => {
            let (least, most) = bounds.into_inner();
            let shown = |bound: T| show(bound.try_into().unwrap_or(u64::MAX));
            r.error(&given.span, between(key, &shown(least), &shown(most)));
        }
    }
}

/// Does the same for a duration.
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
    r.error(&given.span, between(key, &show_duration(least), &show_duration(most)));
}

fn between(key: &str, least: &str, most: &str) -> String {
    format!("limits.{key}: must be between {least} and {most}")
}
