//! pintle's output about itself: the access log, the operator's log, counters and latencies.

pub mod access;
pub mod counters;
pub mod exposition;
mod harmless;
pub mod histogram;
mod journal;
mod labels;
pub mod log;
mod log_file;
pub mod meters;
mod recent;
mod sink;
pub mod traffic;
mod writer;

pub use access::{AccessFormat, AccessLog};
pub use counters::Counters;
pub use histogram::{Histogram, HistogramSum};
pub use log_file::open_log;
pub use meters::Meters;
pub use recent::{RecentRecords, RecordsReach};
pub use sink::LogSink;
pub use traffic::{SiteTraffic, TrafficSum};
pub use writer::LogThread;
