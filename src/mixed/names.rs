//! The hosts whose references are rewritten, and the authorities that take their place.

use std::sync::Arc;

use crate::host::HostPattern;

/// The hosts that answer by https, as far as a site's configuration says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpsNames {
    /// Names of the site, for which pintle has a certificate.
    pub site: Vec<HostPattern>,
    /// Names that the operator lists. They keep their names.
    pub listed: Vec<HostPattern>,
    /// Names and ports of the upstream. The site's name takes their place.
    pub upstream: Vec<(Box<str>, u16)>,
}

/// The same for one response: with the authority that the client asked for.
#[derive(Debug, Clone)]
pub struct OwnNames {
    names: Arc<HttpsNames>,
    /// Host and port of the site, as the client reaches it.
    authority: Box<str>,
    /// The port in it.
    port: Option<u16>,
}

/// The way in which an authority is rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewAuthority<'a> {
    /// The host stays. A port is added, if there is one.
    SameHost(Option<u16>),
    /// Another authority takes its place.
    Other(&'a str),
}

impl OwnNames {
    /// Makes the names for a client that asked for `host`, at `port` if that is not 443.
    #[must_use]
    pub fn new(names: Arc<HttpsNames>, host: &str, port: Option<u16>) -> Self {
        let authority = port.map_or_else(|| host.into(), |port| format!("{host}:{port}").into_boxed_str());
        Self { names, authority, port }
    }

    /// Returns the new authority of an http reference; `None` if the host is a stranger's, or its port is.
    #[must_use]
    pub fn of_http(&self, host: &str, port: Option<u16>) -> Option<NewAuthority<'_>> {
        let matches = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.matches(host));
        let is_site = matches(&self.names.site);
        let is_default = matches!(port, None | Some(80));
        match () {
            () if is_default && is_site => Some(NewAuthority::SameHost(self.port)),
            () if is_default && matches(&self.names.listed) => Some(NewAuthority::SameHost(None)),
            () => self.of_upstream(host, port, is_site),
        }
    }

    /// Returns the site's authority, if a canonical https URL has the upstream's name.
    #[must_use]
    pub fn of_canonical_https(&self, host: &str, port: Option<u16>) -> Option<NewAuthority<'_>> {
        let is_other = !self.names.site.iter().any(|pattern| pattern.matches(host));
        let is_default = matches!(port, None | Some(443));
        is_other.then(|| self.of_upstream(host, port.filter(|_| !is_default), false)).flatten()
    }

    fn of_upstream(&self, host: &str, port: Option<u16>, is_site: bool) -> Option<NewAuthority<'_>> {
        let mut names = self.names.upstream.iter();
        let is_own = match port {
            // An application that does not know the port it is reached on names none.
            None | Some(80) => names.any(|(name, _)| **name == *host),
            // Nothing answers plain HTTP there.
            Some(443) => false,
            // A server that receives the client's Host appends the port that it listens on.
            Some(port) => names.any(|(name, own)| (**name == *host || is_site) && port == *own),
        };
        is_own.then_some(NewAuthority::Other(&self.authority))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The names of a hosted blog.
    pub(crate) fn blog() -> OwnNames {
        let parse = |name: &str| HostPattern::parse(name).unwrap();
        let names = HttpsNames {
            site: vec![parse("blog.example"), parse("*.pages.example"), parse("xn--bcher-kva.example")],
            listed: vec![parse("cdn.example")],
            upstream: vec![("blog.wordpress.example".into(), 443), ("127.0.0.1".into(), 8080)],
        };
        OwnNames::new(Arc::new(names), "blog.example", None)
    }

    #[test]
    fn of_http() {
        let names = blog();
        let same = Some(NewAuthority::SameHost(None));
        let other = Some(NewAuthority::Other("blog.example"));
        for (host, port, want) in [
            ("blog.example", None, same.clone()),
            ("blog.example", Some(80), same.clone()),
            ("blog.example", Some(443), None),
            ("blog.example", Some(81), None),
            ("a.pages.example", None, same.clone()),
            ("a.b.pages.example", None, None),
            ("cdn.example", None, same),
            ("cdn.example", Some(8080), None),
            ("blog.wordpress.example", None, other.clone()),
            ("127.0.0.1", Some(8080), other.clone()),
            ("127.0.0.1", None, other.clone()),
            ("127.0.0.1", Some(8081), None),
            ("blog.example", Some(8080), other),
            ("evil.example", None, None),
        ] {
            assert_eq!(names.of_http(host, port), want, "{host} {port:?}");
        }
        let ported = OwnNames::new(names.names.clone(), "blog.example", Some(8443));
        assert_eq!(ported.of_http("a.pages.example", None), Some(NewAuthority::SameHost(Some(8443))));
        assert_eq!(ported.of_http("cdn.example", None), Some(NewAuthority::SameHost(None)));
        assert_eq!(ported.of_http("blog.wordpress.example", None), Some(NewAuthority::Other("blog.example:8443")));
    }

    #[test]
    fn of_canonical_https() {
        let names = blog();
        let other = Some(NewAuthority::Other("blog.example"));
        assert_eq!(names.of_canonical_https("blog.wordpress.example", None), other);
        assert_eq!(names.of_canonical_https("blog.wordpress.example", Some(443)), other);
        assert_eq!(names.of_canonical_https("blog.example", None), None);
        assert_eq!(names.of_canonical_https("cdn.example", None), None);
    }
}
