//! The contents of a copy: the site's names, the promises that the pair breaks already, the chain, and the key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::host::HostPattern;
use crate::keys::key_file::private_key;
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
}

/// The words before the names and before the sets in a copy. Hosts are in base64: a name may look like a line of PEM.
const HOSTS: &str = "Served for: ";
const EXCEPT: &str = "Except: ";
const SETS: &str = "Breaks: ";

impl Breaches {
    /// The breaches of a pair that is served for these names.
    pub(in crate::config) fn of(names: SiteNames<'_>, promises: Vec<&Promise>) -> Self {
        let mut sets: Vec<String> = promises.into_iter().map(set_id).collect();
        sets.sort_unstable();
        Self { hosts: names.hosts.to_vec(), except: names.except.to_vec(), sets }
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
        text
    }
}

/// `true` if a copy has a key.
pub(super) fn has_key(contents: &[u8]) -> bool {
    private_key(contents).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_are_read_back() {
        let hosts: Vec<HostPattern> =
            ["a.example", "*.b.example", "a--end.example"].map(|h| HostPattern::parse(h).unwrap()).into();
        let except = vec![HostPattern::parse("c.b.example").unwrap()];
        let section = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        for sets in [vec!["0123".to_owned(), "4567".to_owned()], Vec::new()] {
            let breaches = Breaches { hosts: hosts.clone(), except: except.clone(), sets };
            let copy = breaches.text() + section;
            assert_eq!(crate::keys::pem::read(copy.as_bytes()).unwrap().len(), 1, "{copy}");
            assert_eq!(Breaches::read(copy.as_bytes()), breaches);
        }
        assert_eq!(Breaches::read(section.as_bytes()), Breaches::default());
    }
}
