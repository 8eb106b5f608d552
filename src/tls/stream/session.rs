//! The two kinds of TLS connections, seen alike.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig};

use crate::tls::resolver::{self, Choice};

/// rustls' unbuffered connection: bytes in, bytes out.
pub trait Session: Unpin + 'static {
    /// rustls' own type parameter of that side.
    type Data;

    /// `process_tls_records` of that side.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The protocol that was agreed on.
    fn alpn(&self) -> Option<&[u8]>;

    /// Whether all that this side says at the end of a handshake is tickets, which the other can do without: the server of
    /// TLS 1.3 (RFC 8446 section 4.6.1).
    fn ends_with_tickets(&self) -> bool {
        false
    }

    /// The alert to send in place of rustls' own, for the handshake that has just failed.
    fn alert_instead(&self) -> Option<u8> {
        None
    }
}

/// A client's connection to us.
pub struct ServerSession {
    tls: UnbufferedServerConnection,
    /// Which name was asked for, and what came of it.
    choice: Option<Choice>,
    /// The address that the client has reached, where certificates depend on it.
    reached: Option<IpAddr>,
}

impl ServerSession {
    /// A connection yet to begin.
    ///
    /// # Errors
    ///
    /// When rustls cannot make one; its configuration would have to be wrong.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { tls: UnbufferedServerConnection::new(config)?, choice: None, reached: None })
    }

    /// For a client that has reached this address.
    #[must_use]
    pub fn reached(self, address: Option<IpAddr>) -> Self {
        Self { reached: address, ..self }
    }

    /// Which name was asked for, and the certificates that it has.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Whether the handshake resumed a session.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

impl Session for ServerSession {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        if self.reached.is_some() && self.choice.is_none() {
            resolver::reached(self.reached);
        }
        let status = self.tls.process_tls_records(incoming);
        // The resolver has no way to say more than a certificate; it was asked within this very call, if at all.
        if let Some(choice) = resolver::take_choice() {
            self.choice = Some(choice);
        }
        status
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    fn ends_with_tickets(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    fn alert_instead(&self) -> Option<u8> {
        self.choice.as_ref().and_then(Choice::alert)
    }
}

impl Session for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn alpn(&self) -> Option<&[u8]> {
        self.alpn_protocol()
    }
}
