//! The hooks, and the conditions that they have heard of.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::events::{Event, EventKind, Hooks};
use crate::ledger::time::rfc3339;
use crate::os::usage::host_name;
use crate::policy::promise::Seconds;
use crate::upstream::dns::NameServers;

/// The hooks, and the conditions that were reported to them.
pub(in crate::control) struct Reporter {
    pub(in crate::control) hooks: Hooks,
    /// By kind and subject: the version, and the facts.
    pub(in crate::control) begun: HashMap<(EventKind, String), (i64, Value)>,
    /// Why the last reload was refused.
    pub(in crate::control) refusal: Vec<String>,
    pub(in crate::control) has_started: bool,
    pub(in crate::control) looked: Option<Instant>,
    pub(in crate::control) looked_at_promises: Option<Instant>,
    /// Promises that end soon, as of the last look at them.
    pub(in crate::control) expiring: Vec<Expiry>,
    /// Promises that clients held at that look, by site and channel.
    pub(in crate::control) held: BTreeMap<(String, String), Seconds>,
}

impl Reporter {
    pub(in crate::control) fn new(servers: NameServers) -> Self {
        Self {
            hooks: Hooks::new(servers),
            begun: HashMap::new(),
            refusal: Vec::new(),
            has_started: false,
            looked: None,
            looked_at_promises: None,
            expiring: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    pub(in crate::control) fn emit(&self, kind: EventKind, data: Value) {
        tracing::debug!(event = kind.name(), "event");
        self.hooks.emit(Event::new(kind, with_host(data)));
    }

    /// Reports the differences to the last look.
    pub(in crate::control) fn compare(&mut self, conditions: Vec<Condition>) {
        let mut before = std::mem::take(&mut self.begun);
        for Condition { begins, subject, version, data, .. } in conditions {
            let key = (begins, subject);
            let known = before.remove(&key);
            if known.is_none_or(|(known, _)| known != version) {
                self.emit(begins, data.clone());
            }
            self.begun.insert(key, (version, data));
        }
        for ((begins, _), (_, data)) in before {
            if let Some(kind) = Condition::end_of(begins) {
                self.emit(kind, without_remedy(data));
            }
        }
    }
}

/// Adds the name of this host, which all of an operator's hosts send to one receiver.
pub(in crate::control) fn with_host(data: Value) -> Value {
    let mut with = Map::from_iter([("host".to_owned(), json!(host_name()))]);
    if let Value::Object(data) = data {
        with.extend(data);
    }
    Value::Object(with)
}

/// The facts of a condition that has ended.
fn without_remedy(mut data: Value) -> Value {
    if let Some(data) = data.as_object_mut() {
        for key in ["what", "hint", "reasons", "error"] {
            data.remove(key);
        }
    }
    data
}

/// A state that has begun, and may end.
pub(in crate::control) struct Condition {
    /// The event of its beginning.
    pub(in crate::control) begins: EventKind,
    /// The site, certificate, upstream or promise; empty for the whole process.
    pub(in crate::control) subject: String,
    /// Another version of the same condition is reported anew.
    pub(in crate::control) version: i64,
    /// The facts.
    pub(in crate::control) data: Value,
}

impl Condition {
    pub(in crate::control) fn new(begins: EventKind, subject: &str, data: Value) -> Self {
        Self { begins, subject: subject.to_owned(), version: 0, data }
    }

    pub(in crate::control) fn with(self, version: i64) -> Self {
        Self { version, ..self }
    }

    /// Returns the event of the end; `None` if another event says it.
    pub(in crate::control) fn end_of(begins: EventKind) -> Option<EventKind> {
        match begins {
            EventKind::CertificateRefused => Some(EventKind::CertificateAccepted),
            EventKind::UpstreamDown => Some(EventKind::UpstreamUp),
            EventKind::PinsWithheld => Some(EventKind::PinsSent),
            EventKind::LedgerUnwritable => Some(EventKind::LedgerWritable),
            EventKind::ClockDoubted => Some(EventKind::ClockTrusted),
            EventKind::ConfigRefused => Some(EventKind::ConfigLoaded),
            EventKind::LogUnwritten => Some(EventKind::LogWritten),
            _ => None,
        }
    }
}

/// A promise that ends soon and is not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::control) struct Expiry {
    pub(in crate::control) site: String,
    pub(in crate::control) channel: String,
    pub(in crate::control) until: Seconds,
}

impl Expiry {
    pub(in crate::control) fn condition(&self) -> Condition {
        let Self { site, channel, until } = self;
        let hint = match channel.as_str() {
            HEADER => "nothing to do if the pins were withdrawn on purpose; `pintle status` has the reason".to_owned(),
            form => format!("to renew it: pintle export --site {site} --as {form}"),
        };
        let data = json!({
            "site": site, "channel": channel, "until": rfc3339(*until),
            "what": "the last pins that clients hold end, and are not renewed", "hint": hint,
        });
        Condition::new(EventKind::PromiseExpiring, &format!("{site} {channel}"), data).with(*until)
    }
}

pub(in crate::control) const HEADER: &str = "header";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_events() {
        let data = json!({ "site": "a.example", "what": "x", "hint": "y", "reasons": ["z"], "error": "e" });
        assert_eq!(without_remedy(data.clone()), json!({ "site": "a.example" }));
        let with = with_host(data);
        assert_eq!((with["site"].as_str(), with["host"].as_str().is_some()), (Some("a.example"), true));
    }
}
