//! TLS towards clients: certificates, who gets which, and the connection itself.

pub mod certificate;
pub mod config;
pub mod preflight;
pub mod resolver;
pub mod stream;
pub mod tickets;

pub use certificate::{Certificate, CertificateError};
pub use resolver::{CertificateSet, Certificates, Choice};
pub use stream::{ServerSession, Session, TlsStream};
pub use tickets::Tickets;
