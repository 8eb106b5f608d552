//! The rig itself: what other tests take for granted.

use std::sync::Arc;

use serde_json::Value;

use crate::harness::double::{Act, Answer, Double, Step, When};
use crate::harness::pebble::{Pebble, Settings, is_current};
use crate::harness::{Authority, output};

/// A request with curl: the status, and the body.
fn get(authority: &Authority, url: &str) -> (u16, String) {
    let text = output(crate::harness::curl(authority).args(["--write-out", "\n%{http_code}", url]));
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn pebble_and_its_dns_have_what_the_test_sets() {
    let mut pebble = Pebble::start(Settings { caa_identities: vec!["ca.example"], ..Settings::default() });
    let (status, text) = get(&pebble.authority, &pebble.directory());
    let directory: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, directory["meta"]["caaIdentities"][0].as_str()), (200, Some("ca.example")));
    assert!(directory["newOrder"].as_str().unwrap().ends_with("/order-plz"), "{text}");
    let root = pebble.root(0);
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{root}");
    if is_current() {
        assert!(directory["meta"]["profiles"]["shortlived"].is_string(), "{text}");
        assert!(directory["renewalInfo"].is_string(), "{text}");
    }
    pebble.dns.add_caa("caa.example", &[("issue", ";")]);
    assert_eq!(pebble.dns.asked("caa.example"), [0; 0]);
    assert_eq!(pebble.requests("GET /dir"), 1);
    pebble.restart();
    assert_ne!(pebble.root(0), root);
    assert_eq!(pebble.requests("GET /dir"), 1);
}

#[test]
fn the_double_passes_on_replaces_changes_and_counts() {
    let pebble = Pebble::start(Settings::default());
    let double = Double::before(&pebble);
    let ask = || get(&pebble.authority, &double.directory());
    // Its own address in the URLs: pebble takes it from Host.
    let port = double.directory().trim_end_matches("/dir").to_owned();
    assert!(ask().1.contains(&format!("{port}/order-plz")));
    double.answer(
        Step::Directory,
        When::Nth(2),
        Answer::problem(429, "rateLimited", "slowly").with("Retry-After", "7"),
    );
    assert_eq!(ask().0, 200);
    let (status, text) = ask();
    assert_eq!(status, 429);
    assert!(text.contains("urn:ietf:params:acme:error:rateLimited") && text.contains("slowly"), "{text}");
    double.on(Step::Directory, When::Always, Act::Edit(Arc::new(|d| d["meta"]["termsOfService"] = "new".into())));
    assert!(ask().1.contains("\"new\""));
    double.set_renewal_info(200, "no JSON at all", &[("Retry-After", "60")]);
    let directory: Value = serde_json::from_str(&ask().1).unwrap();
    let renewal = format!("{}/abc.def", directory["renewalInfo"].as_str().unwrap());
    assert_eq!(get(&pebble.authority, &renewal), (200, "no JSON at all".to_owned()));
    double.behave();
    assert!(!ask().1.contains("\"new\""));
    assert_eq!((double.count(Step::Directory), double.count(Step::RenewalInfo)), (6, 1));
    assert_eq!(pebble.requests("GET /dir"), 5);
}
