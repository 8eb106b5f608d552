//! Certificates that pintle obtains itself: the settings of `[acme]`, and the place of their files.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::file::{CertificateTable, ManagedTable, SiteTable};
use super::problem::At;
use crate::host::{HostPattern, bare};
use crate::keys::key_file::KeyAlgorithm;

/// The folder of ACME's files, in the folder of the state.
pub const FOLDER: &str = "acme";
/// The files of one certificate, in its folder.
pub const KEY: &str = "key.pem";
/// The key that the next changeover takes.
pub const NEXT: &str = "next.pem";
/// The chain in use.
pub const CHAIN: &str = "chain.pem";
/// The copies of a compromised key and of its chain.
const COMPROMISED: [&str; 2] = ["compromised.key.pem", "compromised.chain.pem"];

/// The algorithms of keys that public authorities certify.
pub(super) const ALGORITHMS: [(&str, KeyAlgorithm); 5] = [
    ("ecdsa-p256", KeyAlgorithm::EcdsaP256),
    ("ecdsa-p384", KeyAlgorithm::EcdsaP384),
    ("rsa-2048", KeyAlgorithm::Rsa(2048)),
    ("rsa-3072", KeyAlgorithm::Rsa(3072)),
    ("rsa-4096", KeyAlgorithm::Rsa(4096)),
];

/// The settings of `[acme]`, and the certificates that pintle obtains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The folder of ACME's files.
    pub folder: PathBuf,
    /// The authorities, in the order in which they are asked: one or two.
    pub authorities: Vec<Authority>,
    /// The address for messages of the authority.
    pub email: Option<String>,
    /// The profile of certificates, by the authority's offer.
    pub profile: Option<String>,
    /// The time after which the next key replaces the live one.
    pub rotate_every: Option<Duration>,
    /// The program that sets DNS records.
    pub dns_hook: Option<PathBuf>,
    /// The challenges, in order of preference.
    pub challenges: Vec<Method>,
    /// The port at which the authorities validate http-01.
    pub http_port: u16,
    /// The same for tls-alpn-01.
    pub tls_port: u16,
    /// The time limit until a record of `dns_hook` is visible.
    pub dns_propagation: Duration,
    /// `true` if a private authority may ask other name servers than pintle does: none are configured here.
    pub other_view: bool,
    /// The certificates, in the order of the file.
    pub certificates: Vec<Managed>,
    /// The files that the table names: roots, keys of external accounts.
    pub files: Vec<PathBuf>,
}

impl Acme {
    /// Returns the authority with a directory; `None` if it is no longer configured.
    #[must_use]
    pub fn authority(&self, directory: &str) -> Option<&Authority> {
        self.authorities.iter().find(|authority| authority.directory == directory)
    }

    /// Returns the name of the authority with a directory; its directory if it is no longer configured.
    #[must_use]
    pub fn authority_name<'a>(&'a self, directory: &'a str) -> &'a str {
        self.authority(directory).map_or(directory, |authority| &authority.name)
    }
}

/// A certificate authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its name in the configuration, or its URL.
    pub name: String,
    /// The URL of its directory.
    pub directory: String,
    /// The binding to an account of the authority's customer.
    pub eab: Option<Eab>,
    /// The roots that its server's certificate is verified with, in DER; `None` for Mozilla's.
    pub roots: Option<Vec<Vec<u8>>>,
}

/// An external account binding (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Eab {
    /// The authority's name for the key.
    pub key_id: String,
    /// The key of the MAC.
    pub hmac_key: Vec<u8>,
}

impl fmt::Debug for Eab {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eab").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A way to prove control of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    /// RFC 8555 section 8.3.
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// RFC 8555 section 8.4.
    #[serde(rename = "dns-01")]
    Dns01,
    /// draft-ietf-acme-dns-persist.
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http01, Self::TlsAlpn01, Self::Dns01, Self::DnsPersist01];

    /// Returns its name in the configuration and in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }

    /// Returns `true` if it proves control by a DNS record: of wildcards, too, and of names that lead
    /// elsewhere.
    #[must_use]
    pub fn is_by_dns(self) -> bool {
        matches!(self, Self::Dns01 | Self::DnsPersist01)
    }

    /// Returns `true` if it can prove a name, as it is ordered: wildcards by DNS only, addresses never so.
    #[must_use]
    pub fn proves(self, name: &str) -> bool {
        match self.is_by_dns() {
            true => bare(name).parse::<IpAddr>().is_err(),
            false => !name.starts_with("*."),
        }
    }
}

/// One certificate that pintle obtains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// The site's first name.
    pub site: String,
    /// All names of the site.
    pub hosts: Vec<HostPattern>,
    /// The algorithm of its key.
    pub algorithm: KeyAlgorithm,
    /// The folder of its files.
    pub folder: PathBuf,
    /// The file of a key that becomes the first live key.
    pub adopt: Option<PathBuf>,
}

impl Managed {
    /// Returns the file of the live key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// Returns the file of the next key.
    #[must_use]
    pub fn next(&self) -> PathBuf {
        self.folder.join(NEXT)
    }

    /// Returns the file of the chain.
    #[must_use]
    pub fn chain(&self) -> PathBuf {
        self.folder.join(CHAIN)
    }

    /// Returns the copies of a compromised key and of its chain, which stay until the chain is revoked.
    #[must_use]
    pub fn compromised(&self) -> [PathBuf; 2] {
        COMPROMISED.map(|name| self.folder.join(name))
    }

    /// Returns the folder of the state, above the folder of the files.
    #[must_use]
    pub fn state(&self) -> Option<&Path> {
        self.folder.ancestors().nth(ABOVE_FOLDER)
    }
}

/// [`folder_of`] appends this many names to the folder of the state.
const ABOVE_FOLDER: usize = 3;

/// Returns a name as a file name: without asterisk, brackets and colons.
fn file_name(host: &HostPattern) -> String {
    host.to_string().replace('*', "_").replace(['[', ']'], "").replace(':', "-")
}

/// Returns the folder of a certificate's files: named by the first host of the site, or the one that exists already by
/// another of its hosts. Their order may change, and hosts may be added.
fn folder_of(state: &Path, hosts: &[HostPattern], algorithm: KeyAlgorithm) -> Option<PathBuf> {
    let folder = |host: &HostPattern| state.join(FOLDER).join(file_name(host)).join(algorithm.to_string());
    let known = hosts.iter().map(folder).find(|folder| folder.join(KEY).exists() || folder.join(CHAIN).exists());
    known.or_else(|| hosts.first().map(folder))
}

impl Draft {
    /// Replaces `acme = true` with the paths of pintle's own files. Tables that contradict themselves stay as
    /// written, for the checks to report.
    pub(super) fn place_managed(&mut self) {
        let Some(state) = self.state() else { return };
        for site in self.file.iter_mut().flat_map(|file| &mut file.sites) {
            place(site, &state);
        }
    }

    /// Returns the certificates that pintle obtains, without any check.
    #[must_use]
    pub fn managed(&self) -> Vec<Managed> {
        let Some(file) = &self.file else { return Vec::new() };
        file.sites.iter().flat_map(|site| self.managed_of(site)).collect()
    }

    /// Returns the place of `acme = true` in a site.
    #[must_use]
    pub fn place_of_acme(&self, site: &str) -> Range<usize> {
        let tables = self.file.iter().flat_map(|file| &file.sites);
        let of_site = |table: &&SiteTable| self.managed_of(table).first().is_some_and(|one| one.site == site);
        let mut spans =
            tables.filter(of_site).flat_map(|table| &table.certificates).filter_map(CertificateTable::by_acme);
        spans.next().cloned().unwrap_or_default()
    }

    fn managed_of(&self, site: &SiteTable) -> Vec<Managed> {
        let hosts: Vec<HostPattern> =
            site.hosts.iter().flatten().filter_map(|host| HostPattern::of_site(&host.value).ok()).collect();
        let Some(label) = hosts.first().map(ToString::to_string) else { return Vec::new() };
        let one = |table: &CertificateTable| {
            let (managed, chain) = (table.managed.as_ref()?, table.chain.as_ref()?);
            Some(Managed {
                site: label.clone(),
                hosts: hosts.clone(),
                algorithm: managed.algorithm,
                folder: Path::new(&chain.value).parent()?.to_owned(),
                adopt: managed.adopt.as_ref().map(|adopt| self.folder.join(&adopt.value)),
            })
        };
        site.certificates.iter().filter_map(one).collect()
    }
}

fn place(site: &mut SiteTable, state: &Path) {
    if !site.certificates.iter().any(|table| table.by_acme().is_some()) {
        return;
    }
    let hosts = site.hosts.iter().flatten().filter_map(|host| HostPattern::of_site(&host.value).ok());
    let hosts: Vec<HostPattern> = hosts.collect();
    if hosts.is_empty() {
        return;
    }
    let mut own = Vec::new();
    for table in std::mem::take(&mut site.certificates) {
        let Some(span) = table.by_acme().cloned().filter(|_| table.chain.is_none()) else {
            site.certificates.push(table);
            continue;
        };
        let known = algorithms(&table);
        if known.is_empty() {
            // The checks report the list of algorithms.
            site.certificates.push(table);
            continue;
        }
        for algorithm in known {
            let Some(folder) = folder_of(state, &hosts, algorithm) else { continue };
            let at = |name: &str| At { value: folder.join(name).display().to_string(), span: span.clone() };
            own.push(at(NEXT));
            site.certificates.push(CertificateTable {
                span: table.span.clone(),
                chain: Some(at(CHAIN)),
                key: Some(at(KEY)),
                acme: table.acme.clone(),
                algorithms: table.algorithms.clone(),
                managed: Some(Box::new(ManagedTable { algorithm, adopt: table.key.clone() })),
            });
        }
    }
    site.own_next = own.clone();
    if let Some(hpkp) = &mut site.hpkp {
        hpkp.own = own;
    }
}

/// Returns the known algorithms of a table, each once.
fn algorithms(table: &CertificateTable) -> Vec<KeyAlgorithm> {
    let Some(listed) = &table.algorithms else { return vec![KeyAlgorithm::EcdsaP256] };
    let mut known = Vec::new();
    for name in listed {
        if let Some((_, algorithm)) = ALGORITHMS.iter().find(|(word, _)| *word == name.value)
            && !known.contains(algorithm)
        {
            known.push(*algorithm);
        }
    }
    known
}
