//! TLS towards upstreams: the roots to trust, and the name to verify.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{UnbufferedClientConnection, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;

use super::error::UpstreamError;
use super::settings::{Protocols, Upstream, UpstreamTls, UpstreamTransport};
use crate::tls::config::provider;
use crate::tls::{KeyTypes, Possession, TlsStream};
use crate::wire::transport::Transport;

/// The verification of an upstream's certificate.
#[derive(Debug, Clone)]
pub enum Verification {
    /// Against these roots and this name, whatever the SNI is.
    As(Arc<RootCertStore>, ServerName<'static>),
    /// No verification: `insecure_skip_verify`.
    Skip,
}

/// Returns Mozilla's roots, which are compiled in.
#[must_use]
pub fn default_roots() -> Arc<RootCertStore> {
    Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// Prepares TLS for an upstream.
///
/// # Errors
///
/// Returns an error if there are no roots, or rustls refuses the configuration.
pub fn client(
    server_name: ServerName<'static>,
    verification: &Verification,
    http2: bool,
) -> Result<UpstreamTls, VerifierBuilderError> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match verification {
        Verification::As(roots, name) => {
            let inner = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
            Arc::new(VerifyAs { inner, name: name.clone() })
        }
        Verification::Skip => Arc::new(Possession::of_any(KeyTypes::Any)),
    };
    // Fails only if the provider does not support the default versions. It supports both.
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| VerifierBuilderError::NoRootAnchors)?;
    let mut http1 = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut any = http1.clone();
    if http2 {
        any.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(UpstreamTls { server_name, any: Arc::new(any), http1: Arc::new(http1), http2 })
}

/// Begins TLS on a new connection, if the upstream uses it.
pub(super) async fn secure(
    upstream: &Upstream,
    protocols: Protocols,
    socket: TcpStream,
) -> Result<UpstreamTransport, UpstreamError> {
    let Some(tls) = &upstream.tls else { return Ok(Transport::Plain(socket)) };
    let config = if protocols == Protocols::Http1 { &tls.http1 } else { &tls.any };
    let session = UnbufferedClientConnection::new(config.clone(), tls.server_name.clone())
        .map_err(|e| UpstreamError::Tls(io::Error::other(e)))?;
    let mut stream = TlsStream::new(socket, session, Vec::new());
    poll_fn(|cx| stream.poll_handshake(cx)).await.map_err(UpstreamError::Tls)?;
    Ok(Transport::Tls(stream))
}

/// Verifies a certificate against a configured name, which may differ from the SNI. An address that
/// the provider has given to another customer then fails.
#[derive(Debug)]
struct VerifyAs {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for VerifyAs {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
