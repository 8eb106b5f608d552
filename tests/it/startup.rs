//! A start with certificates that cannot be served: the other sites are served, and these refuse TLS, answer challenges,
//! and say on plain HTTP what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustls::AlertDescription;
use serde_json::Value;

use crate::harness::{
    Authority, BLOG, Client, Connection, KeyKind, Leaf, Origin, Pintle, eventually, is_root, outcome, pintle,
};
use crate::rotation::Bed;
use crate::tls::alert_of;
use crate::upgrade::Line;

const SHOP: &str = "shop.example.com";
const WITHOUT: &str = "site without a certificate";
const LISTEN: &str = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n";

/// Two sites: a good one, and one whose files are still to be spoiled.
struct Two {
    authority: Authority,
    origin: Origin,
    blog: Leaf,
    shop: Leaf,
}

impl Two {
    /// The certificate of the good site covers the other one, too.
    fn new() -> Self {
        let authority = Authority::new();
        let blog = authority.leaf("blog", &[BLOG, "*.example.com"]);
        let shop = authority.leaf("shop", &[SHOP]);
        Self { origin: Origin::hello(), authority, blog, shop }
    }

    fn site(&self, hosts: &[&str], leaf: &Leaf, more: &str) -> String {
        format!(
            "[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n{more}\n",
            self.origin.url(),
            leaf.chain,
            leaf.key
        )
    }

    fn config(&self) -> String {
        let webroot = self.authority.folder().join("webroot");
        fs::create_dir_all(webroot.join(".well-known/acme-challenge")).unwrap();
        fs::write(webroot.join(".well-known/acme-challenge/token-1"), "token-1.thumbprint").unwrap();
        format!(
            "[state]\ndirectory = {:?}\n[acme]\nwebroot = {webroot:?}\n[tls]\nunknown_name = \"default\"\n\
             default_site = \"{BLOG}\"\n{}{}",
            self.state(),
            self.site(&[BLOG], &self.blog, ""),
            self.site(&[SHOP], &self.shop, "[site.hsts]\nmax_age = \"1y\"\n"),
        )
    }

    fn state(&self) -> PathBuf {
        self.authority.folder().join("state")
    }

    /// The answer of the admin socket.
    fn ask(&self, path: &str) -> String {
        crate::admin::get(&self.state().join("admin.sock"), path)
    }

    /// A new and valid pair, in the place of the spoiled one.
    fn mend(&self) {
        let good = self.authority.leaf("mended", &[SHOP]);
        for (from, to) in [(&good.key, &self.shop.key), (&good.chain, &self.shop.chain)] {
            let new = to.with_extension("new");
            fs::copy(from, &new).unwrap();
            fs::rename(new, to).unwrap();
        }
    }
}

fn site<'s>(status: &'s Value, name: &str) -> &'s Value {
    status["sites"].as_array().unwrap().iter().find(|site| site["site"] == name).unwrap()
}

/// The answer to visitors of a site without a certificate.
#[track_caller]
fn is_without(two: &Two, pintle: &Pintle) {
    let client = Client::new(&two.authority);
    let refused = client.try_connect(pintle.https(), SHOP).err().unwrap();
    assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
    eventually("the record of the handshake", || {
        let records = pintle.access().into_iter();
        let mut records = records.filter(|record| record["kind"] == "handshake" && record["sni"] == SHOP);
        records.next().map(|record| {
            assert_eq!(
                (&record["site"], &record["error"]),
                (&SHOP.into(), &"the site has no valid certificate".into())
            );
        })
    });
    // The good site is served, also as the default for names that nobody knows.
    assert_eq!(client.get(pintle.https(), BLOG, "/").status, 200);
    let mut unknown = client.connect(pintle.https(), "unknown.example.com");
    assert_eq!(unknown.get(BLOG, "/").status, 200);
    // Its certificate covers the other name, which is not served there all the same.
    let mut connection = client.connect(pintle.https(), BLOG);
    let misdirected = connection.get(SHOP, "/");
    assert_eq!((misdirected.status, misdirected.field("strict-transport-security")), (421, None));
    let plain = |method: &str, path: &str| {
        let mut connection = Connection::plain(pintle.http());
        connection.send(format!("{method} {path} HTTP/1.1\r\nHost: {SHOP}\r\nAccept: text/html\r\n\r\n"));
        connection.response(method)
    };
    for method in ["GET", "POST"] {
        let page = plain(method, "/a?b");
        assert_eq!((page.status, page.one("retry-after"), page.one("cache-control")), (503, "60", "no-store"));
        assert!(page.text().contains("This site has no valid certificate yet"), "{}", page.text());
        assert_eq!((page.field("location"), page.field("strict-transport-security")), (None, None));
    }
    assert_eq!(plain("HEAD", "/").status, 503);
    let challenge = plain("GET", "/.well-known/acme-challenge/token-1");
    assert_eq!((challenge.status, challenge.text().as_str()), (200, "token-1.thumbprint"));
    assert_eq!(plain("GET", "/.well-known/acme-challenge/other").status, 404);
    let mut connection = Connection::plain(pintle.http());
    assert_eq!(connection.get(BLOG, "/").status, 301);
}

type Spoil = fn(&Two);

/// Each way in which a pair may be unfit, and a word of the reason.
const FAULTS: [(&str, &str, Spoil); 9] = [
    ("expired", "expired", |two| drop(two.authority.renew("shop", &two.shop.key, &[SHOP], -1))),
    ("not yet valid", "valid", |two| {
        two.authority.issue_as("shop", two.shop.key.clone(), &[SHOP], |params| {
            params.not_before = time::OffsetDateTime::now_utc() + time::Duration::days(2);
        });
    }),
    ("another name", SHOP, |two| drop(two.authority.renew("shop", &two.shop.key, &["else.example.com"], 90))),
    ("broken chain", "shop.pem", |two| fs::write(&two.shop.chain, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap()),
    ("empty chain", "shop.pem", |two| fs::write(&two.shop.chain, "").unwrap()),
    ("no chain", "shop.pem", |two| fs::remove_file(&two.shop.chain).unwrap()),
    ("no key", "shop.key", |two| fs::remove_file(&two.shop.key).unwrap()),
    ("broken key", "shop.key", |two| fs::write(&two.shop.key, "no key").unwrap()),
    ("another key", "shop.key", |two| {
        let other = two.authority.key("other", KeyKind::Ecdsa);
        fs::copy(other, &two.shop.key).unwrap();
    }),
];

#[test]
fn an_unfit_pair_stops_its_own_site_only() {
    for (name, word, spoil) in FAULTS {
        let two = Two::new();
        spoil(&two);
        // Of several workers, each takes up a mended pair at its own time.
        let pintle = Pintle::start_with(&two.authority, &format!("{LISTEN}workers = 1\n"), &two.config());
        is_without(&two, &pintle);
        let logged = pintle.logged(WITHOUT, 1);
        assert_eq!(logged[0]["site"], SHOP, "{name}");
        let reason = logged[0]["reason"].as_str().unwrap();
        assert!(reason.contains(word) && reason.contains("pintle.toml:"), "{name}: {reason}");
        let status = pintle.status();
        assert_eq!(site(&status, SHOP)["without_certificate"], "broken", "{name}");
        assert!(site(&status, BLOG)["without_certificate"].is_null());
        assert!(!site(&status, SHOP)["refused"]["reasons"].as_array().unwrap().is_empty(), "{name}");
        let metrics = two.ask("/metrics");
        for (site, value) in [(SHOP, 1), (BLOG, 0)] {
            let line = format!("pintle_site_without_certificate{{site=\"{site}\"}} {value}");
            assert!(metrics.contains(&line), "{name}: {metrics}");
        }
        assert_eq!(two.ask("/ready"), "ready\n");
        assert_eq!(two.ask("/ready?strict"), format!("without a certificate: {SHOP}\n"));
        let (code, _, err) = outcome(&mut pintle.command("check"));
        assert_eq!(code, 1, "{name}");
        assert!(err.contains(word) && err.contains(&format!("starts anyway, and refuses TLS for {SHOP}")), "{err}");
        let (code, out, _) = outcome(&mut pintle.command("check --json"));
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &answer["ok"], &answer["starts"]), (1, &false.into(), &true.into()), "{name}");
        assert_eq!(answer["without_certificate"], serde_json::json!([SHOP]));
        // Good files are served without a restart.
        two.mend();
        let client = Client::new(&two.authority);
        eventually(name, || client.try_connect(pintle.https(), SHOP).ok());
        assert_eq!(client.get(pintle.https(), SHOP, "/").one("strict-transport-security"), "max-age=31536000");
        eventually("the refusal is over", || site(&pintle.status(), SHOP)["refused"].is_null().then_some(()));
        assert_eq!(two.ask("/ready?strict"), "ready\n");
        let mut plain = Connection::plain(pintle.http());
        assert_eq!(plain.get(SHOP, "/").status, 301);
    }
}

#[test]
fn an_unreadable_key_stops_its_own_site_only() {
    if is_root("not: root reads every file") {
        return;
    }
    let two = Two::new();
    fs::set_permissions(&two.shop.key, fs::Permissions::from_mode(0o0)).unwrap();
    let pintle = Pintle::start(&two.authority, &two.config());
    is_without(&two, &pintle);
}

#[test]
fn a_strict_start_refuses_every_fault() {
    for (name, word, spoil) in FAULTS {
        let two = Two::new();
        spoil(&two);
        let path = two.authority.write("strict.toml", format!("{LISTEN}{}", two.config()));
        let (code, _, err) = outcome(pintle().args(["run", "--strict", "-c"]).arg(&path));
        assert!(code == 1 && err.contains(word), "{name}: {err}");
    }
}

#[test]
fn a_start_without_any_certificate_answers_challenges() {
    let two = Two::new();
    fs::remove_file(&two.shop.chain).unwrap();
    fs::remove_file(&two.blog.key).unwrap();
    let pintle = Pintle::start(&two.authority, &two.config());
    for host in [SHOP, BLOG] {
        let mut plain = Connection::plain(pintle.http());
        let challenge = plain.get(host, "/.well-known/acme-challenge/token-1");
        assert_eq!((challenge.status, challenge.text().as_str()), (200, "token-1.thumbprint"));
        assert_eq!(plain.get(host, "/").status, 503);
    }
    for name in [SHOP, BLOG, "unknown.example.com"] {
        let refused = Client::new(&two.authority).try_connect(pintle.https(), name).err().unwrap();
        assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName, "{name}");
    }
}

/// A wildcard of another site does not stand in for an exact name, and the other way round.
#[test]
fn a_wildcard_stands_in_for_nobody() {
    let two = Two::new();
    fs::remove_file(&two.shop.chain).unwrap();
    let wild = two.authority.leaf("wild", &["*.example.com", "example.com"]);
    let config = two.site(&["example.com", "*.example.com"], &wild, "") + &two.site(&[SHOP], &two.shop, "");
    let pintle = Pintle::start(&two.authority, &config);
    let client = Client::new(&two.authority);
    assert_eq!(client.get(pintle.https(), "other.example.com", "/").status, 200);
    assert!(client.try_connect(pintle.https(), SHOP).is_err());
    let mut shared = client.connect(pintle.https(), "other.example.com");
    assert_eq!(shared.get(SHOP, "/").status, 421);
}

/// One of two pairs is enough to serve a site. Its pins wait for the other one.
#[test]
fn one_of_two_pairs_is_enough() {
    let two = Two::new();
    let rsa = two.authority.leaf_of("rsa", &[SHOP], KeyKind::Rsa, -1, 90);
    let chain = fs::read(&rsa.chain).unwrap();
    fs::remove_file(&rsa.chain).unwrap();
    let second = format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", rsa.chain, rsa.key);
    let config = two.site(&[SHOP], &two.shop, &(second + &crate::harness::policies(&two.authority)));
    let config = config.replacen("\n[site.certificate]", "\n[[site.certificate]]", 1);
    let pintle = Pintle::start(&two.authority, &format!("[state]\ndirectory = {:?}\n{config}", two.state()));
    let client = Client::new(&two.authority);
    let response = client.get(pintle.https(), SHOP, "/");
    assert_eq!((response.status, response.field("public-key-pins")), (200, None));
    assert!(response.field("strict-transport-security").is_some());
    let status = pintle.status();
    let shop = site(&status, SHOP);
    assert!(shop["without_certificate"].is_null() && shop["missing"].as_array().unwrap().len() == 1, "{shop}");
    assert_eq!(shop["hpkp"]["why_not"], "a certificate is missing");
    fs::write(&rsa.chain, chain).unwrap();
    let pins =
        eventually("both pairs", || client.get(pintle.https(), SHOP, "/").field("public-key-pins").map(str::to_owned));
    assert!(pins.contains(&rsa.pin) && pins.contains(&two.shop.pin), "{pins}");
}

/// A reload may add a site whose certificate is still to come, and may take none away.
#[test]
fn a_reload_adds_a_site_without_a_certificate_and_takes_none_away() {
    let two = Two::new();
    let pintle = Pintle::start(&two.authority, &two.config());
    let new = two.authority.folder().join("new.pem");
    let (chain, key) = (new.display().to_string(), new.with_extension("key").display().to_string());
    let site_new = two.site(
        &["new.example.net"],
        &Leaf { chain: new.clone(), key: new.with_extension("key"), pin: String::new() },
        "",
    );
    pintle.rewrite(|text| format!("{text}{site_new}"));
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && out.contains("new site new.example.net") && err.contains(&chain), "{out}{err}");
    let mut plain = Connection::plain(pintle.http());
    assert_eq!(plain.get("new.example.net", "/").status, 503);
    // Another change does not trip over it.
    pintle.rewrite(|text| text.replace("max_age = \"1y\"", "max_age = \"1w\""));
    pintle.reload();
    // A wrong path would take a certificate away.
    let wrong = two.authority.folder().join("wrong.pem");
    pintle.rewrite(|text| text.replace(&format!("{:?}", two.shop.chain), &format!("{wrong:?}")));
    assert!(pintle.reload_fails().contains("wrong.pem"));
    // So would a wrong path for a site under another first name.
    pintle.rewrite(|text| {
        text.replace(&format!("hosts = [\"{SHOP}\"]"), &format!("hosts = [\"a.example.net\", \"{SHOP}\"]"))
    });
    assert!(pintle.reload_fails().contains("wrong.pem"));
    let client = Client::new(&two.authority);
    assert_eq!(client.get(pintle.https(), SHOP, "/").status, 200);
    // The new site's files arrive.
    let leaf = two.authority.leaf("arrived", &["new.example.net"]);
    fs::copy(&leaf.key, key).unwrap();
    fs::copy(&leaf.chain, chain).unwrap();
    eventually("the new site is served", || client.try_connect(pintle.https(), "new.example.net").ok());
}

#[test]
fn install_gives_a_site_its_certificate() {
    let two = Two::new();
    fs::remove_file(&two.shop.chain).unwrap();
    let pintle = Pintle::start(&two.authority, &two.config());
    is_without(&two, &pintle);
    let good = two.authority.leaf("good", &[SHOP]);
    let mut install = pintle.command(&format!("install --site {SHOP}"));
    let (code, out, err) = outcome(install.arg(&good.chain).arg(&good.key));
    assert!(code == 0 && out.contains("verified"), "{out}{err}");
    assert_eq!(Client::new(&two.authority).get(pintle.https(), SHOP, "/").status, 200);
}

/// An upgrade keeps a site without a certificate as it is, and takes none away.
#[test]
fn an_upgrade_takes_no_certificate_away() {
    let two = Two::new();
    fs::remove_file(&two.shop.chain).unwrap();
    let config = two.config().replace(&format!("[state]\ndirectory = {:?}\n", two.state()), "");
    let admin = format!("[admin]\nlisten = \"unix:{}\"\n", two.authority.folder().join("admin.sock").display());
    let line = Line::start(&two.authority, LISTEN, &format!("{admin}{config}"));
    line.upgrade();
    is_without(&two, &line.pintle);
    // Without a state folder, no copy could stand in for the good site's files: the old process hands the pair over.
    let chain = fs::read(&two.blog.chain).unwrap();
    for contents in [&b""[..], &chain] {
        fs::write(&two.blog.chain, contents).unwrap();
        line.upgrade();
        assert_eq!(Client::new(&two.authority).get(line.pintle.https(), BLOG, "/").status, 200);
        is_without(&two, &line.pintle);
    }
}

/// A pair that would break a promise is not served, and stops no other site either.
#[test]
fn a_pair_that_breaks_a_promise_is_not_served_at_a_start() {
    let bed = Bed::new();
    let other = bed.authority.leaf("other", &["other.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"other.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        bed.origin.url(),
        other.chain,
        other.key
    );
    let config = bed.config(&bed.pins("30d"), "") + &site;
    let pintle = Pintle::start(&bed.authority, &config);
    bed.header(&pintle).unwrap();
    crate::last_good::copied(&bed, &bed.live);
    drop(pintle);
    // Neither the promised key nor its copy is left.
    bed.put(&bed.stranger);
    fs::remove_dir_all(bed.state().join("last-good")).unwrap();
    let strict = bed.folder.path().join("strict.toml");
    fs::write(&strict, format!("{LISTEN}{config}")).unwrap();
    let (code, _, err) = outcome(crate::harness::pintle().args(["run", "--strict", "-c"]).arg(&strict));
    assert!(code == 1 && err.contains("would lock readers out"), "{err}");
    let pintle = Pintle::start(&bed.authority, &config);
    let client = Client::new(&bed.authority);
    assert_eq!(client.get(pintle.https(), "other.example.com", "/").status, 200);
    let refused = client.try_connect(pintle.https(), BLOG).err().unwrap();
    assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName);
    let status = pintle.status();
    assert_eq!(site_of(&status)["without_certificate"], "broken");
    assert_eq!(site_of(&status)["refused"]["by_guard"], true);
    // A reload changes nothing about that, and a promised key is taken at once.
    pintle.rewrite(|text| format!("{text}[site.hsts]\nmax_age = \"1y\"\n"));
    pintle.reload();
    assert!(client.try_connect(pintle.https(), BLOG).is_err());
    bed.put(&bed.next);
    eventually("the promised key is served", || client.try_connect(pintle.https(), BLOG).ok());
}

fn site_of(status: &Value) -> &Value {
    site(status, BLOG)
}

/// A certificate that was served and has ended since is served as before: only changes are refused.
#[test]
fn a_pair_that_ended_while_it_was_served_is_served_again() {
    let bed = Bed::new();
    let short = bed.authority.issue_as("short", bed.live.key.clone(), &[BLOG, "www.example.com"], |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::seconds(4);
    });
    bed.put(&short);
    let pintle = bed.start("");
    crate::last_good::copied(&bed, &short);
    std::thread::sleep(std::time::Duration::from_secs(5));
    drop(pintle);
    let pintle = bed.start("");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert!(site_of(&pintle.status())["without_certificate"].is_null());
}

/// Hosts that were added before a certificate covers them: nobody is sent to an https URL that only shows an error.
#[test]
fn a_name_that_no_certificate_covers_is_refused_and_the_others_are_served() {
    const NEW: &str = "new.example.net";
    let (authority, origin) = (Authority::new(), Origin::hello());
    let ecdsa = authority.leaf("blog", &[BLOG, "*.shop.example.com"]);
    let site = |hosts: &[&str], more: &str| {
        format!(
            "[[site]]\nhosts = {hosts:?}\ncanonical_redirect = true\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\n\
             key = {:?}\n{more}\n",
            origin.url(),
            ecdsa.chain,
            ecdsa.key
        )
    };
    let other = authority.leaf("other", &["other.example.com", NEW]);
    let config = |hosts: &[&str]| {
        format!(
            "[state]\ndirectory = {:?}\n[tls]\nunknown_name = \"default\"\ndefault_site = \"{BLOG}\"\n{}\
             [[site]]\nhosts = [\"other.example.com\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            authority.folder().join("state"),
            site(hosts, "[site.hsts]\nmax_age = \"1y\"\ninclude_subdomains = true\n"),
            origin.url(),
            other.chain,
            other.key
        )
    };
    let added = [NEW, BLOG, "*.shop.example.com", "*.club.example.com", "a.b.shop.example.com"];
    let pintle = Pintle::start(&authority, &config(&[BLOG, "*.shop.example.com"]));
    let plain = |host: &str| Connection::plain(pintle.http()).get(host, "/");
    assert_eq!(plain("a.shop.example.com").status, 301);
    pintle.rewrite(|before| format!("{}{}", before.split("[state]").next().unwrap(), config(&added)));
    let said = pintle.reload();
    assert!(said.contains("reloaded"), "{said}");
    let client = Client::new(&authority);
    for host in [NEW, "x.club.example.com", "a.b.shop.example.com"] {
        let page = plain(host);
        assert_eq!((page.status, page.field("retry-after"), page.field("location")), (503, Some("60"), None), "{host}");
        assert!(page.text().contains("no valid certificate yet"), "{host}");
        assert_eq!(page.field("strict-transport-security"), None);
        let refused = client.try_connect(pintle.https(), host).err().unwrap();
        assert_eq!(alert_of(&refused), AlertDescription::UnrecognisedName, "{host}");
        // Not even over the connection of another site, whose certificate covers it.
        for through in ["other.example.com", BLOG] {
            assert_eq!(client.connect(pintle.https(), through).get(host, "/").status, 421, "{host} by {through}");
        }
    }
    for host in [BLOG, "a.shop.example.com"] {
        assert_eq!(plain(host).status, 301, "{host}");
        // The redirect to the first host would lead to an error.
        let page = client.get(pintle.https(), host, "/");
        assert_eq!((page.status, page.field("location")), (200, None), "{host}");
    }
    let status = pintle.status();
    assert_eq!(
        status["sites"][0]["refused_names"],
        serde_json::json!([NEW, "*.club.example.com", "a.b.shop.example.com"])
    );
    let ready = crate::admin::get(&authority.folder().join("state/admin.sock"), "/ready?strict");
    assert!(ready.contains(&format!("not covered by the certificate: {NEW}")), "{ready}");
    let (code, out, err) = outcome(&mut pintle.command("check"));
    assert!(code == 0 && err.contains(&format!("does not cover {NEW}")) && err.contains("503"), "{out}{err}");

    // Once one covers them, all of that is over.
    authority.renew("blog", &ecdsa.key, &added, 90);
    eventually("all names are served", || (plain(NEW).status == 301).then_some(()));
    for host in [NEW, BLOG, "x.club.example.com", "a.b.shop.example.com"] {
        assert_eq!(plain(host).status, 301, "{host}");
        let page = client.get(pintle.https(), host, "/");
        assert_eq!(page.status, if host == NEW { 200 } else { 301 }, "{host}");
    }
    assert_eq!(crate::admin::get(&authority.folder().join("state/admin.sock"), "/ready?strict"), "ready\n");
}
