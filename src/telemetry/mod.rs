//! pintle's output about itself: the access log, the operator's log, counters and latencies.

pub mod access;
pub mod compressed;
pub mod counters;
pub mod delimited;
pub mod exposition;
pub mod harmless;
pub mod histogram;
mod journal;
mod labels;
pub mod log;
mod log_file;
mod log_target;
pub mod meters;
pub mod protobuf;
mod recent;
mod sink;
mod syslog;
pub mod trace;
pub mod traffic;
mod writer;

pub use access::{AccessFormat, AccessLog};
pub use counters::Counters;
pub use histogram::{Histogram, HistogramSum};
pub use log_file::open_log;
pub use meters::Meters;
pub use recent::{RecentRecords, RecordsReach};
pub use sink::LogSink;
pub use syslog::{Syslog, SyslogPlace};
pub use trace::SpanSink;
pub use traffic::{SiteTraffic, TrafficSum};
pub use writer::LogThread;

/// Hands over what this thread has collected, when it is about to wait.
pub fn park_thread() {
    AccessLog::park_thread();
    SpanSink::flush_thread();
}

/// Hands over the records and spans that this thread has collected.
pub fn flush_thread() {
    AccessLog::flush_thread();
    SpanSink::flush_thread();
}
