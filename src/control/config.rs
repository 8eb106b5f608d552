//! The configuration over the API: its text, the verdict on another one, a change, and the history.

use std::path::Path;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::Control;
use super::admin::{AdminCommand, AdoptionOrigin, Change, Changed, CheckedText, InUse, ReloadOutcome};
use super::difference::unified;
use super::reload::Halt;
use crate::acme::request::ask;
use crate::admin::api::{Answer, Call};
pub use crate::admin::asked::encoded;
use crate::admin::asked::{parameter, unescaped};
use crate::config::edit::{EditError, EditTarget, matches, tag};
use crate::config::history::{ConfigHistory, ConfigVersion, Fault, How, secrets};
use crate::config::{Changes, Draft, KnownText, Problems, Stamps};
use crate::reason::{Problem, Reason};

/// The versions of one answer, and the number without a wish.
const VERSIONS_MAX: usize = 500;
const VERSIONS: usize = 50;

/// Answers a call about the configuration; `None` if the path has no such method.
pub(super) async fn answer(path: &str, call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Option<Answer> {
    let name = path.strip_prefix("/config")?;
    let is_get = call.method == Method::GET;
    match (name, &call.method) {
        ("/check", &Method::POST) => return Some(check(call, commands).await),
        ("", &Method::PUT) => return Some(put(call, commands).await),
        ("/restore", &Method::POST) => return Some(restore(call, commands).await),
        _ if !is_get => return None,
        _ => {}
    }
    let Some(in_use) = ask(commands, AdminCommand::Config).await else { return Some(Answer::gone()) };
    let (name, query) = (name.to_owned(), call.query.clone());
    let read = spawn_blocking(move || read(&name, &query, &in_use));
    read.await.unwrap_or_else(|panic| Some(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string())))
}

/// Answers a question from the files; `None` if the API has none of this name.
fn read(name: &str, query: &str, in_use: &InUse) -> Option<Answer> {
    Some(match name {
        "" => shown(in_use, parameter(query, "text").as_deref() != Some("false")),
        "/text" => text(in_use),
        "/history" => versions(in_use, query),
        "/diff" => diff(in_use, query),
        name => version(in_use, &unescaped(name.strip_prefix("/history/")?)),
    })
}

/// Answers a question as the API would, without a running process: the newest version is the one in use.
#[must_use]
pub fn offline(draft: &Draft, name: &str, query: &str) -> (StatusCode, Value) {
    let history = draft.state().map(|state| ConfigHistory::of(&state, draft.path()));
    let newest = history.as_ref().and_then(|history| history.version("HEAD").ok());
    let (loaded, text) = newest.map(|(version, text)| (version.at, text)).unwrap_or_default();
    let recorder = Value::Null;
    let (path, may_edit) = (draft.path().to_owned(), draft.may_edit());
    let text = Arc::new(KnownText::new(text.into()));
    let in_use = InUse { path, text, loaded, history, recorder, may_edit };
    match read(name, query, &in_use) {
        Some(answer) => (answer.status, answer.body),
        None => (StatusCode::NOT_FOUND, json!({ "error": "no such question" })),
    }
}

fn of_fault(fault: &Fault) -> Answer {
    let status = match fault {
        Fault::NoSuch { .. } => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Answer::refused(status, &fault.reason())
}

fn of_edit(error: &EditError) -> Answer {
    let status = match error {
        EditError::Changed(_) => StatusCode::PRECONDITION_FAILED,
        error if error.is_denied() => StatusCode::FORBIDDEN,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Answer::refused(status, &error.reason())
}

fn with_tag(answer: Answer, tag: String) -> Answer {
    Answer { etag: Some(tag), ..answer }
}

/// The state of the file, and its text without its secrets, if that is wanted: the text of many sites is long.
fn shown(in_use: &InUse, with_text: bool) -> Answer {
    let target = match EditTarget::look(&in_use.path) {
        Ok(target) => target,
        Err(error) => return of_edit(&error),
    };
    let tried = match in_use.may_edit {
        true => target.permitted(),
        false => Err(EditError::NotPermitted(in_use.path.clone())),
    };
    let tried = tried.map_err(|error| error.reason());
    let known = in_use.known(&target);
    let (file, running) = (known.tag(), in_use.text.tag());
    let body = json!({
        "file": in_use.path.display().to_string(),
        "tag": file,
        "text": if with_text { known.masked().map(|masked| &**masked) } else { None },
        "running": { "tag": running, "same": running == file, "loaded": in_use.loaded.to_string() },
        "history": in_use.recorder,
        "writable": tried.is_ok(),
        "not_writable": tried.err().map(|reason| {
            json!({ "error": reason.line(), "hints": reason.hints, "commands": reason.commands })
        }),
    });
    with_tag(Answer::json(StatusCode::OK, body), file.to_owned())
}

/// The text of the file as it is, with its tag. For those who may change it.
pub(super) async fn text_of_file(commands: &mpsc::Sender<AdminCommand>) -> Result<(String, String), Answer> {
    let Some(in_use) = ask(commands, AdminCommand::Config).await else { return Err(Answer::gone()) };
    match spawn_blocking(move || EditTarget::look(&in_use.path)).await {
        Ok(Ok(target)) => Ok((target.text().to_owned(), tag(target.text()))),
        Ok(Err(error)) => Err(of_edit(&error)),
        Err(panic) => Err(Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string())),
    }
}

/// The file as it is, for those who may change it.
fn text(in_use: &InUse) -> Answer {
    match EditTarget::look(&in_use.path) {
        Ok(target) => {
            let known = in_use.known(&target);
            let tag = known.tag();
            let body = json!({ "file": in_use.path.display().to_string(), "tag": tag, "text": target.text() });
            with_tag(Answer::json(StatusCode::OK, body), tag.to_owned())
        }
        Err(error) => of_edit(&error),
    }
}

fn no_history() -> Answer {
    let reason = Reason::new("state.directory is not set: no history is kept");
    Answer::refused(StatusCode::NOT_FOUND, &reason.hint("[state] with directory = \"state\", a folder of pintle's own"))
}

fn versions(in_use: &InUse, query: &str) -> Answer {
    let Some(history) = &in_use.history else { return no_history() };
    let most = match parameter(query, "limit").map(|most| most.parse()) {
        None => VERSIONS,
        Some(Ok(most @ 1..=VERSIONS_MAX)) => most,
        Some(_) => return Answer::bad(&format!("limit: must be between 1 and {VERSIONS_MAX}")),
    };
    // One more says whether there are more.
    match history.versions(parameter(query, "before").as_deref(), most + 1) {
        Ok(mut versions) => {
            let more = versions.len() > most;
            versions.truncate(most);
            let next = versions.last().filter(|_| more).map(|version| &version.id);
            let running = in_use.text.id();
            let body = json!({
                "directory": history.path().display().to_string(), "versions": versions, "next": next,
                "running": running, "state": in_use.recorder,
            });
            Answer::json(StatusCode::OK, body)
        }
        Err(fault) => of_fault(&fault),
    }
}

fn version(in_use: &InUse, id: &str) -> Answer {
    let Some(history) = &in_use.history else { return no_history() };
    match history.version_and_before(id) {
        Ok((version, text, before)) => {
            let parent = version.parent.as_ref().map_or("nothing", |parent| parent.as_str());
            let diff = unified((parent, &before), (&version.id, &text));
            Answer::json(StatusCode::OK, json!({ "version": version, "text": text, "diff": diff }))
        }
        Err(fault) => of_fault(&fault),
    }
}

impl InUse {
    /// The known facts about the file's text, which is mostly the one in use.
    fn known(&self, target: &EditTarget) -> Arc<KnownText> {
        match target.text() == &**self.text.text() {
            true => self.text.clone(),
            false => Arc::new(KnownText::new(target.text().into())),
        }
    }

    /// A text without its secrets, and its name. `asked` is `running`, `file`, or the id of a version.
    fn side(&self, asked: &str) -> Result<(String, String), Answer> {
        let masked = |name: String, text: &KnownText| match text.masked() {
            Some(masked) => Ok((name, masked.to_string())),
            None => Err(Answer::refused(
                StatusCode::CONFLICT,
                &Reason::new(format!("{name}: not TOML")).command("pintle check"),
            )),
        };
        match asked {
            "running" => masked("running".into(), &self.text),
            "file" => {
                let target = EditTarget::look(&self.path).map_err(|error| of_edit(&error))?;
                masked(self.path.display().to_string(), &self.known(&target))
            }
            id => {
                let history = self.history.as_ref().ok_or_else(no_history)?;
                let (ConfigVersion { id, .. }, text) = history.version(id).map_err(|fault| of_fault(&fault))?;
                Ok((id, text))
            }
        }
    }
}

fn diff(in_use: &InUse, query: &str) -> Answer {
    let (from, to) = (parameter(query, "from"), parameter(query, "to"));
    // Mostly, the file is the running version: nobody has to read both for that.
    let is_running = || EditTarget::look(&in_use.path).is_ok_and(|target| target.text() == &**in_use.text.text());
    if from.is_none() && to.is_none() && is_running() {
        return Answer::json(
            StatusCode::OK,
            json!({ "from": "running", "to": in_use.path.display().to_string(), "same": true, "diff": "" }),
        );
    }
    let both = in_use
        .side(from.as_deref().unwrap_or("running"))
        .and_then(|from| Ok((from, in_use.side(to.as_deref().unwrap_or("file"))?)));
    match both {
        Ok(((from, old), (to, new))) => {
            let diff = unified((&from, &old), (&to, &new));
            Answer::json(StatusCode::OK, json!({ "from": from, "to": to, "same": diff.is_empty(), "diff": diff }))
        }
        Err(answer) => answer,
    }
}

/// The verdict on a text, as if it were the file's.
async fn check(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let Ok(text) = std::str::from_utf8(&call.body).map(str::to_owned) else { return not_text() };
    let with_file = match parameter(&call.query, "against").as_deref() {
        None | Some("running") => false,
        Some("file") => true,
        Some(_) => return Answer::bad("against: neither running nor file"),
    };
    let checked = ask(commands, |reply| AdminCommand::CheckConfig { text, reply }).await;
    let Some(checked) = checked else { return Answer::gone() };
    let compared = spawn_blocking(move || checked.answer(with_file)).await;
    compared.unwrap_or_else(|panic| Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()))
}

impl CheckedText {
    /// The verdict with the difference. Large texts take their time, which the control thread does not have.
    fn answer(&self, with_file: bool) -> Answer {
        let Self { verdict, text, running, path } = self;
        let status = if verdict.ok { StatusCode::OK } else { StatusCode::CONFLICT };
        let file;
        let (from, old) = match with_file {
            true => match EditTarget::look(path) {
                Ok(target) => {
                    file = secrets::masked(target.text());
                    ("file", file.as_deref().unwrap_or_default())
                }
                Err(error) => return of_edit(&error),
            },
            false => ("running", running.masked().map(|masked| &**masked).unwrap_or_default()),
        };
        let diff = secrets::masked(text).map(|masked| unified((from, old), ("new", &masked)));
        let mut body = json!(verdict);
        body["tag"] = json!(tag(text));
        body["diff"] = json!(diff);
        Answer::json(status, body)
    }
}

fn not_text() -> Answer {
    Answer::bad("the body is not UTF-8")
}

/// `If-Match`, without which nothing is changed (RFC 6585 section 3).
fn if_match(call: &Call) -> Result<String, Answer> {
    call.if_match.clone().ok_or_else(|| {
        let reason = Reason::new("If-Match is missing: a change names the text that it replaces");
        Answer::refused(StatusCode::PRECONDITION_REQUIRED, &reason.hint("If-Match: the ETag of GET /v1/config"))
    })
}

async fn put(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let Ok(text) = std::str::from_utf8(&call.body).map(str::to_owned) else { return not_text() };
    match if_match(call) {
        Ok(if_match) => {
            let origin = AdoptionOrigin::new(How::Apply, call.who.clone());
            change(Change { text, if_match, origin }, commands).await
        }
        Err(answer) => answer,
    }
}

async fn restore(call: &Call, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    let Some(id) = parameter(&call.query, "id") else { return Answer::bad("id: which version?") };
    let if_match = match if_match(call) {
        Ok(if_match) => if_match,
        Err(answer) => return answer,
    };
    let Some(in_use) = ask(commands, AdminCommand::Config).await else { return Answer::gone() };
    let Some(history) = in_use.history else { return no_history() };
    let read = spawn_blocking(move || history.version(&id)).await;
    match read {
        Ok(Ok((version, text))) => {
            let restores = Some(version.id);
            let origin = AdoptionOrigin { restores, ..AdoptionOrigin::new(How::Restore, call.who.clone()) };
            change(Change { text, if_match, origin }, commands).await
        }
        Ok(Err(fault)) => of_fault(&fault),
        Err(panic) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &panic.to_string()),
    }
}

async fn change(change: Change, commands: &mpsc::Sender<AdminCommand>) -> Answer {
    match ask(commands, |reply| AdminCommand::ChangeConfig { change: Box::new(change), reply }).await {
        Some(Changed::Done { verdict, version, tag }) => {
            let mut body = json!(verdict);
            body["version"] = json!(version);
            with_tag(Answer::json(StatusCode::OK, body), tag)
        }
        Some(Changed::Refused(verdict)) => Answer::json(StatusCode::CONFLICT, json!(verdict)),
        Some(Changed::Not(error)) => of_edit(&error),
        None => Answer::gone(),
    }
}

/// The secrets that a text lacks, as problems of the text.
fn lacking(path: &Path, text: &str, missing: Vec<secrets::MissingSecret>) -> Vec<Problem> {
    let mut problems = Problems::new(path, text.to_owned());
    for missing in missing {
        problems.error(&missing.span, missing.reason().hint("write the secret there"));
    }
    problems.shown()
}

impl Control {
    pub(super) fn config_in_use(&self, reply: oneshot::Sender<InUse>) {
        let _ = reply.send(InUse {
            path: self.draft.path().to_owned(),
            text: self.known_text(),
            loaded: self.loads.loaded,
            history: self.recorder.history().cloned(),
            recorder: self.recorder.status(),
            may_edit: self.draft.may_edit(),
        });
    }

    /// Judges a text as a reload would. Binds nothing, and makes no key.
    pub(super) fn check_config(&self, text: String) -> CheckedText {
        let draft = Draft::of_text(self.draft.path(), text);
        let verdict = match self.judge_draft(&draft, Stamps::default()) {
            Ok((config, problems)) => {
                let changes = Changes::between(&self.draft.text(), &draft.text());
                ReloadOutcome::new(true, problems.shown(), self.notes_of(&config, &changes))
            }
            Err(reasons) => ReloadOutcome::refused(reasons),
        };
        let path = self.draft.path().to_owned();
        CheckedText { verdict, text: draft.text(), running: self.known_text(), path }
    }

    /// Changes the file and puts it into use, or changes nothing.
    pub(super) async fn change_config(&mut self, change: Change) -> Changed {
        let Change { text, if_match, origin } = change;
        let path = self.draft.path().to_owned();
        if !self.draft.may_edit() {
            return Changed::Not(EditError::NotPermitted(path));
        }
        let looked = {
            let path = path.clone();
            spawn_blocking(move || EditTarget::look(&path)).await
        };
        let target = match looked {
            Ok(Ok(target)) => target,
            Ok(Err(error)) => return Changed::Not(error),
            Err(panic) => return Changed::Refused(ReloadOutcome::refused(vec![panic.to_string().into()])),
        };
        if !matches(&if_match, &tag(target.text())) {
            return Changed::Not(EditError::Changed(path));
        }
        let text = match secrets::unmasked(&text, target.text()) {
            Ok(text) => text,
            Err(missing) => return Changed::Refused(ReloadOutcome::refused(lacking(&path, &text, missing))),
        };
        match self.reload_with(target, text).await {
            Ok((problems, notes)) => {
                let verdict = self.reloaded(problems, notes, origin).await;
                let version = self.kept_version().await;
                Changed::Done { verdict, version, tag: tag(&self.draft.text()) }
            }
            Err(Halt::Refused(problems)) => Changed::Refused(ReloadOutcome::refused(problems)),
            Err(Halt::File(error)) => Changed::Not(error),
        }
    }
}
