//! `pintle acme` against a running process, and the account that it makes.

use std::fs;

use super::orders::{Bed, obtained, renew};
use crate::harness::double::{Answer, Double, Step, When};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{BLOG, Pintle, free_port, outcome, output, pintle};

#[test]
fn plans_renewals_and_accounts() {
    let bed = Bed::new(Settings::default());
    let acme = bed.acme(&bed.pebble.directory(), "email = \"you@example.com\"");
    let pintle = bed.start(&acme, &bed.site(&[BLOG, "www.example.com"], "", ""));
    obtained(&pintle, 1);
    let plan = output(pintle.command("acme plan").args(["--site", "www.example.com"]));
    for part in [
        "blog.example.com (ecdsa-p256): current, until 20",
        "names        blog.example.com, www.example.com",
        ": issued",
    ] {
        assert!(plan.contains(part), "{part:?} is not in:\n{plan}");
    }
    let accounts = output(&mut pintle.command("acme account"));
    for part in [bed.pebble.directory().as_str(), "  account  https://localhost:", "  email    you@example.com"] {
        assert!(accounts.contains(part), "{part:?} is not in:\n{accounts}");
    }
    let said = output(pintle.command("acme renew").args(["--site", "www.example.com"]));
    assert!(said.contains("pintle orders now"), "{said}");
    obtained(&pintle, 2);
    // Without pins, nobody waits for the next key.
    let pin = bed.spki("ecdsa-p256");
    let said = output(pintle.command("key rotate").args(["--site", BLOG]));
    assert!(said.contains("pintle orders with it now"), "{said}");
    obtained(&pintle, 3);
    assert_ne!(bed.spki("ecdsa-p256"), pin);
    for command in ["acme plan", "acme renew", "key rotate"] {
        let (code, _, error) = outcome(pintle.command(command).args(["--site", "other.example.com"]));
        assert!(code == 1 && error.contains("hint:"), "{command}: {code} {error}");
    }
}

/// Before any order.
#[test]
fn a_check_asks_the_authority_for_the_settings_that_it_wants() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let bed = Bed::new(Settings { eab: vec![("kid-1", key)], ..Settings::default() });
    let check = |directory: &str, more: &str, form: &[&str]| {
        let text = format!("{}{}{}", bed.pebble.listen(), bed.acme(directory, more), bed.site(&[BLOG], "", ""));
        let path = bed.authority.write("check.toml", text);
        outcome(pintle().args(["check", "--allow-root", "--connect"]).args(form).arg("-c").arg(path))
    };
    let directory = bed.pebble.directory();
    let (code, out, err) = check(&directory, "", &[]);
    assert!(code == 1 && err.contains("needs an external account binding: eab = {"), "{out}{err}");
    let eab = format!("eab = {{ key_id = \"kid-1\", hmac_key_file = {:?} }}", bed.authority.write("eab.key", key));
    let (code, out, err) = check(&directory, &eab, &[]);
    assert!(code == 0 && out.contains(&format!("authority {directory}: answers")), "{out}{err}");
    let (code, out, err) = check(&directory, &format!("{eab}\nprofile = \"longlived\""), &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let authority = &report["authorities"][0];
    assert!(code == 1 && authority["reachable"] == true, "{out}{err}");
    assert!(authority["error"].as_str().unwrap().contains("does not offer \"longlived\""), "{out}");
    // An authority that is down now may be up when pintle orders.
    let (code, out, err) = check("https://localhost:1/dir", "", &[]);
    assert!(code == 0 && err.contains("warning: authority https://localhost:1/dir: "), "{out}{err}");
    assert_eq!(bed.pebble.orders(), 0);
    // Certificates from elsewhere need no account.
    let plain = bed.authority.write("plain.toml", format!("[state]\ndirectory = {:?}\n", bed.state()));
    let accounts = output(pintle().args(["acme", "account", "-c"]).arg(plain));
    assert!(accounts.contains("no site has acme = true"), "{accounts}");
}

#[test]
fn accounts_are_limited() {
    if !is_current() {
        return;
    }
    let bed = Bed::new(Settings::default());
    let pintle = bed.run();
    obtained(&pintle, 1);
    let forget = || {
        let files = fs::read_dir(bed.state().join("acme")).unwrap().map(|file| file.unwrap().path());
        let mut accounts = files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("account-"));
        fs::remove_file(accounts.next().unwrap()).unwrap();
    };
    for count in 2..5 {
        forget();
        renew(&bed);
        obtained(&pintle, count);
    }
    forget();
    renew(&bed);
    pintle.logs("pintle has made several accounts there already");
    assert_eq!(pintle.log_json("account registered").len(), 4);
}

#[test]
fn a_challenge_that_fails_at_the_authority_gives_way_to_another() {
    let bed = Bed::new(Settings::default());
    // A firewall that lets nobody in from outside: pintle itself comes through, at a port of its own.
    let (theirs, own) = (format!(":{}\"", bed.pebble.settings.http_port), format!(":{}\"", free_port()));
    let listen = bed.pebble.listen().replace(&theirs, &own);
    let config = bed.acme(&bed.pebble.directory(), "") + &bed.site(&[BLOG], "", "");
    let pintle = Pintle::start_with(&bed.authority, &listen, &config);
    pintle.logged("no certificate obtained", 1);
    renew(&bed);
    obtained(&pintle, 1);
    let used: Vec<_> = pintle.log_json("answering a challenge").iter().map(|l| l["challenge"].clone()).collect();
    assert_eq!(used, ["http-01", "tls-alpn-01"]);
    // The next one does not begin with a failure.
    renew(&bed);
    obtained(&pintle, 2);
    assert_eq!(pintle.log_json("no certificate obtained").len(), 1);
}

/// Before the first certificate: the keys exist, and with them every record of a zone.
#[test]
fn an_export_before_the_first_certificate_has_the_keys_that_exist() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    double.answer(Step::NewOrder, When::Always, Answer::problem(503, "serverInternal", "out of order"));
    let acme = bed.acme(&double.directory(), "");
    let pintle = bed.start(&acme, &bed.site(&[BLOG, "www.example.com"], "", ""));
    pintle.logs("no certificate obtained");
    let hex = |name: &str| {
        let file = bed.folder("ecdsa-p256").join(name);
        output(crate::harness::pintle().args(["pin", "--as", "hex"]).arg(file))
            .split_whitespace()
            .next()
            .unwrap()
            .to_owned()
    };
    let (live, next) = (hex("key.pem"), hex("next.pem"));
    for form in ["dns", "tlsa"] {
        let (code, out, error) = outcome(pintle.command("export").args(["--site", BLOG, "--as", form]));
        assert!(code == 0 && error.contains("no certificate yet"), "{form}: {error}");
        for key in [&live, &next] {
            assert!(out.to_lowercase().contains(key.trim()), "{form}: {key} is not in {out}");
        }
        if form == "dns" {
            assert!(out.contains(" IN HTTPS 1 "), "{out}");
            assert!(out.contains("IN CAA 0 issue ") || out.contains("No CAA records"), "{out}");
        }
    }
    let (code, out, error) = outcome(pintle.command("export").args(["--site", BLOG, "--json"]));
    assert!(code == 0 && out.contains("\"live\""), "{out}{error}");
    // `pintle check` says why there is none yet, and that the configuration can be served.
    let (code, out, error) = outcome(&mut pintle.command("check"));
    assert!(code == 0 && out.contains("none yet: pintle obtains it"), "{out}");
    assert!(error.contains("no certificate yet, attempts fail since") && error.contains("out of order"), "{error}");
    // Without keys, an export says so.
    drop(pintle);
    fs::remove_dir_all(bed.folder("ecdsa-p256")).unwrap();
    let config = bed.authority.write("other.toml", acme + &bed.site(&[BLOG, "www.example.com"], "", ""));
    let (code, out, error) =
        outcome(crate::harness::pintle().args(["export", "--site", BLOG, "--as", "dns", "-c"]).arg(&config));
    assert!(code == 1 && out.is_empty() && error.contains("no key yet") && error.contains("hint:"), "{out}{error}");
}

#[test]
fn keys_by_hand_for_a_site_that_has_its_own() {
    let bed = Bed::new(Settings::default());
    let pintle =
        bed.start(&bed.acme(&bed.pebble.directory(), ""), &bed.site(&[BLOG], "", "[site.hpkp]\nmax_age = \"1d\"\n"));
    obtained(&pintle, 1);
    for role in ["live", "next"] {
        let (code, out, error) = outcome(pintle.command("key new").args(["--site", BLOG, "--role", role]));
        assert!(code == 1 && out.is_empty(), "{out}");
        for part in
            [&format!("makes its {role} key by itself"), "pintle key rotate --site blog.example.com", "--role spare"]
        {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
    let before = fs::read_dir(bed.folder("ecdsa-p256")).unwrap().count();
    let (code, out, error) = outcome(pintle.command("key new").args(["--site", BLOG, "--role", "spare"]));
    assert!(code == 0 && !out.contains("turns the Public-Key-Pins header on"), "{out}{error}");
    assert!(!out.contains("next.pem"), "{out}");
    assert_eq!(fs::read_dir(bed.folder("ecdsa-p256")).unwrap().count(), before, "pintle's own folder");
    // As it says.
    let line = out.lines().find(|line| line.trim().starts_with("backups = [")).unwrap().trim().to_owned();
    pintle.rewrite(|config| config.replace("max_age = \"1d\"", &format!("max_age = \"1d\"\n{line}")));
    pintle.reload();
    let spare = out.lines().find_map(|line| line.trim().strip_prefix("pin  ")).unwrap().to_owned();
    crate::harness::eventually("the spare is promised", || bed.pins(&pintle).contains(&spare).then_some(()));
    assert!(bed.pins(&pintle).contains(&bed.pin("next.pem")));
}
