//! The ledger as a picture: who may hold which pins until when, and from when each key may be served. A pure function from
//! the answer of `/v1/rotation` to places in an SVG; the template writes it.

use serde_json::Value;

use super::axis::{AxisMark, LaneBar, TimeAxis, percent};
use super::moment::{DAY, Moment, duration, seconds};
use super::value::{count, list, some, text};

/// Sets that are drawn; older ones are in the table alone.
pub(super) const SETS_DRAWN: usize = 8;
/// The longest past that is drawn, in days.
const PAST_MAX: i64 = 75;
/// The shortest past and the shortest future that are drawn, in days.
const PAST_MIN: i64 = 7;
const FUTURE_MIN: i64 = 14;
/// Days behind the last date.
const BEHIND: i64 = 10;
/// The end of a certificate is drawn if it comes at most so many days after the last other date.
const END_WITHIN: i64 = 120;
/// The heights of the parts, in hundredths of an em.
const LANE: i64 = 367;
const TOP: i64 = 567;
/// From the end of the upper lanes to the first of the lower ones.
const KEYS: i64 = 390;

/// The whole picture.
#[derive(Debug)]
pub(super) struct Timeline {
    /// The heights, in em.
    pub(super) height: String,
    pub(super) title_at: String,
    pub(super) keys_title_at: String,
    pub(super) ends_from: String,
    pub(super) marks: Vec<AxisMark>,
    /// The place of the day that is asked about, and its words.
    pub(super) day_x: String,
    pub(super) day_label: String,
    /// The anchor of the words, so that they stay in the picture: `start`, `middle` or `end`.
    pub(super) day_anchor: &'static str,
    pub(super) day_box: &'static str,
    /// The place of today, if another day is asked about.
    pub(super) today_x: Option<String>,
    pub(super) ends: Option<CertificateEnd>,
    pub(super) lanes: Vec<SetLane>,
    pub(super) keys: Vec<KeyLane>,
}

/// The end of the certificate.
#[derive(Debug)]
pub(super) struct CertificateEnd {
    pub(super) x: String,
    pub(super) label: String,
    /// The words stand left of the line where there is room.
    pub(super) anchor: &'static str,
    pub(super) dx: &'static str,
}

/// A key in a set, as a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyGlyph {
    pub(super) x: String,
    pub(super) shape: &'static str,
    pub(super) is_in: bool,
}

/// The lane of a set.
#[derive(Debug)]
pub(super) struct SetLane {
    pub(super) glyph_y: String,
    pub(super) text_y: String,
    pub(super) bar_y: String,
    pub(super) mark_y: String,
    pub(super) text_x: String,
    pub(super) number: usize,
    pub(super) who: String,
    pub(super) how: String,
    pub(super) glyphs: Vec<KeyGlyph>,
    pub(super) until: String,
    pub(super) until_more: String,
    pub(super) until_class: &'static str,
    pub(super) gone: Option<LaneBar>,
    pub(super) sent: Option<LaneBar>,
    pub(super) held: Option<LaneBar>,
    pub(super) bind: Option<LaneBar>,
    pub(super) breaks: Option<LaneBar>,
    /// `ok` or `bad`, on the pin.
    pub(super) mark: Option<&'static str>,
}

/// The lane of a key.
#[derive(Debug)]
pub(super) struct KeyLane {
    pub(super) glyph_y: String,
    pub(super) text_y: String,
    pub(super) bar_y: String,
    pub(super) shape: &'static str,
    pub(super) role: String,
    pub(super) pin: String,
    pub(super) from: String,
    pub(super) from_more: String,
    pub(super) from_class: &'static str,
    pub(super) breaks: Option<LaneBar>,
    pub(super) safe: Option<LaneBar>,
}

/// The shape of a role.
#[must_use]
pub(super) fn shape(role: Option<&str>) -> &'static str {
    match role {
        Some("live") => "live",
        Some("next") => "next",
        Some("spare") => "spare",
        _ => "stranger",
    }
}

/// The holders of a set.
#[must_use]
pub(super) fn who(set: &Value) -> &'static str {
    match set["form"].as_str() {
        None | Some("header" | "nginx" | "vcl") => "readers",
        Some("okhttp" | "android" | "ios" | "trustkit") => "app builds",
        Some("curl") => "curl scripts",
        Some("tlsa" | "dns") => "mail and DANE",
        Some("envoy") => "Envoy",
        Some("certspotter" | "sslmate") => "log monitors",
        Some(_) => "programs",
    }
}

/// The way in which a set was promised: `header, 30 days`.
#[must_use]
pub(super) fn how(set: &Value) -> String {
    let age = duration(set["max_age"].as_u64().unwrap_or_default());
    match (set["form"].as_str(), set["export"].as_str()) {
        (Some(form), Some(export)) => format!("{form} export {export}, {age}"),
        _ => format!("header, {age}"),
    }
}

/// Hundredths of an em as text.
fn em(hundredths: i64) -> String {
    let (whole, part) = (hundredths / 100, hundredths % 100);
    format!("{whole}.{part:02}em")
}

struct PictureTimes {
    now: i64,
    day: i64,
    axis: TimeAxis,
}

impl Timeline {
    /// Draws the answer; `None` if it has no set and no key.
    #[must_use]
    pub(super) fn of(answer: &Value) -> Option<Self> {
        let now = seconds(&answer["now"])?;
        let day = seconds(&answer["at"]).unwrap_or(now).max(now);
        let sets: Vec<&Value> = list(answer, "sets").iter().collect();
        let sets = &sets[sets.len().saturating_sub(SETS_DRAWN)..];
        let keys = list(answer, "keys");
        if sets.is_empty() && keys.is_empty() {
            return None;
        }
        let (axis, end) = axis(answer, sets, keys, now, day);
        let times = PictureTimes { now, day, axis };
        let lanes: Vec<SetLane> = (0..).zip(sets).filter_map(|(at, set)| lane(at, set, keys, &times)).collect();
        let after_lanes = TOP + LANE * i64::try_from(lanes.len()).unwrap_or_default();
        let asked = answer["role"].is_null().then(|| stranger(answer)).flatten();
        let shown = keys.iter().chain(&asked);
        let key_lanes: Vec<KeyLane> =
            (0..).zip(shown).map(|(at, key)| key_lane(after_lanes + KEYS + LANE * at, key, &times)).collect();
        let key_count = i64::try_from(key_lanes.len()).unwrap_or_default();
        let moment = Moment::new(day, now)?;
        let place = axis.place(day);
        let (day_anchor, day_box) = match place {
            place if place < 8.0 => ("start", "0"),
            place if place > 92.0 => ("end", "-7.33em"),
            _ => ("middle", "-3.67em"),
        };
        Some(Self {
            height: em(after_lanes + KEYS + LANE * key_count - 100),
            title_at: em(TOP),
            keys_title_at: em(after_lanes + KEYS - 150),
            ends_from: em(after_lanes + KEYS - 230),
            marks: axis.marks(),
            day_x: axis.x(day),
            day_label: if day == now { format!("now, {}", moment.short) } else { format!("on {}", moment.short) },
            day_anchor,
            day_box,
            today_x: (day != now).then(|| axis.x(now)),
            ends: end.and_then(|end| {
                let is_left = axis.place(end) < 30.0;
                Some(CertificateEnd {
                    x: axis.x(end),
                    label: Moment::new(end, now)?.short,
                    anchor: if is_left { "start" } else { "end" },
                    dx: if is_left { "0.42em" } else { "-0.42em" },
                })
            }),
            lanes,
            keys: key_lanes,
        })
    }
}

/// The range of the picture, and the end of the certificate if it lies in it.
fn axis(answer: &Value, sets: &[&Value], keys: &[Value], now: i64, day: i64) -> (TimeAxis, Option<i64>) {
    let first = sets.iter().filter_map(|set| seconds(&set["first_sent"])).min().unwrap_or(now);
    let ends = sets.iter().filter_map(|set| seconds(&set["held_until"]));
    let safe = keys.iter().filter_map(|key| seconds(&key["safe_from"]));
    let last = ends.chain(safe).chain([day]).max().unwrap_or(now).max(now + FUTURE_MIN * DAY);
    let end = seconds(&answer["certificate_ends"]).filter(|end| *end > now && *end <= last + END_WITHIN * DAY);
    let last = end.unwrap_or(last).max(last);
    // A young ledger has little past, but the present has its place.
    let room = (last - now) / 6;
    let past = (now - first).max(PAST_MIN * DAY).max(room.min(PAST_MIN * DAY)).min(PAST_MAX * DAY);
    (TimeAxis { from: now - past, to: last + BEHIND * DAY }, end)
}

fn lane(at: i64, set: &Value, keys: &[Value], times: &PictureTimes) -> Option<SetLane> {
    let PictureTimes { now, day, axis } = times;
    let y = TOP + 116 + LANE * at;
    let (first, last) = (seconds(&set["first_sent"])?, seconds(&set["last_sent"])?);
    let until = seconds(&set["held_until"])?;
    let moment = Moment::new(until, *now)?;
    let is_in = |key: &Value| list(set, "pins").iter().any(|pin| pin["pin"] == key["pin"]);
    let glyphs: Vec<KeyGlyph> = (0..)
        .zip(keys)
        .map(|(at, key)| KeyGlyph { x: em(117 * at), shape: shape(key["role"].as_str()), is_in: is_in(key) })
        .collect();
    let (is_over, breaks) = (set["is_over"] == true, set["locks_out"] == true);
    let is_held = set["is_held"] == true;
    let binding = axis.bar(*day, until);
    Some(SetLane {
        glyph_y: em(y),
        text_y: em(y + 84),
        bar_y: em(y + 150),
        mark_y: em(y + 200),
        text_x: em(if glyphs.is_empty() { 0 } else { 117 * i64::try_from(glyphs.len()).ok()? + 66 }),
        number: count(set, "number"),
        who: who(set).to_owned(),
        how: how(set),
        glyphs,
        until: match (is_over, set["is_sent"] == true) {
            (true, _) => format!("ended {}", moment.short),
            (false, true) if *day == *now => "still sent".to_owned(),
            (false, _) => format!("until {}", moment.short),
        },
        until_more: match is_over {
            true => String::new(),
            false if set["is_sent"] == true => format!(" · held for {} after", duration(set["max_age"].as_u64()?)),
            false => format!(" · {}", moment.remaining()),
        },
        until_class: match (is_over, breaks) {
            (true, _) => "dim",
            (false, true) => "b t-bad",
            (false, false) => "b",
        },
        gone: if is_over { axis.bar(first, until) } else { None },
        sent: if is_over { None } else { axis.bar(first, last.min(*day)) },
        held: if is_over { None } else { axis.bar(last.min(*day), until.min(*day)) },
        bind: binding.clone().filter(|_| is_held && !breaks),
        breaks: binding.filter(|_| breaks),
        mark: is_held.then_some(if breaks { "bad" } else { "ok" }),
    })
}

/// The key that is asked about, if it is none of the site's.
fn stranger(answer: &Value) -> Option<Value> {
    answer["key"].as_str()?;
    let mut key = answer.clone();
    key["pin"] = answer["key"].clone();
    key["role"] = "asked".into();
    Some(key)
}

fn key_lane(y: i64, key: &Value, times: &PictureTimes) -> KeyLane {
    let PictureTimes { now, axis, .. } = times;
    let is_safe = key["is_safe_now"] == true;
    let from = Moment::of(&key["safe_from"], *now);
    let if_promised = Moment::of(&key["if_promised_today"], *now);
    let begin = if is_safe { Some(*now) } else { from.as_ref().map(|from| from.at) };
    let (words, more, class) = match (is_safe, &from) {
        (true, _) if key["role"] == "live" => ("today".to_owned(), " · serving now".to_owned(), "b t-ok"),
        (true, _) => ("today".to_owned(), " · in every set".to_owned(), "b t-ok"),
        (false, Some(from)) => (format!("from {}", from.short), format!(" · {}", from.distance()), "b"),
        (false, None) => match &if_promised {
            Some(date) => (format!("from {}", date.short), " · if promised today".to_owned(), "b"),
            None => ("not yet".to_owned(), String::new(), "b t-bad"),
        },
    };
    let begin = begin.or_else(|| if_promised.map(|date| date.at));
    let pin = text(key, "pin");
    KeyLane {
        glyph_y: em(y),
        text_y: em(y + 83),
        bar_y: em(y + 150),
        shape: shape(key["role"].as_str()),
        role: some(key, "role").unwrap_or_else(|| "asked".to_owned()),
        pin: format!("{}…", pin.get(..12).unwrap_or_default()),
        from: words,
        from_more: more,
        from_class: class,
        breaks: axis.bar(*now, begin.unwrap_or(axis.to)),
        safe: begin.and_then(|begin| axis.bar(begin, axis.to)),
    }
}

/// The dates that come next, on one line.
#[derive(Debug)]
pub(super) struct DateLine {
    /// The marks of the axis.
    pub(super) marks: Vec<AxisMark>,
    /// The place of now.
    pub(super) now_x: String,
    /// The dates, from left to right.
    pub(super) dots: Vec<DateDot>,
}

/// A date on the line.
#[derive(Debug)]
pub(super) struct DateDot {
    /// Its number in the list below.
    pub(super) number: usize,
    /// Its place.
    pub(super) x: String,
    /// Its height: neighbours stand above each other.
    pub(super) y: &'static str,
    /// `dot`, `dot-ok` or `dot-bad`
    pub(super) class: &'static str,
}

impl DateLine {
    /// Draws dates in ascending order, each with its class. `None` without dates.
    #[must_use]
    pub(super) fn of(now: i64, dates: &[(i64, &'static str)]) -> Option<Self> {
        const HEIGHTS: [&str; 3] = ["5.17em", "3.33em", "1.5em"];
        /// Dots that stand closer than this many percent are stacked.
        const NEAR: f64 = 2.6;
        let last = dates.last()?.0;
        let length = (last - now).max(FUTURE_MIN * DAY);
        let axis = TimeAxis { from: now - length / 12, to: now + length + length / 20 };
        let mut right = [f64::MIN; HEIGHTS.len()];
        let mut dots = Vec::new();
        for (number, (at, class)) in (1..).zip(dates) {
            let place = axis.place(*at);
            let row = right.iter().position(|right| place - right >= NEAR).unwrap_or(HEIGHTS.len() - 1);
            right[row] = place;
            dots.push(DateDot { number, x: percent(place), y: HEIGHTS[row], class });
        }
        Some(Self { marks: axis.marks(), now_x: axis.x(now), dots })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(day: &str) -> Value {
        let set = |number: u32, first: &str, last: &str, until: &str, pins: &[&str], locks_out: bool| {
            json!({
                "number": number, "channel": "header", "max_age": 2_592_000, "first_sent": first, "last_sent": last,
                "held_until": until, "is_sent": false, "is_over": false, "is_held": true, "lets_in": !locks_out,
                "locks_out": locks_out, "pins": pins.iter().map(|pin| json!({ "pin": pin })).collect::<Vec<_>>(),
            })
        };
        json!({
            "now": "2026-11-26T00:00:00Z", "at": day, "key": "n", "role": "next",
            "certificate_ends": "2027-01-24T00:00:00Z",
            "sets": [
                set(1, "2026-10-12T00:00:00Z", "2026-11-20T00:00:00Z", "2026-12-20T00:00:00Z", &["l", "s"], true),
                set(2, "2026-11-20T00:00:00Z", "2026-11-26T00:00:00Z", "2026-12-26T00:00:00Z", &["l", "n"], false),
            ],
            "keys": [
                { "pin": "l", "role": "live", "is_safe_now": true },
                { "pin": "n", "role": "next", "is_safe_now": false, "safe_from": "2026-12-20T00:00:00Z" },
                { "pin": "s", "role": "spare", "is_safe_now": false, "safe_from": null,
                  "if_promised_today": "2026-12-26T00:00:00Z" },
            ],
        })
    }

    #[test]
    fn lanes_are_drawn_left_and_right_of_the_pin() {
        let timeline = Timeline::of(&answer("2026-11-26T00:00:00Z")).unwrap();
        let [first, second] = &timeline.lanes[..] else { panic!("{timeline:?}") };
        assert!(first.breaks.is_some() && first.bind.is_none() && first.mark == Some("bad"));
        assert!(second.breaks.is_none() && second.bind.is_some() && second.mark == Some("ok"));
        assert!(first.sent.is_some() && first.held.is_some() && second.held.is_none(), "{first:?} {second:?}");
        assert_eq!(first.until, "until 20 Dec");
        assert_eq!(first.glyphs.iter().map(|g| g.is_in).collect::<Vec<_>>(), [true, false, true]);
        let end = timeline.ends.unwrap();
        assert_eq!(end.label, "24 Jan");
        let [live, next, spare] = &timeline.keys[..] else { panic!() };
        assert!(live.breaks.is_none() && live.safe.is_some());
        assert!(next.breaks.is_some() && next.from == "from 20 Dec");
        assert_eq!((spare.from.as_str(), spare.from_more.as_str()), ("from 26 Dec", " · if promised today"));
        assert_eq!((timeline.day_label.as_str(), timeline.today_x), ("now, 26 Nov", None));
    }

    #[test]
    fn another_day_moves_the_pin() {
        let timeline = Timeline::of(&answer("2026-12-21T00:00:00Z")).unwrap();
        assert_eq!(timeline.day_label, "on 21 Dec");
        assert!(timeline.today_x.is_some());
        // The first set has ended on that day: nothing of it lies right of the pin.
        assert!(timeline.lanes[0].bind.is_none() && timeline.lanes[0].breaks.is_none());
    }

    #[test]
    fn nothing_to_draw() {
        assert!(Timeline::of(&json!({ "now": "2026-11-26T00:00:00Z" })).is_none());
        assert!(Timeline::of(&json!({})).is_none());
        assert!(DateLine::of(0, &[]).is_none());
    }

    #[test]
    fn many_sets_and_strangers() {
        let mut many = answer("2026-11-26T00:00:00Z");
        let set = many["sets"][0].clone();
        many["sets"] = vec![set; 20].into();
        many["role"] = Value::Null;
        let timeline = Timeline::of(&many).unwrap();
        assert_eq!((timeline.lanes.len(), timeline.keys.len()), (SETS_DRAWN, 4));
        assert_eq!(timeline.keys[3].shape, "stranger");
    }

    #[test]
    fn dates_that_are_near_are_stacked() {
        let line = DateLine::of(0, &[(DAY, "dot"), (DAY + 60, "dot-bad"), (90 * DAY, "dot")]).unwrap();
        let heights: Vec<&str> = line.dots.iter().map(|dot| dot.y).collect();
        assert_eq!(heights, ["5.17em", "3.33em", "5.17em"]);
    }
}
