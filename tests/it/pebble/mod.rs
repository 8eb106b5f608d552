//! Certificates from an ACME CA, which is pebble: tests/run installs it, and fetches the current one. What no pebble can
//! answer, a proxy in front of it does.

mod challenges;
mod changes;
pub mod clock;
mod commands;
mod hook;
mod life;
pub mod orders;
mod overdue;
mod own_keys;
mod preflight;
mod revoke;
mod rig;
mod trouble;
