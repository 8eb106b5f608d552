//! Rewrites the upstream's name in responses to the site's: in Location, Content-Location, Refresh
//! and Set-Cookie.

use http::{Method, StatusCode};

use super::settings::Upstream;
use crate::host::{is_within, split_authority};
use crate::message::{Name, RequestHead, ResponseHead};
use crate::policy::redirect::HttpsPorts;
use crate::site::Site;

/// A redirect of the upstream to the page that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendsBack {
    /// To the same page over http: the upstream does not know that the client came over https.
    ToHttp,
    /// To the very URL of the request, without a cookie that could make a difference.
    ToItself,
}

impl SendsBack {
    /// Returns the remedy. `has_tls` says that the upstream is reached over https.
    #[must_use]
    pub const fn hint(self, has_tls: bool) -> &'static str {
        match self {
            Self::ToItself if has_tls => {
                "let the upstream serve this name instead of redirecting to it: upstream_options.host_header names the Host that it gets"
            }
            _ => "let the upstream believe X-Forwarded-Proto: docs/guide/wordpress.md has the lines for WordPress",
        }
    }
}

/// Rewrites the names in a response to an https request. Repeats the port that the client named
/// only if it is one of pintle's.
///
/// Returns [`SendsBack`] if the response is a redirect to the page that was asked for.
pub fn rewrite(
    head: &mut ResponseHead,
    request: &RequestHead,
    site: &Site,
    upstream: &Upstream,
    https: HttpsPorts<'_>,
) -> Option<SendsBack> {
    let touched = [Name::Location, Name::ContentLocation, Name::Refresh, Name::SetCookie];
    if !touched.iter().any(|name| head.fields.has(*name)) {
        return None;
    }
    let mut authority = request.host().to_owned();
    if let Some(port) = https.of_client(request.port()) {
        authority.push(':');
        authority.push_str(itoa::Buffer::new().format(port));
    }
    let names = RewriteNames { request, authority, site, upstream };
    // A cookie, or the time, may make a difference.
    let may_end = |head: &ResponseHead| {
        head.fields.has(Name::SetCookie)
            || head.fields.iter().any(|(_, name, _)| name.eq_ignore_ascii_case(b"Retry-After"))
    };
    let mut back = None;
    for at in 0..head.fields.len() {
        let field = head.fields.list()[at];
        let value = head.fields.value(&field);
        let new = match field.name {
            Name::Location | Name::ContentLocation => names.url(value),
            Name::Refresh => names.refresh(value),
            Name::SetCookie => names.cookie(value),
            _ => None,
        };
        if field.name == Name::Location && !may_end(head) {
            back = names.leads_back(head.status, value, new.as_deref());
        }
        if let Some(new) = new {
            head.fields.replace(at, &new);
        }
    }
    back
}

struct RewriteNames<'a> {
    request: &'a RequestHead,
    /// The host and port by which the client reaches the site.
    authority: String,
    site: &'a Site,
    upstream: &'a Upstream,
}

/// An absolute URL, or one without its scheme.
struct UrlParts<'a> {
    /// `Some(false)` for http, `Some(true)` for https.
    scheme: Option<bool>,
    host: String,
    port: Option<u16>,
    rest: &'a [u8],
}

impl<'a> UrlParts<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let starts = |prefix: &[u8]| text.get(..prefix.len()).is_some_and(|t| t.eq_ignore_ascii_case(prefix));
        let (scheme, at) = if starts(b"http://") {
            (Some(false), 7)
        } else if starts(b"https://") {
            (Some(true), 8)
        } else if starts(b"//") {
            (None, 2)
        } else {
            return None;
        };
        let end =
            text[at..].iter().position(|b| matches!(b, b'/' | b'?' | b'#' | b'\\')).map_or(text.len(), |n| at + n);
        let mut authority = text[at..end].to_vec();
        let split = split_authority(&mut authority).ok()?;
        authority.truncate(split.host_len);
        Some(Self { scheme, host: String::from_utf8(authority).ok()?, port: split.port, rest: &text[end..] })
    }
}

/// Returns `true` for the default ports. They are equal here, since the upstream may not know the
/// client's scheme.
fn is_default(port: Option<u16>) -> bool {
    matches!(port, None | Some(80 | 443))
}

impl RewriteNames<'_> {
    /// Returns a URL with the upstream's name under the site's name, and an http URL of the site
    /// with https.
    fn url(&self, text: &[u8]) -> Option<Vec<u8>> {
        let url = UrlParts::parse(text)?;
        let authority = if self.is_own(&url.host, url.port) {
            &self.authority
        } else if url.scheme == Some(false) && is_default(url.port) && self.is_site(&url.host) {
            if url.host == self.request.host() { &self.authority } else { &url.host }
        } else {
            return None;
        };
        let scheme = if url.scheme.is_some() { "https://" } else { "//" };
        Some([scheme.as_bytes(), authority.as_bytes(), url.rest].concat())
    }

    fn is_own(&self, host: &str, port: Option<u16>) -> bool {
        let mut names = self.upstream.own_names.iter();
        if is_default(port) {
            // An application that does not know the port it is reached on names none.
            return names.any(|(name, _)| &**name == host);
        }
        // A server that receives the client's Host appends the port that it listens on.
        let is_site = self.is_site(host);
        names.any(|(name, own)| (&**name == host || is_site) && port == Some(*own))
    }

    fn is_site(&self, host: &str) -> bool {
        self.site.hosts.iter().any(|h| h.matches(host))
    }

    /// Rewrites a Refresh field: `5; url=...`, quoted or not.
    fn refresh(&self, value: &[u8]) -> Option<Vec<u8>> {
        let at = value.windows(4).position(|w| w.eq_ignore_ascii_case(b"url="))? + 4;
        let quote = value.get(at).copied().filter(|b| matches!(b, b'"' | b'\''));
        let start = at + usize::from(quote.is_some());
        let end = match quote {
            Some(quote) => start + value[start..].iter().position(|b| *b == quote)?,
            None => value.len(),
        };
        let url = self.url(&value[start..end])?;
        Some([&value[..start], &url, &value[end..]].concat())
    }

    /// Rewrites a Set-Cookie field: a `Domain` of the upstream becomes the requested host, and
    /// `Secure` is added.
    fn cookie(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut new = Vec::with_capacity(value.len() + 16);
        let (mut secure, mut changed) = (false, false);
        for (n, part) in value.split(|b| *b == b';').enumerate() {
            let trimmed = part.trim_ascii();
            let (name, argument) = match trimmed.iter().position(|b| *b == b'=') {
                Some(at) if n > 0 => (trimmed[..at].trim_ascii_end(), trimmed[at + 1..].trim_ascii()),
                _ => (trimmed, &b""[..]),
            };
            secure |= n > 0 && name.eq_ignore_ascii_case(b"secure");
            if n > 0 && name.eq_ignore_ascii_case(b"domain") && self.is_own_domain(argument) {
                changed = true;
                // A cookie's domain cannot be an address. Without a domain, the cookie belongs to
                // the host alone.
                if self.request.host().parse::<std::net::IpAddr>().is_err() && !self.request.host().starts_with('[') {
                    new.extend_from_slice(b"; Domain=");
                    new.extend_from_slice(self.request.host().as_bytes());
                }
                continue;
            }
            if n > 0 {
                new.push(b';');
            }
            new.extend_from_slice(part);
        }
        if !secure {
            new.extend_from_slice(b"; Secure");
        }
        (changed || !secure).then_some(new)
    }

    /// Returns `true` for a name of the upstream, or a domain above it.
    fn is_own_domain(&self, domain: &[u8]) -> bool {
        let domain = domain.strip_prefix(b".").unwrap_or(domain).to_ascii_lowercase();
        let Ok(domain) = String::from_utf8(domain) else { return false };
        let mut own = self.upstream.own_names.iter();
        !domain.is_empty() && !self.is_site(&domain) && own.any(|(name, _)| is_within(name, &domain))
    }

    /// Compares a redirect with the requested page: as the upstream wrote it, and as it was rewritten, if it was.
    fn leads_back(&self, status: StatusCode, before: &[u8], after: Option<&[u8]>) -> Option<SendsBack> {
        let is_safe = matches!(self.request.method, Method::GET | Method::HEAD);
        if !status.is_redirection() || status == StatusCode::NOT_MODIFIED || !is_safe {
            return None;
        }
        let leads_here = match UrlParts::parse(after.unwrap_or(before)) {
            Some(url) => {
                let is_here = url.host == self.request.host() && self.is_port_of_request(url.port);
                url.scheme != Some(false) && is_here && self.is_target(url.rest)
            }
            // A path, which begins at the requested host.
            None => before.starts_with(b"/") && self.is_target(before),
        };
        let to_http = UrlParts::parse(before).is_some_and(|url| url.scheme == Some(false));
        leads_here.then_some(if to_http { SendsBack::ToHttp } else { SendsBack::ToItself })
    }

    /// Returns `true` if a URL with this port leads to the port that the client asked for.
    fn is_port_of_request(&self, port: Option<u16>) -> bool {
        port.unwrap_or(443) == self.request.port().unwrap_or(443)
    }

    /// Compares path and query with those of the request. Clients do not send a fragment.
    fn is_target(&self, rest: &[u8]) -> bool {
        let rest = rest.split(|b| *b == b'#').next().unwrap_or_default();
        let target = self.request.target_bytes();
        match rest.first() {
            Some(b'/') => rest == target,
            _ => target.strip_prefix(b"/") == Some(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::upstream::HostHeader;
    use crate::upstream::dns::Addresses;
    use proptest::prelude::*;
    use std::time::Duration;

    fn upstream() -> Upstream {
        Upstream {
            label: "https://example.wordpress.com".into(),
            addresses: Addresses::Fixed([].into()),
            tls: None,
            http2_only: false,
            host_header: HostHeader::Fixed("example.wordpress.com".into()),
            own_names: vec![("example.wordpress.com".into(), 443), ("127.0.0.1".into(), 8080)],
            connect_timeout: Duration::ZERO,
            response_timeout: Duration::ZERO,
            total_timeout: None,
            health: crate::upstream::Health::default(),
        }
    }

    fn site() -> Site {
        let hosts = ["blog.example.com", "www.example.com"].map(|h| HostPattern::parse(h).unwrap()).to_vec();
        Site { hosts, ..Site::default() }
    }

    fn asked(authority: &str, target: &str) -> RequestHead {
        let mut request = RequestHead::default();
        request.set_target(target.as_bytes());
        request.set_authority(authority.as_bytes()).unwrap();
        request
    }

    fn rewritten(authority: &str, name: &str, value: &str) -> Result<String, SendsBack> {
        rewritten_at("/here", authority, name, value)
    }

    fn rewritten_at(target: &str, authority: &str, name: &str, value: &str) -> Result<String, SendsBack> {
        let mut head = ResponseHead { status: StatusCode::FOUND, ..ResponseHead::default() };
        head.fields.push(name.as_bytes(), value.as_bytes());
        let https = HttpsPorts { public: None, listeners: &[8443] };
        if let Some(back) = rewrite(&mut head, &asked(authority, target), &site(), &upstream(), https) {
            return Err(back);
        }
        Ok(String::from_utf8(head.fields.value(&head.fields.list()[0]).to_vec()).unwrap())
    }

    #[test]
    fn locations() {
        let check = |value: &str, want: &str| {
            assert_eq!(rewritten("blog.example.com:8443", "Location", value).as_deref(), Ok(want), "{value}");
        };
        check("https://example.wordpress.com/a?b#c", "https://blog.example.com:8443/a?b#c");
        check("http://example.wordpress.com/a", "https://blog.example.com:8443/a");
        check("HTTP://Example.WordPress.com", "https://blog.example.com:8443");
        check("https://example.wordpress.com:443/a", "https://blog.example.com:8443/a");
        check("http://example.wordpress.com?q", "https://blog.example.com:8443?q");
        check("//example.wordpress.com/a", "//blog.example.com:8443/a");
        check("http://127.0.0.1:8080/a", "https://blog.example.com:8443/a");
        check("http://127.0.0.1:9090/a", "http://127.0.0.1:9090/a");
        // The upstream has a port, which it does not name.
        check("http://127.0.0.1/a", "https://blog.example.com:8443/a");
        check("https://127.0.0.1/a", "https://blog.example.com:8443/a");
        check("https://127.0.0.1:443", "https://blog.example.com:8443");
        check("//127.0.0.1/a", "//blog.example.com:8443/a");
        check("https://127.0.0.2/a", "https://127.0.0.2/a");
        check("http://blog.example.com:8080/a", "https://blog.example.com:8443/a");
        check("http://blog.example.com:9090/a", "http://blog.example.com:9090/a");
        check("http://blog.example.com/a", "https://blog.example.com:8443/a");
        check("http://www.example.com/a", "https://www.example.com/a");
        check("https://www.example.com/a", "https://www.example.com/a");
        check("http://other.example/a", "http://other.example/a");
        check("https://example.wordpress.com.evil.example/", "https://example.wordpress.com.evil.example/");
        check("https://example.wordpress.com@evil.example/", "https://example.wordpress.com@evil.example/");
        check("https://example.wordpress.com\\@evil.example/", "https://blog.example.com:8443\\@evil.example/");
        check("/relative?x=http://example.wordpress.com/", "/relative?x=http://example.wordpress.com/");
        check("", "");
    }

    #[test]
    fn ports_that_a_client_makes_up_are_not_repeated() {
        let check = |authority: &str, name: &str, value: &str, want: &str| {
            assert_eq!(rewritten(authority, name, value).as_deref(), Ok(want), "{authority} {name}");
        };
        for (authority, want) in
            [("blog.example.com:1", ""), ("blog.example.com:443", ""), ("blog.example.com:8443", ":8443")]
        {
            let want = format!("https://blog.example.com{want}/a");
            check(authority, "Location", "https://example.wordpress.com/a", &want);
            check(authority, "Location", "http://blog.example.com/a", &want);
            check(authority, "Content-Location", "https://example.wordpress.com/a", &want);
            check(authority, "Refresh", "0;url=http://example.wordpress.com/a", &format!("0;url={want}"));
        }
    }

    #[test]
    fn refresh() {
        let check = |value: &str, want: &str| {
            assert_eq!(rewritten("blog.example.com", "Refresh", value).as_deref(), Ok(want), "{value}");
        };
        check("0;url=http://example.wordpress.com/x", "0;url=https://blog.example.com/x");
        check("5; URL='https://example.wordpress.com/x'", "5; URL='https://blog.example.com/x'");
        check("5; url=\"https://example.wordpress.com/x", "5; url=\"https://example.wordpress.com/x");
        check("5", "5");
    }

    #[test]
    fn cookies() {
        let check = |value: &str, want: &str| {
            assert_eq!(rewritten("blog.example.com:8443", "Set-Cookie", value).as_deref(), Ok(want), "{value}");
        };
        check("a=b; Path=/; Secure", "a=b; Path=/; Secure");
        check("a=b; Path=/", "a=b; Path=/; Secure");
        check("a=secure", "a=secure; Secure");
        check("a=b; domain=example.wordpress.com; HttpOnly; Secure", "a=b; Domain=blog.example.com; HttpOnly; Secure");
        check("a=b; Domain=.wordpress.com; SameSite=Lax", "a=b; Domain=blog.example.com; SameSite=Lax; Secure");
        check("a=b; Domain=wordpress.org; secure", "a=b; Domain=wordpress.org; secure");
        check("a=b; Domain=press.com; Secure", "a=b; Domain=press.com; Secure");
        check("a=b; Domain=blog.example.com; Secure", "a=b; Domain=blog.example.com; Secure");
        check("a=\"x; Partitioned\"; Secure", "a=\"x; Partitioned\"; Secure");
        assert_eq!(
            rewritten("[::1]", "Set-Cookie", "a=b; Domain=example.wordpress.com; Secure").as_deref(),
            Ok("a=b; Secure")
        );
    }

    #[test]
    fn redirect_loops() {
        let back = |value: &str| rewritten("blog.example.com", "Location", value);
        assert_eq!(back("http://blog.example.com/here"), Err(SendsBack::ToHttp));
        assert_eq!(back("http://example.wordpress.com/here"), Err(SendsBack::ToHttp));
        for itself in [
            "https://blog.example.com/here",
            "https://blog.example.com:443/here",
            "https://Blog.Example.com/here#top",
            "https://example.wordpress.com/here",
            "//blog.example.com/here",
            "/here",
            "/here#top",
        ] {
            assert_eq!(back(itself), Err(SendsBack::ToItself), "{itself}");
        }
        for other in [
            "http://blog.example.com/there",
            "https://blog.example.com/here?again",
            "https://blog.example.com/here/",
            "https://blog.example.com:8443/here",
            "https://www.example.com/here",
            "https://other.example/here",
            "/there",
            "here",
            "?here",
            "",
        ] {
            assert!(back(other).is_ok(), "{other}");
        }
        let root = |value: &str| rewritten_at("/", "blog.example.com:8443", "Location", value);
        assert_eq!(root("https://blog.example.com:8443"), Err(SendsBack::ToItself));
        assert_eq!(root("http://example.wordpress.com"), Err(SendsBack::ToHttp));
        assert!(root("https://blog.example.com/").is_ok(), "another port");
        let query = |value: &str| rewritten_at("/?a=b", "blog.example.com", "Location", value);
        assert_eq!(query("https://blog.example.com?a=b"), Err(SendsBack::ToItself));
        assert!(query("https://blog.example.com/?a=c").is_ok());
    }

    proptest! {
        #[test]
        fn any_value_gives_a_valid_one(value in "[ -~]{0,60}", name in prop::sample::select(&["Location", "Refresh", "Set-Cookie"][..])) {
            if let Ok(new) = rewritten("blog.example.com", name, &value) {
                prop_assert!(new.bytes().all(|b| (b' '..=b'~').contains(&b)));
            }
        }
    }
}
