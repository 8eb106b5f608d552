//! The preflight: one judgement of chain and key, wherever they come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Authority, Client, KeyKind, Leaf, Origin, Pintle, eventually, outcome, output, pintle};

/// A pair that must not be served, and what is said about it: the reason, and the remedy.
struct Bad {
    name: &'static str,
    chain: Vec<u8>,
    key: Vec<u8>,
    reason: &'static str,
    remedy: &'static str,
}

fn host(name: &str) -> String {
    format!("{name}.example.com")
}

fn all_bad(authority: &Authority) -> Vec<Bad> {
    let read = |leaf: &Leaf| (fs::read(&leaf.chain).unwrap(), fs::read(&leaf.key).unwrap());
    let dated = |name: &str, from, to| read(&authority.leaf_of(name, &[&host(name)], KeyKind::Ecdsa, from, to));
    let usual = |name: &str| dated(name, -1, 90);
    // Another CA that calls itself the same: the names in the chain fit, the signature does not.
    let impostor = Authority::new();
    let (forged, forged_key) = read(&impostor.leaf("forged", &[&host("forged")]));
    let forged = String::from_utf8(forged).unwrap().replace(impostor.ca_pem(), authority.ca_pem()).into_bytes();
    let clients =
        authority.issue_as("clients", authority.key("clients", KeyKind::Ecdsa), &[&host("clients")], |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
    let elsewhere = authority.leaf("elsewhere", &["somewhere.example.com", "else.example.com"]);
    let (chain, key) = usual("disorder");
    let chain = String::from_utf8(chain).unwrap();
    let (first, second) = chain.split_at(chain.find("-----END CERTIFICATE-----\n").unwrap() + 26);
    let disorder = (format!("{second}{first}").into_bytes(), key);
    let mixed = (usual("mixed").0, usual("mixed2").1);
    let garbage = (b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_vec(), usual("garbage").1);
    let no_key = (usual("keyless").0, b"nothing\n".to_vec());
    let bad = |name, (chain, key), reason, remedy| Bad { name, chain, key, reason, remedy };
    vec![
        bad(
            "forged",
            (forged, forged_key),
            "certificate 1 of the chain is not signed by the key of certificate 2",
            "intermediates",
        ),
        bad("expired", dated("expired", -90, -1), "expired on 20", "renew it"),
        bad("future", dated("future", 1, 90), "not valid before 20", "clock"),
        bad("clients", read(&clients), "is not for servers", "serverAuth"),
        bad(
            "elsewhere",
            read(&elsewhere),
            "does not cover elsewhere.example.com",
            "it is for somewhere.example.com, else",
        ),
        bad("weak", weak(authority.folder()), "its key is too weak for today's clients: rsa-1024", "make a new key"),
        bad("disorder", disorder, "certificate 1 of the chain was not issued by certificate 2", "put the leaf first"),
        bad("mixed", mixed, "the private key does not match the certificate", "prints the same pin"),
        bad("garbage", garbage, "no certificate chain", "pintle pin"),
        bad("keyless", no_key, "no usable private key", "PKCS#8"),
    ]
}

/// RSA with 1024 bits, which only openssl still makes.
fn weak(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let script = "openssl req -x509 -newkey rsa:1024 -nodes -keyout weak.key -out weak.pem -subj /CN=weak -days 30 \
                  -addext subjectAltName=DNS:weak.example.com";
    output(Command::new("sh").current_dir(folder).args(["-c", script]));
    (fs::read(folder.join("weak.pem")).unwrap(), fs::read(folder.join("weak.key")).unwrap())
}

struct Bed {
    authority: Authority,
    origin: Origin,
    folder: TempDir,
    bad: Vec<Bad>,
}

impl Bed {
    fn new() -> Self {
        let authority = Authority::new();
        let bad = all_bad(&authority);
        Self { bad, authority, origin: Origin::hello(), folder: TempDir::new().unwrap() }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Each file whole, as a careful renewal program puts it.
    fn put(&self, name: &str, chain: &[u8], key: &[u8]) {
        for (ending, contents) in [("key", key), ("pem", chain)] {
            let new = self.path("new");
            fs::write(&new, contents).unwrap();
            fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            fs::rename(new, self.path(&format!("{name}.{ending}"))).unwrap();
        }
    }

    fn put_good(&self, name: &str) -> Leaf {
        let leaf = self.authority.leaf(&format!("good-{name}"), &[&host(name)]);
        self.put(name, &fs::read(&leaf.chain).unwrap(), &fs::read(&leaf.key).unwrap());
        leaf
    }

    fn config(&self) -> String {
        let mut text = format!("[state]\ndirectory = {:?}\n", self.path("state"));
        for Bad { name, .. } in &self.bad {
            let (chain, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
            text.push_str(&format!(
                "[[site]]\nhosts = [\"{}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n",
                host(name),
                self.origin.url(),
            ));
        }
        text
    }
}

/// The start, for which `check` stands.
#[test]
fn at_the_start() {
    let bed = Bed::new();
    for bad in &bed.bad {
        bed.put(bad.name, &bad.chain, &bad.key);
    }
    let config = bed.path("pintle.toml");
    fs::write(&config, bed.config()).unwrap();
    let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
    assert_eq!(code, 1);
    for bad in &bed.bad {
        let found =
            err.split_once(bad.reason).unwrap_or_else(|| panic!("{}: {} is not in {err}", bad.name, bad.reason));
        let line = found.0.lines().last().unwrap();
        assert!(line.contains("pintle.toml:") && line.contains(&format!("{}.", bad.name)), "{}: {line}", bad.name);
        let hint = found.1.lines().find(|l| l.starts_with("  hint: ")).unwrap_or_default();
        assert!(hint.contains(bad.remedy), "{}: {hint}", bad.name);
    }
    let (code, _, err) = outcome(pintle().args(["run", "--strict", "-c"]).arg(&config));
    assert!(code == 1 && bed.bad.iter().all(|bad| err.contains(bad.reason)), "{err}");
}

/// The same candidates, come to lie where the good ones were.
#[test]
fn while_serving() {
    let bed = Bed::new();
    let good: Vec<Leaf> = bed.bad.iter().map(|bad| bed.put_good(bad.name)).collect();
    let pintle = Pintle::start(&bed.authority, &bed.config());
    for bad in &bed.bad {
        bed.put(bad.name, &bad.chain, &bad.key);
    }
    let refusals = || pintle.log_json("certificate refused; the old one keeps serving");
    eventually("all are refused", || (refusals().len() >= bed.bad.len()).then_some(()));
    let (logged_now, status) = (refusals(), pintle.status());
    assert_eq!(logged_now.len(), bed.bad.len(), "{logged_now:#?}");
    let human = output(&mut pintle.command("status"));
    let metrics = crate::admin::get(&bed.path("state/admin.sock"), "/metrics");
    for (at, bad) in bed.bad.iter().enumerate() {
        let line = logged_now
            .iter()
            .find(|l| l["site"] == host(bad.name))
            .unwrap_or_else(|| panic!("{}: {logged_now:#?}", bad.name));
        let says = |line: &Value| line["reason"].as_str().is_some_and(|r| r.contains(bad.reason));
        assert!(says(line) && line["hint"].as_str().is_some_and(|h| h.contains(bad.remedy)), "{}: {line}", bad.name);
        let site = &status["sites"][at];
        let refused = &site["refused"];
        assert!(refused["by_guard"] == false && says(&refused["reasons"][0]), "{}: {refused}", bad.name);
        assert_eq!(site["certificates"][0]["pin"], good[at].pin.as_str());
        assert!(human.contains(bad.reason), "{}: {human}", bad.name);
        assert!(metrics.contains(&format!("pintle_certificate_refused{{site=\"{}\"}} 1", host(bad.name))), "{metrics}");
        // Whoever comes gets the old one, with a handshake that holds.
        assert_eq!(Client::new(&bed.authority).get(pintle.https(), &host(bad.name), "/").status, 200);
    }
    assert!(metrics.contains(&format!("pintle_rotations_refused_total {}", bed.bad.len())), "{metrics}");
    // Tried again when the files change, and at no other time.
    let renewed: Vec<Leaf> = bed.bad.iter().map(|bad| bed.put_good(bad.name)).collect();
    eventually("all are served", || {
        let status = pintle.status();
        let sites = status["sites"].as_array().unwrap();
        let fits = |(site, leaf): (&Value, &Leaf)| {
            site["certificates"][0]["pin"] == leaf.pin.as_str() && site["refused"].is_null()
        };
        sites.iter().zip(&renewed).all(fits).then_some(())
    });
    assert_eq!(refusals().len(), bed.bad.len());
}

/// Chains that are served with a warning in the log, although no command waits for an answer.
#[test]
fn older_than_the_one_in_use() {
    let bed = crate::rotation::Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let hosts = [crate::harness::BLOG, "www.example.com"];
    bed.put(&bed.authority.renew("older", &bed.live.key, &hosts, 60));
    eventually("the older one is served", || pintle.log_json("certificate").into_iter().nth(1));
    let warned = eventually("it is warned of", || pintle.log_json("in use, with a warning").pop());
    assert!(
        warned["level"] == "WARN" && warned["problem"].as_str().unwrap().contains("before the one in use"),
        "{warned}"
    );
    assert!(warned["hint"].as_str().unwrap().contains("no old file"), "{warned}");
    // One that ends soon is, too: the last week of two months.
    bed.put(&bed.authority.issue("soon", bed.live.key.clone(), &hosts, -60, 3));
    eventually("it is warned of", || {
        let is_soon = |problem: &str| problem.contains("expires on") && !problem.contains("before the one in use");
        pintle.log_json("in use, with a warning").into_iter().find(|l| is_soon(l["problem"].as_str().unwrap()))
    });
    assert_eq!(crate::rotation::refusal(&pintle), Value::Null);
}

/// A site whose files change without end is no reason for others to wait.
#[test]
fn others_do_not_wait() {
    let bed = Bed::new();
    for bad in &bed.bad {
        bed.put_good(bad.name);
    }
    let pintle = Pintle::start(&bed.authority, &bed.config());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A renewal that hangs in a loop, and never gets further than half a file.
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n += 1;
                fs::write(bed.path("mixed.pem"), format!("-----BEGIN CERTIFICATE-----\n{n}")).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        let renewed = bed.put_good("expired");
        eventually("the other one is served", || {
            (pintle.status()["sites"][1]["certificates"][0]["pin"] == renewed.pin.as_str()).then_some(())
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let logged_now = || pintle.log_json("certificate refused; the old one keeps serving");
    eventually("the broken file is logged once it stays as it is", || (logged_now().len() == 1).then_some(()));
}

/// The day on which a chain would be safe moves with every lease of the promises that it would break.
#[test]
fn told_once_though_its_dates_move() {
    let bed = crate::rotation::Bed::new();
    let pintle = bed.start(&bed.pins("5s"));
    bed.put(&bed.stranger);
    let refused = || crate::rotation::refusal(&pintle)["reasons"][0]["reason"].as_str().map(str::to_owned);
    let first = eventually("the stranger is refused", refused);
    let look =
        || crate::admin::post(&bed.state().join("admin.sock"), &format!("/certificates?host={}", crate::harness::BLOG));
    eventually("the dates have moved", || {
        assert!(look().contains("would lock readers out"));
        (refused()? != first).then_some(())
    });
    assert_eq!(pintle.log_json("certificate refused; the old one keeps serving").len(), 1);
    assert_eq!(pintle.status()["rotations_refused"], 1);
}

/// Faults in the rest of the configuration do not prevent renewals of certificates.
#[test]
fn a_folder_that_is_gone_is_no_hindrance() {
    let bed = crate::rotation::Bed::new();
    let webroot = bed.folder.path().join("webroot");
    fs::create_dir(&webroot).unwrap();
    let pintle = Pintle::start(&bed.authority, &format!("[acme]\nwebroot = {webroot:?}\n{}", bed.config("", "")));
    fs::remove_dir(&webroot).unwrap();
    bed.put(&bed.next);
    eventually("the renewed certificate is served", || (bed.served(&pintle) == bed.next.pin).then_some(()));
    // To ask for it is another thing.
    assert!(pintle.reload_fails().contains("acme.webroot"));
}
