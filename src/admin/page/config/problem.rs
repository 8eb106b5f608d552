//! The problems of a text, each with its place, its remedies, and the button that applies one.

use serde_json::Value;

use super::editor::{self, Mark};
use crate::admin::page::value::{WayOut, length_on_page, text, texts, ways_out};

/// Problems on one page, and their bytes there.
const PROBLEMS_MAX: usize = 50;
const BYTES_MAX: usize = 8 << 10;
/// The bytes of a problem's tags.
const TAGS: usize = 330;

/// A problem of the text.
pub(super) struct ShownProblem {
    pub(super) is_error: bool,
    /// `Line 19`; empty without a place.
    pub(super) place: String,
    pub(super) what: String,
    pub(super) notes: Vec<String>,
    pub(super) hints: Vec<WayOut>,
    pub(super) fix: Option<FixButton>,
}

/// The button of a hint.
pub(super) struct FixButton {
    pub(super) value: String,
    pub(super) text: String,
}

impl ShownProblem {
    fn length(&self) -> usize {
        let hints = self.hints.iter().map(|hint| &hint.text);
        let fix = self.fix.iter().flat_map(|fix| [&fix.value, &fix.text]);
        let all = [&self.place, &self.what].into_iter().chain(&self.notes).chain(hints).chain(fix);
        all.map(|text| length_on_page(text)).sum::<usize>() + TAGS
    }
}

pub(super) fn is_error(reason: &Value) -> bool {
    reason["severity"] == "error"
}

/// A verdict on another text than that of the editor: its places are in words, and nothing is marked or fixed here.
pub(super) fn elsewhere(mut verdict: Value) -> Value {
    let reasons = verdict.get_mut("reasons").and_then(Value::as_array_mut);
    for reason in reasons.into_iter().flatten() {
        let mark = Mark::of(&reason["place"]);
        let front = mark.map(|mark| format!("line {} of the version: ", mark.line)).unwrap_or_default();
        let what = front + &text(reason, "what");
        if let Some(reason) = reason.as_object_mut() {
            reason.insert("what".to_owned(), what.into());
            reason.remove("place");
        }
    }
    verdict
}

/// The first problems, as many as a page has room for: one at least.
pub(super) fn first_of(reasons: &[Value]) -> Vec<ShownProblem> {
    let mut bytes = 0;
    let fits = |problem: &ShownProblem| {
        let is_first = bytes == 0;
        bytes += problem.length();
        is_first || bytes <= BYTES_MAX
    };
    reasons.iter().take(PROBLEMS_MAX).map(shown).take_while(fits).collect()
}

fn shown(reason: &Value) -> ShownProblem {
    let mark = Mark::of(&reason["place"]);
    let fix = mark.zip(reason["fix"].as_str());
    let fix = fix.map(|(mark, text)| FixButton { value: editor::fix_value(mark, text), text: text.to_owned() });
    ShownProblem {
        is_error: is_error(reason),
        place: mark.map(|mark| format!("Line {}", mark.line)).unwrap_or_default(),
        what: text(reason, "what"),
        notes: texts(reason, "notes"),
        hints: ways_out(reason),
        fix,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problems_of_another_text_mark_nothing() {
        let place = json!({ "line": 7, "column": 1 });
        let reason = json!({ "severity": "error", "what": "unknown key", "place": place, "fix": "idle" });
        let verdict = elsewhere(json!({ "ok": false, "reasons": [reason] }));
        let problem = first_of(verdict["reasons"].as_array().unwrap()).remove(0);
        assert_eq!((problem.what.as_str(), problem.place.as_str()), ("line 7 of the version: unknown key", ""));
        assert!(problem.is_error && problem.fix.is_none());
        assert_eq!(elsewhere(json!({ "error": "x" }))["error"], "x");
    }

    #[test]
    fn as_many_as_fit() {
        let of = |count: usize, what: &str| {
            let reason = json!({ "severity": "error", "what": what, "place": { "line": 1, "column": 1 }, "fix": "x" });
            first_of(&vec![reason; count]).len()
        };
        assert_eq!((of(0, ""), of(3, "unknown key"), of(100, "")), (0, 3, 23));
        assert_eq!(of(9, &"<".repeat(1000)), 1);
        assert_eq!(of(9, &"<".repeat(5000)), 1, "one in any case");
    }
}
