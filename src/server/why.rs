//! The ends of requests and handshakes as data, for their records: who ended them, by which limit, error or alert.

use std::io;

use super::rejection::Rejection;
use crate::message::HeadFault;
use crate::telemetry::access::{End, Ended};
use crate::tls::{alert, failure};
use crate::upstream::UpstreamError;
use crate::wire::body::RequestBodyError;

/// An end without its words.
pub(super) type Why = End<'static>;

/// The limit on bodies that pause.
const BODY_PROGRESS: &str = "body_progress";

/// The end by a limit: its name in the configuration.
pub(super) fn limit(name: &'static str) -> Why {
    Why { ended: Ended::Limit, limit: Some(name), ..Why::default() }
}

fn ended(ended: Ended) -> Why {
    Why { ended, ..Why::default() }
}

/// The end of a request that pintle refuses.
pub(super) fn of_rejection(rejection: &Rejection) -> Why {
    match rejection {
        Rejection::Head(HeadFault::TargetTooLong) => limit("request_line"),
        Rejection::Head(HeadFault::TooLarge) => limit("header_size"),
        Rejection::Head(HeadFault::TooMany) => limit("header_count"),
        Rejection::Head(HeadFault::FieldTooLarge) => limit("field_size"),
        Rejection::HeadTimeout => limit("request_header"),
        Rejection::Body(error) => of_body(*error),
        Rejection::TooManyChallenges => limit("challenges"),
        Rejection::TooManyReports => limit("reports_per_minute"),
        Rejection::RateExceeded(exceeded) => limit(exceeded.limit.name()),
        Rejection::Upstream(error) => of_upstream(error),
        _ => ended(Ended::Refused),
    }
}

fn of_body(error: RequestBodyError) -> Why {
    match error {
        RequestBodyError::TooLarge => limit("request_body"),
        RequestBodyError::TooSlow => limit(BODY_PROGRESS),
        RequestBodyError::Gone => ended(Ended::Client),
        RequestBodyError::Malformed(_) | RequestBodyError::Length | RequestBodyError::Lost => ended(Ended::Refused),
    }
}

/// The end of a request whose upstream failed.
pub(super) fn of_upstream(error: &UpstreamError) -> Why {
    if let UpstreamError::RequestBody(error) = error {
        return of_body(*error);
    }
    let reached = match error {
        UpstreamError::Busy => Some("upstream_queue"),
        UpstreamError::QueueTimeout => Some("upstream_queue_wait"),
        UpstreamError::ConnectTimeout => Some("connect_timeout"),
        UpstreamError::ResponseTimeout => Some("response_timeout"),
        UpstreamError::TotalTimeout => Some("total_timeout"),
        UpstreamError::BodyTimeout => Some(BODY_PROGRESS),
        UpstreamError::HeadLimit(exceeded) => Some(exceeded.name()),
        _ => None,
    };
    let inner = match error {
        UpstreamError::Connect(_, error)
        | UpstreamError::Tls(error)
        | UpstreamError::Closed(Some(error))
        | UpstreamError::Truncated(Some(error)) => Some(error),
        _ => None,
    };
    let of_pool = matches!(error, UpstreamError::Busy | UpstreamError::QueueTimeout);
    let inner = inner.map(of_io).unwrap_or_default();
    Why {
        ended: if of_pool { Ended::Limit } else { Ended::Upstream },
        limit: reached,
        cause: Some(error.cause()),
        ..inner
    }
}

/// The number and the alert of a connection's error.
pub(super) fn of_io(error: &io::Error) -> Why {
    let alert_received = match failure::rustls_error(error) {
        Some(rustls::Error::AlertReceived(received)) => Some(alert::name_of(*received)),
        _ => None,
    };
    Why { errno: error.raw_os_error(), alert_received, ..Why::default() }
}

/// The end of an answer that could not be sent. A client that takes nothing runs into a limit.
pub(super) fn of_client(error: &io::Error) -> Why {
    match error.kind() {
        io::ErrorKind::TimedOut if error.raw_os_error().is_none() => limit(BODY_PROGRESS),
        _ => Why { ended: Ended::Client, ..of_io(error) },
    }
}

/// The end of a WebSocket whose client has failed.
pub(super) fn of_left(error: &io::Error) -> Why {
    Why { ended: Ended::Client, ..of_io(error) }
}

/// The end of a client that left before its answer.
pub(super) fn gone() -> Why {
    ended(Ended::Client)
}

/// The end of a WebSocket that was silent for too long.
pub(super) fn silent() -> Why {
    limit("websocket_idle")
}

/// The end of a handshake: by an alert of pintle's, or because its client left.
pub(super) fn of_handshake(error: &io::Error, alert_sent: Option<u8>) -> Why {
    let inner = of_io(error);
    let by_client = failure::rustls_error(error).is_none() || inner.alert_received.is_some();
    // TLS 1.3 encrypts the alerts behind its ServerHello.
    let alert_sent = alert_sent.map(alert::name).or_else(|| sealed_alert(error)).filter(|_| !by_client);
    Why { ended: if by_client { Ended::Client } else { Ended::Pintle }, alert_sent, ..inner }
}

/// The alert that rustls sends with an error, if the error alone tells.
fn sealed_alert(error: &io::Error) -> Option<&'static str> {
    match failure::rustls_error(error)? {
        rustls::Error::NoApplicationProtocol => Some("no_application_protocol"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use crate::upstream::HeadLimit;

    #[test]
    fn ends() {
        let at = SocketAddr::from(([192, 0, 2, 1], 443));
        let os = |errno: i32| io::Error::from_raw_os_error(errno);
        let tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let check = |why: Why, ended: Ended, limit: Option<&str>, errno: Option<i32>, alert: Option<&str>| {
            assert_eq!((why.ended, why.limit, why.errno, why.alert_received), (ended, limit, errno, alert), "{why:?}");
        };
        let refused = UpstreamError::Connect(at, os(111));
        assert_eq!(of_upstream(&refused).cause, Some("connection refused"));
        check(of_upstream(&refused), Ended::Upstream, None, Some(111), None);
        check(of_upstream(&UpstreamError::ResponseTimeout), Ended::Upstream, Some("response_timeout"), None, None);
        check(of_upstream(&UpstreamError::Busy), Ended::Limit, Some("upstream_queue"), None, None);
        let alert = rustls::AlertDescription::UnrecognisedName;
        let refused = UpstreamError::Tls(tls(rustls::Error::AlertReceived(alert)));
        check(of_upstream(&refused), Ended::Upstream, None, None, Some("unrecognized_name"));
        let too_large = UpstreamError::RequestBody(RequestBodyError::TooLarge);
        check(of_upstream(&too_large), Ended::Limit, Some("request_body"), None, None);
        check(of_rejection(&Rejection::Head(HeadFault::TooMany)), Ended::Limit, Some("header_count"), None, None);
        check(of_rejection(&Rejection::Misdirected), Ended::Refused, None, None, None);
        check(of_client(&io::ErrorKind::TimedOut.into()), Ended::Limit, Some(BODY_PROGRESS), None, None);
        // The kernel's own timeout is the client's end.
        check(of_client(&os(110)), Ended::Client, None, Some(110), None);
        check(of_handshake(&os(104), None), Ended::Client, None, Some(104), None);
        let wrong = tls(rustls::Error::DecryptError);
        assert_eq!(of_handshake(&wrong, Some(51)).alert_sent, Some("decrypt_error"));
        check(of_handshake(&wrong, Some(51)), Ended::Pintle, None, None, None);
        let sealed = tls(rustls::Error::NoApplicationProtocol);
        assert_eq!(of_handshake(&sealed, None).alert_sent, Some("no_application_protocol"));
        check(of_left(&os(104)), Ended::Client, None, Some(104), None);
        for (exceeded, name) in [
            (HeadLimit::Size, "response_header_size"),
            (HeadLimit::Count, "response_header_count"),
            (HeadLimit::Field, "field_size"),
        ] {
            check(of_upstream(&UpstreamError::HeadLimit(exceeded)), Ended::Upstream, Some(name), None, None);
        }
    }
}
