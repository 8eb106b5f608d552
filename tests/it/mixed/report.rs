//! The tools *report* and *upgrade*: fields of pages, and the endpoint for reports.

use super::{Bed, Got, PAGE, html};
use crate::harness::{BLOG, Browser, Reply, eventually, output};

const PATH: &str = "/.well-known/pintle/mixed-content";

fn answer(path: &str) -> Reply {
    match path {
        "/style.css" => Reply::new("200 OK", "Content-Type: text/css\r\n", "a{}"),
        "/own" => Reply::new(
            "200 OK",
            "Content-Type: text/html\r\nContent-Security-Policy: script-src 'self'\r\n\
             Content-Security-Policy-Report-Only: img-src 'self'; report-uri /theirs\r\n\
             Reporting-Endpoints: theirs=\"/theirs\"\r\n",
            "<p>",
        ),
        "/no-type" => Reply::new("200 OK", "", "<p>"),
        _ => html(PAGE),
    }
}

fn by_uri(page: &str, blocked: &str) -> String {
    format!(r#"{{"csp-report":{{"document-uri":"{page}","effective-directive":"img-src","blocked-uri":"{blocked}"}}}}"#)
}

impl Bed {
    /// Sends a report, and returns the status code.
    #[track_caller]
    fn report(&self, path: &str, body: &str) -> String {
        let got = self.get(path, &["-H", "Content-Type: application/csp-report", "--data-binary", body]);
        got.status().to_owned()
    }
}

fn policies(got: &Got) -> (usize, usize, usize) {
    let ours = |name: &str, part: &str| got.all(name).iter().filter(|value| value.contains(part)).count();
    (
        ours("content-security-policy", "upgrade-insecure-requests"),
        ours("content-security-policy-report-only", "default-src https:"),
        ours("reporting-endpoints", PATH),
    )
}

#[test]
fn fields_of_pages() {
    for (mode, want) in [
        ("mode = \"report\"", (0, 1, 1)),
        ("mode = \"upgrade\"", (1, 0, 0)),
        ("mode = [\"report\", \"upgrade\"]", (1, 1, 1)),
        ("", (0, 0, 0)),
    ] {
        let bed = Bed::new(mode, |asked| answer(asked.path()));
        for version in ["--http1.1", "--http2"] {
            assert_eq!(policies(&bed.get("/", &[version])), want, "{mode}");
            // No documents.
            assert_eq!(policies(&bed.get("/style.css", &[version])), (0, 0, 0), "{mode}");
            assert_eq!(policies(&bed.get("/no-type", &[version])), (0, 0, 0), "{mode}");
            // The upstream's own stay as they are, in fields of their own.
            let own = bed.get("/own", &[version]);
            assert_eq!(policies(&own), want, "{mode}");
            assert!(own.all("content-security-policy").contains(&"script-src 'self'"), "{own:?}");
            let reports = own.all("content-security-policy-report-only");
            assert!(reports.contains(&"img-src 'self'; report-uri /theirs"), "{own:?}");
            assert!(own.all("reporting-endpoints").contains(&"theirs=\"/theirs\""), "{own:?}");
        }
        // The redirect over plain HTTP has none.
        let mut plain = bed.pintle.curl();
        let plain = output(plain.arg("--include").arg(format!("http://{BLOG}/")));
        assert!(!plain.to_ascii_lowercase().contains("content-security-policy"), "{plain}");
    }
}

#[test]
fn reports_are_counted_by_page() {
    let bed = Bed::new("mode = \"report\"", |asked| answer(asked.path()));
    let page = format!("https://{BLOG}/2026/a/?secret=1#top");
    assert_eq!(bed.report(PATH, &by_uri(&page, "http://blog.example.com/a.png?x=y")), "204");
    assert_eq!(bed.report(PATH, &by_uri(&page, "http://blog.example.com/a.png")), "204");
    let api = format!(
        r#"[{{"type":"csp-violation","body":{{"documentURL":"https://{BLOG}/","blockedURL":"http://evil.example/d.js","effectiveDirective":"script-src-elem"}}}},
            {{"type":"csp-violation","body":{{"documentURL":"https://{BLOG}/","blockedURL":"inline"}}}},
            {{"type":"deprecation","body":{{"id":"x"}}}}]"#
    );
    assert_eq!(bed.report(PATH, &api), "204");
    // Pages of others do not count.
    assert_eq!(bed.report(PATH, &by_uri("https://evil.example/", "http://evil.example/")), "204");
    let status = bed.pintle.status();
    let mixed = &status["sites"][0]["mixed_content"];
    assert_eq!((&mixed["mode"][0], &mixed["reports"]), (&"report".into(), &3.into()), "{mixed:#}");
    let shown: Vec<_> = mixed["references"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            format!("{} {} {} {} {}", r["page"], r["reference"], r["kind"], r["own"], r["reports"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        shown,
        [
            format!("https://{BLOG}/ http://evil.example/d.js script-src-elem false 1"),
            format!("https://{BLOG}/2026/a/ http://blog.example.com/a.png img-src true 2"),
        ]
    );
    let logged = bed.pintle.logged("a browser reports an http reference", 2);
    assert_eq!(logged.len(), 2, "once for each: {logged:?}");
    assert!(bed.metrics().contains(&format!("pintle_mixed_content_reports_total{{site=\"{BLOG}\"}} 3")));
    let human = output(&mut bed.pintle.command("status"));
    assert!(human.contains("mixed        2 references by http, from 3 reports"), "{human}");
    assert!(human.contains("http://blog.example.com/a.png (img-src, an own host)"), "{human}");
    assert!(bed.origin.received().is_empty(), "the upstream sees no report");
}

#[test]
fn what_is_no_report_is_refused() {
    let bed = Bed::with("mode = \"report\"", "[limits]\nreports_per_client = 6\n", |asked| answer(asked.path()));
    let long = by_uri(&format!("https://{BLOG}/{}", "x".repeat(70_000)), "http://evil.example/");
    for (body, status) in [("{}", "400"), ("hello", "400"), ("[1]", "400"), (&*long, "413")] {
        assert_eq!(bed.report(PATH, body), status, "{}", &body[..body.len().min(40)]);
    }
    assert_eq!(bed.get(PATH, &[]).status(), "405");
    for status in ["204", "204", "429", "429"] {
        assert_eq!(bed.report(PATH, &by_uri(&format!("https://{BLOG}/"), "http://evil.example/")), status);
    }
    assert!(bed.metrics().contains("pintle_mixed_content_reports_refused_total 6"), "{}", bed.metrics());
    // Without the tool, the path is the site's.
    let bed = Bed::new("mode = \"upgrade\"", |asked| answer(asked.path()));
    assert_eq!(bed.report(PATH, "{}"), "200");
    assert!(!bed.metrics().contains("pin_reports_refused_total 1"));
}

/// Chromium reports the references of a page, and shows the page as before.
#[test]
fn a_browser_reports() {
    let bed = Bed::new("mode = \"report\"", |asked| answer(asked.path()));
    let browser = Browser::start(&bed.authority, bed.pintle.https(), bed.pintle.http());
    browser.go(&format!("https://{BLOG}/post?a=b"));
    let found = eventually("the reports", || {
        let status = bed.pintle.status();
        let references = status["sites"][0]["mixed_content"]["references"].as_array().cloned().unwrap_or_default();
        let named =
            |name: &str| references.iter().any(|r| r["reference"].as_str().is_some_and(|url| url.contains(name)));
        ["a.png", "c.png", "d.png"].iter().all(|name| named(name)).then_some(references)
    });
    let page = format!("https://{BLOG}/post");
    assert!(found.iter().all(|r| r["page"] == *page && r["kind"] == "img-src"), "{found:#?}");
}
