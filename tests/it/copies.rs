//! Copies of the pairs in use: sites that share files, one file for certificate and key, names and paths that change,
//! sites that are removed; and installations that are interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{BLOG, Client, KeyKind, Leaf, Pintle, eventually, outcome, output, pintle};
use crate::last_good::{LISTEN, REFUSED, copied, copies};
use crate::loss::command;
use crate::rotation::{Bed, refusal};

const OTHER: &str = "other.example.com";

/// Two sites with the same files: one with pins, one without.
fn two_sites(bed: &Bed) -> String {
    let one = bed
        .config(&bed.pins("30d"), "")
        .replace(&format!("[\"{BLOG}\", \"www.example.com\"]"), &format!("[\"{BLOG}\"]"));
    let two = format!(
        "[[site]]\nhosts = [\"{OTHER}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        bed.chain(),
        bed.key()
    );
    one + &two
}

/// The pins of the leaves that the sites serve.
fn live_pins(pintle: &Pintle) -> Vec<String> {
    let status = pintle.status();
    let pin = |site: &Value| site["certificates"][0]["pin"].as_str().unwrap_or_default().to_owned();
    status["sites"].as_array().unwrap().iter().map(pin).collect()
}

#[test]
fn a_site_that_refuses_a_shared_file_starts_again() {
    let bed = Bed::new();
    let hosts = [BLOG, OTHER];
    let old = bed.authority.renew("shared", &bed.live.key, &hosts, 90);
    let new = bed.authority.renew("shared-new", &bed.stranger.key, &hosts, 90);
    bed.put(&old);
    let config = two_sites(&bed);
    let pintle = Pintle::start(&bed.authority, &config);
    assert!(bed.header(&pintle).is_some());
    eventually("both sites have a copy", || (copies(&bed).len() == 2).then_some(()));
    bed.put(&new);
    eventually("the site with pins refuses it", || pintle.log_json(REFUSED).pop());
    let both = [old.pin.clone(), new.pin.clone()];
    eventually("the site without pins takes it", || (live_pins(&pintle) == both).then_some(()));
    eventually("the copies are those of the sites", || (copies(&bed).len() == 2).then_some(()));
    drop(pintle);
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &config);
        assert_eq!(live_pins(&pintle), both);
        assert_eq!(refusal(&pintle)["by_guard"], true);
    }
}

/// The renewal has the same key, and lacks the name of one site.
#[test]
fn a_site_keeps_its_certificate_if_the_shared_file_lacks_its_name() {
    let bed = Bed::new();
    bed.put(&bed.authority.renew("shared", &bed.live.key, &[BLOG, OTHER], 90));
    let config = two_sites(&bed);
    let pintle = Pintle::start(&bed.authority, &config);
    eventually("both sites have a copy", || (copies(&bed).len() == 2).then_some(()));
    bed.put(&bed.authority.renew("renewed", &bed.live.key, &[BLOG], 91));
    eventually("one site refuses it", || pintle.log_json(REFUSED).pop());
    eventually("one site takes it", || pintle.log_json("certificate").into_iter().nth(2));
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    let client = Client::new(&bed.authority);
    for host in [BLOG, OTHER] {
        assert_eq!(client.get(pintle.https(), host, "/").status, 200, "{host}");
    }
    let status = pintle.status();
    assert_eq!((&status["sites"][0]["refused"], status["sites"][1]["refused"].is_null()), (&Value::Null, false));
}

/// The first name of a site identifies it nowhere: the order of its names may change.
#[test]
fn names_change_their_order_while_a_file_is_refused() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let turned = |text: &str| {
        text.replace(&format!("[\"{BLOG}\", \"www.example.com\"]"), &format!("[\"www.example.com\", \"{BLOG}\"]"))
    };
    pintle.rewrite(turned);
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    copied(&bed, &bed.live);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &turned(&bed.config(&bed.pins("30d"), "")));
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// The key in use breaks a merged promise. The same pair in other files breaks nothing more.
#[test]
fn a_pair_moves_to_another_path_although_it_breaks_a_merged_promise() {
    let (bed, node) = (Bed::new(), Bed::new());
    drop(node.start(&node.pins("30d")));
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    output(pintle.command("ledger merge").arg(node.state().join("ledger.jsonl")));
    let moved = |path: &Path| bed.folder.path().join(format!("moved-{}", path.file_name().unwrap().to_str().unwrap()));
    for path in [bed.chain(), bed.key()] {
        fs::copy(&path, moved(&path)).unwrap();
    }
    let rename = |text: &str| {
        [bed.chain(), bed.key()]
            .iter()
            .fold(text.to_owned(), |text, path| text.replace(&format!("{path:?}"), &format!("{:?}", moved(path))))
    };
    pintle.rewrite(rename);
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && err.contains("the key in use breaks these promises, too"), "{out}{err}");
    // At a start, the copy of the other path says so.
    let pintle = {
        drop(pintle);
        bed.start(&bed.pins("30d"))
    };
    copied(&bed, &bed.live);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &rename(&bed.config(&bed.pins("30d"), "")));
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// One file with the certificates and then the key, as HAProxy has it.
fn in_one(leaf: &Leaf) -> String {
    fs::read_to_string(&leaf.chain).unwrap() + &fs::read_to_string(&leaf.key).unwrap()
}

#[test]
fn a_key_behind_its_certificates_is_copied() {
    let bed = Bed::new();
    let put = |text: String| {
        let new = bed.chain().with_extension("tmp");
        fs::write(&new, text).unwrap();
        fs::rename(new, bed.chain()).unwrap();
    };
    put(in_one(&bed.live));
    let config = bed.config_of(&bed.chain(), &bed.chain(), &bed.pins("30d"), "");
    let pintle = Pintle::start(&bed.authority, &config);
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    put(in_one(&bed.stranger));
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    // An installation writes both into the file.
    let install = |leaf: &Leaf| outcome(&mut pintle_install(&pintle.config_path(), &[&leaf.chain, &leaf.key]));
    let (code, out, err) = install(&bed.next);
    assert!(code == 0 && out.contains("verified"), "{out}{err}");
    let text = fs::read_to_string(bed.chain()).unwrap();
    let key = fs::read_to_string(&bed.next.key).unwrap();
    assert!(text.starts_with("-----BEGIN CERTIFICATE") && text.contains(key.lines().nth(1).unwrap()), "{text}");
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.next.pin);
}

fn pintle_install(config: &Path, files: &[&PathBuf]) -> Command {
    let mut command = pintle();
    command.args(["install", "--site", BLOG, "-c"]).arg(config).args(files);
    command
}

/// A configuration for commands without a process.
fn config_file(bed: &Bed, config: &str) -> PathBuf {
    let path = bed.folder.path().join("pintle.toml");
    fs::write(&path, format!("{LISTEN}{config}")).unwrap();
    path
}

fn old(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pintle-old", path.display()))
}

#[test]
fn an_interrupted_installation_with_the_key_behind_its_certificate_is_undone() {
    let bed = Bed::new();
    fs::write(bed.key(), in_one(&bed.live)).unwrap();
    let config = bed.config("", "");
    let path = config_file(&bed, &config);
    let new = bed.folder.path().join("new.key");
    fs::write(&new, in_one(&bed.next)).unwrap();
    let killed = pintle_install(&path, &[&bed.next.chain, &new]).env("PINTLE_TEST_DIE_AT", "1").output().unwrap();
    assert_eq!(killed.status.code(), None);
    let pintle = Pintle::start(&bed.authority, &config);
    pintle.logs("it is undone, and the previous files are back");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(fs::read_to_string(bed.key()).unwrap(), in_one(&bed.live));
    assert!(!old(&bed.key()).exists() && !old(&bed.chain()).exists());
}

/// The lockout is not in the ledger yet, so the new certificate is refused. The previous files have the only live key.
#[test]
fn an_interrupted_installation_that_would_be_refused_is_undone() {
    for key_process in [false, true] {
        let bed = Bed::new();
        let more = if key_process { "[tls]\nkey_process = true\n" } else { "" };
        let config = more.to_owned() + &bed.config(&bed.pins("30d"), "");
        let running = Pintle::start(&bed.authority, &config);
        assert!(bed.header(&running).is_some());
        drop(running);
        let path = config_file(&bed, &config);
        let (_, _, err) = outcome(&mut pintle_install(&path, &[&bed.stranger.chain, &bed.stranger.key]));
        let day = err.split("--accept-lockout-until ").nth(1).unwrap()[..10].to_owned();
        let mut install = pintle();
        install.args(["install", "--site", BLOG, "--accept-lockout-until", &day, "-c"]).arg(&path);
        let killed = install.args([&bed.stranger.chain, &bed.stranger.key]).env("PINTLE_TEST_DIE_AT", "2").output();
        assert_eq!(killed.unwrap().status.code(), None);
        assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.stranger.key).unwrap());
        let (_, _, message) = outcome(pintle().args(["check", "-c"]).arg(&path));
        assert!(message.contains("pintle refuses its certificate"), "{message}");
        let running = Pintle::start(&bed.authority, &config);
        running.logs("so it is undone, and the previous files are back");
        assert_eq!(bed.served(&running), bed.live.pin);
        assert_eq!(fs::read(bed.key()).unwrap(), fs::read(&bed.live.key).unwrap(), "the live key is back");
        assert!(!old(&bed.key()).exists() && !old(&bed.chain()).exists());
    }
}

/// The only copy of the live key is in the state, and its site goes: a promise needs the key.
#[test]
fn the_key_of_a_removed_site_is_set_aside() {
    let bed = Bed::new();
    let shop = bed.authority.leaf("shop", &[OTHER]);
    let other = format!(
        "[[site]]\nhosts = [\"{OTHER}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        shop.chain,
        shop.key
    );
    let own = bed.config(&bed.pins("30d"), "");
    let (state, site) = own.split_at(own.find("[[site]]").unwrap());
    let both = own.clone() + &other;
    let running = Pintle::start(&bed.authority, &both);
    assert!(bed.header(&running).is_some());
    copied(&bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || running.log_json(REFUSED).pop());
    running.rewrite(|text| text.replace(site, ""));
    output(&mut running.command("reload"));
    let status = running.status();
    let former = status["ledger"]["former_copies"][0]["file"].as_str().unwrap_or_else(|| panic!("{status:#}"));
    let human = output(&mut running.command("status"));
    assert!(human.contains("FORMER KEY") && former.ends_with(".former"), "{human}");
    let (_, _, err) = outcome(pintle().args(["check", "-c"]).arg(running.config_path()));
    let command = err.split("pintle install --site ").nth(1).unwrap_or_else(|| panic!("{err}"));
    let file = PathBuf::from(command.split_whitespace().nth(1).unwrap());
    assert!(fs::read_to_string(&file).unwrap().contains(fs::read_to_string(&bed.live.key).unwrap().trim()), "{err}");
    drop(running);
    // A start leaves it, too; and what the hint says brings the site back.
    drop(Pintle::start(&bed.authority, &format!("{state}{other}")));
    let path = config_file(&bed, &both);
    let (code, out, err) = outcome(&mut pintle_install(&path, &[&file, &file]));
    assert_eq!(code, 0, "{out}{err}");
    assert!(!fs::read_to_string(bed.chain()).unwrap().contains("PRIVATE KEY"), "everybody may read it");
    let running = Pintle::start(&bed.authority, &both);
    assert_eq!(bed.served(&running), bed.live.pin);
    copied(&bed, &bed.live);
    eventually("it is no longer needed", || (!file.exists()).then_some(()));
}

/// A backup's file is overwritten with the other backup's key.
#[test]
fn a_backup_that_is_listed_twice_is_no_reason_not_to_start() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    drop(pintle);
    let csr = |leaf: &Leaf| leaf.key.with_extension("csr");
    fs::copy(csr(&bed.spare), csr(&bed.next)).unwrap();
    let pintle = bed.start(&bed.pins("30d"));
    pintle.logs("is listed twice, and counts once");
    let header = bed.header(&pintle).unwrap();
    assert!(header.contains(&bed.live.pin) && header.contains(&bed.spare.pin), "{header}");
    output(&mut pintle.command("reload"));
    // A site that nobody has served is refused.
    drop(pintle);
    fs::remove_dir_all(bed.state()).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &config_file(&bed, &bed.config(&bed.pins("30d"), ""))));
    assert!(code == 1 && err.contains("is listed twice"), "{err}");
}

/// With suites for one kind of key only, and without TLS 1.3, nobody could use a pair of the other kind.
#[test]
fn a_pair_without_a_suite_is_refused_and_the_old_one_starts_again() {
    let bed = Bed::new();
    let suites = "[tls]\nversions = [\"1.2\"]\ncipher_suites = [\"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\"]\n";
    let config = suites.to_owned() + &bed.config("", "");
    let pintle = Pintle::start(&bed.authority, &config);
    copied(&bed, &bed.live);
    bed.put(&bed.authority.leaf_of("rsa", &[BLOG, "www.example.com"], KeyKind::Rsa, -1, 90));
    eventually("it is refused", || pintle.log_json(REFUSED).pop());
    let reasons = refusal(&pintle)["reasons"].to_string();
    assert!(reasons.contains("no suite of TLS 1.2 fits the key"), "{reasons}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    let renewed = bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 91);
    bed.put(&renewed);
    eventually("a pair that fits is taken up", || refusal(&pintle).is_null().then_some(()));
}

#[test]
fn a_check_warns_of_promises_that_nobody_keeps() {
    let bed = Bed::new();
    let without = |hpkp: &str| {
        let config = bed.config(hpkp, "");
        config_file(&bed, &format!("[[site]]{}", config.split_once("[[site]]").unwrap().1))
    };
    let (code, out, err) = outcome(&mut command(&["check"], &without(&bed.pins("30d"))));
    assert!(code == 0 && err.contains("state.directory is not set") && out.contains("1 warning"), "{out}{err}");
    let json = output(command(&["check"], &without(&bed.pins("30d"))).arg("--json"));
    assert!(json.contains("state.directory is not set"), "{json}");
    let (_, _, err) = outcome(&mut command(&["check"], &without("")));
    assert!(!err.contains("state.directory"), "{err}");
}

#[test]
fn a_state_that_everybody_can_write_to_is_reported() {
    use std::os::unix::fs::PermissionsExt;

    let bed = Bed::new();
    fs::create_dir_all(bed.state()).unwrap();
    let config = config_file(&bed, &bed.config("", ""));
    for (mode, warned) in [(0o777, true), (0o770, false), (0o1777, true)] {
        fs::set_permissions(bed.state(), fs::Permissions::from_mode(mode)).unwrap();
        let (_, _, err) = outcome(&mut command(&["check"], &config));
        assert_eq!(err.contains("everybody on this host can write there"), warned, "{mode:o}: {err}");
    }
}

/// A key process has the only copy of the live key, once its file is overwritten.
#[test]
fn a_refusal_says_that_the_live_key_is_in_memory_only() {
    let bed = Bed::new();
    let config = format!("[tls]\nkey_process = true\n{}", bed.config(&bed.pins("30d"), ""));
    let pintle = Pintle::start(&bed.authority, &config);
    assert!(bed.header(&pintle).is_some());
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let urgent = "no copy has the live key";
    assert!(refusal(&pintle).to_string().contains(urgent), "{}", refusal(&pintle));
    pintle.logs(urgent);
    let (_, _, err) = outcome(&mut command(&["check"], &pintle.config_path()));
    assert!(err.contains(urgent), "{err}");
    // A file that is garbage is as bad, and one whose key is right is not.
    fs::copy(&bed.live.key, bed.key()).unwrap();
    eventually("the key's file is back", || (!refusal(&pintle).to_string().contains(urgent)).then_some(()));
    assert!(!refusal(&pintle).is_null());
}
