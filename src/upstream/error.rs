//! Errors between pintle and the upstream.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::os::words::words;
use crate::tls::failure::{self, rustls_error};
use crate::wire::body::RequestBodyError;

/// An error without a response, or without a complete one.
#[derive(Debug)]
pub enum UpstreamError {
    /// The name has no address, and had none since pintle started.
    Dns(Arc<str>),
    /// No address accepted a connection: the last one, and its error.
    Connect(SocketAddr, io::Error),
    /// TCP or TLS took longer than the connect timeout.
    ConnectTimeout,
    /// The TLS handshake failed, mostly because of the upstream's certificate.
    Tls(io::Error),
    /// All connections and streams are in use, and the queue is full.
    Busy,
    /// The request waited in the queue for longer than the limit.
    QueueTimeout,
    /// The circuit breaker is open, for this long.
    CircuitOpen(Duration),
    /// The connection ended before a response came.
    Closed(Option<io::Error>),
    /// The response's head took longer than the response timeout.
    ResponseTimeout,
    /// The exchange took longer than the total timeout.
    TotalTimeout,
    /// The response's body stopped for longer than the limit.
    BodyTimeout,
    /// pintle cannot pass the response on: it is not valid HTTP.
    Malformed(&'static str),
    /// The response's head exceeds a limit.
    HeadLimit(HeadLimit),
    /// The body ended early.
    Truncated(Option<io::Error>),
    /// An error of HTTP/2.
    Http2(h2::Error),
    /// The upstream answered a WebSocket request wrongly, or another request with a 101.
    Upgrade(&'static str),
    /// The request's body ended early, because of the client.
    RequestBody(RequestBodyError),
}

/// The limits on the heads of responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadLimit {
    /// The bytes of the head.
    Size,
    /// The number of its fields.
    Count,
    /// The bytes of a field.
    Field,
}

impl HeadLimit {
    /// Returns its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Size => "response_header_size",
            Self::Count => "response_header_count",
            Self::Field => "field_size",
        }
    }
}

/// The state of an upstream, as a request has shown it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The upstream answered, with any status.
    Alive,
    /// The upstream could not be reached, or did not answer.
    Dead,
    /// Nothing: the request ended for another reason.
    None,
}

impl UpstreamError {
    /// Returns the cause as the access log names it: short, and one of a fixed set.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Connect(_, e) => connect_cause(e),
            Self::ConnectTimeout => "connect timed out",
            Self::Tls(e) => tls_cause(e),
            Self::Busy => "too many connections",
            Self::QueueTimeout => "no connection became free",
            Self::CircuitOpen(_) => "circuit open",
            Self::Closed(_) => "closed before response",
            Self::ResponseTimeout => "response timed out",
            Self::TotalTimeout => "total timeout",
            Self::BodyTimeout => "response body timed out",
            Self::Malformed(_) | Self::HeadLimit(_) => "malformed response",
            Self::Truncated(_) => "truncated response",
            Self::Http2(_) => "http/2 error",
            Self::Upgrade(_) => "upgrade failed",
            Self::RequestBody(_) => "request body",
        }
    }

    /// Returns the error type for Proxy-Status (RFC 9209 section 2.3).
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns_error",
            Self::Connect(_, e) => match e.kind() {
                io::ErrorKind::ConnectionRefused => "connection_refused",
                io::ErrorKind::TimedOut => "connection_timeout",
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "destination_ip_unroutable",
                _ if is_local(e) => "connection_limit_reached",
                _ => "destination_unavailable",
            },
            Self::ConnectTimeout => "connection_timeout",
            Self::Tls(e) => match rustls_error(e) {
                Some(rustls::Error::InvalidCertificate(_)) => "tls_certificate_error",
                Some(rustls::Error::AlertReceived(_)) => "tls_alert_received",
                _ => "tls_protocol_error",
            },
            Self::Busy | Self::QueueTimeout => "connection_limit_reached",
            Self::CircuitOpen(_) => "destination_unavailable",
            Self::Closed(_) => "connection_terminated",
            Self::ResponseTimeout | Self::TotalTimeout | Self::BodyTimeout => "http_response_timeout",
            Self::Malformed(_) | Self::Http2(_) => "http_protocol_error",
            Self::HeadLimit(HeadLimit::Field) => "http_response_header_size",
            Self::HeadLimit(_) => "http_response_header_section_size",
            Self::Truncated(_) => "http_response_incomplete",
            Self::Upgrade(_) => "http_upgrade_failed",
            Self::RequestBody(_) => "http_request_error",
        }
    }
}

impl UpstreamError {
    /// Returns the remedy for the operator, if the configuration may be at fault.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Dns(_) => Some(
                "check the host in upstream and the name servers of this host, or set upstream_options.connect to its address",
            ),
            Self::Connect(_, e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                Some("check the port in upstream, and that the upstream runs")
            }
            Self::Tls(e) => tls_hint(e),
            Self::HeadLimit(HeadLimit::Size) => {
                Some("if the upstream needs such a head, raise limits.response_header_size")
            }
            Self::HeadLimit(HeadLimit::Count) => {
                Some("if the upstream needs so many fields, raise limits.response_header_count")
            }
            Self::HeadLimit(HeadLimit::Field) => Some("if the upstream needs such a field, raise limits.field_size"),
            _ => None,
        }
    }

    /// Returns `true` if the request never had a connection to the upstream, because of pintle's own limits or its circuit
    /// breaker.
    #[must_use]
    pub fn is_without_connection(&self) -> bool {
        matches!(self, Self::Busy | Self::QueueTimeout | Self::CircuitOpen(_))
    }

    /// Returns `true` if pintle's host is at fault: it is out of connections, files, ports or
    /// memory.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Busy | Self::QueueTimeout => true,
            Self::Connect(_, e) => is_local(e),
            _ => false,
        }
    }

    /// Returns `true` for a timeout that the total timeout can cause.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::ResponseTimeout | Self::QueueTimeout)
            || matches!(self, Self::RequestBody(RequestBodyError::TooSlow))
    }

    /// Returns what the error shows of the upstream.
    ///
    /// Only failed connections and missing answers count against it. An upstream that answers
    /// wrongly is alive. A name without an address does not count, since the resolver asks again by
    /// itself.
    #[must_use]
    pub fn sign(&self) -> Sign {
        match self {
            Self::Connect(_, e) if is_local(e) => Sign::None,
            Self::Connect(..) | Self::ConnectTimeout | Self::Tls(_) | Self::Closed(_) | Self::ResponseTimeout => {
                Sign::Dead
            }
            Self::Http2(e) if e.is_io() => Sign::Dead,
            Self::Http2(_) | Self::Malformed(_) | Self::HeadLimit(_) | Self::Upgrade(_) => Sign::Alive,
            Self::Truncated(_) | Self::BodyTimeout => Sign::Alive,
            Self::Dns(_) | Self::Busy | Self::QueueTimeout | Self::CircuitOpen(_) => Sign::None,
            Self::TotalTimeout | Self::RequestBody(_) => Sign::None,
        }
    }

    /// Copies the error of a connection, for the other requests that waited for it.
    pub(super) fn of_connection(&self) -> Self {
        match self {
            Self::Dns(why) => Self::Dns(why.clone()),
            Self::Connect(address, e) => Self::Connect(*address, copy_of(e)),
            Self::Tls(e) => Self::Tls(copy_of(e)),
            Self::Closed(e) => Self::Closed(e.as_ref().map(copy_of)),
            Self::Busy => Self::Busy,
            _ => Self::ConnectTimeout,
        }
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    match (error.raw_os_error(), rustls_error(error)) {
        (Some(code), _) => io::Error::from_raw_os_error(code),
        (None, Some(tls)) => io::Error::new(error.kind(), tls.clone()),
        (None, None) => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Returns `true` if pintle's host has run out of a resource.
fn is_local(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|ours| ours.raw_os_error() == code))
}

/// Returns the cause of a failed connection, from its error code.
fn connect_cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::AddrNotAvailable => "no local address",
        io::ErrorKind::PermissionDenied => "not permitted",
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => "too many open files",
            _ => "connect failed",
        },
    }
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

fn tls_hint(error: &io::Error) -> Option<&'static str> {
    use rustls::CertificateError as E;
    if failure::is_not_tls(error) {
        return Some("check the port; if the upstream speaks plain HTTP there, write http:// in upstream");
    }
    if failure::is_ca_itself(error) {
        return Some("issue a certificate for the upstream with this CA, and name the CA in upstream_options.ca");
    }
    let Some(inner) = rustls_error(error) else {
        return Some("check the port, and the name that the upstream expects (upstream_options.server_name)");
    };
    match inner {
        rustls::Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => {
            Some("if the upstream has a CA of its own, name that CA in upstream_options.ca")
        }
        rustls::Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }) => {
            Some("if it is the right server, set upstream_options.verify_name to a name of its certificate")
        }
        rustls::Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => {
            Some("renew the certificate of the upstream")
        }
        rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => Some("let the upstream speak TLS 1.2 or 1.3"),
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            Some("pintle has no certificate for upstreams: let the upstream accept this host without one")
        }
        rustls::Error::AlertReceived(_) => Some("set upstream_options.server_name to a name that the upstream serves"),
        _ => None,
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause())?;
        match self {
            Self::Dns(why) => write!(f, ": {why}"),
            Self::Connect(address, e) => write!(f, ": {address}: {}", words(e)),
            Self::Tls(e) => write!(f, ": {}", failure::words(e)),
            Self::Closed(Some(e)) | Self::Truncated(Some(e)) => write!(f, ": {}", words(e)),
            Self::Malformed(what) | Self::Upgrade(what) => write!(f, ": {what}"),
            Self::HeadLimit(HeadLimit::Size) => f.write_str(": head too large"),
            Self::HeadLimit(HeadLimit::Count) => f.write_str(": head with too many fields"),
            Self::HeadLimit(HeadLimit::Field) => f.write_str(": field too large"),
            Self::Http2(e) => write!(f, ": {e}"),
            Self::RequestBody(e) => write!(f, ": {e}"),
            Self::CircuitOpen(wait) => write!(f, ": next attempt in {} s", wait.as_millis().div_ceil(1000)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_count_against_an_upstream() {
        let at = SocketAddr::from(([192, 0, 2, 1], 443));
        let connect = |errno: Errno| UpstreamError::Connect(at, io::Error::from_raw_os_error(errno.raw_os_error()));
        let check = |error: UpstreamError, sign: Sign, local: bool, cause: &str| {
            assert_eq!((error.sign(), error.is_local(), error.cause()), (sign, local, cause), "{error:?}");
        };
        check(connect(Errno::CONNREFUSED), Sign::Dead, false, "connection refused");
        check(connect(Errno::HOSTUNREACH), Sign::Dead, false, "no route to host");
        check(connect(Errno::NETUNREACH), Sign::Dead, false, "network unreachable");
        check(connect(Errno::TIMEDOUT), Sign::Dead, false, "timed out");
        check(connect(Errno::MFILE), Sign::None, true, "too many open files");
        check(connect(Errno::ADDRNOTAVAIL), Sign::None, true, "no local address");
        check(UpstreamError::Closed(None), Sign::Dead, false, "closed before response");
        check(UpstreamError::ResponseTimeout, Sign::Dead, false, "response timed out");
        check(UpstreamError::Malformed("x"), Sign::Alive, false, "malformed response");
        check(UpstreamError::Truncated(None), Sign::Alive, false, "truncated response");
        check(UpstreamError::Dns("x".into()), Sign::None, false, "dns");
        check(UpstreamError::Busy, Sign::None, true, "too many connections");
        check(UpstreamError::TotalTimeout, Sign::None, false, "total timeout");
    }

    #[test]
    fn proxy_status_follows_the_kind_of_the_error() {
        let check = |errno: Errno, want: &str| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let error = UpstreamError::Connect(SocketAddr::from(([192, 0, 2, 1], 443)), error);
            assert_eq!(error.proxy_status(), want, "{error}");
        };
        check(Errno::CONNREFUSED, "connection_refused");
        check(Errno::TIMEDOUT, "connection_timeout");
        check(Errno::HOSTUNREACH, "destination_ip_unroutable");
        check(Errno::NETUNREACH, "destination_ip_unroutable");
        check(Errno::MFILE, "connection_limit_reached");
        check(Errno::CONNRESET, "destination_unavailable");
    }

    #[test]
    fn each_alert_has_its_own_remedy() {
        use rustls::AlertDescription as A;
        let check = |alert: A, want: &str| {
            let error = UpstreamError::Tls(io::Error::other(rustls::Error::AlertReceived(alert)));
            assert!(error.hint().is_some_and(|hint| hint.contains(want)), "{error}: {:?}", error.hint());
        };
        check(A::ProtocolVersion, "TLS 1.2");
        check(A::CertificateRequired, "without one");
        check(A::UnrecognisedName, "upstream_options.server_name");
        check(A::HandshakeFailure, "upstream_options.server_name");
    }

    #[test]
    fn copies_are_equal() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let errors = [
            UpstreamError::Tls(io::Error::new(io::ErrorKind::InvalidData, tls)),
            UpstreamError::Connect(SocketAddr::from(([1, 2, 3, 4], 5)), io::ErrorKind::ConnectionRefused.into()),
            UpstreamError::Dns("no address".into()),
            UpstreamError::ConnectTimeout,
        ];
        for error in errors {
            let copy = error.of_connection();
            assert_eq!(
                (copy.cause(), copy.proxy_status(), copy.sign()),
                (error.cause(), error.proxy_status(), error.sign())
            );
        }
    }
}
