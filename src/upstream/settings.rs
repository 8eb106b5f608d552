//! The settings of an upstream, prepared from the configuration.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;

use super::dns::Addresses;
use super::health::Health;
use crate::wire::transport::Transport;

/// A connection to an upstream.
pub type UpstreamTransport = Transport<UnbufferedClientConnection>;

/// An upstream: the server that a site's requests go to.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in messages: the URL of the configuration.
    pub label: Box<str>,
    /// The addresses to connect to.
    pub addresses: Addresses,
    /// TLS, if the URL is https.
    pub tls: Option<UpstreamTls>,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 section 3.3).
    pub http2_only: bool,
    /// The value of the Host field.
    pub host_header: HostHeader,
    /// The names and ports that it uses for itself in redirects and cookies.
    pub own_names: Vec<(Box<str>, u16)>,
    /// The limit for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// The limit from the end of the request to the response's head.
    pub response_timeout: Duration,
    /// The limit from the request to the last byte of its response, including retries.
    pub total_timeout: Option<Duration>,
    /// Its health.
    pub health: Health,
}

impl Upstream {
    /// Returns `true` if requests may share a connection.
    pub(super) fn may_speak_http2(&self) -> bool {
        self.http2_only || self.tls.as_ref().is_some_and(|tls| tls.http2)
    }
}

/// TLS towards an upstream.
#[derive(Debug)]
pub struct UpstreamTls {
    /// The name in SNI.
    pub server_name: ServerName<'static>,
    /// The settings that offer HTTP/2 and HTTP/1.1.
    pub any: Arc<ClientConfig>,
    /// The settings that offer HTTP/1.1 only, for WebSocket.
    pub http1: Arc<ClientConfig>,
    /// HTTP/2 may be used.
    pub http2: bool,
}

/// The value of an upstream's Host field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The host that the client asked for.
    Client,
    /// A fixed value.
    Fixed(Box<str>),
}

/// The protocols to offer to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    Any,
    Http1,
}
