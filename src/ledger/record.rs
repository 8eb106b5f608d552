//! One line of the ledger: a record in JSON, and a checksum of its text.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::host::HostPattern;
use crate::pin::Pin;
use crate::policy::guard::{Channel, Promise, Seconds};
use crate::policy::hpkp::Mode;

/// The longest line that is read, in octets. A set of a hundred pins for a hundred names is a tenth of it.
pub const LINE_MAX: usize = 64 * 1024;
/// Hexadecimal digits of the checksum.
const SUM_LEN: usize = 16;
/// The format that this program writes.
const VERSION: u32 = 1;

/// What the ledger remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Which format the file has.
    Format(u32),
    /// Clients may hold a set of pins.
    Promise(Promise),
    /// How far a max-age has been raised.
    Ramp(Ramp),
    /// The operator takes it upon himself to lock clients out.
    Accepted(Accepted),
    /// Written by a newer program: kept as it is.
    Unknown(String),
}

/// Which header's max-age is raised step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ramped {
    /// Public-Key-Pins
    Hpkp,
    /// Strict-Transport-Security
    Hsts,
}

/// How far a ramp has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    /// The site, by its first name.
    pub site: String,
    /// Which of its headers.
    pub policy: Ramped,
    /// The step in use, from 0.
    pub step: usize,
    /// Since when nothing has gone wrong at this step.
    pub since: Seconds,
}

/// A chain that is served although promises are broken by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Accepted {
    /// The site, by its first name.
    pub site: String,
    /// The leaf's pin.
    pub pin: Pin,
    /// The sets that it breaks, by their [`set_id`].
    pub sets: Vec<String>,
    /// The day from which on it breaks nothing, as the operator wrote it.
    pub until: String,
    /// When that was accepted.
    pub at: Seconds,
}

/// A record as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Text {
    Format {
        version: u32,
    },
    Promise {
        #[serde(flatten)]
        set: SetText,
        mode: ModeText,
    },
    Export {
        #[serde(flatten)]
        set: SetText,
        form: String,
        id: String,
        leaf_only: bool,
    },
    Ramp {
        site: String,
        policy: Ramped,
        step: usize,
        since: Timestamp,
    },
    Accepted {
        site: String,
        pin: String,
        sets: Vec<String>,
        until: String,
        at: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
struct SetText {
    site: String,
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    except: Vec<String>,
    pins: Vec<String>,
    max_age: u64,
    include_subdomains: bool,
    first_sent: Timestamp,
    last_sent: Timestamp,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModeText {
    Enforce,
    ReportOnly,
    Withdraw,
}

#[derive(Deserialize)]
struct Line<'a> {
    sum: &'a str,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// What a line turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A record whose checksum fits.
    Good(Record),
    /// A record that can be made out, though its checksum does not fit.
    Doubtful(Record),
    /// No record.
    Bad,
}

impl Record {
    /// The first record of a file.
    #[must_use]
    pub const fn format() -> Self {
        Self::Format(VERSION)
    }

    /// The line for a file, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let json = self.json();
        format!("{{\"sum\":\"{}\",\"record\":{json}}}\n", sum(&json))
    }

    /// Whether it is about other nodes, too. A lockout that was accepted at one is not accepted at another, which may be
    /// sending the very pins.
    #[must_use]
    pub fn travels(&self) -> bool {
        !matches!(self, Self::Accepted(_))
    }

    /// The record as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let text = match self {
            Self::Format(version) => Text::Format { version: *version },
            Self::Promise(promise) => promise_text(promise),
            Self::Ramp(r) => Text::Ramp { site: r.site.clone(), policy: r.policy, step: r.step, since: time(r.since) },
            Self::Accepted(a) => Text::Accepted {
                site: a.site.clone(),
                pin: a.pin.to_string(),
                sets: a.sets.clone(),
                until: a.until.clone(),
                at: time(a.at),
            },
            Self::Unknown(json) => return json.clone(),
        };
        serde_json::to_string(&text).expect("texts, numbers and times have a form in JSON")
    }

    /// Reads a line, without its end.
    #[must_use]
    pub fn read(line: &[u8]) -> Read {
        if line.len() > LINE_MAX {
            return Read::Bad;
        }
        let Ok(Line { sum: want, record }) = serde_json::from_slice::<Line<'_>>(line) else { return Read::Bad };
        let Some(read) = Self::of_json(record.get()) else { return Read::Bad };
        if sum(record.get()) == want { Read::Good(read) } else { Read::Doubtful(read) }
    }

    /// Reads a record without checksum.
    #[must_use]
    pub fn of_json(json: &str) -> Option<Self> {
        match serde_json::from_str::<Text>(json) {
            Ok(text) => of_text(text),
            // Another type is a newer program's; a known one that does not fit is damage.
            Err(_) => is_foreign(json).then(|| Self::Unknown(json.to_owned())),
        }
    }
}

fn is_foreign(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_str::<Typed<'_>>(json)
        .is_ok_and(|t| !matches!(&*t.kind, "format" | "promise" | "export" | "ramp" | "accepted"))
}

/// A name for what is promised, whenever it was.
#[must_use]
pub fn set_id(promise: &Promise) -> String {
    sum(&Record::Promise(Promise { first_sent: 0, last_sent: 0, ..promise.clone() }).json())
}

/// Against damage, not against people: who can write the file can compute it.
fn sum(json: &str) -> String {
    let mut text = String::with_capacity(SUM_LEN);
    for octet in Sha256::digest(json.as_bytes()).iter().take(SUM_LEN / 2) {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

fn time(seconds: Seconds) -> Timestamp {
    let limit = |t: Timestamp| t.as_second();
    let seconds = seconds.clamp(limit(Timestamp::MIN) + 1, limit(Timestamp::MAX) - 1);
    Timestamp::from_second(seconds).unwrap_or_default()
}

fn promise_text(promise: &Promise) -> Text {
    let set = SetText {
        site: promise.site.clone(),
        hosts: texts(&promise.hosts),
        except: texts(&promise.except),
        pins: promise.pins.iter().map(ToString::to_string).collect(),
        max_age: promise.max_age,
        include_subdomains: promise.include_subdomains,
        first_sent: time(promise.first_sent),
        last_sent: time(promise.last_sent),
    };
    match &promise.channel {
        Channel::Header(mode) => Text::Promise {
            set,
            mode: match mode {
                Mode::Enforce => ModeText::Enforce,
                Mode::ReportOnly => ModeText::ReportOnly,
                Mode::Withdraw => ModeText::Withdraw,
            },
        },
        Channel::Export { form, id, leaf_only } => {
            Text::Export { set, form: form.clone(), id: id.clone(), leaf_only: *leaf_only }
        }
    }
}

fn of_text(text: Text) -> Option<Record> {
    Some(match text {
        Text::Format { version } => Record::Format(version),
        Text::Promise { set, mode } => {
            let mode = match mode {
                ModeText::Enforce => Mode::Enforce,
                ModeText::ReportOnly => Mode::ReportOnly,
                ModeText::Withdraw => Mode::Withdraw,
            };
            Record::Promise(promise_of(set, Channel::Header(mode))?)
        }
        Text::Export { set, form, id, leaf_only } => {
            Record::Promise(promise_of(set, Channel::Export { form, id, leaf_only })?)
        }
        Text::Ramp { site, policy, step, since } => Record::Ramp(Ramp { site, policy, step, since: since.as_second() }),
        Text::Accepted { site, pin, sets, until, at } => {
            Record::Accepted(Accepted { site, pin: pin.parse().ok()?, sets, until, at: at.as_second() })
        }
    })
}

fn promise_of(set: SetText, channel: Channel) -> Option<Promise> {
    let mut pins: Vec<Pin> = set.pins.iter().map(|p| p.parse().ok()).collect::<Option<_>>()?;
    pins.sort_unstable();
    pins.dedup();
    Some(Promise {
        site: set.site,
        hosts: patterns(&set.hosts)?,
        except: patterns(&set.except)?,
        pins,
        max_age: set.max_age,
        include_subdomains: set.include_subdomains,
        channel,
        first_sent: set.first_sent.as_second(),
        last_sent: set.last_sent.as_second(),
    })
}

fn texts(patterns: &[HostPattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn patterns(names: &[String]) -> Option<Vec<HostPattern>> {
    names.iter().map(|name| HostPattern::parse(name).ok()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_channel() -> impl Strategy<Value = Channel> {
        prop_oneof![
            prop_oneof![Just(Mode::Enforce), Just(Mode::ReportOnly), Just(Mode::Withdraw)].prop_map(Channel::Header),
            ("[a-z]{1,8}", "[a-z0-9-]{1,12}", any::<bool>()).prop_map(|(form, id, leaf_only)| Channel::Export {
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
            Record::Accepted(Accepted { site, pin: Pin::of_spki(&[key]), sets, until: "2026-12-01".into(), at })
        });
        let unknown = Just(Record::Unknown("{\"type\":\"later\",\"x\":[1, 2]}".into()));
        prop_oneof![8 => promise, 1 => ramp, 1 => accepted, 1 => unknown]
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
            channel: Channel::Header(Mode::ReportOnly),
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

    proptest! {
        #[test]
        fn round_trip(record in any_record()) {
            let line = record.line();
            prop_assert!(line.ends_with('\n') && !line[..line.len() - 1].contains('\n'));
            prop_assert_eq!(Record::read(line.trim_end().as_bytes()), Read::Good(record));
        }

        /// No octet can change without being noticed, and nothing that is cut off is taken for a record.
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
