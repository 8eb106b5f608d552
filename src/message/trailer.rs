//! The fields that must not stand in a trailer section.

use super::name::{Name, folds_to};

/// Fields beside the known [`Name`]s that a recipient needs before the body, in lower case (RFC
/// 9110 section 6.5.1).
const FORBIDDEN: &[&str] = &[
    // Conditions, ranges and preferences of a request.
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "pragma",
    "range",
    // Authentication.
    "authorization",
    "www-authenticate",
    // Control of a response.
    "age",
    "cache-control",
    "expires",
    "retry-after",
    "warning",
    // The format of the content.
    "content-encoding",
    "content-language",
    "content-range",
];

/// Returns `true` if a field of this name must not stand in a trailer section: fields of framing,
/// routing, authentication, request and response control and content format (RFC 9110 section
/// 6.5.1), all fields that pintle has rules for, and names that look like one of these.
#[must_use]
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    Name::of(name) != Name::Other || FORBIDDEN.iter().any(|forbidden| folds_to(name, forbidden.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_belong_to_the_head() {
        for name in [
            "Host",
            "content-length",
            "Transfer_Encoding",
            "Authorization",
            "WWW-Authenticate",
            "Set-Cookie",
            "Cookie",
            "Cache-Control",
            "cache_control",
            "Content-Encoding",
            "Content-Type",
            "Content-Range",
            "If-None-Match",
            "Range",
            "Expires",
            "Retry-After",
            "Vary",
            "Trailer",
            "X-Forwarded-For",
            "CF-Connecting-IP",
        ] {
            assert!(is_forbidden_trailer(name.as_bytes()), "{name}");
        }
        for name in ["X-Checksum", "Server-Timing", "Content-Digest", "ETag", "Authentication-Info", "grpc-status"] {
            assert!(!is_forbidden_trailer(name.as_bytes()), "{name}");
        }
    }
}
