//! Protection of the pages against other origins: the headers of each answer, and the signs of a forged request.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::host::bare;

/// Nothing from elsewhere, nothing inline, and no frame around a page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; \
     connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The header with the token of a session, for changes that a script sends.
pub const CSRF_HEADER: &str = "pintle-csrf";
/// The cookie of a session over TLS: the prefix binds it to this host, `Secure` and `Path=/`.
const SECURE_COOKIE: &str = "__Host-pintle";
/// The cookie of a session without TLS, on this host.
const COOKIE: &str = "pintle";

/// `true` if a method changes nothing.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Adds the headers that keep other origins out of the answers. (With `no-referrer`, browsers would send `Origin: null` with
/// our own forms.)
pub fn protect(headers: &mut HeaderMap) {
    let values = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in values {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The single value of a header, as text; `None` if it is missing, or there are several.
fn only(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (first, None) = (values.next()?, values.next()) else { return None };
    first.to_str().ok()
}

/// `true` if the field `Host` names this machine: a page of another name that leads here does not (DNS rebinding).
#[must_use]
pub fn names_this_machine(headers: &HeaderMap) -> bool {
    names(headers, |name| {
        name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// `true` if the field `Host` has a name or an address that fits.
#[must_use]
pub fn names(headers: &HeaderMap, fits: impl FnOnce(&str) -> bool) -> bool {
    let host = only(headers, header::HOST).unwrap_or_default();
    host.parse::<Authority>().is_ok_and(|authority| fits(bare(authority.host())))
}

/// The reason why a browser's request is not from a page of ours; `None` if nothing speaks against it.
#[must_use]
pub fn forgery(method: &Method, headers: &HeaderMap) -> Option<&'static str> {
    let is_safe = is_safe(method);
    let site = headers.contains_key("sec-fetch-site").then(|| only(headers, "sec-fetch-site").unwrap_or_default());
    let is_link =
        only(headers, "sec-fetch-mode") == Some("navigate") && only(headers, "sec-fetch-dest") == Some("document");
    match site {
        None | Some("same-origin" | "none") => {}
        Some(_) if is_safe && is_link => {}
        Some(_) => return Some("a page of another origin has made this request (Sec-Fetch-Site)"),
    }
    if is_safe || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let origin = only(headers, header::ORIGIN).unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let is_own = authority
        .is_some_and(|authority| only(headers, header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(authority)));
    (!is_own).then_some("a page of another origin has made this request (Origin)")
}

/// `true` if a browser follows a link of another site: it keeps the cookie of the session to itself then (`SameSite=Strict`).
#[must_use]
pub fn is_followed_link(method: &Method, headers: &HeaderMap) -> bool {
    is_safe(method) && only(headers, "sec-fetch-site") == Some("cross-site")
}

/// The values of the session cookie, in the order of the request.
pub fn cookies(headers: &HeaderMap, is_secure: bool) -> impl Iterator<Item = &str> {
    let name = if is_secure { SECURE_COOKIE } else { COOKIE };
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(';')).filter_map(move |pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// The field `Set-Cookie` that begins a session; with `None`, ends it.
#[must_use]
pub fn set_cookie(id: Option<&str>, is_secure: bool) -> String {
    let (name, secure) = if is_secure { (SECURE_COOKIE, "; Secure") } else { (COOKIE, "") };
    let end = if id.is_some() { "" } else { "; Max-Age=0" };
    format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}{end}", id.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| _ = headers.append(name, value));
        headers
    }

    #[test]
    fn hosts_that_name_this_machine() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:9180"] {
            assert!(names_this_machine(&headers(&[("host", host)])), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.0.2.1", "x@localhost/"]
        {
            assert!(!names_this_machine(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_this_machine(&headers(&[])));
        assert!(!names_this_machine(&headers(&[("host", "localhost"), ("host", "evil.example")])));
    }

    #[test]
    fn signs_of_a_forged_request() {
        let host = ("host", "127.0.0.1:9180");
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let check = |method: &Method, fields: &[(&'static str, &'static str)], is_ours: bool| {
            let fields = [&[host], fields].concat();
            assert_eq!(forgery(method, &headers(&fields)).is_none(), is_ours, "{method} {fields:?}");
        };
        for method in [Method::GET, Method::POST] {
            check(&method, &[], true);
            check(&method, &[("sec-fetch-site", "same-origin")], true);
            check(&method, &[("sec-fetch-site", "none")], true);
            for site in ["cross-site", "same-site", "", "nonsense"] {
                check(&method, &[("sec-fetch-site", site)], false);
                check(&method, &[&[("sec-fetch-site", site)][..], &link].concat(), method == Method::GET);
            }
        }
        check(&Method::GET, &[("sec-fetch-site", "cross-site"), link[0], ("sec-fetch-dest", "iframe")], false);
        check(&Method::POST, &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")], false);
        check(&Method::POST, &[("origin", "http://127.0.0.1:9180")], true);
        check(&Method::POST, &[("origin", "https://127.0.0.1:9180")], true);
        for origin in [
            "null",
            "",
            "http://127.0.0.1",
            "http://127.0.0.1:6666",
            "http://evil.example",
            "http://127.0.0.1:9180.evil.example",
        ] {
            check(&Method::POST, &[("origin", origin)], false);
        }
        check(&Method::POST, &[("origin", "http://127.0.0.1:9180"), ("origin", "http://evil.example")], false);
    }

    #[test]
    fn cookies_of_sessions() {
        let given =
            headers(&[("cookie", "a=b; pintle=one;__Host-pintle=two"), ("cookie", "pintle=three; pintlex=four")]);
        assert_eq!(cookies(&given, false).collect::<Vec<_>>(), ["one", "three"]);
        assert_eq!(cookies(&given, true).collect::<Vec<_>>(), ["two"]);
        assert_eq!(set_cookie(Some("x"), false), "pintle=x; Path=/; HttpOnly; SameSite=Strict");
        assert_eq!(set_cookie(Some("x"), true), "__Host-pintle=x; Path=/; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(set_cookie(None, false), "pintle=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
    }
}
