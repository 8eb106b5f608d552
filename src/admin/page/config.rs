//! The configuration: can it be applied, and if not, which line? Its difference, and its history.

mod diff;
mod editor;
mod event;
mod problem;

use askama::Template;
use http::StatusCode;
use serde_json::Value;

use super::error;
use super::value::{WayOut, list, text, texts, ways_out};
use crate::admin::api::{Answer, Api, Call};
use crate::admin::asked::{PageRequest, encoded};
use crate::admin::reply::{Page, PageFrame};
use crate::config::admin::AdminRole;
use crate::config::history::ConfigVersion;
use diff::{DiffKind, LineDiff};
use editor::{EditedLines, EditorLine, Mark, TextPart};
use event::ConfigEvent;
use problem::{ShownProblem, is_error};

/// Versions on one page.
const VERSIONS: usize = 20;
/// The fewest rows of the editor.
const ROWS_MIN: usize = 8;
/// The path of the page.
const PATH: &str = "/config";

#[derive(Template)]
#[template(path = "config.html")]
struct ConfigView {
    frame: PageFrame,
    head: ConfigHead,
    file: String,
    /// The tag of the text that a change replaces.
    base: String,
    part: TextPart,
    rows: usize,
    lines: Vec<EditorLine>,
    find: String,
    problems: Vec<ShownProblem>,
    more_problems: usize,
    diff: LineDiff,
    diff_title: String,
    versions: Vec<VersionRow>,
    next: Option<String>,
    history_trouble: Option<ConfigTrouble>,
    opened: Option<OpenedVersion>,
    may_edit: bool,
    /// The reason why this process cannot write the file.
    not_writable: Option<ConfigTrouble>,
}

/// The first line of the page.
struct ConfigHead {
    chip: &'static str,
    word: &'static str,
    answer: String,
    /// Something happened: it comes with the answer to a form.
    event: Option<ConfigEvent>,
}

/// A fault and its remedies.
struct ConfigTrouble {
    what: String,
    hints: Vec<WayOut>,
}

/// A version in the table.
struct VersionRow {
    version: ConfigVersion,
    day: String,
    time: String,
    is_running: bool,
}

/// The version that is looked at.
struct OpenedVersion {
    row: VersionRow,
    /// The change that the version made.
    diff: LineDiff,
    /// The change that it would make if it were brought back; `None` if it runs.
    back: Option<LineDiff>,
}

/// The text of the form, and what is known of it.
struct EditedText {
    text: String,
    base: String,
    around: usize,
    /// The lines of the file that the text was edited in; `None` if it is shown anew.
    window: Option<EditedLines>,
    verdict: Option<Value>,
    event: Option<ConfigEvent>,
    /// The difference is that from the file as it is now, and not from the running version.
    from_file: bool,
    status: StatusCode,
}

fn unanswered(asked: &PageRequest, answer: &Answer) -> Page {
    let why = answer.body["error"].as_str().unwrap_or("pintle did not answer");
    error::show_with(asked, answer.status, why, ways_out(&answer.body))
}

/// The page.
pub async fn show(api: &impl Api, asked: &PageRequest) -> Page {
    let mut now = match read(api, asked).await {
        Ok(now) => now,
        Err(page) => return page,
    };
    // The text of ten thousand sites is not copied.
    let text = match now.body["text"].take() {
        Value::String(text) => text,
        _ => String::new(),
    };
    let word = asked.query.get("find").unwrap_or_default();
    let line = asked.query.get("line").and_then(|line| line.parse().ok());
    let around = line.or_else(|| editor::find(&text, word)).unwrap_or(1);
    let event = asked.query.get("applied").and_then(ConfigEvent::applied);
    let base = now.etag.unwrap_or_default();
    let draft =
        EditedText { text, base, around, window: None, verdict: None, event, from_file: false, status: StatusCode::OK };
    rendered(api, asked, draft).await
}

/// The file: as it is for those who may change it, without its secrets for others.
async fn read(api: &impl Api, asked: &PageRequest) -> Result<Answer, Page> {
    let path = if asked.session.may(AdminRole::Configure) { "/v1/config/text" } else { "/v1/config" };
    let answer = api.call(Call::get(path)).await;
    if answer.is_ok() { Ok(answer) } else { Err(unanswered(asked, &answer)) }
}

/// The answer to the form of the editor.
pub async fn change(api: &impl Api, asked: &PageRequest) -> Page {
    let now = match read(api, asked).await {
        Ok(now) => now,
        Err(page) => return page,
    };
    let file = text(&now.body, "text");
    let field = |name: &str| asked.form.get(name).unwrap_or_default();
    let number = |name: &str| field(name).parse::<usize>().ok();
    let (first, count) = (number("first").unwrap_or(1), number("count").unwrap_or(usize::MAX));
    let base = field("base").to_owned();
    let is_whole = first == 1 && number("all").is_none_or(|all| count >= all);
    let is_same = now.etag.as_deref() == Some(&base);
    let sent = editor::received(field("toml"), &file);
    // A part belongs to the text that it was taken from.
    let text = match (is_whole, is_same) {
        (true, _) => Some(sent),
        (false, true) => editor::with_part(&file, first, count, &sent),
        (false, false) => None,
    };
    let Some(mut text) = text else {
        return changed_meanwhile(asked);
    };
    let fix = asked.form.get("fix").and_then(editor::of_fix_value);
    if let Some(fixed) = fix.and_then(|(mark, replacement)| editor::fixed(&text, mark, replacement)) {
        text = fixed;
    }
    let around = fix.map_or(first, |(mark, _)| mark.line);
    let is_apply = fix.is_none() && field("do") == "apply";
    let window = if is_whole { EditedLines::whole(&text) } else { EditedLines::of(&file, &text, first, count) };
    let window = Some(window);
    let draft =
        EditedText { text, base, around, window, verdict: None, event: None, from_file: false, status: StatusCode::OK };
    if is_apply { apply(api, asked, draft, now).await } else { check(api, asked, draft).await }
}

fn changed_meanwhile(asked: &PageRequest) -> Page {
    let way_out = "Nothing was changed. Open the page again, and make the change in the new text.";
    error::show(asked, StatusCode::CONFLICT, "Somebody else has changed the file meanwhile", way_out)
}

/// Shows a text that another page proposes, with its verdict: the reader applies it here, or not. `around` is its changed
/// line.
pub async fn propose(api: &impl Api, asked: &PageRequest, text: String, around: usize) -> Page {
    let now = match read(api, asked).await {
        Ok(now) => now,
        Err(page) => return page,
    };
    let file = crate::admin::page::value::text(&now.body, "text");
    let part = editor::part(&file, around);
    let window = match part.count < part.all {
        true => EditedLines::of(&file, &text, part.first, part.count),
        false => EditedLines::whole(&text),
    };
    let window = Some(window);
    let base = now.etag.unwrap_or_default();
    let draft =
        EditedText { text, base, around, window, verdict: None, event: None, from_file: false, status: StatusCode::OK };
    check(api, asked, draft).await
}

async fn check(api: &impl Api, asked: &PageRequest, draft: EditedText) -> Page {
    let answer = api.call(Call::post("/v1/config/check").body(draft.text.clone())).await;
    match answer.status {
        StatusCode::OK | StatusCode::CONFLICT => {
            rendered(api, asked, EditedText { verdict: Some(answer.body), ..draft }).await
        }
        _ => unanswered(asked, &answer),
    }
}

async fn apply(api: &impl Api, asked: &PageRequest, draft: EditedText, now: Answer) -> Page {
    let call = Call::new(http::Method::PUT, "/v1/config").body(draft.text.clone()).if_match(draft.base.clone());
    let answer = api.call(call).await;
    if answer.status == StatusCode::OK {
        if asked.form.get("next") == Some("first") {
            return Page::see("/");
        }
        let id = answer.body["version"].as_str().unwrap_or_default();
        return Page::see(format!("{PATH}?applied={}", encoded(id)));
    }
    refused(api, asked, draft, answer, now.etag).await
}

/// Shows the text again with the reason why it was not applied.
async fn refused(api: &impl Api, asked: &PageRequest, draft: EditedText, answer: Answer, tag: Option<String>) -> Page {
    let (what, hints) = (text(&answer.body, "error"), ways_out(&answer.body));
    let bad = |title: &str, text: String, hints| ConfigEvent { text, hints, ..ConfigEvent::bad(title) };
    let status = answer.status;
    let draft = match status {
        StatusCode::CONFLICT => {
            let event = bad("Not applied", "The file and the running version are untouched.".into(), Vec::new());
            EditedText { verdict: Some(answer.body), event: Some(event), ..draft }
        }
        // The lines of a part would be others in the new file.
        StatusCode::PRECONDITION_FAILED if draft.window.is_some_and(|lines| !lines.is_whole()) => {
            return changed_meanwhile(asked);
        }
        StatusCode::PRECONDITION_FAILED => {
            let text = "Your text is below, and the difference shows what it would change in the file as it is now. \
                        Apply again to replace that.";
            let event = bad("Not applied: somebody else has changed the file meanwhile", text.into(), Vec::new());
            let call = Call::post("/v1/config/check").with("against", "file").body(draft.text.clone());
            let checked = api.call(call).await;
            if !matches!(checked.status, StatusCode::OK | StatusCode::CONFLICT) {
                return unanswered(asked, &checked);
            }
            let (base, verdict) = (tag.unwrap_or_default(), Some(checked.body));
            EditedText { base, verdict, event: Some(event), from_file: true, ..draft }
        }
        _ => EditedText { event: Some(bad("Not applied", what, hints)), ..draft },
    };
    rendered(api, asked, EditedText { status, ..draft }).await
}

/// Brings a version back.
pub async fn restore(api: &impl Api, asked: &PageRequest) -> Page {
    let field = |name: &str| asked.form.get(name).unwrap_or_default();
    let call = Call::post("/v1/config/restore").with("id", field("id")).if_match(field("base"));
    let answer = api.call(call).await;
    if answer.status == StatusCode::OK {
        let id = answer.body["version"].as_str().unwrap_or_default();
        return Page::see(format!("{PATH}?applied={}", encoded(id)));
    }
    let now = match read(api, asked).await {
        Ok(now) => now,
        Err(page) => return page,
    };
    let (text, base) = (text(&now.body, "text"), now.etag.clone().unwrap_or_default());
    let status = answer.status;
    let draft =
        EditedText { text, base, around: 1, window: None, verdict: None, event: None, from_file: false, status };
    if status == StatusCode::PRECONDITION_FAILED {
        let title = "Not brought back: somebody else has changed the file meanwhile";
        let text = "The file as it is now is below. Look at the version again to bring it back.".to_owned();
        let event = ConfigEvent { text, ..ConfigEvent::bad(title) };
        return rendered(api, asked, EditedText { event: Some(event), ..draft }).await;
    }
    let body = problem::elsewhere(answer.body);
    refused(api, asked, draft, Answer { body, ..answer }, now.etag).await
}

async fn rendered(api: &impl Api, asked: &PageRequest, draft: EditedText) -> Page {
    let state = api.call(Call::get("/v1/config").with("text", "false")).await;
    if !state.is_ok() {
        return unanswered(asked, &state);
    }
    let before = asked.query.get("before");
    let mut listed = Call::get("/v1/config/history").with("limit", &VERSIONS.to_string());
    if let Some(before) = before {
        listed = listed.with("before", before);
    }
    let listed = api.call(listed).await;
    let opened = match asked.query.get("version") {
        Some(id) => Some(api.call(Call::get(format!("/v1/config/history/{}", encoded(id)))).await),
        None => None,
    };
    let found = opened.as_ref().filter(|answer| answer.is_ok());
    let back = match found.and_then(|answer| answer.body["version"]["id"].as_str()) {
        Some(id) => {
            let call = Call::get("/v1/config/diff").with("from", "running").with("to", id);
            text(&api.call(call).await.body, "diff")
        }
        None => String::new(),
    };
    let diff = match draft.verdict.as_ref().and_then(|verdict| verdict["diff"].as_str()) {
        Some(diff) => diff.to_owned(),
        // Mostly, the file is the running version: nobody has to read it again for that.
        None if draft.verdict.is_none() && state.body["running"]["same"] == true => String::new(),
        None => text(&api.call(Call::get("/v1/config/diff")).await.body, "diff"),
    };
    let status = draft.status;
    let draft = with_doubts(draft, &listed, opened.as_ref());
    let opened = opened.as_ref().map(|answer| (answer, back.as_str()));
    Page::of(&view(asked, draft, &state.body, &listed, opened, &diff)).with_status(status)
}

/// The text with the event that the answers allow: a link may claim a version that there is not.
fn with_doubts(draft: EditedText, listed: &Answer, opened: Option<&Answer>) -> EditedText {
    let newest = list(&listed.body, "versions").first().map(|version| text(version, "id"));
    let event = draft.event.filter(|event| event.version.as_ref().is_none_or(|id| Some(id) == newest.as_ref()));
    let missing = opened.filter(|answer| !answer.is_ok()).map(|answer| ConfigEvent {
        text: text(&answer.body, "error"),
        hints: ways_out(&answer.body),
        ..ConfigEvent::bad("This version cannot be shown")
    });
    EditedText { event: event.or(missing), ..draft }
}

fn view(
    asked: &PageRequest,
    draft: EditedText,
    state: &Value,
    listed: &Answer,
    opened: Option<(&Answer, &str)>,
    unified: &str,
) -> ConfigView {
    let verdict = draft.verdict.as_ref();
    let reasons = verdict.map(|verdict| list(verdict, "reasons")).unwrap_or_default();
    let marks: Vec<Mark> = reasons.iter().filter(|r| is_error(r)).filter_map(|r| Mark::of(&r["place"])).collect();
    let around = marks.first().map_or(draft.around, |mark| mark.line);
    let part = draft.window.map_or_else(|| editor::part(&draft.text, around), |lines| lines.part(&draft.text));
    let file = text(state, "file");
    let running = listed.body["running"].as_str();
    let problems = problem::first_of(reasons);
    let history_trouble = match listed.is_ok() {
        true => trouble(&state["history"]),
        false => trouble(&listed.body),
    };
    let diff_title = match verdict {
        Some(_) if draft.from_file => "Difference from the file as it is now",
        Some(_) => "Difference from the running version",
        None => "What a reload would change",
    };
    let may_edit = asked.session.may(AdminRole::Configure);
    ConfigView {
        frame: PageFrame::new(asked, "Configuration", PATH),
        head: head(&file, state, verdict, &marks, draft.event),
        rows: part.text.split('\n').count().max(ROWS_MIN),
        lines: editor::lines(&part, &marks),
        file,
        base: draft.base,
        part,
        find: asked.query.get("find").unwrap_or_default().to_owned(),
        more_problems: reasons.len().saturating_sub(problems.len()),
        problems,
        diff: diff::of(unified),
        diff_title: diff_title.to_owned(),
        next: listed.body["next"].as_str().map(str::to_owned),
        versions: rows(&listed.body, running),
        history_trouble,
        opened: opened.and_then(|(answer, back)| looked_at(answer, back, running)),
        may_edit,
        not_writable: trouble(&state["not_writable"]),
    }
}

/// The versions of the table. The newest with the text in use is the running one.
fn rows(listed: &Value, running: Option<&str>) -> Vec<VersionRow> {
    let mut rows: Vec<VersionRow> = Vec::new();
    for version in serde_json::from_value::<Vec<ConfigVersion>>(listed["versions"].clone()).unwrap_or_default() {
        let is_running = running.is_some() && version.text.as_deref() == running && !rows.iter().any(|r| r.is_running);
        rows.push(row(version, is_running));
    }
    rows
}

fn looked_at(answer: &Answer, back: &str, running: Option<&str>) -> Option<OpenedVersion> {
    let version = serde_json::from_value::<ConfigVersion>(answer.body["version"].clone()).ok()?;
    let is_running = running.is_some() && version.text.as_deref() == running;
    let back = (!is_running).then(|| diff::of(back));
    Some(OpenedVersion { row: row(version, is_running), diff: diff::of(&text(&answer.body, "diff")), back })
}

fn trouble(value: &Value) -> Option<ConfigTrouble> {
    Some(ConfigTrouble { what: value["error"].as_str()?.to_owned(), hints: ways_out(value) })
}

fn row(version: ConfigVersion, is_running: bool) -> VersionRow {
    let (day, time) = (version.at.strftime("%-d %b %Y").to_string(), version.at.strftime("%H:%M").to_string());
    VersionRow { version, day, time, is_running }
}

fn head(file: &str, state: &Value, verdict: Option<&Value>, marks: &[Mark], event: Option<ConfigEvent>) -> ConfigHead {
    let (chip, word, answer) = match verdict {
        Some(verdict) if verdict["ok"] == true => {
            let changes = texts(verdict, "notes").len();
            let what = if changes == 0 {
                "It changes nothing.".to_owned()
            } else {
                format!("It makes {}.", crate::reason::counted(changes, "change"))
            };
            ("ok", "Can be applied", format!("This text of {file} can be applied. {what}"))
        }
        Some(_) => {
            let place = match marks.first() {
                Some(mark) => format!("cannot be applied: line {} is first", mark.line),
                None => "cannot be applied".to_owned(),
            };
            ("bad", "Not applied", format!("This text of {file} {place}. The running version is untouched."))
        }
        None if state["running"]["same"] == true => ("ok", "Running", format!("pintle serves {file} as it is here.")),
        None => ("warn", "Not loaded", format!("{file} differs from the running version: a reload would load it.")),
    };
    ConfigHead { chip, word, answer, event }
}
