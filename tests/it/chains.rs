//! Chains as clients judge them: each broken rule of a path is reported, and nothing that clients accept is
//! refused.

use std::fs;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use time::{Duration, OffsetDateTime};

use crate::harness::{Authority, Client, KeyKind, Origin, Pintle, outcome, output, pintle};

/// A CA of the test's own.
struct Ca {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Ca {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        dated(&mut params, -1, 800);
        params
    }

    fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (Self::params(name), KeyPair::generate().unwrap());
        change(&mut params);
        Self { pem: params.self_signed(&key).unwrap().pem(), params, key }
    }

    fn below(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (Self::params(name), KeyPair::generate().unwrap());
        change(&mut params);
        let pem = params.signed_by(&key, &self.issuer()).unwrap().pem();
        Self { params, key, pem }
    }

    /// This CA's name and key under another's signature.
    fn cross_signed_by(&self, other: &Self, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = self.params.clone();
        change(&mut params);
        params.signed_by(&self.key, &other.issuer()).unwrap().pem()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A leaf for a host, and its key.
    fn leaf(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        dated(&mut params, -1, 90);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer()).unwrap().pem(), key.serialize_pem())
    }
}

fn dated(params: &mut CertificateParams, from: i64, to: i64) {
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + Duration::days(from), now + Duration::days(to));
}

fn extension(oid: &[u64], content: &[u8], critical: bool) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// id-pe-tlsfeature: status_request.
fn must_staple() -> CustomExtension {
    extension(&[1, 3, 6, 1, 5, 5, 7, 1, 24], b"\x30\x03\x02\x01\x05", false)
}

fn dns(names: &[&str]) -> Vec<GeneralSubtree> {
    names.iter().map(|name| GeneralSubtree::DnsName((*name).to_owned())).collect()
}

/// A chain, its key, and the words that are said about it.
struct Case {
    name: &'static str,
    chain: String,
    key: String,
    says: &'static [&'static str],
}

fn host(name: &str) -> String {
    format!("{name}.example.com")
}

fn sites(authority: &Authority, cases: &[Case], upstream: &str) -> String {
    let mut text = String::new();
    for case in cases {
        let chain = authority.write(&format!("{}.pem", case.name), &case.chain);
        let key = authority.write(&format!("{}.key", case.name), &case.key);
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        text += &format!(
            "[[site]]\nhosts = [{:?}]\nupstream = {upstream:?}\n[site.certificate]\nchain = {chain:?}\nkey = {key:?}\n",
            host(case.name)
        );
    }
    text
}

/// The output of `check` for each case, by its file.
fn check(authority: &Authority, cases: &[Case]) -> (i32, Vec<String>) {
    let config = authority.write("pintle.toml", sites(authority, cases, "http://127.0.0.1:1"));
    let (code, _, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
    let of = |case: &Case| {
        let file = format!("/{}.", case.name);
        err.lines().filter(|line| line.contains("pintle.toml:") && line.contains(&file)).collect::<Vec<_>>().join("\n")
    };
    (code, cases.iter().map(of).collect())
}

/// Signed over another digest, which only openssl still does.
fn resigned(authority: &Authority, ca: &Ca, host: &str, digest: &str) -> (String, String) {
    let write = |name: &str, contents: &str| authority.write(name, contents);
    write("old-ca.pem", &ca.pem);
    write("old-ca.key", &ca.key.serialize_pem());
    write("old.ext", &format!("subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n"));
    let script = format!(
        "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out old.key
         openssl req -new -key old.key -subj /CN=old -out old.csr
         openssl x509 -req -in old.csr -CA old-ca.pem -CAkey old-ca.key -set_serial 7 -days 90 -{digest} \
            -extfile old.ext -out old.pem"
    );
    output(Command::new("sh").current_dir(authority.folder()).args(["-ec", &script]));
    let read = |name: &str| fs::read_to_string(authority.folder().join(name)).unwrap();
    (read("old.pem"), read("old.key"))
}

/// A leaf below an intermediate whose RSA key has 1024 bits, the intermediate, and the leaf's key.
fn below_a_weak_key(authority: &Authority, ca: &Ca, host: &str) -> (String, String, String) {
    authority.write("weak-ca.pem", &ca.pem);
    authority.write("weak-ca.key", ca.key.serialize_pem());
    authority.write("weak-ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n");
    authority.write("weak.ext", format!("subjectAltName=DNS:{host}\nextendedKeyUsage=serverAuth\n"));
    let script = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out middle.key
         openssl req -new -key middle.key -subj /CN=middle -out middle.csr
         openssl x509 -req -in middle.csr -CA weak-ca.pem -CAkey weak-ca.key -set_serial 8 -days 90 -extfile weak-ca.ext \
            -out middle.pem
         openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out below.key
         openssl req -new -key below.key -subj /CN=below -out below.csr
         openssl x509 -req -in below.csr -CA middle.pem -CAkey middle.key -set_serial 9 -days 80 -extfile weak.ext -out below.pem";
    output(Command::new("sh").current_dir(authority.folder()).args(["-ec", script]));
    let read = |name: &str| fs::read_to_string(authority.folder().join(name)).unwrap();
    (read("below.pem"), read("middle.pem"), read("below.key"))
}

/// Below a key that is too weak, `check` reports the key, and nothing about its signature.
#[test]
fn a_weak_issuer_is_told_of_as_weak() {
    let authority = Authority::new();
    let root = Ca::root("root");
    let (leaf, middle, key) = below_a_weak_key(&authority, &root, &host("weakca"));
    let case = |name, chain: String, key| Case { name, chain, key, says: &[] };
    let cases = [case("weakca", leaf + &middle + &root.pem, key)];
    let (code, message) = check(&authority, &cases);
    let says = "the key of certificate 2 of the chain is too weak for today's clients: rsa-1024";
    assert!(code == 1 && message[0].contains(says) && !message[0].contains("is not signed by"), "{}", message[0]);
}

#[test]
fn what_clients_refuse_is_refused_with_its_rule() {
    let authority = Authority::new();
    let root = Ca::root("root");
    let mut cases = Vec::new();
    let mut add = |name: &'static str, (leaf, key): (String, String), issuers: &[&str], says| {
        // With the root behind it, and without.
        let chain = issuers.iter().fold(leaf, |chain, issuer| chain + issuer);
        cases.push(Case { name, chain, key, says });
    };
    let direct = |name: &str, change: fn(&mut CertificateParams)| root.leaf(&host(name), change);
    add("staple", direct("staple", |p| p.custom_extensions.push(must_staple())), &[&root.pem], &["must-staple"]);
    add(
        "usage",
        direct("usage", |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        &[&root.pem],
        &["may not sign handshakes (no digitalSignature in its key usage)"],
    );
    add(
        "critical",
        direct("critical", |p| p.custom_extensions.push(extension(&[1, 2, 3, 4], b"\x05\x00", true))),
        &[],
        &["certificate 1 of the chain has a critical extension that clients do not know: 1.2.3.4"],
    );
    let sha1 = resigned(&authority, &root, &host("sha1"), "sha1");
    add("sha1", sha1, &[&root.pem], &["certificate 1 of the chain is signed with SHA-1"]);
    let sha224 = resigned(&authority, &root, &host("sha224"), "sha224");
    add("sha224", sha224, &[&root.pem], &["certificate 1 of the chain is signed with SHA-224"]);
    let sha3 = resigned(&authority, &root, &host("sha3"), "sha3-256");
    add("sha3", sha3, &[&root.pem], &["certificate 1 of the chain is signed with an algorithm that is not RSA"]);
    // No client matches a name with a dot behind it.
    let dotted = root.leaf("dotted.example.com.", |_| {});
    add("dotted", dotted, &[&root.pem], &["does not cover dotted.example.com"]);
    let rsa = authority.key("rsa-ca", KeyKind::Rsa);
    let rsa = KeyPair::from_pem(&fs::read_to_string(rsa).unwrap()).unwrap();
    let params = Ca::params("rsa root");
    let rsa = Ca { pem: params.self_signed(&rsa).unwrap().pem(), params, key: rsa };
    let md5 = resigned(&authority, &rsa, &host("md5"), "md5");
    add("md5", md5, &[&rsa.pem], &["certificate 1 of the chain is signed with MD5"]);
    let below = |name: &str, change: fn(&mut CertificateParams)| root.below(name, change);
    let constrained = below("constrained", |p| {
        p.name_constraints =
            Some(NameConstraints { permitted_subtrees: dns(&["example.net"]), excluded_subtrees: vec![] });
    });
    let says = &["certificate 2 of the chain may not issue for names.example.com (its name constraints)"];
    add("names", constrained.leaf(&host("names"), |_| {}), &[&constrained.pem], says);
    let excluded = below("excluded", |p| {
        p.name_constraints =
            Some(NameConstraints { permitted_subtrees: vec![], excluded_subtrees: dns(&["excluded.example.com"]) });
    });
    add(
        "excluded",
        excluded.leaf(&host("excluded"), |_| {}),
        &[&excluded.pem, &root.pem],
        &["may not issue for excluded"],
    );
    let no_ca = below("no ca", |p| p.is_ca = IsCa::ExplicitNoCa);
    add("noca", no_ca.leaf(&host("noca"), |_| {}), &[&no_ca.pem], &["certificate 2 of the chain is not a CA"]);
    let silent = below("silent", |p| {
        p.is_ca = IsCa::NoCa;
        p.key_usages.clear();
    });
    add(
        "silent",
        silent.leaf(&host("silent"), |_| {}),
        &[&silent.pem, &root.pem],
        &["certificate 2 of the chain is not a CA"],
    );
    let no_sign = below("no sign", |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    add("nosign", no_sign.leaf(&host("nosign"), |_| {}), &[&no_sign.pem], &["certificate 2 of the chain may not sign"]);
    let short = below("short", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let too_low = short.below("too low", |_| {});
    let says = &["certificate 3 of the chain allows 0 CAs below it", "pathlen"];
    add("pathlen", too_low.leaf(&host("pathlen"), |_| {}), &[&too_low.pem, &short.pem], says);
    let clients = below("for clients", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let says = &["certificate 2 of the chain may not issue for servers"];
    add("eku", clients.leaf(&host("eku"), |_| {}), &[&clients.pem], says);
    let expired = below("expired", |p| dated(p, -90, -1));
    let says = &["certificate 2 of the chain, an issuer, expired on 20"];
    add("expired", expired.leaf(&host("expired"), |_| {}), &[&expired.pem, &root.pem], says);
    let future = below("future", |p| dated(p, 1, 90));
    add("future", future.leaf(&host("future"), |_| {}), &[&future.pem], &["an issuer, is not valid before 20"]);
    let odd = below("odd", |p| p.custom_extensions.push(extension(&[1, 2, 3, 5], b"\x05\x00", true)));
    add("odd", odd.leaf(&host("odd"), |_| {}), &[&odd.pem], &["certificate 2 of the chain has a critical extension"]);
    let fallen = Ca::root_with("fallen", |p| p.is_ca = IsCa::ExplicitNoCa);
    add("fallen", fallen.leaf(&host("fallen"), |_| {}), &[&fallen.pem], &["certificate 2 of the chain is not a CA"]);
    let (code, message) = check(&authority, &cases);
    assert_eq!(code, 1);
    for (case, message) in cases.iter().zip(&message) {
        for says in case.says {
            let line = message.lines().find(|line| line.contains(says));
            assert!(line.is_some_and(|l| !l.contains("warning:")), "{}: {says:?} is not in {message}", case.name);
        }
    }
}

/// If TLS ends in front of pintle, the server there may staple.
#[test]
fn must_staple_is_for_whoever_ends_tls() {
    let authority = Authority::new();
    let root = Ca::root("root");
    let (leaf, _) = root.leaf(&host("staple"), |p| p.custom_extensions.push(must_staple()));
    let chain = authority.write("staple.pem", leaf + &root.pem);
    let config = authority.write(
        "pintle.toml",
        format!(
            "[listen]\nhttps = []\ntrusted_proxies = [\"127.0.0.1\"]\n[[site]]\nhosts = [{:?}]\n\
             upstream = \"http://127.0.0.1:1\"\n[site.certificate]\nchain = {chain:?}\n",
            host("staple")
        ),
    );
    let (code, out, err) = outcome(pintle().args(["check", "-c"]).arg(&config));
    assert!(code == 0 && err.contains("must-staple"), "{out}{err}");
}

#[test]
fn what_clients_accept_is_served() {
    let (authority, origin) = (Authority::new(), Origin::hello());
    let (root, old_root) = (Ca::root("root"), Ca::root_with("old root", |p| dated(p, -900, -1)));
    let other_root = Ca::root("other root");
    let issuing = root.below("issuing", |_| {});
    let expired_cross = root.cross_signed_by(&old_root, |p| dated(p, -900, -1));
    let other_cross = issuing.cross_signed_by(&other_root, |_| {});
    let dead_cross = issuing.cross_signed_by(&other_root, |p| dated(p, -90, -1));
    let constrained = root.below("constrained", |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: dns(&["example.com"]),
            excluded_subtrees: dns(&["example.net"]),
        });
    });
    let mut cases = Vec::new();
    let mut add = |name: &'static str, ca: &Ca, issuers: &[&str], says: &'static [&'static str]| {
        let (leaf, key) = ca.leaf(&host(name), |_| {});
        cases.push(Case { name, chain: leaf.clone() + &issuers.concat().replace("LEAF", &leaf), key, says });
    };
    add("plain", &issuing, &[&issuing.pem], &[]);
    add("root", &issuing, &[&issuing.pem, &root.pem], &[]);
    add(
        "copies",
        &issuing,
        &["LEAF", &issuing.pem, &issuing.pem],
        &["2 of the chain is a copy of certificate 1", "4 of"],
    );
    add("both", &issuing, &[&issuing.pem, &other_cross], &[]);
    add("dead", &issuing, &[&dead_cross, &issuing.pem], &[]);
    add(
        "above",
        &issuing,
        &[&issuing.pem, &expired_cross],
        &["warning: ", "certificate 3 of the chain, an issuer, expired"],
    );
    add("above2", &issuing, &[&issuing.pem, &expired_cross, &old_root.pem], &["certificate 3 of the chain, an issuer"]);
    add("order", &issuing, &[&root.pem, &issuing.pem], &["not in order"]);
    add("stranger", &issuing, &[&other_root.pem, &issuing.pem], &["certificate 2 of the chain is on no path"]);
    add("names", &constrained, &[&constrained.pem, &root.pem], &[]);
    let long = root.leaf(&host("long"), |p| dated(p, -1, 900));
    cases.push(Case { name: "long", chain: long.0 + &root.pem, key: long.1, says: &["is valid for 901 days"] });
    // An issuer that ends before its leaf does.
    let ending = root.below("ending", |p| dated(p, -90, 3));
    let ending_leaf = ending.leaf(&host("ending"), |_| {});
    let says = &["warning: ", "certificate 2 of the chain, an issuer, expires on 20"];
    cases.push(Case { name: "ending", chain: ending_leaf.0 + &ending.pem, key: ending_leaf.1, says });
    // A critical extension that everybody understands, and a path length that is kept.
    let polite = root.below("polite", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        p.custom_extensions.push(extension(&[2, 5, 29, 36], b"\x30\x03\x80\x01\x00", true));
    });
    let polite_leaf = polite.leaf(&host("polite"), |_| {});
    cases.push(Case { name: "polite", chain: polite_leaf.0 + &polite.pem, key: polite_leaf.1, says: &[] });
    let (code, message) = check(&authority, &cases);
    assert_eq!(code, 0, "{message:#?}");
    for (case, message) in cases.iter().zip(&message) {
        assert!(case.says.iter().all(|says| message.contains(says)), "{}: {message}", case.name);
        assert!(!case.says.is_empty() || message.is_empty(), "{}: {message}", case.name);
    }
    let pintle = Pintle::start(&authority, &sites(&authority, &cases, &origin.url()));
    let ca = authority.write("root.pem", &root.pem);
    for case in cases.iter().filter(|case| case.name != "polite") {
        let client = Client::with(trusting(&root.pem));
        assert_eq!(client.get(pintle.https(), &host(case.name), "/").status, 200, "{}", case.name);
    }
    for case in &cases {
        let mut curl = pintle.curl();
        curl.arg("--cacert").arg(&ca).args(["-o", "/dev/null", "-w", "%{http_code}"]);
        assert_eq!(output(curl.arg(format!("https://{}/", host(case.name)))), "200", "{}", case.name);
    }
    // Copies, and what is on no path, are left out; the rest is in order.
    let sent = |name: &str| {
        let connect = pintle.https().to_string();
        let script = format!("openssl s_client -connect {connect} -servername {} -showcerts </dev/null", host(name));
        let (_, out, _) = outcome(Command::new("sh").args(["-c", &script]));
        let subjects =
            out.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()) && l.contains(" s:"));
        subjects.map(|l| l.split("CN = ").nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sent("copies").len(), 2);
    assert_eq!(sent("stranger").len(), 2);
    assert_eq!(sent("both").len(), 3);
    assert_eq!(sent("order")[1..], ["issuing", "root"]);
}

fn trusting(root: &str) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A key that browsers do not take is served, and warned of.
#[test]
fn unusual_keys_are_warned_of() {
    let authority = Authority::new();
    let ed = authority.leaf_of("ed", &[&host("ed")], KeyKind::Ed25519, -1, 90);
    let root = Ca::root("root");
    let script = "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out p521.key";
    output(Command::new("sh").current_dir(authority.folder()).args(["-c", script]));
    let key = fs::read_to_string(authority.folder().join("p521.key")).unwrap();
    let mut params = CertificateParams::new(vec![host("p521")]).unwrap();
    dated(&mut params, -1, 90);
    let pair = KeyPair::from_pem(&key).unwrap();
    let leaf = params.signed_by(&pair, &root.issuer()).unwrap().pem();
    let read = |path| fs::read_to_string(path).unwrap();
    let cases = [
        Case {
            name: "ed",
            chain: read(&ed.chain),
            key: read(&ed.key),
            says: &["not all browsers accept its key: ed25519"],
        },
        Case { name: "p521", chain: leaf + &root.pem, key, says: &["not all browsers accept its key: ecdsa-p521"] },
    ];
    let (code, message) = check(&authority, &cases);
    assert_eq!(code, 0, "{message:?}");
    for (case, message) in cases.iter().zip(&message) {
        assert!(message.contains("warning: ") && message.contains(case.says[0]), "{message}");
    }
}
