//! TLS towards clients: certificates, who gets which, and the connection itself.

pub mod certificate;
pub mod config;
pub mod keeper;
pub mod possession;
pub mod preflight;
pub mod resolver;
pub mod stream;
pub mod tickets;

pub use certificate::{Certificate, CertificateError};
pub use possession::{Keys, Possession};
pub use resolver::{CertificateSet, Certificates, Choice};
pub use stream::{ServerSession, Session, TlsStream};
pub use tickets::Tickets;
