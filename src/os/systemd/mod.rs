//! What systemd and its kind say to a service, and hear from it: readiness, and sockets that are bound already.

pub mod activation;
pub mod notify;

pub use activation::Passed;
pub use notify::Notify;
