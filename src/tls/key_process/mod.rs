//! Private keys in a process of their own, which does nothing but sign handshakes: whoever takes the serving process over
//! can use them for as long as they stay, and not take them away.
//!
//! The serving process asks over Unix sockets, one for each thread, so that no lock is shared. What can be asked is: load
//! the key of this file; sign this handshake with that key. There is no decryption to ask for: TLS 1.3 and the ECDHE
//! suites of TLS 1.2 have none.

mod client;
mod protocol;
mod server;

pub use client::{KeyProcess, RemoteKey, held};
pub use server::{plan, serve};
