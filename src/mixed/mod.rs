//! Mixed content: the http references of https pages (W3C Mixed Content), and three tools against them.
//!
//! 1. *report*: browsers report each http reference to pintle ([`policy`], [`report`]).
//! 2. *upgrade*: browsers ask for them by https (`upgrade-insecure-requests`).
//! 3. *rewrite*: pintle writes https in the references to the site's own hosts ([`Rewriter`]), and in no others.
//!
//! A rewriter changes bytes in place: its output is its input, except for the scheme, and sometimes the authority, of
//! each reference. Its scanners ([`html`], [`css`], [`json`], [`feed`]) read text in pieces and return [`edit::Edits`];
//! they know no sockets. Text that they do not understand passes unchanged.

pub mod attribute;
pub mod css;
pub mod edit;
pub mod escape;
pub mod feed;
pub mod fields;
pub mod foreign;
pub mod html;
pub mod inner;
pub mod json;
pub mod media;
pub mod names;
pub mod policy;
pub mod probe;
pub mod raw_text;
pub mod report;
pub mod request;
#[cfg(test)]
mod pages;
mod rewriter;
pub mod srcset;
pub mod tag;
#[cfg(test)]
mod work;

pub use names::{HttpsNames, OwnNames};
pub use rewriter::Rewriter;
