//! Private keys in a separate process, which only signs handshakes. An attacker who takes over the
//! serving process can use the keys meanwhile, but cannot steal them.
//!
//! The serving process asks over Unix sockets, one for each thread, so that no lock is shared.
//! There are two requests: load the key of a file, and sign a handshake with a key. There is no
//! request to decrypt, as TLS 1.3 and the ECDHE suites of TLS 1.2 do not need it.

mod client;
mod protocol;
mod server;

pub use client::{KeyProcess, RemoteKey, running};
pub use server::{plan, serve};
