//! Files of pintle's own keys that cannot be used: told everywhere with the remedy, and renewals go on as far as they can.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use serde_json::Value;

use super::orders::{Bed, ask, ask_text, obtained, renew};
use crate::harness::pebble::Settings;
use crate::harness::{BLOG, Pintle, eventually, is_root, outcome};

const PINS: &str = "[site.hpkp]\nmax_age = \"30d\"\n";

/// The plans are made again with each question for them.
fn ready(bed: &Bed) -> String {
    ask(bed, "GET", "/acme");
    ask_text(bed, "/ready?strict")
}

/// Waits until the fault is known, and looks at every place that tells of it. Returns the hints of the plan.
#[track_caller]
fn is_told(bed: &Bed, pintle: &Pintle, file: &str, why: &str) -> Vec<String> {
    eventually("it is told", || (ready(bed) == format!("unusable key file: {BLOG}\n")).then_some(()));
    let plan = ask(bed, "GET", "/acme")[0].clone();
    let what = plan["key_fault"]["what"].as_str().unwrap();
    assert!(what.contains(file) && what.contains(why), "{what}");
    let (code, text, _) = outcome(&mut pintle.command("acme plan"));
    assert!(code == 1 && text.contains("  KEY          ") && text.contains(file) && text.contains("mv -T"), "{text}");
    let (code, text, _) = outcome(pintle.command("status").arg("--exit-code"));
    assert!(code == 1 && text.contains("KEY          ecdsa-p256: ") && text.contains(file), "{text}");
    let status = pintle.status();
    let items = status["attention"].as_array().unwrap();
    let item = items.iter().find(|item| item["what"].as_str().unwrap().contains("cannot read the")).unwrap();
    assert!(item["hints"].to_string().contains("mv -T"), "{item}");
    let metrics = ask_text(bed, "/metrics");
    assert!(metrics.contains("pintle_key_unusable{site=\"blog.example.com\",algorithm=\"ecdsa-p256\"} 1"), "{metrics}");
    pintle.logs("unusable key file");
    plan["key_fault"]["hints"].as_array().unwrap().iter().map(|hint| hint.as_str().unwrap().to_owned()).collect()
}

/// Runs the command of a remedy as it is printed: without the words before and after it.
#[track_caller]
fn run(hint: &str) {
    let command = hint.split("is lost: ").last().unwrap().split("; then").next().unwrap();
    let done = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(done.success(), "{command}");
}

#[test]
fn a_next_key_that_cannot_be_read_stops_the_changeover_and_no_renewal() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", PINS));
    obtained(&pintle, 1);
    let (live, next, sent) = (bed.spki("ecdsa-p256"), bed.pin("next.pem"), bed.pins(&pintle));
    assert!(sent.contains(&live) && sent.contains(&next));
    let file = bed.folder("ecdsa-p256").join("next.pem");
    let shown = file.display().to_string();
    let good = fs::read_to_string(&file).unwrap();
    for (contents, why) in [("", "the file is empty"), (&good[..70], "")] {
        fs::write(&file, contents).unwrap();
        is_told(&bed, &pintle, &shown, why);
        let (code, out, error) = outcome(&mut pintle.command("check"));
        assert!(code == 0 && error.contains(&shown) && error.contains("mv -T"), "{out}{error}");
        fs::write(&file, &good).unwrap();
        eventually("it is known again", || (ready(&bed) == "ready\n").then_some(()));
    }
    fs::write(&file, "garbage").unwrap();
    let hints = is_told(&bed, &pintle, &shown, "");
    let what = ask(&bed, "GET", "/acme")[0]["key_fault"]["what"].as_str().unwrap().to_owned();
    assert!(what.contains("no fresh key before 20"), "{what}");
    // The backup of the pins is unknown: they are not promised for longer.
    eventually("the pins are withheld", || {
        (!bed.page(&pintle, BLOG).to_lowercase().contains("public-key-pins")).then_some(())
    });
    let (_, said, _) = outcome(pintle.command("key rotate").args(["--site", BLOG]));
    assert!(said.contains("no changeover: ") && said.contains(&shown), "{said}");
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(bed.spki("ecdsa-p256"), live, "the key");
    bed.page(&pintle, BLOG);
    assert_eq!(fs::read_to_string(&file).unwrap(), "garbage", "pintle replaces no key that clients may know");
    // The remedy as printed.
    run(hints.last().unwrap());
    eventually("a fresh key", || (ready(&bed) == "ready\n" && file.exists()).then_some(()));
    let fresh = bed.pin("next.pem");
    assert_ne!(fresh, next);
    eventually("it is promised", || {
        let page = bed.page(&pintle, BLOG);
        page.to_lowercase().contains("public-key-pins").then(|| page.contains(&fresh)).filter(|has| *has)
    });
    let changeover = eventually("the changeover waits", || {
        let changeover = ask(&bed, "GET", "/acme")[0]["changeover"].clone();
        changeover.is_object().then_some(changeover)
    });
    assert_eq!(changeover["waits"], true, "clients do not know the fresh key");
}

#[test]
fn a_next_key_that_the_serving_user_may_not_read() {
    if !is_root("have files of other users") {
        return;
    }
    let bed = Bed::new(Settings::default());
    let open = |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(bed.authority.folder());
    open(bed.pebble.authority.folder());
    let config = bed.acme(&bed.pebble.directory(), "") + "[process]\nuser = \"nobody\"\n" + &bed.site(&[BLOG], "", "");
    let pintle = Pintle::start_command(&bed.authority, &bed.pebble.listen(), &config, |command| {
        let path = std::path::PathBuf::from(command.get_args().last().unwrap());
        open(path.parent().unwrap());
    });
    obtained(&pintle, 1);
    let file = bed.folder("ecdsa-p256").join("next.pem");
    let next = bed.pin("next.pem");
    chown(&file, Some(0), Some(0)).unwrap();
    let hints = is_told(&bed, &pintle, &file.display().to_string(), "not readable by the user nobody");
    // root can read it.
    let (code, out, error) = outcome(&mut pintle.command("check"));
    assert!(
        code == 0 && error.contains("not readable by the user nobody") && error.contains("chown --reference="),
        "{out}{error}"
    );
    let answer: Value = serde_json::from_str(&outcome(pintle.command("check").arg("--json")).1).unwrap();
    assert!(answer["problems"].to_string().contains("cannot read the next key"), "{answer}");
    renew(&bed);
    obtained(&pintle, 2);
    run(&hints[0]);
    eventually("it can be read", || (ready(&bed) == "ready\n").then_some(()));
    assert_eq!(bed.pin("next.pem"), next);
}

#[test]
fn a_live_key_that_cannot_be_read_is_the_operators_turn() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.run();
    obtained(&pintle, 1);
    let (live, file) = (bed.spki("ecdsa-p256"), bed.folder("ecdsa-p256").join("key.pem"));
    eventually("the pair is copied", || bed.state().join("last-good").read_dir().ok()?.next().map(drop));
    fs::write(&file, "").unwrap();
    let hints = is_told(&bed, &pintle, &file.display().to_string(), "the file is empty");
    bed.page(&pintle, BLOG);
    assert_eq!(ask(&bed, "GET", "/acme")[0]["action"], "operator");
    run(hints.last().unwrap());
    eventually("it is restored", || (ready(&bed) == "ready\n" && file.exists()).then_some(()));
    assert_eq!(bed.pin("key.pem"), live);
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(bed.spki("ecdsa-p256"), live, "the key");
}

/// The hook runs as the serving user, whoever checks.
#[test]
fn a_hook_that_the_serving_user_may_not_execute() {
    if !is_root("have files of other users") {
        return;
    }
    let bed = Bed::new(Settings::default());
    let hook = bed.authority.write("dns-hook", "#!/bin/sh\n");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(bed.authority.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let acme = bed.acme(&bed.pebble.directory(), &format!("dns_hook = {hook:?}"));
    let config = format!("[process]\nuser = \"nobody\"\n{acme}{}", bed.site(&[BLOG], "", ""));
    let file = bed.authority.write("pintle.toml", config);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let check = || outcome(crate::harness::pintle().args(["check", "-c"]).arg(&file));
    let (code, out, error) = check();
    assert!(
        code == 1 && error.contains("acme.dns_hook: ") && error.contains("the user nobody may not execute it"),
        "{out}{error}"
    );
    let hint = error.lines().find_map(|line| line.trim().strip_prefix("hint: chgrp ")).unwrap();
    run(&format!("is lost: chgrp {hint}"));
    let (code, out, error) = check();
    assert!(code == 0, "{out}{error}");
}
