//! tls-alpn-01 (RFC 8737): the certificate that proves control of a name, and the ClientHello that asks for it.

use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use sha2::{Digest as _, Sha256};

use super::config::provider;
use crate::host::bare;

/// The protocol of validations.
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// Returns the TLS settings that answer a validation of a name, and nothing else.
///
/// # Errors
///
/// The reason, if no certificate can be made.
pub fn server(name: &str, authorization: &str) -> Result<Arc<ServerConfig>, String> {
    let subject = bare(name).to_owned();
    let mut params = CertificateParams::new(vec![subject]).map_err(|error| error.to_string())?;
    let digest = Sha256::digest(authorization.as_bytes());
    params.custom_extensions.push(CustomExtension::new_acme_identifier(&digest));
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_supported_type(&key).map_err(|error| error.to_string())?;
    // rustls would refuse the certificate for its critical extension, which is the point of it.
    let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], key));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Returns `true` if a client offers the protocol of validations, and no other.
pub(super) fn validates(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(PROTOCOL) && offered.next().is_none())
}

/// Returns the name that a validation asks for; `None` if the ClientHello is not one of a validation.
#[must_use]
pub fn asked_name(received: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    let mut unread = received;
    while !unread.is_empty() {
        acceptor.read_tls(&mut unread).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return hello.server_name().filter(|_| validates(&hello)).map(str::to_owned);
            }
            Ok(None) => {}
            Err(_) => return None,
        }
    }
    None
}
