//! The words for a chain that the guard refuses: what it breaks, which keys would do, and when it becomes safe.

use std::fmt;

use crate::keys::pin::Pin;
use crate::ledger::time::{self, minute_from};
use crate::policy::promise::{Promise, PromiseChannel, Seconds};
use crate::reason::Reason;

/// Promises that one message names; it counts the rest.
const NAMED_MAX: usize = 3;
/// Pins that one message names.
const PINS_MAX: usize = 5;

/// A chain that may not be served, and why.
#[derive(Debug, Clone)]
pub struct Refusal {
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
    /// The configured keys that would keep them: pin and source.
    pub satisfied_by: Vec<(Pin, String)>,
    /// The leaf's key: whether it is among the site's backups, and since when clients know it.
    pub own_key: OwnKey,
    /// A day in `[[site]]` does not count: only a command accepts this lockout.
    pub by_command: bool,
    /// The time from which the chain breaks nothing, if pintle no longer sends the promises that it breaks.
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

    /// The refusal, with the ways out: a key that is promised, time, a promise of this key first, or the lockout.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let day = self.safe_day();
        let lockout = match self.by_command {
            true => format!("to lock these readers out anyway: `pintle install --accept-lockout-until {day}`"),
            false => format!(
                "to lock these readers out anyway: accept_lockout_until = \"{day}\" in [[site]], or \
                 `pintle install --accept-lockout-until {day}`"
            ),
        };
        let reason = Reason::new(self.to_string());
        let reason = match self.keys() {
            Some(keys) => reason.hint(keys),
            None => reason.note("no single key keeps all of these promises"),
        };
        reason.hint(self.way_for_this_key()).hint(lockout)
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
            OwnKey::Unknown if senders.is_empty() => format!(
                "wait: this chain is usable from {from}, when the last of these promises ends; they are no longer sent"
            ),
            OwnKey::Unknown => format!(
                "name this chain's own key in backups of {} now (`pintle reload` promises it); it is usable from {from}",
                senders.join(", ")
            ),
        }
    }

    /// The sites that still send the broken promises.
    fn senders(&self) -> Vec<&str> {
        let sent = self.broken.iter().zip(&self.still_sent).filter(|(_, sent)| **sent);
        let also = self.also_sent_by.iter().map(String::as_str);
        let mut sites: Vec<&str> = sent.map(|(promise, _)| promise.site.as_str()).chain(also).collect();
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
                chain: "c.pem".into(),
                pin: Pin::of_spki(b"new"),
                certain: vec![Pin::of_spki(b"new")],
                broken: vec![promise.clone()],
                still_sent: vec![still_sent],
                also_sent_by: Vec::new(),
                satisfied_by: Vec::new(),
                own_key,
                by_command: false,
                safe_from: promise.honoured_until(),
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
}
