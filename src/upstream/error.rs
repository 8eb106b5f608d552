//! What can go wrong between pintle and the upstream.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::wire::body::RequestBodyError;

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
    /// As many connections, and streams, as are allowed are in use, and as many requests wait for one.
    Busy,
    /// The request has waited for a connection for as long as it may.
    QueueTimeout,
    /// The upstream did not answer others before, and is left alone for so long.
    CircuitOpen(Duration),
    /// The connection ended before a response came.
    Closed(Option<io::Error>),
    /// No response in time.
    ResponseTimeout,
    /// The response was not over in time.
    TotalTimeout,
    /// The response's body came to a halt.
    BodyTimeout,
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

/// What a request has told about its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It answered, whatever it said.
    Alive,
    /// It could not be reached, or did not answer.
    Dead,
    /// Nothing: the request ended for reasons of its own.
    None,
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
            Self::QueueTimeout => "no connection became free",
            Self::CircuitOpen(_) => "circuit open",
            Self::Closed(_) => "closed before response",
            Self::ResponseTimeout => "response timed out",
            Self::TotalTimeout => "total time is up",
            Self::BodyTimeout => "response body timed out",
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
            Self::Truncated(_) => "http_response_incomplete",
            Self::Upgrade(_) => "http_upgrade_failed",
            Self::RequestBody(_) => "http_request_error",
        }
    }
}

impl UpstreamError {
    /// Whether the fault is on this side: all connections are taken, or there are no files, ports or memory left.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Busy | Self::QueueTimeout => true,
            Self::Connect(_, e) => is_local(e),
            _ => false,
        }
    }

    /// Whether it took too long.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::ResponseTimeout | Self::QueueTimeout)
            || matches!(self, Self::RequestBody(RequestBodyError::TooSlow))
    }

    /// What it says about the upstream. Only connections that fail and answers that do not come count against it: what
    /// answers, however badly, is there. A name without an address is the resolver's matter, which asks again by itself.
    #[must_use]
    pub fn sign(&self) -> Sign {
        match self {
            Self::Connect(_, e) if is_local(e) => Sign::None,
            Self::Connect(..) | Self::ConnectTimeout | Self::Tls(_) | Self::Closed(_) | Self::ResponseTimeout => {
                Sign::Dead
            }
            Self::Http2(e) if e.is_io() => Sign::Dead,
            Self::Http2(_) | Self::Malformed(_) | Self::Upgrade(_) => Sign::Alive,
            Self::Truncated(_) | Self::BodyTimeout => Sign::Alive,
            Self::Dns(_) | Self::Busy | Self::QueueTimeout | Self::CircuitOpen(_) => Sign::None,
            Self::TotalTimeout | Self::RequestBody(_) => Sign::None,
        }
    }

    /// The same once more: several requests may have waited for one connection.
    pub(super) fn of_connection(&self) -> Self {
        match self {
            Self::Dns(why) => Self::Dns(why.clone()),
            Self::Connect(address, e) => Self::Connect(*address, again(e)),
            Self::Tls(e) => Self::Tls(again(e)),
            Self::Closed(e) => Self::Closed(e.as_ref().map(again)),
            Self::Busy => Self::Busy,
            _ => Self::ConnectTimeout,
        }
    }
}

fn again(error: &io::Error) -> io::Error {
    match (error.raw_os_error(), rustls_error(error)) {
        (Some(code), _) => io::Error::from_raw_os_error(code),
        (None, Some(tls)) => io::Error::new(error.kind(), tls.clone()),
        (None, None) => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Whether this host has run out of something.
fn is_local(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|ours| ours.raw_os_error() == code))
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
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => "too many open files",
            _ => "connect failed",
        },
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
            Self::CircuitOpen(wait) => write!(f, ": tried again in {} s", wait.as_millis().div_ceil(1000)),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for UpstreamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_against_an_upstream() {
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
        check(UpstreamError::TotalTimeout, Sign::None, false, "total time is up");
    }

    #[test]
    fn the_same_once_more() {
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
