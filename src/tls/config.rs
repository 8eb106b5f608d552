//! rustls' configuration for the TLS listeners.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};

use super::offer::{TlsOffer, Versions};
use super::tickets::Tickets;

/// Returns the cryptography for both sides: AWS-LC, with X25519MLKEM768 before the classical
/// groups.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Returns the configuration of all TLS listeners. All workers share one set of ticket keys, so a
/// session resumes on any of them.
///
/// # Errors
///
/// If rustls refuses the offer.
pub fn server(
    certificates: Arc<dyn ResolvesServerCert>,
    offer: &TlsOffer,
    tickets: Arc<Tickets>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = begin(certificates, offer, WebPkiClientVerifier::no_client_auth())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = tickets;
    // One ticket is enough and costs less. Stateless sessions need neither memory nor a lock.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Returns the configuration of the admin listener. `clients` verifies the certificates of clients, if there may be any. No
/// session resumes: each connection proves its certificate anew.
///
/// # Errors
///
/// If rustls refuses the offer.
pub fn admin(
    certificates: Arc<dyn ResolvesServerCert>,
    offer: &TlsOffer,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let clients = clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
    let mut config = begin(certificates, offer, clients)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The part that all listeners have in common.
fn begin(
    certificates: Arc<dyn ResolvesServerCert>,
    offer: &TlsOffer,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, rustls::Error> {
    let offered: &[_] = match offer.versions {
        Versions { tls12: true, tls13: false } => &[&TLS12],
        Versions { tls12: false, tls13: true } => &[&TLS13],
        _ => &[&TLS13, &TLS12],
    };
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    (provider.cipher_suites, provider.kx_groups) = (offer.cipher_suites(), offer.kx_groups());
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(offered)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // 0-RTT stays off: early data can be replayed (RFC 8470), and upstreams may have a login.
    config.max_early_data_size = 0;
    Ok(config)
}
