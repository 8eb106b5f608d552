//! What can go wrong between pintle and the upstream.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::body::RequestBodyError;

/// Why there is no response, or not a whole one.
#[derive(Debug)]
pub enum UpstreamError {
    /// The name has no address, and never had one since pintle runs.
    Dns(Arc<str>),
    /// No address took a connection; the last one's refusal.
    Connect(SocketAddr, io::Error),
    /// TCP, or TLS, was not there in time.
    ConnectTimeout,
    /// The TLS handshake failed: its certificate, most of the time.
    Tls(io::Error),
    /// As many connections, and streams, as are allowed are in use.
    Busy,
    /// The connection ended before a response came.
    Closed(Option<io::Error>),
    /// No response in time.
    ResponseTimeout,
    /// What came is no HTTP response that can be passed on.
    Malformed(&'static str),
    /// The body ended early.
    Truncated(Option<io::Error>),
    /// HTTP/2 failed.
    Http2(h2::Error),
    /// The upstream did not switch to WebSocket as asked, in a way that is no answer.
    Upgrade(&'static str),
    /// The request's body ended early: the client's doing.
    RequestBody(RequestBodyError),
}

impl UpstreamError {
    /// The cause in the words of the access log: short, from a fixed set.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Connect(_, e) => connect_cause(e),
            Self::ConnectTimeout => "connect timed out",
            Self::Tls(e) => tls_cause(e),
            Self::Busy => "too many connections",
            Self::Closed(_) => "closed before response",
            Self::ResponseTimeout => "response timed out",
            Self::Malformed(_) => "malformed response",
            Self::Truncated(_) => "truncated response",
            Self::Http2(_) => "http/2 error",
            Self::Upgrade(_) => "upgrade failed",
            Self::RequestBody(_) => "request body",
        }
    }

    /// The type that RFC 9209 section 2.3 has for it.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns_error",
            Self::Connect(_, e) => match connect_cause(e) {
                "connection refused" => "connection_refused",
                "timed out" => "connection_timeout",
                "no route to host" | "network unreachable" => "destination_ip_unroutable",
                _ => "destination_unavailable",
            },
            Self::ConnectTimeout => "connection_timeout",
            Self::Tls(e) => match rustls_error(e) {
                Some(rustls::Error::InvalidCertificate(_)) => "tls_certificate_error",
                Some(rustls::Error::AlertReceived(_)) => "tls_alert_received",
                _ => "tls_protocol_error",
            },
            Self::Busy => "connection_limit_reached",
            Self::Closed(_) => "connection_terminated",
            Self::ResponseTimeout => "http_response_timeout",
            Self::Malformed(_) | Self::Http2(_) => "http_protocol_error",
            Self::Truncated(_) => "http_response_incomplete",
            Self::Upgrade(_) => "http_upgrade_failed",
            Self::RequestBody(_) => "http_request_error",
        }
    }
}

/// By errno.
fn connect_cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::AddrNotAvailable => "no local address",
        io::ErrorKind::PermissionDenied => "not permitted",
        _ => "connect failed",
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|e| e.downcast_ref())
}

fn tls_cause(error: &io::Error) -> &'static str {
    use rustls::CertificateError as E;
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(e)) => match e {
            E::NotValidForName | E::NotValidForNameContext { .. } => "certificate name mismatch",
            E::Expired | E::ExpiredContext { .. } => "certificate expired",
            E::NotValidYet | E::NotValidYetContext { .. } => "certificate not yet valid",
            E::UnknownIssuer => "certificate from unknown issuer",
            _ => "certificate refused",
        },
        Some(rustls::Error::AlertReceived(_)) => "tls alert",
        _ => "tls failed",
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())?;
        match self {
            Self::Dns(why) => write!(f, ": {why}"),
            Self::Connect(address, e) => write!(f, ": {address}: {e}"),
            Self::Tls(e) | Self::Closed(Some(e)) | Self::Truncated(Some(e)) => write!(f, ": {e}"),
            Self::Malformed(what) | Self::Upgrade(what) => write!(f, ": {what}"),
            Self::Http2(e) => write!(f, ": {e}"),
            Self::RequestBody(e) => write!(f, ": {e}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}
