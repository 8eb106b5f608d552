//! Servers that get it wrong: headers, plain HTTP, certificates, pages.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use super::{
    BACKUP, NOBODY, assert_told, good_lines, levels, report, server_leaf, verify, verify_url, verify_with_plain,
};
use crate::harness::{Authority, BLOG, KeyKind, Leaf, Origin, Reply, SecureServer, page, pintle};
use crate::headers::openssl_pin;

#[test]
fn the_classic_faults() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &[BLOG]);
    let check = |lines: &[&str], want: &[(&str, &str)]| {
        let fill = |line: &&str| line.replace("{A}", &leaf.pin).replace("{B}", BACKUP);
        let lines: Vec<String> = lines.iter().map(fill).collect();
        let server = SecureServer::with_lines(&leaf, &lines);
        let (code, report) = report(&mut verify(&authority, server.address));
        let faulty = want.iter().any(|(_, level)| *level == "error");
        assert_eq!(code, i32::from(faulty), "{lines:?}: {report:#}");
        for (check, level) in want {
            assert_told(&report, check, level);
        }
        let errors = report["findings"].as_array().unwrap().iter().filter(|f| f["level"] == "error").count();
        assert_eq!(errors, want.iter().filter(|(_, level)| *level == "error").count(), "{lines:?}: {report:#}");
    };
    let sts = "Strict-Transport-Security: max-age=31536000";
    let pkp = "Public-Key-Pins: pin-sha256=\"{A}\"; pin-sha256=\"{B}\"; max-age=2592000";
    check(&[sts, pkp], &[("sts-noted", "ok"), ("pkp-noted", "ok"), ("visit-again", "ok")]);
    check(&[], &[("sts-missing", "warning"), ("pkp-absent", "note"), ("pkp-browsers", "note")]);
    let ignored = ("pkp-not-noted", "warning");
    check(
        &["Strict-Transport-Security: max-age: 31536000"],
        &[("sts-max-age-colon", "error"), ("sts-not-noted", "warning")],
    );
    check(
        &["Public-Key-Pins: pin-sha256=\"{A}\"; pin-sha256=\"{B}\"; max-age: 2592000"],
        &[("pkp-max-age-colon", "error"), ignored],
    );
    check(
        &["Public-Key-Pins: pin-sha256={A}; pin-sha256={B}; max-age=2592000"],
        &[("pkp-unquoted-pin", "error"), ignored],
    );
    check(
        &["Public-Key-Pins: pin-sha256={B}; max-age: 2592000"],
        &[
            ("pkp-unquoted-pin", "error"),
            ("pkp-max-age-colon", "error"),
            ("pkp-single-pin", "error"),
            ("pkp-no-match", "error"),
            ignored,
        ],
    );
    check(
        &["Public-Key-Pins: pin-sha256='{A}'; pin-sha256='{B}'; max-age=2592000"],
        &[("pkp-misquoted-pin", "error"), ignored],
    );
    check(&["Public-Key-Pins: pin-sha256=\"{A}\"; max-age=2592000"], &[("pkp-single-pin", "error"), ignored]);
    check(
        &[
            "Public-Key-Pins: pin-sha256=\"{B}\"; pin-sha256=\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"; max-age=5",
        ],
        &[("pkp-no-match", "error"), ignored],
    );
    check(&[sts, pkp, pkp], &[("pkp-duplicate-field", "error"), ("pkp-noted", "ok")]);
    check(&[sts, sts], &[("sts-duplicate-field", "error"), ("sts-noted", "ok")]);
    check(
        &["Strict-Transport-Security: max-age=0", sts],
        &[("sts-duplicate-field", "error"), ("sts-forgotten", "warning")],
    );
    check(&[&format!("{pkp};")], &[("pkp-empty-directive", "error"), ignored]);
    check(&["Public-Key-Pins: pin-sha256=\"{A}\"; pin-sha256=\"{B}\""], &[("pkp-max-age-missing", "error"), ignored]);
    check(&[&format!("{sts}, includeSubDomains")], &[("sts-comma", "error"), ("sts-not-noted", "warning")]);
    check(&[&format!("{sts}; max-age=5")], &[("sts-duplicate-directive", "error")]);
    check(&[&format!("{sts}; includeSubDomains; preload")], &[("preload-not-ready", "warning")]);
    check(&[&pkp.replace("2592000", "99999999")], &[("pkp-max-age-long", "note"), ("pkp-noted", "ok")]);
    check(&[&pkp.replace("2592000", "0")], &[("pkp-forgotten", "note")]);
    check(
        &["Public-Key-Pins-Report-Only: pin-sha256=\"{B}\"; max-age=5"],
        &[
            ("pkp-no-match", "warning"),
            ("pkp-single-pin", "warning"),
            ("pkp-report-only-no-uri", "warning"),
            ("pkp-report-only", "note"),
        ],
    );
}

/// A pin of the root counts, though servers need not send it; the root itself is then no backup.
#[test]
fn pins_are_held_against_the_validated_path() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &[BLOG]);
    let root = openssl_pin(&["x509", "-pubkey", "-noout"], &authority.ca_path());
    // The leaf alone is sent.
    let chain = fs::read_to_string(&leaf.chain).unwrap();
    let end = chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
    fs::write(&leaf.chain, &chain[..end]).unwrap();
    let noted = |pins: [&str; 2]| {
        let line = format!("Public-Key-Pins: pin-sha256=\"{}\"; pin-sha256=\"{}\"; max-age=5", pins[0], pins[1]);
        let server = SecureServer::with_lines(&leaf, &[line]);
        report(&mut verify(&authority, server.address)).1
    };
    assert_told(&noted([&root, BACKUP]), "pkp-noted", "ok");
    assert_told(&noted([&root, &leaf.pin]), "pkp-no-backup", "error");
}

#[test]
fn plain_http() {
    let (authority, leaf) = server_leaf();
    let secure = SecureServer::with_lines(&leaf, &good_lines(&leaf));
    let check = |status: &'static str, lines: &'static str, want: &[(&str, &str)]| {
        let plain = Origin::start(move |_| Reply::new(status, lines, ""));
        let (code, report) = report(&mut verify_with_plain(&authority, secure.address, plain.address));
        let faulty = want.iter().any(|(_, level)| *level == "error");
        assert_eq!(code, i32::from(faulty), "{status} {lines}: {report:#}");
        for (check, level) in want {
            assert_told(&report, check, level);
        }
        assert_eq!(plain.request("/").field("host"), Some(BLOG));
    };
    let right = "Location: https://blog.example.com/\r\n";
    check("301 Moved Permanently", right, &[("redirect-ok", "ok")]);
    check("302 Found", right, &[("redirect-ok", "ok"), ("redirect-temporary", "warning")]);
    check("200 OK", "", &[("redirect-missing", "error")]);
    check("403 Forbidden", "", &[("redirect-missing", "warning")]);
    check("301 Moved", "Location: http://blog.example.com/x\r\n", &[("redirect-not-https", "error")]);
    check("301 Moved", "Location: https://www.example.com/\r\n", &[("redirect-other-host", "error")]);
    check("301 Moved", "Location: https://blog.example.com:8443/\r\n", &[("redirect-other-port", "error")]);
    check("301 Moved", "Location: https://blog.example.com/home\r\n", &[("redirect-path-lost", "error")]);
    check(
        "301 Moved Permanently",
        "Location: https://blog.example.com/\r\nStrict-Transport-Security: max-age=31536000\r\n",
        &[("redirect-ok", "ok"), ("sts-on-plain-http", "error")],
    );
    check(
        "301 Moved Permanently",
        "Location: https://blog.example.com/\r\nPublic-Key-Pins: max-age=0\r\n",
        &[("redirect-ok", "ok"), ("pkp-on-plain-http", "error")],
    );
    // Nobody there is no fault.
    let (code, report) = report(&mut verify(&authority, secure.address));
    assert_eq!(code, 0);
    assert_told(&report, "redirect-not-checked", "note");
}

/// Without --connect-http, plain HTTP is where TLS is, at port 80; and where neither is at its own port, under the name
/// with a port.
#[test]
fn where_plain_http_is_looked_for() {
    let (authority, leaf) = server_leaf();
    let lines: String = good_lines(&leaf).iter().map(|line| format!("{line}\r\n")).collect();
    // An address that nobody else uses. Not everybody may listen at port 80.
    if TcpListener::bind("127.80.80.80:80").is_err() {
        eprintln!("port 80 cannot be had: not tested");
        return;
    }
    let plain = Origin::start_at("127.80.80.80:80", |_| Reply::new("200 OK", "Public-Key-Pins: max-age=5\r\n", ""));
    let secure = SecureServer::start_at("127.80.80.80:0", &[&leaf], move |_, _| page(&lines, "<p>"));
    let mut command = pintle();
    command.args(["verify", &format!("https://{BLOG}/x"), "--connect", &secure.address.to_string(), "--ca"]);
    let (code, found) = report(command.arg(authority.ca_path()));
    assert_eq!(code, 1);
    assert_told(&found, "redirect-missing", "error");
    assert_told(&found, "pkp-on-plain-http", "error");
    assert_eq!(plain.request("/x").field("host"), Some(BLOG));
    let origin = Origin::start(|_| Reply::new("301 Moved", &format!("Location: https://{BLOG}:8443/y\r\n"), ""));
    let url = format!("https://{BLOG}:8443/y");
    let (code, found) = report(&mut verify_url(&authority, secure.address, &origin.address.to_string(), &url));
    assert_eq!(code, 0, "{found:#}");
    assert_told(&found, "redirect-ok", "ok");
    assert_eq!(origin.request("/y").field("host"), Some(format!("{BLOG}:{}", origin.address.port()).as_str()));
}

#[test]
fn path_and_query_are_kept() {
    let (authority, leaf) = server_leaf();
    let secure = SecureServer::with_lines(&leaf, &good_lines(&leaf));
    let plain = Origin::start(|request| {
        let target = request.path().split('?').next().unwrap_or_default();
        Reply::new("301 Moved", &format!("Location: https://{BLOG}{target}\r\n"), "")
    });
    let run = |target: &str| {
        let url = format!("https://{BLOG}{target}");
        report(&mut verify_url(&authority, secure.address, &plain.address.to_string(), &url))
    };
    assert_eq!(run("/a/b").0, 0);
    let (code, report) = run("/a/b?c=%20d");
    assert_eq!(code, 1);
    assert_told(&report, "redirect-path-lost", "error");
    assert_eq!(plain.request("/a/b?c=%20d").line(), "GET /a/b?c=%20d HTTP/1.1");
}

#[test]
fn certificates_that_clients_do_not_trust() {
    let authority = Authority::new();
    let expired = authority.leaf_of("expired", &[BLOG], KeyKind::Ecdsa, -9, -1);
    let future = authority.leaf_of("future", &[BLOG], KeyKind::Ecdsa, 1, 9);
    let other = authority.leaf("other", &["other.example.com"]);
    let due = authority.leaf_of("due", &[BLOG], KeyKind::Ecdsa, -80, 5);
    for (leaf, check) in
        [(&expired, "certificate-expired"), (&future, "certificate-not-yet-valid"), (&other, "certificate-name")]
    {
        let server = SecureServer::with_lines(leaf, &good_lines(leaf));
        let (code, report) = report(&mut verify(&authority, server.address));
        assert_eq!(code, 1);
        assert_told(&report, check, "error");
        // The visit goes on, and nothing is noted.
        assert_told(&report, "sts-not-noted", "warning");
        assert_told(&report, "pkp-not-noted", "warning");
        assert_told(&report, "page-mixed-content", "ok");
        assert_eq!((&report["noted"]["hsts"], &report["noted"]["pins"]), (&Value::Null, &Value::Null));
    }
    let server = SecureServer::with_lines(&due, &good_lines(&due));
    let (code, soon) = report(&mut verify(&authority, server.address));
    assert_eq!(code, 0, "{soon:#}");
    assert_told(&soon, "certificate-expires-soon", "warning");
    let (code, untrusted) = report(&mut verify(&Authority::new(), server.address));
    assert_eq!(code, 1);
    assert_told(&untrusted, "certificate-untrusted", "error");
}

/// `openssl req -x509` makes a root that serves as its own leaf; whoever names it with --ca trusts it.
#[test]
fn a_self_signed_certificate() {
    let folder = tempfile::TempDir::new().unwrap();
    let (key, chain) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=blog", "-addext"])
        .arg(format!("subjectAltName=DNS:{BLOG}"))
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pin = openssl_pin(&["x509", "-pubkey", "-noout"], &chain);
    let leaf = Leaf { chain: chain.clone(), key, pin };
    let server = SecureServer::with_lines(&leaf, &good_lines(&leaf));
    let mut command = pintle();
    command.args(["verify", &format!("https://{BLOG}"), "--connect", &server.address.to_string()]);
    let (code, report) = report(command.args(["--connect-http", NOBODY, "--ca"]).arg(&chain));
    assert_eq!(code, 0, "{report:#}");
    assert_told(&report, "pkp-noted", "ok");
}

#[test]
fn mixed_content() {
    let (authority, leaf) = server_leaf();
    let run = |lines: &'static str, body: &'static str| {
        let server = SecureServer::start(&[&leaf], move |_, path| match path {
            "/" => page(lines, body),
            "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/away" => {
                b"HTTP/1.1 302 Found\r\nLocation: http://blog.example.com/\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        });
        let (authority, address) = (&authority, server.address);
        move |path: &str| report(&mut verify_url(authority, address, NOBODY, &format!("https://{BLOG}{path}")))
    };
    let mixed = run(
        "",
        "<p>\n<img src='http://x.example/a.png'><a href='http://x.example/'>http://x.example/</a>\n<script src=http://x.example/a.js></script><!-- <img src=http://y.example/> -->",
    );
    for path in ["/", "/moved"] {
        let (code, report) = mixed(path);
        assert_eq!(code, 1);
        assert_eq!(levels(&report, "page-mixed-content"), ["error", "error"], "{report:#}");
        let insecure = &report["page"]["insecure"];
        assert_eq!(insecure[0]["url"], "http://x.example/a.png");
        assert_eq!((&insecure[0]["line"], &insecure[1]["line"]), (&2.into(), &3.into()));
        assert_eq!(insecure[1]["kind"], "active");
    }
    assert_told(&mixed("/away").1, "https-downgrade", "error");
    assert_told(&mixed("/none").1, "page-status", "warning");
    let (code, report) = run("", "<p><a href='http://x.example/'>http://x.example/</a> <img src=/a.png>")("/");
    assert_eq!((code, levels(&report, "page-mixed-content")), (0, vec!["ok"]));
    let upgraded =
        run("Content-Security-Policy: upgrade-insecure-requests\r\n", "<img src=http://x.example/a.png>")("/");
    assert_eq!(upgraded.0, 0);
    assert_told(&upgraded.1, "page-upgraded", "note");
    let (code, report) = run("", "<form action='http://x.example/login'>")("/");
    assert_eq!((code, levels(&report, "page-insecure-form")), (0, vec!["warning"]));
}

#[test]
fn addresses_have_no_policies() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &["127.0.0.1"]);
    let server = SecureServer::with_lines(&leaf, &good_lines(&leaf));
    let mut command = pintle();
    command.args(["verify", &format!("https://{}/", server.address), "--connect-http", NOBODY, "--ca"]);
    let (code, report) = report(command.arg(authority.ca_path()));
    assert_eq!(code, 0, "{report:#}");
    assert_told(&report, "certificate-valid", "ok");
    assert_told(&report, "sts-ip-address", "warning");
    assert_told(&report, "pkp-not-noted", "warning");
    assert_eq!((&report["noted"]["hsts"], &report["noted"]["pins"]), (&Value::Null, &Value::Null));
}
