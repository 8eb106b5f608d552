//! Requests over HTTP/2, where the upstream has chosen it, each on a stream of its own.

mod body;
mod exchange;
mod upload;

pub(super) use body::Http2Body;
pub(super) use exchange::{StreamFailure, send};
