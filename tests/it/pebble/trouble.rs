//! CAs that are slow, broken or hostile; disks that are full; files that are damaged; checks that are wrong. A renewal goes
//! on in bounded time, and the operator sees the reason.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pintle::acme::hook::{Action, HookProcess};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::clock::Clock;
use super::orders::{Bed, ask, ask_text, obtained, order_requests, orders, renew};
use crate::harness::double::{Act, Answer, Double, Step, When};
use crate::harness::pebble::{Settings, TestDns};
use crate::harness::{BLOG, Pintle, eventually, outcome, output};

const HOUR: i64 = 3600;

fn plan(bed: &Bed) -> Value {
    ask(bed, "GET", "/acme")[0].clone()
}

/// Changes the status of orders.
fn status(from: &'static str, to: &'static str) -> Act {
    Act::Edit(Arc::new(move |order| {
        if order["status"] == from {
            order["status"] = to.into();
        }
    }))
}

/// The problem of the last failure.
#[track_caller]
fn problem(pintle: &Pintle) -> String {
    let failed = pintle.logged("no certificate obtained", 1);
    failed.last().unwrap()["problem"].as_str().unwrap().to_owned()
}

#[test]
fn an_order_that_does_not_end_leaves_the_certificate_to_the_second_authority() {
    for (from, to, asked, want) in [
        ("valid", "processing", Step::Finalize, "issues no certificate for the order https://"),
        ("ready", "pending", Step::Challenge, "finishes no validation for the order https://"),
    ] {
        let bed = Bed::new(Settings::default());
        let (clock, double) = (Clock::new(), Double::before(&bed.pebble));
        for step in [Step::Order, Step::Finalize] {
            double.on(step, When::Always, status(from, to));
        }
        let acme = bed.acme(&double.directory(), &format!("fallback = {:?}", bed.pebble.directory()));
        let pintle = clock.start(&bed, &acme, &bed.site(&[BLOG], "", ""));
        eventually("the CA has all", || (double.count(asked) > 0).then_some(()));
        eventually("the order is looked at", || (double.count(Step::Order) > 2).then_some(()));
        assert_eq!(double.count(Step::NewOrder), 1);
        clock.set(2 * HOUR);
        ask(&bed, "GET", "/acme");
        let found = obtained(&pintle, 1);
        assert_eq!(found[0]["authority"], bed.pebble.directory());
        // One order at each.
        assert_eq!((double.count(Step::NewOrder), orders(&bed)), (1, 2));
        assert_eq!(bed.record()["order"], Value::Null);
        let forgotten = pintle.logged("forgetting an order", 1);
        assert!(forgotten[0]["problem"].as_str().unwrap().contains(want), "{forgotten:?}");
        bed.page(&pintle, BLOG);
    }
}

#[test]
fn orders_that_fail_cost_no_certificate() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.answer(Step::NewOrder, When::Next(6), Answer::problem(500, "serverInternal", "out of order"));
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    for count in 1..7 {
        pintle.logged("no certificate obtained", count);
        eventually("it waits", || (plan(&bed)["busy"] == false).then_some(()));
        renew(&bed);
    }
    obtained(&pintle, 1);
    assert_eq!(double.count(Step::NewOrder), 7);
}

#[test]
fn a_renewal_beyond_the_budget_names_limit_and_time() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    // Without renewal information, no order names its predecessor.
    let without = |directory: &mut Value| _ = directory.as_object_mut().unwrap().remove("renewalInfo");
    double.on(Step::Directory, When::Always, Act::Edit(Arc::new(without)));
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    for count in 1..5 {
        obtained(&pintle, count);
        let text = output(pintle.command("acme renew").args(["--site", BLOG]));
        if count < 4 {
            assert!(text.contains("pintle orders now"), "{text}");
            continue;
        }
        for part in
            ["orders on 20", "certificates for the same names", "4 at once, then one every 36 h", "acme.fallback"]
        {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
    let waits = plan(&bed)["waits"].clone();
    assert_eq!(waits["cause"], "budget");
    let (_, text, _) = outcome(&mut pintle.command("acme plan"));
    assert!(text.contains("next try     20") && text.contains("UTC: pintle's limit of certificates"), "{text}");
    pintle.logs("an order waits");
    assert_eq!(double.count(Step::NewOrder), 4);
}

#[test]
fn an_order_that_fails_over_its_predecessor_names_none_at_once() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    let why = "could not find an order for the given certificate";
    for answer in [Answer::problem(500, "serverInternal", why), Answer::new(503, "text/html", "<html>")] {
        let before = double.count(Step::NewOrder);
        double.answer(Step::NewOrder, When::Nth(1), answer);
        let count = pintle.log_json("certificate obtained").len();
        let begin = tokio::time::Instant::now();
        renew(&bed);
        obtained(&pintle, count + 1);
        assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
        let asked = double.requests().into_iter().filter(|asked| asked.step == Step::NewOrder).skip(before);
        let named: Vec<bool> = asked.map(|asked| asked.payload["replaces"].is_string()).collect();
        assert_eq!(named, [true, false]);
        // It was never a failure.
        assert!(pintle.log_json("no certificate obtained").is_empty());
    }
}

#[test]
fn an_order_with_thousands_of_authorizations_is_refused() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let many = |order: &mut Value| {
        let url = order["authorizations"][0].clone();
        order["authorizations"] = vec![url; 5000].into();
    };
    double.on(Step::NewOrder, When::Always, Act::Edit(Arc::new(many)));
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    let problem = problem(&pintle);
    assert!(problem.contains("the order has 5000 authorizations for 1 names"), "{problem}");
    assert_eq!((double.count(Step::NewOrder), double.count(Step::Authorization)), (1, 0));
}

#[test]
fn a_directory_that_has_moved_is_named_and_not_followed() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let moved = Answer::new(301, "text/plain", "moved").with("Location", "https://ca.example/new");
    double.answer(Step::Directory, When::Always, moved);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    let failed = pintle.logged("no certificate obtained", 1);
    let (problem, hint) = (failed[0]["problem"].as_str().unwrap(), failed[0]["hint"].as_str().unwrap());
    assert!(problem.ends_with("redirects to \"https://ca.example/new\""), "{problem}");
    assert!(hint.contains("name that URL in [acme]"), "{hint}");
}

/// The order's end is the CA's time: a clock that is ahead makes no fresh order an old one.
#[test]
fn a_fresh_order_lives_although_the_clock_is_ahead() {
    let bed = Bed::new(Settings::default());
    let (clock, double) = (Clock::new(), Double::before(&bed.pebble));
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30)).to_string();
    for step in [Step::NewOrder, Step::Order] {
        let soon = soon.clone();
        double.on(step, When::Always, Act::Edit(Arc::new(move |order| order["expires"] = soon.clone().into())));
    }
    double.on(Step::Challenge, When::Nth(1), Act::Drop);
    clock.set(5 * HOUR);
    let pintle = clock.start(&bed, &bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    pintle.logged("no certificate obtained", 1);
    renew(&bed);
    obtained(&pintle, 1);
    assert_eq!(double.count(Step::NewOrder), 1);
}

#[test]
fn a_damaged_account_is_set_aside_and_renewals_go_on() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.run();
    obtained(&pintle, 1);
    let folder = bed.state().join("acme");
    let account = || -> PathBuf {
        let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        let mut found = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        found.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("account-")).unwrap()
    };
    let whole = fs::read_to_string(account()).unwrap();
    let mut bad_key: Value = serde_json::from_str(&whole).unwrap();
    bad_key["key"] = "AAAA".into();
    for (count, contents) in [(2, String::new()), (3, whole[..whole.len() / 2].to_owned()), (4, bad_key.to_string())] {
        fs::write(account(), &contents).unwrap();
        renew(&bed);
        obtained(&pintle, count);
        let said = pintle.logged("damaged file; pintle begins it again", count - 1);
        let said = said.last().unwrap();
        assert_eq!(said["file"], account().display().to_string());
        let hint = said["hint"].as_str().unwrap();
        assert!(hint.contains("pintle registers another account") && hint.contains(".damaged"), "{hint}");
        assert_eq!(fs::read_to_string(account().with_extension("damaged")).unwrap(), contents);
    }
    // What cannot be read may be whole: nothing replaces it, and the remedy works as pasted.
    let place = account();
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    renew(&bed);
    let failed = pintle.logged("no certificate obtained", 1);
    let last = failed.last().unwrap();
    let (problem, hint) = (last["problem"].as_str().unwrap(), last["hint"].as_str().unwrap());
    let paste = hint.split("for a new account: ").nth(1).unwrap();
    assert!(paste.starts_with("mv ") && problem.contains(&place.display().to_string()), "{problem}");
    output(Command::new("sh").args(["-c", paste]));
    assert!(!place.exists());
    // A fifth account waits: the CA limits them.
    renew(&bed);
    eventually("the account waits", || {
        plan(&bed)["last"]["text"].as_str().is_some_and(|text| text.contains("several accounts")).then_some(())
    });
}

/// The disk is full for the running process, as far as files grow; or has room again.
fn fill_disk(pintle: &Pintle, is_full: bool) {
    let limit = if is_full { "0" } else { "unlimited" };
    let pid = pintle.status()["pid"].as_u64().unwrap().to_string();
    output(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:unlimited")]));
}

#[test]
fn a_full_disk_loses_no_order_key_or_chain() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    eventually("it rests", || (plan(&bed)["action"] == "wait").then_some(()));
    let pin = bed.spki("ecdsa-p256");
    fill_disk(&pintle, true);
    let (code, _, error) = outcome(pintle.command("acme renew").args(["--site", BLOG]));
    assert!(code == 1 && error.contains("order.json") && error.contains("free space on its disk; df -h"), "{error}");
    assert!(!error.contains("obtains no certificate"), "{error}");
    fill_disk(&pintle, false);
    // In the middle of an order: the CA has issued, and the chain cannot be written.
    double.on(Step::Finalize, When::Nth(1), Act::EditText(Arc::new(|_, _| std::thread::sleep(Duration::from_secs(3)))));
    renew(&bed);
    eventually("the CA is asked to issue", || (double.count(Step::Finalize) == 2).then_some(()));
    fill_disk(&pintle, true);
    pintle.logs("cannot work on a certificate");
    let named = eventually("the plan names the disk", || {
        Some(plan(&bed))
            .filter(|plan| plan["hint"].as_str().is_some_and(|hint| hint.contains("free space on its disk")))
    });
    assert!(named["problem"].as_str().unwrap().contains("/acme/"), "{named}");
    fill_disk(&pintle, false);
    obtained(&pintle, 2);
    assert_eq!((double.count(Step::NewOrder), bed.spki("ecdsa-p256")), (2, pin));
    bed.page(&pintle, BLOG);
}

/// pintle sees other records than the CA does.
#[test]
fn a_wrong_check_of_the_names_is_overridden() {
    let bed = Bed::new(Settings::default());
    let folder = TempDir::new().unwrap();
    let inside = TestDns::start(folder.path(), "127.0.0.1", "");
    inside.add_a(BLOG, &["127.0.0.9"]);
    let listen = bed.pebble.listen().replace(&bed.pebble.dns.address().to_string(), &inside.address().to_string());
    let config = bed.acme(&bed.pebble.directory(), "") + &bed.site(&[BLOG], "", "[site.hpkp]\nmax_age = \"30d\"\n");
    let pintle = Pintle::start_with(&bed.authority, &listen, &config);
    pintle.logs("pintle orders nothing until the names can be validated");
    let found = eventually("the check failed", || {
        Some(plan(&bed))
            .filter(|plan| plan["preflight"]["verdict"] == "broken" && plan["waits"]["cause"] == "preflight")
    });
    assert!(found["preflight"]["next"].is_string(), "{found}");
    let (_, text, _) = outcome(&mut pintle.command("acme plan"));
    // With the configuration that this process has.
    let config = pintle.config_path();
    let paste = format!("pintle acme renew --site {BLOG} --despite-preflight -c {}", config.display());
    assert!(text.contains("FAILED, again 20") && text.contains(&paste), "{text}");
    // Metrics and doctor have it, too.
    let series = format!("pintle_challenge_path_broken{{site=\"{BLOG}\",algorithm=\"ecdsa-p256\"}}");
    assert_eq!(crate::metrics::value(&ask_text(&bed, "/metrics"), &series), Some(1.0));
    let (code, text, _) = outcome(pintle.command("doctor").args(["--json", "--only", "outside"]));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["findings"][0]["id"]), (1, &json!("outside.challenge")), "{report:#}");
    assert!(report["findings"][0]["evidence"].to_string().contains("127.0.0.9"), "{report:#}");
    // A renewal by hand checks again, and orders nothing. The time of a check is a whole second.
    let checked: jiff::Timestamp = found["preflight"]["at"].as_str().unwrap().parse().unwrap();
    eventually("another second", || (jiff::Timestamp::now().as_second() > checked.as_second()).then_some(()));
    renew(&bed);
    eventually("it was checked again", || (plan(&bed)["preflight"]["at"] != found["preflight"]["at"]).then_some(()));
    assert_eq!(order_requests(&bed), 0);
    let said = output(pintle.command("acme renew").args(["--site", BLOG, "--despite-preflight"]));
    assert!(said.contains("pintle orders now, whatever its check of the names finds"), "{said}");
    obtained(&pintle, 1);
    bed.page(&pintle, BLOG);
    // It counts once; an emergency does not wait for the check either.
    renew(&bed);
    eventually("it waits", || (plan(&bed)["waits"]["cause"] == "preflight").then_some(()));
    assert_eq!(orders(&bed), 1);
    let live = bed.pin("key.pem");
    output(pintle.command("key revoke").args(["--site", BLOG]));
    obtained(&pintle, 2);
    assert_ne!(bed.pin("key.pem"), live);
}

/// Records that are removed and set again spread anew.
#[test]
fn dns_records_stay_while_their_order_lives() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let (path, calls) = (bed.authority.folder().join("hook"), bed.authority.folder().join("calls"));
    let text = format!(
        "#!/bin/sh\necho \"$1\" >>{}\ncase $1 in present) to=set-txt ;; *) to=clear-txt ;; esac\n\
         curl --silent --show-error --fail --data \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" http://{}/$to >&2\n",
        calls.display(),
        bed.pebble.dns.management()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    double.answer(Step::Challenge, When::Next(2), Answer::problem(500, "serverInternal", "out of order"));
    let acme = bed.acme(&double.directory(), &format!("challenges = [\"dns-01\"]\ndns_hook = {path:?}\n"));
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    for count in 1..3 {
        pintle.logged("no certificate obtained", count);
        eventually("it waits", || (plan(&bed)["busy"] == false).then_some(()));
        renew(&bed);
    }
    obtained(&pintle, 1);
    let calls = || fs::read_to_string(&calls).unwrap_or_default();
    eventually("the record is removed once", || (calls() == "present\ncleanup\n").then_some(()));
    assert_eq!(double.count(Step::NewOrder), 1);
}

/// A hook process that answers an earlier call late.
#[test]
fn a_late_report_is_not_taken_for_the_next_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("late");
    let late = json!({ "number": 0, "failure": "too late", "output": "" });
    let right = json!({ "number": 1, "failure": null, "output": "" });
    fs::write(&path, format!("#!/bin/sh\nread -r request\nprintf '%s\\n' '{late}' '{right}' >&0\ncat >/dev/null\n"))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let hook = HookProcess::start_as(Command::new(&path), &path, Duration::from_secs(5)).unwrap();
    let record = pintle::acme::dns::record("example.com", "a.thumb");
    assert_eq!(hook.run(Action::Present, &record), Ok(()));
}
