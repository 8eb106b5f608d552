//! Counters: each worker has its own, and a reader adds them up.

#[cfg(debug_assertions)]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(debug_assertions)]
use std::thread::{self, ThreadId};

use super::histogram::add;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters of one worker, or the sum of several.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Adds another worker's counters.
            pub fn add(&self, other: &Self) {
                $(self.$name.add(other.$name.get());)*
            }

            /// The name, description and value of each counter.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),*).trim_ascii_start(), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_accepted,
    /// Connections refused because of a limit.
    connections_refused,
    /// Silent or idle connections closed to make room for others.
    connections_shed,
    /// TLS handshakes that succeeded.
    handshakes,
    /// TLS handshakes that resumed a session.
    handshakes_resumed,
    /// TLS handshakes that failed, whatever the cause.
    handshakes_failed,
    /// TLS handshakes refused or broken off because there were too many.
    handshakes_shed,
    /// Missing or malformed PROXY headers.
    proxy_headers_refused,
    /// Requests answered.
    requests,
    /// Responses with a status below 300.
    responses_2xx,
    /// Responses with a status from 300 to 399.
    responses_3xx,
    /// Responses with a status from 400 to 499.
    responses_4xx,
    /// Responses with a status from 500.
    responses_5xx,
    /// Requests refused by pintle.
    rejections,
    /// Request bodies that were complete before the upstream was asked.
    uploads_buffered,
    /// Request bodies that went to the upstream as they came, since there was no room to buffer them.
    uploads_unbuffered,
    /// Requests for upstreams.
    upstream_requests,
    /// Requests that failed at the upstream.
    upstream_errors,
    /// Retries.
    upstream_retries,
    /// Requests that waited for an upstream connection.
    upstream_queued,
    /// Requests refused at once because the circuit was open.
    circuit_refused,
    /// Redirect loops broken.
    loops_broken,
    /// References of pages that were rewritten to https.
    references_rewritten,
    /// HTTP/2 connections closed because of their clients: floods of frames, streams opened and
    /// reset, responses never read.
    http2_floods,
    /// Bodies that clients sent or read too slowly.
    bodies_too_slow,
    /// Tasks that ended because of a bug.
    panics,
}

/// A counter that one thread changes, and any thread reads.
#[derive(Debug, Default)]
pub struct Counter {
    count: AtomicU64,
    /// The thread that changes it.
    #[cfg(debug_assertions)]
    writer: OnceLock<ThreadId>,
}

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`, without the lock of `fetch_add`. Only one thread may do so, which builds for tests check.
    pub fn add(&self, n: u64) {
        #[cfg(debug_assertions)]
        assert_eq!(*self.writer.get_or_init(|| thread::current().id()), thread::current().id(), "one thread writes");
        add(&self.count, n);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}
