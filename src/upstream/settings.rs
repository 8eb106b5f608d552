//! What the configuration says of an upstream, prepared: where it is, and how to speak to it.

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

/// Where a site's requests go: what the configuration says, prepared.
#[derive(Debug)]
pub struct Upstream {
    /// How messages call it: the URL of the configuration.
    pub label: Box<str>,
    /// Where to connect to.
    pub addresses: Addresses,
    /// TLS, if its URL is https.
    pub tls: Option<UpstreamTls>,
    /// Without TLS: it speaks HTTP/2, which nobody negotiates there (RFC 9113 section 3.3).
    pub http2_only: bool,
    /// What its Host field says.
    pub host_header: HostHeader,
    /// The names, with ports, that it calls itself in redirects and cookies.
    pub own_names: Vec<(Box<str>, u16)>,
    /// For DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the whole request sent to the response's head.
    pub response_timeout: Duration,
    /// From the request to the last byte of its response, retries included.
    pub total_timeout: Option<Duration>,
    /// How it does.
    pub health: Health,
}

impl Upstream {
    /// Whether requests may share a connection.
    pub(super) fn may_speak_http2(&self) -> bool {
        self.http2_only || self.tls.as_ref().is_some_and(|tls| tls.http2)
    }
}

/// TLS towards an upstream.
#[derive(Debug)]
pub struct UpstreamTls {
    /// The name in SNI.
    pub server_name: ServerName<'static>,
    /// Offers HTTP/2 and HTTP/1.1.
    pub any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only: for WebSocket.
    pub http1: Arc<ClientConfig>,
    /// Whether HTTP/2 may be used at all.
    pub http2: bool,
}

/// What the upstream's Host field says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for.
    Client,
    /// Always this.
    Fixed(Box<str>),
}

/// What is offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocols {
    Any,
    Http1,
}
