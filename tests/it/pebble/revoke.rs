//! `pintle key revoke`, from outside: a stolen key is replaced, its certificates are revoked, and it never serves again.

use std::time::Duration;

use serde_json::Value;

use super::clock::Clock;
use super::orders::{Bed, ask, obtained, renew};
use crate::harness::double::{Act, Double, Step, When};
use crate::harness::pebble::{Settings, serial};
use crate::harness::{BLOG, Pintle, eventually, outcome, output};

const POLICIES: &str = "[site.hpkp]\nmax_age = \"30d\"\n";

fn revoke(pintle: &Pintle, more: &[&str]) -> (i32, String, String) {
    outcome(pintle.command("key revoke").args(["--site", BLOG]).args(more))
}

fn in_use(bed: &Bed) -> String {
    serial(&bed.folder("ecdsa-p256").join("chain.pem"))
}

/// pebble's word about a certificate: status and reason.
fn status(bed: &Bed, serial: &str) -> (String, i64) {
    let status = bed.pebble.status(serial);
    (status["Status"].as_str().unwrap().to_owned(), status["Reason"].as_i64().unwrap_or(-1))
}

fn burnt(pintle: &Pintle) -> Vec<String> {
    let book: Value = serde_json::from_str(&output(pintle.command("ledger show").arg("--json"))).unwrap();
    book["burnt_keys"].as_array().unwrap().iter().map(|key| key["pin"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_stolen_key_is_replaced_revoked_and_burnt() {
    let bed = Bed::new(Settings::default());
    // A hook that writes down what it gets.
    let (seen, program) = (bed.authority.folder().join("events"), bed.authority.folder().join("on-event"));
    let text = format!("#!/bin/sh\nread -r event\nprintf '%s\\n' \"$event\" >> {}\n", seen.display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let hook = format!("[[hook]]\nevents = [\"key.*\"]\ncommand = {program:?}\n");
    let (acme, site) = (bed.acme(&bed.pebble.directory(), ""), bed.site(&[BLOG], "", POLICIES) + &hook);
    let pintle = bed.start(&acme, &site);
    obtained(&pintle, 1);
    let first = in_use(&bed);
    renew(&bed);
    obtained(&pintle, 2);
    let (second, stolen, next) = (in_use(&bed), bed.pin("key.pem"), bed.pin("next.pem"));

    let (code, text, error) = revoke(&pintle, &["--dry-run"]);
    assert_eq!(code, 0, "{error}");
    for want in [&stolen, &next, &first, &second, "nobody is locked out", "keyCompromise", "nothing is changed"] {
        assert!(text.contains(want), "{want} is not in\n{text}");
    }
    assert_eq!((bed.pin("key.pem"), status(&bed, &second).0.as_str()), (stolen.clone(), "Valid"));

    // The thief keeps copies.
    let copies = ["key.pem", "chain.pem"].map(|name| {
        let copy = bed.authority.folder().join(format!("stolen.{name}"));
        std::fs::copy(bed.folder("ecdsa-p256").join(name), &copy).unwrap();
        copy
    });
    let (code, text, error) = revoke(&pintle, &["--json"]);
    assert_eq!(code, 0, "{text}{error}\n{}", pintle.log());
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["ok"], &told["done"][0]["live"]), (&true.into(), &next.as_str().into()));
    assert_eq!(told["done"][0]["retired"]["certificates"].as_array().unwrap().len(), 2);
    for serial in [&first, &second] {
        assert_eq!(status(&bed, serial), ("Revoked".to_owned(), 1), "{serial}");
    }
    assert_eq!(status(&bed, &in_use(&bed)).0, "Valid");
    assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (next.clone(), vec![stolen.clone()]));
    let (header, fresh) = (bed.pins(&pintle), bed.pin("next.pem"));
    assert!(header.contains(&next) && header.contains(&fresh) && !header.contains(&stolen), "{header}");
    let events = |kind: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(&seen).unwrap_or_default();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    };
    let revoked = eventually("both revocations", || Some(events("key.revoked")).filter(|events| events.len() == 2));
    // pebble leaves out zeros in front.
    let serials: Vec<&str> =
        revoked.iter().map(|event| event["serial"].as_str().unwrap().trim_start_matches('0')).collect();
    assert!(serials.contains(&first.as_str()) && serials.contains(&second.as_str()), "{revoked:?}");
    let of_key =
        |kind: &str| eventually(kind, || events(kind).into_iter().find(|event| event["pin"] == stolen.as_str()));
    assert_eq!((&of_key("key.burnt")["site"], events("key.burnt").len()), (&BLOG.into(), 1));
    assert_eq!((&revoked[0]["pin"], &revoked[0]["site"]), (&stolen.as_str().into(), &BLOG.into()));
    assert!(events("key.unrevoked").is_empty());
    // They are refused, and that is an event, too.
    let [key, chain] = &copies;
    let before = std::fs::read_to_string(pintle.config_path()).unwrap();
    pintle.rewrite(|text| {
        text.replace("acme = true", &format!("chain = {chain:?}\nkey = {key:?}")).replace(POLICIES, "")
    });
    let said = pintle.reload_fails();
    assert!(said.contains("is burnt"), "{said}");
    let refused = eventually("the refusal", || events("key.refused").into_iter().next());
    assert!(refused["reasons"][0].as_str().unwrap().contains(&stolen), "{refused}");
    pintle.rewrite(|_| before.clone());
    pintle.reload();
    // Nothing of it stays but the mark.
    assert!(!bed.folder("ecdsa-p256").join("compromised.key.pem").exists());
    assert!(pintle.status()["attention"].as_array().unwrap().is_empty());

    // The mark survives a restart, and the key is refused from elsewhere, too.
    drop(pintle);
    let pintle = bed.start(&acme, &site);
    assert!(bed.pins(&pintle).contains(&next));
    renew(&bed);
    obtained(&pintle, 1);
    assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (next, vec![stolen]));
}

/// pintle's own limits, which are lower than the CA's, keep nobody from ending a stolen key.
#[test]
fn an_emergency_passes_the_limits_of_pintle() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    // Without renewal information, no order names its predecessor.
    let without = |directory: &mut Value| _ = directory.as_object_mut().unwrap().remove("renewalInfo");
    double.on(Step::Directory, When::Always, Act::Edit(std::sync::Arc::new(without)));
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", POLICIES));
    for count in 1..5 {
        obtained(&pintle, count);
        if count < 4 {
            renew(&bed);
        }
    }
    let text = output(pintle.command("acme renew").args(["--site", BLOG]));
    assert!(text.contains("certificates for the same names"), "{text}");
    let (stolen, next) = (bed.pin("key.pem"), bed.pin("next.pem"));
    let (code, text, error) = revoke(&pintle, &[]);
    assert_eq!(code, 0, "{text}{error}\n{}", pintle.log());
    assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (next, vec![stolen]));
    assert_eq!(double.count(Step::NewOrder), 5);
}

#[test]
fn a_kill_at_each_step() {
    for step in [Step::Directory, Step::NewOrder, Step::Challenge, Step::Finalize, Step::Certificate, Step::Revoke] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        let (acme, site) = (bed.acme(&double.directory(), ""), bed.site(&[BLOG], "", POLICIES));
        let pintle = bed.start(&acme, &site);
        obtained(&pintle, 1);
        eventually("no request is under way", || (ask(&bed, "GET", "/acme")[0]["action"] == "wait").then_some(()));
        let (old, stolen, next) = (in_use(&bed), bed.pin("key.pem"), bed.pin("next.pem"));
        bed.forget_authorizations();
        let before = double.count(step);
        double.on(step, When::Always, Act::Hang(Duration::from_secs(60)));
        let (code, text, error) = revoke(&pintle, &["--no-wait"]);
        assert_eq!(code, 0, "{text}{error}");
        eventually("the step is reached", || (double.count(step) > before).then_some(()));
        // Before the new key serves, the old key and chain are in use; then their copies are there.
        let kept = bed.folder("ecdsa-p256").join("compromised.key.pem");
        assert_eq!((kept.exists(), bed.pin("key.pem") == next), (step == Step::Revoke, step == Step::Revoke));
        drop(pintle);
        double.behave();
        let pintle = bed.start(&acme, &site);
        pintle.logged("key burnt: it never serves again", 1);
        assert_eq!(status(&bed, &old), ("Revoked".to_owned(), 1), "{step:?}");
        assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (next, vec![stolen]), "{step:?}");
        bed.page(&pintle, BLOG);
        // The first order, and one for the next key; a request that never arrived is made again.
        let orders = if step == Step::NewOrder { 3 } else { 2 };
        assert_eq!(double.count(Step::NewOrder), orders, "{step:?}");
        assert!(!kept.exists());
    }
}

#[test]
fn a_lockout_is_refused_until_it_is_accepted() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", POLICIES));
    obtained(&pintle, 1);
    let first = bed.pins(&pintle);
    let (live, stolen_next, old) = (bed.pin("key.pem"), bed.pin("next.pem"), in_use(&bed));
    // The thief has both: the next one ends first.
    let (code, text, error) = revoke(&pintle, &["--key", "next"]);
    assert_eq!(code, 0, "{text}{error}");
    assert!(text.contains("nothing is revoked") && text.contains(&stolen_next), "{text}");
    let fresh = bed.pin("next.pem");
    assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (live.clone(), vec![stolen_next.clone()]));
    assert_ne!(fresh, stolen_next);
    eventually("other pins are sent", || (bed.pins(&pintle) != first).then_some(()));
    assert!(bed.pins(&pintle).contains(&fresh) && !bed.pins(&pintle).contains(&stolen_next));
    // No living promise has the fresh one.
    let (code, text, error) = revoke(&pintle, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("LOCKED OUT until") && error.contains("would lock readers out of blog.example.com"),
        "{text}{error}"
    );
    assert!(error.contains("promised spare key") && error.contains("or wait"), "{error}");
    let day = error.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
    let wrong = revoke(&pintle, &["--accept-lockout-until", "2031-01-01"]);
    assert!(wrong.0 == 1 && wrong.2.contains("--accept-lockout-until is 2031-01-01"), "{wrong:?}");
    let told: Value = serde_json::from_str(&revoke(&pintle, &["--json"]).1).unwrap();
    assert_eq!((&told["ok"], &told["keys"][0]["until"]), (&false.into(), &day.as_str().into()));
    assert_eq!((bed.pin("key.pem"), status(&bed, &old).0.as_str()), (live.clone(), "Valid"));
    assert_eq!(ask(&bed, "GET", "/acme")[0]["compromise"], Value::Null);

    let (code, text, error) = revoke(&pintle, &["--accept-lockout-until", &day]);
    assert_eq!(code, 0, "{text}{error}\n{}", pintle.log());
    assert_eq!((bed.pin("key.pem"), status(&bed, &old)), (fresh.clone(), ("Revoked".to_owned(), 1)));
    let mut want = vec![stolen_next, live];
    want.sort_unstable();
    let mut found = burnt(&pintle);
    found.sort_unstable();
    assert_eq!(found, want);
    let lockouts = pintle.status()["ledger"]["accepted_lockouts"].clone();
    assert_eq!((&lockouts[0]["pin"], &lockouts[0]["until"]), (&fresh.as_str().into(), &day.as_str().into()));
    // Older promises lack this key. Its renewals continue, before and after a restart.
    renew(&bed);
    obtained(&pintle, 3);
    let renewed = in_use(&bed);
    drop(pintle);
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", POLICIES));
    renew(&bed);
    obtained(&pintle, 1);
    assert_ne!(in_use(&bed), renewed);
    assert_eq!(bed.spki("ecdsa-p256"), fresh);
}

#[test]
fn a_ca_that_does_not_revoke_now() {
    let bed = Bed::new(Settings::default());
    let (clock, double) = (Clock::new(), Double::before(&bed.pebble));
    let (acme, site) = (bed.acme(&double.directory(), ""), bed.site(&[BLOG], "", POLICIES));
    let pintle = clock.start(&bed, &acme, &site);
    obtained(&pintle, 1);
    let (old, stolen, next) = (in_use(&bed), bed.pin("key.pem"), bed.pin("next.pem"));
    // The answer to the revocation is lost: the CA has done it, and says so at the second time.
    double.on(Step::Revoke, When::Nth(1), Act::Lose);
    revoke(&pintle, &["--no-wait"]);
    let told = pintle.logged("the certificates of the compromised key are not revoked", 1);
    assert!(told[0]["again"].as_str().unwrap().starts_with("20"), "{told:?}");
    // It is burnt all the same, the new key serves, and everybody sees the state.
    assert_eq!((bed.pin("key.pem"), burnt(&pintle)), (next, vec![stolen.clone()]));
    bed.page(&pintle, BLOG);
    let status_now = pintle.status();
    let what = status_now["attention"][0]["what"].as_str().unwrap();
    assert!(what.contains(&stolen) && what.contains("not revoked yet"), "{what}");
    assert_eq!(status_now["sites"][0]["renewals"][0]["compromised"]["step"], "revoking");
    let plan = outcome(&mut clock.command(&pintle, "acme plan"));
    assert!(plan.1.contains("COMPROMISED"), "{plan:?}");
    clock.set(120);
    ask(&bed, "GET", "/acme");
    pintle.logged("key burnt: it never serves again", 1);
    assert_eq!((status(&bed, &old), double.count(Step::Revoke)), (("Revoked".to_owned(), 1), 2));
    assert!(pintle.status()["attention"].as_array().unwrap().is_empty());
}

#[test]
fn a_ca_that_is_no_longer_configured() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", POLICIES));
    obtained(&pintle, 1);
    let (old, stolen) = (in_use(&bed), bed.pin("key.pem"));
    pintle.rewrite(|before| before.replace(&double.directory(), &bed.pebble.directory()));
    pintle.reload();
    // The other CA is asked at once: the old one may be one for tests.
    let why = obtained(&pintle, 2)[1]["why"].clone();
    assert_eq!(why, "the certificate is from a CA that is no longer in [acme]");
    let new = in_use(&bed);
    let (code, text, error) = revoke(&pintle, &[]);
    assert_eq!(code, 1, "{text}{error}");
    assert!(text.contains(&format!("NOT REVOKED: {old}")) && text.contains("no longer in [acme]"), "{text}");
    // It keeps the other CA from nothing.
    assert_eq!(status(&bed, &new).0, "Revoked");
    assert!(text.contains(&format!("has revoked {new}")), "{text}");
    // The operator has what is needed to do it by hand, and is told.
    let folder = bed.folder("ecdsa-p256");
    assert_eq!(serial(&folder.join("compromised.chain.pem")), old);
    assert_eq!((bed.pin("compromised.key.pem"), burnt(&pintle)), (stolen.clone(), vec![stolen]));
    let attention = pintle.status()["attention"].clone();
    assert!(attention[0]["what"].as_str().unwrap().contains("has not revoked the certificates"), "{attention}");
    assert!(attention[0]["hints"][0].as_str().unwrap().contains("compromised.key.pem"), "{attention}");
    bed.page(&pintle, BLOG);
}

#[test]
fn both_keys_of_a_site_or_one_of_them() {
    let bed = Bed::new(Settings::default());
    let site = bed.site(&[BLOG], "algorithms = [\"ecdsa-p256\", \"rsa-2048\"]", "");
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &site);
    obtained(&pintle, 2);
    let (code, _, error) = revoke(&pintle, &["--algorithm", "rsa-4096"]);
    assert!(code == 1 && error.contains("ecdsa-p256, rsa-2048"), "{error}");
    let (rsa, ecdsa) = (bed.spki("rsa-2048"), bed.spki("ecdsa-p256"));
    let (code, text, error) = revoke(&pintle, &["--algorithm", "rsa-2048"]);
    assert_eq!(code, 0, "{text}{error}");
    assert_eq!((burnt(&pintle), bed.spki("ecdsa-p256")), (vec![rsa.clone()], ecdsa.clone()));
    assert_ne!(bed.spki("rsa-2048"), rsa);
    let (code, text, error) = revoke(&pintle, &[]);
    assert_eq!(code, 0, "{text}{error}");
    assert_eq!(burnt(&pintle).len(), 3);
    assert_ne!(bed.spki("ecdsa-p256"), ecdsa);
    bed.page(&pintle, BLOG);
}

#[test]
fn keys_that_pintle_does_not_manage() {
    let bed = Bed::new(Settings::default());
    let leaf = bed.authority.leaf("hand", &["hand.example.com"]);
    let by_hand = format!(
        "[[site]]\nhosts = [\"hand.example.com\"]\nupstream = {:?}\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        leaf.chain,
        leaf.key
    );
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &(bed.site(&[BLOG], "", "") + &by_hand));
    obtained(&pintle, 1);
    for host in ["hand.example.com", "other.example.com"] {
        let (code, _, error) = outcome(pintle.command("key revoke").args(["--site", host]));
        assert!(code == 1 && error.contains("pintle obtains no certificate for this host"), "{error}");
        assert!(error.contains("keyCompromise"), "{error}");
        let (code, _, error) = outcome(pintle.command("acme renew").args(["--site", host]));
        assert!(code == 1 && error.contains("pintle obtains no certificate for this host"), "{error}");
        assert!(error.contains("hint: acme = true"), "{error}");
    }
}
