//! One interface for both sides of TLS connections.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{CipherSuite, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig};

use crate::tls::resolver::{self, Choice};
use crate::tls::session_chain::{self, ChainId};

/// rustls' unbuffered connection: bytes in, bytes out.
pub trait Session: Unpin + 'static {
    /// rustls' type parameter for this side.
    type Data;

    /// Calls `process_tls_records` of this side.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Returns the negotiated application protocol.
    fn alpn(&self) -> Option<&[u8]>;

    /// Returns `true` if this side ends a handshake with tickets only, which the peer does not
    /// need: the server of TLS 1.3 (RFC 8446 section 4.6.1).
    fn ends_with_tickets(&self) -> bool {
        false
    }

    /// Returns the alert for the handshake that has just failed, if it differs from rustls' own.
    fn alert_instead(&self) -> Option<u8> {
        None
    }
}

/// The outcome of a handshake with a client.
#[derive(Debug, Clone, Copy)]
pub struct Negotiated {
    /// The version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// The group of the key exchange; `None` if TLS 1.2 resumes a session.
    pub group: Option<NamedGroup>,
    /// `true` if it resumed a session.
    pub resumed: bool,
}

/// A client's connection to pintle.
pub struct ServerSession {
    tls: UnbufferedServerConnection,
    /// The requested name, and the outcome.
    choice: Option<Choice>,
    /// The chain under which a resumed session began, as its ticket says.
    opened: Option<ChainId>,
    /// The address that the client has reached, if certificates depend on it.
    reached: Option<IpAddr>,
}

impl ServerSession {
    /// Begins a connection.
    ///
    /// # Errors
    ///
    /// If rustls cannot make one; its configuration would have to be wrong.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { tls: UnbufferedServerConnection::new(config)?, choice: None, opened: None, reached: None })
    }

    /// Sets the address that the client has reached.
    #[must_use]
    pub fn reached(self, address: Option<IpAddr>) -> Self {
        Self { reached: address, ..self }
    }

    /// Returns the requested name, and its certificates.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Returns the outcome of the handshake; `None` before its end.
    pub fn negotiated(&self) -> Option<Negotiated> {
        Some(Negotiated {
            version: self.tls.protocol_version()?,
            suite: self.tls.negotiated_cipher_suite()?.suite(),
            group: self.tls.negotiated_key_exchange_group().map(|group| group.name()),
            resumed: self.is_resumed(),
        })
    }

    /// Returns `true` if the handshake resumed a session.
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
        let is_handshaking = self.tls.is_handshaking();
        if is_handshaking {
            // A ticket that opens does not have to be the one that is resumed, or any.
            let opened = self.opened.filter(|_| self.is_resumed());
            session_chain::begun_under(opened.or_else(|| self.choice.as_ref()?.chain));
        }
        let status = self.tls.process_tls_records(incoming);
        // A resolver can return only a certificate. It was called within this very call, if at all.
        if let Some(choice) = resolver::take_choice() {
            self.choice = Some(choice);
        }
        if is_handshaking && let Some(opened) = session_chain::take_opened() {
            self.opened = Some(opened);
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
