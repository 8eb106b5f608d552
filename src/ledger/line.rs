//! One line of the ledger: a record in JSON, and a checksum of its text.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::json::{self, LineJson};
use super::record::{Burnt, Record};
use crate::policy::promise::Promise;

/// Hexadecimal digits of the checksum.
const SUM_LEN: usize = 16;
/// The format that this version writes. Format 1 had no chain ([`super::file`]).
pub(super) const VERSION: u32 = 2;

/// The contents of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A record with a correct checksum.
    Good(Record),
    /// A readable record with a wrong checksum.
    Doubtful(Record),
    /// Not a record.
    Bad,
}

impl Record {
    /// Returns the first record of a file.
    #[must_use]
    pub const fn format() -> Self {
        Self::Format(VERSION)
    }

    /// Returns the line for a file, with its line end.
    #[must_use]
    pub fn line(&self) -> String {
        let json = self.json();
        format!("{{\"sum\":\"{}\",\"record\":{json}}}\n", sum(&json))
    }

    /// Returns the record as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        match self {
            Self::Unknown(json) => json.clone(),
            known => json::of_record(known),
        }
    }

    /// Reads a line, without its line end. A line may have any length.
    #[must_use]
    pub fn read(line: &[u8]) -> Read {
        serde_json::from_slice::<LineJson<'_>>(line).map_or(Read::Bad, |line| Self::of_line(&line))
    }

    /// Reads a parsed line. A correct checksum proves that somebody wrote this record: if a value
    /// is unknown, a newer version did.
    pub(super) fn of_line(line: &LineJson<'_>) -> Read {
        let json = line.record.get();
        match (Self::of_json(json), sum(json) == line.sum) {
            (Some(record), true) => Read::Good(record.unless_more(json)),
            (None, true) => Read::Good(Self::Unknown(json.to_owned())),
            (Some(record), false) => Read::Doubtful(record),
            (None, false) => Read::Bad,
        }
    }

    /// Reads a record without a checksum.
    #[must_use]
    pub fn of_json(json: &str) -> Option<Self> {
        // An unknown type is a newer version's; a known type that does not parse is damage.
        json::read(json).or_else(|| json::is_foreign(json).then(|| Self::Unknown(json.to_owned())))
    }

    /// Returns this record, or the unknown JSON if that has more members: a newer version's member
    /// must not be lost.
    fn unless_more(self, json: &str) -> Self {
        let known = self.json();
        let is_all = matches!(self, Self::Format(_))
            || known == json
            || serde_json::from_str::<Value>(&known).ok() == serde_json::from_str::<Value>(json).ok();
        if is_all { self } else { Self::Unknown(json.to_owned()) }
    }

    /// Returns the promise in a newer version's record, in its strictest reading
    /// (`json::strictest`).
    #[must_use]
    pub fn strictest(json: &str) -> Option<Promise> {
        json::strictest(json)
    }
}

impl Burnt {
    /// Returns the burnt key in a newer version's record (`json::strictest_burnt`).
    pub(super) fn strictest(json: &str) -> Option<Self> {
        json::strictest_burnt(json)
    }
}

/// Returns an id of the promised set, independent of its times.
#[must_use]
pub fn set_id(promise: &Promise) -> String {
    sum(&Record::Promise(Promise { first_sent: 0, last_sent: 0, ..promise.clone() }).json())
}

/// Returns a checksum against damage, not against attackers: whoever can write the file can compute
/// it.
pub(super) fn sum(json: &str) -> String {
    let mut text = String::with_capacity(SUM_LEN);
    for byte in Sha256::digest(json.as_bytes()).iter().take(SUM_LEN / 2) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::host::HostPattern;
    use crate::keys::pin::Pin;
    use crate::ledger::record::{Accepted, ClockNote, Declined, Ramp, Ramped, Repair, Replaced};
    use crate::policy::hpkp::Mode;
    use crate::policy::promise::PromiseChannel;
    use proptest::prelude::*;

    fn any_channel() -> impl Strategy<Value = PromiseChannel> {
        prop_oneof![
            prop_oneof![Just(Mode::Enforce), Just(Mode::ReportOnly), Just(Mode::Withdraw)]
                .prop_map(PromiseChannel::Header),
            Just(PromiseChannel::Assumed),
            ("[a-z]{1,8}", "[a-z0-9-]{1,12}", any::<bool>()).prop_map(|(form, id, leaf_only)| PromiseChannel::Export {
                form,
                id,
                leaf_only
            }),
        ]
    }

    pub(in crate::ledger) fn any_record() -> impl Strategy<Value = Record> {
        let promise = (
            "[a-c]{1,2}",
            prop::collection::vec(any::<u8>(), 1..4),
            0u64..100,
            any::<bool>(),
            any_channel(),
            0i64..1_000_000,
            0i64..1_000_000,
        )
            .prop_map(|(name, keys, max_age, include_subdomains, channel, first_sent, last_sent)| {
                let mut pins: Vec<Pin> = keys.iter().map(|k| Pin::of_spki(&[*k])).collect();
                pins.sort_unstable();
                pins.dedup();
                let site = format!("{name}.example");
                let hosts = vec![HostPattern::parse(&site).unwrap(), HostPattern::parse("*.wild.example").unwrap()];
                let except =
                    if max_age % 2 == 0 { Vec::new() } else { vec![HostPattern::parse("a.wild.example").unwrap()] };
                let last_sent = last_sent.max(first_sent);
                Record::Promise(Promise {
                    site,
                    hosts,
                    except,
                    pins,
                    max_age,
                    include_subdomains,
                    channel,
                    first_sent,
                    last_sent,
                })
            });
        let ramp = ("[a-c]{1,2}", any::<bool>(), 0usize..9, 0i64..1_000_000).prop_map(|(site, hsts, step, since)| {
            Record::Ramp(Ramp { site, policy: if hsts { Ramped::Hsts } else { Ramped::Hpkp }, step, since })
        });
        let accepted = ("[a-c]{1,2}", any::<u8>(), 0i64..1_000_000).prop_map(|(site, key, at)| {
            let sets = vec!["0123456789abcdef".into()];
            let pin = Pin::of_spki(&[key]);
            let hosts: Vec<HostPattern> = ["*.x.example", "y.example"][..usize::from(key % 3)]
                .iter()
                .filter_map(|h| HostPattern::parse(h).ok())
                .collect();
            let except = hosts.first().map(|_| HostPattern::parse("a.x.example").unwrap()).into_iter().collect();
            match key % 5 {
                0 => Record::Replaced(Replaced { site, pin, at }),
                more => Record::Accepted(Accepted {
                    site,
                    pin,
                    sets,
                    until: "2026-12-01".into(),
                    at,
                    hosts,
                    except,
                    is_excuse: more == 1,
                }),
            }
        });
        let unknown = Just(Record::Unknown("{\"type\":\"later\",\"x\":[1, 2]}".into()));
        let seen = (0i64..1_000_000).prop_map(Record::Seen);
        let repair =
            ("[a-c]{1,2}", 0i64..1_000_000).prop_map(|(what, at)| Record::Repair(Repair { what: vec![what], at }));
        let burnt = ("[a-c]{1,2}", 0u8..3, 0i64..1_000_000)
            .prop_map(|(site, key, at)| Record::Burnt(Burnt { site, pin: Pin::of_spki(&[key]), at }));
        let clock = ("[a-c]", 0u64..100, 0i64..1_000_000_000, 0i64..1_000_000)
            .prop_map(|(boot, uptime, at, since)| Record::Clock(ClockNote { boot, uptime, at, since }));
        let declined = ("[a-c]{1,2}", 0i64..1_000_000).prop_map(|(set, at)| Record::Declined(Declined { set, at }));
        prop_oneof![
            8 => promise, 1 => ramp, 1 => accepted, 1 => unknown, 1 => repair, 1 => seen, 1 => burnt, 1 => declined,
            1 => clock
        ]
    }

    #[test]
    fn form() {
        let promise = Promise {
            site: "blog.example.com".into(),
            hosts: vec![HostPattern::parse("blog.example.com").unwrap()],
            except: Vec::new(),
            pins: vec![Pin::of_spki(b"")],
            max_age: 2_592_000,
            include_subdomains: false,
            channel: PromiseChannel::Header(Mode::ReportOnly),
            first_sent: 1_790_000_000,
            last_sent: 1_790_003_600,
        };
        let line = Record::Promise(promise).line();
        let want = "{\"type\":\"promise\",\"site\":\"blog.example.com\",\"hosts\":[\"blog.example.com\"],\
                    \"pins\":[\"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"],\"max_age\":2592000,\
                    \"include_subdomains\":false,\"first_sent\":\"2026-09-21T14:13:20Z\",\
                    \"last_sent\":\"2026-09-21T15:13:20Z\",\"mode\":\"report-only\"}";
        assert_eq!(line, format!("{{\"sum\":\"{}\",\"record\":{want}}}\n", sum(want)));
    }

    #[test]
    fn a_burnt_key_of_a_newer_version_is_burnt() {
        let pin = Pin::of_spki(b"");
        let known = Record::Burnt(Burnt { site: "a.example".into(), pin, at: 1_790_000_000 });
        let want =
            format!("{{\"type\":\"burnt\",\"site\":\"a.example\",\"pin\":\"{pin}\",\"at\":\"2026-09-21T14:13:20Z\"}}");
        assert_eq!(known.json(), want);
        let line = |json: &str| format!("{{\"sum\":\"{}\",\"record\":{json}}}", sum(json));
        for (json, at) in [
            (want.replace("}", ",\"why\":\"stolen\"}"), 1_790_000_000),
            (format!("{{\"type\":\"burnt\",\"pin\":\"{pin}\",\"at\":[1]}}"), 0),
        ] {
            let Read::Good(record) = Record::read(line(&json).as_bytes()) else { panic!("{json}") };
            assert_eq!(record, Record::Unknown(json.clone()));
            let mut book = crate::ledger::Book::default();
            assert!(book.apply(record) && book.burnt(pin).is_some_and(|burnt| burnt.at == at));
            // It is kept unchanged.
            assert_eq!(book.records().map(|r| r.json()).collect::<Vec<_>>(), [json]);
        }
    }

    proptest! {
        #[test]
        fn round_trip(record in any_record()) {
            let line = record.line();
            prop_assert!(line.ends_with('\n') && !line[..line.len() - 1].contains('\n'));
            prop_assert_eq!(Record::read(line.trim_end().as_bytes()), Read::Good(record));
        }

        /// Every change of a byte is noticed, and no truncated line passes for a record.
        #[test]
        fn damage_is_noticed(record in any_record(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let line = record.line();
            let whole = line.trim_end().as_bytes();
            let at = at.index(whole.len());
            prop_assert_eq!(Record::read(&whole[..at]), Read::Bad);
            let mut damaged = whole.to_vec();
            damaged[at] ^= 1 << bit;
            let read = Record::read(&damaged);
            // White space between the two values is the only place where a change means nothing.
            prop_assert!(!matches!(&read, Read::Good(r) if *r != record), "{read:?}");
        }
    }
}
