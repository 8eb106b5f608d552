//! The pages' own certificate, and the pins of sites that bind its names.

use std::fs;

use crate::harness::{Leaf, Pintle, outcome, output};
use crate::refused_edits::{hpkp, pins_at, site, state};
use crate::rotation::Bed;

const BELOW: &str = "include_subdomains = true\n";

fn pages(leaf: &Leaf) -> String {
    format!("[admin.https]\nlisten = [\"127.0.0.1:0\"]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key)
}

/// A certificate that breaks one site's promise is still judged by the pins that another site is about to send.
#[test]
fn pages_that_break_a_promise_break_no_other_one_unseen() {
    let bed = Bed::new();
    let [a, f] = ["a.test", "f.test"].map(|host| bed.authority.leaf(&format!("own-{}", &host[..1]), &[host]));
    let own = bed.authority.leaf("pages", &["admin.a.test", "admin.f.test"]);
    let pins = hpkp(&[bed.authority.public_key("backup")], BELOW);
    let first = state(&bed) + &site(&bed, &["a.test"], &a, &pins);
    let second = |more: &str| site(&bed, &["f.test"], &f, more);
    let pintle = Pintle::start(&bed.authority, &(first.clone() + &second("")));
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    drop(pintle);
    let pintle = Pintle::start(&bed.authority, &(pages(&own) + &first + &second("")));
    pintle.logs("would lock readers out of the pages at admin.a.test");
    pintle.rewrite(|text| text.replace(&second(""), &second(&pins)));
    let refused = pintle.reload_fails();
    assert!(refused.contains("would lock readers out of the admin pages at admin.f.test:"), "{refused}");
    assert_eq!(pins_at(&bed, &pintle, "f.test"), None);
    // Pins that bind no other name of the pages go on.
    pintle.rewrite(|text| text.replace(&second(&pins), &second("")).replace("max_age = \"30d\"", "max_age = \"29d\""));
    output(&mut pintle.command("reload"));
    assert!(pins_at(&bed, &pintle, "a.test").is_some_and(|pins| pins.contains("max-age=2505600")));
}

/// The hint is to promise the key first. Once that is done, the operator reads from when it is usable.
#[test]
fn a_refused_key_of_the_pages_has_a_date() {
    let bed = Bed::new();
    let a = bed.authority.leaf("own", &["a.test"]);
    let [fit, strange] = [("fit", &a.key), ("strange", &bed.stranger.key)]
        .map(|(name, key)| bed.authority.renew(name, key, &["admin.a.test"], 90));
    let [chain, key] = ["pages.pem", "pages.key"].map(|name| bed.folder.path().join(name));
    let put = |leaf: &Leaf| {
        fs::copy(&leaf.key, &key).unwrap();
        fs::copy(&leaf.chain, &chain).unwrap();
    };
    put(&fit);
    let own = Leaf { chain: chain.clone(), key: key.clone(), pin: String::new() };
    let keys = [bed.authority.public_key("backup"), bed.authority.csr(&bed.stranger)];
    let [before, after] = [&keys[..1], &keys[..]].map(|keys| site(&bed, &["a.test"], &a, &hpkp(keys, BELOW)));
    let pintle = Pintle::start(&bed.authority, &(pages(&own) + &state(&bed) + &before));
    assert!(pins_at(&bed, &pintle, "a.test").is_some());
    put(&strange);
    let reloaded = || {
        let (code, out, err) = outcome(&mut pintle.command("reload"));
        assert_eq!(code, 0, "{out}{err}");
        out + &err
    };
    let text = reloaded();
    let way = "add the key of this chain to backups of a.test";
    assert!(text.contains(way) && text.contains("usable from 20"), "{text}");
    pintle.rewrite(|text| text.replace(&before, &after));
    reloaded();
    let text = reloaded();
    assert!(text.contains("wait: the key of this chain is promised by a.test since 20"), "{text}");
    assert!(text.contains("usable from 20") && !text.contains("add the key"), "{text}");
}
