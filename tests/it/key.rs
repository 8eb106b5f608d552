//! `pintle key`: keys that only their owner can read, CSRs that openssl takes, and a list of who is who.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Authority, BLOG, Client, Origin, Pintle, outcome, output, pintle};
use crate::headers::openssl_pin;

/// A newcomer's site: the backups are named, and not there yet.
fn newcomer(hosts: &[&str], backups: &[&str]) -> (Authority, PathBuf) {
    let authority = Authority::new();
    authority.leaf("blog", hosts);
    let text = format!(
        "[[site]]\nhosts = {hosts:?}\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = \"../blog.pem\"\n\
         key = \"../blog.key\"\n[site.hpkp]\nbackups = {backups:?}\n"
    );
    fs::create_dir(authority.folder().join("config")).unwrap();
    let config = authority.write("config/pintle.toml", text);
    (authority, config)
}

fn new(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    outcome(pintle().args(["key", "new", "-c"]).arg(config).args(arguments))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn openssl(arguments: &[&str], file: &Path) -> String {
    let (code, out, err) = outcome(Command::new("openssl").args(arguments).arg("-in").arg(file));
    assert_eq!(code, 0, "{arguments:?} {err}");
    out + &err
}

#[test]
fn keys_of_every_kind_and_role() {
    let hosts = [BLOG, "*.example.com", "192.0.2.1"];
    let (authority, config) = newcomer(&hosts, &["../next.csr"]);
    for (role, algorithm, kind) in [
        ("next", "ecdsa-p256", "NIST CURVE: P-256"),
        ("spare", "rsa-2048", "Private-Key: (2048 bit"),
        ("live", "ed25519", "ED25519 Private-Key:"),
    ] {
        let (code, out, err) = new(&config, &["--role", role, "--site", "any.example.com", "--algorithm", algorithm]);
        assert_eq!(code, 0, "{err}");
        // Beside the chain, by the first name.
        let file = |end: &str| authority.folder().join(format!("{BLOG}-{role}.{end}"));
        assert_eq!(mode(&file("key")), 0o600, "{role}");
        let text = openssl(&["pkey", "-noout", "-text"], &file("key"));
        assert!(text.contains(kind), "{text}");
        let text = openssl(&["req", "-verify", "-noout", "-text"], &file("csr"));
        assert!(text.contains("verify OK"), "{text}");
        assert!(text.contains(&format!("Subject: CN = {BLOG}\n")), "{text}");
        assert!(text.contains(&format!("DNS:{BLOG}, DNS:*.example.com, IP Address:192.0.2.1")), "{text}");
        let pin = openssl_pin(&["pkey", "-pubout"], &file("key"));
        assert_eq!(pin, openssl_pin(&["req", "-pubkey", "-noout"], &file("csr")));
        assert!(out.contains(&pin) && out.contains(algorithm) && out.contains("Next:\n  1. "), "{out}");
        // No line of the key is printed.
        let secret = fs::read_to_string(file("key")).unwrap();
        for line in secret.lines().filter(|l| !l.starts_with("---")) {
            assert!(!out.contains(line) && !err.contains(line), "{out}{err}");
        }
        assert_eq!(err.contains("Ed25519"), algorithm == "ed25519", "{err}");
    }
}

#[test]
fn what_was_made_for_programs() {
    let (authority, config) = newcomer(&[BLOG], &[]);
    let (code, out, err) = new(&config, &["--role", "next", "--site", BLOG, "--json"]);
    assert_eq!(code, 0, "{err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    let csr = authority.folder().join(format!("{BLOG}-next.csr"));
    assert_eq!(made["pin"], openssl_pin(&["req", "-pubkey", "-noout"], &csr));
    assert!(made["role"] == "next" && made["key"].as_str().unwrap().ends_with("blog.example.com-next.key"), "{out}");
}

#[test]
fn whatever_the_umask_nobody_else_can_read_it() {
    let (authority, config) = newcomer(&[BLOG], &[]);
    let script = "umask 0; exec \"$0\" key new --role next --site blog.example.com -c \"$1\"";
    output(Command::new("sh").args(["-c", script]).arg(pintle().get_program()).arg(&config));
    assert_eq!(mode(&authority.folder().join("blog.example.com-next.key")), 0o600);
}

#[test]
fn what_is_there_is_never_overwritten() {
    let (authority, config) = newcomer(&[BLOG], &[]);
    let file = |end: &str| authority.folder().join(format!("{BLOG}-next.{end}"));
    let refused = |there: &Path, absent: &Path| {
        // The new one has the day in its name, and a number after the first.
        let (code, out, err) = new(&config, &["--role", "next", "--site", BLOG]);
        assert_eq!(code, 0, "{err}");
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        assert!(out.contains(&format!("{BLOG}-next-{today}")), "{out}");
        assert!(there.symlink_metadata().is_ok() && absent.symlink_metadata().is_err(), "{}", absent.display());
    };
    for (there, absent) in [(file("key"), file("csr")), (file("csr"), file("key"))] {
        fs::write(&there, "precious").unwrap();
        refused(&there, &absent);
        assert_eq!(fs::read_to_string(&there).unwrap(), "precious");
        fs::remove_file(&there).unwrap();
        // A link that leads nowhere would have the key written to where it points.
        symlink(authority.folder().join("elsewhere"), &there).unwrap();
        refused(&there, &absent);
        assert!(!authority.folder().join("elsewhere").exists());
        fs::remove_file(&there).unwrap();
    }
    // Elsewhere, by the shell's own idea of where that is.
    let elsewhere = authority.folder().join("keys");
    let there = ["--role", "next", "--site", BLOG, "--out", "keys"];
    let run = || outcome(pintle().current_dir(authority.folder()).args(["key", "new", "-c"]).arg(&config).args(there));
    let (code, _, err) = run();
    assert!(code == 1 && err.contains("keys: no such folder\n  hint: mkdir"), "{err}");
    fs::create_dir(&elsewhere).unwrap();
    let (code, out, err) = run();
    assert!(code == 0 && out.contains(elsewhere.join(format!("{BLOG}-next.csr")).to_str().unwrap()), "{out}{err}");
    assert_eq!(mode(&elsewhere.join(format!("{BLOG}-next.key"))), 0o600);
}

/// From the first `pintle check` to a header with two backups, by what the commands print.
#[test]
fn a_newcomer_follows_what_is_printed() {
    let (_authority, config) = newcomer(&[BLOG, "www.example.com"], &["../next.csr"]);
    fs::write(&config, format!("[state]\ndirectory = \"state\"\n{}", fs::read_to_string(&config).unwrap())).unwrap();
    let check = || outcome(pintle().arg("check").arg("-c").arg(&config));
    let (code, _, err) = check();
    assert!(code == 1 && err.contains("next.csr: no such file"), "{err}");
    for role in ["next", "spare"] {
        let (code, out, err) = new(&config, &["--role", role, "--site", "www.example.com"]);
        assert_eq!(code, 0, "{err}");
        let line = out.lines().find(|l| l.contains("backups = [")).unwrap().trim();
        let text = fs::read_to_string(&config).unwrap();
        let kept: Vec<&str> = text.lines().filter(|l| !l.starts_with("backups = ")).collect();
        fs::write(&config, format!("{}\n{line}\n", kept.join("\n"))).unwrap();
        assert_eq!(out.contains("next.csr is left out"), role == "next", "{out}");
    }
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(
        text.ends_with("backups = [\"../blog.example.com-next.csr\", \"../blog.example.com-spare.csr\"]\n"),
        "{text}"
    );
}

/// The life of a next key: an authority signs its CSR, and pintle serves with it.
/// Both keys before the first [site.hpkp], as the file of `pintle init` has the commands: the last line has both.
#[test]
fn two_keys_for_the_first_header() {
    for roles in [["next", "spare"], ["spare", "next"]] {
        let (authority, config) = newcomer(&[BLOG], &[]);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.split("[site.hpkp]").next().unwrap()).unwrap();
        let said = roles.map(|role| {
            let (code, out, err) = new(&config, &["--role", role, "--site", BLOG]);
            assert_eq!(code, 0, "{err}");
            out
        });
        let line = said[1].lines().map(str::trim).find(|line| line.starts_with("backups = ")).unwrap();
        let both = ["next", "spare"].map(|role| format!("\"../{BLOG}-{role}.csr\"")).join(", ");
        assert_eq!(line, format!("backups = [{both}]"), "{}", said[1]);
        let mut text = fs::read_to_string(&config).unwrap();
        text.push_str(&format!("[site.hpkp]\n{line}\n"));
        fs::write(&config, text).unwrap();
        let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
        assert!(code == 0 && !err.contains("error"), "{out}{err}");
        drop(authority);
    }
}

#[test]
fn a_certificate_for_the_csr_can_be_served() {
    let (authority, config) = newcomer(&[BLOG], &[]);
    let client = Client::new(&authority);
    let origin = Origin::hello();
    for algorithm in ["ecdsa-p256", "rsa-2048", "ed25519"] {
        let folder = authority.folder().join(algorithm);
        fs::create_dir(&folder).unwrap();
        let out = folder.to_str().unwrap();
        let arguments = ["--role", "next", "--site", BLOG, "--algorithm", algorithm, "--out", out];
        assert_eq!(new(&config, &arguments).0, 0);
        let (key, csr, chain) = (format!("{BLOG}-next.key"), format!("{BLOG}-next.csr"), "chain.pem");
        let sign =
            ["x509", "-req", "-copy_extensions", "copy", "-days", "9", "-signkey", &key, "-in", &csr, "-out", chain];
        output(Command::new("openssl").current_dir(&folder).args(sign));
        let text = format!(
            "[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
            origin.url(),
            folder.join(chain),
            folder.join(&key)
        );
        let pintle = Pintle::start(&authority, &text);
        // The client trusts another authority, and so says that it has seen this certificate at least.
        let error = client.try_connect(pintle.https(), BLOG).err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
        let pin = openssl_pin(&["pkey", "-pubout"], &folder.join(&key));
        let curl = ["--insecure", "--pinnedpubkey", &format!("sha256//{pin}")];
        assert_eq!(output(pintle.curl().args(curl).arg(format!("https://{BLOG}/"))), "hello from the origin");
    }
}

#[test]
fn names_of_files_and_subjects() {
    for (host, stem, common) in [
        ("*.example.com", "_wildcard.example.com", "CN = *.example.com"),
        ("[2001:db8::1]", "2001-db8--1", "CN = 2001:db8::1"),
        (
            &format!("{}.{}.example", "a".repeat(40), "b".repeat(40)),
            &format!("{}.{}.example", "a".repeat(40), "b".repeat(40)),
            "",
        ),
    ] {
        let authority = Authority::new();
        let config = authority.write("pintle.toml", format!("[[site]]\nhosts = [{host:?}]\n"));
        let (code, out, err) = new(&config, &["--role", "next", "--site", host]);
        assert_eq!(code, 0, "{err}");
        // Without a chain, they are beside the configuration; and without backups, a line of the file is not all.
        assert!(out.contains("This turns the Public-Key-Pins header on"), "{out}");
        let csr = authority.folder().join(format!("{stem}-next.csr"));
        let text = openssl(&["req", "-noout", "-text", "-verify"], &csr);
        // ub-common-name: 64 characters.
        assert!(text.contains(&format!("Subject: {common}\n")), "{text}");
    }
}

#[test]
fn no_such_site() {
    let (_authority, config) = newcomer(&[BLOG, "*.example.org"], &[]);
    for host in ["other.example", "example.org", "", "a b"] {
        let (code, out, err) = new(&config, &["--role", "next", "--site", host]);
        assert_eq!((code, out.as_str()), (1, ""), "{host}");
        assert!(err.contains(&format!("no site has the host {host:?}")), "{err}");
        assert!(err.contains("  expected one of: blog.example.com, *.example.org\n"), "{err}");
    }
    assert_eq!(new(&config, &["--role", "next"]).0, 2);
    assert_eq!(new(&config, &["--site", BLOG]).0, 2);
    assert_eq!(new(&config, &["--role", "next", "--site", BLOG, "--algorithm", "dsa"]).0, 2);
    fs::write(&config, "[[site\n").unwrap();
    let (code, _, err) = new(&config, &["--role", "next", "--site", BLOG]);
    assert!(code == 1 && err.contains("pintle.toml:1:") && err.contains("cannot be read"), "{err}");
    let (code, _, err) = new(Path::new("/no/such.toml"), &["--role", "next", "--site", BLOG]);
    assert!(code == 1 && err.contains("/no/such.toml: no such file"), "{err}");
}

#[test]
fn list() {
    let (authority, config) = newcomer(&[BLOG], &["../next.csr", "../spare.pub"]);
    let list = |more: &[&str]| outcome(pintle().args(["key", "list", "-c"]).arg(&config).args(more));
    let spare = authority.public_key("spare");
    // An unreadable file is reported, and the rest is listed.
    let (code, out, err) = list(&[]);
    assert!(code == 1 && err.contains("next.csr: no such file") && out.contains("  spare  "), "{out}{err}");
    let key = authority.key("next", crate::harness::KeyKind::Rsa);
    let request = ["req", "-new", "-subj", "/CN=x", "-out", "next.csr", "-key"];
    output(Command::new("openssl").current_dir(authority.folder()).args(request).arg(key));
    let mut text = fs::read_to_string(&config).unwrap();
    text.push_str("[[site]]\nhosts = [\"shop.example\"]\n");
    fs::write(&config, text).unwrap();

    let (code, out, err) = list(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    let live = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.folder().join("blog.pem"));
    let next = openssl_pin(&["req", "-pubkey", "-noout"], &authority.folder().join("next.csr"));
    let spare = openssl_pin(&["pkey", "-pubin", "-pubout"], &spare);
    let end = openssl(&["x509", "-noout", "-enddate", "-dateopt", "iso_8601"], &authority.folder().join("blog.pem"));
    let end = &end.trim().trim_start_matches("notAfter=")[..10];
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let file = |name: &str| format!("{}/../{name}", authority.folder().join("config").display());
    assert_eq!(rows[0], [BLOG]);
    assert_eq!(rows[1], ["role", "pin", "algorithm", "kind", "promised", "since", "usable", "from", "until", "file"]);
    let chain = format!("{},", file("blog.pem"));
    assert_eq!(rows[2], ["live", &live, "ecdsa-p256", "chain", "-", "now", end, &chain, "key", &file("blog.key")]);
    assert_eq!(rows[3], ["next", &next, "rsa-2048", "csr", "-", "now", "-", &file("next.csr")]);
    assert_eq!(rows[4], ["spare", &spare, "ecdsa-p256", "public-key", "-", "now", "-", &file("spare.pub")]);
    assert!(out.ends_with("\nshop.example\n  no keys: the site has neither a certificate nor backups\n\n"), "{out}");

    let (code, out, _) = list(&["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    let keys = json[0]["keys"].as_array().unwrap();
    assert_eq!((code, keys.len(), &json[0]["site"]), (0, 3, &BLOG.into()));
    assert_eq!((&keys[0]["pin"], &keys[0]["role"]), (&live.as_str().into(), &"live".into()));
    assert_eq!(&keys[0]["not_after"].as_str().unwrap()[..10], end);
    assert_eq!((&keys[1]["algorithm"], &keys[1]["kind"]), (&"rsa-2048".into(), &"csr".into()));
    assert_eq!((&keys[2]["file"], &keys[2]["promised_since"]), (&file("spare.pub").into(), &Value::Null));
    let json: Value = serde_json::from_str(&list(&["--json", "--site", "shop.example"]).1).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["site"]), (1, &"shop.example".into()));
    let (code, _, err) = list(&["--site", "other.example"]);
    assert!(code == 1 && err.contains("no site has the host \"other.example\""), "{err}");
}

/// The keys of a site with `acme = true` are listed before pintle has made them, and before the first certificate.
#[test]
fn own_keys_are_listed_before_the_first_certificate() {
    let authority = Authority::new();
    let text = "[state]\ndirectory = \"state\"\n[acme]\nterms = true\n[[site]]\nhosts = [\"blog.example.com\"]\n\
                upstream = \"http://127.0.0.1:1\"\n[site.certificate]\nacme = true\n[site.hpkp]\nbackups = [\"spare.csr\"]\n";
    let config = authority.write("pintle.toml", text);
    let list = |more: &[&str]| outcome(pintle().args(["key", "list", "-c"]).arg(&config).args(more));
    let (code, out, err) = list(&[]);
    assert_eq!(out.matches(" (pintle makes it at its first start)\n").count(), 2, "{out}");
    // The spare is the operator's.
    assert!(code == 1 && err.starts_with("error: ") && err.ends_with("spare.csr: no such file\n"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let own = authority.folder().join("state/acme/blog.example.com/ecdsa-p256");
    fs::create_dir_all(&own).unwrap();
    fs::copy(authority.leaf("own", &[BLOG]).key, own.join("key.pem")).unwrap();
    let keys: Value = serde_json::from_str(&list(&["--json"]).1).unwrap();
    let [live, next] = [0, 1].map(|at| &keys[0]["keys"][at]);
    assert!(live["pin"].is_string() && live["awaited"] == false, "{keys}");
    assert!(next["pin"].is_null() && next["error"].is_null() && next["awaited"] == true, "{keys}");
    // pintle replaces no link.
    symlink("elsewhere.pem", own.join("next.pem")).unwrap();
    let (code, out, err) = list(&[]);
    assert!(code == 1 && !out.contains("first start") && err.contains("next.pem: no such file"), "{out}{err}");
}
