//! Figures of one worker with labels from closed lists, and latencies.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::compressed::CompressedMeter;
use super::histogram::{Histogram, add};

/// The limits that are counted, by their names in the configuration.
pub const LIMITS: [&str; 27] = [
    "connections",
    "connections_per_client",
    "handshake",
    "handshakes",
    "request_line",
    "request_header",
    "header_size",
    "header_count",
    "field_size",
    "request_body",
    "body_progress",
    "http2_resets",
    "websocket_idle",
    "upstream_queue",
    "upstream_queue_wait",
    "connect_timeout",
    "response_timeout",
    "total_timeout",
    "response_header_size",
    "response_header_count",
    "challenges",
    "reports_per_minute",
    "rate_requests",
    "rate_concurrent",
    "rate_crawlers",
    "rate_clients",
    "compressors",
];

/// The results of TLS handshakes, each with its reason.
pub const HANDSHAKES: [(&str, &str); 12] = [
    ("ok", "full"),
    ("ok", "resumed"),
    ("failed", "no_hello"),
    ("failed", "client_closed"),
    ("failed", "client_alert"),
    ("failed", "unknown_name"),
    ("failed", "version"),
    ("failed", "nothing_in_common"),
    ("failed", "protocol"),
    ("failed", "limit"),
    ("failed", "other_alert"),
    ("failed", "other"),
];

/// The causes of upstream failures.
pub const CAUSES: [&str; 30] = [
    "dns",
    "connection refused",
    "timed out",
    "no route to host",
    "network unreachable",
    "connection reset",
    "no local address",
    "not permitted",
    "too many open files",
    "connect failed",
    "connect timed out",
    "certificate name mismatch",
    "certificate expired",
    "certificate not yet valid",
    "certificate from unknown issuer",
    "certificate refused",
    "tls alert",
    "tls failed",
    "too many connections",
    "no connection became free",
    "circuit open",
    "closed before response",
    "response timed out",
    "total timeout",
    "response body timed out",
    "malformed response",
    "truncated response",
    "http/2 error",
    "upgrade failed",
    "request body",
];

/// The figures of one worker, which alone changes them.
#[derive(Debug, Default)]
pub struct Meters {
    /// From the request's head to the end of the response.
    pub duration: Histogram,
    /// From the request's head to the beginning of the response.
    pub first_byte: Histogram,
    /// From asking an upstream to the head of its response.
    pub upstream: Histogram,
    /// The delay of the worker's event loop.
    pub loop_delay: Histogram,
    /// By [`LIMITS`].
    pub limits: Tally<{ LIMITS.len() }>,
    /// By [`HANDSHAKES`].
    pub handshakes: Tally<12>,
    /// By [`CAUSES`].
    pub causes: Tally<30>,
    /// The connections by their states.
    pub states: StateGauges,
    /// Responses that were compressed.
    pub compressed: CompressedMeter,
}

macro_rules! states {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Numbers of connections by state.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct States {
            $($(#[doc = $doc])* pub $name: usize,)*
        }

        impl States {
            /// The name and the number of each state.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, usize)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        /// The same for one worker, which sets them.
        #[derive(Debug, Default)]
        pub struct StateGauges {
            $($name: AtomicUsize,)*
        }

        impl StateGauges {
            /// Sets the numbers.
            pub fn set(&self, states: &States) {
                $(self.$name.store(states.$name, Ordering::Relaxed);)*
            }

            /// Adds the numbers to a sum.
            pub fn add_to(&self, sum: &mut States) {
                $(sum.$name += self.$name.load(Ordering::Relaxed);)*
            }
        }
    };
}

states! {
    /// The client has sent no whole ClientHello yet, or on a plain listener no request.
    silent,
    /// A TLS handshake is under way.
    handshaking,
    /// Between requests.
    idle,
    /// With a request under way.
    active,
    /// A WebSocket over HTTP/1.1.
    tunnel,
    /// Idle or active, in a process that is about to end.
    draining,
}

/// A counter for each word of a closed list.
#[derive(Debug)]
pub struct Tally<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Tally<N> {
    /// Counts a word of the list.
    pub fn count<T: PartialEq>(&self, list: &[T; N], word: &T) {
        let at = list.iter().position(|known| known == word);
        debug_assert!(at.is_some(), "the list is complete");
        if let Some(counter) = at.and_then(|at| self.0.get(at)) {
            add(counter, 1);
        }
    }

    /// Adds the counts to a sum.
    pub fn add_to(&self, sum: &mut [u64; N]) {
        for (sum, counter) in sum.iter_mut().zip(&self.0) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
}
