//! `pintle init`: looks at a hosted blog, draws conclusions, and writes a first configuration.
//!
//! Rules are separate from I/O. [`probe`] alone has sockets: it sends at most eight requests and
//! records the answers as [`evidence`]. [`fingerprint`] names the platform by the table in
//! [`signs`], [`choose`] picks scheme and Host, [`conclude`] collects all conclusions with their
//! evidence, and [`mod@write`] puts them into a commented file. Only proven lines are active.

pub mod answer;
pub mod choose;
pub mod conclude;
pub mod document;
pub mod evidence;
pub mod fingerprint;
pub mod given;
pub mod json;
pub mod platform;
pub mod probe;
pub mod signs;
pub mod text;
pub mod write;
