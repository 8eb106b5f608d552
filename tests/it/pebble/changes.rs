//! Changes of the configuration that make pintle order another certificate: what is served stays until it is there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::life::at_rest;
use super::orders::{Bed, ask_text, obtained, renew};
use crate::harness::double::{Answer, Double, Step, When};
use crate::harness::pebble::Settings;
use crate::harness::{BLOG, Client, Connection, Pintle, blog, eventually, outcome, policies};

const MORE: &str = "more.example.com";
const PINS: &str = "[site.hpkp]\nmax_age = \"30d\"\n";

/// The CA makes no order.
fn out_of_order(bed: &Bed) -> Double {
    let double = Double::before(&bed.pebble);
    double.answer(Step::NewOrder, When::Always, Answer::problem(503, "serverInternal", "out of order"));
    double
}

/// Starts pintle with a configuration as another process has it, without its `[listen]`.
fn restart(bed: &Bed, config: &str) -> Pintle {
    let from = config.find("[acme]").unwrap();
    bed.start(&config[from..], "")
}

/// Replaces all sites of the configuration.
fn replace_sites(pintle: &Pintle, sites: &str) {
    pintle.rewrite(|before| format!("{}{sites}", before.split("[[site]]").next().unwrap()));
}

#[test]
fn names_change_their_order_and_the_key_stays() {
    let bed = Bed::new(Settings::default());
    let acme = bed.acme(&bed.pebble.directory(), "");
    let pintle = bed.start(&acme, &bed.site(&[BLOG, MORE], "", PINS));
    obtained(&pintle, 1);
    let (pin, page) = (bed.spki("ecdsa-p256"), bed.page(&pintle, BLOG));
    assert!(page.to_lowercase().contains("public-key-pins"), "{page}");
    let reordered = bed.site(&[MORE, BLOG], "", PINS);
    replace_sites(&pintle, &reordered);
    pintle.reload();
    for host in [BLOG, MORE] {
        bed.page(&pintle, host);
    }
    // And with a new name in front.
    let added = bed.site(&["new.example.com", MORE, BLOG], "", PINS);
    replace_sites(&pintle, &added);
    pintle.reload();
    bed.page(&pintle, BLOG);
    obtained(&pintle, 2);
    bed.page(&pintle, "new.example.com");
    assert_eq!(bed.spki("ecdsa-p256"), pin, "the key");
}

/// Plain HTTP for a host: status and location.
fn plain(pintle: &Pintle, host: &str) -> (u16, Option<String>) {
    let page = Connection::plain(pintle.http()).get(host, "/");
    (page.status, page.field("location").map(str::to_owned))
}

/// Its certificate is in use no more, which is no reason for another one.
#[test]
fn a_site_that_is_removed_orders_nothing() {
    let bed = Bed::new(Settings::default());
    let (site, other) = (bed.site(&[BLOG], "", ""), bed.site(&[MORE], "", ""));
    let pintle = bed.start(&bed.acme(&bed.pebble.directory(), ""), &format!("{site}{other}"));
    // After the last certificate, the driver looks what is next, in half of the runs while the configuration changes.
    obtained(&pintle, 2);
    replace_sites(&pintle, &site);
    pintle.reload();
    at_rest(&bed);
    assert_eq!(pintle.log_json("ordering a certificate").len(), 2);
}

#[test]
fn an_added_name_waits_for_its_certificate_without_a_redirect() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &bed.site(&[BLOG], "", PINS));
    obtained(&pintle, 1);
    double.answer(Step::NewOrder, When::Always, Answer::problem(503, "serverInternal", "out of order"));
    replace_sites(&pintle, &bed.site(&[BLOG, MORE], "", PINS));
    let (code, out, error) = outcome(&mut pintle.command("check"));
    assert!(code == 0 && error.contains(&format!("does not cover {MORE} yet")), "{out}{error}");
    pintle.reload();
    pintle.logs("no certificate obtained");
    let is_pending = |pintle: &Pintle| {
        assert_eq!(plain(pintle, MORE), (503, None));
        assert_eq!(plain(pintle, BLOG).0, 301);
        let (code, _, error) = bed.get(pintle, MORE);
        assert!(code == 35 && error.contains("unrecognized name"), "{code} {error}");
        bed.page(pintle, BLOG);
        assert!(ask_text(&bed, "/ready?strict").contains(&format!("not covered by the certificate: {MORE}")));
        let metrics = ask_text(&bed, "/metrics");
        assert!(metrics.contains("pintle_site_names_without_certificate{site=\"blog.example.com\"} 1"), "{metrics}");
        let (code, text, _) = outcome(pintle.command("status").arg("--exit-code"));
        assert!(code == 1 && text.contains(&format!("NOT COVERED  {MORE}")), "{text}");
    };
    is_pending(&pintle);
    // After a restart, even without the copy of the pair.
    let config = fs::read_to_string(pintle.config_path()).unwrap();
    drop(pintle);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let pintle = restart(&bed, &config);
    is_pending(&pintle);
    double.behave();
    renew(&bed);
    obtained(&pintle, 1);
    eventually("the name is redirected", || (plain(&pintle, MORE).0 == 301).then_some(()));
    bed.page(&pintle, MORE);
    assert_eq!(ask_text(&bed, "/ready?strict"), "ready\n");
}

#[test]
fn another_algorithm_is_served_once_it_is_there() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let acme = bed.acme(&double.directory(), "");
    let pintle = bed.start(&acme, &bed.site(&[BLOG], "", ""));
    obtained(&pintle, 1);
    double.answer(Step::NewOrder, When::Always, Answer::problem(503, "serverInternal", "out of order"));
    let rsa = bed.site(&[BLOG], "algorithms = [\"rsa-2048\"]", "");
    replace_sites(&pintle, &rsa);
    pintle.reload();
    pintle.logs("no certificate obtained");
    bed.page(&pintle, BLOG);
    let algorithm = |pintle: &Pintle| pintle.status()["sites"][0]["certificates"][0]["algorithm"].clone();
    assert_eq!(algorithm(&pintle), "ecdsa-p256");
    // After a restart, too.
    let config = fs::read_to_string(pintle.config_path()).unwrap();
    drop(pintle);
    let pintle = restart(&bed, &config);
    bed.page(&pintle, BLOG);
    double.behave();
    renew(&bed);
    obtained(&pintle, 1);
    bed.page(&pintle, BLOG);
    assert_eq!(algorithm(&pintle), "rsa-2048");
}

/// Readers hold pins that lack the key of the order: its certificate would be refused.
#[test]
fn no_order_is_spent_on_a_key_that_would_be_refused() {
    let bed = Bed::new(Settings::default());
    let double = Double::before(&bed.pebble);
    let given = blog(&bed.authority, &bed.origin) + &policies(&bed.authority);
    let pintle = bed.start(&bed.acme(&double.directory(), ""), &given);
    let client = Client::new(&bed.authority);
    assert!(client.get(pintle.https(), BLOG, "/").field("public-key-pins").is_some());
    replace_sites(&pintle, &bed.site(&[BLOG], "", PINS));
    pintle.reload();
    pintle.logs("not ordered yet: the live key would lock readers out until");
    assert_eq!(double.count(Step::NewOrder), 0);
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
}

#[test]
fn a_given_pair_stays_until_pintle_has_its_own() {
    let bed = Bed::new(Settings::default());
    let double = out_of_order(&bed);
    let acme = bed.acme(&double.directory(), "");
    let pintle = bed.start(&acme, &blog(&bed.authority, &bed.origin));
    let client = Client::new(&bed.authority);
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    let site = bed.site(&[BLOG], "", "");
    replace_sites(&pintle, &site);
    pintle.reload();
    pintle.logs("no certificate obtained");
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    let config = fs::read_to_string(pintle.config_path()).unwrap();
    drop(pintle);
    let pintle = restart(&bed, &config);
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    double.behave();
    renew(&bed);
    obtained(&pintle, 1);
    bed.page(&pintle, BLOG);
}

#[test]
fn a_lost_key_comes_back_from_the_copy() {
    let bed = Bed::new(Settings::default());
    let pintle = bed.run();
    obtained(&pintle, 1);
    let (pin, key) = (bed.spki("ecdsa-p256"), bed.folder("ecdsa-p256").join("key.pem"));
    let before = fs::read_to_string(&key).unwrap();
    eventually("the pair is copied", || {
        let copies = fs::read_dir(bed.state().join("last-good")).ok()?;
        copies
            .flatten()
            .any(|copy| fs::read_to_string(copy.path()).is_ok_and(|text| text.contains("PRIVATE KEY")))
            .then_some(())
    });
    drop(pintle);
    fs::remove_file(&key).unwrap();
    let pintle = bed.run();
    // The log begins after the keys are there.
    let said = pintle.logged("the key was lost: restored from the copy of the served pair", 1);
    assert_eq!(said[0]["file"], key.display().to_string());
    assert_eq!(fs::read_to_string(&key).unwrap().trim(), before.trim());
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    renew(&bed);
    obtained(&pintle, 1);
    assert_eq!(bed.spki("ecdsa-p256"), pin, "the key");
    // pintle's own files in its own folder are nothing to warn of.
    let (code, out, error) = outcome(&mut pintle.command("check"));
    assert!(
        code == 0 && !error.contains("an attacker who takes over") && !out.contains("an attacker who takes over"),
        "{error}"
    );
    // All files of ACME are gone.
    drop(pintle);
    fs::remove_dir_all(bed.state().join("acme")).unwrap();
    let pintle = bed.run();
    pintle.logged("the key was lost: restored from the copy of the served pair", 1);
    assert_eq!(fs::read_to_string(&key).unwrap().trim(), before.trim());
    // The copy of the pair serves until a renewal is due, or the operator asks for one.
    renew(&bed);
    obtained(&pintle, 1);
    assert_eq!(bed.spki("ecdsa-p256"), pin, "the key");
}
