//! The guard over a whole configuration, in the program: what `tests/it/model` cannot see, as it has neither files nor
//! processes.

use std::fs;

use serde_json::Value;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, blog, eventually, outcome, output, pintle, policies};

/// The record of another node: a set for the blog, of keys that this one does not have.
fn foreign_ledger() -> String {
    use pintle::host::HostPattern;
    use pintle::keys::pin::Pin;
    use pintle::ledger::{Record, time};
    use pintle::policy::hpkp::{Hpkp, Mode};
    use pintle::policy::promise::Promise;
    let pins = vec![Pin::of_spki(b"one"), Pin::of_spki(b"two")];
    let policy = Hpkp { mode: Mode::Enforce, max_age: 86_400, pins, include_subdomains: false, report_uri: None };
    let promise = Promise::of_header(&[HostPattern::parse(BLOG).unwrap()], &[], &policy);
    let now = time::wall();
    Record::format().line() + &Record::Promise(Promise { first_sent: now, last_sent: now, ..promise }).line()
}

/// The chain in use breaks another node's promise: pintle keeps serving it.
#[test]
fn a_merge_that_comes_too_late() {
    let authority = Authority::new();
    let origin = Origin::hello();
    let state = authority.folder().join("state");
    let text = format!("[state]\ndirectory = {state:?}\n{}{}", blog(&authority, &origin), policies(&authority));
    let node = Pintle::start(&authority, &text);
    let config = authority.write("pintle.toml", &text);
    let other = authority.write("other.jsonl", foreign_ledger());
    let run = |arguments: &[&str]| outcome(pintle().args(arguments).arg("-c").arg(&config));
    let merge = || output(pintle().args(["ledger", "merge", "-c"]).arg(&config).arg(&other));
    assert_eq!(merge(), "1 records are new here\n");
    assert_eq!(merge(), "0 records are new here\n");
    let (code, status, _) = run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(code, 0, "{status}");
    assert!(Client::new(&authority).get(node.https(), BLOG, "/").field("public-key-pins").is_some());
    // Refusing the key in use would help nobody; the operator has to know.
    eventually("the pair is copied", || state.join("last-good").read_dir().ok()?.next().map(drop));
    drop(node);
    let (code, _, problems) = run(&["check"]);
    assert!(code == 0 && problems.contains("would lock readers out"), "{problems}");
    assert!(problems.contains("the key in use breaks these promises, too"), "{problems}");
}

/// Each name is served by one site: nobody notes the pins of the one for the other.
#[test]
fn a_wildcard_beside_a_name_with_keys_of_its_own() {
    let authority = Authority::new();
    let site = |name: &str, host: &str, more: &str| {
        let leaf = authority.leaf(name, &[host]);
        let (next, spare) =
            (authority.public_key(&format!("{name}-next")), authority.public_key(&format!("{name}-spare")));
        format!(
            "[[site]]\nhosts = [{host:?}]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n\
             [site.hpkp]\nbackups = [{next:?}, {spare:?}]\n{more}",
            leaf.chain, leaf.key
        )
    };
    let check = |more: &str| {
        let text = site("wide", "*.example.com", more) + &site("shop", "shop.example.com", "");
        outcome(pintle().args(["check", "-c"]).arg(authority.write("pintle.toml", text)))
    };
    assert_eq!(check("").0, 0, "{}", check("").2);
    assert_eq!(check("include_subdomains = true\n").0, 0);
    let text = site("top", "example.com", "include_subdomains = true\n") + &site("shop", "shop.example.com", "");
    let (code, _, problems) = outcome(pintle().args(["check", "-c"]).arg(authority.write("pintle.toml", text)));
    assert!(code == 1 && problems.contains("would lock readers out of shop.example.com"), "{problems}");
}

/// An export that would lock its own clients out of another site.
#[test]
fn an_export_that_binds_another_site() {
    let authority = Authority::new();
    let mut text = format!("[state]\ndirectory = {:?}\n", authority.folder().join("state"));
    for (name, host) in [("wide", "*.example.com"), ("shop", "shop.example.com")] {
        let leaf = authority.leaf(name, &[host]);
        text += &format!(
            "[[site]]\nhosts = [{host:?}]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            leaf.chain, leaf.key
        );
    }
    let config = authority.write("pintle.toml", text);
    let spare = authority.public_key("spare");
    let export = |more: &[&str]| {
        let mut command = pintle();
        command.args(["export", "--as", "json", "--site", "*.example.com", "-c"]).arg(&config);
        outcome(command.arg("--backup").arg(&spare).args(more))
    };
    let (code, text, why) = export(&["--life", "90d"]);
    assert!(
        code == 1 && !text.contains("pins") && why.contains("would lock its users out of shop.example.com"),
        "{why}"
    );
    assert!(!authority.folder().join("state/ledger.jsonl").exists());
    let (code, text, why) = export(&[]);
    assert!(code == 0 && !text.is_empty() && why.contains("would lock its users out of shop.example.com"), "{why}");
    let shop = authority.folder().join("shop.pem");
    let (code, _, why) = export(&["--life", "90d", "--backup", shop.to_str().unwrap()]);
    assert_eq!(code, 0, "{why}");
}

/// Nobody knows what was promised: then, nothing may be served that could break it.
#[test]
fn a_ledger_that_cannot_be_read() {
    let authority = Authority::new();
    let state = authority.folder().join("state");
    fs::create_dir_all(state.join("ledger.jsonl")).unwrap();
    let text = format!("[state]\ndirectory = {state:?}\n{}", blog(&authority, &Origin::hello()));
    let listen = "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = [\"127.0.0.1:0\"]\n";
    let config = authority.write("pintle.toml", format!("{listen}{text}"));
    let (code, _, why) = outcome(pintle().args(["run", "-c"]).arg(config));
    assert!(code == 1 && why.contains("cannot read the promises"), "{why}");
}
