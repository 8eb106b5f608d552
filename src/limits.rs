//! The limit of every wait, queue and size, under its name in `[limits]`.

use std::time::Duration;

use crate::message::{HeadLimits, ResponseLimits};
use crate::upstream::PoolLimits;
use crate::wire::min_rate::MinRate;

/// All limits. The defaults suit a blog on a small machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at the same time, in all workers together.
    pub connections: usize,
    /// Client connections at which pintle begins to close the one that is idle for the longest time for each new one.
    pub shed_idle_at: usize,
    /// The same as `connections` for one client network: an IPv4 /32 or an IPv6 /56. Trusted proxies do not count;
    /// the clients that they name in a PROXY header do.
    pub connections_per_client: usize,
    /// The time from accepting the connection to the end of the TLS handshake, including a PROXY
    /// header.
    pub handshake: Duration,
    /// TLS handshakes at the same time in one worker. A handshake begins when its ClientHello is
    /// complete.
    pub handshakes: usize,
    /// The time from the first byte of a request head to its last.
    pub request_header: Duration,
    /// The time that a connection may stay idle between requests.
    pub idle: Duration,
    /// The longest pause between two pieces of a body, in either direction: reading from a client
    /// that sends slowly, and writing to one that reads slowly.
    pub body_progress: Duration,
    /// Bytes per second that a client must send or read of a body, averaged over `body_progress`.
    pub body_rate: u64,
    /// Bytes of a request line; longer ones get 414.
    pub request_line: usize,
    /// Bytes of a request head; larger ones get 431.
    pub header_size: usize,
    /// Fields of a request head, at most 128; more get 431.
    pub header_count: usize,
    /// Bytes of one field, name and value. A larger field in a request gets 431, in a response 502.
    pub field_size: usize,
    /// Bytes of a request body; larger ones get 413.
    pub request_body: u64,
    /// Requests on one connection; then pintle closes it.
    pub requests_per_connection: u64,
    /// Open requests of one HTTP/2 client.
    pub http2_streams: u32,
    /// Bytes that one connection may hold: heads and bodies in transit, in both directions.
    pub connection_memory: usize,
    /// Streams of one HTTP/2 connection that a client may reset in a minute.
    pub http2_resets: u32,
    /// The time that a WebSocket may be silent.
    pub websocket_idle: Duration,
    /// The time that pintle keeps reading from a client that still sends after its response, so
    /// that it can read the response.
    pub linger: Duration,
    /// The time that running requests have to finish after SIGTERM or an upgrade.
    pub drain: Duration,
    /// The time that a new process has to check everything and prove itself; then the upgrade is
    /// abandoned.
    pub upgrade: Duration,
    /// Connections of one worker to one upstream; when all are busy, requests wait.
    pub upstream_connections: usize,
    /// Requests of one worker that wait for a connection to one upstream; more get 503.
    pub upstream_queue: usize,
    /// The time that they wait before they get 503.
    pub upstream_queue_wait: Duration,
    /// The time that an idle connection to an upstream is kept.
    pub upstream_idle: Duration,
    /// Bytes of a request body that pintle keeps until the response begins, to send them again if
    /// an HTTP/2 upstream refuses the request. A refused request with a longer body gets 502.
    pub retry_body: usize,
    /// Bytes of request bodies that wait in memory until they are complete, in all workers together (`buffer_request`).
    /// A body that finds no room goes to the upstream as it comes.
    pub buffer_memory: u64,
    /// The same in files of the state folder, for what exceeds 64 KiB of one body.
    pub buffer_files: u64,
    /// Bytes of a response head.
    pub response_header_size: usize,
    /// Fields of a response head.
    pub response_header_count: usize,
    /// Reports of pins that did not match, in all workers together; more get 429.
    pub reports_per_minute: u64,
    /// The same for one client network.
    pub reports_per_client: u64,
    /// Clients whose requests are counted for `[site.rate]` and `[[rate]]`, in all workers together. A /32 or /56 takes a
    /// place under each rule.
    /// By default, the table takes 2 MiB, and only if a site has limits of requests.
    pub rate_clients: usize,
    /// ACME challenges that one worker reads at the same time; more get 503. An authority validates from a handful of
    /// places.
    pub challenges: usize,
    /// Responses that one worker compresses at the same time; more are sent as they are. Each holds up to 2 MiB while its
    /// body is under way, and up to 6 MiB if its compressed form is kept.
    pub compressors: usize,
    /// The time for one run of the program that sets DNS records.
    pub dns_hook: Duration,
    /// The time until a DNS record that it has set must be visible.
    pub dns_propagation: Duration,
    /// The time for one attempt to deliver an event to a hook.
    pub hook_timeout: Duration,
    /// Events of one hook that wait for their delivery; beyond, the oldest is given up.
    pub hook_queue: usize,
    /// Bytes of metrics that wait for Graphite; beyond, the oldest are given up.
    pub graphite_queue: usize,
    /// Bytes of spans that wait for the collector; beyond, new ones are given up.
    pub otlp_queue: usize,
    /// Bytes of the access log that wait to be written; beyond, new lines are lost, and counted.
    pub log_queue: usize,
    /// Client networks of which one worker sums up failed handshakes in a minute.
    pub log_networks: usize,
    /// Connections to the pages over TLS at the same time: some readers, whose browsers open six each. pintle closes
    /// further ones at once.
    pub admin_connections: usize,
    /// The same for one client network: an IPv4 address or an IPv6 /64.
    pub admin_connections_per_client: usize,
    /// Bytes of one version in the history of the configuration: ten thousand sites with some lines each. A larger one is
    /// not kept.
    pub config_version: usize,
    /// Bytes of the whole history; beyond, no version is added.
    pub config_history: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // `for_open_files` adapts it to the number of open files that the system allows.
            connections: 10_000,
            shed_idle_at: 9_375,
            connections_per_client: 1_250,
            handshake: Duration::from_secs(10),
            // A core completes as many in a fifth of a second, so established connections wait no longer than that.
            handshakes: 1024,
            request_header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body_progress: Duration::from_secs(30),
            // A twentieth of the bandwidth of GPRS.
            body_rate: 128,
            request_line: 8 * 1024,
            header_size: 32 * 1024,
            header_count: 100,
            field_size: 64 * 1024,
            request_body: 8 << 30,
            requests_per_connection: 100_000,
            http2_streams: 128,
            // Some downloads at full speed, or a small piece on every stream.
            connection_memory: 8 * 1024 * 1024,
            // A browser resets its open streams when its user moves on: some hundred, now and then.
            http2_resets: 1000,
            websocket_idle: Duration::from_secs(3600),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            upgrade: Duration::from_secs(60),
            upstream_connections: 1024,
            upstream_queue: 128,
            upstream_queue_wait: Duration::from_secs(5),
            upstream_idle: Duration::from_secs(60),
            // The size of an upstream's initial window.
            retry_body: 64 * 1024,
            // A thousand forms.
            buffer_memory: 64 << 20,
            // Some hundred photographs, or a backup.
            buffer_files: 1 << 30,
            response_header_size: 64 * 1024,
            // A WordPress page has about thirty; some applications set hundreds of cookies.
            response_header_count: 1000,
            reports_per_minute: 60,
            // A client that visits several names of a site may report each.
            reports_per_client: 10,
            rate_clients: 65_536,
            challenges: 32,
            compressors: 32,
            dns_hook: Duration::from_secs(120),
            dns_propagation: Duration::from_secs(300),
            // Standard Webhooks: 15 to 30 seconds.
            hook_timeout: Duration::from_secs(20),
            hook_queue: 1000,
            // An hour of a hundred sites, at one batch a minute.
            graphite_queue: 16 << 20,
            otlp_queue: 16 << 20,
            log_queue: 16 << 20,
            log_networks: 1024,
            admin_connections: 128,
            admin_connections_per_client: 16,
            config_version: 8 << 20,
            config_history: 256 << 20,
        }
    }
}

/// The receive window of an HTTP/2 client, for each stream and for the connection.
pub const HTTP2_WINDOW: u32 = 1024 * 1024;
/// Memory that each stream may always hold: a piece of a body, a small head, its own state.
pub const HTTP2_STREAM_LEAST: usize = 24 * 1024;
/// Memory that a connection holds besides: records on both sides, and the frames and head being
/// read.
const CONNECTION_BUFFERS: usize = 256 * 1024;

/// Open files besides connections: listeners, logs, the resolver.
const OTHER_FILES: u64 = 256;

/// The largest head, in bytes: a head is processed in one step.
const HEAD_MOST: usize = 1 << 20;
/// The longest time: adding it to another time does not overflow.
const TIME_MOST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Limits {
    /// Returns every limit at the largest value that the configuration accepts.
    #[must_use]
    pub fn largest() -> Self {
        Self {
            connections: 10_000_000,
            shed_idle_at: 10_000_000,
            connections_per_client: 10_000_000,
            handshake: TIME_MOST,
            handshakes: 1_000_000,
            request_header: TIME_MOST,
            idle: TIME_MOST,
            body_progress: TIME_MOST,
            body_rate: 1 << 30,
            request_line: HEAD_MOST,
            header_size: HEAD_MOST,
            header_count: 128,
            field_size: HEAD_MOST,
            request_body: 1 << 50,
            requests_per_connection: 1 << 40,
            http2_streams: 10_000,
            connection_memory: 1 << 30,
            http2_resets: 1 << 30,
            websocket_idle: TIME_MOST,
            linger: TIME_MOST,
            drain: TIME_MOST,
            upgrade: TIME_MOST,
            upstream_connections: 1_000_000,
            upstream_queue: 1_000_000,
            upstream_queue_wait: TIME_MOST,
            upstream_idle: TIME_MOST,
            retry_body: 1 << 24,
            buffer_memory: 1 << 40,
            buffer_files: 1 << 50,
            response_header_size: HEAD_MOST,
            response_header_count: 10_000,
            reports_per_minute: 1_000_000,
            reports_per_client: 1_000_000,
            rate_clients: 10_000_000,
            challenges: 1_000_000,
            compressors: 100_000,
            dns_hook: TIME_MOST,
            dns_propagation: TIME_MOST,
            hook_timeout: Duration::from_secs(300),
            hook_queue: 100_000,
            graphite_queue: 1 << 30,
            otlp_queue: 1 << 30,
            // The batches that the queue has room for.
            log_queue: 64 << 20,
            log_networks: 1_000_000,
            admin_connections: 10_000,
            admin_connections_per_client: 10_000,
            config_version: 64 << 20,
            config_history: 1 << 40,
        }
    }

    /// Adapts the default connection limits to the number of files that may be open. Three quarters
    /// are for clients, the rest for upstreams; one network gets an eighth of the client
    /// connections.
    pub fn for_open_files(&mut self, files: u64) {
        let clients = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX) / 4 * 3;
        self.connections = clients.clamp(64, 200_000);
        self.connections_per_client = self.connections / 8;
        self.shed_idle_at = self.default_shed_idle_at();
    }

    /// Returns the default of `shed_idle_at`: fifteen sixteenths of the connections.
    #[must_use]
    pub fn default_shed_idle_at(&self) -> usize {
        self.connections - self.connections / 16
    }

    /// Returns the number of files that this number of client connections needs: the inverse of `for_open_files`.
    #[must_use]
    pub fn open_files_for(connections: u64) -> u64 {
        (connections / 3).saturating_mul(4).saturating_add(OTHER_FILES)
    }

    /// Returns the smallest valid `connection_memory`. An HTTP/1.1 connection needs less: a head
    /// and a piece of a body (256 KiB) in each direction.
    #[must_use]
    pub fn connection_memory_least(&self) -> usize {
        self.connection_memory_taken() + 8 * self.header_size + 2 * self.response_header_size
    }

    /// Returns the memory that the streams of an HTTP/2 connection share, beyond what each may
    /// always hold.
    #[must_use]
    pub fn connection_memory(&self) -> usize {
        self.connection_memory.saturating_sub(self.connection_memory_taken())
    }

    fn connection_memory_taken(&self) -> usize {
        CONNECTION_BUFFERS + HTTP2_WINDOW as usize + self.http2_streams as usize * HTTP2_STREAM_LEAST
    }

    /// Returns the limits of a request head.
    #[must_use]
    pub fn head(&self) -> HeadLimits {
        HeadLimits {
            request_line: self.request_line,
            head: self.header_size,
            field: self.field_size,
            fields: self.header_count,
        }
    }

    /// Returns the rate that a client must keep up with a body.
    #[must_use]
    pub fn min_rate(&self) -> MinRate {
        MinRate { pause: self.body_progress, bytes: self.body_rate.saturating_mul(self.body_progress.as_secs()).max(1) }
    }

    /// Returns the limits of a pool of upstream connections.
    #[must_use]
    pub fn pool(&self) -> PoolLimits {
        PoolLimits {
            connections: self.upstream_connections,
            queue: self.upstream_queue,
            queue_wait: self.upstream_queue_wait,
            idle: self.upstream_idle,
            response_head: ResponseLimits {
                head: self.response_header_size,
                field: self.field_size,
                fields: self.response_header_count,
            },
            retry_body: self.retry_body,
            min_rate: self.min_rate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_for_connections_and_back() {
        for connections in [300, 9_999, 150_000] {
            let mut limits = Limits::default();
            limits.for_open_files(Limits::open_files_for(connections));
            assert_eq!(limits.connections as u64, connections);
        }
        assert_eq!(Limits::open_files_for(u64::MAX), u64::MAX);
    }
}
