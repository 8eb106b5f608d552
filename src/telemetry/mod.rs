//! pintle's output about itself: the access log, the operator's log, and counters.

pub mod access;
pub mod counters;
pub mod exposition;
pub mod log;
mod writer;

pub use access::{AccessFormat, AccessLog};
pub use counters::Counters;
pub use writer::{LogSink, LogThread, open_log};
