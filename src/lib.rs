//! pintle is an HTTPS edge proxy: it stands in front of a site that somebody else hosts, ends TLS by SNI, sends plain
//! HTTP to https, and adds the HSTS and Public-Key-Pins headers that it computes from the operator's keys.
//!
//! What it is not: a web server, a cache, or a load balancer.
//!
//! # The life of a request
//!
//! A worker accepts a connection ([`server`]), ends TLS ([`tls`]) and reads a request into a [`message::RequestHead`].
//! Its host leads to a [`site`]; the [`policy`] rules say whether the client came over https, and if not, where to
//! send it. Otherwise the request is written anew and sent on ([`upstream`]); the answer comes back with the
//! upstream's names told as the site's, the policy headers are written over it, and a line goes to the access log
//! ([`telemetry`]). `ARCHITECTURE.md` tells it at length.
//!
//! # Modules, in reading order
//!
//! Imports run from top to bottom only; `tests/it/layers.rs` checks that.

pub mod cli;
pub mod commands;
pub mod control;
pub mod config;
pub mod verify;
pub mod export;
pub mod ledger;
pub mod server;
pub mod limits;
pub mod upstream;
pub mod wire;
pub mod tls;
pub mod site;
pub mod lease;
pub mod policy;
pub mod keys;
pub mod message;
pub mod host;
pub mod telemetry;
pub mod clock;
pub mod handover;
pub mod os;
pub mod reason;
