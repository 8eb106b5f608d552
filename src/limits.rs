//! The bound of every wait, queue and size, by its name in `[limits]`.

use std::time::Duration;

use crate::message::{HeadLimits, ResponseLimits};
use crate::upstream::PoolLimits;
use crate::wire::min_rate::MinRate;

/// All limits. The defaults suit a blog on a small machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections of clients at the same time, in all workers together.
    pub connections: usize,
    /// The same, for one network of clients: a /32 of IPv4, a /56 of IPv6. Trusted proxies are not counted, but whom they
    /// name in a PROXY header.
    pub connections_per_client: usize,
    /// From the accepted connection to the end of the TLS handshake, a PROXY header included.
    pub handshake: Duration,
    /// TLS handshakes under way at the same time in one worker; one begins when its ClientHello is whole.
    pub handshakes: usize,
    /// From the first byte of a request's head to its last.
    pub request_header: Duration,
    /// How long a connection may rest between requests.
    pub idle: Duration,
    /// The longest pause between two pieces of a body, in either direction: reading from a client that is slow to
    /// send, and writing to one that is slow to take.
    pub body_progress: Duration,
    /// Bytes for each second that a client must send of a body, or take, averaged over `body_progress`.
    pub body_rate: u64,
    /// Bytes of a request line; longer ones get 414.
    pub request_line: usize,
    /// Bytes of a request's head; larger ones get 431.
    pub header_size: usize,
    /// Fields of a request's head, at most 128; more get 431.
    pub header_count: usize,
    /// Bytes of one field, name and value, in the head of a request or a response; larger ones get 431, or make a 502.
    pub field_size: usize,
    /// Bytes of a request's body; larger ones get 413.
    pub request_body: u64,
    /// Requests on one connection; it is closed then.
    pub requests_per_connection: u64,
    /// Requests that an HTTP/2 client may have open at the same time.
    pub http2_streams: u32,
    /// Bytes that one connection may hold: heads and bodies that are under way, in both directions.
    pub connection_memory: usize,
    /// Streams of one HTTP/2 connection that a client may give up in a minute.
    pub http2_resets: u32,
    /// How long a WebSocket may be silent.
    pub websocket_idle: Duration,
    /// How long a client that still sends is listened to after its answer, so that it gets to read it.
    pub linger: Duration,
    /// How long running requests have to finish after SIGTERM, or after an upgrade.
    pub drain: Duration,
    /// How long a new process has to check everything and prove itself, before it is given up.
    pub upgrade: Duration,
    /// Connections of one worker to one upstream; when all are busy, requests wait.
    pub upstream_connections: usize,
    /// Requests of one worker that wait for a connection to one upstream; more get 503.
    pub upstream_queue: usize,
    /// How long they wait before they get 503, too.
    pub upstream_queue_wait: Duration,
    /// How long an idle connection to an upstream is kept.
    pub upstream_idle: Duration,
    /// Bytes of a request's body that are kept until it is answered, so that it can be sent again if an HTTP/2 upstream
    /// refuses it; requests with more get 502 then.
    pub retry_body: usize,
    /// Bytes of a response's head.
    pub response_header_size: usize,
    /// Fields of a response's head.
    pub response_header_count: usize,
    /// Reports of pins that did not match, in all workers together; more get 429.
    pub reports_per_minute: u64,
    /// The same in a minute from one network of clients.
    pub reports_per_client: u64,
    /// ACME challenges that one worker has read at the same time; more get 503.
    pub challenges: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Set by the number of open files that the system allows: see `for_open_files`.
            connections: 10_000,
            connections_per_client: 1_250,
            handshake: Duration::from_secs(10),
            // What a core does of them in a fifth of a second: those who are connected wait no longer than that.
            handshakes: 1024,
            request_header: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            body_progress: Duration::from_secs(30),
            // A twentieth of what GPRS brings.
            body_rate: 128,
            request_line: 8 * 1024,
            header_size: 32 * 1024,
            header_count: 100,
            field_size: 64 * 1024,
            request_body: 8 << 30,
            requests_per_connection: 100_000,
            http2_streams: 128,
            // Some downloads at full speed, or all streams with a small piece each.
            connection_memory: 8 * 1024 * 1024,
            // A browser gives up what it has open when its user moves on: some hundred, now and then.
            http2_resets: 1000,
            websocket_idle: Duration::from_secs(3600),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(30),
            upgrade: Duration::from_secs(60),
            upstream_connections: 1024,
            upstream_queue: 128,
            upstream_queue_wait: Duration::from_secs(5),
            upstream_idle: Duration::from_secs(60),
            // What an upstream's first window lets through.
            retry_body: 64 * 1024,
            response_header_size: 64 * 1024,
            // A WordPress page has some thirty; those that set cookies by the hundred exist.
            response_header_count: 1000,
            reports_per_minute: 60,
            // A client that visits several names of a site may report each.
            reports_per_client: 10,
            // An authority asks from a handful of places.
            challenges: 32,
        }
    }
}

/// What an HTTP/2 client may send ahead, on one stream or on all together.
pub const HTTP2_WINDOW: u32 = 1024 * 1024;
/// What each of its streams may hold, whatever the others do: a piece of a body, a small head, its own state.
pub const HTTP2_STREAM_LEAST: usize = 24 * 1024;
/// What a connection has besides: records on both sides, frames and a head that are being read.
const CONNECTION_BUFFERS: usize = 256 * 1024;

/// Files that are open besides connections: listeners, logs, the resolver.
const OTHER_FILES: u64 = 256;

/// The largest head, in bytes: what is done to one is done in one go.
const HEAD_MOST: usize = 1 << 20;
/// The longest time: a sum with it is still a time.
const TIME_MOST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Limits {
    /// Every limit at the largest value that the configuration may give it.
    #[must_use]
    pub fn largest() -> Self {
        Self {
            connections: 10_000_000,
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
            response_header_size: HEAD_MOST,
            response_header_count: 10_000,
            reports_per_minute: 1_000_000,
            reports_per_client: 1_000_000,
            challenges: 1_000_000,
        }
    }

    /// Fits the default numbers of connections to the number of files that may be open: three quarters of it for
    /// clients, the rest for upstreams; and no network gets more than an eighth of those.
    pub fn for_open_files(&mut self, files: u64) {
        let clients = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX) / 4 * 3;
        self.connections = clients.clamp(64, 200_000);
        self.connections_per_client = self.connections / 8;
    }

    /// The least that `connection_memory` can be. An HTTP/1.1 connection needs less: a head and a piece of a body
    /// (256 KiB) either way.
    #[must_use]
    pub fn connection_memory_least(&self) -> usize {
        self.connection_memory_taken() + 8 * self.header_size + 2 * self.response_header_size
    }

    /// What an HTTP/2 connection's streams have together, beyond what each may always have.
    #[must_use]
    pub fn connection_memory(&self) -> usize {
        self.connection_memory.saturating_sub(self.connection_memory_taken())
    }

    fn connection_memory_taken(&self) -> usize {
        CONNECTION_BUFFERS + HTTP2_WINDOW as usize + self.http2_streams as usize * HTTP2_STREAM_LEAST
    }

    /// The limits of a request's head.
    #[must_use]
    pub fn head(&self) -> HeadLimits {
        HeadLimits {
            request_line: self.request_line,
            head: self.header_size,
            field: self.field_size,
            fields: self.header_count,
        }
    }

    /// How fast a client must be with a body.
    #[must_use]
    pub fn min_rate(&self) -> MinRate {
        MinRate { pause: self.body_progress, bytes: self.body_rate.saturating_mul(self.body_progress.as_secs()).max(1) }
    }

    /// The limits of a pool of upstream connections.
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
