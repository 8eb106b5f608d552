//! The name of a copy: its chain's path, its leaf key, and its site, each as a hash.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::host::HostPattern;
use crate::keys::pin::Pin;

/// The end of a copy's name; a copy that is being written has another.
pub(super) const SUFFIX: &str = ".pem";
pub(super) const NEW_SUFFIX: &str = ".new";
/// The end of the name of a copy whose site is gone. The copy stays while its pair stands in for a name, or while a promise
/// needs its key.
pub(super) const FORMER: &str = ".former";
/// Bytes of a hash in a copy's name.
const HASH: usize = 8;
/// Characters of a file's stem in a copy's name: for people only, so a few are enough.
const STEM_MAX: usize = 40;

/// A pair that a site serves.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct ServedPair<'p> {
    /// The site's first name.
    pub(in crate::config) site: &'p str,
    /// The path of the chain in the configuration.
    pub(in crate::config) chain: &'p Path,
    /// The pin of the leaf.
    pub(in crate::config) pin: Pin,
}

impl ServedPair<'_> {
    /// `blog-0123456789abcdef-0123456789abcdef-0123456789abcdef.pem`
    pub(super) fn name(self) -> String {
        let stem = self.chain.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let is_plain = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '_');
        let stem: String = stem.chars().filter(is_plain).take(STEM_MAX).collect();
        format!("{stem}-{}-{}-{}{SUFFIX}", of_path(self.chain), of_pin(self.pin), short(self.site.as_bytes()))
    }
}

/// The parts of a copy's name.
pub(in crate::config) struct CopyName<'n> {
    path: &'n str,
    pin: &'n str,
    /// `None` in names of older versions.
    site: Option<&'n str>,
}

impl<'n> CopyName<'n> {
    /// `None` if it is not the name of a whole copy.
    pub(super) fn parse(name: &'n str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let (_stem, path, pin) = (parts.next()?, parts.next()?, parts.next()?);
        let site = parts.next();
        parts.next().is_none().then_some(Self { path, pin, site })
    }

    /// The same, also for a copy whose site is gone.
    pub(super) fn parse_any(name: &'n str) -> Option<Self> {
        Self::parse(name.strip_suffix(FORMER).unwrap_or(name))
    }

    /// The part for the path of its chain ([`of_path`]).
    pub(super) fn path(&self) -> &'n str {
        self.path
    }

    /// The part for the pin of its leaf ([`of_pin`]).
    pub(super) fn pin(&self) -> &'n str {
        self.pin
    }

    /// The part for its site ([`of_site`]); `None` in names of older versions.
    pub(super) fn site(&self) -> Option<&'n str> {
        self.site
    }

    /// `true` if the copy's leaf has this pin.
    pub(in crate::config) fn is_of(&self, pin: Pin) -> bool {
        self.pin == of_pin(pin)
    }

    /// Its fit to a site with these names ([`of_site`]); `None` if it names none of them.
    pub(super) fn rank(&self, sites: &[String]) -> Option<u8> {
        let Some(site) = self.site else { return Some(0) };
        let place = sites.iter().position(|known| known == site)?;
        Some(if place == 0 { NAMED_FIRST } else { NAMED })
    }
}

/// The ranks of copies that name the site.
const NAMED_FIRST: u8 = 3;
const NAMED: u8 = 2;

/// The part of a name for the path of a chain.
pub(super) fn of_path(chain: &Path) -> String {
    // `-c pintle.toml` and `-c /etc/pintle/pintle.toml` are one configuration.
    let chain = std::path::absolute(chain).unwrap_or_else(|_| chain.to_owned());
    short(chain.as_os_str().as_encoded_bytes())
}

/// The part of a name for a leaf key.
pub(super) fn of_pin(pin: Pin) -> String {
    short(pin.to_string().as_bytes())
}

/// The part of a name for a site, by one of its names.
pub(super) fn of_site(host: &HostPattern) -> String {
    short(host.to_string().as_bytes())
}

fn short(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(HASH).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(of_path(Path::new("certs/blog.pem")), of_path(&here.join("certs/blog.pem")));
        assert_eq!(of_path(Path::new("./certs/blog.pem")), of_path(&here.join("certs/blog.pem")));
        assert_ne!(of_path(Path::new("certs/blog.pem")), of_path(Path::new("/certs/blog.pem")));
    }

    #[test]
    fn names_are_read_back() {
        let sites = ["a.example", "b.example"].map(|host| of_site(&HostPattern::parse(host).unwrap()));
        let (chain, pin) = (Path::new("/etc/a-b/blog-2026.pem"), Pin::of_spki(b"key"));
        let name = |site| ServedPair { site, chain, pin }.name();
        for (site, rank) in [("a.example", Some(3)), ("b.example", Some(2)), ("c.example", None)] {
            let name = name(site);
            let parsed = CopyName::parse(&name).unwrap();
            assert!(
                parsed.path() == of_path(chain) && parsed.is_of(pin) && !parsed.is_of(Pin::of_spki(b"other")),
                "{name}"
            );
            assert_eq!(parsed.rank(&sites), rank, "{name}");
        }
        let old = "blog-0123456789abcdef-0123456789abcdef.pem";
        assert_eq!(CopyName::parse(old).unwrap().rank(&sites), Some(0));
        for other in ["blog-0123456789abcdef-0123456789abcdef.new", "blog.pem", "a-b-c-d-e.pem", "blog"] {
            assert!(CopyName::parse(other).is_none(), "{other}");
        }
    }
}
