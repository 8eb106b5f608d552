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
use crate::policy::promise::{Promise, Seconds, SiteNames};

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
        /// Some were sent from then on: only the ledger knows until when. A copy of an older version does not tell.
        sent: bool,
        /// The end of the others.
        until: Option<Seconds>,
        /// The pins of those that were sent, if the others have fewer: only these count once the others are over.
        lasting: Option<Vec<Pin>>,
    },
}

/// The promises that bind the names of a copy.
#[derive(Debug, Default)]
pub(in crate::config) struct BindingPromises<'a> {
    /// Promises that a header makes again and again while pintle serves.
    pub(in crate::config) sent: Vec<&'a Promise>,
    /// Promises that nothing renews: exports, and pins that are not sent any more.
    pub(in crate::config) ending: Vec<&'a Promise>,
}

impl Pinned {
    /// The note of a copy for these promises.
    pub(in crate::config) fn of(promises: &BindingPromises<'_>) -> Self {
        let mut all = promises.sent.iter().chain(&promises.ending);
        let Some(first) = all.next() else { return Self::No };
        let (pins, sent) = (first.pins.clone(), !promises.sent.is_empty());
        Self::Yes { pins, below: false, sent, until: None, lasting: None }.and(promises)
    }

    /// The note once these promises bind the names, too.
    fn and(self, promises: &BindingPromises<'_>) -> Self {
        let all = || promises.sent.iter().chain(&promises.ending);
        match self {
            Self::Unknown => Self::Unknown,
            Self::No => Self::of(promises),
            Self::Yes { mut pins, below, sent, until, lasting } => {
                // Without an end, all of them are sent.
                let mut lasting = lasting.or_else(|| (sent && until.is_none()).then(|| pins.clone()));
                if let Some(lasting) = &mut lasting {
                    lasting.retain(|pin| promises.sent.iter().all(|promise| promise.pins.contains(pin)));
                }
                pins.retain(|pin| all().all(|promise| promise.pins.contains(pin)));
                let until = promises.ending.iter().map(|promise| promise.honoured_until()).max().max(until);
                Self::Yes {
                    below: below || all().any(|promise| promise.include_subdomains),
                    sent: sent || !promises.sent.is_empty(),
                    until,
                    lasting: lasting.filter(|lasting| until.is_some() && *lasting != pins),
                    pins,
                }
            }
        }
    }

    fn read(line: &str, lasting: &str) -> Self {
        let mut parts = line.split_whitespace();
        match parts.next() {
            Some(NO) => Self::No,
            Some(word @ (YES | BELOW)) => {
                let parts: Vec<&str> = parts.collect();
                let until = parts.iter().find_map(|part| part.strip_prefix(UNTIL)?.parse().ok());
                Self::Yes {
                    pins: parts.iter().filter_map(|pin| pin.parse().ok()).collect(),
                    below: word == BELOW,
                    sent: until.is_none() || parts.contains(&SENT),
                    until,
                    lasting: pins_in(lasting),
                }
            }
            _ => Self::Unknown,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Unknown => String::new(),
            Self::No => format!("{PINNED}{NO}\n"),
            Self::Yes { pins, below, sent, until, lasting } => {
                let words = |pins: &[Pin]| pins.iter().map(|pin| format!(" {pin}")).collect::<String>();
                let pins = words(pins);
                let lasting = lasting.iter().map(|pins| format!("{LASTING}{}\n", words(pins))).collect::<String>();
                // Older versions look for pins alone behind the first word.
                let until = until.map(|until| format!(" {UNTIL}{until}{}", if *sent { " sent" } else { "" }));
                let word = if *below { BELOW } else { YES };
                format!("{PINNED}{word}{}{pins}\n{lasting}", until.unwrap_or_default())
            }
        }
    }
}

/// The pins in a line; `None` without any, or if one is damaged.
fn pins_in(line: &str) -> Option<Vec<Pin>> {
    let pins: Option<Vec<Pin>> = line.split_whitespace().map(|pin| pin.parse().ok()).collect();
    pins.filter(|pins| !pins.is_empty())
}

/// The words before the names, the sets and the pins in a copy. Hosts are in base64: a name may look like a line of PEM.
const HOSTS: &str = "Served for: ";
const EXCEPT: &str = "Except: ";
const SETS: &str = "Breaks: ";
const PINNED: &str = "Pinned: ";
const LASTING: &str = "Lasting:";
const KEY: &str = "Key: ";
const LEDGER: &str = "Ledger: ";
/// The words before the pins.
const NO: &str = "no";
const YES: &str = "yes";
const BELOW: &str = "below";
const SENT: &str = "sent";
const UNTIL: &str = "until=";

impl Breaches {
    /// The breaches of a pair that is served for these names.
    pub(in crate::config) fn of(names: SiteNames<'_>, promises: Vec<&Promise>) -> Self {
        let mut sets: Vec<String> = promises.into_iter().map(set_id).collect();
        sets.sort_unstable();
        Self { hosts: names.hosts.to_vec(), except: names.except.to_vec(), sets, pinned: Pinned::Unknown }
    }

    /// The same, with all promises that bind the names.
    pub(in crate::config) fn bound_by(self, promises: &BindingPromises<'_>) -> Self {
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
            pinned: Pinned::read(line(PINNED), line(LASTING)),
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

/// A copy's contents once these promises bind its names, too; `None` if its note says so already.
pub(super) fn noted(contents: &[u8], ending: Vec<&Promise>) -> Option<Vec<u8>> {
    let known = Breaches::read(contents).pinned;
    let pinned = known.clone().and(&BindingPromises { sent: Vec::new(), ending });
    if pinned == known {
        return None;
    }
    let note = pinned.text();
    // It never grows: it has the key.
    let mut changed = Vec::with_capacity(note.len().saturating_add(contents.len()));
    changed.extend_from_slice(note.as_bytes());
    let mut is_head = true;
    for line in contents.split_inclusive(|b| *b == b'\n') {
        is_head &= !line.starts_with(b"-----");
        if !(is_head && [PINNED, LASTING].iter().any(|of| line.starts_with(of.as_bytes()))) {
            changed.extend_from_slice(line);
        }
    }
    Some(changed)
}

/// The line of a copy about the ledger beside it.
pub(super) fn ledger_note(id: &str) -> String {
    format!("{LEDGER}{id}\n")
}

/// The id of the ledger beside which a copy was written.
pub(super) fn noted_ledger(contents: &[u8]) -> Option<String> {
    let mut lines = contents.split(|b| *b == b'\n').take_while(|line| !line.starts_with(b"-----"));
    let id = lines.find_map(|line| line.strip_prefix(LEDGER.as_bytes()))?;
    std::str::from_utf8(id).ok().map(str::to_owned)
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
    use crate::policy::promise::PromiseChannel;

    #[test]
    fn the_file_of_a_key_is_read_back() {
        let file = Path::new("/etc/certs/two words\n.key");
        let copy = Breaches::default().text() + &key_note(file) + "-----BEGIN CERTIFICATE-----\n";
        assert_eq!(noted_key(copy.as_bytes()), Some(file.to_owned()));
        assert_eq!(noted_key(Breaches::default().text().as_bytes()), None);
    }

    fn yes(pins: &[Pin], below: bool, sent: bool, until: Option<Seconds>) -> Pinned {
        Pinned::Yes { pins: pins.to_vec(), below, sent, until, lasting: None }
    }

    /// The same beside pins that are sent.
    fn beside(pins: &[Pin], until: Seconds, lasting: &[Pin]) -> Pinned {
        let (until, lasting) = (Some(until), Some(lasting.to_vec()));
        Pinned::Yes { pins: pins.to_vec(), below: true, sent: true, until, lasting }
    }

    /// A copy of an older version names no end: its pins may be sent since.
    #[test]
    fn a_note_without_an_end_is_of_pins_that_are_sent() {
        let pin = Pin::of_spki(b"a");
        assert_eq!(Pinned::read(&format!("yes {pin}"), ""), yes(&[pin], false, true, None));
        assert_eq!(Pinned::read(&format!("below until=damaged {pin}"), ""), yes(&[pin], true, true, None));
    }

    #[test]
    fn a_note_takes_further_promises() {
        let mut two = vec![Pin::of_spki(b"a"), Pin::of_spki(b"b")];
        two.sort_unstable();
        let export = Promise {
            site: "a.example".to_owned(),
            hosts: vec![HostPattern::parse("a.example").unwrap()],
            except: Vec::new(),
            pins: two[..1].to_vec(),
            max_age: 90,
            include_subdomains: true,
            channel: PromiseChannel::Assumed,
            first_sent: 10,
            last_sent: 10,
        };
        let rest = format!("{}-----BEGIN CERTIFICATE-----\n{PINNED}no\n", key_note(Path::new("/a.key")));
        for (before, after) in [
            (Pinned::No, yes(&two[..1], true, false, Some(100))),
            (yes(&two, false, true, None), beside(&two[..1], 100, &two)),
            (yes(&two, false, false, Some(200)), yes(&two[..1], true, false, Some(200))),
        ] {
            let copy = Breaches { pinned: before, ..Breaches::default() }.text() + &rest;
            let changed = noted(copy.as_bytes(), vec![&export]).unwrap();
            assert_eq!(*Breaches::read(&changed).pinned(), after);
            assert!(changed.ends_with(rest.as_bytes()), "{}", String::from_utf8_lossy(&changed));
            assert_eq!(noted(&changed, vec![&export]), None);
        }
        assert_eq!(noted(rest.as_bytes(), vec![&export]), None, "nobody knows what it was promised before");
    }

    #[test]
    fn breaches_are_read_back() {
        let hosts: Vec<HostPattern> =
            ["a.example", "*.b.example", "a--end.example"].map(|h| HostPattern::parse(h).unwrap()).into();
        let except = vec![HostPattern::parse("c.b.example").unwrap()];
        let section = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let two = vec![Pin::of_spki(b"a"), Pin::of_spki(b"b")];
        for (sets, pinned) in [
            (vec!["0123".to_owned(), "4567".to_owned()], yes(&two, false, true, None)),
            (Vec::new(), yes(&two, true, false, Some(1_772_000_000))),
            (Vec::new(), yes(&two, true, true, Some(1_772_000_000))),
            (Vec::new(), beside(&two[..1], 1_772_000_000, &two)),
            (Vec::new(), yes(&[], false, true, None)),
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
