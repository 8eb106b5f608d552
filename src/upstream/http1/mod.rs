//! Requests over HTTP/1.1. A connection carries one request at a time.

mod body;
mod exchange;
mod upload;

pub(super) use body::Http1Body;
pub use exchange::UpgradedConnection;
pub(super) use exchange::{Exchange, Rest, SendOutcome};
