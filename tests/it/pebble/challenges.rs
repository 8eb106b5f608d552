//! Names that are checked before an order, and proofs by DNS, through the real program.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use pintle::acme::lookup::Lookup;
use pintle::upstream::dns::NameServers;
use serde_json::Value;

use super::life::{at_rest, ended};
use super::orders::{Bed, ask, obtained, order_requests, orders, renew};
use crate::harness::double::{Act, Double, Step, When};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{BLOG, Pintle, eventually, free_port, outcome, output, pintle, send_signal};

/// A hook program for pebble's DNS with these lines before its own. It notes its calls.
fn hook(bed: &Bed, before: &str) -> PathBuf {
    let (path, calls) = (bed.authority.folder().join("hook"), bed.authority.folder().join("calls"));
    let text = format!(
        "#!/bin/sh\necho \"$1 $2\" >>{}\n\
         case $1 in present) to=set-txt ;; *) to=clear-txt ;; esac\n\
         send() {{ curl --silent --show-error --fail --data \"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\" \
         http://{}/$to >&2; }}\n\
         {before}\nsend \"$@\"\n",
        calls.display(),
        bed.pebble.dns.management()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn calls(bed: &Bed) -> Vec<String> {
    let calls = fs::read_to_string(bed.authority.folder().join("calls")).unwrap_or_default();
    calls.lines().map(str::to_owned).collect()
}

/// The TXT values of a name in pebble's DNS.
fn values(bed: &Bed, name: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let servers = NameServers(vec![bed.pebble.dns.address()]);
    runtime.block_on(async { Lookup::new(&servers).unwrap().txt(name).await.records() })
}

/// `[acme]` with this hook, and dns-01 alone.
fn by_hook(bed: &Bed, directory: &str, hook: &PathBuf, more: &str) -> String {
    bed.acme(directory, &format!("challenges = [\"dns-01\"]\ndns_hook = {hook:?}\n{more}"))
}

/// The plan of a site.
fn plan(bed: &Bed, site: &str) -> Value {
    let plans = ask(bed, "GET", "/acme");
    plans.as_array().unwrap().iter().find(|plan| plan["site"] == site).unwrap().clone()
}

#[track_caller]
fn contains(text: &Value, parts: &[&str]) {
    let text = text.as_str().unwrap_or_default();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_wildcard_and_its_base_by_dns_01() {
    let bed = Bed::new(Settings::default());
    let hook = hook(&bed, "");
    let site = bed.site(&["example.com", "*.example.com"], "", "");
    let pintle = bed.start(&by_hook(&bed, &bed.pebble.directory(), &hook, ""), &site);
    let found = obtained(&pintle, 1);
    assert_eq!(found[0]["site"], "example.com");
    for host in ["example.com", "any.example.com", "other.example.com"] {
        assert!(bed.page(&pintle, host).contains("hello from the origin"));
    }
    let name = "_acme-challenge.example.com";
    let want: Vec<String> =
        ["present", "present", "cleanup", "cleanup"].iter().map(|action| format!("{action} {name}")).collect();
    eventually("the cleanup", || (calls(&bed) == want).then_some(()));
    assert_eq!((values(&bed, name), orders(&bed)), (Vec::<String>::new(), 1));
    assert_eq!(plan(&bed, "example.com")["preflight"]["verdict"], "fine");
}

#[test]
fn a_wildcard_needs_dns() {
    let bed = Bed::new(Settings::default());
    let config = format!(
        "{}{}{}",
        bed.pebble.listen(),
        bed.acme(&bed.pebble.directory(), "challenges = [\"http-01\", \"tls-alpn-01\"]"),
        bed.site(&[BLOG, "*.example.com"], "", "")
    );
    let file = bed.authority.write("wildcard.toml", config);
    let (code, _, error) = outcome(pintle().arg("check").arg("-c").arg(file));
    assert_eq!(code, 1, "{error}");
    for part in [
        "site.hosts: *.example.com: http-01 and tls-alpn-01 cannot validate a wildcard",
        "challenges = [\"http-01\", \"tls-alpn-01\", \"dns-01\"] and dns_hook = \"/etc/pintle/dns-hook\" in [acme]",
    ] {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
    assert!(!error.contains("blog.example.com: http-01"), "{error}");
}

#[test]
fn a_hook_that_fails_costs_no_second_order() {
    let bed = Bed::new(Settings::default());
    let mended = bed.authority.folder().join("mended");
    let hook = hook(&bed, &format!("[ -e {} ] || {{ echo 'no such zone' >&2; exit 3; }}", mended.display()));
    let pintle = bed.start(&by_hook(&bed, &bed.pebble.directory(), &hook, ""), &bed.site(&[BLOG], "", ""));
    let failed = pintle.logged("no certificate obtained", 1);
    contains(
        &failed[0]["problem"],
        &["acme.dns_hook", "_acme-challenge.blog.example.com", "status: 3", "no such zone"],
    );
    assert!(calls(&bed).iter().any(|call| call.starts_with("cleanup")), "{:?}", calls(&bed));
    contains(&plan(&bed, BLOG)["last"]["text"], &["no such zone"]);
    fs::write(mended, "").unwrap();
    renew(&bed);
    obtained(&pintle, 1);
    assert_eq!(orders(&bed), 1);
}

#[test]
fn a_hook_that_hangs_is_killed() {
    let bed = Bed::new(Settings::default());
    let hook = hook(&bed, "[ $1 = cleanup ] || sleep 1000");
    let acme = by_hook(&bed, &bed.pebble.directory(), &hook, "") + "[limits]\ndns_hook = \"1s\"\n";
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    let failed = pintle.logged("no certificate obtained", 1);
    contains(&failed[0]["problem"], &["killed after 1 s (limits.dns_hook)"]);
    assert!(calls(&bed).iter().any(|call| call.starts_with("cleanup")), "{:?}", calls(&bed));
    assert_eq!(bed.pebble.requests("POST /chalZ"), 0);
}

#[test]
fn a_record_that_is_slow_is_waited_for() {
    let bed = Bed::new(Settings::default());
    // The program ends at once, its child sets the record later.
    let later = "if [ $1 = present ]; then (sleep 5; send \"$@\") >/dev/null 2>&1 & exit 0; fi";
    let hook = hook(&bed, later);
    let pintle = bed.start(&by_hook(&bed, &bed.pebble.directory(), &hook, ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    assert_eq!((pintle.log_json("no certificate obtained").len(), orders(&bed)), (0, 1));
}

#[test]
fn a_record_that_never_comes_is_not_waited_for_for_ever() {
    let bed = Bed::new(Settings::default());
    let hook = hook(&bed, "[ $1 = cleanup ] || exit 0");
    let acme = by_hook(&bed, &bed.pebble.directory(), &hook, "") + "[limits]\ndns_propagation = \"2s\"\n";
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    let failed = pintle.logged("no certificate obtained", 1);
    contains(&failed[0]["problem"], &["_acme-challenge.blog.example.com", "not visible after 2 s"]);
    contains(&failed[0]["hint"], &["dig TXT"]);
    // The authority was not asked to look. The record stays, so that it has time to spread.
    let want = ["present _acme-challenge.blog.example.com", "cleanup _acme-challenge.blog.example.com"];
    assert_eq!(
        (calls(&bed), bed.pebble.requests("POST /chalZ")),
        (want[..1].to_vec().iter().map(ToString::to_string).collect(), 0)
    );
    // This host may see another zone than the authority does: in the end, that one looks itself.
    renew(&bed);
    let failed = pintle.logged("no certificate obtained", 2);
    contains(&failed[1]["problem"], &["unauthorized"]);
    pintle.logs("the authority is asked although the DNS records are not visible from here");
    eventually("the cleanup", || (calls(&bed) == want).then_some(()));
}

#[test]
fn a_killed_process_leaves_no_record_and_continues_the_order() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.on(Step::Challenge, When::Always, Act::Hang(Duration::from_secs(60)));
    let hook = hook(&bed, "");
    let (acme, site) = (by_hook(&bed, &double.directory(), &hook, ""), bed.site(&[BLOG], "", ""));
    let pintle = bed.start(&acme, &site);
    let name = "_acme-challenge.blog.example.com";
    eventually("the challenge is answered", || (double.count(Step::Challenge) > 0).then_some(()));
    assert_eq!(values(&bed, name).len(), 1);
    // As kill -9 does.
    drop(pintle);
    eventually("the record is gone", || values(&bed, name).is_empty().then_some(()));
    double.behave();
    let pintle = bed.start(&acme, &site);
    obtained(&pintle, 1);
    assert_eq!(double.count(Step::NewOrder), 1);
    eventually("the record is gone again", || values(&bed, name).is_empty().then_some(()));
}

/// The processes that a process has started.
fn children(of: u32) -> Vec<u32> {
    let stat = |pid: u32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = |pid: &u32| {
        let stat = stat(*pid);
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok())
    };
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| parent(pid) == Some(of)).collect()
}

/// As systemd does with KillMode=mixed: whatever the service has started is killed with it.
#[test]
fn records_that_a_crash_has_left_are_removed_at_the_next_start() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.on(Step::Challenge, When::Always, Act::Hang(Duration::from_secs(60)));
    let hook = hook(&bed, "");
    let acme = by_hook(&bed, &double.directory(), &hook, "");
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    let name = "_acme-challenge.blog.example.com";
    eventually("the challenge is answered", || (double.count(Step::Challenge) > 0).then_some(()));
    assert_eq!(values(&bed, name).len(), 1);
    for pid in children(pintle.pid()).into_iter().chain([pintle.pid()]) {
        assert!(send_signal("KILL", pid), "{pid}");
    }
    drop(pintle);
    assert_eq!(values(&bed, name).len(), 1, "nobody is left to remove it");
    // The CA does not even answer.
    double.on(Step::Directory, When::Always, Act::Hang(Duration::from_secs(60)));
    let _pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    eventually("the record is gone", || values(&bed, name).is_empty().then_some(()));
}

/// An order in flight delays no drain: its state is on disk.
#[test]
fn a_slow_program_delays_no_stop() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let hook = hook(&bed, "[ $1 = present ] || sleep 4");
    double.on(Step::Order, When::Always, Act::Edit(std::sync::Arc::new(|order| order["status"] = "pending".into())));
    let mut pintle = bed.start(&by_hook(&bed, &double.directory(), &hook, ""), &bed.site(&[BLOG], "", ""));
    eventually("the order is asked for again", || (double.count(Step::Order) > 1).then_some(()));
    let begun = tokio::time::Instant::now();
    pintle.signal("TERM");
    pintle.logs("draining: no new connections");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    pintle.wait();
    assert!(calls(&bed).iter().any(|call| call.starts_with("cleanup")), "{:?}", calls(&bed));
}

#[test]
fn a_stop_in_the_middle_removes_the_record() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let hook = hook(&bed, "");
    // The authority takes its time.
    double.on(Step::Order, When::Always, Act::Edit(std::sync::Arc::new(|order| order["status"] = "pending".into())));
    let mut pintle = bed.start(&by_hook(&bed, &double.directory(), &hook, ""), &bed.site(&[BLOG], "", ""));
    eventually("the order is asked for again", || (double.count(Step::Order) > 1).then_some(()));
    pintle.signal("TERM");
    pintle.wait();
    eventually("the cleanup", || calls(&bed).iter().any(|call| call.starts_with("cleanup")).then_some(()));
}

/// The old process ends after the new one has begun: the record belongs to the new one by then.
#[test]
fn an_order_by_dns_during_an_upgrade() {
    for step in [Step::NewOrder, Step::Authorization, Step::Challenge, Step::Finalize, Step::Certificate] {
        let bed = Bed::new(Settings::default());
        let double = Double::before(&bed.pebble);
        let (acme, site) = (by_hook(&bed, &double.directory(), &hook(&bed, ""), ""), bed.site(&[BLOG], "", ""));
        let pintle = bed.start(&acme, &site);
        obtained(&pintle, 1);
        at_rest(&bed);
        let before = double.count(step);
        // The CA looks at the record when the old process has had time to remove it.
        let late = if step == Step::Challenge { Act::Late(Duration::from_secs(4)) } else { Act::Late(Duration::ZERO) };
        double.on(step, When::Always, late);
        double.on(step, When::Nth(1), Act::Hang(Duration::from_secs(60)));
        renew(&bed);
        eventually("the step is reached", || (double.count(step) > before).then_some(()));
        output(&mut pintle.command("upgrade"));
        obtained(&pintle, 2);
        assert!(pintle.log_json("no certificate obtained").is_empty(), "{step:?}");
        let orders = if step == Step::NewOrder { 3 } else { 2 };
        assert_eq!(double.count(Step::NewOrder), orders, "{step:?}");
        let name = "_acme-challenge.blog.example.com";
        eventually("the record is gone", || values(&bed, name).is_empty().then_some(()));
        bed.page(&pintle, BLOG);
        ended(&pintle);
    }
}

/// The program itself is at work when the processes change over.
#[test]
fn a_program_that_runs_during_an_upgrade() {
    let bed = Bed::new(Settings::default());
    let hook = hook(&bed, "[ $1 = cleanup ] || [ ! -e slow ] || sleep 4".replace("slow", &slow(&bed)).as_str());
    let pintle = bed.start(&by_hook(&bed, &bed.pebble.directory(), &hook, ""), &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    at_rest(&bed);
    fs::write(slow(&bed), "").unwrap();
    let before = calls(&bed).len();
    renew(&bed);
    eventually("the program runs", || (calls(&bed).len() > before).then_some(()));
    output(&mut pintle.command("upgrade"));
    obtained(&pintle, 2);
    let name = "_acme-challenge.blog.example.com";
    eventually("the record is gone", || values(&bed, name).is_empty().then_some(()));
    bed.page(&pintle, BLOG);
    ended(&pintle);
}

/// The file that makes the program slow.
fn slow(bed: &Bed) -> String {
    bed.authority.folder().join("slow").display().to_string()
}

#[test]
fn a_standing_record_is_named_and_used() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings::default());
    let acme = bed.acme(&bed.pebble.directory(), "challenges = [\"dns-persist-01\"]");
    let pintle = bed.start(&acme, &bed.site(&["example.com", "*.example.com"], "", ""));
    pintle.logged("pintle orders nothing until the names can be validated", 1);
    assert_eq!(order_requests(&bed), 0);
    let shown = plan(&bed, "example.com");
    let findings = shown["preflight"]["findings"].as_array().unwrap().clone();
    assert_eq!((&shown["preflight"]["verdict"], findings.len()), (&"broken".into(), 2), "{shown:#}");
    let line = findings[0]["hints"][0].as_str().unwrap().strip_prefix("add: ").unwrap();
    let (name, value) = line.split_once(". IN TXT ").unwrap();
    assert_eq!((name, findings[0]["subject"].as_str()), ("_validation-persist.example.com", Some("record")));
    assert!(
        line.contains("pebble.letsencrypt.org; accounturi=https://") && line.contains("; policy=wildcard"),
        "{line}"
    );
    bed.pebble.dns.add_txt(name, &value.replace("\" \"", "").replace('"', ""));
    assert_eq!(ask(&bed, "POST", "/acme/renew?host=example.com")["ok"], true);
    obtained(&pintle, 1);
    assert!(bed.page(&pintle, "any.example.com").contains("hello from the origin"));
    // The export has the same line.
    let export = ["--as", "dns", "--site", "*.example.com", "--without-backup"];
    let (code, out, error) = outcome(pintle.command("export").args(export));
    assert!(code == 0 && out.contains(line), "{out}{error}");
}

#[test]
fn a_name_that_leads_elsewhere_is_not_ordered() {
    let bed = Bed::new(Settings::default());
    bed.pebble.dns.add_a("moved.example.com", &["127.0.0.9"]);
    let sites = bed.site(&["good.example.com", "moved.example.com"], "", "") + &bed.site(&[BLOG], "", "");
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &sites);
    obtained(&pintle, 1);
    bed.page(&pintle, BLOG);
    let said = pintle.logged("a name cannot be validated", 1);
    assert_eq!((&said[0]["site"], &said[0]["name"]), (&"good.example.com".into(), &"moved.example.com".into()));
    contains(&said[0]["problem"], &["moved.example.com: A 127.0.0.9", "nothing answers"]);
    contains(&said[0]["hint"], &["correct or remove the record: moved.example.com. IN A 127.0.0.9"]);
    assert_eq!(orders(&bed), 1, "{}", bed.pebble.said());
    let shown = plan(&bed, "good.example.com");
    assert_eq!(
        (&shown["standing"], &shown["preflight"]["verdict"]),
        (&"missing".into(), &"broken".into()),
        "{shown:#}"
    );
    let finding = &shown["preflight"]["findings"][0];
    assert_eq!((&finding["name"], &finding["subject"]), (&"moved.example.com".into(), &"address".into()));
    // The commands show it.
    let (code, out, _) = outcome(pintle.command("acme plan").args(["--site", "moved.example.com"]));
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("preflight") && out.contains("moved.example.com. IN A 127.0.0.9"), "{out}");
    let (_, _, error) = outcome(&mut pintle.command("check"));
    assert!(error.contains("moved.example.com. IN A 127.0.0.9"), "{error}");
    // The record is mended.
    bed.pebble.dns.clear_a("moved.example.com");
    assert_eq!(ask(&bed, "POST", "/acme/renew?host=good.example.com")["ok"], true);
    obtained(&pintle, 2);
    pintle.logs("the names can be validated again");
    bed.page(&pintle, "moved.example.com");
}

#[test]
fn caa_records_that_forbid_the_order() {
    let bed = Bed::new(Settings::default());
    bed.pebble.dns.add_caa("example.com", &[("issue", "other.example")]);
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", ""));
    let said = pintle.logged("a name cannot be validated", 1);
    contains(&said[0]["problem"], &["CAA", "other.example"]);
    contains(&said[0]["hint"], &["add: example.com. IN CAA 0 issue \"pebble.letsencrypt.org\""]);
    assert_eq!(order_requests(&bed), 0);
    bed.pebble.dns.add_caa("example.com", &[("issue", "other.example"), ("issue", "pebble.letsencrypt.org")]);
    renew(&bed);
    obtained(&pintle, 1);
}

/// The account went with a lost state, and its successor must be known before the first order.
#[test]
fn caa_records_for_an_account_that_is_gone() {
    let bed = Bed::new(Settings::default());
    let lost = "pebble.letsencrypt.org; accounturi=https://ca.example/lost";
    bed.pebble.dns.add_caa("example.com", &[("issue", lost)]);
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", ""));
    pintle.logged("a name cannot be validated", 1);
    renew(&bed);
    let said = pintle.logged("a name cannot be validated", 2);
    let line = "add: example.com. IN CAA 0 issue \"pebble.letsencrypt.org; accounturi=https://localhost:";
    contains(&said[1]["hint"], &[line]);
    assert_eq!((order_requests(&bed), pintle.log_json("account registered").len()), (0, 1));
    let value = said[1]["hint"].as_str().unwrap().split('"').nth(1).unwrap();
    bed.pebble.dns.add_caa("example.com", &[("issue", value)]);
    renew(&bed);
    obtained(&pintle, 1);
}

#[test]
fn another_challenge_if_the_first_cannot_work() {
    let bed = Bed::new(Settings::default());
    // Nobody answers at the port of http-01.
    let acme = bed.acme(&bed.pebble.directory(), &format!("http_port = {}", free_port()));
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    assert_eq!(plan(&bed, BLOG)["preflight"]["ways"][0]["method"], "tls-alpn-01");
    assert_eq!(orders(&bed), 1);
}

#[test]
fn name_servers_that_answer_nothing_delay_an_order_and_do_not_stop_it() {
    let bed = Bed::new(Settings::default());
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let own = bed.pebble.dns.address().to_string();
    let listen = bed.pebble.listen().replace(&own, &silent.local_addr().unwrap().to_string());
    let config = bed.acme(&bed.pebble.directory(), "") + &bed.site(&[BLOG], "", "");
    let pintle = Pintle::start_with(&bed.authority, &listen, &config);
    for _ in 0..3 {
        if pintle.log_json("certificate obtained").is_empty() {
            std::thread::sleep(Duration::from_secs(10));
        }
    }
    obtained(&pintle, 1);
    let shown = plan(&bed, BLOG);
    assert_eq!(shown["preflight"]["verdict"], "unknown", "{shown:#}");
    contains(&shown["preflight"]["text"], &["unknown from here"]);
}
