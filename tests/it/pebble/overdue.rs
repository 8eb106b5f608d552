//! Renewals that are due and not done: in the log, `pintle status`, `pintle acme plan`, the metrics and `/ready?strict`.

use serde_json::Value;

use super::clock::Clock;
use super::orders::{Bed, ask, ask_text, obtained, window};
use crate::harness::double::{Answer, Double, Step, When};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{BLOG, eventually, outcome};

const HOUR: i64 = 3600;

/// A window in the past: the CA wants the renewal now.
fn past_window() -> String {
    window(-2 * HOUR, -HOUR)
}

#[test]
fn an_overdue_renewal_is_seen_everywhere_until_it_is_done() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings::default());
    let (clock, double) = (Clock::new(), Double::before(&bed.pebble));
    let (acme, site) = (bed.acme(&double.directory(), ""), bed.site(&[BLOG], "", ""));
    let pintle = clock.start(&bed, &acme, &site);
    obtained(&pintle, 1);
    eventually("the window is known", || ask(&bed, "GET", "/acme")[0]["window"].is_object().then_some(()));
    assert_eq!(ask_text(&bed, "/ready?strict"), "ready\n");
    assert!(
        ask_text(&bed, "/metrics")
            .contains("pintle_renewal_overdue{site=\"blog.example.com\",algorithm=\"ecdsa-p256\"} 0")
    );
    let order = pintle.status()["sites"][0]["renewals"][0].clone();
    assert_eq!(
        (&order["standing"], &order["overdue"], &order["failing_since"]),
        (&"current".into(), &false.into(), &Value::Null)
    );

    double.answer(Step::NewOrder, When::Always, Answer::problem(500, "serverInternal", "out of order"));
    double.set_renewal_info(200, &past_window(), &[]);
    clock.set(7 * HOUR);
    ask(&bed, "GET", "/acme");
    let told = pintle.logged("certificate renewal overdue", 1);
    let told = eventually("the problem is in the log", || {
        let failed = pintle.logged("no certificate obtained", 1);
        failed[0]["problem"].as_str().unwrap().contains("out of order").then(|| told.clone())
    });
    assert_eq!(told[0]["site"], BLOG);
    let renewal = eventually("the outlook has the problem", || {
        let renewal = pintle.status()["sites"][0]["renewals"][0].clone();
        renewal["problem"].is_string().then_some(renewal)
    });
    assert_eq!(
        (&renewal["standing"], &renewal["overdue"], &renewal["failures"]),
        (&"overdue".into(), &true.into(), &1.into())
    );
    assert!(renewal["problem"].as_str().unwrap().contains("out of order"), "{renewal}");
    assert!(renewal["failing_since"].is_string() && renewal["next_try"].is_string(), "{renewal}");
    let status = pintle.status();
    let first = &status["attention"][0];
    let what = first["what"].as_str().unwrap();
    for want in ["renewal overdue: due since", "failing since", "next try", "out of order"] {
        assert!(what.contains(want), "{want} is not in {what}");
    }
    assert!(first["hints"][0].as_str().unwrap().contains("acme.fallback"), "{first}");
    let (code, text, _) = outcome(pintle.command("status").arg("--exit-code"));
    assert!(
        code == 1 && text.contains("ATTENTION") && text.contains("RENEWAL      ecdsa-p256: renewal overdue"),
        "{text}"
    );
    let (code, text, _) = outcome(&mut clock.command(&pintle, "acme plan"));
    assert!(code == 1 && text.contains("RENEWAL OVERDUE") && text.contains("failing      since"), "{text}");
    assert_eq!(ask_text(&bed, "/ready?strict"), "renewal overdue: blog.example.com\n");
    assert_eq!(ask_text(&bed, "/ready"), "ready\n");
    let metrics = ask_text(&bed, "/metrics");
    for want in ["pintle_renewal_overdue{", "pintle_renewal_failures{"] {
        let line = metrics.lines().find(|line| line.starts_with(want)).unwrap();
        assert!(line.ends_with(" 1"), "{line}");
    }
    assert!(metrics.contains("pintle_renewal_failing_since_timestamp_seconds{"), "{metrics}");

    // Once the CA is back, nothing of it is left.
    double.behave();
    clock.set(7 * HOUR + 120);
    ask(&bed, "GET", "/acme");
    obtained(&pintle, 2);
    eventually("it is current", || {
        let renewal = pintle.status()["sites"][0]["renewals"][0].clone();
        (renewal["standing"] == "current" && renewal["failing_since"].is_null()).then_some(())
    });
    assert!(pintle.status()["attention"].as_array().unwrap().is_empty());
    assert_eq!(ask_text(&bed, "/ready?strict"), "ready\n");
}

#[test]
fn a_first_certificate_that_does_not_come_has_its_reason() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.answer(Step::NewOrder, When::Always, Answer::problem(403, "rejectedIdentifier", "not this name"));
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    pintle.logged("no certificate obtained", 1);
    let item = eventually("the problem is in the status", || {
        let status = pintle.status();
        let items = status["attention"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["what"].as_str().unwrap().contains("not this name"))
    });
    assert!(item["what"].as_str().unwrap().contains("no certificate yet"), "{item}");
    assert!(item["hints"][0].as_str().unwrap().contains("remove the name from hosts"), "{item}");
}
