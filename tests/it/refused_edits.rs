//! Edits of the configuration that a reload refuses, and then a restart: what was served is served on, and one name that
//! cannot be takes no other one along.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::AlertDescription;

use crate::harness::{
    BLOG, Client, Connection, KeyKind, Leaf, Pintle, eventually, outcome, output, pintle as pintle_program,
};
use crate::last_good::{LISTEN, REFUSED, copied, copies};
use crate::loss::command;
use crate::rotation::Bed;
use crate::tls::alert_of;
use crate::upgrade::Line;

const APART: &str = "names that the site's certificate would lock readers out of";

pub fn site(bed: &Bed, hosts: &[&str], leaf: &Leaf, more: &str) -> String {
    format!(
        "[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n{more}\n",
        bed.origin.url(),
        leaf.chain,
        leaf.key
    )
}

pub fn hpkp(backups: &[PathBuf], more: &str) -> String {
    format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n{more}")
}

pub fn state(bed: &Bed) -> String {
    format!("[state]\ndirectory = {:?}\n", bed.state())
}

/// The pin of the key that is served for a name, computed by openssl.
pub fn pin_at(pintle: &Pintle, name: &str) -> String {
    pin_with(pintle, name, "")
}

/// The same for a client with options.
fn pin_with(pintle: &Pintle, name: &str, options: &str) -> String {
    let script = format!(
        "openssl s_client -connect {} -servername {name} {options} </dev/null 2>/dev/null | openssl x509 -noout -pubkey | openssl pkey \
         -pubin -outform der | openssl dgst -sha256 -binary | base64",
        pintle.https()
    );
    output(Command::new("sh").args(["-c", &script])).trim().to_owned()
}

/// The pins of an answer that is 200.
pub fn pins_at(bed: &Bed, pintle: &Pintle, name: &str) -> Option<String> {
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
        // To go on without pins locks nobody out, whatever else is edited.
        pintle.rewrite(|text| text.replace("max_age = \"30d\"\n", "# a comment\nmax_age = \"29d\"\n"));
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

/// Starts with a wildcard, and then with a table of a name below it that a reload refuses.
fn with_a_table_below(bed: &Bed, added: &str) {
    let wide = bed.authority.leaf("wide", &["*.w.test"]);
    let before = state(bed) + &site(bed, &["*.w.test"], &wide, &hpkp(&[bed.authority.public_key("next")], ""));
    let nowhere = Leaf { chain: "/nowhere.pem".into(), key: "/nowhere.key".into(), pin: String::new() };
    let unreadable = site(bed, &["x.w.test"], &nowhere, "");
    let are_served = |pintle: &Pintle| {
        assert_eq!(["x.w.test", "q.w.test"].map(|name| pin_at(pintle, name)), [wide.pin.clone(), wide.pin.clone()]);
    };
    let line = Line::start(&bed.authority, LISTEN, &before);
    assert!(pins_at(bed, &line.pintle, "x.w.test").is_some());
    copied(bed, &wide);
    line.pintle.rewrite(|text| text.replace(&before, &(before.clone() + &unreadable)));
    line.pintle.reload_fails();
    line.pintle.rewrite(|text| text.replace(&unreadable, added));
    line.pintle.reload_fails();
    upgrade_fails(&line);
    are_served(&line.pintle);
    drop(line);
    for _ in 0..3 {
        let pintle = Pintle::start(&bed.authority, &(before.clone() + added));
        are_served(&pintle);
        output(&mut pintle.command("reload"));
        are_served(&pintle);
    }
    let line = Line::start(&bed.authority, LISTEN, &(before.clone() + added));
    are_served(&line.pintle);
    line.upgrade();
    are_served(&line.pintle);
}

/// A name below a wildcard gets a table of its own, with a key that readers do not know. What served it serves it on.
#[test]
fn a_new_table_below_a_wildcard_darkens_nothing() {
    let bed = Bed::new();
    let strange = bed.authority.leaf("strange", &["x.w.test"]);
    with_a_table_below(&bed, &site(&bed, &["x.w.test"], &strange, ""));
}

#[test]
fn a_new_table_with_two_pairs_below_a_wildcard_darkens_nothing() {
    let bed = Bed::new();
    let strange = bed.authority.leaf("strange", &["x.w.test"]);
    let rsa = bed.authority.leaf_of("rsa", &["x.w.test"], KeyKind::Rsa, -1, 90);
    let one = site(&bed, &["x.w.test"], &strange, "");
    let second = format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", rsa.chain, rsa.key);
    with_a_table_below(&bed, &(one.replace("[site.certificate]", "[[site.certificate]]") + &second));
}

#[test]
fn a_name_below_a_wildcard_in_another_table_goes_on() {
    let bed = Bed::new();
    let strange = bed.authority.leaf("strange", &["c.test", "x.w.test"]);
    with_a_table_below(&bed, &site(&bed, &["c.test", "x.w.test"], &strange, ""));
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
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.contains("would lock readers out"), "as the reload says: {err}");
    drop(pintle);
    // Without a process, a check says what a start does.
    let path = bed.folder.path().join("check.toml");
    fs::write(&path, LISTEN.to_owned() + &state(&bed) + &merged).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"], &path));
    assert!(code == 0 && err.contains("warning: ") && err.contains("would lock readers out"), "{err}");
    assert!(err.contains("pintle serves b.test with the pair that it had last"), "{err}");
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

/// Behind a proxy that ends TLS, a name is served whose TLS pintle refuses. Its promise is not on disk, so it is not sent.
#[test]
fn no_pins_for_a_name_that_pintle_refuses() {
    let bed = Bed::new();
    let own = bed.authority.leaf("own", &["e.test"]);
    let pins = hpkp(&[bed.authority.public_key("backup")], "");
    let text = |hosts: &[&str]| state(&bed) + &site(&bed, hosts, &own, &pins);
    let (before, after) = (text(&["e.test"]), text(&["e.test", "www.e.test"]));
    let pintle = Pintle::start_listening(&bed.authority, "trusted_proxies = [\"127.0.0.1\"]", &before);
    pintle.rewrite(|text| text.replace(&before, &after));
    output(&mut pintle.command("reload"));
    let by_proxy = |name: &str| {
        let mut connection = Connection::plain(pintle.http());
        connection.send(format!("GET / HTTP/1.1\r\nHost: {name}\r\nX-Forwarded-Proto: https\r\n\r\n"));
        let answer = connection.response("GET");
        (answer.status, answer.field("public-key-pins").is_some())
    };
    assert_eq!(["e.test", "www.e.test"].map(by_proxy), [(200, true), (200, false)]);
    assert!(!output(&mut pintle.command("ledger show")).contains("www.e.test"));
}

/// One name of a site moved in from another one, whose key is not there any more.
fn with_a_refused_name(bed: &Bed, more: &str) -> (Leaf, String) {
    let [old, new] = [("old", &["www.e.test"][..]), ("new", &["e.test", "www.e.test"][..])]
        .map(|(name, hosts)| bed.authority.leaf(name, hosts));
    let [next, spare] = ["next", "spare"].map(|name| hpkp(&[bed.authority.public_key(name)], more));
    let pintle = Pintle::start(&bed.authority, &(state(bed) + &site(bed, &["www.e.test"], &old, &next)));
    assert!(pins_at(bed, &pintle, "www.e.test").is_some());
    drop(pintle);
    let _ = fs::remove_dir_all(bed.state().join("last-good"));
    (old, state(bed) + &site(bed, &["e.test", "www.e.test"], &new, &spare))
}

/// `includeSubDomains` binds a name whether its TLS is refused or not: such pins would close the way out.
#[test]
fn a_refused_name_can_get_its_key_back() {
    let bed = Bed::new();
    let (old, text) = with_a_refused_name(&bed, "include_subdomains = true\n");
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.logged(APART, 1);
    assert_eq!(pins_at(&bed, &pintle, "e.test"), None);
    let back = site(&bed, &["www.e.test"], &old, "");
    pintle.rewrite(|text| text.replace(", \"www.e.test\"", "").replace("include_subdomains = true\n", "") + &back);
    output(&mut pintle.command("reload"));
    assert!(pins_at(&bed, &pintle, "e.test").is_some());
    assert_eq!(pin_at(&pintle, "www.e.test"), old.pin);
    drop(pintle);
    // Without includeSubDomains, the site's other names send their pins.
    fs::remove_dir_all(bed.state()).unwrap();
    let (_, text) = with_a_refused_name(&bed, "");
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.logged(APART, 1);
    assert!(pins_at(&bed, &pintle, "e.test").is_some());
}

/// The copy that serves a name may be the only one of its key. It stays as long as the name needs it.
#[test]
fn the_copy_that_stands_in_for_a_name_stays() {
    let bed = Bed::new();
    let [one, two] = ["one", "two"].map(|name| bed.authority.leaf(name, &["www.e.test", "old.e.test"]));
    let three = bed.authority.leaf("three", &["e.test", "www.e.test"]);
    let pins = hpkp(&[bed.authority.csr(&two)], "");
    let pintle =
        Pintle::start(&bed.authority, &(state(&bed) + &site(&bed, &["www.e.test", "old.e.test"], &one, &pins)));
    assert!(pins_at(&bed, &pintle, "www.e.test").is_some());
    eventually("the pair is copied", || (copies(&bed).len() == 1).then_some(()));
    drop(pintle);
    for file in [&one.chain, &one.key] {
        fs::remove_file(file).unwrap();
    }
    // Another site serves the other name that the copy was made for.
    let text =
        state(&bed) + &site(&bed, &["e.test", "www.e.test"], &three, "") + &site(&bed, &["old.e.test"], &two, "");
    let are_served = |pintle: &Pintle| {
        let served = ["e.test", "www.e.test", "old.e.test"].map(|name| pin_at(pintle, name));
        assert_eq!(served, [three.pin.clone(), one.pin.clone(), two.pin.clone()]);
    };
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &text);
        are_served(&pintle);
        output(&mut pintle.command("reload"));
        are_served(&pintle);
    }
    let line = Line::start(&bed.authority, LISTEN, &text);
    are_served(&line.pintle);
    line.upgrade();
    are_served(&line.pintle);
    // Without the copy, the new process would have nothing for the name: the old one goes on.
    for copy in copies(&bed) {
        fs::remove_file(copy).unwrap();
    }
    upgrade_fails(&line);
    are_served(&line.pintle);
}

/// Puts a pair into files.
fn put_at(leaf: &Leaf, chain: &Path, key: &Path) {
    for (from, to) in [(&leaf.key, key), (&leaf.chain, chain)] {
        let new = to.with_extension("tmp");
        fs::copy(from, &new).unwrap();
        fs::rename(new, to).unwrap();
    }
}

/// A name leaves a site that lives on: the pair that serves it has a copy of its own, whatever becomes of the site's.
#[test]
fn a_name_that_left_its_site_keeps_its_pair() {
    let bed = Bed::new();
    let [first, second] = [("first", ["x.test", "c.test"]), ("second", ["a.test", "c.test"])]
        .map(|(name, hosts)| bed.authority.leaf(name, &hosts));
    let pins = hpkp(&[bed.authority.public_key("backup")], "");
    let text = |of_first: &[&str], of_second: &[&str]| {
        state(&bed) + &site(&bed, of_first, &first, "") + &site(&bed, of_second, &second, &pins)
    };
    let (before, after) = (text(&["x.test"], &["a.test", "c.test"]), text(&["x.test", "c.test"], &["a.test"]));
    let pintle = Pintle::start(&bed.authority, &before);
    assert!(pins_at(&bed, &pintle, "c.test").is_some());
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    pintle.rewrite(|text| text.replace(&before, &after));
    pintle.reload_fails();
    drop(pintle);
    let are_served = |pintle: &Pintle| {
        let served = ["x.test", "a.test", "c.test"].map(|name| pin_at(pintle, name));
        assert_eq!(served, [first.pin.clone(), second.pin.clone(), second.pin.clone()]);
    };
    for _ in 0..3 {
        let pintle = Pintle::start(&bed.authority, &after);
        are_served(&pintle);
        output(&mut pintle.command("reload"));
        are_served(&pintle);
    }
    let line = Line::start(&bed.authority, LISTEN, &after);
    are_served(&line.pintle);
    line.upgrade();
    are_served(&line.pintle);
    drop(line);
    // The next certificate of the other site is for its own name only.
    let renewed = bed.authority.renew("renewed", &second.key, &["a.test"], 90);
    fs::copy(&renewed.chain, &second.chain).unwrap();
    for _ in 0..2 {
        are_served(&Pintle::start(&bed.authority, &after));
    }
}

/// A name below a wildcard is refused, as its table is gone. The wildcard's other names get their renewals and backups.
#[test]
fn a_refused_name_holds_up_no_rotation() {
    let bed = Bed::new();
    let [wide, next, last] = ["wide", "next", "last"].map(|name| bed.authority.leaf(name, &["*.w.test"]));
    let own = bed.authority.leaf("own", &["x.w.test"]);
    let [chain, key] = ["place.pem", "place.key"].map(|name| bed.folder.path().join(name));
    put_at(&wide, &chain, &key);
    let place = Leaf { chain: chain.clone(), key: key.clone(), pin: wide.pin.clone() };
    let wildcard = site(&bed, &["*.w.test"], &place, &hpkp(&[bed.authority.csr(&next), bed.authority.csr(&last)], ""));
    let exception = site(&bed, &["x.w.test"], &own, &hpkp(&[bed.authority.public_key("own-next")], ""));
    let text = state(&bed) + &wildcard;
    let pintle = Pintle::start(&bed.authority, &(text.clone() + &exception));
    assert!(["q.w.test", "x.w.test"].iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    drop(pintle);
    let is_with = |pintle: &Pintle, leaf: &Leaf| {
        assert_eq!(pin_at(pintle, "q.w.test"), leaf.pin);
        assert!(pins_at(&bed, pintle, "q.w.test").is_some());
        let refused = Client::new(&bed.authority).try_connect(pintle.https(), "x.w.test").err().unwrap();
        assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
    };
    let install = |pintle: &Pintle, leaf: &Leaf| {
        let mut install = pintle.command("install");
        output(install.args(["--site", "*.w.test"]).arg(&leaf.chain).arg(&leaf.key));
        is_with(pintle, leaf);
    };
    let pintle = Pintle::start(&bed.authority, &text);
    is_with(&pintle, &wide);
    install(&pintle, &bed.authority.renew("renewed", &wide.key, &["*.w.test"], 85));
    install(&pintle, &next);
    output(&mut pintle.command("reload"));
    // In place.
    put_at(&last, &chain, &key);
    eventually("the other backup is served", || (pin_at(&pintle, "q.w.test") == last.pin).then_some(()));
    is_with(&pintle, &last);
    output(&mut pintle.command("reload"));
    copied(&bed, &last);
    drop(pintle);
    // While it is stopped: a start would not go on with a pair that locks the same readers out.
    put_at(&next, &chain, &key);
    let pintle = Pintle::start(&bed.authority, &text);
    is_with(&pintle, &next);
    copied(&bed, &next);
    drop(pintle);
    let offline = bed.folder.path().join("offline.toml");
    fs::write(&offline, format!("{LISTEN}{text}")).unwrap();
    let mut install = pintle_program();
    output(install.args(["install", "-c"]).arg(&offline).args(["--site", "*.w.test"]).arg(&last.chain).arg(&last.key));
    is_with(&Pintle::start(&bed.authority, &text), &last);
}

/// An installation was killed. The start judges its certificate as the installation did: by the names that are served.
#[test]
fn an_interrupted_installation_beside_a_refused_name_is_finished() {
    let bed = Bed::new();
    let [wide, next] = ["wide", "next"].map(|name| bed.authority.leaf(name, &["*.w.test"]));
    let own = bed.authority.leaf("own", &["x.w.test"]);
    let [chain, key] = ["place.pem", "place.key"].map(|name| bed.folder.path().join(name));
    put_at(&wide, &chain, &key);
    let place = Leaf { chain, key, pin: wide.pin.clone() };
    let pins = hpkp(&[bed.authority.csr(&next), bed.authority.public_key("last")], "");
    let text = state(&bed) + &site(&bed, &["*.w.test"], &place, &pins);
    let exception = site(&bed, &["x.w.test"], &own, &hpkp(&[bed.authority.public_key("own-next")], ""));
    let pintle = Pintle::start(&bed.authority, &(text.clone() + &exception));
    assert!(["q.w.test", "x.w.test"].iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.logged(APART, 1);
    drop(pintle);
    let path = bed.folder.path().join("offline.toml");
    fs::write(&path, LISTEN.to_owned() + &text).unwrap();
    let mut install = command(&["install", "--site", "*.w.test"], &path);
    let killed = install.arg(&next.chain).arg(&next.key).env("PINTLE_TEST_DIE_AT", "2").output().unwrap();
    assert_eq!(killed.status.code(), None);
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.logs("its files are complete, so it is finished now");
    assert_eq!(pin_at(&pintle, "q.w.test"), next.pin);
}

/// An upgrade judges the pages as a reload does: the new process has no other certificate for them.
#[test]
fn an_upgrade_refuses_pages_that_a_reload_refuses() {
    let bed = Bed::new();
    let own = bed.authority.leaf("own", &["a.test", "admin.a.test"]);
    let wrong = bed.authority.leaf("wrong", &["admin.a.test"]);
    let [chain, key] = ["pages.pem", "pages.key"].map(|name| bed.folder.path().join(name));
    put_at(&own, &chain, &key);
    let pins = hpkp(&[bed.authority.public_key("backup")], "include_subdomains = true\n");
    let https = |chain: &Path, key: &Path| {
        format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nchain = {chain:?}\nkey = {key:?}\n")
    };
    let text = state(&bed) + &site(&bed, &["a.test"], &own, &pins);
    let right = https(&chain, &key);
    let line = Line::start(&bed.authority, LISTEN, &(text.clone() + &right));
    assert!(pins_at(&bed, &line.pintle, "a.test").is_some());
    let other = https(&wrong.chain, &wrong.key);
    line.pintle.rewrite(|text| text.replace(&right, &other));
    line.pintle.reload_fails();
    upgrade_fails(&line);
    line.pintle.rewrite(|text| text.replace(&other, &right));
    put_at(&wrong, &chain, &key);
    upgrade_fails(&line);
    put_at(&own, &chain, &key);
    line.upgrade();
    // New pages are judged, too.
    line.pintle.rewrite(|text| text.replace(&right, ""));
    output(&mut line.pintle.command("reload"));
    line.pintle.rewrite(|text| format!("{text}\n{other}"));
    line.pintle.reload_fails();
    upgrade_fails(&line);
}

/// A refused certificate of the pages, put in place of one that was served, holds up no other change.
#[test]
fn files_of_the_pages_that_changed_refuse_no_reload() {
    let bed = Bed::new();
    let own = bed.authority.leaf("own", &["a.test", "admin.a.test"]);
    let wrong = bed.authority.leaf("wrong", &["admin.a.test"]);
    let [chain, key] = ["pages.pem", "pages.key"].map(|name| bed.folder.path().join(name));
    let put = |leaf: &Leaf| put_at(leaf, &chain, &key);
    put(&own);
    let pins = hpkp(&[bed.authority.public_key("backup")], "include_subdomains = true\n");
    let https = format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nchain = {chain:?}\nkey = {key:?}\n");
    let text = state(&bed) + &site(&bed, &["a.test"], &own, &pins) + &https;
    let pintle = Pintle::start(&bed.authority, &text);
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    put(&wrong);
    let reload = || outcome(&mut pintle.command("reload"));
    let (code, out, err) = reload();
    let warning = "would lock readers out of the pages at admin.a.test";
    assert!(code == 0 && err.contains(warning) && err.contains("stays until pintle is restarted"), "{out}{err}");
    pintle.rewrite(|text| text.replace("max_age = \"30d\"", "max_age = \"29d\""));
    let (code, out, err) = reload();
    assert!(code == 0 && err.contains(warning), "{out}{err}");
    // Other files are a change of the text.
    let other = wrong.chain.display().to_string();
    pintle.rewrite(|text| text.replace(&chain.display().to_string(), &other));
    let refused = pintle.reload_fails();
    assert!(refused.contains(warning), "{refused}");
}

/// A name was added that the certificate does not cover yet. The next renewal, for the names of before, is no worse than the
/// pair in use; one for fewer names is.
#[test]
fn a_renewal_without_an_added_name_is_taken_up() {
    let bed = Bed::new();
    let pintle = bed.start("");
    copied(&bed, &bed.live);
    pintle.rewrite(|text| text.replacen("\"www.example.com\"]", "\"www.example.com\", \"new.example.com\"]", 1));
    output(&mut pintle.command("reload"));
    let ends = || pintle.status()["sites"][0]["certificates"][0]["not_after"].clone();
    let before = ends();
    bed.put(&bed.authority.renew("renewed", &bed.live.key, &[BLOG, "www.example.com"], 80));
    let second = eventually("the renewal is taken up", || Some(ends()).filter(|now| *now != before));
    let installed = bed.authority.renew("installed", &bed.live.key, &[BLOG, "www.example.com"], 85);
    let mut install = pintle.command("install");
    output(install.args(["--site", BLOG]).arg(&installed.chain).arg(&installed.key));
    eventually("the installed one is served", || (ends() != second).then_some(()));
    bed.put(&bed.authority.renew("less", &bed.live.key, &[BLOG], 88));
    eventually("a certificate for less is refused", || pintle.log_json(REFUSED).pop());
    pins_at(&bed, &pintle, "www.example.com");
}

/// The pair in use breaks a merged promise for one name; another name has no certificate yet. A renewal with the same key
/// for both locks nobody out of the first one who is not locked out already.
#[test]
fn a_renewal_that_breaks_more_serves_the_names_of_before() {
    let (bed, node) = (Bed::new(), Bed::new());
    let pintle = node.start(&node.pins("30d"));
    assert!(node.header(&pintle).is_some());
    drop(pintle);
    bed.put(&bed.authority.renew("one", &bed.live.key, &[BLOG], 80));
    let text = bed.config("", "").replace(", \"www.example.com\"", "");
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.rewrite(|text| {
        text.replacen(&format!("hosts = [\"{BLOG}\""), &format!("hosts = [\"{BLOG}\", \"www.example.com\""), 1)
    });
    output(&mut pintle.command("reload"));
    output(pintle.command("ledger merge").arg(node.state().join("ledger.jsonl")));
    let ends = || pintle.status()["sites"][0]["certificates"][0]["not_after"].clone();
    let before = ends();
    bed.put(&bed.authority.renew("two", &bed.live.key, &[BLOG, "www.example.com"], 85));
    eventually("the renewal is taken up", || (ends() != before).then_some(()));
    let refused = Client::new(&bed.authority).try_connect(pintle.https(), "www.example.com").err().unwrap();
    assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
    output(&mut pintle.command("reload"));
    let config = fs::read_to_string(pintle.config_path()).unwrap();
    drop(pintle);
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &config[config.find("[state]").unwrap()..]);
        assert_eq!(pin_at(&pintle, BLOG), bed.live.pin);
    }
}

/// The end of the certificate that is served for a name.
fn end_at(pintle: &Pintle, name: &str) -> String {
    let script = format!(
        "openssl s_client -connect {} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -enddate",
        pintle.https()
    );
    output(Command::new("sh").args(["-c", &script])).trim().to_owned()
}

/// A name below a wildcard gets a table whose certificate pintle orders. Until it is there, the wildcard's pair serves.
#[test]
fn a_name_below_a_wildcard_keeps_its_pair_until_the_ca_has_issued_one() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &["*.w.test"]);
    let ordered = |name: &str| {
        format!("[[site]]\nhosts = [{name:?}]\nupstream = \"{}\"\n[site.certificate]\nacme = true\n", bed.origin.url())
    };
    // No CA answers there.
    let acme = "[acme]\nterms = true\ndirectory = \"https://127.0.0.1:1/directory\"\n";
    let before = acme.to_owned() + &state(&bed) + &site(&bed, &["*.w.test"], &wide, "") + &ordered("first.test");
    let line = Line::start(&bed.authority, LISTEN, &before);
    let is_served = |pintle: &Pintle| assert_eq!(pin_at(pintle, "x.w.test"), wide.pin);
    is_served(&line.pintle);
    copied(&bed, &wide);
    line.pintle.rewrite(|text| format!("{text}\n{}", ordered("x.w.test")));
    output(&mut line.pintle.command("reload"));
    is_served(&line.pintle);
    line.upgrade();
    is_served(&line.pintle);
    drop(line);
    is_served(&Pintle::start(&bed.authority, &(before + &ordered("x.w.test"))));
}

/// A name below a wildcard is not served, as its own table waits for its files. That holds up no upgrade.
#[test]
fn a_table_below_a_wildcard_without_its_files_holds_up_no_upgrade() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &["*.w.test"]);
    let [chain, key] = ["nowhere.pem", "nowhere.key"].map(|name| bed.folder.path().join(name));
    let nowhere = Leaf { chain, key, pin: String::new() };
    let text = state(&bed) + &site(&bed, &["*.w.test"], &wide, "") + &site(&bed, &["x.w.test"], &nowhere, "");
    let line = Line::start(&bed.authority, LISTEN, &text);
    line.upgrade();
    assert_eq!(pin_at(&line.pintle, "q.w.test"), wide.pin);
    let refused = Client::new(&bed.authority).try_connect(line.pintle.https(), "x.w.test").err().unwrap();
    assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
}

/// A name is served with the copy of its former site's pair. It gets the renewal that this site gets.
#[test]
fn a_name_with_a_copy_gets_the_renewal_with_the_same_key() {
    let bed = Bed::new();
    let names = ["a.test", "c.test"];
    let (own, other) = (bed.authority.leaf("own", &names), bed.authority.leaf("other", &["x.test", "c.test"]));
    let [chain, key] = ["place.pem", "place.key"].map(|name| bed.folder.path().join(name));
    put_at(&own, &chain, &key);
    let place = Leaf { chain: chain.clone(), key: key.clone(), pin: own.pin.clone() };
    let pins = hpkp(&[bed.authority.public_key("next")], "");
    let before = state(&bed) + &site(&bed, &names, &place, &pins) + &site(&bed, &["x.test"], &other, "");
    let after = state(&bed) + &site(&bed, &["a.test"], &place, &pins) + &site(&bed, &["x.test", "c.test"], &other, "");
    let pintle = Pintle::start(&bed.authority, &before);
    assert!(names.iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    copied(&bed, &own);
    pintle.rewrite(|text| text.replace(&before, &after));
    pintle.reload_fails();
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &after);
    assert_eq!(["c.test", "x.test"].map(|name| pin_at(&pintle, name)), [own.pin.clone(), other.pin.clone()]);
    let first = end_at(&pintle, "c.test");
    put_at(&bed.authority.renew("renewed", &own.key, &names, 95), &chain, &key);
    let second = eventually("the renewal is served", || Some(end_at(&pintle, "c.test")).filter(|end| *end != first));
    assert_eq!(end_at(&pintle, "a.test"), second);
    output(&mut pintle.command("reload"));
    assert_eq!(end_at(&pintle, "c.test"), second);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &after);
    assert_eq!(names.map(|name| end_at(&pintle, name)), [second.clone(), second]);
}

/// A name is served with the copy of its former site's pair. That site goes on to the key that both have promised.
#[test]
fn a_name_with_a_copy_follows_its_former_site_to_the_next_key() {
    let bed = Bed::new();
    let names = ["a.test", "c.test"];
    let (own, other) = (bed.authority.leaf("own", &names), bed.authority.leaf("other", &["x.test", "c.test"]));
    let next = bed.authority.leaf_of("next", &names, KeyKind::Ecdsa, -1, 95);
    let [chain, key] = ["place.pem", "place.key"].map(|name| bed.folder.path().join(name));
    put_at(&own, &chain, &key);
    let place = Leaf { chain: chain.clone(), key: key.clone(), pin: own.pin.clone() };
    let pins = hpkp(&[bed.authority.csr(&next), bed.authority.public_key("last")], "");
    let before = state(&bed) + &site(&bed, &names, &place, &pins) + &site(&bed, &["x.test"], &other, "");
    let after = state(&bed) + &site(&bed, &["a.test"], &place, &pins) + &site(&bed, &["x.test", "c.test"], &other, "");
    let pintle = Pintle::start(&bed.authority, &before);
    assert!(names.iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    copied(&bed, &own);
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &after);
    let served = |pintle: &Pintle| ["a.test", "c.test", "x.test"].map(|name| pin_at(pintle, name));
    assert_eq!(served(&pintle), [&own.pin, &own.pin, &other.pin].map(String::clone));
    put_at(&next, &chain, &key);
    let both = [&next.pin, &next.pin, &other.pin].map(String::clone);
    eventually("the next key is served", || (served(&pintle) == both).then_some(()));
    drop(pintle);
    assert_eq!(served(&Pintle::start(&bed.authority, &after)), both);
}

/// A name below a wildcard waits for its first certificate, and the wildcard is renewed meanwhile.
#[test]
fn a_name_that_waits_for_the_ca_gets_the_renewal_of_its_wildcard() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &["*.w.test"]);
    let [chain, key] = ["place.pem", "place.key"].map(|name| bed.folder.path().join(name));
    put_at(&wide, &chain, &key);
    let place = Leaf { chain: chain.clone(), key: key.clone(), pin: wide.pin.clone() };
    let ordered = |name: &str| {
        format!("[[site]]\nhosts = [{name:?}]\nupstream = \"{}\"\n[site.certificate]\nacme = true\n", bed.origin.url())
    };
    // No CA answers there.
    let acme = "[acme]\nterms = true\ndirectory = \"https://127.0.0.1:1/directory\"\n";
    let text = acme.to_owned() + &state(&bed) + &site(&bed, &["*.w.test"], &place, "") + &ordered("first.test");
    let pintle = Pintle::start(&bed.authority, &text);
    pintle.rewrite(|text| format!("{text}\n{}", ordered("x.w.test")));
    output(&mut pintle.command("reload"));
    let first = end_at(&pintle, "x.w.test");
    put_at(&bed.authority.renew("renewed", &wide.key, &["*.w.test"], 95), &chain, &key);
    let second = eventually("the renewal is served", || Some(end_at(&pintle, "x.w.test")).filter(|end| *end != first));
    assert_eq!(end_at(&pintle, "q.w.test"), second);
}

/// A name had a table of its own, and was served by the wildcard above it since. It shares what that one gets.
#[test]
fn a_name_without_a_table_goes_the_way_of_its_wildcard() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &["*.w.test", "c.test"]);
    let other = bed.authority.leaf("other", &["*.w.test", "c.test", "a.test"]);
    let [next, last] = ["next", "last"].map(|name| bed.authority.public_key(name));
    let below = site(&bed, &["x.w.test"], &wide, &hpkp(&[next.clone(), last], ""));
    let both = site(&bed, &["*.w.test", "c.test"], &wide, &hpkp(&[next], "")) + &site(&bed, &["a.test"], &other, "");
    let merged = state(&bed) + &site(&bed, &["*.w.test", "c.test", "a.test"], &other, "");
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &both + &below));
    assert!(["q.w.test", "x.w.test", "c.test"].iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    copied(&bed, &wide);
    pintle.rewrite(|text| text.replace(&below, ""));
    output(&mut pintle.command("reload"));
    eventually("the wildcard's copy is for the name, too", || {
        let pairs =
            copies(&bed).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "pem"));
        pairs
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .all(|copy| !copy.contains("Except: "))
            .then_some(())
    });
    pintle.rewrite(|text| text.replace(&(state(&bed) + &both), &merged));
    pintle.reload_fails();
    drop(pintle);
    let are_served = |pintle: &Pintle| {
        let served = ["q.w.test", "x.w.test", "c.test", "a.test"].map(|name| pin_at(pintle, name));
        assert_eq!(served, [&wide.pin, &wide.pin, &wide.pin, &other.pin].map(String::clone));
    };
    for _ in 0..2 {
        are_served(&Pintle::start(&bed.authority, &merged));
    }
    let line = Line::start(&bed.authority, LISTEN, &merged);
    line.upgrade();
    are_served(&line.pintle);
}

/// With a key process, no copy has a key. The text names other files, and those of before are still there.
#[test]
fn other_files_that_a_reload_refuses_darken_nothing_with_a_key_process() {
    let bed = Bed::new();
    let text = |leaf: &Leaf| {
        format!("[tls]\nkey_process = true\n{}", bed.config_of(&leaf.chain, &leaf.key, &bed.pins("30d"), ""))
    };
    let pintle = Pintle::start(&bed.authority, &text(&bed.live));
    assert!(bed.header(&pintle).is_some());
    eventually("the pair is copied", || (copies(&bed).len() == 1).then_some(()));
    pintle.rewrite(|known| known.replace(&text(&bed.live), &text(&bed.stranger)));
    let refused = pintle.reload_fails();
    assert!(!refused.contains("no copy has the live key"), "its file is there: {refused}");
    drop(pintle);
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &text(&bed.stranger));
        assert_eq!(bed.served(&pintle), bed.live.pin);
        output(&mut pintle.command("reload"));
        assert_eq!(bed.served(&pintle), bed.live.pin);
    }
}

/// The same, and the other files are in another folder: the key process does not read the key of before any more.
#[test]
fn a_key_process_does_not_find_a_key_in_another_folder() {
    let bed = Bed::new();
    let text = |chain: &Path, key: &Path| {
        format!("[tls]\nkey_process = true\n{}", bed.config_of(chain, key, &bed.pins("30d"), ""))
    };
    let (before, after) = (text(&bed.chain(), &bed.key()), text(&bed.stranger.chain, &bed.stranger.key));
    let pintle = Pintle::start(&bed.authority, &before);
    assert!(bed.header(&pintle).is_some());
    eventually("the pair is copied", || (copies(&bed).len() == 1).then_some(()));
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &after);
    pintle.logs(&format!("no copy has the live key, which was in {}", bed.key().display()));
    drop(pintle);
    assert_eq!(bed.served(&Pintle::start(&bed.authority, &before)), bed.live.pin);
}

/// A site has a pair for each kind of key, and the text names other files for both.
#[test]
fn each_of_two_refused_pairs_has_its_own_stand_in() {
    let bed = Bed::new();
    let two = |one: &Leaf, rsa: &Leaf| {
        let second = format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", rsa.chain, rsa.key);
        let pins = second + &hpkp(&[bed.authority.public_key("next")], "");
        state(&bed) + &site(&bed, &["a.test"], one, &pins).replacen("[site.certificate]", "[[site.certificate]]", 1)
    };
    let rsa = |name: &str| bed.authority.leaf_of(name, &["a.test"], KeyKind::Rsa, -1, 90);
    let (own, own_rsa) = (bed.authority.leaf("own", &["a.test"]), rsa("own-rsa"));
    let (before, after) = (two(&own, &own_rsa), two(&bed.authority.leaf("strange", &["a.test"]), &rsa("strange-rsa")));
    let pintle = Pintle::start(&bed.authority, &before);
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    eventually("both pairs are copied", || (copies(&bed).len() == 2).then_some(()));
    pintle.rewrite(|text| text.replace(&before, &after));
    pintle.reload_fails();
    drop(pintle);
    for _ in 0..2 {
        let pintle = Pintle::start(&bed.authority, &after);
        let with = |algorithm: &str| pin_with(&pintle, "a.test", &format!("-tls1_3 -sigalgs {algorithm}"));
        assert_eq!(["ECDSA+SHA256", "RSA-PSS+SHA256"].map(with), [own.pin.clone(), own_rsa.pin.clone()]);
    }
}

/// A refusal by `config apply --upgrade` has named its key, as each other one: the operator may say it once more.
#[test]
fn a_refused_upgrade_by_config_apply_names_its_key() {
    let bed = Bed::new();
    let line = Line::start(&bed.authority, LISTEN, &bed.config(&bed.pins("30d"), ""));
    let mut install = line.pintle.command("install");
    install.args(["--dry-run", "--site", BLOG]).arg(&bed.stranger.chain).arg(&bed.stranger.key);
    let (_, _, err) = outcome(&mut install);
    let day = err.split("--accept-lockout-until ").nth(1).unwrap_or_else(|| panic!("{err}"))[..10].to_owned();
    let second = bed.authority.leaf("second", &[BLOG, "www.example.com"]);
    let text = fs::read_to_string(line.pintle.config_path()).unwrap();
    let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", second.chain));
    let text = text.replace(&format!("{:?}", bed.key()), &format!("{:?}", second.key));
    let with_line = format!("accept_lockout_until = \"{day}\"\n[site.certificate]");
    let wanted = bed.folder.path().join("wanted.toml");
    fs::write(&wanted, text.replacen("[site.certificate]", &with_line, 1)).unwrap();
    let apply = || outcome(line.pintle.command("config apply").arg(&wanted).args(["--upgrade", "--json"]));
    let (code, out, err) = apply();
    assert!(code == 1 && (out.clone() + &err).contains("came before any refusal had named this key"), "{out}{err}");
    let (code, out, err) = apply();
    assert_eq!(code, 0, "{out}{err}");
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    line.is_now(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
    assert_eq!(bed.served(&line.pintle), second.pin);
}

/// Many sites are removed at once: one warning is enough.
#[test]
fn many_removed_sites_share_a_warning() {
    let bed = Bed::new();
    let names = ["a.test", "b.test", "c.test", "d.test", "e.test"];
    let (all, rest) = (bed.authority.leaf("all", &names), bed.authority.leaf("rest", &["z.test"]));
    let pins = hpkp(&[bed.authority.public_key("next")], "");
    let sites: String = names.iter().map(|name| site(&bed, &[*name], &all, &pins)).collect();
    let pintle = Pintle::start(&bed.authority, &(state(&bed) + &site(&bed, &["z.test"], &rest, "") + &sites));
    assert!(names.iter().all(|name| pins_at(&bed, &pintle, name).is_some()));
    pintle.rewrite(|text| text.replace(&sites, ""));
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert_eq!((code, err.matches("no site serves").count()), (0, 1), "{out}{err}");
    assert!(err.contains("the same for b.test (until 20") && err.contains("and 1 more"), "{err}");
}
