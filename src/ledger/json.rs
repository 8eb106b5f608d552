//! Records in JSON: those of this version, and the readable part of newer ones.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::record::{Accepted, Burnt, ClockNote, Declined, Ramp, Ramped, Record, Repair, Replaced};
use crate::host::HostPattern;
use crate::keys::pin::Pin;
use crate::policy::hpkp::Mode;
use crate::policy::promise::{Promise, PromiseChannel, Seconds};

/// The max-age, in seconds, assumed for a newer version's promise that states it in an unknown
/// form: a year.
const MAX_AGE_UNKNOWN: u64 = 366 * 86400;

/// A record in JSON.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum RecordJson {
    Format {
        version: u32,
    },
    Promise {
        #[serde(flatten)]
        set: SetJson,
        mode: ModeJson,
    },
    Export {
        #[serde(flatten)]
        set: SetJson,
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
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hosts: Vec<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        except: Vec<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        excuse: bool,
    },
    Replaced {
        site: String,
        pin: String,
        at: Timestamp,
    },
    Repair {
        what: Vec<String>,
        at: Timestamp,
    },
    Seen {
        at: Timestamp,
    },
    Burnt {
        site: String,
        pin: String,
        at: Timestamp,
    },
    Declined {
        set: String,
        at: Timestamp,
    },
    Clock {
        boot: String,
        uptime_ms: u64,
        at: Timestamp,
        since: Timestamp,
    },
}

#[derive(Serialize, Deserialize)]
struct SetJson {
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
enum ModeJson {
    Enforce,
    ReportOnly,
    Withdraw,
    /// An older version reads it as `Enforce`.
    Assumed,
}

/// A line in JSON. Lines of the file also have a position in its chain; older lines and exchanged
/// ones do not.
#[derive(Deserialize)]
pub(super) struct LineJson<'a> {
    pub(super) sum: &'a str,
    #[serde(borrow)]
    pub(super) record: &'a RawValue,
    #[serde(default)]
    pub(super) seq: Option<u64>,
    #[serde(default)]
    pub(super) chain: Option<&'a str>,
}

/// A promise of any version: all members that some version knows.
#[derive(Deserialize)]
struct AnyPromise {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    site: String,
    #[serde(default)]
    hosts: Vec<Value>,
    #[serde(default)]
    except: Value,
    #[serde(default)]
    pins: Vec<Value>,
    #[serde(default)]
    max_age: Value,
    #[serde(default)]
    include_subdomains: Value,
    #[serde(default)]
    mode: Value,
    first_sent: Timestamp,
    last_sent: Timestamp,
    #[serde(default)]
    form: Value,
    #[serde(default)]
    id: Value,
    #[serde(default)]
    leaf_only: Value,
}

/// Returns a record of this version as JSON.
pub(super) fn of_record(record: &Record) -> String {
    let text = match record {
        Record::Format(version) => RecordJson::Format { version: *version },
        Record::Promise(promise) => promise_json(promise),
        Record::Ramp(r) => {
            RecordJson::Ramp { site: r.site.clone(), policy: r.policy, step: r.step, since: time(r.since) }
        }
        Record::Accepted(a) => RecordJson::Accepted {
            site: a.site.clone(),
            pin: a.pin.to_string(),
            sets: a.sets.clone(),
            until: a.until.clone(),
            at: time(a.at),
            hosts: texts(&a.hosts),
            except: texts(&a.except),
            excuse: a.is_excuse,
        },
        Record::Replaced(r) => RecordJson::Replaced { site: r.site.clone(), pin: r.pin.to_string(), at: time(r.at) },
        Record::Repair(r) => RecordJson::Repair { what: r.what.clone(), at: time(r.at) },
        Record::Seen(at) => RecordJson::Seen { at: time(*at) },
        Record::Burnt(b) => RecordJson::Burnt { site: b.site.clone(), pin: b.pin.to_string(), at: time(b.at) },
        Record::Declined(d) => RecordJson::Declined { set: d.set.clone(), at: time(d.at) },
        Record::Clock(c) => RecordJson::Clock {
            boot: c.boot.clone(),
            uptime_ms: c.uptime,
            at: Timestamp::from_millisecond(c.at).unwrap_or_default(),
            since: time(c.since),
        },
        Record::Unknown(json) => return json.clone(),
    };
    serde_json::to_string(&text).expect("texts, numbers and times have a form in JSON")
}

/// Reads a record of this version.
pub(super) fn read(json: &str) -> Option<Record> {
    serde_json::from_str::<RecordJson>(json).ok().and_then(of_json)
}

/// Returns `true` if a record has a type that this version does not know.
pub(super) fn is_foreign(json: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_str::<Typed<'_>>(json).is_ok_and(|t| {
        !matches!(
            &*t.kind,
            "format"
                | "promise"
                | "export"
                | "ramp"
                | "accepted"
                | "replaced"
                | "repair"
                | "seen"
                | "burnt"
                | "declined"
                | "clock"
        )
    })
}

/// Reads the promise in a newer version's record in its strictest sense: an unknown mode enforces,
/// and names below are bound. Exceptions count only if all of them are readable, and unreadable
/// pins match no chain.
pub(super) fn strictest(json: &str) -> Option<Promise> {
    let any: AnyPromise = serde_json::from_str(json).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let channel = match any.kind.as_str() {
        "promise" => match any.mode.as_str() {
            Some("report-only") => PromiseChannel::Header(Mode::ReportOnly),
            Some("withdraw") => PromiseChannel::Header(Mode::Withdraw),
            Some("assumed") => PromiseChannel::Assumed,
            _ => PromiseChannel::Header(Mode::Enforce),
        },
        "export" => PromiseChannel::Export {
            form: text(&any.form).unwrap_or_default(),
            id: text(&any.id).unwrap_or_default(),
            leaf_only: any.leaf_only.as_bool() != Some(false),
        },
        _ => return None,
    };
    let pattern = |name: &Value| HostPattern::parse(name.as_str()?).ok();
    let mut hosts: Vec<HostPattern> = any.hosts.iter().filter_map(pattern).collect();
    if hosts.is_empty() {
        hosts.extend(HostPattern::parse(&any.site).ok());
    }
    let except = any.except.as_array().and_then(|names| names.iter().map(pattern).collect::<Option<Vec<_>>>());
    let mut pins: Vec<Pin> = any.pins.iter().filter_map(|pin| pin.as_str()?.parse().ok()).collect();
    pins.sort_unstable();
    pins.dedup();
    Some(Promise {
        site: any.site,
        hosts,
        except: except.unwrap_or_default(),
        pins,
        max_age: any.max_age.as_u64().unwrap_or(MAX_AGE_UNKNOWN),
        include_subdomains: any.include_subdomains.as_bool() != Some(false),
        channel,
        first_sent: any.first_sent.as_second(),
        last_sent: any.last_sent.as_second(),
    })
}

/// Reads the burnt key in a newer version's record. Its other members, and a time in an unknown form,
/// do not make the key any safer.
pub(super) fn strictest_burnt(json: &str) -> Option<Burnt> {
    let any: Value = serde_json::from_str(json).ok()?;
    let text = |member: &str| any.get(member).and_then(Value::as_str);
    let pin = text("pin").filter(|_| text("type") == Some("burnt"))?.parse().ok()?;
    let at = text("at").and_then(|at| at.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second);
    Some(Burnt { site: text("site").unwrap_or_default().to_owned(), pin, at })
}

fn time(seconds: Seconds) -> Timestamp {
    let limit = |t: Timestamp| t.as_second();
    let seconds = seconds.clamp(limit(Timestamp::MIN) + 1, limit(Timestamp::MAX) - 1);
    Timestamp::from_second(seconds).unwrap_or_default()
}

fn promise_json(promise: &Promise) -> RecordJson {
    let set = SetJson {
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
        PromiseChannel::Header(mode) => RecordJson::Promise {
            set,
            mode: match mode {
                Mode::Enforce => ModeJson::Enforce,
                Mode::ReportOnly => ModeJson::ReportOnly,
                Mode::Withdraw => ModeJson::Withdraw,
            },
        },
        PromiseChannel::Assumed => RecordJson::Promise { set, mode: ModeJson::Assumed },
        PromiseChannel::Export { form, id, leaf_only } => {
            RecordJson::Export { set, form: form.clone(), id: id.clone(), leaf_only: *leaf_only }
        }
    }
}

fn of_json(text: RecordJson) -> Option<Record> {
    Some(match text {
        RecordJson::Format { version } => Record::Format(version),
        RecordJson::Promise { set, mode } => {
            let channel = match mode {
                ModeJson::Enforce => PromiseChannel::Header(Mode::Enforce),
                ModeJson::ReportOnly => PromiseChannel::Header(Mode::ReportOnly),
                ModeJson::Withdraw => PromiseChannel::Header(Mode::Withdraw),
                ModeJson::Assumed => PromiseChannel::Assumed,
            };
            Record::Promise(promise_of(set, channel)?)
        }
        RecordJson::Export { set, form, id, leaf_only } => {
            Record::Promise(promise_of(set, PromiseChannel::Export { form, id, leaf_only })?)
        }
        RecordJson::Ramp { site, policy, step, since } => {
            Record::Ramp(Ramp { site, policy, step, since: since.as_second() })
        }
        RecordJson::Accepted { site, pin, sets, until, at, hosts, except, excuse } => Record::Accepted(Accepted {
            site,
            pin: pin.parse().ok()?,
            sets,
            until,
            at: at.as_second(),
            hosts: patterns(&hosts)?,
            except: patterns(&except)?,
            is_excuse: excuse,
        }),
        RecordJson::Replaced { site, pin, at } => {
            Record::Replaced(Replaced { site, pin: pin.parse().ok()?, at: at.as_second() })
        }
        RecordJson::Repair { what, at } => Record::Repair(Repair { what, at: at.as_second() }),
        RecordJson::Seen { at } => Record::Seen(at.as_second()),
        RecordJson::Burnt { site, pin, at } => {
            Record::Burnt(Burnt { site, pin: pin.parse().ok()?, at: at.as_second() })
        }
        RecordJson::Declined { set, at } => Record::Declined(Declined { set, at: at.as_second() }),
        RecordJson::Clock { boot, uptime_ms, at, since } => {
            Record::Clock(ClockNote { boot, uptime: uptime_ms, at: at.as_millisecond(), since: since.as_second() })
        }
    })
}

fn promise_of(set: SetJson, channel: PromiseChannel) -> Option<Promise> {
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
