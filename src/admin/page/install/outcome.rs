//! The answer of the API to a form of the page Install, in words.

use serde_json::Value;

use super::wish::WishedInstall;
use crate::admin::api::Answer;
use crate::admin::page::moment::Moment;
use crate::admin::page::value::{WayOut, capital, count, list, some, text, texts, ways_out};
use crate::reason::counted;

/// Problems that are shown at once.
const PROBLEMS_MAX: usize = 20;

/// The answer to a form.
pub(super) struct InstallOutcome {
    pub(super) level: &'static str,
    pub(super) title: String,
    pub(super) text: String,
    pub(super) problems: Vec<ShownInstallProblem>,
    pub(super) more_problems: usize,
    pub(super) ways: Vec<WayOut>,
    pub(super) facts: Option<PairFacts>,
    pub(super) lockout: Option<Lockout>,
    pub(super) apply: Option<ApplyForm>,
    pub(super) state: PairState,
}

/// The state of the files after a form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PairState {
    /// As they were.
    Unchanged,
    /// The new pair is served.
    Installed,
    /// The new files are in place, and clients get another certificate.
    Stuck,
}

/// A problem of the pair.
pub(super) struct ShownInstallProblem {
    pub(super) is_error: bool,
    pub(super) what: String,
    pub(super) ways: Vec<WayOut>,
}

/// The facts of the pair that was looked at.
pub(super) struct PairFacts {
    pub(super) names: String,
    pub(super) issuer: String,
    pub(super) ends: Option<Moment>,
    pub(super) pin: String,
    pub(super) key: String,
    pub(super) guard: String,
    pub(super) guard_class: &'static str,
    pub(super) certificates: usize,
}

/// The clients that the pair would lock out.
pub(super) struct Lockout {
    pub(super) sets: String,
    pub(super) until: String,
    pub(super) day: String,
    pub(super) is_accepted: bool,
}

/// The form that installs what was looked at.
pub(super) struct ApplyForm {
    /// `install` or `back`.
    pub(super) what: &'static str,
    pub(super) chain_pem: String,
    pub(super) algorithm: String,
    /// The key was given, and is not kept: it has to be given again.
    pub(super) needs_key: bool,
    pub(super) accept: String,
}

pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

pub(super) fn lockout(body: &Value) -> Option<Lockout> {
    let broken = &body["lockout"];
    let until = Moment::of(&broken["until"], now())?;
    Some(Lockout {
        sets: counted(count(broken, "sets"), "set"),
        until: until.minute,
        day: text(broken, "day"),
        is_accepted: body["ok"] == true,
    })
}

impl Lockout {
    /// `it is in none of 2 sets of pins that clients hold until …`
    pub(super) fn words(&self) -> String {
        format!("no key of the chain is in {} of pins, held until {}", self.sets, self.until)
    }
}

impl InstallOutcome {
    pub(super) fn plain(level: &'static str, title: &str, text: &str) -> Self {
        Self {
            level,
            title: title.to_owned(),
            text: text.to_owned(),
            problems: Vec::new(),
            more_problems: 0,
            ways: Vec::new(),
            facts: None,
            lockout: None,
            apply: None,
            state: PairState::Unchanged,
        }
    }
}

/// The answer of the API in words.
pub(super) fn outcome(answer: &Answer, wish: &WishedInstall<'_>) -> InstallOutcome {
    let body = &answer.body;
    let named = wish.name();
    if some(body, "verdict").is_none() {
        let error = some(body, "error").unwrap_or_default();
        let ways = ways_out(body);
        let (title, text) = match body["kind"].as_str() {
            Some("private-key") => (format!("{named} has a private key. It was wiped, not read"), capital(&error)),
            _ => (format!("{named} was not installed"), error),
        };
        return InstallOutcome { ways, ..InstallOutcome::plain("bad", &title, &text) };
    }
    let is_fit = body["ok"] == true;
    let problems = list(body, "reasons");
    let shown = problems.iter().take(PROBLEMS_MAX).map(|problem| ShownInstallProblem {
        is_error: problem["severity"] != "warning",
        what: text(problem, "what"),
        ways: ways_out(problem),
    });
    let (problems_shown, more_problems) = (shown.collect(), problems.len().saturating_sub(PROBLEMS_MAX));
    let lockout = lockout(body);
    let (level, title, text) = if wish.dry_run { verdict_words(body, &named) } else { applied_words(body, wish) };
    let can_apply = body["writable"] == true && (is_fit || lockout.is_some()) && (wish.dry_run || !is_fit);
    let apply = can_apply.then(|| ApplyForm {
        what: if wish.is_previous { "back" } else { "install" },
        chain_pem: if wish.is_previous { String::new() } else { self::text(body, "chain_pem") },
        algorithm: wish.algorithm.unwrap_or_default().to_owned(),
        needs_key: body["key"] == "given" && !wish.is_previous,
        accept: wish.accept.filter(|_| is_fit).unwrap_or_default().to_owned(),
    });
    let state = match (wish.dry_run, is_fit) {
        (false, true) => PairState::Installed,
        (false, false) if !list(body, "written").is_empty() && body["rolled_back"] != true => PairState::Stuck,
        _ => PairState::Unchanged,
    };
    InstallOutcome {
        state,
        level,
        title,
        text,
        problems: problems_shown,
        more_problems,
        ways: ways_out(body),
        facts: Some(facts(body, lockout.as_ref())),
        lockout,
        apply,
    }
}

/// The level, the title and the text of a verdict.
fn verdict_words(body: &Value, named: &str) -> (&'static str, String, String) {
    let site = text(body, "site");
    match (body["ok"] == true, body["writable"] == true) {
        (true, true) => ("ok", format!("{named} is fit to be served"), format!("For {site}. Nothing has changed yet.")),
        (true, false) => {
            let why = text(&body["not_writable"], "error");
            ("warn", format!("{named} is fit, but pintle may not write it"), capital(&why))
        }
        (false, _) if body["lockout"].is_object() => {
            let title = format!("Refused: {named} would lock readers out");
            ("bad", title, format!("For {site}. No key of the chain is in every set of pins that clients hold."))
        }
        (false, _) => {
            ("bad", format!("Refused: {named} cannot be served"), format!("For {site}. Nothing has changed."))
        }
    }
}

/// The same for an installation.
fn applied_words(body: &Value, wish: &WishedInstall<'_>) -> (&'static str, String, String) {
    let done = if wish.is_previous { "Rolled back" } else { "Installed" };
    let (by, site) = (text(body, "verification"), text(body, "site"));
    match (body["ok"] == true, body["verified"] == true) {
        (true, true) => ("ok", format!("{done}. {by}"), format!("{site} has it now. The pair before it is kept.")),
        (true, false) => ("warn", format!("{done}, and not verified"), capital(&by)),
        (false, _) => {
            let why = some(body, "error").unwrap_or_else(|| "pintle refuses it.".to_owned());
            let title = if wish.is_previous { "Not rolled back" } else { "Not installed" };
            ("bad", title.to_owned(), capital(&why))
        }
    }
}

fn facts(body: &Value, lockout: Option<&Lockout>) -> PairFacts {
    let certificates = list(body, "certificates");
    let leaf = certificates.first().cloned().unwrap_or_default();
    let key = match body["key"].as_str() {
        Some("in-use") => "the key in use".to_owned(),
        Some("found") => format!("found: {}", text(body, "key_file")),
        Some("given") => "the given key".to_owned(),
        _ => "no key here".to_owned(),
    };
    let (guard, guard_class) = match lockout {
        None => ("locks nobody out".to_owned(), "t-ok"),
        Some(lockout) => (format!("locks out {}, until {}", lockout.sets, lockout.until), "t-bad"),
    };
    PairFacts {
        names: texts(body, "names").join(", "),
        issuer: text(&leaf, "issuer"),
        ends: Moment::of(&leaf["not_after"], now()),
        pin: text(body, "pin"),
        certificates: certificates.len(),
        key,
        guard,
        guard_class,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use serde_json::json;

    use super::super::wish::Uploaded;
    use super::*;

    fn wish<'w>(given: &'w Uploaded<'w>, dry_run: bool) -> WishedInstall<'w> {
        WishedInstall { site: "a.example", given, is_previous: false, dry_run, algorithm: None, accept: None }
    }

    #[test]
    fn words_of_outcomes() {
        let given = Uploaded { chain: Some(("a.pem".into(), b"x")), key: None };
        let refused = json!({
            "verdict": "refused", "ok": false, "writable": true, "site": "a.example", "chain_pem": "PEM", "key": "found",
            "lockout": { "sets": 2, "until": "2027-02-19T08:00:00Z", "day": "2027-02-20" },
            "reasons": [{ "severity": "error", "what": "would lock readers out", "hints": ["pintle status", "wait"], "commands": ["pintle status"] }],
        });
        let shown = outcome(&Answer::json(StatusCode::CONFLICT, refused), &wish(&given, true));
        assert_eq!((shown.level, shown.title.as_str()), ("bad", "Refused: a.pem would lock readers out"));
        let (lockout, apply) = (shown.lockout.unwrap(), shown.apply.unwrap());
        assert_eq!((lockout.day.as_str(), lockout.sets.as_str()), ("2027-02-20", "2 sets"));
        assert!(!lockout.is_accepted && apply.what == "install" && apply.accept.is_empty() && !apply.needs_key);
        assert!(shown.problems[0].ways[0].is_command && !shown.problems[0].ways[1].is_command);
        let done = json!({
            "verdict": "fit", "ok": true, "writable": true, "verified": true, "site": "a.example", "key": "given",
            "verification": "127.0.0.1:443 serves it for a.example",
        });
        let shown = outcome(&Answer::json(StatusCode::OK, done), &wish(&given, false));
        assert!(shown.level == "ok" && shown.apply.is_none() && shown.state == PairState::Installed);
        assert_eq!(shown.title, "Installed. 127.0.0.1:443 serves it for a.example");
        let secret =
            json!({ "kind": "private-key", "error": "this is a private key", "hints": ["sudo pintle install"] });
        let shown = outcome(&Answer::json(StatusCode::FORBIDDEN, secret), &wish(&given, true));
        assert_eq!(shown.title, "a.pem has a private key. It was wiped, not read");
    }
}
