//! `[limits]`, as written.

use std::time::Duration;

use crate::config::problem::At;
use crate::config::reader::Reader;

#[derive(Debug, Default)]
pub(in crate::config) struct LimitsTable {
    pub(in crate::config) connections: Option<At<u64>>,
    pub(in crate::config) connections_per_client: Option<At<u64>>,
    pub(in crate::config) handshake: Option<At<Duration>>,
    pub(in crate::config) handshakes: Option<At<u64>>,
    pub(in crate::config) request_header: Option<At<Duration>>,
    pub(in crate::config) idle: Option<At<Duration>>,
    pub(in crate::config) body_progress: Option<At<Duration>>,
    pub(in crate::config) body_rate: Option<At<u64>>,
    pub(in crate::config) request_line: Option<At<u64>>,
    pub(in crate::config) header_size: Option<At<u64>>,
    pub(in crate::config) header_count: Option<At<u64>>,
    pub(in crate::config) field_size: Option<At<u64>>,
    pub(in crate::config) request_body: Option<At<u64>>,
    pub(in crate::config) requests_per_connection: Option<At<u64>>,
    pub(in crate::config) http2_streams: Option<At<u64>>,
    pub(in crate::config) connection_memory: Option<At<u64>>,
    pub(in crate::config) http2_resets: Option<At<u64>>,
    pub(in crate::config) websocket_idle: Option<At<Duration>>,
    pub(in crate::config) linger: Option<At<Duration>>,
    pub(in crate::config) drain: Option<At<Duration>>,
    pub(in crate::config) upgrade: Option<At<Duration>>,
    pub(in crate::config) upstream_connections: Option<At<u64>>,
    pub(in crate::config) upstream_queue: Option<At<u64>>,
    pub(in crate::config) upstream_queue_wait: Option<At<Duration>>,
    pub(in crate::config) upstream_idle: Option<At<Duration>>,
    pub(in crate::config) retry_body: Option<At<u64>>,
    pub(in crate::config) response_header_size: Option<At<u64>>,
    pub(in crate::config) response_header_count: Option<At<u64>>,
    pub(in crate::config) reports_per_minute: Option<At<u64>>,
    pub(in crate::config) reports_per_client: Option<At<u64>>,
    pub(in crate::config) challenges: Option<At<u64>>,
    pub(in crate::config) dns_hook: Option<At<Duration>>,
    pub(in crate::config) dns_propagation: Option<At<Duration>>,
    pub(in crate::config) hook_timeout: Option<At<Duration>>,
    pub(in crate::config) hook_queue: Option<At<u64>>,
    pub(in crate::config) graphite_queue: Option<At<u64>>,
}

impl LimitsTable {
    pub(super) fn read(t: &Reader<'_>) -> Self {
        Self {
            connections: t.number("connections"),
            connections_per_client: t.number("connections_per_client"),
            handshake: t.duration("handshake"),
            handshakes: t.number("handshakes"),
            request_header: t.duration("request_header"),
            idle: t.duration("idle"),
            body_progress: t.duration("body_progress"),
            body_rate: t.size("body_rate"),
            request_line: t.size("request_line"),
            header_size: t.size("header_size"),
            header_count: t.number("header_count"),
            field_size: t.size("field_size"),
            request_body: t.size("request_body"),
            requests_per_connection: t.number("requests_per_connection"),
            http2_streams: t.number("http2_streams"),
            connection_memory: t.size("connection_memory"),
            http2_resets: t.number("http2_resets"),
            websocket_idle: t.duration("websocket_idle"),
            linger: t.duration("linger"),
            drain: t.duration("drain"),
            upgrade: t.duration("upgrade"),
            upstream_connections: t.number("upstream_connections"),
            upstream_queue: t.number("upstream_queue"),
            upstream_queue_wait: t.duration("upstream_queue_wait"),
            upstream_idle: t.duration("upstream_idle"),
            retry_body: t.size("retry_body"),
            response_header_size: t.size("response_header_size"),
            response_header_count: t.number("response_header_count"),
            reports_per_minute: t.number("reports_per_minute"),
            reports_per_client: t.number("reports_per_client"),
            challenges: t.number("challenges"),
            dns_hook: t.duration("dns_hook"),
            dns_propagation: t.duration("dns_propagation"),
            hook_timeout: t.duration("hook_timeout"),
            hook_queue: t.number("hook_queue"),
            graphite_queue: t.size("graphite_queue"),
        }
    }
}
