//! Visits over TLS: full and resumed handshakes, HTTP/1.1 and HTTP/2, good requests and bad ones, for the name of the
//! connection and for others.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{ClientConfig, SignatureScheme};
use tokio_rustls::TlsConnector;

use crate::harness::{Client, Connection, read_response};

use super::client::pins_of;
use super::keys::Keys;

/// A field of an answer, by its name.
type Fields = Vec<(String, String)>;

/// An answer, as a client has heard it.
#[derive(Debug)]
pub struct Heard {
    /// The name that it asked for, if it was in what it sent.
    pub asked: &'static str,
    pub what: &'static str,
    pub status: u16,
    pub fields: Fields,
    /// Fields that may not say anything about policies: interim ones, and trailers.
    pub others: Fields,
    pub chain: Vec<String>,
    pub is_resumed: bool,
}

/// The requests on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Page,
    /// An interim response and trailers of the upstream.
    Early,
    Malformed,
    LongLine,
    LargeHead,
}

pub const ASKS: [Ask; 5] = [Ask::Page, Ask::Early, Ask::Malformed, Ask::LongLine, Ask::LargeHead];

/// The kinds of visitors: today's clients, clients that know only RSA, and clients that trust an earlier authority.
pub const VISITORS: usize = 3;
const OLD: usize = 2;

pub struct Visitor<'k> {
    keys: &'k Keys,
    any: ClientConfig,
    old: ClientConfig,
    rsa: ClientConfig,
    h2: RefCell<Arc<ClientConfig>>,
    runtime: tokio::runtime::Runtime,
}

impl<'k> Visitor<'k> {
    pub fn new(keys: &'k Keys) -> Self {
        let mut any = Client::config_with(&[&keys.own, &keys.new]);
        any.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut old = Client::config_with(&[&keys.own, &keys.old]);
        old.alpn_protocols = any.alpn_protocols.clone();
        let mut h2 = any.clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { keys, rsa: rsa_only(&any), any, old, h2: RefCell::new(Arc::new(h2)), runtime }
    }

    /// All sessions of HTTP/2 are forgotten.
    pub fn forget(&self) {
        let mut config = ClientConfig::clone(&self.h2.borrow());
        config.resumption = Resumption::in_memory_sessions(64);
        *self.h2.borrow_mut() = Arc::new(config);
    }

    /// Clients that nobody has seen before, and that keep their sessions: one of each kind.
    pub fn clients(&self) -> [Client; VISITORS] {
        [&self.any, &self.rsa, &self.old].map(|config| {
            let mut config = config.clone();
            config.resumption = Resumption::in_memory_sessions(64);
            Client::with(config)
        })
    }

    /// The chain for a name, and what was heard for each question; none if there was no handshake.
    pub fn visit(
        &self,
        kind: usize,
        client: &Client,
        address: SocketAddr,
        name: &'static str,
        asks: &[(Ask, &'static str)],
    ) -> io::Result<(Vec<String>, Vec<Heard>)> {
        let mut connection = client.try_connect(address, name)?;
        let tls = connection.stream.tls().unwrap();
        let chain = self.keys.path_of(pins_of(tls.peer_certificates().unwrap()), kind == OLD);
        let is_resumed = tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let mut heard = Vec::new();
        for (ask, asked) in asks {
            match answer(&mut connection, *ask, asked) {
                Ok(answered) => heard.push(Heard { chain: chain.clone(), is_resumed, ..answered }),
                // It was closed after a bad request.
                Err(_) => break,
            }
        }
        Ok((chain, heard))
    }

    /// Pages of several names on one connection of HTTP/2.
    pub fn coalesce(&self, address: SocketAddr, name: &'static str, names: &[&'static str]) -> Vec<Heard> {
        let config = self.h2.borrow().clone();
        let ask = async {
            let socket = tokio::net::TcpStream::connect(address).await.ok()?;
            let tls = TlsConnector::from(config).connect(name.try_into().ok()?, socket).await.ok()?;
            let chain = self.keys.path_of(pins_of(tls.get_ref().1.peer_certificates()?), false);
            let is_resumed = tls.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            let (mut sender, connection) = h2::client::handshake(tls).await.ok()?;
            let connection = tokio::spawn(connection);
            let mut heard = Vec::new();
            for (at, asked) in names.iter().enumerate() {
                // Every other one asks for more than there is room for, in its line or in its fields.
                let path = if at % 4 == 1 { "x".repeat(9000) } else { String::new() };
                let mut request = http::Request::get(format!("https://{asked}/{path}"));
                if at % 4 == 3 {
                    request = (0..120).fold(request, |request, at| request.header(format!("x-{at}"), "y"));
                }
                let request = request.body(()).ok()?;
                sender = sender.ready().await.ok()?;
                let Ok((response, _)) = sender.send_request(request, true) else { break };
                let Ok(response) = response.await else { break };
                let fields = response.headers().iter();
                let fields = fields.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
                heard.push(Heard {
                    asked,
                    what: "h2",
                    status: response.status().as_u16(),
                    fields: fields.collect(),
                    others: Vec::new(),
                    chain: chain.clone(),
                    is_resumed,
                });
            }
            connection.abort();
            Some(heard)
        };
        self.runtime.block_on(ask).unwrap_or_default()
    }
}

fn answer(connection: &mut Connection, ask: Ask, asked: &'static str) -> io::Result<Heard> {
    let (what, request) = match ask {
        Ask::Page => ("page", format!("GET / HTTP/1.1\r\nHost: {asked}\r\n\r\n")),
        Ask::Early => ("interim", format!("GET /interim HTTP/1.1\r\nHost: {asked}\r\nTE: trailers\r\n\r\n")),
        Ask::Malformed => ("malformed", format!("GET / HTTP/1.1\r\nHost: {asked}\r\nBad Field: x\r\n\r\n")),
        Ask::LongLine => ("long line", format!("GET /{} HTTP/1.1\r\nHost: {asked}\r\n\r\n", "x".repeat(9000))),
        Ask::LargeHead => ("large head", format!("GET / HTTP/1.1\r\nHost: {asked}\r\n{}\r\n", "x: y\r\n".repeat(120))),
    };
    connection.stream.write_all(request.as_bytes())?;
    connection.stream.flush()?;
    let mut others = Vec::new();
    loop {
        let response = read_response(connection, "GET")?;
        if response.status < 200 {
            others.extend(response.fields);
            continue;
        }
        others.extend(response.trailers);
        let (status, fields) = (response.status, response.fields);
        return Ok(Heard { asked, what, status, fields, others, chain: Vec::new(), is_resumed: false });
    }
}

/// A client that understands no other signatures in a handshake.
fn rsa_only(any: &ClientConfig) -> ClientConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let all = provider.signature_verification_algorithms;
    let is_rsa = |scheme: &SignatureScheme| format!("{scheme:?}").starts_with("RSA");
    let mapping: Vec<_> = all.mapping.iter().filter(|(scheme, _)| is_rsa(scheme)).copied().collect();
    let verifies = WebPkiSupportedAlgorithms { all: all.all, mapping: Vec::leak(mapping) };
    let provider = CryptoProvider { signature_verification_algorithms: verifies, ..provider };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RsaVerifier(verifies)))
        .with_no_client_auth();
    config.alpn_protocols = any.alpn_protocols.clone();
    config
}

/// It does not look at chains, which is what others do.
#[derive(Debug)]
struct RsaVerifier(WebPkiSupportedAlgorithms);

impl rustls::client::danger::ServerCertVerifier for RsaVerifier {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
