//! The rig itself: what other tests take for granted.

use std::sync::Arc;

use serde_json::Value;

use super::orders::{Bed, obtained, renew};
use crate::harness::double::{Act, Answer, Double, NO_PREDECESSOR, Step, When};
use crate::harness::pebble::{NINETY_DAYS, Pebble, SIX_DAYS, Settings, is_current};
use crate::harness::{Authority, BLOG, output};

/// A request with curl: the status, and the body.
fn get(authority: &Authority, url: &str) -> (u16, String) {
    let text = output(crate::harness::curl(authority).args(["--write-out", "\n%{http_code}", url]));
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn pebble_and_its_dns_have_what_the_test_sets() {
    let mut pebble = Pebble::start(Settings {
        caa_identities: vec!["ca.example"],
        profiles: vec![NINETY_DAYS, SIX_DAYS],
        ..Settings::default()
    });
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

/// One certificate in 256 has a serial number that pebble does not find: no test may see that.
#[test]
fn orders_whose_predecessor_pebble_does_not_find_do_not_count() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings::default());
    let double = Double::start(&bed.pebble.authority, bed.pebble.address(), true);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    // The rule waits for an order that reaches pebble.
    let made = bed.pebble.requests("POST /order-plz");
    double.on(
        Step::NewOrder,
        When::Nth(1),
        Act::Edit(Arc::new(|order| order["expires"] = "2099-01-01T00:00:00Z".into())),
    );
    renew(&bed);
    obtained(&pintle, 2);
    let again = pintle.logged("the order is made again without the certificate that it replaces", 1);
    assert!(again[0]["problem"].as_str().unwrap().contains(NO_PREDECESSOR), "{again:?}");
    assert_eq!((double.count(Step::NewOrder), bed.pebble.orders()), (2, 2));
    assert_eq!(bed.pebble.requests("POST /order-plz"), made + 2);
    let named = double.requests().into_iter().filter(|asked| asked.payload["replaces"].is_string());
    assert_eq!(named.count(), 0);
}

/// pebble uses an authorization again in one order of a hundred, whatever the settings say: no test may see that.
#[test]
fn forgotten_authorizations_are_proved_again() {
    let bed = Bed::new(Settings { authz_reuse: 100, ..Settings::default() });
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    let looked = double.count(Step::Order);
    bed.pebble.forget_authorizations(&bed.state().join("acme"));
    assert_eq!((double.count(Step::Challenge), double.count(Step::Order)), (1, looked));
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(double.count(Step::Challenge), 2);
    // Without that, pebble uses it again.
    renew(&bed);
    obtained(&pintle, 3);
    assert_eq!(double.count(Step::Challenge), 2);
}
