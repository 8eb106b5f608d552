//! Redirects of requests without TLS, and of requests for another host of the site.

/// The scheme of a request, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS, terminated by pintle or by a trusted proxy in front.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Parses a scheme as proxies write it, in any case. WebSocket's schemes count as those of
    /// HTTP.
    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        let is = |names: [&[u8]; 2]| names.iter().any(|n| word.eq_ignore_ascii_case(n));
        if is([b"https", b"wss"]) {
            Some(Self::Https)
        } else if is([b"http", b"ws"]) {
            Some(Self::Http)
        } else {
            None
        }
    }
}

/// The ports of the TLS listeners, as clients see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HttpsPorts<'a> {
    /// The port that the operator configured for clients.
    pub public: Option<u16>,
    /// The ports of the TLS listeners.
    pub listeners: &'a [u16],
}

impl HttpsPorts<'_> {
    /// The port to name in a redirect, if any. A client that named a port reached pintle's own
    /// port, and needs the TLS listener's. A client that named none came to port 80, and 443 leads
    /// back here however ports are mapped (RFC 6797 section 8.3 rewrites ports in the same way).
    fn for_client(self, named: Option<u16>) -> Option<u16> {
        let port = match (self.public, named) {
            (Some(public), _) => Some(public),
            (None, None | Some(80 | 443)) => None,
            (None, Some(_)) => self.listeners.first().copied(),
        };
        port.filter(|p| *p != 443)
    }

    /// The port to name in a URL for a client that came over https and named this one: the same
    /// port if it is pintle's, and none if the client made it up.
    #[must_use]
    pub fn of_client(self, named: Option<u16>) -> Option<u16> {
        let is_ours = |port: &u16| self.public == Some(*port) || self.listeners.contains(port);
        let named = named.filter(|port| *port != 443)?;
        Some(named).filter(is_ours).or(self.public).filter(|port| *port != 443)
    }
}

/// The https URL for a request without TLS: the same host, path and query, byte by byte (RFC 6797
/// section 7.2). `host` is a configured host, or one that a configured wildcard covers.
#[must_use]
pub fn to_https(host: &[u8], named_port: Option<u16>, target: &[u8], https: HttpsPorts<'_>) -> Vec<u8> {
    url(host, https.for_client(named_port), target)
}

/// The URL of the same page under the site's first host. The port stays if it is pintle's.
#[must_use]
pub fn to_canonical(canonical: &str, named_port: Option<u16>, target: &[u8], https: HttpsPorts<'_>) -> Vec<u8> {
    url(canonical.as_bytes(), https.of_client(named_port), target)
}

fn url(host: &[u8], port: Option<u16>, target: &[u8]) -> Vec<u8> {
    // `OPTIONS *` asks about the server: its URL has no path.
    let target = if target == b"*" { b"/" } else { target };
    // The response to most requests without TLS: one allocation, and no formatting machinery.
    let mut url = Vec::with_capacity("https://:65535".len() + host.len() + target.len());
    url.extend_from_slice(b"https://");
    url.extend_from_slice(host);
    if let Some(port) = port {
        url.push(b':');
        url.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    url.extend_from_slice(target);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(url: Vec<u8>) -> String {
        String::from_utf8(url).unwrap()
    }

    fn check(authority: &str, target: &str, https: HttpsPorts<'_>, want: &str) {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().unwrap())),
            None => (authority, None),
        };
        assert_eq!(text(to_https(host.as_bytes(), port, target.as_bytes(), https)), want);
    }

    #[test]
    fn table() {
        let usual = HttpsPorts { public: None, listeners: &[443] };
        let demo = HttpsPorts { public: None, listeners: &[8443, 10443] };
        let mapped = HttpsPorts { public: Some(9443), listeners: &[443] };
        let behind_offloader = HttpsPorts::default();
        check("shop.example", "/a?b", usual, "https://shop.example/a?b");
        check("shop.example:80", "/", usual, "https://shop.example/");
        check("shop.example:8080", "/", usual, "https://shop.example/");
        check("shop.example", "//evil.example/%2e?", usual, "https://shop.example//evil.example/%2e?");
        check("shop.example", "*", usual, "https://shop.example/");
        check("localhost:8080", "/a", demo, "https://localhost:8443/a");
        check("localhost", "/a", demo, "https://localhost/a");
        check("localhost:80", "/a", demo, "https://localhost/a");
        check("shop.example", "/a", mapped, "https://shop.example:9443/a");
        check("shop.example:8080", "/a", mapped, "https://shop.example:9443/a");
        check("shop.example:8080", "/a", behind_offloader, "https://shop.example/a");
    }

    #[test]
    fn ports_that_a_client_makes_up_are_not_repeated() {
        let check = |named, listeners: &[u16], public, want: &str| {
            let url = text(to_canonical("www.example", named, b"/x", HttpsPorts { public, listeners }));
            assert_eq!(url, format!("https://www.example{want}/x"), "{named:?} {listeners:?} {public:?}");
        };
        check(None, &[8443], None, "");
        check(None, &[443], Some(9443), "");
        check(Some(8443), &[8443], None, ":8443");
        check(Some(10443), &[8443, 10443], None, ":10443");
        check(Some(443), &[443], None, "");
        check(Some(9443), &[443], Some(9443), ":9443");
        check(Some(1), &[8443], None, "");
        check(Some(0), &[], None, "");
        check(Some(1), &[443], Some(9443), ":9443");
        check(Some(1), &[443], Some(443), "");
        check(Some(80), &[443], None, "");
    }

    #[test]
    fn scheme_words() {
        let check = |word: &str, want| assert_eq!(Scheme::parse(word.as_bytes()), want, "{word}");
        check("https", Some(Scheme::Https));
        check("HTTPS", Some(Scheme::Https));
        check("wss", Some(Scheme::Https));
        check("http", Some(Scheme::Http));
        check("on", None);
        check("https ", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn path_and_query_never_change(target in "/[!-~]{0,40}", port in prop::option::of(any::<u16>())) {
            let https = HttpsPorts { public: None, listeners: &[8443] };
            let url = text(to_https(b"shop.example", port, target.as_bytes(), https));
            let rest = url.strip_prefix("https://shop.example").unwrap();
            let rest = rest.strip_prefix(":8443").unwrap_or(rest);
            prop_assert_eq!(rest, target);
        }
    }
}
