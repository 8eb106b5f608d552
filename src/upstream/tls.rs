//! TLS towards upstreams: whom to believe, and under which name.

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
use crate::tls::{Keys, Possession, TlsStream};
use crate::wire::transport::Transport;

/// How an upstream's certificate is verified.
#[derive(Debug, Clone)]
pub enum Verification {
    /// Against these roots, under this name, whatever the SNI says.
    As(Arc<RootCertStore>, ServerName<'static>),
    /// Not at all: `insecure_skip_verify`.
    Skip,
}

/// The roots of Mozilla, as compiled in.
#[must_use]
pub fn default_roots() -> Arc<RootCertStore> {
    Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// Prepares TLS for one upstream.
///
/// # Errors
///
/// When there are no roots, or rustls refuses the configuration.
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
        Verification::Skip => Arc::new(Possession::of_any(Keys::Any)),
    };
    // The provider supports both default versions, which is all that this could refuse.
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

/// TLS on a new connection, if the upstream has it.
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

/// Verifies under a configured name: the name in SNI need not be the name in the certificate, but an address that the
/// provider gave to somebody else must never pass.
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
