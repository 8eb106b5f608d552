//! The Cache-Status field (RFC 9211).

/// The room for a usual member, in bytes.
const MEMBER_USUAL: usize = 64;

/// Why a request went to the origin (RFC 9211 section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardReason {
    /// The cache was not to be used for this request.
    Bypass,
    /// By its method.
    Method,
    /// Nothing is stored under this URL.
    UriMiss,
    /// Other variants are stored under this URL.
    VaryMiss,
    /// The client asked for validation.
    Request,
    /// The stored response is stale.
    Stale,
    /// The stored response is a part.
    Partial,
}

impl ForwardReason {
    fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// The cache's part in the answer to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// The reason for going to the origin; none: a hit.
    pub forwarded: Option<ForwardReason>,
    /// The origin's status, if another one was sent.
    pub forwarded_status: Option<u16>,
    /// The seconds until the response is stale; negative for the seconds since.
    pub ttl: Option<i64>,
    /// The response was stored.
    pub stored: bool,
    /// Another request's answer was used.
    pub collapsed: bool,
    /// A word about it: why it was not stored, or why a stale one was sent.
    pub detail: Option<&'static str>,
}

impl Status {
    /// The word for an answer that is not from the store: the reason, or why it was not stored.
    #[must_use]
    pub fn why_forwarded(self) -> Option<&'static str> {
        self.forwarded.map(|reason| self.detail.unwrap_or_else(|| reason.token()))
    }

    /// Writes the list member of this cache.
    #[must_use]
    pub fn member(self) -> String {
        let mut text = String::with_capacity(MEMBER_USUAL);
        text.push_str("pintle");
        match self.forwarded {
            None => text.push_str("; hit"),
            Some(reason) => text.extend(["; fwd=", reason.token()]),
        }
        if let Some(status) = self.forwarded_status.filter(|_| self.forwarded.is_some()) {
            text.extend(["; fwd-status=", itoa::Buffer::new().format(status)]);
        }
        if let Some(ttl) = self.ttl {
            text.extend(["; ttl=", itoa::Buffer::new().format(ttl)]);
        }
        for (is_so, word) in [(self.stored, "; stored"), (self.collapsed, "; collapsed")] {
            if is_so && self.forwarded.is_some() {
                text.push_str(word);
            }
        }
        if let Some(detail) = self.detail {
            text.extend(["; detail=", detail]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn situations() {
        let all = Status::default();
        let went = |reason| Status { forwarded: Some(reason), ..all };
        for (status, want) in [
            (Status { ttl: Some(30), ..all }, "pintle; hit; ttl=30"),
            (Status { ttl: Some(-9), ..all }, "pintle; hit; ttl=-9"),
            (went(ForwardReason::Bypass), "pintle; fwd=bypass"),
            (went(ForwardReason::Method), "pintle; fwd=method"),
            (
                Status { stored: true, ttl: Some(60), ..went(ForwardReason::UriMiss) },
                "pintle; fwd=uri-miss; ttl=60; stored",
            ),
            (
                Status { detail: Some("set-cookie"), ..went(ForwardReason::UriMiss) },
                "pintle; fwd=uri-miss; detail=set-cookie",
            ),
            (Status { stored: true, ..went(ForwardReason::VaryMiss) }, "pintle; fwd=vary-miss; stored"),
            (Status { collapsed: true, ..went(ForwardReason::UriMiss) }, "pintle; fwd=uri-miss; collapsed"),
            (Status { forwarded_status: Some(304), ..went(ForwardReason::Stale) }, "pintle; fwd=stale; fwd-status=304"),
            (
                Status { forwarded_status: Some(304), ..went(ForwardReason::Request) },
                "pintle; fwd=request; fwd-status=304",
            ),
            (
                Status {
                    forwarded_status: Some(503),
                    ttl: Some(-9),
                    detail: Some("stale-if-error"),
                    ..went(ForwardReason::Stale)
                },
                "pintle; fwd=stale; fwd-status=503; ttl=-9; detail=stale-if-error",
            ),
            (went(ForwardReason::Partial), "pintle; fwd=partial"),
            // A hit has none of these.
            (Status { stored: true, collapsed: true, forwarded_status: Some(200), ..all }, "pintle; hit"),
        ] {
            let member = status.member();
            assert_eq!(member, want);
            sfv::Parser::new(&member).parse::<sfv::List>().unwrap();
        }
    }
}
