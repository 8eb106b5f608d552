//! The display of `pintle status --watch`, as lines: what needs attention first, then rates, upstreams and certificates.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::commands::latency;
use crate::commands::status::{list, text};

/// The rows of a terminal below which nothing is left out.
const ROWS_LEAST: usize = 4;
/// The rows of a terminal from which latencies are shown.
const LATENCIES_LEAST: usize = 20;
/// The rows of a list with its blank line, its title and one entry.
const LIST_LEAST: usize = 3;
/// The bold red of trouble, and its end.
const LOUD: &str = "\x1b[1;31m";
const QUIET: &str = "\x1b[0m";

/// The space for a display.
#[derive(Debug, Clone, Copy)]
pub(super) struct DisplaySpace {
    /// Columns; longer lines are cut.
    pub(super) columns: Option<usize>,
    /// Rows; what does not fit is counted.
    pub(super) rows: Option<usize>,
    /// `true` for colours.
    pub(super) color: bool,
}

impl DisplaySpace {
    /// Everything, without colours.
    pub(super) const PLAIN: Self = Self { columns: None, rows: None, color: false };
}

/// A line of a display.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct DisplayLine {
    text: String,
    /// `true` for trouble: it is coloured.
    is_loud: bool,
}

impl DisplayLine {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_loud: false }
    }

    /// A line with a sign in front: `!` for trouble.
    fn signed(is_loud: bool, text: &str) -> Self {
        let sign = if is_loud { '!' } else { ' ' };
        Self { text: format!("{sign} {text}"), is_loud }
    }
}

/// The contents of a display.
#[derive(Debug, Default)]
pub(super) struct Scene {
    head: DisplayLine,
    attention: Vec<DisplayLine>,
    traffic: Vec<String>,
    latencies: Vec<String>,
    upstreams: Vec<DisplayLine>,
    certificates: Vec<DisplayLine>,
}

impl Scene {
    /// Makes the contents of an answer. `before` is the answer before it, and its age.
    pub(super) fn of(status: &Value, before: Option<(&Value, Duration)>, now: Timestamp) -> Self {
        // Another process counts from zero.
        let before = before.filter(|(before, _)| before["pid"] == status["pid"]);
        let started = text(status, "started").parse::<Timestamp>().unwrap_or(now);
        let up = now.as_second().saturating_sub(started.as_second()).max(0);
        let head = format!(
            "pintle {}  process {}  up {}  {}",
            text(status, "version"),
            status["pid"],
            span(up),
            now.strftime("%Y-%m-%d %H:%M:%S UTC")
        );
        let is_draining = status["draining"] == true;
        Self {
            head: match is_draining {
                true => DisplayLine::signed(true, &format!("{head}  DRAINING")),
                false => DisplayLine::plain(head),
            },
            attention: list(status, "attention").iter().map(attention).collect(),
            traffic: traffic(status, before),
            latencies: latency::rows(status, before.map(|(before, _)| before)),
            upstreams: upstreams(status),
            certificates: certificates(status),
        }
    }
}

fn attention(item: &Value) -> DisplayLine {
    let site = item["site"].as_str().map(|site| format!("{site}: ")).unwrap_or_default();
    DisplayLine::signed(true, &format!("{site}{}", text(item, "what")))
}

/// A number of seconds, in its two largest units.
fn span(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// The rates since the answer before; without one, the numbers so far.
fn traffic(status: &Value, before: Option<(&Value, Duration)>) -> Vec<String> {
    let total = |name: &str| status["counters"][name].as_u64().unwrap_or_default();
    let rate = |name: &str| {
        let Some((before, age)) = before else { return "-".to_owned() };
        let new = total(name).saturating_sub(before["counters"][name].as_u64().unwrap_or_default());
        let rate = new as f64 / age.as_secs_f64().max(0.001);
        if rate < 999.95 { format!("{rate:.1}") } else { format!("{rate:.0}") }
    };
    // The longest row has four parts, and 80 columns.
    let row = |label: &str, sum: &str, parts: &[(&str, &str)]| {
        let parts: String = parts.iter().map(|(name, counter)| format!("  {name} {:>5}", rate(counter))).collect();
        format!("{label:<11}{:>8}/s{parts}  {} in all", rate(sum), short(total(sum)))
    };
    let classes =
        [("2xx", "responses_2xx"), ("3xx", "responses_3xx"), ("4xx", "responses_4xx"), ("5xx", "responses_5xx")];
    vec![
        row("requests", "requests", &classes),
        row("handshakes", "handshakes", &[("resumed", "handshakes_resumed"), ("failed", "handshakes_failed")]),
        row("connections", "connections_accepted", &[("refused", "connections_refused"), ("shed", "connections_shed")])
            + &format!(", {} open", status["connections"]),
        row("up. errors", "upstream_errors", &[("retries", "upstream_retries"), ("queued", "upstream_queued")]),
    ]
}

/// A number in at most six characters, as long as there is a unit for it.
fn short(number: u64) -> String {
    match number {
        ..1_000_000 => number.to_string(),
        1_000_000..999_950_000 => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{:.1}G", number as f64 / 1e9),
    }
}

/// Each upstream once: those in trouble first.
fn upstreams(status: &Value) -> Vec<DisplayLine> {
    let (mut rows, mut seen) = (Vec::new(), HashSet::new());
    for site in list(status, "sites") {
        let (Some(url), health) = (site["upstream"].as_str(), &site["upstream_health"]) else { continue };
        let addresses = list(health, "addresses");
        let is_out = |address: &&Value| address["check_fails"] == true || address["left_out_for"].as_u64() > Some(0);
        let out = addresses.iter().filter(is_out).count();
        let circuit = text(health, "circuit");
        let is_well = circuit == "closed" && out == 0 && !addresses.is_empty();
        let state = match circuit {
            "closed" if addresses.is_empty() => "no address".to_owned(),
            "closed" if out > 0 => format!("{out} of {} addresses out", addresses.len()),
            "closed" => "well".to_owned(),
            other => format!("circuit {other}"),
        };
        let row = DisplayLine::signed(!is_well, &format!("{state:<20} {url}"));
        if seen.insert(row.clone()) {
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| !row.is_loud);
    rows
}

/// Each certificate: sites without one first, then by its end.
fn certificates(status: &Value) -> Vec<DisplayLine> {
    let mut rows: Vec<(i64, DisplayLine)> = Vec::new();
    for site in list(status, "sites") {
        let name = text(site, "site");
        if site["without_certificate"].is_string() {
            rows.push((i64::MIN, DisplayLine::signed(true, &format!("none                 {name}"))));
        }
        for certificate in list(site, "certificates") {
            let left = certificate["seconds_left"].as_i64().unwrap_or_default();
            let end = text(certificate, "not_after").get(..10).unwrap_or("-").to_owned();
            let is_loud = !matches!(text(certificate, "state"), "valid" | "-");
            let row = format!("{end} {:>8}  {name}  {}", span(left), text(certificate, "algorithm"));
            rows.push((left, DisplayLine::signed(is_loud, &row)));
        }
    }
    rows.sort();
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Makes the lines of a display. What does not fit is counted, and lines are cut.
pub(super) fn blocks(scene: Option<&Scene>, error: Option<&str>, look: &DisplaySpace) -> Vec<String> {
    let mut lines = Vec::new();
    let head = DisplayLine::plain("pintle: waiting for the running process");
    let nothing = Scene { head, ..Scene::default() };
    let scene = scene.unwrap_or(&nothing);
    lines.push(scene.head.clone());
    lines.extend(error.map(|error| DisplayLine::signed(true, &format!("no answer: {error}"))));
    let titled = [("upstreams", &scene.upstreams), ("certificates", &scene.certificates)];
    let titled: Vec<_> = titled.into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
    let mut traffic = Vec::new();
    if !scene.traffic.is_empty() {
        traffic.push(DisplayLine::default());
        traffic.extend(scene.traffic.iter().map(DisplayLine::plain));
        if look.rows.is_none_or(|rows| rows >= LATENCIES_LEAST) {
            traffic.extend(scene.latencies.iter().map(DisplayLine::plain));
        }
    }
    let mut room = look.rows.map_or(usize::MAX, |rows| rows.max(ROWS_LEAST).saturating_sub(lines.len()));
    // Trouble and its number have rows in any case, and so has the number of each list's rows.
    let trouble = scene.attention.len().min(2);
    traffic.truncate(room.saturating_sub(trouble + titled.len()));
    let wanted = LIST_LEAST * titled.len();
    let lists = if room < trouble + traffic.len() + wanted { titled.len() } else { wanted };
    let shown = fit(&scene.attention, room.saturating_sub(traffic.len() + lists));
    room = room.saturating_sub(traffic.len() + shown.len());
    lines.extend(shown);
    lines.extend(traffic);
    for (at, (title, rows)) in titled.iter().enumerate() {
        let others = titled.len() - at - 1;
        // Rows that one list leaves go to the next.
        let next = titled.get(at + 1).map_or(0, |(_, next)| next.len() + LIST_LEAST - 1);
        let share = if others == 0 { room } else { room.div_ceil(2).max(room.saturating_sub(next)).max(LIST_LEAST) };
        let shown = under_title(title, rows, share.min(room.saturating_sub(others)));
        room = room.saturating_sub(shown.len());
        lines.extend(shown);
    }
    if let Some(rows) = look.rows {
        lines.truncate(rows);
    }
    lines.into_iter().map(|line| finished(&line, look)).collect()
}

/// A list under its title, or its length if there is no room for a row of it.
fn under_title(title: &str, rows: &[DisplayLine], room: usize) -> Vec<DisplayLine> {
    if room < LIST_LEAST {
        return vec![DisplayLine::plain(format!("{title}: {} not shown", rows.len()))];
    }
    let mut lines = vec![DisplayLine::default(), DisplayLine::plain(title)];
    lines.extend(fit(rows, room - lines.len()));
    lines
}

/// As many rows as there is room for; the last one counts the rest.
fn fit(rows: &[DisplayLine], room: usize) -> Vec<DisplayLine> {
    if rows.len() <= room {
        return rows.to_vec();
    }
    let Some(kept) = room.checked_sub(1) else { return Vec::new() };
    let mut shown = rows[..kept].to_vec();
    shown.push(DisplayLine::plain(format!("  and {} more", rows.len() - kept)));
    shown
}

/// A line that a terminal shows in one row: only characters of one column, cut at the last column.
fn finished(line: &DisplayLine, look: &DisplaySpace) -> String {
    let safe: String = line.text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let cut = look.columns.and_then(|columns| safe.split_at_checked(columns)).map_or(&*safe, |(kept, rest)| {
        // The first digits of a number would be another number.
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        if rest.starts_with(is_number) { kept.trim_end_matches(is_number) } else { kept }
    });
    let cut = cut.trim_end();
    match look.color && line.is_loud {
        true => format!("{LOUD}{cut}{QUIET}"),
        false => cut.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(sites: i64, troubles: usize, requests: u64) -> Value {
        let site = |n: i64| {
            json!({
                "site": format!("s{n}.example"), "upstream": format!("http://10.0.0.{n}"),
                "upstream_health": { "circuit": if n == 1 { "open" } else { "closed" }, "addresses": [{ "address": "10.0.0.1:80" }] },
                "certificates": [{ "seconds_left": 86_400 * (9 - n), "not_after": "2027-01-01T00:00:00Z",
                                   "state": "valid", "algorithm": "ecdsa-p256" }],
            })
        };
        json!({
            "version": "1", "pid": 7, "started": "2026-01-01T00:00:00Z", "connections": 3,
            "counters": { "requests": requests, "responses_2xx": requests },
            "latencies": { "edges_ms": [5, 10], "first_byte": [requests, 0, 0], "total": [0, 1, 0], "upstream": [0, 0, 1] },
            "attention": (0..troubles).map(|n| json!({ "site": "日本\u{1b}[31m", "what": format!("trouble {n}") })).collect::<Vec<_>>(),
            "sites": (0..sites).map(site).collect::<Vec<_>>(),
        })
    }

    fn scene(status: &Value, before: Option<(&Value, Duration)>) -> Scene {
        Scene::of(status, before, "2026-01-03T05:00:00Z".parse().unwrap())
    }

    fn look(columns: usize, rows: usize) -> DisplaySpace {
        DisplaySpace { columns: Some(columns), rows: Some(rows), color: false }
    }

    #[test]
    fn rates_are_since_the_answer_before() {
        let (old, new) = (status(1, 0, 100), status(1, 0, 150));
        let rates = scene(&new, Some((&old, Duration::from_secs(2)))).traffic;
        assert!(rates[0].starts_with("requests       25.0/s  2xx  25.0  3xx   0.0"), "{rates:?}");
        assert!(rates[0].ends_with("150 in all"), "{rates:?}");
        let mut other = old.clone();
        other["pid"] = 8.into();
        assert!(scene(&new, Some((&other, Duration::from_secs(2)))).traffic[0].contains("-/s"));
        assert!(scene(&new, None).traffic[0].contains("-/s"));
    }

    #[test]
    fn a_busy_edge_fits_80_columns() {
        for (requests, want) in [
            (999_999, "  999999 in all"),
            (1_234_567, "  1.2M in all"),
            (123_456_789, "  123.5M in all"),
            (45_678_901_234, "  45.7G in all"),
        ] {
            let (old, new) = (status(1, 0, requests - 99_999), status(1, 0, requests));
            for row in scene(&new, Some((&old, Duration::from_secs(1)))).traffic {
                assert!(row.len() <= 80, "{row}");
                assert!(!row.starts_with("requests") || row.ends_with(want), "{row}");
            }
        }
    }

    #[test]
    fn every_size_is_kept() {
        for (sites, troubles) in [(0, 0), (1, 0), (3, 1), (40, 40), (1, 40), (40, 0)] {
            let scene = scene(&status(sites, troubles, 1), None);
            for (columns, rows) in [(80, 24), (40, 10), (20, 5), (200, 60), (1, 1), (80, 3)] {
                let lines = blocks(Some(&scene), Some("no pintle listens at unix:/x"), &look(columns, rows));
                assert!(lines.len() <= rows, "{sites} {troubles} {columns}x{rows}: {lines:#?}");
                for line in &lines {
                    assert!(line.len() <= columns && line.bytes().all(|b| matches!(b, 32..127)), "{line:?}");
                }
            }
            let lines = blocks(Some(&scene), None, &look(80, 24));
            if sites == 40 && troubles == 0 {
                assert_eq!(lines.len(), 24, "the rows are used: {lines:#?}");
            }
            assert_eq!(lines.iter().any(|line| line == "upstreams"), sites > 0);
        }
    }

    #[test]
    fn little_space_hides_no_trouble_and_no_number() {
        for (rows, sites, troubles) in [(10, 1, 3), (10, 3, 1), (8, 40, 40), (5, 2, 1), (7, 1, 0), (10, 1, 0)] {
            let lines = blocks(Some(&scene(&status(sites, troubles, 1), None)), None, &look(40, rows));
            assert!((rows - 1..=rows).contains(&lines.len()), "{rows} rows are used: {lines:#?}");
            assert_eq!(lines[1].starts_with("! "), troubles > 0, "{lines:#?}");
            for title in ["upstreams", "certificates"] {
                let at = lines.iter().position(|line| line.starts_with(title)).unwrap_or_else(|| panic!("{lines:#?}"));
                let is_counted = lines[at] == format!("{title}: {sites} not shown");
                assert!(is_counted || lines.get(at + 1).is_some_and(|next| !next.is_empty()), "{title}: {lines:#?}");
            }
        }
    }

    #[test]
    fn trouble_comes_first() {
        let all = scene(&status(4, 2, 1), None);
        let lines = blocks(Some(&all), None, &look(80, 24));
        assert_eq!(lines[1], "! ???[31m: trouble 0");
        let at = lines.iter().position(|line| line == "upstreams").unwrap();
        assert_eq!(lines[at + 1], "! circuit open         http://10.0.0.1");
        let at = lines.iter().position(|line| line == "certificates").unwrap();
        assert!(lines[at + 1].contains("s3.example"), "the next to end: {lines:#?}");
        let loud = blocks(Some(&all), None, &DisplaySpace { color: true, ..look(10, 24) });
        assert_eq!(loud[1], "\u{1b}[1;31m! ???[31m:\u{1b}[0m");
        let mark = DisplayLine::plain("! in a plain line");
        assert_eq!(finished(&mark, &DisplaySpace { color: true, ..DisplaySpace::PLAIN }), mark.text);
        let line = DisplayLine::plain("requests  46.4/s  12345678 in all");
        let number = |columns: usize| finished(&line, &look(columns, 1));
        assert_eq!(
            (number(26), number(25), number(20), number(13)),
            (
                "requests  46.4/s  12345678".into(),
                "requests  46.4/s".into(),
                "requests  46.4/s".into(),
                "requests".into()
            ),
            "no part of a number"
        );
        assert_eq!(blocks(None, None, &DisplaySpace::PLAIN), ["pintle: waiting for the running process"]);
    }
}
