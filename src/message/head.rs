//! The heads of requests and responses.

use std::ops::Range;

use http::{Method, StatusCode};

use super::fault::HeadFault;
use super::field::{ConnectionOptions, Fields, has_token};
use super::name::Name;
use super::target;
use crate::host::{InvalidHost, split_authority};

/// The version a message was received in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// Returns the version as in `Via` and the access log: `1.0`, `1.1`, `2`.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// The length of a body (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// A number of bytes.
    Length(u64),
    /// Chunks, then trailers. In HTTP/2: DATA until the stream ends.
    Chunked,
    /// Up to the end of the connection, in responses only.
    UntilClose,
}

/// The scheme that a request names, in an absolute target or as `:scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the scheme of that name")]
pub enum TargetScheme {
    Http,
    Https,
}

impl TargetScheme {
    /// Returns the port of an authority that names none (RFC 9110 section 4.2).
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request's head. It is parsed once, and kept for the whole exchange.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version of the message.
    pub version: Version,
    /// The length of the body.
    pub framing: Framing,
    /// The header fields.
    pub fields: Fields,
    /// The client keeps the connection (HTTP/1).
    pub keep_alive: bool,
    /// The `:protocol` of an extended CONNECT is `websocket` (RFC 8441), or an HTTP/1.1 request
    /// asks for that upgrade.
    pub websocket: bool,
    /// The scheme that the request names, if any.
    pub scheme: Option<TargetScheme>,
    target: Range<usize>,
    host: Range<usize>,
    port: Option<u16>,
}

impl RequestHead {
    /// Empties the head, and keeps the buffers.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Returns a copy for changes: see [`Fields::working_copy`].
    #[must_use]
    pub fn working_copy(&self) -> Self {
        let Self { method, target, host, .. } = self;
        Self {
            method: method.clone(),
            fields: self.fields.working_copy(),
            target: target.clone(),
            host: host.clone(),
            ..*self
        }
    }

    /// Returns path and query, beginning with `/`, or `*`. Percent-encoded where necessary, and
    /// otherwise as received.
    #[must_use]
    pub fn target(&self) -> &str {
        ascii(self.fields.raw(self.target.clone()))
    }

    /// Returns path and query as bytes.
    #[must_use]
    pub fn target_bytes(&self) -> &[u8] {
        self.fields.raw(self.target.clone())
    }

    /// Returns the path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// Returns the requested host, in the form that [`crate::host::HostMap`] looks up.
    #[must_use]
    pub fn host(&self) -> &str {
        ascii(self.fields.raw(self.host.clone()))
    }

    /// Returns the host as bytes.
    #[must_use]
    pub fn host_bytes(&self) -> &[u8] {
        self.fields.raw(self.host.clone())
    }

    /// Returns the port that the client named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns `host` or `host:port`, as the client named it.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// Sets path and query.
    pub fn set_target(&mut self, target: &[u8]) {
        self.target = self.fields.push_raw(target);
    }

    /// Sets path and query as a client sent them, encoded where necessary.
    ///
    /// # Errors
    ///
    /// Returns a [`HeadFault`] if they are too long, or a byte is not permitted.
    pub fn read_target(&mut self, target: &[u8]) -> Result<(), HeadFault> {
        match target::encode(target)? {
            Some(encoded) => self.set_target(&encoded),
            None => self.set_target(target),
        }
        Ok(())
    }

    /// Sets path and query from bytes that are in the buffer already.
    pub(super) fn read_target_range(&mut self, target: Range<usize>) -> Result<(), HeadFault> {
        match target::encode(self.fields.raw(target.clone()))? {
            Some(encoded) => self.set_target(&encoded),
            None => self.target = target,
        }
        Ok(())
    }

    pub(super) fn clear_target(&mut self) {
        self.target = 0..0;
    }

    /// Sets the host from the value of a Host field or an `:authority`.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidHost`]. The answer is 400 (RFC 9112 section 3.2).
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), InvalidHost> {
        let range = self.fields.push_raw(authority);
        self.set_authority_range(range)
    }

    pub(super) fn set_authority_range(&mut self, range: Range<usize>) -> Result<(), InvalidHost> {
        let authority = split_authority(self.fields.raw_mut(range.clone()))?;
        self.host = range.start..range.start + authority.host_len;
        self.port = authority.port;
        Ok(())
    }

    /// Removes the host, because it is not certain.
    pub fn clear_host(&mut self) {
        (self.host, self.port) = (0..0, None);
    }

    /// Removes the scheme's default port: `host:443` and `host` are the same authority (RFC 9110
    /// section 4.2.3).
    pub fn drop_default_port(&mut self, scheme: TargetScheme) {
        self.port = self.port.filter(|port| *port != scheme.default_port());
    }

    /// Returns the host, and the port unless it is the default port of the named scheme.
    pub(super) fn host_and_port(&self) -> (&[u8], Option<u16>) {
        let default = self.scheme.map(TargetScheme::default_port);
        (self.host_bytes(), self.port.filter(|port| Some(*port) != default))
    }

    /// Returns `true` if a Host field or an authority names the host that is already set. Case, a
    /// trailing dot and the scheme's default port do not matter.
    #[must_use]
    pub fn is_same_authority(&self, authority: &[u8]) -> bool {
        let mut other = Self { scheme: self.scheme, ..Self::default() };
        other.set_authority(authority).is_ok() && other.host_and_port() == self.host_and_port()
    }

    /// Reads the Connection fields, and marks the fields that they name. Must be called after all
    /// fields were added.
    pub(super) fn read_connection(&mut self) {
        let mut options = ConnectionOptions::default();
        self.fields.read_connection(&mut options);
        if options.names_fields {
            self.fields.mark_hop();
        }
        self.keep_alive = !options.close && (self.version == Version::Http11 || options.keep_alive);
        // RFC 9110 section 7.8: only with `Connection: upgrade`, and never in HTTP/1.0. RFC 6455
        // section 4.1: a GET.
        self.websocket = options.upgrade
            && self.version == Version::Http11
            && self.method == Method::GET
            && self.framing == Framing::None
            && self.fields.get_all(Name::Upgrade).any(|v| has_token(v, b"websocket"));
    }

    /// Returns `true` if the client waits for `100 Continue` before it sends the body (RFC 9110
    /// section 10.1.1).
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.version != Version::Http10
            && self.framing != Framing::None
            && self.fields.get(Name::Expect).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"))
    }
}

/// A response's head.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    /// The status code.
    pub status: StatusCode,
    /// The length of the body, as its maker sends it.
    pub framing: Framing,
    /// The header fields, without hop-by-hop fields.
    pub fields: Fields,
    /// The upstream keeps the connection (HTTP/1).
    pub keep_alive: bool,
}

impl ResponseHead {
    /// Empties the head, and keeps the buffers.
    pub fn clear(&mut self) {
        self.status = StatusCode::OK;
        self.framing = Framing::None;
        self.fields.clear();
        self.keep_alive = false;
    }
}

/// Converts a target or a host, which was checked to be ASCII.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
