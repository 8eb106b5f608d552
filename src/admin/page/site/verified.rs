//! The table of `pintle verify` for a site.

use serde_json::Value;

use crate::admin::api::Answer;
use crate::admin::page::value::{WayOut, capital, list, some, text, ways_out};
use crate::reason::counted;

/// The outcome of a verification.
pub(super) struct VerifiedSite {
    pub(super) class: &'static str,
    pub(super) icon: &'static str,
    pub(super) title: String,
    pub(super) note: String,
    pub(super) groups: Vec<VerifiedGroup>,
    pub(super) ways: Vec<WayOut>,
}

/// The checks of one subject.
pub(super) struct VerifiedGroup {
    pub(super) name: String,
    pub(super) rows: Vec<VerifiedRow>,
}

/// A check.
pub(super) struct VerifiedRow {
    pub(super) icon: &'static str,
    pub(super) class: &'static str,
    pub(super) word: &'static str,
    pub(super) check: String,
    pub(super) message: String,
    pub(super) hint: Option<WayOut>,
}

impl VerifiedSite {
    /// The table of an answer.
    pub(super) fn of(answer: &Answer) -> Self {
        let body = &answer.body;
        if !answer.is_ok() {
            let title = some(body, "error").unwrap_or_else(|| "pintle did not answer".to_owned());
            let (class, icon, note) = ("v-warn", "warn", "Nothing was verified.".to_owned());
            return Self { class, icon, title, note, groups: Vec::new(), ways: ways_out(body) };
        }
        let findings = list(body, "findings");
        let number = |level: &str| findings.iter().filter(|finding| finding["level"] == level).count();
        let (class, icon, title) = match (number("error"), number("warning")) {
            (0, 0) => ("v-ok", "ok", "A strict client finds no fault".to_owned()),
            (0, warnings) => ("v-warn", "warn", format!("No fault, {}", counted(warnings, "warning"))),
            (faults, 0) => ("v-bad", "bad", counted(faults, "fault")),
            (faults, more) => ("v-bad", "bad", format!("{}, {}", counted(faults, "fault"), counted(more, "warning"))),
        };
        let mut groups: Vec<VerifiedGroup> = Vec::new();
        for finding in findings {
            let name = capital(finding["group"].as_str().unwrap_or_default());
            match groups.iter_mut().find(|group| group.name == name) {
                Some(group) => group.rows.push(row(finding)),
                None => groups.push(VerifiedGroup { name, rows: vec![row(finding)] }),
            }
        }
        let at = some(body, "address").map(|address| format!(" at {address}")).unwrap_or_default();
        let note = format!("{}{at}, with Mozilla's roots. From outside: {}", text(body, "url"), text(body, "command"));
        Self { class, icon, title, note, groups, ways: Vec::new() }
    }
}

fn row(finding: &Value) -> VerifiedRow {
    let (icon, class, word) = match finding["level"].as_str() {
        Some("error") => ("bad", "t-bad", "Fault"),
        Some("warning") => ("warn", "t-warn", "Warning"),
        Some("note") => ("info", "quiet", "Note"),
        _ => ("ok", "t-ok", "Fine"),
    };
    let hint = some(finding, "hint").map(WayOut::sentence);
    VerifiedRow { icon, class, word, check: text(finding, "check"), message: text(finding, "message"), hint }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_and_refusals() {
        let finding = |group: &str, level: &str| json!({ "group": group, "level": level, "check": "x", "message": "y", "hint": null });
        let of = |findings: Value| {
            VerifiedSite::of(&Answer::json(StatusCode::OK, json!({ "url": "u", "findings": findings })))
        };
        let fine = of(json!([finding("TLS", "ok"), finding("pins", "note"), finding("TLS", "ok")]));
        assert_eq!((fine.class, fine.groups.len(), fine.groups[0].rows.len()), ("v-ok", 2, 2));
        assert_eq!((fine.groups[1].name.as_str(), fine.groups[1].rows[0].word), ("Pins", "Note"));
        let bad = of(json!([finding("TLS", "error"), finding("page", "warning")]));
        assert_eq!((bad.class, bad.title.as_str()), ("v-bad", "1 fault, 1 warning"));
        let body = json!({ "error": "busy", "hints": ["pintle upgrade"], "commands": ["pintle upgrade"] });
        let refused = VerifiedSite::of(&Answer::json(StatusCode::CONFLICT, body));
        assert!(refused.title == "busy" && refused.ways[0].is_command && refused.groups.is_empty());
    }
}
