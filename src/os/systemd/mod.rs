//! The interface to systemd: notifications of readiness, and socket activation.

pub mod activation;
pub mod notify;

pub use activation::PassedSocket;
pub use notify::Notify;
