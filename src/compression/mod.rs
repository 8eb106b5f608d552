//! Compression of responses to clients: which coding a client gets, which responses are compressed, and the encoders.
//!
//! Nothing here has sockets. `src/server/filters.rs` puts it on the path of a response.

mod accept;
mod coding;
mod decoder;
mod encoder;
mod rules;
mod tags;
mod types;

pub use crate::message::UpstreamTags;

pub use accept::choose;
pub use coding::Coding;
pub use decoder::{Undecodable, decoder, decoders};
pub use encoder::{Effort, encode, encoder};
pub use rules::{Circumstances, CompressionRules, Identity, judge, judge_response};
pub use tags::{drop_dated_range, undo};
pub use types::{TypePattern, is_event_stream, usual_types};
