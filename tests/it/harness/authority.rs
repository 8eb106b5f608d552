//! A CA of the test's own, and leaves of any kind, written where a configuration can name them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::output;

/// A test CA in a folder of its own.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    params: CertificateParams,
    key_pem: String,
    ca_pem: String,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Ecdsa,
    Rsa,
    Ed25519,
}

/// A leaf's files.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub chain: PathBuf,
    pub key: PathBuf,
    pub pin: String,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("pintle test CA")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let ca_pem = params.self_signed(&key).unwrap().pem();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), &ca_pem).unwrap();
        let (issued, key_pem) = (params.clone(), key.serialize_pem());
        Self { folder, issuer: Issuer::new(params, key), params: issued, key_pem, ca_pem }
    }

    /// Its certificate as another authority has signed it.
    pub fn crossed(&self, by: &Self) -> String {
        let key = KeyPair::from_pem(&self.key_pem).unwrap();
        self.params.signed_by(&key, &by.issuer).unwrap().pem()
    }

    /// The pin of its key.
    pub fn pin(&self) -> String {
        let key = KeyPair::from_pem(&self.key_pem).unwrap();
        pintle::keys::pin::Pin::of_spki(&key.subject_public_key_info()).to_string()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn ca_path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A certificate for these names, ECDSA, valid now.
    pub fn leaf(&self, name: &str, hosts: &[&str]) -> Leaf {
        self.leaf_of(name, hosts, KeyKind::Ecdsa, -1, 90)
    }

    /// A certificate valid from that many days from now to that many.
    pub fn leaf_of(&self, name: &str, hosts: &[&str], kind: KeyKind, from_days: i64, to_days: i64) -> Leaf {
        self.issue(name, self.key(name, kind), hosts, from_days, to_days)
    }

    /// The same for a key that is there.
    pub fn issue(&self, name: &str, key: PathBuf, hosts: &[&str], from_days: i64, to_days: i64) -> Leaf {
        self.issue_as(name, key, hosts, |params| {
            params.not_before = OffsetDateTime::now_utc() + Duration::days(from_days);
            params.not_after = OffsetDateTime::now_utc() + Duration::days(to_days);
        })
    }

    /// A certificate that is special in some way.
    pub fn issue_as(
        &self,
        name: &str,
        key: PathBuf,
        hosts: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let pair = KeyPair::from_pem(&fs::read_to_string(&key).unwrap()).unwrap();
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(90);
        change(&mut params);
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        let chain = self.write(&format!("{name}.pem"), certificate.pem() + &self.ca_pem);
        let pin = pintle::keys::pin::Pin::of_spki(&pair.subject_public_key_info()).to_string();
        Leaf { chain, key, pin }
    }

    /// Another certificate for a key that there is.
    pub fn renew(&self, name: &str, key: &Path, hosts: &[&str], to_days: i64) -> Leaf {
        self.issue(name, key.to_owned(), hosts, -1, to_days)
    }

    /// A request for a certificate: a backup.
    pub fn csr(&self, leaf: &Leaf) -> PathBuf {
        let csr = leaf.key.with_extension("csr");
        output(
            Command::new("openssl")
                .args(["req", "-new", "-subj", "/CN=x", "-key"])
                .arg(&leaf.key)
                .arg("-out")
                .arg(&csr),
        );
        csr
    }

    /// A private key alone.
    pub fn key(&self, name: &str, kind: KeyKind) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.key"));
        let generate = |algorithm| KeyPair::generate_for(algorithm).unwrap().serialize_pem();
        match kind {
            KeyKind::Ecdsa => self.write_key(&path, generate(&rcgen::PKCS_ECDSA_P256_SHA256)),
            KeyKind::Ed25519 => self.write_key(&path, generate(&rcgen::PKCS_ED25519)),
            KeyKind::Rsa => {
                let rsa = ["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"];
                output(Command::new("openssl").args(rsa).arg(&path));
            }
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn write_key(&self, path: &Path, pem: String) {
        fs::write(path, pem).unwrap();
    }

    /// A backup: the public half of a fresh key.
    pub fn public_key(&self, name: &str) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        self.write(&format!("{name}.pub"), key.public_key_pem())
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, contents).unwrap();
        path
    }
}
