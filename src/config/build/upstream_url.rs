//! The URL of an upstream: its protocol, host and port.

use std::net::SocketAddr;

use super::checker::Checker;
use crate::config::problem::At;
use crate::host::{ascii_authority, bare, split_authority};
use crate::reason::Reason;
use crate::reason::near::nearest;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    pub(super) fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let mut raw = ascii_authority(text).ok()?.into_owned().into_bytes();
        let authority = split_authority(&mut raw).ok()?;
        raw.truncate(authority.host_len);
        let port = authority.port.or(default_port).filter(|p| *p > 0)?;
        Some(Self { host: String::from_utf8(raw).ok()?, port })
    }

    pub(super) fn bare(&self) -> &str {
        bare(&self.host)
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.bare().parse().ok().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// As a Host field has it: without the scheme's own port.
    pub(super) fn authority(&self, default_port: u16) -> String {
        if self.port == default_port { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// The protocol of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpstreamScheme {
    Http,
    Https,
    /// HTTP/2 without TLS: `h2c`.
    Http2,
}

impl UpstreamScheme {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Http2];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Http2 => "h2c",
        }
    }

    pub(super) fn default_port(self) -> u16 {
        if self == Self::Https { 443 } else { 80 }
    }
}

/// Returns a URL for a value without `://`: `https://HOST` for `HOST`, `http://HOST` for `http//HOST`.
fn with_scheme(value: &str) -> String {
    let split = value.split_once("//").map(|(word, rest)| (word.trim_end_matches(':'), rest));
    let meant =
        split.and_then(|(word, rest)| Some((nearest(word, UpstreamScheme::ALL.map(UpstreamScheme::word))?, rest)));
    let (scheme, rest) = meant.unwrap_or_else(|| (UpstreamScheme::Https.word(), value.trim_start_matches('/')));
    format!("{scheme}://{rest}")
}

/// Parses `http://host`, `https://host:port`, `h2c://host:port`. A path would have to precede that of every request.
pub(super) fn parse_url(url: &At<String>, r: &mut Checker<'_>) -> Option<(UpstreamScheme, Endpoint)> {
    let form =
        "expected http://HOST, https://HOST, or h2c://HOST for gRPC without TLS; with :PORT if it is not the default";
    let split = url.value.split_once("://");
    let authority = split.map_or(url.value.as_str(), |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or("");
    if let Some((_, host)) = authority.rsplit_once('@') {
        // The message goes to the log: it does not repeat a password.
        let reason = Reason::new("site.upstream: has a user name, which requests do not carry");
        r.error(&url.span, reason.hint(format!("leave out everything before the @: {host}")));
        return None;
    }
    let known =
        split.and_then(|(word, rest)| Some((UpstreamScheme::ALL.into_iter().find(|s| s.word() == word)?, rest)));
    let Some((scheme, rest)) = known else {
        let reason = match split.and_then(|(word, _)| nearest(word, UpstreamScheme::ALL.map(UpstreamScheme::word))) {
            Some(near) => {
                let meant = url.value.replacen(split.map_or("", |(word, _)| word), near, 1);
                Reason::new(format!("site.upstream: unknown scheme in {:?}", url.value)).meant(&meant)
            }
            None if split.is_none() => Reason::new(format!("site.upstream: {:?} has no scheme", url.value))
                .note(form)
                .meant(&with_scheme(&url.value)),
            None => Reason::new(format!("site.upstream: {:?} is not an http, https or h2c URL", url.value)).note(form),
        };
        r.error(&url.span, reason);
        return None;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        let host = authority.split(['/', '?', '#']).next().unwrap_or("");
        let what = format!("site.upstream: {:?} has a path, but requests keep their own", url.value);
        let reason = Reason::new(what);
        let is_host = Endpoint::parse(host, Some(scheme.default_port())).is_some();
        let meant = format!("{}://{host}", scheme.word());
        r.error(&url.span, if is_host { reason.meant(&meant) } else { reason.note(form) });
        return None;
    }
    let endpoint = Endpoint::parse(authority, Some(scheme.default_port()));
    if endpoint.is_none() {
        r.error(&url.span, Reason::new(format!("site.upstream: invalid host {authority:?}")).note(form));
    }
    endpoint.map(|e| (scheme, e))
}
