//! `pintle verify`: the program as a client of pintle, and of servers that get it wrong in every way that was ever seen.

mod faults;
mod hostile;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Authority, BLOG, KeyKind, Leaf, Origin, Pintle, SecureServer, blog, outcome, page, pintle, policies,
};
use crate::headers::openssl_pin;

/// A backup that no server here has the key of.
const BACKUP: &str = "d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=";

/// A place without a listener: this machine's port 80 may be in use.
const NOBODY: &str = "127.0.0.1:1";

/// `pintle verify` of the blog at this address, with the CA, and nothing at plain HTTP.
fn verify(authority: &Authority, https: SocketAddr) -> Command {
    verify_url(authority, https, NOBODY, &format!("https://{BLOG}/"))
}

/// The same of any URL, and with plain HTTP at this place.
fn verify_url(authority: &Authority, https: SocketAddr, http: &str, url: &str) -> Command {
    let mut command = pintle();
    command.args(["verify", url, "--connect", &https.to_string(), "--connect-http", http, "--ca"]);
    command.arg(authority.ca_path());
    command
}

/// The same of the blog.
fn verify_with_plain(authority: &Authority, https: SocketAddr, http: SocketAddr) -> Command {
    verify_url(authority, https, &http.to_string(), &format!("https://{BLOG}/"))
}

/// The report of a run, and its exit code.
#[track_caller]
fn report(command: &mut Command) -> (i32, Value) {
    let (code, out, err) = outcome(command.arg("--json"));
    let report: Value =
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}\n--- stdout\n{out}\n--- stderr\n{err}"));
    assert_eq!(report["ok"], code == 0, "{out}");
    let wrong = report["findings"].as_array().unwrap().iter().any(|f| f["level"] == "error");
    assert_eq!(wrong, code == 1, "{out}");
    (code, report)
}

/// The levels at which a check was reported.
fn levels<'a>(report: &'a Value, check: &str) -> Vec<&'a str> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|f| f["check"] == check).map(|f| f["level"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_told(report: &Value, check: &str, level: &str) {
    assert!(levels(report, check).contains(&level), "no {check} at level {level} in {report:#}");
}

#[track_caller]
fn assert_not_told(report: &Value, check: &str) {
    assert!(levels(report, check).is_empty(), "{check} in {report:#}");
}

/// The header lines of a server that does everything right.
fn good_lines(leaf: &Leaf) -> Vec<String> {
    vec![
        "Strict-Transport-Security: max-age=31536000".to_owned(),
        format!("Public-Key-Pins: pin-sha256=\"{}\"; pin-sha256=\"{BACKUP}\"; max-age=2592000", leaf.pin),
    ]
}

#[test]
fn pintle_itself_is_fine() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let server = Pintle::start(&authority, &(blog(&authority, &origin) + &policies(&authority)));
    let command = || verify_with_plain(&authority, server.https(), server.http());
    let (code, report) = report(&mut command());
    assert_eq!(code, 0, "{report:#}");
    for check in [
        "tls-1.3",
        "tls-1.2",
        "tls-1.1",
        "tls-1.0",
        "ssl-3.0",
        "visit-again",
        "certificate-valid",
        "redirect-ok",
        "sts-noted",
        "sts-second-visit",
        "pkp-noted",
        "pkp-second-visit",
    ] {
        assert_eq!(levels(&report, check), ["ok"], "{check} in {report:#}");
    }
    let live = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.folder().join("blog.pem"));
    let ca = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.ca_path());
    let backup = |name: &str| openssl_pin(&["pkey", "-pubin", "-pubout"], &authority.folder().join(name));
    assert_eq!(report["noted"]["pins"]["pins"], serde_json::json!([live, backup("next.pub"), backup("spare.pub")]));
    assert_eq!(report["noted"]["pins"]["max_age"], 2_592_000);
    assert_eq!(report["noted"]["hsts"]["max_age"], 31_536_000);
    assert_eq!((&report["chain"][0]["pin"], &report["chain"][1]["pin"]), (&live.into(), &ca.into()));
    assert_eq!(report["chain"][1]["subject"], "pintle test CA");
    assert_eq!(report["tls"]["negotiated"], "TLS 1.3");
    assert_eq!((&report["redirect"]["status"], &report["response"]["status"]), (&301.into(), &200.into()));
    assert_eq!(report["preload"]["ready"], false);

    let (code, table, err) = outcome(&mut command());
    assert_eq!((code, err.as_str()), (0, ""), "{table}");
    for part in [
        "\nTLS\n  ok    tls-1.3 ",
        "\ncertificate\n  ok    certificate-valid ",
        "\nredirect\n  ok    redirect-ok ",
        "\nHSTS\n  ok    sts-noted ",
        "\npins\n  ok    pkp-noted ",
        "browsers stopped enforcing Public-Key-Pins in 2018-2020",
        "=  backup\n",
        "/: fine\n",
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    assert!(!table.contains('\x1b'), "colours without a terminal");
}

fn server_leaf() -> (Authority, Leaf) {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &[BLOG]);
    (authority, leaf)
}

#[test]
fn pins_of_a_file() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let server = Pintle::start(&authority, &(blog(&authority, &origin) + &policies(&authority)));
    let run = |contents: &str| {
        let file = authority.write("pins", contents);
        report(verify(&authority, server.https()).arg("--pins").arg(file))
    };
    let live = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.folder().join("blog.pem"));
    let root = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.ca_path());
    for good in [
        format!("{live}\n"),
        format!("# live, then next\npin-sha256=\"{live}\"\npin-sha256=\"{BACKUP}\"\n"),
        format!("sha256//{BACKUP};sha256//{live}"),
        format!("{root}\n"),
    ] {
        let (code, report) = run(&good);
        assert_eq!((code, levels(&report, "pins-file")), (0, vec!["ok"]), "{good}");
    }
    let (code, wrong) = run(&format!("{BACKUP}\n"));
    assert_eq!((code, levels(&wrong, "pins-file-no-match")), (1, vec!["error"]));
    // What `pintle pin` and an earlier visit have printed.
    let (_, printed, _) = outcome(pintle().arg("pin").arg(authority.folder().join("blog.key")));
    assert_eq!(run(&printed).0, 0);
    let (_, earlier, _) = outcome(verify(&authority, server.https()).arg("--json"));
    assert_eq!(run(&earlier).0, 0);
    let other = authority.leaf("other", &[BLOG]);
    let replaced = SecureServer::with_lines(&other, &good_lines(&other));
    let file = authority.write("earlier.json", &earlier);
    let (code, report) = report(verify(&authority, replaced.address).arg("--pins").arg(file));
    assert_eq!((code, levels(&report, "pins-file-no-match")), (1, vec!["error"]));
    // Files without pins are reported with their place.
    for (contents, words) in
        [("", "no pin found"), ("AAAA\n", "line 1: not a pin: AAAA"), ("{}", "not the JSON of pintle")]
    {
        let file = authority.write("pins", contents);
        let (code, out, err) = outcome(verify(&authority, server.https()).arg("--pins").arg(&file));
        assert!(
            code == 1 && out.is_empty() && err.contains(&format!("{}: {words}", file.display())),
            "{code} {out} {err}"
        );
    }
}

#[test]
fn another_key_at_the_second_visit() {
    let authority = Authority::new();
    let (live, next) = (authority.leaf("live", &[BLOG]), authority.leaf("next", &[BLOG]));
    let stranger = authority.leaf("stranger", &[BLOG]);
    let header = |own: &Leaf, backup: &str| {
        format!("Public-Key-Pins: pin-sha256=\"{}\"; pin-sha256=\"{backup}\"; max-age=2592000\r\n", own.pin)
    };
    let run = |leaves: [&Leaf; 2], headers: [String; 2]| {
        let server = SecureServer::start(&leaves, move |nth, _| page(&headers[nth.min(1)], "<p>"));
        report(&mut verify(&authority, server.address))
    };
    // The backup is deployed, as expected, and reported.
    let promised = header(&live, &next.pin);
    let (code, report) = run([&live, &next], [promised.clone(), promised.clone()]);
    assert_eq!(code, 0, "{report:#}");
    assert_told(&report, "chain-varies", "warning");
    assert_told(&report, "pkp-second-visit", "ok");
    assert_eq!(report["other_chains"][0][0]["pin"], next.pin);
    // A key that nobody was promised.
    let (code, report) = run([&live, &stranger], [promised.clone(), promised.clone()]);
    assert_eq!(code, 1);
    assert_told(&report, "pkp-second-visit", "error");
    // A farm, each of whose servers promises its own key alone.
    let (code, report) = run([&live, &stranger], [promised.clone(), header(&stranger, BACKUP)]);
    assert_eq!(code, 1);
    assert_told(&report, "pkp-second-visit", "error");
    assert_told(&report, "pkp-varies", "warning");
    // Who is not let in notes nothing.
    assert_eq!(report["noted"]["pins"]["pins"], serde_json::json!([live.pin, next.pin]));
    // The same, first met at a server that promises nothing.
    let (code, report) = run([&live, &stranger], [String::new(), header(&stranger, BACKUP)]);
    assert_eq!(code, 1);
    assert_told(&report, "pkp-second-visit", "error");
    // HSTS leaves no way around an error.
    let expired = authority.leaf_of("expired", &[BLOG], KeyKind::Ecdsa, -9, -1);
    let sts = "Strict-Transport-Security: max-age=31536000\r\n".to_owned();
    let (code, report) = run([&live, &expired], [sts.clone(), sts]);
    assert_eq!(code, 1);
    assert_told(&report, "sts-second-visit", "error");
}

/// Clients that take no ECDSA get the other certificate of a pair; its key must be promised as well.
#[test]
fn both_certificates_of_a_pair() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let ecdsa = authority.leaf_of("ecdsa", &[BLOG], KeyKind::Ecdsa, -1, 90);
    let rsa = authority.leaf_of("rsa", &[BLOG], KeyKind::Rsa, -1, 90);
    let mut config = format!("[[site]]\nhosts = [\"{BLOG}\"]\nupstream = \"{}\"\n", origin.url());
    for leaf in [&ecdsa, &rsa] {
        config += &format!("[[site.certificate]]\nchain = {:?}\nkey = {:?}\n", leaf.chain, leaf.key);
    }
    let server = Pintle::start(&authority, &(config + &policies(&authority)));
    let (code, report_of_pair) = report(&mut verify(&authority, server.https()));
    assert_eq!(code, 0, "{report_of_pair:#}");
    assert_told(&report_of_pair, "certificate-second", "ok");
    let seen = [&report_of_pair["chain"][0]["pin"], &report_of_pair["other_chains"][0][0]["pin"]];
    assert!(seen.contains(&&ecdsa.pin.clone().into()) && seen.contains(&&rsa.pin.clone().into()), "{seen:?}");
    let file = authority.write("pins", &ecdsa.pin);
    let (code, report) = report(verify(&authority, server.https()).arg("--pins").arg(file));
    assert_eq!(code, 1);
    assert_eq!(levels(&report, "pins-file-no-match"), ["error"]);
}

#[test]
fn every_check_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("docs/guide/verify.md")).unwrap();
    let named: Vec<&str> = guide.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let mut missing: Vec<&&str> = pintle::verify::finding::CHECKS.iter().filter(|c| !named.contains(c)).collect();
    missing.extend(named.iter().filter(|n| !pintle::verify::finding::CHECKS.contains(n)));
    assert!(missing.is_empty(), "in docs/guide/verify.md or in CHECKS, but not in both: {missing:?}");
}

/// `pintle verify ... | head -1` ends quietly.
#[test]
fn a_reader_that_has_enough() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let server = Pintle::start(&authority, &blog(&authority, &origin));
    let mut command = verify(&authority, server.https());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, _, err) = outcome(command.arg("--json").stdout(writer));
    assert_eq!((code, err.as_str()), (0, ""));
}

/// A command for another site keeps the roots, and whatever the server sends, it is one word for a shell.
#[test]
fn a_site_that_redirects_to_another_one() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &[BLOG]);
    let server = SecureServer::start(&[&leaf], |_, _| {
        b"HTTP/1.1 302 Found\r\nLocation: https://other.example/?a=1&b=$(id);c\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let (_, report) = report(&mut verify(&authority, server.address));
    let mut findings = report["findings"].as_array().unwrap().iter();
    let finding = findings.find(|finding| finding["check"] == "page-not-checked").unwrap();
    let want = format!("pintle verify --ca {} 'https://other.example/?a=1&b=$(id);c'", authority.ca_path().display());
    assert_eq!(finding["hint"], want, "{finding}");
}
