//! The answer about a rotation in words, and the rows of keys and sets.

use serde_json::Value;

use crate::admin::page::moment::{DAY, Moment};
use crate::admin::page::timeline::{how, shape, who};
use crate::admin::page::value::{capital, count, list, some, text};

/// Sets that a sentence names; it counts the others.
const NAMED_MAX: usize = 3;
/// Sets in the table: a page has a bound.
const SETS_LISTED: usize = 48;
/// The shortest range of days to ask about.
const DAYS_MIN: i64 = 30;

/// The answer in words.
pub(in crate::admin::page) struct RotationWords {
    /// The verdict: one sentence.
    pub(in crate::admin::page) verdict: String,
    /// The facts behind it.
    pub(in crate::admin::page) evidence: String,
    /// Both, about the day that was asked about.
    pub(in crate::admin::page) words: String,
    pub(in crate::admin::page) class: &'static str,
    pub(in crate::admin::page) icon: &'static str,
}

/// A key of the site.
pub(super) struct KeyRow {
    pub(super) role: String,
    pub(super) shape: &'static str,
    pub(super) pin: String,
    pub(super) short: String,
    pub(super) algorithm: String,
    pub(super) file: String,
    pub(super) since: Option<Moment>,
    pub(super) from: Option<Moment>,
    pub(super) is_live: bool,
    pub(super) is_safe: bool,
    pub(super) is_asked: bool,
}

/// A set of pins.
pub(super) struct SetRow {
    pub(super) number: usize,
    pub(super) who: &'static str,
    pub(super) how: String,
    pub(super) keys: String,
    pub(super) first: Moment,
    pub(super) state: String,
    pub(super) until: Moment,
    pub(super) then: &'static str,
    pub(super) class: &'static str,
}

/// The beginning of a pin.
pub(super) fn short(pin: &str) -> String {
    format!("{}…", pin.chars().take(8).collect::<String>())
}

/// `the next key`
fn named(answer: &Value) -> String {
    match answer["role"].as_str() {
        Some(role) => format!("the {role} key"),
        None => "this key".to_owned(),
    }
}

/// The sets that would lock clients out, in words: `set 2 (readers) until 20 Dec 2026`.
fn locked_out(answer: &Value, now: i64) -> String {
    let broken: Vec<&Value> = list(answer, "sets").iter().filter(|set| set["locks_out"] == true).collect();
    let named = broken.iter().take(NAMED_MAX).map(|set| {
        let until = Moment::of(&set["held_until"], now).map(|until| until.day).unwrap_or_default();
        let end = if set["is_sent"] == true { "as long as it is sent".to_owned() } else { format!("until {until}") };
        format!("set {} ({}) {end}", count(set, "number"), who(set))
    });
    let mut words: Vec<String> = named.collect();
    if let more @ 1.. = broken.len().saturating_sub(NAMED_MAX) {
        words.push(format!("{more} more"));
    }
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

impl RotationWords {
    /// The words of an answer.
    pub(in crate::admin::page) fn of(answer: &Value, now: i64) -> Option<Self> {
        let held = list(answer, "sets").iter().any(|set| set["is_held"] == true);
        let key = named(answer);
        let at = Moment::of(&answer["at"], now)?;
        let day = if at.days == 0 { "today".to_owned() } else { format!("on {}", at.day) };
        let ok = |verdict: String, evidence: String| {
            let words = format!("{verdict} {evidence}").trim().to_owned();
            Some(Self { verdict, evidence, words, class: "t-ok", icon: "ok" })
        };
        if some(answer, "key").is_none() {
            let verdict = "No key serves this site yet.".to_owned();
            return Some(Self {
                verdict,
                evidence: String::new(),
                words: "There is no key to ask about.".into(),
                class: "quiet",
                icon: "idle",
            });
        }
        let is_live = answer["role"] == "live";
        if answer["locks_out"] != true {
            return match (held, is_live) {
                (false, true) => ok("No client holds pins of this site.".into(), "Any key may be served.".into()),
                (false, false) => {
                    ok(format!("No client holds pins {day}."), format!("{} may be served.", capital(&key)))
                }
                (true, true) => ok("The live key keeps every promise.".into(), String::new()),
                (true, false) if at.days == 0 => {
                    ok(format!("You may rotate to {key} today."), "Every set that clients hold has it.".into())
                }
                (true, false) => ok(format!("You may rotate to {key} {day}."), "It locks nobody out then.".into()),
            };
        }
        let whom = locked_out(answer, now);
        let safe = Moment::of(&answer["safe_from"], now).map(|safe| safe.first_minute(now));
        let if_promised = Moment::of(&answer["if_promised_today"], now);
        let when = match (&safe, &if_promised) {
            (Some(safe), _) => format!("It is safe from {}, {}.", safe.minute, safe.distance()),
            (None, Some(date)) => format!(
                "It is in no set that is sent now: promise it first. If every set has it from today, it is safe from {}, {}.",
                date.day,
                date.distance()
            ),
            (None, None) => "Promise it first.".to_owned(),
        };
        let verdict = match at.days {
            0 => format!("Do not rotate to {key} yet."),
            _ => format!("Do not rotate to {key} {day}."),
        };
        Some(Self {
            evidence: format!("{when} {} it would lock out {whom}.", capital(&day)),
            words: format!("Locks out {whom}."),
            verdict,
            class: "t-bad",
            icon: "bad",
        })
    }
}

/// The keys, the live ones first.
pub(super) fn keys(answer: &Value, now: i64) -> Vec<KeyRow> {
    let row = |key: &Value| KeyRow {
        role: text(key, "role"),
        shape: shape(key["role"].as_str()),
        short: short(&text(key, "pin")),
        pin: text(key, "pin"),
        algorithm: text(key, "algorithm"),
        file: text(key, "file"),
        since: Moment::of(&key["promised_since"], now),
        from: Moment::of(&key["safe_from"], now).map(|from| from.first_minute(now)),
        is_live: key["role"] == "live",
        is_safe: key["is_safe_now"] == true,
        is_asked: key["pin"] == answer["key"],
    };
    list(answer, "keys").iter().map(row).collect()
}

/// The latest sets, the last one first.
pub(super) fn sets(answer: &Value, now: i64) -> Vec<SetRow> {
    let row = |set: &Value| {
        let roles = list(set, "pins").iter().map(|pin| some(pin, "role").unwrap_or_else(|| short(&text(pin, "pin"))));
        let last = Moment::of(&set["last_sent"], now)?;
        let is_over = set["is_over"] == true;
        let (then, class) = match (set["is_held"] == true, set["lets_in"] == true) {
            (false, _) => ("none, ended", "quiet"),
            (true, true) => ("lets in", "t-ok"),
            (true, false) => ("locks out", "t-bad"),
        };
        Some(SetRow {
            number: count(set, "number"),
            who: who(set),
            how: how(set),
            keys: roles.collect::<Vec<_>>().join(", "),
            first: Moment::of(&set["first_sent"], now)?,
            state: match (is_over, set["is_sent"] == true, set["channel"] == "export") {
                (true, ..) => "ended".to_owned(),
                (_, true, _) => "being sent".to_owned(),
                _ if set["channel"] == "assumed" => "assumed".to_owned(),
                (_, _, true) => format!("exported {}", last.day),
                _ => format!("sent until {}", last.day),
            },
            until: Moment::of(&set["held_until"], now)?,
            then,
            class,
        })
    };
    list(answer, "sets").iter().rev().take(SETS_LISTED).filter_map(row).collect()
}

/// The last day that is worth a question: when all that is promised now has ended.
pub(super) fn last_day(answer: &Value, now: i64) -> Option<Moment> {
    let ends = list(answer, "sets").iter().filter_map(|set| Moment::of(&set["held_until"], now));
    let promised = Moment::of(&answer["if_promised_today"], now);
    let last = ends.chain(promised).map(|end| end.at).max().unwrap_or(now).max(now + DAYS_MIN * DAY);
    // The API refuses days more than three years ahead.
    Moment::new((last + DAY).min(now + 1000 * DAY), now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_795_651_200; // 2026-11-26

    fn asking(change: impl FnOnce(&mut Value)) -> RotationWords {
        let mut answer = json!({
            "at": "2026-11-26T00:00:00Z", "key": "u/ERkVE5", "role": "next", "locks_out": true,
            "safe_from": "2027-01-01T00:00:00Z", "sets": [
                { "number": 2, "locks_out": true, "is_held": true, "held_until": "2026-12-20T00:00:00Z" },
                { "number": 4, "locks_out": true, "is_held": true, "form": "okhttp", "held_until": "2026-12-31T00:00:00Z" },
            ],
        });
        change(&mut answer);
        RotationWords::of(&answer, NOW).unwrap()
    }

    #[test]
    fn the_latest_sets_are_listed() {
        let day = "2026-11-26T00:00:00Z";
        let set = |n: usize| json!({ "number": n, "first_sent": day, "last_sent": day, "held_until": day });
        let rows = sets(&json!({ "sets": (1..=200).map(set).collect::<Vec<_>>() }), NOW);
        assert_eq!((rows.len(), rows[0].number, rows[47].number), (SETS_LISTED, 200, 153));
    }

    #[test]
    fn verdicts() {
        let no = asking(|_| {});
        assert_eq!(no.verdict, "Do not rotate to the next key yet.");
        assert_eq!(
            no.evidence,
            "It is safe from 1 Jan 2027, 00:00 UTC, in 36 days. Today it would lock out set 2 (readers) until 20 Dec 2026 and set 4 \
             (app builds) until 31 Dec 2026."
        );
        let later = asking(|answer| answer["at"] = "2026-12-01T00:00:00Z".into());
        assert_eq!(later.verdict, "Do not rotate to the next key on 1 Dec 2026.");
        let never = asking(|answer| {
            answer["safe_from"] = Value::Null;
            answer["if_promised_today"] = "2026-12-26T00:00:00Z".into();
        });
        assert!(
            never.evidence.contains("promise it first") && never.evidence.contains("from 26 Dec 2026"),
            "{}",
            never.evidence
        );
        let yes = asking(|answer| {
            answer["locks_out"] = false.into();
            answer["sets"][0]["locks_out"] = false.into();
        });
        assert_eq!((yes.verdict.as_str(), yes.icon), ("You may rotate to the next key today.", "ok"));
        let free = asking(|answer| {
            answer["locks_out"] = false.into();
            answer["sets"] = json!([]);
        });
        assert_eq!(free.verdict, "No client holds pins today.");
        let none = asking(|answer| answer["key"] = Value::Null);
        assert_eq!(none.verdict, "No key serves this site yet.");
    }
}
