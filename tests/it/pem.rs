//! Files of keys and certificates as people really have them: what is plain is taken, everything else is named, with its
//! line and the command that converts it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Authority, KeyKind, Leaf, outcome, output, pintle};
use crate::headers::openssl_pin;

const HOST: &str = "blog.example.com";

struct Bed {
    authority: Authority,
    leaf: Leaf,
}

impl Bed {
    fn new() -> Self {
        let authority = Authority::new();
        let leaf = authority.leaf("blog", &[HOST]);
        authority.public_key("spare");
        Self { authority, leaf }
    }

    fn folder(&self) -> &Path {
        self.authority.folder()
    }

    fn chain(&self) -> String {
        fs::read_to_string(&self.leaf.chain).unwrap()
    }

    fn key(&self) -> String {
        fs::read_to_string(&self.leaf.key).unwrap()
    }

    /// A shell command beside the files.
    fn sh(&self, script: &str) -> String {
        output(Command::new("sh").current_dir(self.folder()).env("PATH", path()).args(["-c", script]))
    }

    /// `pintle pin`: exit code, output, errors.
    fn pin(&self, file: &str) -> (i32, String, String) {
        outcome(pintle().current_dir(self.folder()).args(["pin", file]))
    }

    /// `pintle check` of a site with these files.
    fn check(&self, chain: &str, key: &str, more: &str) -> (i32, String) {
        let config = format!(
            "[[site]]\nhosts = [\"{HOST}\"]\nupstream = \"https://127.0.0.1:1\"\n{more}\n[site.certificate]\n\
             chain = {chain:?}\nkey = {key:?}\n"
        );
        self.authority.write("pintle.toml", config);
        let (code, _, err) = outcome(pintle().current_dir(self.folder()).args(["check", "-c", "pintle.toml"]));
        (code, err)
    }
}

/// With the program under test among the programs: hints name it.
fn path() -> String {
    let own = Path::new(env!("CARGO_BIN_EXE_pintle")).parent().unwrap().display().to_string();
    format!("{own}:{}", std::env::var("PATH").unwrap())
}

/// The hint behind the error with these words.
#[track_caller]
fn hint<'a>(err: &'a str, words: &str) -> &'a str {
    let rest = err.split_once(words).unwrap_or_else(|| panic!("{words:?} is not in {err}")).1;
    rest.split_once("hint: ").unwrap_or_else(|| panic!("no hint: {err}")).1.lines().next().unwrap()
}

#[test]
fn plain_meanings_are_taken_by_every_reader() {
    let bed = Bed::new();
    let (chain, key) = (bed.chain(), bed.key());
    bed.sh("openssl x509 -in blog.pem -trustout -addtrust serverAuth -out trusted.pem");
    bed.sh(
        "openssl x509 -in blog.pem -outform der -out blog.der && openssl pkey -in blog.key -outform der -out key.der",
    );
    let bom = "\u{feff}";
    let label = |label: &str| chain.replace("CERTIFICATE-----", &format!("{label}-----"));
    let trusted = fs::read_to_string(bed.folder().join("trusted.pem")).unwrap() + bed.authority.ca_pem();
    for (name, contents) in [
        ("bom", format!("{bom}{chain}")),
        ("bom-within", chain.replacen("-----END CERTIFICATE-----\n", &format!("-----END CERTIFICATE-----\n{bom}"), 1)),
        ("joined", chain.replacen("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----", 1)),
        ("x509", label("X509 CERTIFICATE")),
        ("trusted", trusted),
        ("crlf", chain.replace('\n', "\r\n")),
        ("cr", chain.replace('\n', "\r")),
        ("indented", chain.lines().map(|l| format!("    {l}  \n")).collect()),
        ("commented", format!("subject=CN = x\nissuer=CN = y\n{chain}\n# the end\n")),
        ("bundle", format!("{key}{chain}")),
    ] {
        let file = format!("{name}.pem");
        bed.authority.write(&file, &contents);
        let (code, out, err) = bed.pin(&file);
        assert!(code == 0 && out.starts_with(&bed.leaf.pin), "{name}: {out}{err}");
        let (code, err) = bed.check(&file, "blog.key", "");
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        // As a CA's file: both are roots.
        let (code, err) = bed.check("blog.pem", "blog.key", &format!("[site.upstream_options]\nca = {file:?}"));
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
    }
    for (name, contents) in [("bom", format!("{bom}{key}")), ("crlf", key.replace('\n', "\r\n"))] {
        let file = bed.authority.write(&format!("{name}.key"), contents);
        bed.sh(&format!("chmod 600 {}", file.display()));
        assert_eq!(bed.check("blog.pem", &format!("{name}.key"), ""), (0, String::new()), "{name}");
    }
    bed.sh("chmod 600 key.der");
    // One certificate in DER is a chain of one.
    let (code, err) = bed.check("blog.der", "key.der", "");
    assert!(code == 0 && !err.contains("error"), "{err}");
    bed.authority.write("bom.pub", format!("{bom}{}", fs::read_to_string(bed.folder().join("spare.pub")).unwrap()));
    let (code, err) = bed.check("blog.pem", "blog.key", "[site.hpkp]\nmax_age = \"1d\"\nbackups = [\"bom.pub\"]");
    assert!(code == 0 && !err.contains("bom.pub:"), "{err}");
}

/// A section that is passed over makes the next one speak for it: the CA's key was promised that way.
#[test]
fn a_line_that_is_not_understood_is_an_error_for_every_reader() {
    let bed = Bed::new();
    let chain = bed.chain();
    let begin = "-----BEGIN CERTIFICATE-----";
    for (name, odd) in [
        ("html", "<pre>-----BEGIN CERTIFICATE-----"),
        ("four", "----BEGIN CERTIFICATE-----"),
        ("open", "-----BEGIN CERTIFICATE"),
        ("lower", "-----begin certificate-----"),
        ("dashes", "\u{2014}\u{2014}-BEGIN CERTIFICATE-----"),
        ("comment", "# -----BEGIN CERTIFICATE-----"),
        ("space", "-----BEGIN\u{a0}CERTIFICATE-----"),
    ] {
        let file = format!("{name}.pem");
        bed.authority.write(&file, chain.replacen(begin, odd, 1));
        let names_line = |err: &str| err.contains(&format!("{file}: ")) && err.contains("line 1: ");
        let (code, out, err) = bed.pin(&file);
        assert!(code == 1 && out.is_empty() && names_line(&err), "{name}: {out}{err}");
        let (code, err) = bed.check(&file, "blog.key", "");
        assert!(code == 1 && names_line(&err), "{name}: {err}");
        let hpkp = format!("[site.hpkp]\nmax_age = \"1d\"\nbackups = [{file:?}, \"spare.pub\"]");
        let (code, err) = bed.check("blog.pem", "blog.key", &hpkp);
        assert!(code == 1 && names_line(&err), "{name}: {err}");
        let (code, err) = bed.check("blog.pem", "blog.key", &format!("[site.upstream_options]\nca = {file:?}"));
        assert!(code == 1 && names_line(&err), "{name}: {err}");
        bed.check("blog.pem", "blog.key", "");
        let install = ["install", "-c", "pintle.toml", "--site", HOST, "--dry-run", &file];
        let (code, _, err) = outcome(pintle().current_dir(bed.folder()).args(install));
        assert!(code == 1 && names_line(&err), "{name}: {err}");
        let verify = ["verify", "https://blog.example.com/", "--connect", "127.0.0.1:1", "--ca", &file];
        let (code, _, err) = outcome(pintle().current_dir(bed.folder()).args(verify));
        assert!(code != 0 && names_line(&err), "{name}: {err}");
    }
    let key = bed.key();
    bed.authority.write("odd.key", key.replacen("-----BEGIN", "<pre>-----BEGIN", 1) + &key);
    let (code, err) = bed.check("blog.pem", "odd.key", "");
    assert!(code == 1 && err.contains("odd.key: no usable private key: damaged PEM: line 1: "), "{err}");
    // A label that nobody here knows is no section to pass over, either.
    let crl = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    bed.authority.write("crl.pem", format!("{chain}{crl}"));
    let line = chain.lines().count() + 1;
    let (code, err) = bed.check("crl.pem", "blog.key", "");
    assert!(code == 1 && err.contains(&format!("line {line}: unexpected section \"X509 CRL\"")), "{err}");
}

/// Each is named as what it is, and the command of the hint makes of it what is taken.
#[test]
fn other_forms_are_named_with_the_command_that_converts() {
    let bed = Bed::new();
    let pin = bed.leaf.pin.clone();
    bed.sh("openssl pkcs12 -export -inkey blog.key -in blog.pem -certfile ca.pem -passout pass: -out blog.p12
         openssl crl2pkcs7 -nocrl -certfile blog.pem -out p7.pem
         openssl crl2pkcs7 -nocrl -certfile blog.pem -outform DER -out p7.p7b
         iconv -f UTF-8 -t UTF-16 blog.pem > bom16.pem
         iconv -f UTF-8 -t UTF-16LE blog.pem > le16.pem
         iconv -f UTF-8 -t UTF-16BE blog.pem > be16.pem
         openssl x509 -in blog.pem -outform DER | openssl base64 > 'bare 64'
         openssl x509 -in blog.pem -outform DER | openssl base64 -A > bare
         openssl x509 -in blog.pem -outform DER > two.der && openssl x509 -in ca.pem -outform DER >> two.der");
    for (file, name, new) in [
        ("blog.p12", "is PKCS#12", "blog.new.pem"),
        ("p7.pem", "is PKCS#7", "p7.new.pem"),
        ("p7.p7b", "is PKCS#7", "p7.new.pem"),
        ("bom16.pem", "is UTF-16", "bom16.new.pem"),
        ("le16.pem", "is UTF-16", "le16.new.pem"),
        ("be16.pem", "is UTF-16", "be16.new.pem"),
        ("bare 64", "is base64 without its BEGIN and END lines", "bare 64.new.der"),
        ("bare", "is base64 without its BEGIN and END lines", "bare.new.der"),
        ("two.der", "is several certificates in DER", "two.new.pem"),
    ] {
        let (code, err) = bed.check(file, "blog.key", "");
        assert!(code == 1, "{file}: {err}");
        let command = hint(&err, name).replace("-nokeys", "-nokeys -passin pass:");
        bed.sh(&command);
        let (code, err) = bed.check(new, "blog.key", "");
        assert!(code == 0, "{file}: {command}: {err}");
        // The same of `pintle pin`, whose hint may end in a pin.
        let (code, out, err) = bed.pin(file);
        assert!(code == 1 && out.is_empty(), "{file}: {out}");
        let command = hint(&err, name).replace("-nokeys", "-nokeys -passin pass:");
        let printed = bed.sh(&command);
        let printed = if printed.is_empty() { bed.pin(new).1 } else { printed };
        assert!(printed.starts_with(&pin), "{file}: {command}: {printed}");
    }
    // A key in front of its certificate.
    bed.sh("openssl pkey -in blog.key -outform DER > mixed.der && openssl x509 -in blog.pem -outform DER >> mixed.der");
    let (code, err) = bed.check("blog.pem", "mixed.der", "");
    assert_eq!(code, 1);
    bed.sh(hint(&err, "is DER with more data after"));
    assert_eq!(bed.check("blog.pem", "mixed.new.key", ""), (0, String::new()));
    let (code, err) = bed.check("blog.pem", "blog.p12", "");
    assert_eq!(code, 1);
    bed.sh(&hint(&err, "is PKCS#12").replace("-nodes", "-nodes -passin pass:"));
    assert_eq!(bed.check("blog.pem", "blog.new.key", ""), (0, String::new()));
}

#[test]
fn encrypted_keys_are_named_with_the_command_that_decrypts() {
    let bed = Bed::new();
    let rsa = bed.authority.leaf_of("rsa", &[HOST], KeyKind::Rsa, -1, 90);
    bed.sh("openssl pkcs8 -topk8 -in blog.key -passout pass:x -out new-form.key
         openssl pkcs8 -topk8 -in blog.key -passout pass:x -outform DER -out der-form.key
         openssl ec -in blog.key -aes128 -passout pass:x -out old-form.key
         openssl rsa -in rsa.key -traditional -aes128 -passout pass:x -out old-rsa.key");
    for (file, chain, pin) in [
        ("new-form", "blog.pem", &bed.leaf.pin),
        ("der-form", "blog.pem", &bed.leaf.pin),
        ("old-form", "blog.pem", &bed.leaf.pin),
        ("old-rsa", "rsa.pem", &rsa.pin),
    ] {
        let (code, err) = bed.check(chain, &format!("{file}.key"), "");
        assert_eq!(code, 1, "{file}: {err}");
        let command = hint(&err, "the private key is encrypted").replace("pkey", "pkey -passin pass:x");
        bed.sh(&command);
        let (code, err) = bed.check(chain, &format!("{file}.new.key"), "");
        assert_eq!((code, err.as_str()), (0, ""), "{file}: {command}");
        let (code, _, err) = bed.pin(&format!("{file}.key"));
        assert_eq!(code, 1);
        let command = hint(&err, "the private key is encrypted").replace("pkey", "pkey -passin pass:x");
        let printed = bed.sh(&command);
        assert!(printed.starts_with(pin.as_str()), "{file}: {command}: {printed}");
    }
}

#[test]
fn keys_that_tls_here_cannot_use_are_named() {
    let bed = Bed::new();
    let curve = |name: &str| format!("-algorithm EC -pkeyopt ec_paramgen_curve:{name}");
    for (name, generate) in [
        ("secp256k1", curve("secp256k1")),
        ("secp224r1", curve("secp224r1")),
        ("brainpoolP256r1", curve("brainpoolP256r1")),
        ("Ed448", "-algorithm ED448".to_owned()),
        ("X25519", "-algorithm X25519".to_owned()),
        ("RSA-PSS", "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048".to_owned()),
        ("DSA", "-paramfile dsa.params".to_owned()),
        ("RSA of 1024 bits", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024".to_owned()),
    ] {
        if name == "DSA" {
            bed.sh("openssl genpkey -quiet -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -out dsa.params");
        }
        bed.sh(&format!(
            "openssl genpkey -quiet {generate} -out odd.key && openssl pkey -in odd.key -outform DER -out odd.der.key"
        ));
        let want = openssl_pin(&["pkey", "-pubout"], &bed.folder().join("odd.key"));
        for file in ["odd.key", "odd.der.key"] {
            let (code, err) = bed.check("blog.pem", file, "");
            assert!(
                code == 1 && err.contains(&format!("the private key cannot be used: {name} is not supported")),
                "{name}: {err}"
            );
            let command = hint(&err, "cannot be used").split_once("issued for it: ").unwrap().1;
            let new = command.rsplit(' ').next().unwrap();
            bed.sh(command);
            assert!(bed.pin(new).1.contains("ecdsa-p256"), "{command}");
        }
        // Its pin can be promised all the same: apps pin keys of any kind.
        let (code, _, err) = bed.pin("odd.key");
        assert!(code == 1 && err.contains(name), "{err}");
        let printed = bed.sh(hint(&err, "cannot be used"));
        assert!(printed.starts_with(&want), "{name}: {printed}");
    }
    // An OpenSSH key is for something else, and its own program converts it.
    if Command::new("ssh-keygen").arg("-?").output().is_ok() {
        bed.sh("rm -f ssh.key && ssh-keygen -q -t ecdsa -b 256 -N '' -f ssh.key");
        let (code, _, err) = bed.pin("ssh.key");
        assert_eq!(code, 1);
        bed.sh(&hint(&err, "is an OpenSSH private key").replace("-m PKCS8", "-m PKCS8 -N ''"));
        assert!(bed.pin("ssh.new.key").1.contains("ecdsa-p256"));
    }
}

#[test]
fn one_file_has_one_key() {
    let bed = Bed::new();
    let other = bed.authority.leaf("other", &[HOST]);
    bed.authority.write("two.pem", bed.key() + &fs::read_to_string(&other.chain).unwrap());
    let (code, out, err) = bed.pin("two.pem");
    assert!(code == 1 && out.is_empty() && err.contains("a different key than in line 1"), "{out}{err}");
    bed.authority.write("keys.key", bed.key() + &fs::read_to_string(&other.key).unwrap());
    let (code, err) = bed.check("blog.pem", "keys.key", "");
    assert!(code == 1 && err.contains("a different key than in line 1"), "{err}");
}
