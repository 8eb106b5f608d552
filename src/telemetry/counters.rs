//! What a worker has seen. Each worker has its own; whoever asks adds them up.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker, or the sum of several.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Adds another worker's.
            pub fn add(&self, other: &Self) {
                $(self.$name.add(other.$name.get());)*
            }

            /// Name and value of each.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// Connections refused because of a limit.
    connections_refused,
    /// Connections that said nothing, or were at rest, and were closed to make room for others.
    connections_shed,
    /// TLS handshakes that succeeded.
    handshakes,
    /// TLS handshakes that resumed a session.
    handshakes_resumed,
    /// TLS handshakes that failed, whoever was to blame.
    handshakes_failed,
    /// TLS handshakes that were refused or broken off because there were too many.
    handshakes_shed,
    /// PROXY headers that were missing or wrong.
    proxy_headers_refused,
    /// Requests answered.
    requests,
    /// Answers below 300.
    responses_2xx,
    /// Answers from 300 to 399.
    responses_3xx,
    /// Answers from 400 to 499.
    responses_4xx,
    /// Answers from 500.
    responses_5xx,
    /// Requests that pintle itself refused.
    rejections,
    /// Requests that the upstream failed.
    upstream_errors,
    /// Requests that were sent to the upstream once more.
    upstream_retries,
    /// Requests that had to wait for a connection to the upstream.
    upstream_queued,
    /// Requests that were refused at once, as the upstream had not answered others.
    circuit_refused,
    /// Redirect loops that were broken.
    loops_broken,
    /// HTTP/2 connections that were ended because of what their clients did: floods of frames, streams opened to be given
    /// up, answers never taken.
    http2_floods,
    /// Bodies that clients sent or took too slowly.
    bodies_too_slow,
    /// Tasks that ended by a bug.
    panics,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
