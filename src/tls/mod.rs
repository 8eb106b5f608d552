//! TLS towards clients: certificates, the choice between them, and the connection itself.

pub mod acme_challenge;
pub mod alert;
pub mod certificate;
pub mod client_auth;
pub mod config;
mod constraints;
pub mod extensions;
pub mod failure;
pub mod greeting;
pub mod key_process;
pub mod offer;
pub mod offered;
mod path;
pub mod possession;
pub mod preflight;
pub mod resolver;
pub mod rule;
pub mod session_chain;
pub mod stream;
pub mod tickets;
pub mod transparency;

pub use certificate::{Certificate, CertificateError};
pub use possession::{KeyTypes, Possession};
pub use resolver::{CertificateSet, Certificates, Choice, ChosenBy};
pub use stream::{FirstMessage, Negotiated, ServerSession, Session, TlsStream};
pub use tickets::Tickets;
