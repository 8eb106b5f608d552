//! Refusals, and the status code, page and log text of each.

use http::StatusCode;

use super::rates::{RateExceeded, RateLimit};
use crate::message::HeadFault;
use crate::policy::forwarded::RequestField;
use crate::upstream::UpstreamError;
use crate::wire::body::RequestBodyError;

/// The reason if a site has no certificate that can be served.
pub(super) const NO_CERTIFICATE: &str = "the site has no valid certificate";

/// The reason why pintle refuses a request.
#[derive(Debug)]
pub(super) enum Rejection {
    /// The request's head cannot be read, or is too large.
    Head(HeadFault),
    /// The request's head took too long.
    HeadTimeout,
    /// The request's body is wrong, too large, or too slow.
    Body(RequestBodyError),
    /// No site has this host, or the certificate in use does not cover it.
    Misdirected,
    /// The request is for an http URI, and came over TLS (RFC 9110 section 7.4).
    HttpOverTls,
    /// The method is CONNECT or TRACE, or the path does not take it.
    MethodNotAllowed,
    /// An expectation other than 100-continue.
    ExpectationFailed,
    /// The ACME challenge does not exist.
    NoChallenge,
    /// Too many challenges are being read.
    TooManyChallenges,
    /// The site has no certificate that it may serve, so that https leads nowhere.
    NoCertificate,
    /// The site has no upstream.
    NotFound,
    /// The body is not a report.
    NoReport,
    /// The body is not a report of http references.
    NoViolation,
    /// Too many reports in this minute.
    TooManyReports,
    /// The client, or the crawler, has sent too many requests.
    RateExceeded(RateExceeded),
    /// The table of limits with this key denies the client's address.
    AddressDenied(Box<str>),
    /// The client wants a stored response only, and none may be sent.
    NotStored,
    /// The request has been here before.
    Loop,
    /// The TLS offloader in front does not state the client's scheme, so that pintle's redirect comes back.
    SchemeNotStated(RequestField),
    /// The upstream does not know that the client used https, so that its redirect leads back.
    UpstreamRedirectsBack,
    /// The upstream redirects to the very URL that was asked for. `knows_scheme` says that it is reached over https.
    UpstreamRedirectsToItself { knows_scheme: bool },
    /// The upstream failed.
    Upstream(UpstreamError),
}

impl Rejection {
    /// Returns the status code of the answer.
    #[must_use]
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Head(fault) => match fault {
                HeadFault::Syntax(_) | HeadFault::Host(_) | HeadFault::Framing(_) => StatusCode::BAD_REQUEST,
                HeadFault::TargetTooLong => StatusCode::URI_TOO_LONG,
                HeadFault::TooLarge | HeadFault::TooMany | HeadFault::FieldTooLarge => {
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                }
                HeadFault::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                HeadFault::Coding => StatusCode::NOT_IMPLEMENTED,
            },
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Body(error) | Self::Upstream(UpstreamError::RequestBody(error)) => match error {
                RequestBodyError::Malformed(_) | RequestBodyError::Gone | RequestBodyError::Length => {
                    StatusCode::BAD_REQUEST
                }
                RequestBodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                RequestBodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                RequestBodyError::Lost => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Misdirected | Self::HttpOverTls => StatusCode::MISDIRECTED_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::NoChallenge | Self::NotFound => StatusCode::NOT_FOUND,
            Self::NoReport | Self::NoViolation => StatusCode::BAD_REQUEST,
            Self::TooManyReports | Self::RateExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::AddressDenied(_) => StatusCode::FORBIDDEN,
            Self::NotStored => StatusCode::GATEWAY_TIMEOUT,
            Self::TooManyChallenges | Self::NoCertificate => StatusCode::SERVICE_UNAVAILABLE,
            Self::Loop
            | Self::SchemeNotStated(_)
            | Self::UpstreamRedirectsBack
            | Self::UpstreamRedirectsToItself { .. } => StatusCode::LOOP_DETECTED,
            Self::Upstream(error) => match error {
                UpstreamError::ConnectTimeout | UpstreamError::ResponseTimeout | UpstreamError::TotalTimeout => {
                    StatusCode::GATEWAY_TIMEOUT
                }
                UpstreamError::CircuitOpen(_) => StatusCode::SERVICE_UNAVAILABLE,
                error if error.is_local() => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            },
        }
    }

    /// Returns `true` if the client sent its body too slowly.
    pub(super) fn is_slow_body(&self) -> bool {
        let slow = |error: &RequestBodyError| *error == RequestBodyError::TooSlow;
        match self {
            Self::Body(error) | Self::Upstream(UpstreamError::RequestBody(error)) => slow(error),
            _ => false,
        }
    }

    /// Returns the headline and the text for a visitor. No names, addresses or causes from inside.
    #[must_use]
    pub(super) fn message(&self) -> (&'static str, &'static str) {
        match self {
            Self::Head(fault) => head_message(fault),
            Self::HeadTimeout => TOO_SLOW,
            Self::Body(error) | Self::Upstream(UpstreamError::RequestBody(error)) => body_message(error),
            Self::Misdirected => {
                ("There is no such site here", "This server does not serve the requested name on this connection.")
            }
            Self::HttpOverTls => {
                ("This address is not served here", "A URL with http:// was requested over TLS. Use https:// instead.")
            }
            Self::MethodNotAllowed => ("Not allowed", "This method is not available here."),
            Self::ExpectationFailed => {
                ("Expectation failed", "This server supports no expectation except 100-continue.")
            }
            Self::NoChallenge => ("Not found", "There is no such challenge."),
            Self::TooManyChallenges => {
                ("Too many challenges", "Too many were requested at once. Please try again in a moment.")
            }
            Self::NoCertificate => (
                "This site has no valid certificate yet",
                "It is served over https only, and cannot be reached until its operator has a certificate for it. Please try \
                 again later.",
            ),
            Self::NotFound => ("Not found", "There is nothing under this address."),
            Self::NoReport => ("Not a report", "Reports are JSON, as RFC 7469 section 3 describes them."),
            Self::NoViolation => ("Not a report", "Reports are JSON, as CSP and the Reporting API describe them."),
            Self::TooManyReports => ("Too many reports", "This report is not needed any more."),
            Self::RateExceeded(exceeded) => match exceeded.limit {
                RateLimit::Requests => ("Too many requests", TOO_MANY),
                RateLimit::Concurrent => ("Too many requests at once", TOO_MANY),
                RateLimit::Crawlers => ("Too many requests", "This site accepts fewer requests from this crawler."),
            },
            Self::AddressDenied(_) => ("Not allowed", "This site does not accept requests from your network."),
            Self::NotStored => ("Not in the cache", "Only a stored response was asked for, and there is none."),
            Self::Loop => ("The request goes in circles", "This server was asked to forward the request to itself."),
            Self::SchemeNotStated(field) => (ENDLESS_REDIRECT, scheme_remedy(*field)),
            Self::UpstreamRedirectsBack => (
                ENDLESS_REDIRECT,
                "You used https, but the site behind this server redirects you as if you used http. Its \
                 operator must set its address to https://, or make it believe the header X-Forwarded-Proto.",
            ),
            Self::UpstreamRedirectsToItself { knows_scheme: false } => (
                ENDLESS_REDIRECT,
                "You used https, but the site behind this server does not know that, and redirects you to the page that \
                 you asked for. Its operator must make it believe the header X-Forwarded-Proto. In WordPress, this line in \
                 wp-config.php does that: if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = \
                 'on'; }",
            ),
            Self::UpstreamRedirectsToItself { knows_scheme: true } => (
                ENDLESS_REDIRECT,
                "The site behind this server redirects you to the page that you asked for. Its operator must make it serve \
                 this name instead of redirecting to it.",
            ),
            Self::Upstream(error) => upstream_message(error),
        }
    }

    /// Returns the seconds for Retry-After (RFC 9110 section 10.2.3).
    #[must_use]
    pub(super) fn retry_after(&self) -> Option<u64> {
        match (self, self.status()) {
            (Self::Upstream(UpstreamError::CircuitOpen(wait)), _) => {
                Some(u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
            }
            (Self::NoCertificate, _) => Some(60),
            (Self::RateExceeded(exceeded), _) => Some(exceeded.wait),
            (_, StatusCode::SERVICE_UNAVAILABLE) => Some(1),
            (_, StatusCode::TOO_MANY_REQUESTS) => Some(60),
            _ => None,
        }
    }

    /// Returns the error type of RFC 9209 section 2.3.
    #[must_use]
    pub(super) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Upstream(error) => error.proxy_status(),
            Self::Loop
            | Self::SchemeNotStated(_)
            | Self::UpstreamRedirectsBack
            | Self::UpstreamRedirectsToItself { .. } => "proxy_loop_detected",
            Self::Misdirected
            | Self::HttpOverTls
            | Self::MethodNotAllowed
            | Self::RateExceeded(_)
            | Self::AddressDenied(_) => "http_request_denied",
            _ => "http_request_error",
        }
    }

    /// Returns the cause in detail, for the access log.
    #[must_use]
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Head(fault) => match fault {
                HeadFault::Syntax(what) | HeadFault::Framing(what) => format!("bad request: {what}"),
                HeadFault::TargetTooLong => "request line too long".into(),
                HeadFault::TooLarge => "request head too large".into(),
                HeadFault::TooMany => "request head with more fields than limits.header_count".into(),
                HeadFault::FieldTooLarge => "request field larger than limits.field_size, or its name too long".into(),
                HeadFault::Version => "unknown HTTP version".into(),
                HeadFault::Host(Some(why)) => format!("bad host: {why}"),
                HeadFault::Host(None) => "bad host: missing, repeated, or different from the target's".into(),
                HeadFault::Coding => "unknown transfer coding".into(),
            },
            Self::HeadTimeout => "request head timed out".into(),
            Self::Body(error) => error.to_string(),
            Self::Misdirected => "no site, or no certificate, for this host on this connection".into(),
            Self::HttpOverTls => "an http URI over TLS".into(),
            Self::MethodNotAllowed => "method not allowed".into(),
            Self::ExpectationFailed => "unknown expectation".into(),
            Self::NoChallenge => "no such ACME challenge".into(),
            Self::TooManyChallenges => "more ACME challenges at once than limits.challenges".into(),
            Self::NoCertificate => NO_CERTIFICATE.into(),
            Self::NotFound => "the site has no upstream".into(),
            Self::NoReport | Self::NoViolation => "not a report".into(),
            Self::TooManyReports => "more reports than limits.reports_per_minute or limits.reports_per_client".into(),
            Self::RateExceeded(RateExceeded { limit, key, name, .. }) => {
                format!("more requests than {key}.{} accepts (rule {name:?})", limit.key())
            }
            Self::AddressDenied(key) => format!("the client's address is in {key}.deny"),
            Self::NotStored => "only-if-cached: no stored response may be sent".into(),
            Self::Loop => "the request has passed here several times".into(),
            Self::SchemeNotStated(field) => {
                format!("redirect loop: a trusted proxy sends no {}", field.scheme_field())
            }
            Self::UpstreamRedirectsBack => "redirect loop: the upstream redirects from http to the same page".into(),
            Self::UpstreamRedirectsToItself { .. } => "redirect loop: the upstream redirects to the same URL".into(),
            Self::Upstream(error) => error.to_string(),
        }
    }

    /// Returns `true` if this connection does not serve the host, so that none of its policies may be sent.
    #[must_use]
    pub(super) fn is_misdirected(&self) -> bool {
        matches!(self, Self::Misdirected | Self::HttpOverTls)
    }

    /// Returns `true` if an HTTP/1 connection cannot be used further: where the next request begins is uncertain.
    #[must_use]
    pub(super) fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::Head(_) | Self::HeadTimeout | Self::Body(_) | Self::Upstream(UpstreamError::RequestBody(_))
        )
    }
}

const TOO_SLOW: (&str, &str) = ("The request took too long", "It did not arrive in time. Please try again.");
const NOT_HTTP: &str = "The request cannot be understood";
const ENDLESS_REDIRECT: &str = "This site redirects to itself without end";
const TOO_MANY: &str = "This site accepts fewer requests from one visitor. Please wait a moment, then try again.";
const UNREACHABLE: &str = "The site cannot be reached";

fn head_message(fault: &HeadFault) -> (&'static str, &'static str) {
    match fault {
        HeadFault::TargetTooLong => ("The address is too long", "It is longer than this server accepts."),
        HeadFault::TooLarge | HeadFault::TooMany | HeadFault::FieldTooLarge => (
            "The request is too large",
            "Your browser sent more header fields than this server accepts. Deleting the cookies of this site usually \
             helps.",
        ),
        HeadFault::Version => ("Unknown version of HTTP", "This server speaks HTTP/1.1 and HTTP/2."),
        _ => (NOT_HTTP, "It does not follow the rules of HTTP."),
    }
}

fn body_message(error: &RequestBodyError) -> (&'static str, &'static str) {
    match error {
        RequestBodyError::TooSlow => TOO_SLOW,
        RequestBodyError::TooLarge => ("The upload is too large", "It is larger than this site accepts."),
        RequestBodyError::Malformed(_) | RequestBodyError::Gone | RequestBodyError::Length => {
            (NOT_HTTP, "Its contents ended too early or too late.")
        }
        RequestBodyError::Lost => {
            ("The upload was lost", "This server could not keep it. Please try again in a moment.")
        }
    }
}

fn upstream_message(error: &UpstreamError) -> (&'static str, &'static str) {
    match error {
        error if error.is_local() => ("The site is busy", "Too many visitors at once. Please try again in a moment."),
        UpstreamError::CircuitOpen(_) => {
            (UNREACHABLE, "The site behind this server does not answer at present. Please try again in a moment.")
        }
        UpstreamError::ResponseTimeout | UpstreamError::ConnectTimeout | UpstreamError::TotalTimeout => {
            ("The site takes too long", "The site behind this server did not answer in time. Please try again later.")
        }
        _ => (UNREACHABLE, "The site behind this server does not answer as it should. Please try again later."),
    }
}

fn scheme_remedy(field: RequestField) -> &'static str {
    match field {
        RequestField::XForwarded => {
            "The proxy in front of this server does not say whether you used https. Its operator must make it send \
             the header X-Forwarded-Proto: https with every request that came over TLS (and http with every other one)."
        }
        RequestField::Forwarded => {
            "The proxy in front of this server does not say whether you used https. Its operator must make it send \
             the header Forwarded: proto=https with every request that came over TLS (and proto=http with every other \
             one)."
        }
    }
}
