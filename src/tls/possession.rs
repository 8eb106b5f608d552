//! Clients that accept any issuer, but verify that the server has the certificate's key.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, NamedGroup, SignatureScheme,
    StreamOwned,
};

use super::config::provider;
use crate::keys::pin::Pin;

/// The key types that a handshake accepts: a server with two certificates shows the matching one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTypes {
    /// All supported types.
    Any,
    /// RSA only.
    Rsa,
    /// Anything but RSA.
    Elliptic,
}

/// Accepts any certificate, or those with certain keys, and always verifies that the server has the
/// key.
#[derive(Debug)]
pub struct Possession {
    provider: Arc<CryptoProvider>,
    types: KeyTypes,
    pins: Option<Vec<Pin>>,
}

impl Possession {
    /// Accepts any certificate with these types of keys.
    #[must_use]
    pub fn of_any(types: KeyTypes) -> Self {
        Self { provider: provider(), types, pins: None }
    }

    /// Accepts only certificates with one of these keys.
    #[must_use]
    pub fn of(pins: Vec<Pin>) -> Self {
        Self { provider: provider(), types: KeyTypes::Any, pins: Some(pins) }
    }

    /// Offers X25519 only, so that the ClientHello is short: it fits into the smallest packets.
    #[must_use]
    pub fn with_short_hello(mut self) -> Self {
        let mut provider = CryptoProvider::clone(&self.provider);
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        self.provider = Arc::new(provider);
        self
    }

    /// Returns the configuration of such a client.
    ///
    /// # Errors
    ///
    /// If rustls refuses the provider.
    pub fn client(self) -> Result<ClientConfig, Error> {
        Ok(ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self))
            .with_no_client_auth())
    }

    /// Completes a handshake on a blocking socket, whose time limits apply.
    ///
    /// # Errors
    ///
    /// If the name is invalid in SNI, or the handshake fails.
    pub fn connect<S: Read + Write>(self, socket: S, name: &str) -> io::Result<StreamOwned<ClientConnection, S>> {
        let config = self.client().map_err(io::Error::other)?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(pins) = &self.pins {
            let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| CertificateError::BadEncoding)?;
            if !pins.contains(&Pin::of_spki(parsed.tbs_certificate.subject_pki.raw)) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let verified = verify_tls13_signature(message, certificate, signed, algorithms);
        if !matches!(verified, Err(Error::InvalidCertificate(CertificateError::Other(_)))) {
            return verified;
        }
        // The certificate of tls-alpn-01 has a critical extension that webpki does not know. The key is all that counts.
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return verified };
        let key = SubjectPublicKeyInfoDer::from(parsed.tbs_certificate.subject_pki.raw);
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        schemes.retain(|scheme| match self.types {
            KeyTypes::Any => true,
            KeyTypes::Rsa => is_rsa(*scheme),
            KeyTypes::Elliptic => !is_rsa(*scheme),
        });
        schemes
    }
}

fn is_rsa(scheme: SignatureScheme) -> bool {
    use SignatureScheme as S;
    matches!(
        scheme,
        S::RSA_PKCS1_SHA1
            | S::RSA_PKCS1_SHA256
            | S::RSA_PKCS1_SHA384
            | S::RSA_PKCS1_SHA512
            | S::RSA_PSS_SHA256
            | S::RSA_PSS_SHA384
            | S::RSA_PSS_SHA512
    )
}
