//! pintle is an HTTPS edge proxy: it stands in front of a site that somebody else hosts, terminates
//! TLS by SNI, redirects plain HTTP to https, and adds the HSTS and Public-Key-Pins headers that it
//! computes from the operator's keys.
//!
//! It is not a web server or a load balancer. A site may have a cache ([`cache`]).
//!
//! # The life of a request
//!
//! A worker accepts a connection ([`server`]), terminates TLS ([`tls`]) and reads a request into a
//! [`message::RequestHead`]. Its host selects a [`site`]. The [`policy`] rules decide whether the
//! client came over https, and if not, where to redirect it. Otherwise pintle writes the request to
//! the upstream ([`upstream`]), rewrites the upstream's names in the response, adds the policy
//! headers, and writes a line to the access log ([`telemetry`]). `ARCHITECTURE.md` has the details.
//!
//! # Modules, in reading order
//!
//! Imports go from top to bottom only; `tests/it/layers.rs` checks that.

pub mod cli;
pub mod commands;
pub mod control;
pub mod admin;
pub mod acme;
pub mod install;
pub mod config;
pub mod init;
pub mod doctor;
pub mod verify;
pub mod export;
pub mod ledger;
pub mod events;
pub mod graphite;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod fetch;
pub mod server;
pub mod limits;
pub mod upstream;
pub mod wire;
pub mod tls;
pub mod site;
pub mod lease;
pub mod policy;
pub mod keys;
pub mod cache;
pub mod compression;
pub mod filter;
pub mod mixed;
pub mod message;
pub mod host;
pub mod telemetry;
pub mod clock;
pub mod handover;
pub mod os;
pub mod reason;
