//! The parts that all answers to a browser share.

use std::process::Command;

use crate::admin::{Bed, get};
use crate::harness::{BLOG, Pintle, output};

/// The status line and the fields of the answer to GET, in lower case.
fn head(bed: &Bed, path: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-D", "-", "--unix-socket"]).arg(bed.socket());
    output(curl.arg(format!("http://localhost{path}"))).to_ascii_lowercase()
}

#[test]
fn the_overview_names_the_sites() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &bed.config(""));
    let page = get(&bed.socket(), "/");
    assert!(page.contains("<h1>Overview</h1>") && page.contains(BLOG), "{page}");
    assert!(!page.contains("style=") && !page.contains("<style"), "{page}");
    assert_eq!(page.matches("<script").count(), page.matches("<script src=\"/assets/").count(), "{page}");
    for name in ["style", "page"] {
        let path = page.split('"').find(|part| part.starts_with(&format!("/assets/{name}-"))).unwrap();
        assert!(head(&bed, path).contains("immutable"), "{path}");
    }
}

#[test]
fn every_answer_keeps_other_origins_out() {
    let bed = Bed::new();
    let _pintle = Pintle::start(&bed.authority, &bed.config(""));
    for (path, status) in
        [("/", "200"), ("/no-page", "404"), ("/?a=%ff", "400"), ("/status", "200"), ("/v1/none", "404")]
    {
        let head = head(&bed, path);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{path}: {head}");
        for field in [
            "content-security-policy: default-src 'none'",
            "frame-ancestors 'none'",
            "x-frame-options: deny",
            "x-content-type-options: nosniff",
            "referrer-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(head.contains(field), "{path}: {field}: {head}");
        }
    }
}
