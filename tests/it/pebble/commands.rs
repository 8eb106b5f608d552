//! `pintle acme` against a running process, and the account that it makes.

use std::fs;

use super::orders::{Bed, obtained, renew};
use crate::harness::pebble::{Settings, is_current};
use crate::harness::{BLOG, Pintle, free_port, outcome, output};

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
