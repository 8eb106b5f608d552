//! Keys and certificates that all histories share: each certificate is for all names, so that nothing but pins can be
//! wrong with it.

use std::path::PathBuf;

use crate::harness::{Authority, KeyKind, Leaf};

/// Names that are asked for: those of the sites, and one that is nobody's.
pub const NAMES: [&str; 6] =
    ["a.example", "www.a.example", "q.x.a.example", "shop.a.example", "b.example", "nobody.example"];
/// Keys of each site, ECDSA, and then RSA.
pub const KEYS: usize = 6;
pub const RSA_FROM: usize = 4;
pub const SITES: usize = 3;
/// Certificates for each key.
pub const VERSIONS: usize = 2;

pub struct Keys {
    pub authority: Authority,
    leaves: Vec<Leaf>,
    backups: Vec<PathBuf>,
}

impl Keys {
    pub fn new() -> Self {
        let authority = Authority::new();
        let hosts = ["a.example", "www.a.example", "*.x.a.example", "shop.a.example", "b.example", "nobody.example"];
        let (mut leaves, mut backups) = (Vec::new(), Vec::new());
        for site in 0..SITES {
            for key in 0..KEYS {
                let kind = if key < RSA_FROM { KeyKind::Ecdsa } else { KeyKind::Rsa };
                let name = format!("key-{site}-{key}");
                let path = authority.key(&name, kind);
                for version in 0..VERSIONS {
                    let days = 700 + version as i64;
                    leaves.push(authority.issue_as(&format!("{name}-{version}"), path.clone(), &hosts, |params| {
                        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(100);
                        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
                    }));
                }
                backups.push(authority.csr(leaves.last().unwrap()));
            }
        }
        Self { authority, leaves, backups }
    }

    pub fn leaf(&self, site: usize, key: usize, version: usize) -> &Leaf {
        &self.leaves[(site * KEYS + key) * VERSIONS + version]
    }

    pub fn backup(&self, site: usize, key: usize) -> &PathBuf {
        &self.backups[site * KEYS + key]
    }

    /// A text with names in place of pins.
    pub fn named(&self, text: &str) -> String {
        let all = (0..SITES).flat_map(|site| (0..KEYS).map(move |key| (site, key)));
        all.fold(text.to_owned(), |text, (site, key)| text.replace(self.pin(site, key), &format!("<{site}/{key}>")))
    }

    /// The pins of a chain with this key: its own, and its issuer's.
    pub fn pin(&self, site: usize, key: usize) -> &str {
        &self.leaf(site, key, 0).pin
    }
}
