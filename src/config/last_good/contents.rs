//! The contents of a copy: the site's names, the promises that the pair breaks already, the chain, and the key.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::host::HostPattern;
use crate::keys::key_file::private_key;
use crate::keys::pin::Pin;
use crate::ledger::set_id;
use crate::policy::promise::{Promise, SiteNames};

/// The names that a pair is served for, and the promises that it breaks already: those of other nodes, for one. A copy
/// has them as text before its first section: a start may lock out only readers who were locked out before. So an old
/// copy, of a key that was replaced since, excuses nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::config) struct Breaches {
    hosts: Vec<HostPattern>,
    /// The names that wildcards among the hosts do not cover.
    except: Vec<HostPattern>,
    sets: Vec<String>,
    pinned: Pinned,
}

/// The promises that bound the names of a copy when it was written. If the ledger is lost, nothing else shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::config) enum Pinned {
    /// A copy of an older version does not tell.
    #[default]
    Unknown,
    No,
    Yes {
        /// The pins that each of them has.
        pins: Vec<Pin>,
        /// One of them binds the names below, too.
        below: bool,
    },
}

impl Pinned {
    /// The note of a copy for these promises, all of which bind its names.
    pub(in crate::config) fn of(promises: &[&Promise]) -> Self {
        let Some((first, rest)) = promises.split_first() else { return Self::No };
        let in_all = |pin: &&Pin| rest.iter().all(|promise| promise.pins.contains(*pin));
        Self::Yes {
            pins: first.pins.iter().filter(in_all).copied().collect(),
            below: promises.iter().any(|promise| promise.include_subdomains),
        }
    }

    fn read(line: &str) -> Self {
        let mut parts = line.split_whitespace();
        match parts.next() {
            Some(NO) => Self::No,
            Some(word @ (YES | BELOW)) => {
                Self::Yes { pins: parts.filter_map(|pin| pin.parse().ok()).collect(), below: word == BELOW }
            }
            _ => Self::Unknown,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::No => format!("{PINNED}{NO}\n"),
            Self::Yes { pins, below } => {
                let pins: String = pins.iter().map(|pin| format!(" {pin}")).collect();
                format!("{PINNED}{}{pins}\n", if *below { BELOW } else { YES })
            }
        }
    }
}

/// The words before the names, the sets and the pins in a copy. Hosts are in base64: a name may look like a line of PEM.
const HOSTS: &str = "Served for: ";
const EXCEPT: &str = "Except: ";
const SETS: &str = "Breaks: ";
const PINNED: &str = "Pinned: ";
const KEY: &str = "Key: ";
/// The words before the pins.
const NO: &str = "no";
const YES: &str = "yes";
const BELOW: &str = "below";

impl Breaches {
    /// The breaches of a pair that is served for these names.
    pub(in crate::config) fn of(names: SiteNames<'_>, promises: Vec<&Promise>) -> Self {
        let mut sets: Vec<String> = promises.into_iter().map(set_id).collect();
        sets.sort_unstable();
        Self { hosts: names.hosts.to_vec(), except: names.except.to_vec(), sets, pinned: Pinned::Unknown }
    }

    /// The same, with all promises that bind the names.
    pub(in crate::config) fn bound_by(self, promises: &[&Promise]) -> Self {
        Self { pinned: Pinned::of(promises), ..self }
    }

    /// The breaches that a copy names.
    pub(in crate::config) fn read(contents: &[u8]) -> Self {
        let text = contents.split(|b| *b == b'\n').take_while(|line| !line.starts_with(b"-----"));
        let lines: Vec<&str> = text.filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let line = |of: &str| lines.iter().find_map(|line| line.strip_prefix(of)).unwrap_or_default();
        let names = |of: &str| {
            let names = STANDARD.decode(line(of)).ok().and_then(|names| String::from_utf8(names).ok());
            let names = names.unwrap_or_default();
            names.split_whitespace().filter_map(|name| HostPattern::parse(name).ok()).collect()
        };
        Self {
            hosts: names(HOSTS),
            except: names(EXCEPT),
            sets: line(SETS).split_whitespace().map(str::to_owned).collect(),
            pinned: Pinned::read(line(PINNED)),
        }
    }

    pub(in crate::config) fn has(&self, promise: &Promise) -> bool {
        self.sets.contains(&set_id(promise))
    }

    pub(in crate::config) fn names(&self) -> SiteNames<'_> {
        SiteNames { hosts: &self.hosts, except: &self.except }
    }

    pub(super) fn known_hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    pub(super) fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    pub(super) fn text(&self) -> String {
        let line = |of: &str, names: &[HostPattern]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            format!("{of}{}\n", STANDARD.encode(names.join(" ")))
        };
        let mut text = line(HOSTS, &self.hosts);
        if !self.except.is_empty() {
            text += &line(EXCEPT, &self.except);
        }
        if !self.sets.is_empty() {
            text += &format!("{SETS}{}\n", self.sets.join(" "));
        }
        text + &self.pinned.text()
    }
}

/// The line of a copy about its key's file.
pub(super) fn key_note(file: &Path) -> String {
    // The next process may begin in another folder.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    format!("{KEY}{}\n", STANDARD.encode(file.as_os_str().as_bytes()))
}

/// The file of a copy's key, if a key process had the key.
pub(in crate::config) fn noted_key(contents: &[u8]) -> Option<PathBuf> {
    let mut lines = contents.split(|b| *b == b'\n').take_while(|line| !line.starts_with(b"-----"));
    let file = STANDARD.decode(lines.find_map(|line| line.strip_prefix(KEY.as_bytes()))?).ok()?;
    Some(PathBuf::from(OsString::from_vec(file)))
}

/// `true` if a copy has a key.
pub(super) fn has_key(contents: &[u8]) -> bool {
    private_key(contents).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_key_is_read_back() {
        let file = Path::new("/etc/certs/two words\n.key");
        let copy = Breaches::default().text() + &key_note(file) + "-----BEGIN CERTIFICATE-----\n";
        assert_eq!(noted_key(copy.as_bytes()), Some(file.to_owned()));
        assert_eq!(noted_key(Breaches::default().text().as_bytes()), None);
    }

    #[test]
    fn breaches_are_read_back() {
        let hosts: Vec<HostPattern> =
            ["a.example", "*.b.example", "a--end.example"].map(|h| HostPattern::parse(h).unwrap()).into();
        let except = vec![HostPattern::parse("c.b.example").unwrap()];
        let section = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let two = vec![Pin::of_spki(b"a"), Pin::of_spki(b"b")];
        for (sets, pinned) in [
            (vec!["0123".to_owned(), "4567".to_owned()], Pinned::Yes { pins: two.clone(), below: false }),
            (Vec::new(), Pinned::Yes { pins: two, below: true }),
            (Vec::new(), Pinned::Yes { pins: Vec::new(), below: false }),
            (Vec::new(), Pinned::No),
            (Vec::new(), Pinned::Unknown),
        ] {
            let breaches = Breaches { hosts: hosts.clone(), except: except.clone(), sets, pinned };
            let copy = breaches.text() + section;
            assert_eq!(crate::keys::pem::read(copy.as_bytes()).unwrap().len(), 1, "{copy}");
            assert_eq!(Breaches::read(copy.as_bytes()), breaches);
        }
        assert_eq!(Breaches::read(section.as_bytes()), Breaches::default());
    }
}
