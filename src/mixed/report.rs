//! Reports of browsers about http references: those of `report-uri` (CSP, section 5.3) and of the Reporting API.
//! Anybody can send them.

use serde::Deserialize;

/// The most violations that are taken from one message.
const VIOLATIONS_MAX: usize = 50;
/// The longest URL that is kept, in bytes. Longer ones are cut.
const URL_MAX: usize = 512;
/// The longest name of a directive.
const DIRECTIVE_MAX: usize = 40;

/// An http reference of a page, as a browser reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Violation {
    /// The page, without its query.
    pub page: Box<str>,
    /// The reference, without its query.
    pub blocked: Box<str>,
    /// The directive that it breaks, such as `img-src`: it tells the kind of the reference.
    pub directive: Box<str>,
}

/// The message of `report-uri`.
#[derive(Deserialize)]
struct ByUri {
    #[serde(rename = "csp-report")]
    report: ByUriBody,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ByUriBody {
    document_uri: String,
    blocked_uri: String,
    #[serde(default)]
    effective_directive: Option<String>,
    #[serde(default)]
    violated_directive: Option<String>,
}

/// One report of the Reporting API.
#[derive(Deserialize)]
struct ByApi {
    #[serde(rename = "type")]
    kind: String,
    /// Read later: a body of another kind has other members.
    #[serde(default)]
    body: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByApiBody {
    #[serde(rename = "documentURL")]
    document_url: String,
    #[serde(rename = "blockedURL")]
    blocked_url: Option<String>,
    #[serde(default)]
    effective_directive: Option<String>,
}

/// Reads a message. `None` if it is no report; empty if it reports no http reference.
#[must_use]
pub fn read(message: &[u8]) -> Option<Vec<Violation>> {
    if let Ok(ByUri { report }) = serde_json::from_slice(message) {
        let directive = report.effective_directive.or(report.violated_directive).unwrap_or_default();
        return Some(violation(&report.document_uri, &report.blocked_uri, &directive).into_iter().collect());
    }
    let reports: Vec<ByApi> = match serde_json::from_slice(message) {
        Ok(reports) => reports,
        // One report without the list around it.
        Err(_) => vec![serde_json::from_slice(message).ok()?],
    };
    let bodies = reports
        .into_iter()
        .filter(|report| report.kind == "csp-violation")
        .filter_map(|report| serde_json::from_value::<ByApiBody>(report.body).ok());
    let violations = bodies.filter_map(|body| {
        let directive = body.effective_directive.unwrap_or_default();
        violation(&body.document_url, body.blocked_url.as_deref()?, &directive)
    });
    Some(violations.take(VIOLATIONS_MAX).collect())
}

fn violation(page: &str, blocked: &str, directive: &str) -> Option<Violation> {
    let is_scheme = |url: &str, scheme: &str| url.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    let is_http = is_scheme(blocked, "http://") || is_scheme(blocked, "ws://");
    if !is_http || !is_scheme(page, "https://") {
        return None;
    }
    // Some browsers send the directive with its sources.
    let directive = directive.split(' ').next().unwrap_or_default();
    let is_name = directive.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') && directive.len() <= DIRECTIVE_MAX;
    Some(Violation {
        page: url(page)?,
        blocked: url(blocked)?,
        directive: if is_name { directive.into() } else { "".into() },
    })
}

/// Returns a URL without query and fragment, in printable ASCII.
fn url(text: &str) -> Option<Box<str>> {
    let text = text.split(['?', '#']).next()?;
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    Some(text.get(..URL_MAX).unwrap_or(text).into())
}

/// Returns the host of a URL, in lower case and without its port.
#[must_use]
pub fn host_of(url: &str) -> Option<String> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let mut raw = authority.as_bytes().to_vec();
    let end = crate::host::split_authority(&mut raw).ok()?;
    raw.truncate(end.host_len);
    String::from_utf8(raw).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let one = |page: &str, blocked: &str, directive: &str| {
            Some(vec![Violation { page: page.into(), blocked: blocked.into(), directive: directive.into() }])
        };
        let check =
            |message: &str, want: Option<Vec<Violation>>| assert_eq!(read(message.as_bytes()), want, "{message}");
        check(
            r#"{"csp-report":{"document-uri":"https://a.example/b?c=d","referrer":"","violated-directive":"img-src https:","blocked-uri":"http://x.example/y.png?z#q","status-code":200}}"#,
            one("https://a.example/b", "http://x.example/y.png", "img-src"),
        );
        check(
            r#"[{"age":1,"type":"csp-violation","url":"https://a.example/","user_agent":"x","body":{"documentURL":"https://a.example/","blockedURL":"http://x.example/y.js","effectiveDirective":"script-src-elem","disposition":"report"}},{"type":"deprecation","body":{"id":"x"}}]"#,
            one("https://a.example/", "http://x.example/y.js", "script-src-elem"),
        );
        check(
            r#"[{"type":"csp-violation","body":{"documentURL":"https://a.example/","blockedURL":"http://x.example/y.js","effectiveDirective":"script-src-elem"}}]"#,
            one("https://a.example/", "http://x.example/y.js", "script-src-elem"),
        );
        check(
            r#"{"type":"csp-violation","body":{"documentURL":"https://a.example/","blockedURL":"ws://x.example/"}}"#,
            one("https://a.example/", "ws://x.example/", ""),
        );
        let none = Some(Vec::new());
        check(r#"{"csp-report":{"document-uri":"https://a.example/","blocked-uri":"inline"}}"#, none.clone());
        check(r#"{"csp-report":{"document-uri":"http://a.example/","blocked-uri":"http://b/"}}"#, none.clone());
        check(r#"{"csp-report":{"document-uri":"https://a.example/\n","blocked-uri":"http://b/"}}"#, none.clone());
        check(r#"[{"type":"csp-violation"}]"#, none.clone());
        check("[]", none);
        for wrong in ["", "{}", "x", "[1]", r#"{"csp-report":{}}"#, &"[".repeat(10_000)] {
            check(wrong, None);
        }
    }

    #[test]
    fn long_urls_are_cut() {
        let message = format!(
            r#"{{"csp-report":{{"document-uri":"https://a.example/{0}","blocked-uri":"http://b/{0}","effective-directive":"{0}"}}}}"#,
            "x".repeat(5000)
        );
        let found = read(message.as_bytes()).unwrap().remove(0);
        assert_eq!((found.page.len(), found.blocked.len(), &*found.directive), (URL_MAX, URL_MAX, ""));
    }

    #[test]
    fn hosts() {
        for (url, want) in [
            ("https://A.example:8443/b", Some("a.example")),
            ("http://a.example", Some("a.example")),
            ("http://[::1]/", Some("[::1]")),
            ("http://a@b/", None),
            ("a.example", None),
        ] {
            assert_eq!(host_of(url).as_deref(), want, "{url}");
        }
    }
}
