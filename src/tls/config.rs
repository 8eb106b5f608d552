//! rustls' configuration of the TLS listeners.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::version::{TLS12, TLS13};

use super::offer::Offer;
use super::tickets::Tickets;

/// The versions that may be offered; at least one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// TLS 1.2
    pub tls12: bool,
    /// TLS 1.3
    pub tls13: bool,
}

/// The cryptography of both sides: AWS-LC, X25519MLKEM768 before the classical groups.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The configuration of all TLS listeners. One set of ticket keys for all workers, so that a session resumes wherever
/// the next connection lands.
///
/// # Errors
///
/// When rustls refuses what is offered.
pub fn server(
    certificates: Arc<dyn ResolvesServerCert>,
    offer: &Offer,
    tickets: Arc<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let offered: &[_] = match offer.versions {
        Versions { tls12: true, tls13: false } => &[&TLS12],
        Versions { tls12: false, tls13: true } => &[&TLS13],
        _ => &[&TLS13, &TLS12],
    };
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    (provider.cipher_suites, provider.kx_groups) = (offer.cipher_suites(), offer.kx_groups());
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(offered)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // One ticket is enough, and costs less; stateless, so that sessions take neither memory nor a lock.
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // 0-RTT stays off: early data can be replayed (RFC 8470), and what is behind us is a blog with a login.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
