//! The field names that pintle has rules for, and their kinds.

/// The field names that pintle has rules for. All others are [`Name::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of that name")]
pub enum Name {
    Accept,
    AltSvc,
    Connection,
    ContentLength,
    ContentLocation,
    ContentType,
    Cookie,
    Date,
    EarlyData,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    MaxForwards,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    PublicKeyPins,
    PublicKeyPinsReportOnly,
    Referer,
    Refresh,
    SecWebsocketAccept,
    SecWebsocketKey,
    SetCookie,
    StrictTransportSecurity,
    Te,
    Traceparent,
    Tracestate,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Vary,
    Via,
    XForwardedFor,
    XForwardedHost,
    /// `X-Forwarded-Port`, `X-Forwarded-Proto-Version` and the like.
    XForwardedOther,
    XForwardedProto,
    XRealIp,
    /// A field in which proxies describe the client, its connection or its request:
    /// `CF-Connecting-IP`, `Front-End-Https`, `X-Original-URL`.
    Claim,
    /// A name that CGI-like servers confuse with one of those above: `X_Forwarded_Proto`,
    /// `Content.Length`.
    Lookalike,
    Other,
}

/// The names in their usual case.
pub(super) const KNOWN: &[(&str, Name)] = &[
    ("Accept", Name::Accept),
    ("Alt-Svc", Name::AltSvc),
    ("Connection", Name::Connection),
    ("Content-Length", Name::ContentLength),
    ("Content-Location", Name::ContentLocation),
    ("Content-Type", Name::ContentType),
    ("Cookie", Name::Cookie),
    ("Date", Name::Date),
    ("Early-Data", Name::EarlyData),
    ("Expect", Name::Expect),
    ("Forwarded", Name::Forwarded),
    ("Host", Name::Host),
    ("HTTP2-Settings", Name::Http2Settings),
    ("Keep-Alive", Name::KeepAlive),
    ("Location", Name::Location),
    ("Max-Forwards", Name::MaxForwards),
    ("Origin", Name::Origin),
    ("Proxy-Authenticate", Name::ProxyAuthenticate),
    ("Proxy-Authorization", Name::ProxyAuthorization),
    ("Proxy-Connection", Name::ProxyConnection),
    ("Public-Key-Pins", Name::PublicKeyPins),
    ("Public-Key-Pins-Report-Only", Name::PublicKeyPinsReportOnly),
    ("Referer", Name::Referer),
    ("Refresh", Name::Refresh),
    ("Sec-WebSocket-Accept", Name::SecWebsocketAccept),
    ("Sec-WebSocket-Key", Name::SecWebsocketKey),
    ("Set-Cookie", Name::SetCookie),
    ("Strict-Transport-Security", Name::StrictTransportSecurity),
    ("TE", Name::Te),
    ("traceparent", Name::Traceparent),
    ("tracestate", Name::Tracestate),
    ("Trailer", Name::Trailer),
    ("Transfer-Encoding", Name::TransferEncoding),
    ("Upgrade", Name::Upgrade),
    ("User-Agent", Name::UserAgent),
    ("Vary", Name::Vary),
    ("Via", Name::Via),
    ("X-Forwarded-For", Name::XForwardedFor),
    ("X-Forwarded-Host", Name::XForwardedHost),
    ("X-Forwarded-Proto", Name::XForwardedProto),
    ("X-Real-IP", Name::XRealIp),
    // The client.
    ("Ali-CDN-Real-IP", Name::Claim),
    ("CDN-Src-IP", Name::Claim),
    ("CF-Connecting-IP", Name::Claim),
    ("CF-Connecting-IPv6", Name::Claim),
    ("CF-IPCountry", Name::Claim),
    ("CF-Pseudo-IPv4", Name::Claim),
    ("Client-IP", Name::Claim),
    ("Cluster-Client-IP", Name::Claim),
    ("DO-Connecting-IP", Name::Claim),
    ("Fastly-Client", Name::Claim),
    ("Fastly-Client-IP", Name::Claim),
    ("Fly-Client-IP", Name::Claim),
    ("Fly-Region", Name::Claim),
    ("HTTP-Client-IP", Name::Claim),
    ("HTTP-X-Forwarded-For", Name::Claim),
    ("Incap-Client-IP", Name::Claim),
    ("Proxy-Client-IP", Name::Claim),
    ("Remote-Addr", Name::Claim),
    ("Remote-Host", Name::Claim),
    ("Remote-IP", Name::Claim),
    ("Remote-User", Name::Claim),
    ("True-Client-IP", Name::Claim),
    ("X-Azure-ClientIP", Name::Claim),
    ("X-Azure-FDID", Name::Claim),
    ("X-Azure-SocketIP", Name::Claim),
    ("X-CDN-Src-IP", Name::Claim),
    ("X-Client-IP", Name::Claim),
    ("X-Cluster-Client-IP", Name::Claim),
    ("X-Nf-Client-Connection-IP", Name::Claim),
    ("X-Originating-IP", Name::Claim),
    ("X-ProxyUser-IP", Name::Claim),
    ("X-Sucuri-ClientIP", Name::Claim),
    ("X-Sucuri-Country", Name::Claim),
    ("X-True-Client-IP", Name::Claim),
    ("Akamai-Client-IP", Name::Claim),
    ("Ar-Real-IP", Name::Claim),
    ("CDN-Client-IP", Name::Claim),
    ("CDN-Connecting-IP", Name::Claim),
    ("CDN-Real-IP", Name::Claim),
    ("Connecting-IP", Name::Claim),
    ("Customer-IP", Name::Claim),
    ("Originating-IP", Name::Claim),
    ("Peer-IP", Name::Claim),
    ("Real-IP", Name::Claim),
    ("Source-IP", Name::Claim),
    ("Src-IP", Name::Claim),
    ("User-IP", Name::Claim),
    ("X-Akamai-Client-IP", Name::Claim),
    ("X-CDN-Client-IP", Name::Claim),
    ("X-CDN-Real-IP", Name::Claim),
    ("X-CF-Connecting-IP", Name::Claim),
    ("X-Client-Addr", Name::Claim),
    ("X-Client-Address", Name::Claim),
    ("X-Client-Host", Name::Claim),
    ("X-Client-Port", Name::Claim),
    ("X-Client-SSL", Name::Claim),
    ("X-Connecting-IP", Name::Claim),
    ("X-Customer-IP", Name::Claim),
    ("X-EC-Client-IP", Name::Claim),
    ("X-Edge-Client-IP", Name::Claim),
    ("X-Fastly-Client-IP", Name::Claim),
    ("X-IP", Name::Claim),
    ("X-IP-Address", Name::Claim),
    ("X-Origin-IP", Name::Claim),
    ("X-Peer-Addr", Name::Claim),
    ("X-Peer-IP", Name::Claim),
    ("X-Source-IP", Name::Claim),
    ("X-Src-IP", Name::Claim),
    ("X-User-IP", Name::Claim),
    ("X-Visitor-IP", Name::Claim),
    ("X-Anonymous-Consumer", Name::Claim),
    ("X-Apigateway-Api-Userinfo", Name::Claim),
    ("X-Auth-User", Name::Claim),
    ("X-Userinfo", Name::Claim),
    ("X-User-Info", Name::Claim),
    // The client's connection.
    ("CF-Visitor", Name::Claim),
    ("Fastly-SSL", Name::Claim),
    ("Front-End-Https", Name::Claim),
    ("HTTPS", Name::Claim),
    ("X-AppService-Proto", Name::Claim),
    ("X-HTTPS", Name::Claim),
    ("X-Proto", Name::Claim),
    ("X-Scheme", Name::Claim),
    ("X-SSL", Name::Claim),
    ("X-URL-Scheme", Name::Claim),
    // The client's request; and `Proxy`, which CGI programs read as the variable HTTP_PROXY.
    ("Proxy", Name::Claim),
    ("Path-Info", Name::Claim),
    ("Request-URI", Name::Claim),
    ("Script-Filename", Name::Claim),
    ("Script-Name", Name::Claim),
    ("X-Backend-Host", Name::Claim),
    ("X-Base-URL", Name::Claim),
    ("X-Context-Path", Name::Claim),
    ("X-Middleware-Rewrite", Name::Claim),
    ("X-Middleware-Subrequest", Name::Claim),
    ("X-Middleware-Subrequest-ID", Name::Claim),
    ("X-Override-URL", Name::Claim),
    ("X-Path-Info", Name::Claim),
    ("X-Request-URI", Name::Claim),
    ("X-Request-URL", Name::Claim),
    ("X-Script-Name", Name::Claim),
    ("X-Server-Name", Name::Claim),
    ("X-Host", Name::Claim),
    ("X-HTTP-Host-Override", Name::Claim),
    ("X-WAWS-Unencoded-URL", Name::Claim),
];

/// Returns the beginnings of names that are all claims, in lower case, by the first and the third
/// byte of a name in folded form.
pub(super) const fn families(first: u8, third: u8) -> &'static [&'static str] {
    match (first, third) {
        (b'c', b'-') => &["cf-access-"],
        (b'c', b'i') => &["client-cert"],
        (b'c', b'o') => &["cloudfront-"],
        (b'f', b'r') => &["forwarded-"],
        (b'f', b'y') => &["fly-forwarded-"],
        (b'r', b'm') => &["remote-"],
        (b's', b'l') => &["ssl-"],
        (b't', b'i') => &["tailscale-"],
        (b'w', b'-') => &["wl-proxy-"],
        (b'x', b'a') => &[
            "x-accel-",
            "x-amzn-mtls-",
            "x-amzn-oidc-",
            "x-amzn-tls-",
            "x-appengine-",
            "x-arr-",
            "x-auth-request-",
            "x-authenticated-",
            "x-authentik-",
        ],
        (b'x', b'c') => &[
            "x-cert-",
            "x-client-cert",
            "x-client-dn",
            "x-client-ssl-",
            "x-client-verify",
            "x-consumer-",
            "x-credential-",
        ],
        (b'x', b'e') => &["x-envoy-"],
        (b'x', b'f') => &["x-forward-", OTHER_FORWARDED],
        (b'x', b'g') => &["x-goog-authenticated-", "x-goog-iap-"],
        (b'x', b'm') => &["x-ms-client-principal", "x-ms-token-"],
        (b'x', b'o') => &["x-original-"],
        (b'x', b'p') => &["x-pomerium-", "x-proxy-"],
        (b'x', b'r') => &["x-real-", "x-remote-", "x-rewrite-"],
        (b'x', b's') => &["x-sendfile", "x-ssl-"],
        (b'x', b't') => &["x-tls-"],
        (b'x', b'v') => &["x-vercel-", "x-vouch-"],
        (b'x', b'w') => &["x-webauth-"],
        _ => &[],
    }
}

/// The beginning of [`Name::XForwardedOther`].
pub(super) const OTHER_FORWARDED: &str = "x-forwarded";

impl Name {
    /// Returns `true` for a policy that clients note for the requested host.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(self, Self::StrictTransportSecurity | Self::PublicKeyPins | Self::PublicKeyPinsReportOnly)
    }

    /// Returns `true` if the field belongs to one hop (RFC 9110 section 7.6.1, RFC 9113 section
    /// 8.2.2) and never passes.
    ///
    /// `TE` and `Trailer` are not among them: they pass where trailers pass.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
        )
    }

    /// Returns `true` if a request's field of this name passes from no client: it claims what only
    /// proxies know, or looks like a field that pintle has rules for.
    #[must_use]
    pub fn is_claim(self) -> bool {
        matches!(self, Self::Claim | Self::Lookalike)
    }
}
