//! Years of a certificate, by a clock that is set: changeovers, windows, new terms, upgrades, adopted keys, a CA that is
//! down for days, clocks that jump.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::clock::Clock;
use super::orders::{Bed, ask, obtained, orders, pin_of, renew, window};
use crate::harness::double::{Act, Answer, Double, Step, When};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{BLOG, Pintle, eventually, outcome, output, send_signal};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn plan(bed: &Bed) -> Value {
    ask(bed, "GET", "/acme")[0].clone()
}

/// Waits until nothing is under way.
#[track_caller]
pub fn at_rest(bed: &Bed) -> Value {
    eventually("the plan waits", || Some(plan(bed)).filter(|plan| plan["action"] == "wait" && plan["busy"] == false))
}

fn seconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Sets the clock to a time.
fn wait_for(clock: &Clock, time: i64) {
    clock.set(time - now() + 5);
}

#[test]
fn a_planned_changeover_waits_until_every_living_promise_has_the_next_key() {
    let bed = Bed::new(Settings::default());
    let clock = Clock::new();
    let acme = bed.acme(&bed.pebble.directory(), "rotate_every = \"2h\"");
    let pintle = clock.start(&bed, &acme, &bed.site(&[BLOG], "", "[site.hpkp]\nmax_age = \"3h\"\n"));
    obtained(&pintle, 1);
    let (live, next) = (bed.pin("key.pem"), bed.pin("next.pem"));
    // Wanted after two hours; clients know the next key for long enough after three.
    clock.set(2 * HOUR + 600);
    let waits =
        eventually("the changeover waits", || Some(plan(&bed)).filter(|plan| plan["changeover"]["waits"] == true));
    let from = seconds(&waits["changeover"]["from"]);
    assert!((now() + 2 * HOUR..now() + 5 * HOUR).contains(&from), "{waits}");
    // A renewal meanwhile keeps the live key.
    assert_eq!(ask(&bed, "POST", &format!("/acme/renew?host={BLOG}"))["ok"], true);
    obtained(&pintle, 2);
    assert_eq!((bed.pin("key.pem"), bed.spki("ecdsa-p256")), (live.clone(), live.clone()));
    wait_for(&clock, from);
    ask(&bed, "GET", "/acme");
    let done = obtained(&pintle, 3);
    assert_eq!((&done[2]["key"], &done[2]["pin"]), (&"next".into(), &next.as_str().into()));
    assert_eq!((bed.pin("key.pem"), bed.spki("ecdsa-p256")), (next.clone(), next.clone()));
    let fresh = bed.pin("next.pem");
    assert!(fresh != live && fresh != next);
    // The fresh one is promised at once, the old one no more; it is not wanted before two hours have passed again.
    let header = bed.pins(&pintle);
    assert!(header.contains(&next) && header.contains(&fresh) && !header.contains(&live), "{header}");
    let after = at_rest(&bed);
    assert!(seconds(&after["changeover"]["from"]) >= from + 2 * HOUR, "{after}");
    assert_eq!(orders(&bed), 3);
}

#[test]
fn a_window_that_moves_to_now_renews_at_once() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings::default());
    let clock = Clock::new();
    let pintle = clock.start(&bed, &bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    eventually("the window is known", || at_rest(&bed)["window"].is_object().then_some(()));
    let chain = fs::read_to_string(bed.folder("ecdsa-p256").join("chain.pem")).unwrap();
    bed.pebble.set_renewal_info(&chain, &window(-2 * HOUR, HOUR));
    // The next question is in six hours: pebble's Retry-After.
    ask(&bed, "GET", "/acme");
    assert_eq!((at_rest(&bed)["standing"].clone(), orders(&bed)), ("current".into(), 1));
    clock.set(7 * HOUR);
    ask(&bed, "GET", "/acme");
    let done = obtained(&pintle, 2);
    assert_eq!((&done[0]["pin"], &done[1]["why"]), (&done[1]["pin"], &"the CA's renewal window".into()));
    pintle.logged("the authority has moved the renewal window", 1);
}

#[test]
fn windows_that_are_far_or_wrong_do_not_delay_a_renewal() {
    for (text, why) in [
        (window(300 * DAY, 301 * DAY), "window"),
        (window(50 * DAY, 51 * DAY), "window"),
        ("{\"suggestedWindow\":{\"start\":\"2026-13-99\"}}".to_owned(), "lifetime"),
        ("<html>".to_owned(), "lifetime"),
        (window(2 * DAY, DAY), "lifetime"),
    ] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        double.set_renewal_info(200, &text, &[]);
        let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
        obtained(&pintle, 1);
        eventually("the window is asked for", || (double.count(Step::RenewalInfo) > 0).then_some(()));
        let plan = at_rest(&bed);
        assert!(plan["why"].as_str().unwrap().contains(why), "{text}: {plan}");
        assert!((now() + 49 * DAY..=now() + 75 * DAY).contains(&seconds(&plan["due"])), "{text}: {plan}");
        assert_eq!(orders(&bed), 1, "{text}");
    }
}

#[test]
fn new_terms_of_service_wait_for_the_operator() {
    let bed = Bed::new(Settings::default());
    let (clock, double) = (Clock::new(), Double::before(&bed.pebble));
    let pintle = clock.start(&bed, &bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    at_rest(&bed);
    let page = "https://ca.example/terms-2027";
    let problem = json!({
        "type": "urn:ietf:params:acme:error:userActionRequired", "detail": "terms of service have changed",
        "instance": page, "status": 403,
    });
    double.answer(Step::NewOrder, When::Always, Answer::new(403, "application/problem+json", problem.to_string()));
    renew(&bed);
    let failed = pintle.logged("no certificate obtained", 1);
    assert!(failed[0]["problem"].as_str().unwrap().contains(page), "{failed:?}");
    let again = seconds(&failed[0]["again"]);
    assert!((now() + DAY / 8 * 7..=now() + DAY).contains(&again), "{failed:?}");
    assert!(failed[0]["hint"].as_str().unwrap().contains("do what the CA asks for"), "{failed:?}");
    let (_, text, _) = outcome(&mut pintle.command("acme plan"));
    assert!(text.contains("STOPPED") && text.contains(page) && text.contains("pintle tries again 20"), "{text}");
    let count = double.count(Step::NewOrder);
    for _ in 0..20 {
        assert_eq!(plan(&bed)["action"], "operator");
    }
    assert_eq!(double.count(Step::NewOrder), count);
    // Once a day, pintle tries again.
    clock.set(27 * HOUR);
    ask(&bed, "GET", "/acme");
    pintle.logged("no certificate obtained", 2);
    assert_eq!(double.count(Step::NewOrder), count + 1);
    // The operator has agreed at the CA, and tells pintle nothing.
    double.behave();
    clock.set(55 * HOUR);
    ask(&bed, "GET", "/acme");
    obtained(&pintle, 2);
}

#[test]
fn an_order_in_flight_during_an_upgrade() {
    for step in [Step::NewOrder, Step::Challenge, Step::Finalize, Step::Certificate] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
        obtained(&pintle, 1);
        at_rest(&bed);
        let before = double.count(step);
        double.on(step, When::Nth(1), Act::Hang(Duration::from_secs(60)));
        renew(&bed);
        eventually("the step is reached", || (double.count(step) > before).then_some(()));
        output(&mut pintle.command("upgrade"));
        obtained(&pintle, 2);
        let orders = if step == Step::NewOrder { 3 } else { 2 };
        assert_eq!(double.count(Step::NewOrder), orders, "{step:?}");
        bed.page(&pintle, BLOG);
        ended(&pintle);
    }
}

/// Ends the process of an upgrade, which is nobody's child.
pub fn ended(pintle: &Pintle) {
    let pid = pintle.status()["pid"].as_u64().unwrap();
    send_signal("TERM", pid);
}

#[test]
fn a_key_of_the_operator_is_taken_over() {
    let bed = Bed::new(Settings::default());
    let own = bed.authority.leaf("own", &[BLOG]).key;
    let contents = fs::read(&own).unwrap();
    let own_pin = pin_of(&own);
    let site = bed.site(&[BLOG], &format!("key = {own:?}"), "[site.hpkp]\nmax_age = \"30d\"\n");
    // The first certificate is for that key all the same.
    let acme = bed.acme(&bed.pebble.directory(), "rotate_every = \"1y\"");
    let pintle = bed.start(&acme, &site);
    obtained(&pintle, 1);
    assert_eq!((bed.pin("key.pem"), bed.spki("ecdsa-p256")), (own_pin.clone(), own_pin.clone()));
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(bed.spki("ecdsa-p256"), own_pin);
    // The key is stolen. The operator's file and the line in the configuration do not bring it back.
    let (code, text, error) = outcome(pintle.command("key revoke").args(["--site", BLOG]));
    assert_eq!(code, 0, "{text}{error}");
    drop(pintle);
    let pintle = bed.start(&acme, &site);
    renew(&bed);
    obtained(&pintle, 1);
    assert_ne!(bed.spki("ecdsa-p256"), own_pin);
    assert_eq!(fs::read(&own).unwrap(), contents);
}

#[test]
fn a_ca_that_is_down_for_days() {
    let mut bed = Bed::new(Settings::default());
    let clock = Clock::new();
    let pintle = clock.start(&bed, &bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    at_rest(&bed);
    bed.pebble.stop();
    let mut failures = 0;
    for day in 62..66 {
        clock.set(day * DAY);
        ask(&bed, "GET", "/acme");
        failures = eventually("a failure", || {
            let found = plan(&bed)["last"]["failures"].as_u64().unwrap();
            (found > failures).then_some(found)
        });
        let tried = pintle.log_json("no certificate obtained").len();
        assert!(tried < 8, "{tried} tries up to day {day}");
    }
    let status = pintle.status();
    let what = status["attention"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["what"].as_str().unwrap().contains("renewal overdue"));
    let what = what.unwrap_or_else(|| panic!("{}", status["attention"]))["what"].as_str().unwrap();
    // By the minute: `2026-11-26 10:15 UTC`.
    let since = what.split("failing since ").nth(1).unwrap()[..16].replace(' ', "T") + ":00Z";
    let since = seconds(&since.into());
    assert!((since - now() - 62 * DAY).abs() < DAY, "{what}");
    // It comes back, as another CA would: it has forgotten everything.
    bed.pebble.restart();
    clock.set(67 * DAY);
    ask(&bed, "GET", "/acme");
    let done = obtained(&pintle, 2);
    assert_eq!(done[0]["pin"], done[1]["pin"]);
    bed.page(&pintle, BLOG);
}

#[test]
fn clocks_that_jump_order_nothing() {
    let bed = Bed::new(Settings::default());
    let clock = Clock::new();
    let pintle = clock.start(&bed, &bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    at_rest(&bed);
    for offset in [-3 * DAY, 0, 20 * DAY, -HOUR, 0] {
        clock.set(offset);
        for _ in 0..10 {
            assert_eq!(plan(&bed)["standing"], "current", "{offset}");
        }
    }
    assert_eq!(orders(&bed), 1);
    // Years ahead, every certificate looks expired. No clock can be right there, and the CA is not flooded.
    clock.set(3 * 366 * DAY);
    for _ in 0..20 {
        plan(&bed);
        std::thread::sleep(Duration::from_millis(100));
    }
    clock.set(0);
    assert!(orders(&bed) <= 2, "{}", orders(&bed));
    bed.page(&pintle, BLOG);
    eventually("all is as before", || (plan(&bed)["standing"] == "current").then_some(()));
}
