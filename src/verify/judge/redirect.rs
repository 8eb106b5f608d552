//! Plain HTTP: where it leads, and what it must not say.

use http::StatusCode;

use crate::message::Name;
use crate::verify::client::{Failure, Response};
use crate::verify::finding::{Finding, Group, Level, excerpt};
use crate::verify::target::Url;

/// Characters of a Location that are shown.
const SHOWN: usize = 120;

/// What came of asking by plain HTTP.
#[derive(Debug)]
pub enum Plain {
    /// A response.
    Answered(Response),
    /// Nobody listens.
    Refused,
    /// Something else.
    Failed(Failure),
}

/// Where plain HTTP was asked for, and where it should lead.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The http URL.
    pub plain: &'a Url,
    /// The https URL.
    pub secure: &'a Url,
    /// Whether the https URL's port is the one that a redirect has to name: not so where the http port was guessed for
    /// an https port other than 443.
    pub port_is_known: bool,
}

/// How the redirect does, for the preload list: `None` where nobody could tell.
pub type Leads = Option<bool>;

/// The rows, and whether the first step leads to https on the same host.
#[must_use]
pub fn judge(asked: &Asked<'_>, plain: &Plain) -> (Vec<Finding>, Leads) {
    let note = |message: String| Finding::new(Group::Redirect, Level::Note, "redirect-not-checked", message);
    match plain {
        Plain::Answered(response) => {
            let mut findings = Vec::new();
            let leads = judge_location(asked, response, &mut findings);
            judge_fields(response, &mut findings);
            (findings, Some(leads))
        }
        // hstspreload.org: whoever does not listen on port 80 need not redirect.
        Plain::Refused => {
            let message = format!("not checked: nobody listens at {}", asked.plain);
            (vec![note(message).hint("--connect-http ADDR says where plain HTTP is")], None)
        }
        Plain::Failed(failure) => {
            let message = format!("not checked: {}: {failure}", asked.plain);
            let finding = Finding::new(Group::Redirect, Level::Warning, "redirect-not-checked", message);
            (vec![finding.hint("--connect-http ADDR says where plain HTTP is")], None)
        }
    }
}

fn judge_location(asked: &Asked<'_>, response: &Response, findings: &mut Vec<Finding>) -> bool {
    let mut tell = |level, check, message: String, hint: &str| {
        let finding = Finding::new(Group::Redirect, level, check, message);
        findings.push(if hint.is_empty() { finding } else { finding.hint(hint) });
    };
    let (status, plain, secure) = (response.head.status, asked.plain, asked.secure);
    let location = response.head.fields.get(Name::Location);
    let (Some(location), true) = (location, is_redirect(status)) else {
        // RFC 6797 section 7.2: a redirect, or no answer to speak of.
        let level = if status.is_client_error() || status.is_server_error() { Level::Warning } else { Level::Error };
        let message = format!("{plain} answers {}, and does not redirect", status.as_u16());
        tell(level, "redirect-missing", message, "answer 301 to the same URL under https (RFC 6797 section 7.2)");
        return false;
    };
    let shown = excerpt(location, SHOWN);
    let target = std::str::from_utf8(location).ok().and_then(|l| plain.join(l));
    let Some(target) = target else {
        tell(
            Level::Error,
            "redirect-unreadable",
            format!("{plain} redirects to what is no URL of the web: {shown}"),
            "",
        );
        return false;
    };
    let mut right = true;
    let mut fault = |level, check, message: String, hint: &str| {
        right = false;
        tell(level, check, message, hint);
    };
    if target.scheme != secure.scheme {
        let hint = "the first redirect has to lead to https, before any other";
        fault(Level::Error, "redirect-not-https", format!("{plain} redirects to {shown}: not https"), hint);
    } else if target.host != secure.host {
        let hint = "redirect to https on the same host first, so that its HSTS is seen";
        fault(Level::Error, "redirect-other-host", format!("{plain} redirects to another host: {shown}"), hint);
    } else {
        if target.port != secure.port {
            let level = if asked.port_is_known { Level::Error } else { Level::Note };
            fault(level, "redirect-other-port", format!("{plain} redirects to another port: {shown}"), "");
        }
        if target.target != secure.target {
            let hint = "keep path and query, to the letter";
            fault(Level::Error, "redirect-path-lost", format!("{plain} redirects to another page: {shown}"), hint);
        }
    }
    let same_host = target.scheme == secure.scheme && target.host == secure.host;
    let permanent = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
    if !permanent {
        let message = format!("{plain} answers {}: a redirect for this once", status.as_u16());
        tell(
            Level::Warning,
            "redirect-temporary",
            message,
            "answer 301 or 308, which clients and search engines remember",
        );
    }
    if right {
        tell(Level::Ok, "redirect-ok", format!("{plain} answers {} to {shown}", status.as_u16()), "");
    }
    same_host
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// RFC 6797 section 7.2 forbids it, RFC 7469 section 2.2.2 advises against it, and no client minds the field.
fn judge_fields(response: &Response, findings: &mut Vec<Finding>) {
    let mut tell = |check, names: &str, section: &str| {
        let message = format!("{names} on plain HTTP");
        let finding = Finding::new(Group::Redirect, Level::Error, check, message);
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

/// The row for an https page that redirects to plain HTTP.
#[must_use]
pub fn judge_downgrade(url: &Url, target: &Url) -> Option<Finding> {
    (target.scheme != url.scheme).then(|| {
        let message = format!("{url} redirects to {target}: away from TLS");
        Finding::new(Group::Redirect, Level::Error, "https-downgrade", message)
    })
}

/// The target of a redirect.
#[must_use]
pub fn leads_to(url: &Url, response: &Response) -> Option<Url> {
    let location = response.head.fields.get(Name::Location).filter(|_| is_redirect(response.head.status))?;
    url.join(std::str::from_utf8(location).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, fields: &[(&str, &str)]) -> Response {
        let mut response = Response::default();
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
        let asked = Asked { plain: &plain, secure: &secure, port_is_known: true };
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
