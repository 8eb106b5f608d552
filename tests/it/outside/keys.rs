//! Keys and certificates that all histories share: each certificate is for all names, so that nothing but pins can be
//! wrong with it.
//!
//! There are three authorities. *Own* has signed most leaves. *New* has signed those of the last version, and *old* has
//! signed *new*'s key as well (a cross-sign): clients of today end their path at *new*, and older ones at *old*.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Authority, KeyKind, Leaf};

/// Names that are asked for: those of the sites, and one that is nobody's.
pub const NAMES: [&str; 6] =
    ["a.example", "www.a.example", "q.x.a.example", "shop.a.example", "b.example", "nobody.example"];
/// Keys of each site, ECDSA, and then RSA.
pub const KEYS: usize = 6;
pub const RSA_FROM: usize = 4;
pub const SITES: usize = 3;
/// Certificates for each key; the last one has another issuer.
pub const VERSIONS: usize = 3;
/// The possible backups: a site's keys, then the authority that has signed most leaves, and the one above it.
pub const BACKUPS: usize = KEYS + 2;

pub struct Keys {
    pub own: Authority,
    pub new: Authority,
    pub old: Authority,
    leaves: Vec<Leaf>,
    backups: Vec<PathBuf>,
    pins: [String; 3],
}

impl Keys {
    pub fn new() -> Self {
        let [own, new, old] = ["own", "new", "old"].map(|name| Authority::named(&format!("pintle test CA, {name}")));
        let above = new.crossed(&old) + old.ca_pem();
        let hosts = ["a.example", "www.a.example", "*.x.a.example", "shop.a.example", "b.example", "nobody.example"];
        let (mut leaves, mut backups) = (Vec::new(), Vec::new());
        for site in 0..SITES {
            for key in 0..KEYS {
                let kind = if key < RSA_FROM { KeyKind::Ecdsa } else { KeyKind::Rsa };
                let name = format!("key-{site}-{key}");
                let path = own.key(&name, kind);
                for version in 0..VERSIONS {
                    let days = 700 + version as i64;
                    let is_own = version + 1 < VERSIONS;
                    let issuer = if is_own { &own } else { &new };
                    let leaf = issuer.issue_as(&format!("{name}-{version}"), path.clone(), &hosts, |params| {
                        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(100);
                        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
                    });
                    if !is_own {
                        let chain = fs::read_to_string(&leaf.chain).unwrap().replace(new.ca_pem(), &above);
                        fs::write(&leaf.chain, chain).unwrap();
                    }
                    leaves.push(leaf);
                }
                backups.push(own.csr(leaves.last().unwrap()));
            }
        }
        let pins = [&own, &new, &old].map(Authority::pin);
        Self { own, new, old, leaves, backups, pins }
    }

    pub fn leaf(&self, site: usize, key: usize, version: usize) -> &Leaf {
        &self.leaves[(site * KEYS + key) * VERSIONS + version]
    }

    /// The file of a backup: of a site's own keys, or of an authority.
    pub fn backup(&self, site: usize, key: usize) -> PathBuf {
        match key.checked_sub(KEYS) {
            None => self.backups[site * KEYS + key].clone(),
            Some(0) => self.own.ca_path(),
            Some(_) => self.old.ca_path(),
        }
    }

    /// A text with names instead of pins.
    pub fn named(&self, text: &str) -> String {
        let all = (0..SITES).flat_map(|site| (0..KEYS).map(move |key| (site, key)));
        let text = all
            .fold(text.to_owned(), |text, (site, key)| text.replace(self.pin(site, key), &format!("<{site}/{key}>")));
        ["own", "new", "old"]
            .iter()
            .zip(&self.pins)
            .fold(text, |text, (name, pin)| text.replace(pin, &format!("<{name}>")))
    }

    /// The pin of a key.
    pub fn pin(&self, site: usize, key: usize) -> &str {
        &self.leaf(site, key, 0).pin
    }

    /// The pins of a certificate's path, as a client of today builds it: its own, and its issuer's.
    pub fn path(&self, site: usize, key: usize, version: usize) -> Vec<String> {
        let issuer = if version + 1 < VERSIONS { &self.pins[0] } else { &self.pins[1] };
        vec![self.pin(site, key).to_owned(), issuer.clone()]
    }

    /// The path that a client builds from a chain: it ends at the first key that the client trusts.
    pub fn path_of(&self, shown: Vec<String>, is_old: bool) -> Vec<String> {
        let trusted = if is_old { [&self.pins[0], &self.pins[2]] } else { [&self.pins[0], &self.pins[1]] };
        let end = shown.iter().position(|pin| trusted.contains(&pin));
        shown.into_iter().take(end.map_or(usize::MAX, |end| end + 1)).collect()
    }
}
