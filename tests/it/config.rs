//! The configuration file: every problem, with its place and its remedy, at once.
//!
//! Each file under tests/config has what `pintle check` says about it beside it; `BLESS=1 cargo test --test it config`
//! writes that anew.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Authority, KeyKind, outcome, output, pintle};

/// Makes the files that tests/config refers to.
fn prepare(authority: &Authority) {
    let folder = authority.folder();
    authority.leaf("blog", &["blog.example.com", "www.example.com"]);
    authority.leaf_of("rsa", &["blog.example.com", "www.example.com"], KeyKind::Rsa, -1, 90);
    authority.leaf("more", &["blog2.example.com"]);
    authority.leaf_of("expired", &["expired.example.com"], KeyKind::Ecdsa, -90, -1);
    authority.leaf_of("future", &["future.example.com"], KeyKind::Ecdsa, 1, 90);
    authority.key("other", KeyKind::Ecdsa);
    authority.key("next", KeyKind::Ecdsa);
    authority.key("private", KeyKind::Ecdsa);
    authority.public_key("spare");
    let blog = fs::read_to_string(folder.join("blog.pem")).unwrap();
    let more = fs::read_to_string(folder.join("more.pem")).unwrap();
    authority.write("disordered.pem", authority.ca_pem().to_owned() + &more);
    authority.write("text", "hello\n");
    authority.write("eab.key", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n");
    fs::set_permissions(folder.join("eab.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let hook = authority.write("hook", "#!/bin/sh\n");
    fs::set_permissions(hook, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["open.key", "open too.key"] {
        let open = authority.write(name, fs::read(folder.join("blog.key")).unwrap());
        fs::set_permissions(open, fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(blog.matches("BEGIN CERTIFICATE").count() == 2);
    let openssl =
        |command: &str| output(Command::new("sh").current_dir(folder).args(["-c", &format!("openssl {command}")]));
    openssl("req -new -key next.key -subj /CN=next -out next.csr");
    openssl("pkey -in next.key -pubout -out next.pub");
}

/// Replaces values that change from run to run.
fn normalised(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| {
                let is_pin = word.len() == 44 && word.ends_with('=');
                let is_date = word.len() == 10 && word.as_bytes()[4] == b'-' && word.starts_with("20");
                if is_pin {
                    "PIN".into()
                } else if is_date {
                    "DATE".into()
                } else {
                    word.to_owned()
                }
            })
            .collect();
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

fn files(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(kind);
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    assert!(files.len() > 3, "the list of files is suspiciously short: {files:?}");
    files
}

fn check_all(kind: &str, exit_code: i32) {
    let authority = Authority::new();
    prepare(&authority);
    let mut wrong = Vec::new();
    for file in files(kind) {
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::copy(&file, authority.folder().join(name)).unwrap();
        let (code, out, err) = outcome(pintle().current_dir(authority.folder()).args(["check", "-c", name]));
        assert_eq!(code, exit_code, "{name}\n{out}{err}");
        let expected = file.with_extension("expected");
        let said = normalised(&err.replace(authority.folder().to_str().unwrap(), "FOLDER"));
        if std::env::var_os("BLESS").is_some() {
            fs::write(expected, said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{name} says now:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn invalid_files_are_refused_with_all_their_problems() {
    check_all("invalid", 1);
}

#[test]
fn valid_files_are_accepted_with_their_warnings() {
    check_all("valid", 0);
}

/// The examples that users start from.
#[test]
fn every_file_in_config_is_valid() {
    let authority = Authority::new();
    prepare(&authority);
    fs::create_dir_all(authority.folder().join("config")).unwrap();
    let certs = authority.folder().join("certs");
    fs::create_dir_all(&certs).unwrap();
    for entry in fs::read_dir(authority.folder()).unwrap().flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), certs.join(entry.file_name())).unwrap();
    }
    fs::rename(certs.join("next.csr"), certs.join("blog-next.csr")).unwrap();
    fs::rename(certs.join("spare.pub"), certs.join("blog-spare.pub")).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name();
        fs::copy(entry.path(), authority.folder().join("config").join(&name)).unwrap();
        let (code, out, err) =
            outcome(pintle().arg("check").arg("-c").arg(authority.folder().join("config").join(&name)));
        assert_eq!((code, err.as_str()), (0, ""), "{name:?}: {out}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn check_says_what_would_be_served() {
    let authority = Authority::new();
    prepare(&authority);
    let everything = files("valid").into_iter().find(|file| file.ends_with("everything.toml")).unwrap();
    fs::copy(everything, authority.folder().join("everything.toml")).unwrap();
    let command = |arguments: &[&str]| {
        let mut check = pintle();
        check.current_dir(authority.folder()).args(["check", "-c", "everything.toml"]).args(arguments);
        outcome(&mut check)
    };
    let (code, out, err) = command(&[]);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "blog.example.com, www.example.com\n",
        "    connect    192.0.2.80:8443\n",
        "    SNI        sni.example.net\n",
        "    verify     cert.example.net\n",
        "    Host       host.example.net:8443\n",
        "  HSTS         max-age=63072000; includeSubDomains\n",
        "  pins         Public-Key-Pins-Report-Only: pin-sha256=",
        "note: browsers stopped enforcing Public-Key-Pins in 2018-2020",
        "everything.toml: fine, 1 site\n",
    ] {
        assert!(out.contains(line), "{line:?} in\n{out}");
    }
    let (code, out, _) = command(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["ok"], json["problems"].as_array().unwrap().len()), (0, &true.into(), 0));
    assert_eq!(json["sites"][0]["upstream"]["verify_name"], "cert.example.net");
    fs::copy(
        files("invalid").iter().find(|p| p.ends_with("limits.toml")).unwrap(),
        authority.folder().join("everything.toml"),
    )
    .unwrap();
    let (code, out, _) = command(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["ok"], &json["problems"][0]["line"], &json["problems"][0]["severity"]),
        (1, &false.into(), &2.into(), &"error".into())
    );
}

#[test]
fn what_is_no_configuration() {
    let authority = Authority::new();
    let (code, _, err) = outcome(pintle().args(["check", "-c", "/no/such/file.toml"]));
    assert!(code == 1 && err.contains("/no/such/file.toml: no such file"), "{err}");
    // A host may have a pintle of its own, which this finds.
    if Path::new("/etc/pintle/pintle.toml").exists() {
        eprintln!("stepping aside: this host has a configuration in /etc/pintle");
    } else {
        let (code, _, err) = outcome(pintle().current_dir(authority.folder()).arg("check"));
        assert!(code == 1 && err.contains("config/pintle.toml") && err.contains("hint:"), "{err}");
    }
    assert_eq!(outcome(pintle().arg("frobnicate")).0, 2);
    // `run` says the same as `check`.
    prepare(&authority);
    let file = authority.write("bad.toml", "[[site]]\nhosts = [\"a.example\"]\nupstream = \"nonsense\"\n");
    let run = outcome(pintle().arg("run").arg("-c").arg(&file));
    let check = outcome(pintle().arg("check").arg("-c").arg(&file));
    assert_eq!(run, check);
    assert_eq!(run.0, 1);
}

/// The file may be a pipe, which has the text once: every warning has its place in it.
#[test]
fn a_configuration_is_read_once() {
    let authority = Authority::new();
    let leaf = authority.leaf("blog", &["blog.example.com"]);
    let site = format!(
        "[[site]]\nhosts = [\"blog.example.com\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        leaf.chain, leaf.key
    );
    let pins = format!("[site.hpkp]\nmax_age = \"5m\"\nbackups = [{:?}]\n", authority.public_key("spare"));
    let file = authority.write("piped.toml", site + &pins);
    let mut check = Command::new("sh");
    check.env("PINTLE_ALLOW_ROOT", "1").args(["-c", "cat \"$1\" | \"$0\" check -c /dev/stdin"]);
    let (code, out, err) = outcome(check.arg(pintle().get_program()).arg(&file));
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("/dev/stdin:7:1: warning: state.directory is not set"), "{err}");
}

/// Two of them on one port would share its connections in silence.
#[test]
fn a_port_that_is_taken_is_not_shared() {
    let authority = Authority::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let leaf = authority.leaf("blog", &["blog.example.com"]);
    let listen = format!("[listen]\nhttps = [\"127.0.0.1:{taken}\"]\nhttp = []\n");
    let config = format!(
        "[[site]]\nhosts = [\"blog.example.com\"]\nupstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {:?}\nkey = {:?}\n",
        leaf.chain, leaf.key
    );
    let _first = crate::harness::Pintle::start_with(&authority, &listen, &config);
    let file = authority.write("second.toml", listen + &config);
    let (code, _, err) = outcome(pintle().arg("run").arg("-c").arg(&file));
    assert!(
        code == 1
            && err.contains(&format!("cannot listen on 127.0.0.1:{taken}: address already in use"))
            && err.contains("hint:"),
        "{err}"
    );
}
