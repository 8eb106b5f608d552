//! The certificate that a listener would choose, asked without a connection: a client's first message, read as rustls
//! reads it, goes to the listener's own resolver.

use std::io::Cursor;
use std::net::IpAddr;

use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

use super::resolver::{Choice, reached, take_choice};

/// Returns the first message of a client that sends this name, or none, and offers `protocol` by ALPN. `None` if no
/// client can send the name.
#[must_use]
pub fn client_hello(name: Option<&str>, protocol: &[u8]) -> Option<Vec<u8>> {
    let provider = super::config::provider();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("localhost").to_owned()).ok()?;
    let mut client = ClientConnection::new(config.into(), name).ok()?;
    let mut message = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut message).ok()?;
    }
    Some(message)
}

/// Returns the choice of a listener's settings for a client's first message. `address` is where the client has arrived.
#[must_use]
pub fn choice(settings: &ServerConfig, hello: &[u8], address: Option<IpAddr>) -> Option<Choice> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut Cursor::new(hello)).ok()?;
    let accepted = acceptor.accept().ok()??;
    let hello = accepted.client_hello();
    reached(address);
    let _ = settings.cert_resolver.resolve(hello);
    take_choice()
}
