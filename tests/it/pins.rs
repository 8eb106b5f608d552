//! `pintle pin`: every format of every algorithm has the pin that openssl computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{outcome, output, pintle};
use crate::headers::openssl_pin;

fn openssl(folder: &Path, arguments: &str) {
    output(Command::new("sh").current_dir(folder).args(["-c", &format!("openssl {arguments}")]));
}

/// All files of one key, made by openssl: private in each form it has, public, CSR, certificate.
fn files(folder: &Path, name: &str, generate: &str, old_form: Option<&str>) -> Vec<(PathBuf, &'static str)> {
    openssl(folder, &format!("{generate} -out {name}.key"));
    openssl(folder, &format!("pkey -in {name}.key -outform der -out {name}.key.der"));
    openssl(folder, &format!("pkey -in {name}.key -pubout -out {name}.pub"));
    openssl(folder, &format!("pkey -in {name}.key -pubout -outform der -out {name}.pub.der"));
    openssl(folder, &format!("req -new -key {name}.key -subj /CN=a.example -out {name}.csr"));
    openssl(folder, &format!("req -in {name}.csr -outform der -out {name}.csr.der"));
    openssl(folder, &format!("x509 -req -in {name}.csr -signkey {name}.key -days 1 -out {name}.pem"));
    openssl(folder, &format!("x509 -in {name}.pem -outform der -out {name}.crt.der"));
    let twice = fs::read_to_string(folder.join(format!("{name}.pem"))).unwrap().repeat(2);
    fs::write(folder.join(format!("{name}.chain.pem")), twice).unwrap();
    let mut all = vec![
        ("key", "private-key"),
        ("key.der", "private-key"),
        ("pub", "public-key"),
        ("pub.der", "public-key"),
        ("csr", "csr"),
        ("csr.der", "csr"),
        ("pem", "certificate"),
        ("crt.der", "certificate"),
        ("chain.pem", "chain"),
    ];
    if let Some(command) = old_form {
        openssl(folder, &format!("{command} -in {name}.key -out {name}.old.key"));
        openssl(folder, &format!("{command} -in {name}.key -outform der -out {name}.old.der"));
        all.extend([("old.key", "private-key"), ("old.der", "private-key")]);
    }
    all.into_iter().map(|(end, kind)| (folder.join(format!("{name}.{end}")), kind)).collect()
}

#[test]
fn every_format_of_every_algorithm() {
    let folder = TempDir::new().unwrap();
    let curve = |name: &str| {
        format!("genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:{name} -pkeyopt ec_param_enc:named_curve")
    };
    for (algorithm, generate, old_form) in [
        (
            "rsa-2048",
            "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048".to_owned(),
            Some("rsa -traditional"),
        ),
        ("ecdsa-p256", curve("P-256"), Some("ec")),
        ("ecdsa-p384", curve("P-384"), Some("ec")),
        ("ecdsa-p521", curve("P-521"), Some("ec")),
        ("ed25519", "genpkey -quiet -algorithm ED25519".to_owned(), None),
    ] {
        let files = files(folder.path(), algorithm, &generate, old_form);
        let want = openssl_pin(&["pkey", "-pubout"], &files[0].0);
        let out = output(pintle().arg("pin").args(files.iter().map(|f| &f.0)));
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), files.len());
        for (line, (path, kind)) in lines.iter().zip(&files) {
            assert_eq!(*line, format!("{want}  {kind}  {algorithm}  {}", path.display()));
        }
    }
}

#[test]
fn other_forms() {
    let folder = TempDir::new().unwrap();
    let curve = "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    for name in ["live", "next"] {
        openssl(folder.path(), &format!("{curve} -out {name}.key"));
    }
    let (live, next) = (folder.path().join("live.key"), folder.path().join("next.key"));
    let pins = [&live, &next].map(|f| openssl_pin(&["pkey", "-pubout"], f));
    let both = |arguments: &[&str]| output(pintle().arg("pin").args(arguments).args([&live, &next]));
    let header = format!("Public-Key-Pins: pin-sha256=\"{}\"; pin-sha256=\"{}\"; max-age=", pins[0], pins[1]);
    assert_eq!(both(&["--as", "header"]), format!("{header}2592000\n"));
    let more = ["--as", "header", "--max-age", "1h", "--include-subdomains", "--report-uri", "https://r.example/x"];
    assert_eq!(both(&more), format!("{header}3600; includeSubDomains; report-uri=\"https://r.example/x\"\n"));
    assert_eq!(both(&["--as", "curl"]), format!("sha256//{};sha256//{}\n", pins[0], pins[1]));
    let json: serde_json::Value = serde_json::from_str(&both(&["--json"])).unwrap();
    assert_eq!(json[1]["pin"], pins[1].as_str());
    let hex = openssl_hex(&live);
    assert_eq!(output(pintle().args(["pin", "--as", "hex"]).arg(&live)), format!("{hex}\n"));
    let piped = Command::new("sh")
        .args(["-c", "cat \"$1\" | \"$0\" pin -"])
        .arg(pintle().get_program())
        .arg(&live)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&piped.stdout), format!("{}  private-key  ecdsa-p256  -\n", pins[0]));
}

fn openssl_hex(file: &Path) -> String {
    let command = format!("openssl pkey -in '{}' -pubout -outform der | openssl dgst -sha256 -r", file.display());
    output(Command::new("sh").args(["-c", &command])).split(' ').next().unwrap().to_owned()
}

#[test]
fn what_has_no_pin_is_told() {
    let folder = TempDir::new().unwrap();
    let curve = "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    openssl(folder.path(), &format!("{curve} -out good.key"));
    openssl(
        folder.path(),
        "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x -out locked.key",
    );
    openssl(
        folder.path(),
        "rsa -traditional -aes256 -passout pass:x -in good2.key -out locked2.key 2>/dev/null || true",
    );
    fs::write(folder.path().join("text"), "hello\n").unwrap();
    let files = ["good.key", "locked.key", "text", "absent"];
    let (code, out, err) = outcome(pintle().current_dir(folder.path()).arg("pin").args(files));
    assert_eq!(code, 1);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(err.contains("locked.key: the private key is encrypted\n  hint: openssl pkey -in locked.key"), "{err}");
    assert!(err.contains("text: no certificate, CSR, private or public key in it"), "{err}");
    assert!(err.contains("absent: no such file"), "{err}");
    // A header without one of its pins is no header.
    let (code, out, _) =
        outcome(pintle().current_dir(folder.path()).args(["pin", "--as", "header", "good.key", "text"]));
    assert_eq!((code, out.as_str()), (1, ""));
    let (code, out, err) = outcome(pintle().current_dir(folder.path()).args(["pin", "--as", "header", "good.key"]));
    assert!(code == 0 && out.starts_with("Public-Key-Pins: ") && err.contains("one pin only"), "{code} {out} {err}");
    assert_eq!(outcome(pintle().arg("pin")).0, 2);
}
