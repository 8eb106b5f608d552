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

/// The host and the port, if nothing but the port is wrong.
pub(super) fn wrong_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    let is_host = Endpoint::parse(host, Some(80)).is_some();
    // Else the colon belongs to an address of IPv6 without its brackets.
    (is_host && !host.is_empty() && port.parse().map_or(true, |port: u16| port == 0)).then_some((host, port))
}

/// The fault of a port.
pub(super) fn of_port(key: &str, port: &str) -> Reason {
    Reason::new(format!("{key}: the port {port:?} is not a number between 1 and 65,535"))
}

/// The fault of a host with an optional port. `front` stands before it in the value.
pub(super) fn invalid_host(key: &str, authority: &str, front: &str) -> Reason {
    match wrong_port(authority) {
        Some((host, port)) => of_port(key, port).meant(&format!("{front}{host}")),
        None => Reason::new(format!("{key}: invalid host {authority:?}")),
    }
}

/// Returns a URL for a value without `://`: `https://HOST` for `HOST`, `http://HOST` for `http//HOST`. `None` if the
/// result is not a URL.
fn with_scheme(value: &str) -> Option<String> {
    let split = value.split_once("//").map(|(word, rest)| (word.trim_end_matches(':'), rest));
    let meant =
        split.and_then(|(word, rest)| Some((nearest(word, UpstreamScheme::ALL.map(UpstreamScheme::word))?, rest)));
    let (scheme, rest) = meant.unwrap_or_else(|| (UpstreamScheme::Https.word(), value.trim_start_matches('/')));
    let authority = rest.split(['/', '?', '#']).next()?;
    Endpoint::parse(authority, Some(443)).map(|_| format!("{scheme}://{authority}"))
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
            None if split.is_none() => {
                let reason = Reason::new(format!("site.upstream: {:?} has no scheme", url.value)).note(form);
                match with_scheme(&url.value).filter(|_| !authority.starts_with("unix:")) {
                    Some(meant) => reason.meant(&meant),
                    None => reason,
                }
            }
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
        let reason = invalid_host("site.upstream", authority, &format!("{}://", scheme.word()));
        r.error(&url.span, reason.note(form));
    }
    endpoint.map(|e| (scheme, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_ports() {
        let check =
            |authority: &str, want: Option<(&str, &str)>| assert_eq!(wrong_port(authority), want, "{authority}");
        check("example.org:99999", Some(("example.org", "99999")));
        check("example.org:http", Some(("example.org", "http")));
        check("192.0.2.1:0", Some(("192.0.2.1", "0")));
        check("[2001:db8::1]:x", Some(("[2001:db8::1]", "x")));
        check("example.org:8080", None);
        check("example.org", None);
        check("exa mple.org:x", None);
        check(":99999", None);
        check("2001:db8::1", None);
        check("[2001:db8::1]", None);
    }

    #[test]
    fn urls_without_their_scheme() {
        let check = |value: &str, want: Option<&str>| assert_eq!(with_scheme(value).as_deref(), want, "{value}");
        check("example.org", Some("https://example.org"));
        check("//example.org:8080/", Some("https://example.org:8080"));
        check("htp//example.org/blog", Some("http://example.org"));
        check("example.org:x", None);
        check("", None);
    }
}
