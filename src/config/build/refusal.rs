//! The words for a chain that the guard refuses: what it breaks, which keys would do, and when it becomes safe.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::keys::pin::Pin;
use crate::ledger::time::{self, minute_from};
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::pasted::pintle;
use crate::reason::{Reason, shell_word};

/// Promises that one message names; it counts the rest.
const NAMED_MAX: usize = 3;
/// Pins that one message names.
const PINS_MAX: usize = 5;
/// Sites or names that one message lists: each of ten thousand sites with one chain file has a message.
const NAMES_MAX: usize = 10;

/// A chain that may not be served, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The site, by its first name.
    pub site: String,
    /// The files of the pair, as `pintle install` takes them; empty if it would accept nothing: pintle obtains the
    /// certificate, or the serving process has not loaded the text that has this pair for these names.
    pub files: Vec<String>,
    /// The chain's file.
    pub chain: String,
    /// The leaf's pin.
    pub pin: Pin,
    /// The pins of the chain that count.
    pub certain: Vec<Pin>,
    /// The promises that it would break.
    pub broken: Vec<Promise>,
    /// For each of them, `true` if pintle still sends it: each visit makes a client hold it longer.
    pub still_sent: Vec<bool>,
    /// The sites whose sets pintle sends from now on and that the chain breaks, too. They begin to be held.
    pub also_sent_by: Vec<String>,
    /// The sites that made the broken promises and are not in the file any more.
    pub gone: Vec<String>,
    /// The configured keys that would keep them: pin and source.
    pub satisfied_by: Vec<(Pin, String)>,
    /// The leaf's key: whether it is among the site's backups, and since when clients know it.
    pub own_key: OwnKey,
    /// A day in `[[site]]` does not count: only a command accepts this lockout.
    pub by_command: bool,
    /// The time from which the chain breaks nothing, if pintle no longer sends the promises that it breaks.
    pub safe_from: Seconds,
    /// The sites that have this chain from this file.
    pub shared: Arc<SharedChain>,
}

/// The sites that have one chain from one file: whoever installs it does so for all of them.
#[derive(Debug, Clone, Default)]
pub struct SharedChain {
    /// All of them, by their first names.
    pub sites: HashSet<String>,
    /// The sites at which it breaks promises.
    pub breaking: Vec<String>,
    /// The time from which it breaks nothing at any of them.
    pub safe_from: Seconds,
}

/// The place of a refused chain's key in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKey {
    /// The configuration does not name it.
    Unknown,
    /// It is a backup of the site.
    Backup {
        /// Since when clients know it; `None` if they do not yet.
        promised_since: Option<Seconds>,
    },
}

impl Refusal {
    /// The first day, in UTC, on which the chain is safe: the value for `accept_lockout_until`.
    #[must_use]
    pub fn safe_day(&self) -> String {
        safe_day(self.safe_from)
    }

    /// The same for `pintle install`, which accepts the lockout at all sites that have the chain's file: their last day.
    #[must_use]
    pub fn day_of_command(&self) -> String {
        match self.shared.breaking.as_slice() {
            [_, _, ..] => safe_day(self.safe_from.max(self.shared.safe_from)),
            _ => self.safe_day(),
        }
    }

    /// The refusal, with the ways out: a key that is promised, time, a promise of this key first, or the lockout.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let reason = Reason::new(self.to_string());
        let reason = match self.keys() {
            Some(keys) => reason.hint(keys),
            None => reason.note("no single key keeps all of these promises"),
        };
        let reason = reason.hints(self.sites_to_put_back());
        reason.hint(self.way_for_this_key()).hint(format!("to lock these readers out anyway: {}", self.lockout()))
    }

    /// The line or the command that accepts the lockout.
    fn lockout(&self) -> String {
        let line = format!("accept_lockout_until = \"{}\" in [[site]]", self.safe_day());
        match (self.command(), self.by_command) {
            (Some(command), true) => command,
            (Some(command), false) => format!("{line}, or {command}"),
            (None, false) => line,
            // Only a reload that brings the line accepts the lockout.
            (None, true) => format!(
                "while pintle runs, leave accept_lockout_until out and `{reload}`; then {line}, and `{reload}` again",
                reload = pintle("reload")
            ),
        }
    }

    /// The command that accepts the lockout; `None` if none does.
    fn command(&self) -> Option<String> {
        if self.files.is_empty() {
            return None;
        }
        let files: Vec<String> = self.files.iter().map(|file| shell_word(file)).collect();
        let (site, files, day) = (shell_word(&self.site), files.join(" "), self.day_of_command());
        let command = pintle(format_args!("install --site {site} {files} --accept-lockout-until {day}"));
        let all = match self.shared.breaking.as_slice() {
            sites @ [_, _, ..] => format!(" (for all sites with this chain file: {})", listed(sites)),
            _ => String::new(),
        };
        Some(format!("`{command}`{all}"))
    }

    fn keys(&self) -> Option<String> {
        if !self.satisfied_by.is_empty() {
            let keys: Vec<String> = self.satisfied_by.iter().map(|(pin, file)| format!("{pin} ({file})")).collect();
            return Some(format!("a certificate for one of these keys locks nobody out: {}", keys.join(", ")));
        }
        let common: Vec<String> = common_pins(&self.broken).iter().map(ToString::to_string).take(PINS_MAX).collect();
        (!common.is_empty()).then(|| {
            format!("get a certificate for one of these keys; none of them is configured: {}", common.join(", "))
        })
    }

    /// The time and the way in which this chain's own key becomes usable.
    fn way_for_this_key(&self) -> String {
        let from = minute_from(self.safe_from);
        let senders = self.senders();
        match self.own_key {
            OwnKey::Backup { promised_since: Some(since) } => format!(
                "wait: the key of this chain is in backups, and promised since {}; it is usable from {from}, when no \
                 client holds older pins",
                time::minute(since)
            ),
            OwnKey::Backup { promised_since: None } => format!(
                "wait: the key of this chain is in backups, but was not promised before; it is usable from {from}, once \
                 pintle sends it"
            ),
            OwnKey::Unknown if senders.is_empty() && self.still_sent.contains(&true) => {
                format!(
                    "wait: this chain is usable from {from} at the earliest, when no client holds these pins any more"
                )
            }
            OwnKey::Unknown if senders.is_empty() => format!(
                "wait: this chain is usable from {from}, when the last of these promises ends; they are no longer sent"
            ),
            OwnKey::Unknown => format!(
                "name this chain's own key in backups of {} now (`{}` promises it); it is usable from {from}",
                senders.join(", "),
                pintle("reload")
            ),
        }
    }

    /// A removed site has the keys that keep its promises.
    fn sites_to_put_back(&self) -> Option<String> {
        let reload = pintle("reload");
        (!self.gone.is_empty()).then(|| {
            format!(
                "put the table of {} back into the file, with its own chain, then `{reload}`: no promise is broken then",
                self.gone.join(" and of ")
            )
        })
    }

    /// The sites that still send the broken promises, and can promise another key.
    fn senders(&self) -> Vec<&str> {
        let sent = self.broken.iter().zip(&self.still_sent).filter(|(_, sent)| **sent);
        let also = self.also_sent_by.iter().map(String::as_str);
        let mut sites: Vec<&str> = sent.map(|(promise, _)| promise.site.as_str()).chain(also).collect();
        sites.retain(|site| !self.gone.iter().any(|gone| gone == *site));
        sites.sort_unstable();
        sites.dedup();
        sites
    }
}

/// The broken promises, with their times.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: would lock readers out: no key of the chain is among the pins of ", self.chain)?;
        for (at, (promise, sent)) in self.broken.iter().zip(&self.still_sent).take(NAMED_MAX).enumerate() {
            if at > 0 {
                f.write_str("; and of ")?;
            }
            f.write_str(&described(promise, *sent))?;
        }
        match self.broken.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and of {more} more"),
        }
    }
}

/// `blog.example.com and all names below, sent since 2026-10-01 08:37 UTC, held until 2026-12-01 10:00 UTC`
fn described(promise: &Promise, still_sent: bool) -> String {
    let hosts: Vec<String> = promise.hosts.iter().map(ToString::to_string).collect();
    let below = if promise.include_subdomains { " and all names below" } else { "" };
    let (what, verb) = match &promise.channel {
        PromiseChannel::Header(_) => (String::new(), "sent"),
        PromiseChannel::Assumed => (String::new(), "assumed (the ledger was lost)"),
        PromiseChannel::Export { form, id, .. } => (format!(" (export {id} for {form})"), "given out"),
    };
    let (still, at_least) = if still_sent { (" and still sent", " at least") } else { ("", "") };
    format!(
        "{}{below}{what}, {verb} since {}{still}, held until {}{at_least}",
        hosts.join(", "),
        time::minute(promise.first_sent),
        minute_from(promise.honoured_until()),
    )
}

/// The first of some names, and the number of the others.
pub(super) fn listed(names: &[String]) -> String {
    let named = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// The pins that all of the promises have.
fn common_pins(promises: &[Promise]) -> Vec<Pin> {
    let Some((first, rest)) = promises.split_first() else { return Vec::new() };
    let in_all = |pin: &&Pin| rest.iter().all(|p| p.pins.binary_search(pin).is_ok());
    first.pins.iter().filter(in_all).copied().collect()
}

/// The first day that begins at or after a time.
#[must_use]
pub fn safe_day(at: Seconds) -> String {
    const DAY: i64 = 86400;
    time::day(at.saturating_add(DAY - 1).div_euclid(DAY).saturating_mul(DAY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::hpkp::Mode;

    #[test]
    fn days() {
        assert_eq!(safe_day(0), "1970-01-01");
        assert_eq!(safe_day(1), "1970-01-02");
        assert_eq!(safe_day(86400), "1970-01-02");
        assert_eq!(safe_day(86401), "1970-01-03");
        assert_eq!((minute_from(60), minute_from(61)), ("1970-01-01 00:01 UTC".into(), "1970-01-01 00:02 UTC".into()));
    }

    #[test]
    fn what_helps() {
        let promise = Promise {
            site: "a.example".into(),
            hosts: Vec::new(),
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"live")],
            max_age: 600,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::Enforce),
            first_sent: 0,
            last_sent: 60,
        };
        let check = |own_key, still_sent, want: &str, not: &str| {
            let refusal = Refusal {
                site: "a.example".into(),
                files: vec!["c.pem".into()],
                chain: "c.pem".into(),
                pin: Pin::of_spki(b"new"),
                certain: vec![Pin::of_spki(b"new")],
                broken: vec![promise.clone()],
                still_sent: vec![still_sent],
                also_sent_by: Vec::new(),
                gone: Vec::new(),
                satisfied_by: Vec::new(),
                own_key,
                by_command: false,
                safe_from: promise.honoured_until(),
                shared: Arc::default(),
            };
            let hint = refusal.reason().hints.join("\n");
            assert!(hint.contains(want) && hint.contains("usable from 1970-01-01 00:11 UTC"), "{hint}");
            assert!(not.is_empty() || !hint.contains(not), "{hint}");
            assert_eq!(refusal.to_string().contains("and still sent"), still_sent);
        };
        let name = "name this chain's own key in backups";
        check(OwnKey::Unknown, true, "name this chain's own key in backups of a.example now", "");
        check(OwnKey::Unknown, false, "they are no longer sent", name);
        check(OwnKey::Backup { promised_since: Some(0) }, false, "promised since 1970-01-01 00:00 UTC", name);
        check(OwnKey::Backup { promised_since: None }, false, "was not promised before", name);
    }

    /// The command, with and without a line in the file.
    #[test]
    fn the_lockout_as_it_can_be_pasted() {
        let check = |files: &[&str], by_command, breaking: &[&str], want: &str| {
            let refusal = Refusal {
                site: "*.a.example".into(),
                files: files.iter().map(ToString::to_string).collect(),
                chain: "c.pem".into(),
                pin: Pin::of_spki(b"new"),
                certain: Vec::new(),
                broken: Vec::new(),
                still_sent: Vec::new(),
                also_sent_by: Vec::new(),
                gone: Vec::new(),
                satisfied_by: Vec::new(),
                own_key: OwnKey::Unknown,
                by_command,
                safe_from: 1,
                shared: Arc::new(SharedChain {
                    sites: HashSet::new(),
                    breaking: breaking.iter().map(ToString::to_string).collect(),
                    safe_from: 86401,
                }),
            };
            let hints = refusal.reason().hints;
            let hint = hints.last().and_then(|hint| hint.strip_prefix("to lock these readers out anyway: "));
            assert_eq!(hint, Some(want), "{hints:?}");
        };
        let one = "`pintle install --site '*.a.example' /c.pem '/two words.key' --accept-lockout-until 1970-01-02`";
        let line = "accept_lockout_until = \"1970-01-02\" in [[site]]";
        let files = ["/c.pem", "/two words.key"];
        check(&files, true, &["*.a.example"], one);
        check(&files, false, &["*.a.example"], &format!("{line}, or {one}"));
        let both = "`pintle install --site '*.a.example' /c.pem --accept-lockout-until 1970-01-03` (for all sites with this \
                    chain file: *.a.example, b.example)";
        check(&["/c.pem"], true, &["*.a.example", "b.example"], both);
        // Ten thousand sites with one chain file have as many messages: none of them names all sites.
        let sites: Vec<String> = (0..10_000).map(|n| format!("{n}.example")).collect();
        let many = "`pintle install --site '*.a.example' /c.pem --accept-lockout-until 1970-01-03` (for all sites with this \
                    chain file: 0.example, 1.example, 2.example, 3.example, 4.example, 5.example, 6.example, 7.example, \
                    8.example, 9.example and 9990 more)";
        check(&["/c.pem"], true, &sites.iter().map(String::as_str).collect::<Vec<_>>(), many);
        // Nobody installs what pintle obtains.
        check(&[], false, &["*.a.example"], line);
        let again = format!(
            "while pintle runs, leave accept_lockout_until out and `pintle reload`; then {line}, and `pintle reload` again"
        );
        check(&[], true, &["*.a.example"], &again);
    }
}
