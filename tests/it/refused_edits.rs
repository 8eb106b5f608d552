//! Edits of the configuration that a reload refuses, and then a restart: what was served is served on, and one name that
//! cannot be takes no other one along.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustls::AlertDescription;

use crate::harness::{BLOG, Client, Leaf, Pintle, eventually, outcome, output};
use crate::last_good::{LISTEN, copied, copies};
use crate::rotation::Bed;
use crate::tls::alert_of;
use crate::upgrade::Line;

const APART: &str = "names that the site's certificate would lock readers out of";

fn site(bed: &Bed, hosts: &[&str], leaf: &Leaf, more: &str) -> String {
    format!(
        "[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n{more}\n",
        bed.origin.url(),
        leaf.chain,
        leaf.key
    )
}

fn hpkp(backups: &[PathBuf], more: &str) -> String {
    format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n{more}")
}

fn state(bed: &Bed) -> String {
    format!("[state]\ndirectory = {:?}\n", bed.state())
}

/// The pin of the key that is served for a name, computed by openssl.
fn pin_at(pintle: &Pintle, name: &str) -> String {
    let script = format!(
        "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -pubkey | openssl pkey \
         -pubin -outform der | openssl dgst -sha256 -binary | base64",
        pintle.https()
    );
    output(Command::new("sh").args(["-c", &script])).trim().to_owned()
}

/// The pins of an answer that is 200.
fn pins_at(bed: &Bed, pintle: &Pintle, name: &str) -> Option<String> {
    let answer = Client::new(&bed.authority).get(pintle.https(), name, "/");
    assert_eq!(answer.status, 200, "{name}");
    answer.field("public-key-pins").map(str::to_owned)
}

#[track_caller]
fn upgrade_fails(line: &Line) {
    let (code, out, err) = outcome(&mut line.pintle.command("upgrade"));
    assert!(code == 1 && (out.clone() + &err).contains("would lock readers out"), "{out}{err}");
}

/// The edit names another chain file, adds `include_subdomains` and a site below that has other keys; or the whole site is
/// new. A start sends no pins, and serves all sites.
#[test]
fn an_edit_whose_pins_clash_darkens_no_site() {
    let bed = Bed::new();
    let [old, new, child, other] = [("old", "a.test"), ("new", "a.test"), ("child", "b.a.test"), ("other", "c.test")]
        .map(|(name, host)| bed.authority.leaf(name, &[host]));
    let with = hpkp(&[bed.authority.public_key("backup")], "include_subdomains = true\n");
    let unrelated = site(&bed, &["c.test"], &other, "");
    let edited = site(&bed, &["a.test"], &new, &with) + &site(&bed, &["b.a.test"], &child, "") + &unrelated;
    for before in [site(&bed, &["a.test"], &old, "") + &unrelated, unrelated.clone()] {
        let line = Line::start(&bed.authority, LISTEN, &(state(&bed) + &before));
        line.pintle.rewrite(|text| text.replace(&before, &edited));
        let refused = line.pintle.reload_fails();
        assert!(refused.contains("would lock readers out of b.a.test"), "{refused}");
        upgrade_fails(&line);
        drop(line);
        let pintle = Pintle::start(&bed.authority, &(state(&bed) + &edited));
        let all = |pintle: &Pintle| ["a.test", "b.a.test", "c.test"].map(|name| pins_at(&bed, pintle, name));
        assert_eq!(all(&pintle), [None, None, None]);
        output(&mut pintle.command("reload"));
        assert_eq!(all(&pintle), [None, None, None]);
        // The hint works as written.
        pintle.rewrite(|text| text.replace("include_subdomains = true\n", ""));
        output(&mut pintle.command("reload"));
        assert!(pins_at(&bed, &pintle, "a.test").is_some_and(|pins| pins.contains(&new.pin)));
        drop(pintle);
        fs::remove_dir_all(bed.state()).unwrap();
    }
}

/// The table of a name below a wildcard is removed: the wildcard has none of the keys that readers of the name hold.
#[test]
fn a_removed_exception_of_a_wildcard_is_refused_alone() {
    let bed = Bed::new();
    let [wide, own] = [("wide", "*.w.test"), ("own", "x.w.test")].map(|(name, host)| bed.authority.leaf(name, &[host]));
    let [of_wide, of_own] = ["wide-next", "own-next"].map(|name| hpkp(&[bed.authority.public_key(name)], ""));
    let (wildcard, exception) = (site(&bed, &["*.w.test"], &wide, &of_wide), site(&bed, &["x.w.test"], &own, &of_own));
    let line = Line::start(&bed.authority, LISTEN, &(state(&bed) + &wildcard + &exception));
    let sent = pins_at(&bed, &line.pintle, "q.w.test").unwrap();
    assert!(pins_at(&bed, &line.pintle, "x.w.test").is_some());
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    line.pintle.rewrite(|text| text.replace(&exception, ""));
    let refused = line.pintle.reload_fails();
    assert!(
        refused.contains("put the table of x.w.test back") && !refused.contains("backups of x.w.test"),
        "{refused}"
    );
    upgrade_fails(&line);
    drop(line);
    let line = Line::start(&bed.authority, LISTEN, &(state(&bed) + &wildcard));
    let is_refused_alone = || {
        assert_eq!(pins_at(&bed, &line.pintle, "q.w.test"), Some(sent.clone()));
        let refused = Client::new(&bed.authority).try_connect(line.pintle.https(), "x.w.test").err().unwrap();
        assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
        let status = line.pintle.status();
        let site = &status["sites"][0];
        assert!(site["without_certificate"].is_null() && site["refused"]["by_guard"] == true, "{site}");
    };
    is_refused_alone();
    let logged = line.pintle.logged(APART, 1);
    assert!(logged[0]["names"] == "x.w.test" && logged[0]["hint"].to_string().contains("put the table"), "{logged:?}");
    // What is served now goes on, whatever looks at it: a reload, an upgrade, a renewal with the same key.
    output(&mut line.pintle.command("reload"));
    is_refused_alone();
    line.upgrade();
    is_refused_alone();
    line.pintle.rewrite(|text| format!("{text}\n{exception}"));
    output(&mut line.pintle.command("reload"));
    assert!(pins_at(&bed, &line.pintle, "x.w.test").is_some_and(|pins| pins.contains(&own.pin)));
    assert_eq!(pins_at(&bed, &line.pintle, "q.w.test"), Some(sent));
}

/// Two sites become one, whose chain keeps the promises of one name only: the other name has its pair, from the copy.
#[test]
fn names_that_come_together_keep_pairs_that_fit() {
    let bed = Bed::new();
    let [one, two] = ["one", "two"].map(|name| bed.authority.leaf(name, &["a.test", "b.test"]));
    let [next, spare] = ["next-a", "next-b"].map(|name| bed.authority.public_key(name));
    let of = |backups: &[PathBuf]| hpkp(backups, "");
    let both = site(&bed, &["a.test"], &one, &of(std::slice::from_ref(&next)))
        + &site(&bed, &["b.test"], &two, &of(std::slice::from_ref(&spare)));
    let merged = site(&bed, &["a.test", "b.test"], &one, &of(&[next, spare]));
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &both));
    assert!(pins_at(&bed, &pintle, "a.test").is_some() && pins_at(&bed, &pintle, "b.test").is_some());
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    pintle.rewrite(|text| text.replace(&both, &merged));
    pintle.reload_fails();
    drop(pintle);
    let are_served = |pintle: &Pintle| {
        let served = ["a.test", "b.test"].map(|name| pin_at(pintle, name));
        assert_eq!(served, [one.pin.clone(), two.pin.clone()]);
        // The site's pins are for its own pair.
        assert_eq!(pins_at(&bed, pintle, "b.test"), None);
    };
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &merged));
    are_served(&pintle);
    output(&mut pintle.command("reload"));
    are_served(&pintle);
    drop(pintle);
    let line = Line::start(&bed.authority, LISTEN, &(state(&bed) + &merged));
    are_served(&line.pintle);
    line.upgrade();
    are_served(&line.pintle);
}

/// The text names other files, of a key that readers do not know: the site is served with the pair that it had.
#[test]
fn other_files_that_a_reload_refuses_darken_nothing_at_a_start() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    copied(&bed, &bed.live);
    let edited = bed.config_of(&bed.stranger.chain, &bed.stranger.key, &bed.pins("30d"), "");
    pintle.rewrite(|text| {
        let chain = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", bed.stranger.chain));
        chain.replace(&format!("{:?}", bed.key()), &format!("{:?}", bed.stranger.key))
    });
    pintle.reload_fails();
    drop(pintle);
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &edited);
        assert_eq!(bed.served(&pintle), bed.live.pin);
        assert!(bed.header(&pintle).is_some());
        output(&mut pintle.command("reload"));
        assert_eq!(bed.served(&pintle), bed.live.pin);
        copied(&bed, &bed.live);
    }
}

/// No client can note pins for a name without a certificate. Once a certificate covers it, its set is on disk first.
#[test]
fn names_without_a_certificate_are_not_promised() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    let own = format!("hosts = [\"{BLOG}\", \"www.example.com\"");
    let shown = || output(&mut pintle.command("ledger show"));
    for name in ["other.example.com", "new.example.com"] {
        pintle.rewrite(|text| text.replacen(&format!("{own}]"), &format!("{own}, \"{name}\"]"), 1));
        output(&mut pintle.command("reload"));
        assert!(bed.header(&pintle).is_some());
        assert!(!shown().contains(name), "{}", shown());
        if name == "new.example.com" {
            break;
        }
        // The hint says: or make two sites.
        let other = bed.authority.leaf("other", &[name]);
        let second = site(&bed, &[name], &other, "");
        pintle.rewrite(|text| text.replacen(&format!("{own}, \"{name}\"]"), &format!("{own}]"), 1) + &second);
        output(&mut pintle.command("reload"));
        assert_eq!(pins_at(&bed, &pintle, name), None);
    }
    let hosts = [BLOG, "www.example.com", "new.example.com"];
    bed.put(&bed.authority.renew("renewed", &bed.live.key, &hosts, 91));
    let client = Client::new(&bed.authority);
    eventually("the name is served, with pins", || {
        let mut connection = client.try_connect(pintle.https(), "new.example.com").ok()?;
        connection.get("new.example.com", "/").field("public-key-pins").map(str::to_owned)
    });
    assert!(shown().contains("new.example.com"), "{}", shown());
}

/// Pins bind a name on every port, and with `include_subdomains` all names below: the pages' own certificate, too.
#[test]
fn the_pages_are_judged_by_the_pins_of_sites() {
    let bed = Bed::new();
    let [own, pages] =
        [("own", "a.test"), ("pages", "admin.a.test")].map(|(name, host)| bed.authority.leaf(name, &[host]));
    let backup = bed.authority.public_key("backup");
    let pins = |more: &str| hpkp(std::slice::from_ref(&backup), more);
    let https =
        format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nchain = {:?}\nkey = {:?}\n", pages.chain, pages.key);
    let text = |more: &str| state(&bed) + &site(&bed, &["a.test"], &own, &pins(more));
    let below = "include_subdomains = true\n";
    let widen = |text: &str| text.replace("max_age = \"30d\"\n", &format!("max_age = \"30d\"\n{below}"));
    let pintle = Pintle::start(&bed.authority, &(text("") + &https));
    let refused = {
        pintle.rewrite(widen);
        pintle.reload_fails()
    };
    assert!(refused.contains("would lock readers out of the admin pages at admin.a.test"), "{refused}");
    drop(pintle);
    // A start withholds the pins that are new, and serves site and pages.
    let pintle = Pintle::start(&bed.authority, &(text(below) + &https));
    assert_eq!(pins_at(&bed, &pintle, "a.test"), None);
    pintle.logged("pages over TLS listening", 1);
    output(&mut pintle.command("reload"));
    drop(pintle);
    // Promises in force refuse the certificate of the pages.
    let pintle = Pintle::start(&bed.authority, &text(below));
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    pintle.rewrite(|text| format!("{text}\n{https}"));
    let refused = pintle.reload_fails();
    assert!(refused.contains("would lock readers out of the pages at admin.a.test"), "{refused}");
    drop(pintle);
    // At a start, nothing could replace it: the pages are served, and the operator is told.
    let pintle = Pintle::start(&bed.authority, &(text(below) + &https));
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    pintle.logged("pages over TLS listening", 1);
    pintle.logs("would lock readers out of the pages at admin.a.test");
    output(&mut pintle.command("reload"));
}
