//! Errors of TLS handshakes in plain words.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};

/// The most names of a certificate in one message.
const NAMES_SHOWN: usize = 5;

/// Returns the error of rustls inside an error of a connection.
#[must_use]
pub fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Returns `true` if the other side answered with something that is not TLS.
#[must_use]
pub fn is_not_tls(error: &io::Error) -> bool {
    matches!(rustls_error(error), Some(Error::InvalidMessage(_)))
}

/// Describes why a handshake with a server failed: `the server does not speak TLS on this port`.
#[must_use]
pub fn words(error: &io::Error) -> String {
    let Some(inner) = rustls_error(error) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server closed the connection during the handshake".to_owned(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "the server broke the connection off during the handshake".to_owned()
            }
            _ => error.to_string(),
        };
    };
    match inner {
        Error::InvalidMessage(_) => "the server does not speak TLS on this port".to_owned(),
        Error::PeerIncompatible(_) => "the server has no TLS version or cipher suite in common with pintle".to_owned(),
        Error::NoCertificatesPresented => "the server shows no certificate".to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidCertificate(error) => of_certificate(error),
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    let why = match alert {
        A::HandshakeFailure => "nothing in common, or a server name that it does not serve",
        A::ProtocolVersion => "it speaks neither TLS 1.2 nor TLS 1.3",
        A::UnrecognisedName => "it does not serve this server name",
        A::CertificateRequired => "it wants a certificate from its clients",
        A::InternalError => "an internal error",
        A::AccessDenied => "no permission",
        other => return format!("the server refused the handshake (alert {other:?})"),
    };
    format!("the server refused the handshake: {why}")
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    let words = match error {
        E::UnknownIssuer => "no trusted CA has issued it, or the server leaves out an intermediate certificate",
        E::Expired => "it has expired",
        E::ExpiredContext { not_after, .. } => return format!("it expired on {}", day(*not_after)),
        E::NotValidYet => "it is not valid yet",
        E::NotValidYetContext { not_before, .. } => return format!("it is not valid before {}", day(*not_before)),
        E::NotValidForName => "it is for another name",
        E::NotValidForNameContext { expected, presented } => {
            return format!("it is for {}, not for {}", names(presented), expected.to_str());
        }
        E::Revoked => "it is revoked",
        E::BadSignature => "the signature of its issuer is wrong",
        E::BadEncoding => "a certificate of the chain is damaged",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "a certificate of the chain is not for servers",
        E::UnhandledCriticalExtension => "it has a critical extension that pintle does not know",
        E::Other(other) => return of_webpki(&other.0),
        other => return other.to_string(),
    };
    words.to_owned()
}

/// Describes why a client's certificate does not let it in.
#[must_use]
pub fn of_client(error: &Error) -> String {
    use CertificateError as E;
    let Error::InvalidCertificate(inner) = error else { return error.to_string() };
    match inner {
        // An authority of the same name has another key.
        E::UnknownIssuer | E::BadSignature => "no authority of admin.https.client_ca has issued it".to_owned(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "it is not for clients (no clientAuth in its extended key usage)".to_owned()
        }
        E::BadEncoding => "it is damaged".to_owned(),
        other => of_certificate(other),
    }
}

/// rustls has these names as text only: `DnsName("a.example")` or `IpAddress(0::1)`. Nothing is decided by it.
fn names(presented: &[String]) -> String {
    let plain = |name: &str| {
        let address = name.strip_prefix("IpAddress(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(name);
        match address.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => name.split('"').nth(1).unwrap_or(name).to_owned(),
        }
    };
    let shown: Vec<String> = presented.iter().take(NAMES_SHOWN).map(|name| plain(name)).collect();
    match presented.len().saturating_sub(NAMES_SHOWN) {
        _ if shown.is_empty() => "no name".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn day(time: UnixTime) -> String {
    let time = i64::try_from(time.as_secs()).ok().and_then(|secs| Timestamp::from_second(secs).ok());
    time.map_or_else(|| "an unknown day".to_owned(), super::rule::day)
}

/// Returns `true` if the server shows a CA's own certificate, as many self-signed ones are.
#[must_use]
pub fn is_ca_itself(error: &io::Error) -> bool {
    let Some(Error::InvalidCertificate(CertificateError::Other(other))) = rustls_error(error) else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Describes errors that only webpki knows; falls back to webpki's words.
#[must_use]
pub fn of_webpki(error: &Arc<dyn std::error::Error + Send + Sync>) -> String {
    use webpki::Error as E;
    let words = match error.downcast_ref::<E>() {
        Some(E::CaUsedAsEndEntity) => "the leaf is a CA's own certificate",
        Some(E::EndEntityUsedAsCa) => "a certificate of the chain is an issuer, but not a CA (its basic constraints)",
        Some(E::NameConstraintViolation) => "an issuer may not issue for a name of the leaf (its name constraints)",
        Some(E::PathLenConstraintViolated) => "the chain has more CAs than one of them allows (pathlen)",
        Some(E::UnsupportedCertVersion) => "a certificate of the chain is not of version 3",
        Some(E::SignatureAlgorithmMismatch) => "a certificate of the chain names two algorithms for its signature",
        _ => return format!("clients reject a certificate of the chain: {error}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{InvalidMessage, OtherError, PeerIncompatible};
    use std::time::Duration;

    #[test]
    fn words_of_errors() {
        use CertificateError as E;
        let check = |error: Error, want: &str| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(words(&error), want);
        };
        let at = |secs| UnixTime::since_unix_epoch(Duration::from_secs(secs));
        let ca = OtherError(Arc::new(webpki::Error::CaUsedAsEndEntity));
        check(Error::InvalidMessage(InvalidMessage::InvalidContentType), "the server does not speak TLS on this port");
        check(
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            "the server has no TLS version or cipher suite in common with pintle",
        );
        check(Error::InvalidCertificate(E::Other(ca)), "the leaf is a CA's own certificate");
        check(
            Error::InvalidCertificate(E::ExpiredContext { time: at(784_111_777), not_after: at(0) }),
            "it expired on 1970-01-01",
        );
        let expected = ServerName::try_from("a.example").unwrap();
        let presented =
            ["DnsName(\"b.example\")", "DnsName(\"*.c.example\")", "IpAddress(0::1)"].map(str::to_owned).to_vec();
        check(
            Error::InvalidCertificate(E::NotValidForNameContext { expected, presented }),
            "it is for b.example, *.c.example, ::1, not for a.example",
        );
        check(
            Error::AlertReceived(AlertDescription::UnrecognisedName),
            "the server refused the handshake: it does not serve this server name",
        );
        check(
            Error::AlertReceived(AlertDescription::DecodeError),
            "the server refused the handshake (alert DecodeError)",
        );
        let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(words(&closed), "the server closed the connection during the handshake");
    }
}
