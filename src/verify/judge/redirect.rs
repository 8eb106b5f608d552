//! Plain HTTP: the redirect, and fields that it must not send.

use http::StatusCode;

use crate::message::Name;
use crate::verify::client::{VisitFailure, VisitResponse};
use crate::verify::finding::{Group, Level, VerifyFinding, excerpt};
use crate::verify::target::Url;

/// The most characters of a Location that are shown.
const SHOWN: usize = 120;

/// The result of a request by plain HTTP.
#[derive(Debug)]
pub enum Plain {
    /// A response.
    Answered(VisitResponse),
    /// Nothing listens there.
    Refused,
    /// Any other failure.
    Failed(VisitFailure),
}

/// The URLs before and after the redirect.
#[derive(Debug)]
pub struct RedirectUrls<'a> {
    /// The http URL.
    pub plain: &'a Url,
    /// The https URL.
    pub secure: &'a Url,
    /// `true` if the redirect must name the port of the https URL. `false` if the http port was
    /// guessed for an https port other than 443.
    pub port_is_known: bool,
}

/// `true` if the redirect suits the preload list; `None` if unknown.
pub type Leads = Option<bool>;

/// Judges plain HTTP; returns the rows, and `true` if the first step leads to https on the same
/// host.
#[must_use]
pub fn judge(asked: &RedirectUrls<'_>, plain: &Plain) -> (Vec<VerifyFinding>, Leads) {
    let note = |message: String| VerifyFinding::new(Group::Redirect, Level::Note, "redirect-not-checked", message);
    match plain {
        Plain::Answered(response) => {
            let mut findings = Vec::new();
            let leads = judge_location(asked, response, &mut findings);
            judge_fields(response, &mut findings);
            (findings, Some(leads))
        }
        // hstspreload.org: a server without port 80 need not redirect.
        Plain::Refused => {
            let message = format!("not checked: nothing listens at {}", asked.plain);
            (vec![note(message).hint("--connect-http ADDR names the address of plain HTTP")], None)
        }
        Plain::Failed(failure) => {
            let message = format!("not checked: {}: {failure}", asked.plain);
            let finding = VerifyFinding::new(Group::Redirect, Level::Warning, "redirect-not-checked", message);
            (vec![finding.hint("--connect-http ADDR names the address of plain HTTP")], None)
        }
    }
}

/// Judges status and Location; returns `true` if they lead to https on the same host.
fn judge_location(asked: &RedirectUrls<'_>, response: &VisitResponse, findings: &mut Vec<VerifyFinding>) -> bool {
    let (status, plain, secure) = (response.head.status, asked.plain, asked.secure);
    let location = response.head.fields.get(Name::Location);
    let (Some(location), true) = (location, is_redirect(status)) else {
        // RFC 6797 section 7.2: a redirect, or a refusal.
        let level = if status.is_client_error() || status.is_server_error() { Level::Warning } else { Level::Error };
        let message = format!("{plain} answers {} without a redirect", status.as_u16());
        let hint = "answer 301 to the same URL under https (RFC 6797 section 7.2)";
        findings.push(row(level, "redirect-missing", message, hint));
        return false;
    };
    let shown = excerpt(location, SHOWN);
    let Some(target) = std::str::from_utf8(location).ok().and_then(|l| plain.join(l)) else {
        let message = format!("{plain} redirects to {shown}, which is not an http or https URL");
        findings.push(row(Level::Error, "redirect-unreadable", message, ""));
        return false;
    };
    let wrong = judge_target(asked, &target, &shown);
    let is_right = wrong.is_empty();
    findings.extend(wrong);
    if !matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT) {
        let message = format!("{plain} answers {}: a temporary redirect", status.as_u16());
        let hint = "answer 301 or 308, which clients and search engines remember";
        findings.push(row(Level::Warning, "redirect-temporary", message, hint));
    }
    if is_right {
        let message = format!("{plain} answers {} to {shown}", status.as_u16());
        findings.push(row(Level::Ok, "redirect-ok", message, ""));
    }
    target.scheme == secure.scheme && target.host == secure.host
}

fn row(level: Level, check: &'static str, message: String, hint: &str) -> VerifyFinding {
    let finding = VerifyFinding::new(Group::Redirect, level, check, message);
    if hint.is_empty() { finding } else { finding.hint(hint) }
}

/// Compares the target of a redirect with the https URL.
fn judge_target(asked: &RedirectUrls<'_>, target: &Url, shown: &str) -> Vec<VerifyFinding> {
    let (plain, secure) = (asked.plain, asked.secure);
    let error = |check, what: &str, hint| row(Level::Error, check, format!("{plain} redirects to {what}"), hint);
    if target.scheme != secure.scheme {
        let hint = "the first redirect must lead to https";
        return vec![error("redirect-not-https", &format!("{shown}: not https"), hint)];
    }
    if target.host != secure.host {
        let hint = "redirect to https on the same host first, so that clients see its HSTS";
        return vec![error("redirect-other-host", &format!("another host: {shown}"), hint)];
    }
    let mut wrong = Vec::new();
    if target.port != secure.port {
        let level = if asked.port_is_known { Level::Error } else { Level::Note };
        let message = format!("{plain} redirects to another port: {shown}");
        wrong.push(row(level, "redirect-other-port", message, ""));
    }
    if target.target != secure.target {
        let hint = "keep path and query unchanged";
        wrong.push(error("redirect-path-lost", &format!("another page: {shown}"), hint));
    }
    wrong
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// RFC 6797 section 7.2 forbids it, RFC 7469 section 2.2.2 advises against it; clients ignore the
/// field.
fn judge_fields(response: &VisitResponse, findings: &mut Vec<VerifyFinding>) {
    let mut tell = |check, names: &str, section: &str| {
        let message = format!("{names} on plain HTTP");
        let finding = VerifyFinding::new(Group::Redirect, Level::Error, check, message);
        findings.push(finding.hint(format!("send it over TLS only ({section})")));
    };
    if response.head.fields.has(Name::StrictTransportSecurity) {
        tell("sts-on-plain-http", "Strict-Transport-Security", "RFC 6797 section 7.2");
    }
    for (name, field) in
        [(Name::PublicKeyPins, "Public-Key-Pins"), (Name::PublicKeyPinsReportOnly, "Public-Key-Pins-Report-Only")]
    {
        if response.head.fields.has(name) {
            tell("pkp-on-plain-http", field, "RFC 7469 section 2.2.2");
        }
    }
}

/// Judges an https page that redirects to plain HTTP.
#[must_use]
pub fn judge_downgrade(url: &Url, target: &Url) -> Option<VerifyFinding> {
    (target.scheme != url.scheme).then(|| {
        let message = format!("{url} redirects to {target}: away from TLS");
        VerifyFinding::new(Group::Redirect, Level::Error, "https-downgrade", message)
    })
}

/// Returns the target of a redirect.
#[must_use]
pub fn leads_to(url: &Url, response: &VisitResponse) -> Option<Url> {
    let location = response.head.fields.get(Name::Location).filter(|_| is_redirect(response.head.status))?;
    url.join(std::str::from_utf8(location).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&str, &str)]) -> VisitResponse {
        let mut response = VisitResponse::default();
        response.head.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.head.fields.push(name.as_bytes(), value.as_bytes());
        }
        response
    }

    #[track_caller]
    fn check(status: u16, fields: &[(&str, &str)], want: &[(&str, Level)], leads: bool) {
        let (plain, secure): (Url, Url) =
            ("http://a.example/x?y=%20z".parse().unwrap(), "https://a.example/x?y=%20z".parse().unwrap());
        let asked = RedirectUrls { plain: &plain, secure: &secure, port_is_known: true };
        let (findings, got) = judge(&asked, &Plain::Answered(response(status, fields)));
        assert_eq!(findings.iter().map(|f| (f.check, f.level)).collect::<Vec<_>>(), want, "{status} {fields:?}");
        assert_eq!(got, Some(leads));
    }

    #[test]
    fn locations() {
        use Level::{Error, Ok, Warning};
        let to = |status, location: &str, want: &[(&str, Level)], leads| {
            check(status, &[("Location", location)], want, leads);
        };
        to(301, "https://a.example/x?y=%20z", &[("redirect-ok", Ok)], true);
        to(308, "https://A.example:443/x?y=%20z#top", &[("redirect-ok", Ok)], true);
        to(302, "https://a.example/x?y=%20z", &[("redirect-temporary", Warning), ("redirect-ok", Ok)], true);
        to(307, "//a.example/x?y=%20z", &[("redirect-not-https", Error), ("redirect-temporary", Warning)], false);
        to(301, "/x?y=%20z", &[("redirect-not-https", Error)], false);
        to(301, "http://www.a.example/", &[("redirect-not-https", Error)], false);
        to(301, "https://www.a.example/x?y=%20z", &[("redirect-other-host", Error)], false);
        to(301, "https://a.example:8443/x?y=%20z", &[("redirect-other-port", Error)], true);
        to(301, "https://a.example/", &[("redirect-path-lost", Error)], true);
        to(301, "https://a.example/x?y= z", &[("redirect-unreadable", Error)], false);
        to(301, "javascript:1", &[("redirect-unreadable", Error)], false);
        to(200, "https://a.example/x?y=%20z", &[("redirect-missing", Error)], false);
        check(301, &[], &[("redirect-missing", Error)], false);
        check(404, &[], &[("redirect-missing", Warning)], false);
        check(200, &[], &[("redirect-missing", Error)], false);
    }

    #[test]
    fn policies_on_plain_http() {
        let location = ("Location", "https://a.example/x?y=%20z");
        check(
            301,
            &[location, ("strict-transport-security", "max-age=5")],
            &[("redirect-ok", Level::Ok), ("sts-on-plain-http", Level::Error)],
            true,
        );
        check(
            301,
            &[location, ("Public-Key-Pins", ""), ("Public-Key-Pins-Report-Only", "")],
            &[("redirect-ok", Level::Ok), ("pkp-on-plain-http", Level::Error), ("pkp-on-plain-http", Level::Error)],
            true,
        );
    }

    #[test]
    fn downgrades() {
        let url: Url = "https://a.example/".parse().unwrap();
        let target = |status, location| leads_to(&url, &response(status, &[("Location", location)]));
        let to = |location| judge_downgrade(&url, &target(302, location)?).map(|f| f.check);
        assert_eq!(to("http://a.example/"), Some("https-downgrade"));
        assert_eq!(to("https://b.example/"), None);
        assert_eq!(to("/login"), None);
        assert_eq!(target(200, "http://a.example/"), None);
    }
}
