//! Destinations: the URL, the address to connect to instead of DNS, and the targets of redirects.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;

use crate::host::{ascii_authority, bare, bracketed, split_authority};
use crate::policy::Scheme;

/// The longest accepted URL, in bytes.
const URL_MAX: usize = 16 * 1024;

/// An absolute http or https URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// http or https.
    pub scheme: Scheme,
    /// Lower case, without a dot at the end; IPv6 addresses in brackets.
    pub host: String,
    /// The port, named or default.
    pub port: u16,
    /// Path and query; at least `/`.
    pub target: String,
}

impl Url {
    /// Returns this URL over a scheme: at that scheme's own port if it is another one.
    #[must_use]
    pub fn over(&self, scheme: Scheme) -> Self {
        let port = if scheme == self.scheme { self.port } else { default_port(scheme) };
        Self { scheme, port, ..self.clone() }
    }

    /// Returns `host`, or `host:port` if the port is not the scheme's.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == default_port(self.scheme) { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns the host if it is an IP address. Such hosts have no policies (RFC 6797 section
    /// 8.1.1, RFC 7469 section 2.3.3).
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        bare(&self.host).parse().ok()
    }

    /// Returns the name that certificates are verified for. `None` for names that no certificate
    /// can have.
    #[must_use]
    pub fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(bare(&self.host).to_owned()).ok()
    }

    /// Returns the URL that a client with noted HSTS requests instead of an http URL: port 80
    /// becomes 443, any other port stays (RFC 6797 section 8.3, step 5).
    #[must_use]
    pub fn upgraded(&self) -> Self {
        let port = if self.port == 80 { 443 } else { self.port };
        Self { scheme: Scheme::Https, port, ..self.clone() }
    }

    /// Returns the URL that a Location leads to from here (RFC 9110 section 10.2.2). `None` if it
    /// is not an http or https URL.
    #[must_use]
    pub fn join(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(rest) = location.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme.as_str()).parse().ok();
        }
        if let Some(colon) = location.find([':', '/', '?']).filter(|at| location.as_bytes()[*at] == b':') {
            // A colon in the first segment belongs to a scheme (RFC 3986 section 4.2).
            return (colon > 0).then(|| location.parse().ok()).flatten();
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let target = match location.chars().next() {
            None => self.target.clone(),
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            Some(_) => format!("{folder}/{location}"),
        };
        format!("{}://{}{target}", self.scheme.as_str(), self.authority()).parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.target)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > URL_MAX {
            return Err(format!("the URL has more than {URL_MAX} bytes"));
        }
        let (scheme, rest) = text.split_once("://").ok_or("not a URL: write it with https://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(format!("{scheme} is not a scheme of the web: write https")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("a URL with a user name: leave out all that is before the @".into());
        }
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("white space and non-ASCII characters of the path must be written as %XX".into());
        }
        let mut raw = ascii_authority(authority).map_err(|e| e.to_string())?.into_owned().into_bytes();
        let split = split_authority(&mut raw).map_err(|e| e.to_string())?;
        raw.truncate(split.host_len);
        let host = String::from_utf8(raw).map_err(|e| e.to_string())?;
        let port = split.port.unwrap_or_else(|| default_port(scheme));
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { scheme, host, port, target: format!("{slash}{target}") })
    }
}

/// Returns the port of a scheme.
#[must_use]
pub fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

/// An address to connect to instead of DNS: `HOST:PORT`, `HOST`, or an IP address with or without a
/// port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTo {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port, if given.
    pub port: Option<u16>,
}

impl fmt::Display for ConnectTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", bracketed(&self.host)),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for ConnectTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        let mut raw = text.as_bytes().to_vec();
        let split = split_authority(&mut raw).map_err(|e| format!("not HOST:PORT or an address: {e}"))?;
        raw.truncate(split.host_len);
        let host = String::from_utf8(raw).map_err(|e| e.to_string())?;
        Ok(Self { host: bare(&host).to_owned(), port: split.port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls() {
        let check = |text: &str, want: &str| {
            let got = text.parse::<Url>().map_or_else(|e| format!("error: {e}"), |u| u.to_string());
            assert!(got.starts_with(want), "{text}: {got}");
        };
        check("https://Blog.Example.com", "https://blog.example.com/");
        check("HTTPS://blog.example.com:443/a?b=c#d", "https://blog.example.com/a?b=c");
        check("https://blog.example.com.:8443?x", "https://blog.example.com:8443/?x");
        check("http://blog.example.com:80/", "http://blog.example.com/");
        check("https://[2001:DB8::1]:8443/x", "https://[2001:db8::1]:8443/x");
        check("https://192.0.2.1", "https://192.0.2.1/");
        check("blog.example.com", "error: not a URL");
        check("ftp://blog.example.com/", "error: ftp is not a scheme");
        check("https:///x", "error: a host name is needed");
        check("https://user@blog.example.com/", "error: a URL with a user name");
        check("https://b\u{fc}cher.example:8443/", "https://xn--bcher-kva.example:8443/");
        check("https://blog.example.com:99999/", "error: the port");
        check("https://blog.example.com/a b", "error: white space");
        check("https://blog.example.com/\u{fc}", "error: white space");
    }

    #[test]
    fn locations() {
        let base: Url = "https://a.example:8443/x/y?z".parse().unwrap();
        let check = |location: &str, want: Option<&str>| {
            assert_eq!(base.join(location).map(|u| u.to_string()).as_deref(), want, "{location}");
        };
        check("https://b.example/#top", Some("https://b.example/"));
        check("HTTP://B.example/p", Some("http://b.example/p"));
        check("//b.example/p", Some("https://b.example/p"));
        check("/p?q", Some("https://a.example:8443/p?q"));
        check("p", Some("https://a.example:8443/x/p"));
        check("?q", Some("https://a.example:8443/x/y?q"));
        check("", Some("https://a.example:8443/x/y?z"));
        check("javascript:alert(1)", None);
        check("mailto:a@b.example", None);
        check("https://", None);
        check("/a:b", Some("https://a.example:8443/a:b"));
        check(":", None);
    }

    #[test]
    fn rewriting_by_hsts() {
        let check = |text: &str, want: &str| {
            assert_eq!(text.parse::<Url>().unwrap().upgraded().to_string(), want);
        };
        check("http://a.example/x?y", "https://a.example/x?y");
        check("http://a.example:80/", "https://a.example/");
        check("http://a.example:8080/", "https://a.example:8080/");
    }

    #[test]
    fn places() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            assert_eq!(text.parse(), Ok(ConnectTo { host: host.into(), port }), "{text}");
        };
        check("192.0.2.1", "192.0.2.1", None);
        check("192.0.2.1:8443", "192.0.2.1", Some(8443));
        check("::1", "::1", None);
        check("[::1]", "::1", None);
        check("[::1]:8443", "::1", Some(8443));
        check("Edge.example.net:443", "edge.example.net", Some(443));
        check("edge.example.net", "edge.example.net", None);
        for bad in ["", ":443", "a b", "a:b", "https://a.example", "a:99999"] {
            assert!(bad.parse::<ConnectTo>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn texts_never_panic(text in "\\PC{0,40}", location in "[a-z:/?#.\\[\\]@%\u{fc} ]{0,20}") {
            let _ = text.parse::<Url>();
            let _ = text.parse::<ConnectTo>();
            let base: Url = "http://a.example/".parse().unwrap();
            if let Some(url) = base.join(&location) {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
