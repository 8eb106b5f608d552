//! The page: its status, and its mixed content.

use http::StatusCode;

use crate::verify::client::{BODY_MAX, VisitResponse};
use crate::verify::finding::{Group, Level, VerifyFinding};
use crate::verify::page::{BrowserReaction, Insecure, PageFindings, scan, upgrades};
use crate::verify::target::Url;

/// Judges the status of the response. `None` if it is as it should be.
#[must_use]
pub fn judge_status(url: &Url, status: StatusCode) -> Option<VerifyFinding> {
    let bad = status.is_client_error() || status.is_server_error();
    bad.then(|| {
        let message = format!("{url} answers {}", status.as_u16());
        VerifyFinding::new(Group::Page, Level::Warning, "page-status", message)
    })
}

/// Judges the page; returns the rows, and the page if there is one.
#[must_use]
pub fn judge(url: &Url, response: &VisitResponse) -> (Vec<VerifyFinding>, Option<PageFindings>) {
    let row = |level, check, message: String| VerifyFinding::new(Group::Page, level, check, message);
    let not_checked = |why: String| (vec![row(Level::Note, "page-not-checked", why)], None);
    if response.body.is_empty() {
        return not_checked(format!("{url} has no body"));
    }
    if response.values_of("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return not_checked("the page came compressed, which was not requested".into());
    }
    if !is_html(response) {
        return not_checked(format!("{url} is not HTML"));
    }
    let mut page = scan(&response.body);
    page.upgraded |= response.values_of("content-security-policy").any(upgrades);
    let mut findings: Vec<VerifyFinding> = page.insecure.iter().map(|i| judge_one(i, page.upgraded)).collect();
    if page.count > page.insecure.len() {
        let message = format!("{} more http:// references", page.count - page.insecure.len());
        let level = if page.upgraded { Level::Note } else { Level::Error };
        findings.push(row(level, "page-mixed-content", message));
    }
    if page.upgraded && page.count > 0 {
        let message = "upgrade-insecure-requests has browsers request them by https".to_owned();
        findings.push(row(Level::Note, "page-upgraded", message));
    }
    if page.count == 0 {
        findings.push(row(Level::Ok, "page-mixed-content", "the page fetches nothing by http://".into()));
    }
    if response.cut {
        let message = if response.body.len() >= BODY_MAX {
            format!("only the first {} MiB of the page were checked", BODY_MAX >> 20)
        } else {
            "the page was cut off: its end was not checked".into()
        };
        findings.push(row(Level::Note, "page-not-checked", message));
    }
    (findings, Some(page))
}

fn judge_one(insecure: &Insecure, upgraded: bool) -> VerifyFinding {
    let Insecure { kind, element, url, line } = insecure;
    let (level, check, what) = match kind {
        BrowserReaction::Active => (Level::Error, "page-mixed-content", "browsers block it"),
        BrowserReaction::Passive => (Level::Error, "page-mixed-content", "browsers request it by https, or not at all"),
        BrowserReaction::Form => (Level::Warning, "page-insecure-form", "its contents travel without TLS"),
    };
    let level = if upgraded { Level::Note } else { level };
    VerifyFinding::new(Group::Page, level, check, format!("line {line}: {element}={url}: {what}"))
}

/// Returns `true` for a page: by its type, and without one by its beginning, as browsers do (WHATWG
/// MIME Sniffing, section 7.1).
#[must_use]
pub fn is_html(response: &VisitResponse) -> bool {
    match response.values_of("content-type").next() {
        Some(kind) => {
            let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            kind.eq_ignore_ascii_case(b"text/html") || kind.eq_ignore_ascii_case(b"application/xhtml+xml")
        }
        None => response.body.trim_ascii_start().starts_with(b"<"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&str, &str)], body: &str, want: &[(&str, Level)]) {
        let mut response = VisitResponse { body: body.as_bytes().to_vec(), ..VisitResponse::default() };
        for (name, value) in fields {
            response.head.fields.push(name.as_bytes(), value.as_bytes());
        }
        let (findings, _) = judge(&"https://a.example/".parse().unwrap(), &response);
        assert_eq!(findings.iter().map(|f| (f.check, f.level)).collect::<Vec<_>>(), want, "{fields:?} {body}");
    }

    #[test]
    fn table() {
        use Level::{Error, Note, Ok, Warning};
        const HTML: (&str, &str) = ("Content-Type", "Text/HTML; charset=utf-8");
        const PICTURE: &str = "<img src=http://x/a>";
        check(&[HTML], "<p>", &[("page-mixed-content", Ok)]);
        check(&[HTML], PICTURE, &[("page-mixed-content", Error)]);
        check(&[], PICTURE, &[("page-mixed-content", Error)]);
        check(&[HTML], "<form action=http://x/>", &[("page-insecure-form", Warning)]);
        check(&[HTML], "", &[("page-not-checked", Note)]);
        check(&[("content-type", "text/plain")], PICTURE, &[("page-not-checked", Note)]);
        check(&[HTML, ("Content-Encoding", "gzip")], PICTURE, &[("page-not-checked", Note)]);
        let upgraded = [("page-mixed-content", Note), ("page-upgraded", Note)];
        check(&[HTML, ("content-security-policy", "default-src *; upgrade-insecure-requests")], PICTURE, &upgraded);
    }
}
