//! Requests over HTTP/1.1, each on a connection of its own for the time.

mod body;
mod exchange;
mod upload;

pub(super) use body::Http1Body;
pub use exchange::Upgraded;
pub(super) use exchange::{Attempt, Exchange, Rest};
