//! Lockouts that the operator accepts, and excuses: what they are about, and when they end.

use std::fs;

use crate::harness::{Client, Leaf, Pintle, eventually, outcome, output, pintle};
use crate::last_good::copied;
use crate::refused_edits::{hpkp, pin_at, pins_at, site, state};
use crate::rotation::{Bed, refusal};

const REFUSED: &str = "certificate refused; the old one keeps serving";

/// The day in a refusal.
fn day_in(text: &str) -> String {
    let quoted = text.split("accept_lockout_until = \"").nth(1).unwrap_or_else(|| panic!("{text}"));
    quoted.split('"').next().unwrap().to_owned()
}

fn with_line(text: &str, day: &str) -> String {
    text.replacen("[site.certificate]", &format!("accept_lockout_until = \"{day}\"\n[site.certificate]"), 1)
}

/// A name that no other test issues a certificate for.
fn another(bed: &Bed, name: &str) -> Leaf {
    bed.authority.leaf(name, &[crate::harness::BLOG, "www.example.com"])
}

/// The day was used for one key: the next one is refused, whoever looks.
#[test]
fn a_day_accepts_one_key() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    bed.put(&bed.stranger);
    let refused = eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let day = day_in(refused["hint"].as_str().unwrap());
    pintle.rewrite(|text| with_line(text, &day));
    output(&mut pintle.command("reload"));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    copied(&bed, &bed.stranger);
    let second = another(&bed, "second");
    bed.put(&second);
    let refused = eventually("the second is refused", || {
        pintle.log_json(REFUSED).pop().filter(|_| pintle.log_json(REFUSED).len() == 2)
    });
    let why = refused.to_string();
    assert!(why.contains(&format!("accept_lockout_until accepted the key {}", bed.stranger.pin)), "{why}");
    assert!(why.contains("pintle install --site ") && why.contains(" --accept-lockout-until "), "{why}");
    // A reload of nothing, and a restart, go on with the key that was accepted.
    output(&mut pintle.command("reload"));
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
    let text = fs::read_to_string(pintle.config_path()).unwrap();
    drop(pintle);
    let again = Pintle::start(&bed.authority, &text[text.find("[state]").unwrap()..]);
    assert_eq!(bed.served(&again), bed.stranger.pin);
    // By a command that names the chain, the operator says so again.
    let mut install = again.command("install");
    install.args(["--accept-lockout-until", &day, "--site", crate::harness::BLOG]).arg(&second.chain).arg(&second.key);
    let (code, out, err) = outcome(&mut install);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(bed.served(&again), second.pin);
}

/// The first day on which the stranger's key is safe, as a refusal names it.
fn day_of_the_stranger(bed: &Bed, pintle: &Pintle) -> String {
    let (_, _, err) = outcome(
        pintle
            .command("install")
            .args(["--dry-run", "--site", crate::harness::BLOG])
            .arg(&bed.stranger.chain)
            .arg(&bed.stranger.key),
    );
    day_in(&err)
}

/// The operator has read the refusal of one key, and the reload that brings the line brings another key, too: that one is
/// refused, and named. If it is meant, the operator says so once more.
#[test]
fn a_day_is_about_a_key_that_a_refusal_has_named() {
    const UNNAMED: &str = "accept_lockout_until came before any refusal had named this key";
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    bed.put(&bed.stranger);
    let refused = eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let (day, second) = (day_in(refused["hint"].as_str().unwrap()), another(&bed, "second"));
    pintle.rewrite(|text| {
        let text = text.replace(&format!("{:?}", bed.chain()), &format!("{:?}", second.chain));
        with_line(&text.replace(&format!("{:?}", bed.key()), &format!("{:?}", second.key)), &day)
    });
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.contains(UNNAMED) && err.contains(" --accept-lockout-until "), "{err}");
    let err = pintle.reload_fails();
    assert!(err.contains(UNNAMED) && err.contains("`pintle reload"), "{err}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 0 && err.contains("as accept_lockout_until says"), "{err}");
    output(&mut pintle.command("reload"));
    assert_eq!(bed.served(&pintle), second.pin);
    assert!(output(&mut pintle.command("status")).contains("LOCKOUT ACCEPTED"));
}

const BEFORE: &str = "accept_lockout_until was set before this chain came, and accepts no lockout: remove it";

/// certbot renews with another key, and its hook reloads, upgrades or restarts: a day that was in the file before accepts
/// nothing, as the operator has not seen this chain.
#[test]
fn a_day_before_the_chain_accepts_nothing() {
    for hook in ["reload", "upgrade", "restart"] {
        let bed = Bed::new();
        let config = bed.config(&bed.pins("30d"), "");
        let mut pintle = Pintle::start(&bed.authority, &config);
        copied(&bed, &bed.live);
        let day = day_of_the_stranger(&bed, &pintle);
        pintle.rewrite(|text| with_line(text, &day));
        output(&mut pintle.command("reload"));
        bed.put(&bed.stranger);
        match hook {
            "restart" => {
                drop(pintle);
                pintle = Pintle::start(&bed.authority, &with_line(&config, &day));
            }
            hook => {
                // The watcher may not have seen the files: then the reload is refused.
                let (_, out, err) = outcome(&mut pintle.command(hook));
                assert!(hook == "upgrade" || (out.clone() + &err).contains(BEFORE), "{out}{err}");
            }
        }
        assert_eq!(bed.served(&pintle), bed.live.pin, "{hook}");
        let refused =
            eventually("the refusal is known", || Some(refusal(&pintle)).filter(|refused| !refused.is_null()));
        assert!(!refused.to_string().contains("accept_lockout_until ="), "{hook}: {refused}");
        let (code, out, err) = outcome(&mut pintle.command("check"));
        assert!(code == 1 && err.contains(BEFORE) && err.contains("--accept-lockout-until"), "{hook}: {out}{err}");
        output(&mut pintle.command("reload"));
        assert_eq!(bed.served(&pintle), bed.live.pin, "{hook}");
        // Without the line nothing is held up. A reload that brings it again accepts the chain, and so does a check.
        pintle.rewrite(|text| text.replace(&format!("accept_lockout_until = \"{day}\"\n"), ""));
        output(&mut pintle.command("reload"));
        let day = day_of_the_stranger(&bed, &pintle);
        pintle.rewrite(|text| with_line(text, &day));
        let (code, out, err) = outcome(&mut pintle.command("check"));
        assert!(code == 0 && err.contains("as accept_lockout_until says"), "{hook}: {out}{err}");
        output(&mut pintle.command(if hook == "upgrade" { "upgrade" } else { "reload" }));
        assert_eq!(bed.served(&pintle), bed.stranger.pin, "{hook}");
    }
}

/// While pintle is stopped, nobody can tell a new line from an old one: the start serves the previous pair, and the refusal
/// names the command that accepts the chain.
#[test]
fn a_day_at_a_start_accepts_nothing() {
    let bed = Bed::new();
    let config = bed.config(&bed.pins("30d"), "");
    let pintle = Pintle::start(&bed.authority, &config);
    copied(&bed, &bed.live);
    let day = day_of_the_stranger(&bed, &pintle);
    let path = bed.authority.write("stopped.toml", fs::read(pintle.config_path()).unwrap());
    drop(pintle);
    bed.put(&bed.stranger);
    let command = |words: &[&str]| crate::loss::command(words, &path);
    let (code, _, err) = outcome(&mut command(&["check"]));
    let words = ["anyway: `pintle install --site ".to_owned(), format!(" --accept-lockout-until {day} -c ")];
    assert!(code == 1 && words.iter().all(|words| err.contains(words)), "{err}");
    assert!(!err.contains("accept_lockout_until ="), "{err}");
    fs::write(&path, with_line(&fs::read_to_string(&path).unwrap(), &day)).unwrap();
    let (code, _, err) = outcome(&mut command(&["check"]));
    assert!(code == 1 && err.contains(BEFORE), "{err}");
    let pintle = Pintle::start(&bed.authority, &with_line(&config, &day));
    assert_eq!(bed.served(&pintle), bed.live.pin);
    drop(pintle);
    let mut install = command(&["install", "--accept-lockout-until", &day, "--site", crate::harness::BLOG]);
    output(install.arg(&bed.stranger.chain).arg(&bed.stranger.key));
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.stranger.pin);
}

/// A forgotten line asks for no chain: pintle serves the same pair as before.
#[test]
fn a_stale_day_holds_up_no_reload_and_no_start() {
    let bed = Bed::new();
    let config = bed.config(&bed.pins("30d"), "accept_lockout_until = \"2026-03-01\"");
    let pintle = Pintle::start(&bed.authority, &config);
    copied(&bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 0 && err.contains("accept_lockout_until is \"2026-03-01\", should be"), "{out}{err}");
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &config);
    assert_eq!(bed.served(&pintle), bed.live.pin);
    assert_eq!(refusal(&pintle)["by_guard"], true);
    // A day that this reload brings is meant, and must be right.
    pintle.rewrite(|text| text.replace("2026-03-01", "2026-03-02"));
    let (code, _, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains("should be"), "{err}");
    assert_eq!(bed.served(&pintle), bed.live.pin);
}

/// A lockout accepted for one name does not cover a name that the site gets later.
#[test]
fn an_accepted_lockout_is_about_its_names() {
    let bed = Bed::new();
    let hosts = ["e.test", "a.e.test", "shop.e.test"];
    let [shared, stranger] = ["shared", "x"].map(|name| bed.authority.leaf(name, &hosts));
    let site = |hosts: &[&str], leaf: &Leaf, more: &str| {
        format!(
            "[[site]]\nhosts = {hosts:?}\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n{more}\n",
            bed.origin.url(),
            leaf.chain,
            leaf.key
        )
    };
    let own = bed.authority.write("own.pem", fs::read(&shared.chain).unwrap());
    let own = Leaf {
        chain: own,
        key: bed.authority.write("own.key", fs::read(&shared.key).unwrap()),
        pin: shared.pin.clone(),
    };
    let state = format!("[state]\ndirectory = {:?}\n", bed.state());
    let parent = |more: &str| site(&["e.test"], &shared, &(bed.pins("30d") + more));
    let children = site(&["a.e.test"], &own, "") + &site(&["shop.e.test"], &shared, "");
    let text = state.clone() + &parent("include_subdomains = true\n") + &children;
    let pintle = Pintle::start(&bed.authority, &text);
    assert!(Client::new(&bed.authority).get(pintle.https(), "e.test", "/").field("public-key-pins").is_some());
    pintle.rewrite(|text| text.replace("include_subdomains = true\n", ""));
    output(&mut pintle.command("reload"));
    let install = |more: &[&str]| {
        let mut command = pintle.command("install");
        outcome(command.args(["--site", "a.e.test"]).args(more).arg(&stranger.chain).arg(&stranger.key))
    };
    let day = day_in(&install(&[]).2);
    let (code, out, err) = install(&["--accept-lockout-until", &day]);
    assert_eq!(code, 0, "{out}{err}");
    // The same report a second time changes nothing.
    output(&mut pintle.command("reload"));
    let moved = site(&["a.e.test", "shop.e.test"], &own, "");
    pintle.rewrite(|text| text.replace(&children, &moved));
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains("would lock readers out"), "{out}{err}");
}

/// A site that keeps what it has, as its backup's file is gone, may not get another site's name unseen.
#[test]
fn a_kept_site_is_judged_by_its_new_names() {
    let bed = Bed::new();
    let wide = bed.authority.leaf("wide", &["*.x.test"]);
    let shop = bed.authority.leaf("shop", &["shop.x.test"]);
    let backup = |name: &str| bed.authority.public_key(name);
    let site = |host: &str, leaf: &Leaf, backups: [std::path::PathBuf; 2]| {
        format!(
            "[[site]]\nhosts = [{host:?}]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
             [site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n",
            bed.origin.url(),
            leaf.chain,
            leaf.key
        )
    };
    let gone = backup("gone");
    let own = site("shop.x.test", &shop, [backup("m"), backup("s")]);
    let text = format!("[state]\ndirectory = {:?}\n", bed.state());
    let pintle = Pintle::start(&bed.authority, &(text + &site("*.x.test", &wide, [gone.clone(), backup("s")]) + &own));
    assert!(Client::new(&bed.authority).get(pintle.https(), "shop.x.test", "/").field("public-key-pins").is_some());
    fs::remove_file(&gone).unwrap();
    eventually("the missing backup is noticed", || (!refusal(&pintle).is_null()).then_some(()));
    output(&mut pintle.command("reload"));
    pintle.rewrite(|text| text.replace(&own, ""));
    let (code, out, err) = outcome(&mut pintle.command("reload"));
    assert!(code == 1 && err.contains("would lock readers out"), "{out}{err}");
    let pins = Client::new(&bed.authority).get(pintle.https(), "shop.x.test", "/");
    assert!(pins.field("public-key-pins").is_some_and(|pins| pins.contains(&shop.pin)));
}

/// A merge excuses the key in use, as refusing it helps nobody. Once another key is served, it is a key like any other.
#[test]
fn an_excuse_ends_with_its_key() {
    for running in [false, true] {
        let (bed, node) = (Bed::new(), Bed::new());
        let csr = |leaf: &Leaf| leaf.key.with_extension("csr");
        let pins = |backups: [&Leaf; 2]| {
            let backups = backups.map(csr);
            format!("[site.hpkp]\nmax_age = \"30d\"\nbackups = {backups:?}\n")
        };
        for leaf in [&bed.live, &bed.stranger] {
            bed.authority.csr(leaf);
        }
        // The other node has rotated to the next key already.
        let config = |bed_of: &Bed, backups| bed_of.config_of(&node.chain(), &node.key(), &pins(backups), "");
        node.put(&bed.next);
        let theirs = Pintle::start(&bed.authority, &config(&node, [&bed.stranger, &bed.spare]));
        assert!(
            Client::new(&bed.authority)
                .get(theirs.https(), crate::harness::BLOG, "/")
                .field("public-key-pins")
                .is_some()
        );
        drop(theirs);
        let merged = node.state().join("ledger.jsonl");
        let text = bed.config(&pins([&bed.next, &bed.spare]), "");
        let mut pintle = Pintle::start(&bed.authority, &text);
        copied(&bed, &bed.live);
        if running {
            output(pintle.command("ledger merge").arg(&merged));
        } else {
            drop(pintle);
            let path = bed.folder.path().join("merge.toml");
            fs::write(&path, &text).unwrap();
            output(crate::harness::pintle().args(["ledger", "merge", "-c"]).arg(&path).arg(&merged));
            let (code, _, err) = outcome(crate::harness::pintle().args(["check", "-c"]).arg(&path));
            assert!(code == 0 && err.contains("the key in use breaks these promises, too"), "{err}");
            pintle = Pintle::start(&bed.authority, &text);
        }
        let site = |pintle: &Pintle| pintle.status()["sites"][0].clone();
        assert_eq!(site(&pintle)["accepted_lockouts"].as_array().unwrap().len(), 1, "running: {running}");
        assert_eq!(bed.served(&pintle), bed.live.pin);
        // To the key that all clients know.
        bed.put(&bed.next);
        pintle.rewrite(|text| text.replace(&pins([&bed.next, &bed.spare]), &pins([&bed.live, &bed.spare])));
        output(&mut pintle.command("reload"));
        assert_eq!(bed.served(&pintle), bed.next.pin);
        assert_eq!(site(&pintle)["accepted_lockouts"].as_array().unwrap().len(), 0, "running: {running}");
        // And back.
        bed.put(&bed.live);
        let (code, out, err) = outcome(&mut pintle.command("reload"));
        assert!(code == 1 && err.contains("would lock readers out"), "running: {running}: {out}{err}");
        assert_eq!(bed.served(&pintle), bed.next.pin);
    }
}

/// The refused key waits in `backups`: what is said about it at a restart is true.
#[test]
fn a_refusal_at_a_start_knows_what_is_sent() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    drop(pintle);
    let pintle = bed.start(&bed.pins("30d"));
    assert!(bed.header(&pintle).is_some());
    let why = refusal(&pintle).to_string();
    assert!(why.contains("and still sent") && !why.contains("no longer sent"), "{why}");
    assert!(why.contains("name this chain's own key in backups"), "{why}");
}

/// The refused key waits in `backups`, as the refusal advises: nothing takes it for the live one.
#[test]
fn a_refused_key_is_not_live() {
    let bed = Bed::new();
    let pintle = bed.start(&bed.pins("30d"));
    copied(&bed, &bed.live);
    bed.put(&bed.stranger);
    eventually("the stranger is refused", || pintle.log_json(REFUSED).pop());
    let waiting = bed.authority.csr(&bed.stranger);
    pintle.rewrite(|text| text.replace("backups = [", &format!("backups = [{waiting:?}, ")));
    output(&mut pintle.command("reload"));
    let keys: serde_json::Value = serde_json::from_str(&output(pintle.command("key list").arg("--json"))).unwrap();
    let keys = &keys[0]["keys"];
    assert_eq!((&keys[0]["role"], &keys[0]["pin"]), (&"live".into(), &bed.live.pin.as_str().into()), "{keys}");
    assert_eq!(keys[0]["refused_in_file"], bed.stranger.pin.as_str(), "{keys}");
    assert_eq!((&keys[1]["role"], &keys[1]["pin"]), (&"next".into(), &bed.stranger.pin.as_str().into()), "{keys}");
    let (code, _, err) = outcome(&mut pintle.command("check"));
    assert!(code == 1 && err.contains("would lock readers out") && !err.contains("is live now"), "{err}");
    let made = output(pintle.command("key new").args(["--role", "next", "--site", crate::harness::BLOG]));
    assert!(made.contains(waiting.to_str().unwrap()) && !made.contains("left out"), "{made}");
}

/// The file names another pair, with a day: a start serves the pair of before, as no day counts there. A check of the same
/// file says so, and offers no line that would not count.
#[test]
fn a_check_believes_no_day_that_a_start_does_not() {
    let bed = Bed::new();
    let server = bed.start(&bed.pins("30d"));
    assert!(bed.header(&server).is_some());
    copied(&bed, &bed.live);
    drop(server);
    let edited = |more: &str| bed.config_of(&bed.stranger.chain, &bed.stranger.key, &bed.pins("30d"), more);
    let check = |text: &str| {
        let path = bed.folder.path().join("check.toml");
        fs::write(&path, text).unwrap();
        outcome(pintle().args(["check", "-c"]).arg(&path))
    };
    let (code, _, err) = check(&edited(""));
    assert!(code == 1 && err.contains("would lock readers out") && !err.contains("accept_lockout_until = "), "{err}");
    let day =
        err.split("--accept-lockout-until ").nth(1).and_then(|rest| rest.get(..10)).unwrap_or_else(|| panic!("{err}"));
    let with_day = edited(&format!("accept_lockout_until = \"{day}\""));
    let (code, _, err) = check(&with_day);
    assert!(code == 1 && err.contains("accepts no lockout: remove it") && !err.contains("accepted until"), "{err}");
    let server = Pintle::start(&bed.authority, &with_day);
    assert_eq!(bed.served(&server), bed.live.pin);
}

/// A reload refuses a text in which a site has a name whose readers hold other pins: it is merged into the site, or comes
/// back. The process has not loaded that text, so an installation accepts nothing for it, and the line does.
#[test]
fn a_lockout_of_a_text_that_is_not_loaded_takes_the_line() {
    let bed = Bed::new();
    let own = bed.authority.leaf("own", &["a.test"]);
    let other = bed.authority.leaf("other", &["c.test", "a.test"]);
    let pins = hpkp(&[bed.authority.public_key("backup")], "");
    let (first, second) = (site(&bed, &["a.test"], &own, &pins), site(&bed, &["c.test"], &other, ""));
    for is_merged in [true, false] {
        let pintle = Pintle::start(&bed.authority, &(state(&bed) + &first + &second));
        assert!(pins_at(&bed, &pintle, "a.test").is_some());
        let (hosts, from) = match is_merged {
            true => (&["c.test", "a.test"][..], first.clone() + &second),
            false => {
                pintle.rewrite(|text| text.replace(&first, ""));
                pintle.reload();
                (&["a.test"][..], String::new())
            }
        };
        let edited = site(&bed, hosts, &other, "");
        pintle.rewrite(|text| if from.is_empty() { text.to_owned() + &edited } else { text.replace(&from, &edited) });
        let refused = pintle.reload_fails();
        assert!(refused.contains("accept_lockout_until = \"") && !refused.contains("pintle install"), "{refused}");
        let day = day_in(&refused);
        let mut install = pintle.command("install");
        install.args(["--accept-lockout-until", &day, "--site", hosts[0]]).arg(&other.chain).arg(&other.key);
        let (code, out, err) = outcome(&mut install);
        assert!(code == 1 && !out.contains("is accepted"), "{out}{err}");
        assert!(!is_merged || err.contains("the lockout is not accepted for c.test") && day_in(&err) == day, "{err}");
        pintle.rewrite(|text| text.replace(&edited, &with_line(&edited, &day)));
        output(&mut pintle.command("reload"));
        assert_eq!(pin_at(&pintle, "a.test"), other.pin, "{is_merged}");
        drop(pintle);
        fs::remove_dir_all(bed.state()).unwrap();
    }
}
