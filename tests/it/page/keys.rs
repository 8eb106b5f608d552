//! The page Keys: the keys with their promises, and new ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::config::send;
use crate::admin::{Bed, get};
use crate::harness::{BLOG, Pintle, outcome};

#[test]
fn keys_are_shown_and_made() {
    let bed = Bed::new();
    let pintle = Pintle::start(&bed.authority, &bed.config(""));
    let page = get(&bed.socket(), "/keys");
    let (_, out, _) = outcome(pintle.command("key list").arg("--json"));
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    let pin = listed[0]["keys"][0]["pin"].as_str().unwrap();
    assert!(page.contains("<h1>Keys</h1>") && page.contains(BLOG), "{page}");
    assert!(page.contains(pin) || page.contains(&pin.replace('+', "&#43;")), "{pin}: {page}");
    assert!(!page.contains("style="), "{page}");

    let make = |site: &str, role: &str| {
        send(&bed, "/keys", &[("csrf", ""), ("site", site), ("role", role), ("algorithm", "ecdsa-p256")])
    };
    let (head, page) = make(BLOG, "next");
    assert!(head.starts_with("http/1.1 200"), "{head} {page}");
    assert!(page.contains("BEGIN CERTIFICATE REQUEST") && !page.contains("PRIVATE KEY"), "{page}");
    let key = page.split("The private key is in <code>").nth(1).unwrap().split('<').next().unwrap();
    assert!(fs::read_to_string(key).unwrap().contains("PRIVATE KEY"));
    assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(pintle.logged("key made", 1)[0]["key"] == key);
    // Never over another one: the next has a name of its own.
    let (_, again) = make(BLOG, "next");
    assert!(again.contains("Made: the next key") && !again.contains(&format!("<code>{key}</code>, for")), "{again}");
    for (site, role, status) in [("other.example.com", "next", 404), (BLOG, "live", 400), (BLOG, "../x", 400)] {
        let (head, page) = make(site, role);
        assert!(head.starts_with(&format!("http/1.1 {status}")) && page.contains("No key was made"), "{head}");
    }
}
