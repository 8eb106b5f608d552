//! The events: a closed list, patterns over it, and the text of one event.

use std::fmt::Write as _;

use aws_lc_rs::rand;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The longest text of an event's fields, in characters.
const TEXT_MAX: usize = 400;
/// The longest list.
const LIST_MAX: usize = 10;
/// The longest event, in bytes. The standard asks for less than 20 KB.
const BODY_MAX: usize = 19_000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kind of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $($(#[$doc])* $kind,)*
        }

        impl EventKind {
            /// All kinds that patterns select.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the name: its family, a dot, and the event.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// A certificate is served for the first time.
    CertificateRenewed = "certificate.renewed",
    /// The files on disk are refused; the previous certificate stays.
    CertificateRefused = "certificate.refused",
    /// The files on disk are refused no longer.
    CertificateAccepted = "certificate.accepted",
    /// A site has no certificate.
    CertificateMissing = "certificate.missing",
    /// A renewal is due and not done.
    CertificateOverdue = "certificate.overdue",
    /// A certificate has passed a threshold before its end.
    CertificateExpiring = "certificate.expiring",
    /// A certificate has ended.
    CertificateExpired = "certificate.expired",
    /// A key was declared compromised: pintle replaces it.
    KeyCompromised = "key.compromised",
    /// A compromised key is recorded as burnt: it never serves again.
    KeyBurnt = "key.burnt",
    /// The CA has revoked a certificate of a compromised key.
    KeyRevoked = "key.revoked",
    /// The CA has not revoked the certificates of a burnt key.
    KeyUnrevoked = "key.unrevoked",
    /// A burnt key is refused.
    KeyRefused = "key.refused",
    /// An upstream does not answer.
    UpstreamDown = "upstream.down",
    /// It answers again.
    UpstreamUp = "upstream.up",
    /// The last pins that clients hold of a site end soon, and are not renewed.
    PromiseExpiring = "promise.expiring",
    /// Clients hold no pins of a site any longer.
    PromiseEnded = "promise.ended",
    /// A site has pins and does not send them.
    PinsWithheld = "pins.withheld",
    /// It sends them again.
    PinsSent = "pins.sent",
    /// The ledger cannot be written.
    LedgerUnwritable = "ledger.unwritable",
    /// It can be written again.
    LedgerWritable = "ledger.writable",
    /// The clock contradicts the ledger.
    ClockDoubted = "clock.doubted",
    /// It does so no longer.
    ClockTrusted = "clock.trusted",
    /// A reload was refused.
    ConfigRefused = "config.refused",
    /// A configuration is in use after a refused one.
    ConfigLoaded = "config.loaded",
    /// The access log is not written.
    LogUnwritten = "log.unwritten",
    /// It is written again.
    LogWritten = "log.written",
    /// This process serves.
    ProcessStarted = "process.started",
    /// This process accepts nothing new and ends.
    ProcessStopping = "process.stopping",
    /// `pintle hook test` asked for it.
    HookTest = "hook.test",
}

impl EventKind {
    /// Returns the part before the dot.
    fn family(self) -> &'static str {
        self.name().split('.').next().unwrap_or_default()
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A selection of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// `*`
    All,
    /// `certificate.*`, by one of its events.
    Family(EventKind),
    /// `certificate.renewed`
    One(EventKind),
}

impl Pattern {
    /// Returns the pattern that a word means; `None` for an unknown one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if word == "*" {
            return Some(Self::All);
        }
        let mut selectable = EventKind::ALL.iter().copied().filter(|kind| *kind != EventKind::HookTest);
        match word.strip_suffix(".*") {
            Some(family) => selectable.find(|kind| kind.family() == family).map(Self::Family),
            None => selectable.find(|kind| kind.name() == word).map(Self::One),
        }
    }

    /// Returns `true` for events that it selects. A test goes to whom it is sent, whatever the patterns.
    #[must_use]
    pub fn selects(self, kind: EventKind) -> bool {
        match self {
            Self::All => kind != EventKind::HookTest,
            Self::Family(of) => of.family() == kind.family(),
            Self::One(one) => one == kind,
        }
    }
}

/// Returns all patterns, for messages.
#[must_use]
pub fn known_patterns() -> Vec<String> {
    let mut known = vec!["*".to_owned()];
    for kind in EventKind::ALL.iter().filter(|kind| **kind != EventKind::HookTest) {
        let family = format!("{}.*", kind.family());
        if !known.contains(&family) {
            known.push(family);
        }
        known.push(kind.name().to_owned());
    }
    known
}

/// An event that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, the same for all hooks and all attempts.
    pub id: String,
    /// Its kind.
    pub kind: EventKind,
    /// Its text: JSON with `type`, `timestamp` and `data`.
    pub body: String,
}

impl Event {
    /// Describes an event that happens now. Long texts and lists in `data` are cut.
    #[must_use]
    pub fn new(kind: EventKind, data: Value) -> Self {
        let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let text = |data: &Value| format!("{{\"type\":\"{}\",\"timestamp\":\"{now}\",\"data\":{data}}}", kind.name());
        let data = cut(data);
        let mut body = text(&data);
        if body.len() > BODY_MAX {
            let keep = ["host", "site", "what"].into_iter();
            let kept = keep.filter_map(|key| Some((key.to_owned(), data.get(key)?.clone())));
            body = text(&Value::Object(kept.collect::<Map<_, _>>()));
        }
        Self { id: new_id(), kind, body }
    }
}

/// Cuts long texts and lists, at any depth.
fn cut(value: Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > TEXT_MAX => {
            Value::String(text.chars().take(TEXT_MAX - 1).chain(['…']).collect())
        }
        Value::Array(list) => list.into_iter().take(LIST_MAX).map(cut).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, cut(value))).collect(),
        other => other,
    }
}

fn new_id() -> String {
    let mut random = [0; 16];
    let _ = rand::fill(&mut random);
    random.iter().fold(String::from("evt_"), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns() {
        let selected = |word: &str| -> Vec<&str> {
            let pattern = Pattern::parse(word).unwrap();
            EventKind::ALL.iter().filter(|kind| pattern.selects(**kind)).map(|kind| kind.name()).collect()
        };
        assert_eq!(selected("upstream.*"), ["upstream.down", "upstream.up"]);
        assert_eq!(selected("config.refused"), ["config.refused"]);
        assert_eq!(selected("*").len(), EventKind::ALL.len() - 1);
        for unknown in ["", "**", "certificate", "certificate.", "certificate.renew", "*.down", "hook.test", "hook.*"] {
            assert_eq!(Pattern::parse(unknown), None, "{unknown}");
        }
        for word in known_patterns() {
            assert!(Pattern::parse(&word).is_some(), "{word}");
        }
    }

    #[test]
    fn names_are_those_of_the_standard() {
        for kind in EventKind::ALL {
            let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
            assert!(kind.name().split('.').count() == 2 && kind.name().split('.').all(is_part), "{kind:?}");
            assert_eq!(EventKind::named(kind.name()), Some(*kind));
        }
    }

    #[test]
    fn events_are_small() {
        let long = "ü\u{1}".repeat(10_000);
        let many: Vec<&str> = std::iter::repeat_n(long.as_str(), 50).collect();
        let data = json!({ "site": long, "what": long, "reasons": many, "more": { "deep": [many, many, many] } });
        let event = Event::new(EventKind::UpstreamDown, data);
        assert!(event.body.len() < 20_000, "{}", event.body.len());
        let read: Value = serde_json::from_str(&event.body).unwrap();
        assert_eq!(read["type"], "upstream.down");
        assert!(read["data"]["site"].as_str().unwrap().ends_with('…'));
        let time: Timestamp = read["timestamp"].as_str().unwrap().parse().unwrap();
        assert!((Timestamp::now().as_second() - time.as_second()).abs() < 60);
        assert_ne!(event.id, Event::new(EventKind::UpstreamDown, Value::Null).id);
    }
}
