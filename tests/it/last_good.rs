//! The pairs in use can always be started again: after a refused renewal, an expiry, a merge, a backup that became
//! live. Only changes are refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use time::{Duration, OffsetDateTime};

use crate::harness::{
    Authority, BLOG, Client, KeyKind, Leaf, Origin, Pintle, Reply, eventually, outcome, output, pintle,
};
use crate::rotation::{Bed, refusal};
use crate::upgrade::Line;

const HOSTS: [&str; 2] = [BLOG, "www.example.com"];
pub const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n";
pub const REFUSED: &str = "certificate refused; the old one keeps serving";

/// The copies in the folder of the state.
pub fn copies(bed: &Bed) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(bed.state().join("last-good")).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

/// Waits until the pair that is served has been copied.
pub fn copied(bed: &Bed, leaf: &Leaf) {
    let key = fs::read_to_string(&leaf.key).unwrap();
    eventually("the pair is copied", || {
        copies(bed)
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
            .any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(key.trim())))
            .then_some(())
    });
}

fn refused_in_place(bed: &Bed, pintle: &Pintle) {
    copied(bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
}

fn check(bed: &Bed, config: &str) -> (i32, String) {
    let path = bed.folder.path().join("check.toml");
    fs::write(&path, config).unwrap();
    let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&path));
    (code, err)
}

#[test]
fn a_refused_renewal_holds_up_no_reload_and_no_start() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    refused_in_place(&bed, &pintle);
    // Something else is changed.
    let other = bed.authority.leaf("other", &["other.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"other.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        other.chain,
        other.key
    );
    pintle.rewrite(|text| format!("{text}\n{site}"));
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && out.contains("new site other.example.com"), "{out}{err}");
    assert!(err.contains("would lock readers out") && err.contains("the pair in use stays"), "{err}");
    let client = Client::new(&bed.authority);
    assert_eq!(client.get(pintle.https(), "other.example.com", "/").status, 200);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(refusal(&pintle)["by_guard"], true);
    assert_eq!(pintle.log_json(REFUSED).len(), 1, "logged once");
}

#[test]
fn a_refused_renewal_holds_up_no_upgrade() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let before = bed.header(&line.pintle).unwrap();
    refused_in_place(&bed, &line.pintle);
    for _ in 0..2 {
        line.upgrade();
        assert_eq!(bed.served(&line.pintle), bed.live.pin);
        assert_eq!(bed.header(&line.pintle).unwrap(), before);
        assert_eq!(refusal(&line.pintle)["by_guard"], true);
    }
}

/// Without a folder for copies, the live key is in memory only. Each process hands it over to the next one.
#[test]
fn a_refused_renewal_holds_up_no_upgrade_without_a_folder() {
    let bed = Bed::new();
    let config = bed.config(&bed.pins("30d"), "");
    let site = config.find("[[site]]").unwrap();
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", bed.folder.path().join("admin.sock").display());
    let line = Line::start(&bed.authority, LISTEN, &(admin + &config[site..]));
    let before = bed.header(&line.pintle).unwrap();
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || line.pintle.log_json(REFUSED).pop());
    for _ in 0..2 {
        line.upgrade();
        assert_eq!(bed.served(&line.pintle), bed.live.pin);
        assert_eq!(bed.header(&line.pintle).unwrap(), before);
        assert_eq!(refusal(&line.pintle)["by_guard"], true);
        output(&mut line.pintle.command("reload"));
    }
    let key = fs::read_to_string(&bed.live.key).unwrap();
    assert!(!line.pintle.log().contains(key.lines().nth(1).unwrap()), "no key is logged");
    assert!(!bed.state().exists());
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&line.pintle) == bed.next.pin).then_some(()));
}

#[test]
fn a_start_serves_the_pair_that_was_served_last() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let before = bed.header(&pintle).unwrap();
    refused_in_place(&bed, &pintle);
    for _ in 0..2 {
        // `check` says that the files are no good.
        let (code, err) = check(&bed, &bed.config(&bed.pins("30d"), ""));
        assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    }
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(bed.header(&pintle).unwrap(), before);
    pintle.logs("pintle serves the previous pair, from the copy in state.directory");
    assert_eq!(refusal(&pintle)["by_guard"], true);
    let metrics = crate::admin::get(&bed.state().join("admin.sock"), "/metrics");
    assert!(metrics.contains(&format!("pintle_certificate_refused{{site=\"{BLOG}\"}} 1")), "{metrics}");
    // What is mended is taken up.
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    eventually("the refusal is over", || refusal(&pintle).is_null().then_some(()));
}

/// A folder of the state that somebody empties is filled again.
#[test]
fn deleted_copies_are_written_again() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    copied(&bed, &bed.live);
    refused_in_place(&bed, &pintle);
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// The live key is in memory and in its copy only, and then the copy is gone.
#[test]
fn deleted_copies_are_written_again_with_keys_whose_files_are_gone() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    refused_in_place(&bed, &pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    copied(&bed, &bed.live);
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // The key of a copy is known, too.
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    copied(&bed, &bed.live);
    drop(pintle);
    assert_eq!(bed.served(&bed.start(&bed.pins("30d"))), bed.live.pin);
}

/// The promised pin is the issuer's: the same key under another issuer breaks the promise, so it is another pair.
#[test]
fn the_same_key_under_another_issuer_is_another_pair() {
    let bed = Bed::new();
    let other = Authority::named("another test CA");
    let backups = [bed.authority.ca_path(), bed.next.key.with_extension("csr")];
    let pins = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n");
    let pintle = bed.start(&pins);
    assert!(bed.header(&pintle).unwrap().contains(&bed.authority.pin()));
    // A key that no client knows, under the promised issuer.
    bed.put(&bed.stranger);
    eventually("the issuer's key keeps the promise", || (bed.served(&pintle) == bed.stranger.pin).then_some(()));
    copied(&bed, &bed.stranger);
    // The same key under another issuer.
    let moved = other.renew("moved", &bed.stranger.key, &HOSTS, 91);
    bed.put(&moved);
    eventually("the other issuer is refused", || (refusal(&pintle)["by_guard"] == true).then_some(()));
    let client = Client::new(&bed.authority);
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    for _ in 0..2 {
        let (code, _, err) = outcome(&mut pintle.command("reload"));
        assert_eq!(code, 0, "{err}");
    }
    drop(pintle);
    let pintle = bed.start(&pins);
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200, "the pair that was served, from its copy");
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    assert_eq!(refusal(&pintle)["by_guard"], true);
}

/// The hint says: name this chain's own key in backups now.
#[test]
fn the_hint_can_be_followed_as_written() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("2s"));
    refused_in_place(&bed, &pintle);
    let csr = bed.authority.csr(&bed.stranger);
    pintle.rewrite(|text| text.replace("backups = [", &format!("backups = [{csr:?}, ")));
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert_eq!(code, 0, "{err}");
    let header = bed.header(&pintle).unwrap();
    assert!(header.contains(&bed.stranger.pin) && header.contains(&bed.live.pin), "{header}");
    // Once all that was promised without it is over, it is served, without a word.
    eventually("the stranger is served", || (bed.served(&pintle) == bed.stranger.pin).then_some(()));
}

#[test]
fn copies_are_for_this_user_alone_and_of_what_is_served_now() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copies(&bed)[0]), 0o600);
    assert_eq!(mode(&bed.state().join("last-good")), 0o700);
    bed.put(&bed.next);
    copied(&bed, &bed.next);
    eventually("the copy of the other pair is gone", || (copies(&bed).len() == 1).then_some(()));
    drop(pintle);
    // The old pair would break what was promised since: its copy is gone, and it is not started.
    let pintle = bed.start(&bed.pins("30d").replace(
        &format!("{:?}", bed.next.key.with_extension("csr")),
        &format!("{:?}", bed.authority.public_key("fresh")),
    ));
    bed.put(&bed.live);
    eventually("the old key is refused", || pintle.log_json(REFUSED).pop());
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

/// A pair is copied before it is served, so that a kill in the next moment leaves it, too.
#[test]
fn a_pair_is_copied_before_it_is_served() {
    let bed = Bed::new();
    let pins = bed.pins("30d");
    for _ in 0..3 {
        let pintle = bed.start(&pins);
        drop(pintle);
        fs::write(bed.chain(), "garbage").unwrap();
        fs::write(bed.key(), "garbage").unwrap();
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.live.pin);
        bed.put(&bed.next);
        output(&mut pintle.command("reload"));
        drop(pintle);
        fs::write(bed.key(), "garbage").unwrap();
        let pintle = bed.start(&pins);
        assert_eq!(bed.served(&pintle), bed.next.pin);
        drop(pintle);
        fs::remove_dir_all(bed.state()).unwrap();
        bed.put(&bed.live);
    }
}

/// A chain and a key that do not fit: an installation that was killed half way, for one.
#[test]
fn half_a_pair_is_no_reason_not_to_start() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    drop(pintle);
    fs::copy(&bed.next.key, bed.key()).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert!(refusal(&pintle)["reasons"].to_string().contains("does not match"), "{}", refusal(&pintle));
    fs::copy(&bed.next.chain, bed.chain()).unwrap();
    eventually("the other half is taken up", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    drop(pintle);
    fs::remove_file(bed.chain()).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

#[test]
fn what_has_expired_can_be_started_again() {
    let bed = Bed::new();
    let soon = bed.authority.issue_as("soon", bed.live.key.clone(), &HOSTS, |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::seconds(3);
    });
    bed.put(&soon);
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &soon);
    let config = bed.config(&bed.pins("30d"), "");
    eventually("it has expired", || check(&bed, &config).1.contains("expired").then_some(()));
    drop(pintle);
    let (code, err) = check(&bed, &config);
    assert!(code == 0 && err.contains("it was served before, and stays in use"), "{err}");
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert_eq!(code, 0, "{err}");
    drop(pintle);
    let line = Line::start(&bed.authority, LISTEN, &config);
    line.upgrade();
    assert_eq!(bed.served(&line.pintle), bed.live.pin);
    // Nobody has served this one: it is refused.
    let late = bed.authority.leaf_of("late", &["late.example.com"], KeyKind::Ecdsa, -9, -1);
    let site = bed.config_of(&late.chain, &late.key, "", "").replace(BLOG, "late.example.com");
    assert_eq!(check(&bed, &site).0, 1);
}

#[test]
fn a_backup_that_is_live_is_no_reason_not_to_start() {
    let bed = Bed::new();
    let one =
        |age: &str| format!("[site.hpkp]\nmax_age = \"{age}\"\nbackups = [{:?}]\n", bed.next.key.with_extension("csr"));
    let pintle = bed.start(&one("1s"));
    assert!(bed.header(&pintle).is_some());
    bed.put(&bed.next);
    eventually("the next key is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    assert_eq!(bed.header(&pintle), None);
    drop(pintle);
    // Nobody holds it any more: what was promised was for a second, and a lease.
    fs::remove_dir_all(bed.state()).unwrap();
    let pintle = bed.start(&one("1s"));
    assert_eq!((bed.served(&pintle), bed.header(&pintle)), (bed.next.pin.clone(), None));
    pintle.logs("is a key of the served chain, not a backup");
    output(&mut pintle.command("reload"));
    let renewed = bed.authority.renew("renewed", &bed.next.key, &HOSTS, 91);
    bed.put(&renewed);
    eventually("the renewal is taken up", || pintle.log_json("certificate").into_iter().nth(1));
    assert_eq!(refusal(&pintle), serde_json::Value::Null);
}

#[test]
fn a_backup_that_is_gone_withholds_pins_and_nothing_else() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    drop(pintle);
    fs::remove_file(bed.spare.key.with_extension("csr")).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!((bed.served(&pintle), bed.header(&pintle)), (bed.live.pin.clone(), None));
    pintle.logs("a backup is no longer readable, so pintle sends no pins");
}

#[test]
fn of_a_pair_of_kinds_each_is_judged_apart() {
    let bed = Bed::new();
    let rsa = bed.authority.leaf_of("rsa", &HOSTS, KeyKind::Rsa, -1, 90);
    let path = |name: &str| bed.folder.path().join(name);
    let put_rsa = |leaf: &Leaf| {
        fs::copy(&leaf.key, path("rsa.key")).unwrap();
        fs::copy(&leaf.chain, path("rsa.pem")).unwrap();
    };
    put_rsa(&rsa);
    let config = bed.config(&bed.pins("30d"), "").replace("[site.certificate]", "[[site.certificate]]").replace(
        "[site.hpkp]",
        &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n[site.hpkp]", path("rsa.pem"), path("rsa.key")),
    );
    let pintle = Pintle::start(&bed.authority, &config);
    copied(&bed, &rsa);
    copied(&bed, &bed.live);
    // A file that cannot be read, and then a key that was never promised.
    fs::write(path("rsa.pem"), "garbage").unwrap();
    eventually("it is refused", || pintle.log_json(REFUSED).pop());
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    bed.put(&renewed);
    eventually("the other is renewed", || pintle.log_json("certificate").into_iter().nth(2));
    let stranger = bed.authority.leaf_of("rsa-stranger", &HOSTS, KeyKind::Rsa, -1, 90);
    put_rsa(&stranger);
    eventually("the guard refuses it", || (refusal(&pintle)["by_guard"] == true).then_some(()));
    let again = bed.authority.renew("again", &bed.live.key, &HOSTS, 92);
    bed.put(&again);
    eventually("the other is renewed again", || pintle.log_json("certificate").into_iter().nth(3));
    copied(&bed, &bed.live);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    let pins: Vec<String> =
        pintle.log_json("certificate").iter().map(|line| line["pin"].as_str().unwrap().to_owned()).collect();
    assert_eq!(pins, [bed.live.pin.as_str(), rsa.pin.as_str()]);
}

/// A bad pair holds up no installation of the other, and a lockout is accepted for the chain that is installed alone.
#[test]
fn an_installation_is_about_its_own_pair() {
    let bed = Bed::new();
    let rsa = bed.authority.leaf_of("rsa", &HOSTS, KeyKind::Rsa, -1, 90);
    let path = |name: &str| bed.folder.path().join(name);
    fs::copy(&rsa.key, path("rsa.key")).unwrap();
    fs::copy(&rsa.chain, path("rsa.pem")).unwrap();
    let config = bed.config(&bed.pins("30d"), "").replace("[site.certificate]", "[[site.certificate]]").replace(
        "[site.hpkp]",
        &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n[site.hpkp]", path("rsa.pem"), path("rsa.key")),
    );
    let pintle = Pintle::start(&bed.authority, &config);
    assert!(Client::new(&bed.authority).get(pintle.https(), BLOG, "/").field("public-key-pins").is_some());
    bed.put(&bed.stranger);
    eventually("the ECDSA pair is refused", || pintle.log_json(REFUSED).pop());
    let install = |leaf: &Leaf, more: &[&str]| {
        let mut install = crate::harness::pintle();
        install.args(["install", "--site", BLOG, "-c"]).arg(pintle.config_path()).args(more);
        outcome(install.args([&leaf.chain, &leaf.key]))
    };
    let (code, out, err) = install(&bed.authority.renew("rsa-renewed", &rsa.key, &HOSTS, 91), &[]);
    assert_eq!(code, 0, "{out}{err}");
    let stranger = bed.authority.leaf_of("rsa-stranger", &HOSTS, KeyKind::Rsa, -1, 90);
    let (code, _, err) = install(&stranger, &[]);
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    let day = err.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
    let (code, out, err) = install(&stranger, &["--accept-lockout-until", &day]);
    let pins = pintle.status()["sites"][0]["certificates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|certificate| certificate["pin"].as_str().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(pins, [bed.live.pin.clone(), stranger.pin.clone()], "{code} {out}{err}");
    assert_eq!(refusal(&pintle)["by_guard"], true);
}

/// The child's file is bad, and would break the parent's promise; the parent renews with the same key.
#[test]
fn a_bad_child_does_not_hold_up_its_parent() {
    let bed = Bed::new();
    let child = bed.authority.renew("child", &bed.live.key, &["shop.blog.example.com"], 90);
    let (chain, key) = (bed.folder.path().join("shop.pem"), bed.folder.path().join("shop.key"));
    let put = |leaf: &Leaf| {
        fs::copy(&leaf.key, &key).unwrap();
        fs::copy(&leaf.chain, &chain).unwrap();
    };
    put(&child);
    let site = format!(
        "[[site]]\nhosts = [\"shop.blog.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n",
        bed.origin.url()
    );
    let with = format!("{}include_subdomains = true\n", bed.pins("30d"));
    let pintle = Pintle::start(&bed.authority, &(bed.config(&with, "") + &site));
    copied(&bed, &bed.live);
    put(&bed.authority.leaf("shop-stranger", &["shop.blog.example.com"]));
    eventually("the child is refused", || pintle.log_json(REFUSED).pop());
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    bed.put(&renewed);
    eventually("the parent is renewed", || {
        let renewed = pintle.log_json("certificate").into_iter().nth(2)?;
        (renewed["site"] == BLOG).then_some(())
    });
    let refused = pintle.log_json(REFUSED);
    assert!(refused.iter().all(|line| line["site"] == "shop.blog.example.com"), "{refused:?}");
}

/// The chain in use breaks another node's promise: refusing its renewal would help no client.
#[test]
fn a_merged_promise_that_is_broken_already_refuses_no_renewal() {
    let (bed, node) = (Bed::new(), Bed::new());
    drop(node.start(&node.pins("30d")));
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let pintle = &line.pintle;
    copied(&bed, &bed.live);
    let merged = node.state().join("ledger.jsonl");
    output(pintle.command("ledger merge").arg(&merged));
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    bed.put(&renewed);
    eventually("the renewal is taken up", || pintle.log_json("certificate").into_iter().nth(1));
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && err.contains("the key in use breaks these promises, too"), "{err}");
    line.upgrade();
    line.signal("KILL");
    line.wait(line.pid());
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // Another key is a change, and is refused.
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
}

/// The disk has room for merged promises, and none for the excuse of the pair in use, whose copy it has refused, too: nothing
/// is merged, as the next start would refuse the pair.
#[test]
fn a_merge_without_room_for_its_excuse() {
    let (bed, node) = (Bed::new(), Bed::new());
    drop(node.start(&node.pins("30d")));
    let merged = node.state().join("ledger.jsonl");
    let more: Vec<String> = (0..200).map(|n| format!("a-long-name-{n}.blog.example.com")).collect();
    let hosts: Vec<&str> = HOSTS.into_iter().chain(more.iter().map(String::as_str)).collect();
    let large = bed.authority.renew("large", &bed.next.key, &hosts, 90);
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    let limit = |more: &str| {
        let pid = pintle.pid().to_string();
        output(std::process::Command::new("prlimit").args([&format!("--fsize={more}:"), "--pid", &pid]));
    };
    let len = || fs::metadata(bed.state().join("ledger.jsonl")).unwrap().len();
    limit(&(len() + 2000).to_string());
    bed.put(&large);
    eventually("the next pins are sent", || bed.header(&pintle).filter(|pins| !pins.contains(&bed.live.pin)));
    pintle.logs("cannot copy the pairs in use to state.directory");
    let text = fs::read_to_string(&merged).unwrap();
    let news = text.lines().find(|line| line.contains("\"type\":\"promise\"")).unwrap().len() as u64;
    limit(&(len() + news + 40).to_string());
    let (code, out, err) = outcome(pintle.command("ledger merge").arg(&merged));
    assert!(code == 1 && err.contains("the ledger cannot be written"), "{out}{err}");
    assert_eq!(bed.served(&pintle), large.pin);
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), large.pin);
    // With room, the merge brings both.
    output(pintle.command("ledger merge").arg(&merged));
    let _ = fs::remove_dir_all(bed.state().join("last-good"));
    drop(pintle);
    assert_eq!(bed.served(&bed.start(&bed.pins("30d"))), large.pin);
}

/// Copies made before a key process has the keys have keys of their own: the serving process neither uses nor keeps them.
#[test]
fn a_key_process_takes_the_keys_out_of_copies() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let has_key = || copies(&bed).iter().any(|copy| fs::read_to_string(copy).unwrap().contains("PRIVATE KEY"));
    eventually("the pair is copied", || has_key().then_some(()));
    drop(pintle);
    let config = format!("[tls]\nkey_process = true\n{}", bed.config(&bed.pins("30d"), ""));
    // The file has another key: the copied one is not let into this process.
    bed.put(&bed.stranger);
    let path = bed.folder.path().join("kept.toml");
    fs::write(&path, format!("{LISTEN}{config}")).unwrap();
    let refused = does_not_start(&path);
    assert!(refused.contains("would lock readers out"), "{refused}");
    assert!(has_key(), "the only copy of the live key is lost");
    // Without the live key, the site has no certificate. The copy stays.
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(pintle.status()["sites"][0]["without_certificate"], "broken");
    assert!(has_key(), "the only copy of the live key is lost");
    drop(pintle);
    bed.put(&bed.live);
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    eventually("the copy has the chain alone", || (!has_key() && !copies(&bed).is_empty()).then_some(()));
}

/// A process of their own has the keys, so that the copy has none: the key's file still has it, and the start goes on.
#[test]
fn a_copy_without_a_key_is_served_with_the_key_in_its_file() {
    let (bed, node) = (Bed::new(), Bed::new());
    drop(node.start(&node.pins("30d")));
    let config = format!("[tls]\nkey_process = true\n{}", bed.config(&bed.pins("30d"), ""));
    let start = || Pintle::start(&bed.authority, &config);
    let pintle = start();
    eventually("the chain is copied", || copies(&bed).pop());
    assert!(!fs::read_to_string(&copies(&bed)[0]).unwrap().contains("PRIVATE KEY"));
    output(pintle.command("ledger merge").arg(node.state().join("ledger.jsonl")));
    drop(pintle);
    // The live key breaks what was merged.
    let pintle = start();
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    fs::write(bed.chain(), "garbage").unwrap();
    let pintle = start();
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    // Another key in the file is no stand-in, nor is it let in.
    bed.put(&bed.stranger);
    let path = bed.folder.path().join("again.toml");
    fs::write(&path, format!("{LISTEN}{config}")).unwrap();
    let refused = does_not_start(&path);
    assert!(refused.contains("would lock readers out"), "{refused}");
}

/// A parent whose pins would bind a child that has none of these keys serves on without pins; and without pins it goes
/// on, whatever is looked at later.
#[test]
fn pins_that_are_withheld_from_a_start_stay_so() {
    let bed = Bed::new();
    let child = bed.authority.leaf("child", &["shop.blog.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"shop.blog.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        child.chain,
        child.key
    );
    let line = Line::start(&bed.authority, LISTEN, &(bed.config(&bed.pins("30d"), "") + &site));
    let pintle = &line.pintle;
    copied(&bed, &bed.live);
    assert!(bed.header(pintle).is_some());
    pintle.rewrite(|text| text.replacen("max_age = \"30d\"", "max_age = \"29d\"\ninclude_subdomains = true", 1));
    let err = pintle.reload_fails();
    assert!(err.contains("would lock readers out of shop.blog.example.com"), "{err}");
    // A check refuses what a reload refuses, and says what a start does.
    let (code, _, err) = outcome(&mut pintle.command("check"));
    let note = format!("note: a reload refuses this. `pintle run` starts anyway, and sends no pins for {BLOG}");
    assert!(code == 1 && err.contains(&note), "{err}");
    let (code, out, _) = outcome(&mut pintle.command("check --json"));
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["ok"], &answer["starts"]), (1, &false.into(), &true.into()), "{out}");
    assert_eq!(answer["withheld"], serde_json::json!([BLOG]));
    line.upgrade();
    let client = Client::new(&bed.authority);
    let is_told = || client.get(pintle.https(), BLOG, "/").field("public-key-pins").map(str::to_owned);
    assert_eq!(is_told(), None);
    // Looked at once more, for a renewal with the same key: it is served, without pins.
    let renewed = bed.authority.renew("renewed", &bed.live.key, &HOSTS, 91);
    let known = pintle.log_json("certificate").len();
    bed.put(&renewed);
    eventually("the renewal is served", || (pintle.log_json("certificate").len() > known).then_some(()));
    assert!(pintle.log_json(REFUSED).is_empty());
    assert_eq!(is_told(), None);
    line.upgrade();
    assert_eq!(is_told(), None);
    output(&mut pintle.command("reload"));
    assert_eq!(is_told(), None);
}

/// A second site, with a key of its own and a certificate for both names.
fn with_other(bed: &Bed, hosts: &str) -> String {
    let other = bed.authority.leaf("other", &["other.example.com", "www.example.com"]);
    format!(
        "\n[[site]]\nhosts = {hosts}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        other.chain,
        other.key
    )
}

/// A site gets another site's name: its key is in use, but nobody who asks for that name has met it.
#[test]
fn a_name_that_moves_to_a_key_in_use_takes_its_promises_along() {
    let bed = Bed::new();
    let other = with_other(&bed, "[\"other.example.com\"]");
    let pintle = Pintle::start(&bed.authority, &(bed.config(&bed.pins("30d"), "") + &other));
    assert!(bed.header(&pintle).is_some());
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    let both = "[\"other.example.com\", \"www.example.com\"]";
    pintle.rewrite(|text| {
        let one = text.replace(&format!("[\"{BLOG}\", \"www.example.com\"]"), &format!("[\"{BLOG}\"]"));
        one.replace("[\"other.example.com\"]", both)
    });
    let refused = pintle.reload_fails();
    assert!(refused.contains("would lock readers out"), "{refused}");
    // Nor by a start.
    let config = pintle.config_path();
    let started = fs::read_to_string(&config).unwrap();
    let again = bed.folder.path().join("again.toml");
    fs::write(&again, started).unwrap();
    drop(pintle);
    let refused = does_not_start(&again);
    assert!(refused.contains("would lock readers out"), "{refused}");
}

/// The errors of a strict start that is refused.
fn does_not_start(config: &Path) -> String {
    let mut command = std::process::Command::new("timeout");
    command
        .env("PINTLE_ALLOW_ROOT", "1")
        .args(["20", env!("CARGO_BIN_EXE_pintle"), "run", "--strict", "-c"])
        .arg(config);
    let (code, out, err) = outcome(&mut command);
    assert_eq!(code, 1, "{out}{err}");
    err
}

/// A copy of a pair that was served before the last one, as it may come back with a folder of long ago.
#[test]
fn an_old_copy_excuses_no_breach() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    drop(pintle);
    let (copy, aside) = (copies(&bed).remove(0), bed.folder.path().join("aside"));
    fs::copy(&copy, &aside).unwrap();
    bed.put(&bed.next);
    let stranger = bed.authority.csr(&bed.stranger);
    let pins = bed.pins("30d").replace(&format!("{:?}, ", bed.next.key.with_extension("csr")), "");
    let config = bed.config(&pins.replace("backups = [", &format!("backups = [{stranger:?}, ")), "");
    let pintle = Pintle::start(&bed.authority, &config);
    let header = bed.header(&pintle).unwrap();
    assert!(header.contains(&bed.next.pin) && !header.contains(&bed.live.pin), "{header}");
    copied(&bed, &bed.next);
    drop(pintle);
    fs::remove_file(copies(&bed).remove(0)).unwrap();
    fs::copy(&aside, &copy).unwrap();
    let path = bed.folder.path().join("again.toml");
    fs::write(&path, format!("{LISTEN}{config}")).unwrap();
    for puts in [Some(&bed.live), None] {
        match puts {
            Some(leaf) => bed.put(leaf),
            None => fs::write(bed.chain(), "garbage").unwrap(),
        }
        let refused = does_not_start(&path);
        assert!(refused.contains("would lock readers out"), "{refused}");
    }
}

/// A promise that comes while an upgrade is under way, after the new process has checked everything: the old one keeps it.
#[test]
fn a_promise_in_the_middle_of_an_upgrade_counts() {
    let bed = Bed::new();
    let node = Bed::new();
    // Another node, with the same live key and other backups.
    let csr = |leaf: &Leaf| bed.authority.csr(leaf);
    let pins = format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = [{:?}, {:?}]\n", csr(&bed.spare), csr(&bed.stranger));
    drop(Pintle::start(&bed.authority, &node.config_of(&bed.chain(), &bed.key(), &pins, "")));
    let held = Arc::new(AtomicBool::new(true));
    let holds = held.clone();
    let origin = Origin::start(move |request| {
        while request.field("user-agent") == Some("pintle-upgrade") && holds.load(Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Reply::new("200 OK", "", "")
    });
    let config = bed.config(&bed.pins("30d"), "").replace(&bed.origin.url(), &origin.url());
    let line = Line::start(&bed.authority, LISTEN, &format!("[process]\nprove_upstream = true\n{config}"));
    line.pintle.rewrite(|text| {
        let chain = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.next.chain));
        chain.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.next.key))
    });
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| outcome(line.pintle.command("upgrade").arg("--json")));
        eventually("the new process proves itself", || {
            origin.received().iter().any(|r| r.field("user-agent") == Some("pintle-upgrade")).then_some(())
        });
        output(line.pintle.command("ledger merge").arg(node.state().join("ledger.jsonl")));
        held.store(false, Ordering::Relaxed);
        let (code, out, err) = upgrade.join().unwrap();
        assert!(code == 1 && out.contains("would lock readers out"), "{out}{err}");
    });
    assert_eq!(bed.served(&line.pintle), bed.live.pin);
}

/// The file has another key a moment after it was read; and it may be in DER, of which a copy is made in PEM.
#[test]
fn a_key_is_copied_as_it_was_read() {
    let bed = Bed::new();
    output(
        std::process::Command::new("openssl")
            .args(["pkey", "-outform", "DER", "-in"])
            .arg(&bed.live.key)
            .arg("-out")
            .arg(bed.key()),
    );
    let pintle = bed.start(&bed.pins("30d"));
    bed.put(&bed.stranger);
    eventually("the pair is copied", || copies(&bed).pop());
    let copy = fs::read_to_string(&copies(&bed)[0]).unwrap();
    assert!(copy.contains("-----BEGIN PRIVATE KEY-----") || copy.contains("-----BEGIN EC PRIVATE KEY-----"));
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert_eq!(bed.served(&pintle), bed.live.pin);
}
